//! Everything at once, for a long time: chat at both levels, comers and goers, people who are away and people who dawdle, strangers, nonsense,
//! takeovers, mails. What the server holds is sampled each second; it must be flat, and come back to what it was when everybody has left. Every
//! message is looked for.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::ClientError;
use chatserver::protocol::Message;

use crate::dice::Dice;
use crate::harness::{PATIENCE, Server, packet};
use crate::holdings::{Holdings, median, mib};
use crate::load::{Habit, Load};
use crate::process::{self, Lives};
use crate::smtp::{Behaviour, SmtpServer};
use crate::{Outcome, net, strangers};

const HABITS: &[Habit] = &[Habit::Stays, Habit::Stays, Habit::ComesAndGoes, Habit::IsAway, Habit::Dawdles];
const PAIRS: usize = 20;

/// Longest pause of a sender: what is flat must not depend on how busy the machine is with something else.
const PAUSE_MS: u64 = 500;

/// A sample is taken so often.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The beginning, when caches fill, is not judged: so much of it, and no less than the first of the samples.
const WARM_UP: Duration = Duration::from_secs(60);

/// What may lie between the first and the last third: so many hundredths and so many bytes. In less than ten minutes it is the page cache of
/// SQLite's connections that still fills.
const ALLOWED: (u64, u64) = (5, 1 << 20);
const ALLOWED_WHEN_BRIEF: (u64, u64) = (5, 16 << 20);
const BRIEF: Duration = Duration::from_secs(600);

/// More than this load needs, which is 33 to 41 MiB, and far less than the 85 MiB that an allocator keeps that gives nothing back.
const MOST_BYTES: u64 = 48 << 20;

/// One look at the server.
#[derive(Clone, Copy)]
struct Sample {
    memory: u64,
    descriptors: u64,
    threads: u64,
    mappings: u64,
    database: u64,
}

impl Sample {
    fn of(server: &Server) -> Sample {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).expect("the server lives");
        let size =
            |end: &str| server.data().join(format!("chatserver.db{end}")).metadata().map_or(0, |found| found.len());
        Sample {
            memory: server.rss_kib() * 1024,
            descriptors: server.descriptors() as u64,
            threads: server.threads().len() as u64,
            mappings: maps.lines().count() as u64,
            database: size("") + size("-wal"),
        }
    }
}

/// What else is counted.
#[derive(Default)]
struct Tally {
    strangers: AtomicU64,
    nonsense: AtomicU64,
    takeovers: AtomicU64,
    reports: AtomicU64,
}

/// Goes on for `seconds`.
pub fn run(seconds: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let relay = SmtpServer::start(Behaviour::default());
    let server = process::start(&place.path().join("data"), |setup| {
        setup
            .set("log_level", "error")
            .set("mail_to", "ops@example.org")
            .set("mail_from", "chat@example.org")
            .set("smtp_host", "localhost")
            .set("smtp_port", &relay.port.to_string())
            .set("smtp_tls", "none")
    });
    let time = Duration::from_secs(seconds.into());
    let before = Holdings::at_rest(&server);
    let tally = Tally::default();
    let (mut samples, mut wrong) = (Vec::new(), Vec::new());
    let load = Load::of("soak", seed, HABITS, PAIRS).pause_ms(PAUSE_MS);
    let mut gone = None;
    let mut verdict = load.run(
        server,
        |load, server, _| {
            thread::scope(|scope| {
                let (server, tally, lives) = (&server, &tally, load.lives());
                let until = Instant::now() + time;
                scope.spawn(move || {
                    let count = strangers::trickle(server, seed, |pause| !waits(lives, pause, until));
                    tally.strangers.fetch_add(count, Relaxed);
                });
                scope.spawn(move || talk_nonsense(server, tally, seed, |pause| waits(lives, pause, until)));
                scope.spawn(move || take_over(server, tally, |pause| waits(lives, pause, until)));
                scope.spawn(move || ask_for_reports(server, tally, |pause| waits(lives, pause, until)));
                while waits(lives, SAMPLE_EVERY, until) {
                    let sample = Sample::of(server);
                    samples.push(sample);
                    if samples.len() % 60 == 0 {
                        load.tell(&format!("{} of {seconds} s, memory {}", samples.len(), mib(sample.memory)));
                    }
                }
            });
            server
        },
        |server| {
            gone = before.come_back(server);
            let panicked = server.logged("panicked");
            if panicked > 0 {
                wrong.push(format!("{panicked} threads panicked"));
            }
        },
    );
    wrong.extend(gone);
    wrong.append(&mut verdict.wrong);
    let allowed = if time < BRIEF { ALLOWED_WHEN_BRIEF } else { ALLOWED };
    let warm_up = (WARM_UP.as_secs() as usize).min(samples.len() / 4);
    let trend = Trend::of(&samples[warm_up.min(samples.len())..]);
    wrong.extend(trend.growth(allowed));
    if relay.received().is_empty() {
        wrong.push("no report arrived".into());
    }
    if trend.last.memory > MOST_BYTES {
        wrong.push(format!("memory is {}, more than {}", mib(trend.last.memory), mib(MOST_BYTES)));
    }
    let flat = if trend.growth(allowed).is_empty() { "flat" } else { "NOT FLAT" };
    let [strangers, nonsense, takeovers, reports] =
        [&tally.strangers, &tally.nonsense, &tally.takeovers, &tally.reports].map(|count| count.load(Relaxed));
    let line = format!(
        "soak: {seconds} s, texts {}, receipts {}, {verdict}; {strangers} strangers, {nonsense} talked nonsense, {takeovers} takeovers, {reports} \
         reports; first and last third: {}; {flat} (allowed: {} % + {}); back at {} when all had left",
        verdict.sent,
        verdict.receipts,
        trend.line(),
        allowed.0,
        mib(allowed.1),
        before.line(),
    );
    Outcome { line, wrong }
}

