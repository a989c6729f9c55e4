//! Counters never drift: after a million random events every gauge equals the truth.

use std::net::TcpStream;
use std::thread;

use chatserver::client::Client;

use crate::control::{Ctl, number};
use crate::hardening::Dice;
use crate::harness::*;
use crate::network::reset_client;

const ACTORS: usize = 8;
const EVENTS: u64 = 1_000_000;
const NAMES: usize = 12;

/// One thread's users, and what it knows to be true of them. Nobody else uses their names.
struct Actor<'s> {
    server: &'s Server,
    number: usize,
    dice: Dice,
    clients: Vec<Option<Client>>,
    strangers: Vec<TcpStream>,
    truth: Truth,
}

#[derive(Default)]
struct Truth {
    events: u64,
    logins: i64,
    takeovers: i64,
    refused_logins: i64,
    accepted: i64,
    refused_names: i64,
    refused_texts: i64,
}

fn name(actor: usize, user: usize) -> String {
    format!("user {actor}.{user}")
}

impl Actor<'_> {
    fn act(&mut self) {
        let user = self.dice.roll(NAMES);
        match self.dice.roll(20) {
            0 | 1 => self.log_in(user),
            2 => {
                if let Some(client) = self.clients[user].take() {
                    client.logout().unwrap();
                    self.truth.events += 1;
                }
            }
            3 => {
                if let Some(client) = self.clients[user].take() {
                    reset_client(client);
                    // Until the server knows it a login would be a takeover.
                    eventually("it is over", || !self.server.has_thread(&name(self.number, user)));
                    self.truth.events += 1;
                }
            }
            4 => {
                self.strangers.push(self.server.socket());
                self.truth.events += 1;
            }
            5 => {
                self.strangers.pop();
                self.truth.events += 1;
            }
            6 => {
                assert!(self.server.connect().login("no\u{7}body").is_err());
                self.truth.refused_logins += 1;
                self.truth.events += 1;
            }
            7 => self.refused(user),
            8 => self.read(user),
            _ => self.send(user),
        }
    }

    fn log_in(&mut self, user: usize) {
        let client = self.server.login(&name(self.number, user));
        self.truth.logins += 1;
        self.truth.events += 1;
        if let Some(mut former) = self.clients[user].replace(client) {
            self.truth.takeovers += 1;
            expect_close(&mut former);
        }
    }

    /// A burst to somebody who is there, or not, or never was.
    fn send(&mut self, user: usize) {
        let Some(client) = &mut self.clients[user] else { return };
        let to = match self.dice.roll(8) {
            0 => format!("never there {}", self.dice.roll(50)),
            _ => name(self.dice.roll(ACTORS), self.dice.roll(NAMES)),
        };
        let count = 100 + self.dice.roll(200);
        send_all(client, &to, &numbered("m", count));
        // And the barrier.
        self.truth.accepted += count as i64 + 1;
        self.truth.events += count as u64;
    }

    fn refused(&mut self, user: usize) {
        let Some(client) = &mut self.clients[user] else { return };
        for _ in 0..10 {
            client.queue("no\u{7}body", "x");
        }
        client.queue("bob", &"x".repeat(60_001));
        client.flush().unwrap();
        client.roundtrip().unwrap();
        self.truth.refused_names += 10;
        self.truth.refused_texts += 1;
        self.truth.accepted += 1;
        self.truth.events += 11;
    }

    fn read(&mut self, user: usize) {
        let Some(client) = &mut self.clients[user] else { return };
        self.truth.events += all_texts(client).len() as u64;
        self.truth.accepted += 1;
    }
}

/// Reads what waits, up to a message to itself, and leaves.
fn read_all(mut client: Client) {
    client.roundtrip().unwrap();
    client.logout().unwrap();
}

/// Hardening: gauge drifts (Mosquitto #287, a server of this protocol of 2014).
#[test]
fn after_a_million_random_events_every_gauge_equals_the_truth() {
    let server = Server::start(|setup| {
        setup
            .set("save_interval", "50 ms")
            .set("write_stall_timeout", "1 h")
            .set("read_timeout", "1 h")
            .set("login_timeout", "1 h")
            .set("log_level", "error")
    });
    let mut actors: Vec<Actor<'_>> = thread::scope(|scope| {
        let act = |number| {
            let server = &server;
            scope.spawn(move || {
                let clients = (0..NAMES).map(|_| None).collect();
                let (dice, truth) = (Dice(number as u64), Truth::default());
                let mut actor = Actor { server, number, dice, clients, strangers: Vec::new(), truth };
                while actor.truth.events < EVENTS / ACTORS as u64 {
                    actor.act();
                }
                actor
            })
        };
        let running: Vec<_> = (0..ACTORS).map(act).collect();
        running.into_iter().map(|actor| actor.join().unwrap()).collect()
    });
    let sum = |of: fn(&Truth) -> i64| actors.iter().map(|actor| of(&actor.truth)).sum::<i64>();
    let accepted = sum(|truth| truth.accepted);
    let counts = [
        ("counts.logins", sum(|truth| truth.logins)),
        ("counts.takeovers", sum(|truth| truth.takeovers)),
        ("counts.logins_refused_name", sum(|truth| truth.refused_logins)),
        ("counts.refused_name", sum(|truth| truth.refused_names)),
        ("counts.refused_text", sum(|truth| truth.refused_texts)),
    ];
    let present = actors.iter().flat_map(|actor| &actor.clients).flatten().count() as i64;
    let strangers = actors.iter().map(|actor| actor.strangers.len()).sum::<usize>() as i64;
    let mut ctl = Ctl::of(&server);
    let mut waits_for = |accepted: i64, gauges: &[(&str, i64)]| {
        let mut last = String::new();
        let equal = happens_within(PATIENCE, || {
            let status = ctl.ask("status");
            let of = |path| number(&status, path);
            let disk = of("counts.stored") - of("counts.delivered_from_disk") - of("counts.expired");
            let is_equal = gauges.iter().all(|(path, truth)| of(path) == *truth)
                && of("counts.relayed") + of("counts.waiting") == accepted
                && of("backlog.messages") == disk;
            last = status.to_string();
            is_equal
        });
        assert!(equal, "{accepted} accepted; expected {gauges:?}\n{last}");
    };
    waits_for(accepted, &counts);
    waits_for(
        accepted,
        &[("users.present", present), ("connections.open", present + strangers), ("connections.strangers", strangers)],
    );

    // Everybody comes, reads everything and leaves.
    thread::scope(|scope| {
        for actor in &mut actors {
            scope.spawn(move || {
                actor.strangers.clear();
                for user in 0..NAMES {
                    let client = actor.clients[user].take();
                    read_all(client.unwrap_or_else(|| actor.server.login(&name(actor.number, user))));
                }
            });
        }
    });
    for absent in 0..50 {
        read_all(server.login(&format!("never there {absent}")));
    }
    let none =
        ["users.present", "connections.open", "connections.strangers", "connections.writers", "backlog.messages"];
    let accepted = accepted + (ACTORS * NAMES + 50) as i64;
    waits_for(accepted, &none.map(|gauge| (gauge, 0)));
    waits_for(accepted, &[("memory.used_bytes", 0), ("memory.waiting_senders", 0)]);
    drop(actors);
}
