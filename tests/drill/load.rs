//! What goes on while a server suffers: fifty pairs, one writing to the other. Half of the recipients are there all the time, a quarter comes and
//! goes, a quarter is absent until the end. Senders and recipients speak level 1 or 2, in each combination.
//!
//! Who has a promise: a sender of level 2 for each text with a receipt, and since it sends the others again, for each text in the end; one of level 1
//! for what was accepted before a `save` over `ctl.sock` was answered, or before a stop in order, and for everything when no server ended. When nothing
//! happens to the server any more, each sender sends a last text, and each recipient collects until it has that.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::{ClientError, Notice};
use chatserver::protocol::NoticeCode;
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::harness::{PATIENCE, Server};
use crate::ledger::{Ledger, Levels, Mark, Verdict};
use crate::person::{Event, Level, Person};
use crate::process::{self, Lives};

const PAIRS: usize = 50;

/// Texts that a sender writes at most before it looks what came for it.
const BURST: u64 = 8;

/// Longest pause of a sender between two bursts, milliseconds: fifty write about 2,000 texts a second.
const PAUSE_MS: u64 = 200;

/// A recipient pings so often. At level 1 the server learns from it that what came from disk was read; else all of it comes again in each life.
const PING_EVERY: Duration = Duration::from_millis(300);

/// How a recipient behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    Stays,
    ComesAndGoes,
    /// Until the end.
    IsAbsent,
    /// For half a minute at a time; then it takes in what has waited.
    IsAway,
    /// Logs in and does not read for some seconds, while long texts are written to it; then it takes them in.
    Dawdles,
}

/// Of each four pairs, which have each combination of levels.
const HABITS: &[Habit] = &[Habit::Stays, Habit::Stays, Habit::ComesAndGoes, Habit::IsAbsent];

/// Bytes of the texts for one who dawdles: more than its socket and its outbox hold.
const LONG_BYTES: u64 = 20_000;

/// A load.
pub struct Load<'d> {
    name: &'d str,
    dice: Dice,
    seed: u64,
    habits: &'d [Habit],
    pairs: usize,
    pause_ms: u64,
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
    /// Fifty pairs; nobody has written yet. `name` begins the lines of progress.
    pub fn new(name: &str, seed: u64) -> Load<'_> {
        Load::of(name, seed, HABITS, PAIRS)
    }

    /// As many pairs, whose recipients have these habits, four at a time.
    pub fn of<'d>(name: &'d str, seed: u64, habits: &'d [Habit], pairs: usize) -> Load<'d> {
        Load {
            name,
            dice: Dice::new(seed, 0),
            seed,
            habits,
            pairs,
            pause_ms: PAUSE_MS,
            ledger: Ledger::new((0..pairs).map(levels).collect()),
            lives: Lives::new(),
            accepted: (0..pairs).map(|_| Mutex::default()).collect(),
        }
    }

    /// Another pause between two bursts, at the longest.
    pub fn pause_ms(mut self, pause_ms: u64) -> Self {
        self.pause_ms = pause_ms;
        self
    }

    /// Goes on while `ordeal` does to the server what the drill is about; then everything is looked for. The server that `ordeal` gives back is
    /// stopped at the end, after `leave`, which finds a server that everybody has left.
    pub fn run(
        mut self,
        server: Server,
        ordeal: impl FnOnce(&Load<'_>, Server, &mut Dice) -> Server,
        leave: impl FnOnce(&Server),
    ) -> Verdict {
        let data = server.data();
        let mut dice = std::mem::replace(&mut self.dice, Dice::new(0, 0));
        let mut server = thread::scope(|scope| {
            let (this, data) = (&self, &data);
            this.lives.begin(&server);
            for pair in 0..this.pairs {
                scope.spawn(move || this.send(pair));
                scope.spawn(move || this.receive(pair));
            }
            scope.spawn(move || this.save(data));
            let server = ordeal(this, server, &mut dice);
            this.lives.wind_up();
            server
        });
        leave(&server);
        for channel in 0..self.pairs {
            // Nothing ended any more after the last texts of level 1 were accepted.
            let last = match self.lives.count() {
                1 => 1..=self.ledger.sent(channel),
                _ if levels(channel).sender == Level::One => {
                    let last = self.accepted[channel].lock().last;
                    last..=last
                }
                _ => continue,
            };
            self.ledger.promised(channel, last);
        }
        let mut verdict = self.ledger.judge();
        verdict.wrong.extend(self.lives.surprises());
        let ended = server.sigterm();
        if !ended.success() {
            verdict.wrong.push(format!("at the end SIGTERM: {ended}"));
        }
        verdict
    }

    /// The server and its end, and where whoever has to do with it waits.
    pub fn lives(&self) -> &Lives {
        &self.lives
    }

    /// A line of progress.
    pub fn tell(&self, progress: &str) {
        let (receipts, shown) = (self.ledger.receipts_so_far(), self.ledger.shown_so_far());
        eprintln!("{}: {progress}: {receipts} receipts, {shown} shown", self.name);
    }

    /// The present server is about to be stopped in order: what it has accepted by now is safe.
    pub fn promise_accepted(&self) {
        let (_, life) = self.lives.connect();
        let accepted = self.accepted.iter().map(|accepted| *accepted.lock()).enumerate();
        for (channel, accepted) in accepted.filter(|(_, accepted)| accepted.life == life) {
            self.ledger.promised(channel, accepted.first..=accepted.last);
        }
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
                let is_long = self.habit(pair) == Habit::Dawdles;
                let padding = if is_long || dice.is_one_in(50) { dice.roll(LONG_BYTES) } else { dice.roll(200) };
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
            let until = Instant::now() + dice.millis(0, self.pause_ms);
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
            Some(Event::Notice(notice)) => self.note_notice(person.name(), &notice),
            // A round trip.
            Some(Event::Text(_)) => {}
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Only one that stops says so, and there is a next one.
    fn note_notice(&self, name: &str, notice: &Notice) {
        if notice.code != NoticeCode::Stopping || !self.lives.has_one_ended() {
            self.lives.surprise(format!("{name}: {notice:?}"));
        }
    }

    /// Each combination of levels has each habit.
    fn habit(&self, pair: usize) -> Habit {
        self.habits[pair / 4 % self.habits.len()]
    }

    fn receive(&self, pair: usize) {
        let mut dice = Dice::new(self.seed, 2000 + pair as u64);
        let habit = self.habit(pair);
        let mut person = Person::new(format!("recipient {pair}"), levels(pair).recipient);
        if habit == Habit::IsAbsent {
            self.lives.wait_for_the_last();
        }
        for connection in 1.. {
            let (connect, life) = self.lives.connect();
            let end = person.log_in(&connect).and_then(|()| {
                let stay = match habit {
                    Habit::Stays | Habit::IsAbsent => None,
                    Habit::ComesAndGoes => Some(dice.millis(0, 400)),
                    Habit::IsAway | Habit::Dawdles => Some(dice.millis(2000, 5000)),
                };
                if habit == Habit::Dawdles {
                    self.lives.stay_away(dice.millis(0, 15_000));
                }
                self.take_in(&mut person, connection, stay, &mut dice)
            });
            person.leave();
            match end {
                Ok(true) => return,
                Ok(false) if habit == Habit::IsAway => self.lives.stay_away(dice.millis(10_000, 40_000)),
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
                Ok(Some(Event::Notice(notice))) => self.note_notice(person.name(), &notice),
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
