//! Tests of the room as a whole; those of one file's own rules are in that file.

mod known_answers;
mod malformed;
mod properties;

use super::*;

/// A limit as the server has it.
pub(super) const MAX: usize = 65_536;

pub(super) fn cipher() -> Cipher {
    Cipher::new(PUBLISHED_KEY).unwrap()
}

/// A packet of any type around any plaintext, sensible or not.
pub(super) fn packet(kind: u32, plain: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    Frame::write(kind, &mut packet, |out| {
        let from = out.len();
        out.extend_from_slice(plain);
        cipher().seal(out, from);
    });
    packet
}

pub(super) fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut packet = Vec::new();
    message.encode(&cipher(), &mut packet);
    packet
}

/// The packets of a stream that holds whole packets only.
fn frames(mut stream: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some(frame) = Frame::parse(stream, MAX).unwrap() {
        stream = &stream[frame.packet.len()..];
        frames.push(frame);
    }
    assert!(stream.is_empty(), "{} bytes left over", stream.len());
    frames
}
