//! What is accepted, where it comes from, and that the sample file is the table. `refusals.rs` has the other half.

use super::*;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A data directory with a configuration file, and no environment.
pub(super) fn with_file(text: &str) -> (TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE_NAME), text).unwrap();
    let sources = Sources { data: Some(dir.path().to_owned()), ..Sources::default() };
    (dir, sources)
}

pub(super) fn load(text: &str) -> Config {
    let (_dir, sources) = with_file(text);
    Config::load(&sources).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(super) fn environment(variables: &[(&str, &str)]) -> Sources {
    // A directory that is not there: no file.
    let data = Some(PathBuf::from("/nonexistent/chatserver-test"));
    let environment = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Sources { environment, data, ..Sources::default() }
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Config::default();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8989");
    assert_eq!(config.data, PathBuf::from(DEFAULT_DATA));
    assert_eq!(config.key, Key::published());
    assert!(!config.allow_published_key);
    for (duration, seconds) in [
        (config.login_timeout, 30),
        (config.read_timeout, 120),
        (config.packet_timeout, 30),
        (config.write_stall_timeout, 60),
        (config.shutdown_timeout, 5),
        (config.save_interval, 1),
        (config.memory_wait_timeout, 30),
        (config.expire_after, 7 * 86_400),
        (config.report_interval, 12 * 3600),
        (config.mail.timeout, 30),
    ] {
        assert_eq!(duration, Duration::from_secs(seconds));
    }
    assert_eq!((config.max_packet_bytes, config.max_text_bytes), (65_536, 60_000));
    assert_eq!((config.outbox_bytes, config.memory_bytes), (1 << 20, 256 << 20));
    assert_eq!((config.backlog_messages, config.backlog_bytes, config.data_bytes), (2_000_000, 1 << 30, 10 << 30));
    assert_eq!((config.max_connections, config.max_per_address), (0, 256));
    assert_eq!((config.max_strangers, config.max_strangers_per_address), (1024, 64));
    assert_eq!(config.exempt_addresses, ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    assert_eq!((config.max_stranger_packet_bytes, config.max_logins_per_address), (1024, 600));
    assert_eq!((config.max_packets_per_second, config.max_bytes_per_second), (500_000, 256 << 20));
    assert_eq!(config.max_writers, 256);
    assert_eq!(config.log_level, log::LevelFilter::Info);
    assert_eq!((config.language, config.mail.to.as_slice()), (Language::English, [].as_slice()));
    assert_eq!((config.mail.host.as_str(), config.mail.port(), config.mail.tls), ("localhost", 587, Tls::StartTls));
    assert_eq!(config.check(), Ok(()));
}

#[test]
fn each_source_is_stronger_than_the_one_before() {
    let (dir, mut sources) = with_file("listen = \"127.0.0.1:1\"\nsave_interval = \"2 s\"\nread_timeout = \"3 min\"\n");
    sources.environment =
        vec![("CHATSERVER_LISTEN".into(), "127.0.0.1:2".into()), ("CHATSERVER_SAVE_INTERVAL".into(), "4 s".into())];
    sources.listen = Some("127.0.0.1:3".parse().unwrap());
    let resolved = Resolved::from_sources(&sources).unwrap();
    let file = dir.path().join(FILE_NAME);
    let of = |name| {
        resolved.lines().into_iter().find(|line| line.0 == name).map(|(_, value, origin)| (value, origin)).unwrap()
    };
    assert_eq!(of("listen"), ("127.0.0.1:3".into(), Origin::Flag("--listen")));
    assert_eq!(of("save_interval"), ("4 s".into(), Origin::Environment("CHATSERVER_SAVE_INTERVAL".into())));
    assert_eq!(of("read_timeout"), ("3 min".into(), Origin::File(file.clone(), 3)));
    assert_eq!(of("login_timeout"), ("30 s".into(), Origin::Default));
    assert_eq!(resolved.file, Some(file));
}

#[test]
fn every_kind_of_value_is_read_from_a_file() {
    let config = load(
        r#"
        listen = "[::1]:0"
        key = "hex:000102030405060708090a0b0c0d0e0f"
        allow_published_key = true
        expire_after = "0 s"
        read_timeout = "250 ms"
        max_text_bytes = 3_000
        memory_bytes = "64 MiB"
        backlog_messages = 0x10
        exempt_addresses = []
        log_level = "debug"
        language = "zh"
        mail_to = ["ops@example.org", "Ann <ann@example.org>"]
        mail_from = "chat@example.org"
        smtp_host = "mail.example.org"
        smtp_port = 2525
        smtp_tls = "tls"
        smtp_ca_file = "/etc/ca.pem"
        smtp_user = "chat"
        smtp_password = "top secret"
        "#,
    );
    assert_eq!(config.listen.to_string(), "[::1]:0");
    assert_eq!(config.key.bytes()[15], 15);
    assert!(config.allow_published_key && config.expire_after.is_zero() && config.exempt_addresses.is_empty());
    assert_eq!(config.read_timeout, Duration::from_millis(250));
    assert_eq!((config.max_text_bytes, config.memory_bytes, config.backlog_messages), (3000, 64 << 20, 16));
    assert_eq!(config.log_level, log::LevelFilter::Debug);
    assert_eq!(config.language, Language::Chinese);
    let mail = MailConfig {
        to: vec!["ops@example.org".into(), "Ann <ann@example.org>".into()],
        from: Some("chat@example.org".into()),
        host: "mail.example.org".into(),
        port: 2525,
        tls: Tls::Tls,
        ca_file: Some("/etc/ca.pem".into()),
        user: Some("chat".into()),
        password: Some(Password::new("top secret")),
        timeout: Duration::from_secs(30),
    };
    assert_eq!(config.mail, mail);
}

#[test]
fn every_setting_is_read_from_the_environment() {
    let values = [
        ("listen", "127.0.0.1:7"),
        ("metrics_listen", "127.0.0.1:7"),
        ("data", "/tmp/elsewhere"),
        ("key", "0123456789abcdef"),
        ("allow_published_key", "true"),
        ("exempt_addresses", "10.0.0.1, ::1"),
        ("log_level", "trace"),
        ("language", "zh"),
        ("mail_to", "ops@example.org, Ann <ann@example.org>"),
        ("smtp_tls", "tls"),
        ("mail_from", "chat@example.org"),
    ];
    for setting in settings::SETTINGS.iter().filter(|setting| setting.gives() == setting.name) {
        let written = match (values.iter().find(|value| value.0 == setting.name), setting.kind.clone()) {
            (Some(value), _) => value.1,
            (None, settings::Kind::Duration(..)) => "7 min",
            (None, settings::Kind::Bytes(..)) => "2 MiB",
            (None, _) => "77",
        };
        let mut config = Config::default();
        setting.take(&mut config, &raw::Raw::Words(written.into())).unwrap();
        let shown = setting.show(&config);
        assert_ne!(shown, setting.show(&Config::default()), "{} did not change", setting.name);
        let mut sources = environment(&[
            (&setting.variable(), written),
            ("CHATSERVER_MAX_PACKET_BYTES", "4 MiB"),
            ("CHATSERVER_OUTBOX_BYTES", "8 MiB"),
        ]);
        sources.data = None;
        // These do not fit the two above, or want another one beside them.
        let unfit =
            ["max_packet_bytes", "outbox_bytes", "memory_bytes", "max_bytes_per_second", "smtp_user", "smtp_password"];
        let is_built = cfg!(feature = "tools") || setting.name != "metrics_listen";
        if is_built && !unfit.contains(&setting.name) {
            let lines = Resolved::from_sources(&sources).unwrap().lines();
            let line = lines.into_iter().find(|line| line.0 == setting.name).unwrap();
            assert_eq!(line, (setting.name, shown, Origin::Environment(setting.variable())));
        }
    }
}

#[test]
fn a_key_file_and_the_environments_key_take_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("secret.key");
    fs::write(&key, "fedcba9876543210\n").unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let (_dir, mut sources) = with_file(&format!("key_file = {:?}\n", key.display().to_string()));
    assert_eq!(Config::load(&sources).unwrap().key.bytes(), b"fedcba9876543210");
    sources.environment = vec![("CHATSERVER_KEY".into(), "0123456789abcdef".into())];
    assert_eq!(Config::load(&sources).unwrap().key.bytes(), b"0123456789abcdef");
    sources.environment.push(("CHATSERVER_KEY_FILE".into(), key.into()));
    assert!(Config::load(&sources).unwrap_err().to_string().contains("given twice"));
}

#[test]
fn a_password_comes_from_a_file_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    fs::write(&path, "from the file\n").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let line = format!("smtp_password_file = {:?}\nsmtp_user = \"ann\"\n", path.display().to_string());
    assert_eq!(load(&line).mail.password, Some(Password::new("from the file")));
    let (_dir, sources) = with_file(&format!("smtp_password = \"x\"\n{line}"));
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(error.contains(":2: smtp_password_file: the smtp_password is given twice"), "{error}");
}

