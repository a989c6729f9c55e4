//! When a client that waits for messages pings, and when a server that no longer answers counts as gone.
//!
//! TCP alone does not tell: on a line that went silent, bytes are sent again for a quarter of an hour; a proxy on the way may even acknowledge them.
//! At level 2 each ping has an answer, so a server from which nothing comes from one ping to the next is out of reach. At level 1 nobody answers.

use std::time::{Duration, Instant};

use crate::client::{Awaited, Client, ClientError, Level};

/// The pings of one connection.
pub struct Heartbeat {
    due_at: Instant,
    is_unanswered: bool,
    /// What had come when this was last asked. Any byte is a sign of life: on a slow line a long packet takes longer than a ping's answer may.
    received_bytes: u64,
}

impl Heartbeat {
    /// Of a connection that has just logged in.
    pub fn new(client: &Client) -> Heartbeat {
        Heartbeat {
            due_at: Instant::now() + client.ping_interval(),
            is_unanswered: false,
            received_bytes: client.received_bytes(),
        }
    }

    /// How long until [`Heartbeat::beat`] has something to do.
    pub fn wait(&self) -> Duration {
        self.due_at.saturating_duration_since(Instant::now())
    }

    /// Pings if it is time. Call it when what has arrived was looked at.
    ///
    /// # Errors
    /// The connection is lost, or the server has not answered the last ping: log in again.
    pub fn beat(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if !self.wait().is_zero() {
            return Ok(());
        }
        let heard = client.received_bytes();
        if self.is_unanswered && heard == self.received_bytes {
            return Err(ClientError::Timeout { what: Awaited::Pong });
        }
        self.received_bytes = heard;
        self.is_unanswered = client.level() == Level::Two;
        self.due_at = Instant::now() + client.ping_interval();
        client.ping()
    }
}
