//! A panic in a handler, in a writer, in a save: it ends one connection, or none, and what was accepted arrives. The places are those of
//! `src/faults.rs`; a handler of an embedding program is in `custom.rs`.

use chatserver::client::{Client, Level};
use chatserver::protocol::{Message, Status};

use crate::harness::*;
use crate::wire;

/// Texts that come before the packet that panics, in the same write.
const BEFORE: usize = 20;

/// A server that panics there.
fn server(panic_at: &str) -> Server {
    Server::start(|setup| setup.wrapper(&["env", &format!("PANIC_AT={panic_at}")]).set("save_interval", "100 ms"))
}

/// Nobody else notices, the panic is told, and nothing of the one who suffered it is left.
#[track_caller]
fn assert_unharmed(server: &Server, pair: &mut Pair, gone: &str) {
    server.wait_for_log("panicked: on purpose, at");
    eventually("the thread is gone", || !server.has_thread(gone));
    pair.chat();
    assert_eq!(server.logged("panicked: on purpose"), 1, "{}", server.log());
    // The same name can come back, and be written to.
    let mut again = server.login(gone);
    again.roundtrip().unwrap();
    pair.chat();
}

/// `BEFORE` texts to bob and to one who is absent, then these packets.
fn stream(name: &str, then: &[Vec<u8>]) -> Vec<u8> {
    let texts = numbered("before", BEFORE);
    let texts = texts.iter().flat_map(|text| [wire::chat(name, "bob", text), wire::chat(name, "absent", text)]);
    texts.chain(then.iter().cloned()).flatten().collect()
}

/// Hardening: panic ends the process (NATS CVE-2026-27889): a panic on purpose in each handler.
#[test]
fn a_panic_in_a_handler_ends_one_connection_and_what_was_accepted_before_arrives() {
    let ping = packet(&Message::ClientPing { ping: true, time: 7 });
    let ack = packet(&Message::ClientAck { seq: 0 });
    // Two of the pair have chatted once before, each way.
    let chats = 2 + 2 * BEFORE + 1;
    let cases = [
        ("logout 1".to_owned(), wire::logout(), false),
        ("ping 1".to_owned(), ping, false),
        (format!("chat {chats}"), wire::chat("ann", "bob", "never handled"), false),
        (format!("accepted {chats}"), wire::chat("ann", "bob", "accepted"), true),
        ("ack 1".to_owned(), ack, false),
    ];
    for (place, packet, is_accepted) in cases {
        let server = server(&place);
        let mut pair = Pair::of(&server, "healthy", "happy");
        let mut bob = server.login("bob");
        pair.chat();
        let level = if place.starts_with("ack") { Level::Two } else { Level::One };
        let mut ann = server.connect().level(level).login("ann").unwrap();
        // What comes after the panic is not executed.
        let after = wire::chat("ann", "bob", "after");
        ann.connection().write_raw(&stream("ann", &[packet, after])).unwrap();
        expect_close(&mut ann);
        let mut expected = numbered("before", BEFORE);
        assert_eq!(all_texts(&mut server.login("absent")), expected, "{place}");
        expected.extend(is_accepted.then(|| "accepted".to_owned()));
        assert_eq!(all_texts(&mut bob), expected, "{place}");
        assert_unharmed(&server, &mut pair, "ann");
    }
}

#[test]
fn a_panic_in_a_login_ends_that_connection_and_the_next_login_takes_its_place() {
    for place in ["login 3", "logged in 3"] {
        let server = server(place);
        let mut pair = Pair::of(&server, "healthy", "happy");
        let mut ann = server.connect().open().unwrap();
        ann.write_raw(&wire::login("ann")).unwrap();
        let (packets, _) = ann.read_to_close(PATIENCE).unwrap();
        assert!(packets.len() <= 1, "at most a welcome: {packets:?}");
        assert_unharmed(&server, &mut pair, "ann");
    }
}

#[test]
fn a_panic_in_a_writer_ends_its_session_and_all_that_waits_comes_at_the_next_login() {
    let server = server("writer 1");
    let mut pair = Pair::of(&server, "healthy", "happy");
    let expected = numbered("waiting", 1000);
    send_all(&mut server.login("ann"), "bob", &expected);
    eventually("all is on disk", || server.rows_of("bob") == 1000);
    let mut bob = server.connect().open().unwrap();
    bob.write_raw(&wire::login("bob")).unwrap();
    let (packets, _) = bob.read_to_close(PATIENCE).unwrap();
    assert_eq!(packets.len(), 1, "the welcome, and nothing that the writer had read");
    assert_eq!(all_texts(&mut server.login("bob")), expected);
    assert_unharmed(&server, &mut pair, "bob");
}

#[test]
fn a_panic_in_a_save_is_a_save_that_failed() {
    // Before the transaction, and when it has been committed and nobody knows it yet.
    for place in ["save 2", "saved 2", "save 2, save 1, saved 5"] {
        let mut server = server(place);
        let mut pair = Pair::of(&server, "healthy", "happy");
        let mut ann = server.connect().level(Level::Two).login("ann").unwrap();
        let expected = numbered("kept", 200);
        let numbers: Vec<u64> = expected.iter().map(|text| ann.send_numbered("absent", text).unwrap()).collect();
        let stored =
            |ann: &mut Client, number| ann.wait_for_receipt(number, PATIENCE).unwrap().expect("a receipt").status;
        for number in numbers {
            assert_eq!(stored(&mut ann, number), Status::Stored, "{place}");
        }
        // At level 1, and to one who is there and reads nothing.
        send_all(&mut server.login("eve"), "absent", &numbered("plain", 200));
        server.wait_for_log("saving failed (try 1): it panicked: on purpose");
        server.wait_for_log("saving works again");
        pair.chat();
        server.kill9();
        let server = server.restart_with(|setup| setup.wrapper(&["env"]));
        let texts = all_texts(&mut server.login("absent"));
        assert_eq!(texts[..200], expected, "{place}: what has a receipt is on disk, once and in order");
    }
}

#[test]
fn a_panic_in_the_last_save_loses_nothing() {
    let mut server = Server::start(|setup| {
        setup.wrapper(&["env", "PANIC_AT=save 1, saved 2"]).set("save_interval", "1 h").set("receipt_interval", "1 h")
    });
    let expected = numbered("before the stop", 100);
    send_all(&mut server.login("ann"), "absent", &expected);
    assert_eq!(server.sigterm().code(), Some(0));
    assert!(server.logged("it panicked: on purpose") > 0, "{}", server.log());
    let server = server.restart_with(|setup| setup.wrapper(&["env"]));
    assert_eq!(all_texts(&mut server.login("absent")), expected);
}
