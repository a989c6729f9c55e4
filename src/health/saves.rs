//! How the saves go: the last one that succeeded, and since when none does.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Stamp;

/// Safe from any thread.
#[derive(Debug, Default)]
pub struct Saves {
    /// Begin of the first save since the last that succeeded, on the monotonic clock, plus one; 0 = the last one succeeded.
    pending_since_ms: AtomicU64,
    last_at: AtomicI64,
    last_us: AtomicU64,
}

impl Saves {
    /// A save begins, or something else that needs the disk. `true`: none was pending.
    pub fn begin(&self, now_ms: u64) -> bool {
        // Only the timer saves: nobody else writes here.
        let is_first = self.pending_since_ms.load(Relaxed) == 0;
        if is_first {
            self.pending_since_ms.store(now_ms + 1, Relaxed);
        }
        is_first
    }

    /// What was begun, and was no save, has come back from the disk.
    pub fn end(&self) {
        self.pending_since_ms.store(0, Relaxed);
    }

    /// It has succeeded. One that fails says nothing: it stays pending.
    pub fn succeed(&self, now: Stamp, took: Duration) {
        self.last_at.store(now.unix_ms, Relaxed);
        self.last_us.store(took.as_micros() as u64, Relaxed);
        self.pending_since_ms.store(0, Relaxed);
    }

    /// When the last one succeeded (Unix milliseconds, 0 = none has) and how long it took, in microseconds.
    pub fn last(&self) -> (i64, u64) {
        (self.last_at.load(Relaxed), self.last_us.load(Relaxed))
    }

    /// For how long none has succeeded although one was begun, in milliseconds. One that does not end counts.
    pub fn failing_for_ms(&self, now_ms: u64) -> u64 {
        match self.pending_since_ms.load(Relaxed) {
            0 => 0,
            since => (now_ms + 1).saturating_sub(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_from_the_first_save_that_fails_or_hangs_to_the_first_that_succeeds() {
        let saves = Saves::default();
        assert_eq!(saves.failing_for_ms(5), 0);
        saves.begin(10);
        assert_eq!(saves.failing_for_ms(10), 0);
        saves.begin(500);
        assert_eq!(saves.failing_for_ms(60_010), 60_000);
        saves.succeed(Stamp { mono_ms: 60_020, unix_ms: 77 }, Duration::from_micros(3));
        assert_eq!((saves.failing_for_ms(90_000), saves.last()), (0, (77, 3)));
    }
}
