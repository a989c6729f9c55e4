//! A user's way in, as a sliding window: what TCP does for a connection, one level up, for a user, across connections and restarts.
//!
//! PURE: no I/O, no lock, no clock. Every message gets the next `seq`; five cursors say what is true of the messages up to them:
//!
//! ```text
//!   … forgotten … │ on disk only │ on disk and in memory │ in memory only │ … not yet accepted
//!              acked          evicted                  saved            last
//!                └──────────── sent is anywhere between acked and last ───────────┘
//! ```
//!
//! | cursor | everything up to it … |
//! |---|---|
//! | `acked` | … is acknowledged, and forgotten |
//! | `sent` | … has been handed to the present session |
//! | `evicted` | … and not acknowledged is on disk only |
//! | `saved` | … and not acknowledged is on disk |
//! | `last` | … is accepted |
//!
//! `acked ≤ evicted ≤ saved ≤ last` and `acked ≤ sent ≤ last` always hold: an ack that overtakes the saving moves `saved` and `evicted`
//! along, since "and not acknowledged" makes that true at once. So memory holds exactly the messages in `(evicted, last]`, and what may
//! be on disk and is not acknowledged lies in `(acked, saved]`: from acceptance to acknowledgement a message is in one of the two.
//!
//! Two more cursors keep the disk tidy: `written`, the highest seq that may have a row, and `deleted`, up to which all rows are gone. And `shown`
//! is the highest `sent` there ever was: a level-2 client may have taken in so much, and say so when it comes back.

use std::collections::VecDeque;

#[cfg(test)]
mod tests;

/// The next thing to hand to the present session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Rows with `after < seq <= upto` come first, from disk.
    Disk {
        /// Exclusive.
        after: u64,
        /// Inclusive.
        upto: u64,
    },
    /// Messages from this seq on are in memory.
    Memory(u64),
    /// Everything accepted has been handed over.
    Nothing,
}

/// The window of one user over messages of type `M`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Window<M> {
    acked: u64,
    sent: u64,
    evicted: u64,
    saved: u64,
    last: u64,
    written: u64,
    deleted: u64,
    /// The highest seq that was ever handed to a session; what was before this process counts as handed.
    shown: u64,
    /// The messages `(evicted, last]`, in order.
    entries: VecDeque<M>,
}

impl<M> Window<M> {
    /// A window that knows nothing of before `base`, except that rows from `first` on wait on disk, if any.
    /// `base` is at or above every seq that was ever given out for this user.
    pub fn new(base: u64, first: Option<u64>) -> Window<M> {
        let acked = first.map_or(base, |first| first.saturating_sub(1));
        Window {
            acked,
            sent: acked,
            evicted: base,
            saved: base,
            last: base,
            written: base,
            deleted: acked,
            shown: base,
            entries: VecDeque::new(),
        }
    }

    /// Takes a message in and gives it its seq.
    pub fn accept(&mut self, message: M) -> u64 {
        self.last += 1;
        self.entries.push_back(message);
        self.last
    }

    /// The seq that `accept` will give.
    pub fn next_seq(&self) -> u64 {
        self.last + 1
    }

    /// What the present session gets next.
    pub fn next(&self) -> Next {
        if self.sent < self.evicted {
            Next::Disk { after: self.sent, upto: self.evicted }
        } else if self.sent < self.last {
            Next::Memory(self.sent + 1)
        } else {
            Next::Nothing
        }
    }

    /// Everything unsent is in memory: no disk has to be read for the present session.
    pub fn is_live(&self) -> bool {
        self.sent >= self.evicted
    }

    /// Everything accepted has been handed to the present session.
    pub fn is_caught_up(&self) -> bool {
        self.sent == self.last
    }

    /// The message `seq`, when it is in memory.
    pub fn entry(&self, seq: u64) -> Option<&M> {
        let index = seq.checked_sub(self.evicted + 1)?;
        self.entries.get(index as usize)
    }

