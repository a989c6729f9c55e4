//! Carries one line of the table out: bytes in, and then what must come, what must not, and who must have been told.

use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::bytes::{TIME, encode, pattern};
use super::ground::Ground;
use super::wire::{Fault, Got, Line, Packet, fields};
use crate::protocol::{Chat, Message};

/// Between two pieces of a stream, so that they arrive one by one.
const BETWEEN_PIECES: Duration = Duration::from_millis(2);

/// What the connection is when the bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum State {
    /// Connected, and nothing more.
    #[serde(rename = "stranger")]
    Stranger,
    /// Logged in as clients of 2014 do.
    #[serde(rename = "level 1")]
    Level1,
    /// Logged in with level 2 granted.
    #[serde(rename = "level 2")]
    Level2,
    /// Connected, to a server that grants level 2.
    #[serde(rename = "level 2 asked for")]
    Asking,
    /// Logged in; the bytes follow a logout in the same write.
    #[serde(rename = "logged out")]
    LoggedOut,
    /// The same at level 2.
    #[serde(rename = "logged out at level 2")]
    LoggedOut2,
}

impl State {
    /// As in the table.
    pub fn words(self) -> &'static str {
        match self {
            State::Stranger => "stranger",
            State::Level1 => "level 1",
            State::Level2 => "level 2",
            State::Asking => "level 2 asked for",
            State::LoggedOut => "logged out",
            State::LoggedOut2 => "logged out at level 2",
        }
    }

    /// Whether the server must have granted level 2.
    pub fn is_level_2(self) -> bool {
        matches!(self, State::Level2 | State::LoggedOut2 | State::Asking)
    }
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum End {
    /// The server closes it; at level 2 it says why before.
    #[serde(rename = "close")]
    Close,
    /// It goes on: a stranger can still log in, a user can still write and be written to.
    #[serde(rename = "open")]
    Open,
    /// The bytes were a login, and the user is in.
    #[serde(rename = "welcome")]
    Welcome,
    /// The bytes were a login, and it is refused in words; then the server closes.
    #[serde(rename = "refused")]
    Refused,
}

/// A case.
#[derive(Debug)]
pub struct Case {
    /// Before the bytes.
    pub state: State,
    /// The bytes, in the table's language.
    pub send: String,
    /// How they are cut; empty: in one write.
    pub pieces: Vec<usize>,
    /// After them.
    pub end: End,
    /// Patterns of the packets that come back, in order.
    pub answers: Vec<String>,
    /// Texts that `$you` gets, in order: these and no others.
    pub relayed: Vec<String>,
    /// Code of the notice before a close at level 2; 4, BAD_PACKET, unless something else is said; 0: there is none.
    pub notice: Option<u32>,
    /// The name of a login in the bytes, where it is not `$me`.
    pub login: Option<String>,
    /// The close comes by a timeout of the server's.
    pub is_slow: bool,
}

impl Case {
    /// Carries it out.
    ///
    /// # Errors
    /// The server did something else.
    pub fn carry_out(&self, ground: &Ground<'_>) -> Result<(), Fault> {
        let words = ground.words();
        let bytes = encode(&self.send, &words.as_words())?;
        // Whoever can be relayed from needs somebody to be relayed to.
        let is_stranger = matches!(self.state, State::Stranger | State::Asking);
        // A witness would wait as long as who is silent, and be cut, too.
        let has_witness = !self.is_slow && (!is_stranger || self.end == End::Welcome || self.send.contains("$you"));
        let mut witness = if has_witness { Some(ground.login("you")?) } else { None };
        let mut me = match self.state {
            State::Stranger | State::Asking => ground.connect("me")?,
            State::Level1 | State::LoggedOut => ground.login("me")?,
            State::Level2 | State::LoggedOut2 => ground.login_2("me")?,
        };
        if let Some(login) = &self.login {
            me.name = String::from_utf8_lossy(&encode(login, &words.as_words())?).into_owned();
        }
        self.write(&mut me, bytes, ground);
        self.read_answers(&mut me, ground)?;
        match self.end {
            End::Close | End::Refused => me.closed(self.patience(ground))?,
            End::Open | End::Welcome if witness.is_none() => drop(ground.log_in(&mut me, None)?),
            End::Open | End::Welcome => {}
        }
        match (&mut witness, self.end) {
            (None, _) => Ok(()),
            (Some(you), End::Open | End::Welcome) => self.fence(&mut me, you, ground),
            (Some(you), End::Close | End::Refused) => self.fence_alone(you, ground),
        }
    }

    fn patience(&self, ground: &Ground<'_>) -> Duration {
        if self.is_slow { ground.longest_deadline() } else { ground.patience() }
    }

    fn write(&self, me: &mut Line, mut bytes: Vec<u8>, ground: &Ground<'_>) {
        if matches!(self.state, State::LoggedOut | State::LoggedOut2) {
            let mut packet = ground.logout();
            packet.append(&mut bytes);
            bytes = packet;
        }
        if bytes.is_empty() {
            return;
        }
        let (mut rest, mut pieces) = (&bytes[..], self.pieces.iter());
        let mut length = bytes.len();
        while !rest.is_empty() {
            length = pieces.next().map_or(length, |length| (*length).max(1));
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            me.write(piece);
            rest = behind;
            if !rest.is_empty() {
                thread::sleep(BETWEEN_PIECES);
            }
        }
    }

