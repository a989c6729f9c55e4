//! The log: one event is one line, whoever causes it with whatever bytes; and it never holds a text or a key.

use crate::harness::*;
use crate::wire;

const KEY: &str = "thekeyofthistest";
const TEXT: &str = "nobody but bob may read this";

/// Every line begins with its time and level, whatever caused it.
fn assert_well_formed(log: &str) {
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{line:?}");
        let level = rest.get(..8).unwrap_or_default();
        assert!(["[ERROR] ", "[WARN ] ", "[INFO ] ", "[DEBUG] ", "[TRACE] "].contains(&level), "{line:?}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}

/// Hardening: secrets readable or logged (Mosquitto CVE-2017-9868).
#[test]
fn no_text_and_no_key_is_logged_at_the_highest_level() {
    let mut server = Server::start(|setup| {
        setup.set("key", KEY).set("log_level", "trace").set("save_interval", "20 ms").set("expire_after", "2 s")
    });
    let connect = chatserver::client::Client::connect(server.addr(), KEY.as_bytes()).timeout(PATIENCE);
    let (mut ann, mut bob) = (connect.login("ann").unwrap(), connect.login("bob").unwrap());
    // Live, dropped, waiting, expired, forged, with a wrong key, in another protocol.
    send_all(&mut ann, "bob", &[TEXT]);
    assert_eq!(next(&mut bob).text, TEXT);
    send_all(&mut ann, "no\nbody", &[TEXT]);
    send_all(&mut ann, "bob", &[TEXT.repeat(2200)]);
    send_all(&mut ann, "absent", &[TEXT]);
    server.wait_for_log("1 messages expired");
    send_all(&mut ann, "absent", &[TEXT]);
    eventually("it is saved", || server.rows() == 1);
    bob.connection().write_raw(&wire::chat("bob", "ann", TEXT)).unwrap();
    expect_close(&mut bob);
    let mut stranger = connect.open().unwrap();
    stranger.write_raw(format!("GET /{TEXT} HTTP/1.1\r\nCookie: {KEY}\r\n\r\n").as_bytes()).unwrap();
    stranger.read_to_close(PATIENCE).unwrap();
    server.wait_for_log("this looks like HTTP");
    server.sigterm();
    let file = std::fs::read_to_string(server.data().join("chatserver.log")).unwrap();
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for secret in ["nobody but bob", "may read", KEY, &hex] {
        for log in [&server.log(), &file] {
            assert!(!log.to_lowercase().contains(secret), "{secret:?} is in the log:\n{log}");
        }
    }
    assert!(file.contains("[DEBUG]"), "the level is in force:\n{file}");
    assert_well_formed(&file);
}

/// Hardening: log injection (ngIRCd CVE-2005-0226).
#[test]
fn no_input_can_forge_a_line() {
    let server = Server::start(|setup| setup.set("log_level", "trace"));
    let forgery = "x\n2026-01-01T00:00:00.000Z [ERROR] c1: forged\x1b[2J";
    assert!(server.connect().login(forgery).is_err());
    let mut ann = server.login("ann");
    send_all(&mut ann, forgery, &["hello"]);
    send_all(&mut ann, "bob", &[forgery]);
    ann.connection().write_raw(&wire::chat(forgery, "bob", "hello")).unwrap();
    expect_close(&mut ann);
    let mut stranger = server.connect().open().unwrap();
    stranger.write_raw(format!("GET /{forgery}\r\n").as_bytes()).unwrap();
    stranger.read_to_close(PATIENCE).unwrap();
    drop((ann, stranger));
    // What a name may hold stays as it is, on its line.
    let _odd = server.login("[ERROR] c1: 我 %s {} \\n");
    server.wait_for_log("[ERROR] c1: 我 %s {} \\n logged in");
    server.wait_for_log("the sender is not the user who logged in here");
    server.wait_for_log("this looks like HTTP");
    assert_eq!(server.logged("forged"), 0);
    assert_well_formed(&server.log());
}

#[test]
fn the_start_prints_one_block_for_the_operator() {
    let server = Server::start_default();
    send_all(&mut server.login("ann"), "bob", &numbered("waiting", 3));
    let server = server.restart();
    // The log has a thread of its own; this line is the last of the block.
    server.wait_for_log("waiting messages: 3");
    let log = server.log();
    for fact in [
        format!("chatserver {} starts, process {}", env!("CARGO_PKG_VERSION"), server.pid()),
        format!("listening on {}", server.addr()),
        "connections (80 % of ".into(),
        format!("database {}", server.db_path().display()),
    ] {
        assert!(log.contains(&fact), "{fact:?} is missing:\n{log}");
    }
}

#[test]
fn terminal_and_file_get_the_same_lines_and_a_connections_begin_with_its_id() {
    let mut server = Server::start_default();
    server.login("ann").logout().unwrap();
    let line = server.wait_for_log("ann logged in from 127.0.0.1:");
    assert!(line.contains("[INFO ] c1: ann logged in"), "{line}");
    let line = server.wait_for_log("ann: logged out");
    assert!(line.contains("[INFO ] c1: "), "{line}");
    server.sigterm();
    assert_eq!(std::fs::read_to_string(server.data().join("chatserver.log")).unwrap(), server.log());
}
