//! Invented recipients: somebody writes to names that nobody has, once to each. What is kept for them must not stay in memory, and must end at
//! `data_bytes`, with a refusal in words; a pair beside it talks on; who turns out to exist gets the message.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::protocol::{Reason, Status};

use crate::Outcome;
use crate::harness::{PATIENCE, Server};
use crate::person::{Event, Level, Person};
use crate::process;

/// Memory for messages, bytes. So much more than this may the process have for everything else that grows: allocator, SQLite's pages, threads.
const MEMORY_BYTES: u64 = 16 << 20;
const BESIDE_BYTES: u64 = 16 << 20;

/// The database may have so many bytes for each message: too few for all of them.
const DATA_BYTES_EACH: u32 = 96;

/// So many of those for whom something was stored come and ask.
const ASKING: usize = 200;

const TEXT: &str = "is anybody there?";

/// Writes to `times` names.
pub fn run(times: u32, _seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path().join("data");
    let data_bytes = (times * DATA_BYTES_EACH).max(1 << 20);
    let mut server = process::start(&data, |setup| {
        setup.set("memory_bytes", &MEMORY_BYTES.to_string()).set("data_bytes", &data_bytes.to_string())
    });
    let mut wrong = Vec::new();
    let before = server.rss_kib();
    let is_over = AtomicBool::new(false);
    let (tally, longest) = thread::scope(|scope| {
        let pair = scope.spawn(|| talk(&server, &is_over));
        let tally = write_to_all(&server, times, &mut wrong);
        is_over.store(true, Relaxed);
        (tally, pair.join().expect("the pair talked"))
    });
    let grown = tally.most_kib.saturating_sub(before);
    if grown * 1024 > MEMORY_BYTES + BESIDE_BYTES {
        wrong.push(format!("memory grew by {grown} KiB"));
    }
    if tally.refused == 0 || tally.stored.is_empty() {
        wrong.push(format!("data_bytes = {data_bytes} was to be reached on the way"));
    }
    let deadline = Instant::now() + PATIENCE;
    let in_memory = || process::number(&process::ask(&data, "status").expect("a status"), "memory.used_bytes");
    while in_memory() > 64 * 1024 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    if in_memory() > 64 * 1024 {
        wrong.push(format!("{} bytes of messages stay in memory", in_memory()));
    }
    let step = tally.stored.len().div_ceil(ASKING).max(1);
    for number in tally.stored.iter().step_by(step) {
        let mut person = Person::new(name(*number), Level::Two);
        person.log_in(&server.connect()).expect("anybody can log in");
        match person.next(PATIENCE) {
            Ok(Some(Event::Text(text))) if text == TEXT => {}
            other => wrong.push(format!("{} has {other:?}", name(*number))),
        }
    }
    if !server.sigterm().success() {
        wrong.push("the server did not stop in order".into());
    }
    let line = format!(
        "invented: {times} messages to as many names, stored {}, refused for data_bytes {}, memory at most +{:.1} MiB, a pair beside it waited {} ms at most, integrity {}",
        tally.stored.len(),
        tally.refused,
        grown as f64 / 1024.0,
        longest.as_millis(),
        process::integrity(&data),
    );
    Outcome { line, wrong }
}

fn name(number: u32) -> String {
    format!("nobody {number}")
}

/// What became of them.
#[derive(Default)]
struct Tally {
    stored: Vec<u32>,
    refused: u32,
    most_kib: u64,
}

fn write_to_all(server: &Server, times: u32, wrong: &mut Vec<String>) -> Tally {
    let mut eve = Person::new("eve", Level::Two);
    eve.log_in(&server.connect()).expect("a login");
    let mut tally = Tally::default();
    let mut first = None;
    for number in 0..times {
        let id = eve.client().send_numbered(&name(number), TEXT).expect("eve is served to the end");
        let first = *first.get_or_insert(id);
        if number % 512 == 511 || number + 1 == times {
            let is_last = number + 1 == times;
            while let Some(event) =
                eve.next(if is_last { Duration::from_secs(2) } else { Duration::ZERO }).expect("she is")
            {
                match event {
                    Event::Receipt(receipt) if receipt.status == Status::Stored => {
                        tally.stored.push((receipt.msg_id - first) as u32);
                    }
                    Event::Receipt(receipt) if receipt.reason == Some(Reason::NoSpace) => {
                        tally.refused += 1;
                    }
                    other => wrong.push(format!("eve was told {other:?}")),
                }
            }
            tally.most_kib = tally.most_kib.max(server.rss_kib());
        }
        if number % 100_000 == 99_999 {
            eprintln!("invented: {} of {times}: stored {}, refused {}", number + 1, tally.stored.len(), tally.refused);
        }
    }
    let told = tally.stored.len() as u32 + tally.refused;
    if told != times {
        wrong.push(format!("{told} of {times} messages have a receipt"));
    }
    tally
}

/// Two who are there write to each other; the longest that one of them waited.
fn talk(server: &Server, is_over: &AtomicBool) -> Duration {
    let [mut one, mut two] = ["ann", "bob"].map(|name| server.login(name));
    let mut longest = Duration::ZERO;
    while !is_over.load(Relaxed) {
        let asked_at = Instant::now();
        one.send("bob", "and you?").expect("she is served");
        two.recv(PATIENCE).expect("he is served").expect("it comes");
        longest = longest.max(asked_at.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    longest
}
