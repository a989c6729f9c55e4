//! The writers: threads that bring a session what waits on disk, or wait for its full socket, so that no other thread has to.
//!
//! A session has a writer only while there is something to bring; its outbox hands out the right to be one, to one thread at a time.
//! Writers are capped (`max_writers`): past the cap a session waits its turn, and the next writer that is done goes on with it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::Mutex;

use super::Shared;
use crate::delivery::{Flushed, HungUp, Owed, Session, WriteError, WriterStep};
use crate::faults;
use crate::limits;
use crate::protocol::{Chat, Message};
use crate::storage::{Reading, Row};
use crate::threads;

/// Safe from any thread.
pub struct Writers {
    limit: usize,
    state: Mutex<State>, // lock: a leaf
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: VecDeque<Arc<Session>>,
}

impl Writers {
    /// At most `limit` threads.
    pub fn new(limit: usize) -> Writers {
        Writers { limit, state: Mutex::default() }
    }

    /// Starts the session's writer, now or when one of the running ones is done. The caller was told to by the session's outbox or mailbox.
    pub fn start(&self, session: Arc<Session>, shared: &Arc<Shared>) {
        {
            let mut state = self.state.lock();
            if state.running >= self.limit {
                state.waiting.push_back(session);
                return;
            }
            state.running += 1;
        }
        let (name, worker, present) = (thread_name(&session), shared.clone(), session.clone());
        if let Err(error) = threads::spawn(&name, limits::STACK_BYTES, move || worker.writers.work(session, &worker)) {
            if let Some(count) = shared.delivery.counters.failed_thread.note(shared.delivery.now().mono_ms) {
                let id = present.id;
                log::error!("c{id}: no thread for its writer, so it ends: {error} ({count} since the last such line)");
            }
            end_without_thread(&present);
            shared.delivery.memory.wake_all();
            self.give_up_place();
        }
    }

    /// Threads at work.
    pub fn running(&self) -> usize {
        self.state.lock().running
    }

    /// The session is over: it waits for no writer.
    pub fn forget(&self, session: &Arc<Session>) {
        self.state.lock().waiting.retain(|waiting| !Arc::ptr_eq(waiting, session));
    }

    /// One writer less, and not in order. If it was the last, nobody may come to serve those who wait: their own readers end them, and what they
    /// wait for stays in their windows.
    fn give_up_place(&self) {
        let mut state = self.state.lock();
        state.running -= 1;
        if state.running == 0 {
            state.waiting.drain(..).for_each(|session| end_without_thread(&session));
        }
    }

    /// The body of a writer's thread: one session after another.
    fn work(&self, first: Arc<Session>, shared: &Arc<Shared>) {
        let mut running = Running { writers: self, session: Some(first) };
        while let Some(session) = running.session.clone() {
            threads::rename(&thread_name(&session));
            writer_loop(&session, shared);
            running.go_on();
        }
    }
}

/// Nobody will write to it but its own reader, which tells a level-2 client why it ends.
fn end_without_thread(session: &Session) {
    session.outbox.resign_writer();
    session.hang_up(HungUp::NoThread);
}

/// A writer's place, given back also when it panics.
struct Running<'a> {
    writers: &'a Writers,
    /// Whom it serves; `None`: the place is given back.
    session: Option<Arc<Session>>,
}

impl Running<'_> {
    /// Takes the next session that waits, or gives the place back.
    fn go_on(&mut self) {
        let mut state = self.writers.state.lock();
        self.session = state.waiting.pop_front();
        if self.session.is_none() {
            state.running -= 1;
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.outbox.hang_up(HungUp::NoThread);
            self.writers.give_up_place();
        }
    }
}

fn thread_name(session: &Session) -> String {
    format!("w:{}", session.name.as_written())
}

/// Brings one session what it has not got, until it has got everything, is replaced, or takes nothing any more.
fn writer_loop(session: &Arc<Session>, shared: &Arc<Shared>) {
    let (mut rows, mut owed) = (Rows::default(), Owed::default());
    loop {
        match session.outbox.drain(&mut rows.chunk, shared.config().write_stall_timeout, true) {
            Ok(()) => {}
            Err(WriteError::Stalled) => {
                log::info!(
                    "c{}: {} has taken nothing for write_stall_timeout, so its connection ends",
                    session.id,
                    session.name.as_written()
                );
                session.hang_up(HungUp::TooSlow);
                return shared.delivery.memory.wake_all();
            }
            Err(WriteError::Broken) => return,
        }
        session.mailbox.collect_acks(&shared.delivery, &mut owed);
        owed.flush(&shared.delivery, |other| shared.writers.start(other, shared));
        match session.mailbox.writer_step(session, &shared.delivery) {
            WriterStep::Read { after, upto } => {
                if !rows.bring(session, shared, after, upto) {
                    return session.outbox.resign_writer();
                }
            }
            WriterStep::Drain => {}
            WriterStep::Resigned => match session.outbox.flush(&mut rows.chunk) {
                Flushed::NeedsWriter => {}
                Flushed::Done | Flushed::DoneAskAcks => return,
            },
            WriterStep::Gone => return session.outbox.resign_writer(),
        }
    }
}

/// A writer's buffers.
#[derive(Default)]
struct Rows {
    chunk: Vec<u8>,
    packets: Vec<u8>,
    ends: Vec<(usize, Option<u64>, u64)>,
    /// What will be asked for next, most likely: it is read while what came before is sent.
    ahead: Option<Ahead>,
}

/// The rows behind `after`, up to and including `upto`: these do not change, but that some may be deleted; one that
/// expires meanwhile still comes.
struct Ahead {
    after: u64,
    upto: u64,
    rows: Reading<(Vec<Row>, bool)>,
}

impl Ahead {
    fn read(session: &Session, shared: &Shared, after: u64, upto: u64) -> Ahead {
        let (key, storage) = (session.mailbox.key(), &shared.delivery.storage);
        Ahead { after, upto, rows: storage.begin_read(key, after, upto, limits::READ_ROWS, limits::READ_BYTES) }
    }
}

impl Rows {
    /// Reads the next rows and hands them over; `false`: the session is gone.
    fn bring(&mut self, session: &Session, shared: &Shared, after: u64, upto: u64) -> bool {
        let ahead = self.ahead.take().filter(|ahead| ahead.after == after && ahead.upto <= upto);
        let Ahead { upto, rows, .. } = ahead.unwrap_or_else(|| Ahead::read(session, shared, after, upto));
        let (rows, is_complete) = match rows.wait() {
            Ok(read) => read,
            Err(error) => {
                log::error!("c{}: what waits cannot be read, trying again: {error}", session.id);
                let is_broken = session.outbox.pause(limits::DISK_RETRY);
                return !is_broken && !session.is_closed();
            }
        };
        if let Some(last) = rows.last().filter(|_| !is_complete) {
            self.ahead = Some(Ahead::read(session, shared, last.seq, upto));
        }
        faults::point("writer");
        self.packets.clear();
        self.ends.clear();
        for row in &rows {
            let chat = Chat {
                from: &row.sender,
                to: session.name.as_written(),
                text: &row.text,
                time: row.client_time,
                ..Chat::default()
            };
            Message::Chat(chat).encode(&shared.delivery.cipher, &mut self.packets);
            self.ends.push((self.packets.len(), row.msg_id, row.seq));
        }
        let complete_upto = is_complete.then_some(upto);
        session.mailbox.hand_over_rows(session, &self.packets, &self.ends, complete_upto, &shared.delivery)
    }
}
