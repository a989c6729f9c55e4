//! The judge: knows every text that was sent, promised and received, by its channel (from one sender to one recipient) and its number there.

use std::collections::{HashMap, HashSet};
use std::fmt;

use chatserver::client::Receipt;
use chatserver::protocol::Status;
use parking_lot::Mutex;

use crate::person::Level;

/// What a text says of itself; padding may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// From whom to whom.
    pub channel: usize,
    /// From 1.
    pub number: u64,
    /// No text follows in this channel.
    pub is_last: bool,
}

impl Mark {
    /// A text with this mark and `padding` bytes.
    pub fn text(&self, padding: usize) -> String {
        let last = if self.is_last { " last" } else { "" };
        format!("{}.{}{last}{:padding$}", self.channel, self.number, "")
    }

    /// The mark of a text.
    pub fn of(text: &str) -> Option<Mark> {
        let mut words = text.split_whitespace();
        let (channel, number) = words.next()?.split_once('.')?;
        let (channel, number) = (channel.parse().ok()?, number.parse().ok()?);
        Some(Mark { channel, number, is_last: words.next() == Some("last") })
    }
}

/// One channel's book.
#[derive(Default)]
struct Channel {
    sent: u64,
    /// Texts with a receipt, STORED or DELIVERED.
    receipted: HashSet<u64>,
    /// Texts that are safe for another reason.
    promised: HashSet<u64>,
    /// In the order in which they were shown: the recipient's how-manieth connection, and the number.
    shown: Vec<(u32, u64)>,
    seen: HashSet<u64>,
    /// Which text has this msg_id.
    numbers: HashMap<u64, u64>,
    /// What receipts should not have said.
    wrong: Vec<String>,
}

/// How the two ends of a channel speak.
#[derive(Clone, Copy)]
pub struct Levels {
    pub sender: Level,
    pub recipient: Level,
}

/// All of them. Safe from any thread.
pub struct Ledger {
    channels: Vec<Mutex<Channel>>, // lock: one at a time
    levels: Vec<Levels>,
}

/// What is wrong in the books.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Texts that were sent.
    pub sent: usize,
    /// Texts with a receipt.
    pub receipts: usize,
    /// Of these, texts that did not arrive.
    pub lost_receipts: usize,
    /// Texts that were to arrive and did not: those with a receipt, those that were promised otherwise, and all of a sender of level 2, who
    /// sends again what has no receipt.
    pub lost: usize,
    /// Texts that a recipient of level 2 was shown again.
    pub shown_twice: usize,
    /// Texts that came before an earlier one.
    pub out_of_order: usize,
    /// Texts that a recipient of level 1 got again, as it must expect.
    pub came_again: usize,
    /// What was wrong, the first few of each kind by name.
    pub wrong: Vec<String>,
}

/// So many cases of each kind are named.
const NAMED: usize = 5;

impl Ledger {
    /// Empty books of as many channels.
    pub fn new(levels: Vec<Levels>) -> Ledger {
        Ledger { channels: levels.iter().map(|_| Mutex::default()).collect(), levels }
    }

    /// The next text of a channel; to be written down before it is sent.
    pub fn next(&self, channel: usize, is_last: bool) -> Mark {
        let mut book = self.channels[channel].lock();
        book.sent += 1;
        Mark { channel, number: book.sent, is_last }
    }

    /// How many texts of a channel were written down.
    pub fn sent(&self, channel: usize) -> u64 {
        self.channels[channel].lock().sent
    }

    /// The sender of a channel got this receipt. One for something else than a text of the drill does not matter.
    pub fn receipt(&self, channel: usize, receipt: &Receipt) {
        let mut book = self.channels[channel].lock();
        let mark = receipt.message.as_ref().and_then(|message| Mark::of(&message.text));
        if let Some(mark) = mark {
            book.numbers.insert(receipt.msg_id, mark.number);
        }
        let Some(number) = book.numbers.get(&receipt.msg_id).copied() else { return };
        let is_taken_in = book.seen.contains(&number);
        match receipt.status {
            Status::Refused => {
                book.wrong.push(format!("refused: {channel}.{number}: {:?}", receipt.reason));
                return;
            }
            Status::Delivered if self.levels[channel].recipient == Level::Two && !is_taken_in => {
                book.wrong.push(format!("DELIVERED before its recipient had it: {channel}.{number}"));
            }
            Status::Stored | Status::Delivered => {}
        }
        book.receipted.insert(number);
    }

