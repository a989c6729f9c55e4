//! Combinations of settings that cannot work, each with its remedy.

use super::load::Origin;
use super::units::show_bytes;
use super::{Config, Problem, Tls, settings};
use std::net::IpAddr;
use std::time::Duration;

/// What a chat packet may have beyond its text: header, padding, two names of 128 bytes, the text's and the times' tags and lengths, and room for the two
/// numbers that a later protocol level adds.
const BEYOND_TEXT_BYTES: usize = 8 + 16 + 2 * (1 + 2 + 128) + (1 + 5) + (1 + 10) + 2 * (1 + 10);

/// The watch looks as often as this, at most.
const LEAST_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Existing clients send packets of 2,152 bytes.
const LEAST_PACKET_BYTES: usize = 2400;

/// Memory for messages, in packets: fewer, and a handful of senders would wait for the disk at every message.
const LEAST_MEMORY_PACKETS: usize = 16;

/// The rules that `config` breaks; `origin` says where a setting's value came from.
pub(super) fn broken(config: &Config, origin: &dyn Fn(&str) -> Origin) -> Vec<Problem> {
    let rules = Rules { config, origin };
    [
        rules.packet(),
        rules.text(),
        rules.outbox(),
        rules.memory(),
        rules.backlog(),
        rules.pace(),
        rules.published_key(),
        rules.password(),
        rules.metrics(),
        rules.report(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

struct Rules<'c> {
    config: &'c Config,
    origin: &'c dyn Fn(&str) -> Origin,
}

impl Rules<'_> {
    fn packet(&self) -> Option<Problem> {
        (self.config.max_packet_bytes < LEAST_PACKET_BYTES).then(|| {
            let message = format!("existing clients send packets of 2,152 bytes; write at least {LEAST_PACKET_BYTES}");
            Problem::new(self.place("max_packet_bytes"), message)
        })
    }

    fn text(&self) -> Option<Problem> {
        let Config { max_packet_bytes, max_text_bytes, .. } = *self.config;
        let needed = max_text_bytes.saturating_add(BEYOND_TEXT_BYTES);
        (max_packet_bytes < needed).then(|| {
            let why = format!("a packet with such a text may have {needed} bytes");
            let fits = max_packet_bytes.saturating_sub(BEYOND_TEXT_BYTES);
            let lower = if fits > 0 { format!(", or lower max_text_bytes to {fits}") } else { String::new() };
            self.conflict(
                "max_packet_bytes",
                "max_text_bytes",
                &why,
                &format!("raise max_packet_bytes to {needed}{lower}"),
            )
        })
    }

    fn outbox(&self) -> Option<Problem> {
        let Config { outbox_bytes, max_packet_bytes, .. } = *self.config;
        let needed = max_packet_bytes.saturating_mul(2);
        (outbox_bytes < needed).then(|| {
            let remedy = format!("raise outbox_bytes to {}, or lower max_packet_bytes", show_bytes(needed as u64));
            self.conflict(
                "outbox_bytes",
                "max_packet_bytes",
                "two of the longest packets must have room in it",
                &remedy,
            )
        })
    }

    fn memory(&self) -> Option<Problem> {
        let Config { memory_bytes, max_packet_bytes, .. } = *self.config;
        let needed = max_packet_bytes.saturating_mul(LEAST_MEMORY_PACKETS);
        (memory_bytes < needed).then(|| {
            let why = format!("{LEAST_MEMORY_PACKETS} of the longest packets must have room in it");
            let remedy = format!("raise memory_bytes to {}, or lower max_packet_bytes", show_bytes(needed as u64));
            self.conflict("memory_bytes", "max_packet_bytes", &why, &remedy)
        })
    }

    fn pace(&self) -> Option<Problem> {
        let Config { max_bytes_per_second, max_packet_bytes, .. } = *self.config;
        (max_bytes_per_second < max_packet_bytes as u64).then(|| {
            let needed = show_bytes(max_packet_bytes as u64);
            let remedy = format!("raise max_bytes_per_second to {needed} or more, or lower max_packet_bytes");
            let why = "after one packet nothing would be heard of a client for longer than a second";
            self.conflict("max_bytes_per_second", "max_packet_bytes", why, &remedy)
        })
    }

    fn backlog(&self) -> Option<Problem> {
        let Config { backlog_bytes, max_text_bytes, .. } = *self.config;
        (backlog_bytes < max_text_bytes as u64).then(|| {
            let remedy = format!("raise backlog_bytes to {max_text_bytes} or more, or lower max_text_bytes");
            self.conflict("backlog_bytes", "max_text_bytes", "the longest text could never wait for anybody", &remedy)
        })
    }

    fn published_key(&self) -> Option<Problem> {
        let Config { listen, key, allow_published_key, .. } = self.config;
        let open = key.is_published() && !allow_published_key && !listen.ip().to_canonical().is_loopback();
        open.then(|| {
            let message = "the key is the published one, which everybody knows, so only loopback addresses are accepted; \
                 give the server a key of its own (key or key_file), or say --allow-published-key if everybody may read and write everything";
            Problem::new(self.place("listen"), message)
        })
    }

    fn metrics(&self) -> Option<Problem> {
        let address = self.config.metrics_listen?;
        let message = match () {
            () if !cfg!(feature = "tools") => {
                "this program was built without the feature `tools`, and has no HTTP; build it with the feature, or leave metrics_listen out"
            }
            () if !address.ip().to_canonical().is_loopback() => {
                "whoever reaches this address may read the server's figures, so only loopback addresses are accepted; write \"127.0.0.1:9989\", and let a proxy with a password of its own carry it further"
            }
            () => return None,
        };
        Some(Problem::new(self.place("metrics_listen"), message))
    }

    fn report(&self) -> Option<Problem> {
        let interval = self.config.report_interval;
        (!interval.is_zero() && interval < LEAST_REPORT_INTERVAL).then(|| {
            let message = "that often nobody reads them; write at least \"1 s\", or \"0 s\" for none";
            Problem::new(self.place("report_interval"), message)
        })
    }

    fn password(&self) -> Option<Problem> {
        let mail = &self.config.mail;
        let stays_here = mail.host == "localhost" || mail.host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
        let (place, message) = match (&mail.user, &mail.password) {
            (Some(_), None) => ("smtp_user", "there is no password for it; add smtp_password or smtp_password_file"),
            (None, Some(_)) => ("smtp_password", "there is no user for it; add smtp_user"),
            (Some(_), Some(_)) if mail.tls == Tls::None && !stays_here => (
                "smtp_tls",
                "the password would cross the network in the clear; write \"starttls\" or \"tls\", or leave out smtp_user",
            ),
            _ => return None,
        };
        Some(Problem::new(self.place(place), message))
    }

    /// `a` and `b` exclude each other. The one that somebody wrote comes first: that is where to look.
    fn conflict(&self, a: &str, b: &str, why: &str, remedy: &str) -> Problem {
        let (first, second) = if (self.origin)(a) == Origin::Default { (b, a) } else { (a, b) };
        let other = format!("{second} = {} ({})", self.value(second), (self.origin)(second));
        Problem::new(self.place(first), format!("does not fit {other}: {why}; {remedy}"))
    }

    fn place(&self, name: &str) -> String {
        let is_secret = settings::find(name).is_some_and(settings::Setting::is_secret);
        let value = (!is_secret).then(|| self.value(name));
        (self.origin)(name).place(name, value.as_deref())
    }

    fn value(&self, name: &str) -> String {
        settings::find(name).map(|setting| setting.show(self.config)).unwrap_or_default()
    }
}
