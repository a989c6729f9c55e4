//! A storm: users who send, read, fall silent, reset, log out, take over, with a restart of the server in the middle, as the dice say. At
//! the end everything that was accepted has been read, in order.
//!
//! What a level-1 client can know: a session that ended with a logout, from a server that was not stopping, has been heard to its end; so
//! what it sent is due, and what it read must not come again. After any other end of a session messages may come
//! twice, or, if they were its own last ones, not at all. A user who resets has read what its kernel acknowledged: what a program
//! throws away after that is gone at level 1 (PROTOCOL.md).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::{Client, ClientError, Connect, Incoming};
use parking_lot::Mutex;

use crate::hardening::*;
use crate::harness::*;
use crate::network::*;

const USERS: usize = 8;
const STORM: Duration = Duration::from_secs(5);

/// The server's address, which changes with the restart, and the number of times that this began or ended.
struct Place {
    connect: Mutex<Connect>,
    epoch: AtomicUsize,
}

impl Place {
    fn connect(&self) -> Connect {
        self.connect.lock().clone()
    }
}

/// What happened to one user, as far as it can know.
struct User {
    name: String,
    dice: Dice,
    /// Numbers sent so far, by recipient.
    sent: Vec<usize>,
    /// Those of the present session: recipient and number.
    doubtful: Vec<(usize, usize)>,
    /// Those that must arrive.
    due: Vec<(usize, usize)>,
    /// What was read, for the first time, in order, by sender.
    read: BTreeMap<String, Vec<usize>>,
    /// The same as a set.
    seen: BTreeSet<(String, usize)>,
    /// What the present session has read, and what those have that ended with a logout.
    unsettled: BTreeSet<(String, usize)>,
    settled: BTreeSet<(String, usize)>,
    /// Networks that are gone stay gone.
    silences: Vec<Silence>,
}

fn name(user: usize) -> String {
    format!("user {user}")
}

impl User {
    fn new(number: usize) -> User {
        User {
            name: name(number),
            dice: Dice(number as u64),
            sent: vec![0; USERS],
            doubtful: Vec::new(),
            due: Vec::new(),
            read: BTreeMap::new(),
            seen: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            settled: BTreeSet::new(),
            silences: Vec::new(),
        }
    }

    /// One session after another.
    fn storm(&mut self, place: &Place, end: Instant) {
        while Instant::now() < end {
            match place.connect().login(&self.name) {
                Ok(client) => self.session(client, place),
                // The server is not there at the moment.
                Err(ClientError::Connect { .. } | ClientError::Closed { .. }) => thread::yield_now(),
                Err(error) => panic!("{} cannot log in: {error}", self.name),
            }
        }
    }

    /// Sends and reads for a while, and ends in one of the ways that there are.
    fn session(&mut self, mut client: Client, place: &Place) {
        let epoch = place.epoch.load(SeqCst);
        self.doubtful.clear();
        self.unsettled.clear();
        if self.talk(&mut client).is_err() {
            return self.read_rest(client);
        }
        match self.dice.roll(7) {
            0 => {
                self.fall_silent(&mut client);
                self.silences.pop();
                reset_client(client);
            }
            1 => self.fall_silent(&mut client),
            2 => {
                // It takes over from itself; what the older one has is read to its end first.
                let second = place.connect().login(&self.name);
                self.read_rest(client);
                if let Ok(second) = second {
                    self.read_rest_after_fin(second);
                }
            }
            3 => self.read_rest_after_fin(client),
            _ => self.leave(client, place, epoch),
        }
    }

    fn talk(&mut self, client: &mut Client) -> Result<(), ClientError> {
        for _ in 0..self.dice.roll(8) {
            let to = self.dice.roll(USERS);
            for _ in 0..self.dice.roll(30) {
                client.queue(&name(to), &self.sent[to].to_string());
                self.doubtful.push((to, self.sent[to]));
                self.sent[to] += 1;
            }
            client.flush()?;
            for _ in 0..self.dice.roll(60) {
                let Some(message) = client.recv(Duration::from_millis(1))? else { break };
                self.note(&message);
            }
        }
        Ok(())
    }

