//! The sessions whose outboxes a thread has pushed to. Whoever pushes owes a flush, and pays all at once: under load one write carries many packets.

use std::sync::Arc;

use super::Delivery;
use super::outbox::Flushed;
use super::session::Session;

/// What the buffer of a thread to which little comes keeps, in bytes.
const KEPT_BYTES: usize = 4096;

/// Only for one thread.
#[derive(Default)]
pub struct Owed {
    sessions: Vec<Arc<Session>>,
    scratch: Vec<u8>,
}

impl Owed {
    /// This session's outbox was pushed to, or receipts are due to it. Never blocks.
    pub fn add(&mut self, session: &Arc<Session>) {
        if !self.sessions.iter().rev().any(|known| Arc::ptr_eq(known, session)) {
            self.sessions.push(session.clone());
        }
    }

    /// Flushes each of them, those too that come to it on the way. Never waits; for a socket that is full, or a session for which something waits in its
    /// window, `start_writer` is called. Call with no lock held.
    pub fn flush(&mut self, delivery: &Delivery, mut start_writer: impl FnMut(Arc<Session>)) {
        while !self.sessions.is_empty() {
            let mut sessions = std::mem::take(&mut self.sessions);
            for session in sessions.drain(..) {
                session.write_receipts(&delivery.cipher);
                match session.outbox.flush(&mut self.scratch) {
                    // What TCP acknowledges at once, as it does nearby, the client's next packet confirms.
                    Flushed::Done if session.wants_word() => session.mailbox.collect_acks(delivery, self),
                    Flushed::Done => {}
                    Flushed::DoneAskAcks => session.mailbox.collect_acks(delivery, self),
                    Flushed::NeedsWriter => start_writer(session),
                }
            }
            if self.sessions.is_empty() {
                self.sessions = sessions;
            }
        }
    }

    /// Gives back the buffer of a busy time.
    pub fn shrink(&mut self) {
        if self.scratch.capacity() > KEPT_BYTES {
            self.scratch = Vec::new();
        }
    }
}
