//! Copies of the whole database, out of the data directory and back into it. Both ways are one: a checked copy under a name of its own,
//! which then takes the place of what was there (`replacement.rs`). Read <https://sqlite.org/backup.html> first.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::replacement::{Replacement, beside, sync_directory_of};
use super::set_aside::SET_ASIDE;
use super::{BUSY_TIMEOUT, DATABASE, StorageError, messages, migrations, readers, users};

/// Pages copied between two looks at the progress: 1 MiB.
const STEP_PAGES: i32 = 256;

/// Page cache while a copy is checked, KiB: indices are compared with their tables.
const CHECK_CACHE_KIB: i64 = 64 * 1024;

/// What SQLite may have beside a database. Next to another database than their own they would destroy it.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A copy that was made and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Messages that wait in it.
    pub messages: u64,
    /// Its size.
    pub bytes: u64,
    /// The other file of the pair: what is beside a backup if the server ever set messages aside; where the database went that a
    /// restore has replaced.
    pub beside: Option<PathBuf>,
}

/// Copies the database in `dir` to `file`, also beside a running server: everything that was saved before the call. `progress` is told
/// the bytes copied and the bytes in all. `file` appears, or is replaced, only when the copy is whole, checked and on disk.
///
/// # Errors
/// `Missing`, `Newer`, `Foreign` or `Damaged` about the database; else the disk's. `file` is as it was.
pub fn backup(dir: &Path, file: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Copied, StorageError> {
    let database = dir.join(DATABASE);
    if !database.try_exists().map_err(|error| StorageError::file(&database, error))? {
        return Err(StorageError::Missing { path: database.display().to_string() });
    }
    check_target(file, &database)
        .and_then(|()| check_replaced(file))
        .map_err(|error| StorageError::file(file, error))?;
    let copy = copy(&database, file, progress)?;
    let (messages, bytes) = check(&copy, &database)?;
    // After the copy: lines are on disk before the transaction that they belong to.
    let beside = keep_set_aside(dir, file)?;
    copy.put_in_place().map_err(|error| StorageError::file(file, error))?;
    Ok(Copied { messages, bytes, beside })
}

/// Puts a copy of `file` into the place of the database in `dir`; the caller holds the lock of `dir`. What was there is kept beside it,
/// with `.replaced-` and `stamp` at the end of its name. At each moment the old database or the new one is in place, whole.
///
/// # Errors
/// `Newer`, `Foreign` or `Damaged` about `file`, `InUse` about the database; else the disk's. The old database is in place.
pub fn restore(
    dir: &Path,
    file: &Path,
    stamp: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copied, StorageError> {
    let database = dir.join(DATABASE);
    check_target(&database, file).map_err(|error| StorageError::file(&database, error))?;
    let copy = copy(file, &database, progress)?;
    let (messages, bytes) = check(&copy, file)?;
    let present = take_over(&database)?;
    if let Some(present) = &present {
        // Seqs that were handed out since the backup must not come again, whatever the clock says now.
        raise_seq_floor(&copy, users::seq_floor(present).unwrap_or(0))?;
    }
    let beside = keep_present(&database, stamp).map_err(|error| StorageError::file(&database, error))?;
    copy.put_in_place().map_err(|error| StorageError::file(&database, error))?;
    drop(present);
    Ok(Copied { messages, bytes, beside })
}

/// Only an ordinary file may be replaced, and not by itself.
fn check_target(target: &Path, source: &Path) -> io::Result<()> {
    if target.file_name().is_none() {
        return Err(io::Error::other("this is a directory: name a file"));
    }
    match fs::metadata(target) {
        Ok(found) if !found.is_file() => Err(io::Error::other("this is no ordinary file: name another")),
        Ok(found) => match fs::metadata(source) {
            Ok(other) if (other.dev(), other.ino()) == (found.dev(), found.ino()) => {
                Err(io::Error::other("this is the server's database itself: name another file"))
            }
            _ => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Of the files that are there a backup replaces an older one and an empty one only: not the server's lock or log, its write-ahead log, its configuration.
fn check_replaced(target: &Path) -> io::Result<()> {
    let mut beginning = Vec::new();
    match File::open(target) {
        Ok(file) => file.take(16).read_to_end(&mut beginning)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match beginning.as_slice() {
        b"" | b"SQLite format 3\0" => Ok(()),
        _ => Err(io::Error::other("there is a file that is no backup: name another file, or remove it")),
    }
}

/// A copy of the database `source`, its write-ahead log included, on its way to `target`; one file, without a log of its own.
fn copy(source: &Path, target: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Replacement, StorageError> {
    let from = readers::open(source).map_err(|error| about(source, source, error))?;
    // One view of the database for all steps. Otherwise the copy starts over whenever a server commits: it would never end.
    let from = from.unchecked_transaction()?;
    check_version(&from, source)?;
    let page_bytes: i64 = from.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let copy = Replacement::begin(target).map_err(|error| StorageError::file(target, error))?;
    let mut to = open_copy(&copy)?;
    let backup = Backup::new(&from, &mut to)?;
    loop {
        let step = backup.step(STEP_PAGES).map_err(|error| about(source, target, error))?;
        let pages = backup.progress();
        let bytes = |pages: i32| u64::from(pages.unsigned_abs()) * page_bytes.unsigned_abs();
        progress(bytes(pages.pagecount - pages.remaining), bytes(pages.pagecount));
        if step == StepResult::Done {
            break;
        }
    }
    drop(backup);
    drop(to);
    // The two file format numbers (https://sqlite.org/fileformat.html): 1 = a database without a write-ahead log.
    copy.file().write_all_at(&[1, 1], 18).map_err(|error| StorageError::file(copy.path(), error))?;
    Ok(copy)
}

/// It is one of ours, and not newer than this program.
fn check_version(connection: &Connection, path: &Path) -> Result<(), StorageError> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('users', 'messages', 'meta')";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).map_err(|error| about(path, path, error))?;
    if migrations::version(connection, path)? == 0 || tables != 3 {
        return Err(StorageError::Foreign { path: path.display().to_string() });
    }
    Ok(())
}

/// Opens a copy that nobody else knows. It needs no locks (its `Replacement` has one, which some network file systems would confuse
/// with SQLite's) and no journal: a copy that fails is thrown away.
fn open_copy(copy: &Replacement) -> Result<Connection, StorageError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(copy.path(), flags, "unix-none")?;
    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}

/// Reads every page of the copy; the messages in it, and its size.
fn check(copy: &Replacement, source: &Path) -> Result<(u64, u64), StorageError> {
    let connection = open_copy(copy)?;
    connection.pragma_update(None, "cache_size", -CHECK_CACHE_KIB)?;
    let found: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| about(source, copy.path(), error))?;
    if found != "ok" {
        return Err(StorageError::Damaged { path: source.display().to_string(), found });
    }
    let bytes = copy.file().metadata().map_err(|error| StorageError::file(copy.path(), error))?.len();
    Ok((messages::total(&connection)?.messages, bytes))
}

fn raise_seq_floor(copy: &Replacement, floor: u64) -> Result<(), StorageError> {
    let mut connection = open_copy(copy)?;
    let transaction = connection.transaction()?;
    users::raise_seq_floor(&transaction, floor)?;
    Ok(transaction.commit()?)
}

/// An error while `source` is copied to `target`, under the name of the file that it is about.
fn about(source: &Path, target: &Path, error: impl Into<StorageError>) -> StorageError {
    let error = match error.into() {
        StorageError::Sqlite(error) => error,
        other => return other,
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StorageError::Foreign { path: source.display().to_string() },
        Some(ErrorCode::DatabaseCorrupt) => {
            StorageError::Damaged { path: source.display().to_string(), found: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => StorageError::file(target, io::ErrorKind::StorageFull.into()),
        _ => error.into(),
    }
}

/// The messages that the database had refused are beside the backup as they are beside the database.
fn keep_set_aside(dir: &Path, file: &Path) -> Result<Option<PathBuf>, StorageError> {
    let (from, to) = (dir.join(SET_ASIDE), beside(file, &format!(".{SET_ASIDE}")));
    let copy = || -> io::Result<()> {
        let copy = Replacement::begin(&to)?;
        io::copy(&mut File::open(&from)?, &mut copy.file())?;
        copy.put_in_place()
    };
    if !from.try_exists().map_err(|error| StorageError::file(&from, error))? {
        return Ok(None);
    }
    copy().map_err(|error| StorageError::file(&to, error))?;
    Ok(Some(to))
}

/// Makes one file of the present database, and keeps everybody out of it until the connection is dropped. `None`: there is none, or it
/// is damaged and stays as it is.
fn take_over(database: &Path) -> Result<Option<Connection>, StorageError> {
    if !database.try_exists().map_err(|error| StorageError::file(database, error))? {
        return Ok(None);
    }
    let connection =
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // What belongs to a damaged one is to be kept as it is found.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let one_file = connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()));
    match one_file.and_then(|()| connection.execute_batch("BEGIN EXCLUSIVE")) {
        Ok(()) => Ok(Some(connection)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(None),
            Some(ErrorCode::DatabaseBusy) => Err(StorageError::InUse { path: database.display().to_string() }),
            _ => Err(error.into()),
        },
    }
}

/// Gives the present database a second name, and what belongs to it no other than that. Only a damaged one still has such files.
fn keep_present(database: &Path, stamp: &str) -> io::Result<Option<PathBuf>> {
    let kept = beside(database, &format!(".replaced-{stamp}"));
    let is_there = database.try_exists()?;
    if is_there {
        fs::hard_link(database, &kept)?;
    }
    for companion in COMPANIONS {
        match fs::rename(beside(database, companion), beside(&kept, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory_of(database)?;
    Ok(is_there.then_some(kept))
}