    /// The network goes; what had come before it went is read.
    fn fall_silent(&mut self, client: &mut Client) {
        self.silences.push(Silence::begin(client.connection().stream()));
        loop {
            match client.recv(Duration::ZERO) {
                Ok(Some(message)) => self.note(&message),
                // Half a packet may have been read while more has arrived.
                Ok(None) if unread(client.connection().stream()) > 0 => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn read_rest(&mut self, mut client: Client) {
        while let Ok(Some(message)) = client.recv(PATIENCE) {
            self.note(&message);
        }
    }

    fn read_rest_after_fin(&mut self, mut client: Client) {
        let _ = client.connection().stream().shutdown(Shutdown::Write);
        self.read_rest(client);
    }

    /// Logs out. A server that stops closes too, without having heard it: that logout says nothing.
    fn leave(&mut self, client: Client, place: &Place, epoch: usize) {
        let mut sender = client.sender();
        if sender.logout().is_err() {
            return self.read_rest(client);
        }
        drop(sender);
        let mut client = client;
        let end = loop {
            match client.recv(PATIENCE) {
                Ok(Some(message)) => self.note(&message),
                Ok(None) => panic!("the server did not close after a logout"),
                Err(error) => break error,
            }
        };
        // The server's kernel may hear of our acknowledgement later than we of the server's close.
        until_acknowledged(client.connection().stream());
        let is_heard = matches!(end, ClientError::Closed { reset: false });
        if is_heard && epoch.is_multiple_of(2) && epoch == place.epoch.load(SeqCst) {
            self.due.append(&mut self.doubtful);
            self.settled.append(&mut self.unsettled);
        }
    }

    fn note(&mut self, message: &Incoming) {
        let number = message.text.parse().unwrap();
        let key = (message.from.clone(), number);
        assert!(!self.settled.contains(&key), "{} reads {number} of {} after a logout again", self.name, message.from);
        self.unsettled.insert(key.clone());
        if self.seen.insert(key) {
            self.read.entry(message.from.clone()).or_default().push(number);
        }
    }
}

#[test]
fn in_a_storm_nothing_that_was_accepted_is_lost_or_overtaken() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms").set("log_level", "warn"));
    let place = Place { connect: Mutex::new(server.connect()), epoch: AtomicUsize::new(0) };
    let begun = Instant::now();
    let (server, mut users) = thread::scope(|scope| {
        let place = &place;
        let users: Vec<_> = (0..USERS)
            .map(|number| {
                scope.spawn(move || {
                    let mut user = User::new(number);
                    user.storm(place, begun + STORM);
                    user
                })
            })
            .collect();
        thread::sleep(STORM / 2);
        place.epoch.fetch_add(1, SeqCst);
        let server = server.restart();
        *place.connect.lock() = server.connect();
        place.epoch.fetch_add(1, SeqCst);
        (server, users.into_iter().map(|user| user.join().unwrap()).collect::<Vec<User>>())
    });
    for user in &mut users {
        let mut client = server.login(&user.name);
        client.roundtrip().unwrap();
        user.doubtful.clear();
        user.unsettled.clear();
        user.leave(client, &place, 2);
    }
    let due: usize = users.iter().map(|user| user.due.len()).sum();
    assert!(due > 1000, "a storm of {due} messages is none");
    for sender in &users {
        for (number, recipient) in users.iter().enumerate() {
            let empty = Vec::new();
            let read = recipient.read.get(&sender.name).unwrap_or(&empty);
            let case = format!("{} → {}", sender.name, recipient.name);
            assert!(read.is_sorted(), "{case}: out of order: {read:?}");
            let read: BTreeSet<usize> = read.iter().copied().collect();
            let due = sender.due.iter().filter(|(to, _)| *to == number).map(|(_, text)| *text);
            let missing: Vec<usize> = due.filter(|text| !read.contains(text)).collect();
            assert!(missing.is_empty(), "{case}: lost: {missing:?}");
        }
    }
}
