//! A hundred clients fight for one name while others write to it.
//!
//! One clock ticks for all: a login has a tick before it began and one after it was answered, a text the tick at which it was about to be sent.
//! Of two logins, one of which began after the other was answered, the later session is the newer one. So when it has been answered, nothing
//! that the older one sends is executed, and nothing that anybody sends comes to the older one. That holds whatever threads do.
//!
//! And all sessions write to one witness, who hears everything in the order in which it was executed: since there are never two live sessions, and
//! none comes back, what each of them says comes in one piece.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::ClientError;
use chatserver::protocol::{Chat, Cipher, Message, PUBLISHED_KEY};
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

/// Texts that a fighter still writes after it has seen the end of its connection.
const TOO_LATE: usize = 3;

/// One login of the name, from its beginning to its end.
struct Reign {
    id: u64,
    began: u64,
    answered: u64,
    /// For each text that came: its writer, its number, the tick at which it was written.
    heard: Vec<(usize, u64, u64)>,
}

struct Arena<'s> {
    server: &'s Server,
    seed: u64,
    level: Level,
    clock: AtomicU64,
    /// Logins that are still to begin, and those that have ended, well or not.
    to_begin: AtomicI64,
    tried: AtomicI64,
    is_over: AtomicBool,
    reigns: Mutex<Vec<Reign>>,
    wrong: Mutex<Vec<String>>,
}

/// What was sent and what came of it, at one level.
struct Judged {
    texts: usize,
    claims: usize,
    reigns: usize,
    came_twice: usize,
    lost: usize,
    too_late: usize,
    in_pieces: usize,
    deaf: usize,
}

/// Has a name taken over `times` times.
pub fn run(times: u32, seed: u64) -> Outcome {
    let (judged, wrong) = fight(times, seed, Level::One);
    let Judged { texts, claims, reigns, came_twice, lost, too_late, in_pieces, deaf } = judged;
    let line = format!(
        "takeover: {times} takeovers, {reigns} answered, texts {texts}, lost {lost}, came twice {came_twice}, \
         two live sessions {in_pieces}, executed for a loser {too_late} (of {claims} executed), sent to a loser {deaf}, gauges {}",
        if wrong.iter().any(|wrong| wrong.contains("gauge")) { "wrong" } else { "true" },
    );
    Outcome { line, wrong }
}

fn fight(times: u32, seed: u64, level: Level) -> (Judged, Vec<String>) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = process::start(&place.path().join("data"), |setup| setup.set("save_interval", "200 ms"));
    let arena = Arena {
        server: &server,
        seed,
        level,
        clock: AtomicU64::new(1),
        to_begin: AtomicI64::new(times.into()),
        tried: AtomicI64::new(0),
        is_over: AtomicBool::new(false),
        reigns: Mutex::default(),
        wrong: Mutex::default(),
    };
    let mut witness = Person::new(WITNESS, Level::One);
    witness.log_in(&server.connect()).expect("the witness logs in");
    let (sent, claims) = thread::scope(|scope| {
        let arena = &arena;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || arena.write(writer))).collect();
        let witness = scope.spawn(move || arena.witness(witness));
        let watch = scope.spawn(move || arena.watch());
        for fighter in 0..FIGHTERS {
            scope.spawn(move || arena.fight(fighter));
        }
        let is_fought = happens_within(PATIENCE * 20, || arena.tried.load(SeqCst) == i64::from(times));
        assert!(is_fought, "the logins did not end");
        arena.is_over.store(true, SeqCst);
        let sent: Vec<u64> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
        // Now the last fighter is replaced, too.
        arena.collect();
        watch.join().expect("the watch");
        (sent, witness.join().expect("the witness"))
    });
    let judged = arena.judge(&sent, &claims);
    // The writers, the witness and the collector have sent themselves a text each, as a barrier.
    let accepted = sent.iter().sum::<u64>() as i64 + claims.len() as i64 + WRITERS as i64 + 2;
    arena.compare_gauges(times.into(), accepted);
    let mut wrong = std::mem::take(&mut *arena.wrong.lock());
    drop(arena);
    let mut server = server;
    let ended = server.sigterm();
    if !ended.success() {
        wrong.push(format!("at the end SIGTERM: {ended}"));
    }
    (judged, wrong)
}

