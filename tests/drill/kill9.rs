//! kill −9 at random moments: what has a receipt was on disk before it had it.

use crate::Outcome;
use crate::load::Load;

/// Kills a server `times` times.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let report = Load::new("kill9", seed).run(times, &place.path().join("data"), |setup| setup, |_, _| {});
    Outcome { line: format!("kill9: {times} kills, {}", report.line()), wrong: report.wrong }
}
