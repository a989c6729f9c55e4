//! A user's client: what it remembers it keeps across connections. At level 2 it shows nothing twice and sends again what has no receipt.

use std::collections::HashSet;
use std::sync::Arc;

use crate::limits::SENT_IDS;
use crate::protocol::{NoticeCode, Status};
use crate::socket::{Down, Socket, Up};
use crate::sync::{below, one_in};
use crate::world::{World, tell};

pub struct Client {
    world: Arc<World>,
    user: usize,
    last_seq: u64,
    seen: HashSet<(usize, u64)>,
    /// Without a receipt: text and number.
    pending: Vec<(usize, u64)>,
    highest: u64,
    /// All numbers that it has given.
    numbers: Vec<u64>,
    /// How many texts it will still write.
    to_write: usize,
    /// Texts it has taken in and not acknowledged.
    unacked: Vec<usize>,
}

/// One connection.
struct Link {
    socket: Arc<Socket>,
    /// By the judge's count.
    login_at: u64,
    is_in: bool,
    /// The highest in this session.
    seq: u64,
    texts: HashSet<usize>,
    delivered: HashSet<u64>,
}

/// There will come nothing more.
struct Ended;

impl Client {
    pub fn new(world: Arc<World>, user: usize) -> Client {
        let settings = &world.settings;
        let to_write = if settings.one_writes && user > 0 { 0 } else { settings.texts };
        Client {
            world,
            user,
            last_seq: 0,
            seen: HashSet::new(),
            pending: Vec::new(),
            highest: 0,
            numbers: Vec::new(),
            to_write,
            unacked: Vec::new(),
        }
    }

    fn is_level_2(&self) -> bool {
        self.world.is_level_2(self.user)
    }

    /// Sessions with every kind of end.
    pub fn live(&mut self) {
        for _ in 0..self.world.settings.sessions {
            let mut link = self.connect();
            // An end is an end, whoever made it.
            let _: Result<(), Ended> = self.session(&mut link);
            self.part(&mut link);
        }
    }

    fn session(&mut self, link: &mut Link) -> Result<(), Ended> {
        self.log_in(link)?;
        for _ in 0..below(6) {
            match below(5) {
                0 | 1 => self.write(link),
                2 => {
                    self.take(link, false)?;
                }
                3 => self.ack(link),
                _ => link.socket.put(Up::Ping),
            }
        }
        Ok(())
    }

    /// The last session: until all is settled.
    pub fn settle(&mut self) {
        let mut is_idle = false;
        while !self.world.is_settled() {
            let mut link = self.connect();
            let _: Result<(), Ended> = self.last_session(&mut link, &mut is_idle);
            self.ack(&link);
            self.leave(&mut link);
        }
    }

    fn last_session(&mut self, link: &mut Link, is_idle: &mut bool) -> Result<(), Ended> {
        self.log_in(link)?;
        while !self.world.is_settled() {
            while self.may_write() {
                self.write(link);
            }
            if self.to_write == 0 && !std::mem::replace(is_idle, true) {
                self.world.is_idle();
            }
            self.world.settle();
            while self.take(link, false)? {}
            self.ack(link);
            if !self.is_level_2() {
                // A sign of life.
                link.socket.put(Up::Ping);
            }
            self.world.settle();
            let waits = !self.may_write();
            self.take(link, waits)?;
        }
        Ok(())
    }

    fn connect(&self) -> Link {
        let socket = self.world.connect(self.user);
        Link {
            socket,
            login_at: self.world.now(),
            is_in: false,
            seq: 0,
            texts: HashSet::new(),
            delivered: HashSet::new(),
        }
    }

    fn log_in(&mut self, link: &mut Link) -> Result<(), Ended> {
        let last_seq = (self.is_level_2() && self.last_seq > 0).then_some(self.last_seq);
        if last_seq.is_some() {
            self.world.acked(self.unacked.drain(..));
        }
        link.socket.put(Up::Login { last_seq });
        while !link.is_in {
            self.take(link, true)?;
            if self.world.is_settled() && !link.is_in {
                return Err(Ended);
            }
        }
        for (text, msg_id) in &self.pending {
            link.socket.put(Up::Chat { text: *text, msg_id: Some(*msg_id) });
        }
        Ok(())
    }

