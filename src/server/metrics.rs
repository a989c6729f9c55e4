//! The figures of `status` as OpenMetrics text, and the verdict on them as JSON.
//!
//! There is no list of figures here: names and values come from `Status` itself, as JSON has them, and of the counters from their own table. What a figure
//! means stands in `MEANINGS`; a test finds the one that lacks it. Read first: the OpenMetrics specification 1.0, "Text Format".

use std::fmt::Write;

use serde_json::{Value, json};

use crate::health::{Counts, Status, urgent};
use crate::language::Language;

/// Of `/metrics`.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What each figure of `Status` is, but for the counters, which say it themselves.
const MEANINGS: &[(&str, &str)] = &[
    ("started_at", "When the server started."),
    ("read_at", "When this was read."),
    ("uptime_s", "How long the server has run."),
    ("users.present", "Users who are logged in."),
    ("users.peak", "The most at one time since the last report that was mailed, or since the start."),
    ("connections.open", "Open connections."),
    ("connections.strangers", "Those of them that have not logged in."),
    ("connections.limit", "As many as may be open."),
    ("connections.writers", "Threads that bring a backlog or wait for a full socket."),
    ("connections.draining", "1: no connection is accepted any more."),
    ("backlog.messages", "Messages that wait on disk."),
    ("backlog.bytes", "Bytes of their texts."),
    ("backlog.oldest_at", "When the oldest of them was accepted."),
    ("memory.used_bytes", "What messages in memory are charged."),
    ("memory.limit_bytes", "The setting memory_bytes."),
    ("memory.waiting_senders", "Senders that wait for memory."),
    ("database.used_bytes", "Bytes of the database in use."),
    ("database.limit_bytes", "The setting data_bytes."),
    ("database.last_save_at", "When the last save ended; 0: there was none."),
    ("database.last_save_us", "How long it took."),
    ("database.failing_for_ms", "For how long no save has succeeded although one was tried."),
    ("machine.resident_bytes", "Resident memory of the server."),
    ("machine.cpu_us", "Processor time that the server has used."),
    ("machine.threads", "Its threads."),
    ("machine.thread_limit", "Threads that it may have."),
    ("machine.descriptors", "Its open descriptors."),
    ("machine.descriptor_limit", "Descriptors that it may have."),
    ("machine.load", "Runnable tasks of the machine, averaged."),
    ("machine.processors", "Processors that the server may use."),
];

/// What only grows, beside the counters.
const GROWING: &[&str] = &["machine.cpu_us"];

/// Texts and numbers that name the server: labels of one figure.
const LABELS: [&str; 3] = ["version", "pid", "address"];

/// All figures as OpenMetrics text.
pub(super) fn text(status: &Status) -> String {
    let all = serde_json::to_value(status).unwrap_or_default();
    let mut out = String::new();
    let labels = LABELS.map(|name| format!("{name}=\"{}\"", label(&all[name])));
    family(&mut out, "chatserver", "info", "", "The server.");
    let _ = writeln!(out, "chatserver_info{{{}}} 1", labels.join(","));
    for (path, value) in figures(&all) {
        figure(&mut out, &path, &value);
    }
    for (name, meaning, value) in status.counts.table() {
        family(&mut out, &format!("chatserver_{name}"), "counter", "", meaning);
        let _ = writeln!(out, "chatserver_{name}_total {value}");
    }
    out.push_str("# EOF\n");
    out
}

/// Each number of the status with its path, `users.present`, but the counters.
fn figures(all: &Value) -> Vec<(String, Value)> {
    let mut figures = Vec::new();
    for (name, value) in all.as_object().into_iter().flatten() {
        match value {
            Value::Object(group) if name != "counts" => {
                figures.extend(group.iter().map(|(inner, value)| (format!("{name}.{inner}"), value.clone())));
            }
            Value::Number(_) if !LABELS.contains(&name.as_str()) => figures.push((name.clone(), value.clone())),
            _ => {}
        }
    }
    figures
}

/// One figure; of what is not known there is none.
fn figure(out: &mut String, path: &str, value: &Value) {
    let (name, unit, divisor) = named(path);
    let meaning = MEANINGS.iter().find(|(known, _)| *known == path).map_or("", |(_, meaning)| meaning);
    let (kind, suffix) = if GROWING.contains(&path) { ("counter", "_total") } else { ("gauge", "") };
    let scaled = |value: &Value| match (value.as_f64(), divisor) {
        (Some(number), 2..) => Some((number / f64::from(divisor)).to_string()),
        (Some(_), _) => Some(value.to_string()),
        (None, _) => value.as_bool().map(|flag| u8::from(flag).to_string()),
    };
    let samples: Vec<(String, String)> = match value {
        Value::Array(several) => {
            let minutes = ["1", "5", "15"].iter().zip(several);
            minutes
                .filter_map(|(minutes, value)| Some((format!("{{minutes=\"{minutes}\"}}"), scaled(value)?)))
                .collect()
        }
        one => scaled(one).map(|value| (String::new(), value)).into_iter().collect(),
    };
    if samples.is_empty() {
        return;
    }
    family(out, &name, kind, unit, meaning);
    for (labels, value) in samples {
        let _ = writeln!(out, "{name}{suffix}{labels} {value}");
    }
}

