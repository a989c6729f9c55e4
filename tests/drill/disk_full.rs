//! A file system of 2 MiB that is really full, and servers that are stopped while their disk fails.

use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::ClientError;
use mail_parser::MessageParser;
use rustix::process::Signal;

use crate::disk::{KINDS, LIVE_WITHIN, RECOVERY, chat, on_disk, part, take_all, until_receipted};
use crate::hardening::{Fault, SmallDisk};
use crate::harness::{PATIENCE, Server, happens_within, numbered, send_all};
use crate::ledger::{Ledger, Levels};
use crate::person::{Level, Person};
use crate::process;
use crate::smtp::{Behaviour, Received, SmtpServer};

/// What was shown, and what should not have been.
pub struct Part {
    pub line: String,
    pub wrong: Vec<String>,
}

/// Channels of the books: to somebody absent, and between two who are there.
const ABSENT: usize = 0;
const LIVE: usize = 1;

/// The disk is full at least so long: then the server tries as rarely as it ever does.
const FULL_FOR: Duration = Duration::from_secs(10);

/// An alert must have been sent so long after memory was full.
const ALERT_WITHIN: Duration = Duration::from_secs(8);

/// A disk is full until an alert was mailed, and then has room again.
pub fn fill() -> Part {
    let Some(disk) = SmallDisk::mount("drill-disk", "2m") else {
        return Part { line: "a full disk was not tried, without the right to mount one".into(), wrong: Vec::new() };
    };
    let mail = SmtpServer::start(Behaviour::default());
    let server = process::start(&disk.path().join("data"), |setup| {
        setup.set("memory_bytes", "256 KiB").set("max_packet_bytes", "4 KiB").set("max_text_bytes", "3 KiB");
        setup.set("save_interval", "100 ms").set("mail_to", "ops@example.org").set("smtp_tls", "none");
        setup.set("smtp_port", &mail.port.to_string())
    });
    let both = Levels { sender: Level::Two, recipient: Level::Two };
    let mut full = Full { ledger: Ledger::new(vec![both; 2]), wrong: Vec::new() };
    let line = full.go_through(server, &disk, &mail).unwrap_or_else(|error| {
        full.wrong.push(format!("full disk: a connection ended: {error}"));
        "full disk: broken off".into()
    });
    Part { line, wrong: full.wrong }
}

struct Full {
    ledger: Ledger,
    wrong: Vec<String>,
}

impl Full {
    fn go_through(&mut self, mut server: Server, disk: &SmallDisk, mail: &SmtpServer) -> Result<String, ClientError> {
        let mut writer = Person::new("writer", Level::Two);
        let (mut near, mut far) = (Person::new("near", Level::Two), Person::new("far", Level::Two));
        for person in [&mut writer, &mut near, &mut far] {
            person.log_in(&server.connect())?;
        }
        chat(&mut near, &mut far, &self.ledger, LIVE, 1)?;
        // More than the disk holds, and then more than the memory does.
        while server.logged("saving failed") == 0 && self.ledger.sent(ABSENT) < 10_000 {
            self.write(&mut writer)?;
            until_receipted(&mut writer, ABSENT, &self.ledger, Duration::from_millis(500))?;
        }
        let full_at = Instant::now();
        self.write(&mut writer)?;
        let (mut live, mut alert_after) = (Duration::ZERO, None);
        while full_at.elapsed() < FULL_FOR || alert_after.is_none() && full_at.elapsed() < PATIENCE {
            live = live.max(chat(&mut near, &mut far, &self.ledger, LIVE, 1)?);
            until_receipted(&mut writer, ABSENT, &self.ledger, Duration::from_millis(50))?;
            if alert_after.is_none() && mail.received().iter().any(is_alert) {
                alert_after = Some(full_at.elapsed());
            }
        }
        let waiting = writer.unreceipted();
        disk.resize("64m");
        let room_at = Instant::now();
        let missing = until_receipted(&mut writer, ABSENT, &self.ledger, PATIENCE)?;
        let recovery = room_at.elapsed();
        server.kill9();
        part(&mut writer, ABSENT, &self.ledger);
        part(&mut near, LIVE, &self.ledger);
        let server = server.restart();
        let beyond = self.ledger.receipts_beyond(ABSENT, &on_disk(&server, "absent", ABSENT));
        if waiting == 0 || missing > 0 || !beyond.is_empty() {
            let what = format!("{waiting} waited, {missing} have no receipt, receipts but not on disk: {beyond:?}");
            self.wrong.push(format!("full disk: {what}"));
        }
        take_all(&mut Person::new("absent", Level::Two), ABSENT, &self.ledger, &server)?;
        let mut verdict = self.ledger.judge();
        self.wrong.append(&mut verdict.wrong);
        let alert = alert_after.unwrap_or(PATIENCE);
        let bounds =
            [("live texts", live, LIVE_WITHIN), ("the alert", alert, ALERT_WITHIN), ("recovery", recovery, RECOVERY)];
        for (what, took, _) in bounds.iter().filter(|(_, took, bound)| took > bound) {
            self.wrong.push(format!("full disk: {what} took {took:.1?}"));
        }
        Ok(format!(
            "full disk: {waiting} texts waited, alert mailed after {:.1} s, live within {} ms, all saved {:.1} s after there was room, {verdict}",
            alert.as_secs_f64(),
            live.as_millis(),
            recovery.as_secs_f64()
        ))
    }

