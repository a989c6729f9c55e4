//! A user's way in: one lock around the window and the present session.
//!
//! The mailbox turns events into moves of the window's cursors and keeps the books: memory charged, rows on disk, what the timer must look
//! at. It reads no disk and waits for nothing; the only system calls under its lock are those that ask TCP what was acknowledged.
//! Whoever acts for a session names it, and a session that is not the present one any more changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::Mutex;

mod saving;

pub use saving::{Collected, List, SaveList, Unsaved};

use super::Delivery;
use super::ledger::{Ledger, Numbered};
use super::owed::Owed;
use super::packets::{Packets, Place};
use super::present::Present;
use super::session::Session;
use super::window::{Next, Window};
use crate::clock::Stamp;
use crate::limits;
use crate::protocol::UserName;
use crate::storage::{self, Backlog};

/// A message in memory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where the packet is that its recipient gets.
    place: Place,
    /// Bytes of its text, which is what the backlog's limits count.
    text_bytes: u32,
    accepted: Stamp,
    /// Its level-2 sender's number for it.
    msg_id: Option<u64>,
}

/// A message in memory whose sender is to be told what becomes of it.
struct Awaited {
    seq: u64,
    accepted_ms: u64,
    msg_id: u64,
    ledger: Arc<Ledger>,
}

impl Entry {
    fn cost(&self) -> usize {
        cost(self.place.length())
    }
}

/// What a message of `packet_bytes` in memory is charged.
fn cost(packet_bytes: usize) -> usize {
    packet_bytes + limits::ENTRY_BYTES
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is in the recipient's outbox, which the caller must flush.
    Live,
    /// It waits in the window; the caller must flush the outbox all the same when there is a session, for the outbox may have to bring it.
    Waiting,
    /// It was not taken: too much waits for this recipient already.
    BacklogFull,
    /// It was not taken: the database has its full size.
    NoSpace,
    /// It was not taken yet: the caller waits for room, holding no lock, and tries again.
    NoRoom,
    /// It was not taken: the server has stopped.
    Stopped,
}

/// The window's five cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Cursors {
    /// Up to here everything is acknowledged.
    pub acked: u64,
    /// … handed to the present session.
    pub sent: u64,
    /// … and not acknowledged is on disk only.
    pub evicted: u64,
    /// … and not acknowledged is on disk.
    pub saved: u64,
    /// … is accepted.
    pub last: u64,
}

/// How a mailbox stands.
pub struct MailboxReading {
    /// The cursors.
    pub cursors: Cursors,
    /// Everything unsent is in memory: no disk has to be read.
    pub is_live: bool,
    /// Messages that are not acknowledged.
    pub waiting: u64,
    /// Who is there.
    pub present: Option<Arc<Session>>,
    /// A login is not in the database yet.
    pub is_seen: bool,
}

/// What a session begins with.
pub struct Welcome<'a> {
    /// The login answer, first of all.
    pub answer: &'a [u8],
    /// What a level-2 client says it has taken in, ever.
    pub last_seq: Option<u64>,
    /// Follows the answer when that is more than was ever handed to it.
    pub correction: &'a [u8],
}

/// What an attached session's thread has to do.
#[derive(Default)]
pub struct Attached {
    /// The session that was replaced and is to be hung up on.
    pub replaced: Option<Arc<Session>>,
}

/// What a session's writer has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterStep {
    /// Read these rows and hand them over.
    Read {
        /// Exclusive.
        after: u64,
        /// Inclusive.
        upto: u64,
    },
    /// More was handed over from memory: write it.
    Drain,
    /// Everything has been handed over and the writer has resigned: flush once, like anybody.
    Resigned,
    /// The session is not the present one any more.
    Gone,
}

const LOADED: &str = "a mailbox is loaded before it is used";

/// Safe from any thread.
pub struct Mailbox {
    key: Arc<str>,
    /// One reference more than there are sessions, ended or not, that somebody has: they let go of the mailbox without a word to the registry.
    sessions: Arc<()>,
    state: Mutex<State>, // lock: gate → registry → mailbox → outbox
}

struct State {
    window: Option<Window<Entry>>,
    packets: Packets,
    /// Counts what made a reading from disk out of date before it was taken in.
    stale_readings: u64,
    present: Option<Present>,
    /// Of this user as a sender, once it has logged in at level 2.
    ledger: Option<Arc<Ledger>>,
    /// In order; none of them has left memory.
    awaited: VecDeque<Awaited>,
    disk: Backlog,
    held: Held,
    is_listed: bool,
    /// On the agenda's list of those who owe receipts.
    owes_receipts: bool,
    /// The timer was called because this mailbox holds much.
    is_hurried: bool,
    seen: Option<Seen>,
}

