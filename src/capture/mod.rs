//! Captures of the network: the byte streams of TCP connections out of a file that tcpdump or Wireshark wrote, and such a file for what passed a proxy.
//!
//! `file.rs` reads the file formats, `frame.rs` the headers of one frame, `stream.rs` puts the segments of one direction in order, `read.rs` is the
//! four together; `write.rs` makes a capture of bytes that were never captured.
//!
//! Nothing in here knows what the bytes mean: neither packets nor keys. Read first: RFC 9293 §3.4 (sequence numbers); the file formats are in
//! draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

mod file;
mod frame;
mod read;
mod stream;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use file::{MAX_FRAME_BYTES, MIN_CAPTURE_BYTES, is_capture};
pub use read::{Options, Streams, streams};
pub use write::{ConnectionId, Resolution, Writer};

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The client does.
    ToServer,
    /// The server does.
    ToClient,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub fn reverse(self) -> Direction {
        match self {
            Direction::ToServer => Direction::ToClient,
            Direction::ToClient => Direction::ToServer,
        }
    }

    /// As JSON has it.
    pub fn words(self) -> &'static str {
        match self {
            Direction::ToServer => "client-to-server",
            Direction::ToClient => "server-to-client",
        }
    }

    /// As people read it.
    pub fn arrow(self) -> &'static str {
        match self {
            Direction::ToServer => "client → server",
            Direction::ToClient => "server → client",
        }
    }
}

/// A TCP connection of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// 1, 2, 3, …: in the order in which they are met.
    pub id: u64,
    /// Who opened it, as far as that can be told.
    pub client: SocketAddr,
    /// The other end.
    pub server: SocketAddr,
}

/// What comes next in one direction of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Whose stream it is a piece of.
    pub direction: Direction,
    /// When the frame was captured that brought it.
    pub time: SystemTime,
    /// How many bytes of the direction come before it, missing ones included.
    pub offset: u64,
    /// What it is.
    pub content: Content,
}

/// What a [`Piece`] brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The capture has no beginning of this direction (no SYN): offset 0 is somewhere in its stream.
    Middle,
    /// Bytes, at least one.
    Bytes(Vec<u8>),
    /// So many bytes are not in the capture.
    Gap(u64),
    /// The sender has closed its side: nothing follows.
    Fin,
    /// Nothing more is known of this direction, though it has not ended: the connection was forgotten, or another one has its ports.
    Forgotten,
    /// One of the two has reset the connection: nothing follows. Each direction that had not ended has one.
    Reset,
}

/// Why a capture cannot be read, or no further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The input failed.
    #[error("the capture cannot be read after {offset} bytes: {error}")]
    Input {
        /// Bytes of the capture before it.
        offset: u64,
        /// The system's words.
        error: io::Error,
    },
    /// The first bytes are of no known format.
    #[error("this is neither a pcap nor a pcapng file")]
    NotACapture,
    /// The input ends within a record: whoever wrote it was stopped, most often. All before it has been handed out.
    #[error("the capture ends within the record that begins at byte {offset}")]
    CutOff {
        /// Where the record begins, bytes.
        offset: u64,
    },
    /// A record that no correct program writes.
    #[error("at byte {offset} the capture is damaged: {what}")]
    Damaged {
        /// Where the record begins, bytes.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Frames of a kind that is not read.
    #[error("at byte {offset}: link type {link_type} is not read (Ethernet, raw IP, Linux cooked and loopback are)")]
    LinkType {
        /// Where the record begins that says so, bytes.
        offset: u64,
        /// Its number in the list of tcpdump.org.
        link_type: i32,
    },
}

/// So long after the beginning of 1970; that beginning itself for what no clock shows.
fn since_epoch(since: Duration) -> SystemTime {
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}
