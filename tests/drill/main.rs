//! Drills: what must never be lost is put through what happens in bad hours, many times over, and every message is looked for afterwards.
//!
//! `cargo test --test drill -- kill9 --times 20`, or `make drill-kill9 TIMES=20`. A drill ends by itself, prints one line of result on standard
//! output (its progress on standard error) and exits with 0 if all was well, else with 1 and what was wrong. They are no tests of
//! `cargo test`: they are long, and each time a little different. `--seed` makes the random choices those of an earlier run.
//!
//! | drill | what happens `--times` times |
//! |---|---|
//! | `kill9.rs` | kill −9 in the middle of everything, and a restart |
//! | `power.rs` | the same, and all is gone that was not synced; then once more as `synchronous=NORMAL` would have it |
//! | `network.rs` | a recipient's network falls silent while messages come in |
//! | `disk.rs` | the disk fails at the N-th write or sync; and one is really full (`disk_full.rs`) |
//! | `fds.rs` | no descriptors left, and then there are some |
//! | `threads.rs` | no threads or memory mappings left, and then there are some |
//! | `takeover.rs` | another login of a name for which a hundred clients fight |
//! | `invented.rs` | a message to somebody who does not exist |
//! | `slow.rs` | a recipient that does not read, or a byte a second, or half a packet, beside healthy pairs |
//! | `mail.rs` | a report is asked for while the SMTP server is dead, refusing, silent, dropping or slow |
//! | `stop.rs` | SIGTERM under load; and four times as often SIGHUP with good and bad configurations |
//! | `debugger.rs` | SIGSTOP and SIGCONT under load; strace and gdb for a tenth of it |
//! | `strangers.rs` | a stranger comes, and goes |
//! | `soak.rs` | a second of everything at once, and nothing grows |
//!
//! `load.rs` is what is going on while a server is killed, stopped, looked at or soaked, `ledger.rs` the judge, `holdings.rs` what a server
//! holds, `process.rs` the server that dies and lives again, `person.rs` a user, who speaks level 1 or 2. The server is the real program
//! (`tests/it/harness.rs` starts it).

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

mod debugger;
mod dice;
mod disk;
mod disk_full;
mod fds;
#[allow(dead_code)]
#[path = "../it/hardening.rs"]
mod hardening;
#[allow(dead_code)]
#[path = "../it/harness.rs"]
mod harness;
mod holdings;
mod invented;
mod kill9;
mod ledger;
mod load;
mod mail;
#[allow(dead_code)]
#[path = "../it/network.rs"]
mod net;
mod network;
mod person;
mod power;
mod process;
mod scarce;
mod slow;
#[allow(dead_code)]
#[path = "../it/smtp.rs"]
mod smtp;
mod soak;
mod stop;
mod strangers;
mod takeover;
mod threads;
#[allow(dead_code)]
#[path = "../it/wire.rs"]
mod wire;

#[derive(Parser)]
#[command(about = "Puts the server through what happens in bad hours, and looks for every message afterwards", long_about = None)]
struct Arguments {
    drill: Drill,
    /// How many times [default: 20 kills, 20 losses of power, 100 silences, 2000 takeovers, 100 failing calls, 20 shortages, 30 slow readers,
    /// 30 reports, 50 stops, 100 interruptions, 1000000 strangers, 1000000 invented names, 1200 seconds of soak]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    times: Option<u32>,
    /// Repeats the random choices of an earlier run [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Drill {
    Kill9,
    Power,
    Network,
    Takeover,
    Disk,
    Fds,
    Threads,
    Invented,
    Slow,
    Mail,
    Stop,
    Debugger,
    Strangers,
    Soak,
}

/// How a drill went.
pub struct Outcome {
    /// Its one line.
    pub line: String,
    /// What should not have happened; none: all was well.
    pub wrong: Vec<String>,
}

/// A drill that hangs is ended: so long for all of it, and so long more for each time.
const ENDS_WITHIN: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(10));

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == power::PROBE) {
        power::probe(words.next());
    }
    let arguments = Arguments::parse();
    let (name, run, times): (&str, fn(u32, u64) -> Outcome, u32) = match arguments.drill {
        Drill::Kill9 => ("kill9", kill9::run, 20),
        Drill::Power => ("power", power::run, 20),
        Drill::Network => ("network", network::run, 100),
        Drill::Takeover => ("takeover", takeover::run, 2000),
        Drill::Disk => ("disk", disk::run, 100),
        Drill::Fds => ("fds", fds::run, 20),
        Drill::Threads => ("threads", threads::run, 20),
        Drill::Invented => ("invented", invented::run, 1_000_000),
        Drill::Slow => ("slow", slow::run, 30),
        Drill::Mail => ("mail", mail::run, 30),
        Drill::Stop => ("stop", stop::run, 50),
        Drill::Debugger => ("debugger", debugger::run, 100),
        Drill::Strangers => ("strangers", strangers::run, 1_000_000),
        Drill::Soak => ("soak", soak::run, 1200),
    };
    let times = arguments.times.unwrap_or(times);
    let seed = arguments.seed.unwrap_or_else(clock_seed);
    eprintln!("{name}: {times} times, --seed {seed}");
    std::thread::spawn(move || give_up_after(name, ENDS_WITHIN.0 + ENDS_WITHIN.1 * times));
    let outcome = std::panic::catch_unwind(|| run(times, seed)).unwrap_or_else(|_| Outcome {
        line: format!("{name}: broken off"),
        wrong: vec!["the drill could not go on, as said above".into()],
    });
    outcome.wrong.iter().for_each(|wrong| eprintln!("{name}: WRONG: {wrong}"));
    let verdict = if outcome.wrong.is_empty() { "" } else { " — WRONG, as said on standard error" };
    println!("{}{verdict}", outcome.line);
    if outcome.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn clock_seed() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
    since.as_micros() as u64 % 1_000_000_000
}

fn give_up_after(name: &str, time: Duration) {
    std::thread::sleep(time);
    println!("{name}: broken off: it did not end within {} s", time.as_secs());
    std::process::exit(1);
}
