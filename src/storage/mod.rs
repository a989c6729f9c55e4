//! The server's disk: one SQLite file, and the only SQL of the project. It stores what waits for absent users, who was ever here, which
//! numbers level-2 senders have given to their messages (`senders.rs`), and the floor under all future seqs; it must not know sockets,
//! sessions, windows, or the time. `schema.sql` and `schema_2.sql` say what a person finds in the file. Read
//! <https://sqlite.org/wal.html> first, then ARCHITECTURE.md on who calls this.
//!
//! One connection writes (a save is one transaction, durable when `Ok` comes back), a few others read (`readers.rs`). What an error
//! means and who is at fault is in `error.rs`; a message that the database refuses for its content goes to `set_aside.rs`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

mod backup;
mod error;
mod export;
mod messages;
mod migrations;
#[cfg(test)]
mod property_tests;
mod readers;
mod replacement;
mod senders;
#[cfg(test)]
mod senders_tests;
mod set_aside;
#[cfg(test)]
mod tests;
mod users;

pub use backup::{Copied, backup, restore};
pub use error::StorageError;
pub use export::{Export, Waiting};
pub use readers::Reading;
pub use senders::{SenderState, SenderUpdate, SentBlock, SentId};
pub use users::{UserLine, users};

use readers::Readers;

/// File name in the data directory.
pub const DATABASE: &str = "chatserver.db";

/// How long one call waits for another program's lock before it fails, to be tried again: short, since it also delays a stop.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Page cache of the writing connection, KiB. Saves touch the end of the file and one index page for each recipient.
const CACHE_KIB: i64 = 2048;

/// Size to which the write-ahead log is cut when it starts over, bytes. A large save may take it higher for a while.
const LOG_BYTES: i64 = 16 * 1024 * 1024;

/// Pages in the write-ahead log from which a commit also moves them into the database file: 4 MiB.
const CHECKPOINT_PAGES: i64 = 1000;

/// Prepared statements kept by the writing connection: all of them.
const STATEMENTS: usize = 32;

/// The database of one server. Safe from any thread; every call may wait for the disk, so none is made with a lock held.
pub struct Storage {
    dir: PathBuf,
    // lock: storage.connection, taken with no other lock held; held for a whole transaction, its disk waits included
    connection: Mutex<Option<Connection>>,
    readers: Readers,
    used: AtomicU64,
    /// The sender after which the next expiry goes on.
    // lock: storage.expired_upto, a leaf, held for no longer than a copy
    expired_upto: Mutex<messages::Name>,
}

/// What waits for one user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Number of rows.
    pub messages: u64,
    /// Bytes of their texts.
    pub bytes: u64,
    /// The lowest `seq` on disk, 0 = none.
    pub first_seq: u64,
    /// The highest `seq` on disk, 0 = none. Each user has an own series: both are 0 also where it is all users together.
    pub last_seq: u64,
}

/// One waiting message, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Place in the recipient's window.
    pub seq: u64,
    /// The sender's name as written.
    pub sender: String,
    /// The text.
    pub text: String,
    /// The sender's clock, Unix seconds.
    pub client_time: i64,
    /// Our clock at acceptance, Unix milliseconds.
    pub accepted_at: i64,
    /// The sender's own number for it.
    pub msg_id: Option<u64>,
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Insert {
    /// `UserName::key` of the recipient.
    pub recipient: Arc<str>,
    /// The message.
    pub row: Row,
}

/// Everything up to `seq` for `recipient` is acknowledged.
#[derive(Debug, Clone)]
pub struct Delete {
    /// `UserName::key` of the recipient.
    pub recipient: Arc<str>,
    /// Inclusive.
    pub seq: u64,
}

/// A user was here.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As written at this login; kept only when the name is new.
    pub name: Arc<str>,
    /// `UserName::key`.
    pub key: Arc<str>,
    /// Unix milliseconds.
    pub at: i64,
}

