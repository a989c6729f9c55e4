//! Carries checks out, some at a time.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::ground::{Ground, Target};
use super::wire::{Fault, Said};
use super::{Body, Check, Needs};
use crate::threads::panic_words;

/// Stack of a thread that checks, bytes.
const STACK_BYTES: usize = 512 * 1024;

/// What came of a check.
#[derive(Debug)]
pub enum Verdict {
    /// The server did right.
    Passed,
    /// It was not carried out, for this reason.
    Skipped(&'static str),
    /// The server did wrong: what, and everything that was said.
    Failed {
        /// A sentence.
        what: String,
        /// In order.
        transcript: Vec<Said>,
    },
}

/// A check and what came of it.
pub struct Finding<'c> {
    /// The check.
    pub check: &'c Check,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// Carries out all checks, `parallel` at a time, and hands each finding over as it comes.
///
/// # Errors
/// The system has no room for a thread.
pub fn run<'c>(
    target: &Target,
    checks: &'c [Check],
    parallel: usize,
    mut on_finding: impl FnMut(Finding<'c>),
) -> io::Result<()> {
    // The longest first, so that nobody waits for them in the end: those of timeouts, then those of behaviour.
    let mut order: Vec<usize> = (0..checks.len()).collect();
    order.sort_by_key(|index| match &checks[*index] {
        Check { needs: Needs::Time | Needs::Level2AndTime, .. } => 0,
        Check { body: Body::Code(_), .. } => 1,
        Check { body: Body::Case(_), .. } => 2,
    });
    let (order, next) = (&order, &AtomicUsize::new(0));
    let (to_caller, findings) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..parallel.clamp(1, checks.len().max(1)) {
            let to_caller = to_caller.clone();
            let work = move || {
                while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Number 0 is the probe.
                    let finding = judge(target, &checks[index], index + 1);
                    if to_caller.send(finding).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new().name("check".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        }
        drop(to_caller);
        findings.into_iter().for_each(&mut on_finding);
        Ok(())
    })
}

fn judge<'c>(target: &Target, check: &'c Check, number: usize) -> Finding<'c> {
    let began = Instant::now();
    let lacks_level_2 = matches!(check.needs, Needs::Level2 | Needs::Level2AndTime) && !target.is_level_2();
    let lacks_time = matches!(check.needs, Needs::Time | Needs::Level2AndTime) && !target.has_time();
    let failed = |what, transcript| Verdict::Failed { what, transcript };
    let verdict = match () {
        () if lacks_level_2 => Verdict::Skipped("the server does not grant level 2"),
        () if lacks_time => Verdict::Skipped("it waits for the server's own timeouts: ask for it with --deadlines"),
        () if target.is_gone() => failed("not tried: the server no longer accepts connections".to_owned(), Vec::new()),
        () => {
            let ground = Ground::new(target, number);
            let transcript = || ground.transcript().take();
            match panic::catch_unwind(AssertUnwindSafe(|| check.carry_out(&ground))) {
                Ok(Ok(())) => Verdict::Passed,
                Ok(Err(Fault::Broken(what) | Fault::Unreachable(what))) => failed(what, transcript()),
                Err(cause) => failed(format!("the check itself failed: {}", panic_words(&*cause)), transcript()),
            }
        }
    };
    Finding { check, verdict, took: began.elapsed() }
}
