//! The SQL of messages: what waits, in order. How much waits is kept by triggers (schema.sql), so that nothing here counts rows.
//! Each function is a few statements on the connection that it is given; the transaction around them is the caller's (mod.rs).

use std::collections::BTreeMap;
use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql, Transaction, params};

use super::error::Cause;
use super::set_aside::Refused;
use super::{Backlog, Delete, Expired, Insert, Row, StorageError};

// A batch whose commit was durable although an error was reported is given again: the rows that are there already are left alone.
const INSERT: &str = "INSERT INTO messages (recipient, seq, sender, text, client_time, accepted_at, msg_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (recipient, seq) DO NOTHING";

const SAME: &str = "SELECT (sender, text, client_time, accepted_at) = (?3, ?4, ?5, ?6) AND msg_id IS ?7
    FROM messages WHERE recipient = ?1 AND seq = ?2";

// What comes back is copied: no name where nobody asks for it.
const DELETE: &str = "DELETE FROM messages WHERE recipient = ?1 AND seq <= ?2
    RETURNING length(CAST(text AS BLOB)), msg_id, iif(msg_id IS NULL, NULL, sender)";

const EXPIRE: &str = "DELETE FROM messages WHERE rowid IN
    (SELECT rowid FROM messages WHERE accepted_at < ?1 ORDER BY accepted_at, rowid LIMIT ?2)
    RETURNING recipient, length(CAST(text AS BLOB))";

const READ: &str = "SELECT seq, sender, text, client_time, accepted_at, msg_id FROM messages
    WHERE recipient = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4";

// The rows say whether something waits, the counts how much: what somebody's hand did to the counts must not hide a row. Two queries for both ends:
// one would go through all that is between them.
const BACKLOG: &str = "SELECT ifnull((SELECT messages FROM backlog WHERE recipient = ?1), 0),
    ifnull((SELECT bytes FROM backlog WHERE recipient = ?1), 0),
    (SELECT ifnull(min(seq), 0) FROM messages WHERE recipient = ?1),
    (SELECT ifnull(max(seq), 0) FROM messages WHERE recipient = ?1)";

// No count is so high, unless it was written by hand: then the sum must not overflow, which is an error.
const TOTAL: &str = "SELECT ifnull(sum(max(0, min(messages, 1 << 40))), 0), ifnull(sum(max(0, min(bytes, 1 << 40))), 0), 0, 0 FROM backlog";

/// A number of ours as SQLite's. Above 2⁶³ − 1 there is nothing, and nothing can be put there.
pub(super) fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn bad_row(reason: &'static str) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(reason.into())
}

/// Tells the machine's errors, for which the whole batch is given up and tried again, from those of one item, which must not stop
/// the others. SQLite takes back what the failed statement did, its triggers included, and keeps the transaction.
pub(super) fn unless_machine<T>(
    transaction: &Transaction,
    result: rusqlite::Result<T>,
) -> Result<rusqlite::Result<T>, StorageError> {
    match result {
        Err(error) if Cause::of(&error).is_machine() || transaction.is_autocommit() => Err(error.into()),
        item => Ok(item),
    }
}

/// Inserts in order, and returns the rows that the database refused.
pub(super) fn insert(transaction: &Transaction, inserts: &[Insert]) -> Result<Vec<Refused>, StorageError> {
    let mut statement = transaction.prepare_cached(INSERT)?;
    let mut refused = Vec::new();
    for (index, insert) in inserts.iter().enumerate() {
        if let Err(error) = unless_machine(transaction, insert_one(transaction, &mut statement, insert))? {
            refused.push(Refused { index, error });
        }
    }
    // If nothing at all goes in, and not for what the rows contain, then it is the database that is bad.
    if refused.len() == inserts.len()
        && let Some(at) = refused.iter().position(|refused| Cause::of(&refused.error) != Cause::Row)
    {
        return Err(refused.swap_remove(at).error.into());
    }
    Ok(refused)
}

fn insert_one(transaction: &Transaction, statement: &mut CachedStatement, insert: &Insert) -> rusqlite::Result<()> {
    let row = &insert.row;
    let seq = i64::try_from(row.seq).map_err(|_| bad_row("its seq is too large"))?;
    let msg_id = row.msg_id.map(i64::try_from).transpose().map_err(|_| bad_row("its msg_id is too large"))?;
    let values = params![&*insert.recipient, seq, row.sender, row.text, row.client_time, row.accepted_at, msg_id];
    if statement.execute(values)? == 1 || transaction.prepare_cached(SAME)?.query_row(values, |row| row.get(0))? {
        return Ok(());
    }
    Err(bad_row("another message has its seq"))
}

/// What a batch's deletes removed.
#[derive(Default)]
pub(super) struct Deleted {
    /// For each of them, rows and text bytes.
    pub(super) counts: Vec<(u64, u64)>,
    /// Of the rows that had a number: the sender's name as written, and the number.
    pub(super) numbered: Vec<(String, u64)>,
}

