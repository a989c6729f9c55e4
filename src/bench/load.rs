//! What workloads have in common: users who log in, flows between them, and the book in which every arrival is entered.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::crowd::{Crowd, Happening, What};
use super::flow::{self, Arrival, Flow};
use super::process::Usage;
use super::report::{Cost, Latency, Report, distribution};
use super::target::Target;
use super::{Failure, Settings};

/// Width of a point in the picture of the rate over time.
pub const STEP: Duration = Duration::from_millis(100);

/// What does not arrive within this, after the last that did, is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Logins on their way at one time.
const LOGINS: usize = 64;

/// A longest wait within a run: a bar moves, and the end is noticed.
const TURN: Duration = Duration::from_millis(50);

/// Told how far a run is: a share of 1, and what it does.
pub type Progress<'p> = &'p mut dyn FnMut(f64, &str);

/// What was counted while it was measured.
struct Book {
    histogram: Histogram<u64>,
    count: u64,
    series: Vec<u64>,
    from: Duration,
    is_open: bool,
}

/// Clients of one server, their flows, and what came of them.
pub struct Load<'t, 'p> {
    /// The clients.
    pub crowd: Crowd<'t>,
    /// As set by the user.
    pub settings: &'t Settings,
    /// What is between the users.
    pub flows: Vec<Flow>,
    pid: Option<i32>,
    progress: Progress<'p>,
    text: Vec<u8>,
    happened: Vec<Happening>,
    came: Vec<u32>,
    book: Book,
    /// Measured or not.
    entered: u64,
    duplicated: u64,
    reordered: u64,
    strange: u64,
    closed: u64,
}

/// What one interval showed.
pub struct Measured {
    /// How long it was.
    pub time: Duration,
    /// What came in it.
    pub count: u64,
    /// What the server's process used in it.
    pub usage: Option<Usage>,
    /// How long each took, nanoseconds.
    pub histogram: Histogram<u64>,
    /// What came in each [`STEP`].
    pub series: Vec<u64>,
}

/// From a nanosecond to a minute, with three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are right")
}

