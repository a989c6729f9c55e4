//! The server's readings of itself.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::Shared;
use crate::health::{BacklogStatus, ConnectionStatus, DatabaseStatus, Machine, MemoryStatus, Status, UserStatus};
use crate::limits;
use crate::storage::{Storage, StorageError};

/// How long a lock that is held for microseconds may take before the server counts as stuck.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

impl Shared {
    /// Everything but what waits on disk. Waits for no disk.
    pub(super) fn vital_status(&self) -> Status {
        let delivery = &self.delivery;
        let (open, strangers, limit) = self.admission.count();
        let now = delivery.now();
        let (last_save_at, last_save_us) = delivery.saves.last();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            address: self.address.to_string(),
            started_at: self.started_at,
            read_at: now.unix_ms,
            uptime_s: now.mono_ms / 1000,
            users: UserStatus {
                present: delivery.counters.present.now(),
                peak: self.reporter.peak(&delivery.counters),
            },
            connections: ConnectionStatus {
                open,
                strangers,
                limit,
                writers: self.writers.running(),
                draining: self.is_draining(),
            },
            backlog: None,
            memory: MemoryStatus {
                used_bytes: delivery.memory.used_bytes(),
                limit_bytes: delivery.memory.limit_bytes(),
                waiting_senders: delivery.memory.starving(),
            },
            database: DatabaseStatus {
                used_bytes: delivery.storage.used_bytes(),
                limit_bytes: delivery.limits.data_bytes,
                last_save_at,
                last_save_us,
                failing_for_ms: delivery.saves.failing_for_ms(now.mono_ms),
            },
            machine: Machine::read(self.thread_limit),
            counts: delivery.counters.read(),
        }
    }

    /// Everything. Waits for the disk, at most for `limits::BACKLOG_PATIENCE`.
    pub(super) fn status(&self) -> Status {
        let delivery = self.delivery.clone();
        let (why_none, why) = mpsc::channel();
        let backlog = self.backlog.read(limits::BACKLOG_PATIENCE, move || {
            // Whoever asked may have gone.
            backlog(&delivery.storage).inspect_err(|error| _ = why_none.send(error.to_string())).ok()
        });
        if backlog.is_none() && !self.is_stopping() {
            let why = why.try_recv().unwrap_or_else(|_| "the disk does not answer".into());
            if let Some(count) = self.backlog.failed.note(self.delivery.now().mono_ms) {
                log::error!("status: what waits cannot be read: {why} ({count} times since the last such line)");
            }
        }
        Status { backlog, ..self.vital_status() }
    }

    /// Every lock that all connections share can be had: none of them is stuck. Waits for no disk and no socket.
    pub(super) fn responds(self: &Arc<Shared>) -> bool {
        self.delivery.registry.responds(LOCK_PATIENCE) && self.admission.responds(LOCK_PATIENCE)
    }
}

fn backlog(storage: &Storage) -> Result<BacklogStatus, StorageError> {
    let total = storage.total()?;
    Ok(BacklogStatus { messages: total.messages, bytes: total.bytes, oldest_at: storage.oldest_at()? })
}
