//! How cost grows: with pairs, with the size of texts, with idle users and with what waits, the server beside the bare relay. `make bench-curves`, or
//!
//! `cargo bench --bench curves -- --only pairs --rounds 1 --plot /tmp/curves.png`
//!
//! A figure is the median of the rounds, in which the two sides take turns.

#[allow(dead_code)] // The table starts brokers and servers of its own.
mod common;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use chatserver::bench::{Curve, Panel, Report, take_all_descriptors};
use clap::Parser;
use common::{Side, figure, median};

#[derive(Debug, Parser)]
struct Args {
    /// How often each point is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,

    /// How long each is measured
    #[arg(long, value_name = "TIME", default_value = "1s")]
    time: String,

    /// Only what grows with this: pairs, text, idle, backlog; several are possible
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,

    /// Draw them into this PNG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// As cargo says it
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is read of each point.
struct Reading {
    name: &'static str,
    of: fn(&Report) -> Option<f64>,
}

const CPU: Reading = Reading { name: "CPU, µs/message", of: |report| report.cost.map(|cost| cost.cpu_us) };
const P99: Reading = Reading { name: "p99, µs", of: |report| report.latency_us.map(|latency| latency.p99) };
const MEMORY: Reading = Reading { name: "KiB/user", of: |report| report.more.get("kib_per_user").copied() };

macro_rules! each {
    ($name:literal, $rate:literal) => {
        Reading { name: $name, of: |report| report.more.get($rate).map(|per_second| 1e6 / per_second) }
    };
}

/// One thing that grows.
struct Growth {
    /// For `--only`.
    word: &'static str,
    /// Above its table.
    title: &'static str,
    /// What grows, with its unit.
    x: &'static str,
    is_logarithmic: bool,
    sides: &'static [Side],
    points: &'static [u64],
    /// As for `chatserver bench`.
    arguments: fn(u64) -> String,
    readings: &'static [Reading],
}

/// Messages in flight in all: what grows is the number of those who talk, not the queue.
const IN_FLIGHT: u64 = 512;

/// Bytes of text in flight, likewise.
const BYTES_IN_FLIGHT: u64 = 1 << 20;

const PAIRS: &[u64] = &[1, 4, 16, 64, 256, 1000, 4000];
const BOTH: &[Side] = &[Side::Floor, Side::Us];

const GROWTHS: &[Growth] = &[
    Growth {
        word: "pairs",
        title: "pingpong",
        x: "pairs",
        is_logarithmic: true,
        sides: BOTH,
        points: PAIRS,
        arguments: |pairs| format!("pingpong --pairs {pairs}"),
        readings: &[CPU, P99],
    },
    Growth {
        word: "pairs",
        title: "stream, 512 messages in flight in all, or one for each pair",
        x: "pairs",
        is_logarithmic: true,
        sides: BOTH,
        points: PAIRS,
        arguments: |pairs| format!("stream --pairs {pairs} --window {}", (IN_FLIGHT / pairs).max(1)),
        readings: &[CPU, P99],
    },
    Growth {
        word: "text",
        title: "stream, 16 pairs, window 32 or 1 MiB in flight in all",
        x: "bytes of text",
        is_logarithmic: true,
        sides: BOTH,
        points: &[10, 100, 1000, 10_000, 60_000],
        arguments: |bytes| {
            let window = (BYTES_IN_FLIGHT / 16 / bytes).clamp(1, 32);
            format!("stream --pairs 16 --window {window} --text-bytes {bytes}")
        },
        readings: &[CPU, P99],
    },
    Growth {
        word: "idle",
        title: "pingpong of one pair beside idle users",
        x: "idle users",
        is_logarithmic: false,
        sides: BOTH,
        points: &[0, 1000, 4000, 8000, 12_000],
        arguments: |users| match users {
            0 => "pingpong --pairs 1".into(),
            users => format!("idle --pairs 1 --users {users}"),
        },
        readings: &[CPU, P99, MEMORY],
    },
    Growth {
        word: "backlog",
        title: "offline, beside SQLite alone",
        x: "messages waiting",
        is_logarithmic: true,
        sides: &[Side::Us],
        points: &[1000, 10_000, 100_000, 1_000_000],
        arguments: |messages| format!("offline --messages {messages}"),
        readings: &[
            each!("saved, µs/message", "saved_per_second"),
            each!("raw insert, µs/row", "raw_inserted_per_second"),
            each!("collected, µs/message", "collected_per_second"),
            each!("raw select, µs/row", "raw_selected_per_second"),
        ],
    },
];

fn main() -> ExitCode {
    common::end(curves(&Args::parse()))
}

/// Measures and prints all; gives how many runs failed.
fn curves(args: &Args) -> Result<usize, Box<dyn Error>> {
    take_all_descriptors();
    let (mut panels, mut failures) = (Vec::new(), 0);
    for growth in
        GROWTHS.iter().filter(|growth| args.only.is_empty() || args.only.iter().any(|word| word == growth.word))
    {
        let measured = growth.measure(args, &mut failures);
        println!("### {}\n\n{}", growth.title, growth.table(&measured));
        panels.extend(growth.panels(&measured));
    }
    println!("{} rounds of {}; {}", args.rounds, args.time, common::machine());
    if let Some(path) = &args.plot {
        common::draw(path, &panels)?;
    }
    Ok(failures)
}

/// Of each point, for each side: its reports.
type Measured = Vec<Vec<Vec<Report>>>;

impl Growth {
    fn measure(&self, args: &Args, failures: &mut usize) -> Measured {
        let mut measured = vec![vec![Vec::new(); self.sides.len()]; self.points.len()];
        for round in 0..args.rounds {
            for (point, reports) in self.points.iter().zip(&mut measured) {
                for turn in 0..self.sides.len() {
                    let place = (round + turn) % self.sides.len();
                    let side = self.sides[place];
                    let line = (self.arguments)(*point);
                    eprintln!("round {} of {}: {line}, {}", round + 1, args.rounds, side.name());
                    let words = format!("{line} --time {}", args.time);
                    match side.play(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()) {
                        Ok(report) => reports[place].push(report),
                        Err(why) => {
                            eprintln!("{why}");
                            *failures += 1;
                        }
                    }
                }
            }
        }
        measured
    }

