//! How texts of strangers are written for people: nothing that arrives may command the terminal.
//!
//! Pure, but for [`colours_wanted`] and [`print_note`].

use std::borrow::Cow;
use std::fmt::Write;
use std::io::IsTerminal;

use crate::language::{Language, say};

/// `text` on one line: control characters, and those that turn or break lines invisibly, are written as escapes.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 16), push_escaped))
    } else {
        Cow::Borrowed(text)
    }
}

/// `text` on as many lines as it has, each after the first behind `indent`; tabs as spaces, the rest as [`escape`].
pub fn escape_lines(text: &str, indent: &str) -> String {
    let mut lines = text.split('\n').map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        escape(&line.replace('\t', "    ")).into_owned()
    });
    let first = lines.next().unwrap_or_default();
    lines.fold(first, |all, line| format!("{all}\n{indent}{line}"))
}

/// A line of JSON with what could command a terminal written as escapes: JSON itself does it below U+0020 only. The meaning is the same, for such characters
/// stand in strings alone.
pub fn escape_json(line: &str) -> Cow<'_, str> {
    let push = |mut out: String, c: char| {
        if is_unsafe(c) && c != '\n' {
            // All of them are below U+10000, which takes four digits.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    };
    if line.chars().any(is_unsafe) {
        Cow::Owned(line.chars().fold(String::with_capacity(line.len() + 16), push))
    } else {
        Cow::Borrowed(line)
    }
}

/// Could `c` do anything but appear?
fn is_unsafe(c: char) -> bool {
    // Controls; direction marks, overrides and isolates, which could show one text and mean another; line and paragraph separator.
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn push_escaped(mut out: String, c: char) -> String {
    if is_unsafe(c) {
        out.extend(c.escape_default());
    } else {
        out.push(c);
    }
    out
}

/// Unix seconds as `2014-08-13T14:00:00Z`; what lies outside the years 1970 to 9999 as the bare number.
pub fn utc(time: i64) -> String {
    const END_OF_9999: i64 = 253_402_300_800;
    if !(0..END_OF_9999).contains(&time) {
        return time.to_string();
    }
    let (days, seconds) = (time / 86_400, time % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970-01-01, not negative, as year, month, day.
fn civil_date(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is a year's last: then months have a regular length, 153 days in five.
    let since_0000_03_01 = days + 719_468;
    let (era, day_of_era) = (since_0000_03_01 / 146_097, since_0000_03_01 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// How long before `now` a message was written, both Unix seconds, when that is worth saying: `2 h ago`.
pub fn age(time: i64, now: i64, language: Language) -> Option<String> {
    let seconds = now.checked_sub(time).filter(|seconds| *seconds >= 60)?;
    Some(match seconds {
        60..3600 => say!(language, "{} min ago", "{} 分钟前", seconds / 60),
        3600..86_400 => say!(language, "{} h ago", "{} 小时前", seconds / 3600),
        _ => say!(language, "{} d ago", "{} 天前", seconds / 86_400),
    })
}

/// Whether standard output is a terminal whose user has nothing against colours (<https://no-color.org>).
pub fn colours_wanted() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// The width of the terminal that standard output is, in columns; `None`: it is none.
pub fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// A colour or weight, as the parameter of an SGR sequence (ECMA-48 §8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// What the program itself says.
    Dim = 2,
    /// A name.
    Cyan = 36,
    /// The prompt.
    Green = 32,
    /// What is wrong.
    Red = 31,
    /// A heading.
    Bold = 1,
}

/// `text` in a style, or as it is when `colours` is false.
pub fn paint(text: &str, style: Style, colours: bool) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    if colours {
        let _ = write!(out, "\x1b[{}m{text}\x1b[0m", style as u8);
    } else {
        out.push_str(text);
    }
    out
}

/// Why there is no more input.
pub fn input_failure(error: &std::io::Error, language: Language) -> String {
    say!(language, "cannot read standard input: {error}", "无法读取标准输入：{error}")
}

/// One line for the person, on standard error, so that scripts keep standard output to themselves.
pub fn print_note(text: &str) {
    use std::io::Write;
    // Where nobody can read it nothing is to be done; `eprintln` would panic.
    let _ = writeln!(std::io::stderr(), "chatserver: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_arrives_commands_the_terminal() {
        assert_eq!(escape("\x1b]0;owned\x07 \u{9b}2J\r\n\t\0"), "\\u{1b}]0;owned\\u{7} \\u{9b}2J\\r\\n\\t\\u{0}");
        assert_eq!(escape("abc\u{202E}def\u{2066}\u{2028}"), "abc\\u{202e}def\\u{2066}\\u{2028}");
        assert!(matches!(escape("你好 👍🏽 naïve \\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_says_the_same_without_commanding_the_terminal() {
        let text = "a\x1b[2J\u{9b}31m\u{7f}\u{202e}\u{2028}你好\n\"";
        let line = serde_json::to_string(text).unwrap();
        let escaped = escape_json(&line);
        assert!(!escaped.chars().any(is_unsafe), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        assert!(matches!(escape_json("{\"a\":\"你好\"}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_text_of_several_lines_is_indented() {
        assert_eq!(escape_lines("one\r\ntwo\n\tthree\x1b\n", "  "), "one\n  two\n      three\\u{1b}\n  ");
    }

    #[test]
    fn times_are_written_in_utc() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_407_938_400, "2014-08-13T14:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "253402300800"),
            (-1, "-1"),
            (i64::MIN, "-9223372036854775808"),
        ];
        for (time, text) in known {
            assert_eq!(utc(time), text);
        }
    }

    #[test]
    fn only_an_old_message_tells_its_age() {
        let english = |time, now| age(time, now, Language::English);
        assert_eq!(english(100, 130), None);
        assert_eq!(english(200, 100), None);
        assert_eq!(english(0, 60).as_deref(), Some("1 min ago"));
        assert_eq!(english(0, 7200).as_deref(), Some("2 h ago"));
        assert_eq!(english(0, 200_000).as_deref(), Some("2 d ago"));
        assert_eq!(english(i64::MIN, i64::MAX), None);
        assert_eq!(age(0, 7200, Language::Chinese).as_deref(), Some("2 小时前"));
    }
}
