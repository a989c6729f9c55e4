//! One table: the bare relay, this server, and mosquitto if it is installed, in rounds in which each workload goes to one after the other, so that
//! whatever else the machine does happens to all. `make bench`, or
//!
//! `cargo build --release --example bench_mqtt && cargo bench --bench compare -- --rounds 5 --only stream`
//!
//! A ratio is taken within a round; the table shows the median of the rounds and, of the ratio, the spread. BENCHMARKS.md says how to read it.

mod common;
mod rows;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatserver::bench::{Curve, Panel, Report, Usage, take_all_descriptors};
use chatserver::storage::{DATABASE, Storage};
use clap::Parser;
use common::{Server, Side, figure, median};
use rows::{Bound, OPEN, PLAYS, Play, ROWS, Row, START, STREAM, Who};
use rusqlite::params;
use tempfile::TempDir;

#[derive(Debug, Parser)]
struct Args {
    /// How often all is played
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,

    /// How long each workload is measured
    #[arg(long, value_name = "TIME", default_value = "3s")]
    time: String,

    /// Only rows whose workload or name has this in it; several are possible
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,

    /// Leave mosquitto out
    #[arg(long)]
    without_mosquitto: bool,

    /// All results, one JSON object on a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The last round's latencies of stream and pingpong, as a PNG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// As cargo says it
    #[arg(long, hide = true)]
    bench: bool,
}

/// The plays' results by name, of each round one for each side that plays it.
type Results = BTreeMap<&'static str, Vec<Vec<(Side, Report)>>>;

fn main() -> ExitCode {
    common::end(compare(&Args::parse()))
}

/// Plays all and prints the table; gives how many runs failed.
fn compare(args: &Args) -> Result<usize, Box<dyn Error>> {
    take_all_descriptors();
    let version = common::mosquitto_version().filter(|_| !args.without_mosquitto);
    let sides = Side::here(version.is_some());
    let rows: Vec<&Row> = ROWS.iter().filter(|row| is_wanted(row, &args.only)).collect();
    let plays: Vec<&Play> = PLAYS.iter().filter(|play| is_played(play, &rows)).collect();
    if rows.is_empty() {
        return Err("no row has such a name".into());
    }
    let mut raw = args.json.as_ref().map(std::fs::File::create).transpose()?;
    let (mut results, mut failures, mut waiting) = (Results::new(), 0, None);
    for round in 0..args.rounds {
        for play in &plays {
            let rate = results.get(STREAM).and_then(|rounds| half_rate(rounds.last()?));
            let mut came = Vec::new();
            // Nobody is always the first.
            for turn in 0..sides.len() {
                let side = sides[(round + turn) % sides.len()];
                if !play.who.has(side) {
                    continue;
                }
                eprintln!("round {} of {}: {}, {}", round + 1, args.rounds, play.name, side.name());
                let result =
                    if play.name == START { start(&mut waiting) } else { side.play(&arguments(play, args, rate)) };
                match result {
                    Ok(report) => {
                        if let Some(file) = &mut raw {
                            let line = serde_json::json!({ "round": round + 1, "play": play.name, "report": report });
                            writeln!(file, "{line}")?;
                        }
                        came.push((side, report));
                    }
                    Err(why) => {
                        eprintln!("{why}");
                        failures += 1;
                    }
                }
            }
            results.entry(play.name).or_default().push(came);
        }
    }
    print_table(&rows, &sides, &results);
    let broker = version.map_or("no mosquitto".into(), |version| format!("mosquitto {version}"));
    println!("\n{} rounds of {}; {}; {broker}", args.rounds, args.time, common::machine());
    if let Some(path) = &args.plot {
        plot(path, &results)?;
    }
    Ok(failures)
}

impl Who {
    fn has(self, side: Side) -> bool {
        match self {
            Who::All => true,
            Who::NoBroker => !matches!(side, Side::Mosquitto(_)),
            Who::Us => side == Side::Us,
        }
    }
}

