//! Read-only connections of their own, so that bringing somebody's backlog never waits for a save, nor a save for it. A few are
//! enough: reads are short (a batch, one count), which also keeps the write-ahead log from growing behind a reader.

use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, StorageError};

/// Each costs two descriptors and its cache; a fifth reader waits for a free one.
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

/// The pool. Safe from any thread.
pub(super) struct Readers {
    path: PathBuf,
    // lock: storage.readers, taken with no other lock held, and for no longer than a push or a pop
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    lent: usize,
}

impl Readers {
    /// A pool without connections: each is opened when first needed.
    pub(super) fn new(path: PathBuf) -> Readers {
        Readers { path, pool: Mutex::default(), returned: Condvar::new() }
    }

    /// Does `work` on a connection of the pool, after waiting for a free one. One that failed is closed: the next is a fresh one.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StorageError> {
        let mut lent = self.lend();
        let connection = match lent.connection.take() {
            Some(idle) => idle,
            None => open(&self.path)?,
        };
        let result = work(&connection)?;
        lent.connection = Some(connection);
        Ok(result)
    }

    fn lend(&self) -> Lent<'_> {
        let mut pool = self.pool.lock();
        while pool.lent == MAX_READERS {
            self.returned.wait(&mut pool);
        }
        pool.lent += 1;
        Lent { readers: self, connection: pool.idle.pop() }
    }
}

/// A place in the pool, given back on drop, also when the work panics.
struct Lent<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.pool.lock();
        pool.lent -= 1;
        pool.idle.extend(self.connection.take());
        self.readers.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DATABASE, Storage};
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn the_pool_is_bounded_and_survives_failures_and_panics() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let readers = &storage.readers;
        for _ in 0..=MAX_READERS {
            assert!(
                readers.read(|connection| connection.execute("DELETE FROM messages", [])).is_err(),
                "a reader must not write"
            );
            let panicked =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| readers.read::<()>(|_| panic!("on purpose"))));
            assert!(panicked.is_err());
        }
        let together = Barrier::new(MAX_READERS);
        std::thread::scope(|scope| {
            for _ in 0..MAX_READERS * 3 {
                scope.spawn(|| readers.read(|_| Ok(together.wait())).unwrap());
            }
        });
        let pool = readers.pool.lock();
        assert_eq!((pool.idle.len(), pool.lent), (MAX_READERS, 0));
    }

    #[test]
    fn a_reader_does_not_create_a_database() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(&dir.path().join(DATABASE)).is_err());
        assert!(!dir.path().join(DATABASE).exists());
    }
}
