//! From any older schema to ours. The list is append-only: an entry that was released is never edited, and entry n takes a
//! database from `user_version` n to n + 1. A newer database is refused before anything is written to it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StorageError;

/// Entry 0 makes schema 1 out of an empty file.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("schema_2.sql")];

/// The schema that this program reads and writes.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// The database's schema, which is not newer than ours.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<i64, StorageError> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if !(0..=KNOWN).contains(&found) {
        return Err(StorageError::Newer { path: path.display().to_string(), found, known: KNOWN });
    }
    Ok(found)
}

/// Brings the database to our schema in one transaction: after a crash it is the old one or the new one.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StorageError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction, path)?;
    for statements in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(statements)?;
    }
    if found < KNOWN {
        transaction.pragma_update(None, "user_version", KNOWN)?;
        log::info!("{}: schema {found} is now {KNOWN}", path.display());
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{insert, saved};
    use super::super::{Batch, DATABASE, Row, SenderState, SenderUpdate, SentBlock, SentId, Storage};
    use super::*;

    /// A database as the version of this program with `version` migrations left it, with one message where there is a table for it.
    fn older(path: &Path, version: usize) {
        let connection = Connection::open(path).unwrap();
        for statements in &MIGRATIONS[..version] {
            connection.execute_batch(statements).unwrap();
        }
        connection.pragma_update(None, "user_version", version as i64).unwrap();
        if version >= 1 {
            let row = "INSERT INTO messages (recipient, seq, sender, text, client_time, accepted_at) VALUES ('bob', 7, 'ann', 'hello', 1, 2)";
            connection.execute(row, []).unwrap();
        }
    }

    #[test]
    fn every_older_schema_is_upgraded_and_keeps_its_messages() {
        for version in 0..=MIGRATIONS.len() {
            let dir = tempfile::tempdir().unwrap();
            older(&dir.path().join(DATABASE), version);
            let storage = Storage::open(dir.path()).unwrap();
            assert_eq!(storage.backlog("bob").unwrap().messages, (version >= 1) as u64, "from schema {version}");
            if version >= 1 {
                let row = Row {
                    seq: 7,
                    sender: "ann".into(),
                    text: "hello".into(),
                    client_time: 1,
                    accepted_at: 2,
                    msg_id: None,
                };
                assert_eq!(storage.read("bob", 0, 9, 9, 999).unwrap(), (vec![row], true), "from schema {version}");
            }
            assert_eq!(storage.sender("ann").unwrap(), SenderState::default());
            let ids = vec![SentId { id: 1, hash: 2, is_delivered: false }];
            let blocks = vec![SentBlock { block: 0, ids: ids.clone() }];
            let ann = SenderUpdate { sender: "ann".into(), forgotten_upto: 0, reserved_upto: 9, used_at: 3, blocks };
            let inserts = vec![insert("bob", 8, "again")];
            let said = saved(&storage, &Batch { inserts, senders: vec![ann], ..Batch::default() });
            assert_eq!(said.senders_failed, [0usize; 0], "from schema {version}");
            assert_eq!(storage.sender("ann").unwrap(), SenderState { forgotten_upto: 0, reserved_upto: 9, ids });
            let found: i64 = Connection::open(dir.path().join(DATABASE))
                .unwrap()
                .pragma_query_value(None, "user_version", |row| row.get(0))
                .unwrap();
            assert_eq!(found, KNOWN);
        }
    }

    #[test]
    fn reopening_keeps_everything() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        saved(&storage, &Batch { inserts: vec![insert("bob", 1, "hello")], seq_floor: Some(99), ..Batch::default() });
        storage.close().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        assert_eq!(storage.read("bob", 0, 9, 9, 999).unwrap(), (vec![insert("bob", 1, "hello").row], true));
        assert_eq!(storage.seq_floor().unwrap(), 99);
    }

    #[test]
    fn a_newer_schema_is_refused_and_its_file_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DATABASE);
        Storage::open(dir.path()).unwrap().close().unwrap();
        Connection::open(&path).unwrap().pragma_update(None, "user_version", KNOWN + 1).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = Storage::open(dir.path()).err().expect("a newer schema");
        assert!(
            matches!(error, StorageError::Newer { found, known, .. } if found == KNOWN + 1 && known == KNOWN),
            "{error}"
        );
        assert!(error.to_string().contains("use the newer chatserver"), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