/// What the entries in memory add up to.
#[derive(Default, Clone, Copy)]
struct Held {
    cost: usize,
    text_bytes: u64,
}

impl Held {
    fn sum(entries: impl Iterator<Item = Entry>) -> Held {
        entries.fold(Held::default(), |held, entry| Held {
            cost: held.cost + entry.cost(),
            text_bytes: held.text_bytes + u64::from(entry.text_bytes),
        })
    }

    /// More than what can be on its way into a socket: time to save it, whatever its age, so that it can leave memory.
    fn is_much(&self, delivery: &Delivery) -> bool {
        self.cost > delivery.limits.outbox_bytes + limits::SOCKET_BUFFER_BYTES
    }
}

struct Seen {
    name: Arc<str>,
    at: i64,
    /// Changes while a save is on its way must not be taken for saved.
    in_batch: bool,
}

impl State {
    /// The window; callers have loaded the mailbox first.
    fn window(&mut self) -> &mut Window<Entry> {
        self.window.as_mut().expect(LOADED)
    }

    fn present(&mut self, session: &Session) -> Option<&mut Present> {
        self.present.as_mut().filter(|present| present.session.generation == session.generation)
    }

    /// Moves `acked` to what the present session has acknowledged.
    fn collect_acks(&mut self, delivery: &Delivery, owed: &mut Owed) {
        let Some(present) = &mut self.present else { return };
        let acked = present.observe(delivery);
        let gone = Held::sum(self.window().ack(acked));
        self.let_go(gone, delivery);
        let acked = self.window().acked();
        let count = self.awaited.partition_point(|awaited| awaited.seq <= acked);
        for awaited in self.awaited.drain(..count) {
            awaited.ledger.delivered(awaited.msg_id, delivery, owed);
        }
    }

    /// Who waits for a receipt of an evicted message had one for its being stored; the deletion of its row tells the rest.
    fn evict(&mut self, upto: u64, delivery: &Delivery) {
        let gone = Held::sum(self.window().evict(upto));
        self.let_go(gone, delivery);
        let evicted = self.window().evicted();
        let count = self.awaited.partition_point(|awaited| awaited.seq <= evicted);
        self.awaited.drain(..count);
    }

    /// When the oldest message was accepted that has no receipt yet, by the monotonic clock.
    fn receipt_owed_since(&self) -> Option<u64> {
        let saved = self.window.as_ref()?.saved_upto();
        let first = self.awaited.partition_point(|awaited| awaited.seq <= saved);
        self.awaited.get(first).map(|awaited| awaited.accepted_ms)
    }

    fn let_go(&mut self, gone: Held, delivery: &Delivery) {
        if gone.cost == 0 {
            return;
        }
        let first = self.window().first_entry().map(|entry| entry.place);
        self.packets.forget_before(first);
        self.held.cost -= gone.cost;
        self.held.text_bytes -= gone.text_bytes;
        delivery.memory.release(gone.cost);
    }

    /// Hands over what is in memory, as far as the outbox has room.
    fn hand_over_memory(&mut self, delivery: &Delivery) {
        let State { window: Some(window), present: Some(present), packets, .. } = self else { return };
        while let Next::Memory(seq) = window.next() {
            let Some(entry) = window.entry(seq).filter(|_| !present.is_ending) else { return };
            if !present.session.push(packets.at(entry.place), entry.msg_id, seq, &delivery.cipher) {
                return;
            }
            window.hand_over(seq);
        }
    }

    fn end_session(&mut self, delivery: &Delivery, owed: &mut Owed) -> Option<Arc<Session>> {
        self.collect_acks(delivery, owed);
        let present = self.present.take()?;
        delivery.counters.present.down();
        self.window().end_session();
        if let Some(ledger) = &self.ledger {
            ledger.detach();
        }
        Some(present.session)
    }
}

impl Mailbox {
    /// A mailbox whose window is not loaded yet.
    pub(super) fn new(key: Arc<str>) -> Mailbox {
        let state = State {
            window: None,
            packets: Packets::default(),
            stale_readings: 0,
            present: None,
            ledger: None,
            awaited: VecDeque::new(),
            disk: Backlog::default(),
            held: Held::default(),
            is_listed: false,
            owes_receipts: false,
            is_hurried: false,
            seen: None,
        };
        Mailbox { key, sessions: Arc::default(), state: Mutex::new(state) }
    }

