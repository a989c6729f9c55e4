//! The sending half of a client: encodes into a batch and writes whole packets.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Wire;
use super::ledger::{Ledger, Room};
use super::{Awaited, ClientError, Draft, Level, Unnumbered, unix_time};
use crate::protocol::{Chat, Message, encode_packet};

/// Sends for a logged-in user. A clone has a batch of its own and may go to another thread: packets of different senders never mix.
///
/// At level 2 all senders of a client number their messages together, and the numbers leave the socket in growing order. With
/// [`MAX_UNRECEIPTED`](super::MAX_UNRECEIPTED) messages without a receipt a sender waits until the thread that has the [`Client`](super::Client)
/// receives some: never send with a clone on the thread that should be receiving.
pub struct Sender {
    wire: Arc<Wire>,
    name: Arc<str>,
    /// Encoded packets that have not been written yet.
    batch: Vec<u8>,
    /// Level 2: messages of the batch that have no number yet.
    drafts: VecDeque<Placed>,
    /// Level 2.
    ledger: Option<Arc<Ledger>>,
}

/// A message that stands before the byte `at` of the batch.
struct Placed {
    at: usize,
    draft: Draft,
}

/// What a write has come to.
#[derive(Default)]
pub(super) struct Wrote {
    /// The whole batch is out. Otherwise there is no room for more.
    pub(super) is_all: bool,
    /// The last number that was given.
    pub(super) last_id: Option<u64>,
}

impl Sender {
    pub(super) fn new(wire: Arc<Wire>, name: &str, ledger: Option<Arc<Ledger>>) -> Sender {
        Sender { wire, name: name.into(), batch: Vec::new(), drafts: VecDeque::new(), ledger }
    }

    /// The name that everything is sent from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The level of the connection.
    pub fn level(&self) -> Level {
        if self.ledger.is_some() { Level::Two } else { Level::One }
    }

    /// See [`Client::send`](super::Client::send). At level 2 it may wait for receipts, as long as the timeout of [`Connect`](super::Connect).
    ///
    /// # Errors
    /// As [`Client::send`](super::Client::send).
    pub fn send(&mut self, to: &str, text: &str) -> Result<(), ClientError> {
        self.send_at(to, text, unix_time())
    }

    /// See [`Client::send_at`](super::Client::send_at).
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send_at(&mut self, to: &str, text: &str, time: i64) -> Result<(), ClientError> {
        self.wait_for_room()?;
        self.queue_at(to, text, time);
        self.flush()
    }

    /// See [`Client::send_numbered`](super::Client::send_numbered).
    ///
    /// # Errors
    /// As [`Client::send_numbered`](super::Client::send_numbered).
    pub fn send_numbered(&mut self, to: &str, text: &str) -> Result<u64, ClientError> {
        if self.ledger.is_none() {
            return Err(ClientError::NotNumbered { why: Unnumbered::LevelOne });
        }
        self.wait_for_room()?;
        self.queue(to, text);
        let msg_id = self.flush_numbered()?;
        Ok(msg_id.expect("the last of the batch has a number"))
    }

    /// Puts a text with the present time into the batch.
    pub fn queue(&mut self, to: &str, text: &str) {
        self.queue_at(to, text, unix_time());
    }

    /// Puts a text with a time of the caller's choice, Unix seconds, into the batch.
    pub fn queue_at(&mut self, to: &str, text: &str, time: i64) {
        if self.ledger.is_some() {
            return self.queue_draft(Draft { to: to.to_owned(), text: text.to_owned(), time });
        }
        let name = Arc::clone(&self.name);
        self.queue_message(&Message::Chat(Chat { from: &name, to, text, time, ..Chat::default() }));
    }

    /// Level 2: behind what is in the batch.
    pub(super) fn queue_draft(&mut self, draft: Draft) {
        self.drafts.push_back(Placed { at: self.batch.len(), draft });
    }

    /// Puts any message into the batch, one from a forged sender included: for tests. It is not numbered.
    pub fn queue_message(&mut self, message: &Message<'_>) {
        message.encode(self.wire.cipher(), &mut self.batch);
    }

    /// Puts a packet of a type of one's own into the batch: see [`Client::send_custom`](super::Client::send_custom).
    pub fn queue_custom(&mut self, kind: u32, body: &[u8]) {
        encode_packet(kind, body, self.wire.cipher(), &mut self.batch);
    }

