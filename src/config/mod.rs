//! What an operator may change: every setting with its default, unit and check, and messages that say how to fix what is wrong.
//!
//! Four sources, each stronger than the one before: defaults, file, environment, flags. `settings.rs` is the one table from which defaults, parsing,
//! environment variables, `config check`, the sample file and the README's table come; read it first. `load.rs` puts the sources together, `units.rs`
//! reads "30 s" and "64 KiB", `written.rs` writes what is in force, `rules.rs` refuses combinations that cannot work.
//!
//! This room knows no socket and no database. It reads the configuration file and the files with secrets (`secret.rs`), and nothing else.

mod error;
mod key;
mod load;
mod mail;
mod raw;
mod rules;
mod sample;
mod secret;
mod settings;
mod units;
mod values;
mod written;

pub use error::{ConfigError, Problem};
pub use key::{Key, KeyFault};
pub use load::{Origin, Resolved, Sources};
pub use mail::{MailConfig, Password, Tls};
pub use sample::{markdown, sample};
pub use secret::{SecretFault, read_secret};
pub use units::{parse_bytes, parse_duration};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::language::Language;

/// The directory of all run-time files, unless another is named.
pub const DEFAULT_DATA: &str = "./data";

/// The configuration's name inside that directory.
pub const FILE_NAME: &str = "chatserver.toml";

/// Everything an operator may change. What each setting means and what happens when a limit is reached is in `data/chatserver.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Age at which the receipt of a level-2 sender's message falls due.
    pub receipt_interval: Duration,
    /// Longest packet taken.
    pub max_packet_bytes: usize,
    /// Longest packet of one who has not logged in, header included, bytes.
    pub max_stranger_packet_bytes: usize,
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
    /// Logins of one address in a minute.
    pub max_logins_per_address: u64,
    /// Packets of one connection in a second.
    pub max_packets_per_second: u64,
    /// Bytes of one connection in a second.
    pub max_bytes_per_second: u64,
    /// Addresses without per-address limits.
    pub exempt_addresses: Vec<IpAddr>,
    /// Threads that bring a backlog at one time.
    pub max_writers: usize,
    /// error, warn, info, debug or trace.
    pub log_level: log::LevelFilter,
    /// Of refusals and mails.
    pub language: Language,
    /// Where /metrics and /health are, over HTTP; `None` = nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// From one report by mail to the next; zero = none but those that are asked for.
    pub report_interval: Duration,
    /// Whom reports and alerts go to, and how.
    pub mail: MailConfig,
}

impl Default for Config {
    /// The defaults of the table of settings.
    fn default() -> Config {
        settings::defaults()
    }
}

impl Config {
    /// The configuration that these sources give.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with its place and its remedy; the caller shows it and does not start.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        Resolved::from_sources(sources).map(|resolved| resolved.config)
    }

    /// Refuses a combination of settings that cannot work. `load` has done it; a program that fills in a `Config` of its own calls it.
    ///
    /// # Errors
    /// Every rule that is broken, with its remedy.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = rules::broken(self, &|_| Origin::Program);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// What a server that runs with this configuration makes of `new`: the configuration that it goes on with, and the names of the settings whose new
    /// values it takes over at its next start only.
    ///
    /// # Errors
    /// The two do not go together, for example since a limit that can change now needs one that cannot.
    pub fn reloaded(&self, new: &Config) -> Result<(Config, Vec<&'static str>), ConfigError> {
        let (next, waiting) = settings::reloaded(self, new);
        next.check()?;
        Ok((next, waiting))
    }

    /// A value of each field's type, to be filled from the table of settings.
    fn blank() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data: PathBuf::new(),
            key: Key::published(),
            allow_published_key: false,
            login_timeout: Duration::ZERO,
            read_timeout: Duration::ZERO,
            packet_timeout: Duration::ZERO,
            write_stall_timeout: Duration::ZERO,
            shutdown_timeout: Duration::ZERO,
            save_interval: Duration::ZERO,
            receipt_interval: Duration::ZERO,
            max_packet_bytes: 0,
            max_stranger_packet_bytes: 0,
            max_text_bytes: 0,
            outbox_bytes: 0,
            memory_bytes: 0,
            memory_wait_timeout: Duration::ZERO,
            backlog_messages: 0,
            backlog_bytes: 0,
            data_bytes: 0,
            expire_after: Duration::ZERO,
            max_connections: 0,
            max_per_address: 0,
            max_strangers: 0,
            max_strangers_per_address: 0,
            max_logins_per_address: 0,
            max_packets_per_second: 0,
            max_bytes_per_second: 0,
            exempt_addresses: Vec::new(),
            max_writers: 0,
            log_level: log::LevelFilter::Off,
            language: Language::English,
            metrics_listen: None,
            report_interval: Duration::ZERO,
            mail: MailConfig::default(),
        }
    }
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