fn is_wanted(row: &Row, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|word| row.of.contains(word) || row.name.contains(word))
}

fn is_played(play: &Play, rows: &[&Row]) -> bool {
    let needs = |name: &str| rows.iter().any(|row| row.of == name);
    needs(play.name) || play.name == STREAM && needs(OPEN)
}

fn arguments(play: &Play, args: &Args, rate: Option<u64>) -> Vec<String> {
    let mut arguments: Vec<String> = play.arguments.iter().map(|argument| argument.to_string()).collect();
    arguments.extend(["--time".into(), args.time.clone()]);
    if let Some(rate) = rate.filter(|_| play.name == OPEN) {
        arguments.extend(["--rate".into(), rate.to_string()]);
    }
    arguments
}

fn of(side: Side, round: &[(Side, Report)]) -> Option<&Report> {
    round.iter().find(|(whose, _)| *whose == side).map(|(_, report)| report)
}

/// Half of what the server's stream reached in this round.
fn half_rate(round: &[(Side, Report)]) -> Option<u64> {
    of(Side::Us, round).map(|report| (report.per_second / 2.0) as u64)
}

/// Starts the server on a million waiting messages, and on none; `waiting` is made when it is first needed.
fn start(waiting: &mut Option<TempDir>) -> Result<Report, String> {
    let say = |error: Box<dyn Error>| format!("start: {error}");
    let directory = match waiting {
        Some(directory) => directory,
        None => waiting.insert(million().map_err(say)?),
    };
    let empty = tempfile::tempdir().map_err(|error| say(error.into()))?;
    let mut report = Report { target: "chatserver".into(), workload: START.into(), ..Report::default() };
    let (with, resident_with) = started(directory.path()).map_err(say)?;
    let (without, resident_without) = started(empty.path()).map_err(say)?;
    report.note("start_ms", with.as_secs_f64() * 1e3);
    report.note("empty_start_ms", without.as_secs_f64() * 1e3);
    report.note("resident_mib", resident_with);
    report.note("more_resident_mib", resident_with - resident_without);
    Ok(report)
}

/// How long it took to listen, and the resident memory a second later, MiB.
fn started(data: &Path) -> Result<(Duration, f64), Box<dyn Error>> {
    let server = Server::start(data)?;
    // What it does after it listens counts too.
    std::thread::sleep(Duration::from_secs(1));
    let usage = Usage::read(i32::try_from(server.child.id())?)?;
    Ok((server.started_within, usage.resident_bytes as f64 / f64::from(1 << 20)))
}

/// For each of so many users …
const RECIPIENTS: u32 = 1000;
/// … as many messages.
const EACH: u32 = 1000;

/// A data directory in which a million messages of 100 bytes wait.
fn million() -> Result<TempDir, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let storage = Storage::open(directory.path())?;
    storage.close()?;
    let mut connection = rusqlite::Connection::open(directory.path().join(DATABASE))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let (now_secs, now_ms, now_us) = (now.as_secs() as i64, now.as_millis() as i64, now.as_micros() as i64);
    let text = ".".repeat(100);
    let transaction = connection.transaction()?;
    {
        let mut user = transaction.prepare("INSERT INTO users VALUES (?1, ?1, ?2, ?2)")?;
        let mut message = transaction.prepare("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, NULL)")?;
        for recipient in 0..RECIPIENTS {
            let name = format!("bench-{recipient:06}");
            user.execute(params![name, now_ms])?;
            for number in 0..EACH {
                message.execute(params![name, now_us + i64::from(number), "bench-sender", text, now_secs, now_ms])?;
            }
        }
        let floor = now_us + i64::from(EACH);
        transaction.execute("UPDATE meta SET seq_floor = ?", [floor])?;
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(directory)
}

