//! What a server under test speaks, as far as a benchmark needs it: bytes of a login and of a text, and what came back.
//!
//! Two are here: the server's own level 1, and the few bytes of the bare relay. A program may bring another (`examples/bench_mqtt.rs`).

use std::fmt;

use crate::protocol::{Chat, Cipher, Decoder, Frame, HEADER_BYTES, Message};

/// What came from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The client is logged in, and gets what is written to it from now on.
    LoggedIn,
    /// A text, as its sender wrote it.
    Text(&'a [u8]),
    /// Something that no workload waits for.
    Other,
}

/// Why what came cannot be from such a server.
#[derive(Debug)]
pub struct Nonsense(pub String);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A protocol. Users have numbers; a dialect gives them names. From one thread at a time.
pub trait Dialect {
    /// Appends what `user` says to be let in.
    fn log_in(&mut self, user: u32, out: &mut Vec<u8>);

    /// Appends a message of `text`, which is ASCII.
    fn text(&mut self, from: u32, to: u32, text: &[u8], out: &mut Vec<u8>);

    /// Appends a good-bye; the client closes after it.
    fn log_out(&mut self, user: u32, out: &mut Vec<u8>);

    /// Takes the first thing off what `user` has received: how many bytes it had, and what it was. `None`: it is not complete. What has to be
    /// answered at once goes to `reply`.
    ///
    /// # Errors
    /// The server speaks something else, or refused; the benchmark ends.
    fn take<'a>(
        &'a mut self,
        user: u32,
        bytes: &'a [u8],
        reply: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Nonsense>;
}

/// Names are equally long, so that all packets of a run are.
fn name(user: u32) -> String {
    format!("bench-{user:06}")
}

/// Level 1 of this project's protocol.
pub struct Level1 {
    cipher: Cipher,
    decoder: Decoder,
    /// By number.
    names: Vec<String>,
}

impl Level1 {
    /// With this key.
    pub fn new(cipher: Cipher) -> Level1 {
        Level1 { cipher, decoder: Decoder::default(), names: Vec::new() }
    }

    fn know(&mut self, user: u32) {
        for user in self.names.len() as u32..=user {
            self.names.push(name(user));
        }
    }
}

/// Far above what servers are configured to send, and far below what a text of another protocol says as a length.
const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Nobody looks at it.
const TIME: i64 = 1_700_000_000;

impl Dialect for Level1 {
    fn log_in(&mut self, user: u32, out: &mut Vec<u8>) {
        let name = &name(user);
        Message::ClientLogin { name, version: 1.0, time: TIME, level: None, last_seq: None }.encode(&self.cipher, out);
    }

    fn text(&mut self, from: u32, to: u32, text: &[u8], out: &mut Vec<u8>) {
        self.know(from.max(to));
        let [from, to] = [from, to].map(|user| self.names[user as usize].as_str());
        let text = str::from_utf8(text).expect("ASCII");
        Message::Chat(Chat { from, to, text, time: TIME, ..Chat::default() }).encode(&self.cipher, out);
    }

    fn log_out(&mut self, _user: u32, out: &mut Vec<u8>) {
        Message::ClientLogout { logout: true, time: TIME }.encode(&self.cipher, out);
    }

    fn take<'a>(
        &'a mut self,
        _user: u32,
        bytes: &'a [u8],
        _reply: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Nonsense> {
        let nonsense = |error| Nonsense(format!("what the server sent is no packet of this protocol and key: {error}"));
        let Some(frame) = Frame::parse(bytes, PACKET_BYTES_MAX).map_err(nonsense)? else { return Ok(None) };
        let length = frame.packet.len();
        let event = match self.decoder.decode(&self.cipher, frame).map_err(nonsense)?.message {
            Message::Chat(chat) => Event::Text(chat.text.as_bytes()),
            Message::ServerAcceptLogin(answer) if answer.login => Event::LoggedIn,
            Message::ServerAcceptLogin(answer) => {
                return Err(Nonsense(format!("the server refused a login: {}", answer.tips)));
            }
            _ => Event::Other,
        };
        Ok(Some((length, event)))
    }
}

