//! A hundred clients fight for one name while others write to it.
//!
//! One clock ticks for all: a login has a tick before it began and one after it was answered, a text the tick at which it was about to be sent.
//! Of two logins, one of which began after the other was answered, the later session is the newer one. So when it has been answered, nothing
//! that the older one sends is executed, and nothing that anybody sends comes to the older one. That holds whatever threads do.
//!
//! And all sessions write to one witness, who hears everything in the order in which it was executed: since there are never two live sessions, and
//! none comes back, what each of them says comes in one piece.
//!
//! Half of the fighters are of level 2, and so are half of the writers, and the witness. Of these fighters half take each time a new phone, which knows
//! nothing. The others keep their phone: it sends again what has no receipt (and so is executed for a later session, as it should), nothing of
//! that is lost, and it shows nothing twice. Two programs of one name use the same numbers for different texts, for neither knows what
//! the other sent last. The server refuses such a text, and its sender takes a new number.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::{ClientError, Receipt};
use chatserver::protocol::{Chat, Cipher, Message, NoticeCode, PUBLISHED_KEY, Reason, Status};
use parking_lot::Mutex;

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::{PATIENCE, Server, happens_within};
use crate::person::{Event, Level, Person};
use crate::process::{self, ask, number};

const FIGHTERS: usize = 100;
const WRITERS: usize = 4;
const PRIZE: &str = "prize";
const WITNESS: &str = "witness";

/// Texts that a fighter often writes at once, so that one that is replaced has more on its way.
const BURST: usize = 50;

/// So many of those that are lost are named, of each writer and of the fighters.
const NAMED: usize = 5;

/// Texts that a fighter still writes after it has seen the end of its connection.
const TOO_LATE: usize = 3;

/// How a fighter comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    LevelOne,
    /// Level 2.
    NewPhone,
    /// Level 2.
    SamePhone,
}

fn habit(fighter: usize) -> Habit {
    match fighter % 4 {
        0 | 1 => Habit::LevelOne,
        2 => Habit::NewPhone,
        _ => Habit::SamePhone,
    }
}

/// What a session says to the witness: the session's number, and the tick at which it was about to be written.
type Claim = (u64, u64);

/// One login of the name, from its beginning to its end.
struct Reign {
    began: u64,
    answered: u64,
    /// The fighter, if it keeps its phone.
    phone: Option<usize>,
    /// For each text that came: its writer, its number, the tick at which it was written.
    heard: Vec<(usize, u64, u64)>,
    /// Level 2, and it ended by its connection's end.
    is_loser: bool,
    /// The server has said that it was replaced.
    is_told: bool,
}

impl Reign {
    /// The tick at which it began is its number.
    fn id(&self) -> u64 {
        self.began
    }
}

/// Of the claims, what cannot be seen in them.
#[derive(Default)]
struct Claims {
    /// Have a receipt, or are sent until they have one.
    owed: HashSet<Claim>,
    receipts: usize,
    /// Sent again in a later session, or with a new number.
    again: HashSet<Claim>,
    /// Sent again although they may have been taken: the server could not tell any more.
    unsure: HashSet<Claim>,
}

struct Arena<'s> {
    server: &'s Server,
    seed: u64,
    clock: AtomicU64,
    /// Logins that are still to begin, and those that have ended, well or not.
    to_begin: AtomicI64,
    tried: AtomicI64,
    is_over: AtomicBool,
    /// Nobody will say anything to the witness any more.
    is_silent: AtomicBool,
    // lock: reigns → claims → wrong
    reigns: Mutex<Vec<Reign>>,
    claims: Mutex<Claims>,
    wrong: Mutex<Vec<String>>,
}

/// What was sent and what came of it.
struct Judged {
    texts: usize,
    receipts: usize,
    claims: usize,
    reigns: usize,
    came_twice: usize,
    shown_twice: usize,
    lost: usize,
    too_late: usize,
    in_pieces: usize,
    deaf: usize,
    /// Losers of level 2, and those of them who were told.
    losers: usize,
    told: usize,
}