/// The name of a figure with its unit, the unit, and by what its value is divided.
fn named(path: &str) -> (String, &'static str, u32) {
    let name = format!("chatserver_{}", path.replace('.', "_"));
    let units = [
        ("_at", "_timestamp_seconds", 1000),
        ("_us", "_seconds", 1_000_000),
        ("_ms", "_seconds", 1000),
        ("_s", "_seconds", 1),
    ];
    for (ending, unit, divisor) in units {
        if let Some(stem) = name.strip_suffix(ending) {
            return (format!("{stem}{unit}"), "seconds", divisor);
        }
    }
    let unit = if name.ends_with("_bytes") { "bytes" } else { "" };
    (name, unit, 1)
}

fn family(out: &mut String, name: &str, kind: &str, unit: &str, meaning: &str) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if !unit.is_empty() {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    if !meaning.is_empty() {
        let _ = writeln!(out, "# HELP {name} {}", escaped(meaning));
    }
}

/// A label's value.
fn label(value: &Value) -> String {
    value.as_str().map_or_else(|| escaped(&value.to_string()), escaped)
}

/// As the format has all texts.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Whether all is well, and the verdict: "ok", "draining" or "trouble", with what needs a hand.
/// `recent` is what was counted in the last seconds.
pub(super) fn health(status: &Status, recent: &Counts, language: Language) -> (bool, Value) {
    let found = urgent(status, recent);
    let findings: Vec<Value> = found
        .iter()
        .map(|finding| json!({ "name": finding.name(), "what": finding.what(language), "remedy": finding.remedy(language) }))
        .collect();
    let draining = status.connections.draining;
    let verdict = match () {
        () if !findings.is_empty() => "trouble",
        () if draining => "draining",
        () => "ok",
    };
    (verdict == "ok", json!({ "verdict": verdict, "draining": draining, "findings": findings }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{BacklogStatus, ConnectionStatus, DatabaseStatus, Machine};

    fn status() -> Status {
        Status {
            version: "0.1.0",
            address: "127.0.0.1:8989".into(),
            started_at: 1_407_938_400_250,
            backlog: Some(BacklogStatus { messages: 7, bytes: 70, oldest_at: Some(1000) }),
            connections: ConnectionStatus { draining: true, ..Default::default() },
            database: DatabaseStatus { last_save_us: 1500, ..Default::default() },
            machine: Machine { cpu_us: Some(2_500_000), load: Some([0.5, 1.0, 2.0]), ..Machine::read(Some(1000)) },
            counts: Counts { logins: 3, ..Default::default() },
            ..Default::default()
        }
    }

    #[test]
    fn every_figure_has_its_meaning_and_every_meaning_its_figure() {
        let all = serde_json::to_value(status()).unwrap();
        let mut figures: Vec<String> = figures(&all).into_iter().map(|(path, _)| path).collect();
        let mut known: Vec<&str> = MEANINGS.iter().map(|(path, _)| *path).collect();
        figures.sort_unstable();
        known.sort_unstable();
        assert_eq!(figures, known);
        let text = text(&status());
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(families, 1 + known.len() + Counts::default().table().len(), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("# HELP")).count(), families, "{text}");
    }

    #[test]
    fn units_are_seconds_and_bytes() {
        let text = text(&status());
        for line in [
            "chatserver_info{version=\"0.1.0\",pid=\"0\",address=\"127.0.0.1:8989\"} 1",
            "# UNIT chatserver_started_timestamp_seconds seconds",
            "chatserver_started_timestamp_seconds 1407938400.25",
            "chatserver_database_last_save_seconds 0.0015",
            "# TYPE chatserver_machine_cpu_seconds counter",
            "chatserver_machine_cpu_seconds_total 2.5",
            "chatserver_machine_load{minutes=\"5\"} 1.0",
            "chatserver_connections_draining 1",
            "chatserver_backlog_bytes 70",
            "# TYPE chatserver_logins counter",
            "chatserver_logins_total 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing:\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn texts_stay_on_their_line() {
        let mut out = String::new();
        family(&mut out, "x", "gauge", "", "one\\two \"three\"\nfour");
        assert_eq!(out, "# TYPE x gauge\n# HELP x one\\\\two \\\"three\\\"\\nfour\n");
        assert_eq!(label(&json!("a\"b")), "a\\\"b");
    }

    #[test]
    fn what_is_not_known_is_not_there() {
        let text = text(&Status::default());
        assert!(
            !text.contains("chatserver_backlog") && !text.contains("null") && text.contains("users_present 0\n"),
            "{text}"
        );
    }

    #[test]
    fn health_is_well_draining_or_in_trouble() {
        let mut status = Status::default();
        status.memory.limit_bytes = 100;
        status.database.limit_bytes = 100;
        let none = Counts::default();
        let mut verdict = |recent: &Counts, change: fn(&mut Status)| {
            change(&mut status);
            let (is_well, health) = health(&status, recent, Language::English);
            (is_well, health["verdict"].as_str().unwrap().to_owned(), health["findings"].as_array().unwrap().len())
        };
        assert_eq!(verdict(&none, |_| ()), (true, "ok".into(), 0));
        let refusing = Counts { failed_accept: 1, failed_thread: 1, ..none };
        assert_eq!(verdict(&refusing, |_| ()), (false, "trouble".into(), 2));
        assert_eq!(verdict(&none, |status| status.connections.draining = true), (false, "draining".into(), 0));
        assert_eq!(verdict(&none, |status| status.memory.used_bytes = 100), (false, "trouble".into(), 1));
    }
}
