//! `chatserver bench`: measures a server. What it plays and how it measures is in `crate::bench`.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::connection::exit;
use super::progress::{Progress, Unit};
use super::{fail, print};
use crate::bench::{self, Failure, Kind, Report, Settings, Target, Workload, draw_reports};
use crate::config::Key;

const NOTES: &str = "Exit codes:
  0  measured, and every message came once and in order
  1  it could not start, or a file could not be written
  2  wrong usage
  3  a message was lost, came twice or out of order, or the server broke the protocol or refused
  4  the server is not there, or stopped answering

Examples:
  chatserver bench                                   everything, against a server that it starts itself
  chatserver bench pingpong --pairs 1                one pair, back and forth
  chatserver bench floor stream                      the same load against the bare relay: what the kernel allows
  chatserver bench open --rate 200000 --plot p.png   latency at a given rate, with a picture
  chatserver bench idle --users 10000                memory for each user, and whether they slow down who talks
  chatserver bench --addr 127.0.0.1:8989 stream      a server that runs already, with its own settings

What the columns say, and how to read them: BENCHMARKS.md.";

/// Measure a server: rate, latency, processor, memory, and whether every message came
///
/// Plays many clients on one thread, against a server that it starts itself in a temporary directory, or against any at an address. The server's
/// processor time, context switches and memory are read from /proc; of a server on another machine only rate and latency can be told.
/// Every message carries a number, and each arrival is checked.
///
/// With `floor` in front it plays the same against a bare relay that is built in: a thread for each connection, blocking sockets, header and
/// table look-up, and nothing else. It is the limit of this kernel for servers of this kind, and what the figures are compared with.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub struct Args {
    /// What to play, one or several; everything unless told otherwise
    #[arg(value_name = "WORKLOAD")]
    words: Vec<Word>,

    /// A server that runs already, instead of one of our own
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "relay")]
    addr: Option<String>,

    /// File with the key of the server at --addr: 16, 24 or 32 bytes of text, or "hex:" and digits; else CHATSERVER_KEY, else the published one
    #[arg(long, value_name = "FILE", requires = "addr")]
    key_file: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,

    /// One JSON object a workload, on a line
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// One line of comma-separated values a workload, after a line with their names
    #[arg(long)]
    csv: bool,

    /// Draw the distribution of latencies and the rate over time into this PNG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Be the bare relay, until killed
    #[arg(long, hide = true)]
    relay: bool,
}

/// A workload, or the word that says against what.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Floor,
    Workload(Workload),
}

impl ValueEnum for Word {
    fn value_variants<'a>() -> &'a [Word] {
        const ALL: [Word; 10] = {
            let mut all = [Word::Floor; 10];
            let mut next = 0;
            while next < Workload::ALL.len() {
                all[next + 1] = Word::Workload(Workload::ALL[next]);
                next += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Word::Floor => Some(PossibleValue::new("floor").help("what follows, against the bare relay")),
            Word::Workload(workload) => workload.to_possible_value(),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    bench::take_all_descriptors();
    if args.relay {
        return be_relay();
    }
    let is_floor = args.words.contains(&Word::Floor);
    let kind = match &args.addr {
        Some(_) if is_floor => return misused("floor is a relay of our own: it does not go with --addr"),
        Some(addr) => Kind::At(addr.clone()),
        None if is_floor => Kind::Floor,
        None => Kind::Own,
    };
    let key = match super::connection::read_key(args.key_file.as_deref()) {
        Ok(key) if args.addr.is_some() => key,
        Ok(_) => Key::published(),
        Err(why) => return fail(why),
    };
    let mut workloads: Vec<Workload> = Vec::new();
    for word in &args.words {
        if let Word::Workload(workload) = word {
            workloads.push(*workload);
        }
    }
    if workloads.is_empty() {
        // The relay keeps nothing for anybody.
        workloads = Workload::ALL.into_iter().filter(|workload| !is_floor || *workload != Workload::Offline).collect();
    } else if is_floor && workloads.contains(&Workload::Offline) {
        return misused("the bare relay keeps nothing for those who are not there: there is no floor for offline");
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return fail(format!("this program's own file cannot be found: {error}")),
    };
    let mut reports = Vec::new();
    for workload in workloads {
        let result = Target::start(&kind, &program, &key)
            .map_err(Failure::Io)
            .and_then(|mut target| play(&mut target, workload, &args.settings));
        match result {
            Ok(report) => {
                let _ = tell(&args, &report, reports.is_empty());
                reports.push(report);
            }
            Err(failure) => {
                let _ = fail(format!("{}: {failure}", workload.name()));
                return ExitCode::from(match failure {
                    Failure::Nonsense(_) | Failure::Closed => exit::REFUSED,
                    Failure::Silent(_) => exit::TIMEOUT,
                    Failure::Io(_) if args.addr.is_some() => exit::TIMEOUT,
                    Failure::Io(_) | Failure::Database(_) => exit::START,
                });
            }
        }
    }
    if let Some(path) = &args.plot {
        let written = draw_reports(&reports).and_then(|picture| Ok(std::fs::write(path, picture)?));
        if let Err(error) = written {
            return fail(format!("{}: {error}", path.display()));
        }
    }
    match reports.iter().all(Report::is_clean) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::REFUSED),
    }
}

/// Words that do not go together.
fn misused(why: &str) -> ExitCode {
    let _ = fail(why);
    ExitCode::from(2)
}

fn play(target: &mut Target, workload: Workload, settings: &Settings) -> Result<Report, Failure> {
    let bar = Progress::new(Unit::Share);
    bench::play(target, workload, settings, &mut |share, what| {
        bar.share(share, &format!("{}: {what}", workload.name()))
    })
}

fn be_relay() -> ExitCode {
    let served = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| {
        let _ = print(format!("listening on {}\n", listener.local_addr()?));
        bench::serve_relay(&listener)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

fn tell(args: &Args, report: &Report, is_first: bool) -> ExitCode {
    if args.json {
        return print(serde_json::to_string(report).expect("numbers and names") + "\n");
    }
    if args.csv {
        let head = if is_first { format!("{}\n", Report::CSV_HEAD) } else { String::new() };
        return print(format!("{head}{}\n", report.csv()));
    }
    print(report.text())
}
