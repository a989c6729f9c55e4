//! Reading all that waits, for `chatserver export`: a batch at a time, so that neither the messages are in memory nor the write-ahead
//! log of a running server grows while whoever reads the export takes a rest.

use std::collections::VecDeque;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::messages::{self, Name};
use super::{Row, StorageError, users};

/// Rows and bytes of text in one batch.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;

const NEXT: &str = "SELECT recipient, ifnull(name, recipient) FROM backlog LEFT JOIN users ON name_key = recipient
    WHERE recipient > ?1 ORDER BY recipient LIMIT 1";

const ONE: &str = "SELECT recipient, ifnull(name, recipient) FROM backlog LEFT JOIN users ON name_key = recipient
    WHERE recipient = ?1";

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The recipient's name as first seen, or in its compared form if the recipient never logged in.
    pub to: String,
    /// The message.
    pub row: Row,
}

/// What waits on disk, user by user, each user's messages in order; as far as it waited when the user's turn came.
pub struct Export {
    connection: Connection,
    /// Of these users only.
    only: Option<String>,
    /// Where we are: nobody before the first.
    user: Option<Turn>,
    rows: VecDeque<Row>,
}

/// The user whose messages are read.
struct Turn {
    key: Name,
    name: String,
    /// The last seq that was read, and the last to be read.
    after: u64,
    upto: u64,
}

impl Export {
    /// Opens the database in `dir`, which is only read: a server may be running on it. `only` is a `UserName::key`.
    ///
    /// # Errors
    /// `Missing`, `Older` or `Newer`, else SQLite's.
    pub fn open(dir: &Path, only: Option<&str>) -> Result<Export, StorageError> {
        let connection = users::open(dir)?;
        Ok(Export { connection, only: only.map(str::to_owned), user: None, rows: VecDeque::new() })
    }

    /// How many messages there are at this moment.
    ///
    /// # Errors
    /// SQLite's.
    pub fn total(&self) -> Result<u64, StorageError> {
        let backlog = match &self.only {
            Some(key) => messages::backlog(&self.connection, key)?,
            None => messages::total(&self.connection)?,
        };
        Ok(backlog.messages)
    }

    fn next_message(&mut self) -> rusqlite::Result<Option<Waiting>> {
        loop {
            if let (Some(user), Some(row)) = (&self.user, self.rows.pop_front()) {
                return Ok(Some(Waiting { to: user.name.clone(), row }));
            }
            if !self.read_batch()? && !self.next_user()? {
                return Ok(None);
            }
        }
    }

    /// Reads on; false: this user has no more.
    fn read_batch(&mut self) -> rusqlite::Result<bool> {
        let Some(user) = &mut self.user else { return Ok(false) };
        let (rows, _) = messages::read(&self.connection, &user.key, user.after, user.upto, BATCH_ROWS, BATCH_BYTES)?;
        user.after = rows.last().map_or(user.upto, |row| row.seq);
        self.rows = rows.into();
        Ok(!self.rows.is_empty())
    }

    /// The next user's turn; false: there is none.
    fn next_user(&mut self) -> rusqlite::Result<bool> {
        let (query, key): (_, &dyn ToSql) = match (&self.only, &self.user) {
            (Some(_), Some(_)) => return Ok(false),
            (Some(only), None) => (ONE, only),
            (None, None) => (NEXT, &""),
            (None, Some(user)) => (NEXT, &user.key),
        };
        let name = |row: &rusqlite::Row| Ok((row.get(0)?, messages::text(row, 1)?));
        let Some((key, name)) = self.connection.prepare_cached(query)?.query_row([key], name).optional()? else {
            return Ok(false);
        };
        let upto = messages::backlog(&self.connection, &key)?.last_seq;
        self.user = Some(Turn { key, name, after: 0, upto });
        Ok(true)
    }
}

impl Iterator for Export {
    type Item = Result<Waiting, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_message().map_err(StorageError::from).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{insert, saved};
    use super::super::{Batch, Seen, Storage};
    use super::*;

    fn exported(dir: &Path, only: Option<&str>) -> Vec<(String, u64)> {
        let export = Export::open(dir, only).unwrap();
        let count = export.total().unwrap();
        let all: Vec<_> = export.map(|waiting| waiting.map(|waiting| (waiting.to, waiting.row.seq)).unwrap()).collect();
        assert_eq!(all.len() as u64, count);
        all
    }

    #[test]
    fn every_user_s_messages_come_in_order_however_many() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        assert_eq!(exported(dir.path(), None), []);
        let many = 2 * BATCH_ROWS as u64 + 1;
        let mut inserts: Vec<_> = (1..=many).rev().map(|seq| insert("zo\u{e9}", seq, "x")).collect();
        inserts.extend([
            insert("bob", 7, "big"),
            insert("ann", 9, &"b".repeat(BATCH_BYTES + 1)),
            insert("ann", 10, "s"),
        ]);
        let seen = vec![Seen { name: "zoe\u{301}".into(), key: "zo\u{e9}".into(), at: 1 }];
        saved(&storage, &Batch { inserts, seen, ..Batch::default() });
        let all = exported(dir.path(), None);
        assert_eq!(all[..3], [("ann".into(), 9), ("ann".into(), 10), ("bob".into(), 7)]);
        assert!(all[3..].iter().map(|(to, seq)| (to.as_str(), *seq)).eq((1..=many).map(|seq| ("zoe\u{301}", seq))));
        assert_eq!(exported(dir.path(), Some("bob")), [("bob".into(), 7)]);
        assert_eq!(exported(dir.path(), Some("nobody")), []);
    }

    #[test]
    fn names_that_are_no_utf_8_keep_it_neither_from_ending_nor_from_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        saved(&storage, &Batch { inserts: vec![insert("ann", 1, "x"), insert("zoe", 2, "x")], ..Batch::default() });
        let by_hand = Connection::open(dir.path().join(super::super::DATABASE)).unwrap();
        // One before the sign that is shown in its place, and one behind it.
        for name in ["61FF", "F1F1"] {
            let insert = format!("INSERT INTO messages VALUES (CAST(x'{name}' AS TEXT), 3, 'eve', 'odd', 0, 0, NULL)");
            by_hand.execute(&insert, []).unwrap();
        }
        let expected = [("ann".into(), 1), ("a\u{fffd}".into(), 3), ("zoe".into(), 2), ("\u{fffd}\u{fffd}".into(), 3)];
        assert_eq!(exported(dir.path(), None), expected);
    }

    #[test]
    fn what_arrives_during_the_export_does_not_keep_it_from_ending() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        saved(&storage, &Batch { inserts: vec![insert("bob", 1, "x")], ..Batch::default() });
        let mut seqs = Vec::new();
        for waiting in Export::open(dir.path(), None).unwrap() {
            let seq = waiting.unwrap().row.seq;
            seqs.push(seq);
            saved(&storage, &Batch { inserts: vec![insert("bob", seq + 1, "x")], ..Batch::default() });
        }
        assert_eq!(seqs, [1]);
    }
}
