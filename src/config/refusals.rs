//! Tests of what is refused: every refusal says where and what to do.

use super::tests::{environment, load, with_file};
use super::*;

/// The one problem of a file, its directory's name cut off.
fn fault(text: &str) -> String {
    let (dir, sources) = with_file(text);
    let error = Config::load(&sources).expect_err(text);
    assert_eq!(error.problems.len(), 1, "{error}");
    error.to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn a_wrong_file_is_refused_with_line_and_remedy() {
    for (text, expected) in [
        (
            "\nsave_interval = \"1 parsec\"",
            "chatserver.toml:2: save_interval = \"1 parsec\": unknown unit \"parsec\"; write it like \"30 s\", \"5 min\" or \"12 h\"",
        ),
        (
            "save_interval = 30",
            "chatserver.toml:1: save_interval = 30: the unit is missing; write it like \"30 s\", \"5 min\" or \"12 h\", in quotes",
        ),
        (
            "save_interval = true",
            "chatserver.toml:1: save_interval = true: a duration is wanted, in quotes; write it like",
        ),
        (
            "save_interval = \"0 s\"",
            "chatserver.toml:1: save_interval = \"0 s\": zero is not possible here; write at least \"1 ms\"",
        ),
        ("read_timeout = \"99999 d\"", "too long; write at most \"36500 d\""),
        ("memory_bytes = \"1 GB\"", "memory_bytes = \"1 GB\": unknown unit \"GB\"; write it like \"64 KiB\""),
        ("memory_bytes = -1", "memory_bytes = -1: out of range; write it like \"64 KiB\""),
        ("memory_bytes = 1.5", "memory_bytes = 1.5: a size is wanted; write it like"),
        (
            "max_packet_bytes = \"1 GiB\"",
            "max_packet_bytes = \"1 GiB\": out of range; write something from 1 to 16 MiB",
        ),
        ("max_per_address = 0", "max_per_address = 0: out of range; write something from 1 to 1000000"),
        ("max_per_address = \"5\"", "max_per_address = \"5\": a number is wanted; write it without quotes"),
        (
            "listen = \"localhost\"",
            "listen = \"localhost\": this is not an IP address and a port; write it like \"127.0.0.1:8989\"",
        ),
        ("listen = 8989", "listen = 8989: an address and a port are wanted, in quotes, this is a bare number"),
        (
            "exempt_addresses = [\"127.0.0.1\", \"x\"]",
            "exempt_addresses = [\"127.0.0.1\", \"x\"]: \"x\" is not an IP address; write it like",
        ),
        ("exempt_addresses = \"::1\"", "a list is wanted, this is text; write it like [\"127.0.0.1\", \"::1\"]"),
        ("log_level = \"loud\"", "log_level = \"loud\": there is no such level; write \"error\", \"warn\""),
        ("allow_published_key = \"yes\"", "allow_published_key = \"yes\": write true or false, without quotes"),
        (
            "# a\n\nsave_intervall = \"1 s\"",
            "chatserver.toml:3: unknown setting \"save_intervall\"; did you mean \"save_interval\"?",
        ),
        ("colour = 1", "chatserver.toml:1: unknown setting \"colour\"; remove it"),
        ("[server]\nlisten = \"127.0.0.1:1\"", "chatserver.toml:1: there are no sections here; remove [server]"),
        ("a = 1\nlisten = ", "chatserver.toml:2: "),
        ("login_timeout = 30 s", "chatserver.toml:1: "),
        ("log_level = \"info\"\nlog_level = \"warn\"", "chatserver.toml:2: duplicate key; write one setting a line"),
        ("key = \"0123456789abcdef\"\nkey_file = \"/dev/null\"", "key"),
        (
            "data = \"elsewhere\"",
            "chatserver.toml:1: data: this file was found in the data directory and cannot move it",
        ),
        (
            "key_file = \"/nonexistent/key\"",
            "key_file = \"/nonexistent/key\": the key file /nonexistent/key cannot be read",
        ),
    ] {
        let (_dir, sources) = with_file(text);
        let message = Config::load(&sources).expect_err(text).to_string();
        assert!(message.contains(expected), "{text:?}\n gave     {message}\n expected {expected}");
    }
}

#[test]
fn a_wrong_environment_is_refused_by_the_variables_name() {
    for (variable, value, expected) in [
        (
            "CHATSERVER_SAVE_INTERVAL",
            "1 parsec",
            "CHATSERVER_SAVE_INTERVAL = \"1 parsec\": unknown unit \"parsec\"; write it like \"30 s\"",
        ),
        ("CHATSERVER_SAVE_INTERVAL", "", "CHATSERVER_SAVE_INTERVAL = \"\": it does not begin with a whole number"),
        (
            "CHATSERVER_MAX_PER_ADDRESS",
            "many",
            "CHATSERVER_MAX_PER_ADDRESS = \"many\": it does not begin with a whole number",
        ),
        ("CHATSERVER_ALLOW_PUBLISHED_KEY", "1", "CHATSERVER_ALLOW_PUBLISHED_KEY = \"1\": write true or false"),
        ("CHATSERVER_EXEMPT_ADDRESSES", "::1,x", "\"x\" is not an IP address; write them like 127.0.0.1,::1"),
        (
            "CHATSERVER_SAVE_INTERVALL",
            "1 s",
            "CHATSERVER_SAVE_INTERVALL: unknown environment variable; did you mean CHATSERVER_SAVE_INTERVAL?",
        ),
        ("CHATSERVER_save_interval", "1 s", "did you mean CHATSERVER_SAVE_INTERVAL?"),
        ("CHATSERVER_COLOUR", "1", "CHATSERVER_COLOUR: unknown environment variable; remove it"),
    ] {
        let error = Config::load(&environment(&[(variable, value)])).expect_err(variable);
        assert!(error.to_string().contains(expected), "{error}\n expected {expected}");
    }
    // The client commands' own, and everybody else's.
    assert!(Config::load(&environment(&[("CHATSERVER_ADDR", "x"), ("CHATSERVERS", "x"), ("PATH", "x")])).is_ok());
}

#[test]
fn impossible_combinations_are_refused_where_somebody_wrote_them() {
    for (text, expected) in [
        (
            "max_text_bytes = 65_500",
            "chatserver.toml:1: max_text_bytes = 65500: does not fit max_packet_bytes = 64 KiB (default): a packet with such a text may have 65825 bytes; raise max_packet_bytes to 65825, or lower max_text_bytes to 65211",
        ),
        (
            "max_packet_bytes = 4096",
            "chatserver.toml:1: max_packet_bytes = 4 KiB: does not fit max_text_bytes = 60000 (default)",
        ),
        (
            "outbox_bytes = \"100 KiB\"",
            "chatserver.toml:1: outbox_bytes = 100 KiB: does not fit max_packet_bytes = 64 KiB (default): two of the longest packets must have room in it; raise outbox_bytes to 128 KiB",
        ),
        (
            "memory_bytes = \"512 KiB\"",
            "chatserver.toml:1: memory_bytes = 512 KiB: does not fit max_packet_bytes = 64 KiB (default): 16 of the longest packets must have room in it; raise memory_bytes to 1 MiB",
        ),
        (
            "max_bytes_per_second = \"32 KiB\"",
            "chatserver.toml:1: max_bytes_per_second = 32 KiB: does not fit max_packet_bytes = 64 KiB (default): after one packet nothing would be heard of a client for longer than a second; raise max_bytes_per_second to 64 KiB or more, or lower max_packet_bytes",
        ),
        (
            "backlog_bytes = 1000",
            "chatserver.toml:1: backlog_bytes = 1000: does not fit max_text_bytes = 60000 (default): the longest text could never wait",
        ),
        (
            "max_packet_bytes = 2_399\nmax_text_bytes = 2_000",
            "chatserver.toml:1: max_packet_bytes = 2399: existing clients send packets of 2,152 bytes; write at least 2400",
        ),
        (
            "report_interval = \"999 ms\"",
            "chatserver.toml:1: report_interval = 999 ms: that often nobody reads them; write at least \"1 s\"",
        ),
        ("mail_from = \"chat\"", "\"chat\" is not a mail address; write it like \"chat@example.org\""),
        (
            "smtp_user = \"ann\"",
            "chatserver.toml:1: smtp_user = ann: there is no password for it; add smtp_password or smtp_password_file",
        ),
        (
            "smtp_user = \"ann\"\nsmtp_password = \"x\"\nsmtp_host = \"example.org\"\nsmtp_tls = \"none\"",
            "chatserver.toml:4: smtp_tls = none: the password would cross the network in the clear",
        ),
        ("listen = \"0.0.0.0:8989\"", "chatserver.toml:1: listen = 0.0.0.0:8989: the key is the published one"),
        ("listen = \"[::]:8989\"", "or say --allow-published-key"),
        #[cfg(feature = "tools")]
        (
            "metrics_listen = \"0.0.0.0:9989\"",
            "chatserver.toml:1: metrics_listen = 0.0.0.0:9989: whoever reaches this address may read the server's figures, so only loopback",
        ),
        #[cfg(not(feature = "tools"))]
        ("metrics_listen = \"127.0.0.1:9989\"", "was built without the feature `tools`, and has no HTTP"),
        ("metrics_listen = \"nowhere\"", "this is not an IP address and a port"),
    ] {
        let message = fault(text);
        assert!(message.contains(expected), "{text:?}\n gave     {message}\n expected {expected}");
    }
    assert_eq!(load("metrics_listen = \"\"").metrics_listen, None);
    load("max_text_bytes = 65_211");
    load("max_packet_bytes = 2_400\nmax_text_bytes = 2_000");
    let broken = Config { outbox_bytes: 1, ..Config::default() }.check().unwrap_err();
    assert!(
        broken
            .to_string()
            .starts_with("outbox_bytes = 1: does not fit max_packet_bytes = 64 KiB (given by the program)"),
        "{broken}"
    );
}

#[test]
fn the_published_key_stays_at_home_unless_told_otherwise() {
    let everywhere = |more: &str| load(&format!("listen = \"0.0.0.0:0\"\n{more}")).listen;
    everywhere("allow_published_key = true");
    everywhere("key = \"0123456789abcdef\"");
    load("listen = \"[::ffff:127.0.0.1]:0\"");
    let (_dir, mut sources) = with_file("");
    sources.listen = Some("0.0.0.0:0".parse().unwrap());
    assert!(
        Config::load(&sources)
            .unwrap_err()
            .to_string()
            .starts_with("--listen = 0.0.0.0:0: the key is the published one")
    );
    sources.allow_published_key = true;
    assert!(Config::load(&sources).is_ok());
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_lines() {
    let (_dir, mut sources) = with_file("zeta = 1\nlog_level = 5\nalpha = 1\n");
    sources.environment = vec![("CHATSERVER_READ_TIMEOUT".into(), "soon".into())];
    let error = Config::load(&sources).unwrap_err();
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[0].contains(":1: ")
            && lines[1].contains(":2: ")
            && lines[2].contains(":3: ")
            && lines[3].starts_with("CHATSERVER_READ_TIMEOUT")
    );
}

#[test]
fn a_key_is_never_shown() {
    let secret = "not16butverysecret";
    for text in [
        format!("key = \"{secret}\""),
        format!("key = \"{secret}"),
        format!("key = [\"{secret}\"]"),
        format!("key = \"0123456789abcdef\" {secret}"),
        format!("key = '{secret}'\nkey = '{secret}'"),
    ] {
        let (_dir, sources) = with_file(&text);
        let error = Config::load(&sources).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
    let (_dir, sources) = with_file("smtp_password = \"secret\u{7}\"");
    assert!(!format!("{:?}", Config::load(&sources)).contains("secret"));
    assert!(!format!("{:?}", load("smtp_user = \"ann\"\nsmtp_password = \"secret\"")).contains("secret"));
    let error = Config::load(&environment(&[("CHATSERVER_KEY", secret)])).unwrap_err().to_string();
    assert_eq!(error, format!("CHATSERVER_KEY: {}", KeyFault::Length(secret.len())));
    let resolved = Resolved::from_sources(&environment(&[("CHATSERVER_KEY", "secret0123456789")])).unwrap();
    assert!(!format!("{resolved:?} {:?}", resolved.lines()).contains("secret"));
}

#[test]
fn a_file_that_is_something_else_is_refused_soon_and_in_few_words() {
    let (_dir, sources) = with_file(&"x\n".repeat(250_000));
    let error = Config::load(&sources).unwrap_err();
    assert!((1..=20).contains(&error.problems.len()), "{}", error.problems.len());
    let many = (0..5000).fold(String::new(), |text, number| text + &format!("a{number} = 1\n"));
    let (_dir, sources) = with_file(&many);
    assert!(Config::load(&sources).unwrap_err().to_string().contains(":5000: "));
    assert!(fault(&"#".repeat(1024 * 1024 + 1)).contains("it has more than 1 MiB"));
}

#[test]
fn a_file_without_an_end_is_not_read_to_its_end() {
    let endless = Config::load(&environment(&[("CHATSERVER_KEY_FILE", "/dev/zero")])).unwrap_err();
    assert!(endless.to_string().contains("a key has 16, 24 or 32 bytes"), "{endless}");
    let sources = Sources { file: Some("/dev/zero".into()), ..Sources::default() };
    assert!(Config::load(&sources).unwrap_err().to_string().contains("it has more than 1 MiB"));
}