/// What the bare relay speaks: the header says for whom the packet is, the body is as long as the server's would be, with nothing hidden in it.
pub struct Plain {
    level1: Level1,
    /// Bytes of a text, and of the server's packet with it.
    known: (usize, usize),
    scratch: Vec<u8>,
}

/// The recipient's number in the header of a login and its answer, of which no user has it.
pub(super) const LOGIN: u32 = u32::MAX;

impl Plain {
    /// As long as packets sealed with this key.
    pub fn new(cipher: Cipher) -> Plain {
        Plain { level1: Level1::new(cipher), known: (0, 0), scratch: Vec::new() }
    }

    fn packet_bytes(&mut self, from: u32, to: u32, text: &[u8]) -> usize {
        if self.known.0 != text.len() {
            self.scratch.clear();
            self.level1.text(from, to, text, &mut self.scratch);
            self.known = (text.len(), self.scratch.len());
        }
        self.known.1
    }
}

impl Dialect for Plain {
    fn log_in(&mut self, user: u32, out: &mut Vec<u8>) {
        Frame::write(LOGIN, out, |out| out.extend(user.to_be_bytes()));
    }

    fn text(&mut self, from: u32, to: u32, text: &[u8], out: &mut Vec<u8>) {
        let end = out.len() + self.packet_bytes(from, to, text);
        Frame::write(to, out, |out| {
            out.extend((text.len() as u32).to_be_bytes());
            out.extend_from_slice(text);
            out.resize(end, 0);
        });
    }

    fn log_out(&mut self, _user: u32, _out: &mut Vec<u8>) {}

    fn take<'a>(
        &'a mut self,
        _user: u32,
        bytes: &'a [u8],
        _reply: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Nonsense> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [length, to] = [0, 4].map(|at| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes")));
        let Some(body) = (length as usize).checked_sub(HEADER_BYTES).and_then(|length| rest.get(..length)) else {
            return Ok(None);
        };
        if to == LOGIN {
            return Ok(Some((length as usize, Event::LoggedIn)));
        }
        let text = body.split_first_chunk().and_then(|(count, text)| text.get(..u32::from_be_bytes(*count) as usize));
        let text = text.ok_or_else(|| Nonsense("the relay sent what nobody wrote".into()))?;
        Ok(Some((length as usize, Event::Text(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PUBLISHED_KEY;

    #[test]
    fn packets_of_the_relay_are_as_long_as_the_servers_and_hold_the_text() {
        let cipher = || Cipher::new(PUBLISHED_KEY).unwrap();
        let (mut level1, mut plain) = (Level1::new(cipher()), Plain::new(cipher()));
        for count in [10, 100, 101, 60_000] {
            let text = vec![b'a'; count];
            let packets: Vec<Vec<u8>> = [&mut level1 as &mut dyn Dialect, &mut plain]
                .into_iter()
                .map(|dialect| {
                    let mut packet = Vec::new();
                    dialect.text(1, 2, &text, &mut packet);
                    assert_eq!(dialect.take(2, &packet[..packet.len() - 1], &mut Vec::new()).unwrap(), None);
                    let taken = dialect.take(2, &packet, &mut Vec::new()).unwrap();
                    assert_eq!(taken, Some((packet.len(), Event::Text(&text[..]))));
                    packet
                })
                .collect();
            assert_eq!(packets[0].len(), packets[1].len());
        }
    }

    #[test]
    fn a_refused_login_is_told_with_the_servers_words() {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        let answer = crate::protocol::LoginAnswer { login: false, tips: "too many", time: 0, granted: None };
        let mut packet = Vec::new();
        Message::ServerAcceptLogin(answer).encode(&cipher, &mut packet);
        let error = Level1::new(cipher).take(1, &packet, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }
}