impl<'t, 'p> Load<'t, 'p> {
    /// Nobody yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(target: &'t mut Target, settings: &'t Settings, progress: Progress<'p>) -> Result<Self, Failure> {
        let crowd = Crowd::new(target.address, &mut *target.dialect)?;
        let book = Book { histogram: histogram(), count: 0, series: Vec::new(), from: Duration::ZERO, is_open: false };
        Ok(Load {
            crowd,
            settings,
            flows: Vec::new(),
            pid: target.pid,
            progress,
            text: vec![b'.'; settings.text_bytes],
            happened: Vec::new(),
            came: Vec::new(),
            book,
            entered: 0,
            duplicated: 0,
            reordered: 0,
            strange: 0,
            closed: 0,
        })
    }

    /// Lets `count` more users in; their places are those from the crowd's former end.
    ///
    /// # Errors
    /// The server takes no more, or is silent.
    pub fn log_in(&mut self, count: u32) -> Result<(), Failure> {
        let first = self.crowd.len() as u32;
        let (mut asked, mut is_in) = (0, 0);
        let mut heard_at = self.crowd.now();
        while is_in < count {
            while asked < count && (asked - is_in) < LOGINS as u32 {
                self.crowd.join(first + asked)?;
                asked += 1;
            }
            self.crowd.flush();
            let before = is_in;
            self.turn(TURN)?;
            is_in += self.happened.iter().filter(|happening| happening.what == What::LoggedIn).count() as u32;
            match is_in > before {
                true => heard_at = self.crowd.now(),
                false if self.crowd.now() - heard_at > PATIENCE => return Err(Failure::Silent("a login")),
                false => {}
            }
            if self.closed > 0 {
                return Err(Failure::Closed);
            }
            if count >= 1000 {
                (self.progress)(f64::from(is_in) / f64::from(count), "logging in");
            }
        }
        Ok(())
    }

    /// A flow, from place to place in the crowd, which are users' numbers too; gives its number.
    pub fn flow(&mut self, from: u32, to: u32) -> u32 {
        self.flows.push(Flow::new(from, to));
        self.flows.len() as u32 - 1
    }

    /// Writes the next message of a flow, as sent `at`; it leaves with the next flush.
    pub fn send(&mut self, flow: u32, at: Duration) {
        let this = &mut self.flows[flow as usize];
        let number = this.sent(at);
        flow::stamp(&mut self.text, flow, number);
        self.crowd.write(this.from, this.to, &self.text);
    }

    /// Waits until something happens, `patience` at most, and enters it in the book.
    ///
    /// # Errors
    /// The server speaks something else.
    pub fn turn(&mut self, patience: Duration) -> Result<(), Failure> {
        self.happened.clear();
        self.came.clear();
        self.crowd.turn(patience, &mut self.happened)?;
        for next in 0..self.happened.len() {
            let Happening { client, at, what } = self.happened[next];
            match what {
                What::Text { flow, number, text_bytes } => {
                    let known = self.flows.get_mut(flow as usize).filter(|known| known.to == client);
                    let Some(known) = known.filter(|_| text_bytes as usize == self.text.len()) else {
                        self.strange += 1;
                        continue;
                    };
                    let is_aside = known.is_aside;
                    let latency = match known.arrived(number, at) {
                        Arrival::InOrder(latency) => latency,
                        Arrival::Late(latency) => {
                            self.reordered += 1;
                            latency
                        }
                        Arrival::Again => {
                            self.duplicated += 1;
                            continue;
                        }
                    };
                    self.came.push(flow);
                    if !is_aside {
                        self.enter(latency, at);
                    }
                }
                What::Strange => self.strange += 1,
                What::Closed => self.closed += 1,
                What::LoggedIn => {}
            }
        }
        Ok(())
    }

    /// Numbers of the flows of which something came in the last turn, once for each message that had not come before.
    pub fn came(&self) -> impl Iterator<Item = u32> {
        self.came.iter().copied()
    }

    /// What happened in the last turn.
    pub fn happened(&self) -> &[Happening] {
        &self.happened
    }

    /// Enters what took this long: a message, or a login.
    pub fn enter(&mut self, latency: Duration, at: Duration) {
        self.entered += 1;
        self.book.enter(latency, at);
    }

    /// What the server's process has used.
    pub fn usage(&self) -> Option<Usage> {
        self.pid.and_then(|pid| Usage::read(pid).ok())
    }

    /// The same without switches.
    fn times(&self) -> Option<Usage> {
        self.pid.and_then(|pid| Usage::read_times(pid).ok())
    }

    /// Goes round for a while unmeasured, and then measures for `time`. `step` is called before each turn with the time; what it gives is when it wants
    /// to be called again at the latest.
    ///
    /// # Errors
    /// The server speaks something else, or has closed a connection that nobody wanted closed.
    pub fn measure(
        &mut self,
        time: Duration,
        may_close: bool,
        mut step: impl FnMut(&mut Self, Duration) -> Result<Duration, Failure>,
    ) -> Result<Measured, Failure> {
        // Of thousands of threads this takes a while, in which nobody is answered: so before the warm-up, which counts for it.
        let (all_before, switches_before) = (self.entered, self.usage());
        let begin = self.crowd.now();
        let from = begin + self.settings.warm_up;
        let mut until = from + time;
        let mut before = None;
        let mut drawn_at = Duration::ZERO;
        self.book.is_open = false;
        loop {
            let now = self.crowd.now();
            if !self.book.is_open && now >= from {
                before = self.times();
                self.book = Book {
                    histogram: histogram(),
                    count: 0,
                    series: Vec::new(),
                    from: self.crowd.now(),
                    is_open: true,
                };
                until = self.book.from + time;
            }
            if now >= until {
                break;
            }
            if now >= drawn_at {
                drawn_at = now + TURN;
                let share = (now - begin).as_secs_f64() / (until - begin).as_secs_f64();
                (self.progress)(share, if self.book.is_open { "measuring" } else { "warming up" });
            }
            let again_at = step(self, now)?;
            self.crowd.flush();
            self.turn(again_at.min(until).saturating_sub(self.crowd.now()).min(TURN))?;
            if self.closed > 0 && !may_close {
                return Err(Failure::Closed);
            }
        }
        let (now, mut after, switches_after) = (self.crowd.now(), self.times(), self.usage());
        self.book.is_open = false;
        if let (Some(before), Some(after), Some(switches)) = (&switches_before, &mut after, &switches_after) {
            let all = (self.entered - all_before).max(1);
            after.switches = switches.since(before).switches * self.book.count / all;
        }
        Ok(Measured {
            time: now - self.book.from,
            count: self.book.count,
            usage: after.zip(before).map(|(after, before)| after.since(&before)),
            histogram: self.book.histogram.clone(),
            series: std::mem::take(&mut self.book.series),
        })
    }

    /// Waits for what is still on its way in these flows.
    ///
    /// # Errors
    /// The server speaks something else.
    pub fn drain(&mut self, flows: &[u32]) -> Result<(), Failure> {
        let missing = |load: &Self| flows.iter().map(|flow| load.flows[*flow as usize].missing()).sum::<usize>();
        let (mut left, mut heard_at) = (missing(self), self.crowd.now());
        while left > 0 && self.crowd.now() - heard_at < PATIENCE {
            self.crowd.flush();
            self.turn(TURN)?;
            let now_left = missing(self);
            if now_left < left {
                (left, heard_at) = (now_left, self.crowd.now());
            }
        }
        Ok(())
    }

    /// Tells how far it is.
    pub fn progress(&mut self, share: f64, what: &str) {
        (self.progress)(share, what);
    }

    /// What was counted by the workload itself in `time`, without a latency of each.
    pub fn counted(&self, unit: &str, time: Duration, count: u64, usage: Option<Usage>) -> Report {
        self.report(unit, Measured { time, count, usage, histogram: histogram(), series: Vec::new() })
    }

    /// All that was measured; what is missing now is lost.
    pub fn report(&self, unit: &str, measured: Measured) -> Report {
        let seconds = measured.time.as_secs_f64();
        Report {
            pairs: self.settings.pairs,
            window: self.settings.window,
            text_bytes: self.settings.text_bytes,
            unit: unit.into(),
            seconds,
            count: measured.count,
            per_second: measured.count as f64 / seconds,
            latency_us: (!measured.histogram.is_empty()).then(|| Latency::of(&measured.histogram)),
            cost: measured.usage.map(|usage| Cost::of(&usage, measured.count)),
            resident_kib: self.usage().map(|usage| usage.resident_bytes / 1024),
            lost: self.flows.iter().map(|flow| flow.missing() as u64).sum(),
            duplicated: self.duplicated,
            reordered: self.reordered,
            strange: self.strange,
            distribution_us: distribution(&measured.histogram),
            series: measured.series,
            ..Report::default()
        }
    }
}

