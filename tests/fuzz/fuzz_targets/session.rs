//! Whole sessions against the real server: good and bad packets, cuts, closes, resets, second logins and takeovers, on up to four
//! connections of up to three users, beside a model that knows the rules of PROTOCOL.md.
//!
//! What must hold: the server goes on or closes as the rules say, and at once; a message that was taken comes to its recipient, in the order of
//! its sender; when all are gone, every gauge is 0. A panic anywhere ends the process.
//!
//! One server serves many inputs: each has users of its own, so an input does the same every time.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chatserver::config::Config;
use chatserver::protocol::{Chat, Cipher, Decoder, Frame, MAX_NUMBER, Message, PUBLISHED_KEY, UserName, encode_packet};
use chatserver::server::Server;
use chatserver::server::fuzzing::{Gauges, gauges};
use chatserver_fuzz::Input;
use chatserver_fuzz::wire::{Event, PATIENCE, Wire};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

const SLOTS: usize = 4;
const USERS: usize = 3;
const MAX_PACKET_BYTES: usize = 4096;
const MAX_STRANGER_PACKET_BYTES: usize = 1024;
/// After so many inputs the server is stopped and another one begins, with an empty database.
const INPUTS_PER_SERVER: u32 = 20_000;

fuzz_target!(|data: &[u8]| {
    thread_local!(static SERVED: RefCell<Option<Served>> = const { RefCell::new(None) });
    SERVED.with_borrow_mut(|served| {
        if served.as_ref().is_some_and(|served| served.inputs == INPUTS_PER_SERVER) {
            served.take().expect("it is there").stop();
        }
        let served = served.get_or_insert_with(Served::start);
        served.inputs += 1;
        let mut play = Play::new(served);
        let mut input = Input::new(data);
        while !input.is_empty() {
            play.act(&mut input);
        }
        play.finish();
    });
});

/// A server and how often it was used.
struct Served {
    server: Server,
    inputs: u32,
    _dir: TempDir,
}

impl Served {
    fn start() -> Served {
        let dir = TempDir::new_in("/dev/shm").expect("a directory in memory");
        let config = Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            data: dir.path().to_owned(),
            max_packet_bytes: MAX_PACKET_BYTES,
            max_stranger_packet_bytes: MAX_STRANGER_PACKET_BYTES,
            max_text_bytes: 3000,
            outbox_bytes: 2 * MAX_PACKET_BYTES,
            save_interval: Duration::from_millis(20),
            receipt_interval: Duration::from_millis(5),
            ..Config::default()
        };
        config.check().expect("a possible configuration");
        Served { server: Server::start(config).expect("a server"), inputs: 0, _dir: dir }
    }

    fn stop(self) {
        let stopped = self.server.stop();
        assert_eq!(stopped.unsaved, 0);
    }

    fn eventually_at_rest(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match gauges(&self.server) {
                gauges if gauges == Gauges::default() => return,
                gauges if Instant::now() > deadline => panic!("nobody is connected, and still: {gauges:?}"),
                // What is waited for is some threads' last lines.
                _ => thread::sleep(Duration::from_micros(50)),
            }
        }
    }
}

/// A connection, and what the rules make of it.
struct Slot {
    wire: Wire,
    /// Who has logged in on it, and at which level.
    who: Option<(usize, u32)>,
    is_over: bool,
    /// Sent, and not a whole packet yet.
    pending: Vec<u8>,
    /// Texts that were sent and may not have been executed yet: recipient and number.
    unsettled: Vec<(usize, u64)>,
    /// The last text that came from each sender.
    last_text: [u64; USERS],
    seen_seq: u64,
    /// Pings that are not answered yet.
    pings: u64,
}

/// One input's users, connections and expectations.
struct Play<'s> {
    served: &'s Served,
    cipher: Cipher,
    names: [String; USERS],
    slots: [Option<Slot>; SLOTS],
    texts: u64,
    /// Texts that each user must get.
    due: [BTreeSet<u64>; USERS],
    /// Texts that each user got.
    got: [BTreeSet<u64>; USERS],
    /// Users who claimed to have what they have not, or threw away what their system had taken.
    is_careless: [bool; USERS],
}

