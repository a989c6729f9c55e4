//! A second login of one name: the newer connection takes over, the older is closed, nothing is lost, nothing of the loser is executed.

use std::sync::Barrier;

use chatserver::client::Client;

use crate::harness::*;
use crate::network::until_acknowledged;
use crate::wire;

#[test]
fn a_new_login_replaces_the_old_connection() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    let mut old = server.login("bob");
    let mut new = server.login("bob");
    expect_close(&mut old);
    send_all(&mut ann, "bob", &["for the new one"]);
    assert_eq!(all_texts(&mut new), ["for the new one"]);
    server.wait_for_log("bob logged in from 127.0.0.1:");
    server.wait_for_log("replacing an older connection");
    server.wait_for_log("bob: replaced by another login");
    eventually("one thread is called bob", || server.threads().iter().filter(|name| *name == "bob").count() == 1);
}

/// Hardening: packets of a closed session still executed (Mosquitto CVE-2021-34434).
#[test]
fn nothing_of_a_replaced_connection_is_executed() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    for _ in 0..50 {
        let mut old = server.login("bob");
        let mut new = server.login("bob");
        // The new one has its answer: whatever the old one sends from now on is nobody's.
        let _ = old.connection().write_raw(&wire::chat("bob", "ann", "too late").repeat(3));
        new.send("ann", "in time").unwrap();
        new.roundtrip().unwrap();
        expect_close(&mut old);
        assert_eq!(all_texts(&mut ann), ["in time"]);
    }
}

#[test]
fn the_new_connection_gets_what_the_old_one_did_not_acknowledge() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let mut ann = server.login("ann");
    let mut old = server.login("bob");
    // Far more than sockets and outbox hold, to one who does not read.
    let sent: Vec<String> = (0..2000).map(|number| format!("{number} {}", "x".repeat(1500))).collect();
    send_all(&mut ann, "bob", &sent);
    let mut new = server.login("bob");
    let (packets, _) = old.connection().read_to_close(PATIENCE).unwrap();
    let by_old: Vec<String> = packets.iter().map(|packet| wire::meaning(&packet.bytes)).collect();
    let by_new = all_texts(&mut new);
    let first = sent.iter().position(|text| *text == by_new[0]).unwrap();
    assert!(by_new == sent[first..], "the new one gets the rest, in order and whole");
    assert!(first > 0 && first <= by_old.len(), "nothing lies between: {first}, {}", by_old.len());
    assert!(by_old.iter().zip(&sent).all(|(got, sent)| got.contains(&format!("text: {sent:?}"))));
}

#[test]
fn a_stream_of_messages_passes_from_connection_to_connection() {
    const TAKEOVERS: usize = 60;
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    let sent = numbered("n", 20_000);
    let number = |client: &mut Client| -> Vec<usize> {
        let mut numbers = Vec::new();
        while let Ok(Some(message)) = client.recv(PATIENCE) {
            numbers.push(message.text[2..].parse().unwrap());
        }
        numbers
    };
    std::thread::scope(|scope| {
        scope.spawn(|| send_all(&mut ann, "bob", &sent));
        let mut expected = 0;
        let mut readers = Vec::new();
        for _ in 0..TAKEOVERS {
            let new = server.login("bob");
            let mut old = std::mem::replace(&mut bob, new);
            readers.push(scope.spawn(move || number(&mut old)));
        }
        for reader in readers {
            let got = reader.join().unwrap();
            let Some(&first) = got.first() else { continue };
            assert!(first <= expected, "lost: {expected}..{first}");
            assert!(
                got.windows(2).all(|pair| pair[1] == pair[0] + 1),
                "each connection sees them in order, without gaps"
            );
            expected = expected.max(got[got.len() - 1] + 1);
        }
        while expected < sent.len() {
            let got: usize = next(&mut bob).text[2..].parse().unwrap();
            assert!(got <= expected, "lost: {expected}..{got}");
            expected = expected.max(got + 1);
        }
    });
}

/// Hardening: takeover race: the old connection's close damages the new session (nine MQTT brokers: moquette#124, mosquitto#1489 and others).
#[test]
fn of_twenty_simultaneous_logins_exactly_one_survives_and_hears() {
    const ROUNDS: usize = 200;
    const LOGINS: usize = 20;
    let server = Server::start(|setup| setup.set("log_level", "debug"));
    let mut ann = server.login("ann");
    for round in 0..ROUNDS {
        let start = Barrier::new(LOGINS);
        let clients: Vec<Client> = std::thread::scope(|scope| {
            let logins: Vec<_> = (0..LOGINS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        // One that is replaced at once may be closed before its answer is out.
                        server.connect().login("bob").ok()
                    })
                })
                .collect();
            logins.into_iter().filter_map(|login| login.join().unwrap()).collect()
        });
        let text = format!("round {round}");
        send_all(&mut ann, "bob", &[&text]);
        let mut survivors = 0;
        for mut client in clients {
            match client.recv(PATIENCE) {
                Ok(Some(message)) => {
                    assert_eq!(message.text, text);
                    client.send("ann", "survivor").unwrap();
                    client.roundtrip().unwrap();
                    survivors += 1;
                    // It has taken its leave before the next round: who is taken over instead is sent again what nothing has confirmed.
                    client.logout().unwrap();
                }
                Ok(None) => panic!("round {round}: neither closed nor told anything"),
                Err(_) => {
                    let _ = client.send("ann", "loser");
                }
            }
        }
        assert_eq!(survivors, 1, "round {round}");
        assert_eq!(all_texts(&mut ann), ["survivor"], "round {round}");
    }
    eventually("none of all these connections is left", || server.connection_threads() == ["ann"]);
}

/// Hardening: takeover race: the old connection's close damages the new session (nine MQTT brokers: moquette#124, mosquitto#1489 and others).
#[test]
fn the_end_of_the_old_connection_does_not_harm_the_new_one() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    for round in 0..30 {
        let old = server.login("bob");
        let mut new = server.login("bob");
        if round % 2 == 0 {
            drop(old);
        } else {
            let _ = old.logout();
        }
        eventually("the old thread is gone", || server.threads().iter().filter(|name| *name == "bob").count() == 1);
        send_all(&mut ann, "bob", &["still here?"]);
        assert_eq!(all_texts(&mut new), ["still here?"], "round {round}");
        // What its kernel has read and not acknowledged yet, the next one would get again.
        until_acknowledged(new.connection().stream());
    }
}
