//! The budget for messages in memory, all users together, and the place where senders wait when it is spent.
//!
//! What is charged here is released when a message is acknowledged or evicted. Past the limit a sender whose message cannot be handed over
//! at once waits, holding no lock; nothing that was accepted is given up.

use crate::sync::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

/// Safe from any thread.
pub struct Memory {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    waiting: AtomicUsize,
    starving: AtomicUsize,
    gate: Mutex<()>, // lock: memory → ledger, outbox; nothing else is taken under it
    room: Condvar,
}

impl Memory {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Memory {
        Memory {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            starving: AtomicUsize::new(0),
            gate: Mutex::new(()),
            room: Condvar::new(),
        }
    }

    /// Charges `bytes` when they fit.
    pub fn try_charge(&self, bytes: usize) -> bool {
        let fits = self.used_bytes.fetch_add(bytes, Relaxed) + bytes <= self.limit_bytes;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    /// Charges `bytes` whether they fit or not: for messages on their way into a socket, which its outbox bounds.
    pub fn charge(&self, bytes: usize) {
        self.used_bytes.fetch_add(bytes, Relaxed);
    }

    /// Gives `bytes` back and wakes those who wait.
    pub fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.used_bytes.fetch_sub(bytes, SeqCst);
        self.nudge();
    }

    /// Something has changed that somebody may wait for.
    pub fn nudge(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.wake_all();
        }
    }

    /// Bytes charged.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    /// The budget.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Senders that wait here, whatever for.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Those of them whose message would not fit when they last looked: they wait for memory.
    pub fn starving(&self) -> usize {
        self.starving.load(Relaxed)
    }

    /// More than half of the budget is spent: time to save early.
    pub fn is_tight(&self) -> bool {
        self.used_bytes() > self.limit_bytes / 2
    }

    /// There is room for one more message.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used_bytes.load(SeqCst) + bytes <= self.limit_bytes
    }

    /// Waits until `ready`, told whether `bytes` fit, says yes; `false` after `timeout`. Call with no lock held. `ready` is asked again after each release and
    /// each `wake_all`.
    /// `ask` is called once, when `waiting` counts the caller already: whoever makes room sees that somebody waits for it.
    pub fn wait_until(
        &self,
        timeout: Duration,
        bytes: usize,
        ask: impl FnOnce(),
        ready: impl Fn(bool) -> bool,
    ) -> bool {
        let mut is_starving = false;
        let mut look = || {
            let fits = self.has_room(bytes);
            match (fits, is_starving) {
                (false, false) => _ = self.starving.fetch_add(1, Relaxed),
                (true, true) => _ = self.starving.fetch_sub(1, Relaxed),
                _ => {}
            }
            is_starving = !fits;
            ready(fits)
        };
        let deadline = Instant::now() + timeout;
        self.waiting.fetch_add(1, SeqCst);
        ask();
        let mut gate = self.gate.lock();
        let mut is_ready = look();
        while !is_ready && !self.room.wait_until(&mut gate, deadline).timed_out() {
            is_ready = look();
        }
        self.waiting.fetch_sub(1, SeqCst);
        is_ready = is_ready || look();
        if is_starving {
            self.starving.fetch_sub(1, Relaxed);
        }
        is_ready
    }

    /// Makes all who wait ask again, for example because a session is closed.
    pub fn wake_all(&self) {
        drop(self.gate.lock());
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_lacks_memory_starves() {
        let memory = Memory::new(100);
        let counts = || (memory.waiting(), memory.starving());
        // Memory is there: this one waits for something else.
        let waited = memory.wait_until(
            Duration::ZERO,
            50,
            || (),
            |fits| {
                assert!(fits && counts() == (1, 0) || memory.waiting() == 0);
                false
            },
        );
        assert!(!waited);
        memory.charge(80);
        let looked = std::cell::Cell::new(0);
        let waited = memory.wait_until(
            Duration::from_secs(60),
            50,
            || (),
            |fits| {
                looked.set(looked.get() + 1);
                if looked.get() == 1 {
                    assert_eq!((fits, counts()), (false, (1, 1)));
                }
                true
            },
        );
        assert!(waited);
        assert_eq!(counts(), (0, 0));
    }
}
