//! The login: who is let in, under which name, how long it may take, and how long a user may be silent.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chatserver::client::ClientError;

use crate::harness::*;
use crate::wire;

#[test]
fn a_welcome_carries_the_servers_clock() {
    let server = Server::start_default();
    let ann = server.login("ann");
    assert_eq!(ann.welcome(), "welcome");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((now - ann.server_time()).abs() <= 30, "{} is not {now}", ann.server_time());
}

/// Hardening: duplicate-name tricks (Unicode) (Spotify 2013).
#[test]
fn names_that_break_the_rules_are_refused_with_a_reason() {
    let server = Server::start_default();
    let too_long = "x".repeat(129);
    let grows = "\u{1d15e}".repeat(32); // 128 bytes, and more when normalised
    for (name, reason) in [
        ("", "must not be empty"),
        (" ann", "begin or end with a space"),
        ("ann\u{3000}", "begin or end with a space"),
        ("an\nn", "U+000A"),
        ("ann\0", "U+0000"),
        ("an\u{202e}n", "U+202E"),
        ("an\u{200b}n", "U+200B"),
        ("an\u{2028}n", "U+2028"),
        (&too_long, "at most 128 bytes"),
        (&grows, "at most 128 bytes"),
    ] {
        let mut connection = server.connect().open().unwrap();
        connection.write_raw(&wire::login(name)).unwrap();
        let (packets, reset) = connection.read_to_close(PATIENCE).unwrap();
        let answers: Vec<String> = packets.iter().map(|packet| wire::meaning(&packet.bytes)).collect();
        assert_eq!(answers.len(), 1, "{name:?}: {answers:?}");
        assert!(answers[0].contains("login: false") && answers[0].contains(reason), "{name:?}: {answers:?}");
        assert!(!reset, "{name:?}: the reason must not be lost to a reset");
    }
    assert_eq!(server.db().query_row("select count(*) from users", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn every_other_name_is_welcome() {
    let server = Server::start_default();
    let longest = "é".repeat(64);
    for name in
        ["1", "[38121920]--> 7", "hello, 我是一个java程序", "a  b", "O'Brien; --", "🙂", "../../etc/passwd", &longest]
    {
        let mut client = server.login(name);
        client.send(name, "to myself").unwrap();
        let message = next(&mut client);
        assert_eq!((message.from.as_str(), message.to.as_str()), (name, name));
    }
}

/// Hardening: duplicate-name tricks (Unicode) (Spotify 2013).
#[test]
fn two_spellings_of_one_name_are_one_user() {
    let server = Server::start_default();
    let (composed, decomposed) = ("Ren\u{e9}", "Rene\u{301}");
    let mut ann = server.login("ann");
    send_all(&mut ann, decomposed, &["waiting"]);
    let mut first = server.login(composed);
    assert_eq!(next(&mut first).text, "waiting");
    first.logout().unwrap();
    let mut first = server.login(composed);
    ann.send(decomposed, "live").unwrap();
    let message = next(&mut first);
    assert_eq!((message.to.as_str(), message.text.as_str()), (decomposed, "live"), "as it was written");
    let mut second = server.login(decomposed);
    expect_close(&mut first);
    ann.send(composed, "after the takeover").unwrap();
    assert_eq!(next(&mut second).text, "after the takeover");
    // The own name may be written either way.
    second.connection().write_raw(&wire::chat(composed, "ann", "hello")).unwrap();
    assert_eq!(next(&mut ann).text, "hello");
}

/// Writes one byte at a time, far more slowly than it could, until the server closes; says when that was.
fn dribble(mut socket: &TcpStream, bytes: &[u8], pace: Duration) -> Duration {
    let started = Instant::now();
    socket.set_read_timeout(Some(pace)).unwrap();
    for byte in bytes {
        let written = socket.write_all(&[*byte]);
        // The wait for an answer that must not come is the pace.
        match socket.read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && written.is_ok() => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return started.elapsed(),
            Ok(0) => return started.elapsed(),
            other => panic!("neither silence nor a close: {other:?}"),
        }
    }
    panic!("{} bytes in {:?}, and no close", bytes.len(), started.elapsed());
}

/// Hardening: slow loris (CVE-2020-13849).
#[test]
fn the_login_deadline_is_absolute() {
    let server = Server::start(|setup| setup.set("login_timeout", "1 s").set("log_level", "debug"));
    let silent = server.socket();
    let dribbling = server.socket();
    let closed_after = dribble(&dribbling, &wire::login(&"x".repeat(120)), Duration::from_millis(50));
    assert!((900..3000).contains(&closed_after.as_millis()), "{closed_after:?}");
    assert_eq!((&silent).read(&mut [0; 1]).unwrap(), 0, "a silent stranger is closed too");
    server.wait_for_log("no login within the time limit");
}

#[test]
fn a_login_lifts_the_login_deadline() {
    let server = Server::start(|setup| setup.set("login_timeout", "300 ms"));
    let mut ann = server.login("ann");
    assert!(ann.recv(Duration::from_millis(900)).unwrap().is_none());
    ann.roundtrip().unwrap();
}

/// Hardening: slow loris (CVE-2020-13849).
#[test]
fn a_packet_once_begun_has_a_deadline_of_its_own() {
    let server = Server::start(|setup| setup.set("packet_timeout", "1 s"));
    let mut ann = server.login("ann");
    ann.roundtrip().unwrap();
    let closed_after = dribble(
        ann.connection().stream(),
        &wire::chat("ann", "bob", "a text that takes its time to arrive, byte by byte, and has no hurry at all"),
        Duration::from_millis(50),
    );
    assert!((900..3000).contains(&closed_after.as_millis()), "{closed_after:?}");
    server.wait_for_log("ann: a packet was begun and not completed in time");
}

#[test]
fn pings_keep_a_silent_user_and_silence_ends_it() {
    let server = Server::start(|setup| setup.set("read_timeout", "800 ms").set("save_interval", "50 ms"));
    let mut ann = server.login("ann");
    let started = Instant::now();
    let mut pinged_at = started;
    while started.elapsed() < Duration::from_millis(2400) {
        pinged_at = Instant::now();
        ann.ping().unwrap();
        assert!(ann.recv(Duration::from_millis(200)).unwrap().is_none(), "a ping is not answered");
    }
    expect_close(&mut ann);
    assert!((790..5000).contains(&pinged_at.elapsed().as_millis()), "{:?}", pinged_at.elapsed());
    server.wait_for_log("ann: silent for too long");
    eventually("ann's thread ends", || !server.has_thread("ann"));
    send_all(&mut server.login("bob"), "ann", &["for later"]);
    eventually("it is saved", || server.rows_of("ann") == 1);
}

#[test]
fn a_thread_carries_its_users_name() {
    let server = Server::start_default();
    let _clients =
        ["ann", "[38121920]--> 7", "我是一个程序", "a name longer than fifteen bytes"].map(|name| server.login(name));
    // 15 bytes, cut where a character ends.
    for thread in ["ann", "[38121920]--> 7", "我是一个程", "a name longer t", "accept", "timer", "log", "signals"]
    {
        eventually(&format!("a thread is called {thread:?}, of {:?}", server.threads()), || server.has_thread(thread));
    }
}

#[test]
fn a_name_is_registered_once_with_its_time() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let user = |server: &Server| {
        let row = server.db().query_row("select name, registered_at, last_seen_at from users", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        row.ok()
    };
    let first_login = server.login("Rene\u{301}");
    eventually("it is registered", || user(&server).is_some());
    let (name, registered_at, _) = user(&server).unwrap();
    assert_eq!(name, "Rene\u{301}", "as first seen");
    assert!((registered_at / 1000 - first_login.server_time()).abs() <= 5, "{registered_at}");
    let _second_login = server.login("Ren\u{e9}");
    eventually("it is seen again", || user(&server).unwrap().2 > registered_at);
    assert_eq!(user(&server).unwrap().1, registered_at);
}

#[test]
fn a_login_that_is_not_answered_with_yes_is_an_error_for_the_client() {
    let server = Server::start_default();
    match server.connect().login("a\tb") {
        Err(ClientError::Refused { tips }) => assert!(tips.contains("please leave it out"), "{tips}"),
        other => panic!("{other:?}"),
    }
}
