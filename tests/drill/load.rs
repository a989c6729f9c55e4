//! What goes on while servers die: fifty pairs, one writing to the other. Half of the recipients are there all the time, a quarter comes and
//! goes, a quarter is absent until the end. Senders and recipients speak level 1 or 2, in each combination.
//!
//! Who has a promise: a sender of level 2 for each text with a receipt, and since it sends the others again, for each text in the end; one of level 1
//! for what was accepted before a `save` over `ctl.sock` was answered. When no server dies any more, each sender sends a last text, and each
//! recipient collects until it has that.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::ClientError;
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::harness::{PATIENCE, Setup};
use crate::ledger::{Ledger, Levels, Mark, Verdict};
use crate::person::{Event, Level, Person};
use crate::process::{self, Lives};

const PAIRS: usize = 50;

/// Texts that a sender writes at most before it looks what came for it.
const BURST: u64 = 8;

/// Longest pause of a sender between two bursts, milliseconds: so many write about 2,000 texts a second.
const PAUSE_MS: u64 = 200;

/// A recipient pings so often. At level 1 the server learns from it that what came from disk was read; else all of it comes again in each life.
const PING_EVERY: Duration = Duration::from_millis(300);

/// How a recipient behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Stays,
    ComesAndGoes,
    IsAbsent,
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

/// A load, and the death of its servers.
pub struct Load<'d> {
    name: &'d str,
    dice: Dice,
    seed: u64,
    ledger: Ledger,
    lives: Lives,
    accepted: Vec<Mutex<Accepted>>, // lock: one at a time
}

/// What a server is known to have accepted of a channel of a sender of level 1, which the next one need not know of.
#[derive(Clone, Copy, Default)]
struct Accepted {
    life: u32,
    /// Inclusive; none of it when `last < first`.
    first: u64,
    last: u64,
}

