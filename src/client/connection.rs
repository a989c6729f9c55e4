//! The socket of a client: connects, writes whole packets, reads a stream of bytes as packets.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{Awaited, Client, ClientError, Level, SessionState, unexpected, unix_time};
use crate::protocol::{Cipher, Decoder, Frame, Granted, LoginAnswer, Message};

/// How long a connect, a login, a write or a logout may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest packet taken from a server, bytes. A server's own limit is far below; past it the connection is of no use.
const MAX_PACKET_BYTES: usize = 16 * 1024 * 1024;

/// First size of the read buffer, bytes: thousands of idle clients fit into one process. It doubles as needed.
const FIRST_BUFFER_BYTES: usize = 1024;

/// Shortest wait for a socket: zero is not a legal socket timeout.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// What a large batch leaves behind of the buffer that packets are made in, bytes.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// What a client calls itself in its login; servers only log it.
const VERSION: f32 = 1.0;

/// Where to connect and how. Keep it to log in again after the connection was lost.
#[derive(Clone)]
pub struct Connect {
    addr: String,
    key: Vec<u8>,
    timeout: Duration,
    level: Level,
    numbers_above: Option<u64>,
}

impl Connect {
    pub(super) fn new(addr: String, key: &[u8]) -> Connect {
        Connect { addr, key: key.to_vec(), timeout: TIMEOUT, level: Level::One, numbers_above: None }
    }

    /// The deadline of a connect, a login answer, a write, a round trip and a logout, each. 10 s unless told otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Connect {
        self.timeout = timeout;
        self
    }

    /// The highest level to ask for; level 1 unless told otherwise. A server that does not grant it is spoken to at level 1:
    /// [`Client::level`] tells.
    #[must_use]
    pub fn level(mut self, level: Level) -> Connect {
        self.level = level;
        self
    }

    /// Level 2: new messages get numbers above this one, as well as above all that were used. Unless told otherwise it is the Unix time in
    /// microseconds at the login: two devices of one user cannot know of each other's numbers, and so do not use the same ones.
    #[must_use]
    pub fn numbers_above(mut self, floor: u64) -> Connect {
        self.numbers_above = Some(floor);
        self
    }

    /// What new numbers are above.
    fn floor(&self) -> u64 {
        let clock_us = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.numbers_above.unwrap_or_else(clock_us)
    }

    /// As given by the caller.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Connects and logs in. A connection of the same user that is there already is closed by the server.
    ///
    /// At level 2 this user has taken in nothing and sent nothing: to go on where a connection ended, [`Connect::resume`].
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Key`]; [`ClientError::Refused`] with the server's reason;
    /// [`ClientError::Closed`] when the server hung up instead of answering, as it does when the keys differ.
    pub fn login(&self, name: &str) -> Result<Client, ClientError> {
        let answered = self.open()?.log_in(name, self.level, None)?;
        Ok(answered.into_client(SessionState::new(name), self.floor()))
    }

    /// Connects and logs in as the state's user, tells the server what was taken in, and sends everything again that has no receipt: the
    /// same fields, in order, in one batch, and after it what was never sent.
    ///
    /// It asks for level 2, whatever [`Connect::level`] says. Where the server does not grant it any more, nothing is sent again, and all stays in the
    /// state: without receipts nobody can know what arrived.
    ///
    /// # Errors
    /// As [`Connect::login`], and those of a write; the state comes back with the error, nothing of it is lost.
    pub fn resume(&self, state: SessionState) -> Result<Client, Box<(SessionState, ClientError)>> {
        let last_seq = Some(state.last_seq()).filter(|seq| *seq > 0);
        let answered = self.open().and_then(|connection| connection.log_in(state.name(), Level::Two, last_seq));
        let mut client = match answered {
            Ok(answered) => answered.into_client(state, self.floor()),
            Err(error) => return Err(Box::new((state, error))),
        };
        match client.send_again() {
            Ok(()) => Ok(client),
            Err(error) => Err(Box::new((client.into_state(), error))),
        }
    }

    /// Connects without logging in.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Key`].
    pub fn open(&self) -> Result<Connection, ClientError> {
        let cipher = Cipher::new(&self.key)?;
        let stream = self.dial().map_err(|source| ClientError::Connect { addr: self.addr.clone(), source })?;
        let wire = Arc::new(Wire { stream, cipher, timeout: self.timeout, writing: Mutex::new(Vec::new()) });
        Ok(Connection { wire, reader: Reader::default() })
    }

    /// The first of the name's addresses that answers.
    fn dial(&self) -> io::Result<TcpStream> {
        let deadline = Instant::now() + self.timeout;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for addr in self.addr.to_socket_addrs()? {
            let left = deadline.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
            match TcpStream::connect_timeout(&addr, left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(self.timeout.max(SHORTEST_WAIT)))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("addr", &self.addr).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What the sending and the receiving side share.
pub(super) struct Wire {
    stream: TcpStream,
    cipher: Cipher,
    timeout: Duration,
    /// Held while a packet is on its way out, so that packets of two threads do not mix; what packets are made in under it.
    /// lock: wire → ledger
    writing: Mutex<Vec<u8>>,
}

impl Wire {
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn cipher(&self) -> &Cipher {
        &self.cipher
    }

    /// Writes all of it or ends the connection. Safe from any thread; waits at most about twice the timeout.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let _one_at_a_time = self.writing.lock();
        self.write_all(bytes)
    }

    /// Writes what `make` makes, as [`Wire::write`]: what is made first leaves first. `make` must not wait for anything.
    pub(super) fn write_made<T>(&self, make: impl FnOnce(&mut Vec<u8>) -> T) -> (T, Result<(), ClientError>) {
        let mut bytes = self.writing.lock();
        bytes.clear();
        let made = make(&mut bytes);
        let written = self.write_all(&bytes);
        bytes.clear();
        bytes.shrink_to(KEPT_BUFFER_BYTES);
        (made, written)
    }

    fn write_all(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut rest = bytes;
        while !rest.is_empty() {
            match (&self.stream).write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.give_up_writing());
                }
                Err(error) => return Err(ClientError::of_open_socket(error)),
            }
            if !rest.is_empty() && Instant::now() >= deadline {
                return Err(self.give_up_writing());
            }
        }
        Ok(())
    }

    /// Half a packet may be out: nothing legal can follow it. What arrives can still be read.
    fn give_up_writing(&self) -> ClientError {
        let _ = self.stream.shutdown(Shutdown::Write);
        ClientError::Timeout { what: Awaited::Write }
    }
}

