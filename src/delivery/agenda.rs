//! What the timer has to look at, and when: the mailboxes with something unsaved, unacknowledged or to be deleted. A list, not a scan;
//! while it is empty the timer sleeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::mailbox::Mailbox;
use crate::clock::Clock;

/// Safe from any thread.
#[derive(Default)]
pub struct Agenda {
    state: Mutex<State>, // lock: mailbox → agenda; a leaf
    woken: Condvar,
    answered: Condvar,
}

struct State {
    mailboxes: Vec<Arc<Mailbox>>,
    /// When the earliest of them wants to be looked at, on the monotonic clock.
    due_at_ms: Option<u64>,
    urgent: bool,
    stopping: bool,
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
            urgent: false,
            stopping: false,
            asked: 0,
            answered: 0,
            answer: Ok(()),
        }
    }
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
    /// Memory fills, or a sender waits: at once.
    Urgent,
    /// The server stops.
    Stop,
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

    /// Takes the whole list.
    pub fn take(&self) -> Vec<Arc<Mailbox>> {
        let mut state = self.state.lock();
        state.due_at_ms = None;
        state.urgent = false;
        std::mem::take(&mut state.mailboxes)
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
            if state.stopping {
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

    /// Has the timer look a last time and end.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
        self.woken.notify_one();
        self.answered.notify_all();
    }

    /// Sleeps until a mailbox or `other_due_at_ms` is due, but not before `not_before_ms`; an urgent call is heeded at once when `heed_urgent`.
    /// Only from the timer's thread.
    pub fn wait(&self, clock: &dyn Clock, other_due_at_ms: Option<u64>, not_before_ms: u64, heed_urgent: bool) -> Wake {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return Wake::Stop;
            }
            if state.urgent && heed_urgent || state.asked > state.answered {
                return Wake::Urgent;
            }
            let due_at_ms = state.due_at_ms.into_iter().chain(other_due_at_ms).min().map(|due| due.max(not_before_ms));
            let now_ms = clock.now().mono_ms;
            match due_at_ms {
                Some(due) if due <= now_ms => return Wake::Look,
                Some(due) => {
                    self.woken.wait_for(&mut state, Duration::from_millis(due - now_ms));
                }
                None => self.woken.wait(&mut state),
            }
        }
    }
}
