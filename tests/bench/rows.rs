//! What the table compares: what is played, what of it a row shows, and what that must be.

use chatserver::bench::Report;

/// One run against each side in a round.
pub struct Play {
    /// What rows call it.
    pub name: &'static str,
    /// As for `chatserver bench`.
    pub arguments: &'static [&'static str],
    /// Who can play it.
    pub who: Who,
}

/// Who can play it.
#[derive(Clone, Copy, PartialEq)]
pub enum Who {
    /// All.
    All,
    /// Not a broker, of which the rate would be too much.
    NoBroker,
    /// Only who keeps messages.
    Us,
}

/// The play whose rate is half of what the server's stream reached in the same round.
pub const OPEN: &str = "open";
/// The play that gives that rate.
pub const STREAM: &str = "stream";
/// The play that starts a server on a million messages.
pub const START: &str = "start";

/// In the order of a round.
pub const PLAYS: &[Play] = &[
    Play { name: "pingpong-1", arguments: &["pingpong", "--pairs", "1"], who: Who::All },
    Play { name: "pingpong-16", arguments: &["pingpong", "--pairs", "16"], who: Who::All },
    Play { name: STREAM, arguments: &["stream", "--pairs", "16", "--window", "32"], who: Who::All },
    Play { name: "fanin", arguments: &["fanin", "--pairs", "16", "--window", "32"], who: Who::All },
    Play { name: "fanout", arguments: &["fanout", "--pairs", "16", "--window", "32"], who: Who::All },
    Play { name: OPEN, arguments: &["open", "--pairs", "16"], who: Who::NoBroker },
    Play { name: "idle-8000", arguments: &["idle", "--pairs", "1", "--users", "8000"], who: Who::All },
    Play { name: "idle-12000", arguments: &["idle", "--pairs", "1", "--users", "12000"], who: Who::All },
    Play { name: "churn", arguments: &["churn", "--pairs", "16"], who: Who::All },
    Play { name: "offline", arguments: &["offline", "--messages", "100000"], who: Who::Us },
    Play { name: "slow", arguments: &["slow", "--pairs", "1"], who: Who::All },
    Play { name: START, arguments: &[], who: Who::Us },
];

