//! From acceptance to acknowledgement: who gets which message next, and where it is in the meantime.
//!
//! * `window` — PURE: a user's messages and what is true of them, as cursors.
//! * `mailbox` — one lock around a window and the user's present session.
//! * `packets` — the bytes of a window's messages; `present` — what counts as acknowledged by the present session.
//! * `outbox` — bytes on their way into one socket; `session` — the gate and the outbox of a logged-in connection.
//! * `ledger` — what is remembered of a level-2 sender, and its receipts; `owed` — the sessions that a thread owes a flush.
//! * `registry` — the mailboxes in memory; `seqs` — where their numbers begin.
//! * `trace` — copies of a user's packets for somebody who looks on.
//! * `memory` — the budget of all of them; `agenda` — what the timer must look at.
//!
//! Invariant: nothing in here waits for a socket, except a session's own writer for its own socket (`Outbox::drain`), and nothing reads or
//! writes the disk, except `Delivery::mailbox`, which is called with no lock held.

mod agenda;
mod ledger;
mod mailbox;
mod memory;
mod outbox;
mod owed;
mod packets;
mod present;
mod registry;
mod seqs;
mod session;
mod trace;
mod window;

use crate::sync::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::Arc;

pub use agenda::{Agenda, STOPS, Taken, Wake};
pub use ledger::{Known, Ledger, Numbered};
pub use mailbox::{
    Accepted, Attached, Collected, Cursors, List, Mailbox, MailboxReading, SaveList, Unsaved, Welcome, WriterStep,
};
pub use memory::Memory;
pub use outbox::{Flushed, HungUp, Outbox, OutboxReading, WriteError};
pub use owed::Owed;
pub use registry::Registry;
pub use seqs::Seqs;
pub use session::{Arrival, Session};
pub use trace::{Direction, Noted, Trace, Traces};
pub use window::{Next, Window};

use crate::clock::{Clock, Stamp};
use crate::config::Config;
use crate::health::{Counters, Saves};
use crate::protocol::Cipher;
use crate::storage::{Storage, StorageError};

/// The configured limits that delivery heeds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Unsent bytes for one recipient.
    pub outbox_bytes: usize,
    /// Waiting messages per user.
    pub backlog_messages: u64,
    /// Bytes of waiting texts per user.
    pub backlog_bytes: u64,
    /// Size of the database in bytes.
    pub data_bytes: u64,
    /// Age at which a message goes to disk, in milliseconds.
    pub save_interval_ms: u64,
    /// Age at which the receipt of a level-2 sender's message falls due, in milliseconds.
    pub receipt_interval_ms: u64,
}

/// Everything that delivery shares. Safe from any thread.
pub struct Delivery {
    /// The mailboxes in memory.
    pub registry: Registry,
    /// What the timer must look at.
    pub agenda: Agenda,
    /// The budget of messages in memory.
    pub memory: Memory,
    /// Where numbers begin.
    pub seqs: Seqs,
    /// What the operator allows.
    pub limits: Limits,
    /// The database.
    pub storage: Storage,
    /// Opens and seals what the server's clients send and get.
    pub cipher: Cipher,
    /// The time.
    pub clock: Box<dyn Clock>,
    /// Everything that is counted, the server's events too.
    pub counters: Counters,
    /// How the saves go.
    pub saves: Saves,
    /// Who is traced.
    pub traces: Traces,
    generations: AtomicU64,
    is_stopped: AtomicBool,
}

impl Delivery {
    /// Delivery on this database, at this time.
    ///
    /// # Errors
    /// The floor of the sequence numbers cannot be read.
    pub fn new(
        config: &Config,
        cipher: Cipher,
        storage: Storage,
        clock: Box<dyn Clock>,
    ) -> Result<Delivery, StorageError> {
        let limits = Limits {
            outbox_bytes: config.outbox_bytes,
            backlog_messages: config.backlog_messages,
            backlog_bytes: config.backlog_bytes,
            data_bytes: config.data_bytes,
            save_interval_ms: config.save_interval.as_millis() as u64,
            receipt_interval_ms: config.receipt_interval.as_millis() as u64,
        };
        let unix_us = clock.now().unix_ms.max(0) as u64 * 1000;
        Ok(Delivery {
            registry: Registry::default(),
            agenda: Agenda::default(),
            memory: Memory::new(config.memory_bytes),
            seqs: Seqs::new(unix_us, storage.seq_floor()?),
            limits,
            storage,
            cipher,
            clock,
            counters: Counters::default(),
            saves: Saves::default(),
            traces: Traces::default(),
            generations: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        })
    }

    /// The mailbox of a user, ready for use. May read the disk: call with no lock held.
    ///
    /// # Errors
    /// The database cannot be read now.
    pub fn mailbox(&self, key: &Arc<str>) -> Result<Arc<Mailbox>, StorageError> {
        let mailbox = self.registry.mailbox(key);
        match mailbox.load(self) {
            Ok(()) => Ok(mailbox),
            Err(error) => {
                self.release(mailbox);
                Err(error)
            }
        }
    }

    /// The caller is done with a mailbox: it leaves memory if nobody else needs it.
    pub fn release(&self, mailbox: Arc<Mailbox>) {
        self.registry.release(mailbox, &self.seqs);
    }

    /// The number of the next login.
    pub fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Relaxed) + 1
    }

    /// The database has its full size.
    fn has_no_space(&self) -> bool {
        self.storage.used_bytes() >= self.limits.data_bytes
    }

    /// Takes no message from now on: the last save is about to begin.
    pub fn stop(&self) {
        self.is_stopped.store(true, SeqCst);
        self.memory.wake_all();
    }

    /// Nothing is taken any more.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(SeqCst)
    }

    /// The time.
    pub fn now(&self) -> Stamp {
        self.clock.now()
    }
}
