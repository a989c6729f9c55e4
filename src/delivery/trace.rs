//! Copies of one user's packets, for somebody who looks on: who is traced, and what waits to be shown.
//!
//! The message path only copies a packet's bytes into a bounded queue and never waits; opening and explaining them is the business of the thread
//! that shows them. A queue that is full takes nothing, and counts what it did not take: whoever reads too slowly loses lines, never messages.
//! A user who is not traced costs a look at a flag.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{EventfdFlags, eventfd};

use crate::limits;
use crate::sync::{AtomicBool, Mutex, Ordering::Relaxed};

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// A packet that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// When, in Unix milliseconds.
    pub at: i64,
    /// The connection's id.
    pub connection: u64,
    /// Which way.
    pub direction: Direction,
    /// Where it begins in this direction's stream of this connection, in bytes.
    pub offset: u64,
    /// As on the wire.
    pub packet: Vec<u8>,
}

/// One look at one user. Safe from any thread.
pub struct Trace {
    key: Arc<str>,
    wake: OwnedFd,
    queue: Mutex<Queue>, // lock: gate → registry → mailbox → outbox → trace
}

#[derive(Default)]
struct Queue {
    noted: Vec<Noted>,
    bytes: usize,
    lost: u64,
}

impl Trace {
    /// Copies a packet, or counts it as lost. Never waits.
    pub fn note(&self, connection: u64, direction: Direction, offset: u64, packet: &[u8]) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let is_first = {
            let mut queue = self.queue.lock();
            let bytes = queue.bytes + packet.len() + limits::ENTRY_BYTES;
            // After a loss it takes nothing until it is emptied, so that the loss has its place.
            if queue.lost > 0 || bytes > limits::TRACE_BYTES {
                queue.lost += 1;
                return;
            }
            queue.bytes = bytes;
            queue.noted.push(Noted { at, connection, direction, offset, packet: packet.to_vec() });
            queue.noted.len() == 1
        };
        if is_first {
            self.wake();
        }
    }

    /// It is not ready any more, until the next packet or wake-up.
    pub fn calm(&self) {
        // Never blocks: the descriptor is made so. That there is nothing to read is no error.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// What was noted since this was last asked, and how many packets were lost after it.
    pub fn take(&self) -> (Vec<Noted>, u64) {
        self.calm();
        let queue = std::mem::take(&mut *self.queue.lock());
        (queue.noted, queue.lost)
    }

    /// Wakes whoever waits for [`Trace::ready`].
    pub fn wake(&self) {
        // It fails only where 2⁶⁴ wake-ups wait already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Readable when there is something to take, or after [`Trace::wake`].
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Everybody who is traced. Safe from any thread.
#[derive(Default)]
pub struct Traces {
    is_any: AtomicBool,
    open: Mutex<Vec<Arc<Trace>>>, // lock: gate → registry → mailbox → outbox → traces
}

impl Traces {
    /// Begins to trace the user with this key: sessions that begin from now on. The caller tells the one that is there (`Session::retrace`).
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn begin(&self, key: &Arc<str>) -> io::Result<Arc<Trace>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let trace = Arc::new(Trace { key: key.clone(), wake, queue: Mutex::default() });
        let mut open = self.open.lock();
        open.push(trace.clone());
        self.is_any.store(true, Relaxed);
        Ok(trace)
    }

    /// Ends it. The caller tells the session that is there.
    pub fn end(&self, trace: &Arc<Trace>) {
        let mut open = self.open.lock();
        open.retain(|other| !Arc::ptr_eq(other, trace));
        self.is_any.store(!open.is_empty(), Relaxed);
    }

    /// Somebody is traced, perhaps: where the locks of a mailbox order the two, whoever comes after `begin` sees it.
    pub fn is_any(&self) -> bool {
        self.is_any.load(Relaxed)
    }

    /// The traces of the user with this key.
    pub fn of(&self, key: &str) -> Vec<Arc<Trace>> {
        self.open.lock().iter().filter(|trace| &*trace.key == key).cloned().collect()
    }

    /// Wakes everybody who waits for a packet, for the server stops.
    pub fn wake_all(&self) {
        self.open.lock().iter().for_each(|trace| trace.wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_nothing_and_counts_it() {
        let traces = Traces::default();
        assert!(!traces.is_any() && traces.of("ann").is_empty());
        let trace = traces.begin(&"ann".into()).unwrap();
        assert!(traces.is_any() && traces.of("bob").is_empty() && traces.of("ann").len() == 1);
        let packet = vec![7; 1000];
        let fit = limits::TRACE_BYTES / (packet.len() + limits::ENTRY_BYTES);
        (0..fit + 5).for_each(|at| trace.note(1, Direction::Out, at as u64, &packet));
        // A small one would fit, but not at its place: behind those that are lost.
        trace.note(1, Direction::Out, 0, &[]);
        let (noted, lost) = trace.take();
        assert_eq!((noted.len(), lost), (fit, 6));
        assert!(noted.iter().map(|noted| noted.offset).eq(0..fit as u64));
        trace.note(1, Direction::In, 0, &packet);
        assert_eq!((trace.take().0.len(), trace.take()), (1, (Vec::new(), 0)));
        traces.end(&trace);
        assert!(!traces.is_any() && traces.of("ann").is_empty());
    }
}
