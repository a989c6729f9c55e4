//! Recipients that do not read: not at all, one byte a second, or no further than the middle of a packet. Much is written to each, while healthy
//! pairs chat. The pairs notice nothing, the server's memory stays within its settings, and what the slow ones did not take comes at their next login.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::Connection;
use chatserver::protocol::{Cipher, Decoder, Frame, Message, PUBLISHED_KEY};

use crate::Outcome;
use crate::harness::{PATIENCE, Server};
use crate::holdings::{Holdings, mib};
use crate::ledger::{Ledger, Levels, Mark};
use crate::person::{Event, Level, Person};
use crate::process;

/// Healthy pairs: each combination of levels twice.
const PAIRS: usize = 8;

/// How long they chat without slow readers, and at least with them.
const CHAT_TIME: Duration = Duration::from_secs(3);

/// A pause between two texts of a pair: they chat, and are no load of their own.
const PAUSE: Duration = Duration::from_millis(5);

/// So many texts of so many bytes are written to each slow reader, more than its socket and its outbox hold.
const TEXTS: u64 = 128;
const TEXT_BYTES: usize = 16 * 1024;

/// Writers to the slow ones.
const WRITERS: usize = 2;

/// What the server may hold: `outbox_bytes` for each, `memory_bytes` for all, and beside it what any use of the disk fills.
const OUTBOX_BYTES: u64 = 256 << 10;
const MEMORY_BYTES: u64 = 16 << 20;
const OTHER_BYTES: u64 = 24 << 20;

/// The longest that a healthy text may take.
const LONGEST: Duration = Duration::from_secs(1);

/// How a slow reader reads.
#[derive(Clone, Copy)]
enum Sloth {
    Never,
    ByteASecond,
    HalfAPacket,
}

impl Sloth {
    fn of(number: usize) -> Sloth {
        [Sloth::Never, Sloth::ByteASecond, Sloth::HalfAPacket][number % 3]
    }
}

struct Ward<'s> {
    server: &'s Server,
    ledger: Ledger,
    sloths: usize,
    is_over: AtomicBool,
    most_kib: AtomicU64,
}

/// The channels: from each of a healthy pair to the other, then to each slow reader.
fn levels(channel: usize) -> Levels {
    if channel >= 2 * PAIRS {
        return Levels { sender: Level::Two, recipient: Level::One };
    }
    let (pair, is_back) = (channel / 2, channel % 2 == 1);
    let (one, two) = (Level::of(pair % 2 == 1), Level::of(pair % 4 >= 2));
    if is_back { Levels { sender: two, recipient: one } } else { Levels { sender: one, recipient: two } }
}

