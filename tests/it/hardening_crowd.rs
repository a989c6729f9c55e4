//! Crowds: many who come and go, many who want one name, many who talk nonsense, many who were away. The server stays what it was.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::{Client, ClientError};
use rustix::process::Signal;

use crate::hardening::*;
use crate::harness::*;
use crate::network::*;
use crate::wire;

/// Hardening: leak per connection that never logs in (Prosody CVE-2026-43506).
#[test]
fn twenty_thousand_who_come_and_go_leave_nothing_behind() {
    const ROUNDS: usize = 20_000;
    let server = Server::start(|setup| setup.set("max_strangers", "64").set("log_level", "error"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let half_a_packet = &wire::login("nobody")[..30];
    let come_and_go = |rounds: usize| {
        thread::scope(|scope| {
            for begun in 0..2 {
                let server = &server;
                scope.spawn(move || {
                    for round in (begun..rounds).step_by(2) {
                        let mut socket = server.socket();
                        // The server may have closed it already: more than 64 are not let in.
                        if round % 3 == 0 {
                            let _ = socket.write_all(half_a_packet);
                        }
                        // A reset leaves no port in TIME_WAIT; only some can go in order.
                        if round % 10 == 0 {
                            let _ = socket.shutdown(Shutdown::Both);
                        }
                        reset(socket);
                    }
                });
            }
        });
    };
    let at_rest = at_rest(&server);
    // What the allocator keeps for so many threads at a time is not counted twice.
    come_and_go(ROUNDS / 10);
    until_at_rest(&server, &at_rest);
    let before_kib = server.rss_kib();
    come_and_go(ROUNDS);
    until_at_rest(&server, &at_rest);
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib <= 2048, "{grown_kib} KiB more after {ROUNDS} connections");
    // Those who had gone before they were accepted have been counted in and out when somebody behind them is served.
    eventually("there is room for one more", || server.connect().login("early").is_ok());
    until_at_rest(&server, &at_rest);
    // Had one in 300 of them not been counted out, nobody would be let in.
    let strangers: Vec<_> = (0..63).map(|_| server.socket()).collect();
    let mut late = server.login("late");
    late.roundtrip().unwrap();
    drop(strangers);
    pair.chat();
}

/// Logs in as dave again and again, each time replacing somebody; gives what each of the connections received.
fn fight(server: &Server, rounds: usize) -> Vec<Vec<String>> {
    let mut received = Vec::new();
    let mut present = None;
    for _ in 0..rounds {
        let next = replace(server);
        received.extend(present.take().map(all_that_came));
        present = next;
    }
    received.extend(present.map(all_that_came));
    received
}

/// Logs in as dave; `None` = replaced before the answer was read.
fn replace(server: &Server) -> Option<Client> {
    match server.connect().login("dave") {
        Ok(client) => Some(client),
        Err(ClientError::Closed { .. }) => None,
        Err(error) => panic!("dave cannot log in: {error}"),
    }
}

/// What a connection receives until it is replaced.
fn all_that_came(mut client: Client) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match client.recv(PATIENCE) {
            Ok(Some(message)) => texts.push(message.text),
            Ok(None) => panic!("a replaced connection was not closed"),
            Err(_) => return texts,
        }
    }
}

/// Hardening: takeover race: the old connection's close damages the new session (nine MQTT brokers: moquette#124, mosquitto#1489 and others).
#[test]
fn of_two_thousand_who_fight_for_a_name_one_stays_and_no_message_is_lost() {
    const FIGHTERS: usize = 20;
    const ROUNDS: usize = 100;
    const TEXTS: usize = 600;
    let server = Server::start(|setup| setup.set("log_level", "warn"));
    let mut ann = server.login("ann");
    let mut received: Vec<Vec<String>> = Vec::new();
    let mut survivor = None;
    thread::scope(|scope| {
        let fighters: Vec<_> = (0..FIGHTERS)
            .map(|_| {
                let server = &server;
                scope.spawn(move || fight(server, ROUNDS))
            })
            .collect();
        let writer = scope.spawn(|| {
            for text in numbered("m", TEXTS) {
                ann.send("dave", &text).unwrap();
                ann.roundtrip().unwrap();
            }
        });
        writer.join().unwrap();
        // Whoever is there now is replaced, until all fighters have read their last connection to its end.
        while !fighters.iter().all(|fighter| fighter.is_finished()) {
            let next = replace(&server);
            received.extend(survivor.take().map(all_that_came));
            survivor = next;
            thread::sleep(Duration::from_millis(20));
        }
        for fighter in fighters {
            received.extend(fighter.join().unwrap());
        }
    });
    let mut survivor = survivor.take().unwrap_or_else(|| server.login("dave"));
    let rest = all_texts(&mut survivor);
    eventually("one session is left", || server.threads().iter().filter(|name| name.as_str() == "dave").count() == 1);
    received.push(rest);
    let number = |text: &String| text.strip_prefix("m ").unwrap().parse::<usize>().unwrap();
    let mut seen = vec![false; TEXTS];
    for texts in &received {
        assert!(texts.is_sorted_by_key(number), "out of order: {texts:?}");
        texts.iter().for_each(|text| seen[number(text)] = true);
    }
    let missing: Vec<usize> = (0..TEXTS).filter(|&number| !seen[number]).collect();
    assert!(missing.is_empty(), "lost in the fight: {missing:?}");
    send_all(&mut ann, "dave", &["after"]);
    assert_eq!(all_texts(&mut survivor), ["after"]);
}

