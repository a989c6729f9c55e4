//! `chatserver conformance`: checks a server that somebody has written, and grades it. What it checks is in `crate::conformance`.
//!
//! English only, as `--help` is: the table's explanations are.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::connection::{ConnectionArgs, exit, fail};
use super::print;
use crate::config::parse_duration;
use crate::conformance::{self, Check, Finding, Grade, NotJudged, Target, Verdict, explain, hex};
use crate::terminal::escape_json;

const EXIT_CODES: &str = "Exit codes:
  0  all checks that were carried out passed
  1  it could not start: a key that cannot be read
  2  wrong usage, also a name after --only that no check has
  3  a check failed, or the server lets nobody in
  4  the server does not answer at all: no connection, or not a byte

Examples:
  chatserver conformance --addr 127.0.0.1:9000                       everything but the server's own timeouts
  chatserver conformance --addr 127.0.0.1:9000 --only takeover       one group
  chatserver conformance --addr 127.0.0.1:9000 --only 'a length of'  whatever has this in its name
  chatserver conformance --list                                      all groups and names";

/// Check any server of this protocol, and grade it
///
/// For people who write a server of their own. Sends malformed packets of a thousand kinds and looks whether the connection is closed,
/// goes on, or is answered, as PROTOCOL.md says; then checks what users notice: that texts arrive, in order, also when somebody was away,
/// closed without reading, or logged in twice. A check that fails says what was expected, what happened, why it matters, and shows every
/// byte. At the end there are counts for each group, and a grade.
///
/// Level 2 is checked if the server grants it. A server of level 1 is not blamed for lacking it.
///
/// Every check has connections and user names of its own, so it can be run again and again against one server; the names remain in the
/// server's list of users. The limits are those of PROTOCOL.md: packets of 65,536 bytes, texts of 60,000, names of 128.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,

    /// Only the checks of this group, or those with these words in GROUP/NAME; may be given several times
    #[arg(long, value_name = "GROUP|NAME")]
    only: Vec<String>,

    /// List the checks instead of carrying them out
    #[arg(long)]
    list: bool,

    /// One JSON object for each check, and one with the grade at the end
    #[arg(long)]
    json: bool,

    /// Also wait for the server's own timeouts (login, silence, a packet that is never completed), this long at most: 150s unless told
    /// otherwise. PROTOCOL.md has 30 s for the login and 120 s for silence
    #[arg(long, value_name = "TIME", value_parser = parse_duration, num_args = 0..=1, default_missing_value = "150s")]
    deadlines: Option<Duration>,

    /// How long an answer or a close may take
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s")]
    timeout: Duration,

    /// Checks at a time; each has up to three connections
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=16))]
    parallel: u16,

    /// Most failures that are explained; the others are only named
    #[arg(long, value_name = "N", default_value_t = 20)]
    explain: usize,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let mut checks = conformance::all();
    let groups = groups(&checks);
    if !args.only.is_empty() {
        if let Some(unknown) = args.only.iter().find(|only| !checks.iter().any(|check| is_meant(check, only, &groups)))
        {
            return fail(&format!("no check has {unknown:?} in its name; --list shows them"), 2);
        }
        checks.retain(|check| args.only.iter().any(|only| is_meant(check, only, &groups)));
    }
    if args.list {
        let names: String = checks.iter().map(|check| format!("{}\n", check.full_name())).collect();
        return print(names);
    }
    let key = match args.connection.key() {
        Ok(key) => key,
        Err(why) => return fail(&why, exit::START),
    };
    let target = Target::new(args.connection.addr(), key.bytes(), args.timeout, args.deadlines);
    let target = match target.and_then(|mut target| target.probe().map(|()| target)) {
        Ok(target) => target,
        Err(NotJudged::NoAnswer(why)) => return fail(&why, exit::TIMEOUT),
        Err(NotJudged::NoLogin(why)) => return fail(&why, exit::REFUSED),
    };
    let mut report = Report { args: &args, target: &target, groups, grade: Grade::default(), failed: Vec::new() };
    let began = Instant::now();
    if let Err(error) = conformance::run(&target, &checks, args.parallel.into(), |finding| report.note(finding)) {
        return fail(&format!("no thread can be started: {error}"), exit::START);
    }
    report.end(began.elapsed())
}

/// The groups in the order of the checks.
fn groups(checks: &[Check]) -> Vec<&'static str> {
    let mut groups: Vec<&'static str> = Vec::new();
    for check in checks {
        if !groups.contains(&check.group) {
            groups.push(check.group);
        }
    }
    groups
}

/// Whether `--only` means this check: its group, or, where no group has that name, some words of its full name.
fn is_meant(check: &Check, only: &str, groups: &[&str]) -> bool {
    if groups.contains(&only) { check.group == only } else { check.full_name().contains(only) }
}

