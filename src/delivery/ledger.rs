//! What is remembered of a level-2 sender: its last message numbers, each with a hash and what became of the message, so that one sent again is
//! recognised; and the receipts that are to be written to it.
//!
//! Numbers go to disk in the transaction of their messages. What must never be there is the number of a message that is not: a resend after
//! a crash would be taken for known, and the message would be lost. So a number whose message is neither stored nor delivered is left out.
//!
//! A message that was delivered before it had to be saved leaves its number in memory alone: should the sender send it again after a crash,
//! its recipient drops it by that number. Therefore no number may ever be used for two messages, and `reserved_upto` on disk is above all
//! that were seen: a DELIVERED above it waits until a higher one is written.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::Mutex;

use super::Delivery;
use super::owed::Owed;
use super::session::Session;
use crate::limits::{self, MSG_ID_RESERVE};
use crate::protocol::{Cipher, MAX_NUMBER, Message, Reason, Receipt, Status};
use crate::storage::{SenderState, SenderUpdate, SentBlock, SentId};

/// A message of a level-2 sender, on its way into a mailbox.
#[derive(Clone)]
pub struct Numbered {
    /// Its sender's.
    pub ledger: Arc<Ledger>,
    /// The sender's number for it.
    pub msg_id: u64,
    /// What is compared when the number comes again.
    pub hash: u64,
}

/// What is known of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: the message may be taken.
    New,
    /// The same message was taken before. Its present state, if there is one to tell, is among the receipts.
    Same,
    /// Another message has this number.
    Used,
    /// It is older than what is kept.
    TooOld,
    /// The oldest of as many messages as may be without a receipt has none yet: the sender must wait.
    Full,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Fate {
    Pending,
    Stored,
    Delivered,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    id: u64,
    hash: u64,
    fate: Fate,
    /// What the database says of it; `Pending`: nothing.
    written: Fate,
    /// It is delivered, and its receipt waits until its number is below `reserved_upto`.
    is_held: bool,
}

impl Sent {
    /// Its sender has not been told anything of it.
    fn has_no_receipt(&self) -> bool {
        self.fate == Fate::Pending || self.is_held
    }
}

/// Receipts that wait for a flush of their session.
#[derive(Default)]
struct Due {
    stored: Vec<u64>,
    delivered: Vec<u64>,
    refused: Vec<(u64, Option<Reason>)>,
}

impl Due {
    fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.delivered.is_empty() && self.refused.is_empty()
    }
}

/// Safe from any thread.
pub struct Ledger {
    key: Arc<str>,
    state: Mutex<State>, // lock: gate → registry → mailbox → ledger → outbox
}

struct State {
    /// Ascending by number.
    sent: VecDeque<Sent>,
    forgotten_upto: u64,
    highest: u64,
    reserved_upto: u64,
    session: Option<Arc<Session>>,
    due: Due,
    is_listed: bool,
}

const BLOCK: u64 = 64;

impl State {
    fn find(&mut self, id: u64) -> Option<&mut Sent> {
        let index = self.sent.binary_search_by_key(&id, |sent| sent.id).ok()?;
        self.sent.get_mut(index)
    }

    /// Where the reserve should end.
    fn reserve(&self) -> u64 {
        match self.session {
            Some(_) => (self.highest + MSG_ID_RESERVE).min(MAX_NUMBER),
            None => self.highest,
        }
    }

    fn wants_reserve(&self) -> bool {
        match self.session {
            Some(_) => self.reserved_upto < MAX_NUMBER && self.highest + MSG_ID_RESERVE / 2 > self.reserved_upto,
            None => self.reserved_upto != self.highest,
        }
    }

    fn is_clean(&self) -> bool {
        let is_written = |sent: &Sent| sent.fate == sent.written && !sent.is_held;
        !self.wants_reserve() && self.sent.iter().all(is_written)
    }

    /// The receipt is due; the session, if there is one, owes a flush.
    fn tell(&mut self, status: Status, id: u64, owed: &mut Owed) {
        if let Some(session) = &self.session {
            match status {
                Status::Stored => self.due.stored.push(id),
                Status::Delivered => self.due.delivered.push(id),
                Status::Refused => {}
            }
            owed.add(session);
        }
    }
}

