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
//! | [`SessionState`] | level 2: what a user must remember between two connections |
//!
//! Every call has a deadline: the one it is given, or the timeout of [`Connect`]. A call that runs into its deadline while
//! *reading* leaves everything as it was, half a packet included; one that runs into it while *writing* ends the connection,
//! because half a packet may be out.
//!
//! # Level 2
//! With [`Connect::level`], and a server that grants it, no message is lost and none comes twice, whatever breaks:
//!
//! - **What is sent** gets a number and is remembered until the server has a receipt for it. When the connection is lost,
//!   [`Client::into_state`] gives what is remembered and [`Connect::resume`] sends it again. So a message whose send failed is *not* to be
//!   sent by the application again, with two exceptions that say that it was not taken: [`Awaited::Receipts`] and [`ClientError::NotNumbered`].
//! - **What arrives** is given out once: it is dropped when its `seq` is not above those before, or when its sender's number was there.
//!   It counts as taken in when the application comes back for more, with [`Client::recv`], [`Client::next_event`] or
//!   [`Client::recv_custom`]; then it is acknowledged, at once when nothing else has arrived yet, else with others, 64 at most and within 1 s
//!   of such calls. Whoever works long on a message lets the server wait, which keeps it and sends it again if the connection breaks. Any
//!   other call acknowledges nothing.
//! - **Across restarts** of the program this holds when the state is kept in a file: [`Client::keep_in`], [`SessionState::save`].
//!
//! ```no_run
//! # use chatserver::client::{Client, Event, Level, SessionState};
//! # use chatserver::protocol::PUBLISHED_KEY;
//! # use std::time::Duration;
//! let connect = Client::connect("127.0.0.1:8989", PUBLISHED_KEY).level(Level::Two);
//! let mut state = SessionState::new("alice");
//! loop {
//!     let mut client = match connect.resume(state) {
//!         Ok(client) => client,
//!         Err(failed) => {
//!             state = failed.0;
//!             std::thread::sleep(Duration::from_secs(1));
//!             continue;
//!         }
//!     };
//!     let lost = loop {
//!         match client.next_event(client.ping_interval()) {
//!             Ok(Some(event)) => println!("{event:?}"),
//!             Ok(None) => drop(client.ping()),
//!             Err(lost) => break lost,
//!         }
//!     };
//!     println!("{lost}");
//!     state = client.into_state();
//! }
//! ```
//!
//! This room knows sockets, `crate::protocol`, and the one file of `state`. It must not know the server or a terminal.
//! Read first: PROTOCOL.md; RFC 9293 §3.6 for what a close says about the data before it.

mod connection;
mod error;
mod event;
mod inbox;
mod ledger;
mod sender;
mod state;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use connection::{Connect, Connection, Packet};
pub use error::{Awaited, ClientError, Unnumbered};
pub use event::{CustomPacket, Event, Incoming, Level, Notice, Receipt};
pub use sender::Sender;
pub use state::{Draft, MAX_SENDERS, MAX_UNRECEIPTED, SessionState, StateError, Unreceipted};

use self::connection::Answered;
use self::event::Arrived;
use self::inbox::Inbox;
use self::ledger::{Ledger, Room};
use self::state::Sent;
use crate::protocol::{Granted, Message, NoticeCode, PacketType, ProtocolError};

/// Longest pause between two pings: four in a server's default read timeout of 120 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Round trips whose receipts are not given out.
const MARKS: usize = 64;

/// A logged-in user. For one thread at a time; a second thread sends with its own [`Sender`].
///
/// Dropping it closes the connection without a word, and at level 2 its state is gone with it. The server then finds out by itself, but nobody
/// learns whether it had read everything: [`Client::logout`] does.
pub struct Client {
    connection: Connection,
    sender: Sender,
    inbox: Inbox,
    granted: Option<Granted>,
    welcome: String,
    server_time: i64,
    /// Numbers of round trips.
    marks: VecDeque<u64>,
    /// Level 2: the batch waits for receipts and goes on as they come.
    is_owing: bool,
    keep_in: Option<PathBuf>,
    /// Level 1: what a state of level 2 holds that cannot be sent here.
    idle: (Sent, VecDeque<Draft>),
}

