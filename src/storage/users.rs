//! The SQL of users: who was here, first and last. Also the one row of `meta`, and the reading door of `chatserver users`.

use std::path::Path;

use rusqlite::{Connection, Transaction, params};

use super::messages::{count, tally, text, unless_machine};
use super::{DATABASE, Seen, StorageError, migrations, readers};

const SEEN: &str = "INSERT INTO users (name, name_key, registered_at, last_seen_at) VALUES (?1, ?2, ?3, ?3)
    ON CONFLICT (name_key) DO UPDATE SET last_seen_at = excluded.last_seen_at";

const USERS: &str = "SELECT name, registered_at, last_seen_at, ifnull(messages, 0), ifnull(bytes, 0)
    FROM users LEFT JOIN backlog ON recipient = name_key ORDER BY name";

/// A registered user, for a listing.
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

/// Everybody who ever logged in, sorted by name (by its bytes), from the database in `dir`, which is only read: a server may be
/// running on it. What waits in a running server's memory is not in it yet.
///
/// # Errors
/// `Missing` if there is no database, `Older` or `Newer` if it is of another version, else SQLite's.
pub fn users(dir: &Path) -> Result<Vec<UserLine>, StorageError> {
    let connection = open(dir)?;
    let mut statement = connection.prepare(USERS)?;
    let lines = statement.query_map([], line)?.collect::<rusqlite::Result<_>>()?;
    Ok(lines)
}

/// The database in `dir`, for reading, if it is of our version.
pub(super) fn open(dir: &Path) -> Result<Connection, StorageError> {
    let path = dir.join(DATABASE);
    if !path.try_exists().map_err(|error| StorageError::file(&path, error))? {
        return Err(StorageError::Missing { path: path.display().to_string() });
    }
    let connection = readers::open(&path)?;
    let found = migrations::version(&connection, &path)?;
    if found < migrations::KNOWN {
        return Err(StorageError::Older { path: path.display().to_string(), found, known: migrations::KNOWN });
    }
    Ok(connection)
}

fn line(row: &rusqlite::Row) -> rusqlite::Result<UserLine> {
    Ok(UserLine {
        name: text(row, 0)?,
        registered_at: row.get(1)?,
        last_seen_at: row.get(2)?,
        waiting_messages: tally(row, 3)?,
        waiting_bytes: tally(row, 4)?,
    })
}

/// Registers who is new, and notes when the others were here.
pub(super) fn seen(transaction: &Transaction, seen: &[Seen]) -> Result<(), StorageError> {
    let mut statement = transaction.prepare_cached(SEEN)?;
    for user in seen {
        let done = statement.execute(params![&*user.name, &*user.key, user.at]);
        if let Err(error) = unless_machine(transaction, done)? {
            log::error!("the login of {:?} could not be stored: {error}", user.key);
        }
    }
    Ok(())
}

/// Whether a user is registered.
pub(super) fn is_known(connection: &Connection, key: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM users WHERE name_key = ?1")?.exists([key])
}

/// Raises the floor; a lower one changes nothing.
///
/// # Errors
/// Also for a floor above 2⁶³ − 1: a floor that is not stored must not be relied on.
pub(super) fn raise_seq_floor(transaction: &Transaction, floor: u64) -> rusqlite::Result<()> {
    let floor = i64::try_from(floor).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    transaction.prepare_cached("UPDATE meta SET seq_floor = max(seq_floor, ?1)")?.execute([floor])?;
    Ok(())
}

pub(super) fn seq_floor(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT seq_floor FROM meta", [], |row| count(row, 0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{insert, saved};
    use super::super::{Batch, Storage};
    use super::*;

    fn login(name: &str, key: &str, at: i64) -> Seen {
        Seen { name: name.into(), key: key.into(), at }
    }

    #[test]
    fn a_name_is_kept_as_first_seen_and_listed_beside_the_running_server() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let first = Batch {
            seen: vec![login("Zoe\u{301}", "Zo\u{e9}", 10), login("Ann", "Ann", 20)],
            inserts: vec![insert("Zo\u{e9}", 1, "héllo")],
            ..Batch::default()
        };
        saved(&storage, &first);
        saved(
            &storage,
            &Batch {
                seen: vec![login("Zo\u{e9}", "Zo\u{e9}", 30)],
                inserts: vec![insert("nobody", 2, "x")],
                ..Batch::default()
            },
        );
        let line = |name: &str, registered_at, last_seen_at, waiting_messages, waiting_bytes| UserLine {
            name: name.into(),
            registered_at,
            last_seen_at,
            waiting_messages,
            waiting_bytes,
        };
        assert_eq!(users(dir.path()).unwrap(), [line("Ann", 20, 20, 0, 0), line("Zoe\u{301}", 10, 30, 1, 6)]);
        let known = ["Ann", "Zo\u{e9}", "nobody", "ann"].map(|key| storage.is_user(key).unwrap());
        assert_eq!(known, [true, true, false, false]);
        storage.close().unwrap();
        assert_eq!(users(dir.path()).unwrap().len(), 2, "also when no server runs");
    }

    #[test]
    fn without_a_database_the_listing_says_what_to_do_and_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let error = users(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Missing { .. }) && error.to_string().contains("--data"), "{error}");
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        Connection::open(dir.path().join(DATABASE)).unwrap().pragma_update(None, "user_version", 0).unwrap();
        assert!(matches!(users(dir.path()).unwrap_err(), StorageError::Older { found: 0, .. }));
        Connection::open(dir.path().join(DATABASE))
            .unwrap()
            .pragma_update(None, "user_version", migrations::KNOWN + 1)
            .unwrap();
        assert!(matches!(users(dir.path()).unwrap_err(), StorageError::Newer { .. }));
    }

    #[test]
    fn the_floor_only_rises() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        assert_eq!(storage.seq_floor().unwrap(), 0);
        for (floor, expected) in [(Some(7), 7), (Some(5), 7), (None, 7), (Some((1 << 53) - 1), (1 << 53) - 1)] {
            saved(&storage, &Batch { seq_floor: floor, ..Batch::default() });
            assert_eq!(storage.seq_floor().unwrap(), expected);
        }
        assert!(storage.save(&Batch { seq_floor: Some(u64::MAX), ..Batch::default() }).is_err());
    }
}