/// One transaction's work: inserts, then senders, then deletes, then users, then the floor.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order; at most `limits::SAVE_ROWS`.
    pub inserts: Vec<Insert>,
    /// Numbers of messages, in the same transaction as the messages that they were given to; each sender once.
    pub senders: Vec<SenderUpdate>,
    /// After the inserts and the senders.
    pub deletes: Vec<Delete>,
    /// Registrations and last-seen times.
    pub seen: Vec<Seen>,
    /// No seq above this has been or will be handed out before a later batch raises it; `None` = unchanged.
    pub seq_floor: Option<u64>,
}

/// What a committed batch did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Indices into `inserts` of rows that the database refused for their content; they were logged and are not on disk.
    pub set_aside: Vec<usize>,
    /// For each of `deletes`, the rows and text bytes that it removed.
    pub deleted: Vec<(u64, u64)>,
    /// The removed rows that had a number, which is marked as delivered on disk: the sender's name as written, and `msg_id`.
    pub delivered: Vec<(String, u64)>,
    /// Indices into `senders` of those whose numbers the database refused: they were logged, and part of them may not be on disk,
    /// though the messages are. Give them again with a later batch.
    pub senders_failed: Vec<usize>,
}

/// Rows removed for their age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// `UserName::key` of the recipient.
    pub recipient: String,
    /// Rows.
    pub messages: u64,
    /// Bytes of text.
    pub bytes: u64,
}

impl Storage {
    /// Opens or creates `dir/chatserver.db` (0600, as will be what SQLite puts beside it), migrating it. `dir` must exist.
    ///
    /// # Errors
    /// `Newer` if another version's; else the disk's. A start that fails here has changed nothing.
    pub fn open(dir: &Path) -> Result<Storage, StorageError> {
        let path = dir.join(DATABASE);
        create_private(dir, &path).map_err(|error| StorageError::file(&path, error))?;
        let mut connection =
            Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        migrations::version(&connection, &path)?;
        configure(&connection, &path)?;
        migrations::migrate(&mut connection, &path)?;
        let used = AtomicU64::new(used_bytes(&connection)?);
        Ok(Storage {
            dir: dir.to_owned(),
            connection: Mutex::new(Some(connection)),
            readers: Readers::new(path),
            used,
            expired_upto: Mutex::default(),
        })
    }

    /// The stored floor: every new seq must be above it.
    pub fn seq_floor(&self) -> Result<u64, StorageError> {
        self.readers.read(users::seq_floor)
    }

    /// What waits for `recipient`. The cost does not depend on how much that is.
    pub fn backlog(&self, recipient: &str) -> Result<Backlog, StorageError> {
        let recipient = recipient.to_owned();
        self.readers.read(move |connection| messages::backlog(connection, &recipient))
    }

    /// Whether the user `key` (`UserName::key`) ever logged in, as far as that was saved.
    pub fn is_user(&self, key: &str) -> Result<bool, StorageError> {
        let key = key.to_owned();
        self.readers.read(move |connection| users::is_known(connection, &key))
    }

    /// What is remembered of the level-2 sender `key` (`UserName::key`), from one moment.
    pub fn sender(&self, key: &str) -> Result<SenderState, StorageError> {
        let key = key.to_owned();
        self.readers.read(move |connection| senders::read(connection, &key))
    }

    /// What waits for everybody. The cost grows with the users for whom something waits, not with the messages.
    pub fn total(&self) -> Result<Backlog, StorageError> {
        self.readers.read(messages::total)
    }

