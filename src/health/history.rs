//! The past of the present period in steps of equal length, for a chart: bounded however long the period is.

use super::Counts;

/// At most so many steps; when they are full, each two become one.
const MAX_SAMPLES: usize = 1440;

/// What happened in one step.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it began, Unix milliseconds.
    pub from: i64,
    /// When it ended.
    pub to: i64,
    /// The most users at one time.
    pub users: u64,
    /// Messages relayed live.
    pub relayed: u64,
    /// Messages that had to wait.
    pub waiting: u64,
    /// Messages delivered from storage.
    pub delivered_from_disk: u64,
}

impl Sample {
    /// One step made of this one and the one after it.
    pub fn join(self, later: Sample) -> Sample {
        Sample {
            from: self.from,
            to: later.to,
            users: self.users.max(later.users),
            relayed: self.relayed + later.relayed,
            waiting: self.waiting + later.waiting,
            delivered_from_disk: self.delivered_from_disk + later.delivered_from_disk,
        }
    }
}

/// The steps of the present period.
#[derive(Debug, Clone)]
pub struct History {
    samples: Vec<Sample>,
    first_step_ms: i64,
    step_ms: i64,
}

impl History {
    /// Nothing yet; steps of `step_ms` at first.
    pub fn new(step_ms: i64) -> History {
        History { samples: Vec::new(), first_step_ms: step_ms, step_ms }
    }

    /// The time from `from` to `to` had these counts and so many users.
    pub fn add(&mut self, from: i64, to: i64, users: u64, counts: &Counts) {
        let sample = Sample {
            from,
            to,
            users,
            relayed: counts.relayed,
            waiting: counts.waiting,
            delivered_from_disk: counts.delivered_from_disk,
        };
        match self.samples.last_mut() {
            Some(last) if sample.to - last.from <= self.step_ms => *last = last.join(sample),
            _ => self.samples.push(sample),
        }
        if self.samples.len() > MAX_SAMPLES {
            self.step_ms *= 2;
            self.samples = self
                .samples
                .chunks(2)
                .map(|two| two.iter().copied().reduce(Sample::join))
                .collect::<Option<_>>()
                .unwrap_or_default();
        }
    }

    /// All steps, the oldest first.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The most users at one time.
    pub fn peak(&self) -> u64 {
        self.samples.iter().map(|sample| sample.users).max().unwrap_or(0)
    }

    /// What happened until `time` is told: it goes, and the steps are short again.
    pub fn forget_until(&mut self, time: i64) {
        self.samples.retain(|sample| sample.to > time);
        if let Some(first) = self.samples.first_mut() {
            first.from = first.from.max(time);
        }
        self.step_ms = self.first_step_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_it_gets_nothing_of_it_is_lost() {
        let mut history = History::new(60_000);
        let counts = Counts { relayed: 3, waiting: 1, ..Counts::default() };
        for step in 0..100_000i64 {
            history.add(step * 5000, (step + 1) * 5000, step as u64 % 77, &counts);
        }
        let samples = history.samples();
        assert!(samples.len() <= MAX_SAMPLES && samples.len() > MAX_SAMPLES / 4, "{}", samples.len());
        assert_eq!(samples.iter().map(|sample| sample.relayed).sum::<u64>(), 300_000);
        assert_eq!((samples[0].from, samples.last().unwrap().to, history.peak()), (0, 500_000_000, 76));
        assert!(samples.windows(2).all(|two| two[0].to == two[1].from));
        history.forget_until(499_000_000);
        assert!(history.samples().iter().all(|sample| sample.to > 499_000_000) && !history.samples().is_empty());
        assert_eq!(history.samples()[0].from, 499_000_000);
        history.add(500_000_000, 500_005_000, 1, &counts);
        history.add(500_005_000, 500_070_000, 1, &counts);
        assert_eq!(history.samples().last().unwrap().from, 500_005_000, "steps are short again");
    }
}
