//! A user's window under any operations in any order, beside a model that is a plain list of all messages with what is true of each.
#![no_main]

use chatserver::delivery::{Next, Window};
use chatserver_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let base = input.number().min(1 << 53);
    let waiting = u64::from(input.byte() % 8).min(base);
    let mut model = Model::new(base, waiting);
    while !input.is_empty() {
        model.step(&mut input);
        model.check();
    }
    model.finish();
});

/// What is true of one message.
#[derive(Debug, Clone, Copy)]
struct Message {
    seq: u64,
    in_memory: bool,
    on_disk: bool,
}

/// A save that is on its way.
struct Save {
    rows: Vec<u64>,
    delete_upto: Option<u64>,
}

struct Model {
    window: Window<u64>,
    /// All that there ever were, in order, but for those of before `base`, of which some wait on disk.
    messages: Vec<Message>,
    base: u64,
    acked: u64,
    sent: u64,
    shown: u64,
    /// Rows may be there up to it, whatever the saves said.
    tried: u64,
    /// The commits that returned reached so far.
    saved: u64,
    save: Option<Save>,
}

impl Model {
    fn new(base: u64, waiting: u64) -> Model {
        let first = base - waiting + 1;
        let messages = (first..=base).map(|seq| Message { seq, in_memory: false, on_disk: true }).collect();
        let acked = base - waiting;
        Model {
            window: Window::new(base, (waiting > 0).then_some(first)),
            messages,
            base,
            acked,
            sent: acked,
            shown: base,
            tried: base,
            saved: base,
            save: None,
        }
    }

    fn last(&self) -> u64 {
        self.messages.last().map_or(self.base, |message| message.seq)
    }

    fn evicted(&self) -> u64 {
        self.messages.iter().find(|message| message.in_memory).map_or(self.last(), |message| message.seq - 1)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 12 {
            0 => self.accept(),
            1 => (0..input.byte() % 32).for_each(|_| self.accept()),
            2 => self.hand_over(usize::from(input.byte())),
            3 => self.ack(self.near(input)),
            4 => self.claim(self.near(input)),
            5 => self.end_session(),
            6 => self.begin_save(usize::from(input.byte())),
            7 => self.end_save(true, true),
            // It failed, and has become durable or not.
            8 => self.end_save(false, input.byte() & 1 == 1),
            9 => self.evict(self.near(input)),
            10 => self.expire(),
            _ => self.window.shrink(),
        }
    }

    /// A seq that a peer may name: any number, but mostly one about here.
    fn near(&self, input: &mut Input<'_>) -> u64 {
        match input.byte() {
            255 => input.number(),
            byte => (self.acked + u64::from(byte)).saturating_sub(2),
        }
    }

    fn accept(&mut self) {
        let seq = self.last() + 1;
        assert_eq!(self.window.next_seq(), seq);
        assert_eq!(self.window.accept(seq), seq, "the next number, and none twice");
        self.messages.push(Message { seq, in_memory: true, on_disk: false });
    }

    /// One step of a writer: what is next, from disk a part or all of it, from memory one message.
    fn hand_over(&mut self, most: usize) {
        match self.window.next() {
            Next::Disk { after, upto } => {
                let rows = self.messages.iter().filter(|row| row.on_disk && row.seq > after && row.seq <= upto);
                let rows: Vec<u64> = rows.map(|row| row.seq).collect();
                for &seq in rows.iter().take(most) {
                    self.give(seq);
                }
                if rows.len() <= most {
                    self.window.hand_over(upto);
                    self.sent = self.sent.max(upto);
                    self.shown = self.shown.max(upto);
                }
            }
            Next::Memory(seq) => {
                assert_eq!(self.window.entry(seq), Some(&seq), "what is next in memory is in memory");
                self.give(seq);
            }
            Next::Nothing => assert!(self.window.is_caught_up()),
        }
    }

    fn give(&mut self, seq: u64) {
        let skipped = self.messages.iter().find(|m| m.seq > self.sent && m.seq < seq && (m.in_memory || m.on_disk));
        assert!(seq > self.sent && skipped.is_none(), "in order, none left out: {seq} after {}", self.sent);
        self.window.hand_over(seq);
        self.sent = seq;
        self.shown = self.shown.max(seq);
    }

    fn ack(&mut self, seq: u64) {
        let acked = seq.min(self.sent).max(self.acked);
        let gone: Vec<u64> = self.window.ack(seq).collect();
        self.acked = acked;
        assert_eq!(gone, self.leave_memory(acked), "what is acknowledged leaves memory, and nothing else");
    }

    fn claim(&mut self, seq: u64) {
        let is_possible = seq <= self.shown;
        assert_eq!(self.window.claim(seq), is_possible, "nobody has what was never handed over");
        if is_possible {
            self.sent = self.sent.max(seq);
        }
        self.ack(seq);
    }

