//! One direction of a TCP connection: segments in any order in, its bytes in their order out.
//!
//! What comes too early waits. A hole before it is given up, and reported with its length, when the receiver has acknowledged what is in it (it was sent,
//! and the capture has lost it), when more would wait than is allowed, and at the end. Where segments overlap, what was handed out stays, and of those that
//! wait the one that begins earlier is right.
//!
//! It must not know addresses, files or the other direction. Read first: RFC 9293 §3.4.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Content;

/// What a waiting segment takes besides its bytes, about: many of one byte each are bounded as well.
const ENTRY_BYTES: usize = 96;

/// A direction of a connection.
#[derive(Debug, Default)]
pub struct Stream {
    /// The sequence number of offset 0.
    first: Option<u32>,
    /// The offset of the next byte to hand out.
    next: u64,
    waiting: BTreeMap<u64, (SystemTime, Vec<u8>)>,
    waiting_bytes: usize,
    /// The offset that the receiver has acknowledged up to.
    acked: u64,
    /// Where the stream ends, and when that was said.
    end: Option<(u64, SystemTime)>,
    over: bool,
}

/// What comes out: when its frame was captured, its offset, what it is.
pub type Out = (SystemTime, u64, Content);

impl Stream {
    /// The sender's SYN, or SYN-ACK.
    pub fn open(&mut self, seq: u32) {
        self.first.get_or_insert(seq.wrapping_add(1));
    }

    /// Whether this SYN is not the one that it began with: another connection between the same ports.
    pub fn is_other(&self, seq: u32) -> bool {
        self.first.is_some_and(|first| first != seq.wrapping_add(1))
    }

    /// What the segments that wait take, bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// A segment with bytes, of which `cut` at its end were not captured, or with a FIN.
    pub fn take(&mut self, seq: u32, bytes: &[u8], cut: u32, fin: bool, time: SystemTime, out: &mut Vec<Out>) {
        if self.over || (bytes.is_empty() && cut == 0 && !fin) {
            return;
        }
        if self.first.is_none() {
            self.first = Some(seq);
            out.push((time, 0, Content::Middle));
        }
        let Some(from) = self.offset(seq) else { return };
        // A segment that begins before the stream does is a retransmission of what was sent before the capture, or a keepalive.
        let skipped = usize::try_from(self.next.cast_signed() - from).unwrap_or(0);
        let end = from.saturating_add_unsigned(bytes.len() as u64);
        if fin && let Ok(end) = u64::try_from(end.saturating_add_unsigned(cut.into())) {
            self.end.get_or_insert((end, time));
        }
        if from <= self.next.cast_signed() && skipped < bytes.len() {
            self.hand_out(bytes[skipped..].to_vec(), time, out);
        } else if let Ok(from) = u64::try_from(from)
            && from > self.next
            && !bytes.is_empty()
        {
            self.keep(from, bytes, time);
        }
        self.go_on(out);
    }

    /// The receiver has everything before this sequence number.
    pub fn acknowledge(&mut self, seq: u32, out: &mut Vec<Out>) {
        if let Some(offset) = self.offset(seq).and_then(|offset| u64::try_from(offset).ok()) {
            self.acked = self.acked.max(offset);
            self.go_on(out);
        }
    }

    /// Gives the first hole up, if something waits behind it.
    pub fn give_up_hole(&mut self, out: &mut Vec<Out>) {
        if let Some((&from, &(time, _))) = self.waiting.first_key_value() {
            self.gap(from, time, out);
            self.go_on(out);
        }
    }

    /// The sender has ended it.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes that were handed out, missing ones included.
    pub fn offset_bytes(&self) -> u64 {
        self.next
    }

    /// Nothing more will come: gives up every hole.
    pub fn finish(&mut self, out: &mut Vec<Out>) {
        while !self.waiting.is_empty() {
            self.give_up_hole(out);
        }
        if let Some((end, time)) = self.end
            && !self.over
        {
            self.gap(end, time, out);
            self.go_on(out);
        }
        self.over = true;
    }

    /// A reset, whoever sent it: nothing more will come.
    pub fn reset(&mut self, time: SystemTime, out: &mut Vec<Out>) {
        let was_over = self.over;
        self.finish(out);
        if !was_over {
            out.push((time, self.next, Content::Reset));
        }
    }

    /// The offset of a sequence number: the one within 2 GiB of what comes next.
    fn offset(&self, seq: u32) -> Option<i64> {
        let next = self.first?.wrapping_add(self.next as u32);
        Some(self.next.cast_signed() + i64::from(seq.wrapping_sub(next).cast_signed()))
    }

    fn keep(&mut self, from: u64, bytes: &[u8], time: SystemTime) {
        let known = self.waiting.get(&from).map(|(_, bytes)| bytes.len());
        if known.is_none_or(|known| known < bytes.len()) {
            self.waiting_bytes += bytes.len() - known.unwrap_or(0) + if known.is_none() { ENTRY_BYTES } else { 0 };
            self.waiting.insert(from, (time, bytes.to_vec()));
        }
    }

    /// Hands out what follows without a hole, or behind one that can never be filled.
    fn go_on(&mut self, out: &mut Vec<Out>) {
        while !self.over {
            if let Some(entry) = self.waiting.first_entry()
                && *entry.key() <= self.next
            {
                let (from, (time, mut bytes)) = entry.remove_entry();
                self.waiting_bytes -= bytes.len() + ENTRY_BYTES;
                let known = usize::try_from(self.next - from).unwrap_or(usize::MAX).min(bytes.len());
                bytes.drain(..known);
                self.hand_out(bytes, time, out);
            } else if let Some((&from, &(time, _))) = self.waiting.first_key_value()
                && from <= self.acked
            {
                self.gap(from, time, out);
            } else if let Some((end, time)) = self.end
                && self.waiting.is_empty()
                && end <= self.next.max(self.acked)
            {
                self.gap(end, time, out);
                out.push((time, self.next, Content::Fin));
                self.over = true;
            } else {
                return;
            }
        }
    }

    fn hand_out(&mut self, bytes: Vec<u8>, time: SystemTime, out: &mut Vec<Out>) {
        if !bytes.is_empty() {
            let offset = self.next;
            self.next += bytes.len() as u64;
            out.push((time, offset, Content::Bytes(bytes)));
        }
    }

    fn gap(&mut self, until: u64, time: SystemTime, out: &mut Vec<Out>) {
        if until > self.next {
            out.push((time, self.next, Content::Gap(until - self.next)));
            self.next = until;
        }
    }
}
