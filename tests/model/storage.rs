//! `src/storage` for the model: a transaction is atomic and durable, or fails; one that fails may turn out to be durable after a crash.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

pub use chatserver::storage::{
    Backlog, Batch, Delete, Expired, Insert, Row, Saved, Seen, SenderState, SenderUpdate, SentBlock, SentId,
    StorageError,
};

use crate::protocol::UserName;
use crate::sync::one_in;

/// What is committed.
#[derive(Clone, Default)]
pub struct Content {
    pub rows: BTreeMap<(String, u64), Row>,
    senders: HashMap<String, Sender>,
    floor: u64,
}

#[derive(Clone, Default)]
struct Sender {
    forgotten_upto: u64,
    reserved_upto: u64,
    /// Hash, and whether it is delivered.
    ids: BTreeMap<u64, (u64, bool)>,
}

/// What survives a crash. Its own lock is no point of the schedule.
#[derive(Default)]
pub struct Disk {
    content: Mutex<Content>,
    /// What a transaction that failed has left in the log, for a crash to bring to light.
    limbo: Mutex<Option<Content>>,
}

impl Disk {
    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().expect("no panic under it")
    }

    fn limbo(&self) -> MutexGuard<'_, Option<Content>> {
        self.limbo.lock().expect("no panic under it")
    }

    /// The next server recovers the log.
    pub fn recover(&self) {
        if let Some(limbo) = self.limbo().take()
            && one_in(2)
        {
            *self.content() = limbo;
        }
    }
}

/// One server's way to the disk.
pub struct Storage {
    disk: Arc<Disk>,
    /// One transaction in so many fails; 0 = none.
    pub failing: Arc<std::sync::atomic::AtomicU32>,
    /// The server was killed: nothing that it does reaches the disk.
    pub is_dead: Arc<AtomicBool>,
}

impl Storage {
    pub fn new(disk: Arc<Disk>, failing: u32) -> Storage {
        Storage { disk, failing: Arc::new(failing.into()), is_dead: Arc::default() }
    }

    /// For the unit tests in the real files, which are compiled here too, and run elsewhere.
    pub fn open(_dir: &std::path::Path) -> Result<Storage, StorageError> {
        Ok(Storage::new(Arc::default(), 0))
    }

    fn fails(&self) -> bool {
        let failing = self.failing.load(SeqCst);
        failing > 0 && one_in(failing)
    }

    /// A point of the schedule, at which the disk may fail.
    fn look<T>(&self, look: impl FnOnce(&Content) -> T) -> Result<T, StorageError> {
        shuttle::thread::yield_now();
        if self.fails() && one_in(2) {
            return Err(failure());
        }
        let found = look(&self.disk.content());
        shuttle::thread::yield_now();
        Ok(found)
    }

    pub fn seq_floor(&self) -> Result<u64, StorageError> {
        Ok(self.disk.content().floor)
    }

    pub fn backlog(&self, recipient: &str) -> Result<Backlog, StorageError> {
        self.look(|content| {
            let mut backlog = Backlog::default();
            for row in content.of(recipient) {
                backlog.messages += 1;
                backlog.bytes += row.text.len() as u64;
                backlog.last_seq = row.seq;
                if backlog.first_seq == 0 {
                    backlog.first_seq = row.seq;
                }
            }
            backlog
        })
    }

    pub fn sender(&self, key: &str) -> Result<SenderState, StorageError> {
        self.look(|content| {
            let Some(sender) = content.senders.get(key) else { return SenderState::default() };
            let kept = sender.ids.range(sender.forgotten_upto + 1..);
            let ids: Vec<SentId> = kept.map(|(&id, &(hash, is_delivered))| SentId { id, hash, is_delivered }).collect();
            let reserved_upto = sender.reserved_upto.max(ids.last().map_or(0, |sent| sent.id));
            SenderState { forgotten_upto: sender.forgotten_upto, reserved_upto, ids }
        })
    }

    pub fn begin_read(
        &self,
        recipient: &str,
        after: u64,
        upto: u64,
        max_rows: usize,
        _max_bytes: usize,
    ) -> Reading<(Vec<Row>, bool)> {
        Reading(self.look(|content| content.between(recipient, after, upto, max_rows)))
    }

