//! stub
use super::{Cipher, Frame, ProtocolError};

/// The packet types of level 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PacketType {
    /// Client to server.
    ClientLogin = 1,
    /// Server to client.
    ServerAcceptLogin = 2,
    /// Client to server.
    ClientLogout = 3,
    /// Client to server.
    ClientPing = 4,
    /// Both ways.
    C2CTextChat = 5,
}

impl PacketType {
    /// From the number on the wire.
    ///
    /// # Errors
    /// `UnknownType`.
    pub fn parse(_kind: u32) -> Result<PacketType, ProtocolError> {
        todo!()
    }
    /// The name in the protocol's documents, as `PK_ClientLogin`.
    pub fn name(self) -> &'static str {
        todo!()
    }
}

/// A chat message, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chat<'a> {
    /// The sender's name.
    pub from: &'a str,
    /// The recipient's name.
    pub to: &'a str,
    /// The text.
    pub text: &'a str,
    /// The sender's clock, Unix seconds.
    pub time: i64,
}

/// The answer to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginAnswer<'a> {
    /// Whether the user is in.
    pub login: bool,
    /// For a person: a welcome, or why not.
    pub tips: &'a str,
    /// The server's clock, Unix seconds.
    pub time: i64,
}

/// A message of level 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Message<'a> {
    /// A client asks to be let in.
    ClientLogin {
        /// The user's name.
        name: &'a str,
        /// The client's version, for information.
        version: f32,
        /// The client's clock, Unix seconds.
        time: i64,
    },
    /// The server's answer.
    ServerAcceptLogin(LoginAnswer<'a>),
    /// A client says good-bye.
    ClientLogout {
        /// `true` in all known clients; its value changes nothing.
        logout: bool,
        /// The client's clock, Unix seconds.
        time: i64,
    },
    /// A client is still there.
    ClientPing {
        /// `true` in all known clients; its value changes nothing.
        ping: bool,
        /// The client's clock, Unix seconds.
        time: i64,
    },
    /// A text from one user to another.
    Chat(Chat<'a>),
}

/// Opens and decodes packets; its buffers are reused, so that a packet costs no allocation.
#[derive(Default)]
pub struct Decoder {}

impl Decoder {
    /// Opens and decodes one packet.
    pub fn decode<'d>(&'d mut self, _cipher: &Cipher, _frame: Frame<'_>) -> Result<Decoded<'d>, ProtocolError> {
        todo!()
    }
}

/// A decoded packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decoded<'a> {
    /// What it says.
    pub message: Message<'a>,
    /// The body holds exactly the fields of level 1, once each: it may be forwarded as it was received.
    pub exact: bool,
}

impl Message<'_> {
    /// Appends the whole packet, header and sealed body, to `out`.
    pub fn encode(&self, _cipher: &Cipher, _out: &mut Vec<u8>) {
        todo!()
    }
}