    fn table(&self, measured: &Measured) -> String {
        let mut head = vec![self.x.to_owned()];
        for reading in self.readings {
            head.extend(self.sides.iter().map(|side| self.column(*side, reading)));
        }
        let rows: Vec<Vec<String>> = self
            .points
            .iter()
            .zip(measured)
            .map(|(point, sides)| {
                let mut row = vec![figure(Some(*point as f64))];
                for reading in self.readings {
                    row.extend(sides.iter().map(|reports| figure(reading.median(reports))));
                }
                row
            })
            .collect();
        common::table(&head, &rows)
    }

    /// One for each reading, unless they are all of one kind.
    fn panels(&self, measured: &Measured) -> Vec<Panel> {
        let panel = |y: &str, curves| Panel {
            title: self.title.into(),
            x: self.x.into(),
            y: y.into(),
            is_logarithmic: self.is_logarithmic,
            curves,
        };
        let curve = |place: usize, reading: &Reading, name: &str| {
            let points = self.points.iter().zip(measured);
            let points = points.filter_map(|(x, sides)| Some((*x as f64, reading.median(&sides[place])?)));
            Curve { name: name.into(), points: points.collect() }
        };
        if self.sides.len() == 1 {
            let curves = self.readings.iter().map(|reading| curve(0, reading, reading.name)).collect();
            return vec![panel("µs", curves)];
        }
        let of_reading = |reading: &Reading| {
            let curves = self.sides.iter().enumerate().map(|(place, side)| curve(place, reading, side.name()));
            panel(reading.name, curves.collect())
        };
        self.readings.iter().map(of_reading).collect()
    }

    fn column(&self, side: Side, reading: &Reading) -> String {
        match self.sides.len() {
            1 => reading.name.to_owned(),
            _ => format!("{}: {}", side.name(), reading.name),
        }
    }
}

impl Reading {
    fn median(&self, reports: &[Report]) -> Option<f64> {
        median(&reports.iter().filter_map(self.of).collect::<Vec<_>>())
    }
}