/// So many slow readers.
pub fn run(times: u32, _: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut server = process::start(&place.path().join("data"), |setup| {
        setup.set("outbox_bytes", &OUTBOX_BYTES.to_string()).set("memory_bytes", &MEMORY_BYTES.to_string())
    });
    let sloths = times as usize;
    let ledger = Ledger::new((0..2 * PAIRS + sloths).map(levels).collect());
    let before = Holdings::at_rest(&server);
    let ward = Ward { server: &server, ledger, sloths, is_over: AtomicBool::new(false), most_kib: AtomicU64::new(0) };
    let mut pairs: Vec<[Person; 2]> = (0..PAIRS).map(|pair| ward.pair(pair)).collect();
    let without = ward.chat(&mut pairs, |until| Instant::now() < until);
    let before_kib = server.rss_kib();
    let with = thread::scope(|scope| {
        let ward = &ward;
        let chat = scope.spawn(|| ward.chat(&mut pairs, |until| Instant::now() < until || !ward.is_over.load(SeqCst)));
        ward.suffer();
        ward.is_over.store(true, SeqCst);
        chat.join().expect("the healthy pairs")
    });
    pairs.into_iter().flatten().for_each(Person::say_goodbye_and_wait);
    let mut wrong: Vec<String> = before.come_back(&server).into_iter().collect();
    for channel in 0..2 * PAIRS + sloths {
        ward.ledger.promised(channel, 1..=ward.ledger.sent(channel));
    }
    let mut verdict = ward.ledger.judge();
    wrong.append(&mut verdict.wrong);
    let grown = ward.most_kib.load(SeqCst).saturating_sub(before_kib) * 1024;
    let bound = MEMORY_BYTES + u64::from(times) * (OUTBOX_BYTES + (64 << 10)) + OTHER_BYTES;
    if grown > bound {
        wrong.push(format!("memory grew by {}, more than {}", mib(grown), mib(bound)));
    }
    if with.longest > LONGEST {
        wrong.push(format!("a healthy text took {:?}", with.longest));
    }
    let ended = server.sigterm();
    if !ended.success() {
        wrong.push(format!("at the end SIGTERM: {ended}"));
    }
    let line = format!(
        "slow: {sloths} slow readers, {} written to them; p99 of {} healthy texts {:.2} ms, without slow readers {:.2} ms, ratio {:.2}, \
         longest {:.0} ms; texts {}, receipts {}, {verdict}; memory grew by {} (bound {}); {} before and after",
        mib(TEXTS * TEXT_BYTES as u64 * u64::from(times)),
        with.count,
        millis(with.p99),
        millis(without.p99),
        millis(with.p99) / millis(without.p99).max(0.001),
        millis(with.longest),
        verdict.sent,
        verdict.receipts,
        mib(grown),
        mib(bound),
        before.line(),
    );
    Outcome { line, wrong }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// How long texts took.
struct Times {
    count: usize,
    p99: Duration,
    longest: Duration,
}

impl Ward<'_> {
    fn pair(&self, pair: usize) -> [Person; 2] {
        [0, 1].map(|side| {
            let mut person = Person::new(format!("healthy {pair} {side}"), levels(2 * pair + side).sender);
            person.log_in(&self.server.connect()).expect("a healthy user logs in");
            person
        })
    }

    /// All pairs chat, to and fro, for as long as `goes_on` says, which is told when it has been long enough.
    fn chat(&self, pairs: &mut [[Person; 2]], goes_on: impl Fn(Instant) -> bool + Sync) -> Times {
        let until = Instant::now() + CHAT_TIME;
        let mut times: Vec<Duration> = thread::scope(|scope| {
            let goes_on = &goes_on;
            let chats: Vec<_> = pairs
                .iter_mut()
                .enumerate()
                .map(|(number, pair)| scope.spawn(move || self.chat_of_one(number, pair, || goes_on(until))))
                .collect();
            chats.into_iter().flat_map(|chat| chat.join().expect("a healthy pair")).collect()
        });
        times.sort_unstable();
        let of = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Times { count: times.len(), p99: of(0.99), longest: of(1.0) }
    }

    fn chat_of_one(&self, number: usize, pair: &mut [Person; 2], goes_on: impl Fn() -> bool) -> Vec<Duration> {
        let mut times = Vec::new();
        while goes_on() {
            for side in [0, 1] {
                let [one, two] = pair;
                let (from, to) = if side == 0 { (one, two) } else { (two, one) };
                let channel = 2 * number + side;
                let mark = self.ledger.next(channel, false);
                let began = Instant::now();
                from.send(to.name(), &mark.text(50)).expect("a healthy user writes");
                loop {
                    // What comes for a sender of level 2 beside it: receipts.
                    match to.next(PATIENCE).expect("a healthy user stays") {
                        Some(Event::Text(text)) => {
                            times.push(began.elapsed());
                            self.ledger.shown(Mark::of(&text).expect("a text of the drill"), 1);
                            break;
                        }
                        Some(Event::Receipt(receipt)) => self.ledger.receipt(2 * number + 1 - side, &receipt),
                        other => panic!("{}: {other:?}", to.name()),
                    }
                }
            }
            thread::sleep(PAUSE);
        }
        times
    }

    /// Slow readers come, are written to, and go; then each comes back and reads.
    fn suffer(&self) {
        let mut sloths: Vec<Slow> = (0..self.sloths).map(|number| Slow::log_in(self.server, number)).collect();
        let is_written = AtomicBool::new(false);
        thread::scope(|scope| {
            let is_written = &is_written;
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || self.write(writer))).collect();
            let reader = scope.spawn(|| {
                let mut round = 0;
                while !is_written.load(SeqCst) {
                    sloths.iter_mut().for_each(|slow| slow.read(round));
                    round += 1;
                    // The pace of the attack.
                    thread::sleep(Duration::from_secs(1));
                }
            });
            while !writers.iter().all(|writer| writer.is_finished()) {
                self.most_kib.fetch_max(self.server.rss_kib(), SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
            is_written.store(true, SeqCst);
            reader.join().expect("the slow readers");
        });
        eprintln!("slow: all is written");
        for slow in sloths {
            self.come_back(slow);
        }
    }

    /// Writes all the texts to its part of the slow readers, and stays until each has a receipt.
    fn write(&self, writer: usize) {
        let mut person = Person::new(format!("writer {writer}"), Level::Two);
        person.log_in(&self.server.connect()).expect("a writer logs in");
        for number in 0..TEXTS {
            for slow in (writer..self.sloths).step_by(WRITERS) {
                let mark = self.ledger.next(2 * PAIRS + slow, number == TEXTS - 1);
                person.send(&name(slow), &mark.text(TEXT_BYTES)).expect("a writer writes");
                while let Some(event) = person.next(Duration::ZERO).expect("a writer stays") {
                    self.note_receipt(event);
                }
            }
        }
        while person.unreceipted() > 0 {
            match person.next(PATIENCE).expect("a writer stays") {
                Some(event) => self.note_receipt(event),
                None => panic!("{} texts have no receipt after {PATIENCE:?}", person.unreceipted()),
            }
        }
        person.say_goodbye_and_wait();
    }

    fn note_receipt(&self, event: Event) {
        let Event::Receipt(receipt) = event else { panic!("a writer gets {event:?}") };
        let mark = receipt.message.as_ref().and_then(|message| Mark::of(&message.text));
        if let Some(mark) = mark {
            self.ledger.receipt(mark.channel, &receipt);
        }
    }

    /// The next login of a slow reader, who has learned to read: what the old connection's kernel holds was read there, the rest comes now.
    fn come_back(&self, slow: Slow) {
        let mut client = self.server.login(&slow.name);
        slow.texts_to_the_end().iter().for_each(|text| self.ledger.shown(mark(text), 1));
        loop {
            let Some(message) = client.recv(PATIENCE).expect("one who reads stays") else {
                panic!("{} does not get everything", client.name())
            };
            let mark = mark(&message.text);
            self.ledger.shown(mark, 2);
            if mark.is_last {
                break;
            }
        }
        client.logout().expect("one who has read everything leaves");
    }
}