    /// Texts with a receipt that are not among these: the numbers of a few.
    pub fn receipts_beyond(&self, channel: usize, numbers: &HashSet<u64>) -> Vec<u64> {
        let book = self.channels[channel].lock();
        book.receipted.difference(numbers).copied().take(NAMED).collect()
    }

    /// Somebody was told otherwise that these texts are safe.
    pub fn promised(&self, channel: usize, numbers: impl IntoIterator<Item = u64>) {
        self.channels[channel].lock().promised.extend(numbers);
    }

    /// A text was shown to its recipient, on that one's connection number `connection`.
    pub fn shown(&self, mark: Mark, connection: u32) {
        let mut book = self.channels[mark.channel].lock();
        book.shown.push((connection, mark.number));
        book.seen.insert(mark.number);
    }

    /// How many texts were shown to recipients so far.
    pub fn shown_so_far(&self) -> usize {
        self.channels.iter().map(|channel| channel.lock().shown.len()).sum()
    }

    /// How many texts have a receipt so far.
    pub fn receipts_so_far(&self) -> usize {
        self.channels.iter().map(|channel| channel.lock().receipted.len()).sum()
    }

    /// Closes the books.
    pub fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for (number, (channel, levels)) in self.channels.iter().zip(&self.levels).enumerate() {
            channel.lock().judge(number, *levels, &mut verdict);
        }
        let total =
            [("lost", verdict.lost), ("shown twice", verdict.shown_twice), ("out of order", verdict.out_of_order)];
        for (what, count) in total {
            if count > NAMED {
                verdict.wrong.push(format!("{what}: {count} in all"));
            }
        }
        verdict
    }
}

impl Channel {
    fn judge(&self, channel: usize, levels: Levels, verdict: &mut Verdict) {
        let mut seen = HashSet::new();
        let (mut highest, mut connection, mut highest_of_connection) = (0, 0, 0);
        for &(now, number) in &self.shown {
            let is_new = seen.insert(number);
            match levels.recipient {
                Level::Two if !is_new => {
                    verdict.shown_twice += 1;
                    verdict.name(verdict.shown_twice, || format!("shown twice: {channel}.{number}"));
                }
                Level::One if !is_new => verdict.came_again += 1,
                _ => {}
            }
            if now != connection {
                (connection, highest_of_connection) = (now, 0);
            }
            // What comes again comes on a later connection, in order.
            if number <= highest_of_connection || (is_new && number < highest) {
                verdict.out_of_order += 1;
                let last = highest.max(highest_of_connection);
                verdict
                    .name(verdict.out_of_order, || format!("out of order: {channel}.{number} after {channel}.{last}"));
            }
            highest = highest.max(number);
            highest_of_connection = highest_of_connection.max(number);
        }
        for number in 1..=self.sent {
            let (has_receipt, is_there) = (self.receipted.contains(&number), seen.contains(&number));
            verdict.receipts += usize::from(has_receipt);
            if is_there {
                continue;
            }
            let why = match () {
                () if has_receipt => "which had a receipt",
                () if self.promised.contains(&number) => "which was promised",
                () if levels.sender == Level::Two => "which had no receipt and was to be sent again",
                () => continue,
            };
            verdict.lost += 1;
            verdict.lost_receipts += usize::from(has_receipt);
            let Levels { sender, recipient } = levels;
            verdict.name(verdict.lost, || format!("lost: {channel}.{number}, {why}, from {sender:?} to {recipient:?}"));
        }
        verdict.sent += self.sent as usize;
        if seen.iter().any(|number| *number > self.sent) {
            verdict.wrong.push(format!("channel {channel}: a text that nobody sent"));
        }
        verdict.wrong.extend(self.wrong.iter().take(NAMED).cloned());
        if self.wrong.len() > NAMED {
            verdict.wrong.push(format!("channel {channel}: {} wrong receipts in all", self.wrong.len()));
        }
    }
}

impl Verdict {
    fn name(&mut self, count: usize, what: impl FnOnce() -> String) {
        if count <= NAMED {
            self.wrong.push(what());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { lost, shown_twice, out_of_order, .. } = self;
        write!(f, "lost {lost}, shown twice {shown_twice}, out of order {out_of_order}")
    }
}
