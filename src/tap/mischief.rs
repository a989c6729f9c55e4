//! What a tap does wrong on purpose. Pure: bytes and numbers.

use std::str::FromStr;
use std::time::Duration;

use crate::capture::Direction;
use crate::protocol::Frame;

/// What [`Mischief::join`] holds at most before it lets all of it go, bytes: one read more may come on top.
const JOIN_BYTES: usize = 64 << 10;

/// A bit to turn over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// The byte, counted from the beginning of the direction.
    pub offset: u64,
    /// The bit, 0 the lowest.
    pub bit: u8,
}

/// `40` or `40:7`.
impl FromStr for Flip {
    type Err = String;

    fn from_str(text: &str) -> Result<Flip, String> {
        let (offset, bit) = text.split_once(':').unwrap_or((text, "0"));
        let offset = offset.parse().map_err(|_| format!("{offset:?} is no number of a byte"))?;
        let bit = bit.parse().ok().filter(|bit| *bit < 8);
        Ok(Flip { offset, bit: bit.ok_or("a byte has the bits 0 to 7")? })
    }
}

/// How a connection is spoilt after so many bytes of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is reset (RST), towards both.
    Cut,
    /// It is closed in order (FIN), towards both.
    Close,
    /// Nothing is passed on any more in either direction, and nothing is closed; what comes is taken and forgotten.
    Silence,
}

/// What to do wrong, and to whose bytes.
#[derive(Debug, Clone, Default)]
pub struct Mischief {
    /// To bytes of one direction alone; `None`: of both.
    pub only: Option<Direction>,
    /// Each byte in a segment of its own, 5 ms after the one before.
    pub one_byte: bool,
    /// So many packets in one segment; what does not come within 200 ms of the first is not waited for, nor what comes when 64 KiB are held.
    pub join: Option<usize>,
    /// Everything later.
    pub delay: Duration,
    /// Bits to turn over.
    pub flips: Vec<Flip>,
    /// After so many bytes.
    pub stop: Option<(u64, Stop)>,
}

/// The mischief for one direction of one connection.
#[derive(Debug, Default)]
pub struct Wrong {
    mischief: Mischief,
    /// Bytes of the direction so far.
    at: u64,
    /// What `join` keeps together.
    held: Vec<u8>,
}

/// What is to be done with some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Deed {
    /// Pass them on, in one write.
    Pass(Vec<u8>),
    /// The bit that was turned over, to be told.
    Flipped(Flip),
    /// The end of it.
    Stop(Stop),
}

impl Wrong {
    /// What of `mischief` is meant for this direction.
    pub fn new(mischief: &Mischief, direction: Direction) -> Wrong {
        let is_meant = mischief.only.is_none_or(|only| only == direction);
        let mischief = if is_meant { mischief.clone() } else { Mischief::default() };
        Wrong { mischief, at: 0, held: Vec::new() }
    }

    /// How long bytes are kept back.
    pub fn delay(&self) -> Duration {
        self.mischief.delay
    }

    /// Whether each byte goes alone.
    pub fn is_byte_by_byte(&self) -> bool {
        self.mischief.one_byte
    }

    /// Whether something is held that `let_go` would give.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// What to do with the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let mut bytes = bytes.to_vec();
        for flip in &self.mischief.flips {
            let index = flip.offset.checked_sub(self.at).and_then(|index| usize::try_from(index).ok());
            if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
                *byte ^= 1 << flip.bit;
                deeds.push(Deed::Flipped(*flip));
            }
        }
        let stop = self.mischief.stop.filter(|(after, _)| *after <= self.at + bytes.len() as u64);
        if let Some((after, _)) = stop {
            bytes.truncate(usize::try_from(after.saturating_sub(self.at)).unwrap_or(usize::MAX));
        }
        self.at += bytes.len() as u64;
        self.held.extend_from_slice(&bytes);
        match self.mischief.join {
            Some(packets) if stop.is_none() && self.held.len() < JOIN_BYTES && count(&self.held) < packets => {
                return deeds;
            }
            _ => deeds.extend(self.let_go()),
        }
        deeds.extend(stop.map(|(_, stop)| Deed::Stop(stop)));
        deeds
    }

    /// What was held; for when no more comes.
    pub fn let_go(&mut self) -> Vec<Deed> {
        let held = std::mem::take(&mut self.held);
        if self.mischief.one_byte {
            held.into_iter().map(|byte| Deed::Pass(vec![byte])).collect()
        } else if held.is_empty() {
            Vec::new()
        } else {
            vec![Deed::Pass(held)]
        }
    }
}

