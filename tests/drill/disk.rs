//! A disk that fails at the N-th write or sync, for each N, and one that is really full.
//!
//! With N go the kinds of fault in turn: ENOSPC or EIO, of pwrite64 or fsync and fdatasync. From its N-th such call on the timer, the one thread that
//! writes to the database, has no success (strace injects it), until half of the times the disk is well again and half of the times the server is
//! killed. Users who write to present ones must not notice. Whoever writes to absent ones waits, and is told: by the receipt
//! when the disk is well, or, when memory is full, by a notice. After each fault kill −9, a restart, and a look at what is on disk: every
//! text with a receipt must be there.
//!
//! Meanwhile `disk_full.rs` fills a file system, and stops servers whose disk fails.

use std::collections::HashSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::ClientError;
use chatserver::protocol::NoticeCode;

use crate::Outcome;
use crate::dice::Dice;
use crate::disk_full;
use crate::hardening::Fault;
use crate::harness::{PATIENCE, Server};
use crate::ledger::{Ledger, Levels, Mark, Verdict};
use crate::person::{Event, Level, Person};
use crate::process;

/// The kinds of fault: which calls, and how they fail.
pub const KINDS: [(&str, &str); 4] =
    [("pwrite64", "ENOSPC"), ("fsync,fdatasync", "EIO"), ("pwrite64", "EIO"), ("fsync,fdatasync", "ENOSPC")];

/// Channels of the books: to somebody absent, from somebody who fills the memory, and between two who are there.
const ABSENT: usize = 0;
const FLOOD: usize = 1;
const LIVE: usize = 2;

/// Texts of one flood, some 2 KB each: more than the memory for messages holds.
const FLOOD_TEXTS: usize = 60;

/// How soon a disk that is well must have taken everything.
pub const RECOVERY: Duration = Duration::from_secs(5);

/// Longer than this no message between users who are there may take.
pub const LIVE_WITHIN: Duration = Duration::from_secs(1);

/// Lets the disk fail at the first to the `times`-th call.
pub fn run(times: u32, seed: u64) -> Outcome {
    let (mut ill, full, stops) = thread::scope(|scope| {
        let full = scope.spawn(disk_full::fill);
        let stops = scope.spawn(disk_full::stop_each);
        let ill = faults(times, seed);
        (ill, full.join(), stops.join())
    });
    let (full, stops) = (full.expect("a thread of the drill"), stops.expect("a thread of the drill"));
    let verdict = std::mem::take(&mut ill.verdict);
    let line = format!(
        "disk: {times} faults, receipts {}, {verdict}; live within {} ms, receipts within {} ms once it was well, senders past full memory told {}; {}; {}",
        verdict.receipts,
        ill.live.as_millis(),
        ill.recovery.as_millis(),
        ill.told,
        full.line,
        stops.line
    );
    let wrong = [ill.wrong, verdict.wrong, full.wrong, stops.wrong].concat();
    Outcome { line, wrong }
}

/// What the faults showed.
#[derive(Default)]
struct Ill {
    verdict: Verdict,
    /// The slowest message between two who were there.
    live: Duration,
    /// The slowest receipt, from the end of a fault.
    recovery: Duration,
    /// Senders that were told that there is no room.
    told: u32,
    wrong: Vec<String>,
}

fn faults(times: u32, seed: u64) -> Ill {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut server = start(&place.path().join("data"));
    let mut crowd = Crowd::new(seed);
    let mut ill = Ill::default();
    for number in 1..=times {
        if let Err(error) = crowd.live_through(&server, number, &mut ill) {
            ill.wrong.push(format!("at call {number}: a connection ended: {error}"));
        }
        server.kill9();
        crowd.part();
        server = server.restart();
        for (channel, name) in [(ABSENT, "absent"), (FLOOD, "flooded")] {
            let on_disk = on_disk(&server, name, channel);
            let missing = crowd.ledger.receipts_beyond(channel, &on_disk);
            if !missing.is_empty() {
                ill.wrong.push(format!("at call {number}: receipts, but not on disk: {name}: {missing:?}"));
            }
        }
        if number % 10 == 0 || number == times {
            eprintln!("disk: {number} of {times}: {} receipts", crowd.ledger.receipts_so_far());
        }
    }
    if let Err(error) = crowd.close(&server, &mut ill) {
        ill.wrong.push(format!("at the end: a connection ended: {error}"));
    }
    ill.verdict = crowd.ledger.judge();
    let status = server.sigterm();
    if !status.success() {
        ill.wrong.push(format!("at the end SIGTERM: {status}"));
    }
    ill
}

