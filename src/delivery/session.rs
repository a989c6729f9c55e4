//! A logged-in connection, as others see it: the user's name, the gate behind which its packets are executed, and the outbox into its socket.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use parking_lot::Mutex;

use super::mailbox::Mailbox;
use super::outbox::Outbox;
use crate::protocol::UserName;

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
    gate: Mutex<()>, // lock: gate → registry → mailbox → outbox; a thread holds one gate at a time, and none while it waits
    is_closed: AtomicBool,
    /// Set while the mailbox wants to hear of packets from this client: see `Mailbox::heard`.
    pub(super) wants_word: AtomicBool,
}

impl Session {
    /// A session that is not attached to its mailbox yet.
    pub fn new(id: u64, generation: u64, name: UserName, mailbox: Arc<Mailbox>, outbox: Outbox) -> Session {
        Session {
            id,
            generation,
            name,
            mailbox,
            outbox,
            gate: Mutex::new(()),
            is_closed: AtomicBool::new(false),
            wants_word: AtomicBool::new(false),
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
