//! Packets shown to a person: out of hexadecimal text, raw bytes, or a capture of the network.
//!
//! `input.rs` says what a file holds, this file finds the packets in one direction's bytes and has them explained (`protocol::explain`), `show.rs` writes
//! them down. Nothing in here knows a socket: `tap` shows live traffic with the same three.

mod input;
mod show;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

pub use input::{Format, InputError};
pub use show::{About, Look, Style, clock, show};

use crate::capture::{self, Content, Direction};
use crate::protocol::{Cipher, Explained, Frame, PacketType, explain};

/// What comes next in one direction.
#[derive(Debug, Clone)]
pub enum Seen<'a> {
    /// A packet, or what there is of one.
    Packet {
        /// Bytes of the direction before it.
        offset: u64,
        /// What it is.
        packet: Explained<'a>,
    },
    /// Bytes that nobody can tell packets in.
    Skipped {
        /// Bytes of the direction before them.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Why.
        why: &'static str,
    },
}

impl Seen<'_> {
    /// Whether all of it was understood.
    pub fn is_sound(&self) -> bool {
        matches!(self, Seen::Packet { packet, .. } if packet.fault.is_none())
    }
}

const BEHIND_A_FAULT: &str = "not explained: where a packet begins is not known any more";
const NOT_CAPTURED: &str = "not in the capture";

/// One direction of a connection: bytes in, as they come; explained packets out.
pub struct Stream {
    cipher: Arc<Cipher>,
    max_packet_bytes: usize,
    /// A piece may begin with a packet: pieces are segments, or writes.
    has_segments: bool,
    bytes: Vec<u8>,
    /// Bytes of the direction before `bytes`.
    at: u64,
    /// Where a packet begins is not known; so many bytes have been left out since.
    lost: Option<u64>,
}

impl Stream {
    /// At the beginning of a direction. A packet announced longer than `max_packet_bytes` is none.
    pub fn new(cipher: Arc<Cipher>, max_packet_bytes: usize) -> Stream {
        Stream { cipher, max_packet_bytes, has_segments: false, bytes: Vec::new(), at: 0, lost: None }
    }

    /// Pieces are what one write or segment brought: where packets are lost, they are found again where a piece begins with one.
    #[must_use]
    pub fn of_segments(mut self) -> Stream {
        self.has_segments = true;
        self
    }

    /// The beginning is not here.
    pub fn lose(&mut self) {
        self.lost.get_or_insert(0);
    }