/// What is said while checks come in, and in the end.
struct Report<'a, 'c> {
    args: &'a Args,
    target: &'a Target,
    groups: Vec<&'static str>,
    grade: Grade,
    failed: Vec<Finding<'c>>,
}

/// A check as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    group: &'a str,
    name: &'a str,
    result: &'a str,
    millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bytes: Vec<Piece>,
}

/// A piece of what went over a connection, in hex.
#[derive(Serialize)]
struct Piece {
    connection: &'static str,
    direction: &'static str,
    hex: String,
}

/// The last line.
#[derive(Serialize)]
struct Summary {
    passed: usize,
    failed: usize,
    skipped: usize,
    level: u8,
    grade: Option<u32>,
    millis: u64,
}

impl<'c> Report<'_, 'c> {
    fn note(&mut self, finding: Finding<'c>) {
        self.grade.count(&finding);
        if self.args.json {
            say(&json(&finding));
        }
        if matches!(finding.verdict, Verdict::Failed { .. }) {
            self.failed.push(finding);
        }
    }

    fn end(mut self, took: Duration) -> ExitCode {
        let total = self.grade.total();
        if self.args.json {
            let level = if self.target.is_level_2() { 2 } else { 1 };
            let summary = Summary {
                passed: total.passed,
                failed: total.failed,
                skipped: total.skipped,
                level,
                grade: self.grade.points(),
                millis: took.as_millis() as u64,
            };
            say(&serde_json::to_string(&summary).unwrap_or_default());
        } else {
            // In the order of the table, whichever ended first.
            let place = |finding: &Finding<'_>| self.groups.iter().position(|group| *group == finding.check.group);
            self.failed.sort_by_key(|finding| (place(finding), finding.check.full_name()));
            self.print_failures();
            self.print_counts(took);
        }
        if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::REFUSED) }
    }

    fn print_failures(&self) {
        for (index, finding) in self.failed.iter().enumerate() {
            let Verdict::Failed { what, transcript } = &finding.verdict else { continue };
            say(&format!("FAILED {}", finding.check.full_name()));
            if index < self.args.explain {
                say(&format!("  what happened: {what}\n  the rule:      {}", finding.check.why));
                let shown = explain(transcript, self.target.key());
                shown.lines().for_each(|line| say(&format!("    {line}")));
                say("");
            }
        }
        if self.failed.len() > self.args.explain {
            say(&format!(
                "\n{} of {} failures are explained above (--explain N, --only NAME)\n",
                self.args.explain,
                self.failed.len()
            ));
        }
    }

    fn print_counts(&self, took: Duration) {
        say("group         passed  failed  skipped");
        for (group, tally) in self.grade.groups(&self.groups) {
            say(&format!("{group:12}  {:6}  {:6}  {:7}", tally.passed, tally.failed, tally.skipped));
        }
        let total = self.grade.total();
        if !self.target.is_level_2() {
            say("the server does not grant level 2: what belongs to it was skipped");
        }
        if !self.target.has_time() {
            say("the server's own timeouts were not waited for: --deadlines does");
        }
        let grade = self.grade.points().map_or("none, for nothing was carried out".to_owned(), |points| {
            format!("{points} of 100, the mean of the groups")
        });
        say(&format!(
            "{} passed, {} failed, {} skipped in {:.1} s; grade: {grade}",
            total.passed,
            total.failed,
            total.skipped,
            took.as_secs_f64()
        ));
    }
}

fn json(finding: &Finding<'_>) -> String {
    let check = finding.check;
    let millis = finding.took.as_millis() as u64;
    let mut line = Line {
        group: check.group,
        name: &check.name,
        result: "passed",
        millis,
        reason: None,
        why: None,
        bytes: Vec::new(),
    };
    match &finding.verdict {
        Verdict::Passed => {}
        Verdict::Skipped(reason) => {
            line.result = "skipped";
            line.reason = Some(reason);
        }
        Verdict::Failed { what, transcript } => {
            line.result = "failed";
            line.reason = Some(what);
            line.why = Some(&check.why);
            let pieces = transcript.iter().map(|said| Piece {
                connection: said.who,
                direction: match (said.is_sent, said.bytes.is_empty()) {
                    (true, _) => "sent",
                    (false, false) => "received",
                    (false, true) => "closed",
                },
                hex: hex(&said.bytes),
            });
            line.bytes = pieces.collect();
        }
    }
    escape_json(&serde_json::to_string(&line).unwrap_or_default()).into_owned()
}

/// A line on standard output. Whoever has read enough and closed it misses nothing but lines.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
