//! The wire, and nothing else: bytes in, meaning out, and back.

mod cipher;
mod error;
mod frame;
mod message;
mod name;

pub use cipher::{Cipher, KeyError, PUBLISHED_KEY};
pub use error::ProtocolError;
pub use frame::{Frame, HEADER_BYTES, MIN_PACKET_BYTES};
pub use message::{Chat, Decoded, Decoder, LoginAnswer, Message, PacketType};
pub use name::{NameError, UserName};
