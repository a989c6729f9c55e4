//! The window against a model that remembers everything, in every state that can be reached at all.
//!
//! `World` is a window together with what surrounds it: a disk, a save that is on its way, a read that is on its way, a session. Each `Step` is
//! something that can happen next, in any order. The exhaustive test visits every reachable world with a few messages, whatever the length
//! of the history that leads there; the random one makes long histories with many messages.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::{Next, Window};

const BASE: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Accept,
    HandOverFromMemory,
    BeginRead,
    EndRead,
    BeginSave(usize),
    Commit,
    /// The commit returns an error; the flag says whether it has become durable all the same.
    FailCommit(bool),
    EvictAll,
    EvictSent,
    /// Acknowledges so many of the messages that the session has.
    Ack(u64),
    /// A level-2 client says that it has all that it was ever handed, in earlier sessions too.
    Claim,
    EndSession,
    BeginSession,
    ExpireOldest,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    window: Window<u64>,
    disk: BTreeSet<u64>,
    /// Rows and deletion of the transaction on its way.
    save: Option<(Vec<u64>, u64)>,
    /// Rows read, whether they are all, and the end of the range that was asked for.
    read: Option<(Vec<u64>, bool, u64)>,
    is_present: bool,
    /// Accepted, not acknowledged, not expired: what must be delivered yet.
    due: BTreeSet<u64>,
    /// Rows that expired while their messages were in memory too.
    expired: BTreeSet<u64>,
    /// The last message that the session got.
    got: u64,
    /// The last message that any session got, or may have got before this process.
    shown: u64,
}

impl World {
    fn new(waiting: u64) -> World {
        let disk: BTreeSet<u64> = (BASE - waiting + 1..=BASE).collect();
        World {
            window: Window::new(BASE, (waiting > 0).then_some(BASE - waiting + 1)),
            due: disk.clone(),
            disk,
            save: None,
            read: None,
            is_present: false,
            expired: BTreeSet::new(),
            got: 0,
            shown: BASE,
        }
    }