/// Waits so long; `false`: the time is over.
fn waits(lives: &Lives, pause: Duration, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    lives.stay_away(pause.min(left));
    Instant::now() < until
}

/// Users who say what is no packet: each is cut, and none but him.
fn talk_nonsense(server: &Server, tally: &Tally, seed: u64, goes_on: impl Fn(Duration) -> bool) {
    let mut dice = Dice::new(seed, 2);
    while goes_on(dice.millis(0, 100)) {
        let mut fool = server.login(&format!("fool {}", dice.roll(10)));
        let mut bytes = packet(&Message::ClientPing { ping: true, time: 7 });
        match dice.roll(4) {
            0 => bytes = b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            1 => bytes[0] = 0xff,
            2 => *bytes.last_mut().expect("a packet is not empty") ^= 1,
            _ => bytes[7] = 99,
        }
        // The end of it must come from the server.
        fool.connection().stream().write_all(&bytes).expect("a fool writes");
        fool.connection().read_to_close(PATIENCE).expect("a fool is cut");
        tally.nonsense.fetch_add(1, Relaxed);
    }
}

/// One name that is taken over again and again: what it wrote to itself comes, and the older connection ends.
fn take_over(server: &Server, tally: &Tally, goes_on: impl Fn(Duration) -> bool) {
    let mut present: Option<chatserver::client::Client> = None;
    let mut round = 0;
    while goes_on(Duration::from_millis(50)) {
        round += 1;
        let connect = server.connect();
        let is_level_2 = round % 2 == 0;
        let connect = if is_level_2 { connect.level(chatserver::client::Level::Two) } else { connect };
        let mut next = connect.login("prize").expect("a taker-over logs in");
        if let Some(mut old) = present.take() {
            let end = loop {
                match old.next_event(PATIENCE) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the older connection does not end"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(end, ClientError::Closed { .. }), "the older connection ends with {end}");
            net::reset_client(old);
        }
        next.roundtrip().expect("a taker-over is heard");
        present = Some(next);
        tally.takeovers.fetch_add(1, Relaxed);
    }
}

fn ask_for_reports(server: &Server, tally: &Tally, goes_on: impl Fn(Duration) -> bool) {
    while goes_on(Duration::from_secs(3)) {
        let answer = process::ask(&server.data(), "report send").expect("the server answers on its socket");
        assert!(answer["sent"].is_string(), "a report is sent: {answer}");
        tally.reports.fetch_add(1, Relaxed);
    }
}

/// The first and the last third of some samples: medians, but of memory what nine of ten samples exceed. It swings by a quarter with what happens to be on
/// its way to the disk, and what leaks raises the lowest as well.
struct Trend {
    first: Sample,
    last: Sample,
}

impl Trend {
    fn of(samples: &[Sample]) -> Trend {
        let third = samples.len().div_ceil(3);
        let lowest_tenth = |samples: &[Sample]| {
            let mut memory: Vec<u64> = samples.iter().map(|sample| sample.memory).collect();
            memory.sort_unstable();
            memory.get(memory.len() / 10).copied().unwrap_or_default()
        };
        let median = |samples: &[Sample]| {
            let of = |field: fn(&Sample) -> u64| median(&mut samples.iter().map(field).collect::<Vec<u64>>());
            Sample {
                memory: lowest_tenth(samples),
                descriptors: of(|sample| sample.descriptors),
                threads: of(|sample| sample.threads),
                mappings: of(|sample| sample.mappings),
                database: of(|sample| sample.database),
            }
        };
        Trend { first: median(&samples[..third]), last: median(&samples[samples.len() - third..]) }
    }

    fn line(&self) -> String {
        let Trend { first, last } = self;
        format!(
            "memory (lowest tenth) {} and {}, medians of descriptors {} and {}, threads {} and {}, mappings {} and {}, database {} and {}",
            mib(first.memory),
            mib(last.memory),
            first.descriptors,
            last.descriptors,
            first.threads,
            last.threads,
            first.mappings,
            last.mappings,
            mib(first.database),
            mib(last.database),
        )
    }

    /// What has grown by more than is allowed, in hundredths and bytes. Of what is counted in pieces, some come and go with whoever is there.
    fn growth(&self, (hundredths, bytes): (u64, u64)) -> Vec<String> {
        let Trend { first, last } = self;
        let pairs = PAIRS as u64;
        let judged = [
            ("memory", first.memory, last.memory, bytes),
            ("descriptors", first.descriptors, last.descriptors, pairs),
            ("threads", first.threads, last.threads, 2 * pairs),
            ("mappings", first.mappings, last.mappings, 8 * pairs),
        ];
        let grown = judged.iter().filter(|(_, first, last, more)| *last > first + first * hundredths / 100 + more);
        grown
            .map(|(what, first, last, _)| format!("{what} has grown: {first} in the first third, {last} in the last"))
            .collect()
    }
}
