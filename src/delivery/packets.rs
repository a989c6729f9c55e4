//! The bytes of a window's messages: first in, first out, in chunks, so that a message costs no allocation of its own.
//!
//! Chunks grow with what is held, from one packet up to `CHUNK_BYTES`; a chunk is freed when its last packet has left. So what is held is at
//! most about twice what the packets need, plus two chunks.

use std::collections::VecDeque;

/// Largest chunk that holds more than one packet, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// Where a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    chunk: u64,
    start: u32,
    length: u32,
}

impl Place {
    /// Bytes of the packet.
    pub fn length(&self) -> usize {
        self.length as usize
    }
}

/// Only under the mailbox's lock.
#[derive(Debug, Default)]
pub struct Packets {
    /// The number of the first chunk.
    first: u64,
    chunks: VecDeque<Vec<u8>>,
}

impl Packets {
    /// Appends a packet.
    #[inline]
    pub fn push(&mut self, packet: &[u8]) -> Place {
        let last = self.chunks.back().map_or((0, 0), |chunk| (chunk.len(), chunk.capacity()));
        if last.0 + packet.len() > last.1 {
            let capacity = (last.1 * 2).clamp(1, CHUNK_BYTES).max(packet.len());
            self.chunks.push_back(Vec::with_capacity(capacity));
        }
        let number = self.first + self.chunks.len() as u64 - 1;
        let chunk = self.chunks.back_mut().expect("one was just made sure of");
        let start = chunk.len() as u32;
        chunk.extend_from_slice(packet);
        Place { chunk: number, start, length: packet.len() as u32 }
    }

    /// A packet that has not been forgotten.
    pub fn at(&self, place: Place) -> &[u8] {
        let start = place.start as usize;
        &self.chunks[(place.chunk - self.first) as usize][start..start + place.length()]
    }

    /// Forgets what comes before the packet at `place`; everything when there is none left.
    pub fn forget_before(&mut self, place: Option<Place>) {
        match place {
            Some(place) => {
                while self.first < place.chunk {
                    self.chunks.pop_front();
                    self.first += 1;
                }
            }
            None => self.forget_all(),
        }
    }

    /// The last chunk stays while it is a small one or holds little: a conversation goes on in it.
    fn forget_all(&mut self) {
        while self.chunks.len() > 1 {
            self.chunks.pop_front();
            self.first += 1;
        }
        if let Some(chunk) = self.chunks.back_mut() {
            // Places in it are gone, so it can be written from its beginning.
            chunk.clear();
        }
    }

    /// Gives back the memory of a chunk in which nothing is held.
    pub fn shrink(&mut self) {
        self.first += self.chunks.len() as u64;
        self.chunks = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_as_they_were_and_chunks_go_with_their_last_packet() {
        let mut packets = Packets::default();
        let bytes = |i: usize| vec![i as u8; 24 + i * 37 % 4000];
        let places: Vec<Place> = (0..500).map(|i| packets.push(&bytes(i))).collect();
        assert!(places.iter().enumerate().all(|(i, place)| packets.at(*place) == bytes(i)));
        for (i, place) in places.iter().enumerate() {
            packets.forget_before(Some(*place));
            assert_eq!(packets.at(*place), bytes(i));
            let held: usize = packets.chunks.iter().map(Vec::capacity).sum();
            let due: usize = (i..500).map(|i| bytes(i).len()).sum();
            assert!(held <= 2 * due + 2 * CHUNK_BYTES, "{held} held for {due}");
        }
        packets.forget_before(None);
        assert_eq!(packets.chunks.len(), 1);
        let again = packets.push(b"again");
        assert_eq!(packets.at(again), b"again");
    }

    #[test]
    fn one_small_packet_holds_little_and_one_large_packet_fits() {
        let mut packets = Packets::default();
        packets.push(&[1; 24]);
        assert!(packets.chunks[0].capacity() < 64);
        let large = packets.push(&[2; 60_000]);
        assert_eq!(packets.at(large).len(), 60_000);
        packets.shrink();
        assert_eq!(packets.chunks.capacity(), 0);
    }
}