    /// Does a step; `false` when it cannot happen now.
    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Accept => {
                let expected = self.window.next_seq();
                let seq = self.window.accept(expected);
                assert_eq!(seq, expected);
                self.due.insert(seq);
            }
            Step::HandOverFromMemory => {
                let Next::Memory(seq) = self.window.next() else { return false };
                if !self.is_present {
                    return false;
                }
                assert_eq!(self.window.entry(seq), Some(&seq), "what is next in memory is in memory");
                self.get(seq);
                self.window.hand_over(seq);
            }
            Step::BeginRead => {
                let (Next::Disk { after, upto }, true, None) = (self.window.next(), self.is_present, &self.read) else {
                    return false;
                };
                let mut rows: Vec<u64> = self.disk.range(after + 1..=upto).copied().collect();
                let is_complete = rows.len() <= 2;
                rows.truncate(2);
                self.read = Some((rows, is_complete, upto));
            }
            Step::EndRead => {
                let Some((rows, is_complete, upto)) = self.read.take() else { return false };
                for seq in rows {
                    if seq > self.window.sent() {
                        self.get(seq);
                        self.window.hand_over(seq);
                    }
                }
                if is_complete {
                    self.window.hand_over(upto);
                    self.shown = self.shown.max(upto);
                }
            }
            Step::BeginSave(max) => {
                if self.save.is_some() {
                    return false;
                }
                let rows: Vec<u64> =
                    self.window.begin_save(max).map(|(seq, entry)| (assert_eq!(seq, *entry), seq).1).collect();
                self.save = Some((rows, self.window.to_delete().unwrap_or(0)));
            }
            Step::Commit => {
                let Some((rows, delete)) = self.save.take() else { return false };
                self.window.saved(rows.last().copied().unwrap_or(0));
                self.window.deleted(delete);
                self.write(rows, delete);
            }
            Step::FailCommit(is_durable) => {
                let Some((rows, delete)) = self.save.take() else { return false };
                if is_durable {
                    self.write(rows, delete);
                }
            }
            Step::EvictAll => drop(self.window.evict(u64::MAX)),
            Step::EvictSent => drop(self.window.evict(self.window.sent())),
            Step::Ack(count) => {
                let Some(&seq) = self.due.range(..=self.got).nth(count as usize - 1).filter(|_| self.is_present) else {
                    return false;
                };
                drop(self.window.ack(seq));
                self.due = self.due.split_off(&(seq + 1));
            }
            Step::Claim => {
                if !self.is_present {
                    return false;
                }
                assert!(self.window.clone().claim(self.shown) && !self.window.clone().claim(self.shown + 1));
                self.window.claim(self.shown);
                drop(self.window.ack(self.shown));
                self.due = self.due.split_off(&(self.shown + 1));
                self.got = self.got.max(self.shown);
            }
            Step::EndSession => {
                if !self.is_present {
                    return false;
                }
                self.window.end_session();
                (self.is_present, self.read, self.got) = (false, None, 0);
            }
            Step::BeginSession => {
                if self.is_present {
                    return false;
                }
                self.is_present = true;
            }
            Step::ExpireOldest => {
                // The timer expires rows between its saves, never during one.
                let Some(&seq) = self.disk.first().filter(|_| self.save.is_none()) else { return false };
                self.disk.remove(&seq);
                if self.window_has(seq) {
                    self.expired.insert(seq);
                } else {
                    self.due.remove(&seq);
                }
            }
        }
        // A message whose row has expired is gone when memory lets it go too; until then it can still be delivered, or saved again.
        let gone: Vec<u64> =
            self.expired.iter().copied().filter(|seq| !self.window_has(*seq) && !self.disk.contains(seq)).collect();
        self.due.retain(|seq| !gone.contains(seq));
        self.check();
        true
    }

    fn write(&mut self, rows: Vec<u64>, delete: u64) {
        self.disk.extend(rows);
        self.disk.retain(|seq| *seq > delete);
    }

    /// The session gets a message: the first of those that it has not got, or one that has expired meanwhile.
    fn get(&mut self, seq: u64) {
        assert!(seq > self.got, "in order, once: {seq} after {}", self.got);
        let skipped = self.due.range(self.got + 1..seq).next();
        assert_eq!(skipped, None, "skipped on the way to {seq}");
        self.got = seq;
        self.shown = self.shown.max(seq);
    }

    fn window_has(&self, seq: u64) -> bool {
        self.window.entry(seq).is_some()
    }

    fn check(&self) {
        let window = &self.window;
        assert!(
            window.acked <= window.evicted && window.evicted <= window.saved && window.saved <= window.last,
            "{self:?}"
        );
        assert!(window.acked <= window.sent && window.sent <= window.last, "{self:?}");
        assert_eq!(
            window.in_memory() as u64,
            window.last - window.evicted,
            "memory holds (evicted, last] and nothing else"
        );
        for seq in &self.due {
            assert!(self.window_has(*seq) || self.disk.contains(seq), "{seq} is in none: {self:?}");
            assert!(*seq > window.acked, "{seq} was forgotten unacknowledged: {self:?}");
        }
        // What is on disk is a prefix of what is due: no later message counts as saved while an earlier one is in memory alone.
        for seq in self.due.range(..=window.saved).filter(|seq| !self.disk.contains(seq)) {
            assert!(self.expired.contains(seq), "{seq} counts as saved and is not: {self:?}");
        }
        // A row that is acknowledged will be deleted: at once, or after the save that writes it.
        let stale = self.disk.iter().any(|seq| *seq <= window.acked);
        assert!(!stale || window.to_delete().is_some(), "an acknowledged row would stay for ever: {self:?}");
    }

    /// From here on everything goes well: a fresh session gets exactly what is due, and everything is deleted in the end.
    fn finish(mut self) {
        if self.save.is_some() {
            self.step(Step::Commit);
        }
        if self.is_present {
            self.step(Step::EndSession);
        }
        self.step(Step::BeginSession);
        let due = self.due.clone();
        let mut got: Vec<u64> = Vec::new();
        while self.window.next() != Next::Nothing {
            let before = self.got;
            let moved = self.step(Step::HandOverFromMemory) || (self.step(Step::BeginRead) && self.step(Step::EndRead));
            assert!(moved, "stuck: {self:?}");
            got.extend(due.iter().filter(|seq| (before + 1..=self.got).contains(seq)));
        }
        assert_eq!(got, due.into_iter().collect::<Vec<_>>());
        while self.step(Step::Ack(1)) {}
        self.step(Step::BeginSave(usize::MAX));
        self.step(Step::Commit);
        drop(self.window.ack(self.window.sent()));
        self.step(Step::BeginSave(usize::MAX));
        self.step(Step::Commit);
        assert!(self.disk.is_empty() && self.window.in_memory() == 0, "{self:?}");
    }
}

