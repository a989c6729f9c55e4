//! The table of settings: the one place that knows each one's name, kind, default, range, meaning, and what happens when it is reached.
//!
//! Defaults, parsing, environment variables, `config check`, `data/chatserver.toml` and the README's table are all made from it (`values.rs` reads the values, `sample.rs` writes the documents). To add a setting: a field
//! in `Config`, an entry here, and `chatserver config sample > data/chatserver.toml`; a test names whichever was forgotten.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::raw::Raw;
use super::values::{self, Zero};
use super::{Config, Key, Password, Tls, units};
use crate::language::Language;

/// Access to a field of type `T`.
type Field<T> = fn(&mut Config) -> &mut T;

/// A number's field, of whichever width.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Usize(Field<usize>),
    U64(Field<u64>),
}

/// What kind of value a setting takes, and where in `Config` it goes.
#[derive(Clone)]
pub(super) enum Kind {
    Address(Field<SocketAddr>),
    /// Empty = not set.
    OptionalAddress(Field<Option<SocketAddr>>),
    Directory(Field<PathBuf>),
    Key,
    KeyFile,
    Flag(Field<bool>),
    /// At least 1 ms, unless zero has a meaning; at most 100 years, so that no deadline overflows.
    Duration(Field<Duration>, Zero),
    Bytes(Number, RangeInclusive<u64>),
    Count(Number, RangeInclusive<u64>),
    Addresses(Field<Vec<IpAddr>>),
    Level(Field<LevelFilter>),
    Language(Field<Language>),
    /// Any text without control characters; empty = not set.
    Text(Field<Option<String>>),
    Host(Field<String>),
    Port(Field<u16>),
    Tls(Field<Tls>),
    MailAddress(Field<Option<String>>),
    MailAddresses(Field<Vec<String>>),
    File(Field<Option<PathBuf>>),
    Password(Field<Option<Password>>),
    PasswordFile(Field<Option<Password>>),
}

/// One setting.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// As in the file, right of the `=`; `None` = not set.
    pub(super) default: Option<&'static str>,
    /// For the operator: what it is.
    pub(super) meaning: &'static str,
    /// For the operator: what happens when it is reached, or what to mind. May be empty.
    pub(super) reached: &'static str,
    /// When a new value takes effect.
    pub(super) reload: Reload,
}

/// When a new value takes effect in a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reload {
    /// At SIGHUP; what concerns connections, for those that begin after it.
    Now,
    /// At the next start.
    Restart,
}

const MEBIBYTE: u64 = 1 << 20;
const TEBIBYTE: u64 = 1 << 40;
const MANY: u64 = 1_000_000_000_000;