/// Hardening: panic ends the process (NATS CVE-2026-27889).
#[test]
fn nonsense_ends_its_own_connection_only() {
    const CONNECTIONS: usize = 2000;
    let server = Server::start(|setup| setup.set("log_level", "error"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let at_rest = at_rest(&server);
    let mut dice = Dice(8);
    for connection in 0..CONNECTIONS {
        let mut socket = server.socket();
        let mut bytes = Vec::new();
        if dice.roll(2) == 0 {
            bytes.extend(wire::login(&format!("fool {}", dice.roll(5))));
        }
        bytes.extend(nonsense(&mut dice));
        // The server may be fed up before it has read all.
        let _ = socket.write_all(&bytes);
        if dice.roll(2) == 0 {
            let _ = socket.shutdown(Shutdown::Write);
            // Whatever it answers, it comes to an end.
            let _ = std::io::copy(&mut socket, &mut std::io::sink());
        }
        reset(socket);
        if connection % 200 == 0 {
            pair.chat();
        }
    }
    pair.chat();
    until_at_rest(&server, &at_rest);
    assert_eq!(server.log(), "", "nothing here is the server's own fault");
}

/// Bytes that are nearly a packet, or not at all.
fn nonsense(dice: &mut Dice) -> Vec<u8> {
    let count = dice.roll(300);
    match dice.roll(4) {
        0 => dice.bytes(count),
        // A header that fits a body of random blocks.
        1 => {
            let blocks = 1 + dice.roll(20);
            let length = 8 + 16 * blocks as u32;
            [&length.to_be_bytes()[..], &(dice.roll(8) as u32).to_be_bytes(), &dice.bytes(16 * blocks)].concat()
        }
        // A packet with a bit turned.
        2 => {
            let mut packet = wire::login("fool");
            let bit = dice.roll(packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
            packet
        }
        // Half a packet, then a whole one.
        _ => {
            let packet = wire::login("fool");
            [&packet[..dice.roll(packet.len())], &packet].concat()
        }
    }
}

/// The state of the process, a letter: T = stopped.
fn state(server: &Server) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    stat.rsplit(')').next().unwrap().trim_start().chars().next().unwrap()
}

#[test]
fn a_server_that_is_stopped_and_continued_keeps_its_sessions_and_its_deadlines() {
    let read_timeout = Duration::from_secs(2);
    let server = Server::start(|setup| setup.set("read_timeout", "2 s").set("save_interval", "100 ms"));
    let mut pair = Pair::of(&server, "healthy", "happy");
    let mut idle = server.login("idle");
    let begun = Instant::now();
    let mut pauses = 0;
    while server.logged("idle: silent for too long") == 0 {
        server.signal(Signal::STOP);
        eventually("it is stopped", || state(&server) == 'T');
        server.signal(Signal::CONT);
        pair.chat();
        pauses += 1;
        assert!(begun.elapsed() < PATIENCE, "the interruptions put the deadline off");
    }
    let lived = begun.elapsed();
    assert!(pauses >= 10, "{pauses} interruptions in {lived:?}");
    assert!(lived >= read_timeout, "cut after {lived:?}");
    assert!(lived < read_timeout * 2, "cut after {lived:?}");
    expect_close(&mut idle);
    pair.chat();
}

fn everything_comes_to_those_who_were_away(is_restarted: bool) {
    const USERS: usize = 50;
    const EACH: usize = 100;
    let server = Server::start_default();
    let names = numbered("user", USERS);
    let expected = numbered("to an absent user", EACH);
    let mut ann = server.login("ann");
    for text in &expected {
        names.iter().for_each(|name| ann.queue(name, text));
        ann.flush().unwrap();
    }
    ann.roundtrip().unwrap();
    assert!(ann.logout().is_ok());
    let server = if is_restarted { server.restart() } else { server };
    for name in &names {
        let mut user = server.login(name);
        assert_eq!(all_texts(&mut user), expected, "{name}");
        assert!(user.logout().is_ok());
    }
    eventually("nothing waits any more", || server.rows() == 0);
    let server = server.restart();
    for name in names.iter().step_by(10) {
        assert_eq!(all_texts(&mut server.login(name)), [""; 0], "{name} gets nothing twice");
    }
}

#[test]
fn five_thousand_messages_find_fifty_absent_users() {
    everything_comes_to_those_who_were_away(false);
}

#[test]
fn five_thousand_messages_find_fifty_absent_users_after_a_restart() {
    everything_comes_to_those_who_were_away(true);
}
