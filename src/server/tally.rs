//! Events that come in bursts: all are counted, and one line a minute says how many.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Milliseconds between two lines about one kind of event.
const SILENCE_MS: u64 = 60_000;

/// One kind of event. Safe from any thread.
#[derive(Debug, Default)]
pub struct Burst {
    total: AtomicU64,
    logged: AtomicU64,
    /// When the last line was written, plus one; 0 = never.
    logged_at_ms: AtomicU64,
}

impl Burst {
    /// Counts one; gives the number since the last line when it is time for a line: at the first event, then once a minute.
    pub fn note(&self, now_ms: u64) -> Option<u64> {
        self.total.fetch_add(1, Relaxed);
        let last = self.logged_at_ms.load(Relaxed);
        if last != 0 && now_ms < last - 1 + SILENCE_MS {
            return None;
        }
        self.logged_at_ms.compare_exchange(last, now_ms + 1, Relaxed, Relaxed).ok()?;
        let total = self.total();
        Some(total - self.logged.swap(total, Relaxed))
    }

    /// All of them, since the start.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Those that no line has told of yet.
    pub fn unlogged(&self) -> u64 {
        self.total().saturating_sub(self.logged.load(Relaxed))
    }
}

/// Everything that is counted. Safe from any thread.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections refused by a cap.
    pub refused_connections: Burst,
    /// Errors of accept.
    pub accept_errors: Burst,
    /// Threads that could not be started.
    pub spawn_failures: Burst,
    /// Mailboxes that the disk did not give when they were wanted.
    pub disk_errors: Burst,
    /// Messages for a name that nobody can have.
    pub bad_recipients: Burst,
    /// Messages whose text is longer than `max_text_bytes`.
    pub long_texts: Burst,
    /// Messages for a user whose backlog is full.
    pub full_backlogs: Burst,
    /// Messages refused because the database has its full size.
    pub full_databases: Burst,
}

impl Tally {
    /// At the end: what no line has told of yet.
    pub fn log_rest(&self) {
        let bursts = [
            (&self.refused_connections, "connections refused"),
            (&self.accept_errors, "errors of accept"),
            (&self.spawn_failures, "threads that could not be started"),
            (&self.disk_errors, "mailboxes that could not be read"),
            (&self.bad_recipients, "messages dropped for a recipient's name that nobody can have"),
            (&self.long_texts, "messages dropped for a text longer than max_text_bytes"),
            (&self.full_backlogs, "messages dropped for a full backlog"),
            (&self.full_databases, "messages dropped for a full database"),
        ];
        for (burst, what) in bursts.iter().filter(|(burst, _)| burst.unlogged() > 0) {
            log::warn!("{}: {what}, not told of yet", burst.unlogged());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_line_and_the_next_minute_tells_the_rest() {
        let burst = Burst::default();
        assert_eq!(burst.note(0), Some(1));
        assert!((1..1000).all(|ms| burst.note(ms).is_none()));
        assert_eq!(burst.unlogged(), 999);
        assert_eq!(burst.note(60_000), Some(1000));
        assert_eq!((burst.total(), burst.unlogged()), (1001, 0));
    }
}
