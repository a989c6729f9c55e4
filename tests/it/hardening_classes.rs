//! Classes of faults that servers of this kind have had, where one test shows that this one has not. The whole table, with the tests of
//! other modules, is `tests/data/hardening.toml`.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use chatserver::client::Connection;
use chatserver::protocol::{Chat, LoginAnswer, Message, NoticeCode};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::control::{number, status};
use crate::hardening::*;
use crate::harness::*;
use crate::wire::*;

/// A connection that has logged in, with its answer read.
fn logged_in(server: &Server, name: &str, level: u32) -> Connection {
    let mut connection = server.connect().open().unwrap();
    let login = Message::ClientLogin { name, version: 1.0, time: 7, level: Some(level), last_seq: None };
    connection.write_message(&login).unwrap();
    let granted = connection.read_message(PATIENCE, |message| match message {
        Message::ServerAcceptLogin(LoginAnswer { login: true, granted, .. }) => {
            granted.map_or(1, |granted| granted.level)
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(granted.unwrap(), Some(level));
    connection
}

/// Hardening: length underflow (ngIRCd CVE-2005-0199): a length below the header's is refused before anything is computed from it, whatever
/// follows, before and after the login.
#[test]
fn no_length_below_the_shortest_packet_is_taken() {
    let server = Server::start(|setup| setup.set("login_timeout", "1 h"));
    let mut pair = Pair::of(&server, "ann", "bob");
    let before_kib = server.rss_kib();
    for level in 0..=2 {
        for length in 0..24 {
            for data in [0, 1, 4096] {
                let mut connection = match level {
                    0 => server.connect().open().unwrap(),
                    level => logged_in(&server, "mallory", level),
                };
                let bytes = [header(length, 5), vec![0xff; data]].concat();
                // It may close before it has all of them.
                let _ = connection.write_raw(&bytes);
                let (packets, _) = connection.read_to_close(PATIENCE).unwrap();
                let said: Vec<String> = packets.iter().map(|packet| meaning(&packet.bytes)).collect();
                let is_told = said.iter().all(|said| said.contains("BadPacket"));
                assert!(is_told && said.len() <= usize::from(level == 2), "length {length}: {said:?}");
            }
        }
        pair.chat();
    }
    assert!(server.rss_kib().saturating_sub(before_kib) < 2048, "from {before_kib} to {} KiB", server.rss_kib());
}

/// Hardening: deep nesting on a small stack (prost RUSTSEC-2020-0002, rust-protobuf RUSTSEC-2024-0437): 10,000 groups inside each other, alone
/// or with unknown fields in each, are an error on the stack that a connection has; 10,000 unknown fields beside each other are skipped.
#[test]
fn deep_nesting_ends_its_own_connection() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "ann", "bob");
    let fields = |kind: u32| match kind {
        3 | 4 => [integer(1, 1), integer(2, 7)].concat(),
        5 => [string(1, b"mallory"), string(2, b"ann"), string(3, b"deep"), integer(4, 7)].concat(),
        _ => integer(1, 1),
    };
    let nested = |depth: usize, inside: &[u8], is_closed: bool| {
        let begin = [&[15 << 3 | 3][..], inside].concat().repeat(depth);
        [begin, vec![15 << 3 | 4; if is_closed { depth } else { 0 }]].concat()
    };
    let unknown = integer(14, 3);
    for kind in [3, 4, 5, 102] {
        for (what, more) in [
            ("groups", nested(10_000, b"", true)),
            ("groups that do not end", nested(10_000, b"", false)),
            ("groups with a field in each", nested(10_000, &unknown, true)),
            ("one group too many", nested(101, b"", true)),
        ] {
            let mut mallory = logged_in(&server, "mallory", 2);
            mallory.write_raw(&sealed(kind, &[fields(kind), more].concat())).unwrap();
            let (packets, _) = mallory.read_to_close(PATIENCE).unwrap();
            let said: Vec<String> = packets.iter().map(|packet| meaning(&packet.bytes)).collect();
            assert!(said.len() == 1 && said[0].contains("BadPacket"), "type {kind}, {what}: {said:?}");
            pair.chat();
        }
    }
    // Before the login, on the same stack.
    let login = [string(1, b"mallory"), float(2, 1.0), integer(3, 7)].concat();
    let mut stranger = server.connect().open().unwrap();
    stranger.write_raw(&sealed(1, &[login, nested(900, b"", true)].concat())).unwrap();
    assert_eq!(stranger.read_to_close(PATIENCE).unwrap().0, []);
    // Not nested, it is only much.
    let mut carol = server.login("carol");
    let chat = [string(1, b"carol"), string(2, b"dave"), string(3, b"wide"), integer(4, 7), unknown.repeat(10_000)];
    carol.connection().write_raw(&sealed(5, &chat.concat())).unwrap();
    carol.roundtrip().unwrap();
    assert_eq!(all_texts(&mut server.login("dave")), ["wide"]);
    assert_eq!(number(&status(&server), "counts.panics"), 0);
}

/// Hardening: packets of a closed session still executed (Mosquitto CVE-2021-34434): nothing that was buffered behind a logout, a fault or
/// a takeover is executed.
#[test]
fn nothing_that_is_buffered_behind_the_end_of_a_session_is_executed() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    let too_late = chat("bob", "ann", "too late").repeat(50);
    for (what, end) in [
        ("a logout", logout()),
        ("a forged sender", chat("eve", "ann", "forged")),
        ("a second login", login("bob")),
        ("a bad body", with_body(5, &[7; 32])),
        ("a bad length", header(9, 5)),
    ] {
        for level in [1, 2] {
            let mut bob = logged_in(&server, "bob", level);
            let bytes = [chat("bob", "ann", "in time"), end.clone(), too_late.clone()].concat();
            // All of it in one write, and so most likely in one read.
            let _ = bob.write_raw(&bytes);
            bob.read_to_close(PATIENCE).unwrap();
            eventually("its thread ends", || !server.has_thread("bob"));
            assert_eq!(all_texts(&mut ann), ["in time"], "{what}, level {level}");
        }
    }
    // What a replaced connection had not been read of is discarded; what was executed is a prefix of it, and nothing comes later.
    let sent = numbered("n", 5000);
    let stream: Vec<u8> = sent.iter().flat_map(|text| chat("bob", "ann", text)).collect();
    for _ in 0..20 {
        let mut old = logged_in(&server, "bob", 1);
        let writing = {
            let mut socket = old.stream().try_clone().unwrap();
            let stream = stream.clone();
            // It may be cut off by the takeover.
            std::thread::spawn(move || drop(socket.write_all(&stream)))
        };
        let mut new = server.login("bob");
        new.send("ann", "from the new one").unwrap();
        new.roundtrip().unwrap();
        let _ = old.read_to_close(PATIENCE);
        writing.join().unwrap();
        let got = all_texts(&mut ann);
        let (last, before) = got.split_last().unwrap();
        assert_eq!(last, "from the new one", "nothing of the old one is executed after the new one's answer");
        assert_eq!(before, &sent[..before.len()], "and before it a prefix, in order");
    }
}

