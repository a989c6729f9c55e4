//! Reading, on a few threads with read-only connections of their own: bringing somebody's backlog never waits for a save, nor a save for it.
//!
//! Why threads, and not connections that are lent to whoever asks: SQLite's calls go deep and allocate much, and ten thousand connection
//! threads would each keep the pages and the allocator's caches of that one call for ever (11 KiB a user, measured). Reads are short (a
//! batch, one count), which also keeps the write-ahead log from growing behind a reader.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, StorageError};
use crate::limits::STACK_BYTES;
use crate::threads;

/// Each costs a thread, two descriptors and its cache; a fifth read waits for a free one.
const MAX_READERS: usize = 4;

/// Page cache of one reader, KiB: a backlog is read once, in order.
const CACHE_KIB: i64 = 512;

/// Opens the database for reading. It must exist.
pub(super) fn open(path: &Path) -> Result<Connection, StorageError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

/// Reads, and leaves behind how the result is handed to who asked for it.
type Work = Box<dyn FnOnce(&mut Option<Connection>) -> Answer + Send>;

type Answer = Box<dyn FnOnce() + Send>;

/// The threads. Safe from any thread; dropping it ends them.
pub(super) struct Readers {
    shared: Arc<Shared>,
    // lock: storage.reader_threads, a leaf
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    path: PathBuf,
    // lock: storage.readers, a leaf, held for no longer than a push or a pop
    queue: Mutex<Queue>,
    woken: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    /// Readers that are not reading.
    idle: usize,
    is_closed: bool,
}

/// What a reader was asked for.
pub struct Reading<T>(Result<Receiver<Result<T, StorageError>>, StorageError>);

impl<T> Reading<T> {
    /// Waits for it: call with no lock held.
    ///
    /// # Errors
    /// SQLite's, or there is no reader.
    pub fn wait(self) -> Result<T, StorageError> {
        self.0?.recv().expect("the reader panicked, which its thread has logged")
    }
}

impl Readers {
    /// No threads yet: each is started when it is first needed.
    pub(super) fn new(path: PathBuf) -> Readers {
        let shared = Shared { path, queue: Mutex::default(), woken: Condvar::new() };
        Readers { shared: Arc::new(shared), threads: Mutex::default() }
    }

    /// Has `work` done on a reader's connection and waits for its result. A connection on which it failed is closed: the next is a fresh one.
    pub(super) fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.begin(work).wait()
    }

    /// The same, without waiting yet.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Reading<T> {
        Reading(self.ask(work))
    }

    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Receiver<Result<T, StorageError>>, StorageError> {
        let (answer, result) = sync_channel(1);
        let shared = self.shared.clone();
        let work: Work = Box::new(move |connection| {
            let read = |connection: &mut Option<Connection>| {
                let open = match connection.take() {
                    Some(open) => open,
                    None => open(&shared.path)?,
                };
                let result = work(&open)?;
                *connection = Some(open);
                Ok(result)
            };
            let result = read(connection);
            Box::new(move || {
                // Who asked may need it no more.
                let _ = answer.send(result);
            })
        });
        let is_anybody_idle = {
            let mut queue = self.shared.queue.lock();
            if queue.is_closed {
                return Err(StorageError::Closed);
            }
            queue.work.push_back(work);
            queue.idle >= queue.work.len()
        };
        self.shared.woken.notify_one();
        if !is_anybody_idle {
            self.start_another()?;
        }
        Ok(result)
    }

    /// Ends the threads after what they are asked already; nothing is read any more.
    pub(super) fn close(&self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.woken.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // `threads::spawn` has caught and logged what a thread may have died of.
            let _ = thread.join();
        }
    }

    /// One more reader, unless there are enough.
    fn start_another(&self) -> Result<(), StorageError> {
        let mut threads = self.threads.lock();
        if threads.len() == MAX_READERS {
            return Ok(());
        }
        let shared = self.shared.clone();
        match threads::spawn("reader", STACK_BYTES, move || shared.read_loop()) {
            Ok(thread) => threads.push(thread),
            // The others will get to it; without any there is nobody to wait for.
            Err(error) if threads.is_empty() => {
                self.shared.queue.lock().work.clear();
                return Err(StorageError::Thread(error));
            }
            Err(_) => {}
        }
        Ok(())
    }
}

impl Shared {
    fn read_loop(&self) {
        let mut connection = None;
        self.queue.lock().idle += 1;
        while let Some(work) = self.next() {
            let answer = catch_unwind(AssertUnwindSafe(|| work(&mut connection)));
            // Idle before the answer is out: who asks again at once needs no other reader.
            self.queue.lock().idle += 1;
            match answer {
                Ok(answer) => answer(),
                Err(_) => {
                    log::error!("a read of the database panicked; whoever asked for it ends");
                    connection = None;
                }
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(work) = queue.work.pop_front() {
                queue.idle -= 1;
                return Some(work);
            }
            if queue.is_closed {
                return None;
            }
            self.woken.wait(&mut queue);
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DATABASE, Storage};
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn the_readers_are_bounded_and_survive_failures_and_panics() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let readers = &storage.readers;
        for _ in 0..=MAX_READERS {
            let refused = readers.read(|connection| connection.execute("DELETE FROM messages", []));
            assert!(refused.is_err(), "a reader must not write");
            let panicked = catch_unwind(AssertUnwindSafe(|| readers.read::<()>(|_| panic!("on purpose"))));
            assert!(panicked.is_err());
        }
        let together = Arc::new(Barrier::new(MAX_READERS));
        std::thread::scope(|scope| {
            for _ in 0..MAX_READERS * 3 {
                let together = together.clone();
                scope.spawn(move || readers.read(move |_| Ok(together.wait().is_leader())).unwrap());
            }
        });
        assert_eq!(readers.threads.lock().len(), MAX_READERS);
    }

    #[test]
    fn a_reader_does_not_create_a_database() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(&dir.path().join(DATABASE)).is_err());
        assert!(!dir.path().join(DATABASE).exists());
    }
}