/// The order is the order of the file.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        kind: Kind::Address(|c| &mut c.listen),
        default: Some("\"127.0.0.1:8989\""),
        meaning: "Address and port to listen on. Port 0 takes any free one; the address is printed. \"[::]:8989\" or \"0.0.0.0:8989\" listens on all addresses of the machine.",
        reached: "With the published key only loopback addresses are accepted, unless allow_published_key is set.",
        reload: Reload::Restart,
    },
    Setting {
        name: "data",
        kind: Kind::Directory(|c| &mut c.data),
        default: Some("\"./data\""),
        meaning: "Directory of the database, the log and the lock. A relative one starts where the server was started.",
        reached: "Only in a file that was named with --config: a file found in the directory cannot move it. One server per directory: a second one refuses to start.",
        reload: Reload::Restart,
    },
    Setting {
        name: "key",
        kind: Kind::Key,
        default: Some("\"12345abcdef67890\""),
        meaning: "The pre-shared key, the same in every client: text of 16, 24 or 32 bytes, or \"hex:\" and 32, 48 or 64 hexadecimal digits. The default is published and in every existing client: it hides nothing from anybody.",
        reached: "A client with another key is disconnected at its first packet. Whoever can read this file has the key: chmod 600, or use key_file.",
        reload: Reload::Restart,
    },
    Setting {
        name: "key_file",
        kind: Kind::KeyFile,
        default: None,
        meaning: "A file that holds the key, written as in \"key\", on one line. Instead of \"key\", not beside it.",
        reached: "Only its owner may read it (mode 0600; if it belongs to root, its group too): otherwise it is refused.",
        reload: Reload::Restart,
    },
    Setting {
        name: "allow_published_key",
        kind: Kind::Flag(|c| &mut c.allow_published_key),
        default: Some("false"),
        meaning: "Listen on other than loopback addresses although the key is the published one.",
        reached: "Anybody who can reach the port can then read every text and be any user.",
        reload: Reload::Restart,
    },
    Setting {
        name: "login_timeout",
        kind: Kind::Duration(|c| &mut c.login_timeout, Zero::Refused),
        default: Some("\"30 s\""),
        meaning: "How long a connection may take from its beginning to its complete login.",
        reached: "The connection is closed.",
        reload: Reload::Now,
    },
    Setting {
        name: "read_timeout",
        kind: Kind::Duration(|c| &mut c.read_timeout, Zero::Refused),
        default: Some("\"120 s\""),
        meaning: "How long a logged-in client may be silent. Any packet counts, also a ping.",
        reached: "The client counts as gone: its connection is closed, its messages wait.",
        reload: Reload::Now,
    },
    Setting {
        name: "packet_timeout",
        kind: Kind::Duration(|c| &mut c.packet_timeout, Zero::Refused),
        default: Some("\"30 s\""),
        meaning: "How long a packet may take from its first byte to its last.",
        reached: "The connection is closed.",
        reload: Reload::Now,
    },
    Setting {
        name: "write_stall_timeout",
        kind: Kind::Duration(|c| &mut c.write_stall_timeout, Zero::Refused),
        default: Some("\"60 s\""),
        meaning: "How long a client for whom something is ready may take none of it.",
        reached: "Its connection is closed; what it did not take waits for its next login.",
        reload: Reload::Now,
    },
    Setting {
        name: "shutdown_timeout",
        kind: Kind::Duration(|c| &mut c.shutdown_timeout, Zero::Refused),
        default: Some("\"5 s\""),
        meaning: "How long a stop may spend on delivering what is on its way, and on a disk that fails.",
        reached: "The rest is saved and delivered after the next start.",
        reload: Reload::Now,
    },
    Setting {
        name: "save_interval",
        kind: Kind::Duration(|c| &mut c.save_interval, Zero::Refused),
        default: Some("\"1 s\""),
        meaning: "How old an unacknowledged message may become before it goes to disk. A crash costs at most what is younger.",
        reached: "It is written to the database. Shorter means more writing, longer means less.",
        reload: Reload::Restart,
    },
    Setting {
        name: "receipt_interval",
        kind: Kind::Duration(|c| &mut c.receipt_interval, Zero::Refused),
        default: Some("\"20 ms\""),
        meaning: "How long a level-2 sender waits at most for the save that its receipt needs. Many senders share one save.",
        reached: "A message that is not delivered by then is written to the database. Shorter means quicker receipts and more writing.",
        reload: Reload::Restart,
    },
    Setting {
        name: "max_packet_bytes",
        kind: Kind::Bytes(Number::Usize(|c| &mut c.max_packet_bytes), 1..=16 * MEBIBYTE),
        default: Some("\"64 KiB\""),
        meaning: "Longest packet that is taken, header included. At least 2,400, since existing clients send packets of 2,152 bytes.",
        reached: "The connection that announced a longer one is closed.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_stranger_packet_bytes",
        kind: Kind::Bytes(Number::Usize(|c| &mut c.max_stranger_packet_bytes), 512..=16 * MEBIBYTE),
        default: Some("\"1 KiB\""),
        meaning: "Longest packet that is taken before the login, header included. Never more than max_packet_bytes. A login with the longest name has less than 200.",
        reached: "The connection that announced a longer one is closed.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_text_bytes",
        kind: Kind::Bytes(Number::Usize(|c| &mut c.max_text_bytes), 1..=16 * MEBIBYTE),
        default: Some("60000"),
        meaning: "Longest text of a message, in bytes of UTF-8 (a Chinese character has three).",
        reached: "The message is not taken.",
        reload: Reload::Now,
    },
    Setting {
        name: "outbox_bytes",
        kind: Kind::Bytes(Number::Usize(|c| &mut c.outbox_bytes), 1..=TEBIBYTE),
        default: Some("\"1 MiB\""),
        meaning: "Bytes ready to be sent to one client and not yet taken by its socket. At least twice max_packet_bytes.",
        reached: "Further messages to this client wait in memory, then on disk, and follow in order; no sender notices.",
        reload: Reload::Restart,
    },
    Setting {
        name: "memory_bytes",
        kind: Kind::Bytes(Number::Usize(|c| &mut c.memory_bytes), 1..=TEBIBYTE),
        default: Some("\"256 MiB\""),
        meaning: "Messages held in memory, all users together. At least 16 times max_packet_bytes.",
        reached: "Senders wait until the disk has caught up, at most for memory_wait_timeout. Nothing accepted is dropped.",
        reload: Reload::Restart,
    },
    Setting {
        name: "memory_wait_timeout",
        kind: Kind::Duration(|c| &mut c.memory_wait_timeout, Zero::Refused),
        default: Some("\"30 s\""),
        meaning: "How long a sender waits for memory.",
        reached: "The sender's connection is closed; its last message was not accepted.",
        reload: Reload::Now,
    },
    Setting {
        name: "backlog_messages",
        kind: Kind::Count(Number::U64(|c| &mut c.backlog_messages), 1..=MANY),
        default: Some("2_000_000"),
        meaning: "Messages that may wait for one user.",
        reached: "New messages to this user are refused; those that wait stay.",
        reload: Reload::Restart,
    },
    Setting {
        name: "backlog_bytes",
        kind: Kind::Bytes(Number::U64(|c| &mut c.backlog_bytes), 1..=TEBIBYTE),
        default: Some("\"1 GiB\""),
        meaning: "Bytes of text that may wait for one user. At least max_text_bytes.",
        reached: "New messages to this user are refused; those that wait stay.",
        reload: Reload::Restart,
    },
    Setting {
        name: "data_bytes",
        kind: Kind::Bytes(Number::U64(|c| &mut c.data_bytes), MEBIBYTE..=1024 * TEBIBYTE),
        default: Some("\"10 GiB\""),
        meaning: "Size of the database.",
        reached: "Messages to users who are not there, or do not take them at once, are refused until there is room again.",
        reload: Reload::Restart,
    },
    Setting {
        name: "expire_after",
        kind: Kind::Duration(|c| &mut c.expire_after, Zero::Legal),
        default: Some("\"7 days\""),
        meaning: "Age at which a waiting message is given up. \"0 s\" = never.",
        reached: "The message is deleted and counted; nobody is told.",
        reload: Reload::Restart,
    },
    Setting {
        name: "max_connections",
        kind: Kind::Count(Number::Usize(|c| &mut c.max_connections), 0..=1_000_000),
        default: Some("0"),
        meaning: "Connections at one time. 0 = computed at start from the limits of the machine; the log says which one binds.",
        reached: "Further connections are closed at once.",
        reload: Reload::Restart,
    },
    Setting {
        name: "max_per_address",
        kind: Kind::Count(Number::Usize(|c| &mut c.max_per_address), 1..=1_000_000),
        default: Some("256"),
        meaning: "Connections of one client address. Of IPv6, a network of 64 bits counts as one address.",
        reached: "Further connections from there are closed at once.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_strangers",
        kind: Kind::Count(Number::Usize(|c| &mut c.max_strangers), 1..=1_000_000),
        default: Some("1_024"),
        meaning: "Connections that have not logged in yet.",
        reached: "Further connections are closed at once, until some of these have logged in or left.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_strangers_per_address",
        kind: Kind::Count(Number::Usize(|c| &mut c.max_strangers_per_address), 1..=1_000_000),
        default: Some("64"),
        meaning: "The same, of one client address.",
        reached: "Further connections from there are closed at once.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_logins_per_address",
        kind: Kind::Count(Number::U64(|c| &mut c.max_logins_per_address), 1..=1_000_000),
        default: Some("600"),
        meaning: "Logins of one client address in a minute, refused ones included; as many at once, if there were none before.",
        reached: "The login is refused with a sentence, and the connection closed.",
        reload: Reload::Now,
    },
    Setting {
        name: "exempt_addresses",
        kind: Kind::Addresses(|c| &mut c.exempt_addresses),
        default: Some("[\"127.0.0.1\", \"::1\"]"),
        meaning: "Addresses to which the three limits per address do not apply.",
        reached: "The limits on all connections together still do.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_packets_per_second",
        kind: Kind::Count(Number::U64(|c| &mut c.max_packets_per_second), 1..=MANY),
        default: Some("500_000"),
        meaning: "Packets of one connection in a second; as many at once.",
        reached: "It is read more slowly, so that its client has to wait. Nothing is lost, nobody else notices.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_bytes_per_second",
        kind: Kind::Bytes(Number::U64(|c| &mut c.max_bytes_per_second), 1024..=TEBIBYTE),
        default: Some("\"256 MiB\""),
        meaning: "Bytes of packets of one connection in a second; as many at once. At least max_packet_bytes.",
        reached: "The same.",
        reload: Reload::Now,
    },
    Setting {
        name: "max_writers",
        kind: Kind::Count(Number::Usize(|c| &mut c.max_writers), 1..=65_536),
        default: Some("256"),
        meaning: "Threads that bring waiting messages from disk, or write to a full socket, at one time.",
        reached: "Further clients with waiting messages take their turn.",
        reload: Reload::Restart,
    },
    Setting {
        name: "log_level",
        kind: Kind::Level(|c| &mut c.log_level),
        default: Some("\"info\""),
        meaning: "What is logged: error, warn, info, debug or trace, each with those before it.",
        reached: "",
        reload: Reload::Now,
    },
    Setting {
        name: "language",
        kind: Kind::Language(|c| &mut c.language),
        default: Some("\"en\""),
        meaning: "Language of refusals and mails: en (English) or zh (Chinese). The log is English.",
        reached: "",
        reload: Reload::Now,
    },
    Setting {
        name: "metrics_listen",
        kind: Kind::OptionalAddress(|c| &mut c.metrics_listen),
        default: None,
        meaning: "Address and port for HTTP: /metrics has everything that `chatserver ctl status` tells, as OpenMetrics text, /health says with 200 or 503 whether the server needs a hand. Only a loopback address, for whoever reaches it may read it. Port 0 takes any free one; the log tells the address. Not set = no HTTP.",
        reached: "",
        reload: Reload::Restart,
    },
    Setting {
        name: "report_interval",
        kind: Kind::Duration(|c| &mut c.report_interval, Zero::Legal),
        default: Some("\"12 h\""),
        meaning: "Time from one health report by mail to the next. \"0 s\" = none but those that are asked for with `chatserver report --send`.",
        reached: "A report goes to mail_to. Alerts do not wait for it.",
        reload: Reload::Now,
    },
    Setting {
        name: "mail_to",
        kind: Kind::MailAddresses(|c| &mut c.mail.to),
        default: Some("[]"),
        meaning: "Mail addresses of the operators, for health reports and alerts. None = no mail is sent.",
        reached: "`chatserver mail test` tries it.",
        reload: Reload::Now,
    },
    Setting {
        name: "mail_from",
        kind: Kind::MailAddress(|c| &mut c.mail.from),
        default: None,
        meaning: "Address that mails come from. Not set = chatserver@ and the name of this machine.",
        reached: "Most providers want the address of the account here.",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_host",
        kind: Kind::Host(|c| &mut c.mail.host),
        default: Some("\"localhost\""),
        meaning: "Name of the SMTP server that takes the mails.",
        reached: "With TLS its certificate must be for this name.",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_port",
        kind: Kind::Port(|c| &mut c.mail.port),
        default: Some("0"),
        meaning: "Its port. 0 = the usual one: 25 without TLS, 587 with starttls, 465 with tls.",
        reached: "",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_tls",
        kind: Kind::Tls(|c| &mut c.mail.tls),
        default: Some("\"starttls\""),
        meaning: "none, starttls or tls (from the first byte).",
        reached: "With starttls a server that does not offer it gets no mail and no password.",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_ca_file",
        kind: Kind::File(|c| &mut c.mail.ca_file),
        default: None,
        meaning: "A file of certificates (PEM) that are trusted beside the system's: for an SMTP server with a certificate of its own making.",
        reached: "",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_user",
        kind: Kind::Text(|c| &mut c.mail.user),
        default: None,
        meaning: "User to log in as at the SMTP server. Not set = no login.",
        reached: "",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_password",
        kind: Kind::Password(|c| &mut c.mail.password),
        default: None,
        meaning: "The user's password.",
        reached: "Whoever can read this file has the password: chmod 600, or use smtp_password_file.",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_password_file",
        kind: Kind::PasswordFile(|c| &mut c.mail.password),
        default: None,
        meaning: "A file with the password on its first line. Instead of \"smtp_password\", not beside it.",
        reached: "Only its owner may read it (mode 0600; if it belongs to root, its group too): otherwise it is refused.",
        reload: Reload::Now,
    },
    Setting {
        name: "smtp_timeout",
        kind: Kind::Duration(|c| &mut c.mail.timeout, Zero::Refused),
        default: Some("\"30 s\""),
        meaning: "How long one attempt to send a mail may take in all.",
        reached: "It is given up and tried again, three times in all; then the mail is kept in DIR/mail/.",
        reload: Reload::Now,
    },
];

