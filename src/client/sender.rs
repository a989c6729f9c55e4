//! The sending half of a client: encodes into a batch and writes whole packets.

use std::fmt;
use std::sync::Arc;

use super::connection::Wire;
use super::{ClientError, unix_time};
use crate::protocol::{Chat, Message, encode_packet};

/// Sends for a logged-in user. A clone has a batch of its own and may go to another thread: packets of different senders never mix.
pub struct Sender {
    wire: Arc<Wire>,
    name: Arc<str>,
    /// Encoded packets that have not been written yet.
    batch: Vec<u8>,
}

impl Sender {
    pub(super) fn new(wire: Arc<Wire>, name: &str) -> Sender {
        Sender { wire, name: name.into(), batch: Vec::new() }
    }

    /// The name that everything is sent from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`Client::send`](super::Client::send).
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, to: &str, text: &str) -> Result<(), ClientError> {
        self.send_at(to, text, unix_time())
    }

    /// See [`Client::send_at`](super::Client::send_at).
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send_at(&mut self, to: &str, text: &str, time: i64) -> Result<(), ClientError> {
        self.queue_at(to, text, time);
        self.flush()
    }

    /// Puts a text with the present time into the batch.
    pub fn queue(&mut self, to: &str, text: &str) {
        self.queue_at(to, text, unix_time());
    }

    /// Puts a text with a time of the caller's choice, Unix seconds, into the batch.
    pub fn queue_at(&mut self, to: &str, text: &str, time: i64) {
        let name = Arc::clone(&self.name);
        self.queue_message(&Message::Chat(Chat { from: &name, to, text, time, ..Chat::default() }));
    }

    /// Puts any message into the batch, one from a forged sender included: for tests.
    pub fn queue_message(&mut self, message: &Message<'_>) {
        message.encode(self.wire.cipher(), &mut self.batch);
    }

    /// Puts a packet of a type of one's own into the batch: see [`Client::send_custom`](super::Client::send_custom).
    pub fn queue_custom(&mut self, kind: u32, body: &[u8]) {
        encode_packet(kind, body, self.wire.cipher(), &mut self.batch);
    }

    /// Bytes in the batch.
    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Writes the batch, with one system call if the kernel takes it at once. After an error the batch is gone.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let written = self.wire.write(&self.batch);
        self.batch.clear();
        written
    }

    /// See [`Client::ping`](super::Client::ping).
    ///
    /// # Errors
    /// The connection has ended.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.queue_message(&Message::ClientPing { ping: true, time: unix_time() });
        self.flush()
    }

    /// Writes the logout. The server closes when it has read everything before it: whoever receives sees that close.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn logout(&mut self) -> Result<(), ClientError> {
        self.queue_message(&Message::ClientLogout { logout: true, time: unix_time() });
        self.flush()
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        Sender { wire: Arc::clone(&self.wire), name: Arc::clone(&self.name), batch: Vec::new() }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("name", &self.name).finish_non_exhaustive()
    }
}
