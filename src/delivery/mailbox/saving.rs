//! The timer's side of a mailbox: what it gives for a save, and what a commit makes true.
//!
//! A pass is `collect`, the commit with no lock held, `committed`, and in any case `relist`.

use std::sync::Arc;

use super::super::Delivery;
use super::super::ledger::Ledger;
use super::super::owed::Owed;
use super::super::present::Present;
use super::super::window::Window;
use super::{Entry, Mailbox, State};
use crate::clock::Stamp;
use crate::limits;
use crate::storage::{self, Backlog};

/// Messages that are about to be saved, copied out of their mailboxes.
#[derive(Default)]
pub struct SaveList {
    /// Their packets, one after another.
    pub packets: Vec<u8>,
    /// The messages, in order.
    pub messages: Vec<Unsaved>,
    /// The level-2 senders of whom something is to be written, with the numbers of theirs that are in `messages`. A sender may be there several times.
    pub senders: Vec<(Arc<Ledger>, Option<u64>)>,
}

/// One message of a `SaveList`.
#[derive(Debug)]
pub struct Unsaved {
    /// `UserName::key` of the recipient.
    pub recipient: Arc<str>,
    /// Its place in the recipient's window.
    pub seq: u64,
    /// When it was accepted, Unix milliseconds.
    pub accepted_at: i64,
    /// Its level-2 sender's number for it.
    pub msg_id: Option<u64>,
    /// Where its packet ends in `SaveList::packets`; it begins where the one before ends.
    pub end: usize,
}

/// One mailbox's part of a save, between `collect` and `committed`.
#[derive(Debug, Default)]
pub struct Collected {
    /// Everything unacknowledged up to here is in the batch; 0 = nothing.
    pub saved_upto: u64,
    /// Rows collected.
    pub rows: u64,
    /// Bytes of their texts.
    pub text_bytes: u64,
    /// Everything up to here is deleted by the batch; 0 = nothing.
    pub deleted_upto: u64,
    /// The user's name and last-seen time, which go into the batch.
    pub seen: Option<storage::Seen>,
    /// The batch had no room for all of it.
    pub is_partial: bool,
}

/// On which of the agenda's lists a mailbox was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Of those with something unsaved, unacknowledged or to be deleted.
    Regular,
    /// Of those who owe receipts.
    Receipts,
    /// On both.
    Both,
}

impl Mailbox {
    /// Puts this mailbox's part into `batch`: what waited long enough, or everything when `all`; at most `max_rows` rows.
    pub(crate) fn collect(
        &self,
        list: &mut SaveList,
        max_rows: usize,
        all: bool,
        now: Stamp,
        delivery: &Delivery,
        owed: &mut Owed,
    ) -> Collected {
        let mut state = self.state.lock();
        state.collect_acks(delivery, owed);
        let mut collected = Collected { deleted_upto: state.window().to_delete().unwrap_or(0), ..Collected::default() };
        if let Some(seen) = &mut state.seen {
            seen.in_batch = true;
            collected.seen = Some(storage::Seen { name: seen.name.clone(), key: self.key.clone(), at: seen.at });
        }
        let is_absent = state.present.as_ref().is_none_or(|present| present.is_ending);
        let holds_much = state.held.is_much(delivery);
        // Those that fall due soon come along: many senders share one sync.
        let soon_ms = now.mono_ms + delivery.limits.receipt_interval_ms / 2;
        let owed_since = state.receipt_owed_since();
        let is_receipt_due = owed_since.is_some_and(|since| since + delivery.limits.receipt_interval_ms <= soon_ms);
        state.is_hurried = false;
        if let (true, Some(ledger)) = (is_absent, &state.ledger) {
            list.senders.push((ledger.clone(), None));
        }
        let State { window: Some(window), packets, awaited, .. } = &mut *state else { return collected };
        let is_due = |entry: &Entry| entry.accepted.mono_ms + delivery.limits.save_interval_ms <= now.mono_ms;
        let is_due = |entry: &Entry| all || is_absent || holds_much || is_receipt_due || is_due(entry);
        if window.first_unsaved().is_some_and(is_due) {
            let room_bytes = limits::SAVE_BYTES.saturating_sub(list.packets.len());
            let mut bytes = 0;
            let has_room = |entry: &&Entry| {
                bytes += entry.place.length();
                bytes <= room_bytes || list.packets.is_empty() && bytes == entry.place.length()
            };
            let count = window.unsaved_entries().take(max_rows).take_while(has_room).count();
            collected.is_partial = window.unsaved() > count as u64;
            for (seq, entry) in window.begin_save(count) {
                list.packets.extend_from_slice(packets.at(entry.place));
                let (accepted_at, end) = (entry.accepted.unix_ms, list.packets.len());
                let msg_id = entry.msg_id;
                list.messages.push(Unsaved { recipient: self.key.clone(), seq, accepted_at, msg_id, end });
                collected.saved_upto = seq;
                collected.rows += 1;
                collected.text_bytes += u64::from(entry.text_bytes);
            }
            let saved = window.saved_upto();
            let from = awaited.partition_point(|awaited| awaited.seq <= saved);
            let saving = awaited.range(from..).take_while(|awaited| awaited.seq <= collected.saved_upto);
            list.senders.extend(saving.map(|awaited| (awaited.ledger.clone(), Some(awaited.msg_id))));
        }
        collected
    }