const STEPS: [Step; 15] = [
    Step::Accept,
    Step::HandOverFromMemory,
    Step::BeginRead,
    Step::EndRead,
    Step::BeginSave(1),
    Step::BeginSave(9),
    Step::Commit,
    Step::FailCommit(false),
    Step::FailCommit(true),
    Step::EvictAll,
    Step::Ack(1),
    Step::Claim,
    Step::EndSession,
    Step::BeginSession,
    Step::ExpireOldest,
];

/// Visits every world that can be reached from `start` while at most `messages` are accepted, and finishes each.
fn visit_all(start: World, messages: u64) -> usize {
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        world.clone().finish();
        for step in STEPS {
            if step == Step::Accept && world.window.last == BASE + messages {
                continue;
            }
            let mut next = world.clone();
            if next.step(step) && seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    seen.len()
}

#[test]
fn every_reachable_state_loses_nothing_and_keeps_order() {
    assert!(visit_all(World::new(0), 3) > 1000);
    assert!(visit_all(World::new(2), 2) > 1000);
}

#[test]
fn an_ack_beyond_what_was_sent_is_clamped() {
    let mut window: Window<u64> = Window::new(0, None);
    window.accept(1);
    window.accept(2);
    window.hand_over(1);
    assert_eq!(window.ack(99).collect::<Vec<_>>(), [1]);
    assert_eq!((window.acked(), window.next()), (1, Next::Memory(2)));
}

#[test]
fn a_message_acknowledged_during_its_save_is_deleted_by_the_next() {
    let mut window: Window<u64> = Window::new(0, None);
    window.accept(1);
    window.hand_over(1);
    assert_eq!(window.begin_save(9).count(), 1);
    drop(window.ack(1));
    window.saved(1);
    assert_eq!(window.to_delete(), Some(1));
    window.deleted(1);
    assert_eq!(window.to_delete(), None);
}

#[test]
fn a_message_acknowledged_before_its_save_never_has_a_row() {
    let mut window: Window<u64> = Window::new(0, None);
    window.accept(1);
    window.hand_over(1);
    drop(window.ack(1));
    assert_eq!(window.begin_save(9).count(), 0);
    assert_eq!(window.to_delete(), None);
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Accept),
        6 => Just(Step::HandOverFromMemory),
        3 => Just(Step::BeginRead),
        3 => Just(Step::EndRead),
        2 => (1usize..20).prop_map(Step::BeginSave),
        2 => Just(Step::Commit),
        1 => any::<bool>().prop_map(Step::FailCommit),
        1 => Just(Step::EvictAll),
        1 => Just(Step::EvictSent),
        3 => (1u64..6).prop_map(Step::Ack),
        1 => Just(Step::Claim),
        1 => Just(Step::EndSession),
        2 => Just(Step::BeginSession),
        1 => Just(Step::ExpireOldest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn long_histories_lose_nothing_and_keep_order(waiting in 0..8u64, steps in proptest::collection::vec(any_step(), 0..300)) {
        let mut world = World::new(waiting);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
