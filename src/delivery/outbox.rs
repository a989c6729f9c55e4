//! Bytes on their way into one socket.
//!
//! The contract: `push` and `flush` are called by strangers' threads, so neither ever waits, and what was pushed first leaves first.
//! At any time at most one thread owns the writing side of the socket: a flusher for a few rounds, or the session's writer, which may wait
//! for this socket and is the only one who does. Whoever has pushed owes a flush.
//!
//! The outbox also remembers at which byte each message ended, so that the kernel's count of acknowledged bytes says which messages
//! the peer's TCP has acknowledged.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use crate::limits;
use crate::protocol::{Cipher, encode_numbered};
use crate::socket::{self, Errno, PollFlags, Socket};
use crate::sync::{Mutex, MutexGuard};

use super::trace::{Direction, Trace};

/// Rounds of one flush. Packets pushed meanwhile go along in the next round; a socket that keeps a stranger's thread busier gets a writer.
const FLUSH_ROUNDS: usize = 4;

/// An empty buffer of a busy time keeps at most so many bytes of capacity; `shrink` takes the rest.
const KEPT_CAPACITY: usize = 64 * 1024;

/// First capacity of a buffer to which messages are pushed, in bytes.
const FIRST_CAPACITY: usize = 4096;

/// Messages on their way after which a flush asks the kernel what has been acknowledged, so that memory does not wait for the timer.
const ASK_AFTER: usize = 64;

/// What a flush found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left for the caller to do.
    Done,
    /// The same, and so much is on its way that acknowledgements should be collected.
    DoneAskAcks,
    /// The socket is full, or messages wait in the window: the caller must start the session's writer. Said to one caller only.
    NeedsWriter,
}

/// Why a writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// The socket took nothing for the configured time.
    Stalled,
    /// The connection is broken or closed.
    Broken,
}

/// Why the server hangs up from outside the connection's own thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HungUp {
    /// The client took nothing for the configured time.
    TooSlow,
    /// There was no thread to write to it.
    NoThread,
    /// The operator ended it.
    Kicked,
}

/// How an outbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxReading {
    /// Bytes that the socket has not taken.
    pub unwritten_bytes: usize,
    /// Bytes that the socket has taken and the peer's TCP has not acknowledged.
    pub unacknowledged_bytes: u64,
    /// Packets that were pushed since the session began.
    pub packets: u64,
    /// The session has a writer, or waits for one.
    pub has_writer: bool,
}

/// Who writes to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Flusher,
    Writer,
}

/// The way into one socket. Safe from any thread.
pub struct Outbox {
    /// The connection's id.
    id: u64,
    socket: Arc<Socket>,
    limit_bytes: usize,
    state: Mutex<State>, // lock: gate → registry → mailbox → outbox
}

struct State {
    pending: Vec<u8>,
    owner: Owner,
    /// The server ended the connection from outside: the end of the peer's stream says nothing about the peer.
    hung_up: Option<HungUp>,
    /// A message was left in the window for want of room, so the next owner must bring it.
    behind: bool,
    /// A write failed, or the writing side is shut: nothing is taken any more.
    closed: bool,
    fin_sent: bool,
    pushed_bytes: u64,
    pushed_packets: u64,
    written_bytes: u64,
    /// For each message on its way: the byte at which it ends, and its seq.
    ends: VecDeque<(u64, u64)>,
    /// Whoever looks on.
    traces: Vec<Arc<Trace>>,
}

impl State {
    fn append(&mut self, bytes: &[u8], id: u64) {
        if self.pending.capacity() < FIRST_CAPACITY && bytes.len() < FIRST_CAPACITY && self.pushed_bytes > 0 {
            self.pending.reserve_exact(FIRST_CAPACITY);
        }
        self.pending.extend_from_slice(bytes);
        self.note_pushed(bytes.len(), id);
    }

    /// A packet of `bytes` is now the last in `pending`.
    fn note_pushed(&mut self, bytes: usize, id: u64) {
        for trace in &self.traces {
            trace.note(id, Direction::Out, self.pushed_bytes, &self.pending[self.pending.len() - bytes..]);
        }
        self.pushed_bytes += bytes as u64;
        self.pushed_packets += 1;
    }

    /// Whether a message of `bytes` may be pushed; if only room is wanting, it is noted that somebody must bring it later.
    fn has_room(&mut self, bytes: usize, limit_bytes: usize) -> bool {
        // One packet always goes in, also one that was stored under a larger limit.
        let is_full = self.unwritten() > 0 && self.unwritten() + bytes > limit_bytes;
        self.behind |= is_full && !self.closed;
        !self.closed && !is_full
    }

