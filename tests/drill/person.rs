//! A user of the drills: has a name and a level, logs in, out and in again, and keeps over that what a client must keep.

use std::time::Duration;

use chatserver::client::{Client, ClientError, Connect};

use crate::net;

/// How a person's client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    One,
    Two,
}

/// Whether the client library speaks level 2; if not, everybody speaks level 1.
const HAS_LEVEL_2: bool = false;

impl Level {
    /// The level that is asked for, as far as it can be had.
    pub fn of(is_two: bool) -> Level {
        if is_two && HAS_LEVEL_2 { Level::Two } else { Level::One }
    }
}

/// What comes out of a connection.
pub enum Event {
    /// A message that this person has not seen before, as far as its level can tell.
    Text(String),
}

/// A user.
pub struct Person {
    name: String,
    level: Level,
    client: Option<Client>,
}

impl Person {
    /// Somebody who is not logged in.
    pub fn new(name: impl Into<String>, level: Level) -> Person {
        Person { name: name.into(), level, client: None }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Logs in, or in again: with what is kept from before.
    pub fn log_in(&mut self, connect: &Connect) -> Result<(), ClientError> {
        self.client = Some(match self.level {
            Level::One => connect.login(&self.name)?,
            Level::Two => unreachable!("nobody is of level 2 yet: see HAS_LEVEL_2"),
        });
        Ok(())
    }

    /// The connection; there is one.
    pub fn client(&mut self) -> &mut Client {
        self.client.as_mut().unwrap_or_else(|| panic!("{} is not logged in", self.name))
    }

    pub fn send(&mut self, to: &str, text: &str) -> Result<(), ClientError> {
        self.client().send(to, text)
    }

    /// Sends all of them with one write.
    pub fn send_at_once(&mut self, to: &str, texts: &[String]) -> Result<(), ClientError> {
        let client = self.client();
        texts.iter().for_each(|text| client.queue(to, text));
        client.flush()
    }

    /// The server has executed everything that was sent.
    pub fn roundtrip(&mut self) -> Result<(), ClientError> {
        self.client().roundtrip()
    }

    /// What comes next.
    ///
    /// # Errors
    /// The connection has ended, and nothing more is in it.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, ClientError> {
        let message = self.client().recv(timeout)?;
        Ok(message.map(|message| Event::Text(message.text)))
    }

    /// Writes a logout. What the server wrote before its close is still to be read.
    pub fn say_goodbye(&mut self) -> Result<(), ClientError> {
        self.client().sender().logout()
    }

    /// Is not logged in any more. Whatever came and was not read is lost to this connection.
    pub fn leave(&mut self) {
        self.client = None;
    }

    /// The same, with a reset.
    pub fn vanish(&mut self) {
        if let Some(client) = self.client.take() {
            net::reset_client(client);
        }
    }
}
