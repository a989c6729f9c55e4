//! What one user writes to another during a run, with a number in every text: so each arrival is a message's first or not, in its place or not,
//! and what is missing at the end was lost. PURE: the time is given.

use std::collections::VecDeque;
use std::time::Duration;

/// A text says which flow it belongs to and its number there, in three and four characters of base 64: so many flows are 262,144.
pub const TEXT_BYTES_MIN: usize = 3 + NUMBER_CHARACTERS;
const NUMBER_CHARACTERS: usize = 4;
const NUMBERS: u32 = 1 << (6 * NUMBER_CHARACTERS);

/// Letters that no protocol gives a meaning.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 64 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
}

/// Writes flow and number at the beginning of `text`, which has [`TEXT_BYTES_MIN`] bytes or more.
pub fn stamp(text: &mut [u8], flow: u32, number: u32) {
    let value = u64::from(flow) << (6 * NUMBER_CHARACTERS) | u64::from(number);
    for (place, byte) in text[..TEXT_BYTES_MIN].iter_mut().rev().enumerate() {
        *byte = DIGITS[(value >> (6 * place) & 63) as usize];
    }
}

/// Reads flow and number; `None`: no such text was written.
pub fn read_stamp(text: &[u8]) -> Option<(u32, u32)> {
    let digits = text.get(..TEXT_BYTES_MIN)?.iter().map(|byte| VALUES[usize::from(*byte)]);
    let value = digits.into_iter().try_fold(0, |value, digit| (digit < 64).then_some(value << 6 | u64::from(digit)))?;
    Some(((value >> (6 * NUMBER_CHARACTERS)) as u32, value as u32 & (NUMBERS - 1)))
}

/// What an arrival was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// After all that came, this long after it was sent. What is missing before it may be lost.
    InOrder(Duration),
    /// One that another one, sent later, has overtaken.
    Late(Duration),
    /// One that came before, or was never sent.
    Again,
}

/// From one user to another.
#[derive(Debug)]
pub struct Flow {
    /// Who writes.
    pub from: u32,
    /// To whom.
    pub to: u32,
    /// Its messages are checked, but not what is measured.
    pub is_aside: bool,
    next: u32,
    /// Of each message from the oldest that has not arrived: when it was sent, until it arrives.
    awaited: VecDeque<Option<Duration>>,
    /// So many of `awaited` are up to the newest that has arrived.
    passed: usize,
}

impl Flow {
    /// Nothing sent yet.
    pub fn new(from: u32, to: u32) -> Flow {
        Flow { from, to, is_aside: false, next: 0, awaited: VecDeque::new(), passed: 0 }
    }

    /// One more is sent: its number. At most 2²³ may be on their way.
    pub fn sent(&mut self, at: Duration) -> u32 {
        let number = self.next;
        self.next = (number + 1) % NUMBERS;
        self.awaited.push_back(Some(at));
        number
    }

    /// One has arrived.
    pub fn arrived(&mut self, number: u32, at: Duration) -> Arrival {
        let oldest = self.next.wrapping_sub(self.awaited.len() as u32);
        let place = number.wrapping_sub(oldest) % NUMBERS;
        let place = place as usize;
        let Some(sent_at) = self.awaited.get_mut(place).and_then(Option::take) else { return Arrival::Again };
        let is_late = place < self.passed;
        self.passed = self.passed.max(place + 1);
        while let Some(None) = self.awaited.front() {
            self.awaited.pop_front();
            self.passed -= 1;
        }
        let latency = at.saturating_sub(sent_at);
        if is_late { Arrival::Late(latency) } else { Arrival::InOrder(latency) }
    }

    /// Messages that have not arrived.
    pub fn missing(&self) -> usize {
        self.awaited.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1);

    #[test]
    fn stamps_come_back_and_other_texts_have_none() {
        let mut text = [b'.'; 20];
        for (flow, number) in [(0, 0), (1, 2), ((1 << 18) - 1, NUMBERS - 1), (77_777, 1_234_567)] {
            stamp(&mut text, flow, number);
            assert_eq!(read_stamp(&text), Some((flow, number)));
        }
        assert_eq!(read_stamp(b"hello, world"), None);
        assert_eq!(read_stamp(b"short"), None);
    }

    #[test]
    fn an_arrival_is_in_order_late_or_again_and_what_is_missing_is_known() {
        let mut flow = Flow::new(1, 2);
        assert_eq!((0..5).map(|_| flow.sent(AT)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let later = AT + Duration::from_millis(3);
        assert_eq!(flow.arrived(0, later), Arrival::InOrder(Duration::from_millis(3)));
        assert_eq!(flow.arrived(0, later), Arrival::Again);
        assert_eq!(flow.arrived(2, later), Arrival::InOrder(Duration::from_millis(3)), "1 may be lost");
        assert_eq!(flow.arrived(2, later), Arrival::Again);
        assert_eq!(flow.arrived(5, later), Arrival::Again, "nobody sent it");
        assert_eq!(flow.missing(), 3);
        assert_eq!(flow.arrived(1, later), Arrival::Late(Duration::from_millis(3)), "2 has overtaken it");
        assert_eq!(flow.arrived(3, later), Arrival::InOrder(Duration::from_millis(3)));
        assert_eq!(flow.missing(), 1);
    }

    #[test]
    fn numbers_start_over_and_nothing_is_mistaken() {
        let mut flow = Flow { next: NUMBERS - 2, ..Flow::new(1, 2) };
        let numbers: Vec<u32> = (0..4).map(|_| flow.sent(AT)).collect();
        assert_eq!(numbers, [NUMBERS - 2, NUMBERS - 1, 0, 1]);
        for number in numbers {
            assert_eq!(flow.arrived(number, AT), Arrival::InOrder(Duration::ZERO));
        }
        assert_eq!(flow.missing(), 0);
    }
}
