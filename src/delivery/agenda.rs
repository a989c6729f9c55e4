//! What the timer has to look at, and when: the mailboxes with something unsaved, unacknowledged or to be deleted. A list, not a scan;
//! while it is empty the timer sleeps.
//!
//! Receipts are due much sooner than all that, so those who owe some have a list of their own, and it alone is looked at when they are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, MutexGuard};

use super::ledger::Ledger;
use super::mailbox::{List, Mailbox};
use crate::clock::Clock;

/// Safe from any thread.
#[derive(Default)]
pub struct Agenda {
    state: Mutex<State>, // lock: mailbox → ledger → agenda; a leaf
    woken: Condvar,
    answered: Condvar,
}

struct State {
    mailboxes: Vec<Arc<Mailbox>>,
    /// When the earliest of them wants to be looked at, on the monotonic clock.
    due_at_ms: Option<u64>,
    /// Mailboxes with messages that have no receipt yet.
    owing: Vec<Arc<Mailbox>>,
    /// Senders of whom something is to be written that no message takes along.
    ledgers: Vec<Arc<Ledger>>,
    /// When the earliest of both is due.
    receipts_due_at_ms: Option<u64>,
    urgent: bool,
    /// The server stops, and tries to save until then.
    stopping: Option<Instant>,
    /// Saves asked for by `save`, and those that were answered, the last one so.
    asked: u64,
    answered: u64,
    answer: Result<(), String>,
}

impl Default for State {
    fn default() -> State {
        State {
            mailboxes: Vec::new(),
            due_at_ms: None,
            owing: Vec::new(),
            ledgers: Vec::new(),
            receipts_due_at_ms: None,
            urgent: false,
            stopping: None,
            asked: 0,
            answered: 0,
            answer: Ok(()),
        }
    }
}

/// What the timer looks at in one pass.
pub struct Taken {
    /// Each with the list that it was on.
    pub mailboxes: Vec<(Arc<Mailbox>, List)>,
    /// Senders of whom something is to be written that no message takes along.
    pub ledgers: Vec<Arc<Ledger>>,
}

/// What `Agenda::save` says at a stop.
pub const STOPS: &str = "the server stops, and saves everything as it does";

/// Nobody waits longer for a save; so no deadline overflows.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// Why the timer woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The time has come, or something is on the agenda that was not.
    Look,
    /// Receipts are due, and nothing else.
    Receipts,
    /// Memory fills, or a sender waits: at once.
    Urgent,
    /// The server stops.
    Stop {
        /// Until when a disk that fails is tried again.
        deadline: Instant,
    },
}

impl Agenda {
    /// Puts a mailbox on the list; it is to be looked at by `due_at_ms`.
    pub fn add(&self, mailbox: Arc<Mailbox>, due_at_ms: u64) {
        let mut state = self.state.lock();
        state.mailboxes.push(mailbox);
        if state.due_at_ms.is_none_or(|due| due_at_ms < due) {
            state.due_at_ms = Some(due_at_ms);
            drop(state);
            self.woken.notify_one();
        }
    }

    /// Puts a mailbox on the list of those that owe receipts, due by `due_at_ms`.
    pub(super) fn add_receipts(&self, mailbox: Arc<Mailbox>, due_at_ms: u64) {
        let mut state = self.state.lock();
        state.owing.push(mailbox);
        self.receipts_due(state, due_at_ms);
    }

    /// Something of this sender is to be written by `due_at_ms`.
    pub(super) fn add_ledger(&self, ledger: Arc<Ledger>, due_at_ms: u64) {
        let mut state = self.state.lock();
        state.ledgers.push(ledger);
        self.receipts_due(state, due_at_ms);
    }

    fn receipts_due(&self, mut state: MutexGuard<'_, State>, due_at_ms: u64) {
        if state.receipts_due_at_ms.is_none_or(|due| due_at_ms < due) {
            state.receipts_due_at_ms = Some(due_at_ms);
            drop(state);
            self.woken.notify_one();
        }
    }

