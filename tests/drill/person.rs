//! A user of the drills: has a name and a level, logs in, out and in again, and keeps over that what a client must keep.

use std::time::{Duration, Instant};

use chatserver::client::{self, Client, ClientError, Connect, Notice, Receipt, SessionState};

use crate::harness::PATIENCE;
use crate::net;

/// How a person's client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    One,
    Two,
}

impl Level {
    /// Two or one.
    pub fn of(is_two: bool) -> Level {
        if is_two { Level::Two } else { Level::One }
    }
}

/// What comes out of a connection.
#[derive(Debug)]
pub enum Event {
    /// A message that this person has not seen before, as far as its level can tell.
    Text(String),
    /// Level 2: what became of a message.
    Receipt(Receipt),
    /// Level 2: a word of the server.
    Notice(Notice),
}

/// A user.
pub struct Person {
    name: String,
    level: Level,
    client: Option<Client>,
    /// Level 2, while there is no client.
    state: Option<SessionState>,
}

impl Person {
    /// Somebody who is not logged in.
    pub fn new(name: impl Into<String>, level: Level) -> Person {
        Person { name: name.into(), level, client: None, state: None }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn level(&self) -> Level {
        self.level
    }

    /// Logs in, or in again: with what is kept from before. At level 2 that sends again what has no receipt.
    pub fn log_in(&mut self, connect: &Connect) -> Result<(), ClientError> {
        self.leave();
        self.client = Some(match self.level {
            Level::One => connect.login(&self.name)?,
            Level::Two => {
                let state = self.state.take().unwrap_or_else(|| SessionState::new(&self.name));
                connect.resume(state).map_err(|failed| {
                    let (state, error) = *failed;
                    self.state = Some(state);
                    error
                })?
            }
        });
        let granted = self.client().level();
        assert!(self.level == Level::One || granted == client::Level::Two, "the server grants level 2");
        Ok(())
    }

    /// Forgets what is kept: the next login is that of a new phone. Not while logged in.
    pub fn forget(&mut self) {
        self.state = None;
    }

    /// Whether it has a connection, which may have ended.
    pub fn is_there(&self) -> bool {
        self.client.is_some()
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

    /// Level 2: how many messages have no receipt.
    pub fn unreceipted(&mut self) -> usize {
        self.client().unreceipted()
    }

    /// Level 2, not logged in: the texts that the next login sends.
    pub fn to_resend(&self) -> Vec<String> {
        let Some(state) = &self.state else { return Vec::new() };
        let again = state.unreceipted().map(|message| message.text.clone());
        again.chain(state.drafts().map(|draft| draft.text.clone())).collect()
    }

    /// What comes next; pongs are not told.
    ///
    /// # Errors
    /// The connection has ended, and nothing more is in it.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, ClientError> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            return Ok(Some(match self.client().next_event(left)? {
                Some(client::Event::Message(message)) => Event::Text(message.text),
                Some(client::Event::Receipt(receipt)) => Event::Receipt(receipt),
                Some(client::Event::Notice(notice)) => Event::Notice(notice),
                Some(client::Event::Pong(_)) => continue,
                Some(other) => panic!("nobody sends {other:?}"),
                None => return Ok(None),
            }));
        }
    }

    /// Writes a logout. What the server wrote before its close is still to be read.
    pub fn say_goodbye(&mut self) -> Result<(), ClientError> {
        self.client().sender().logout()
    }

    /// The same, and reads to the end.
    pub fn say_goodbye_and_wait(mut self) {
        // If the connection has ended, `next` tells it.
        let _ = self.say_goodbye();
        while self.next(PATIENCE).is_ok() {}
    }

    /// Is not logged in any more. Whatever came and was not read is lost to this connection.
    pub fn leave(&mut self) {
        if let Some(client) = self.client.take()
            && self.level == Level::Two
        {
            self.state = Some(client.into_state());
        }
    }

    /// The same, with a reset.
    pub fn vanish(&mut self) {
        net::reset(self.client().connection().stream().try_clone().expect("a socket has another descriptor"));
        self.leave();
    }
}
