//! Configuration text, as a file and as environment variables: every text is taken or refused with a place and a remedy, and what is taken
//! reads back the same from what `config show` writes.
#![no_main]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use chatserver::config::{Config, ConfigError, Key, MailConfig, Password, Resolved, Sources};
use chatserver_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| TempDir::new_in("/dev/shm").expect("a directory in memory"));

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let is_file_named = input.byte() & 1 == 0;
    let environment = environment(input.string());
    let file = DIR.path().join("chatserver.toml");
    fs::write(&file, input.rest()).expect("room in memory");
    let data = DIR.path().to_owned();
    let sources = match is_file_named {
        true => Sources { file: Some(file), environment, ..Sources::default() },
        false => Sources { data: Some(data), environment, ..Sources::default() },
    };
    let resolved = match Resolved::from_sources(&sources) {
        Ok(resolved) => resolved,
        Err(error) => return explain(&error),
    };
    resolved.config.check().expect("what was loaded has been checked");
    assert_eq!(without_secrets(&read_again(&resolved)), without_secrets(&resolved.config));
    let (next, waiting) =
        resolved.config.reloaded(&resolved.config).expect("a server takes its own configuration over");
    assert!(next == resolved.config && waiting.is_empty(), "nothing has changed: {waiting:?}");
});

/// `NAME=VALUE` on each line.
fn environment(lines: &[u8]) -> Vec<(OsString, OsString)> {
    let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let pair = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((word(&line[..at]), word(&line[at + 1..])))
    };
    lines.split(|byte| *byte == b'\n').filter_map(pair).collect()
}

/// A refusal says something of every problem.
fn explain(error: &ConfigError) {
    let text = error.to_string();
    assert!(!error.problems.is_empty() && !text.trim().is_empty(), "{error:?}");
}

/// What `config show` prints, read as a configuration. The data directory may be a relative one, so the file is named.
fn read_again(resolved: &Resolved) -> Config {
    let shown = resolved.to_toml();
    let file: PathBuf = DIR.path().join("shown.toml");
    // The secrets are not in it, and some settings need one.
    let mut environment = vec![];
    if resolved.config.key.bytes() != Key::published().bytes() {
        environment.push(("CHATSERVER_KEY".into(), "another key, 16b".into()));
    }
    if resolved.config.mail.password.is_some() {
        environment.push(("CHATSERVER_SMTP_PASSWORD".into(), "any".into()));
    }
    fs::write(&file, &shown).expect("room in memory");
    let sources = Sources { file: Some(file), environment, ..Sources::default() };
    Config::load(&sources).unwrap_or_else(|error| panic!("what was shown is refused: {error}\n{shown}"))
}

fn without_secrets(config: &Config) -> Config {
    let mail = MailConfig { password: None::<Password>, ..config.mail.clone() };
    Config { key: Key::published(), mail, ..config.clone() }
}