/// The setting of this name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The name that is most like `name`, when one is alike.
pub(super) fn most_like(name: &str) -> Option<&'static str> {
    let (distance, like) = SETTINGS.iter().map(|setting| (distance(name, setting.name), setting.name)).min()?;
    (distance <= 1 + name.len() / 5).then_some(like)
}

/// What a server that runs with `old` makes of `new`: its next configuration, and the settings that wait for a restart.
pub(super) fn reloaded(old: &Config, new: &Config) -> (Config, Vec<&'static str>) {
    let (mut next, mut waiting) = (new.clone(), Vec::new());
    for setting in
        SETTINGS.iter().filter(|setting| setting.reload == Reload::Restart && setting.gives() == setting.name)
    {
        let before = next.clone();
        setting.copy(old, &mut next);
        if next != before {
            waiting.push(setting.name);
        }
    }
    (next, waiting)
}

/// A configuration of defaults.
pub(super) fn defaults() -> Config {
    let mut config = Config::blank();
    for (setting, default) in SETTINGS.iter().filter_map(|setting| Some((setting, setting.default?))) {
        let value = toml::de::DeValue::parse(default).expect("a default in the table is TOML");
        setting.take(&mut config, &Raw::from_toml(value.get_ref())).expect("a default in the table fits its setting");
    }
    config
}