    /// Rows of `recipient` with `after < seq <= upto`, in order, at most `max_rows`, and at most `max_bytes` of text (at least one row).
    /// The flag says that there are no more in that range.
    pub fn read(
        &self,
        recipient: &str,
        after: u64,
        upto: u64,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<(Vec<Row>, bool), StorageError> {
        self.begin_read(recipient, after, upto, max_rows, max_bytes).wait()
    }

    /// The same, without waiting yet: so that the next rows are read while the last are still on their way.
    pub fn begin_read(
        &self,
        recipient: &str,
        after: u64,
        upto: u64,
        max_rows: usize,
        max_bytes: usize,
    ) -> Reading<(Vec<Row>, bool)> {
        let recipient = recipient.to_owned();
        self.readers.begin(move |connection| messages::read(connection, &recipient, after, upto, max_rows, max_bytes))
    }

    /// One transaction; after `Ok` it survives power loss.
    ///
    /// # Errors
    /// Nothing of the batch is in the database (nor, after a retry, anything of it twice): keep it and give it again, later.
    pub fn save(&self, batch: &Batch) -> Result<Saved, StorageError> {
        let mut guard = self.connection.lock();
        let connection = guard.as_mut().ok_or(StorageError::Closed)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let refused = messages::insert(&transaction, &batch.inserts)?;
        let senders_failed = match refused.is_empty() {
            true => senders::update(&transaction, &batch.senders)?,
            false => senders::update(&transaction, &senders::without(batch, &refused))?,
        };
        let deleted = messages::delete(&transaction, &batch.deletes)?;
        senders::mark_delivered(&transaction, &deleted.numbered)?;
        users::seen(&transaction, &batch.seen)?;
        if let Some(floor) = batch.seq_floor {
            users::raise_seq_floor(&transaction, floor)?;
        }
        let aside = set_aside::append(&self.dir, batch, &refused)?;
        self.commit(transaction).inspect_err(|_| aside.undo())?;
        drop(guard);
        set_aside::report(batch, &refused);
        Ok(Saved {
            set_aside: refused.iter().map(|refused| refused.index).collect(),
            deleted: deleted.counts,
            delivered: deleted.numbered,
            senders_failed,
        })
    }

    /// Removes at most `max_rows` rows accepted before `before` (Unix ms), the oldest first. Also has level-2 senders forgotten that used no
    /// number since then, some at each call: their numbers so far become too old to be recognised. A sender in memory is not asked;
    /// its next update counts.
    pub fn expire(&self, before: i64, max_rows: usize) -> Result<Vec<Expired>, StorageError> {
        let mut guard = self.connection.lock();
        let connection = guard.as_mut().ok_or(StorageError::Closed)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let expired = messages::expire(&transaction, before, max_rows)?;
        let after = self.expired_upto.lock().clone();
        let after = senders::expire(&transaction, &after, before, max_rows)?;
        self.commit(transaction)?;
        *self.expired_upto.lock() = after;
        Ok(expired)
    }

    /// Acceptance time of the oldest row, Unix ms.
    pub fn oldest_at(&self) -> Result<Option<i64>, StorageError> {
        self.readers.read(messages::oldest_at)
    }

    /// Bytes in use in the database file (free pages not counted), as of the last save. Never waits.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Moves the write-ahead log into the database file while nobody is in a hurry. What readers still need stays for the next time.
    pub fn checkpoint(&self) -> Result<(), StorageError> {
        Ok(checkpoint(self.connection.lock().as_ref().ok_or(StorageError::Closed)?, "PASSIVE")?)
    }

    /// Checkpoint with truncation, then close: what is left is one file. Without it nothing is lost either, the next open recovers.
    pub fn close(&self) -> Result<(), StorageError> {
        self.readers.close();
        let connection = self.connection.lock().take().ok_or(StorageError::Closed)?;
        checkpoint(&connection, "TRUNCATE")?;
        Ok(connection.close().map_err(|(_, error)| error)?)
    }

    // A commit that fails has not happened: SQLite shows a transaction to nobody before its write-ahead log is synced.
    fn commit(&self, transaction: Transaction) -> Result<(), StorageError> {
        let used = used_bytes(&transaction)?;
        transaction.commit()?;
        self.used.store(used, Ordering::Relaxed);
        Ok(())
    }
}

/// Creates the file, for its owner only, where there is none. One that exists is not touched: to close any descriptor of it would
/// take away the locks that SQLite holds on it in this process.
fn create_private(dir: &Path, path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => File::open(dir)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

// Not `temp_store = MEMORY`: each counting trigger would cost 4 µs more, and a delete of a large backlog its size in memory.
fn configure(connection: &Connection, path: &Path) -> Result<(), StorageError> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let reason =
            io::Error::other("no write-ahead log is possible here: the data directory must be on a local disk");
        return Err(StorageError::file(path, reason));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Ok(())
}

fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    connection.prepare_cached(pages)?.query_row([], |row| messages::count(row, 0))
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}