    fn write(&self, writer: &mut Person) -> Result<(), ClientError> {
        let texts: Vec<String> = (0..200).map(|_| self.ledger.next(ABSENT, false).text(2000)).collect();
        writer.send_at_once("absent", &texts)
    }
}

fn is_alert(received: &Received) -> bool {
    let mail = MessageParser::default().parse(&received.mail);
    mail.is_some_and(|mail| mail.body_text(0).is_some_and(|text| text.contains("the memory for messages")))
}

/// How long the stops of this drill may take.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Stops servers whose disk fails, in each way, and one whose disk is well again in time.
pub fn stop_each() -> Part {
    let stops: Vec<Stop> = thread::scope(|scope| {
        let stops: Vec<_> = KINDS.map(|kind| scope.spawn(move || stop(kind, false))).into();
        let mended = scope.spawn(|| stop(KINDS[0], true));
        let stops = stops.into_iter().chain([mended]);
        stops.map(|stop| stop.join().expect("a thread of the drill")).collect()
    });
    let slowest = stops.iter().map(|stop| stop.took).max().unwrap_or_default();
    let told: u32 = stops.iter().map(|stop| stop.told_lost).sum();
    let line = format!(
        "{} stops with an ill disk: exit 1 within {:.1} s, {told} lost messages counted; exit 0 where it was well in time",
        KINDS.len(),
        slowest.as_secs_f64()
    );
    Part { line, wrong: stops.into_iter().flat_map(|stop| stop.wrong).collect() }
}

struct Stop {
    took: Duration,
    /// What the log says is lost.
    told_lost: u32,
    wrong: Vec<String>,
}

/// So many messages are in memory only when a server is stopped.
const UNSAVED: u32 = 100;

/// SIGTERM while the disk fails: until the end, or until the second try.
fn stop((calls, error): (&str, &str), is_mended: bool) -> Stop {
    let mut server = Server::start(|setup| {
        let timeout = format!("{} s", STOP_WITHIN.as_secs());
        setup.set("save_interval", "1 h").set("shutdown_timeout", &timeout).set("log_level", "warn")
    });
    send_all(&mut server.login("ann"), "bob", &numbered("unsaved", UNSAVED as usize));
    let fault = Fault::inject_in(&server, "timer", "disk", calls, &format!("error={error}"));
    let fault = fault.expect("strace is there and may be used");
    let begun = Instant::now();
    server.signal(Signal::TERM);
    if is_mended {
        happens_within(PATIENCE, || server.logged("saving failed (try 2)") > 0);
        fault.end();
    }
    let code = server.wait(PATIENCE).code();
    let took = begun.elapsed();
    let lost = format!("{UNSAVED} accepted messages could not be saved and are lost");
    let told_lost = if server.logged(&lost) > 0 { UNSAVED } else { 0 };
    let server = server.restart();
    let (what, on_disk) = (format!("stop with {error} of {calls}"), server.rows_of("bob"));
    let (expected, lost) = if is_mended { (0, 0) } else { (1, UNSAVED) };
    // What was written and could not be synced is promised to nobody, and may be there all the same.
    let is_expected_on_disk = match on_disk {
        0 => !is_mended,
        rows => rows == i64::from(UNSAVED) && (is_mended || calls.contains("sync")),
    };
    let mut wrong = Vec::new();
    if code != Some(expected) || told_lost != lost || !is_expected_on_disk {
        wrong.push(format!("{what}: exit {code:?}, {on_disk} on disk, {told_lost} told as lost"));
    }
    // It tries until the deadline, and no longer.
    let earliest = if is_mended { Duration::ZERO } else { STOP_WITHIN };
    if took < earliest || took > STOP_WITHIN + Duration::from_secs(2) {
        wrong.push(format!("{what}: it ended after {:.1} s", took.as_secs_f64()));
    }
    Stop { took, told_lost, wrong }
}
