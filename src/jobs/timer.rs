//! The timer: what has waited long enough goes to disk, what is acknowledged leaves it, what is too old is given up.
//!
//! One pass takes the agenda's lists of mailboxes, or that of those who owe receipts alone. Each gives its part under its own lock: messages to save, acknowledged rows to delete, a
//! last-seen time. The parts of all go into one transaction (at most `limits::SAVE_ROWS` rows; then another), written with no lock held.
//! Only after the commit has returned do the windows learn of it, and then the senders. A save that fails changes nothing: everything stays on the agenda and is
//! tried again, at growing distances. So is one that panics: the thread that saves must not end before the server does.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Stamp;
use crate::delivery::{Collected, Delivery, Ledger, List, Mailbox, Owed, SaveList, Session, Taken, Unsaved, Wake};
use crate::limits;
use crate::protocol::{Decoder, Frame, Message, UserName};
use crate::storage::{Batch, Delete, Insert, Row, Saved, SenderUpdate, StorageError};
use crate::{faults, threads};

/// What the last save before a stop did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LastSave {
    /// Messages written.
    pub saved: u64,
    /// Messages that could not be written.
    pub unsaved: u64,
}

/// How often a mailbox with more than a batch comes again in one pass; what is left then is due at once in the next.
const MAX_TURNS: u32 = 8;

/// Tries of the last save, however late it is.
const LAST_TRIES: u32 = 3;

/// Reserves the numbers of the first messages.
///
/// # Errors
/// The database cannot be written.
pub fn reserve_seqs(delivery: &Delivery) -> Result<(), StorageError> {
    let Some(floor) = delivery.seqs.floor_to_save() else { return Ok(()) };
    delivery.storage.save(&Batch { seq_floor: Some(floor), ..Batch::default() })?;
    delivery.seqs.reserved(floor);
    Ok(())
}

/// Who starts writers: a receipt's socket may be full, and the timer waits for none.
pub trait StartWriter {
    /// Starts the session's writer, as its outbox has told the caller to.
    fn start_writer(&self, session: Arc<Session>);
}

/// The body of the timer's thread: until the agenda says stop, then a last save.
pub fn timer_loop(
    delivery: &Arc<Delivery>,
    writers: &dyn StartWriter,
    expire_after: Duration,
    report: &Mutex<LastSave>,
) {
    let mut timer = Timer::new(delivery, writers, expire_after);
    // At once, and not in a pass: that would save what has just come.
    if timer.expire_at_ms.is_some() {
        timer.expire(delivery.now());
    }
    let deadline = loop {
        let wake = delivery.agenda.wait(&*delivery.clock, timer.expire_at_ms, timer.not_before_ms, timer.failures == 0);
        match wake {
            Wake::Stop { deadline } => break deadline,
            Wake::Look | Wake::Urgent => timer.tick(),
            Wake::Receipts => timer.receipts(),
        }
    };
    *report.lock() = timer.last_save(deadline);
    if let Err(error) = delivery.storage.close() {
        log::error!("the database was not closed in order, which the next start mends: {error}");
    }
}

struct Timer<'a> {
    delivery: &'a Arc<Delivery>,
    writers: &'a dyn StartWriter,
    decoder: Decoder,
    /// The sessions with receipts that are due.
    owed: Owed,
    expire_after_ms: i64,
    /// Saves that failed since the last one that wrote something.
    failures: u32,
    /// The present save has written something: the disk works.
    has_written: bool,
    not_before_ms: u64,
    expire_at_ms: Option<u64>,
    /// A save that somebody waits for.
    asked: Option<Asked>,
    orphans: Orphans,
}

/// A save that was asked for: its number, and up to where each mailbox is to be saved.
struct Asked {
    number: u64,
    mailboxes: Vec<(Arc<str>, u64)>,
}

/// Mailboxes that a panic took out of the timer's hands: they are on no list, and think that they are.
type Orphans = Rc<RefCell<Vec<(Arc<Mailbox>, List)>>>;

/// A mailbox that is looked at in this pass, with the list that it was on.
struct Turn {
    mailbox: Option<Arc<Mailbox>>,
    on: List,
    /// How often it came before in this pass.
    count: u32,
    /// It does not come again in this pass.
    is_last: bool,
    orphans: Orphans,
}

impl Turn {
    fn mailbox(&self) -> &Arc<Mailbox> {
        self.mailbox.as_ref().expect("it is taken out at the end only")
    }