impl<'s> Play<'s> {
    fn new(served: &'s Served) -> Play<'s> {
        Play {
            served,
            cipher: Cipher::new(PUBLISHED_KEY).expect("16 bytes"),
            names: ["a", "b", "é 世界"].map(|letter| format!("{}{letter}", served.inputs)),
            slots: [const { None }; SLOTS],
            texts: 0,
            due: Default::default(),
            got: Default::default(),
            is_careless: [false; USERS],
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let code = input.byte();
        let at = usize::from(code >> 6);
        let user = usize::from(code >> 4 & 3) % USERS;
        match code & 15 {
            level @ (0 | 1) => self.log_in(at, user, u32::from(level) + 1, input),
            2 | 3 => self.chat(at, user, input),
            4 => self.chat_oddly(at, input),
            5 => self.send(at, &Message::ClientPing { ping: true, time: -1 }),
            6 => self.ack(at, input),
            7 => self.send(at, &Message::ClientLogout { logout: user == 0, time: 1 }),
            8 => self.sealed(at, input),
            9 => self.framed(at, input),
            10 => self.send_bytes(at, input.string()),
            11 => self.slot(at).wire.cut = Some(usize::from(input.byte())),
            12 => self.settle(at),
            13 => self.leave(at),
            14 => self.reset(at),
            _ => self.served.server.save(PATIENCE).expect("the disk is well"),
        }
    }

    fn slot(&mut self, at: usize) -> &mut Slot {
        self.slots[at].get_or_insert_with(|| Slot {
            wire: Wire::connect(self.served.server.local_addr()),
            who: None,
            is_over: false,
            pending: Vec::new(),
            unsettled: Vec::new(),
            last_text: [0; USERS],
            seen_seq: 0,
            pings: 0,
        })
    }

    fn log_in(&mut self, at: usize, user: usize, level: u32, input: &mut Input<'_>) {
        let name = self.names[user].clone();
        let last_seq = Some(input.number()).filter(|last_seq| *last_seq > 0);
        self.send(at, &Message::ClientLogin { name: &name, version: 1.0, time: 1, level: Some(level), last_seq });
    }

    /// A text of ours, which must arrive.
    fn chat(&mut self, at: usize, to: usize, input: &mut Input<'_>) {
        let Some((user, level)) = self.slot(at).who else { return self.chat_oddly(at, input) };
        let (number, from, to_name) = (self.texts + 1, self.names[user].clone(), self.names[to].clone());
        let text = self.text(number, user) + &".".repeat(usize::from(input.byte()) * 8);
        let msg_id = (level == 2 && input.byte() & 1 == 1).then_some(number);
        self.texts = number;
        let slot = self.slot(at);
        if slot.pending.is_empty() {
            slot.unsettled.push((to, number));
        }
        self.send(at, &Message::Chat(Chat { from: &from, to: &to_name, text: &text, time: 1, msg_id, seq: None }));
    }

    fn text(&self, number: u64, from: usize) -> String {
        format!("#{} {number} {from} ", self.served.inputs)
    }

    /// A text of ours: its number and its sender.
    fn text_of_ours(&self, text: &str) -> Option<(u64, usize)> {
        let mut words = text.strip_prefix(&format!("#{} ", self.served.inputs))?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok().filter(|user| *user < USERS)?))
    }

    fn chat_oddly(&mut self, at: usize, input: &mut Input<'_>) {
        let mut words = || String::from_utf8_lossy(input.string()).into_owned();
        let (mut from, to, text) = (words(), words(), words());
        if let Some((user, _)) = self.slot(at).who
            && from.is_empty()
        {
            from = self.names[user].clone();
        }
        let [msg_id, seq] = [input.number(), input.number()].map(|number| Some(number).filter(|number| *number > 0));
        let time = input.number() as i64;
        self.send(at, &Message::Chat(Chat { from: &from, to: &to, text: &text, time, msg_id, seq }));
    }

    /// An honest ack, or any.
    fn ack(&mut self, at: usize, input: &mut Input<'_>) {
        let number = input.number();
        let slot = self.slot(at);
        let seq = if number == 0 { slot.seen_seq } else { number };
        self.send(at, &Message::ClientAck { seq });
    }

    fn sealed(&mut self, at: usize, input: &mut Input<'_>) {
        let mut packet = Vec::new();
        encode_packet(u32::from(input.byte()), input.string(), &self.cipher, &mut packet);
        self.send_bytes(at, &packet);
    }

