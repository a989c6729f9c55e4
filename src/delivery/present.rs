//! The present session of a mailbox, and what counts as acknowledged by it.
//!
//! At level 1 TCP's acknowledgement of all bytes of a message counts. For messages that were waiting when the session began this is not enough,
//! for a program that crashes or closes before it has read them had a kernel that acknowledged them. They count when the client has, *after*
//! TCP's acknowledgement, sent a packet, or ended with FIN or a logout.
//!
//! At level 2 only the client's own acks count.

use crate::sync::Ordering::Relaxed;
use std::sync::Arc;

use super::Delivery;
use super::session::Session;

/// Only under the mailbox's lock.
pub struct Present {
    /// The session.
    pub session: Arc<Session>,
    /// The session ends: nothing more is handed over, acknowledgements still count.
    pub is_ending: bool,
    /// The client ended in order: what TCP acknowledges has been read.
    has_left: bool,
    /// Messages up to here were waiting when the session began, or were brought from disk.
    waited_upto: u64,
    /// Acknowledged by TCP.
    tcp_acked: u64,
    /// Up to here TCP's acknowledgement was followed by a sign of life.
    confirmed: u64,
    mark: Option<Mark>,
}

/// A packet that ends beyond this byte of the client's stream confirms everything up to this seq.
#[derive(Clone, Copy)]
struct Mark {
    position: u64,
    seq: u64,
}

impl Present {
    /// A session begins while everything up to `acked` is acknowledged and everything up to `last` accepted.
    pub fn new(session: Arc<Session>, acked: u64, last: u64) -> Present {
        // A level-2 client says by itself what it has.
        let waited_upto = if session.is_level_2() { acked } else { last };
        session.wants_word.store(acked < waited_upto, Relaxed);
        let (is_ending, has_left) = (false, false);
        Present { session, is_ending, has_left, waited_upto, tcp_acked: acked, confirmed: acked, mark: None }
    }

    /// Asks TCP, and remembers where in the client's stream a sign of life would begin. Gives the seq up to which messages are acknowledged.
    pub fn observe(&mut self, delivery: &Delivery) -> u64 {
        if let Some((seq, count)) = self.session.outbox.acknowledged() {
            self.tcp_acked = self.tcp_acked.max(seq);
            delivery.counters.acknowledged.add(count);
        }
        if self.has_left {
            self.confirmed = self.confirmed.max(self.tcp_acked);
        }
        if !self.wants_word() {
            self.session.wants_word.store(false, Relaxed);
            return self.tcp_acked.max(self.confirmed);
        }
        if self.tcp_acked > self.mark.map_or(self.confirmed, |mark| mark.seq) {
            // TCP's word first, then how far the client's stream has come: what lies beyond was received after the acknowledgement.
            let position = self.session.outbox.received_bytes();
            if self.mark.is_none_or(|mark| mark.position == position) {
                self.mark = Some(Mark { position, seq: self.tcp_acked });
            }
        }
        self.confirmed
    }

    /// The client itself, at level 2, has acknowledged everything up to `seq`.
    pub fn claimed(&mut self, seq: u64) {
        self.confirmed = self.confirmed.max(seq);
    }

    /// Messages up to `seq` came from disk: like those that were waiting they need a sign of life.
    pub fn brought(&mut self, seq: u64) {
        if self.session.is_level_2() {
            return;
        }
        self.waited_upto = self.waited_upto.max(seq);
        self.session.wants_word.store(self.wants_word(), Relaxed);
    }

    /// A packet came whose last byte is byte `read_bytes` of the client's stream.
    pub fn heard(&mut self, read_bytes: u64) {
        if let Some(mark) = self.mark.take_if(|mark| read_bytes > mark.position) {
            self.confirmed = self.confirmed.max(mark.seq);
        }
    }

    /// The session begins to end. `took_leave`: with FIN or a logout, and from now on TCP's acknowledgement says that it was read.
    pub fn suspend(&mut self, took_leave: bool) {
        self.is_ending = true;
        self.has_left |= took_leave;
    }

    /// TCP must be asked again; a sign of life alone comes by itself.
    pub fn is_awaiting(&self) -> bool {
        self.session.outbox.is_awaiting()
    }

    fn wants_word(&self) -> bool {
        self.confirmed < self.waited_upto
    }
}
