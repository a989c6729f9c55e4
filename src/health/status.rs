//! One reading of everything that a report tells.

use serde::Serialize;

use super::{Counts, Machine};

/// The whole of it, as `ctl status` shows it. Times are Unix milliseconds.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Of the program.
    pub version: &'static str,
    /// The process.
    pub pid: u32,
    /// Where it listens.
    pub address: String,
    /// When the server started.
    pub started_at: i64,
    /// When this was read.
    pub read_at: i64,
    /// How long the server has run, in seconds.
    pub uptime_s: u64,
    /// Who is there.
    pub users: UserStatus,
    /// Open connections.
    pub connections: ConnectionStatus,
    /// What waits on disk; `None`: the database did not answer.
    pub backlog: Option<BacklogStatus>,
    /// Messages in memory.
    pub memory: MemoryStatus,
    /// The database and its saves.
    pub database: DatabaseStatus,
    /// The process and its limits.
    pub machine: Machine,
    /// Everything counted since the start.
    pub counts: Counts,
}

/// Who is there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UserStatus {
    /// Logged in now.
    pub present: u64,
    /// The most at one time since the last report that was mailed, or since the start.
    pub peak: u64,
}

/// Open connections.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// All of them.
    pub open: usize,
    /// Those that have not logged in.
    pub strangers: usize,
    /// As many as may be open.
    pub limit: usize,
    /// Threads that bring a backlog or wait for a full socket.
    pub writers: usize,
    /// None is accepted any more: those who are there may finish.
    pub draining: bool,
}

/// What waits on disk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BacklogStatus {
    /// Messages.
    pub messages: u64,
    /// Bytes of their texts.
    pub bytes: u64,
    /// When the oldest of them was accepted.
    pub oldest_at: Option<i64>,
}

/// Messages in memory.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryStatus {
    /// What they are charged.
    pub used_bytes: usize,
    /// `memory_bytes`.
    pub limit_bytes: usize,
    /// Senders that wait for memory; not those who wait for the receipts of their own messages.
    pub waiting_senders: usize,
}

/// The database and its saves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DatabaseStatus {
    /// Bytes in use.
    pub used_bytes: u64,
    /// `data_bytes`.
    pub limit_bytes: u64,
    /// When the last save ended, 0 = there was none.
    pub last_save_at: i64,
    /// How long it took, in microseconds.
    pub last_save_us: u64,
    /// For how long no save has succeeded although one was tried, in milliseconds; 0 = all is well. A save that does not end counts.
    pub failing_for_ms: u64,
}
