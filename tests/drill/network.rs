//! A network that falls silent while messages come in: the phone in the tunnel. Its kernel acknowledges nothing any more; what it had
//! acknowledged its program still reads. It comes back by a new login, at once or after the server has given it up, or the same connection
//! comes to life again. Nothing is lost at either level; at level 2 nothing is shown twice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::ClientError;
use chatserver::protocol::NoticeCode;

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::{PATIENCE, Server, eventually, happens_within};
use crate::ledger::{Ledger, Levels, Mark};
use crate::net::{self, Silence};
use crate::person::{Event, Level, Person};
use crate::process;

/// Two of each level; `--times` silences for each level.
const RECIPIENTS: usize = 4;

/// A sender of each level for each of them.
const SENDERS: usize = 2;

/// The server's read timeout; recipients ping more often.
const READ_TIMEOUT: &str = "1 s";
const PING_EVERY: Duration = Duration::from_millis(200);

struct Tunnel<'s> {
    server: &'s Server,
    ledger: Ledger,
    seed: u64,
    /// The senders are to send their last.
    is_over: AtomicBool,
    /// Silences that swallowed something.
    swallowed: AtomicU64,
    silences: AtomicU64,
    connections: AtomicU64,
}

fn level(recipient: usize) -> Level {
    Level::of(recipient % 2 == 1)
}

fn levels(channel: usize) -> Levels {
    Levels { sender: Level::of(channel % SENDERS == 1), recipient: level(channel / SENDERS) }
}

/// Makes the network of recipients fall silent `times` times at each level.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut server = process::start(&place.path().join("data"), |setup| {
        setup.set("save_interval", "200 ms").set("read_timeout", READ_TIMEOUT)
    });
    let tunnel = Tunnel {
        server: &server,
        ledger: Ledger::new((0..RECIPIENTS * SENDERS).map(levels).collect()),
        seed,
        is_over: AtomicBool::new(false),
        swallowed: AtomicU64::new(0),
        silences: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        let tunnel = &tunnel;
        for channel in 0..RECIPIENTS * SENDERS {
            scope.spawn(move || tunnel.send(channel));
        }
        let recipients: Vec<_> = (0..RECIPIENTS)
            .map(|recipient| scope.spawn(move || tunnel.suffer(recipient, times.div_ceil(RECIPIENTS as u32 / 2))))
            .collect();
        let people: Vec<Person> = recipients.into_iter().map(|one| one.join().expect("a recipient")).collect();
        tunnel.is_over.store(true, SeqCst);
        for person in people {
            scope.spawn(move || tunnel.collect(person));
        }
    });
    // No server died, and no sender left before it had been heard.
    for channel in 0..RECIPIENTS * SENDERS {
        tunnel.ledger.promised(channel, 1..=tunnel.ledger.sent(channel));
    }
    let mut verdict = tunnel.ledger.judge();
    let (silences, swallowed) = (tunnel.silences.load(SeqCst), tunnel.swallowed.load(SeqCst));
    let mut wrong = std::mem::take(&mut verdict.wrong);
    let ended = server.sigterm();
    if !ended.success() {
        wrong.push(format!("at the end SIGTERM: {ended}"));
    }
    let (sent, receipts, again) = (verdict.sent, verdict.receipts, verdict.came_again);
    let line = format!(
        "network: {times} silences at each level, {swallowed} of {silences} swallowed something, texts {sent}, receipts {receipts}, \
         {verdict}, came again at level 1 {again}"
    );
    Outcome { line, wrong }
}