impl Arena<'_> {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().push(what);
    }

    /// Writes to the name until the fight is over; gives how many.
    fn write(&self, writer: usize) -> u64 {
        let mut dice = Dice::new(self.seed, 100 + writer as u64);
        let mut person = Person::new(format!("writer {writer}"), Level::One);
        person.log_in(&self.server.connect()).expect("a writer logs in");
        let mut sent = 0;
        while !self.is_over.load(SeqCst) {
            for _ in 0..=dice.roll(10) {
                sent += 1;
                person.send(PRIZE, &format!("{writer} {sent} {}", self.tick())).expect("a writer writes");
            }
            let until = Instant::now() + dice.millis(0, 10);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                person.next(left).expect("a writer stays");
            }
        }
        person.roundtrip().expect("a writer is heard");
        let _ = person.say_goodbye();
        while person.next(PATIENCE).is_ok() {}
        sent
    }

    /// Takes the name, again and again, each time until it is taken away.
    fn fight(&self, fighter: usize) {
        let mut dice = Dice::new(self.seed, 1000 + fighter as u64);
        let mut person = Person::new(PRIZE, self.level);
        while self.to_begin.fetch_sub(1, SeqCst) > 0 {
            if !dice.is_one_in(4) {
                thread::sleep(dice.millis(0, 200));
            }
            let began = self.tick();
            let login = person.log_in(&self.server.connect());
            let answered = self.tick();
            self.tried.fetch_add(1, SeqCst);
            match login {
                Ok(()) => self.reign(&mut person, Reign { id: began, began, answered, heard: Vec::new() }, &mut dice),
                // Replaced before its answer was out.
                Err(ClientError::Closed { .. }) => {}
                Err(error) => self.wrong(format!("fighter {fighter} cannot log in: {error}")),
            }
        }
    }

    /// Writes to the witness, and hears what comes for the name, until the connection ends. Then it writes on.
    fn reign(&self, person: &mut Person, mut reign: Reign, dice: &mut Dice) {
        // One that does not read does not know that it has been replaced.
        let mut unread = if dice.is_one_in(2) { dice.roll(20) } else { 0 };
        let mut can_write = true;
        loop {
            if can_write && !dice.is_one_in(3) {
                let burst = if dice.is_one_in(4) { BURST } else { 1 };
                let claims: Vec<String> = (0..burst).map(|_| format!("{} {}", reign.id, self.tick())).collect();
                can_write = person.send_at_once(WITNESS, &claims).is_ok();
            }
            if can_write && unread > 0 {
                unread -= 1;
                continue;
            }
            match person.next(dice.millis(0, 5)) {
                Ok(Some(Event::Text(text))) => match numbers(&text) {
                    Some([writer, number, tick]) => reign.heard.push((writer as usize, number, tick)),
                    _ => self.wrong(format!("a fighter hears what nobody sent: {text:?}")),
                },
                Ok(None) => {}
                Err(ClientError::Closed { .. }) => break,
                Err(error) => {
                    self.wrong(format!("a reign ends with: {error}"));
                    break;
                }
            }
        }
        let cipher = Cipher::new(PUBLISHED_KEY).expect("16 bytes");
        for _ in 0..TOO_LATE {
            let text = format!("{} {}", reign.id, self.tick());
            let mut packet = Vec::new();
            Message::Chat(Chat { from: PRIZE, to: WITNESS, text: &text, time: 0 }).encode(&cipher, &mut packet);
            let _ = person.client().connection().write_raw(&packet);
        }
        person.leave();
        self.reigns.lock().push(reign);
    }

    /// Gives what it heard, the reign and the tick of each, until the fight is over and everybody else is gone.
    fn witness(&self, mut witness: Person) -> Vec<(u64, u64)> {
        let mut claims = Vec::new();
        let mut is_done = false;
        loop {
            match witness.next(Duration::from_millis(50)) {
                Ok(Some(Event::Text(text))) => match numbers(&text) {
                    Some([reign, tick]) => claims.push((reign, tick)),
                    _ => self.wrong(format!("the witness hears what nobody sent: {text:?}")),
                },
                Ok(None) if is_done => break,
                Ok(None) => {
                    let status = self.status();
                    // Nobody is left who could say something; after that, a barrier.
                    if self.is_over.load(SeqCst) && number(&status, "users.present") == 1 {
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

    /// After the fight: the name once more, and what nobody has got.
    fn collect(&self) {
        let mut person = Person::new(PRIZE, self.level);
        let began = self.tick();
        person.log_in(&self.server.connect()).expect("the last one logs in");
        let mut reign = Reign { id: began, began, answered: self.tick(), heard: Vec::new() };
        // The writers have been heard: what has come to nobody comes before this barrier.
        person.roundtrip().expect("the last one is heard");
        while let Ok(Some(Event::Text(text))) = person.next(Duration::ZERO) {
            match numbers(&text) {
                Some([writer, number, tick]) => reign.heard.push((writer as usize, number, tick)),
                _ => self.wrong(format!("the last one hears what nobody sent: {text:?}")),
            }
        }
        let _ = person.say_goodbye();
        while person.next(PATIENCE).is_ok() {}
        self.reigns.lock().push(reign);
    }

    fn judge(&self, sent: &[u64], claims: &[(u64, u64)]) -> Judged {
        let reigns = self.reigns.lock();
        let deposed_at: HashMap<u64, u64> = reigns
            .iter()
            .map(|reign| {
                let later = reigns.iter().filter(|other| other.began > reign.answered);
                (reign.id, later.map(|other| other.answered).min().unwrap_or(u64::MAX))
            })
            .collect();
        let is_too_late =
            |(reign, tick): &&(u64, u64)| deposed_at.get(reign).is_none_or(|deposed_at| tick > deposed_at);
        let too_late = claims.iter().filter(is_too_late).count();
        let mut in_pieces = 0;
        let (mut present, mut former) = (None, HashSet::new());
        for &(reign, _) in claims {
            if present != Some(reign) {
                in_pieces += usize::from(former.contains(&reign));
                former.extend(present.replace(reign));
            }
        }
        let mut deaf = 0;
        let mut got: Vec<HashSet<u64>> = vec![HashSet::new(); WRITERS];
        let mut heard = 0;
        for reign in reigns.iter() {
            let mut last = [0; WRITERS];
            for &(writer, number, tick) in &reign.heard {
                heard += 1;
                got[writer].insert(number);
                deaf += usize::from(tick > deposed_at[&reign.id]);
                if last[writer] != 0 && number != last[writer] + 1 {
                    let last = last[writer];
                    self.wrong(format!(
                        "one session hears {number} of writer {writer} after {last}: not in order, or a gap"
                    ));
                }
                last[writer] = number;
            }
        }
        let lost = sent.iter().zip(&got).map(|(sent, got)| (1..=*sent).filter(|number| !got.contains(number)).count());
        let lost: usize = lost.sum();
        let faults = [
            (too_late, "texts were executed for a loser"),
            (in_pieces, "times two sessions were live at once: one was heard, another, and the first again"),
            (deaf, "texts came to a loser"),
            (lost, "texts are lost"),
        ];
        for (count, what) in faults.iter().filter(|(count, _)| *count > 0) {
            self.wrong(format!("{count} {what}"));
        }
        let came_twice = heard - got.iter().map(HashSet::len).sum::<usize>();
        let (texts, claims) = (sent.iter().sum::<u64>() as usize, claims.len());
        Judged { texts, claims, reigns: reigns.len(), came_twice, lost, too_late, in_pieces, deaf }
    }

    /// When everybody has left.
    fn compare_gauges(&self, takeovers: i64, accepted: i64) {
        // The collector took over from the last fighter.
        let logins = takeovers + 1 + WRITERS as i64 + 1;
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
                wrong.push(format!("gauge counts.stored - delivered_from_disk - expired: {on_disk}, not the backlog"));
            }
            wrong.is_empty()
        });
        wrong.into_iter().for_each(|what| self.wrong(what));
    }
}

/// The numbers that a text consists of.
fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let numbers: Option<Vec<u64>> = text.split(' ').map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}
