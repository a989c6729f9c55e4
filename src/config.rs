//! stub
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A pre-shared key. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// The bytes: 16, 24 or 32.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Everything an operator may change.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 = any free one.
    pub listen: SocketAddr,
    /// Directory of all run-time files.
    pub data: PathBuf,
    /// The pre-shared key.
    pub key: Key,
    /// Listen beyond loopback although the key is the published one.
    pub allow_published_key: bool,
    /// From accept to a complete login.
    pub login_timeout: Duration,
    /// Silence after which a session ends.
    pub read_timeout: Duration,
    /// From the first byte of a packet to its last.
    pub packet_timeout: Duration,
    /// A socket that takes nothing for so long is given up.
    pub write_stall_timeout: Duration,
    /// Bound on a stop.
    pub shutdown_timeout: Duration,
    /// Age at which an unacknowledged message goes to disk.
    pub save_interval: Duration,
    /// Longest packet taken.
    pub max_packet_bytes: usize,
    /// Longest text taken, in bytes of UTF-8.
    pub max_text_bytes: usize,
    /// Unsent bytes for one recipient.
    pub outbox_bytes: usize,
    /// Messages held in memory, all users.
    pub memory_bytes: usize,
    /// How long a sender waits for memory.
    pub memory_wait_timeout: Duration,
    /// Waiting messages per user.
    pub backlog_messages: u64,
    /// Bytes of waiting texts per user.
    pub backlog_bytes: u64,
    /// Size of the database.
    pub data_bytes: u64,
    /// Age at which a waiting message is given up; zero = never.
    pub expire_after: Duration,
    /// 0 = computed from the machine's limits.
    pub max_connections: usize,
    /// Connections of one address.
    pub max_per_address: usize,
    /// Connections not logged in yet.
    pub max_strangers: usize,
    /// The same, of one address.
    pub max_strangers_per_address: usize,
    /// Addresses without per-address limits.
    pub exempt_addresses: Vec<IpAddr>,
    /// Threads that bring a backlog to a session or wait for a slow reader.
    pub max_writers: usize,
    /// error, warn, info, debug or trace.
    pub log_level: log::LevelFilter,
}

impl Default for Config {
    fn default() -> Config {
        todo!()
    }
}