    /// `UserName::key` of the user.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// A session is made that holds this mailbox, and what it keeps as long.
    pub(super) fn held_by_session(&self) -> Arc<()> {
        self.sessions.clone()
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.state.lock().window.is_some()
    }

    /// Learns from the database what waits. Reads the disk, so no lock is held by the caller; everybody calls it before anything else.
    ///
    /// # Errors
    /// The database cannot be read now; the mailbox is as it was.
    pub(super) fn load(&self, delivery: &Delivery) -> Result<(), storage::StorageError> {
        loop {
            let stale_readings = {
                let state = self.state.lock();
                if state.window.is_some() {
                    return Ok(());
                }
                state.stale_readings
            };
            let disk = delivery.storage.backlog(&self.key)?;
            let mut state = self.state.lock();
            if state.window.is_none() && state.stale_readings == stale_readings {
                let base = delivery.seqs.base().max(disk.last_seq);
                // A row that somebody else has put in may be above the floor: that is raised before a number above the row is handed out.
                delivery.seqs.used(base);
                state.window = Some(Window::new(base, (disk.messages > 0).then_some(disk.first_seq)));
                state.disk = disk;
            }
        }
    }

    /// What is remembered of this user as a level-2 sender. Reads the disk the first time, so no lock is held by the caller.
    ///
    /// # Errors
    /// The database cannot be read now.
    pub fn ledger(&self, delivery: &Delivery) -> Result<Arc<Ledger>, storage::StorageError> {
        loop {
            let stale_readings = {
                let state = self.state.lock();
                if let Some(ledger) = &state.ledger {
                    return Ok(ledger.clone());
                }
                state.stale_readings
            };
            let known = delivery.storage.sender(&self.key)?;
            let mut state = self.state.lock();
            if state.stale_readings == stale_readings {
                let ledger = state.ledger.get_or_insert_with(|| Arc::new(Ledger::new(self.key.clone(), known)));
                return Ok(ledger.clone());
            }
        }
    }

    /// A row of this user's as a sender was acknowledged, and is deleted.
    pub(crate) fn delivered(self: &Arc<Self>, msg_id: u64, now_ms: u64, delivery: &Delivery, owed: &mut Owed) {
        let mut state = self.state.lock();
        let Some(ledger) = &state.ledger else {
            state.stale_readings += 1;
            return;
        };
        ledger.delivered(msg_id, delivery, owed);
        if state.present.is_none() {
            // Nobody else comes to write it and let the mailbox go.
            self.enlist(&mut state, now_ms, delivery);
        }
    }

    /// How it stands; `None`: it is not loaded. Never blocks.
    pub fn reading(&self) -> Option<MailboxReading> {
        let state = self.state.lock();
        let window = state.window.as_ref()?;
        let cursors = Cursors {
            acked: window.acked(),
            sent: window.sent(),
            evicted: window.evicted(),
            saved: window.saved_upto(),
            last: window.last(),
        };
        let present = state.present.as_ref().map(|present| present.session.clone());
        let is_seen = state.seen.is_some();
        Some(MailboxReading { cursors, is_live: window.is_live(), waiting: state.waiting(), present, is_seen })
    }