/// Hardening: identity taken from the packet (a server of 2014 and its successor): every packet type × nobody yet, the wrong direction,
/// another's name, replaced. All are refused, and nobody's messages move.
#[test]
fn nobody_acts_for_another() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    send_all(&mut ann, "victim", &["private"]);
    eventually("it waits", || server.rows_of("victim") == 1);
    let of_a_client = [
        packet(&Message::ClientLogout { logout: true, time: 7 }),
        packet(&Message::ClientPing { ping: true, time: 7 }),
        chat("victim", "ann", "forged"),
        chat("ann", "ann", "forged"),
        packet(&Message::Chat(Chat { from: "victim", to: "ann", text: "forged", msg_id: Some(1), ..Chat::default() })),
        packet(&Message::ClientAck { seq: u64::MAX }),
    ];
    let of_the_server = [
        packet(&Message::ServerAcceptLogin(LoginAnswer { login: true, ..LoginAnswer::default() })),
        packet(&Message::ServerNotice { code: NoticeCode::Replaced, text: "go away" }),
        packet(&Message::ServerPong { time: 7 }),
        sealed(101, &[string(1, &[1]), integer(2, 2)].concat()),
    ];
    // Types that a dialect uses to fetch and delete the messages of whoever is named in them, and types of nobody.
    let of_a_dialect: Vec<Vec<u8>> =
        (6..=21).chain([22, 100, 105, 999]).map(|kind| sealed(kind, &string(1, b"victim"))).collect();
    let refused = |connection: &mut Connection, what: &str, bytes: &[u8]| {
        // It may be closed already.
        let _ = connection.write_raw(bytes);
        let (packets, _) = connection.read_to_close(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"));
        for said in packets.iter().map(|packet| meaning(&packet.bytes)) {
            assert!(
                !said.contains("private") && !said.contains("forged") && !said.contains("login: true"),
                "{what}: {said}"
            );
        }
    };
    for bytes in of_a_client.iter().chain(&of_the_server).chain(&of_a_dialect) {
        refused(&mut server.connect().open().unwrap(), "nobody yet", bytes);
    }
    for level in [1, 2] {
        for bytes in of_the_server.iter().chain(&of_a_dialect).chain(&of_a_client[2..5]).chain([&login("victim")]) {
            refused(&mut logged_in(&server, "mallory", level), "logged in as another", bytes);
        }
        for bytes in of_a_client.iter().chain(&of_the_server).chain(&of_a_dialect) {
            let mut replaced = logged_in(&server, "mallory", level);
            let _present = logged_in(&server, "mallory", level);
            refused(&mut replaced, "replaced", bytes);
        }
    }
    // A level-1 client has no acks; a level-2 client's ack is about its own messages.
    refused(&mut logged_in(&server, "mallory", 1), "an ack at level 1", &of_a_client[5]);
    let mut mallory = logged_in(&server, "mallory", 2);
    mallory.write_raw(&of_a_client[5]).unwrap();
    let corrected = mallory.read_message(PATIENCE, |message| matches!(message, Message::ServerNotice { .. }));
    assert_eq!(corrected.unwrap(), Some(true));
    assert_eq!(all_texts(&mut ann), [""; 0], "nobody has spoken in another's name");
    assert_eq!(all_texts(&mut server.login("victim")), ["private"], "and nobody has read or deleted it");
}

