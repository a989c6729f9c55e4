//! The SQL of level-2 senders: which of their numbers were used, for what, and how far their messages are. It is committed together with
//! the messages, so that a message that is sent again after a crash is recognised. `schema_2.sql` says how the numbers are kept, 64 in a
//! row: a save writes one or two short rows for each sender, however many of its numbers are remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::messages::{Name, bad_row, clamped, unless_machine};
use super::set_aside::Refused;
use super::{Batch, StorageError};
use crate::protocol::UserName;

/// Numbers in a row of `sent`.
const BLOCK_IDS: u64 = 64;

/// Bytes of one number in a row: itself, the hash, the state.
const ENTRY_BYTES: usize = 17;
const STATE_AT: usize = 16;
const STORED: u8 = 1;
const DELIVERED: u8 = 2;

/// Numbers are below it.
const END_OF_IDS: u64 = 1 << 53;

const WRITE_BLOCK: &str = "INSERT INTO sent (sender, block, ids) VALUES (?1, ?2, ?3)
    ON CONFLICT (sender, block) DO UPDATE SET ids = excluded.ids";

const DELETE_BLOCK: &str = "DELETE FROM sent WHERE sender = ?1 AND block = ?2";

const WRITE_SENDER: &str =
    "INSERT INTO senders (sender, forgotten_upto, reserved_upto, used_at) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (sender) DO UPDATE SET
    forgotten_upto = excluded.forgotten_upto, reserved_upto = excluded.reserved_upto, used_at = excluded.used_at";

const DELETE_BELOW: &str = "DELETE FROM sent WHERE sender = ?1 AND block < ?2";

const READ_BLOCK: &str = "SELECT ids FROM sent WHERE sender = ?1 AND block = ?2";

const CHANGE_BLOCK: &str = "UPDATE sent SET ids = ?3 WHERE sender = ?1 AND block = ?2";

// One statement, so that all of it is from one moment.
const READ: &str = "SELECT forgotten_upto, reserved_upto, block, ids
    FROM senders LEFT JOIN sent ON sent.sender = senders.sender WHERE senders.sender = ?1 ORDER BY block";

const LOOK: &str = "SELECT sender, used_at < ?2 AND forgotten_upto < reserved_upto FROM senders
    WHERE sender > ?1 ORDER BY sender LIMIT ?3";

const FORGET: &str = "UPDATE senders SET forgotten_upto = reserved_upto WHERE sender = ?1";

const DELETE_ALL: &str = "DELETE FROM sent WHERE sender = ?1";

/// One message number of a level-2 sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentId {
    /// The number (`msg_id`), below 2⁵³.
    pub id: u64,
    /// Of the message's recipient, text and time.
    pub hash: u64,
    /// Its recipient has acknowledged it; if not, it is stored.
    pub is_delivered: bool,
}

/// The numbers `64 * block` to `64 * block + 63` of one sender, as far as they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentBlock {
    /// Which 64.
    pub block: u64,
    /// Ascending; all of the block, for they replace what is on disk. Empty: nothing of it is kept.
    pub ids: Vec<SentId>,
}

/// What a save changes of what is remembered of one level-2 sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderUpdate {
    /// `UserName::key` of the sender.
    pub sender: Arc<str>,
    /// Numbers up to it are too old to be recognised: blocks that lie wholly at or below it are deleted.
    pub forgotten_upto: u64,
    /// No number above it was ever seen, nor will be before a later batch raises it.
    pub reserved_upto: u64,
    /// Unix milliseconds.
    pub used_at: i64,
    /// Those that changed.
    pub blocks: Vec<SentBlock>,
}

/// What is remembered of one level-2 sender. The default: it never sent with a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderState {
    /// Numbers up to it are too old to be recognised.
    pub forgotten_upto: u64,
    /// No number above it was ever seen.
    pub reserved_upto: u64,
    /// Those above `forgotten_upto` that were seen, ascending.
    pub ids: Vec<SentId>,
}

/// The batch's senders without the numbers of rows that the database refused: a number whose message is not on disk must not be there either.
pub(super) fn without(batch: &Batch, refused: &[Refused]) -> Vec<SenderUpdate> {
    let mut senders = batch.senders.clone();
    for row in refused.iter().map(|refused| &batch.inserts[refused.index].row) {
        let (Some(msg_id), Ok(sender)) = (row.msg_id, UserName::parse(&row.sender)) else { continue };
        for update in senders.iter_mut().filter(|update| update.sender == *sender.key()) {
            update.blocks.iter_mut().for_each(|block| block.ids.retain(|sent| sent.id != msg_id));
        }
    }
    senders
}