/// Removes what is acknowledged.
pub(super) fn delete(transaction: &Transaction, deletes: &[Delete]) -> Result<Deleted, StorageError> {
    let mut statement = transaction.prepare_cached(DELETE)?;
    let mut deleted = Deleted::default();
    for delete in deletes {
        let numbered = deleted.numbered.len();
        let counted = unless_machine(transaction, delete_one(&mut statement, delete, &mut deleted.numbered))?;
        deleted.counts.push(counted.unwrap_or_else(|error| {
            log::error!(
                "messages to {:?} up to seq {} cannot be deleted and may be delivered again: {error}",
                delete.recipient,
                delete.seq
            );
            deleted.numbered.truncate(numbered);
            (0, 0)
        }));
    }
    Ok(deleted)
}

fn delete_one(
    statement: &mut CachedStatement,
    delete: &Delete,
    numbered: &mut Vec<(String, u64)>,
) -> rusqlite::Result<(u64, u64)> {
    let mut removed = (0, 0);
    let mut rows = statement.query(params![&*delete.recipient, clamped(delete.seq)])?;
    while let Some(row) = rows.next()? {
        removed.0 += 1;
        removed.1 += count(row, 0)?;
        if let Some(msg_id) = msg_id(row, 1)? {
            numbered.push((text(row, 2)?, msg_id));
        }
    }
    Ok(removed)
}

/// Removes the oldest rows accepted before `before`, at most `max_rows`; what went, by recipient.
pub(super) fn expire(transaction: &Transaction, before: i64, max_rows: usize) -> rusqlite::Result<Vec<Expired>> {
    let mut removed: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut statement = transaction.prepare_cached(EXPIRE)?;
    let mut rows = statement.query(params![before, clamped(max_rows as u64)])?;
    while let Some(row) = rows.next()? {
        let (messages, bytes) = removed.entry(text(row, 0)?).or_default();
        *messages += 1;
        *bytes += count(row, 1)?;
    }
    Ok(removed.into_iter().map(|(recipient, (messages, bytes))| Expired { recipient, messages, bytes }).collect())
}

/// See `Storage::read`.
pub(super) fn read(
    connection: &Connection,
    recipient: impl ToSql,
    after: u64,
    upto: u64,
    max_rows: usize,
    max_bytes: usize,
) -> rusqlite::Result<(Vec<Row>, bool)> {
    let max_rows = max_rows.max(1);
    let mut statement = connection.prepare_cached(READ)?;
    // One row more than wanted tells whether there are more.
    let mut found = statement.query(params![
        recipient,
        clamped(after),
        clamped(upto),
        clamped((max_rows as u64).saturating_add(1))
    ])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        bytes += row.get_ref(2)?.as_bytes()?.len();
        if rows.len() == max_rows || (bytes > max_bytes && !rows.is_empty()) {
            return Ok((rows, false));
        }
        rows.push(message(row)?);
    }
    Ok((rows, true))
}

fn message(row: &rusqlite::Row) -> rusqlite::Result<Row> {
    Ok(Row {
        seq: count(row, 0)?,
        sender: text(row, 1)?,
        text: text(row, 2)?,
        client_time: row.get(3)?,
        accepted_at: row.get(4)?,
        msg_id: msg_id(row, 5)?,
    })
}

/// What somebody wrote by hand that is no number of a message is none.
fn msg_id(row: &rusqlite::Row, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.and_then(|number| u64::try_from(number).ok()))
}

pub(super) fn backlog(connection: &Connection, recipient: impl ToSql) -> rusqlite::Result<Backlog> {
    let found = connection.prepare_cached(BACKLOG)?.query_row([recipient], counts)?;
    Ok(match found.first_seq {
        0 => Backlog::default(),
        _ => Backlog { messages: found.messages.max(1), ..found },
    })
}

pub(super) fn total(connection: &Connection) -> rusqlite::Result<Backlog> {
    connection.prepare_cached(TOTAL)?.query_row([], counts)
}

pub(super) fn oldest_at(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT min(accepted_at) FROM messages")?.query_row([], |row| row.get(0))
}

fn counts(row: &rusqlite::Row) -> rusqlite::Result<Backlog> {
    Ok(Backlog { messages: tally(row, 0)?, bytes: tally(row, 1)?, first_seq: count(row, 2)?, last_seq: count(row, 3)? })
}

/// A column of counts that triggers keep. One below 0 was written by hand, and must keep nobody out.
pub(super) fn tally(row: &rusqlite::Row, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.max(0) as u64)
}

/// A column that is never negative.
pub(super) fn count(row: &rusqlite::Row, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// A name as it stands in the database, where somebody's hand may have put other bytes than UTF-8: whoever goes on after it must not go on after
/// what was read in its place.
#[derive(Clone, Default)]
pub(super) struct Name(Vec<u8>);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl ToSql for Name {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

impl FromSql for Name {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Name> {
        match value {
            ValueRef::Text(bytes) => Ok(Name(bytes.to_owned())),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A text column. Ours are UTF-8; what somebody wrote by hand must not stop the backlog of its recipient.
pub(super) fn text(row: &rusqlite::Row, column: usize) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        // One look is quicker than the search for what is wrong.
        ValueRef::Text(bytes) => Ok(match str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(bytes).into_owned(),
        }),
        other => Err(rusqlite::Error::InvalidColumnType(column, "text".into(), other.data_type())),
    }
}
