//! The judge: knows every text that was sent, promised and received, by its channel (from one sender to one recipient) and its number there.

use std::collections::HashSet;
use std::fmt;

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
    promised: HashSet<u64>,
    /// In the order in which they were shown: the recipient's how-manieth connection, and the number.
    shown: Vec<(u32, u64)>,
}

/// All of them. Safe from any thread.
pub struct Ledger {
    channels: Vec<Mutex<Channel>>, // lock: one at a time
    recipients: Vec<Level>,
}

/// What is wrong in the books.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Texts that were sent.
    pub sent: usize,
    /// Texts that were promised to arrive.
    pub promised: usize,
    /// Of these, texts that did not arrive.
    pub lost: usize,
    /// Texts that a recipient of level 2 was shown again.
    pub shown_twice: usize,
    /// Texts that came before an earlier one.
    pub out_of_order: usize,
    /// Texts that a recipient of level 1 got again, as it must expect.
    pub came_again: usize,
    /// Texts that were not promised.
    pub unpromised: usize,
    /// Of these, texts that arrived all the same.
    pub unpromised_arrived: usize,
    /// What was wrong, the first few of each kind by name.
    pub wrong: Vec<String>,
}

/// So many cases of each kind are named.
const NAMED: usize = 5;

impl Ledger {
    /// Empty books of as many channels, to recipients of these levels.
    pub fn new(recipients: Vec<Level>) -> Ledger {
        Ledger { channels: recipients.iter().map(|_| Mutex::default()).collect(), recipients }
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

    /// Somebody was told that these texts are safe.
    pub fn promised(&self, channel: usize, numbers: impl IntoIterator<Item = u64>) {
        self.channels[channel].lock().promised.extend(numbers);
    }

    /// A text was shown to its recipient, on that one's connection number `connection`.
    pub fn shown(&self, mark: Mark, connection: u32) {
        self.channels[mark.channel].lock().shown.push((connection, mark.number));
    }

    /// How many texts were shown to recipients so far.
    pub fn shown_so_far(&self) -> usize {
        self.channels.iter().map(|channel| channel.lock().shown.len()).sum()
    }

    /// How many texts are promised so far.
    pub fn promised_so_far(&self) -> usize {
        self.channels.iter().map(|channel| channel.lock().promised.len()).sum()
    }

    /// Closes the books.
    pub fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for (number, (channel, level)) in self.channels.iter().zip(&self.recipients).enumerate() {
            channel.lock().judge(number, *level, &mut verdict);
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
    fn judge(&self, channel: usize, level: Level, verdict: &mut Verdict) {
        let mut seen = HashSet::new();
        let (mut highest, mut connection, mut highest_of_connection) = (0, 0, 0);
        for &(now, number) in &self.shown {
            let is_new = seen.insert(number);
            match level {
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
            let (is_promised, is_there) = (self.promised.contains(&number), seen.contains(&number));
            match is_promised {
                true => verdict.promised += 1,
                false => verdict.unpromised += 1,
            }
            if is_promised && !is_there {
                verdict.lost += 1;
                verdict.name(verdict.lost, || format!("lost: {channel}.{number}, to a recipient of level {level:?}"));
            }
            verdict.unpromised_arrived += usize::from(!is_promised && is_there);
        }
        verdict.sent += self.sent as usize;
        if seen.iter().any(|number| *number > self.sent) {
            verdict.wrong.push(format!("channel {channel}: a text that nobody sent"));
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
