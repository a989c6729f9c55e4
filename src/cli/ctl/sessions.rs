//! `ctl sessions` as a table, `ctl session` as a list.

use serde_json::Value;

use crate::cli::table::{aligned, cut};
use crate::language::Language;
use crate::terminal::{escape, utc};
use unicode_width::UnicodeWidthStr;

const COLUMNS: usize = 12;

/// Columns of numbers.
const RIGHT: [usize; 7] = [3, 5, 6, 7, 8, 9, 10];

/// Columns that a narrow terminal does without, the first one first: the window, the level, the outbox.
const SPARED: [usize; 3] = [11, 3, 6];

const USER: usize = 0;
const SINCE: usize = 2;

/// A user's name in a narrow terminal, in cells.
const USER_CELLS: usize = 16;

/// One line for each session, and a head; whole, or so that it fits a terminal of `width` columns as far as can be.
pub fn table(answer: &Value, language: Language, now_ms: i64, width: Option<usize>) -> String {
    let mut rows = rows(answer, language, now_ms);
    let whole = aligned(&rows, &RIGHT);
    let Some(width) = width.filter(|width| !fits(&whole, *width)) else { return whole };
    let today = utc(now_ms.div_euclid(1000));
    for row in rows.iter_mut().skip(1) {
        row[USER] = cut(&row[USER], USER_CELLS).into_owned();
        row[SINCE] = short_time(&row[SINCE], &today).to_owned();
    }
    let mut columns: Vec<usize> = (0..COLUMNS).collect();
    let mut spared = SPARED.iter();
    loop {
        let chosen: Vec<Vec<String>> =
            rows.iter().map(|row| columns.iter().map(|column| row[*column].clone()).collect()).collect();
        let right: Vec<usize> = (0..columns.len()).filter(|at| RIGHT.contains(&columns[*at])).collect();
        let table = aligned(&chosen, &right);
        match spared.next() {
            Some(next) if !fits(&table, width) => columns.retain(|column| column != next),
            _ => return table,
        }
    }
}

fn fits(table: &str, width: usize) -> bool {
    table.lines().all(|line| line.width() <= width)
}

/// Of `2014-08-13T14:00:00Z` the time if that is today, else the date.
fn short_time<'t>(time: &'t str, today: &str) -> &'t str {
    match time.split_once('T') {
        Some((date, clock)) if today.starts_with(date) => clock.trim_end_matches('Z'),
        Some((date, _)) => date,
        None => time,
    }
}

fn rows(answer: &Value, language: Language, now_ms: i64) -> Vec<[String; COLUMNS]> {
    let head = language.pick(
        ["USER", "ADDRESS", "SINCE", "LEVEL", "STATE", "WAITING", "OUTBOX", "UNACKED", "IN", "OUT", "LAST", "WINDOW"],
        ["用户", "地址", "登录时间", "级别", "状态", "等待", "待写", "未确认", "收包", "发包", "最近", "窗口"],
    );
    let sessions = answer["sessions"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = sessions.iter().map(|session| row(session, now_ms));
    std::iter::once(head.map(str::to_owned)).chain(rows).collect()
}

fn row(session: &Value, now_ms: i64) -> [String; COLUMNS] {
    let number = |name: &str| session[name].as_u64().unwrap_or(0).to_string();
    [
        escape(session["user"].as_str().unwrap_or_default()).into_owned(),
        session["address"].as_str().unwrap_or("-").to_owned(),
        session["since"].as_i64().map_or("-".into(), |at| utc(at.div_euclid(1000))),
        number("level"),
        state(session),
        number("waiting"),
        number("outbox_bytes"),
        number("unacknowledged_bytes"),
        number("packets_in"),
        number("packets_out"),
        session["last_packet_at"].as_i64().map_or("-".into(), |at| silence(now_ms - at)),
        window(&session["window"]),
    ]
}

/// Where its next message comes from, and whether a writer brings it.
pub fn state(session: &Value) -> String {
    let place = if session["live"] == true { "live" } else { "disk" };
    let writer = if session["writer"] == true { "+writer" } else { "" };
    format!("{place}{writer}")
}

/// For how long nothing came.
pub fn silence(ms: i64) -> String {
    match ms.max(0) {
        ms @ ..100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => format!("{} min", ms / 60_000),
    }
}

/// `last`, and how far the other cursors are behind it: acked/sent/evicted/saved.
fn window(window: &Value) -> String {
    let cursor = |name: &str| window[name].as_u64().unwrap_or(0);
    let last = cursor("last");
    let behind = ["acked", "sent", "evicted", "saved"].map(|name| match last.saturating_sub(cursor(name)) {
        0 => "0".to_owned(),
        behind => format!("-{behind}"),
    });
    format!("{last} {}", behind.join("/"))
}

/// A field on each line, as the answer names it.
pub fn one(answer: &Value) -> String {
    let Some(fields) = answer.as_object() else { return format!("{answer}\n") };
    let mut rows = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Object(inner) => {
                rows.extend(inner.iter().map(|(inner, value)| [format!("{name}.{inner}"), shown(inner, value)]));
            }
            value => rows.push([name.clone(), shown(name, value)]),
        }
    }
    aligned(&rows, &[])
}

fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escape(text).into_owned(),
        Value::Number(at) if name == "since" || name.ends_with("_at") => {
            at.as_i64().map_or_else(|| at.to_string(), |at| utc(at.div_euclid(1000)))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use unicode_width::UnicodeWidthStr;

    fn session(user: &str, waiting: u64) -> Value {
        json!({
            "user": user, "connected": true, "connection": 1, "address": "127.0.0.1:4711", "since": 1_407_938_400_000_i64,
            "level": 2, "live": waiting == 0, "writer": waiting > 0, "waiting": waiting, "outbox_bytes": 0,
            "unacknowledged_bytes": 17, "last_packet_at": 1_407_938_460_300_i64, "packets_in": 3, "packets_out": 12345,
            "window": { "acked": 7, "sent": 8, "evicted": 7, "saved": 9, "last": 9 },
        })
    }

    #[test]
    fn sessions_stand_under_one_another() {
        let answer = json!({ "sessions": [session("小红", 0), session("[38121920]--> 7\u{7}", 2_000_000)] });
        for language in [Language::English, Language::Chinese] {
            let table = table(&answer, language, 1_407_938_461_000, None);
            let widths: Vec<usize> =
                table.lines().map(|line| line.rsplit_once("  ").map_or(0, |(before, _)| before.width())).collect();
            assert!(widths.len() == 3 && widths.iter().all(|width| *width == widths[0]), "{table}");
            assert!(table.contains("0.7 s  9 -2/-1/-2/0\n") && table.contains("disk+writer"), "{table}");
            assert!(table.contains("2014-08-13T14:00:00Z") && !table.contains('\u{7}'), "{table}");
        }
    }

    #[test]
    fn a_narrow_terminal_gets_what_fits_and_no_half_number() {
        let answer =
            json!({ "sessions": [session("小红", 0), session("a name of thirty-five cells, or more", 2_000_000)] });
        let table = |width: usize, now_ms: i64| table(&answer, Language::English, now_ms, Some(width));
        let (today, tomorrow) = (1_407_938_461_000, 1_407_938_461_000 + 86_400_000);
        // What has room is whole.
        assert_eq!(table(200, today), super::table(&answer, Language::English, today, None));
        for (width, is_there, is_spared) in [
            (130, &["LEVEL", "OUTBOX", "WINDOW", " 9 -2/-1/-2/0\n"][..], &["2014-08-13"][..]),
            (108, &["LEVEL", "OUTBOX"], &["WINDOW", "2014-08-13"]),
            (91, &["12345", " 2000000 ", "14:00:00 "], &["WINDOW", "OUTBOX", "LEVEL"]),
        ] {
            let table = table(width, today);
            assert!(table.lines().all(|line| line.width() <= width), "{table}");
            assert!(is_there.iter().all(|words| table.contains(words)), "{table}");
            assert!(!is_spared.iter().any(|words| table.contains(words)), "{table}");
            assert!(table.contains("\na name of thirt…  127.0.0.1:4711 "), "{table}");
        }
        assert!(table(91, tomorrow).contains(" 2014-08-13 "), "{}", table(91, tomorrow));
    }

    #[test]
    fn one_session_is_a_field_on_each_line() {
        let text = one(&session("ann", 0));
        assert!(text.contains("user                  ann\n") && text.contains("window.last           9\n"), "{text}");
        assert!(text.contains("last_packet_at        2014-08-13T14:01:00Z\n"), "{text}");
    }

    #[test]
    fn silence_is_told_in_tenths_and_then_in_minutes() {
        assert_eq!([-5, 99_999, 100_000].map(silence), ["0.0 s", "99.9 s", "1 min"]);
    }
}