    /// It comes again.
    fn next(&mut self) -> Turn {
        self.is_last = false;
        let Turn { mailbox, on, count, orphans, .. } = self;
        Turn { mailbox: mailbox.clone(), on: *on, count: *count + 1, is_last: true, orphans: orphans.clone() }
    }

    /// The pass is over for it: back to its list, or off it.
    fn end(mut self, now: Stamp, delivery: &Delivery) -> Arc<Mailbox> {
        let mailbox = self.mailbox.take().expect("it is taken out once");
        mailbox.relist(self.on, now, delivery);
        mailbox
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take()
            && self.is_last
            && std::thread::panicking()
        {
            self.orphans.borrow_mut().push((mailbox, self.on));
        }
    }
}

/// One mailbox's part in the present batch.
struct Part {
    turn: Turn,
    collected: Collected,
    /// Where its rows begin in the batch.
    first_row: usize,
}

impl Timer<'_> {
    fn new<'a>(delivery: &'a Arc<Delivery>, writers: &'a dyn StartWriter, expire_after: Duration) -> Timer<'a> {
        Timer {
            delivery,
            writers,
            decoder: Decoder::default(),
            owed: Owed::default(),
            expire_after_ms: expire_after.as_millis() as i64,
            failures: 0,
            has_written: false,
            not_before_ms: 0,
            expire_at_ms: (!expire_after.is_zero()).then_some(0),
            asked: None,
            orphans: Orphans::default(),
        }
    }

    /// A pass over those who owe receipts.
    fn receipts(&mut self) {
        let now = self.delivery.now();
        let taken = self.delivery.agenda.take(true);
        if self.save(taken, false, now).is_err() {
            self.not_before_ms = self.delivery.now().mono_ms + retry_pause(self.failures).as_millis() as u64;
        }
    }

    fn tick(&mut self) {
        let now = self.delivery.now();
        self.note_asked();
        let taken = self.delivery.agenda.take(false);
        // Somebody waits for room, in memory or among the messages without a receipt. Asked after `take`: who asks later is heard in the next pass.
        let is_awaited = self.delivery.memory.is_tight() || self.delivery.memory.waiting() > 0;
        let saved = self.save(taken, is_awaited || self.asked.is_some(), now);
        let is_saved = saved.is_ok();
        self.answer_asked(saved);
        let now = self.delivery.now();
        if is_saved && self.expire_at_ms.is_some_and(|at| at <= now.mono_ms) {
            self.expire(now);
        }
        // Passes are at least a quarter of the interval apart, so that a busy server looks at all it has to look at a few times a second.
        let pause_ms = match self.failures {
            0 => self.delivery.limits.save_interval_ms / 4,
            failures => retry_pause(failures).as_millis() as u64,
        };
        self.not_before_ms = now.mono_ms + pause_ms;
    }

    /// Takes note of a save that somebody asked for, and of what it has to hold.
    fn note_asked(&mut self) {
        if self.asked.is_none()
            && let Some(number) = self.delivery.agenda.asked()
        {
            let mut mailboxes = Vec::new();
            for mailbox in self.delivery.registry.loaded() {
                if mailbox.unsaved() > 0 {
                    mailboxes.push((mailbox.key().clone(), mailbox.last()));
                }
                self.delivery.release(mailbox);
            }
            self.asked = Some(Asked { number, mailboxes });
        }
    }

    /// Answers whoever waits for it, as soon as all of it is on disk; a busy mailbox may take several passes.
    fn answer_asked(&mut self, saved: Result<u64, StorageError>) {
        let Some(mut asked) = self.asked.take() else { return };
        asked.mailboxes.retain(|(key, last)| {
            // A mailbox that has left memory knows nothing that the database does not.
            self.delivery.registry.peek(key).is_some_and(|mailbox| {
                let is_safe = mailbox.is_safe(*last);
                self.delivery.release(mailbox);
                !is_safe
            })
        });
        match saved {
            Err(error) => self.delivery.agenda.answer(asked.number, Err(error.to_string())),
            Ok(_) if asked.mailboxes.is_empty() => self.delivery.agenda.answer(asked.number, Ok(())),
            Ok(_) => self.asked = Some(asked),
        }
    }

    /// Saves what these mailboxes have to save, in as many transactions as it takes; all of it when `all`. Then each goes back to the agenda or leaves it.
    fn save(&mut self, taken: Taken, all: bool, now: Stamp) -> Result<u64, StorageError> {
        // They must not look as if somebody needed them.
        let ledgers: Vec<Weak<Ledger>> = taken.ledgers.iter().map(Arc::downgrade).collect();
        self.has_written = false;
        let result = threads::caught(|| self.save_all(taken, all, now)).unwrap_or_else(|why| {
            self.delivery.counters.panics.add(1);
            // As after a commit that failed: all of them come again. What may have been committed is then written or told a second time, which is harmless; only
            // the books of what waits may say too much, until the mailbox is read anew.
            for (mailbox, on) in self.orphans.take() {
                mailbox.relist(on, now, self.delivery);
                self.delivery.release(mailbox);
            }
            for ledger in ledgers.iter().filter_map(Weak::upgrade) {
                let _not_written = ledger.collect(&[], now.unix_ms);
                ledger.relist(now.mono_ms + self.delivery.limits.save_interval_ms, self.delivery);
            }
            Err(StorageError::Panicked(why))
        });
        self.note(&result);
        result
    }

    fn save_all(&mut self, taken: Taken, all: bool, now: Stamp) -> Result<u64, StorageError> {
        let Taken { mailboxes, mut ledgers } = taken;
        let first =
            |(mailbox, on)| Turn { mailbox: Some(mailbox), on, count: 0, is_last: true, orphans: self.orphans.clone() };
        let mut rest: VecDeque<Turn> = mailboxes.into_iter().map(first).collect();
        let mut result = Ok(0);
        // Somebody may wait for nothing else.
        let mut wants_floor = self.delivery.seqs.floor_to_save().is_some();
        while std::mem::take(&mut wants_floor) || !rest.is_empty() || !ledgers.is_empty() {
            let (mut parts, mut list) = (Vec::new(), SaveList::default());
            list.senders.extend(ledgers.drain(..).map(|ledger| (ledger, None)));
            while parts.len() < limits::SAVE_ROWS && list.messages.len() < limits::SAVE_ROWS {
                let Some(mut turn) = rest.pop_front() else { break };
                let first_row = list.messages.len();
                let room = limits::SAVE_ROWS - first_row;
                let collected = turn.mailbox().collect(&mut list, room, all, now, self.delivery, &mut self.owed);
                let is_partial = collected.is_partial;
                if is_partial && turn.count < MAX_TURNS {
                    // It may be filled faster than it is saved: the others come first.
                    rest.push_back(turn.next());
                }
                parts.push(Part { turn, collected, first_row });
                if is_partial {
                    break;
                }
            }
            let committed = self.commit(parts, &mut list, now);
            self.owed.flush(self.delivery, |session| self.writers.start_writer(session));
            match committed {
                Ok(rows) => result = result.map(|saved| saved + rows),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for turn in rest {
            self.delivery.release(turn.end(now, self.delivery));
        }
        result
    }

    /// One transaction, and what follows from it.
    fn commit(&mut self, parts: Vec<Part>, list: &mut SaveList, now: Stamp) -> Result<u64, StorageError> {
        let (senders, updates) = self.senders(std::mem::take(&mut list.senders), now);
        let batch = self.batch(&parts, list, updates);
        let is_empty = batch.inserts.is_empty()
            && batch.senders.is_empty()
            && batch.deletes.is_empty()
            && batch.seen.is_empty()
            && batch.seq_floor.is_none();
        faults::point("save");
        let saved = if is_empty { Ok(Saved::default()) } else { self.write(&batch) };
        faults::point("saved");
        self.has_written |= !is_empty && saved.is_ok();
        if let Ok(saved) = &saved {
            if let Some(floor) = batch.seq_floor {
                self.delivery.seqs.reserved(floor);
                self.delivery.memory.wake_all();
            }
            let mut removed = saved.deleted.iter();
            for part in &parts {
                let rows = part.first_row..part.first_row + part.collected.rows as usize;
                let aside = saved.set_aside.iter().filter(|index| rows.contains(index));
                let aside: Vec<&Row> = aside.map(|&index| &batch.inserts[index].row).collect();
                let seqs: Vec<u64> = aside.iter().map(|row| row.seq).collect();
                let bytes = aside.iter().map(|row| row.text.len() as u64).sum();
                let removed =
                    if part.collected.deleted_upto > 0 { removed.next().copied().unwrap_or_default() } else { (0, 0) };
                part.turn.mailbox().committed(&part.collected, &seqs, bytes, removed, self.delivery, &mut self.owed);
            }
            for (index, (ledger, update)) in senders.iter().zip(&batch.senders).enumerate() {
                if !saved.senders_failed.contains(&index) {
                    ledger.committed(update, &mut self.owed);
                }
            }
            self.tell_delivered(&saved.delivered, now);
            // Messages that have a receipt now make room for others.
            self.delivery.memory.nudge();
        }
        let again_at_ms = now.mono_ms + self.delivery.limits.save_interval_ms;
        senders.iter().for_each(|ledger| ledger.relist(again_at_ms, self.delivery));
        drop(senders);
        for part in parts {
            // A mailbox with more than there was room for comes again in this pass.
            if part.turn.is_last {
                self.delivery.release(part.turn.end(now, self.delivery));
            }
        }
        saved.map(|_| batch.inserts.len() as u64)
    }

    /// The senders of whom something is to be written, and what.
    fn senders(&self, mut named: Vec<(Arc<Ledger>, Option<u64>)>, now: Stamp) -> (Vec<Arc<Ledger>>, Vec<SenderUpdate>) {
        named.sort_by_key(|(ledger, msg_id)| (Arc::as_ptr(ledger).addr(), *msg_id));
        let of_one = named.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other));
        let collected = of_one.filter_map(|same| {
            let saving: Vec<u64> = same.iter().filter_map(|(_, msg_id)| *msg_id).collect();
            Some((same[0].0.clone(), same[0].0.collect(&saving, now.unix_ms)?))
        });
        collected.unzip()
    }

    /// Tells the senders who are there that messages of theirs, which were on disk, are acknowledged.
    fn tell_delivered(&mut self, delivered: &[(String, u64)], now: Stamp) {
        for of_one in delivered.chunk_by(|(one, _), (other, _)| one == other) {
            let Ok(sender) = UserName::parse(&of_one[0].0) else { continue };
            if let Some(mailbox) = self.delivery.registry.peek(sender.key()) {
                for (_, msg_id) in of_one {
                    mailbox.delivered(*msg_id, now.mono_ms, self.delivery, &mut self.owed);
                }
                self.delivery.release(mailbox);
            }
        }
    }

    /// Writes the batch, and counts what became of it.
    fn write(&self, batch: &Batch) -> Result<Saved, StorageError> {
        let Delivery { counters, saves, storage, .. } = &**self.delivery;
        let begun_at = Instant::now();
        saves.begin(self.delivery.now().mono_ms);
        let saved = storage.save(batch).inspect_err(|_| counters.saves_failed.add(1))?;
        saves.succeed(self.delivery.now(), begun_at.elapsed());
        counters.saves.add(1);
        counters.stored.add((batch.inserts.len() - saved.set_aside.len()) as u64);
        counters.set_aside.add(saved.set_aside.len() as u64);
        counters.delivered_from_disk.add(saved.deleted.iter().map(|(messages, _)| messages).sum());
        Ok(saved)
    }

    fn batch(&mut self, parts: &[Part], list: &SaveList, senders: Vec<SenderUpdate>) -> Batch {
        let starts = std::iter::once(0).chain(list.messages.iter().map(|message| message.end));
        let deletes = parts.iter().filter(|part| part.collected.deleted_upto > 0);
        Batch {
            inserts: starts
                .zip(&list.messages)
                .map(|(start, message)| self.insert(&list.packets[start..message.end], message))
                .collect(),
            deletes: deletes
                .map(|part| Delete { recipient: part.turn.mailbox().key().clone(), seq: part.collected.deleted_upto })
                .collect(),
            seen: parts.iter().filter_map(|part| part.collected.seen.clone()).collect(),
            seq_floor: self.delivery.seqs.floor_to_save(),
            senders,
        }
    }

    /// The row of a message. Memory holds packets, since most of them never become rows.
    fn insert(&mut self, packet: &[u8], message: &Unsaved) -> Insert {
        let frame = Frame { kind: 5, packet };
        let Ok(Message::Chat(chat)) = self.decoder.decode(&self.delivery.cipher, frame).map(|decoded| decoded.message)
        else {
            unreachable!("a packet in a window was decoded, or encoded by us, when it was accepted");
        };
        let row = Row {
            seq: message.seq,
            sender: chat.from.into(),
            text: chat.text.into(),
            client_time: chat.time,
            accepted_at: message.accepted_at,
            msg_id: message.msg_id,
        };
        Insert { recipient: message.recipient.clone(), row }
    }

    fn note(&mut self, result: &Result<u64, StorageError>) {
        match result {
            Ok(rows) => {
                // A pass that had nothing to write knows nothing of the disk.
                if self.failures > 0 && self.has_written {
                    log::warn!("saving works again after {} failed tries; {rows} messages written", self.failures);
                    self.failures = 0;
                }
                if *rows > 0 {
                    log::debug!("saved {rows} messages");
                }
            }
            Err(error) => {
                self.failures += 1;
                let pause = retry_pause(self.failures);
                log::error!(
                    "saving failed (try {}): {error}; nothing is lost, next try in {} ms",
                    self.failures,
                    pause.as_millis()
                );
            }
        }
    }

    /// Gives up what is too old, and finds out when to look again.
    fn expire(&mut self, now: Stamp) {
        let oldest_kept = now.unix_ms - self.expire_after_ms;
        // It may hang in a sync like any save.
        let is_first = self.delivery.saves.begin(now.mono_ms);
        let expired = threads::caught(|| self.expire_older_than(oldest_kept));
        let result = expired.unwrap_or_else(|why| {
            self.delivery.counters.panics.add(1);
            Err(StorageError::Panicked(why))
        });
        if is_first {
            self.delivery.saves.end();
        }
        let wait_ms = match result {
            Ok(Some(oldest_at)) => (oldest_at + self.expire_after_ms - now.unix_ms).clamp(0, EXPIRE_PAUSE_MS.1),
            Ok(None) => self.expire_after_ms.min(EXPIRE_PAUSE_MS.1),
            Err(error) => {
                log::error!("expiry failed, trying again: {error}");
                EXPIRE_PAUSE_MS.1
            }
        };
        self.expire_at_ms = Some(now.mono_ms + wait_ms.max(EXPIRE_PAUSE_MS.0) as u64);
    }

    /// Removes what was accepted before this time, Unix milliseconds; gives when the oldest was accepted that is left.
    fn expire_older_than(&self, oldest_kept: i64) -> Result<Option<i64>, StorageError> {
        self.delivery.storage.expire(oldest_kept, limits::EXPIRE_ROWS).and_then(|expired| {
            let messages: u64 = expired.iter().map(|user| user.messages).sum();
            for user in expired {
                if let Some(mailbox) = self.delivery.registry.peek(&user.recipient) {
                    // Nobody but this thread writes, so it is the truth until the next save.
                    let left = self.delivery.storage.backlog(&user.recipient);
                    if let Ok(left) = &left {
                        mailbox.expired(*left);
                    }
                    self.delivery.release(mailbox);
                    left?;
                }
            }
            self.delivery.counters.expired.add(messages);
            if messages > 0 {
                log::info!("{messages} messages expired");
            }
            self.delivery.storage.oldest_at()
        })
    }

    /// Everything that is in memory only. A disk that fails is tried again until `deadline`, and a few times however late it is.
    fn last_save(&mut self, deadline: Instant) -> LastSave {
        let (mut saved, mut failures) = (0, 0);
        loop {
            let now = self.delivery.now();
            let ledgers = self.delivery.agenda.take(false).ledgers;
            let loaded = self.delivery.registry.loaded();
            let mailboxes = loaded.into_iter().map(|mailbox| (mailbox, List::Regular)).collect();
            let result = self.save(Taken { mailboxes, ledgers }, true, now);
            match result {
                Ok(rows) => saved += rows,
                Err(_) => failures += 1,
            }
            let unsaved = self.delivery.registry.loaded().iter().map(|mailbox| mailbox.unsaved()).sum();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_given_up = failures >= LAST_TRIES && left.is_zero();
            if is_given_up || unsaved == 0 && result.is_ok() {
                return LastSave { saved, unsaved };
            }
            if result.is_err() {
                let pause = retry_pause(failures);
                // The last try is at the deadline.
                std::thread::sleep(if failures < LAST_TRIES { pause } else { pause.min(left) });
            }
        }
    }
}

/// Shortest and longest pause between two looks for expired messages, in milliseconds.
const EXPIRE_PAUSE_MS: (i64, i64) = (1_000, 3_600_000);

fn retry_pause(failures: u32) -> Duration {
    let doubled = limits::SAVE_RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(limits::SAVE_RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_at_growing_distances() {
        let pauses: Vec<u64> = [1, 2, 3, 7, 40].map(|failures| retry_pause(failures).as_millis() as u64).into();
        assert_eq!(pauses, [250, 500, 1000, 4000, 4000]);
    }
}
