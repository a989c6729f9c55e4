//! Bytes in, expected answer or close: the table of bad input in PROTOCOL.md, line by line.
//!
//! Every case is sent by a connection of its own, before or after its login. What it ends is that connection and no other: after
//! each case a pair that was there before still talks. A user whose connection was ended is offline: the next message waits.

use std::io::{Read, Write};

use chatserver::protocol::{Chat, LoginAnswer, Message};

use crate::harness::*;
use crate::wire::*;

/// What happens to the connection that sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expect {
    /// It is closed, and the log says why.
    Close(&'static str),
    /// It lives on, and nothing was relayed.
    Dropped,
    /// It lives on, and the text was relayed.
    Relayed(&'static str),
}
use Expect::{Close, Dropped, Relayed};

const BAD_BODY: Expect = Close("the body cannot be read (wrong key, or a malformed message)");

/// What is wrong with any connection, logged in or not.
fn always() -> Vec<(String, Vec<u8>, Expect)> {
    let mut cases = Vec::new();
    let mut case = |what: &str, bytes: Vec<u8>, expect| cases.push((what.to_owned(), bytes, expect));
    for length in [0, 1, 4, 7, 8, 9, 23] {
        case(&format!("length {length}"), header(length, 1), Close("is below the minimum of 24"));
        case(
            &format!("length {length} and data"),
            [header(length, 1), vec![9; 64]].concat(),
            Close("is below the minimum of 24"),
        );
    }
    case("half a header with length 0", vec![0; 4], Close("is below the minimum of 24"));
    for length in [65_537, 65_544, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX - 7, u32::MAX] {
        case(&format!("length {length}"), header(length, 5), Close("is above the maximum of 65536"));
    }
    for length in [25, 31, 39, 41, 65_535, 65_536] {
        case(&format!("length {length}"), header(length, 5), Close("is not a multiple of 16"));
    }
    for kind in std::iter::once(0).chain(6..=21).chain([22, 100, 101, 102, 103, 104, 105, 1 << 31, u32::MAX]) {
        case(&format!("type {kind}"), sealed(kind, b""), Close("unknown packet type"));
    }
    let answer = packet(&Message::ServerAcceptLogin(LoginAnswer {
        login: true,
        tips: "welcome",
        time: 7,
        ..LoginAnswer::default()
    }));
    case("a server's packet", answer, Close("packet type 2 is the server's to send"));
    for (protocol, greeting) in [
        ("HTTP", &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]),
        ("HTTP", b"POST /login HTTP/1.1\r\n\r\n"),
        ("HTTP", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS", &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
    ] {
        let line = match protocol {
            "HTTP" => "this looks like HTTP, not like a chat client",
            "TLS" => "this looks like TLS, not like a chat client",
            _ => "this looks like SSH, not like a chat client",
        };
        case(&format!("the greeting {}", greeting.escape_ascii()), greeting.to_vec(), Close(line));
    }
    cases
}

/// The fields of a message, to leave one out or spoil one.
fn spoiled(kind: u32, fields: &[Vec<u8>]) -> Vec<(String, Vec<u8>, Expect)> {
    let mut cases = Vec::new();
    for missing in 0..fields.len() {
        let rest: Vec<u8> =
            fields.iter().enumerate().filter(|(i, _)| *i != missing).flat_map(|(_, field)| field.clone()).collect();
        cases.push((format!("type {kind} without field {}", missing + 1), sealed(kind, &rest), BAD_BODY));
    }
    let good = fields.concat();
    let mut bad_padding = sealed(kind, &good);
    let last = bad_padding.len() - 1;
    bad_padding[last] ^= 0x55;
    let mut cut = good.clone();
    cut.pop();
    for (what, bytes) in [
        ("with bad padding", bad_padding),
        ("with a body of noise", with_body(kind, &[0x5a; 48])),
        ("with an empty message", sealed(kind, b"")),
        ("cut short inside", sealed(kind, &cut)),
        (
            "with a string longer than the body",
            sealed(kind, &[&good[..], &[10, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat()),
        ),
        ("with an endless varint", sealed(kind, &[&good[..], &[0x78], &[0xff; 12]].concat())),
        ("with field 0", sealed(kind, &[&good[..], &[0x02, 0x00]].concat())),
        (
            "with a field of the wrong wire type",
            sealed(kind, &[integer(1, 1), string(2, b"x"), string(3, b"y"), string(4, b"z")].concat()),
        ),
        ("with 10,000 nested groups", sealed(kind, &[&good[..], &[0x7b; 10_000]].concat())),
    ] {
        cases.push((format!("type {kind} {what}"), bytes, BAD_BODY));
    }
    cases
}

fn before_login() -> Vec<(String, Vec<u8>, Expect)> {
    let mut cases = always();
    for (what, bytes) in [
        ("a logout", logout()),
        ("a ping", packet(&Message::ClientPing { ping: true, time: 7 })),
        ("a chat", chat("mallory", "ann", "hello")),
        ("a chat from somebody who is there", chat("ann", "bob", "hello")),
    ] {
        cases.push((format!("{what} before the login"), bytes, Close("before login")));
    }
    cases.extend(spoiled(1, &[string(1, b"mallory"), float(2, 1.0), integer(3, 7)]));
    for name in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf"] {
        let login = sealed(1, &[string(1, name), float(2, 1.0), integer(3, 7)].concat());
        cases.push((format!("the name {} in a login", name.escape_ascii()), login, BAD_BODY));
    }
    cases
}

fn after_login() -> Vec<(String, Vec<u8>, Expect)> {
    let mut cases = always();
    let second = Close("second login on one connection");
    cases.push(("a second login".into(), login("mallory"), second));
    cases.push(("a login as somebody else".into(), login("ann"), second));
    for from in ["ann", "Mallory", "mallory ", "", "mallory\0"] {
        let forged = Close("the sender is not the user who logged in here");
        cases.push((format!("the sender {from:?}"), chat(from, "sink", "forged"), forged));
    }
    let fields = [string(1, b"mallory"), string(2, b"sink"), string(3, b"hello"), integer(4, 7)];
    cases.extend(spoiled(5, &fields));
    cases.extend(spoiled(4, &[integer(1, 1), integer(2, 7)]));
    cases.extend(spoiled(3, &[integer(1, 1), integer(2, 7)]));
    for number in 0..3 {
        let mut bad = fields.clone();
        bad[number] = string(number as u8 + 1, b"sink\xff");
        cases.push((format!("invalid UTF-8 in field {}", number + 1), sealed(5, &bad.concat()), BAD_BODY));
    }
    for to in ["", " sink", "sink\n", "si\u{200b}nk", &"x".repeat(129)] {
        cases.push((format!("the recipient {to:?}"), chat("mallory", to, "lost"), Dropped));
    }
    cases.push(("a text above the limit".into(), chat("mallory", "sink", &"x".repeat(60_001)), Dropped));
    cases.push(("an empty text".into(), chat("mallory", "sink", ""), Relayed("")));
    cases.push(("a text of NULs".into(), chat("mallory", "sink", "\0\0"), Relayed("\0\0")));
    cases
}

#[test]
fn before_the_login_every_fault_ends_its_connection_and_no_other() {
    // With the same limit before the login as after it the table is the same, too.
    let server = Server::start(|setup| setup.set("login_timeout", "1 h").set("max_stranger_packet_bytes", "64 KiB"));
    let mut pair = Pair::of(&server, "ann", "bob");
    for (what, bytes, expect) in before_login() {
        let Close(line) = expect else { panic!("{what}: nothing but a login is let live before the login") };
        let before = server.logged(line);
        let mut connection = server.connect().open().unwrap();
        connection.write_raw(&bytes).unwrap();
        let (packets, _) = connection.read_to_close(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(packets, [], "{what}");
        eventually(&format!("{what}: a log line with {line:?}"), || server.logged(line) > before);
        pair.chat();
    }
    assert_eq!(server.logged("panic"), 0);
}

#[test]
fn after_the_login_every_fault_has_its_consequence_for_its_sender_alone() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut pair = Pair::of(&server, "ann", "bob");
    let mut sink = server.login("sink");
    let mut expected_rows = 0;
    for (what, bytes, expect) in after_login() {
        let mut mallory = server.login("mallory");
        mallory.roundtrip().unwrap();
        while let Some(waited) = mallory.recv(std::time::Duration::ZERO).unwrap() {
            assert_eq!(waited.text, "are you there?", "{what}");
        }
        eventually("what waited counts as read once its reader says something more, and leaves the disk", || {
            mallory.ping().unwrap();
            server.rows_of("mallory") == 0
        });
        mallory.connection().write_raw(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        match expect {
            Close(line) => {
                let (packets, _) =
                    mallory.connection().read_to_close(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(packets, [], "{what}");
                drop(mallory);
                eventually(&format!("{what}: a log line about mallory with {line:?}"), || {
                    server.log().lines().any(|log| log.contains("mallory: ") && log.contains(line))
                });
                eventually(&format!("{what}: her thread ends"), || !server.has_thread("mallory"));
                send_all(&mut sink, "mallory", &["are you there?"]);
                eventually(&format!("{what}: she is offline, so a message waits"), || server.rows_of("mallory") == 1);
                expected_rows = 1;
            }
            Dropped => {
                mallory.roundtrip().unwrap_or_else(|error| panic!("{what}: {error}"));
                mallory.logout().unwrap();
            }
            Relayed(text) => {
                mallory.roundtrip().unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(next(&mut sink).text, text, "{what}");
                mallory.logout().unwrap();
            }
        }
        assert_eq!(all_texts(&mut sink), [""; 0], "{what}: nothing else was relayed");
        pair.chat();
    }
    assert_eq!(expected_rows, 1, "the table has cases that end the connection");
    server.wait_for_log("message dropped: nobody can have its recipient's name");
    server.wait_for_log("message dropped: its text is longer than max_text_bytes");
    assert_eq!(server.logged("message dropped"), 2, "one line a minute, however many there are");
    assert_eq!(server.logged("panic"), 0);
}

#[test]
fn what_follows_a_fault_in_the_same_write_is_not_executed() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    for fault in [header(0, 0), sealed(6, b""), chat("somebody", "ann", "forged"), login("mallory")] {
        let mut mallory = server.login("mallory");
        let stream = [chat("mallory", "ann", "before"), fault, chat("mallory", "ann", "after")].concat();
        mallory.connection().write_raw(&stream).unwrap();
        expect_close(&mut mallory);
        assert_eq!(all_texts(&mut ann), ["before"]);
    }
}

#[test]
fn a_close_for_a_fault_does_not_swallow_what_was_on_its_way() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    let mut mallory = server.login("mallory");
    let sent = numbered("on its way", 200);
    send_all(&mut ann, "mallory", &sent);
    // More than the fault itself lies unread in the server's socket when it closes.
    mallory.connection().write_raw(&[header(0, 0), vec![7; 20_000]].concat()).unwrap();
    let (packets, _) = mallory.connection().read_to_close(PATIENCE).unwrap();
    assert_eq!(packets.len(), 200);
}

#[test]
fn announced_lengths_reserve_no_memory() {
    let server = Server::start(|setup| setup.set("login_timeout", "1 h").set("max_stranger_packet_bytes", "64 KiB"));
    let count = 200;
    let open = |bytes: &[u8]| {
        let mut socket = server.socket();
        socket.write_all(bytes).unwrap();
        socket
    };
    // The longest legal packet, announced and not sent. The first round warms the allocator up.
    let quiet: Vec<_> = (0..count).map(|_| open(&header(24, 1)[..3])).collect();
    eventually("all have threads", || server.threads().len() > count);
    let before = server.rss_kib();
    let announced: Vec<_> = (0..count).map(|_| open(&header(65_528, 1))).collect();
    eventually("all have threads", || server.threads().len() > 2 * count);
    let grown = server.rss_kib().saturating_sub(before);
    // A thread has its stack's first pages and its buffer; 64 KiB each would be 12,800 KiB.
    assert!(grown < 32 * count as u64, "{grown} KiB for {count} connections");
    drop((quiet, announced));
}

#[test]
fn a_fault_from_a_client_that_reads_nothing_ends_it_all_the_same() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "ann", "bob");
    let mut sockets: Vec<_> = (0..50).map(|_| server.socket()).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.write_all(&[login(&format!("user {number}")), vec![0; 64]].concat()).unwrap();
    }
    // They neither read nor close.
    eventually("all are told of", || server.logged("is below the minimum of 24") == 50);
    eventually("their threads have ended", || server.connection_threads() == ["ann", "bob"]);
    pair.chat();
    let mut rest = Vec::new();
    let _ = sockets[0].read_to_end(&mut rest);
    assert!(meaning(&rest).contains("login: true"));
}

#[test]
fn an_opened_packet_is_judged_by_its_meaning_alone() {
    let server = Server::start_default();
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    // A bool of 2, a varint longer than needed: legal protobuf. What arrives is as any sender would have written it.
    let text = [string(1, b"ann"), string(2, b"bob"), string(3, b"hello"), vec![4 << 3, 0x87, 0x00]].concat();
    ann.connection().write_raw(&sealed(4, &[integer(1, 2), integer(2, 7)].concat())).unwrap();
    ann.connection().write_raw(&sealed(5, &text)).unwrap();
    let expected = packet(&Message::Chat(Chat { from: "ann", to: "bob", text: "hello", time: 7, ..Chat::default() }));
    assert_eq!(bob.connection().read_packet(PATIENCE).unwrap().unwrap().bytes, expected);
}