impl Setting {
    /// The environment variable of this setting.
    pub(super) fn variable(&self) -> String {
        format!("CHATSERVER_{}", self.name.to_ascii_uppercase())
    }

    /// Whether its value must never be shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Key | Kind::Password(_))
    }

    /// What may stand right of its `=` where there is no default.
    pub(super) fn example(&self) -> &'static str {
        match self.kind {
            Kind::KeyFile | Kind::PasswordFile(_) | Kind::File(_) => "\"FILE\"",
            _ => "\"TEXT\"",
        }
    }

    /// The setting whose value this one gives: its own, or for a file with a secret, the secret's.
    pub(super) fn gives(&self) -> &'static str {
        match self.kind {
            Kind::KeyFile | Kind::PasswordFile(_) => self.name.strip_suffix("_file").unwrap_or(self.name),
            _ => self.name,
        }
    }

    /// Puts `raw` into its field.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead. Never shows a key.
    pub(super) fn take(&self, config: &mut Config, raw: &Raw) -> Result<(), String> {
        match &self.kind {
            Kind::Address(field) => *field(config) = values::address(raw)?,
            Kind::OptionalAddress(field) => *field(config) = values::optional_address(raw)?,
            Kind::Directory(field) => *field(config) = values::path(raw)?,
            Kind::Key => {
                config.key =
                    Key::parse(values::text(raw, "a text is wanted, in quotes")?).map_err(|fault| fault.to_string())?
            }
            Kind::KeyFile => config.key = Key::read(&values::path(raw)?).map_err(|fault| fault.to_string())?,
            Kind::Flag(field) => *field(config) = values::flag(raw)?,
            Kind::Duration(field, zero) => *field(config) = values::duration(raw, *zero)?,
            Kind::Bytes(number, range) => {
                number.put(config, values::within(values::bytes(raw)?, range, units::show_bytes)?)
            }
            Kind::Count(number, range) => {
                number.put(config, values::within(values::count(raw)?, range, |n| n.to_string())?)
            }
            Kind::Addresses(field) => *field(config) = values::addresses(raw)?,
            Kind::Level(field) => *field(config) = values::level(raw)?,
            Kind::Language(field) => {
                *field(config) = values::one_of(raw, "\"en\" or \"zh\"", Language::of_code)?;
            }
            Kind::Text(field) => *field(config) = values::line(raw)?,
            Kind::Host(field) => *field(config) = values::host(raw)?,
            Kind::Port(field) => {
                *field(config) = values::within(values::count(raw)?, &(0..=65_535), |n| n.to_string())? as u16;
            }
            Kind::Tls(field) => {
                *field(config) = values::one_of(raw, "\"none\", \"starttls\" or \"tls\"", Tls::of_code)?;
            }
            Kind::MailAddress(field) => *field(config) = values::mail_address(raw)?,
            Kind::MailAddresses(field) => *field(config) = values::mail_addresses(raw)?,
            Kind::File(field) => *field(config) = Some(values::path(raw)?),
            Kind::Password(field) => *field(config) = values::line(raw)?.as_deref().map(Password::new),
            Kind::PasswordFile(field) => *field(config) = Some(Password::read(&values::path(raw)?)?),
        }
        Ok(())
    }

    /// Its value in `config`, for people; a key is described, not shown.
    pub(super) fn show(&self, config: &Config) -> String {
        let config = &mut config.clone();
        match &self.kind {
            Kind::Address(field) => field(config).to_string(),
            Kind::OptionalAddress(field) => field(config).map(|address| address.to_string()).unwrap_or_default(),
            Kind::Directory(field) => field(config).display().to_string(),
            Kind::Key | Kind::KeyFile if config.key.is_published() => "(the published one)".to_owned(),
            Kind::Key | Kind::KeyFile => format!("({} bytes, not shown)", config.key.bytes().len()),
            Kind::Flag(field) => field(config).to_string(),
            Kind::Duration(field, _) => units::show_duration(*field(config)),
            Kind::Bytes(number, _) => units::show_bytes(number.of(config)),
            Kind::Count(number, _) => number.of(config).to_string(),
            Kind::Addresses(field) => field(config).iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
            Kind::Level(field) => field(config).to_string().to_ascii_lowercase(),
            Kind::Language(field) => field(config).code().to_owned(),
            Kind::Text(field) | Kind::MailAddress(field) => field(config).clone().unwrap_or_default(),
            Kind::Host(field) => field(config).clone(),
            Kind::Port(field) => field(config).to_string(),
            Kind::Tls(field) => field(config).code().to_owned(),
            Kind::MailAddresses(field) => field(config).join(", "),
            Kind::File(field) => field(config).as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            Kind::Password(field) | Kind::PasswordFile(field) => {
                if field(config).is_some() {
                    "(set, not shown)".to_owned()
                } else {
                    String::new()
                }
            }
        }
    }

    /// Gives `to` the value that `from` has.
    fn copy(&self, from: &Config, to: &mut Config) {
        let from = &mut from.clone();
        match &self.kind {
            Kind::Address(field) => *field(to) = *field(from),
            Kind::OptionalAddress(field) => *field(to) = *field(from),
            Kind::Directory(field) => *field(to) = field(from).clone(),
            Kind::Key | Kind::KeyFile => to.key = from.key.clone(),
            Kind::Flag(field) => *field(to) = *field(from),
            Kind::Duration(field, _) => *field(to) = *field(from),
            Kind::Bytes(number, _) | Kind::Count(number, _) => number.put(to, number.of(from)),
            Kind::Addresses(field) => *field(to) = field(from).clone(),
            Kind::Level(field) => *field(to) = *field(from),
            Kind::Language(field) => *field(to) = *field(from),
            Kind::Text(field) | Kind::MailAddress(field) => *field(to) = field(from).clone(),
            Kind::Host(field) => *field(to) = field(from).clone(),
            Kind::Port(field) => *field(to) = *field(from),
            Kind::Tls(field) => *field(to) = *field(from),
            Kind::MailAddresses(field) => *field(to) = field(from).clone(),
            Kind::File(field) => *field(to) = field(from).clone(),
            Kind::Password(field) | Kind::PasswordFile(field) => *field(to) = field(from).clone(),
        }
    }

    /// In what it is written.
    pub(super) fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Address(_) | Kind::OptionalAddress(_) => "address:port",
            Kind::Directory(_) => "directory",
            Kind::Key | Kind::Text(_) | Kind::Password(_) => "text",
            Kind::KeyFile | Kind::File(_) | Kind::PasswordFile(_) => "file",
            Kind::Flag(_) => "true or false",
            Kind::Duration(..) => "duration",
            Kind::Bytes(..) => "bytes",
            Kind::Count(..) => "number",
            Kind::Addresses(_) => "list of addresses",
            Kind::Level(_) => "level",
            Kind::Language(_) => "en or zh",
            Kind::Host(_) => "host name",
            Kind::Port(_) => "number",
            Kind::Tls(_) => "none, starttls or tls",
            Kind::MailAddress(_) => "mail address",
            Kind::MailAddresses(_) => "list of mail addresses",
        }
    }
}

impl Number {
    fn put(self, config: &mut Config, value: u64) {
        match self {
            // On a machine of 32 bits a size above 4 GiB means "all there is".
            Number::Usize(field) => *field(config) = usize::try_from(value).unwrap_or(usize::MAX),
            Number::U64(field) => *field(config) = value,
        }
    }

    fn of(self, config: &mut Config) -> u64 {
        match self {
            Number::Usize(field) => *field(config) as u64,
            Number::U64(field) => *field(config),
        }
    }
}

/// How many letters must be changed, added or left out to come from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