    pub fn save(&self, batch: &Batch) -> Result<Saved, StorageError> {
        shuttle::thread::yield_now();
        if self.is_dead.load(SeqCst) {
            return Ok(Saved { deleted: vec![(0, 0); batch.deletes.len()], ..Saved::default() });
        }
        let mut content = self.disk.content().clone();
        let saved = content.apply(batch);
        if self.fails() {
            if one_in(2) {
                *self.disk.limbo() = Some(content);
            }
            return Err(failure());
        }
        *self.disk.content() = content;
        *self.disk.limbo() = None;
        shuttle::thread::yield_now();
        Ok(saved)
    }

    pub fn expire(&self, _before: i64, _max_rows: usize) -> Result<Vec<Expired>, StorageError> {
        Ok(Vec::new())
    }

    pub fn oldest_at(&self) -> Result<Option<i64>, StorageError> {
        Ok(None)
    }

    pub fn used_bytes(&self) -> u64 {
        0
    }

    pub fn close(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

fn failure() -> StorageError {
    StorageError::Thread(io::Error::other("the disk fails, says the model"))
}

impl Content {
    fn of<'a>(&'a self, recipient: &str) -> impl Iterator<Item = &'a Row> {
        let all = (recipient.to_owned(), 0)..=(recipient.to_owned(), u64::MAX);
        self.rows.range(all).map(|(_, row)| row)
    }

    fn between(&self, recipient: &str, after: u64, upto: u64, max_rows: usize) -> (Vec<Row>, bool) {
        let wanted = self.of(recipient).filter(|row| row.seq > after && row.seq <= upto);
        let mut rows: Vec<Row> = wanted.take(max_rows + 1).cloned().collect();
        let is_complete = rows.len() <= max_rows;
        rows.truncate(max_rows);
        (rows, is_complete)
    }

    /// As `src/storage` says: inserts, then senders, then deletes, then the floor.
    fn apply(&mut self, batch: &Batch) -> Saved {
        for insert in &batch.inserts {
            let place = (insert.recipient.to_string(), insert.row.seq);
            self.rows.entry(place).or_insert_with(|| insert.row.clone());
        }
        for update in &batch.senders {
            let sender = self.senders.entry(update.sender.to_string()).or_default();
            for block in &update.blocks {
                let of_block = |id: &u64| id / 64 == block.block;
                let known: BTreeMap<u64, (u64, bool)> =
                    sender.ids.iter().filter(|(id, _)| of_block(id)).map(|(id, sent)| (*id, *sent)).collect();
                sender.ids.retain(|id, _| !of_block(id));
                for sent in &block.ids {
                    let was_delivered = known.get(&sent.id).is_some_and(|known| *known == (sent.hash, true));
                    sender.ids.insert(sent.id, (sent.hash, sent.is_delivered || was_delivered));
                }
            }
            (sender.forgotten_upto, sender.reserved_upto) = (update.forgotten_upto, update.reserved_upto);
            let first_kept = (update.forgotten_upto + 1) / 64;
            sender.ids.retain(|id, _| id / 64 >= first_kept);
        }
        let mut saved = Saved::default();
        for delete in &batch.deletes {
            let rows: Vec<Row> = self.of(&delete.recipient).filter(|row| row.seq <= delete.seq).cloned().collect();
            saved.deleted.push((rows.len() as u64, rows.iter().map(|row| row.text.len() as u64).sum()));
            for row in rows {
                self.rows.remove(&(delete.recipient.to_string(), row.seq));
                if let Some(msg_id) = row.msg_id {
                    saved.delivered.push((row.sender, msg_id));
                }
            }
        }
        for (sender, msg_id) in &saved.delivered {
            let key = UserName::parse(sender).expect("it was accepted").key().clone();
            if let Some(sent) = self.senders.get_mut(&*key).and_then(|sender| sender.ids.get_mut(msg_id)) {
                sent.1 = true;
            }
        }
        self.floor = self.floor.max(batch.seq_floor.unwrap_or(0));
        saved
    }
}

/// Read at once, and looked at later: what is deleted in between is in it.
pub struct Reading<T>(Result<T, StorageError>);

impl<T> Reading<T> {
    pub fn wait(self) -> Result<T, StorageError> {
        self.0
    }
}
