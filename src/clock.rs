//! Time, read at the edge and passed on as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds that never go back: for ages and deadlines.
    pub mono_ms: u64,
    /// Unix milliseconds: for people and the database.
    pub unix_ms: i64,
}

/// Where times come from. Safe from any thread.
pub trait Clock: Send + Sync {
    /// Both clocks, now.
    fn now(&self) -> Stamp;
}

/// The machine's clocks.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose `mono_ms` begins at 0.
    #[allow(clippy::new_without_default)]
    pub fn new() -> SystemClock {
        SystemClock { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Stamp { mono_ms: self.started.elapsed().as_millis() as u64, unix_ms: unix.as_millis() as i64 }
    }
}