impl Load<'_> {
    /// Nobody has written yet. `name` begins the lines of progress.
    pub fn new(name: &str, seed: u64) -> Load<'_> {
        Load {
            name,
            dice: Dice::new(seed, 0),
            seed,
            ledger: Ledger::new((0..PAIRS).map(levels).collect()),
            lives: Lives::new(),
            accepted: (0..PAIRS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Kills the server `times` times and looks for everything. `after_death` is given the directory before the next start, `prepare` each start's settings.
    pub fn run(
        mut self,
        times: u32,
        data: &Path,
        prepare: impl Fn(&mut Setup) -> &mut Setup,
        mut after_death: impl FnMut(&Path, &mut Dice),
    ) -> Report {
        let server = process::start(data, &prepare);
        let mut dice = std::mem::replace(&mut self.dice, Dice::new(0, 0));
        let (mut report, mut server) = thread::scope(|scope| {
            let mut server = server;
            let this = &self;
            this.lives.begin(&server);
            for pair in 0..PAIRS {
                scope.spawn(move || this.send(pair));
                scope.spawn(move || this.receive(pair));
            }
            scope.spawn(move || this.save(data));
            let (mut slowest_start, mut unsound, mut wrong) = (Duration::ZERO, 0, Vec::new());
            for time in 1..=times {
                this.lives.stay_away(dice.millis(50, 1500));
                this.lives.end();
                server.kill9();
                after_death(data, &mut dice);
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
                this.lives.begin(&server);
                let (receipts, shown) = (this.ledger.receipts_so_far(), this.ledger.shown_so_far());
                eprintln!("{}: {time} of {times}: {receipts} receipts, {shown} shown", this.name);
            }
            this.lives.wind_up();
            (Report { verdict: Verdict::default(), slowest_start, unsound, wrong }, server)
        });
        // Nothing died any more after they were accepted.
        for (channel, accepted) in
            self.accepted.iter().enumerate().filter(|(pair, _)| levels(*pair).sender == Level::One)
        {
            let last = accepted.lock().last;
            self.ledger.promised(channel, last..=last);
        }
        report.verdict = self.ledger.judge();
        report.wrong.append(&mut report.verdict.wrong);
        report.wrong.extend(self.lives.surprises());
        let ended = server.sigterm();
        if !ended.success() {
            report.wrong.push(format!("at the end SIGTERM: {ended}"));
        }
        report
    }

    fn send(&self, pair: usize) {
        let mut dice = Dice::new(self.seed, 1000 + pair as u64);
        let mut person = Person::new(format!("sender {pair}"), levels(pair).sender);
        // At level 2; at level 1 it may have to be sent again, as another text.
        let mut has_sent_last = false;
        loop {
            let (connect, life) = self.lives.connect();
            if let Err(error) = person.log_in(&connect) {
                self.lives.lost(life, person.name(), &error);
                continue;
            }
            *self.accepted[pair].lock() = Accepted { life, first: self.ledger.sent(pair) + 1, last: 0 };
            match self.send_until_the_last(&mut person, pair, &mut has_sent_last, &mut dice) {
                Ok(()) => return,
                Err(error) => {
                    // A promise that came before the end is one.
                    while self.listen(&mut person, pair, Duration::ZERO).is_ok_and(|heard| heard) {}
                    self.lives.lost(life, person.name(), &error);
                }
            }
        }
    }

    /// Sends and sends; in the last life it ends when the last text is as safe as its level has it.
    fn send_until_the_last(
        &self,
        person: &mut Person,
        pair: usize,
        has_sent_last: &mut bool,
        dice: &mut Dice,
    ) -> Result<(), ClientError> {
        let to = format!("recipient {pair}");
        let is_numbered = person.level() == Level::Two;
        while !*has_sent_last {
            let is_last = self.lives.is_winding_up();
            for left in (0..=dice.roll(BURST)).rev() {
                let mark = self.ledger.next(pair, is_last && left == 0);
                let padding = if dice.is_one_in(50) { dice.roll(20_000) } else { dice.roll(200) };
                // Whatever comes of the write, it is remembered.
                *has_sent_last = is_numbered && mark.is_last;
                person.send(&to, &mark.text(padding as usize))?;
                if left == 0 && !is_numbered && (is_last || dice.is_one_in(4)) {
                    person.roundtrip()?;
                    self.accepted[pair].lock().last = mark.number;
                }
            }
            if is_last {
                break;
            }
            let until = Instant::now() + dice.millis(0, PAUSE_MS);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                self.listen(person, pair, left)?;
            }
        }
        let until = Instant::now() + PATIENCE;
        while is_numbered && person.unreceipted() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if !self.listen(person, pair, left)? && left.is_zero() {
                let (name, missing) = (person.name().to_owned(), person.unreceipted());
                self.lives.surprise(format!("{name} waits for {missing} receipts after {PATIENCE:?}"));
                break;
            }
        }
        while self.listen(person, pair, Duration::ZERO)? {}
        Ok(())
    }

    /// What a sender hears; `false`: nothing came.
    fn listen(&self, person: &mut Person, pair: usize, timeout: Duration) -> Result<bool, ClientError> {
        match person.next(timeout)? {
            Some(Event::Receipt(receipt)) => self.ledger.receipt(pair, &receipt),
            Some(Event::Notice(notice)) => self.lives.surprise(format!("{}: {notice:?}", person.name())),
            // A round trip.
            Some(Event::Text(_)) => {}
            None => return Ok(false),
        }
        Ok(true)
    }

    fn receive(&self, pair: usize) {
        let mut dice = Dice::new(self.seed, 2000 + pair as u64);
        // Each combination of levels has each habit.
        let habit = match pair / 4 % 4 {
            0 | 1 => Habit::Stays,
            2 => Habit::ComesAndGoes,
            _ => Habit::IsAbsent,
        };
        let mut person = Person::new(format!("recipient {pair}"), levels(pair).recipient);
        if habit == Habit::IsAbsent {
            self.lives.wait_for_the_last();
        }
        for connection in 1.. {
            let (connect, life) = self.lives.connect();
            let end = person.log_in(&connect).and_then(|()| {
                let stay = (habit == Habit::ComesAndGoes).then(|| dice.millis(0, 400));
                self.take_in(&mut person, connection, stay, &mut dice)
            });
            person.leave();
            match end {
                Ok(true) => return,
                Ok(false) => self.lives.stay_away(dice.millis(0, 600)),
                Err(error) => self.lives.lost(life, person.name(), &error),
            }
        }
    }

    /// Takes in what comes, for as long as it likes to stay; `true`: the last text has come.
    fn take_in(
        &self,
        person: &mut Person,
        connection: u32,
        stay: Option<Duration>,
        dice: &mut Dice,
    ) -> Result<bool, ClientError> {
        let mut leave_at = stay.map(|stay| Instant::now() + stay);
        let mut heard_at = Instant::now();
        let mut is_leaving = false;
        let mut pinged_at = Instant::now();
        loop {
            if !is_leaving && pinged_at.elapsed() > PING_EVERY {
                pinged_at = Instant::now();
                // If the connection has ended, `next` tells it in its time.
                let _ = person.client().ping();
            }
            if self.lives.is_winding_up() {
                leave_at = None;
            }
            if !is_leaving && leave_at.is_some_and(|at| at <= Instant::now()) {
                is_leaving = true;
                // At level 1 what TCP has acknowledged counts as read, so it must be read.
                // And what came before the connection broke, too: `next` tells of that in its time.
                let _ = person.say_goodbye();
            }
            match person.next(dice.millis(1, 50)) {
                Ok(Some(Event::Text(text))) => {
                    heard_at = Instant::now();
                    let Some(mark) = Mark::of(&text) else { continue };
                    self.ledger.shown(mark, connection);
                    if mark.is_last {
                        return Ok(true);
                    }
                }
                Ok(Some(Event::Notice(notice))) => self.lives.surprise(format!("{}: {notice:?}", person.name())),
                Ok(Some(Event::Receipt(receipt))) => panic!("{} has sent nothing: {receipt:?}", person.name()),
                Ok(None) if self.lives.is_winding_up() && heard_at.elapsed() > PATIENCE => return Ok(true),
                Ok(None) => {}
                Err(ClientError::Closed { .. }) if is_leaving => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the server save, now and then: a promise for what it had accepted.
    fn save(&self, data: &Path) {
        let mut dice = Dice::new(self.seed, 3000);
        while !self.lives.is_winding_up() {
            self.lives.stay_away(dice.millis(50, 500));
            let (_, life) = self.lives.connect();
            let accepted: Vec<Accepted> = self.accepted.iter().map(|accepted| *accepted.lock()).collect();
            let is_saved = process::ask(data, "save").is_ok_and(|answer| answer["saved"].is_u64());
            if is_saved && self.lives.is_still(life) {
                for (channel, accepted) in accepted.iter().enumerate().filter(|(_, accepted)| accepted.life == life) {
                    self.ledger.promised(channel, accepted.first..=accepted.last);
                }
            }
        }
    }
}

/// The levels of a pair.
fn levels(pair: usize) -> Levels {
    Levels { sender: Level::of(pair % 4 >= 2), recipient: Level::of(pair % 2 == 1) }
}
