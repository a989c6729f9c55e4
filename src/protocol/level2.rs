//! The words of level 2: what a receipt and a notice say.
//!
//! Numbers that a later version adds are passed on as they are: a client must not end for a word that it does not know.

use crate::language::{Language, say};

/// The greatest `msg_id` and `seq`: every number up to it is exact as a floating-point number too, which is all that some languages have.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// What a login answer says to a client that has asked for level 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// 2.
    pub level: u32,
    /// How long the server waits in silence.
    pub read_timeout_secs: u32,
    /// The longest packet that it takes, header included.
    pub max_packet_bytes: u32,
    /// No `msg_id` of this user above it has been seen.
    pub last_msg_id: u64,
}

/// What became of messages, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// Which messages; at least one.
    pub msg_ids: &'a [u64],
    /// What became of them.
    pub status: Status,
    /// Why they were refused.
    pub reason: Option<Reason>,
    /// The same for a person.
    pub text: Option<&'a str>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Committed to disk: it survives a crash and a loss of power.
    Stored = 1,
    /// Acknowledged by the recipient, or by its TCP if it speaks level 1.
    Delivered = 2,
    /// Not taken.
    Refused = 3,
}

impl Status {
    /// From the number on the wire.
    pub fn parse(number: u32) -> Option<Status> {
        match number {
            1 => Some(Status::Stored),
            2 => Some(Status::Delivered),
            3 => Some(Status::Refused),
            _ => None,
        }
    }
}

/// An enumeration whose numbers are the wire's, with room for those that are not known yet.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$case_doc])* $case,)*
            /// Of a later version.
            Other(u32),
        }

        impl From<u32> for $name {
            fn from(number: u32) -> $name {
                match number {
                    $($number => $name::$case,)*
                    other => $name::Other(other),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                match value {
                    $($name::$case => $number,)*
                    $name::Other(number) => number,
                }
            }
        }
    };
}

numbered! {
    /// Why a message was refused.
    Reason {
        /// Nobody can have the recipient's name.
        BadName = 1,
        /// The text is too long.
        TooLong = 2,
        /// Too much waits for the recipient already.
        BacklogFull = 3,
        /// Another message was sent under this number.
        IdUsed = 4,
        /// The number is older than those that the server remembers.
        IdTooOld = 5,
        /// Too many messages in too short a time.
        Rate = 6,
        /// The server's database has its full size.
        NoSpace = 7,
    }
}

numbered! {
    /// Why the server is about to close, or what it corrected.
    NoticeCode {
        /// Another login of the same user took over.
        Replaced = 1,
        /// No login came in time.
        LoginTimeout = 2,
        /// The client was silent for too long, or did not complete a packet in time.
        Idle = 3,
        /// A packet broke a rule.
        BadPacket = 4,
        /// The sender of a message is not the user who logged in.
        ForgedSender = 5,
        /// Too many packets in too short a time.
        Rate = 6,
        /// The server stops.
        Stopping = 7,
        /// The client did not take what was ready for it.
        TooSlow = 8,
        /// The server lacks memory, threads or disk.
        Overloaded = 9,
        /// An operator ended the connection.
        Kicked = 10,
        /// The client acknowledged more than was ever sent to it. The connection goes on.
        AckTooHigh = 11,
    }
}

impl Reason {
    /// A sentence for a person; empty for a reason of a later version.
    pub fn describe(self, language: Language) -> String {
        match self {
            Reason::BadName => say!(language, "nobody can have the recipient's name", "收件人的用户名不合规则"),
            Reason::TooLong => say!(language, "the text is too long for this server", "文本超过服务器允许的长度"),
            Reason::BacklogFull => {
                say!(language, "too much waits for the recipient already", "收件人的待收消息已满")
            }
            Reason::IdUsed => say!(language, "another message was sent under this number", "该编号已用于另一条消息"),
            Reason::IdTooOld => {
                say!(
                    language,
                    "the number is older than those that the server remembers",
                    "该编号过旧，服务器已不再记得"
                )
            }
            Reason::Rate => say!(language, "too many messages in too short a time", "发送过于频繁"),
            Reason::NoSpace => say!(language, "the server's database is full", "服务器数据库已满"),
            Reason::Other(_) => String::new(),
        }
    }
}