    /// More bytes.
    pub fn push(&mut self, piece: &[u8], see: &mut dyn FnMut(Seen<'_>)) {
        if let Some(skipped) = self.lost {
            if !(self.has_segments && self.begins_with_packet(piece)) {
                self.lost = Some(skipped + piece.len() as u64);
                return;
            }
            self.found(see);
        }
        self.bytes.extend_from_slice(piece);
        let mut used = 0;
        while self.lost.is_none() {
            let rest = &self.bytes[used..];
            match Frame::wanted(rest, self.max_packet_bytes) {
                Ok(None) => break,
                Ok(Some(length)) if rest.len() < length => break,
                _ => {}
            }
            let packet = explain(rest, &self.cipher, self.max_packet_bytes);
            let (offset, length) = (self.at + used as u64, packet.packet.len());
            if !packet.is_delimited {
                self.lost = Some(0);
            }
            see(Seen::Packet { offset, packet });
            used += length;
        }
        self.bytes.drain(..used);
        self.at += used as u64;
    }

    /// So many bytes are missing.
    pub fn gap(&mut self, bytes: u64, see: &mut dyn FnMut(Seen<'_>)) {
        self.end(see);
        see(Seen::Skipped { offset: self.at, bytes, why: NOT_CAPTURED });
        self.at += bytes;
        self.lose();
    }

    /// No more will come: what is left is shown as far as it goes.
    pub fn end(&mut self, see: &mut dyn FnMut(Seen<'_>)) {
        self.found(see);
        let rest = std::mem::take(&mut self.bytes);
        if !rest.is_empty() {
            see(Seen::Packet { offset: self.at, packet: explain(&rest, &self.cipher, self.max_packet_bytes) });
            self.at += rest.len() as u64;
        }
    }

    /// Shows what is kept of a packet that is not whole yet as far as it goes; its rest is left out.
    fn let_go(&mut self, see: &mut dyn FnMut(Seen<'_>)) {
        if !self.bytes.is_empty() {
            self.end(see);
            self.lose();
        }
    }

    /// Tells of what was left out.
    fn found(&mut self, see: &mut dyn FnMut(Seen<'_>)) {
        if let Some(bytes) = self.lost.take().filter(|bytes| *bytes > 0) {
            see(Seen::Skipped { offset: self.at, bytes, why: BEHIND_A_FAULT });
            self.at += bytes;
        }
    }

    fn begins_with_packet(&self, piece: &[u8]) -> bool {
        let kind = piece.get(4..8).map(|kind| u32::from_be_bytes(*kind.first_chunk().expect("4 bytes")));
        matches!(Frame::wanted(piece, self.max_packet_bytes), Ok(Some(_)))
            && kind.is_some_and(|kind| PacketType::parse(kind).is_ok())
    }
}

/// What to read and how to show it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The key.
    pub cipher: Arc<Cipher>,
    /// A packet announced longer is none.
    pub max_packet_bytes: usize,
    /// What the input holds; `None`: its beginning tells.
    pub format: Option<Format>,
    /// Of a capture: only connections with this port at the server's end.
    pub port: Option<u16>,
    /// Of bytes: who sent them; `None`: their packets tell.
    pub from: Option<Direction>,
    /// How to show it.
    pub look: Look,
}

impl Options {
    fn stream(&self) -> Stream {
        Stream::new(self.cipher.clone(), self.max_packet_bytes)
    }
}

/// How much was shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets, and parts of such.
    pub packets: u64,
    /// Of these, and of what was skipped, those with a fault.
    pub faults: u64,
    /// Of these, those without padding: most often the key is another one.
    pub unpadded: u64,
    /// Packets of both sides came in one stream, so of those that go either way nobody can say who sent them.
    pub is_mixed: bool,
}

/// Why it ended early. What came before has been shown.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A capture.
    #[error(transparent)]
    Capture(#[from] capture::ReadError),
    /// The output.
    #[error("the output cannot be written ({0})")]
    Output(io::Error),
}

/// Shows all packets of `input` on `out`, each as soon as it is there.
///
/// # Errors
/// The input is not what it should be, or cannot be read; the output cannot be written.
pub fn decode(input: impl Read, options: &Options, out: &mut impl Write) -> Result<Count, DecodeError> {
    let (format, input) = input::detect(input, options.format)?;
    let mut shown = Shown { look: options.look, out, count: Count::default(), failed: None };
    let read = match format {
        Format::Capture => captured(input, options, HELD_BYTES, &mut shown),
        Format::Hex | Format::Raw => {
            let (mut stream, mut about) = (options.stream(), options.from.map_or_else(About::default, About::from));
            let read = input::pieces(input, format, |piece| {
                stream.push(piece, &mut |seen| shown.see(&seen, &mut about));
                shown.failed.is_none()
            });
            stream.end(&mut |seen| shown.see(&seen, &mut about));
            read.map_err(DecodeError::from)
        }
    };
    match shown.failed {
        Some(error) => Err(DecodeError::Output(error)),
        None => read.map(|()| shown.count),
    }
}

/// What may be kept of packets that are not whole yet, of all connections together, bytes. Past it all of them are shown as far as they go, and their rest
/// is left out.
const HELD_BYTES: usize = 64 << 20;

/// Connections that are remembered. Past it the quietest are shown as far as they go, and forgotten.
const CONNECTIONS: usize = 4096;

fn captured(
    input: impl Read,
    options: &Options,
    held_bytes: usize,
    shown: &mut Shown<'_, impl Write>,
) -> Result<(), DecodeError> {
    let mut known = Known::default();
    let capture =
        capture::Options { server_port: options.port, connections: CONNECTIONS, ..capture::Options::default() };
    let mut read = Ok(());
    for piece in capture::streams(input, capture) {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                read = Err(error.into());
                break;
            }
        };
        let key = (piece.connection.id, piece.direction);
        let (stream, about) = known.0.entry(key).or_insert_with(|| (options.stream().of_segments(), About::of(&piece)));
        about.time = Some(piece.time);
        let mut see = |seen: Seen<'_>| shown.see(&seen, about);
        match piece.content {
            Content::Middle => {
                stream.lose();
                // Nobody has seen who opened it: a packet may know better.
                about.is_certain = false;
            }
            Content::Bytes(bytes) => stream.push(&bytes, &mut see),
            Content::Gap(bytes) => stream.gap(bytes, &mut see),
            Content::Fin | Content::Forgotten | Content::Reset => known.end(key, shown),
        }
        if known.0.len() * options.max_packet_bytes > held_bytes && known.held_bytes() > held_bytes {
            known.let_go_all(shown);
        }
        if shown.failed.is_some() {
            return Ok(());
        }
    }
    known.end_all(shown);
    read
}

/// The directions of a capture's connections, and what is known of each.
#[derive(Default)]
struct Known(HashMap<(u64, Direction), (Stream, About)>);

impl Known {
    fn end(&mut self, key: (u64, Direction), shown: &mut Shown<'_, impl Write>) {
        if let Some((mut stream, mut about)) = self.0.remove(&key) {
            stream.end(&mut |seen| shown.see(&seen, &mut about));
        }
    }

    fn end_all(&mut self, shown: &mut Shown<'_, impl Write>) {
        self.keys().into_iter().for_each(|key| self.end(key, shown));
    }

    fn let_go_all(&mut self, shown: &mut Shown<'_, impl Write>) {
        for key in self.keys() {
            if let Some((stream, about)) = self.0.get_mut(&key) {
                stream.let_go(&mut |seen| shown.see(&seen, about));
            }
        }
    }

    /// In the order of the connections.
    fn keys(&self) -> Vec<(u64, Direction)> {
        let mut keys: Vec<_> = self.0.keys().copied().collect();
        keys.sort_unstable_by_key(|(id, direction)| (*id, *direction == Direction::ToClient));
        keys
    }

    fn held_bytes(&self) -> usize {
        self.0.values().map(|(stream, _)| stream.bytes.len()).sum()
    }
}

struct Shown<'o, W> {
    look: Look,
    out: &'o mut W,
    count: Count,
    failed: Option<io::Error>,
}

impl<W: Write> Shown<'_, W> {
    fn see(&mut self, seen: &Seen<'_>, about: &mut About) {
        about.learn(seen);
        self.count.packets += u64::from(matches!(seen, Seen::Packet { .. }));
        self.count.faults += u64::from(!seen.is_sound());
        self.count.unpadded += u64::from(matches!(seen, Seen::Packet { packet, .. } if packet.is_unpadded()));
        self.count.is_mixed |= about.is_mixed;
        let text = show(seen, about, self.look);
        if self.failed.is_none() {
            self.failed = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).err();
        }
    }
}