    /// Takes in a message: the packet as a level-1 recipient gets it, with a text of `text_bytes`, and its level-2 sender's number. Never waits. Call
    /// behind the sender's gate.
    pub fn accept(
        self: &Arc<Self>,
        packet: &[u8],
        text_bytes: u32,
        numbered: Option<&Numbered>,
        now: Stamp,
        delivery: &Delivery,
        owed: &mut Owed,
    ) -> Accepted {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if delivery.is_stopped() {
            return Accepted::Stopped;
        }
        let window = state.window.as_mut().expect(LOADED);
        let (seq, is_caught_up) = (window.next_seq(), window.is_caught_up());
        if !delivery.seqs.is_reserved(seq) {
            delivery.agenda.hurry();
            return Accepted::NoRoom;
        }
        // Users who write to people who are there are not touched by a slow disk: what is on its way into a socket is bounded by its buffers.
        let cost = cost(packet.len());
        let present = state.present.as_ref().filter(|present| !present.is_ending);
        // A level-2 client may read and never acknowledge: what it has not acknowledged is its backlog, and takes its place on disk.
        let is_full = present.is_some_and(|present| present.session.is_level_2())
            && (state.is_full(text_bytes, delivery) || state.disk_backlog().messages > 0 && delivery.has_no_space());
        let may_go_live = is_caught_up && !is_full && !state.held.is_much(delivery);
        let msg_id = numbered.map(|numbered| numbered.msg_id);
        let is_live =
            may_go_live && present.is_some_and(|present| present.session.push(packet, msg_id, seq, &delivery.cipher));
        if let Some(present) = present {
            owed.add(&present.session);
        }
        if is_live {
            delivery.memory.charge(cost);
        } else {
            if let Some(refusal) = state.refusal(text_bytes, delivery, owed) {
                return refusal;
            }
            if !delivery.memory.try_charge(cost) {
                delivery.agenda.hurry();
                return Accepted::NoRoom;
            }
            if let Some(present) = &state.present {
                present.session.outbox.fall_behind();
            }
        }
        state.held.cost += cost;
        state.held.text_bytes += u64::from(text_bytes);
        let entry = Entry { place: state.packets.push(packet), text_bytes, accepted: now, msg_id };
        let window = state.window();
        window.accept(entry);
        if is_live {
            window.hand_over(seq);
        }
        delivery.seqs.used(seq);
        if let Some(Numbered { ledger, msg_id, hash }) = numbered {
            ledger.accepted(*msg_id, *hash);
            let awaited = Awaited { seq, accepted_ms: now.mono_ms, msg_id: *msg_id, ledger: ledger.clone() };
            state.awaited.push_back(awaited);
            self.enlist_for_receipts(state, now.mono_ms, delivery);
        }
        self.note_accepted(state, now, delivery);
        if is_live { Accepted::Live } else { Accepted::Waiting }
    }

    /// Takes in messages that go straight to a level-1 session, one section for all of them: each with the bytes of its text. Gives how many did; the
    /// first that cannot is for [`Mailbox::accept`]. Never waits. Call behind the sender's gate.
    pub fn accept_live<'p>(
        self: &Arc<Self>,
        messages: impl Iterator<Item = (&'p [u8], u32)>,
        now: Stamp,
        delivery: &Delivery,
        owed: &mut Owed,
    ) -> u64 {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let State { window: Some(window), present: Some(present), packets, held, .. } = state else { return 0 };
        if delivery.is_stopped() || present.is_ending || present.session.is_level_2() || !window.is_caught_up() {
            return 0;
        }
        let (first, before) = (window.next_seq(), held.cost);
        present.session.outbox.push_each(|outbox| {
            for (packet, text_bytes) in messages {
                let seq = window.next_seq();
                if held.is_much(delivery) || !delivery.seqs.is_reserved(seq) || !outbox.push(packet, seq) {
                    return;
                }
                let entry = Entry { place: packets.push(packet), text_bytes, accepted: now, msg_id: None };
                held.cost += entry.cost();
                held.text_bytes += u64::from(text_bytes);
                window.accept(entry);
            }
        });
        let last = window.last();
        if last < first {
            return 0;
        }
        window.hand_over(last);
        delivery.seqs.used(last);
        delivery.memory.charge(held.cost - before);
        owed.add(&present.session);
        self.note_accepted(state, now, delivery);
        last + 1 - first
    }

    /// Something was accepted: the timer looks at it in time, or soon if much is held.
    fn note_accepted(self: &Arc<Self>, state: &mut State, now: Stamp, delivery: &Delivery) {
        self.enlist(state, now.mono_ms, delivery);
        if !state.is_hurried && (state.held.is_much(delivery) || delivery.memory.is_tight()) {
            state.is_hurried = true;
            delivery.agenda.hurry();
        }
    }

    fn enlist(self: &Arc<Self>, state: &mut State, now_ms: u64, delivery: &Delivery) {
        if !state.is_listed {
            state.is_listed = true;
            delivery.agenda.add(self.clone(), now_ms + delivery.limits.save_interval_ms);
        }
    }

    fn enlist_for_receipts(self: &Arc<Self>, state: &mut State, since_ms: u64, delivery: &Delivery) {
        if !state.owes_receipts {
            state.owes_receipts = true;
            delivery.agenda.add_receipts(self.clone(), since_ms + delivery.limits.receipt_interval_ms);
        }
    }

