//! What has arrived and was not given out yet, and what of the given out is to be acknowledged.
//!
//! Pure: no socket, no clock, no lock. Read first: PROTOCOL.md, "Level 2".

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::state::Taken;
use super::{CustomPacket, Event, Incoming, Receipt};

/// Most messages that one ack waits for.
const ACK_MESSAGES: usize = 64;

/// Longest that an ack waits, as long as the application calls.
const ACK_DELAY: Duration = Duration::from_secs(1);

/// Most receipts, notices and pongs kept for [`Client::next_event`](super::Client::next_event); then the oldest go.
const MAX_EVENTS: usize = 65_536;

/// Queues in the order of arrival, across all three.
pub(super) struct Inbox {
    pub(super) taken: Taken,
    /// At level 1 nothing is dropped, noted or acknowledged.
    is_numbered: bool,
    messages: VecDeque<(u64, Inbound)>,
    custom: VecDeque<(u64, CustomPacket)>,
    events: VecDeque<(u64, Event)>,
    arrivals: u64,
    /// Messages given out or dropped since the last ack, and since when there are any.
    unacked: usize,
    unacked_since: Option<Instant>,
}

/// What stands in the queue of messages.
enum Inbound {
    Message(Incoming),
    /// Not for the application: the mark of a round trip.
    Mark(Incoming),
    /// The server's numbers are behind ours: what follows is counted from anew.
    CountAnew,
}

impl Inbox {
    pub(super) fn new(taken: Taken, is_numbered: bool) -> Inbox {
        Inbox {
            taken,
            is_numbered,
            messages: VecDeque::new(),
            custom: VecDeque::new(),
            events: VecDeque::new(),
            arrivals: 0,
            unacked: 0,
            unacked_since: None,
        }
    }

    pub(super) fn push_message(&mut self, message: Incoming) {
        self.push_inbound(Inbound::Message(message));
    }

    /// A message that only counts.
    pub(super) fn push_mark(&mut self, message: Incoming) {
        self.push_inbound(Inbound::Mark(message));
    }

    /// From here on a low `seq` is a new one.
    pub(super) fn push_count_anew(&mut self) {
        self.push_inbound(Inbound::CountAnew);
    }

    pub(super) fn push_custom(&mut self, packet: CustomPacket) {
        self.arrivals += 1;
        self.custom.push_back((self.arrivals, packet));
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.arrivals += 1;
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((self.arrivals, event));
    }

    fn push_inbound(&mut self, inbound: Inbound) {
        self.arrivals += 1;
        self.messages.push_back((self.arrivals, inbound));
    }

    /// The next message that is new.
    pub(super) fn next_message(&mut self, now: Instant) -> Option<Incoming> {
        while let Some((_, inbound)) = self.messages.pop_front() {
            if let Some(message) = self.take(inbound, now) {
                return Some(message);
            }
        }
        None
    }

    /// Whatever arrived first.
    pub(super) fn next_event(&mut self, now: Instant) -> Option<Event> {
        loop {
            let message = self.messages.front().map_or(u64::MAX, |(arrival, _)| *arrival);
            let custom = self.custom.front().map_or(u64::MAX, |(arrival, _)| *arrival);
            let event = self.events.front().map_or(u64::MAX, |(arrival, _)| *arrival);
            if message > custom.min(event) || self.messages.is_empty() {
                return if custom < event {
                    self.next_custom().map(Event::Custom)
                } else {
                    self.events.pop_front().map(|(_, event)| event)
                };
            }
            let (_, inbound) = self.messages.pop_front()?;
            if let Some(message) = self.take(inbound, now) {
                return Some(Event::Message(message));
            }
        }
    }

    pub(super) fn next_custom(&mut self) -> Option<CustomPacket> {
        self.custom.pop_front().map(|(_, packet)| packet)
    }

    /// Takes the first receipt for a message out of those events that came after so many arrivals.
    pub(super) fn take_receipt(&mut self, msg_id: u64, after: u64) -> Option<Receipt> {
        let later = self.events.iter().rev().take_while(|(arrival, _)| *arrival > after).count();
        let is_it = |(_, event): &(u64, Event)| matches!(event, Event::Receipt(receipt) if receipt.msg_id == msg_id);
        let from = self.events.len() - later;
        let nth = from + self.events.range(from..).position(is_it)?;
        match self.events.remove(nth)?.1 {
            Event::Receipt(receipt) => Some(receipt),
            _ => None,
        }
    }

    /// How much has arrived.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Every message that was not given out.
    pub(super) fn take_messages(&mut self) -> Vec<Incoming> {
        let message = |inbound| match inbound {
            (_, Inbound::Message(message)) => Some(message),
            _ => None,
        };
        std::mem::take(&mut self.messages).into_iter().filter_map(message).collect()
    }

    /// What is to be acknowledged now. `more`: something else has arrived already, so the ack may wait for it.
    pub(super) fn ack_due(&self, more: bool, now: Instant) -> Option<u64> {
        let since = self.unacked_since?;
        let is_due = !more || self.unacked >= ACK_MESSAGES || now.saturating_duration_since(since) >= ACK_DELAY;
        is_due.then_some(self.taken.last_seq)
    }

    /// The ack is out.
    pub(super) fn acked(&mut self) {
        self.unacked = 0;
        self.unacked_since = None;
    }

    /// Notes what leaves the queue as taken in, and gives it if it is new and for the application. Early, but nobody can tell: the state is
    /// looked at only when the application has come back for more.
    fn take(&mut self, inbound: Inbound, now: Instant) -> Option<Incoming> {
        match inbound {
            Inbound::Message(message) if !self.is_numbered => Some(message),
            Inbound::Message(message) => self.note(&message, now).then_some(message),
            Inbound::Mark(mark) => {
                self.note(&mark, now);
                None
            }
            Inbound::CountAnew => {
                self.taken.last_seq = 0;
                self.acked();
                None
            }
        }
    }

    /// `false` = it was taken in before.
    fn note(&mut self, message: &Incoming, now: Instant) -> bool {
        let is_new_seq = message.seq.is_none_or(|seq| seq > self.taken.last_seq);
        if let Some(seq) = message.seq {
            self.taken.last_seq = self.taken.last_seq.max(seq);
            self.unacked += 1;
            self.unacked_since.get_or_insert(now);
        }
        let is_new_id = message.msg_id.is_none_or(|msg_id| self.taken.seen.insert(&message.from, msg_id));
        is_new_seq && is_new_id
    }
}
