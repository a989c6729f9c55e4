//! A blocking client of the chat protocol: the terminal client, the tests, the examples and the benchmark all use it.
//!
//! ```no_run
//! use chatserver::client::Client;
//! use chatserver::protocol::PUBLISHED_KEY;
//! use std::time::Duration;
//!
//! let mut client = Client::connect("127.0.0.1:8989", PUBLISHED_KEY).login("alice")?;
//! client.send("bob", "hello")?;
//! if let Some(message) = client.recv(Duration::from_secs(10))? {
//!     println!("{}: {}", message.from, message.text);
//! }
//! client.logout()?;
//! # Ok::<(), chatserver::client::ClientError>(())
//! ```
//!
//! | type | what it is |
//! |---|---|
//! | [`Connect`] | where to connect and how: a builder, and the way to log in again later |
//! | [`Connection`] | a TCP connection that has not logged in: raw bytes and packets, for tests of bad input |
//! | [`Client`] | a logged-in user: sends and receives |
//! | [`Sender`] | the sending half, for a second thread |
//!
//! Every call has a deadline: the one it is given, or the timeout of [`Connect`]. A call that runs into its deadline while
//! *reading* leaves everything as it was, half a packet included; one that runs into it while *writing* ends the connection,
//! because half a packet may be out.
//!
//! This room knows sockets and `crate::protocol`. It must not know the server, a terminal, or a file.
//! Read first: PROTOCOL.md; RFC 9293 §3.6 for what a close says about the data before it.

mod connection;
mod error;
mod sender;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use connection::{Connect, Connection, Packet};
pub use error::{Awaited, ClientError};
pub use sender::Sender;

use crate::protocol::{Message, PacketType, ProtocolError};

/// A message as it arrived, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it.
    pub from: String,
    /// To whom: the user who is logged in.
    pub to: String,
    /// The text, exactly as sent. Whoever prints it on a terminal escapes its control characters first.
    pub text: String,
    /// The sender's clock, Unix seconds: claimed, not checked.
    pub time: i64,
}

/// A packet of a type that the protocol does not have, opened: see [`server::Handlers`](crate::server::Handlers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomPacket {
    /// The type.
    pub kind: u32,
    /// The body as the server gave it.
    pub body: Vec<u8>,
}

/// What comes out of the socket.
enum Arrived {
    Message(Incoming),
    Custom(CustomPacket),
}

/// A logged-in user. For one thread at a time; a second thread sends with its own [`Sender`].
///
/// Dropping it closes the connection without a word. The server then finds out by itself, but nobody learns whether it had
/// read everything: [`Client::logout`] does.
pub struct Client {
    connection: Connection,
    sender: Sender,
    queued: VecDeque<Incoming>,
    custom: VecDeque<CustomPacket>,
    welcome: String,
    server_time: i64,
}

impl Client {
    /// Names a server, `HOST:PORT`, and its key of 16, 24 or 32 bytes. Nothing happens until [`Connect::login`] or [`Connect::open`].
    pub fn connect(addr: impl Into<String>, key: &[u8]) -> Connect {
        Connect::new(addr.into(), key)
    }

    /// The name this client logged in with.
    pub fn name(&self) -> &str {
        self.sender.name()
    }

    /// What the server said on letting us in, for a person.
    pub fn welcome(&self) -> &str {
        &self.welcome
    }

    /// The server's clock at the login, Unix seconds.
    pub fn server_time(&self) -> i64 {
        self.server_time
    }

    /// Another sending half of this connection, with a batch of its own. Packets of different senders never mix.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The connection below, to write raw bytes or to read raw packets. Packets read there are not seen by [`Client::recv`].
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a text with the present time, after whatever is queued.
    ///
    /// `Ok` means that the kernel has it; after a [`Client::logout`] or a [`Client::roundtrip`] the server has it.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::Timeout`]: this connection has ended, log in again.
    pub fn send(&mut self, to: &str, text: &str) -> Result<(), ClientError> {
        self.sender.send(to, text)
    }