impl Ledger {
    /// With what the database remembers of this user.
    pub(super) fn new(key: Arc<str>, known: SenderState) -> Ledger {
        let sent: VecDeque<Sent> = known
            .ids
            .iter()
            .filter(|sent| sent.id > known.forgotten_upto)
            .map(|&SentId { id, hash, is_delivered }| {
                let fate = if is_delivered { Fate::Delivered } else { Fate::Stored };
                Sent { id, hash, fate, written: fate, is_held: false }
            })
            .collect();
        let highest = sent.back().map_or(0, |sent| sent.id).max(known.reserved_upto).max(known.forgotten_upto);
        let state = State {
            sent,
            forgotten_upto: known.forgotten_upto,
            highest,
            reserved_upto: known.reserved_upto,
            session: None,
            due: Due::default(),
            is_listed: false,
        };
        Ledger { key, state: Mutex::new(state) }
    }

    /// No number of this user above it has been seen.
    pub fn highest(&self) -> u64 {
        self.state.lock().highest
    }

    /// What is known of this number. A present state that can be told is among the receipts afterwards. Call behind the sender's gate.
    pub fn check(&self, id: u64, hash: u64, owed: &mut Owed) -> Known {
        let mut state = self.state.lock();
        if let Some(&mut Sent { hash: known, fate, is_held, .. }) = state.find(id) {
            if known != hash {
                return Known::Used;
            }
            match fate {
                Fate::Stored => state.tell(Status::Stored, id, owed),
                Fate::Delivered if !is_held => state.tell(Status::Delivered, id, owed),
                Fate::Pending | Fate::Delivered => {}
            }
            return Known::Same;
        }
        let oldest = state.sent.front().map_or(0, |sent| sent.id);
        match () {
            () if id <= state.forgotten_upto => Known::TooOld,
            () if state.sent.len() < limits::SENT_IDS => Known::New,
            () if id < oldest => Known::TooOld,
            () if state.sent.front().is_some_and(Sent::has_no_receipt) => Known::Full,
            () => Known::New,
        }
    }