fn start(data: &Path) -> Server {
    process::start(data, |setup| {
        setup.set("save_interval", "50 ms").set("receipt_interval", "1 ms").set("memory_wait_timeout", "300 ms");
        setup.set("max_packet_bytes", "4 KiB").set("max_text_bytes", "3 KiB").set("memory_bytes", "64 KiB")
    })
}

/// The numbers of a channel's texts that wait on disk.
pub fn on_disk(server: &Server, recipient: &str, channel: usize) -> HashSet<u64> {
    let database = server.db();
    let query = "select substr(text, 1, 40) from messages where recipient = ?";
    let mut statement = database.prepare(query).expect("the schema is as ever");
    let texts = statement.query_map([recipient], |row| row.get::<_, String>(0)).expect("the schema is as ever");
    let marks = texts.filter_map(|text| Mark::of(&text.expect("a text")));
    marks.filter(|mark| mark.channel == channel).map(|mark| mark.number).collect()
}

/// Who writes to whom.
struct Crowd {
    dice: Dice,
    ledger: Ledger,
    writer: Person,
    flooder: Person,
    near: Person,
    far: Person,
    connection: u32,
}

impl Crowd {
    fn new(seed: u64) -> Crowd {
        let both = Levels { sender: Level::Two, recipient: Level::Two };
        Crowd {
            dice: Dice::new(seed, 1),
            ledger: Ledger::new(vec![both; 3]),
            writer: Person::new("writer", Level::Two),
            flooder: Person::new("flooder", Level::Two),
            near: Person::new("near", Level::Two),
            far: Person::new("far", Level::Two),
            connection: 0,
        }
    }

    /// One server's life, up to its death.
    fn live_through(&mut self, server: &Server, number: u32, ill: &mut Ill) -> Result<(), ClientError> {
        self.connection += 1;
        for person in [&mut self.near, &mut self.far] {
            person.log_in(&server.connect())?;
        }
        self.until_receipted(server, ill, "before the fault")?;
        self.chat(ill)?;
        let (calls, error) = KINDS[number as usize % KINDS.len()];
        let fault = format!("error={error}:when={number}+");
        let fault = Fault::inject_in(server, "timer", "disk", calls, &fault).expect("strace is there and may be used");
        let until = Instant::now() + PATIENCE;
        while server.logged("saving failed") == 0 && Instant::now() < until {
            self.write(1)?;
            // A receipt, or the fault.
            let is_told = |writer: &mut Person| writer.unreceipted() == 0 || server.logged("saving failed") > 0;
            listen_until(&mut self.writer, ABSENT, &self.ledger, PATIENCE, is_told)?;
        }
        if server.logged("saving failed") == 0 {
            ill.wrong.push(format!("call {number} of {calls} never came"));
        }
        self.write(3)?;
        if number.is_multiple_of(5) {
            self.flood(ill)?;
        }
        (0..5).try_for_each(|_| self.chat(ill))?;
        if (number / 4).is_multiple_of(2) {
            return Ok(());
        }
        fault.end();
        let well_at = Instant::now();
        self.until_receipted(server, ill, "after the fault")?;
        ill.recovery = ill.recovery.max(well_at.elapsed());
        Ok(())
    }

    /// Texts to somebody who is not there.
    fn write(&mut self, count: u32) -> Result<(), ClientError> {
        for _ in 0..count {
            let mark = self.ledger.next(ABSENT, false);
            let padding = self.dice.roll(2000) as usize;
            self.writer.send("absent", &mark.text(padding))?;
        }
        Ok(())
    }