    /// Sends a text with a time of the caller's choice, Unix seconds.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_at(&mut self, to: &str, text: &str, time: i64) -> Result<(), ClientError> {
        self.sender.send_at(to, text, time)
    }

    /// Puts a text into the batch; [`Client::flush`] or the next send writes the whole batch at once.
    pub fn queue(&mut self, to: &str, text: &str) {
        self.sender.queue(to, text);
    }

    /// Writes the batch.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.sender.flush()
    }

    /// Tells the server that we are still there. It answers nothing; send one well within the server's read timeout.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.sender.ping()
    }

    /// The next message, waiting for it as long as `timeout`; `None` = none came. Zero takes what has already arrived.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: the connection has ended, and everything that came before has been given out.
    /// [`ClientError::Protocol`]: for a packet that cannot be read. It is skipped, receiving may go on; after a wrong length it cannot.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Incoming>, ClientError> {
        self.receive_until(timeout, |client| !client.queued.is_empty())?;
        Ok(self.queued.pop_front())
    }

    /// Sends a packet of a type of one's own, which a handler of the server takes ([`server::Handlers`](crate::server::Handlers)); a server without one
    /// closes the connection.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_custom(&mut self, kind: u32, body: &[u8]) -> Result<(), ClientError> {
        self.sender.queue_custom(kind, body);
        self.sender.flush()
    }

    /// The next packet of a type that the protocol does not have, waiting for it as long as `timeout`; `None` = none came. Messages that come
    /// meanwhile are queued for [`Client::recv`], and custom packets that come during that, for this.
    ///
    /// # Errors
    /// As [`Client::recv`].
    pub fn recv_custom(&mut self, timeout: Duration) -> Result<Option<CustomPacket>, ClientError> {
        self.receive_until(timeout, |client| !client.custom.is_empty())?;
        Ok(self.custom.pop_front())
    }

    /// A barrier: sends a message with a unique text to oneself and waits until it comes back.
    ///
    /// Then the server has executed everything that this client sent before, and everything that the server had for this client
    /// before has arrived: it is queued for [`Client::recv`], in order. Needs nothing but level 1.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when it does not come back within the timeout of [`Connect`]; else as [`Client::recv`].
    pub fn roundtrip(&mut self) -> Result<(), ClientError> {
        let text = unique_text();
        let name = self.name().to_owned();
        self.send(&name, &text)?;
        let deadline = Instant::now() + self.connection.timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)?.ok_or(ClientError::Timeout { what: Awaited::Roundtrip })? {
                Arrived::Message(message) if message.text == text && message.from == message.to => return Ok(()),
                arrived => self.queue_arrived(arrived),
            }
        }
    }

    /// Says good-bye and waits for the server's close: it has then read everything that was sent before. Gives what came in and had
    /// not been received yet, in order: for the server these messages are delivered, nobody gets them again.
    ///
    /// # Errors
    /// [`ClientError::Timeout`]: the server did not close. [`ClientError::Closed`] with `reset`: it closed without having read
    /// everything. Either way it is not known what it has read.
    pub fn logout(mut self) -> Result<Vec<Incoming>, ClientError> {
        self.sender.logout()?;
        let deadline = Instant::now() + self.connection.timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Ok(Some(arrived)) => self.queue_arrived(arrived),
                Ok(None) => {
                    return Err(ClientError::Timeout { what: Awaited::Goodbye });
                }
                Err(ClientError::Closed { reset: false }) => return Ok(self.queued.into()),
                Err(error) => return Err(error),
            }
        }
    }

    /// From the socket, past the queues.
    fn receive(&mut self, timeout: Duration) -> Result<Option<Arrived>, ClientError> {
        let taken = self.connection.read_frame(timeout, |frame, decoder, cipher| {
            if PacketType::is_free(frame.kind) {
                let body = decoder.open(cipher, frame)?.to_vec();
                return Ok(Arrived::Custom(CustomPacket { kind: frame.kind, body }));
            }
            match decoder.decode(cipher, frame)?.message {
                Message::Chat(chat) => Ok(Arrived::Message(Incoming {
                    from: chat.from.to_owned(),
                    to: chat.to.to_owned(),
                    text: chat.text.to_owned(),
                    time: chat.time,
                })),
                other => Err(unexpected(&other)),
            }
        })?;
        taken.transpose()
    }

    /// From the socket into the queues, until what is wanted is there or `timeout` has passed.
    fn receive_until(&mut self, timeout: Duration, is_there: impl Fn(&Client) -> bool) -> Result<(), ClientError> {
        let started = Instant::now();
        while !is_there(self) {
            match self.receive(timeout.saturating_sub(started.elapsed()))? {
                Some(arrived) => self.queue_arrived(arrived),
                None => break,
            }
        }
        Ok(())
    }

    fn queue_arrived(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Message(message) => self.queued.push_back(message),
            Arrived::Custom(packet) => self.custom.push_back(packet),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The error for a packet that is legal, but not here.
fn unexpected(message: &Message<'_>) -> ClientError {
    match message {
        Message::ServerAcceptLogin(_) => ClientError::Unexpected { kind: PacketType::ServerAcceptLogin },
        Message::Chat(_) => ClientError::Unexpected { kind: PacketType::C2CTextChat },
        Message::ServerReceipt(_) | Message::ServerNotice { .. } | Message::ServerPong { .. } => {
            ClientError::Unexpected { kind: message.packet_type() }
        }
        Message::ClientAck { .. } => ProtocolError::WrongDirection { kind: 102 }.into(),
        Message::ClientLogin { .. } => ProtocolError::WrongDirection { kind: 1 }.into(),
        Message::ClientLogout { .. } => ProtocolError::WrongDirection { kind: 3 }.into(),
        Message::ClientPing { .. } => ProtocolError::WrongDirection { kind: 4 }.into(),
    }
}

/// Unix seconds, now.
fn unix_time() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// A text that no other round trip uses: not of this process, not of another one.
fn unique_text() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("round trip {}-{nanos}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
