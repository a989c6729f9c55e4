//! One connection, on a thread of its own: read → frame → dispatch, with a deadline for everything.
//!
//! Deadlines come from the socket's read timeout, computed from the time that is left. All packets of one read are executed before the
//! outboxes that they touched are flushed, once each: under load one read and one write carry many packets.

#[cfg(feature = "tools")]
pub mod counted;

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::Shared;
use super::admission::Ticket;
use super::buffer::ReadBuffer;
use super::dispatch::dispatch;
use super::handlers::{chat, login::Refusal};
use super::pace::Pace;
use super::peer::{Ending, Flow, Peer, Run, Touched};
use crate::config::Config;
use crate::delivery::{Direction, Flushed, HungUp, Outbox, Session, Trace};
use crate::limits::LINGER_TIMEOUT;
use crate::protocol::{Decoder, Frame, Message, UserName};
use crate::socket::{self, PollFlags};
use crate::threads;

/// Only on its own thread.
pub struct Connection {
    shared: Arc<Shared>,
    config: Arc<Config>,
    socket: Arc<TcpStream>,
    buffer: ReadBuffer,
    decoder: Decoder,
    peer: Peer,
    clocks: Clocks,
    pace: Pace,
    read_bytes: u64,
}

/// The connection's deadlines.
struct Clocks {
    connected_at: Instant,
    /// When the last complete packet came.
    heard_at: Instant,
    /// When the first byte of the packet came that is not complete.
    begun_at: Option<Instant>,
    /// The read timeout that the socket has.
    armed: Duration,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(
        shared: Arc<Shared>,
        id: u64,
        socket: Arc<TcpStream>,
        address: SocketAddr,
        ticket: Ticket,
    ) -> Connection {
        let config = shared.config();
        let peer = Peer {
            shared: shared.clone(),
            config: config.clone(),
            id,
            address,
            socket: socket.clone(),
            ticket,
            session: None,
            now: shared.delivery.now(),
            recipient: None,
            run: Run::default(),
            touched: Touched::new(shared.clone()),
        };
        let now = Instant::now();
        let clocks = Clocks { connected_at: now, heard_at: now, begun_at: None, armed: Duration::ZERO };
        let pace = Pace::new(config.max_packets_per_second, config.max_bytes_per_second, now);
        Connection {
            shared,
            config,
            socket,
            buffer: ReadBuffer::default(),
            decoder: Decoder::default(),
            peer,
            clocks,
            pace,
            read_bytes: 0,
        }
    }

    /// The body of the thread: serves the connection to its end.
    pub fn run(mut self: Box<Self>) {
        let ending = self.read_loop();
        self.end(&ending);
    }

    fn read_loop(&mut self) -> Ending {
        loop {
            if let Some(ending) = self.execute_all() {
                return ending;
            }
            self.peer.touched.flush();
            if self.pace.is_spent() {
                self.pause();
            } else if let Some(ending) = self.read() {
                return ending;
            }
        }
    }

    /// Executes every complete packet in the buffer, or as many as the connection's pace allows.
    fn execute_all(&mut self) -> Option<Ending> {
        let was_empty = self.buffer.is_empty();
        let (mut heard, mut is_again) = (0, false);
        // Also what came while it was silent: a burst is never more than a bucket.
        self.pace.fill(Instant::now());
        let ending = loop {
            if self.pace.is_spent() {
                break None;
            }
            let frame = match Frame::parse(self.buffer.unread(), self.max_packet_bytes()) {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(error) => break Some(error.into()),
            };
            let length = frame.packet.len();
            if !std::mem::take(&mut is_again) {
                self.trace(frame);
            }
            let before = self.buffer.consumed(self.peer.run.packets_bytes());
            match dispatch(&mut self.peer, &mut self.decoder, &self.shared, before, frame) {
                Flow::Next => {}
                Flow::End(ending) => break Some(ending),
                Flow::Wait => match self.peer.wait_for_room() {
                    None => {
                        is_again = true;
                        continue;
                    }
                    Some(ending) => break Some(ending),
                },
            }
            heard += 1;
            self.pace.note(length);
            self.buffer.consume(length);
        };
        let ending = self.accept_run().or(ending);
        if !was_empty {
            self.note_progress(heard);
        }
        ending
    }

