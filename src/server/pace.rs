//! How fast somebody may go: a token bucket for one connection's packets and bytes, one for the logins of an address, one for log lines about
//! strangers. PURE: the time is given.
//!
//! A bucket is full at first, fills evenly, and never holds more than it can. What is taken past the last token is a debt that is paid back first.

use std::time::{Duration, Instant};

/// So many tokens at once, and so many a second in the long run.
#[derive(Debug, Clone)]
pub struct Bucket {
    tokens: f64,
    capacity: f64,
    per_sec: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one, of `capacity` tokens, that an empty one has again after `period`.
    pub fn full(capacity: u64, period: Duration, now: Instant) -> Bucket {
        let capacity = capacity as f64;
        Bucket { tokens: capacity, capacity, per_sec: capacity / period.as_secs_f64(), filled_at: now }
    }

    /// Adds what has come since the last time.
    pub fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_sec).min(self.capacity);
        self.filled_at = now;
    }

    /// Takes `count` tokens, there or not.
    pub fn take(&mut self, count: usize) {
        self.tokens -= count as f64;
    }

    /// Whether there is no whole token in it.
    pub fn is_spent(&self) -> bool {
        self.tokens < 1.0
    }

    /// Whether it holds all that it can.
    pub fn is_full(&self) -> bool {
        self.tokens >= self.capacity
    }

    /// How long until there is a whole token, if none is taken.
    pub fn wait(&self) -> Duration {
        self.wait_for(1.0)
    }

    fn wait_for(&self, tokens: f64) -> Duration {
        Duration::try_from_secs_f64((tokens - self.tokens).max(0.0) / self.per_sec).unwrap_or(Duration::MAX)
    }
}

/// A connection that is held back goes on in steps of this.
const STEP: Duration = Duration::from_millis(20);

/// What one connection may send: packets and bytes, those of one second at once.
#[derive(Debug, Clone)]
pub struct Pace {
    packets: Bucket,
    bytes: Bucket,
    /// Nothing can come any more but what is there.
    is_lifted: bool,
}

impl Pace {
    /// A connection that has not sent anything yet.
    pub fn new(packets_per_second: u64, bytes_per_second: u64, now: Instant) -> Pace {
        let bucket = |per_second| Bucket::full(per_second, Duration::from_secs(1), now);
        Pace { packets: bucket(packets_per_second), bytes: bucket(bytes_per_second), is_lifted: false }
    }

    /// A packet of `bytes` was executed.
    pub fn note(&mut self, bytes: usize) {
        self.packets.take(1);
        self.bytes.take(bytes);
    }

    /// Adds what has come since the last time.
    pub fn fill(&mut self, now: Instant) {
        self.packets.fill(now);
        self.bytes.fill(now);
    }

    /// Whether the next packet has to wait.
    pub fn is_spent(&self) -> bool {
        !self.is_lifted && (self.packets.is_spent() || self.bytes.is_spent())
    }

    /// How long it is worth waiting when it is spent: until there is something for `STEP`, so that a client that is held back costs one wake-up for that
    /// and not one a packet.
    pub fn wait(&self) -> Duration {
        let step = |bucket: &Bucket| bucket.wait_for((bucket.per_sec * STEP.as_secs_f64()).clamp(1.0, bucket.capacity));
        if self.is_lifted { Duration::ZERO } else { step(&self.packets).max(step(&self.bytes)) }
    }

    /// The stream has ended: what is left of it waits for nothing.
    pub fn lift(&mut self) {
        self.is_lifted = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_gives_its_capacity_at_once_and_its_rate_afterwards() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::full(10, Duration::from_secs(1), start);
        (0..10).for_each(|_| bucket.take(1));
        assert!(bucket.is_spent());
        assert_eq!(bucket.wait(), Duration::from_millis(100));
        bucket.fill(at(99));
        assert!(bucket.is_spent());
        bucket.fill(at(101));
        assert!(!bucket.is_spent() && bucket.wait().is_zero());
        bucket.take(5);
        bucket.fill(at(301));
        assert!(bucket.is_spent(), "a debt is paid back first");
        bucket.fill(at(900_000));
        assert!(bucket.is_full());
        (0..10).for_each(|_| bucket.take(1));
        assert!(bucket.is_spent(), "it never holds more than it can");
        bucket.fill(at(800_000));
        assert!(bucket.is_spent(), "a clock that goes back gives nothing");
    }

    #[test]
    fn a_connection_is_held_by_whichever_is_spent_first_until_its_stream_has_ended() {
        let start = Instant::now();
        let mut by_packets = Pace::new(3, 1_000_000, start);
        let mut by_bytes = Pace::new(1_000, 100, start);
        for pace in [&mut by_packets, &mut by_bytes] {
            (0..3).for_each(|_| pace.note(40));
            assert!(pace.is_spent());
        }
        assert_eq!(by_packets.wait().as_millis(), 333);
        assert_eq!(by_bytes.wait().as_millis(), 220, "20 bytes of debt, and those of a step");
        by_bytes.fill(start + Duration::from_millis(211));
        assert!(!by_bytes.is_spent());
        by_packets.lift();
        assert!(!by_packets.is_spent() && by_packets.wait().is_zero());
    }
}
