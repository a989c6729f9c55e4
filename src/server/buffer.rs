//! The one buffer that a connection reads into: small until it is used, bounded, and reused for every packet.

use std::io::{self, Read};

/// What an idle connection keeps, in bytes.
const SMALL_BYTES: usize = 1024;

/// What a busy one grows to, in bytes; only a longer packet makes it larger.
const LARGE_BYTES: usize = 64 * 1024;

/// Only from the connection's own thread.
#[derive(Default)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// What was read and not consumed.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The last `count` bytes that were consumed since the last read.
    pub fn consumed(&self, count: usize) -> &[u8] {
        &self.bytes[self.start - count..self.start]
    }

    /// Nothing is unread.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// It has the size that an idle connection keeps.
    pub fn is_small(&self) -> bool {
        self.bytes.len() <= SMALL_BYTES
    }

    /// Moves past `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
    }

    /// One read. Makes room first: for the rest of a packet of `wanted` bytes, as far as its bytes have really come (what a stranger announces costs
    /// us nothing), and for some bytes at least.
    ///
    /// # Errors
    /// The reader's.
    pub fn fill(&mut self, mut reader: impl Read, wanted: usize) -> io::Result<usize> {
        self.make_room(wanted);
        let room = self.bytes.len() - self.end;
        let count = reader.read(&mut self.bytes[self.end..])?;
        self.end += count;
        if count == room && self.bytes.len() < LARGE_BYTES {
            // A full read: there is more where this came from.
            self.resize((self.bytes.len() * 2).min(LARGE_BYTES));
        } else if self.bytes.len() > SMALL_BYTES && self.end * 8 < self.bytes.len() {
            self.resize((self.bytes.len() / 2).max(SMALL_BYTES));
        }
        Ok(count)
    }

    fn make_room(&mut self, wanted: usize) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let needed = wanted.min(2 * self.end).max(self.end + 1).max(SMALL_BYTES);
        if self.bytes.len() < needed {
            self.resize(needed);
        }
    }

    fn resize(&mut self, length: usize) {
        self.bytes.resize(length, 0);
        self.bytes.shrink_to(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_what_comes_and_shrinks_again() {
        let data: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        let (mut source, mut buffer, mut out) = (&data[..], ReadBuffer::default(), Vec::new());
        while buffer.fill(&mut source, 0).unwrap() > 0 {
            out.extend_from_slice(buffer.unread());
            let all = buffer.unread().len();
            buffer.consume(all);
        }
        assert_eq!(out, data);
        assert_eq!(buffer.bytes.len(), LARGE_BYTES / 2);
        for _ in 0..10 {
            buffer.fill(&b"x"[..], 0).unwrap();
            buffer.consume(1);
        }
        assert_eq!((buffer.bytes.len(), buffer.bytes.capacity()), (SMALL_BYTES, SMALL_BYTES));
    }

    #[test]
    fn an_unfinished_packet_moves_to_the_front_and_finds_room() {
        let mut buffer = ReadBuffer::default();
        buffer.fill(&[7u8; 1000][..], 0).unwrap();
        buffer.consume(990);
        let (mut rest, mut lengths) = (&[8u8; 4990][..], Vec::new());
        while buffer.fill(&mut rest, 5000).unwrap() > 0 {
            lengths.push(buffer.bytes.len());
        }
        assert_eq!(buffer.unread().len(), 5000);
        assert_eq!(lengths[0], 2 * SMALL_BYTES, "what is announced and has not come costs nothing");
        assert_eq!(buffer.unread()[9..11], [7, 8]);
    }
}
