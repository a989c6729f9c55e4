//! What a peer can do wrong.

use crate::language::{Language, say};

/// The peer broke a rule of the protocol. The connection it came on ends; no other does. `Display` is English, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe(Language::English))]
pub enum ProtocolError {
    /// The announced length is below the shortest legal packet.
    TooShort {
        /// Announced length in bytes.
        length: u32,
    },
    /// The announced length is above the configured maximum.
    TooLong {
        /// Announced length in bytes.
        length: u32,
        /// Greatest length taken, in bytes.
        max: u32,
    },
    /// The first bytes are the greeting of another protocol.
    OtherProtocol {
        /// "HTTP", "TLS", "SSH", …
        protocol: &'static str,
    },
    /// The body is not a multiple of the cipher's block.
    Unaligned {
        /// Body length in bytes.
        length: u32,
    },
    /// The body cannot be opened: padding, protobuf, a missing field or invalid UTF-8. One error, so that nobody learns which.
    BadBody,
    /// A type that this protocol does not have.
    UnknownType {
        /// The type as received.
        kind: u32,
    },
    /// A type that only a server sends.
    WrongDirection {
        /// The type as received.
        kind: u32,
    },
    /// Anything but a login on a connection that has not logged in.
    NotLoggedIn {
        /// The type as received.
        kind: u32,
    },
    /// A login on a connection that has logged in already.
    SecondLogin,
    /// The sender of a message is not the user who logged in here.
    ForgedSender,
}

impl ProtocolError {
    /// A sentence for a person.
    pub fn describe(&self, language: Language) -> String {
        match self {
            ProtocolError::TooShort { length } => {
                let min = super::MIN_PACKET_BYTES;
                say!(language, "packet length {length} is below the minimum of {min}", "包长 {length} 小于最小值 {min}")
            }
            ProtocolError::TooLong { length, max } => {
                say!(language, "packet length {length} is above the maximum of {max}", "包长 {length} 超过最大值 {max}")
            }
            ProtocolError::OtherProtocol { protocol } => say!(
                language,
                "this looks like {protocol}, not like a chat client",
                "看起来是 {protocol}，不是聊天客户端"
            ),
            ProtocolError::Unaligned { length } => {
                say!(language, "body of {length} bytes is not a multiple of 16", "包体长 {length} 字节，不是 16 的倍数")
            }
            ProtocolError::BadBody => say!(
                language,
                "the body cannot be read (wrong key, or a malformed message)",
                "包体无法解读（密钥不对，或消息格式有误）"
            ),
            ProtocolError::UnknownType { kind } => say!(language, "unknown packet type {kind}", "未知的包类型 {kind}"),
            ProtocolError::WrongDirection { kind } => {
                say!(language, "packet type {kind} is the server's to send", "类型 {kind} 的包只能由服务器发送")
            }
            ProtocolError::NotLoggedIn { kind } => {
                say!(language, "packet type {kind} before login", "登录之前收到类型 {kind} 的包")
            }
            ProtocolError::SecondLogin => say!(language, "second login on one connection", "同一连接上重复登录"),
            ProtocolError::ForgedSender => {
                say!(language, "the sender is not the user who logged in here", "发送者不是在此连接上登录的用户")
            }
        }
    }
}