/// Has a name taken over `times` times.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut server = process::start(&place.path().join("data"), |setup| setup.set("save_interval", "200 ms"));
    let (judged, mut wrong) = fight(&server, times, seed);
    let ended = server.sigterm();
    if !ended.success() {
        wrong.push(format!("at the end SIGTERM: {ended}"));
    }
    let Judged { texts, receipts, claims, reigns, came_twice, shown_twice, lost, .. } = judged;
    let Judged { too_late, in_pieces, deaf, losers, told, .. } = judged;
    let gauges = if wrong.iter().any(|wrong| wrong.contains("gauge")) { "wrong" } else { "true" };
    let line = format!(
        "takeover: {times} takeovers, {reigns} answered, texts {texts}, receipts {receipts}, lost {lost}, shown twice {shown_twice}, \
         came to another session again {came_twice}, two live sessions {in_pieces}, executed for a loser {too_late} (of {claims} \
         executed), sent to a loser {deaf}, told why {told} of {losers}, gauges {gauges}",
    );
    Outcome { line, wrong }
}

fn fight(server: &Server, times: u32, seed: u64) -> (Judged, Vec<String>) {
    let arena = Arena {
        server,
        seed,
        clock: AtomicU64::new(1),
        to_begin: AtomicI64::new(times.into()),
        tried: AtomicI64::new(0),
        is_over: AtomicBool::new(false),
        is_silent: AtomicBool::new(false),
        reigns: Mutex::default(),
        claims: Mutex::default(),
        wrong: Mutex::default(),
    };
    let mut witness = Person::new(WITNESS, Level::Two);
    witness.log_in(&server.connect()).expect("the witness logs in");
    let (sent, claims, phones) = thread::scope(|scope| {
        let arena = &arena;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || arena.write(writer))).collect();
        let witness = scope.spawn(move || arena.witness(witness));
        let watch = scope.spawn(move || arena.watch());
        let fighters: Vec<_> = (0..FIGHTERS).map(|fighter| scope.spawn(move || arena.fight(fighter))).collect();
        let is_fought = happens_within(PATIENCE * 20, || arena.tried.load(SeqCst) == i64::from(times));
        assert!(is_fought, "the logins did not end");
        arena.is_over.store(true, SeqCst);
        let sent: Vec<Sent> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
        // Now the last fighter is replaced, too.
        arena.visit(&mut Person::new(PRIZE, Level::One), None, |_, _| {});
        let fighters = fighters.into_iter().map(|fighter| fighter.join().expect("a fighter"));
        let phones: Vec<(usize, Person)> =
            fighters.enumerate().filter(|(fighter, _)| habit(*fighter) == Habit::SamePhone).collect();
        let count = phones.len();
        phones.into_iter().for_each(|(fighter, person)| arena.settle(fighter, person));
        arena.visit(&mut Person::new(PRIZE, Level::One), None, |person, reign| arena.collect(person, reign));
        arena.is_silent.store(true, SeqCst);
        watch.join().expect("the watch");
        (sent, witness.join().expect("the witness"), count)
    });
    let judged = arena.judge(&sent, &claims);
    // The writers, the witness and the collector have sent themselves a text each, as a barrier.
    let accepted = sent.iter().map(|sent| sent.texts).sum::<u64>() as i64 + claims.len() as i64 + WRITERS as i64 + 2;
    arena.compare_gauges(times.into(), phones as i64, accepted);
    (judged, arena.wrong.into_inner())
}

/// What a writer has sent.
struct Sent {
    texts: u64,
    receipts: HashSet<u64>,
}