    /// One more message may be without a receipt.
    pub fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.sent.len() < limits::SENT_IDS || !state.sent.front().is_some_and(Sent::has_no_receipt)
    }

    /// The message is in its recipient's window. Call after `check` has said `New`, in the same section, under the recipient's mailbox.
    pub(super) fn accepted(&self, id: u64, hash: u64) {
        let mut state = self.state.lock();
        if state.sent.len() >= limits::SENT_IDS
            && let Some(oldest) = state.sent.pop_front()
        {
            state.forgotten_upto = oldest.id;
        }
        let sent = Sent { id, hash, fate: Fate::Pending, written: Fate::Pending, is_held: false };
        let index = state.sent.partition_point(|sent| sent.id < id);
        state.sent.insert(index, sent);
        state.highest = state.highest.max(id);
    }

    /// The commit that holds the message has returned. Whoever waits for room is told by the timer, once.
    pub(super) fn stored(&self, id: u64, owed: &mut Owed) {
        let mut state = self.state.lock();
        if let Some(sent) = state.find(id).filter(|sent| sent.fate == Fate::Pending) {
            sent.fate = Fate::Stored;
            state.tell(Status::Stored, id, owed);
        }
    }

    /// The recipient has acknowledged the message.
    pub(super) fn delivered(self: &Arc<Self>, id: u64, delivery: &Delivery, owed: &mut Owed) {
        let mut state = self.state.lock();
        let reserved_upto = state.reserved_upto;
        let is_second = match state.find(id) {
            Some(sent) if sent.fate == Fate::Delivered => return,
            Some(sent) => {
                let is_second = sent.fate == Fate::Stored;
                sent.fate = Fate::Delivered;
                sent.is_held = id > reserved_upto;
                if sent.is_held {
                    return self.enlist(&mut state, delivery.now().mono_ms, delivery);
                }
                is_second
            }
            // So many have come since that it is forgotten; it had a receipt before.
            None => true,
        };
        // A second receipt is not kept for a sender that does not read: it learns by sending again.
        if !is_second || state.session.as_ref().is_some_and(|session| !session.outbox.is_full()) {
            state.tell(Status::Delivered, id, owed);
        }
        drop(state);
        delivery.memory.nudge();
    }

    /// The message is not taken, or not any more.
    pub fn refuse(&self, id: u64, reason: Option<Reason>, owed: &mut Owed) {
        let mut state = self.state.lock();
        if let Ok(index) = state.sent.binary_search_by_key(&id, |sent| sent.id)
            && state.sent[index].fate == Fate::Pending
            && reason != Some(Reason::IdUsed)
        {
            state.sent.remove(index);
        }
        state.highest = state.highest.max(id);
        if let Some(session) = state.session.clone() {
            state.due.refused.push((id, reason));
            owed.add(&session);
        }
    }

    /// From now on receipts go to this session.
    pub(super) fn attach(self: &Arc<Self>, session: &Arc<Session>, now_ms: u64, delivery: &Delivery) {
        let mut state = self.state.lock();
        state.session = Some(session.clone());
        state.due = Due::default();
        if state.wants_reserve() {
            self.enlist(&mut state, now_ms + delivery.limits.save_interval_ms, delivery);
        }
    }

    /// The session is over: nobody keeps receipts for one that left.
    pub(super) fn detach(&self) {
        let mut state = self.state.lock();
        state.session = None;
        state.due = Due::default();
    }

    fn enlist(self: &Arc<Self>, state: &mut State, due_at_ms: u64, delivery: &Delivery) {
        if !state.is_listed {
            state.is_listed = true;
            delivery.agenda.add_ledger(self.clone(), due_at_ms);
        }
    }

    /// Writes the receipts that are due into the outbox of this session, in as few packets as it takes.
    fn write_receipts(&self, session: &Session, cipher: &Cipher) {
        let mut state = self.state.lock();
        if state.due.is_empty() || state.session.as_ref().is_none_or(|present| present.generation != session.generation)
        {
            return;
        }
        let Due { stored, delivered, refused } = std::mem::take(&mut state.due);
        let mut packet = Vec::new();
        // Under the lock: of two who write, the later one has the later news.
        let mut put = |msg_ids: &[u64], status, reason: Option<Reason>| {
            let text = reason.map(|reason| reason.describe(session.language));
            packet.clear();
            let receipt = Receipt { msg_ids, status, reason, text: text.as_deref() };
            Message::ServerReceipt(receipt).encode(cipher, &mut packet);
            session.outbox.push_answer(&packet);
        };
        for (msg_ids, status) in [(stored, Status::Stored), (delivered, Status::Delivered)] {
            msg_ids.chunks(limits::RECEIPT_IDS).for_each(|msg_ids| put(msg_ids, status, None));
        }
        for same in refused.chunk_by(|(_, one), (_, other)| one == other) {
            let msg_ids: Vec<u64> = same.iter().map(|(id, _)| *id).collect();
            msg_ids.chunks(limits::RECEIPT_IDS).for_each(|msg_ids| put(msg_ids, Status::Refused, same[0].1));
        }
    }

    /// What a save has to write together with the messages `saving` of this sender, numbers in ascending order. `None`: nothing.
    pub(crate) fn collect(&self, saving: &[u64], unix_ms: i64) -> Option<SenderUpdate> {
        let mut state = self.state.lock();
        state.is_listed = false;
        let durable = |sent: &Sent| match saving.binary_search(&sent.id) {
            Ok(_) if sent.fate == Fate::Pending => Fate::Stored,
            _ => sent.fate,
        };
        let mut blocks: Vec<SentBlock> = Vec::new();
        let mut rest = state.sent.iter().peekable();
        while let Some(first) = rest.peek().map(|sent| sent.id / BLOCK) {
            let (mut ids, mut is_dirty) = (Vec::new(), false);
            while let Some(sent) = rest.next_if(|sent| sent.id / BLOCK == first) {
                let fate = durable(sent);
                is_dirty |= fate != sent.written;
                if fate != Fate::Pending {
                    ids.push(SentId { id: sent.id, hash: sent.hash, is_delivered: fate == Fate::Delivered });
                }
            }
            if is_dirty {
                blocks.push(SentBlock { block: first, ids });
            }
        }
        if blocks.is_empty() && !state.wants_reserve() {
            return None;
        }
        let reserved_upto = state.reserve();
        // What is given back may be gone from the disk from now on, whatever the commit says of itself: nothing above it is told as delivered.
        state.reserved_upto = state.reserved_upto.min(reserved_upto);
        Some(SenderUpdate {
            sender: self.key.clone(),
            forgotten_upto: state.forgotten_upto,
            reserved_upto,
            used_at: unix_ms,
            blocks,
        })
    }

    /// The commit of this update has returned.
    pub(crate) fn committed(&self, update: &SenderUpdate, owed: &mut Owed) {
        let mut state = self.state.lock();
        for id in update.blocks.iter().flat_map(|block| &block.ids) {
            if let Some(sent) = state.find(id.id) {
                sent.written = if id.is_delivered { Fate::Delivered } else { Fate::Stored };
            }
        }
        state.reserved_upto = update.reserved_upto;
        let mut released = Vec::new();
        for sent in state.sent.iter_mut().filter(|sent| sent.is_held && sent.id <= update.reserved_upto) {
            sent.is_held = false;
            released.push(sent.id);
        }
        released.into_iter().for_each(|id| state.tell(Status::Delivered, id, owed));
    }

    /// After a pass in which nothing, or not all, could be written.
    pub(crate) fn relist(self: &Arc<Self>, due_at_ms: u64, delivery: &Delivery) {
        let mut state = self.state.lock();
        if state.sent.iter().any(|sent| sent.is_held) || state.session.is_some() && state.wants_reserve() {
            self.enlist(&mut state, due_at_ms, delivery);
        }
    }

    /// The database knows all that it knows.
    pub(super) fn is_clean(&self) -> bool {
        self.state.lock().is_clean()
    }
}

