//! The wire, and nothing else: bytes in, meaning out, and back.
//!
//! A connection's bytes become packets in `frame`, a packet's body becomes plaintext in `cipher`, the plaintext becomes
//! a message in `message`; `level2` has the words of level 2. `name` says what a user may be called, `error` what a peer can do wrong.
//! `explain` takes a packet apart for a person, byte by byte; nothing else needs it.
//!
//! This room is pure. Nothing in here knows a socket, a file, a thread, a lock, a clock or the log; keys and times are
//! arguments. So all of it can be tested with byte strings alone, and used by a server and a client alike.
//!
//! Read first: PROTOCOL.md, then `proto/chat.proto`.

mod cipher;
mod error;
mod explain;
mod frame;
mod level2;
mod message;
mod name;
#[cfg(test)]
mod tests;

pub use cipher::{Cipher, KeyError, PUBLISHED_KEY};
pub use error::ProtocolError;
pub use explain::{Explained, Fault, Field, Layer, Part, Value, explain};
pub use frame::{Frame, HEADER_BYTES, MIN_PACKET_BYTES};
pub use level2::{Granted, MAX_NUMBER, NoticeCode, Reason, Receipt, Status};
pub use message::{Chat, Decoded, Decoder, LoginAnswer, Message, PacketType, encode_numbered, encode_packet};
pub use name::{MAX_NAME_BYTES, NameError, UserName};