    /// Makes `session` the present one, in one section with its login answer and with everything that can be handed over from memory. The session
    /// that was present is closed by the caller before. `Err`: it is not, and must be closed first.
    pub fn attach(
        self: &Arc<Self>,
        session: &Arc<Session>,
        welcome: &Welcome<'_>,
        now: Stamp,
        delivery: &Delivery,
        owed: &mut Owed,
    ) -> Result<Attached, Arc<Session>> {
        let mut state = self.state.lock();
        if let Some(present) = &state.present
            && !present.session.is_closed()
        {
            return Err(present.session.clone());
        }
        let replaced = state.end_session(delivery, owed);
        session.outbox.push_answer(welcome.answer);
        let window = state.window();
        let (acked, last) = (window.acked(), window.last());
        state.present = Some(Present::new(session.clone(), acked, last));
        delivery.counters.present.up();
        if let Some(ledger) = &session.ledger {
            ledger.attach(session, now.mono_ms, delivery);
        }
        if let Some(last_seq) = welcome.last_seq
            && !state.claim(last_seq, delivery, owed)
        {
            session.outbox.push_answer(welcome.correction);
        }
        match state.window().is_live() {
            true => state.hand_over_memory(delivery),
            // Who flushes the answer starts the writer after it: a client that leaves at once is answered all the same.
            false => session.outbox.fall_behind(),
        }
        owed.add(session);
        state.see(&session.name, now.unix_ms, delivery);
        self.enlist(&mut state, now.mono_ms, delivery);
        Ok(Attached { replaced })
    }

    /// A packet came from the client whose last byte is byte `read_bytes` of its stream: a sign of life that may confirm what TCP has acknowledged.
    pub fn heard(
        self: &Arc<Self>,
        session: &Session,
        read_bytes: u64,
        now: Stamp,
        delivery: &Delivery,
        owed: &mut Owed,
    ) {
        let mut state = self.state.lock();
        let Some(present) = state.present(session) else { return };
        present.heard(read_bytes);
        state.collect_acks(delivery, owed);
        if state.window().to_delete().is_some() {
            self.enlist(&mut state, now.mono_ms, delivery);
        }
    }

    /// The level-2 client of this session has taken in everything up to `seq`. `false`: that is more than was ever handed to it, and was taken for as
    /// much as was.
    pub fn ack(
        self: &Arc<Self>,
        session: &Session,
        seq: u64,
        now: Stamp,
        delivery: &Delivery,
        owed: &mut Owed,
    ) -> bool {
        let mut state = self.state.lock();
        if state.present(session).is_none() {
            return true;
        }
        let is_true = state.claim(seq, delivery, owed);
        if state.window().to_delete().is_some() {
            self.enlist(&mut state, now.mono_ms, delivery);
        }
        is_true
    }

    /// Collects what TCP has acknowledged.
    pub fn collect_acks(&self, delivery: &Delivery, owed: &mut Owed) {
        self.state.lock().collect_acks(delivery, owed);
    }

    /// The session begins to end: nothing more is handed to it, but what its client's TCP acknowledges still counts. `took_leave`: it ends with
    /// FIN or a logout, so what TCP acknowledges has been read; said before the client is told, for it may log in again before `detach`.
    pub fn suspend(&self, session: &Session, took_leave: bool) {
        if let Some(present) = self.state.lock().present(session) {
            present.suspend(took_leave);
        }
    }

    /// The session is over. Gives the number of messages that wait now, or `None` when the session was not the present one.
    pub fn detach(
        self: &Arc<Self>,
        session: &Session,
        now: Stamp,
        delivery: &Delivery,
        owed: &mut Owed,
    ) -> Option<u64> {
        let mut state = self.state.lock();
        state.present(session)?;
        state.end_session(delivery, owed);
        state.see(&session.name, now.unix_ms, delivery);
        self.enlist(&mut state, now.mono_ms, delivery);
        Some(state.waiting())
    }

    /// What the session's writer does next. In the same section in which nothing is left on disk it hands over what is in memory and resigns.
    pub fn writer_step(self: &Arc<Self>, session: &Session, delivery: &Delivery) -> WriterStep {
        let mut state = self.state.lock();
        match state.present(session) {
            Some(present) if !present.is_ending => {}
            _ => return WriterStep::Gone,
        }
        if let Next::Disk { after, upto } = state.window().next() {
            return WriterStep::Read { after, upto };
        }
        state.hand_over_memory(delivery);
        self.enlist(&mut state, delivery.now().mono_ms, delivery);
        if state.window().is_caught_up() {
            session.outbox.resign_writer();
            WriterStep::Resigned
        } else {
            WriterStep::Drain
        }
    }

