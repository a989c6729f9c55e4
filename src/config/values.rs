//! Readers of one value each: from what was written to what its setting takes, or a sentence that says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::raw::Raw;
use super::units::{self, BYTES_LIKE, DURATION_LIKE};

/// So long that no setting needs more, and so short that no deadline overflows: 100 years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Whether a duration may be "0 s".
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    Legal,
    Refused,
}

pub(super) fn text<'r>(raw: &'r Raw, wanted: &str) -> Result<&'r str, String> {
    match raw {
        Raw::Text(text) | Raw::Words(text) => Ok(text),
        other => Err(format!("{wanted}, this is {}", other.kind())),
    }
}

pub(super) fn path(raw: &Raw) -> Result<PathBuf, String> {
    match text(raw, "a path is wanted, in quotes")? {
        "" => Err("empty; write a path, or leave this out".to_owned()),
        path => Ok(Path::new(path).to_owned()),
    }
}

pub(super) fn address(raw: &Raw) -> Result<SocketAddr, String> {
    const LIKE: &str = "write it like \"127.0.0.1:8989\" or \"[::1]:8989\"";
    let text = text(raw, "an address and a port are wanted, in quotes")?;
    text.parse().map_err(|_| format!("this is not an IP address and a port; {LIKE}"))
}

/// The same; an empty one means "not set".
pub(super) fn optional_address(raw: &Raw) -> Result<Option<SocketAddr>, String> {
    match raw {
        Raw::Text(text) | Raw::Words(text) if text.is_empty() => Ok(None),
        raw => address(raw).map(Some),
    }
}

pub(super) fn flag(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Bool(flag) => Ok(*flag),
        Raw::Words(word) if word == "true" => Ok(true),
        Raw::Words(word) if word == "false" => Ok(false),
        _ => Err("write true or false, without quotes".to_owned()),
    }
}

pub(super) fn duration(raw: &Raw, zero: Zero) -> Result<Duration, String> {
    let duration = match raw {
        Raw::Integer(_) => return Err(format!("the unit is missing; {DURATION_LIKE}, in quotes")),
        raw => units::parse_duration(text(raw, &format!("a duration is wanted, in quotes; {DURATION_LIKE}"))?)?,
    };
    if duration.is_zero() && zero == Zero::Refused {
        return Err("zero is not possible here; write at least \"1 ms\"".to_owned());
    }
    if duration > LONGEST {
        return Err(format!("too long; write at most {:?}", units::show_duration(LONGEST)));
    }
    Ok(duration)
}

pub(super) fn bytes(raw: &Raw) -> Result<u64, String> {
    match raw {
        Raw::Integer(number) => u64::try_from(*number).map_err(|_| format!("out of range; {BYTES_LIKE}")),
        raw => units::parse_bytes(text(raw, &format!("a size is wanted; {BYTES_LIKE}"))?),
    }
}

pub(super) fn count(raw: &Raw) -> Result<u64, String> {
    match raw {
        Raw::Integer(number) => {
            u64::try_from(*number).map_err(|_| "out of range; write a whole number, like 256".to_owned())
        }
        Raw::Words(words) => units::parse_count(words),
        Raw::Text(_) => Err("a number is wanted; write it without quotes, like 256".to_owned()),
        other => Err(format!("a whole number is wanted, like 256; this is {}", other.kind())),
    }
}

pub(super) fn within(value: u64, range: &RangeInclusive<u64>, show: impl Fn(u64) -> String) -> Result<u64, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("out of range; write something from {} to {}", show(*range.start()), show(*range.end())))
}

pub(super) fn addresses(raw: &Raw) -> Result<Vec<IpAddr>, String> {
    const LIKE: &str = "write it like [\"127.0.0.1\", \"::1\"]";
    let parse = |text: &str| text.trim().parse().map_err(|_| format!("{text:?} is not an IP address; {LIKE}"));
    match raw {
        Raw::List(items) => items.iter().map(|item| text(item, LIKE).and_then(parse)).collect(),
        Raw::Words(words) => words
            .split(',')
            .filter(|word| !word.trim().is_empty())
            .map(|word| {
                parse(word).map_err(|_| format!("{word:?} is not an IP address; write them like 127.0.0.1,::1"))
            })
            .collect(),
        other => Err(format!("a list is wanted, this is {}; {LIKE}", other.kind())),
    }
}

pub(super) fn level(raw: &Raw) -> Result<LevelFilter, String> {
    const LIKE: &str = "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    match text(raw, LIKE)? {
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err(format!("there is no such level; {LIKE}")),
    }
}

/// A choice among a few words.
pub(super) fn one_of<T>(raw: &Raw, words: &str, parse: fn(&str) -> Option<T>) -> Result<T, String> {
    parse(text(raw, &format!("write {words}"))?).ok_or_else(|| format!("there is no such choice; write {words}"))
}

/// A text on one line; an empty one means "not set".
pub(super) fn line(raw: &Raw) -> Result<Option<String>, String> {
    let text = text(raw, "a text is wanted, in quotes")?;
    if text.contains(char::is_control) {
        return Err("control characters are not possible here; write it on one line".to_owned());
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

pub(super) fn host(raw: &Raw) -> Result<String, String> {
    const LIKE: &str = "write a host name or an IP address, like \"mail.example.org\", and the port in smtp_port";
    let host = text(raw, LIKE)?;
    let is_name = |host: &str| host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
    if host.parse::<IpAddr>().is_err() && (host.is_empty() || !is_name(host)) {
        return Err(format!("this is not a host name; {LIKE}"));
    }
    Ok(host.to_owned())
}

/// One mail address; an empty text means "not set".
pub(super) fn mail_address(raw: &Raw) -> Result<Option<String>, String> {
    const LIKE: &str = "write it like \"chat@example.org\"";
    line(raw)?.map(|text| parse_mail_address(&text, LIKE)).transpose()
}

fn parse_mail_address(text: &str, like: &str) -> Result<String, String> {
    let mailbox = text.trim().parse::<lettre::message::Mailbox>();
    mailbox.map(|mailbox| mailbox.to_string()).map_err(|_| format!("{text:?} is not a mail address; {like}"))
}

pub(super) fn mail_addresses(raw: &Raw) -> Result<Vec<String>, String> {
    const LIKE: &str = "write it like [\"ops@example.org\", \"Ann <ann@example.org>\"]";
    let check = |text: &str| parse_mail_address(text, LIKE);
    match raw {
        Raw::List(items) => items.iter().map(|item| text(item, LIKE).and_then(check)).collect(),
        Raw::Words(words) => words.split(',').filter(|word| !word.trim().is_empty()).map(check).collect(),
        other => Err(format!("a list is wanted, this is {}; {LIKE}", other.kind())),
    }
}
