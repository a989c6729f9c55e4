//! A logged-in connection, as others see it: the user's name, the gate behind which its packets are executed, and the outbox into its socket.

use crate::sync::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use crate::sync::Mutex;

use super::Traces;
use super::ledger::Ledger;
use super::mailbox::Mailbox;
use super::outbox::{HungUp, Outbox};
use crate::language::Language;
use crate::protocol::{Cipher, UserName};

/// Where a session came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The connection's id.
    pub id: u64,
    /// The other end.
    pub address: SocketAddr,
    /// When it logged in, Unix milliseconds.
    pub at: i64,
}

/// Safe from any thread.
pub struct Session {
    /// The connection's id, at the beginning of its log lines.
    pub id: u64,
    /// Where it came from, and when.
    pub arrival: Arrival,
    /// Counts logins: of two sessions of one user the higher one is the present one.
    pub generation: u64,
    /// Who logged in.
    pub name: UserName,
    /// The user's own mailbox.
    pub mailbox: Arc<Mailbox>,
    /// The way into the socket.
    pub outbox: Outbox,
    /// Level 2: what is remembered of this user as a sender. `None`: the client speaks level 1.
    pub ledger: Option<Arc<Ledger>>,
    /// In which the client is told what a person reads.
    pub language: Language,
    gate: Mutex<()>, // lock: gate → registry → mailbox → outbox; a thread holds one gate at a time, and none while it waits
    is_closed: AtomicBool,
    /// Set while the mailbox wants to hear of packets from this client: see `Mailbox::heard`.
    pub(super) wants_word: AtomicBool,
    is_traced: AtomicBool,
    /// Packets from the client, and when the last came (Unix milliseconds). Only its own thread writes them; nothing else depends on them.
    packets: AtomicU64,
    heard_at: AtomicI64,
    /// Dropped after `mailbox`: when it is gone, this session holds the mailbox no more.
    _held: Arc<()>,
}

impl Session {
    /// A session that is not attached to its mailbox yet; at level 2 with its user's ledger.
    pub fn new(
        arrival: Arrival,
        generation: u64,
        name: UserName,
        mailbox: Arc<Mailbox>,
        outbox: Outbox,
        ledger: Option<Arc<Ledger>>,
        language: Language,
    ) -> Session {
        let held = mailbox.held_by_session();
        Session {
            id: arrival.id,
            arrival,
            generation,
            name,
            mailbox,
            outbox,
            ledger,
            language,
            gate: Mutex::new(()),
            is_closed: AtomicBool::new(false),
            wants_word: AtomicBool::new(false),
            is_traced: AtomicBool::new(false),
            packets: AtomicU64::new(0),
            heard_at: AtomicI64::new(arrival.at),
            _held: held,
        }
    }

    /// The client speaks level 2: it acknowledges by itself, and gets receipts, notices and pongs.
    pub fn is_level_2(&self) -> bool {
        self.ledger.is_some()
    }

    /// Ends the connection from outside. A level-2 client's own thread tells it why, and then hangs up. `true`: this call was
    /// the first.
    pub fn hang_up(&self, why: HungUp) -> bool {
        match self.is_level_2() {
            true => self.outbox.dismiss(why),
            false => self.outbox.hang_up(why),
        }
    }

    /// Pushes the message `seq` as this client reads it; `packet` is the level-1 one. `false`: there is no room.
    pub(super) fn push(&self, packet: &[u8], msg_id: Option<u64>, seq: u64, cipher: &Cipher) -> bool {
        match self.is_level_2() {
            true => self.outbox.push_numbered(packet, msg_id, seq, cipher),
            false => self.outbox.push(packet, seq),
        }
    }

    /// Executes one packet of this session behind its gate; `None`: the session is closed, and nothing was executed.
    /// `execute` must not wait for anything.
    pub fn enter<R>(&self, execute: impl FnOnce() -> R) -> Option<R> {
        let _gate = self.gate.lock();
        (!self.is_closed()).then(execute)
    }

    /// Closes the gate. When this returns nothing of this session is being executed, and nothing will be. `true`: it was open.
    pub fn close(&self) -> bool {
        let _gate = self.gate.lock();
        !self.is_closed.swap(true, AcqRel)
    }

    /// Whether the gate is closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    /// The operator ends the connection: from now on nothing of it is executed. `true`: this call did it.
    pub fn kick(&self) -> bool {
        if self.is_closed() {
            return false;
        }
        // First the reason: whoever finds the gate closed asks for it.
        let is_first = self.hang_up(HungUp::Kicked);
        self.close();
        is_first
    }

    /// So many packets came from the client. Only from the session's own thread.
    pub fn count_heard(&self, packets: u64, at: i64) {
        self.packets.store(self.packets.load(Relaxed) + packets, Relaxed);
        self.heard_at.store(at, Relaxed);
    }

    /// Packets that came from the client, and when the last did, in Unix milliseconds.
    pub fn heard(&self) -> (u64, i64) {
        (self.packets.load(Relaxed), self.heard_at.load(Relaxed))
    }

    /// Somebody looks on.
    pub fn is_traced(&self) -> bool {
        self.is_traced.load(Relaxed)
    }

    /// Who looks on may have changed.
    pub fn retrace(&self, traces: &Traces) {
        // Under the outbox's lock, so that of two who do this the later one has the later news.
        self.outbox.retrace(|| {
            let found = traces.of(self.mailbox.key());
            self.is_traced.store(!found.is_empty(), Relaxed);
            found
        });
    }

    /// Whether `Mailbox::heard` has something to do.
    pub fn wants_word(&self) -> bool {
        self.wants_word.load(Relaxed)
    }
}
