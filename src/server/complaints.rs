//! Log lines about strangers that broke a rule. Anybody can be a stranger as often as they like, and must not fill the log with it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pace::Bucket;
use crate::limits::STRANGER_LINES;

/// Safe from any thread.
pub struct Complaints {
    state: Mutex<State>, // lock: a leaf
}

struct State {
    lines: Bucket,
    left_out: u64,
}

impl Complaints {
    /// None yet.
    pub fn new(now: Instant) -> Complaints {
        let lines = Bucket::full(STRANGER_LINES, Duration::from_secs(60), now);
        Complaints { state: Mutex::new(State { lines, left_out: 0 }) }
    }

    /// A stranger's connection ends for this reason, which has been counted.
    pub fn about_stranger(&self, id: u64, address: SocketAddr, why: &impl Display) {
        match self.may_tell(Instant::now()) {
            None => log::debug!("c{id}: {address}: {why}"),
            Some(0) => log::warn!("c{id}: {address}: {why}"),
            Some(count) => log::warn!("c{id}: {address}: {why} ({count} lines about other strangers were left out)"),
        }
    }

    /// Whether there is a line for it, and how many got none since the last one.
    fn may_tell(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        state.lines.fill(now);
        if state.lines.is_spent() {
            state.left_out += 1;
            return None;
        }
        state.lines.take(1);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_become_few_and_say_how_many_are_missing() {
        let start = Instant::now();
        let complaints = Complaints::new(start);
        assert!((0..STRANGER_LINES).all(|_| complaints.may_tell(start) == Some(0)));
        assert!((0..5).all(|_| complaints.may_tell(start).is_none()));
        assert_eq!(complaints.may_tell(start + Duration::from_millis(101)), Some(5));
        assert_eq!(complaints.may_tell(start + Duration::from_millis(102)), None);
    }
}
