//! What was sent and has no receipt: the numbers, shared by all sending halves of a connection and its receiving half.
//!
//! It must not know a socket: whoever takes a number holds the socket's lock (`connection::Wire`), so that numbers leave in the order in
//! which they are given.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Unnumbered;
use super::state::{self, Draft, MAX_UNRECEIPTED, Sent, Taken, Unreceipted};
use crate::protocol::{Chat, Cipher, Granted, MAX_NUMBER, Message};

/// One per connection of level 2.
pub(super) struct Ledger {
    /// Never held while anything is waited for. lock: wire → ledger
    state: Mutex<State>,
    /// There is more room, or there will never be.
    changed: Condvar,
    /// Longest packet that the server takes.
    max_packet_bytes: usize,
}

struct State {
    sent: Sent,
    /// The first number that this connection gives.
    first: u64,
    /// What other threads had wanted to send when the connection ended.
    left_over: VecDeque<Draft>,
    phase: Phase,
}

/// Whether anything can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The connection has ended: what is sent is remembered.
    Closed,
    /// The client is gone, its state with it.
    Retired,
}

/// What a wait for room has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    Full,
    Closed,
    Retired,
}

impl Ledger {
    /// New numbers are above all that were used, here and as far as the server knows, and above `floor`.
    pub(super) fn new(mut sent: Sent, granted: Granted, floor: u64) -> Ledger {
        sent.highest = sent.highest.max(granted.last_msg_id).max(floor).min(MAX_NUMBER);
        let first = sent.highest.saturating_add(1);
        let state = State { sent, first, left_over: VecDeque::new(), phase: Phase::Open };
        // Where it is not told there is no limit that is known.
        let max_packet_bytes = match granted.max_packet_bytes {
            0 => usize::MAX,
            bytes => bytes.try_into().unwrap_or(usize::MAX),
        };
        Ledger { state: Mutex::new(state), changed: Condvar::new(), max_packet_bytes }
    }

    /// Gives the next number, remembers the message, and appends its packet to `out`. `Ok(None)`: there is no room. The caller holds
    /// the socket's lock and writes `out` before it lets go.
    pub(super) fn number(
        &self,
        from: &str,
        draft: &Draft,
        cipher: &Cipher,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, Unnumbered> {
        let mut state = self.state.lock();
        if state.phase == Phase::Retired {
            return Err(Unnumbered::Retired);
        }
        if !state.has_room() {
            return Ok(None);
        }
        if state.sent.highest >= MAX_NUMBER {
            return Err(Unnumbered::UsedUp);
        }
        let Draft { to, text, time } = draft.clone();
        let message = Unreceipted { msg_id: state.sent.highest + 1, to, text, time };
        if !self.encode(from, &message, cipher, out) {
            return Err(Unnumbered::TooLong);
        }
        state.sent.highest += 1;
        state.sent.pending.push_back(message);
        Ok(Some(state.sent.highest))
    }

    /// Appends the packets of everything without a receipt to `out`, as they were sent before. One that the server took then and would close for
    /// now, because its limit has changed, stays behind.
    pub(super) fn encode_all(&self, from: &str, cipher: &Cipher, out: &mut Vec<u8>) {
        for message in &self.state.lock().sent.pending {
            self.encode(from, message, cipher, out);
        }
    }

    /// `false` = it is too long for the server, and nothing was appended.
    fn encode(&self, from: &str, message: &Unreceipted, cipher: &Cipher, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let Unreceipted { msg_id, to, text, time } = message;
        Message::Chat(Chat { from, to, text, time: *time, msg_id: Some(*msg_id), seq: None }).encode(cipher, out);
        let fits = out.len() - before <= self.max_packet_bytes;
        if !fits {
            out.truncate(before);
        }
        fits
    }

    /// Notes a receipt. Gives the message if it is the first one for it.
    pub(super) fn settle(&self, msg_id: u64) -> Option<Unreceipted> {
        let mut state = self.state.lock();
        let pending = &mut state.sent.pending;
        let nth = pending.binary_search_by_key(&msg_id, |message| message.msg_id).ok()?;
        let message = pending.remove(nth);
        self.changed.notify_all();
        message
    }

    /// Messages without a receipt.
    pub(super) fn len(&self) -> usize {
        let state = self.state.lock();
        state.sent.pending.len() + state.left_over.len()
    }

    /// Waits until everything has a receipt or the connection has ended; gives how much has none.
    pub(super) fn wait_until_settled(&self, deadline: Instant) -> usize {
        let mut state = self.state.lock();
        let is_open = |state: &mut State| state.phase == Phase::Open && !state.sent.pending.is_empty();
        self.changed.wait_while_until(&mut state, is_open, deadline);
        state.sent.pending.len() + state.left_over.len()
    }

    /// Whether another message may be sent now.
    pub(super) fn room(&self) -> Room {
        self.state.lock().room()
    }

    /// Waits until another message may be sent. Only for threads other than the one that receives.
    pub(super) fn wait_for_room(&self, deadline: Instant) -> Room {
        let mut state = self.state.lock();
        self.changed.wait_while_until(&mut state, |state| state.room() == Room::Full, deadline);
        state.room()
    }

    /// Remembers messages that could not be written because the connection has ended; `false` = there is nobody to remember them.
    pub(super) fn leave_over(&self, drafts: impl Iterator<Item = Draft>) -> bool {
        let mut state = self.state.lock();
        let is_kept = state.phase != Phase::Retired;
        if is_kept {
            state.left_over.extend(drafts);
        }
        is_kept
    }

    /// The connection has ended: nobody needs to wait any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
        }
        self.changed.notify_all();
    }

    /// Gives everything out; from now on nothing can be sent.
    pub(super) fn retire(&self) -> (Sent, VecDeque<Draft>) {
        let mut state = self.state.lock();
        state.phase = Phase::Retired;
        self.changed.notify_all();
        (std::mem::take(&mut state.sent), std::mem::take(&mut state.left_over))
    }

    /// What a file of the state holds: see `state::encode`.
    pub(super) fn encode_state(&self, name: &str, taken: &Taken, drafts: impl Iterator<Item = Draft>) -> Vec<u8> {
        let state = self.state.lock();
        let drafts = state.left_over.iter().cloned().chain(drafts).collect();
        state::encode(name, taken, &state.sent, &drafts)
    }
}

