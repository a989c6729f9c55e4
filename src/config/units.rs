//! Quantities as people write them: "30 s", "12 h", "64 KiB". Whole numbers only; durations always with a unit.

use std::time::Duration;

/// How a duration is written, for messages.
pub(super) const DURATION_LIKE: &str = "write it like \"30 s\", \"5 min\" or \"12 h\"";
/// How a size is written, for messages.
pub(super) const BYTES_LIKE: &str = "write it like \"64 KiB\", \"1 MiB\", \"10 GiB\" or 65536";

/// Unit, milliseconds; the first name of each is the one that is shown.
const DURATION_UNITS: [(&[&str], u64); 5] = [
    (&["d", "day", "days"], 86_400_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["min", "minute", "minutes"], 60_000),
    (&["s", "sec", "second", "seconds"], 1000),
    (&["ms", "millisecond", "milliseconds"], 1),
];

const BYTE_UNITS: [(&[&str], u64); 5] =
    [(&["TiB"], 1 << 40), (&["GiB"], 1 << 30), (&["MiB"], 1 << 20), (&["KiB"], 1 << 10), (&["B", "byte", "bytes"], 1)];

/// Reads "250 ms", "30 s", "5 min", "12 h", "7 days".
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text).map_err(|fault| format!("{fault}; {DURATION_LIKE}"))?;
    if unit.is_empty() {
        return Err(format!("the unit is missing; {DURATION_LIKE}"));
    }
    let scale = scale_of(unit, &DURATION_UNITS).ok_or_else(|| format!("unknown unit {unit:?}; {DURATION_LIKE}"))?;
    number.checked_mul(scale).map(Duration::from_millis).ok_or_else(|| format!("too long; {DURATION_LIKE}"))
}

/// Reads "64 KiB", "10 GiB", "65536".
///
/// # Errors
/// As [`parse_duration`].
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text).map_err(|fault| format!("{fault}; {BYTES_LIKE}"))?;
    let scale = if unit.is_empty() { Some(1) } else { scale_of(unit, &BYTE_UNITS) };
    let scale = scale.ok_or_else(|| format!("unknown unit {unit:?}; {BYTES_LIKE} (1 KiB is 1,024 bytes)"))?;
    number.checked_mul(scale).ok_or_else(|| format!("too large; {BYTES_LIKE}"))
}

/// Reads "256", "2_000_000".
pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    match split(text) {
        Ok((number, "")) => Ok(number),
        Ok((_, rest)) => Err(format!("{rest:?} does not belong there; write a whole number, like 256")),
        Err(fault) => Err(format!("{fault}; write a whole number, like 256")),
    }
}

/// "30 s"; what [`parse_duration`] reads back as the same.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { "0 s".to_owned() } else { show(millis, &DURATION_UNITS) }
}

/// "64 KiB", or "60000" where no unit divides it.
pub(super) fn show_bytes(bytes: u64) -> String {
    match bytes % 1024 {
        0 if bytes > 0 => show(bytes, &BYTE_UNITS),
        _ => bytes.to_string(),
    }
}

fn show(quantity: u64, units: &[(&[&str], u64)]) -> String {
    let (names, scale) = units.iter().find(|(_, scale)| quantity.is_multiple_of(*scale)).expect("the last scale is 1");
    format!("{} {}", quantity / scale, names[0])
}

fn scale_of(unit: &str, units: &[(&[&str], u64)]) -> Option<u64> {
    units.iter().find(|(names, _)| names.contains(&unit)).map(|(_, scale)| *scale)
}

/// The whole number that `text` begins with, and what follows it.
fn split(text: &str) -> Result<(u64, &str), &'static str> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.starts_with('_') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return Err("it does not begin with a whole number");
    }
    if rest.starts_with(['.', ',']) {
        return Err("whole numbers only, with a smaller unit where needed");
    }
    let number = digits.replace('_', "").parse().map_err(|_| "the number is too large")?;
    Ok((number, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("250 ms", 250),
            ("30 s", 30_000),
            ("30s", 30_000),
            ("5 min", 300_000),
            ("12 h", 43_200_000),
            ("7 days", 604_800_000),
            ("7 d", 604_800_000),
            ("1 day", 86_400_000),
            ("0 s", 0),
            (" 1_000  ms ", 1000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn wrong_durations_say_what_to_write() {
        for (text, fault) in [
            ("30", "the unit is missing"),
            ("1 parsec", "unknown unit \"parsec\""),
            ("5 m", "unknown unit \"m\""),
            ("", "does not begin with a whole number"),
            ("s", "does not begin with a whole number"),
            ("-1 s", "does not begin with a whole number"),
            ("_ s", "does not begin with a whole number"),
            ("1.5 h", "whole numbers only"),
            ("99999999999999999999 s", "too large"),
            ("18446744073709551615 d", "too long"),
        ] {
            let message = parse_duration(text).unwrap_err();
            assert!(message.contains(fault) && message.contains(DURATION_LIKE), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("65536", 65_536),
            ("64 KiB", 65_536),
            ("1MiB", 1 << 20),
            ("10 GiB", 10 << 30),
            ("2 TiB", 2 << 40),
            ("7 B", 7),
            ("7 bytes", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, fault) in [
            ("64 KB", "unknown unit \"KB\""),
            ("64 kib", "unknown unit"),
            ("", "whole number"),
            ("20000000 TiB", "too large"),
        ] {
            let message = parse_bytes(text).unwrap_err();
            assert!(message.contains(fault) && message.contains("64 KiB"), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for millis in [0, 1, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 604_800_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1024, 60_000, 65_536, 1 << 20, 10 << 30] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "90 s");
        assert_eq!(show_duration(Duration::from_secs(604_800)), "7 d");
        assert_eq!(show_bytes(65_536), "64 KiB");
        assert_eq!(show_bytes(60_000), "60000");
    }
}