    fn read_answers(&self, me: &mut Line, ground: &Ground<'_>) -> Result<(), Fault> {
        let mut expected = self.answers.clone();
        match self.end {
            End::Welcome => expected.insert(0, "2: 1=1".to_owned()),
            End::Refused => expected.insert(0, "2: 1=0".to_owned()),
            // One who logs out knows why.
            End::Close if self.state == State::Level2 && self.notice != Some(0) => {
                expected.push(format!("103: 1={}", self.notice.unwrap_or(4)))
            }
            End::Close | End::Open => {}
        }
        for answer in &expected {
            let (kind, wanted) = pattern(answer, &ground.words().as_words())?;
            let wanted = fields(&wanted).ok_or_else(|| format!("the table's pattern {answer:?} is no message"))?;
            let packet = loop {
                let packet = me.packet(&format!("a packet {answer}"), self.patience(ground))?;
                // STORED may come before DELIVERED, when the disk is faster than the recipient.
                if packet.kind != 101 || packet.number(2) != Some(1) || packet.has(&wanted) {
                    break packet;
                }
            };
            if packet.kind != kind || !packet.has(&wanted) {
                return Err(format!("instead of a packet {answer} came {}", told(&packet)).into());
            }
            if kind == 2 && packet.number(4).is_some_and(|level| level >= 2) {
                me.is_level_2 = true;
            }
            if self.end == End::Refused && packet.text(2).is_none_or(|tips| tips.is_empty()) {
                return Err("the refusal has no tips_msg: nobody can learn what to do about it".into());
            }
        }
        Ok(())
    }

    /// The session goes on, and what `$you` got was what it should get: a text of `$me` follows it; then one comes back.
    fn fence(&self, me: &mut Line, you: &mut Line, ground: &Ground<'_>) -> Result<(), Fault> {
        let (mine, yours) = (me.name.clone(), you.name.clone());
        let chat = |from, to| Message::Chat(Chat { from, to, text: "fence", time: TIME, ..Chat::default() });
        me.send(&chat(&mine, &yours));
        self.witness(you, &mine, ground)?;
        let what = if me.is_level_2 {
            me.send(&Message::ClientPing { ping: true, time: 4711 });
            "the answer to a ping"
        } else {
            you.send(&chat(&yours, &mine));
            "a text from somebody else"
        };
        let packet = loop {
            let packet = me.packet(what, ground.patience())?;
            // Receipts come when they are due, and may come again.
            if packet.kind != 101 || packet.number(2) == Some(3) {
                break packet;
            }
        };
        let is_it = packet.kind == (if me.is_level_2 { 104 } else { 5 })
            && match me.is_level_2 {
                true => packet.number(1) == Some(4711),
                false => packet.text(3).as_deref() == Some("fence"),
            };
        if is_it { Ok(()) } else { Err(format!("instead of {what} came {}", told(&packet)).into()) }
    }

    /// `$you` is untouched by what happened to `$me`, and got what it should get.
    fn fence_alone(&self, you: &mut Line, ground: &Ground<'_>) -> Result<(), Fault> {
        let name = you.name.clone();
        you.send(&Message::Chat(Chat { from: &name, to: &name, text: "fence", time: TIME, ..Chat::default() }));
        self.witness(you, &ground.name("me"), ground)
    }

    /// What the witness gets before the text "fence".
    fn witness(&self, you: &mut Line, from: &str, ground: &Ground<'_>) -> Result<(), Fault> {
        let words = ground.words();
        let texts = self.relayed.iter().map(|text| encode(text, &words.as_words()));
        let expected: Vec<Vec<u8>> = texts.collect::<Result<_, _>>()?;
        let mut expected = expected.into_iter();
        loop {
            let packet = match you.next(ground.patience())? {
                Got::Packet(packet) => packet,
                Got::Closed => {
                    return Err("the server closed the connection of somebody else, who has done nothing".into());
                }
                Got::Silence => {
                    return Err("the session did not go on: a text sent after the bytes was not relayed".into());
                }
            };
            let text = packet.text(3).unwrap_or_default();
            if text == "fence" {
                return match expected.next() {
                    None => Ok(()),
                    Some(missing) => Err(format!("a text was not relayed: {}", shortened(&missing)).into()),
                };
            }
            match expected.next() {
                Some(wanted) if wanted == text.as_bytes() => check_relayed(&packet, from, &you.name)?,
                _ => return Err(format!("this was relayed and must not be: {}", told(&packet)).into()),
            }
        }
    }
}

/// A relayed packet says who wrote it to whom, and has what level 1 has and no more.
fn check_relayed(packet: &Packet, from: &str, to: &str) -> Result<(), Fault> {
    if packet.text(1).as_deref() != Some(from) || packet.text(2).as_deref() != Some(to) {
        return Err(format!("a text was relayed with another sender or recipient: {}", told(packet)).into());
    }
    let mut numbers = packet.numbers();
    numbers.sort_unstable();
    if numbers == [1, 2, 3, 4] {
        Ok(())
    } else {
        Err(format!("a recipient of level 1 gets exactly the fields 1 to 4, here came {numbers:?}").into())
    }
}

fn shortened(text: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(text).chars().take(40).collect::<String>())
}

/// A packet in words.
fn told(packet: &Packet) -> String {
    let texts: Vec<String> = packet
        .numbers()
        .into_iter()
        .take(8)
        .map(|number| match (packet.number(number), packet.text(number)) {
            (Some(value), _) => format!("{number}={value}"),
            (None, Some(text)) => format!("{number}={}", shortened(text.as_bytes())),
            (None, None) => format!("{number}=…"),
        })
        .collect();
    format!("a packet {}: {}", packet.kind, texts.join(" "))
}