fn name(slow: usize) -> String {
    format!("slow {slow}")
}

fn mark(text: &str) -> Mark {
    Mark::of(text).unwrap_or_else(|| panic!("a text of the drill: {text:?}"))
}

/// A slow reader, who speaks level 1.
struct Slow {
    name: String,
    sloth: Sloth,
    connection: Connection,
    /// What it has read after the answer to its login.
    bytes: Vec<u8>,
}

impl Slow {
    fn log_in(server: &Server, number: usize) -> Slow {
        let name = name(number);
        let mut connection = server.connect().open().expect("a slow reader connects");
        let login = Message::ClientLogin { name: &name, version: 1.0, time: 7, level: None, last_seq: None };
        connection.write_message(&login).expect("a slow reader logs in");
        let answer = connection.read_packet(PATIENCE).expect("a slow reader is answered");
        assert_eq!(answer.map(|packet| packet.kind), Some(2), "the answer to a login");
        Slow { name, sloth: Sloth::of(number), connection, bytes: Vec::new() }
    }

    /// What it reads in this second.
    fn read(&mut self, second: usize) {
        let count = match self.sloth {
            Sloth::ByteASecond => 1,
            Sloth::HalfAPacket if second == 1 => TEXT_BYTES / 2,
            Sloth::Never | Sloth::HalfAPacket => return,
        };
        let mut bytes = vec![0; count];
        // Nothing may have come yet.
        let _ = self.connection.stream().set_nonblocking(true);
        if let Ok(count) = self.connection.stream().read(&mut bytes) {
            self.bytes.extend_from_slice(&bytes[..count]);
        }
    }

    /// After its connection was taken over: everything that it and its kernel have got, the last packet of which may be cut off.
    fn texts_to_the_end(mut self) -> Vec<String> {
        let _ = self.connection.stream().set_nonblocking(false);
        // An end with a reset is one, too.
        let _ = self.connection.stream().read_to_end(&mut self.bytes);
        let (cipher, mut decoder) = (Cipher::new(PUBLISHED_KEY).expect("16 bytes"), Decoder::default());
        let (mut texts, mut rest) = (Vec::new(), &self.bytes[..]);
        while let Ok(Some(frame)) = Frame::parse(rest, usize::MAX) {
            let length = frame.packet.len();
            match decoder.decode(&cipher, frame).expect("a packet can be read").message {
                Message::Chat(chat) => texts.push(chat.text.to_owned()),
                other => panic!("nobody sends {other:?}"),
            }
            rest = &rest[length..];
        }
        texts
    }
}