/// Writes what changed, and returns the indices of those who could not be written: a fault of ours, or of somebody who changed the schema.
/// Of such a sender some rows may be written and others not; all of it may be given again.
pub(super) fn update(transaction: &Transaction, updates: &[SenderUpdate]) -> Result<Vec<usize>, StorageError> {
    let mut failed = Vec::new();
    for (index, update) in updates.iter().enumerate() {
        if let Err(error) = unless_machine(transaction, update_one(transaction, update))? {
            log::error!("the message numbers of {:?} could not be stored: {error}", update.sender);
            failed.push(index);
        }
    }
    Ok(failed)
}

// The numbers first: whatever fails, what is recognised is not less than the row in `senders` says.
fn update_one(transaction: &Transaction, update: &SenderUpdate) -> rusqlite::Result<()> {
    let sender = &*update.sender;
    for block in &update.blocks {
        if block.ids.is_empty() {
            transaction.prepare_cached(DELETE_BLOCK)?.execute(params![sender, clamped(block.block)])?;
        } else {
            let mut ids =
                encode(block).ok_or_else(|| bad_row("its numbers are not ascending, or not of their block"))?;
            if let Some(known) = read_block(transaction, sender, block.block)? {
                keep_delivered(&mut ids, &known);
            }
            transaction.prepare_cached(WRITE_BLOCK)?.execute(params![sender, clamped(block.block), ids])?;
        }
    }
    if update.forgotten_upto >= END_OF_IDS || update.reserved_upto >= END_OF_IDS {
        return Err(bad_row("a number is too large"));
    }
    let (forgotten, reserved) = (clamped(update.forgotten_upto), clamped(update.reserved_upto));
    transaction.prepare_cached(WRITE_SENDER)?.execute(params![sender, forgotten, reserved, update.used_at])?;
    let first_kept = (update.forgotten_upto + 1) / BLOCK_IDS;
    if first_kept > 0 {
        transaction.prepare_cached(DELETE_BELOW)?.execute(params![sender, clamped(first_kept)])?;
    }
    Ok(())
}

/// Notes on disk that these messages (sender's name as written, number) are delivered, whether their sender is here or not. Numbers that
/// are not remembered are passed over.
pub(super) fn mark_delivered(transaction: &Transaction, delivered: &[(String, u64)]) -> Result<(), StorageError> {
    let mut keys: HashMap<&str, Option<Arc<str>>> = HashMap::new();
    // (sender, block) → one bit for each of its numbers.
    let mut blocks: BTreeMap<(Arc<str>, u64), u64> = BTreeMap::new();
    for (sender, id) in delivered {
        let key = keys.entry(sender).or_insert_with(|| UserName::parse(sender).ok().map(|name| name.key().clone()));
        if let Some(key) = key {
            *blocks.entry((key.clone(), id / BLOCK_IDS)).or_default() |= 1 << (id % BLOCK_IDS);
        }
    }
    for ((sender, block), bits) in blocks {
        if let Err(error) = unless_machine(transaction, mark_block(transaction, &sender, block, bits))? {
            log::error!("the delivery of messages of {sender:?} could not be noted: {error}");
        }
    }
    Ok(())
}

fn mark_block(transaction: &Transaction, sender: &str, block: u64, bits: u64) -> rusqlite::Result<()> {
    let Some(mut ids) = read_block(transaction, sender, block)? else { return Ok(()) };
    // What could not be read is gone with this: it is told once.
    let mut is_changed = ids.is_damaged;
    for entry in ids.bytes.chunks_exact_mut(ENTRY_BYTES) {
        if bits >> (number(entry) % BLOCK_IDS) & 1 == 1 && entry[STATE_AT] != DELIVERED {
            entry[STATE_AT] = DELIVERED;
            is_changed = true;
        }
    }
    if is_changed {
        transaction.prepare_cached(CHANGE_BLOCK)?.execute(params![sender, clamped(block), ids.bytes])?;
    }
    Ok(())
}

/// A row of `sent`, as far as it can be read.
struct Known {
    bytes: Vec<u8>,
    is_damaged: bool,
}

