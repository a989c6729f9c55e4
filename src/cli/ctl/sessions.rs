//! `ctl sessions` as a table, `ctl session` as a list.

use serde_json::Value;

use crate::cli::table::aligned;
use crate::language::Language;
use crate::terminal::{escape, utc};

const COLUMNS: usize = 12;

/// Columns of numbers.
const RIGHT: [usize; 7] = [3, 5, 6, 7, 8, 9, 10];

/// One line for each session, and a head.
pub fn table(answer: &Value, language: Language, now_ms: i64) -> String {
    let head = language.pick(
        ["USER", "ADDRESS", "SINCE", "LEVEL", "STATE", "WAITING", "OUTBOX", "UNACKED", "IN", "OUT", "LAST", "WINDOW"],
        ["用户", "地址", "登录时间", "级别", "状态", "等待", "待写", "未确认", "收包", "发包", "最近", "窗口"],
    );
    let sessions = answer["sessions"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = sessions.iter().map(|session| row(session, now_ms));
    let rows: Vec<[String; COLUMNS]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    aligned(&rows, &RIGHT)
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
            let table = table(&answer, language, 1_407_938_461_000);
            let widths: Vec<usize> =
                table.lines().map(|line| line.rsplit_once("  ").map_or(0, |(before, _)| before.width())).collect();
            assert!(widths.len() == 3 && widths.iter().all(|width| *width == widths[0]), "{table}");
            assert!(table.contains("0.7 s  9 -2/-1/-2/0\n") && table.contains("disk+writer"), "{table}");
            assert!(table.contains("2014-08-13T14:00:00Z") && !table.contains('\u{7}'), "{table}");
        }
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
