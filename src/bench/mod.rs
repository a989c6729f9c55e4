//! A load generator and what it measures: many clients on one thread, every message checked, latencies in a histogram, and what the server's
//! process used for it by the kernel's own count. The command is `chatserver bench`; `examples/bench_mqtt.rs` brings another protocol.
//!
//! It measures a server from outside, over sockets, and must not know how it works. [`Target`] is whom it measures, [`Dialect`] what that speaks;
//! `crowd.rs` is the event loop over the clients' sockets, `flow.rs` numbers and checks messages, `load.rs` enters arrivals in the book,
//! `workloads/` says who writes when, [`Report`] is the result. `relay.rs` is the floor: the least that a thread-per-connection relay can do.
//!
//! Read first: the coordinated omission problem (Gil Tene, "How NOT to Measure Latency"), which is why `open` counts from the intended time.

mod crowd;
mod dialect;
mod flow;
mod load;
mod plot;
mod process;
mod relay;
mod report;
mod target;
mod workloads;

use std::io;
use std::time::Duration;

pub use dialect::{Dialect, Event, Nonsense};
pub use flow::TEXT_BYTES_MIN;
pub use load::Progress;
pub use plot::{Curve, Panel, draw, draw_reports};
pub use process::Usage;
pub use relay::serve as serve_relay;
pub use report::{Cost, Latency, Report};
pub use target::{Kind, Target};

use load::Load;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// pairs, one message in flight: who gets it sends the next one back
    Pingpong,
    /// pairs, a window of messages in flight in one direction
    Stream,
    /// many write to one
    Fanin,
    /// one writes to many
    Fanout,
    /// a given rate; latency counts from when a message was meant to be sent
    Open,
    /// users who are there and say nothing, and a pair that talks beside them
    Idle,
    /// login and logout, again and again
    Churn,
    /// messages for somebody who is not there, who then comes
    Offline,
    /// a recipient that never reads, beside pairs that do
    Slow,
}

impl Workload {
    /// All of them, in the order of a table.
    pub const ALL: [Workload; 9] = [
        Workload::Pingpong,
        Workload::Stream,
        Workload::Fanin,
        Workload::Fanout,
        Workload::Open,
        Workload::Idle,
        Workload::Churn,
        Workload::Offline,
        Workload::Slow,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Pingpong => "pingpong",
            Workload::Stream => "stream",
            Workload::Fanin => "fanin",
            Workload::Fanout => "fanout",
            Workload::Open => "open",
            Workload::Idle => "idle",
            Workload::Churn => "churn",
            Workload::Offline => "offline",
            Workload::Slow => "slow",
        }
    }

    /// `Settings::users` come before its own.
    fn is_beside_others(self) -> bool {
        matches!(self, Workload::Pingpong | Workload::Stream | Workload::Fanin | Workload::Fanout | Workload::Open)
    }
}

/// How it is played.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Pairs of users; in fanin and fanout the many, in churn the users at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pairs: u32,

    /// Messages in flight for each pair: stream, fanin, fanout
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: u32,

    /// Bytes of a text
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = text_bytes)]
    pub text_bytes: usize,

    /// How long it is measured
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration, default_value = "5s")]
    pub time: Duration,

    /// How long it goes before it is measured
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration, default_value = "500ms")]
    pub warm_up: Duration,

    /// Messages a second: open, and the stream to the slow recipient
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: u64,

    /// Users who are there and say nothing: 1000 in idle unless told otherwise; in pingpong, stream, fanin, fanout and open they are there from the
    /// beginning
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=200_000))]
    pub users: u32,

    /// Messages that are stored: offline
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=8_000_000))]
    pub messages: u32,
}

/// Texts carry a number, and no packet is longer than what a server takes by default.
fn text_bytes(text: &str) -> Result<usize, String> {
    let range = TEXT_BYTES_MIN..=60_000;
    let bytes = text.parse().ok().filter(|bytes| range.contains(bytes));
    bytes.ok_or_else(|| format!("from {} to {}", range.start(), range.end()))
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A socket or file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server speaks something else, or refused.
    #[error("{0}")]
    Nonsense(Nonsense),
    /// What the benchmark itself asks of SQLite.
    #[error("the database: {0}")]
    Database(#[from] rusqlite::Error),
    /// The server closed a connection that nobody wanted closed.
    #[error("the server closed a connection")]
    Closed,
    /// The server does not answer.
    #[error("the server has been silent for 10 s in the middle of {0}")]
    Silent(&'static str),
}

impl From<Nonsense> for Failure {
    fn from(nonsense: Nonsense) -> Failure {
        Failure::Nonsense(nonsense)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Failure {
        Failure::Io(errno.into())
    }
}

/// Lets this process, and those that it starts, have as many descriptors as the system allows it: each client is one.
pub fn take_all_descriptors() {
    let most = getrlimit(Resource::Nofile).maximum;
    // Where it may not, the first client without one says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}

/// Users without `--users` in the workload that is about them.
const IDLE_USERS: u32 = 1000;

/// Plays one workload. `progress` is told how far it is: a share of 1, and what it does.
///
/// # Errors
/// There is no result: the server is not there, refuses, or stops answering. Messages that were lost are in the report.
pub fn play(
    target: &mut Target,
    workload: Workload,
    settings: &Settings,
    progress: Progress<'_>,
) -> Result<Report, Failure> {
    let (name, data, started_within) = (target.name.clone(), target.data.clone(), target.started_within);
    let is_idle = workload == Workload::Idle;
    let users = if is_idle && settings.users == 0 { IDLE_USERS } else { settings.users };
    let settings = Settings { users, ..settings.clone() };
    let mut load = Load::new(target, &settings, progress)?;
    if workload.is_beside_others() {
        load.log_in(users)?;
    }
    let mut report = match workload {
        Workload::Pingpong => workloads::closed::pingpong(&mut load),
        Workload::Stream => workloads::closed::stream(&mut load),
        Workload::Fanin => workloads::closed::fanin(&mut load),
        Workload::Fanout => workloads::closed::fanout(&mut load),
        Workload::Open => workloads::open::open(&mut load),
        Workload::Idle => workloads::idle::idle(&mut load),
        Workload::Churn => workloads::churn::churn(&mut load),
        Workload::Offline => workloads::offline::offline(&mut load, data.as_deref()),
        Workload::Slow => workloads::slow::slow(&mut load),
    }?;
    report.target = name;
    report.workload = workload.name().into();
    report.idle_users = if is_idle || workload.is_beside_others() { users } else { 0 };
    if let Some(started_within) = started_within {
        report.note("start_ms", started_within.as_secs_f64() * 1e3);
    }
    Ok(report)
}
