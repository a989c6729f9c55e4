//! What can go wrong for a client, and what to do then.

use std::io;

use super::StateError;
use crate::language::{Language, say};
use crate::protocol::{KeyError, PacketType, ProtocolError};

/// Why a call failed; `Display` is English.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.describe(Language::English))]
pub enum ClientError {
    /// There is no connection. Check the address and whether the server runs; try again later.
    Connect {
        /// As the caller wrote it.
        addr: String,
        /// What the kernel or the resolver says.
        source: io::Error,
    },
    /// The key has an illegal length.
    Key(#[from] KeyError),
    /// The server answered the login with no. Trying again with the same name is useless, unless the reason says otherwise.
    Refused {
        /// The server's words for a person.
        tips: String,
    },
    /// The connection has ended. Log in again.
    Closed {
        /// It ended with a reset rather than with a clean close: the other end had not read everything, or is gone.
        reset: bool,
    },
    /// Nothing happened in time.
    Timeout {
        /// What was waited for.
        what: Awaited,
    },
    /// The server sent what cannot be read. Most often the two sides use different keys.
    Protocol(#[from] ProtocolError),
    /// The server sent a legal packet at the wrong moment.
    Unexpected {
        /// What came.
        kind: PacketType,
    },
    /// The message has no number, and was not taken.
    NotNumbered {
        /// Why not.
        why: Unnumbered,
    },
    /// The file of the state cannot be written: nothing was acknowledged.
    State(#[from] StateError),
    /// Any other error of the kernel.
    Io(io::Error),
}

/// Why a message gets no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnumbered {
    /// The connection is one of level 1: not asked for more, or not granted.
    LevelOne,
    /// The client is gone and has taken its state with it: send through its successor.
    Retired,
    /// All numbers up to 2^53 are used.
    UsedUp,
    /// Its packet is longer than the server takes, which would end the connection.
    TooLong,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The answer to the login.
    LoginAnswer,
    /// A message to oneself, on its way back.
    Roundtrip,
    /// The server's close after a logout.
    Goodbye,
    /// The server's close.
    Close,
    /// That the server takes what is sent.
    Write,
    /// Level 2: the answer to a ping.
    Pong,
    /// Level 2: receipts, so that another message may be sent.
    Receipts,
}

impl ClientError {
    /// A sentence for the person at the terminal. What the system and the server say stands in it as they say it.
    pub fn describe(&self, language: Language) -> String {
        match self {
            ClientError::Connect { addr, source } => {
                say!(language, "cannot connect to {addr}: {source}", "无法连接到 {addr}：{source}")
            }
            ClientError::Key(error) => error.to_string(),
            ClientError::Refused { tips } => {
                say!(language, "the server refused the login: {tips}", "服务器拒绝登录：{tips}")
            }
            ClientError::Closed { reset: false } => {
                say!(language, "the server closed the connection", "服务器关闭了连接")
            }
            ClientError::Closed { reset: true } => say!(
                language,
                "the server closed the connection (reset: what was sent last may not have been read)",
                "连接被服务器关闭（连接重置：最后发送的内容可能没有被读取）"
            ),
            ClientError::Timeout { what } => {
                let what = what.describe(language);
                say!(language, "timeout while waiting for {what}", "等待超时：{what}")
            }
            ClientError::Protocol(error) => {
                let why = error.describe(language);
                say!(language, "cannot read what the server sent: {why}", "无法解读服务器发来的数据：{why}")
            }
            ClientError::Unexpected { kind } => {
                let name = kind.name();
                say!(language, "the server sent {name} at the wrong moment", "服务器在不该发送的时候发来了 {name}")
            }
            ClientError::NotNumbered { why: Unnumbered::LevelOne } => say!(
                language,
                "the server does not speak level 2 of the protocol: it gives no receipts",
                "服务器不支持协议的第 2 级，不会给出回执"
            ),
            ClientError::NotNumbered { why: Unnumbered::Retired } => {
                say!(language, "this connection has been given up", "此连接已被弃用")
            }
            ClientError::NotNumbered { why: Unnumbered::UsedUp } => {
                say!(language, "all message numbers are used", "消息编号已用尽")
            }
            ClientError::NotNumbered { why: Unnumbered::TooLong } => {
                say!(language, "the text is too long for this server", "文本超过服务器允许的长度")
            }
            ClientError::State(error) => error.describe(language),
            ClientError::Io(error) => say!(language, "network error: {error}", "网络错误：{error}"),
        }
    }

    /// Sorts an error of an open connection: its end is one thing, however it shows.
    pub(super) fn of_open_socket(error: io::Error) -> ClientError {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::BrokenPipe
            | Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::NotConnected
            | Kind::TimedOut => ClientError::Closed { reset: true },
            _ => ClientError::Io(error),
        }
    }
}

impl Awaited {
    fn describe(self, language: Language) -> &'static str {
        match self {
            Awaited::LoginAnswer => language.pick("the answer to the login", "登录应答"),
            Awaited::Roundtrip => language.pick("a round trip", "消息往返"),
            Awaited::Goodbye => language.pick("the server's close after the logout", "登出后服务器关闭连接"),
            Awaited::Close => language.pick("the server's close", "服务器关闭连接"),
            Awaited::Pong => language.pick("the answer to a ping", "对 ping 的应答"),
            Awaited::Receipts => language.pick("receipts for what was sent before", "先前消息的回执"),
            Awaited::Write => language.pick("the server to take what was sent", "服务器接收已发送的数据"),
        }
    }
}