#[test]
fn a_configuration_with_a_secret_that_others_can_read_is_pointed_out() {
    let exposed = |text: &str, mode| {
        let (dir, sources) = with_file(text);
        fs::set_permissions(dir.path().join(FILE_NAME), PermissionsExt::from_mode(mode)).unwrap();
        Resolved::from_sources(&sources).unwrap().exposed().is_some()
    };
    assert!(exposed("key = \"0123456789abcdef\"", 0o644));
    assert!(exposed("smtp_user = \"ann\"\nsmtp_password = \"secret\"", 0o644));
    assert!(!exposed("key = \"0123456789abcdef\"", 0o600));
    assert!(!exposed("key = \"12345abcdef67890\"", 0o644), "everybody knows that one");
    assert!(!exposed("read_timeout = \"9 s\"", 0o644));
}

#[test]
fn what_waits_for_a_restart_is_known() {
    let old = Config::default();
    let new = Config { read_timeout: Duration::from_secs(1), listen: "127.0.0.1:1".parse().unwrap(), ..old.clone() };
    let (next, waiting) = old.reloaded(&new).unwrap();
    assert_eq!((next.read_timeout, next.listen, waiting), (new.read_timeout, old.listen, vec!["listen"]));
    let new = Config { key: Key::parse("0123456789abcdef").unwrap(), ..old.clone() };
    assert_eq!(old.reloaded(&new), Ok((old.clone(), vec!["key"])));
    assert_eq!(old.reloaded(&old), Ok((old.clone(), vec![])));
    // A packet limit that can change now, beside an outbox that cannot.
    let new = Config { max_packet_bytes: 1 << 20, outbox_bytes: 1 << 22, ..old.clone() };
    assert!(old.reloaded(&new).unwrap_err().to_string().contains("outbox_bytes"));
}

