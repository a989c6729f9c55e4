//! A disk that fails or is full: nothing that was accepted is lost, the log says what is the matter, and it mends itself.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::{Event, Level};
use chatserver::limits;
use chatserver::protocol::NoticeCode;
use mail_parser::MessageParser;
use rustix::process::Signal;

use crate::control::{number, status};
use crate::hardening::*;
use crate::harness::*;
use crate::smtp::{Behaviour, Received, SmtpServer};

const SYNC: &str = "fsync,fdatasync";
const WRITE: &str = "pwrite64,pwritev,ftruncate,fallocate";

/// The disk is well again, and what it took has left memory, of which a login needs some, too.
fn until_well(server: &Server) {
    server.wait_for_log("saving works again");
    eventually("there is memory for a login", || {
        let status = status(server);
        let bytes = |name| number(&status, name);
        bytes("memory.used_bytes") + limits::MAILBOX_BYTES as i64 <= bytes("memory.limit_bytes")
    });
}

/// While these calls fail, ann writes to bob, who is not there; then the disk is well again.
fn nothing_is_lost_while(test: &str, calls: &str, fault: &str, said: &str) {
    let mut server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &numbered("well", 30));
    eventually("the first are saved", || server.rows_of("bob") == 30);
    let Some(disk) = Fault::inject(&server, test, calls, fault) else { return };
    send_all(&mut ann, "bob", &numbered("ill", 300));
    let line = server.wait_for_log("saving failed (try 1)");
    assert!(line.contains(said) && line.contains("nothing is lost"), "{line}");
    server.wait_for_log("saving failed (try 2)");
    send_all(&mut ann, "bob", &numbered("still ill", 30));
    pair.chat();
    assert_eq!(server.rows_of("bob"), 30, "what was not committed is not to be seen");
    disk.end();
    server.wait_for_log("saving works again");
    eventually("all are saved", || server.rows_of("bob") == 360);
    server.kill9();
    let server = server.restart();
    let expected = [numbered("well", 30), numbered("ill", 300), numbered("still ill", 30)].concat();
    assert_eq!(all_texts(&mut server.login("bob")), expected);
}

#[test]
fn a_disk_that_cannot_sync_loses_nothing() {
    nothing_is_lost_while("a_disk_that_cannot_sync_loses_nothing", SYNC, "error=EIO", "disk I/O error");
}

#[test]
fn a_disk_that_is_full_loses_nothing() {
    nothing_is_lost_while("a_disk_that_is_full_loses_nothing", WRITE, "error=ENOSPC", "full");
}

#[test]
fn who_comes_back_while_the_disk_is_ill_gets_everything_in_order() {
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &numbered("well", 30));
    eventually("the first are saved", || server.rows_of("bob") == 30);
    let test = "who_comes_back_while_the_disk_is_ill_gets_everything_in_order";
    let Some(disk) = Fault::inject(&server, test, SYNC, "error=EIO") else { return };
    send_all(&mut ann, "bob", &numbered("ill", 100));
    server.wait_for_log("saving failed");
    // Reading works: the first come from disk, the others from memory.
    let mut bob = server.login("bob");
    assert_eq!(all_texts(&mut bob), [numbered("well", 30), numbered("ill", 100)].concat());
    send_all(&mut ann, "bob", &numbered("live", 10));
    assert_eq!(all_texts(&mut bob), numbered("live", 10));
    assert!(bob.logout().is_ok());
    disk.end();
    eventually("what was read is gone", || server.rows_of("bob") == 0);
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0]);
}

/// A server with little memory: 2,000 long messages do not fit.
fn small_server(memory_wait_timeout: &str) -> Server {
    Server::start(|setup| {
        setup.set("max_packet_bytes", "4 KiB").set("max_text_bytes", "3 KiB").set("memory_bytes", "64 KiB");
        setup.set("save_interval", "100 ms").set("memory_wait_timeout", memory_wait_timeout)
    })
}

fn many() -> Vec<String> {
    (0..600).map(|number| format!("{number:<2000}")).collect()
}