impl Arena<'_> {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().push(what);
    }

    /// Writes to the name until the fight is over.
    fn write(&self, writer: usize) -> Sent {
        let mut dice = Dice::new(self.seed, 100 + writer as u64);
        let mut person = Person::new(format!("writer {writer}"), Level::of(writer % 2 == 1));
        person.log_in(&self.server.connect()).expect("a writer logs in");
        let mut sent = Sent { texts: 0, receipts: HashSet::new() };
        while !self.is_over.load(SeqCst) {
            for _ in 0..=dice.roll(10) {
                sent.texts += 1;
                person.send(PRIZE, &format!("{writer} {} {}", sent.texts, self.tick())).expect("a writer writes");
            }
            let until = Instant::now() + dice.millis(0, 10);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                self.listen(&mut person, &mut sent, left);
            }
        }
        person.roundtrip().expect("a writer is heard");
        // The receipt of the round trip is not told.
        let has_all = happens_within(PATIENCE, || {
            while self.listen(&mut person, &mut sent, Duration::ZERO) {}
            person.level() == Level::One || person.unreceipted() == 0
        });
        assert!(has_all, "{}: not all receipts come", person.name());
        while self.listen(&mut person, &mut sent, Duration::ZERO) {}
        let _ = person.say_goodbye();
        while person.next(PATIENCE).is_ok() {}
        sent
    }

    /// What a writer hears; `false`: nothing came.
    fn listen(&self, person: &mut Person, sent: &mut Sent, timeout: Duration) -> bool {
        match person.next(timeout).expect("a writer stays") {
            Some(Event::Receipt(receipt)) if receipt.status == Status::Refused => {
                self.wrong(format!("{}: {receipt:?}", person.name()));
            }
            Some(Event::Receipt(Receipt { message: Some(message), .. })) => {
                if let Some([_, number, _]) = numbers(&message.text) {
                    sent.receipts.insert(number);
                }
            }
            Some(Event::Notice(notice)) => self.wrong(format!("{}: {notice:?}", person.name())),
            // DELIVERED after STORED, or a round trip.
            Some(Event::Receipt(_) | Event::Text(_)) => {}
            None => return false,
        }
        true
    }

    /// Takes the name, again and again, each time until it is taken away.
    fn fight(&self, fighter: usize) -> Person {
        let mut dice = Dice::new(self.seed, 1000 + fighter as u64);
        let habit = habit(fighter);
        let mut person = Person::new(PRIZE, Level::of(habit != Habit::LevelOne));
        while self.to_begin.fetch_sub(1, SeqCst) > 0 {
            if !dice.is_one_in(4) {
                thread::sleep(dice.millis(0, 200));
            }
            if habit == Habit::NewPhone {
                person.forget();
            }
            let reign = self.log_in(&mut person, (habit == Habit::SamePhone).then_some(fighter));
            self.tried.fetch_add(1, SeqCst);
            match reign {
                Ok(reign) => self.reign(&mut person, reign, &mut dice),
                // Replaced before its answer was out.
                Err(ClientError::Closed { .. }) => {}
                Err(error) => self.wrong(format!("fighter {fighter} cannot log in: {error}")),
            }
        }
        person
    }

    fn log_in(&self, person: &mut Person, phone: Option<usize>) -> Result<Reign, ClientError> {
        let again = person.to_resend();
        self.claims.lock().again.extend(again.iter().filter_map(|text| claim(text)));
        let began = self.tick();
        person.log_in(&self.server.connect())?;
        Ok(Reign { began, answered: self.tick(), phone, heard: Vec::new(), is_loser: false, is_told: false })
    }

    /// Writes to the witness, and hears what comes for the name, until the connection ends. Then it writes on.
    fn reign(&self, person: &mut Person, mut reign: Reign, dice: &mut Dice) {
        // One that does not read does not know that it has been replaced.
        let mut unread = if dice.is_one_in(2) { dice.roll(20) } else { 0 };
        let mut can_write = true;
        loop {
            if can_write && !dice.is_one_in(3) {
                let burst = if dice.is_one_in(4) { BURST } else { 1 };
                let claims: Vec<Claim> = (0..burst).map(|_| (reign.id(), self.tick())).collect();
                if reign.phone.is_some() {
                    self.claims.lock().owed.extend(&claims);
                }
                let texts: Vec<String> = claims.iter().map(|(id, tick)| format!("{id} {tick}")).collect();
                can_write = person.send_at_once(WITNESS, &texts).is_ok();
            }
            if can_write && unread > 0 {
                unread -= 1;
                continue;
            }
            match self.hear(person, &mut reign, dice.millis(0, 5)) {
                Ok(_) => {}
                Err(ClientError::Closed { .. }) => break,
                Err(error) => {
                    self.wrong(format!("a reign ends with: {error}"));
                    break;
                }
            }
        }
        reign.is_loser = person.level() == Level::Two;
        let cipher = Cipher::new(PUBLISHED_KEY).expect("16 bytes");
        for _ in 0..TOO_LATE {
            let text = format!("{} {}", reign.id(), self.tick());
            let mut packet = Vec::new();
            Message::Chat(Chat { from: PRIZE, to: WITNESS, text: &text, time: 0, ..Chat::default() })
                .encode(&cipher, &mut packet);
            let _ = person.client().connection().write_raw(&packet);
        }
        person.leave();
        self.reigns.lock().push(reign);
    }

    /// What comes for the name; `false`: nothing came.
    fn hear(&self, person: &mut Person, reign: &mut Reign, timeout: Duration) -> Result<bool, ClientError> {
        match person.next(timeout)? {
            Some(Event::Text(text)) => match numbers(&text) {
                Some([writer, number, tick]) => reign.heard.push((writer as usize, number, tick)),
                // A round trip's, of a session before.
                _ if text.starts_with("round trip") => {}
                _ => self.wrong(format!("the name hears what nobody sent: {text:?}")),
            },
            Some(Event::Receipt(receipt)) => self.note_receipt(person, reign, &receipt),
            Some(Event::Notice(notice)) if notice.code == NoticeCode::Replaced => reign.is_told = true,
            Some(Event::Notice(notice)) => self.wrong(format!("a fighter hears {notice:?}")),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// A receipt for a claim.
    fn note_receipt(&self, person: &mut Person, reign: &Reign, receipt: &Receipt) {
        let Some(message) = &receipt.message else { return };
        let Some(claim) = claim(&message.text) else { return };
        let mut claims = self.claims.lock();
        match (receipt.status, receipt.reason) {
            (Status::Stored | Status::Delivered, _) => {
                claims.receipts += 1;
                claims.owed.insert(claim);
            }
            (Status::Refused, Some(reason @ (Reason::IdUsed | Reason::IdTooOld))) if reign.phone.is_some() => {
                claims.again.insert(claim);
                if reason == Reason::IdTooOld {
                    claims.unsure.insert(claim);
                }
                drop(claims);
                // If the connection has ended it is remembered.
                let _ = person.send(WITNESS, &message.text);
            }
            (Status::Refused, reason) => self.wrong(format!("a claim is refused: {reason:?}")),
        }
    }

    /// Gives what it heard until nobody is left who could say something.
    fn witness(&self, mut witness: Person) -> Vec<Claim> {
        let mut claims = Vec::new();
        let mut is_done = false;
        loop {
            match witness.next(Duration::from_millis(50)) {
                Ok(Some(Event::Text(text))) => match claim(&text) {
                    Some(claim) => claims.push(claim),
                    _ => self.wrong(format!("the witness hears what nobody sent: {text:?}")),
                },
                Ok(Some(event)) => self.wrong(format!("the witness hears {event:?}")),
                Ok(None) if is_done => break,
                Ok(None) => {
                    if self.is_silent.load(SeqCst) {
                        witness.roundtrip().expect("the witness is heard");
                        is_done = true;
                    }
                }
                Err(error) => panic!("the witness: {error}"),
            }
        }
        let _ = witness.say_goodbye();
        while witness.next(PATIENCE).is_ok() {}
        claims
    }

    /// Looks at the gauges while they fight.
    fn watch(&self) {
        let most = (WRITERS + 2) as i64;
        let mut highest = 0;
        while !self.is_over.load(SeqCst) {
            highest = highest.max(number(&self.status(), "users.present"));
        }
        if highest > most {
            self.wrong(format!("gauge users.present: {highest}, with {most} names"));
        }
    }

    fn status(&self) -> serde_json::Value {
        ask(&self.server.data(), "status").expect("the server answers on its socket")
    }

    /// After the fight: logs in, does what it came for, and leaves.
    fn visit(&self, person: &mut Person, phone: Option<usize>, errand: impl FnOnce(&mut Person, &mut Reign)) {
        let mut reign = self.log_in(person, phone).expect("a visitor logs in");
        errand(person, &mut reign);
        let _ = person.say_goodbye();
        while self.hear(person, &mut reign, PATIENCE).is_ok() {}
        person.leave();
        self.reigns.lock().push(reign);
    }

    /// Until the phone has a receipt for everything.
    fn settle(&self, fighter: usize, mut person: Person) {
        self.visit(&mut person, Some(fighter), |person, reign| {
            let has_all = happens_within(PATIENCE, || {
                while self.hear(person, reign, Duration::ZERO).expect("a visitor stays") {}
                person.unreceipted() == 0
            });
            assert!(has_all, "fighter {fighter}: not all receipts come");
        });
    }

    /// What nobody has got: the writers have been heard, so it comes before this barrier.
    fn collect(&self, person: &mut Person, reign: &mut Reign) {
        person.roundtrip().expect("the last one is heard");
        while self.hear(person, reign, Duration::ZERO).expect("the last one stays") {}
    }

    fn judge(&self, sent: &[Sent], claims: &[Claim]) -> Judged {
        let reigns = self.reigns.lock();
        let known = self.claims.lock();
        let deposed_at: HashMap<u64, u64> = reigns
            .iter()
            .map(|reign| {
                let later = reigns.iter().filter(|other| other.began > reign.answered);
                (reign.id(), later.map(|other| other.answered).min().unwrap_or(u64::MAX))
            })
            .collect();
        let (mut too_late, mut in_pieces) = (0, 0);
        let (mut present, mut former) = (None, HashSet::new());
        // What was sent again is executed for a later session than the one that it names.
        for &(reign, tick) in claims.iter().filter(|claim| !known.again.contains(claim)) {
            too_late += usize::from(deposed_at.get(&reign).is_none_or(|deposed_at| tick > *deposed_at));
            if present != Some(reign) {
                in_pieces += usize::from(former.contains(&reign));
                former.extend(present.replace(reign));
            }
        }
        let mut executed = HashSet::new();
        let executed_twice =
            claims.iter().filter(|claim| !executed.insert(**claim) && !known.unsure.contains(claim)).count();
        let lost_claims = known.owed.difference(&executed).count();
        for claim in known.owed.difference(&executed).take(NAMED) {
            self.wrong(format!("lost: text {claim:?} to the witness, sent again: {}", known.again.contains(claim)));
        }

        let (mut deaf, mut heard, mut shown_twice) = (0, 0, 0);
        let mut got: Vec<HashSet<u64>> = vec![HashSet::new(); WRITERS];
        let mut phones: HashMap<usize, HashSet<(usize, u64)>> = HashMap::new();
        for reign in reigns.iter() {
            let mut last = [0; WRITERS];
            for &(writer, number, tick) in &reign.heard {
                heard += 1;
                got[writer].insert(number);
                deaf += usize::from(tick > deposed_at[&reign.id()]);
                if let Some(phone) = reign.phone {
                    shown_twice += usize::from(!phones.entry(phone).or_default().insert((writer, number)));
                }
                if last[writer] != 0 && number != last[writer] + 1 {
                    let last = last[writer];
                    self.wrong(format!(
                        "one session hears {number} of writer {writer} after {last}: not in order, or a gap"
                    ));
                }
                last[writer] = number;
            }
        }
        let mut lost = lost_claims;
        for (writer, (sent, got)) in sent.iter().zip(&got).enumerate() {
            let missing: Vec<u64> = (1..=sent.texts).filter(|number| !got.contains(number)).collect();
            for number in missing.iter().take(NAMED) {
                let has_receipt = sent.receipts.contains(number);
                self.wrong(format!(
                    "lost: text {number} of writer {writer} to the name, with a receipt: {has_receipt}"
                ));
            }
            lost += missing.len();
        }
        let losers = reigns.iter().filter(|reign| reign.is_loser).count();
        let told = reigns.iter().filter(|reign| reign.is_told).count();
        let faults = [
            (too_late, "texts were executed for a loser"),
            (in_pieces, "times two sessions were live at once: one was heard, another, and the first again"),
            (executed_twice, "texts were executed twice"),
            (deaf, "texts came to a loser"),
            (lost, "texts are lost"),
            (shown_twice, "texts were shown twice by one phone"),
            // One that does not read what is ready for it within a second cannot be told; few of them do not.
            (if (losers - told) * 20 > losers { losers - told } else { 0 }, "losers of level 2 were not told why"),
        ];
        for (count, what) in faults.iter().filter(|(count, _)| *count > 0) {
            self.wrong(format!("{count} {what}"));
        }
        let came_twice = heard - got.iter().map(HashSet::len).sum::<usize>();
        let texts = sent.iter().map(|sent| sent.texts).sum::<u64>() as usize;
        let receipts = sent.iter().map(|sent| sent.receipts.len()).sum::<usize>() + known.receipts;
        let (claims, reigns) = (claims.len(), reigns.len());
        Judged {
            texts,
            receipts,
            claims,
            reigns,
            came_twice,
            shown_twice,
            lost,
            too_late,
            in_pieces,
            deaf,
            losers,
            told,
        }
    }

    /// When everybody has left.
    fn compare_gauges(&self, takeovers: i64, phones: i64, accepted: i64) {
        // The first visitor took over from the last fighter; then the phones, the collector, the writers, the witness.
        let logins = takeovers + 1 + phones + 1 + WRITERS as i64 + 1;
        let truth = [
            ("users.present", 0),
            ("connections.open", 0),
            ("connections.strangers", 0),
            ("connections.writers", 0),
            ("backlog.messages", 0),
            ("memory.used_bytes", 0),
            ("memory.waiting_senders", 0),
            ("counts.logins", logins),
            ("counts.takeovers", takeovers),
        ];
        let mut wrong = Vec::new();
        happens_within(PATIENCE, || {
            let status = self.status();
            let of = |path| number(&status, path);
            wrong = truth
                .iter()
                .filter(|(path, truth)| of(path) != *truth)
                .map(|(path, truth)| format!("gauge {path}: {}, not {truth}", of(path)))
                .collect();
            let counted = of("counts.relayed") + of("counts.waiting");
            if counted != accepted {
                wrong.push(format!("gauge counts.relayed + counts.waiting: {counted}, not {accepted}"));
            }
            let on_disk = of("counts.stored") - of("counts.delivered_from_disk") - of("counts.expired");
            if on_disk != of("backlog.messages") {
                let rows = self.server.rows();
                wrong.push(format!(
                    "gauge counts.stored - delivered_from_disk - expired: {on_disk}, not the backlog; rows: {rows}"
                ));
            }
            wrong.is_empty()
        });
        wrong.into_iter().for_each(|what| self.wrong(what));
    }
}

fn claim(text: &str) -> Option<Claim> {
    numbers(text).map(|[reign, tick]| (reign, tick))
}

/// The numbers that a text consists of.
fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let numbers: Option<Vec<u64>> = text.split(' ').map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}