impl Answered {
    /// `numbers_above`: see [`Connect::numbers_above`].
    fn into_client(self, state: SessionState, numbers_above: u64) -> Client {
        let Answered { connection, welcome, server_time, granted } = self;
        let SessionState { name, taken, sent, drafts } = state;
        let (ledger, idle) = match granted {
            Some(granted) => (Some(Arc::new(Ledger::new(sent, granted, numbers_above))), Default::default()),
            None => (None, (sent, drafts.clone())),
        };
        let mut sender = Sender::new(Arc::clone(connection.wire()), &name, ledger);
        if granted.is_some() {
            drafts.into_iter().for_each(|draft| sender.queue_draft(draft));
        }
        let inbox = Inbox::new(taken, granted.is_some());
        let (marks, is_owing, keep_in) = (VecDeque::new(), false, None);
        Client { connection, sender, inbox, granted, welcome, server_time, marks, is_owing, keep_in, idle }
    }
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

    /// The level of this connection: what was asked for, if the server granted it.
    pub fn level(&self) -> Level {
        if self.granted.is_some() { Level::Two } else { Level::One }
    }

    /// What the server said on granting level 2; `None` at level 1.
    pub fn granted(&self) -> Option<Granted> {
        self.granted
    }

    /// How long to be silent at most before the next [`Client::ping`]: a third of the server's read timeout, or 30 s where that is not
    /// known or is longer.
    pub fn ping_interval(&self) -> Duration {
        let third = |granted: Granted| Duration::from_secs(granted.read_timeout_secs.into()) / 3;
        let told = self.granted.map(third).filter(|interval| !interval.is_zero());
        told.map_or(PING_INTERVAL, |interval| interval.min(PING_INTERVAL))
    }

    /// Another sending half of this connection, with a batch of its own. Packets of different senders never mix.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The connection below, to write raw bytes or to read raw packets. Packets read there are not seen by [`Client::recv`].
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Bytes that have come from the server since the connection was made: also those of packets that are not whole yet.
    pub fn received_bytes(&self) -> u64 {
        self.connection.received_bytes()
    }