    fn unwritten(&self) -> usize {
        (self.pushed_bytes - self.written_bytes) as usize
    }

    fn fail(&mut self) {
        self.closed = true;
        self.owner = Owner::Nobody;
        self.pending = Vec::new();
    }
}

fn keep_at_most(buffer: &mut Vec<u8>, capacity: usize) {
    if buffer.capacity() > capacity {
        *buffer = Vec::new();
    }
}

/// An outbox that is being pushed to.
pub(super) struct Pushing<'o> {
    state: MutexGuard<'o, State>,
    limit_bytes: usize,
    id: u64,
}

impl Pushing<'_> {
    /// As [`Outbox::push`].
    pub(super) fn push(&mut self, packet: &[u8], seq: u64) -> bool {
        let state = &mut *self.state;
        if !state.has_room(packet.len(), self.limit_bytes) {
            return false;
        }
        state.append(packet, self.id);
        state.ends.push_back((state.pushed_bytes, seq));
        true
    }
}

impl Outbox {
    /// The outbox of connection `id`, which takes up to `limit_bytes` that the socket has not taken yet.
    pub fn new(id: u64, socket: Arc<Socket>, limit_bytes: usize) -> Outbox {
        let state = State {
            pending: Vec::new(),
            owner: Owner::Nobody,
            hung_up: None,
            behind: false,
            closed: false,
            fin_sent: false,
            pushed_bytes: 0,
            pushed_packets: 0,
            written_bytes: 0,
            ends: VecDeque::new(),
            traces: Vec::new(),
        };
        Outbox { id, socket, limit_bytes, state: Mutex::new(state) }
    }

    /// Appends the message `seq`. `false`: there is no room, and it stays in the window until an owner of this outbox fetches it.
    pub fn push(&self, packet: &[u8], seq: u64) -> bool {
        self.push_each(|outbox| outbox.push(packet, seq))
    }