#[test]
fn when_memory_is_full_senders_wait_and_others_do_not() {
    let server = small_server("30 s");
    let mut pair = Pair::of(&server, "healthy", "happy");
    let mut ann = server.login("ann");
    let test = "when_memory_is_full_senders_wait_and_others_do_not";
    let Some(disk) = Fault::inject(&server, test, SYNC, "error=EIO") else { return };
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            send_all(&mut ann, "bob", &many());
            done.send(()).unwrap();
        });
        server.wait_for_log("saving failed (try 3)");
        for _ in 0..20 {
            pair.chat();
        }
        assert_eq!(is_done.try_recv(), Err(mpsc::TryRecvError::Empty), "more was accepted than fits");
        assert!(server.rss_kib() < 64 * 1024);
        disk.end();
        is_done.recv_timeout(PATIENCE).expect("the sender goes on when the disk is well");
    });
    until_well(&server);
    assert_eq!(all_texts(&mut server.login("bob")), many());
}

#[test]
fn who_waits_for_memory_too_long_is_cut_and_what_was_accepted_arrives() {
    let server = small_server("500 ms");
    let mut pair = Pair::of(&server, "healthy", "happy");
    let mut ann = server.login("ann");
    let test = "who_waits_for_memory_too_long_is_cut_and_what_was_accepted_arrives";
    let Some(disk) = Fault::inject(&server, test, SYNC, "error=EIO") else { return };
    for text in many() {
        // It is cut somewhere.
        if ann.send("bob", &text).is_err() {
            break;
        }
    }
    server.wait_for_log("ann: no memory for its messages within the time limit");
    expect_close(&mut ann);
    pair.chat();
    disk.end();
    until_well(&server);
    let accepted = all_texts(&mut server.login("bob"));
    assert!((10..100).contains(&accepted.len()), "{} were accepted", accepted.len());
    assert_eq!(accepted, many()[..accepted.len()]);
}

#[test]
fn who_takes_over_from_a_sender_that_waits_does_not_wait() {
    let server = small_server("30 s");
    let mut ann = server.login("ann");
    let test = "who_takes_over_from_a_sender_that_waits_does_not_wait";
    let Some(disk) = Fault::inject(&server, test, SYNC, "error=EIO") else { return };
    many().iter().take(200).for_each(|text| ann.queue("bob", text));
    ann.flush().unwrap();
    server.wait_for_log("saving failed (try 2)");
    // A login needs a little memory too, which is not there now.
    drop(server.connect().timeout(Duration::from_secs(5)).login("ann"));
    disk.end();
    until_well(&server);
    let mut ann = server.login("ann");
    ann.roundtrip().unwrap();
    let accepted = all_texts(&mut server.login("bob"));
    assert_eq!(accepted, many()[..accepted.len()]);
}

#[test]
fn a_level_2_sender_past_full_memory_is_told_and_has_no_receipt_for_what_is_not_on_disk() {
    let server = small_server("500 ms");
    let mut ann = server.connect().level(Level::Two).login("ann").unwrap();
    let test = "a_level_2_sender_past_full_memory_is_told_and_has_no_receipt_for_what_is_not_on_disk";
    let Some(disk) = Fault::inject(&server, test, SYNC, "error=EIO") else { return };
    let texts = &many()[..60];
    texts.iter().for_each(|text| ann.queue("bob", text));
    ann.flush().unwrap();
    let mut told = Vec::new();
    while let Ok(event) = ann.next_event(PATIENCE) {
        told.extend(event);
    }
    let [Event::Notice(notice)] = &told[..] else { panic!("what it is told: {told:?}") };
    assert_eq!(notice.code, NoticeCode::Overloaded);
    disk.end();
    until_well(&server);
    let mut ann = server.connect().resume(ann.into_state()).unwrap();
    eventually("each has its receipt", || {
        let _ = ann.next_event(Duration::from_millis(50)).unwrap();
        ann.unreceipted() == 0
    });
    assert_eq!(all_texts(&mut server.login("bob")), texts);
}