/// Hardening: reload weakens security (Mosquitto CVE-2017-7652, CVE-2018-12550): a configuration that is cut off, or that cannot be opened
/// for want of descriptors, changes nothing; the limits stay in force.
#[test]
fn a_configuration_that_is_cut_off_or_cannot_be_opened_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    let settings = "max_strangers = 2\nread_timeout = \"1 h\"\nlanguage = \"zh\"\n";
    fs::write(&file, settings).unwrap();
    let server = Server::start(|setup| setup.argument("--config").argument(file.to_str().unwrap()));
    let mut pair = Pair::of(&server, "ann", "bob");
    let mut reloads = 0;
    let mut stays = |why: &str| {
        server.signal(Signal::HUP);
        reloads += 1;
        eventually(why, || server.logged("the configuration stays as it was") == reloads);
    };
    // A file that is being written, or was not for want of room, ends anywhere; where it ends in the middle of a line it is noticed.
    let in_a_line =
        (1..settings.len()).filter(|&end| !settings[..end].ends_with('\n') && !settings[end..].starts_with('\n'));
    let cut: Vec<&str> =
        in_a_line.map(|end| &settings[..end]).filter(|text| text.parse::<toml::Table>().is_err()).collect();
    assert!(cut.len() > 40, "{}", cut.len());
    for text in cut {
        fs::write(&file, text).unwrap();
        stays(text);
    }
    fs::write(&file, "max_strangers = 1000\n").unwrap();
    let pid = Pid::from_raw(server.pid().cast_signed());
    let limit = |current| prlimit(pid, Resource::Nofile, current).unwrap();
    let normal = limit(Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum });
    stays("no descriptors");
    limit(normal);
    server.wait_for_log("Too many open files");
    // Still two strangers, and no third.
    let strangers: Vec<_> = (0..2).map(|_| server.socket()).collect();
    eventually("two are let in", || number(&status(&server), "connections.strangers") == 2);
    assert!(server.connect().login("a third").is_err());
    drop(strangers);
    eventually("they are gone", || number(&status(&server), "connections.strangers") == 0);
    let refusal = server.connect().login("no\u{7}body").unwrap_err().to_string();
    assert!(refusal.contains("用户名"), "{refusal}");
    pair.chat();
}

/// Hardening: padding oracle, timing (Vaudenay 2002): bad padding and bad content have the same answer, the same log line, the same count, and
/// the same close, in every state.
#[test]
fn bad_padding_and_bad_content_are_one_error() {
    let server = Server::start_default();
    let good = [string(1, b"mallory"), string(2, b"ann"), string(3, b"hello"), integer(4, 7)].concat();
    let mut bad_padding = sealed(5, &good);
    let last = bad_padding.len() - 1;
    bad_padding[last] ^= 0x55;
    // Every other value of the byte that the padding is told by, and contents that are wrong early and late.
    let mut bodies = vec![bad_padding];
    bodies.extend((1..=255).map(|byte| {
        let mut spoiled = sealed(5, &good);
        // The last byte of the block before the last: it changes the last byte of the padding, and all of its own block.
        let before_last = spoiled.len() - 17;
        spoiled[before_last] ^= byte;
        spoiled
    }));
    bodies.extend([sealed(5, b""), sealed(5, &good[..good.len() - 1]), sealed(5, &[0xff; 64]), sealed(5, &good[2..])]);
    for level in [1, 2] {
        let mut first = None;
        for body in &bodies {
            let mut mallory = logged_in(&server, "mallory", level);
            mallory.write_raw(body).unwrap();
            let (packets, reset) = mallory.read_to_close(PATIENCE).unwrap();
            let answer = (packets.into_iter().map(|packet| packet.bytes).collect::<Vec<_>>(), reset);
            assert_eq!(first.get_or_insert_with(|| answer.clone()), &answer, "level {level}");
        }
    }
    let lines = || -> Vec<String> {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("the body cannot be read"));
        lines.map(|line| line.split(": ").skip(1).collect::<Vec<_>>().join(": ")).collect()
    };
    eventually("each has a line", || lines().len() == 2 * bodies.len());
    let lines = lines();
    let other = lines.iter().find(|line| **line != lines[0]);
    assert_eq!(other, None, "one sentence for all, not {:?} for some", lines[0]);
    assert_eq!(number(&status(&server), "counts.error_body"), 2 * bodies.len() as i64);
}