    /// Takes the lists, each mailbox once; only those that concern receipts when `receipts_only`.
    pub fn take(&self, receipts_only: bool) -> Taken {
        let mut state = self.state.lock();
        state.receipts_due_at_ms = None;
        let (owing, ledgers) = (std::mem::take(&mut state.owing), std::mem::take(&mut state.ledgers));
        let mut regular = Vec::new();
        if !receipts_only {
            state.due_at_ms = None;
            state.urgent = false;
            regular = std::mem::take(&mut state.mailboxes);
        }
        drop(state);
        // One that were looked at twice would be twice in one transaction.
        let mut owing: HashMap<*const Mailbox, Arc<Mailbox>> =
            owing.into_iter().map(|mailbox| (Arc::as_ptr(&mailbox), mailbox)).collect();
        let mut mailboxes: Vec<(Arc<Mailbox>, List)> = Vec::with_capacity(regular.len() + owing.len());
        for mailbox in regular {
            let list = if owing.remove(&Arc::as_ptr(&mailbox)).is_some() { List::Both } else { List::Regular };
            mailboxes.push((mailbox, list));
        }
        mailboxes.extend(owing.into_values().map(|mailbox| (mailbox, List::Receipts)));
        Taken { mailboxes, ledgers }
    }

    /// Has the timer look at once.
    pub fn hurry(&self) {
        let mut state = self.state.lock();
        if !state.urgent {
            state.urgent = true;
            drop(state);
            self.woken.notify_one();
        }
    }

    /// Has the timer save everything that was accepted before this call, and waits until it has.
    ///
    /// # Errors
    /// Why it could not, or that it did not within `timeout`; nothing is lost, the timer goes on trying.
    pub fn save(&self, timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
        let mut state = self.state.lock();
        state.asked += 1;
        let ticket = state.asked;
        self.woken.notify_one();
        while state.answered < ticket {
            if state.stopping.is_some() {
                return Err(STOPS.into());
            }
            if self.answered.wait_until(&mut state, deadline).timed_out() {
                return Err(format!("the disk has not taken it within {} s", timeout.as_secs_f32()));
            }
        }
        state.answer.clone()
    }

    /// The number of the last save asked for, if one is not answered. Only from the timer's thread.
    pub fn asked(&self) -> Option<u64> {
        let state = self.state.lock();
        (state.asked > state.answered).then_some(state.asked)
    }

    /// All saves up to number `asked` ended so.
    pub fn answer(&self, asked: u64, answer: Result<(), String>) {
        let mut state = self.state.lock();
        (state.answered, state.answer) = (asked, answer);
        self.answered.notify_all();
    }

    /// Has the timer save a last time and end. A disk that fails is tried again until `deadline`.
    pub fn stop(&self, deadline: Instant) {
        self.state.lock().stopping = Some(deadline);
        self.woken.notify_one();
        self.answered.notify_all();
    }

    /// Sleeps until a mailbox or `other_due_at_ms` is due, but not before `not_before_ms`; an urgent call, or receipts that are due, are heeded at once
    /// when `is_healthy`. Only from the timer's thread.
    pub fn wait(&self, clock: &dyn Clock, other_due_at_ms: Option<u64>, not_before_ms: u64, is_healthy: bool) -> Wake {
        let mut state = self.state.lock();
        loop {
            if let Some(deadline) = state.stopping {
                return Wake::Stop { deadline };
            }
            if state.urgent && is_healthy || state.asked > state.answered {
                return Wake::Urgent;
            }
            let due_at_ms = state.due_at_ms.into_iter().chain(other_due_at_ms).min().map(|due| due.max(not_before_ms));
            let receipts_due_at_ms =
                state.receipts_due_at_ms.map(|due| if is_healthy { due } else { due.max(not_before_ms) });
            let now_ms = clock.now().mono_ms;
            match due_at_ms.into_iter().chain(receipts_due_at_ms).min() {
                _ if due_at_ms.is_some_and(|due| due <= now_ms) => return Wake::Look,
                Some(due) if due <= now_ms => return Wake::Receipts,
                Some(due) => {
                    self.woken.wait_for(&mut state, Duration::from_millis(due - now_ms));
                }
                None => self.woken.wait(&mut state),
            }
        }
    }
}
