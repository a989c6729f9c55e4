//! Where the numbers of new windows begin, so that no `seq` is handed out twice for one user: not after its mailbox left memory, not after
//! kill −9, not after an older backup was restored, and not when the clock was set back in between.
//!
//! At start the base is the Unix time in µs or the stored floor, whichever is higher; the floor on disk is always above what is handed out.

use crate::sync::{AtomicU64, Ordering::Relaxed};

use crate::limits::SEQ_RESERVE;

/// Safe from any thread.
pub struct Seqs {
    /// Every seq of a mailbox that is not in memory is at or below it.
    base: AtomicU64,
    /// The highest seq handed out.
    highest: AtomicU64,
    /// On disk: no seq above it may be handed out.
    floor: AtomicU64,
}

impl Seqs {
    /// For a server that starts at `unix_us` with this floor on disk. Nothing is reserved yet.
    pub fn new(unix_us: u64, stored_floor: u64) -> Seqs {
        let base = unix_us.max(stored_floor);
        Seqs { base: AtomicU64::new(base), highest: AtomicU64::new(base), floor: AtomicU64::new(0) }
    }

    /// Where a mailbox that comes into memory begins.
    pub fn base(&self) -> u64 {
        self.base.load(Relaxed)
    }

    /// A mailbox leaves memory whose highest seq is `last`.
    pub fn retire(&self, last: u64) {
        self.base.fetch_max(last, Relaxed);
    }

    /// `seq` was handed out.
    pub fn used(&self, seq: u64) {
        if seq > self.highest.load(Relaxed) {
            self.highest.fetch_max(seq, Relaxed);
        }
    }

    /// `seq` may be handed out: the floor on disk is not below it.
    pub fn is_reserved(&self, seq: u64) -> bool {
        seq <= self.floor.load(Relaxed)
    }

    /// Some number may still be handed out.
    pub fn has_reserve(&self) -> bool {
        self.highest.load(Relaxed) < self.floor.load(Relaxed)
    }

    /// The floor that the next save has to write, if half of the reserve is used.
    pub fn floor_to_save(&self) -> Option<u64> {
        let highest = self.highest.load(Relaxed).max(self.base());
        (highest + SEQ_RESERVE / 2 > self.floor.load(Relaxed)).then_some(highest + SEQ_RESERVE)
    }

    /// This floor is on disk.
    pub fn reserved(&self, floor: u64) {
        self.floor.fetch_max(floor, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_hands_nothing_out_twice() {
        let seqs = Seqs::new(1_000_000, 0);
        assert!(!seqs.is_reserved(1_000_001));
        let floor = seqs.floor_to_save().unwrap();
        seqs.reserved(floor);
        assert!(seqs.is_reserved(floor) && !seqs.is_reserved(floor + 1));
        assert_eq!(seqs.floor_to_save(), None);
        seqs.used(floor);
        assert!(seqs.floor_to_save().unwrap() > floor);
        let restarted = Seqs::new(5, floor);
        assert!(restarted.base() >= floor);
    }

    #[test]
    fn a_mailbox_that_comes_back_begins_above_its_past() {
        let seqs = Seqs::new(100, 0);
        seqs.retire(250);
        seqs.retire(170);
        assert_eq!(seqs.base(), 250);
    }
}
