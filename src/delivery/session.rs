//! A logged-in connection, as others see it: the user's name, the gate behind which its packets are executed, and the outbox into its socket.

use crate::sync::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::Arc;

use crate::sync::Mutex;

use super::ledger::Ledger;
use super::mailbox::Mailbox;
use super::outbox::{HungUp, Outbox};
use crate::language::Language;
use crate::protocol::{Cipher, UserName};

/// Safe from any thread.
pub struct Session {
    /// The connection's id, at the beginning of its log lines.
    pub id: u64,
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
    /// Dropped after `mailbox`: when it is gone, this session holds the mailbox no more.
    _held: Arc<()>,
}

impl Session {
    /// A session that is not attached to its mailbox yet; at level 2 with its user's ledger.
    pub fn new(
        id: u64,
        generation: u64,
        name: UserName,
        mailbox: Arc<Mailbox>,
        outbox: Outbox,
        ledger: Option<Arc<Ledger>>,
        language: Language,
    ) -> Session {
        let held = mailbox.held_by_session();
        Session {
            id,
            generation,
            name,
            mailbox,
            outbox,
            ledger,
            language,
            gate: Mutex::new(()),
            is_closed: AtomicBool::new(false),
            wants_word: AtomicBool::new(false),
            _held: held,
        }
    }

    /// The client speaks level 2: it acknowledges by itself, and gets receipts, notices and pongs.
    pub fn is_level_2(&self) -> bool {
        self.ledger.is_some()
    }

    /// Ends the connection from outside. A level-2 client's own thread tells it why, and then hangs up.
    pub fn hang_up(&self, why: HungUp) {
        match self.is_level_2() {
            true => self.outbox.dismiss(why),
            false => self.outbox.hang_up(),
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

    /// Whether `Mailbox::heard` has something to do.
    pub fn wants_word(&self) -> bool {
        self.wants_word.load(Relaxed)
    }
}