impl Book {
    fn enter(&mut self, latency: Duration, at: Duration) {
        if !self.is_open || at < self.from {
            return;
        }
        self.count += 1;
        self.histogram.saturating_record(latency.as_nanos() as u64);
        let step = ((at - self.from).as_nanos() / STEP.as_nanos()) as usize;
        if step >= self.series.len() {
            self.series.resize(step + 1, 0);
        }
        self.series[step] += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::bench::dialect::Plain;
    use crate::protocol::{Cipher, PUBLISHED_KEY};

    #[test]
    fn what_is_aside_is_checked_but_not_measured() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || crate::bench::serve_relay(&listener));
        let mut target = Target::at("floor", address, Box::new(Plain::new(Cipher::new(PUBLISHED_KEY).unwrap())));
        let settings = Settings {
            pairs: 1,
            window: 1,
            text_bytes: 20,
            time: Duration::ZERO,
            warm_up: Duration::ZERO,
            rate: 1,
            users: 0,
            messages: 1,
        };
        let mut progress = |_: f64, _: &str| {};
        let mut load = Load::new(&mut target, &settings, &mut progress).unwrap();
        load.log_in(3).unwrap();
        let (measured, aside) = (load.flow(0, 1), load.flow(0, 2));
        load.flows[aside as usize].is_aside = true;
        let (mut sent, mut came) = (0, 0);
        let result = load.measure(Duration::from_millis(50), false, |load, now| {
            came += load.came().filter(|flow| *flow == measured).count() as u64;
            [measured, aside].into_iter().for_each(|flow| load.send(flow, now));
            sent += 1;
            Ok(now + Duration::from_millis(1))
        });
        let result = result.unwrap();
        load.drain(&[measured, aside]).unwrap();
        assert!(
            came > 0 && (came..=sent).contains(&result.count),
            "{came} of {sent} came, {} are counted",
            result.count
        );
        assert_eq!(load.flows[aside as usize].missing(), 0);
    }
}