    /// Bytes in the batch; a message of level 2 counts from the moment at which it gets its number.
    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Writes the batch, with one system call if the kernel takes it at once. At level 2 no more than there is room for, then
    /// it waits for receipts.
    ///
    /// # Errors
    /// The connection has ended, and the batch is gone; at level 2 its messages are remembered.
    /// [`Awaited::Receipts`]: no room came in time; what is not written is still in the batch.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.flush_numbered().map(|_| ())
    }

    /// Gives the last number.
    fn flush_numbered(&mut self) -> Result<Option<u64>, ClientError> {
        let deadline = Instant::now() + self.wire.timeout();
        let mut last_id = None;
        loop {
            let wrote = match self.write_some() {
                Ok(wrote) => wrote,
                Err(error @ ClientError::NotNumbered { .. }) => return Err(error),
                Err(error) => return Err(self.left_over(error)),
            };
            last_id = wrote.last_id.or(last_id);
            match self.ledger.as_ref().map(|ledger| ledger.wait_for_room(deadline)) {
                _ if wrote.is_all => return Ok(last_id),
                Some(Room::Full) => return Err(ClientError::Timeout { what: Awaited::Receipts }),
                Some(Room::Closed | Room::Retired) => return Err(self.left_over(ClientError::Closed { reset: false })),
                Some(Room::Free) | None => {}
            }
        }
    }

    /// Before a message is taken.
    fn wait_for_room(&mut self) -> Result<(), ClientError> {
        match &self.ledger {
            // Once the connection has ended the write finds it out.
            Some(ledger) if ledger.wait_for_room(Instant::now() + self.wire.timeout()) == Room::Full => {
                Err(ClientError::Timeout { what: Awaited::Receipts })
            }
            _ => Ok(()),
        }
    }

    /// Numbers and writes as much of the batch as there is room for, without waiting for any.
    pub(super) fn write_some(&mut self) -> Result<Wrote, ClientError> {
        let Sender { wire, name, batch, drafts, ledger } = self;
        let Some(ledger) = ledger else {
            let written = wire.write(batch);
            batch.clear();
            return written.map(|()| Wrote { is_all: true, last_id: None });
        };
        let (made, written) = wire.write_made(|out| {
            let mut wrote = Wrote::default();
            let mut from = 0;
            let fault = loop {
                let to = drafts.front().map_or(batch.len(), |placed| placed.at);
                out.extend_from_slice(&batch[from..to]);
                from = to;
                let Some(placed) = drafts.front() else {
                    wrote.is_all = true;
                    break None;
                };
                let numbered = ledger.number(name, &placed.draft, wire.cipher(), out);
                if let Ok(None) = numbered {
                    break None;
                }
                // Taken, or not to be taken.
                drafts.pop_front();
                match numbered {
                    Ok(msg_id) => wrote.last_id = msg_id,
                    Err(why) => break Some(why),
                }
            };
            batch.drain(..from);
            drafts.iter_mut().for_each(|placed| placed.at -= from);
            fault.map_or(Ok(wrote), |why| Err(ClientError::NotNumbered { why }))
        });
        if let Err(error) = written {
            self.batch.clear();
            self.drafts.iter_mut().for_each(|placed| placed.at = 0);
            return Err(error);
        }
        made
    }

    /// After an error: gives what has no number to the client's state.
    fn left_over(&mut self, error: ClientError) -> ClientError {
        self.batch.clear();
        let mut drafts = self.drafts.drain(..).map(|placed| placed.draft).peekable();
        match &self.ledger {
            Some(ledger) if drafts.peek().is_some() && !ledger.leave_over(drafts) => {
                ClientError::NotNumbered { why: Unnumbered::Retired }
            }
            _ => error,
        }
    }

    /// Messages of the batch that have no number.
    pub(super) fn drafts(&self) -> impl ExactSizeIterator<Item = &Draft> {
        self.drafts.iter().map(|placed| &placed.draft)
    }

    /// See [`Client::unreceipted`](super::Client::unreceipted); what is in a batch does not count.
    pub fn unreceipted(&self) -> usize {
        self.ledger.as_ref().map_or(0, |ledger| ledger.len())
    }

    /// Level 2: waits until everything that was sent has a receipt, `timeout` at most, or until the connection has ended; gives how many
    /// messages have none. Another thread must be receiving meanwhile.
    pub fn wait_for_receipts(&self, timeout: Duration) -> usize {
        self.ledger.as_ref().map_or(0, |ledger| ledger.wait_until_settled(Instant::now() + timeout))
    }

    /// See [`Client::ping`](super::Client::ping).
    ///
    /// # Errors
    /// The connection has ended.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.write_last(&Message::ClientPing { ping: true, time: unix_time() })
    }

    /// Writes the logout. The server closes when it has read everything before it: whoever receives sees that close. At level 2 messages
    /// for which there was no room are remembered.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn logout(&mut self) -> Result<(), ClientError> {
        self.write_last(&Message::ClientLogout { logout: true, time: unix_time() })
    }

    /// After the batch; or past it, if that waits for room: a ping must not wait.
    fn write_last(&mut self, message: &Message<'_>) -> Result<(), ClientError> {
        if self.ledger.is_some() && !self.write_some()?.is_all {
            let ((), written) = self.wire.write_made(|out| message.encode(self.wire.cipher(), out));
            return written;
        }
        self.queue_message(message);
        self.write_some().map(|_| ())
    }

    pub(super) fn write_ack(&mut self, seq: u64) -> Result<(), ClientError> {
        self.wire.write_made(|out| Message::ClientAck { seq }.encode(self.wire.cipher(), out)).1
    }

    /// Everything without a receipt once more, in one write.
    pub(super) fn write_again(&mut self) -> Result<(), ClientError> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        self.wire.write_made(|out| ledger.encode_all(&self.name, self.wire.cipher(), out)).1
    }

    pub(super) fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.as_ref()
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        Sender::new(Arc::clone(&self.wire), &self.name, self.ledger.clone())
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("name", &self.name).finish_non_exhaustive()
    }
}
