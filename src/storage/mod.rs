//! stub
use std::path::Path;
use std::sync::Arc;

/// Our disk. Nothing accepted is dropped for one of these: keep, report, try again.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database is of a newer version of this program.
    #[error("the database {path} has schema {found}; this program knows schemas up to {known}: use the newer chatserver that wrote it")]
    Newer {
        /// The database file.
        path: String,
        /// Its `user_version`.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite's own words.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// The database of one server. Safe from any thread; every call may wait for the disk, so none is made with a lock held.
pub struct Storage {}

/// What waits for one user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Number of rows.
    pub messages: u64,
    /// Bytes of their texts.
    pub bytes: u64,
    /// The highest `seq` on disk, 0 = none.
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

/// One transaction's work: inserts, then deletes, then users, then the floor.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order; at most `limits::SAVE_ROWS`.
    pub inserts: Vec<Insert>,
    /// After the inserts.
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
    /// Opens or creates `dir/chatserver.db`, migrating it.
    pub fn open(_dir: &Path) -> Result<Storage, StorageError> {
        todo!()
    }
    /// The stored floor: every new seq must be above it.
    pub fn seq_floor(&self) -> Result<u64, StorageError> {
        todo!()
    }
    /// What waits for `recipient`.
    pub fn backlog(&self, _recipient: &str) -> Result<Backlog, StorageError> {
        todo!()
    }
    /// What waits for everybody.
    pub fn total(&self) -> Result<Backlog, StorageError> {
        todo!()
    }
    /// Rows of `recipient` with `after < seq <= upto`, in order, at most `max_rows`, and not more than about `max_bytes` of text (at least one row).
    /// The flag says that there are no more in that range.
    pub fn read(&self, _recipient: &str, _after: u64, _upto: u64, _max_rows: usize, _max_bytes: usize) -> Result<(Vec<Row>, bool), StorageError> {
        todo!()
    }
    /// One transaction; after `Ok` it survives power loss.
    pub fn save(&self, _batch: &Batch) -> Result<Saved, StorageError> {
        todo!()
    }
    /// Removes at most `max_rows` rows accepted before `before` (Unix ms).
    pub fn expire(&self, _before: i64, _max_rows: usize) -> Result<Vec<Expired>, StorageError> {
        todo!()
    }
    /// Acceptance time of the oldest row, Unix ms.
    pub fn oldest_at(&self) -> Result<Option<i64>, StorageError> {
        todo!()
    }
    /// Bytes in use in the database file (free pages not counted), as of the last save.
    pub fn used_bytes(&self) -> u64 {
        todo!()
    }
    /// Moves the write-ahead log into the database file while nobody is in a hurry.
    pub fn checkpoint(&self) -> Result<(), StorageError> {
        todo!()
    }
    /// Checkpoint with truncation, then close.
    pub fn close(self) -> Result<(), StorageError> {
        todo!()
    }
}

/// Placeholder, replaced by storage's branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLine {
    /// As written at the first login.
    pub name: String,
    /// First login, Unix milliseconds.
    pub registered_at: i64,
    /// Latest login, Unix milliseconds.
    pub last_seen_at: i64,
    /// Messages waiting on disk.
    pub waiting_messages: u64,
    /// Bytes of their texts.
    pub waiting_bytes: u64,
}

/// Placeholder, replaced by storage's branch.
pub fn users(_dir: &Path) -> Result<Vec<UserLine>, StorageError> {
    Ok(Vec::new())
}
