//! The stop: SIGINT and SIGTERM end the server in time, with exit code 0, and nothing that was accepted is lost.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::*;
use crate::wire;

#[test]
fn sigterm_and_sigint_stop_it_and_keep_what_was_accepted() {
    for (signal, name) in [(Signal::TERM, "SIGTERM: stopping"), (Signal::INT, "SIGINT: stopping")] {
        // What waits is in memory only when the signal comes.
        let mut server = Server::start(|setup| setup.set("save_interval", "1 h"));
        let sent = numbered("before the stop", 500);
        send_all(&mut server.login("ann"), "bob", &sent);
        let _idle: Vec<_> = (0..20).map(|number| server.login(&format!("idle {number}"))).collect();
        let _stranger = server.socket();
        let started = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait(PATIENCE).code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(4), "{name}: {:?}", started.elapsed());
        server.wait_for_log(name);
        server.wait_for_log("500 saved");
        let server = server.restart();
        assert_eq!(all_texts(&mut server.login("bob")), sent);
    }
}

#[test]
fn clients_see_a_clean_close() {
    let mut server = Server::start_default();
    let mut clients: Vec<_> = (0..10).map(|number| server.login(&number.to_string())).collect();
    server.signal(Signal::TERM);
    for client in &mut clients {
        let (packets, reset) = client.connection().read_to_close(PATIENCE).unwrap();
        assert!(packets.is_empty() && !reset);
    }
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_stopping_server_delivers_what_is_on_its_way() {
    let mut server = Server::start(|setup| setup.set("save_interval", "1 h"));
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    // More than sockets hold, to one who begins to read only when the stop has begun.
    let sent: Vec<String> = (0..500).map(|number| format!("{number} {}", "x".repeat(2000))).collect();
    send_all(&mut ann, "bob", &sent);
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM: stopping");
    let (packets, reset) = bob.connection().read_to_close(PATIENCE).unwrap();
    assert!(!reset);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    let server = server.restart();
    let rest = all_texts(&mut server.login("bob"));
    assert!(sent.ends_with(&rest) && packets.len() + rest.len() >= sent.len(), "{} + {}", packets.len(), rest.len());
    assert!(packets.len() > sent.len() / 2, "most of it was delivered: {}", packets.len());
}

#[test]
fn a_slow_reader_cannot_hold_up_a_stop() {
    let mut server = Server::start(|setup| setup.set("shutdown_timeout", "1 s"));
    let (mut ann, mut slow) = (server.login("ann"), server.login("slow"));
    let sent: Vec<String> = (0..1000).map(|number| format!("{number} {}", "x".repeat(2000))).collect();
    send_all(&mut ann, "slow", &sent);
    let started = Instant::now();
    assert_eq!(server.sigterm().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let (packets, _) = slow.connection().read_to_close(PATIENCE).unwrap();
    let server = server.restart();
    let rest = all_texts(&mut server.login("slow"));
    assert!(!rest.is_empty() && sent.ends_with(&rest), "the rest comes after the start, in order and whole");
    assert!(packets.len() + rest.len() >= sent.len(), "nothing lies between: {} and {}", packets.len(), rest.len());
}

#[test]
fn what_had_arrived_at_the_stop_is_still_executed() {
    for _ in 0..5 {
        let mut server = Server::start_default();
        let mut ann = server.login("ann");
        let sent = numbered("sent and gone", 200);
        let stream: Vec<u8> = sent.iter().flat_map(|text| wire::chat("ann", "bob", text)).collect();
        ann.connection().write_raw(&stream).unwrap();
        // The kernel of this machine is one: what was written to the socket has arrived at the other end.
        assert_eq!(server.sigterm().code(), Some(0));
        let server = server.restart();
        assert_eq!(all_texts(&mut server.login("bob")), sent);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut server = Server::start(|setup| setup.set("shutdown_timeout", "1 h"));
        let (mut ann, _slow) = (server.login("ann"), server.login("slow"));
        let text = "x".repeat(50_000);
        send_all(&mut ann, "slow", &vec![&text; 40]);
        server.signal(Signal::TERM);
        server.wait_for_log("SIGTERM: stopping");
        let started = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait(PATIENCE).code(), Some(code));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[test]
fn a_stopped_server_has_closed_its_database() {
    let mut server = Server::start_default();
    send_all(&mut server.login("ann"), "bob", &["hello"]);
    assert_eq!(server.sigterm().code(), Some(0));
    let mut files: Vec<String> = std::fs::read_dir(server.data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["chatserver.db", "chatserver.log", "lock"], "no write-ahead log is left over");
    let db = server.db();
    assert_eq!(db.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
}

#[test]
fn a_freed_address_can_be_taken_again_at_once() {
    let server = Server::start_default();
    let addr = server.addr().to_owned();
    let _client = server.login("ann");
    let server = server.restart_with(|setup| setup.listen(&addr));
    assert_eq!(server.addr(), addr);
    server.login("ann").roundtrip().unwrap();
}