#[test]
fn a_named_file_must_be_there_and_may_name_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.toml");
    let mut sources = Sources { file: Some(path.clone()), ..Sources::default() };
    let missing = Config::load(&sources).unwrap_err().to_string();
    assert!(missing.contains("my.toml: the configuration cannot be read"), "{missing}");
    fs::write(&path, "data = \"/srv/chat\"\n").unwrap();
    assert_eq!(Config::load(&sources).unwrap().data, PathBuf::from("/srv/chat"));
    sources.data = Some("/srv/other".into());
    assert_eq!(Config::load(&sources).unwrap().data, PathBuf::from("/srv/other"));
    fs::write(&path, b"# \xff").unwrap();
    assert!(Config::load(&sources).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn the_environment_may_name_the_directory_of_the_file() {
    let (dir, _) = with_file("read_timeout = \"9 s\"");
    let mut sources = environment(&[("CHATSERVER_DATA", dir.path().to_str().unwrap())]);
    sources.data = None;
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.read_timeout, config.data.as_path()), (Duration::from_secs(9), dir.path()));
}

#[test]
fn the_sample_file_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/chatserver.toml");
    let file = fs::read_to_string(path).unwrap();
    assert!(
        file == sample(),
        "data/chatserver.toml is out of date: run `cargo run -- config sample > data/chatserver.toml`"
    );
    // As it is, and with every line of a default switched on, it gives the defaults.
    assert_eq!(Config { data: DEFAULT_DATA.into(), ..load(&file) }, Config::default());
    let on: Vec<&str> = file
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.contains(" = ") && !line.starts_with(' '))
        .collect();
    let names: Vec<&str> = on.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let expected: Vec<&str> = settings::SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(names, expected);
    let dir = tempfile::tempdir().unwrap();
    let named = dir.path().join("all.toml");
    fs::write(
        &named,
        on.iter()
            .filter(|line| !line.contains("\"FILE\"") && !line.contains("\"TEXT\""))
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
    .unwrap();
    assert_eq!(Config::load(&Sources { file: Some(named), ..Sources::default() }).unwrap(), Config::default());
}

#[test]
fn the_readmes_table_has_a_row_for_every_setting() {
    let table = markdown();
    assert_eq!(table.lines().count(), settings::SETTINGS.len() + 2);
    assert!(table.lines().all(|line| line.matches('|').count() == 5), "{table}");
}