/// What a figure must be, or should.
#[derive(Clone, Copy)]
pub enum Bound {
    /// At most so many times the floor's.
    Floor(f64),
    /// At most so many times the broker's with QoS 0.
    Mosquitto(f64),
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Bound {
    /// For a cell.
    pub fn text(&self) -> String {
        match self {
            Bound::Floor(times) => format!("≤ {times} × floor"),
            Bound::Mosquitto(times) => format!("≤ {times} × mosquitto"),
            Bound::AtMost(most) => format!("≤ {most}"),
            Bound::AtLeast(least) => format!("≥ {least}"),
        }
    }
}

/// A line of the table.
pub struct Row {
    /// Its first cell, with the unit.
    pub name: &'static str,
    /// The play that it shows.
    pub of: &'static str,
    /// What of it.
    pub value: fn(&Report) -> Option<f64>,
    /// Short of it, the project's promise is broken.
    pub must: &'static [Bound],
    /// What it should be.
    pub aim: &'static [Bound],
}

fn cpu(report: &Report) -> Option<f64> {
    report.cost.map(|cost| cost.cpu_us)
}

fn p99(report: &Report) -> Option<f64> {
    report.latency_us.map(|latency| latency.p99)
}

fn rate(report: &Report) -> Option<f64> {
    Some(report.per_second)
}

macro_rules! noted {
    ($name:literal) => {
        |report| report.more.get($name).copied()
    };
}

/// In the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "pingpong, 1 pair: CPU, µs/message",
        of: "pingpong-1",
        value: cpu,
        must: &[Bound::Floor(1.25)],
        aim: &[Bound::Floor(1.1)],
    },
    Row {
        name: "pingpong, 16 pairs: CPU, µs/message",
        of: "pingpong-16",
        value: cpu,
        must: &[Bound::Floor(1.25)],
        aim: &[Bound::Floor(1.1)],
    },
    Row { name: "pingpong, 16 pairs: p99, µs", of: "pingpong-16", value: p99, must: &[], aim: &[] },
    Row {
        name: "stream, 16 pairs, window 32: CPU, µs/message",
        of: STREAM,
        value: cpu,
        must: &[Bound::Floor(2.6), Bound::Mosquitto(0.1)],
        aim: &[Bound::Floor(1.8)],
    },
    Row {
        name: "— of it in user code, µs/message",
        of: STREAM,
        value: |report| report.cost.map(|cost| cost.user_us),
        must: &[Bound::AtMost(0.6)],
        aim: &[Bound::AtMost(0.35)],
    },
    Row { name: "— messages/s", of: STREAM, value: rate, must: &[], aim: &[Bound::AtLeast(1e6)] },
    Row {
        name: "fanin, 16 to 1: CPU, µs/message",
        of: "fanin",
        value: cpu,
        must: &[Bound::Floor(3.0)],
        aim: &[Bound::Floor(2.0)],
    },
    Row {
        name: "fanout, 1 to 16: CPU, µs/message",
        of: "fanout",
        value: cpu,
        must: &[Bound::Floor(3.0)],
        aim: &[Bound::Floor(2.0)],
    },
    Row {
        name: "open, at half of chatserver's stream: p99, µs",
        of: OPEN,
        value: p99,
        must: &[Bound::Floor(2.0)],
        aim: &[Bound::Floor(1.3)],
    },
    Row {
        name: "pingpong p99 with 8,000 idle users, to without",
        of: "idle-8000",
        value: noted!("p99_ratio"),
        must: &[Bound::AtMost(1.3)],
        aim: &[Bound::AtMost(1.1)],
    },
    Row {
        name: "idle, 12,000 users: memory, KiB/user",
        of: "idle-12000",
        value: noted!("kib_per_user"),
        must: &[Bound::AtMost(22.0)],
        aim: &[Bound::AtMost(14.0)],
    },
    Row {
        name: "— CPU while nothing happens, ms/s",
        of: "idle-12000",
        value: noted!("idle_cpu_ms_per_second"),
        must: &[Bound::AtMost(0.0)],
        aim: &[],
    },
    Row { name: "— logins/s", of: "idle-12000", value: noted!("logins_per_second"), must: &[], aim: &[] },
    Row {
        name: "churn: CPU, µs/login",
        of: "churn",
        value: cpu,
        must: &[Bound::Floor(1.3)],
        aim: &[Bound::Floor(1.1)],
    },
    Row {
        name: "offline: accepted and saved, to a raw insert",
        of: "offline",
        value: noted!("saved_ratio"),
        must: &[Bound::AtLeast(0.5)],
        aim: &[Bound::AtLeast(0.8)],
    },
    Row {
        name: "offline: collected, to a raw select",
        of: "offline",
        value: noted!("collected_ratio"),
        must: &[Bound::AtLeast(0.4)],
        aim: &[Bound::AtLeast(0.7)],
    },
    Row {
        name: "slow: the pair's p99 beside who does not read, to beside who does",
        of: "slow",
        value: noted!("p99_ratio"),
        must: &[Bound::AtMost(1.3)],
        aim: &[Bound::AtMost(1.1)],
    },
    Row { name: "— to alone", of: "slow", value: noted!("p99_ratio_to_alone"), must: &[], aim: &[] },
    Row {
        name: "start to listening, 1,000,000 messages waiting, ms",
        of: START,
        value: noted!("start_ms"),
        must: &[Bound::AtMost(300.0)],
        aim: &[Bound::AtMost(100.0)],
    },
    Row { name: "— with none waiting, ms", of: START, value: noted!("empty_start_ms"), must: &[], aim: &[] },
    Row {
        name: "— memory with them, more than with none, MiB",
        of: START,
        value: noted!("more_resident_mib"),
        must: &[Bound::AtMost(1.0)],
        aim: &[],
    },
];