    fn framed(&mut self, at: usize, input: &mut Input<'_>) {
        let mut packet = Vec::new();
        Frame::write(u32::from(input.byte()), &mut packet, |out| out.extend_from_slice(input.string()));
        self.send_bytes(at, &packet);
    }

    fn send(&mut self, at: usize, message: &Message<'_>) {
        let packet = self.slot(at).wire.packet(message);
        self.send_bytes(at, &packet);
    }

    /// Sends, and judges each packet that is whole now, as the server does.
    fn send_bytes(&mut self, at: usize, bytes: &[u8]) {
        let slot = self.slot(at);
        slot.wire.send(bytes);
        slot.pending.extend_from_slice(bytes);
        while let Some(slot) = &mut self.slots[at] {
            let pending = std::mem::take(&mut slot.pending);
            let most = if slot.who.is_none() { MAX_STRANGER_PACKET_BYTES } else { MAX_PACKET_BYTES };
            match Frame::parse(&pending, most) {
                Ok(None) => return slot.pending = pending,
                Ok(Some(frame)) => {
                    slot.pending = pending[frame.packet.len()..].to_vec();
                    self.judge(at, frame);
                }
                Err(_) => self.expect_end(at),
            }
        }
    }

    /// What the rules say of a packet.
    fn judge(&mut self, at: usize, frame: Frame<'_>) {
        let who = self.slot(at).who;
        let mut decoder = Decoder::default();
        let goes_on = match (who, decoder.decode(&self.cipher, frame).map(|decoded| decoded.message)) {
            (None, Ok(Message::ClientLogin { name, level, last_seq, .. })) => {
                return self.judge_login(at, name, level.unwrap_or(1).clamp(1, 2), last_seq);
            }
            (Some((_, level)), Ok(Message::ClientPing { .. })) => {
                self.slot(at).pings += u64::from(level == 2);
                true
            }
            (Some((user, 2)), Ok(Message::ClientAck { seq })) => {
                self.is_careless[user] |= seq > self.slot(at).seen_seq;
                true
            }
            (Some((user, level)), Ok(Message::Chat(chat))) => {
                let is_numbered_well = chat.msg_id.is_none_or(|number| (1..=MAX_NUMBER).contains(&number));
                key(chat.from) == key(&self.names[user]) && (level == 1 || is_numbered_well)
            }
            _ => false,
        };
        if !goes_on {
            self.expect_end(at);
        }
    }

    /// A login is answered. Whoever had that name is replaced.
    fn judge_login(&mut self, at: usize, name: &str, level: u32, last_seq: Option<u64>) {
        let Some(key_of_name) = key(name) else {
            let answer = self.slot(at).wire.next(|message| match message {
                Message::ServerAcceptLogin(answer) => !answer.login && !answer.tips.is_empty(),
                _ => false,
            });
            assert!(matches!(answer, Event::Packet(true)), "a refusal says why");
            return self.expect_end(at);
        };
        let Some(user) = self.names.iter().position(|known| key(known).as_ref() == Some(&key_of_name)) else {
            // Somebody of whom this input knows nothing.
            return self.reset(at);
        };
        self.is_careless[user] |= level == 2 && last_seq.is_some_and(|last_seq| last_seq > 0);
        let slot = self.slot(at);
        let answer = slot.wire.next(|message| match message {
            Message::ServerAcceptLogin(answer) => {
                answer.login.then(|| answer.granted.map_or(1, |granted| granted.level))
            }
            _ => None,
        });
        assert!(matches!(answer, Event::Packet(Some(granted)) if granted == level), "a good login is welcome");
        slot.who = Some((user, level));
        for other in (0..SLOTS).filter(|other| *other != at) {
            if let Some(slot) = &mut self.slots[other]
                && slot.who.is_some_and(|(same, _)| same == user)
            {
                // What it sent last may not have been read before the takeover.
                slot.unsettled.clear();
                self.expect_end(other);
            }
        }
    }