/// Whole packets at the beginning of `bytes`. What is no packet counts as many, since waiting for more would help nobody.
fn count(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    loop {
        match Frame::parse(bytes, usize::MAX) {
            Ok(Some(frame)) => bytes = &bytes[frame.packet.len()..],
            Ok(None) => return count,
            Err(_) => return usize::MAX,
        }
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: &[u8; 24] = b"\0\0\0\x18\0\0\0\x04abcdefghijklmnop";

    fn wrong(mischief: Mischief) -> Wrong {
        Wrong::new(&mischief, Direction::ToServer)
    }

    fn pass(bytes: &[u8]) -> Deed {
        Deed::Pass(bytes.to_vec())
    }

    #[test]
    fn without_mischief_bytes_pass_as_they_come() {
        let mut none = wrong(Mischief::default());
        assert_eq!(none.take(b"abc"), [pass(b"abc")]);
        let only = Mischief { only: Some(Direction::ToClient), one_byte: true, ..Mischief::default() };
        assert_eq!(wrong(only).take(b"abc"), [pass(b"abc")], "meant for the other direction");
    }

    #[test]
    fn bytes_can_pass_one_by_one() {
        let mut one_byte = wrong(Mischief { one_byte: true, ..Mischief::default() });
        assert_eq!(one_byte.take(b"abc"), [pass(b"a"), pass(b"b"), pass(b"c")]);
    }

    #[test]
    fn packets_are_held_until_there_are_enough() {
        let mut join = wrong(Mischief { join: Some(2), ..Mischief::default() });
        assert_eq!(join.take(PACKET), []);
        assert!(join.holds());
        assert_eq!(join.take(&PACKET[..20]), []);
        assert_eq!(join.take(&PACKET[20..]), [pass(&PACKET.repeat(2))]);
        assert!(!join.holds());
        assert_eq!(join.take(PACKET), []);
        assert_eq!(join.let_go(), [pass(PACKET)]);
        assert_eq!(join.take(b"\0\0\0\x01 no packet"), [pass(b"\0\0\0\x01 no packet")]);
    }

    #[test]
    fn no_more_is_held_than_a_bound() {
        let mut join = wrong(Mischief { join: Some(usize::MAX), ..Mischief::default() });
        let passed: Vec<Deed> = (0..10_000).flat_map(|_| join.take(PACKET)).collect();
        let bytes: Vec<usize> =
            passed.iter().map(|deed| if let Deed::Pass(bytes) = deed { bytes.len() } else { 0 }).collect();
        assert_eq!(bytes, [JOIN_BYTES.next_multiple_of(PACKET.len()); 3]);
    }

    #[test]
    fn a_bit_is_turned_over_where_it_was_asked_for() {
        let flips = vec!["4".parse().unwrap(), "1:7".parse().unwrap()];
        let mut flip = wrong(Mischief { flips, ..Mischief::default() });
        assert_eq!(flip.take(b"ab"), [Deed::Flipped(Flip { offset: 1, bit: 7 }), pass(&[b'a', b'b' | 0x80])]);
        assert_eq!(flip.take(b"cde"), [Deed::Flipped(Flip { offset: 4, bit: 0 }), pass(b"cdd")]);
        for wrong in ["", "x", "1:8", "1:x", "-1"] {
            assert!(wrong.parse::<Flip>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stop_comes_after_exactly_so_many_bytes() {
        for stop in [Stop::Cut, Stop::Close, Stop::Silence] {
            let mut five = wrong(Mischief { stop: Some((5, stop)), ..Mischief::default() });
            assert_eq!(five.take(b"abc"), [pass(b"abc")]);
            assert_eq!(five.take(b"defg"), [pass(b"de"), Deed::Stop(stop)]);
            let mut at_once = wrong(Mischief { stop: Some((0, stop)), join: Some(9), ..Mischief::default() });
            assert_eq!(at_once.take(b"a"), [Deed::Stop(stop)]);
        }
    }
}