    /// Hands over rows read for a `WriterStep::Read`: their packets one after another in `packets`, each with its end, its number and its seq in `ends`. When all rows
    /// of the range were read, `complete_upto` is the range's end, which the window skips to, since expired rows leave gaps.
    /// `false`: the session is not the present one any more.
    pub fn hand_over_rows(
        self: &Arc<Self>,
        session: &Session,
        packets: &[u8],
        ends: &[(usize, Option<u64>, u64)],
        complete_upto: Option<u64>,
        delivery: &Delivery,
    ) -> bool {
        let mut state = self.state.lock();
        match state.present(session) {
            Some(present) if !present.is_ending => {}
            _ => return false,
        }
        // From now on TCP must be asked about them.
        self.enlist(&mut state, delivery.now().mono_ms, delivery);
        let mut start = 0;
        for &(end, msg_id, seq) in ends {
            // The client may have said meanwhile that it has it.
            let is_new = seq > state.window().sent();
            if is_new && !session.push(&packets[start..end], msg_id, seq, &delivery.cipher) {
                return true;
            }
            state.window().hand_over(seq);
            if let Some(present) = &mut state.present {
                present.brought(seq);
            }
            start = end;
        }
        if let Some(upto) = complete_upto {
            state.window().hand_over(upto);
        }
        true
    }

    /// Nobody needs this mailbox in memory: the database knows everything that it knows. Gives the highest seq handed out.
    pub(super) fn is_idle(&self) -> Option<u64> {
        let state = self.state.lock();
        match &state.window {
            None => Some(0),
            Some(window) => {
                // Nobody else has the ledger: no message in memory, no session.
                let is_ledger_idle =
                    state.ledger.as_ref().is_none_or(|ledger| Arc::strong_count(ledger) == 1 && ledger.is_clean());
                let is_idle = state.present.is_none()
                    && !state.is_listed
                    && !state.owes_receipts
                    && is_ledger_idle
                    && state.seen.is_none()
                    && window.in_memory() == 0
                    && window.to_delete().is_none();
                is_idle.then(|| window.last())
            }
        }
    }
}

impl State {
    /// Messages that are not acknowledged: not more than there are numbers, for rows that are acknowledged stay on disk until the next save.
    fn waiting(&self) -> u64 {
        match &self.window {
            Some(window) => (self.disk_backlog().messages + window.unsaved()).min(window.last() - window.acked()),
            None => self.disk.messages,
        }
    }

    /// What waits on disk.
    fn disk_backlog(&self) -> Backlog {
        match &self.window {
            Some(window) if window.is_disk_acked() => Backlog::default(),
            _ => self.disk,
        }
    }

    /// Why a message for a recipient who does not take it at once is refused, if it is.
    fn refusal(&mut self, text_bytes: u32, delivery: &Delivery, owed: &mut Owed) -> Option<Accepted> {
        if self.is_full(text_bytes, delivery) {
            // It may only look full: what was acknowledged since TCP was asked last does not wait.
            self.collect_acks(delivery, owed);
            if self.is_full(text_bytes, delivery) {
                return Some(Accepted::BacklogFull);
            }
        }
        delivery.has_no_space().then_some(Accepted::NoSpace)
    }

    /// One more message would be more than may be unacknowledged.
    fn is_full(&self, text_bytes: u32, delivery: &Delivery) -> bool {
        // What is saved and still in memory counts twice: at most an outbox more than there is.
        let bytes = self.disk_backlog().bytes + self.held.text_bytes + u64::from(text_bytes);
        self.waiting() >= delivery.limits.backlog_messages || bytes > delivery.limits.backlog_bytes
    }

    /// The present client says that it has taken in everything up to `seq`; `false`: it cannot have.
    fn claim(&mut self, seq: u64, delivery: &Delivery, owed: &mut Owed) -> bool {
        let is_true = self.window().claim(seq);
        let sent = self.window().sent();
        if let Some(present) = &mut self.present {
            present.claimed(seq.min(sent));
        }
        self.collect_acks(delivery, owed);
        is_true
    }

    fn shrink(&mut self) {
        let State { window: Some(window), packets, .. } = self else { return };
        if window.in_memory() == 0 {
            window.shrink();
            packets.shrink();
            self.awaited = VecDeque::new();
        }
    }

    fn see(&mut self, name: &UserName, at: i64, delivery: &Delivery) {
        if self.seen.is_none() {
            delivery.memory.charge(limits::MAILBOX_BYTES);
        }
        self.seen = Some(Seen { name: name.as_written().into(), at, in_batch: false });
    }
}
