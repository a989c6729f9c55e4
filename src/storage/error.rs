//! What our disk can do wrong, in sentences for an operator. Whose fault an error is (the machine's, the file's, one row's) is
//! decided here, in one place: `Cause`. The list of result codes: <https://sqlite.org/rescode.html>.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;

/// Our disk. Nothing accepted is dropped for one of these: keep, report, try again.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database is of a newer version of this program.
    #[error(
        "the database {path} has schema {found}; this program knows schemas up to {known}: use the newer chatserver that wrote it"
    )]
    Newer {
        /// The database file.
        path: String,
        /// Its `user_version`.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database is of an older version, and was opened for reading only.
    #[error(
        "the database {path} has schema {found}, this program reads schema {known}: start its server once, which upgrades it"
    )]
    Older {
        /// The database file.
        path: String,
        /// Its `user_version`.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// There is no database to read.
    #[error(
        "there is no database {path}: name the server's data directory with --data, or start the server once, which creates it"
    )]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// Another program's file, or no database at all.
    #[error("{path} is no database of a chatserver: name a file that `chatserver backup` wrote")]
    Foreign {
        /// The file.
        path: String,
    },
    /// Checked, and found to be broken.
    #[error("{path} is damaged ({found}): use an older backup, or what `sqlite3 {path} .recover` still finds")]
    Damaged {
        /// The database file.
        path: String,
        /// SQLite's words.
        found: String,
    },
    /// It cannot be replaced now.
    #[error("another program has the database {path} open (often a `sqlite3`): end it, then try again")]
    InUse {
        /// The database file.
        path: String,
    },
    /// A file beside SQLite's own, or the database file at its creation.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// No thread could be started that reads.
    #[error("no thread to read the database with: {0}; raise the limit on tasks (ulimit -u, TasksMax=)")]
    Thread(io::Error),
    /// The server has stopped.
    #[error("the database is closed, for the server has stopped")]
    Closed,
    /// A fault of this program; whoever asked goes on as after any other.
    #[error("it panicked: {0}; please report this, with the lines of the log before it")]
    Panicked(String),
    /// SQLite's own words, after ours.
    #[error("{}", in_words(.0))]
    Sqlite(#[from] rusqlite::Error),
}

impl StorageError {
    pub(super) fn file(path: &Path, source: io::Error) -> StorageError {
        StorageError::File { path: path.display().to_string(), source }
    }

    /// Whether the same call may succeed later by itself, or once the operator has done what the sentence says, while the server
    /// runs on. If not, the file or the program is at fault; what is in memory is to be kept all the same.
    pub fn is_retryable(&self) -> bool {
        match self {
            StorageError::Sqlite(error) => Cause::of(error).is_machine(),
            StorageError::File { .. } | StorageError::InUse { .. } | StorageError::Thread(_) => true,
            StorageError::Newer { .. }
            | StorageError::Older { .. }
            | StorageError::Missing { .. }
            | StorageError::Foreign { .. }
            | StorageError::Damaged { .. }
            | StorageError::Closed
            | StorageError::Panicked(_) => false,
        }
    }
}

/// Whose fault an SQLite error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// No room in the file system or in the database.
    Full,
    /// Another program holds the lock.
    Locked,
    /// The device or the file system failed.
    Disk,
    /// Rights, a read-only mount, or no descriptors left.
    Unwritable,
    /// No memory.
    Memory,
    /// Over at the next try.
    Passing,
    /// The file is broken, at least in this place.
    Damaged,
    /// The content of this row.
    Row,
    /// Ours: the statement is wrong.
    Program,
}

impl Cause {
    pub(super) fn of(error: &rusqlite::Error) -> Cause {
        use rusqlite::Error;
        match error {
            Error::SqliteFailure(error, _) | Error::SqlInputError { error, .. } => Cause::of_code(error.code),
            Error::ToSqlConversionFailure(_)
            | Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..) => Cause::Row,
            _ => Cause::Program,
        }
    }

    fn of_code(code: ErrorCode) -> Cause {
        match code {
            ErrorCode::DiskFull => Cause::Full,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => Cause::Locked,
            ErrorCode::SystemIoFailure => Cause::Disk,
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Cause::Unwritable,
            ErrorCode::OutOfMemory => Cause::Memory,
            ErrorCode::OperationInterrupted | ErrorCode::OperationAborted | ErrorCode::SchemaChanged => Cause::Passing,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Cause::Damaged,
            ErrorCode::ConstraintViolation
            | ErrorCode::TooBig
            | ErrorCode::TypeMismatch
            | ErrorCode::ParameterOutOfRange => Cause::Row,
            _ => Cause::Program,
        }
    }

    /// The machine's: whatever was tried is to be tried again as a whole.
    pub(super) fn is_machine(self) -> bool {
        !matches!(self, Cause::Damaged | Cause::Row | Cause::Program)
    }
}

fn in_words(error: &rusqlite::Error) -> String {
    let sentence = match Cause::of(error) {
        Cause::Full => "the disk is full: free some space, or move the data directory to a larger disk",
        Cause::Locked => {
            "the database is locked by another program: end its transaction, or that program (often a `sqlite3` left open)"
        }
        Cause::Disk => "the disk failed: see the kernel's log (`dmesg`) and check the disk",
        Cause::Unwritable => {
            "the database cannot be opened or written: check the owner, the rights and the mount of the data directory, and the limit on open files"
        }
        Cause::Memory => "the machine is out of memory: give it more, or lower `memory_bytes`",
        Cause::Passing => "the database was interrupted, and will be tried again",
        Cause::Damaged => {
            "the database is damaged: stop the server, keep a copy of its files, then use `sqlite3 chatserver.db .recover` or a backup"
        }
        Cause::Row => "the database refused a value",
        Cause::Program => {
            "the database did not understand, which is a fault of this program or of a changed schema: please report it"
        }
    };
    format!("{sentence} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    fn failure(code: i32) -> StorageError {
        StorageError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn the_machines_errors_are_retried_the_files_are_not() {
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CANTOPEN,
        ] {
            assert!(failure(code).is_retryable(), "{}", failure(code));
        }
        for code in [ffi::SQLITE_INTERRUPT, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_BUSY_SNAPSHOT]
        {
            assert!(failure(code).is_retryable(), "{}", failure(code));
        }
        for code in
            [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_CONSTRAINT, ffi::SQLITE_TOOBIG, ffi::SQLITE_ERROR]
        {
            assert!(!failure(code).is_retryable(), "{}", failure(code));
        }
    }

    #[test]
    fn a_sentence_says_what_to_do_and_keeps_sqlites_words() {
        let sentence = failure(ffi::SQLITE_FULL).to_string();
        assert!(sentence.starts_with("the disk is full: free some space"), "{sentence}");
        assert!(sentence.contains("database or disk is full"), "{sentence}");
    }
}