    /// Sends a text with the present time, after whatever is queued.
    ///
    /// `Ok` means that the kernel has it; after a [`Client::logout`] or a [`Client::roundtrip`] the server has it. At level 2 it is numbered
    /// and remembered until its receipt comes. With [`MAX_UNRECEIPTED`] messages without one, this takes in what arrives
    /// until there is room, as long as the timeout of [`Connect`]; it waits for [`Client::recv`] and [`Client::next_event`].
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::Timeout`]: this connection has ended, log in again. At level 2 the message is remembered.
    /// [`ClientError::Timeout`] with [`Awaited::Receipts`]: there was no room. [`ClientError::NotNumbered`]: the text is too long for the server. In both
    /// cases the connection goes on, and the message was not taken.
    pub fn send(&mut self, to: &str, text: &str) -> Result<(), ClientError> {
        self.send_at(to, text, unix_time())
    }

    /// Sends a text with a time of the caller's choice, Unix seconds.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_at(&mut self, to: &str, text: &str, time: i64) -> Result<(), ClientError> {
        self.send_taken(to, text, time).map(|_| ())
    }

    /// Sends a text with the present time at level 2, and gives its number: receipts name it.
    ///
    /// # Errors
    /// [`ClientError::NotNumbered`] at level 1, and for a text that is too long for the server: nothing was sent. Else as [`Client::send`]; a message that is remembered without its number
    /// being known has it in [`SessionState::unreceipted`], or gets it after the next login, and its receipt says which message it is for.
    pub fn send_numbered(&mut self, to: &str, text: &str) -> Result<u64, ClientError> {
        if self.granted.is_none() {
            return Err(ClientError::NotNumbered { why: Unnumbered::LevelOne });
        }
        let msg_id = self.send_taken(to, text, unix_time())?;
        Ok(msg_id.expect("the last of the batch has a number"))
    }

    fn send_taken(&mut self, to: &str, text: &str, time: i64) -> Result<Option<u64>, ClientError> {
        let waited = self.wait_for_room();
        if let Err(error @ ClientError::Timeout { .. }) = waited {
            return Err(error);
        }
        self.sender.queue_at(to, text, time);
        waited?;
        self.flush_numbered()
    }

    /// Puts a text into the batch; [`Client::flush`] or the next send writes the whole batch at once. At level 2 it gets its number then.
    pub fn queue(&mut self, to: &str, text: &str) {
        self.sender.queue(to, text);
    }

    /// Writes the batch. At level 2 it takes in what arrives whenever there is no room for more.
    ///
    /// # Errors
    /// As [`Client::send`]; after [`Awaited::Receipts`] the rest of the batch goes out as receipts come, or with the next flush.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.flush_numbered().map(|_| ())
    }

    /// Gives the last number.
    fn flush_numbered(&mut self) -> Result<Option<u64>, ClientError> {
        let deadline = Instant::now() + self.connection.timeout();
        let mut last_id = None;
        loop {
            let wrote = self.sender.write_some()?;
            last_id = wrote.last_id.or(last_id);
            self.is_owing = !wrote.is_all;
            if wrote.is_all {
                return Ok(last_id);
            }
            self.take_in(deadline)?;
        }
    }

    /// Level 2: until there is room for one more message.
    fn wait_for_room(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.connection.timeout();
        while self.sender.ledger().is_some_and(|ledger| ledger.room() == Room::Full) {
            self.take_in(deadline)?;
        }
        Ok(())
    }

    /// One packet, in the hope for receipts.
    fn take_in(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let arrived = self.receive(left)?.ok_or(ClientError::Timeout { what: Awaited::Receipts })?;
        self.queue_arrived(arrived);
        Ok(())
    }

    /// After a login: what has no receipt, then what was never sent.
    fn send_again(&mut self) -> Result<(), ClientError> {
        self.sender.write_again()?;
        self.is_owing = !self.sender.write_some()?.is_all;
        Ok(())
    }

    /// Tells the server that we are still there; send one after each [`Client::ping_interval`] of silence. At level 1 it answers nothing, at
    /// level 2 with [`Event::Pong`].
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.sender.ping()
    }

    /// The next message, waiting for it as long as `timeout`; `None` = none came. Zero takes what has already arrived. Whatever else
    /// comes at level 2 is queued for [`Client::next_event`], 65,536 events at most: then the oldest go.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: the connection has ended, and everything that came before has been given out.
    /// [`ClientError::Protocol`]: for a packet that cannot be read. It is skipped, receiving may go on; after a wrong length it cannot.
    /// [`ClientError::State`]: see [`Client::keep_in`].
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Incoming>, ClientError> {
        self.next(timeout, Inbox::next_message)
    }

    /// Whatever comes next, in the order of arrival: messages, and what the server tells at level 2. `None` = nothing came.
    ///
    /// # Errors
    /// As [`Client::recv`].
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<Event>, ClientError> {
        self.next(timeout, Inbox::next_event)
    }

    /// Whatever has arrived already, without waiting, and without acknowledging anything: for an application that takes in several events at once,
    /// and comes back for more with [`Client::next_event`] when it is done with all of them.
    ///
    /// # Errors
    /// As [`Client::recv`].
    pub fn next_arrived(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.inbox.next_event(Instant::now()) {
                return Ok(Some(event));
            }
            match self.receive_now()? {
                Some(arrived) => self.queue_arrived(arrived),
                None => return Ok(None),
            }
        }
    }

    /// Level 2: the next receipt for a message that was not given out yet, waiting for it as long as `timeout`; `None` = none came. So the first
    /// call gives the first receipt. What comes meanwhile is queued. Nothing is acknowledged: this is not coming back for more.
    ///
    /// # Errors
    /// As [`Client::recv`].
    pub fn wait_for_receipt(&mut self, msg_id: u64, timeout: Duration) -> Result<Option<Receipt>, ClientError> {
        let started = Instant::now();
        let mut looked_at = 0;
        loop {
            if let Some(receipt) = self.inbox.take_receipt(msg_id, looked_at) {
                return Ok(Some(receipt));
            }
            looked_at = self.inbox.arrivals();
            match self.receive(timeout.saturating_sub(started.elapsed()))? {
                Some(arrived) => self.queue_arrived(arrived),
                None => return Ok(None),
            }
        }
    }

    /// How many messages have no receipt, those not written yet included. Always 0 at level 1, unless the state of a resumed session held some.
    pub fn unreceipted(&self) -> usize {
        match self.sender.ledger() {
            Some(ledger) => ledger.len() + self.sender.drafts().len(),
            None => self.idle.0.pending.len() + self.idle.1.len(),
        }
    }

    /// Level 2: saves the state to this file before every ack, and when the connection ends. So what was given out is never given out again, not
    /// after a restart either; and what was sent before the last ack is known after it. Save what [`Client::into_state`]
    /// gives in the end, too.
    ///
    /// A save waits for the disk twice and writes the whole state, 8 bytes or more per number remembered. Measured on one SSD: 2 ms with the 1,024
    /// numbers of one sender or of ten, 7 ms with those of 100 senders, 160 ms with those of 4,096. Where each message has its own ack, this is the
    /// limit of how many can be taken in.
    ///
    /// From now on [`Client::recv`] and the like fail with [`ClientError::State`] when the file cannot be written. Then nothing was
    /// acknowledged; the next call tries again.
    pub fn keep_in(&mut self, path: impl Into<PathBuf>) {
        self.keep_in = Some(path.into());
    }

    /// Closes the connection without a word and gives what must be remembered. Everything that was given out counts as taken in; a message
    /// that arrived and was not given out does not: it comes again. A receipt that arrived and was not given out does not: whoever wants
    /// to see them all asks [`Client::next_event`] until it fails. Senders on other threads can send nothing any more.
    #[must_use]
    pub fn into_state(self) -> SessionState {
        let name = self.name().to_owned();
        let (sent, mut drafts) = match self.sender.ledger() {
            Some(ledger) => ledger.retire(),
            None => self.idle,
        };
        drafts.extend(self.sender.drafts().cloned());
        SessionState { name, taken: self.inbox.taken, sent, drafts }
    }

    /// Sends a packet of a type of one's own, which a handler of the server takes ([`server::Handlers`](crate::server::Handlers)); a server without one
    /// closes the connection.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_custom(&mut self, kind: u32, body: &[u8]) -> Result<(), ClientError> {
        self.sender.queue_custom(kind, body);
        self.flush()
    }

    /// The next packet of a type that the protocol does not have, waiting for it as long as `timeout`; `None` = none came. Messages that come
    /// meanwhile are queued for [`Client::recv`], and custom packets that come during that, for this.
    ///
    /// # Errors
    /// As [`Client::recv`].
    pub fn recv_custom(&mut self, timeout: Duration) -> Result<Option<CustomPacket>, ClientError> {
        self.next(timeout, |inbox, _| inbox.next_custom())
    }

    /// A barrier: sends a message with a unique text to oneself and waits until it comes back.
    ///
    /// Then the server has executed everything that this client sent before, and everything that the server had for this client
    /// before has arrived: it is queued for [`Client::recv`], in order. Needs nothing but level 1; at level 2 its own receipts are not given out.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when it does not come back within the timeout of [`Connect`]; else as [`Client::recv`].
    pub fn roundtrip(&mut self) -> Result<(), ClientError> {
        let text = unique_text();
        let name = self.name().to_owned();
        if let Some(msg_id) = self.send_taken(&name, &text, unix_time())? {
            self.marks.truncate(MARKS - 1);
            self.marks.push_front(msg_id);
        }
        let deadline = Instant::now() + self.connection.timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)?.ok_or(ClientError::Timeout { what: Awaited::Roundtrip })? {
                Arrived::Message(message) if message.text == text && message.from == message.to => {
                    self.inbox.push_mark(message);
                    return Ok(());
                }
                arrived => self.queue_arrived(arrived),
            }
        }
    }

    /// Says good-bye and waits for the server's close: it has then read everything that was sent before.
    ///
    /// At level 1 it gives what came in and had not been received yet, in order: for the server these messages are delivered, nobody gets
    /// them again. At level 2 it gives nothing: what was given out before is acknowledged, the rest comes again after the next login. What has no
    /// receipt is forgotten: [`Client::leave`] gives it.
    ///
    /// # Errors
    /// [`ClientError::Timeout`]: the server did not close. [`ClientError::Closed`] with `reset`: it closed without having read
    /// everything. Either way it is not known what it has read.
    pub fn logout(self) -> Result<Vec<Incoming>, ClientError> {
        self.leave().1
    }

    /// As [`Client::logout`], and gives the state, whatever happens.
    pub fn leave(mut self) -> (SessionState, Result<Vec<Incoming>, ClientError>) {
        let left = self.say_goodbye();
        let arrived = match self.level() {
            Level::One => self.inbox.take_messages(),
            Level::Two => Vec::new(),
        };
        (self.into_state(), left.map(|()| arrived))
    }

    fn say_goodbye(&mut self) -> Result<(), ClientError> {
        self.acknowledge(false)?;
        self.sender.logout()?;
        let deadline = Instant::now() + self.connection.timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Ok(Some(arrived)) => self.queue_arrived(arrived),
                Ok(None) => {
                    return Err(ClientError::Timeout { what: Awaited::Goodbye });
                }
                Err(ClientError::Closed { reset: false }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// From the queue, or from the socket through the queue. The application has come back for more: what it got before is acknowledged.
    fn next<T>(
        &mut self,
        timeout: Duration,
        pop: impl Fn(&mut Inbox, Instant) -> Option<T>,
    ) -> Result<Option<T>, ClientError> {
        let started = Instant::now();
        self.acknowledge(true)?;
        loop {
            if let Some(wanted) = pop(&mut self.inbox, Instant::now()) {
                return Ok(Some(wanted));
            }
            let arrived = match self.receive_now() {
                Ok(None) => {
                    self.acknowledge(false)?;
                    self.receive(timeout.saturating_sub(started.elapsed()))
                }
                at_once => at_once,
            };
            match arrived {
                Ok(Some(arrived)) => self.queue_arrived(arrived),
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.keep_at_end(&error)?;
                    return Err(error);
                }
            }
        }
    }

    /// Acknowledges what was given out, if it is time. `more`: something else may have arrived already.
    fn acknowledge(&mut self, more: bool) -> Result<(), ClientError> {
        if let Some(seq) = self.inbox.ack_due(more, Instant::now()) {
            self.keep()?;
            // When the connection has ended, whoever reads next sees it.
            let _ = self.sender.write_ack(seq);
            self.inbox.acked();
        }
        Ok(())
    }

    /// What was given out and can no longer be acknowledged comes again: a file must know it.
    fn keep_at_end(&mut self, error: &ClientError) -> Result<(), ClientError> {
        let has_ended = matches!(error, ClientError::Closed { .. } | ClientError::Io(_));
        if has_ended && self.inbox.ack_due(false, Instant::now()).is_some() {
            self.keep()?;
            self.inbox.acked();
        }
        Ok(())
    }

    fn keep(&self) -> Result<(), ClientError> {
        if let (Some(path), Some(ledger)) = (&self.keep_in, self.sender.ledger()) {
            let bytes = ledger.encode_state(self.name(), &self.inbox.taken, self.sender.drafts().cloned());
            state::write_file(path, &bytes)?;
        }
        Ok(())
    }

    /// From the socket, past the queues.
    fn receive(&mut self, timeout: Duration) -> Result<Option<Arrived>, ClientError> {
        let level = self.level();
        let taken =
            self.connection.read_frame(timeout, |frame, decoder, cipher| Arrived::read(frame, decoder, cipher, level));
        self.received(taken)
    }

    /// As `receive`, without waiting.
    fn receive_now(&mut self) -> Result<Option<Arrived>, ClientError> {
        let level = self.level();
        let taken =
            self.connection.read_frame_now(|frame, decoder, cipher| Arrived::read(frame, decoder, cipher, level));
        self.received(taken)
    }

    fn received(
        &mut self,
        taken: Result<Option<Result<Arrived, ClientError>>, ClientError>,
    ) -> Result<Option<Arrived>, ClientError> {
        match (taken, self.sender.ledger()) {
            (Err(error @ (ClientError::Closed { .. } | ClientError::Io(_))), Some(ledger)) => {
                ledger.close();
                Err(error)
            }
            (taken, _) => taken?.transpose(),
        }
    }

    fn queue_arrived(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Message(message) => self.inbox.push_message(message),
            Arrived::Custom(packet) => self.inbox.push_custom(packet),
            Arrived::Pong(time) => self.inbox.push_event(Event::Pong(time)),
            Arrived::Notice(notice) => {
                if notice.code == NoticeCode::AckTooHigh {
                    self.inbox.push_count_anew();
                }
                self.inbox.push_event(Event::Notice(notice));
            }
            Arrived::Receipts(receipts) => receipts.into_iter().for_each(|receipt| self.queue_receipt(receipt)),
        }
        if self.is_owing {
            // When the connection has ended, whoever reads next sees it.
            self.is_owing = self.sender.write_some().is_ok_and(|wrote| !wrote.is_all);
        }
    }

    fn queue_receipt(&mut self, mut receipt: Receipt) {
        receipt.message = self.sender.ledger().and_then(|ledger| ledger.settle(receipt.msg_id));
        if !self.marks.contains(&receipt.msg_id) {
            self.inbox.push_event(Event::Receipt(receipt));
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