    /// The commit has returned. The messages `set_aside`, with texts of `set_aside_bytes`, are on no disk after all; `removed` rows and bytes were deleted.
    pub(crate) fn committed(
        &self,
        collected: &Collected,
        set_aside: &[u64],
        set_aside_bytes: u64,
        removed: (u64, u64),
        delivery: &Delivery,
        owed: &mut Owed,
    ) {
        let mut state = self.state.lock();
        let window = state.window();
        let saved_before = window.saved_upto();
        window.saved(collected.saved_upto);
        window.deleted(collected.deleted_upto);
        let saved_upto = window.saved_upto();
        let from = state.awaited.partition_point(|awaited| awaited.seq <= saved_before);
        for awaited in state.awaited.range(from..).take_while(|awaited| awaited.seq <= saved_upto) {
            match set_aside.contains(&awaited.seq) {
                true => awaited.ledger.refuse(awaited.msg_id, None, owed),
                false => awaited.ledger.stored(awaited.msg_id, owed),
            }
        }
        state.disk.messages = (state.disk.messages + collected.rows).saturating_sub(set_aside.len() as u64 + removed.0);
        state.disk.bytes = (state.disk.bytes + collected.text_bytes).saturating_sub(set_aside_bytes + removed.1);
        if collected.seen.is_some() && state.seen.as_ref().is_some_and(|seen| seen.in_batch) {
            state.seen = None;
            delivery.memory.release(limits::MAILBOX_BYTES);
        }
        // A recipient who is there and has fallen behind by less than an outbox gets the rest from memory; anybody else from disk.
        let is_present = state.present.is_some();
        let keeps_up = is_present && !delivery.memory.is_tight() && !state.held.is_much(delivery);
        let upto = if keeps_up { state.window().sent() } else { saved_upto };
        state.evict(upto, delivery);
        state.shrink();
    }

    /// After a pass: puts the mailbox on the agenda again when something is left to do; otherwise it leaves the list that it was on.
    pub(crate) fn relist(self: &Arc<Self>, list: List, now: Stamp, delivery: &Delivery) {
        let mut state = self.state.lock();
        if list != List::Regular {
            state.owes_receipts = false;
            if let Some(since_ms) = state.receipt_owed_since() {
                self.enlist_for_receipts(&mut state, since_ms.max(now.mono_ms), delivery);
            }
        }
        // The other list has it still, and will see to the rest.
        if list == List::Receipts && state.is_listed {
            return;
        }
        state.is_listed = false;
        let save_interval_ms = delivery.limits.save_interval_ms;
        let oldest_ms = state.window().first_unsaved().map(|entry| entry.accepted.mono_ms);
        if let Some(present) = &state.present {
            present.session.outbox.shrink();
        }
        let is_awaiting = state.present.as_ref().is_some_and(Present::is_awaiting);
        // Whoever has the ledger for a message of this user's, or a session that is over, lets go of it without a word to the registry.
        let is_ledger_needed =
            state.ledger.as_ref().is_some_and(|ledger| !ledger.is_clean() || Arc::strong_count(ledger) > 1);
        let is_needed = is_ledger_needed || Arc::strong_count(&self.sessions) > 1;
        let due_at_ms = match oldest_ms {
            Some(oldest_ms) => Some((oldest_ms + save_interval_ms).max(now.mono_ms + 1)),
            None if state.window().to_delete().is_some()
                || state.seen.is_some()
                || is_awaiting
                || state.present.is_none() && is_needed =>
            {
                Some(now.mono_ms + save_interval_ms)
            }
            None => None,
        };
        if let Some(due_at_ms) = due_at_ms {
            state.is_listed = true;
            delivery.agenda.add(self.clone(), due_at_ms);
        }
    }

    /// The highest number handed out, for `is_safe`.
    pub(crate) fn last(&self) -> u64 {
        self.state.lock().window.as_ref().map_or(0, Window::last)
    }

    /// Everything up to `seq` is on disk or acknowledged.
    pub(crate) fn is_safe(&self, seq: u64) -> bool {
        self.state.lock().window.as_ref().is_none_or(|window| window.saved_upto().max(window.acked()) >= seq)
    }

    /// Messages in memory that are on no disk.
    pub(crate) fn unsaved(&self) -> u64 {
        self.state.lock().window.as_ref().map_or(0, Window::unsaved)
    }

    /// Rows were removed from disk for their age; this is what is left.
    pub(crate) fn expired(&self, left: Backlog) {
        let mut state = self.state.lock();
        state.stale_readings += 1;
        state.disk = left;
    }
}