    /// More than the memory holds, all at once; the others chat on, and its sender is told that there is no room.
    fn flood(&mut self, ill: &mut Ill) -> Result<(), ClientError> {
        // What the other has written is in memory before.
        self.writer.roundtrip()?;
        let texts: Vec<String> = (0..FLOOD_TEXTS).map(|_| self.ledger.next(FLOOD, false).text(2000)).collect();
        self.flooder.send_at_once("flooded", &texts)?;
        self.chat(ill)?;
        let mut is_told = false;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.flooder.next(PATIENCE) {
                Ok(Some(Event::Receipt(receipt))) => self.ledger.receipt(FLOOD, &receipt),
                Ok(Some(Event::Notice(notice))) => is_told = notice.code == NoticeCode::Overloaded,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.flooder.leave();
        match is_told {
            true => ill.told += 1,
            false => ill.wrong.push("a sender past full memory was not told".into()),
        }
        Ok(())
    }

    /// One text between two who are there, and its receipt.
    fn chat(&mut self, ill: &mut Ill) -> Result<(), ClientError> {
        let took = chat(&mut self.near, &mut self.far, &self.ledger, LIVE, self.connection)?;
        ill.live = ill.live.max(took);
        if took > LIVE_WITHIN {
            ill.wrong.push(format!("a text to somebody who was there took {took:?}"));
        }
        Ok(())
    }

    /// Every text that waits on disk must have its receipt soon.
    fn until_receipted(&mut self, server: &Server, ill: &mut Ill, when: &str) -> Result<(), ClientError> {
        let until = Instant::now() + RECOVERY;
        for (person, channel) in [(&mut self.writer, ABSENT), (&mut self.flooder, FLOOD)] {
            if !person.is_there() {
                // Who was sent away comes back when there is room for it.
                person.log_in(&server.connect())?;
            }
            let left = until.saturating_duration_since(Instant::now());
            let missing = until_receipted(person, channel, &self.ledger, left)?;
            if missing > 0 {
                ill.wrong.push(format!("{when}: {} has {missing} texts without a receipt", person.name()));
            }
        }
        Ok(())
    }

    /// The server is dead.
    fn part(&mut self) {
        for (person, channel) in [(&mut self.writer, ABSENT), (&mut self.flooder, FLOOD)] {
            part(person, channel, &self.ledger);
        }
        self.near.leave();
        self.far.leave();
    }

    /// Sends again what has no receipt, and reads what waits.
    fn close(&mut self, server: &Server, ill: &mut Ill) -> Result<(), ClientError> {
        self.until_receipted(server, ill, "at the end")?;
        for (name, channel) in [("absent", ABSENT), ("flooded", FLOOD)] {
            take_all(&mut Person::new(name, Level::Two), channel, &self.ledger, server)?;
        }
        Ok(())
    }
}

/// Hears what comes until `is_enough`, at most `timeout`.
fn listen_until(
    person: &mut Person,
    channel: usize,
    ledger: &Ledger,
    timeout: Duration,
    is_enough: impl Fn(&mut Person) -> bool,
) -> Result<(), ClientError> {
    let until = Instant::now() + timeout;
    while !is_enough(person) && Instant::now() < until {
        if let Some(Event::Receipt(receipt)) = person.next(Duration::from_millis(5))? {
            ledger.receipt(channel, &receipt);
        }
    }
    Ok(())
}

/// Hears receipts until none is missing, at most `timeout`; gives the number of those that are.
pub fn until_receipted(
    person: &mut Person,
    channel: usize,
    ledger: &Ledger,
    timeout: Duration,
) -> Result<usize, ClientError> {
    listen_until(person, channel, ledger, timeout, |person| person.unreceipted() == 0)?;
    Ok(person.unreceipted())
}

/// Its server is dead: a receipt that came before that is one.
pub fn part(person: &mut Person, channel: usize, ledger: &Ledger) {
    if person.is_there() {
        while let Ok(Some(event)) = person.next(Duration::ZERO) {
            if let Event::Receipt(receipt) = event {
                ledger.receipt(channel, &receipt);
            }
        }
    }
    person.leave();
}

/// One text from `near` to `far`, who are both there, and its receipt. Gives the time that the text took.
pub fn chat(
    near: &mut Person,
    far: &mut Person,
    ledger: &Ledger,
    channel: usize,
    connection: u32,
) -> Result<Duration, ClientError> {
    let mark = ledger.next(channel, false);
    let begun = Instant::now();
    near.send(far.name(), &mark.text(0))?;
    let mut took = None;
    while took.is_none() && begun.elapsed() < PATIENCE {
        if let Some(Event::Text(text)) = far.next(PATIENCE)? {
            let came = Mark::of(&text).expect("a text of the drill");
            ledger.shown(came, connection);
            took = (came == mark).then(|| begun.elapsed());
        }
    }
    // The recipient's acknowledgement goes out with its next look, and so comes the receipt.
    let until = Instant::now() + PATIENCE;
    while near.unreceipted() > 0 && Instant::now() < until {
        far.next(Duration::ZERO)?;
        listen_until(near, channel, ledger, Duration::from_millis(5), |near| near.unreceipted() == 0)?;
    }
    Ok(took.unwrap_or(PATIENCE))
}

/// Logs in and takes in what waits.
pub fn take_all(person: &mut Person, channel: usize, ledger: &Ledger, server: &Server) -> Result<(), ClientError> {
    person.log_in(&server.connect())?;
    let until = Instant::now() + PATIENCE;
    let mut shown = HashSet::new();
    while (shown.len() as u64) < ledger.sent(channel) && Instant::now() < until {
        if let Some(Event::Text(text)) = person.next(Duration::from_millis(100))? {
            let mark = Mark::of(&text).expect("a text of the drill");
            ledger.shown(mark, 1);
            shown.insert(mark.number);
        }
    }
    Ok(())
}
