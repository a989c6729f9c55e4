//! Readers that do not read, and bytes that do not come: only they themselves are slowed down, and nothing grows.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::Connection;
use chatserver::protocol::{Chat, Message};

use crate::hardening::{at_rest, is_asleep, until_at_rest};
use crate::harness::*;
use crate::wire;

const MIB: usize = 1 << 20;

/// Texts of 32 KiB, each different, `bytes` in all.
fn long_texts(bytes: usize) -> impl Iterator<Item = String> {
    (0..bytes / 32_768).map(|number| format!("{number:<32768}"))
}

/// What `long_texts` are recognised by.
fn number(text: &str) -> usize {
    text.trim_end().parse().unwrap()
}

/// Logs in and reads nothing but the answer.
fn deaf(server: &Server, name: &str) -> Connection {
    let mut connection = server.connect().open().unwrap();
    connection.write_raw(&wire::login(name)).unwrap();
    assert_eq!(connection.read_packet(PATIENCE).unwrap().unwrap().kind, 2);
    connection
}

/// The number in the next message, which must come.
fn next_number(connection: &mut Connection) -> usize {
    let read = connection.read_message(PATIENCE, |message| match message {
        Message::Chat(chat) => number(chat.text),
        other => panic!("no message: {other:?}"),
    });
    read.unwrap().expect("a message")
}

/// Hardening: unbounded queues (ejabberd CVE-2010-0305, Mosquitto CVE-2023-28366).
/// Hardening: one slow reader stalls others (nats-server#2631, mochi-mqtt#95).
#[test]
fn a_reader_that_stops_slows_down_nobody_and_costs_no_memory() {
    const BYTES: usize = 24 * MIB;
    // What the server may hold is small beside what is sent.
    let server = Server::start(|setup| setup.set("outbox_bytes", "256 KiB"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let mut bob = deaf(&server, "bob");
    let mut ann = server.login("ann");
    send_all(&mut ann, "ann", &["warm"]);
    let before_kib = server.rss_kib();
    let mut most_kib = before_kib;
    let mut longest = Duration::ZERO;
    let is_sent = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for text in long_texts(BYTES) {
                ann.send("bob", &text).unwrap();
            }
            ann.roundtrip().unwrap();
            is_sent.store(true, SeqCst);
        });
        while !is_sent.load(SeqCst) {
            let begun = Instant::now();
            pair.chat();
            longest = longest.max(begun.elapsed());
            most_kib = most_kib.max(server.rss_kib());
            // Two who chat, not a load test.
            thread::sleep(Duration::from_millis(5));
        }
    });
    let grown_mib = (most_kib - before_kib) / 1024;
    // 8 MiB of it are the database's page cache, which any use of the disk fills.
    assert!(grown_mib <= 16, "resident memory grew by {grown_mib} MiB while {} MiB were sent", BYTES / MIB);
    assert!(longest < Duration::from_secs(2), "a healthy pair waited {longest:?}");
    for expected in 0..BYTES / 32_768 {
        assert_eq!(next_number(&mut bob), expected);
    }
    // In order, once, and nothing after it.
    ann.send("bob", "1000000").unwrap();
    assert_eq!(next_number(&mut bob), 1_000_000);
    pair.chat();
}

