//! The model check: the real delivery, timer, writers and handlers, over a modelled disk, modelled sockets and modelled clients, while a
//! schedule decides at every lock and every atomic which thread goes on. A judge knows every text and says what must be true.
//!
//! `cargo test --test model -- --iterations 10000`, or `make model ITERATIONS=10000`; a scenario's name runs that one alone. A run that fails
//! tells its story, line by line with the thread that did it, and its seed: `cargo test --test model -- SCENARIO --seed SEED --iterations 1`
//! runs it again. Each run has a seed of its own, the next number. (Where the timer goes by the addresses of ledgers, the same seed may take
//! another way: then the whole row of runs, from its first seed, is the same again.)
//!
//! | file | what it is |
//! |---|---|
//! | `sync.rs`, `socket.rs`, `storage.rs`, `threads.rs` | in the place of the files of this name in `src` |
//! | `server.rs`, `jobs.rs` | the real files of `src/server` and `src/jobs` that are checked, and what they need of the others |
//! | `connection.rs` | a connection's thread, after `src/server/connection.rs` |
//! | `client.rs` | a user's client, which comes and goes, crashes, falls silent, and sends again |
//! | `world.rs` | one run: disk, server, users; kill −9; the judge |
//! | `schedule.rs` | who goes on |
//!
//! What is judged: messages come in order, and none is lost between acceptance and acknowledgement; one with a receipt arrives, whatever
//! was killed; level 2 shows none twice; STORED is said only of what is on disk or acknowledged, DELIVERED only of what is acknowledged;
//! nothing is executed for a session that was replaced, and there are never two; nobody waits for ever; in the end nothing is left over.

#![allow(dead_code, unused_imports)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chatserver::{clock, config, faults, health, protocol};
use clap::Parser;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

mod client;
mod connection;
#[path = "../../src/delivery/mod.rs"]
mod delivery;
mod jobs;
mod scenarios;
mod schedule;
mod server;
mod socket;
mod storage;
mod sync;
mod threads;
mod world;

/// Small, so that a few messages reach them.
mod limits {
    pub use chatserver::limits::*;

    pub const READ_ROWS: usize = 2;
    pub const SAVE_ROWS: usize = 3;
    pub const SOCKET_BUFFER_BYTES: usize = 200;
    pub const SENT_IDS: usize = 4;
    pub const RECEIPT_IDS: usize = 2;
    pub const MSG_ID_RESERVE: u64 = 4;
    pub const SEQ_RESERVE: u64 = 8;
}

/// Sentences as the real ones are written, without the check that both languages say the same.
mod language {
    pub use chatserver::language::Language;

    macro_rules! say {
        ($language:expr, $english:literal, $chinese:literal $(, $argument:expr)* $(,)?) => {
            match $language {
                $crate::language::Language::English => format!($english $(, $argument)*),
                $crate::language::Language::Chinese => format!($chinese $(, $argument)*),
            }
        };
    }
    pub(crate) use say;
}

#[derive(Parser)]
#[command(about = "Runs delivery under schedules of every kind, and judges each run", long_about = None)]
struct Arguments {
    /// The scenarios whose names contain this [default: all]
    scenario: Option<String>,
    /// Runs of each scenario
    #[arg(long, default_value_t = 1000)]
    iterations: u64,
    /// Of the first run [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Tells what happens, of every run
    #[arg(long)]
    story: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap_or_default().as_micros() as u64 % 1_000_000_000
    });
    let wanted = |name: &str| arguments.scenario.as_deref().is_none_or(|part| name.contains(part));
    let mut ran = 0;
    for scenario in scenarios::ALL.iter().filter(|scenario| wanted(scenario.name)) {
        ran += 1;
        if !check(scenario, seed, arguments.iterations, arguments.story) {
            return ExitCode::FAILURE;
        }
    }
    if ran == 0 {
        eprintln!(
            "no scenario has such a name; there are: {}",
            scenarios::ALL.map(|scenario| scenario.name).join(", ")
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs a scenario; `false`: a run has failed.
fn check(scenario: &'static scenarios::Scenario, seed: u64, iterations: u64, is_told: bool) -> bool {
    let mut config = Config::new();
    config.stack_size = 512 * 1024;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(300_000);
    config.silence_warnings = true;
    let begun_at = Instant::now();
    let schedule = schedule::Schedule::new(seed, iterations);
    let present = schedule.present.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(schedule, config).run(move || {
            (scenario.run)();
            if is_told {
                println!("{}", world::story());
            }
        })
    }));
    let took = begun_at.elapsed();
    let present = present.load(std::sync::atomic::Ordering::SeqCst);
    let name = scenario.name;
    match outcome {
        Ok(count) => {
            println!("{name}: {count} runs from seed {seed}, {:.1} s, nothing wrong", took.as_secs_f32());
            true
        }
        Err(_) => {
            println!("{}\n{}", world::story(), world::current().describe());
            println!(
                "{name}: FAILED at seed {present}, run {} of {iterations}, after {:.1} s; its story is above, the same again is\n\
                 cargo test --test model -- {name} --seed {present} --iterations 1",
                present - seed + 1,
                took.as_secs_f32()
            );
            false
        }
    }
}