    /// Calls `push` with what appends one message after another, as [`Outbox::push`] does.
    pub(super) fn push_each<R>(&self, push: impl FnOnce(&mut Pushing<'_>) -> R) -> R {
        push(&mut Pushing { state: self.state.lock(), limit_bytes: self.limit_bytes, id: self.id })
    }

    /// The same for a level-2 client: the packet gets the message's numbers, and TCP is not asked what became of it, for the client says so.
    pub fn push_numbered(&self, packet: &[u8], msg_id: Option<u64>, seq: u64, cipher: &Cipher) -> bool {
        let mut state = self.state.lock();
        if !state.has_room(packet.len(), self.limit_bytes) {
            return false;
        }
        let before = state.pending.len();
        encode_numbered(packet, msg_id, seq, cipher, &mut state.pending);
        let bytes = state.pending.len() - before;
        state.note_pushed(bytes, self.id);
        true
    }

    /// A message was left in the window: whoever owns this outbox next must bring it.
    pub fn fall_behind(&self) {
        self.state.lock().behind = true;
    }

    /// Appends a packet that is no message, an answer to this session's own client. Its size counts, but nothing refuses it.
    pub fn push_answer(&self, packet: &[u8]) {
        let mut state = self.state.lock();
        if !state.closed {
            state.append(packet, self.id);
        }
    }

    /// It holds as much as it may, so its client should take some of it before anything is answered.
    pub fn is_full(&self) -> bool {
        self.state.lock().unwritten() >= self.limit_bytes
    }

    /// More than the messages that it may hold: its client takes neither them nor what is answered to it.
    pub fn is_overfull(&self) -> bool {
        self.state.lock().unwritten() >= self.limit_bytes + limits::ANSWER_BYTES
    }

    /// Everything pushed has been written to the socket, and nobody is at it.
    pub fn is_written(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.pending.is_empty() && state.owner == Owner::Nobody
    }

    /// The writer resigns: nothing is left in the window, and what it handed over last is flushed like anybody's.
    pub fn resign_writer(&self) {
        let mut state = self.state.lock();
        state.behind = false;
        if state.owner == Owner::Writer {
            state.owner = Owner::Nobody;
        }
    }

    /// Writes what is there, never waiting. `scratch` is the calling thread's buffer, empty before and after.
    pub fn flush(&self, scratch: &mut Vec<u8>) -> Flushed {
        let mut state = self.state.lock();
        if state.owner != Owner::Nobody || state.closed || (state.pending.is_empty() && !state.behind) {
            return Flushed::Done;
        }
        state.owner = Owner::Flusher;
        for _ in 0..FLUSH_ROUNDS {
            std::mem::swap(&mut state.pending, scratch);
            drop(state);
            let (written, outcome) = self.send_now(scratch);
            state = self.state.lock();
            state.written_bytes += written as u64;
            match outcome {
                Ok(()) => scratch.clear(),
                Err(Errno::AGAIN) => {
                    scratch.drain(..written);
                    scratch.append(&mut state.pending);
                    std::mem::swap(&mut state.pending, scratch);
                    scratch.clear();
                    break;
                }
                Err(_) => {
                    scratch.clear();
                    state.fail();
                    return Flushed::Done;
                }
            }
            if state.pending.is_empty() && !state.behind {
                state.owner = Owner::Nobody;
                keep_at_most(&mut state.pending, KEPT_CAPACITY);
                keep_at_most(scratch, KEPT_CAPACITY);
                return if state.ends.len() >= ASK_AFTER { Flushed::DoneAskAcks } else { Flushed::Done };
            }
            if state.behind {
                break;
            }
        }
        state.owner = Owner::Writer;
        Flushed::NeedsWriter
    }

    /// Writes until nothing is pending, waiting for this socket; for a peer that takes little as long as it takes any when `for_slow`. Only from the session's
    /// own threads.
    ///
    /// # Errors
    /// The socket took nothing for `stall_timeout`: what is left stays, and nobody owns the outbox. Or the connection is gone: it takes nothing any more.
    pub fn drain(&self, chunk: &mut Vec<u8>, stall_timeout: Duration, for_slow: bool) -> Result<(), WriteError> {
        loop {
            chunk.clear();
            {
                let mut state = self.state.lock();
                if state.closed {
                    state.owner = Owner::Nobody;
                    return Err(WriteError::Broken);
                }
                if state.pending.is_empty() {
                    return Ok(());
                }
                std::mem::swap(&mut state.pending, chunk);
            }
            let (written, outcome) = self.send_all(chunk, stall_timeout, for_slow);
            match outcome {
                Ok(()) => {}
                Err(WriteError::Stalled) => {
                    // Whole packets, as the client will read them: it may yet wake up, and be told why it ends.
                    let mut state = self.state.lock();
                    chunk.drain(..written);
                    chunk.append(&mut state.pending);
                    std::mem::swap(&mut state.pending, chunk);
                    state.owner = Owner::Nobody;
                    return Err(WriteError::Stalled);
                }
                Err(WriteError::Broken) => {
                    self.state.lock().fail();
                    return Err(WriteError::Broken);
                }
            }
        }
    }

    /// Also says how much was written.
    fn send_all(&self, chunk: &[u8], stall_timeout: Duration, for_slow: bool) -> (usize, Result<(), WriteError>) {
        let mut sent = 0;
        loop {
            let (written, outcome) = self.send_now(&chunk[sent..]);
            self.state.lock().written_bytes += written as u64;
            sent += written;
            let waited = match outcome {
                Ok(()) => return (sent, Ok(())),
                Err(Errno::AGAIN) => self.wait_for_room(stall_timeout, for_slow),
                Err(_) => Err(WriteError::Broken),
            };
            if waited.is_err() {
                return (sent, waited);
            }
        }
    }

    /// Waits until the socket takes bytes again; when `for_slow`, as long as the peer takes some. Linux says so only when a third of the buffer is free: who reads slowly may
    /// need longer than `stall_timeout` for that.
    fn wait_for_room(&self, stall_timeout: Duration, for_slow: bool) -> Result<(), WriteError> {
        loop {
            let acknowledged = || socket::acknowledged(&self.socket).ok();
            let before = acknowledged();
            match self.wait_until(PollFlags::OUT, stall_timeout) {
                Err(WriteError::Stalled) if for_slow && acknowledged() > before => {}
                waited => return waited,
            }
        }
    }

    /// Waits for this socket alone. Only from the session's own threads.
    fn wait_until(&self, event: PollFlags, timeout: Duration) -> Result<(), WriteError> {
        loop {
            match socket::wait(&self.socket, event, timeout) {
                Ok(false) | Err(Errno::INVAL) => return Err(WriteError::Stalled),
                Ok(true) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(WriteError::Broken),
            }
        }
    }

    /// Waits until the connection is broken or `timeout` has passed; `true`: it is broken. Only from the session's own threads.
    pub fn pause(&self, timeout: Duration) -> bool {
        // Asked for no event, poll reports only hang-ups and errors.
        self.wait_until(PollFlags::empty(), timeout) != Err(WriteError::Stalled)
    }

    /// Sends until all is written or the socket takes no more.
    fn send_now(&self, bytes: &[u8]) -> (usize, Result<(), Errno>) {
        let mut written = 0;
        while written < bytes.len() {
            match socket::send(&self.socket, &bytes[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// The highest seq that the peer's TCP has acknowledged since this was last asked, and the number of messages up to it.
    pub fn acknowledged(&self) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        state.ends.front()?;
        // The kernel's own count, not ours of what was written less what is under way: a writer that has just written may not have counted it
        // yet. Our FIN is a byte more than there is, but no message is so short.
        let acknowledged = socket::acknowledged(&self.socket).ok()?;
        let mut newly = None;
        while let Some(&(_, seq)) = state.ends.front().filter(|(end, _)| *end <= acknowledged) {
            newly = Some((seq, newly.map_or(0, |(_, count)| count) + 1));
            state.ends.pop_front();
        }
        newly
    }

    /// A message is on its way that the peer's TCP has not acknowledged, as far as was asked.
    pub fn is_awaiting(&self) -> bool {
        !self.state.lock().ends.is_empty()
    }

    /// Bytes of the peer's stream that have arrived, read or not.
    pub fn received_bytes(&self) -> u64 {
        socket::received(&self.socket).unwrap_or(u64::MAX)
    }

    /// Everything pushed has been written to the socket and acknowledged by the peer's TCP.
    pub fn is_settled(&self) -> bool {
        let state = self.state.lock();
        let written = state.pending.is_empty() && state.owner == Owner::Nobody;
        written && socket::unacknowledged(&self.socket).is_ok_and(|bytes| bytes <= u64::from(state.fin_sent))
    }

    /// Gives back the buffers of a busy time.
    pub fn shrink(&self) {
        let mut state = self.state.lock();
        if state.pending.is_empty() {
            state.pending = Vec::new();
        }
        if state.ends.is_empty() {
            state.ends = VecDeque::new();
        }
    }

    /// Says good-bye: nothing is taken any more, and the peer sees the end of the stream after what was written.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        if !state.fin_sent && self.socket.shutdown(Shutdown::Write).is_ok() {
            state.fin_sent = true;
        }
    }

    /// Ends the connection from outside: its own reader and writer wake up and find it closed. Never blocks.
    /// `true`: this call was the first.
    pub fn hang_up(&self, why: HungUp) -> bool {
        self.end(Shutdown::Both, why)
    }

    /// The same, for a reason, and leaves a level-2 client's own reader the time to say which.
    pub fn dismiss(&self, why: HungUp) -> bool {
        self.end(Shutdown::Read, why)
    }

    fn end(&self, how: Shutdown, why: HungUp) -> bool {
        let is_first = {
            let mut state = self.state.lock();
            let is_first = state.hung_up.is_none();
            state.hung_up.get_or_insert(why);
            is_first
        };
        // An error means that it is gone already.
        let _: io::Result<()> = self.socket.shutdown(how);
        is_first
    }

    /// How it stands. Never blocks.
    pub fn reading(&self) -> OutboxReading {
        let unacknowledged_bytes = socket::unacknowledged(&self.socket).unwrap_or(0);
        let state = self.state.lock();
        OutboxReading {
            unwritten_bytes: state.unwritten(),
            unacknowledged_bytes,
            packets: state.pushed_packets,
            has_writer: state.owner == Owner::Writer,
        }
    }

    /// From now on what `traces` gives, called under the outbox's lock, is told of every packet that is pushed.
    pub(super) fn retrace(&self, traces: impl FnOnce() -> Vec<Arc<Trace>>) {
        let mut state = self.state.lock();
        state.traces = traces();
    }

    /// Those who look on.
    pub fn traces(&self) -> Vec<Arc<Trace>> {
        self.state.lock().traces.clone()
    }

    /// Whether the connection was reset or given up. A write that fails takes the error away from the reader, who then finds an end of the
    /// stream that the peer never sent.
    pub fn is_broken(&self) -> bool {
        socket::is_broken(&self.socket).unwrap_or(true)
    }

    /// Whether `hang_up` or `dismiss` was called, and why.
    pub fn hung_up(&self) -> Option<HungUp> {
        self.state.lock().hung_up
    }
}
