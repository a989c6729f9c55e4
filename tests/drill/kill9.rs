//! kill −9 at random moments: what has a receipt was on disk before it had it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::{Server, Setup};
use crate::ledger::Verdict;
use crate::load::Load;
use crate::process;

/// Kills a server `times` times.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let report = kill(Load::new("kill9", seed), times, &place.path().join("data"), |setup| setup, |_, _| {});
    Outcome { line: format!("kill9: {times} kills, {}", report.line()), wrong: report.wrong }
}

/// How it went.
pub struct Report {
    /// Of the books.
    pub verdict: Verdict,
    /// Longest time from the start of a process until it listened again.
    pub slowest_start: Duration,
    /// Databases that were not sound.
    pub unsound: usize,
    /// What should not have happened.
    pub wrong: Vec<String>,
}

impl Report {
    /// `lost 0, …, listening again within 0.12 s, integrity ok`.
    pub fn line(&self) -> String {
        let integrity = if self.unsound == 0 { "ok".to_owned() } else { format!("failed {} times", self.unsound) };
        let (verdict, slowest) = (&self.verdict, self.slowest_start.as_secs_f64());
        format!(
            "receipts {}, {verdict}, listening again within {slowest:.2} s, integrity {integrity}",
            verdict.receipts
        )
    }
}

/// Kills the server of a load `times` times and looks for everything. `after_death` is given the directory before the next start, `prepare` each
/// start's settings.
pub fn kill(
    load: Load<'_>,
    times: u32,
    data: &Path,
    prepare: impl Fn(&mut Setup) -> &mut Setup,
    mut after_death: impl FnMut(&Path, &mut Dice),
) -> Report {
    let (mut slowest_start, mut unsound, mut wrong) = (Duration::ZERO, 0, Vec::new());
    let ordeal = |load: &Load<'_>, mut server: Server, dice: &mut Dice| {
        for time in 1..=times {
            load.lives().stay_away(dice.millis(50, 1500));
            load.lives().end();
            server.kill9();
            after_death(data, dice);
            let integrity = process::integrity(data);
            if integrity != "ok" {
                unsound += 1;
                wrong.push(format!("after kill {time}: integrity_check says: {integrity}"));
            }
            let started_at = Instant::now();
            server = server.restart();
            let took = started_at.elapsed();
            slowest_start = slowest_start.max(took);
            if took > Duration::from_secs(1) {
                wrong.push(format!("after kill {time}: listening again only after {:.2} s", took.as_secs_f64()));
            }
            load.lives().begin(&server);
            load.tell(&format!("{time} of {times}"));
        }
        server
    };
    let mut verdict = load.run(process::start(data, &prepare), ordeal, |_| {});
    wrong.append(&mut verdict.wrong);
    Report { verdict, slowest_start, unsound, wrong }
}