    /// Has what is left of a run accepted, before anything else is waited for.
    fn accept_run(&mut self) -> Option<Ending> {
        loop {
            let packets = self.buffer.consumed(self.peer.run.packets_bytes());
            match chat::accept_run(&mut self.peer, packets) {
                Flow::Next => return None,
                Flow::End(ending) => return Some(ending),
                Flow::Wait => {
                    if let Some(ending) = self.peer.wait_for_room() {
                        return Some(ending);
                    }
                }
            }
        }
    }

    /// The longest packet that is taken now: a stranger has no more to say than its name.
    fn max_packet_bytes(&self) -> usize {
        match self.peer.session {
            Some(_) => self.config.max_packet_bytes,
            None => self.config.max_packet_bytes.min(self.config.max_stranger_packet_bytes),
        }
    }

    /// Reads nothing until the connection's pace allows the next packet: the client's TCP fills, and it has to wait.
    fn pause(&mut self) {
        let shared = &self.shared;
        if let Some(count) = shared.delivery.counters.paused.note(shared.delivery.now().mono_ms) {
            let (id, address) = (self.peer.id, self.peer.address);
            log::warn!(
                "c{id}: {address}: sends more than max_packets_per_second or max_bytes_per_second, so it is read more slowly ({count} such pauses since the last such line)"
            );
        }
        loop {
            let now = Instant::now();
            self.pace.fill(now);
            let left = self.pace.wait();
            if left.is_zero() {
                // It was not silent: it was not heard.
                self.clocks.heard_at = now;
                self.clocks.begun_at = self.clocks.begun_at.map(|_| now);
                return;
            }
            // The stream's end, too, is said when the client closes, at a takeover and at a stop.
            match socket::wait(&self.socket, PollFlags::RDHUP, left.min(LONGEST_WAIT)) {
                Ok(false) | Err(Errno::INTR) => {}
                Ok(true) | Err(_) => self.pace.lift(),
            }
        }
    }

    /// Shows a packet to those who look on, before it is executed.
    fn trace(&self, frame: Frame<'_>) {
        let traces = match &self.peer.session {
            Some(session) if session.is_traced() => session.outbox.traces(),
            None if self.shared.delivery.traces.is_any() => self.traces_of_stranger(frame),
            _ => return,
        };
        let offset = self.read_bytes - self.buffer.unread().len() as u64;
        traces.iter().for_each(|trace| trace.note(self.peer.id, Direction::In, offset, frame.packet));
    }

    /// Those who look on at the user who logs in with this packet.
    fn traces_of_stranger(&self, frame: Frame<'_>) -> Vec<Arc<Trace>> {
        let mut decoder = Decoder::default();
        match decoder.decode(&self.shared.delivery.cipher, frame).map(|decoded| decoded.message) {
            Ok(Message::ClientLogin { name, .. }) => {
                UserName::parse(name).map_or_else(|_| Vec::new(), |name| self.shared.delivery.traces.of(name.key()))
            }
            _ => Vec::new(),
        }
    }

    /// Restarts the clocks after some bytes, and tells the mailbox and the session of the packets that were among them.
    fn note_progress(&mut self, heard: u64) {
        let (now, is_heard) = (Instant::now(), heard > 0);
        if is_heard {
            self.clocks.heard_at = now;
            self.clocks.begun_at = None;
        }
        if self.buffer.is_empty() {
            self.clocks.begun_at = None;
        } else {
            self.clocks.begun_at.get_or_insert(now);
        }
        let Some(session) = self.peer.session.as_ref().filter(|_| is_heard) else { return };
        session.count_heard(heard, self.peer.now.unix_ms);
        if session.wants_word() {
            let executed_bytes = self.read_bytes - self.buffer.unread().len() as u64;
            let (now, owed) = (self.peer.now, &mut self.peer.touched.owed);
            session.mailbox.heard(session, executed_bytes, now, &self.shared.delivery, owed);
        }
    }