impl Tunnel<'_> {
    fn send(&self, channel: usize) {
        let mut dice = Dice::new(self.seed, 100 + channel as u64);
        let to = format!("recipient {}", channel / SENDERS);
        let mut person = Person::new(format!("sender {channel}"), levels(channel).sender);
        person.log_in(&self.server.connect()).expect("a sender logs in");
        loop {
            let is_last = self.is_over.load(SeqCst);
            for left in (0..=dice.roll(20)).rev() {
                let mark = self.ledger.next(channel, is_last && left == 0);
                let padding = if dice.is_one_in(40) { dice.roll(20_000) } else { dice.roll(300) };
                person.send(&to, &mark.text(padding as usize)).expect("a sender sends");
            }
            if is_last {
                person.roundtrip().expect("a sender is heard");
                // The receipt of the round trip is not told.
                let has_all = happens_within(PATIENCE, || {
                    while self.listen(&mut person, channel, Duration::ZERO) {}
                    person.level() == Level::One || person.unreceipted() == 0
                });
                assert!(has_all, "{}: not all receipts come", person.name());
                return;
            }
            let until = Instant::now() + dice.millis(0, 40);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                self.listen(&mut person, channel, left);
            }
        }
    }

    /// What a sender hears; `false`: nothing came.
    fn listen(&self, person: &mut Person, channel: usize, timeout: Duration) -> bool {
        match person.next(timeout).expect("a sender stays") {
            Some(Event::Receipt(receipt)) => self.ledger.receipt(channel, &receipt),
            Some(Event::Notice(notice)) => panic!("{}: {notice:?}", person.name()),
            // A round trip.
            Some(Event::Text(_)) => {}
            None => return false,
        }
        true
    }

    /// Loses its network again and again.
    fn suffer(&self, recipient: usize, times: u32) -> Person {
        let mut dice = Dice::new(self.seed, 200 + recipient as u64);
        let mut person = Person::new(format!("recipient {recipient}"), level(recipient));
        // The sockets of former connections, for a phone in a tunnel sends no FIN.
        let mut gone: Option<Silence> = None;
        let mut connection = 0;
        let mut is_in = false;
        for time in 1..=times {
            if !is_in {
                person.log_in(&self.server.connect()).unwrap_or_else(|error| panic!("{}: {error}", person.name()));
                connection = self.connections.fetch_add(1, SeqCst) as u32 + 1;
            }
            drop(gone.take());
            self.take_in_for(&mut person, connection, dice.millis(0, 150));
            if dice.is_one_in(3) {
                // A program that reads slowly: more and more is in its kernel, and then on the server's side.
                let bytes = dice.roll(100_000);
                let socket = socket_of(&mut person);
                happens_within(Duration::from_millis(300), || net::unread(&socket) >= bytes);
            }
            let socket = socket_of(&mut person);
            let silence = Silence::begin(&socket);
            self.silences.fetch_add(1, SeqCst);
            // Most come back when something was swallowed, some at once.
            if !dice.is_one_in(4) && happens_within(PATIENCE, || net::unacknowledged(&socket) > 0) {
                self.swallowed.fetch_add(1, SeqCst);
            }
            is_in = dice.is_one_in(6);
            if is_in {
                silence.end();
            } else {
                self.take_in_for(&mut person, connection, Duration::ZERO);
                if dice.is_one_in(10) {
                    let name = person.name();
                    eventually("the server gives a silent client up", || !self.server.has_thread(name));
                }
                person.leave();
                gone = Some(silence);
            }
            if time % 25 == 0 {
                eprintln!("network: {}: {time} of {times}", person.name());
            }
        }
        if is_in {
            self.take_in_for(&mut person, connection, Duration::ZERO);
            person.vanish();
        }
        person
    }

    /// Shows what comes within this time, and all that is there already. A server that closes is noticed at the next login.
    fn take_in_for(&self, person: &mut Person, connection: u32, time: Duration) {
        let until = Instant::now() + time;
        let mut pinged_at = Instant::now();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.take_in(person, connection, left.min(PING_EVERY), &mut pinged_at) {
                Ok(Some(_)) => {}
                // A long packet takes several reads, and the time was over after the first.
                Ok(None) if left.is_zero() && net::unread(&socket_of(person)) == 0 => return,
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// After the last silence: everything up to the last text of each sender.
    fn collect(&self, mut person: Person) {
        person.log_in(&self.server.connect()).unwrap_or_else(|error| panic!("{}: {error}", person.name()));
        let connection = self.connections.fetch_add(1, SeqCst) as u32 + 1;
        let (mut pinged_at, mut heard_at, mut missing) = (Instant::now(), Instant::now(), SENDERS);
        // If they do not come, the judge will find what is lost.
        while missing > 0 && heard_at.elapsed() < PATIENCE {
            match self.take_in(&mut person, connection, PING_EVERY, &mut pinged_at) {
                Ok(Some(mark)) => {
                    heard_at = Instant::now();
                    missing -= usize::from(mark.is_last);
                }
                Ok(None) => {}
                Err(error) => panic!("{}, who pings and reads: {error}", person.name()),
            }
        }
        let _ = person.say_goodbye();
        while person.next(PATIENCE).is_ok() {}
    }

    /// Shows one text, and pings when it is time.
    fn take_in(
        &self,
        person: &mut Person,
        connection: u32,
        timeout: Duration,
        pinged_at: &mut Instant,
    ) -> Result<Option<Mark>, ClientError> {
        if pinged_at.elapsed() > PING_EVERY {
            *pinged_at = Instant::now();
            let _ = person.client().ping();
        }
        let text = match person.next(timeout)? {
            Some(Event::Text(text)) => text,
            // Given up for its silence, or replaced by its own next login.
            Some(Event::Notice(notice)) if matches!(notice.code, NoticeCode::Idle | NoticeCode::Replaced) => {
                return Ok(None);
            }
            Some(other) => panic!("{}: {other:?}", person.name()),
            None => return Ok(None),
        };
        let mark = Mark::of(&text).unwrap_or_else(|| panic!("a text of the drill: {text:?}"));
        self.ledger.shown(mark, connection);
        Ok(Some(mark))
    }
}

fn socket_of(person: &mut Person) -> std::net::TcpStream {
    person.client().connection().stream().try_clone().expect("a socket has another descriptor")
}