/// Hardening: secrets readable or logged (Mosquitto CVE-2017-9868): passwords, too, are in no log line, in no answer, and in no file of the server.
#[test]
fn no_password_is_logged_or_kept() {
    const PASSWORDS: [&str; 2] = ["correct horse battery", "staple of the relay"];
    let server = Server::start(|setup| {
        setup
            .set("log_level", "trace")
            .set("save_interval", "20 ms")
            .set("mail_to", "ops@example.org")
            .set("smtp_host", "127.0.0.1")
            .set("smtp_port", "1")
            .set("smtp_user", "chat")
            .set("smtp_tls", "starttls")
            .set("smtp_password", PASSWORDS[1])
            .set("report_interval", "1 s")
    });
    // Field 5 of a login is for a password.
    let fields = [string(1, b"ann"), float(2, 1.0), integer(3, 7), integer(4, 2), string(5, PASSWORDS[0].as_bytes())];
    let mut ann = server.connect().open().unwrap();
    ann.write_raw(&sealed(1, &fields.concat())).unwrap();
    let answer = ann.read_packet(PATIENCE).unwrap().unwrap();
    assert!(meaning(&answer.bytes).contains("login: true"));
    ann.write_message(&Message::Chat(Chat { from: "ann", to: "bob", text: "hello", ..Chat::default() })).unwrap();
    eventually("it is saved", || server.rows() == 1);
    // A login that is cut short, and one to a name that nobody can have.
    let mut broken = server.connect().open().unwrap();
    broken.write_raw(&sealed(1, &[fields[1..].concat(), string(1, b"no\nbody")].concat())).unwrap();
    broken.read_to_close(PATIENCE).unwrap();
    server.wait_for_log("is tried again");
    let status = status(&server).to_string();
    for password in PASSWORDS {
        assert!(!server.log().contains(password) && !status.contains(password), "{password:?} is told");
        for entry in fs::read_dir(server.data()).unwrap() {
            let path = entry.unwrap().path();
            // A socket and a directory are no files.
            let Ok(bytes) = fs::read(&path) else { continue };
            let found = bytes.windows(password.len()).any(|window| window == password.as_bytes());
            assert!(!found, "{password:?} is in {}", path.display());
        }
    }
    assert!(server.log().contains("[DEBUG]"), "the level is in force");
}

/// Hardening: another protocol on the port (Mosquitto, Ergo #2239): greetings of HTTP, TLS and SSH are cut at once, not at a deadline, with a
/// line that says what came; nothing is answered.
#[test]
fn other_protocols_are_cut_at_once_with_a_line_that_names_them() {
    let server = Server::start(|setup| setup.set("login_timeout", "1 h"));
    let mut pair = Pair::of(&server, "ann", "bob");
    let at_rest = at_rest(&server);
    for (protocol, greeting) in [
        ("HTTP", &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]),
        ("HTTP", b"POST /login HTTP/1.1\r\nContent-Length: 9999\r\n\r\n"),
        ("HTTP", b"CONNECT mail.example.org:25 HTTP/1.1\r\n\r\n"),
        ("HTTP", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS", &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
    ] {
        // Whole, and no more than what a length takes.
        for bytes in [greeting, &greeting[..4]] {
            let line = format!("this looks like {protocol}, not like a chat client");
            let before = server.logged(&line);
            let started = Instant::now();
            let mut stranger = server.connect().open().unwrap();
            stranger.write_raw(bytes).unwrap();
            let (packets, _) = stranger.read_to_close(PATIENCE).unwrap();
            assert!(started.elapsed() < Duration::from_secs(5), "{protocol}: after {:?}", started.elapsed());
            assert_eq!(packets, [], "{protocol}");
            eventually(&line, || server.logged(&line) == before + 1);
        }
        pair.chat();
    }
    until_at_rest(&server, &at_rest);
}