/// A pass that has nothing to write says nothing of the disk: here receipts are looked after many times between the tries.
#[test]
fn an_ill_disk_is_well_only_when_it_has_taken_something() {
    let server = Server::start_default();
    let two = |name| server.connect().level(Level::Two).login(name).unwrap();
    let (mut ann, mut bob) = (two("ann"), two("bob"));
    let reserves = "select count(*) from senders where reserved_upto > 0";
    eventually("numbers of both are reserved", || server.db().query_row(reserves, [], |row| row.get(0)) == Ok(2));
    let test = "an_ill_disk_is_well_only_when_it_has_taken_something";
    let Some(disk) = Fault::inject(&server, test, SYNC, "error=EIO") else { return };
    let _newcomer = server.login("newcomer");
    eventually("it is tried for the third time", || {
        ann.send("bob", "well?").unwrap();
        assert_eq!(next(&mut bob).text, "well?");
        assert_eq!(bob.recv(Duration::from_millis(20)).unwrap(), None);
        server.logged("saving failed (try 3)") > 0
    });
    assert_eq!(server.logged("saving works again"), 0);
    disk.end();
    server.wait_for_log("saving works again after");
}

#[test]
fn a_disk_that_is_ill_for_long_is_told_by_mail() {
    let mail = SmtpServer::start(Behaviour::default());
    let server = Server::start(|setup| {
        setup.set("max_packet_bytes", "4 KiB").set("max_text_bytes", "3 KiB").set("memory_bytes", "64 KiB");
        setup.set("save_interval", "100 ms").set("mail_to", "ops@example.org").set("smtp_tls", "none");
        // The watch looks as often.
        setup.set("smtp_port", &mail.port.to_string()).set("report_interval", "1 s")
    });
    let mut ann = server.login("ann");
    let test = "a_disk_that_is_ill_for_long_is_told_by_mail";
    let Some(_disk) = Fault::inject(&server, test, SYNC, "error=EIO") else { return };
    many()[..60].iter().for_each(|text| ann.queue("bob", text));
    ann.flush().unwrap();
    eventually("an alert", || {
        let told = |received: &Received| {
            let mail = MessageParser::default().parse(&received.mail).unwrap();
            mail.body_text(0).unwrap().contains("the memory for messages (64 KiB) is full")
        };
        mail.received().iter().any(told)
    });
}

#[test]
fn stopping_with_an_ill_disk_tries_until_the_deadline_and_says_what_is_lost() {
    let mut server = Server::start(|setup| setup.set("save_interval", "1 h").set("shutdown_timeout", "1500 ms"));
    send_all(&mut server.login("ann"), "bob", &numbered("ill", 100));
    let test = "stopping_with_an_ill_disk_tries_until_the_deadline_and_says_what_is_lost";
    let Some(_disk) = Fault::inject_in(&server, "timer", test, SYNC, "error=EIO") else { return };
    let begun = Instant::now();
    let status = server.sigterm();
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(1));
    server.wait_for_log("100 accepted messages could not be saved and are lost");
    assert!((Duration::from_millis(1500)..Duration::from_secs(3)).contains(&took), "it took {took:?}");
}

#[test]
fn a_disk_that_is_well_again_before_the_deadline_of_a_stop_loses_nothing() {
    let mut server = Server::start(|setup| setup.set("save_interval", "1 h"));
    send_all(&mut server.login("ann"), "bob", &numbered("ill", 100));
    let test = "a_disk_that_is_well_again_before_the_deadline_of_a_stop_loses_nothing";
    let Some(disk) = Fault::inject_in(&server, "timer", test, SYNC, "error=EIO") else { return };
    server.signal(Signal::TERM);
    server.wait_for_log("saving failed (try 2)");
    disk.end();
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    assert_eq!(all_texts(&mut server.restart().login("bob")), numbered("ill", 100));
}

#[test]
fn a_really_full_disk_loses_nothing_and_mends_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("a_really_full_disk_loses_nothing_and_mends_when_there_is_room", "2m") else {
        return;
    };
    let data = disk.path().join("data");
    let server = Server::start(|setup| setup.data(&data).set("save_interval", "100 ms"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let mut ann = server.login("ann");
    let expected: Vec<String> = (0..1500).map(|number| format!("{number:<2000}")).collect();
    send_all(&mut ann, "bob", &expected);
    let line = server.wait_for_log("saving failed (try 2)");
    assert!(line.contains("full") || line.contains("space"), "{line}");
    pair.chat();
    disk.resize("64m");
    server.wait_for_log("saving works again");
    eventually("all are saved", || server.rows_of("bob") == 1500);
    let server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), expected);
    drop(server);
    assert!(fs::metadata(data.join("chatserver.db")).is_ok());
}