impl Session {
    /// Writes the receipts that are due to its outbox, which must be flushed then.
    pub fn write_receipts(&self, cipher: &Cipher) {
        if let Some(ledger) = &self.ledger {
            ledger.write_receipts(self, cipher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Config;
    use crate::protocol::PUBLISHED_KEY;
    use crate::storage::Storage;

    fn delivery(dir: &std::path::Path) -> Delivery {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        Delivery::new(&Config::default(), cipher, Storage::open(dir).unwrap(), Box::new(SystemClock::new())).unwrap()
    }

    fn ledger() -> Arc<Ledger> {
        Arc::new(Ledger::new("ann".into(), SenderState::default()))
    }

    #[test]
    fn numbers_are_forgotten_from_the_lowest_on_and_never_one_without_a_receipt() {
        let dir = tempfile::tempdir().unwrap();
        let (delivery, ledger, owed) = (delivery(dir.path()), ledger(), &mut Owed::default());
        let many = limits::SENT_IDS as u64;
        for id in 1..=many {
            assert_eq!(ledger.check(id, id, owed), Known::New);
            ledger.accepted(id, id);
        }
        assert_eq!((ledger.check(many + 1, 0, owed), ledger.has_room()), (Known::Full, false), "the first is pending");
        ledger.delivered(1, &delivery, owed);
        // It is above what is reserved on disk: delivered, and not told so yet.
        assert_eq!((ledger.check(many + 1, 0, owed), ledger.has_room()), (Known::Full, false), "the first is held");
        let update = ledger.collect(&[], 7).expect("something to write");
        assert_eq!(update.blocks.len(), 1);
        assert_eq!(update.blocks[0].ids, [SentId { id: 1, hash: 1, is_delivered: true }], "no number that is pending");
        ledger.committed(&update, owed);
        assert_eq!((ledger.check(many + 1, 0, owed), ledger.has_room()), (Known::New, true));
        ledger.accepted(many + 1, 0);
        assert_eq!(ledger.check(1, 1, owed), Known::TooOld);
        assert_eq!((ledger.check(2, 2, owed), ledger.check(2, 3, owed)), (Known::Same, Known::Used));
    }

    /// The sender is away while a save gives the reserve back, comes again before that has returned, and sends: a kill would find the lower reserve.
    #[test]
    fn no_number_is_told_as_delivered_above_a_reserve_that_is_being_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let (delivery, owed) = (delivery(dir.path()), &mut Owed::default());
        let known = SenderState { reserved_upto: 7 + MSG_ID_RESERVE, ..SenderState::default() };
        let ledger = Arc::new(Ledger::new("ann".into(), known));
        ledger.state.lock().highest = 7;
        let given_back = ledger.collect(&[], 7).expect("the reserve is given back");
        assert_eq!(given_back.reserved_upto, 7);
        assert_eq!(ledger.check(8, 8, owed), Known::New);
        ledger.accepted(8, 8);
        ledger.delivered(8, &delivery, owed);
        assert!(ledger.state.lock().find(8).unwrap().is_held, "a kill now would make the number free again");
        ledger.committed(&given_back, owed);
        let next = ledger.collect(&[], 7).unwrap();
        ledger.committed(&next, owed);
        assert!(next.reserved_upto >= 8 && !ledger.state.lock().find(8).unwrap().is_held);
    }

    #[test]
    fn a_save_takes_the_numbers_of_its_own_messages_along_and_of_no_others() {
        let (ledger, owed) = (ledger(), &mut Owed::default());
        for id in [3, 5, 64, 200] {
            ledger.accepted(id, id * 10);
        }
        let update = ledger.collect(&[5, 200], 7).unwrap();
        let written: Vec<u64> = update.blocks.iter().flat_map(|block| &block.ids).map(|sent| sent.id).collect();
        assert_eq!(written, [5, 200]);
        assert_eq!(update.blocks.iter().map(|block| block.block).collect::<Vec<_>>(), [0, 3]);
        // Not committed: the next one takes them again.
        assert_eq!(ledger.collect(&[5, 200], 7).map(|again| again.blocks.len()), Some(2));
        ledger.committed(&update, owed);
        assert!(!ledger.is_clean(), "5 and 200 are stored on disk, and pending in memory until their mailboxes say so");
    }
}