    /// The present session has been handed everything up to `seq`. Gaps are legal: expired rows leave them.
    pub fn hand_over(&mut self, seq: u64) {
        self.sent = self.sent.max(seq.min(self.last));
        self.shown = self.shown.max(self.sent);
    }

    /// The client says by itself that it has taken in everything up to `seq`, perhaps in an earlier session: what it has is not sent again. `false`:
    /// that is more than was ever handed to it, so it says nothing of earlier sessions. `ack` comes after it.
    pub fn claim(&mut self, seq: u64) -> bool {
        let is_possible = seq <= self.shown;
        if is_possible {
            self.sent = self.sent.max(seq);
        }
        is_possible
    }

    /// The session has acknowledged everything up to `seq`; past `sent` is clamped. Gives the messages that leave memory.
    pub fn ack(&mut self, seq: u64) -> impl Iterator<Item = M> + '_ {
        let seq = seq.min(self.sent).max(self.acked);
        self.acked = seq;
        self.saved = self.saved.max(seq);
        self.forget(seq)
    }

    /// The session is over, for whatever reason: what it did not acknowledge is unsent again.
    pub fn end_session(&mut self) {
        self.sent = self.acked;
    }

    /// At most `max` messages that are not saved, in order, for a save that is about to be tried.
    pub fn begin_save(&mut self, max: usize) -> impl Iterator<Item = (u64, &M)> {
        let count = max.min((self.last - self.saved) as usize);
        // From here on rows may exist, whatever the save says in the end: a commit can fail after it has become durable.
        if count > 0 {
            self.written = self.written.max(self.saved + count as u64);
        }
        let skip = (self.saved - self.evicted) as usize;
        (self.saved + 1..).zip(self.entries.iter().skip(skip).take(count))
    }

    /// The commit that holds everything unacknowledged up to `seq` has returned.
    pub fn saved(&mut self, seq: u64) {
        self.saved = self.saved.max(seq.min(self.written));
    }

    /// The first message in memory.
    pub fn first_entry(&self) -> Option<&M> {
        self.entries.front()
    }

    /// The messages that are not saved, in order.
    pub fn unsaved_entries(&self) -> impl Iterator<Item = &M> {
        self.entries.range((self.saved - self.evicted) as usize..)
    }

    /// The first message that is not saved.
    pub fn first_unsaved(&self) -> Option<&M> {
        self.unsaved_entries().next()
    }

    /// Lets saved messages up to `seq` leave memory; past `saved` is clamped.
    pub fn evict(&mut self, seq: u64) -> impl Iterator<Item = M> + '_ {
        let seq = seq.min(self.saved);
        self.forget(seq)
    }

    fn forget(&mut self, upto: u64) -> impl Iterator<Item = M> + '_ {
        let count = upto.saturating_sub(self.evicted) as usize;
        self.evicted = self.evicted.max(upto);
        self.entries.drain(..count.min(self.entries.len()))
    }

    /// Rows up to this seq are acknowledged and still on disk.
    pub fn to_delete(&self) -> Option<u64> {
        let seq = self.acked.min(self.written);
        (seq > self.deleted).then_some(seq)
    }

    /// Whatever is on disk is acknowledged.
    pub fn is_disk_acked(&self) -> bool {
        self.written <= self.acked
    }

    /// The commit that deleted all rows up to `seq` has returned.
    pub fn deleted(&mut self, seq: u64) {
        self.deleted = self.deleted.max(seq);
    }

    /// Up to here everything is acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Up to here everything has been handed to the present session.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Up to here everything unacknowledged is on disk only.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Up to here everything unacknowledged is on disk.
    pub fn saved_upto(&self) -> u64 {
        self.saved
    }

    /// The highest seq handed out.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Messages in memory.
    pub fn in_memory(&self) -> usize {
        self.entries.len()
    }

    /// Messages in memory that are on no disk.
    pub fn unsaved(&self) -> u64 {
        self.last - self.saved
    }

    /// Gives back the memory of entries that are gone.
    pub fn shrink(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
    }
}
