//! `src/sync.rs` for the model: at every lock, every atomic and every wait the schedule decides which thread goes on.
//!
//! There is no time. A wait with a timeout comes back whenever the schedule says so, as timed out or not, and a clock goes forward with it;
//! but a wait of an hour or more never times out, so that a wake-up that is lost shows as a deadlock.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

const NEVER: Duration = Duration::from_secs(3600);

thread_local! {
    // All threads of the model run on one thread of the machine.
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
}

/// The model's monotonic clock. It goes on by a millisecond when it is read, so that everything falls due at some time.
pub fn now_ms() -> u64 {
    NOW_MS.set(NOW_MS.get() + 1);
    NOW_MS.get()
}

/// Back to zero, for a new run.
pub fn reset_clock() {
    NOW_MS.set(0);
}

/// `true` with a probability of one in `n`.
pub fn one_in(n: u32) -> bool {
    thread_rng().gen_range(0..n) == 0
}

/// A number below `n`.
pub fn below(n: usize) -> usize {
    thread_rng().gen_range(0..n)
}

#[derive(Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

pub struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>, &'a Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())), self)
    }

    pub fn try_lock_for(&self, _patience: Duration) -> Option<MutexGuard<'_, T>> {
        Some(self.lock())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held, except during a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("held, except during a wait")
    }
}

#[derive(Default)]
pub struct Condvar(shuttle::sync::Condvar);

pub struct Waited(bool);

impl Waited {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub const fn new() -> Condvar {
        Condvar(shuttle::sync::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("held, except during a wait");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> Waited {
        if timeout >= NEVER {
            self.wait(guard);
            return Waited(false);
        }
        guard.0 = None;
        shuttle::thread::yield_now();
        let is_over = one_in(2);
        if is_over {
            NOW_MS.set(NOW_MS.get() + timeout.as_millis() as u64);
        }
        guard.0 = guard.1.lock().0.take();
        Waited(is_over)
    }

    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> Waited {
        // A minute is what the run itself may take of it.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(60);
        self.wait_for(guard, left)
    }
}
