//! What is in force as a configuration file: `chatserver config show`.

use super::settings::{self, Kind, Setting};
use super::{Config, Resolved};

impl Resolved {
    /// A line for each setting, with its origin behind it. Read as a configuration it gives the same settings, the secrets apart: of those there is only a
    /// comment, as there is of what is not set.
    pub fn to_toml(&self) -> String {
        let lines: Vec<_> = self
            .lines()
            .into_iter()
            .filter_map(|(name, shown, origin)| Some((entry(settings::find(name)?, &self.config, &shown), origin)))
            .collect();
        let width = lines.iter().map(|(entry, _)| entry.chars().count()).max().unwrap_or(0);
        lines.iter().map(|(entry, origin)| format!("{entry:width$}  # {origin}\n")).collect()
    }
}

/// `shown` is the value as `config check` prints it.
fn entry(setting: &Setting, config: &Config, shown: &str) -> String {
    let (name, config) = (setting.name, &mut config.clone());
    if setting.default.is_none() && shown.is_empty() {
        return format!("# {name} is not set");
    }
    match setting.kind {
        _ if setting.is_secret() => format!("# {name} = {shown}"),
        Kind::Addresses(field) => format!("{name} = {}", list(field(config))),
        Kind::MailAddresses(field) => format!("{name} = {}", list(field(config))),
        Kind::Flag(_) | Kind::Count(..) | Kind::Port(_) => format!("{name} = {shown}"),
        _ => format!("{name} = {}", quoted(shown)),
    }
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// As a TOML string. It is JSON's, but for one control character.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\x7f', "\\u007F")
}

#[cfg(test)]
mod tests {
    use crate::config::Sources;

    use super::*;

    fn resolved(environment: &[(&str, &str)], file: Option<std::path::PathBuf>) -> Resolved {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Resolved::from_sources(&Sources { environment, file, ..Sources::default() }).unwrap()
    }

    /// What is shown, written into a file and read again.
    fn read_again(shown: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shown.toml");
        std::fs::write(&file, shown).unwrap();
        resolved(&[], Some(file)).config
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let defaults = resolved(&[("CHATSERVER_DATA", "/nonexistent/chatserver-test")], None);
        assert_eq!(read_again(&defaults.to_toml()), defaults.config);
        let changed = resolved(
            &[
                ("CHATSERVER_LISTEN", "[::1]:9"),
                ("CHATSERVER_DATA", "/nonexistent/a \"b\" \\ # 世界\n\x7f"),
                ("CHATSERVER_ALLOW_PUBLISHED_KEY", "true"),
                ("CHATSERVER_READ_TIMEOUT", "1500 ms"),
                ("CHATSERVER_MAX_TEXT_BYTES", "50001"),
                ("CHATSERVER_OUTBOX_BYTES", "2 MiB"),
                ("CHATSERVER_MAX_CONNECTIONS", "12"),
                ("CHATSERVER_EXEMPT_ADDRESSES", ""),
                ("CHATSERVER_LOG_LEVEL", "debug"),
                ("CHATSERVER_LANGUAGE", "zh"),
                ("CHATSERVER_MAIL_TO", "ann@example.org,bob@example.org"),
                ("CHATSERVER_MAIL_FROM", "chat \"server\" <chat@example.org>"),
                ("CHATSERVER_SMTP_HOST", "mail.example.org"),
                ("CHATSERVER_SMTP_PORT", "2525"),
                ("CHATSERVER_SMTP_TLS", "none"),
                ("CHATSERVER_SMTP_CA_FILE", "/nonexistent/ca.pem"),
                ("CHATSERVER_SMTP_TIMEOUT", "5 s"),
            ],
            None,
        );
        assert_eq!(read_again(&changed.to_toml()), changed.config);
    }

    #[test]
    fn every_line_has_its_origin_and_a_key_is_only_mentioned() {
        let settings = [
            ("CHATSERVER_KEY", "secret0123456789"),
            ("CHATSERVER_DATA", "/nonexistent/chatserver-test"),
            ("CHATSERVER_SMTP_USER", "chat"),
            ("CHATSERVER_SMTP_PASSWORD", "secret"),
        ];
        let shown = resolved(&settings, None).to_toml();
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.lines().all(|line| line.contains("  # ")), "{shown}");
        let line =
            |begin: &str| shown.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{shown}"));
        assert!(line("# key = (16 bytes, not shown)").ends_with("  # CHATSERVER_KEY"), "{shown}");
        assert!(line("# smtp_password = (set, not shown)").ends_with("  # CHATSERVER_SMTP_PASSWORD"), "{shown}");
        assert!(line("# mail_from is not set").ends_with("  # default"), "{shown}");
        assert!(line("read_timeout = \"2 min\"").ends_with("  # default"), "{shown}");
        assert!(line("data = ").ends_with("  # CHATSERVER_DATA"), "{shown}");
    }
}