    /// Reads once, within the deadline.
    fn read(&mut self) -> Option<Ending> {
        let wanted = Frame::wanted(self.buffer.unread(), self.max_packet_bytes()).ok().flatten().unwrap_or(0);
        loop {
            let (deadline, ending) = self.deadline();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(ending);
            }
            match self.read_within(left, wanted) {
                Ok(0) => return Some(self.silence()),
                Ok(count) => {
                    self.read_bytes += count as u64;
                    if self.buffer.is_small() {
                        // Little comes: what a busy time has left behind is given back.
                        self.decoder.shrink_above(IDLE_BYTES);
                        self.peer.touched.owed.shrink();
                        self.peer.run.shrink();
                    }
                    self.peer.now = self.shared.delivery.now();
                    return None;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    if self.shared.is_stopping() {
                        return Some(Ending::Stopping);
                    }
                    // Too short a timeout costs one wake-up, and not one again and again.
                    self.clocks.armed = Duration::ZERO;
                }
                Err(error) => return Some(Ending::Lost(error.to_string())),
            }
        }
    }

    /// While the server stops nothing is waited for: what has arrived is still executed.
    fn read_within(&mut self, left: Duration, wanted: usize) -> io::Result<usize> {
        if self.shared.is_stopping() {
            return self.buffer.fill(Arrived(&self.socket), wanted);
        }
        // A shorter timeout than needed costs one wake-up; setting it before each read would cost a system call.
        if self.clocks.armed.is_zero() || self.clocks.armed > left || self.clocks.armed * 8 < left {
            let timeout = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(timeout))?;
            self.clocks.armed = timeout;
        }
        self.buffer.fill(&*self.socket, wanted)
    }

    /// The next deadline, and what it means when it passes.
    fn deadline(&self) -> (Instant, Ending) {
        let (config, clocks) = (&self.config, &self.clocks);
        if self.peer.session.is_none() {
            return (clocks.connected_at + config.login_timeout, Ending::LoginTimeout);
        }
        let idle = (clocks.heard_at + config.read_timeout, Ending::Idle);
        match clocks.begun_at {
            Some(begun_at) if begun_at + config.packet_timeout < idle.0 => {
                (begun_at + config.packet_timeout, Ending::PacketTimeout)
            }
            _ => idle,
        }
    }

    /// The stream has ended: by whom?
    fn silence(&self) -> Ending {
        let session = self.peer.session.as_ref();
        let hung_up = session.and_then(|session| session.outbox.hung_up());
        match (session, hung_up) {
            (Some(session), _) if session.is_closed() => Ending::of_closed(session),
            _ if self.shared.is_stopping() => Ending::Stopping,
            // Not a leave-taking: what TCP acknowledged and the client has not read must come again.
            (_, Some(why)) => Ending::of_hung_up(why),
            (Some(session), _) if session.outbox.is_broken() => Ending::Lost("it was reset".into()),
            _ => Ending::Fin,
        }
    }

    fn end(&mut self, ending: &Ending) {
        self.peer.touched.flush();
        if let Some(counter) = ending.counter(&self.shared.delivery.counters) {
            counter.add(1);
        }
        let id = self.peer.id;
        match self.peer.session.clone() {
            Some(session) => {
                let waiting = self.end_session(&session, ending);
                let name = session.name.as_written();
                let waits = waiting.map_or(String::new(), |waiting| {
                    if waiting > 0 { format!("; waiting: {waiting}") } else { String::new() }
                });
                match ending {
                    Ending::Protocol(_) => log::warn!("c{id}: {name}: {ending}{waits}"),
                    Ending::HandlerFailed { .. } => log::error!("c{id}: {name}: {ending}{waits}"),
                    _ => log::info!("c{id}: {name}: {ending}{waits}"),
                }
            }
            None => {
                if matches!(ending, Ending::Refused(_)) {
                    let _ = self.socket.shutdown(std::net::Shutdown::Write);
                    self.discard_until(Instant::now() + LINGER_TIMEOUT);
                }
                match ending {
                    // The disk's own line has told it, and where all are refused one line tells of all.
                    Ending::Refused(Refusal::Disk) => log::debug!("c{id}: {}: {ending}", self.peer.address),
                    Ending::Protocol(_) | Ending::Refused(_) => {
                        self.shared.complaints.about_stranger(id, self.peer.address, ending);
                    }
                    _ => log::debug!("c{id}: {}: {ending}", self.peer.address),
                }
            }
        }
    }

    /// Ends the session; gives the number of messages that wait for the user, unless somebody else has taken over.
    fn end_session(&mut self, session: &Arc<Session>, ending: &Ending) -> Option<u64> {
        let took_leave = matches!(ending, Ending::Fin | Ending::Logout);
        session.mailbox.suspend(session, took_leave);
        session.close();
        let notice = ending.notice(self.config.language).filter(|_| session.is_level_2());
        if let Some((code, text)) = &notice {
            let mut packet = Vec::new();
            Message::ServerNotice { code: *code, text }.encode(&self.shared.delivery.cipher, &mut packet);
            session.write_receipts(&self.shared.delivery.cipher);
            session.outbox.push_answer(&packet);
        }
        match ending {
            Ending::Stopping => self.settle(session, self.shared.stop_deadline()),
            Ending::Replaced | Ending::Kicked | Ending::HungUp(_) if notice.is_some() => {
                self.settle(session, Instant::now() + LINGER_TIMEOUT);
            }
            Ending::Logout
            | Ending::Protocol(_)
            | Ending::HandlerFailed { .. }
            | Ending::Idle
            | Ending::PacketTimeout
            | Ending::NoRoom => {
                if notice.is_some() {
                    self.write_rest(session, Instant::now() + LINGER_TIMEOUT, Outbox::is_written);
                }
                // Who has said all and closed needs no good-bye of its own: closing is one.
                if !self.has_ended() {
                    session.outbox.finish();
                    self.discard_until(Instant::now() + LINGER_TIMEOUT);
                }
            }
            Ending::Fin
            | Ending::Lost(_)
            | Ending::HungUp(_)
            | Ending::Kicked
            | Ending::Replaced
            | Ending::Refused(_)
            | Ending::LoginTimeout => {}
        }
        let now = self.shared.delivery.now();
        let owed = &mut self.peer.touched.owed;
        let waiting = session.mailbox.detach(session, now, &self.shared.delivery, owed);
        self.peer.touched.flush();
        // A writer that waits for this socket, or for its turn, must not keep it.
        session.outbox.hang_up(HungUp::TooSlow);
        self.shared.writers.forget(session);
        waiting
    }

    /// Writes what is in the outbox, together with a writer that is at work, until `is_done` or `deadline`.
    fn write_rest(&self, session: &Session, deadline: Instant, is_done: impl Fn(&Outbox) -> bool) {
        let mut scratch = Vec::new();
        loop {
            if session.outbox.flush(&mut scratch) == Flushed::NeedsWriter {
                // An error leaves the rest to the window.
                let _ = session.outbox.drain(&mut scratch, deadline.saturating_duration_since(Instant::now()), false);
                session.outbox.resign_writer();
            }
            if is_done(&session.outbox) || Instant::now() >= deadline || session.outbox.pause(SETTLE_STEP) {
                return;
            }
        }
    }

    /// Writes what is in the outbox and waits until the peer's TCP has it, up to `deadline`.
    fn settle(&mut self, session: &Session, deadline: Instant) {
        self.write_rest(session, deadline, Outbox::is_settled);
        session.outbox.finish();
    }

    /// The peer has closed its side, and nothing of it is unread.
    fn has_ended(&self) -> bool {
        matches!(Arrived(&self.socket).read(&mut [0]), Ok(0))
    }

    /// Reads and forgets until the peer closes too: bytes left unread would turn our good-bye into a reset, and the peer would lose what it has not read.
    fn discard_until(&mut self, deadline: Instant) {
        let mut sink = [0; 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.is_stopping() || self.socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match (&*self.socket).read(&mut sink) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// What a connection's other buffers keep while little comes, in bytes.
const IDLE_BYTES: usize = 4096;

/// A pause longer than this is waited in parts, for the kernel's sake.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long a stop waits for acknowledgements before it asks TCP again; only then, and only for what is on its way.
const SETTLE_STEP: Duration = Duration::from_millis(5);

impl Drop for Connection {
    /// A panic has ended the thread's work half-way: the session must not stay.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.delivery.counters.panics.add(1);
            // What came before it is accepted all the same.
            let packets = self.buffer.consumed(self.peer.run.packets_bytes());
            let _ = threads::caught(|| chat::accept_run(&mut self.peer, packets));
            if let Some(session) = &self.peer.session {
                session.close();
                let (now, owed) = (self.shared.delivery.now(), &mut self.peer.touched.owed);
                session.mailbox.detach(session, now, &self.shared.delivery, owed);
                session.outbox.hang_up(HungUp::TooSlow);
                self.shared.writers.forget(session);
            }
        }
        let recipient = self.peer.recipient.take().map(|(_, mailbox)| mailbox);
        let own = self.peer.session.take().map(|session| session.mailbox.clone());
        for mailbox in recipient.into_iter().chain(own) {
            self.shared.delivery.release(mailbox);
        }
    }
}

/// Reads what has arrived, never waiting.
struct Arrived<'a>(&'a TcpStream);

impl Read for Arrived<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match rustix::net::recv(self.0, &mut *bytes, RecvFlags::DONTWAIT) {
            Ok((count, _)) => Ok(count),
            Err(Errno::AGAIN) => Err(ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }
}