fn print_table(rows: &[&Row], sides: &[Side], results: &Results) {
    let has_mosquitto = sides.contains(&Side::Mosquitto(0));
    let mut head = vec!["workload".to_owned()];
    head.extend(sides.iter().map(|side| side.name().to_owned()));
    head.push("to floor (min–max)".into());
    if has_mosquitto {
        head.push("to mosquitto QoS 0 (min–max)".into());
    }
    head.extend(["must", "aim", "is"].map(str::to_owned));
    let lines: Vec<Vec<String>> = rows
        .iter()
        .filter_map(|row| {
            let figures = Figures { row, rounds: results.get(row.of)? };
            let mut line = vec![row.name.to_owned()];
            line.extend(sides.iter().map(|side| figure(median(&figures.values(*side)))));
            line.push(spread(&figures.ratios(Side::Floor)));
            if has_mosquitto {
                line.push(spread(&figures.ratios(Side::Mosquitto(0))));
            }
            let bounds = |bounds: &[Bound]| bounds.iter().map(Bound::text).collect::<Vec<_>>().join(", ");
            line.extend([bounds(row.must), bounds(row.aim), figures.verdict().into()]);
            Some(line)
        })
        .collect();
    print!("{}", common::table(&head, &lines));
}

/// A row's figures, of all rounds.
struct Figures<'r> {
    row: &'r Row,
    rounds: &'r [Vec<(Side, Report)>],
}

impl Figures<'_> {
    fn values(&self, side: Side) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| of(side, round).and_then(self.row.value)).collect()
    }

    /// The server's to another side's, within each round.
    fn ratios(&self, to: Side) -> Vec<f64> {
        let ratio = |round: &Vec<(Side, Report)>| {
            let other = (self.row.value)(of(to, round)?).filter(|other| *other > 0.0)?;
            Some((self.row.value)(of(Side::Us, round)?)? / other)
        };
        self.rounds.iter().filter_map(ratio).collect()
    }

    /// `None`: what it compares was not measured.
    fn holds(&self, bound: &Bound) -> Option<bool> {
        Some(match bound {
            Bound::Floor(times) => median(&self.ratios(Side::Floor))? <= *times,
            Bound::Mosquitto(times) => median(&self.ratios(Side::Mosquitto(0)))? <= *times,
            Bound::AtMost(most) => median(&self.values(Side::Us))? <= *most,
            Bound::AtLeast(least) => median(&self.values(Side::Us))? >= *least,
        })
    }

    /// Whether all that were measured hold. `None`: none was.
    fn all_hold(&self, bounds: &[Bound]) -> Option<bool> {
        bounds.iter().filter_map(|bound| self.holds(bound)).reduce(|one, other| one && other)
    }

    fn verdict(&self) -> &'static str {
        match (self.all_hold(self.row.must), self.all_hold(self.row.aim)) {
            (Some(false), _) => "**short of must**",
            (_, Some(true)) => "aim",
            (Some(true), _) => "must",
            (None, Some(false)) => "short of aim",
            (None, None) => "",
        }
    }
}

/// The median, and from where to where.
fn spread(ratios: &[f64]) -> String {
    let Some(middle) = median(ratios) else { return "–".into() };
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{} ({}–{})", figure(Some(middle)), figure(Some(least)), figure(Some(most)))
}

fn plot(path: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    let panels: Vec<Panel> = PLAYS
        .iter()
        .filter(|play| play.name.starts_with("pingpong") || [STREAM, OPEN].contains(&play.name))
        .filter_map(|play| {
            let last = results.get(play.name)?.last()?;
            let curve = |(side, report): &(Side, Report)| Curve {
                name: side.name().into(),
                points: report.distribution_us.clone(),
            };
            let mut curves: Vec<_> = last.iter().collect();
            curves.sort_by_key(|(side, _)| side.name());
            Some(Panel {
                title: format!("{}: one message in so many took longer", play.arguments.join(" ")),
                x: "messages (100 = p99)".into(),
                y: "µs".into(),
                is_logarithmic: true,
                curves: curves.into_iter().map(curve).collect(),
            })
        })
        .collect();
    common::draw(path, &panels)
}