/// One packet, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The type.
    pub kind: u32,
    /// The whole packet, header included.
    pub bytes: Vec<u8>,
}

/// A TCP connection to a server, with nothing decided yet: writes bytes as they are, reads packets. For one thread at a time.
pub struct Connection {
    wire: Arc<Wire>,
    reader: Reader,
}

impl Connection {
    /// Logs in, at level 1.
    ///
    /// # Errors
    /// As [`Connect::login`].
    pub fn login(self, name: &str) -> Result<Client, ClientError> {
        self.log_in(name, Level::One, None).map(|answered| answered.into_client(SessionState::new(name), 0))
    }

    fn log_in(mut self, name: &str, level: Level, last_seq: Option<u64>) -> Result<Answered, ClientError> {
        self.write_message(&Message::ClientLogin {
            name,
            version: VERSION,
            time: unix_time(),
            level: level.asked(),
            last_seq,
        })?;
        let answer = self.read_message(self.timeout(), |message| match message {
            Message::ServerAcceptLogin(LoginAnswer { login: true, tips, time, granted }) => {
                Ok((tips.to_owned(), time, granted))
            }
            Message::ServerAcceptLogin(LoginAnswer { tips, .. }) => Err(ClientError::Refused { tips: tips.to_owned() }),
            other => Err(unexpected(&other)),
        })?;
        let (welcome, server_time, granted) = answer.ok_or(ClientError::Timeout { what: Awaited::LoginAnswer })??;
        let granted = granted.filter(|_| level == Level::Two);
        Ok(Answered { connection: self, welcome, server_time, granted })
    }