impl State {
    fn room(&self) -> Room {
        match self.phase {
            Phase::Closed => Room::Closed,
            Phase::Retired => Room::Retired,
            Phase::Open if self.has_room() => Room::Free,
            Phase::Open => Room::Full,
        }
    }

    /// The server remembers a sender's last `MAX_UNRECEIPTED` numbers, with a receipt or without: the oldest that has none here must stay among them,
    /// or it would be too old to be sent again.
    fn has_room(&self) -> bool {
        let pending = &self.sent.pending;
        let Some(oldest) = pending.front() else { return true };
        // Those of an earlier connection need not be next to each other, nor to ours.
        let earlier = pending.partition_point(|message| message.msg_id < self.first) as u64;
        let since_oldest = self.sent.highest + 1 - oldest.msg_id.max(self.first) + earlier;
        since_oldest < MAX_UNRECEIPTED as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PUBLISHED_KEY;

    fn ledger(sent: Sent, floor: u64) -> Ledger {
        let granted = Granted { level: 2, read_timeout_secs: 120, max_packet_bytes: 0, last_msg_id: 0 };
        Ledger::new(sent, granted, floor)
    }

    fn send(ledger: &Ledger) -> Option<u64> {
        let draft = Draft { to: "bob".into(), text: "hello".into(), time: 0 };
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        ledger.number("ann", &draft, &cipher, &mut Vec::new()).unwrap_or_else(|_| panic!("a number"))
    }

    /// The server would forget it, and take a resend for one that is too old.
    #[test]
    fn one_that_has_no_receipt_holds_back_the_thousandth_after_it() {
        let ledger = ledger(Sent::default(), 0);
        assert_eq!(send(&ledger), Some(1));
        for id in 2..=MAX_UNRECEIPTED as u64 {
            assert_eq!(send(&ledger), Some(id));
            assert!(ledger.settle(id).is_some());
        }
        assert_eq!((send(&ledger), ledger.room(), ledger.len()), (None, Room::Full, 1));
        assert!(ledger.settle(1).is_some());
        assert_eq!(send(&ledger), Some(MAX_UNRECEIPTED as u64 + 1));
    }

    #[test]
    fn what_an_earlier_connection_left_takes_its_place_and_no_more() {
        let message = |msg_id| Unreceipted { msg_id, to: "bob".into(), text: "hello".into(), time: 0 };
        let sent = Sent { highest: 70, pending: [message(7), message(70)].into() };
        let ledger = ledger(sent, 1_000_000);
        let new = (0..MAX_UNRECEIPTED as u64 - 2).map(|nth| 1_000_001 + nth);
        for id in new {
            assert_eq!(send(&ledger), Some(id));
            assert!(ledger.settle(id).is_some());
        }
        assert_eq!(send(&ledger), None);
        assert!(ledger.settle(7).is_some());
        assert!(send(&ledger).is_some());
    }
}
