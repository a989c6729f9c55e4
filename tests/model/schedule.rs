//! Who goes on. Each run has a seed of its own, and one of three manners: anybody, mostly the same as before, or by priorities that change
//! now and then (after Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use shuttle::scheduler::{Schedule as Begun, Scheduler, Task, TaskId};

/// Steps between two changes of priority, about.
const CHANGE_EVERY: u64 = 100;

pub struct Schedule {
    next: u64,
    end: u64,
    /// The seed of the present run.
    pub present: Arc<AtomicU64>,
    dice: Dice,
    manner: u64,
    priorities: HashMap<TaskId, u64>,
    lowest: u64,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

impl Schedule {
    pub fn new(seed: u64, runs: u64) -> Schedule {
        Schedule {
            next: seed,
            end: seed + runs,
            present: Arc::default(),
            dice: Dice(seed),
            manner: 0,
            priorities: HashMap::new(),
            lowest: 0,
        }
    }

    /// Below all others.
    fn lower(&mut self, task: TaskId) {
        self.lowest += 1 << 32;
        self.priorities.insert(task, self.lowest);
    }
}

impl Scheduler for Schedule {
    fn new_execution(&mut self) -> Option<Begun> {
        if self.next == self.end {
            return None;
        }
        self.dice = Dice(self.next.wrapping_mul(0xa076_1d64_78bd_642f));
        self.present.store(self.next, SeqCst);
        self.next += 1;
        self.manner = self.dice.roll() % 3;
        self.priorities.clear();
        self.lowest = 1 << 32;
        Some(Begun::new(self.next))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        let anybody = runnable[(self.dice.roll() % runnable.len() as u64) as usize].id();
        let goes_on = current.filter(|current| !is_yielding && runnable.iter().any(|task| task.id() == *current));
        match self.manner {
            0 => Some(anybody),
            1 => Some(goes_on.filter(|_| !self.dice.roll().is_multiple_of(10)).unwrap_or(anybody)),
            _ => {
                if let Some(current) = current
                    && (is_yielding || self.dice.roll().is_multiple_of(CHANGE_EVERY))
                {
                    self.lower(current);
                }
                for task in runnable {
                    let random = self.dice.roll() % self.lowest;
                    self.priorities.entry(task.id()).or_insert(random);
                }
                runnable.iter().map(|task| task.id()).min_by_key(|task| self.priorities[task])
            }
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.dice.roll()
    }
}