#[test]
fn a_reader_that_never_read_is_taken_over_and_nothing_is_missing() {
    let server = Server::start_default();
    let mut old = deaf(&server, "bob");
    let mut ann = server.login("ann");
    let sent = long_texts(4 * MIB).count();
    for text in long_texts(4 * MIB) {
        ann.send("bob", &text).unwrap();
    }
    ann.roundtrip().unwrap();
    let mut new = server.login("bob");
    // What the old one's kernel had acknowledged has reached him as far as anybody can tell; everything else comes to the new one.
    let (packets, _) = old.read_to_close(PATIENCE).unwrap();
    let first = number(&next(&mut new).text);
    assert!(first <= packets.len(), "{} reached the old connection, and the new one begins at {first}", packets.len());
    assert!(first < sent, "the old connection never read");
    for expected in first + 1..sent {
        assert_eq!(number(&next(&mut new).text), expected);
    }
    assert_eq!(all_texts(&mut new), [""; 0]);
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_cut_and_gets_it_at_his_next_login() {
    let server = Server::start(|setup| setup.set("write_stall_timeout", "500 ms"));
    let mut old = deaf(&server, "bob");
    let mut ann = server.login("ann");
    let sent = long_texts(4 * MIB).count();
    for text in long_texts(4 * MIB) {
        ann.send("bob", &text).unwrap();
    }
    ann.roundtrip().unwrap();
    server.wait_for_log("bob has taken nothing for write_stall_timeout");
    server.wait_for_log("bob: ");
    let read = old.read_to_close(PATIENCE).unwrap().0.len();
    let mut new = server.login("bob");
    let first = number(&next(&mut new).text);
    assert!(first <= read, "{read} reached the old connection, and the new one begins at {first}");
    for expected in first + 1..sent {
        assert_eq!(number(&next(&mut new).text), expected);
    }
}

#[test]
fn one_writer_serves_all_who_come_back_at_once() {
    let server = Server::start(|setup| setup.set("max_writers", "1").set("save_interval", "100 ms"));
    let names = numbered("user", 20);
    let expected = numbered("waiting", 300);
    let mut ann = server.login("ann");
    for name in &names {
        expected.iter().for_each(|text| ann.queue(name, text));
        ann.flush().unwrap();
    }
    ann.roundtrip().unwrap();
    eventually("all is on disk", || server.rows() == 20 * 300);
    thread::scope(|scope| {
        for name in &names {
            let (server, expected) = (&server, &expected);
            scope.spawn(move || assert_eq!(&texts(&mut server.login(name), 300), expected, "{name}"));
        }
    });
}

#[test]
fn a_stalled_reader_gives_the_only_writer_back() {
    let server = Server::start(|setup| {
        setup.set("max_writers", "1").set("save_interval", "100 ms").set("write_stall_timeout", "1 s")
    });
    let mut ann = server.login("ann");
    for text in long_texts(4 * MIB) {
        ann.send("deaf", &text).unwrap();
    }
    send_all(&mut ann, "bob", &numbered("waiting", 10));
    eventually("all is on disk", || server.rows() == 4 * 32 + 10);
    let _deaf = deaf(&server, "deaf");
    eventually("the writer is at work", || server.has_thread("w:deaf"));
    let mut bob = server.login("bob");
    // While the only writer is busy, those who need none are served.
    let mut pair = Pair::of(&server, "healthy", "happy");
    pair.chat();
    assert_eq!(all_texts(&mut bob), numbered("waiting", 10));
    server.wait_for_log("deaf has taken nothing for write_stall_timeout");
}

/// Hardening: slow loris (CVE-2020-13849).
#[test]
fn a_packet_that_comes_byte_by_byte_is_cut_at_its_deadline() {
    let server = Server::start(|setup| setup.set("packet_timeout", "1 s"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let mut bob = server.login("bob");
    let text = "a".repeat(1000);
    let chat = Chat { from: "bob", to: "happy", text: &text, time: 0, ..Chat::default() };
    let slow = packet(&Message::Chat(chat));
    let begun = Instant::now();
    let mut socket = bob.connection().stream();
    for byte in &slow {
        // The pace of the attack; the server's close ends it.
        thread::sleep(Duration::from_millis(100));
        if socket.write_all(&[*byte]).is_err() || server.logged("bob: a packet was begun") > 0 {
            break;
        }
    }
    let lived = begun.elapsed();
    server.wait_for_log("bob: a packet was begun and not completed in time");
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&lived), "it lived for {lived:?}");
    expect_close(&mut bob);
    pair.chat();
}

/// Bytes that announce a packet of this length.
fn announce(socket: &mut TcpStream, length: u32) {
    let mut header = length.to_be_bytes().to_vec();
    header.extend(1_u32.to_be_bytes());
    // The server may have refused it after four bytes.
    let _ = socket.write_all(&header);
}

/// Hardening: memory by length prefix, before login (Mosquitto CVE-2017-7651, CVE-2023-0809).
#[test]
fn an_announced_length_costs_no_memory() {
    const STRANGERS: usize = 200;
    // As much as users may send: with the default of 1 KiB there is less to show.
    let server = Server::start(|setup| setup.set("max_stranger_packet_bytes", "64 KiB"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let (before, threads) = (at_rest(&server), server.threads().len());
    let connect = || -> Vec<TcpStream> { (0..STRANGERS).map(|_| server.socket()).collect() };
    // What so many threads and small buffers cost, announcing nothing.
    let mut strangers = connect();
    strangers.iter_mut().for_each(|socket| socket.write_all(&[0]).unwrap());
    eventually("all wait", || server.threads().len() >= threads + STRANGERS && is_asleep(&server));
    let idle_kib = server.rss_kib();
    drop(strangers);
    let grown_kib = || server.rss_kib().saturating_sub(idle_kib);
    let max = 65_536;
    let illegal = (0..10).chain([23, 25, max - 1, max, max + 1, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX]);
    for length in illegal {
        let mut strangers = connect();
        strangers.iter_mut().for_each(|socket| announce(socket, length));
        for mut socket in strangers {
            let answer = socket.read(&mut [0; 64]);
            assert!(!matches!(answer, Ok(1..)), "length {length}: the server answered {answer:?}");
        }
        // Fewer than before are left; the stack of a thread that complains goes deeper by some pages.
        assert!(grown_kib() <= 16 * STRANGERS as u64, "length {length}: {} KiB more", grown_kib());
    }
    // The longest legal one, and the shortest: for these the server waits.
    for length in [max - 8, 24] {
        until_at_rest(&server, &before);
        let before_kib = idle_kib.max(server.rss_kib());
        let mut strangers = connect();
        strangers.iter_mut().for_each(|socket| announce(socket, length));
        eventually("all wait", || server.threads().len() >= threads + STRANGERS && is_asleep(&server));
        // From each 8 bytes were received.
        let allowed_kib = (STRANGERS * (8 + 4096)).div_ceil(1024) as u64;
        let grown_kib = server.rss_kib().saturating_sub(before_kib);
        assert!(grown_kib <= allowed_kib, "length {length}: {grown_kib} KiB more for {STRANGERS} strangers");
    }
    pair.chat();
}
