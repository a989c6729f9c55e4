//! A given rate, whatever the server does: latency counts from when a message was meant to be sent, so that a stall of a second counts for every
//! message that it held up, also for those that could not even be sent.

use std::time::Duration;

use super::closed;
use crate::bench::Failure;
use crate::bench::load::Load;
use crate::bench::report::Report;

/// A send is late by at most this if the load generator keeps up.
const GRAIN: Duration = Duration::from_micros(50);

/// Pairs that share the rate, evenly.
pub fn open(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let pairs = closed::pairs(load)?;
    let flows: Vec<u32> = pairs.into_iter().step_by(2).collect();
    let mut pacer = Pacer::new(load.settings.rate, load.crowd.now());
    let mut turn = flows.iter().cycle();
    let measured = load.measure(load.settings.time, false, |load, now| {
        while let Some(at) = pacer.due(now) {
            let flow = turn.next().expect("a cycle has no end");
            load.send(*flow, at);
        }
        Ok(pacer.next_at().max(now + GRAIN))
    })?;
    load.drain(&flows)?;
    let mut report = load.report("messages", measured);
    report.note("rate_wanted_per_second", load.settings.rate as f64);
    Ok(report)
}

/// When messages are meant to be sent.
pub struct Pacer {
    began_at: Duration,
    per_second: u64,
    sent: u64,
}

impl Pacer {
    /// `per_second` of them, evenly, from `now` on.
    pub fn new(per_second: u64, now: Duration) -> Pacer {
        Pacer { began_at: now, per_second: per_second.max(1), sent: 0 }
    }

    /// When the next one is meant to be sent.
    pub fn next_at(&self) -> Duration {
        let nanos = u128::from(self.sent) * 1_000_000_000 / u128::from(self.per_second);
        self.began_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes one that is due: when it was meant to be sent.
    pub fn due(&mut self, now: Duration) -> Option<Duration> {
        let at = self.next_at();
        (at <= now).then(|| self.sent += 1).map(|()| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stall_held_up_is_due_at_once_with_the_times_at_which_it_was_meant() {
        let mut pacer = Pacer::new(1000, Duration::from_secs(5));
        assert_eq!(pacer.due(Duration::from_secs(5)), Some(Duration::from_secs(5)));
        assert_eq!(pacer.due(Duration::from_secs(5)), None);
        let late = Duration::from_millis(5_003);
        let held_up: Vec<_> = std::iter::from_fn(|| pacer.due(late)).collect();
        assert_eq!(held_up, [1, 2, 3].map(|ms| Duration::from_millis(5_000 + ms)));
        assert_eq!(pacer.next_at(), Duration::from_millis(5_004));
    }
}
