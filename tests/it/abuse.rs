//! Clients that want more than their share: too fast, too often, too long before the login, to people who do not exist. They are slowed down or
//! refused in words; nobody else notices, and nothing that was accepted is lost.

use std::io::{Read, Write};
use std::time::Instant;

use chatserver::client::Level;
use rustix::process::Signal;

use crate::control::{number, status};
use crate::harness::*;
use crate::wire;

/// A server that takes so many packets of one connection in a second.
fn unhurried(packets_per_second: &str) -> Server {
    Server::start(|setup| setup.set("max_packets_per_second", packets_per_second))
}

/// A logged-in connection whose bytes are ours to choose, and its answers not ours to read.
fn raw_login(server: &Server, name: &str) -> std::net::TcpStream {
    let mut socket = server.socket();
    socket.write_all(&wire::login(name)).unwrap();
    eventually("the login is known", || server.has_thread(name));
    socket
}

/// Chat packets, one after the other.
fn chats(from: &str, to: &str, texts: &[String]) -> Vec<u8> {
    texts.iter().flat_map(|text| wire::chat(from, to, text)).collect()
}

#[test]
fn who_sends_too_many_packets_is_read_more_slowly_and_nobody_else_notices() {
    let server = unhurried("50");
    let mut bob = server.login("bob");
    let mut pair = Pair::of(&server, "carol", "dave");
    let mut ann = raw_login(&server, "ann");
    let texts_sent = numbered("quick", 150);
    let started_at = Instant::now();
    ann.write_all(&chats("ann", "bob", &texts_sent)).unwrap();
    eventually("it is held back", || number(&status(&server), "counts.paused") > 0);
    pair.chat();
    assert_eq!(texts(&mut bob, 150), texts_sent, "all of them, in order");
    // Less cannot be, whatever the machine does: 50 at once, one of which was the login, and 101 at 50 a second.
    assert!(started_at.elapsed().as_secs_f64() > 2.0, "{:?}", started_at.elapsed());
    server.wait_for_log("sends more than max_packets_per_second or max_bytes_per_second");
    assert_eq!(server.logged("so it is read more slowly"), 1, "one line a minute");
}

/// What was not used while nothing came is lost: a bucket holds no more than it can.
#[test]
fn silence_buys_no_longer_burst() {
    let server = unhurried("50");
    let mut bob = server.login("bob");
    let mut ann = raw_login(&server, "ann");
    let texts_sent = numbered("after a pause", 120);
    // No condition to wait for: the time itself is what would be credited.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let started_at = Instant::now();
    ann.write_all(&chats("ann", "bob", &texts_sent)).unwrap();
    assert_eq!(texts(&mut bob, 120), texts_sent);
    assert!(started_at.elapsed().as_secs_f64() > 1.3, "{:?}: 50 at once, 70 at 50 a second", started_at.elapsed());
}

#[test]
fn who_sends_too_many_bytes_is_read_more_slowly() {
    let server = Server::start(|setup| {
        setup.set("max_bytes_per_second", "20 KiB").set("max_packet_bytes", "4 KiB").set("max_text_bytes", "2000")
    });
    let mut bob = server.login("bob");
    let mut ann = raw_login(&server, "ann");
    let long = |number: usize| format!("{number}{}", "x".repeat(1900));
    let texts_sent: Vec<String> = (0..30).map(long).collect();
    let started_at = Instant::now();
    ann.write_all(&chats("ann", "bob", &texts_sent)).unwrap();
    assert_eq!(texts(&mut bob, 30), texts_sent);
    assert!(started_at.elapsed().as_secs_f64() > 1.5, "{:?}", started_at.elapsed());
}

#[test]
fn who_sends_too_fast_and_closes_has_everything_delivered() {
    let server = unhurried("5");
    let mut bob = server.login("bob");
    let mut ann = raw_login(&server, "ann");
    let texts_sent = numbered("last words", 100);
    ann.write_all(&chats("ann", "bob", &texts_sent)).unwrap();
    drop(ann);
    assert_eq!(texts(&mut bob, 100), texts_sent);
}

#[test]
fn who_is_held_back_can_be_taken_over_and_does_not_delay_a_stop() {
    for level in [Level::One, Level::Two] {
        let mut server = unhurried("1");
        let mut bob = server.login("bob");
        let mut ann = server.connect().level(level).login("ann").unwrap();
        numbered("slow", 50).iter().for_each(|text| ann.send("bob", text).unwrap());
        eventually("it is held back", || number(&status(&server), "counts.paused") > 0);
        let _again = server.login("ann");
        assert_eq!(number(&status(&server), "counts.takeovers"), 1);
        while bob.recv(std::time::Duration::from_millis(300)).unwrap().is_some() {}
        let mut dave = server.connect().level(level).login("dave").unwrap();
        numbered("till the end", 50).iter().for_each(|text| dave.send("bob", text).unwrap());
        eventually("he is held back", || number(&status(&server), "counts.paused") > 1);
        server.signal(Signal::TERM);
        assert!(server.wait(PATIENCE).success(), "a stop executes what has arrived");
        assert_eq!(server.logged("were not saved"), 0);
    }
}