    /// The server remembers so many numbers: what has no receipt must be among them, whatever came after it.
    fn may_write(&self) -> bool {
        let oldest = self.pending.first().map_or(u64::MAX, |(_, msg_id)| *msg_id);
        self.to_write > 0 && self.numbers.iter().filter(|number| **number >= oldest).count() < SENT_IDS
    }

    /// One more text, if there is one and it may.
    fn write(&mut self, link: &Link) {
        if !self.may_write() {
            return;
        }
        self.to_write -= 1;
        let users = self.world.settings.users.len();
        let to = match self.world.settings.to_self {
            true => below(users),
            false => (self.user + 1 + below(users - 1)) % users,
        };
        let msg_id = self.is_level_2().then(|| {
            self.highest += 1;
            self.numbers.push(self.highest);
            self.highest
        });
        let text = self.world.write(self.user, to, msg_id);
        self.pending.extend(msg_id.map(|msg_id| (text, msg_id)));
        link.socket.put(Up::Chat { text, msg_id });
    }

    fn ack(&mut self, link: &Link) {
        if self.is_level_2() && self.last_seq > 0 {
            self.world.acked(self.unacked.drain(..));
            link.socket.put(Up::Ack(self.last_seq));
        }
    }

    /// The next packet, if there is one.
    fn take(&mut self, link: &mut Link, waits: bool) -> Result<bool, Ended> {
        let Some(down) = link.socket.receive(waits).map_err(|()| Ended)? else { return Ok(false) };
        match down {
            Down::Answer { is_accepted, last_msg_id } => {
                assert!(!link.is_in, "two answers to one login");
                assert!(
                    !is_accepted || last_msg_id.is_some() == self.is_level_2(),
                    "the level is not the one asked for"
                );
                self.highest = self.highest.max(last_msg_id.unwrap_or(0));
                link.is_in = is_accepted;
            }
            Down::Chat { from, text, msg_id, seq } => {
                assert!(link.is_in, "a message before the answer to the login");
                assert!(link.texts.insert(text), "text {text} comes twice in one session");
                match seq {
                    None => {
                        assert!(!self.is_level_2() && msg_id.is_none(), "fields of the other level");
                        self.world.taken(text, self.user);
                    }
                    Some(seq) => {
                        assert!(self.is_level_2(), "fields of the other level");
                        assert!(seq > link.seq, "seq {seq} comes after {}", link.seq);
                        link.seq = seq;
                        self.take_numbered(from, text, msg_id, seq);
                    }
                }
            }
            Down::Receipt { msg_ids, status, .. } => {
                for msg_id in msg_ids {
                    let is_delivered = status == Status::Delivered;
                    let was_delivered = link.delivered.contains(&msg_id);
                    assert!(is_delivered || !was_delivered, "STORED after DELIVERED for number {msg_id}");
                    if is_delivered {
                        link.delivered.insert(msg_id);
                    }
                    self.pending.retain(|(_, pending)| *pending != msg_id);
                    self.world.receipted(self.user, msg_id, status);
                }
            }
            Down::Notice(code) => assert_ne!(code, NoticeCode::AckTooHigh, "what was acknowledged had come"),
            Down::Pong => {}
        }
        Ok(true)
    }

    fn take_numbered(&mut self, from: usize, text: usize, msg_id: Option<u64>, seq: u64) {
        if seq > self.last_seq {
            self.last_seq = seq;
            self.unacked.push(text);
            if msg_id.is_none_or(|msg_id| self.seen.insert((from, msg_id))) {
                tell!("shows {text}");
                self.world.taken(text, self.user);
            }
        }
    }

    /// The end of a session, one of four.
    fn part(&mut self, link: &mut Link) {
        match below(4) {
            0 | 1 => self.leave(link),
            kind => {
                let is_reset = kind == 2;
                tell!("{}", if is_reset { "crashes" } else { "falls silent" });
                let lost = link.socket.give_up(is_reset);
                if !self.is_level_2() {
                    self.world.crashed_with(&lost, link.login_at);
                }
            }
        }
    }

    /// In order: all that comes is read.
    fn leave(&mut self, link: &mut Link) {
        match one_in(2) {
            true => link.socket.put(Up::Logout),
            false => link.socket.finish(),
        }
        while self.take(link, true).is_ok() {}
    }
}