    /// Writes bytes as they are, legal or not.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::Timeout`]: the connection has ended.
    pub fn write_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.wire.write(bytes)
    }

    /// Encodes and writes any message, at any moment.
    ///
    /// # Errors
    /// As [`Connection::write_raw`].
    pub fn write_message(&mut self, message: &Message<'_>) -> Result<(), ClientError> {
        let mut packet = Vec::new();
        message.encode(self.wire.cipher(), &mut packet);
        self.wire.write(&packet)
    }

    /// The next packet as it arrived, of any type, unopened; `None` = none was complete in time.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: no packet will come any more. [`ClientError::Protocol`]: its length is illegal.
    pub fn read_packet(&mut self, timeout: Duration) -> Result<Option<Packet>, ClientError> {
        self.read_frame(timeout, |frame, _, _| Packet { kind: frame.kind, bytes: frame.packet.to_vec() })
    }

    /// Bytes that have come from the server.
    pub fn received_bytes(&self) -> u64 {
        self.reader.received_bytes
    }

    /// The next packet, opened, decoded and handed to `take`; `None` = none was complete in time. A packet that cannot be read is an
    /// error and is skipped.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::Protocol`].
    pub fn read_message<T>(
        &mut self,
        timeout: Duration,
        take: impl FnOnce(Message<'_>) -> T,
    ) -> Result<Option<T>, ClientError> {
        let taken = self.read_frame(timeout, |frame, decoder, cipher| {
            decoder.decode(cipher, frame).map(|decoded| take(decoded.message))
        })?;
        Ok(taken.transpose()?)
    }

    /// The next packet, handed to `take` together with what opens it; `None` = none was complete in time.
    pub(super) fn read_frame<T>(
        &mut self,
        timeout: Duration,
        take: impl FnOnce(Frame<'_>, &mut Decoder, &Cipher) -> T,
    ) -> Result<Option<T>, ClientError> {
        let Connection { wire, reader } = self;
        reader.next(&wire.stream, timeout, |frame, decoder| take(frame, decoder, &wire.cipher))
    }

    /// Like `read_frame`, but takes only what has arrived already, and does not wait at all.
    pub(super) fn read_frame_now<T>(
        &mut self,
        take: impl FnOnce(Frame<'_>, &mut Decoder, &Cipher) -> T,
    ) -> Result<Option<T>, ClientError> {
        let Connection { wire, reader } = self;
        reader.next_now(&wire.stream, |frame, decoder| take(frame, decoder, &wire.cipher))
    }

    /// Reads until the server closes and gives the packets that came before, and whether the close was a reset.
    ///
    /// # Errors
    /// [`ClientError::Timeout`]: it did not close in time.
    pub fn read_to_close(&mut self, timeout: Duration) -> Result<(Vec<Packet>, bool), ClientError> {
        let deadline = Instant::now() + timeout;
        let mut packets = Vec::new();
        loop {
            match self.read_packet(deadline.saturating_duration_since(Instant::now())) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => {
                    return Err(ClientError::Timeout { what: Awaited::Close });
                }
                Err(ClientError::Closed { reset }) => return Ok((packets, reset)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket itself, for its options and its descriptor.
    pub fn stream(&self) -> &TcpStream {
        &self.wire.stream
    }

    pub(super) fn timeout(&self) -> Duration {
        self.wire.timeout
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }
}

/// A connection whose login was accepted.
pub(super) struct Answered {
    pub(super) connection: Connection,
    pub(super) welcome: String,
    pub(super) server_time: i64,
    pub(super) granted: Option<Granted>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("stream", &self.wire.stream).finish_non_exhaustive()
    }
}

/// Bytes that have arrived, cut into packets. What is incomplete stays for the next call.
#[derive(Default)]
struct Reader {
    buffer: Vec<u8>,
    /// `buffer[start..end]` has arrived and is not consumed.
    start: usize,
    end: usize,
    received_bytes: u64,
    decoder: Decoder,
}

impl Reader {
    /// Hands the next complete packet to `take`, whatever that makes of it.
    fn next<T>(
        &mut self,
        stream: &TcpStream,
        timeout: Duration,
        take: impl FnOnce(Frame<'_>, &mut Decoder) -> T,
    ) -> Result<Option<T>, ClientError> {
        let started = Instant::now();
        let mut wait = timeout.max(SHORTEST_WAIT);
        loop {
            if let Some(frame) = Frame::parse(&self.buffer[self.start..self.end], MAX_PACKET_BYTES)? {
                self.start += frame.packet.len();
                return Ok(Some(take(frame, &mut self.decoder)));
            }
            if wait.is_zero() || !self.fill(stream, wait)? {
                return Ok(None);
            }
            // From the start, not from the last byte: a server that dribbles does not extend the deadline.
            wait = timeout.saturating_sub(started.elapsed());
        }
    }

    /// As `next`, with what has arrived already.
    fn next_now<T>(
        &mut self,
        stream: &TcpStream,
        take: impl FnOnce(Frame<'_>, &mut Decoder) -> T,
    ) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(frame) = Frame::parse(&self.buffer[self.start..self.end], MAX_PACKET_BYTES)? {
                self.start += frame.packet.len();
                return Ok(Some(take(frame, &mut self.decoder)));
            }
            self.make_room();
            match rustix::net::recv(stream, &mut self.buffer[self.end..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(ClientError::Closed { reset: false }),
                Ok((_, bytes)) => self.take_in(bytes),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(ClientError::of_open_socket(error.into())),
            }
        }
    }

    /// Reads once; `false` = nothing came within `wait`, `true` = look again.
    fn fill(&mut self, mut stream: &TcpStream, wait: Duration) -> Result<bool, ClientError> {
        self.make_room();
        stream.set_read_timeout(Some(wait)).map_err(ClientError::Io)?;
        match stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(ClientError::Closed { reset: false }),
            Ok(bytes) => {
                self.take_in(bytes);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(ClientError::of_open_socket(error)),
        }
    }

    fn take_in(&mut self, bytes: usize) {
        self.end += bytes;
        self.received_bytes += bytes as u64;
    }

    /// At least one byte free at the end of the buffer: moves what is there to the front, then doubles.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize((self.buffer.len() * 2).max(FIRST_BUFFER_BYTES), 0);
        }
    }
}
