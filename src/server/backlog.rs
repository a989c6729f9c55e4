//! What waits on disk, for those who ask how the server stands. A disk that hangs keeps one thread here, and who asks is told in time that it does not answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::health::{BacklogStatus, Counter};
use crate::{limits, threads};

/// The readings, one at a time. Safe from any thread.
#[derive(Default)]
pub(super) struct Backlog {
    state: Mutex<State>, // lock: a leaf
    done: Condvar,
    /// Readings that failed, or were not there in time.
    pub failed: Counter,
}

#[derive(Default)]
struct State {
    begun: u64,
    done: u64,
    reading: Option<BacklogStatus>,
}

impl Backlog {
    /// What `read` gives, on a thread of its own; `None`: it has failed, or not ended within `patience`. While one is under way no other is begun, and who comes
    /// meanwhile waits for the next one: the first may not know what has been saved since.
    pub fn read(
        self: &Arc<Backlog>,
        patience: Duration,
        read: impl FnOnce() -> Option<BacklogStatus> + Send + 'static,
    ) -> Option<BacklogStatus> {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        let (wanted, mut read) = (state.begun + 1, Some(read));
        while state.done < wanted {
            if state.done == state.begun {
                let read = read.take()?;
                state.begun += 1;
                let under_way = UnderWay { backlog: self.clone(), reading: None };
                // Without a thread the value is dropped here, with the lock free.
                drop(state);
                let spawned = threads::spawn("backlog", limits::STACK_BYTES, move || under_way.run(read));
                spawned.inspect_err(|error| log::debug!("status: no thread to read what waits: {error}")).ok()?;
                state = self.state.lock();
            } else if self.done.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
        state.reading
    }
}

/// A reading that ends with its value, also in a panic.
struct UnderWay {
    backlog: Arc<Backlog>,
    reading: Option<BacklogStatus>,
}

impl UnderWay {
    fn run(mut self, read: impl FnOnce() -> Option<BacklogStatus>) {
        self.reading = read();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.backlog.state.lock();
        state.done += 1;
        state.reading = self.reading;
        self.backlog.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn reading(messages: u64) -> Option<BacklogStatus> {
        Some(BacklogStatus { messages, ..BacklogStatus::default() })
    }

    #[test]
    fn a_disk_that_hangs_keeps_one_thread_and_nobody_who_asks() {
        let backlog = Arc::new(Backlog::default());
        let (disk, hangs) = mpsc::channel::<()>();
        let hanging = move || hangs.recv().ok().and(reading(1));
        assert_eq!(backlog.read(Duration::from_millis(20), hanging), None);
        // No other reading is begun as long as it hangs.
        assert_eq!(backlog.read(Duration::from_millis(20), || panic!("a second one was begun")), None);
        disk.send(()).unwrap();
        assert_eq!(backlog.read(LONG, || reading(2)), reading(2));
    }

    #[test]
    fn a_reading_that_fails_or_panics_is_none_and_the_next_one_is_new() {
        let backlog = Arc::new(Backlog::default());
        assert_eq!(backlog.read(LONG, || None), None);
        assert_eq!(backlog.read(LONG, || panic!("of the test")), None);
        assert_eq!(backlog.read(LONG, || reading(3)), reading(3));
    }
}