fn read_block(transaction: &Transaction, sender: &str, block: u64) -> rusqlite::Result<Option<Known>> {
    let mut statement = transaction.prepare_cached(READ_BLOCK)?;
    let found = statement.query_row(params![sender, clamped(block)], |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(found.map(|mut bytes| {
        let readable = readable(sender, block, &bytes);
        let is_damaged = readable < bytes.len();
        bytes.truncate(readable);
        Known { bytes, is_damaged }
    }))
}

/// A state only goes up: whoever gives these numbers may not know yet of a delivery that is noted on disk.
fn keep_delivered(ids: &mut [u8], known: &Known) {
    let mut known = known.bytes.chunks_exact(ENTRY_BYTES).peekable();
    for entry in ids.chunks_exact_mut(ENTRY_BYTES) {
        // Big-endian: they compare as their bytes do.
        while known.next_if(|known| known[..STATE_AT] < entry[..STATE_AT]).is_some() {}
        if let Some(known) = known.next_if(|known| known[..STATE_AT] == entry[..STATE_AT]) {
            entry[STATE_AT] = entry[STATE_AT].max(known[STATE_AT]);
        }
    }
}

/// See `Storage::sender`.
pub(super) fn read(connection: &Connection, sender: &str) -> rusqlite::Result<SenderState> {
    let mut statement = connection.prepare_cached(READ)?;
    let mut rows = statement.query([sender])?;
    let mut state = SenderState::default();
    // What somebody wrote by hand must not keep a sender out.
    let number = |row: &rusqlite::Row, column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.max(0) as u64);
    while let Some(row) = rows.next()? {
        (state.forgotten_upto, state.reserved_upto) = (number(row, 0)?, number(row, 1)?);
        if row.get_ref(2)? != rusqlite::types::ValueRef::Null {
            let (block, ids) = (number(row, 2)?, row.get_ref(3)?.as_blob()?);
            let ids = &ids[..readable(sender, block, ids)];
            let is_kept = |sent: &SentId| sent.id > state.forgotten_upto;
            state.ids.extend(ids.chunks_exact(ENTRY_BYTES).map(decode).filter(is_kept));
        }
    }
    state.reserved_upto = state.reserved_upto.max(state.ids.last().map_or(0, |sent| sent.id));
    Ok(state)
}

/// Forgets the numbers of senders that used none since `before` (Unix ms): looks at the next `max_rows` senders after `after`, by key,
/// and deletes about `max_rows` rows at most. Returns after whom to go on; the empty key, from the first again.
///
/// No index by time: each save would pay for it, for every sender, and to look at a thousand senders costs less than to save ten.
pub(super) fn expire(
    transaction: &Transaction,
    after: &Name,
    before: i64,
    max_rows: usize,
) -> Result<Name, StorageError> {
    let mut statement = transaction.prepare_cached(LOOK)?;
    let senders =
        statement.query_map(params![after, before, clamped(max_rows as u64)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let senders: Vec<(Name, bool)> = senders.collect::<rusqlite::Result<_>>()?;
    let mut deleted = 0;
    for (sender, is_old) in &senders {
        if *is_old {
            match unless_machine(transaction, forget(transaction, sender))? {
                Ok(rows) => deleted += rows,
                Err(error) => log::error!("the message numbers of {sender:?} could not be forgotten: {error}"),
            }
            if deleted >= max_rows {
                return Ok(sender.clone());
            }
        }
    }
    let is_end = senders.len() < max_rows;
    Ok(senders.into_iter().next_back().filter(|_| !is_end).map_or_else(Name::default, |(sender, _)| sender))
}

fn forget(transaction: &Transaction, sender: &Name) -> rusqlite::Result<usize> {
    transaction.prepare_cached(FORGET)?.execute([sender])?;
    transaction.prepare_cached(DELETE_ALL)?.execute([sender])
}

/// The row of a block; `None`: it would not be readable.
fn encode(block: &SentBlock) -> Option<Vec<u8>> {
    let mut ids = Vec::with_capacity(block.ids.len() * ENTRY_BYTES);
    for sent in &block.ids {
        ids.extend(sent.id.to_be_bytes());
        ids.extend(sent.hash.to_be_bytes());
        ids.push(if sent.is_delivered { DELIVERED } else { STORED });
    }
    (readable_bytes(block.block, &ids) == ids.len()).then_some(ids)
}

/// The bytes of a row that can be read, from its beginning. The rest, if any, is told to the operator; it must stop nobody.
fn readable(sender: &str, block: u64, ids: &[u8]) -> usize {
    let readable = readable_bytes(block, ids);
    if readable < ids.len() {
        log::error!(
            "the message numbers {} to {} of {sender:?} are damaged on disk: {readable} of {} bytes can be read, the rest is ignored",
            block.saturating_mul(BLOCK_IDS),
            block.saturating_mul(BLOCK_IDS).saturating_add(BLOCK_IDS - 1),
            ids.len()
        );
    }
    readable
}

fn readable_bytes(block: u64, ids: &[u8]) -> usize {
    let mut last = None;
    let is_good = |entry: &&[u8]| {
        let id = number(entry);
        let is_next = last < Some(id) && id / BLOCK_IDS == block && id < END_OF_IDS;
        last = Some(id);
        is_next && matches!(entry[STATE_AT], STORED | DELIVERED)
    };
    ids.chunks_exact(ENTRY_BYTES).take_while(is_good).count() * ENTRY_BYTES
}

fn decode(entry: &[u8]) -> SentId {
    SentId { id: number(entry), hash: big_endian(&entry[8..16]), is_delivered: entry[STATE_AT] == DELIVERED }
}

fn number(entry: &[u8]) -> u64 {
    big_endian(&entry[..8])
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