    /// Reads until `is_enough` or the end; `false`: the end.
    fn read(&mut self, at: usize, is_enough: impl Fn(&Slot, &BTreeSet<u64>) -> bool) -> bool {
        let mut slot = self.slots[at].take().expect("it is read from");
        let user = slot.who.map_or(0, |(user, _)| user);
        let has_enough = loop {
            if is_enough(&slot, &self.got[user]) {
                break true;
            }
            let (who, is_over, mut text, mut seen_seq, mut pongs) = (slot.who, slot.is_over, None, slot.seen_seq, 0);
            let event = slot.wire.next(|message| match (who, message) {
                (Some((user, level)), Message::Chat(chat)) => {
                    assert_eq!(key(chat.to), key(&self.names[user]));
                    assert_eq!(chat.seq.is_some(), level == 2, "level 1 sees nothing of level 2: {chat:?}");
                    assert!(level == 1 || chat.seq > Some(seen_seq), "its numbers grow: {chat:?} after {seen_seq}");
                    seen_seq = chat.seq.unwrap_or(0);
                    text = self.text_of_ours(chat.text);
                }
                (Some((_, 2)), Message::ServerPong { .. }) => pongs = 1,
                (Some((_, 2)), Message::ServerReceipt(_) | Message::ServerNotice { .. }) => {}
                _ => panic!("the server says this to {who:?} (over: {is_over}): {message:?}"),
            });
            if let Event::End = event {
                break false;
            }
            slot.seen_seq = seen_seq;
            slot.pings = slot.pings.checked_sub(pongs).expect("no more pongs than pings");
            if let Some((number, from)) = text {
                assert!(number > slot.last_text[from], "in the order of its sender, once: {number}");
                slot.last_text[from] = number;
                self.got[user].insert(number);
            }
        };
        self.slots[at] = Some(slot);
        has_enough
    }

    /// Waits until all that was sent is executed: a level-2 client for its pongs, a level-1 client for its word to itself.
    fn settle(&mut self, at: usize) {
        let slot = self.slot(at);
        let (Some((user, level)), true) = (slot.who, slot.pending.is_empty()) else { return };
        let goes_on = if level == 2 {
            self.send(at, &Message::ClientPing { ping: true, time: -1 });
            self.read(at, |slot, _| slot.pings == 0)
        } else {
            self.texts += 1;
            let (number, name, text) = (self.texts, self.names[user].clone(), self.text(self.texts, user));
            self.send(at, &Message::Chat(Chat { from: &name, to: &name, text: &text, time: 1, ..Chat::default() }));
            self.read(at, |slot, _| slot.last_text[user] == number)
        };
        assert!(goes_on, "a session that broke no rule goes on");
        self.settled(at);
    }

    /// What was sent on this connection is executed.
    fn settled(&mut self, at: usize) {
        for (to, number) in std::mem::take(&mut self.slot(at).unsettled) {
            self.due[to].insert(number);
        }
    }

    /// The server closes, having executed what came before.
    fn expect_end(&mut self, at: usize) {
        self.slot(at).is_over = true;
        assert!(!self.read(at, |_, _| false));
        self.settled(at);
        self.slots[at] = None;
    }

    fn leave(&mut self, at: usize) {
        if let Some(slot) = &self.slots[at] {
            slot.wire.finish();
            self.expect_end(at);
        }
    }

    fn reset(&mut self, at: usize) {
        if let Some(slot) = self.slots[at].take() {
            if let Some((user, 1)) = slot.who {
                self.is_careless[user] = true;
            }
            slot.wire.reset();
        }
    }

    /// Everybody goes. What was taken comes, and nothing of anybody stays behind.
    fn finish(mut self) {
        (0..SLOTS).for_each(|at| self.leave(at));
        for user in (0..USERS).filter(|user| !self.is_careless[*user]).collect::<Vec<_>>() {
            if self.due[user].is_subset(&self.got[user]) {
                continue;
            }
            let (name, due) = (self.names[user].clone(), self.due[user].clone());
            self.send(0, &Message::ClientLogin { name: &name, version: 1.0, time: 1, level: Some(2), last_seq: None });
            assert!(self.read(0, |_, got| due.is_subset(got)), "what was taken comes");
            self.leave(0);
        }
        self.served.eventually_at_rest();
    }
}

/// What names are compared by; `None`: nobody can have it.
fn key(name: &str) -> Option<Arc<str>> {
    UserName::parse(name).ok().map(|name| name.key().clone())
}