#[test]
fn a_stranger_may_send_small_packets_only_and_a_user_long_ones_at_once() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "ann", "carol");
    let mut bob = server.login("bob");
    // A login with an unknown field, as long as a stranger's packet may be.
    let fields = |filler: usize| {
        let name = wire::string(1, b"eve");
        [name, wire::float(2, 1.0), wire::integer(3, 1_400_000_000), wire::string(15, &vec![7; filler])].concat()
    };
    let longest = (900..1024).map(|filler| wire::sealed(1, &fields(filler))).rfind(|packet| packet.len() <= 1024);
    let longest = longest.unwrap();
    assert_eq!(longest.len(), 1016, "the longest below 1,024 that is a header and whole blocks");
    let long_text = "x".repeat(50_000);
    let mut eve = server.socket();
    eve.write_all(&[longest, wire::chat("eve", "bob", &long_text)].concat()).unwrap();
    assert_eq!(next(&mut bob).text, long_text, "the next packet of the same write is a user's");

    for announced in [1032_u32, 2152, 65_528] {
        let mut socket = server.socket();
        socket.write_all(&wire::header(announced, 1)).unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "{announced} before the login");
        server.wait_for_log(&format!("packet length {announced} is above the maximum of 1024"));
    }
    pair.chat();
}

#[test]
fn logins_of_one_address_are_limited_in_words() {
    let server = Server::start(|setup| setup.set("max_logins_per_address", "5").set("exempt_addresses", "192.0.2.1"));
    let mut pair = Pair::of(&server, "ann", "bob");
    server.login("carol").logout().unwrap();
    // Those that are refused count.
    assert!(server.connect().login("no\u{7}body").is_err());
    server.login("dave").logout().unwrap();
    let refused = server.connect().login("eve").unwrap_err().to_string();
    assert!(refused.contains("too many logins from your address, please try again in 1"), "{refused}");
    assert_eq!(number(&status(&server), "counts.logins_refused_rate"), 1);
    pair.chat();
    let exempt = Server::start(|setup| setup.set("max_logins_per_address", "1"));
    (0..10).for_each(|number| drop(exempt.login(&number.to_string())));
}

#[test]
fn strangers_cannot_fill_the_log() {
    let server = Server::start_default();
    for _ in 0..1_000 {
        let mut socket = server.socket();
        socket.write_all(&wire::header(3, 3)).unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    assert_eq!(number(&status(&server), "counts.error_length"), 1_000, "all are counted");
    let lines = server.logged("is below the minimum of 24");
    assert!((600..1_000).contains(&lines), "{lines} lines");
    eventually("a later line says how many were left out", || {
        server.socket().write_all(&wire::header(3, 3)).unwrap();
        server.logged("lines about other strangers were left out") > 0
    });
}

/// Hardening: unbounded queues (ejabberd CVE-2010-0305): anybody can write to names that nobody has, and their mailboxes must not stay in memory.
#[test]
fn messages_to_invented_names_go_to_disk_and_are_refused_at_its_limit() {
    const NAMES: usize = 20_000;
    let server = Server::start(|setup| {
        setup.set("data_bytes", "2 MiB").set("memory_bytes", "2 MiB").set("save_interval", "20 ms")
    });
    let mut pair = Pair::of(&server, "ann", "bob");
    let mut eve = server.login("eve");
    let before = server.rss_kib();
    for number in 0..NAMES {
        eve.send(&format!("nobody {number}"), "is anybody there?").unwrap();
    }
    eve.roundtrip().unwrap();
    pair.chat();
    let told = status(&server);
    let (refused, kept) = (number(&told, "counts.refused_database"), number(&told, "counts.waiting"));
    assert!(refused > 0, "the database has its limit: {told}");
    assert!(refused + kept >= NAMES as i64, "each was kept or refused: {told}");
    server.wait_for_log("message dropped: the database has reached data_bytes");
    eventually("what is kept is on disk alone", || number(&status(&server), "memory.used_bytes") < 64 * 1024);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "memory has grown by {grown} KiB");
    let first = texts(&mut server.login("nobody 0"), 1);
    assert_eq!(first, ["is anybody there?"], "what was kept is there");
}
