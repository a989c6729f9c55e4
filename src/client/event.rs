//! What comes out of the socket, owned.

use super::{ClientError, Unreceipted, unexpected};
use crate::protocol::{Cipher, Decoder, Frame, Message, NoticeCode, PacketType, Reason, Status};

/// The highest level of the protocol that a connection uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Messages, and nothing about what becomes of them.
    #[default]
    One,
    /// Receipts and acks: no message is lost and none comes twice.
    Two,
}

impl Level {
    /// What a login says.
    pub(super) fn asked(self) -> Option<u32> {
        match self {
            Level::One => None,
            Level::Two => Some(2),
        }
    }
}

/// A message as it arrived, owned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it.
    pub from: String,
    /// To whom: the user who is logged in.
    pub to: String,
    /// The text, exactly as sent. Whoever prints it on a terminal escapes its control characters first.
    pub text: String,
    /// The sender's clock, Unix seconds: claimed, not checked.
    pub time: i64,
    /// Level 2: the sender's number for it; `None` from a sender of level 1.
    pub msg_id: Option<u64>,
    /// Level 2: its place among this user's messages.
    pub seq: Option<u64>,
}

/// A packet of a type that the protocol does not have, opened: see [`server::Handlers`](crate::server::Handlers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomPacket {
    /// The type.
    pub kind: u32,
    /// The body as the server gave it.
    pub body: Vec<u8>,
}

/// What became of one message. After [`Status::Stored`] there may come [`Status::Delivered`] for the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its number.
    pub msg_id: u64,
    /// What became of it.
    pub status: Status,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// The same for a person, in the server's language.
    pub text: Option<String>,
    /// The message, with its first receipt: it is remembered no longer.
    pub message: Option<Unreceipted>,
}

/// Why the server is about to close, or what it corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which.
    pub code: NoticeCode,
    /// For a person to read, in the server's language.
    pub text: String,
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Incoming),
    /// What became of a message; also of one that this program knows nothing of.
    Receipt(Receipt),
    /// A word of the server. After [`NoticeCode::AckTooHigh`] the connection goes on: the server's numbers are behind ours, as those of an older
    /// database are; messages are then told apart by their senders' numbers alone until its numbers have grown past ours.
    Notice(Notice),
    /// The answer to a ping, with its time.
    Pong(i64),
    /// A packet of a type of one's own.
    Custom(CustomPacket),
}

/// What one packet says.
pub(super) enum Arrived {
    Message(Incoming),
    Custom(CustomPacket),
    Receipts(Vec<Receipt>),
    Notice(Notice),
    Pong(i64),
}

impl Arrived {
    /// Opens and decodes a packet. At level 1 those of level 2 are out of place.
    pub(super) fn read(
        frame: Frame<'_>,
        decoder: &mut Decoder,
        cipher: &Cipher,
        level: Level,
    ) -> Result<Arrived, ClientError> {
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
                msg_id: chat.msg_id,
                seq: chat.seq,
            })),
            other if level < Level::Two => Err(unexpected(&other)),
            Message::ServerReceipt(receipt) => {
                let text = receipt.text.map(str::to_owned);
                let one = |msg_id: &u64| Receipt {
                    msg_id: *msg_id,
                    status: receipt.status,
                    reason: receipt.reason,
                    text: text.clone(),
                    message: None,
                };
                Ok(Arrived::Receipts(receipt.msg_ids.iter().map(one).collect()))
            }
            Message::ServerNotice { code, text } => Ok(Arrived::Notice(Notice { code, text: text.to_owned() })),
            Message::ServerPong { time } => Ok(Arrived::Pong(time)),
            other => Err(unexpected(&other)),
        }
    }
}