    fn end_session(&mut self) {
        self.window.end_session();
        self.sent = self.acked;
    }

    fn begin_save(&mut self, most: usize) {
        if self.save.is_some() {
            return;
        }
        let unsaved = self.messages.iter().filter(|m| m.in_memory && m.seq > self.saved.max(self.acked));
        let expected: Vec<u64> = unsaved.map(|message| message.seq).take(most).collect();
        assert_eq!(
            self.window.first_unsaved(),
            self.messages.iter().map(|m| &m.seq).find(|seq| **seq > self.saved.max(self.acked))
        );
        let rows: Vec<u64> =
            self.window.begin_save(most).map(|(seq, message)| (assert_eq!(seq, *message), seq).1).collect();
        assert_eq!(rows, expected, "a prefix of what is not saved, in order");
        self.tried = rows.last().copied().unwrap_or(0).max(self.tried);
        let delete_upto = self.window.to_delete();
        if let Some(upto) = delete_upto {
            assert!(upto <= self.acked, "only what is acknowledged is deleted");
        }
        self.save = Some(Save { rows, delete_upto });
    }

    fn end_save(&mut self, has_returned: bool, is_durable: bool) {
        let Some(save) = self.save.take() else { return };
        let deleted = save.delete_upto.unwrap_or(0);
        if is_durable {
            for message in &mut self.messages {
                message.on_disk |= save.rows.contains(&message.seq);
                message.on_disk &= message.seq > deleted;
            }
        }
        if has_returned {
            let upto = save.rows.last().copied().unwrap_or(0);
            self.window.saved(upto);
            self.saved = self.saved.max(upto);
            self.window.deleted(deleted);
        }
    }

    fn evict(&mut self, seq: u64) {
        let gone: Vec<u64> = self.window.evict(seq).collect();
        let saved = seq.min(self.saved.max(self.acked));
        assert_eq!(gone, self.leave_memory(saved), "only what is saved is evicted");
    }

    fn leave_memory(&mut self, upto: u64) -> Vec<u64> {
        let leaving = self.messages.iter_mut().filter(|message| message.in_memory && message.seq <= upto);
        leaving.map(|message| (message.in_memory = false, message.seq).1).collect()
    }

    /// The oldest row has become too old; not during a save, and memory may still have it.
    fn expire(&mut self) {
        if self.save.is_none()
            && let Some(oldest) = self.messages.iter_mut().find(|message| message.on_disk)
        {
            oldest.on_disk = false;
        }
    }

    fn check(&self) {
        let window = &self.window;
        assert_eq!((window.acked(), window.sent(), window.last()), (self.acked, self.sent, self.last()));
        assert_eq!((window.evicted(), window.saved_upto()), (self.evicted(), self.saved.max(self.acked)));
        assert!(window.acked() <= window.evicted() && window.evicted() <= window.saved_upto());
        assert!(
            window.saved_upto() <= window.last() && window.acked() <= window.sent() && window.sent() <= window.last()
        );
        let in_memory = self.messages.iter().filter(|message| message.in_memory);
        assert_eq!(window.in_memory(), in_memory.clone().count(), "memory has what is not evicted, and nothing else");
        assert!(in_memory.clone().all(|message| window.entry(message.seq) == Some(&message.seq)));
        assert_eq!(window.first_entry(), in_memory.clone().map(|message| &message.seq).next());
        assert_eq!(window.unsaved() as usize, window.unsaved_entries().count());
        assert_eq!(window.is_live(), self.sent >= self.evicted());
        assert_eq!(window.is_disk_acked(), self.tried <= self.acked);
        let never_lost = |m: &Message| m.seq <= self.saved || m.seq <= self.acked || m.in_memory;
        assert!(self.messages.iter().all(never_lost), "in memory until it is saved or acknowledged");
        let has_stale_rows = self.messages.iter().any(|message| message.on_disk && message.seq <= self.acked);
        assert!(!has_stale_rows || window.to_delete().is_some(), "an acknowledged row would stay for ever");
    }

    /// From here on all goes well: a new session gets everything that is left, and nothing stays behind.
    fn finish(mut self) {
        self.end_save(true, true);
        self.end_session();
        while self.window.next() != Next::Nothing {
            self.hand_over(3);
        }
        self.ack(u64::MAX);
        for _ in 0..2 {
            self.begin_save(usize::MAX);
            self.end_save(true, true);
            self.check();
        }
        assert!(self.messages.iter().all(|message| !message.in_memory && !message.on_disk), "nothing stays behind");
        assert_eq!(self.window.to_delete(), None);
    }
}
