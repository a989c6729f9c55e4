//! The Wireshark dissector, `contrib/wireshark/chatserver.lua`, in the installed tshark: what it shows of a packet is what the server's own decoder reads,
//! however TCP has cut the stream. The captures come from a relay between clients and a live server, and from recordings of clients of 2014.
//!
//! Read first: `docs/wireshark.md`, tshark(1).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatserver::capture::{Direction, Resolution, Writer};
use chatserver::client::{Client, Connection};
use chatserver::protocol::{Chat, Cipher, Decoder, Frame, Message, PUBLISHED_KEY};
use parking_lot::Mutex;

use crate::hardening::{Dice, skipped};
use crate::harness::*;
use crate::wire;

const DISSECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/wireshark/chatserver.lua");
const TIME: i64 = 1_795_356_894;

/// Bytes that one end of a connection wrote.
#[derive(Clone)]
struct Passed {
    connection: usize,
    direction: Direction,
    time: SystemTime,
    bytes: Vec<u8>,
}

/// Whether there is a tshark; if not, says so.
fn has_tshark(test: &str) -> bool {
    let has = Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has {
        skipped(test, "no tshark");
    }
    has
}

/// What tshark prints of a capture, with the dissector and nothing of the user's own; no error of Lua may be in it.
#[track_caller]
fn tshark(capture: &[u8], arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.pcap");
    std::fs::write(&file, capture).unwrap();
    std::fs::copy(Path::new(DISSECTOR).with_file_name("colorfilters"), dir.path().join("colorfilters")).unwrap();
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", dir.path()).env("LC_ALL", "C.UTF-8").arg("-r").arg(&file);
    command.args(["-n", "-2", "-X", &format!("lua_script:{DISSECTOR}")]).args(arguments);
    let output = run(command, "");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}: {err}", output.status);
    let complaints: Vec<&str> = err.lines().filter(|line| !line.starts_with("Running as user")).collect();
    assert_eq!(complaints, [""; 0], "on standard error");
    for error in ["Lua Error", "lua.error", "Dissector bug", "DissectorError"] {
        assert!(!out.contains(error), "{error}: {}", out.lines().find(|line| line.contains(error)).unwrap());
    }
    out
}

/// A capture of what passed, in segments of at most so many bytes. The server's port is the dissector's, unless `port` says otherwise.
fn capture(passed: &[Passed], segment_bytes: usize, port: u16) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, Resolution::Nanoseconds).unwrap().segment_bytes(segment_bytes);
    let mut connections = BTreeMap::new();
    for piece in passed {
        let connection = *connections.entry(piece.connection).or_insert_with(|| {
            let client = SocketAddr::from(([192, 0, 2, 1], 40_000 + piece.connection as u16));
            writer.open(client, SocketAddr::from(([192, 0, 2, 2], port)), piece.time).unwrap()
        });
        writer.data(connection, piece.direction, &piece.bytes, piece.time).unwrap();
    }
    file
}

/// Forwards connections to the server, and writes down what passes before it does.
fn relay(server: &str) -> (String, Arc<Mutex<Vec<Passed>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, server) = (listener.local_addr().unwrap().to_string(), server.to_owned());
    let record = Arc::new(Mutex::new(Vec::new()));
    let mine = record.clone();
    thread::spawn(move || {
        for (connection, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let Ok(upstream) = TcpStream::connect(&server) else { return };
            let ways = [(&client, &upstream, Direction::ToServer), (&upstream, &client, Direction::ToClient)];
            for (from, to, direction) in ways {
                let (from, to, record) = (from.try_clone().unwrap(), to.try_clone().unwrap(), mine.clone());
                thread::spawn(move || pass(from, to, connection, direction, &record));
            }
        }
    });
    (addr, record)
}

fn pass(mut from: TcpStream, mut to: TcpStream, connection: usize, direction: Direction, record: &Mutex<Vec<Passed>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = buffer[..read].to_vec();
        record.lock().push(Passed { connection, direction, time: SystemTime::now(), bytes });
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Reads packets up to the first whose meaning has all of these words.
#[track_caller]
fn expect(connection: &mut Connection, words: &[&str]) -> Vec<u8> {
    loop {
        let packet = connection.read_packet(PATIENCE).unwrap().unwrap_or_else(|| panic!("{words:?} did not come"));
        let meaning = wire::meaning(&packet.bytes);
        if words.iter().all(|word| meaning.contains(word)) {
            return packet.bytes;
        }
    }
}

/// Everything that passes in a conversation of three: ann and bob at level 2, carol at level 1.
fn conversation() -> Vec<Passed> {
    let server = Server::start_default();
    let (addr, record) = relay(server.addr());
    let login = |name, level| {
        let mut connection = Client::connect(addr.as_str(), PUBLISHED_KEY).timeout(PATIENCE).open().unwrap();
        connection
            .write_message(&Message::ClientLogin { name, version: 3.14, time: TIME, level, last_seq: None })
            .unwrap();
        expect(&mut connection, &["ServerAcceptLogin", "true"]);
        connection
    };
    let chat = |from, to, text, id| Message::Chat(Chat { from, to, text, time: TIME, msg_id: id, seq: None });
    let mut ann = login("ann", Some(2));
    let mut carol = login("carol", None);
    ann.write_message(&chat("ann", "carol", "hello\tcarol", Some(101))).unwrap();
    expect(&mut carol, &["hello"]);
    expect(&mut ann, &["Delivered", "101"]);
    ann.write_message(&chat("ann", "bob", "早上好 ☕", Some(102))).unwrap();
    expect(&mut ann, &["Stored", "102"]);
    let mut bob = login("bob", Some(2));
    let mut acknowledge = |text| {
        let packet = expect(&mut bob, &[text]);
        let mut decoder = Decoder::default();
        let frame = Frame::parse(&packet, usize::MAX).unwrap().unwrap();
        let Message::Chat(chat) = decoder.decode(&Cipher::new(PUBLISHED_KEY).unwrap(), frame).unwrap().message else {
            panic!("a chat was expected")
        };
        bob.write_message(&Message::ClientAck { seq: chat.seq.unwrap() }).unwrap();
    };
    acknowledge("早上好");
    expect(&mut ann, &["Delivered", "102"]);
    ann.write_message(&chat("ann", " nobody has this name", "?", Some(103))).unwrap();
    expect(&mut ann, &["Refused", "103"]);
    ann.write_message(&Message::ClientPing { ping: true, time: TIME + 1 }).unwrap();
    expect(&mut ann, &["ServerPong"]);
    let three = [104, 105, 106].map(|id| packet(&chat("ann", "bob", "one of three", Some(id)))).concat();
    ann.write_raw(&three).unwrap();
    // The last one's ack is for all.
    acknowledge("msg_id: Some(106)");
    expect(&mut ann, &["Delivered", "106"]);
    carol.write_message(&Message::ClientPing { ping: true, time: TIME }).unwrap();
    for mut leaving in [ann, bob, carol] {
        leaving.write_message(&Message::ClientLogout { logout: true, time: TIME }).unwrap();
        leaving.read_to_close(PATIENCE).unwrap();
    }
    let passed = record.lock().clone();
    assert!(passed.len() > 20);
    passed
}

/// The recorded connections of clients of 2014: in turns what the client and the server wrote, packet by packet.
fn recordings() -> Vec<Passed> {
    let mut passed = Vec::new();
    for (connection, name) in ["pair-A", "pair-B", "offline-goclient", "all-types-python"].iter().enumerate() {
        let streams = ["client-to-server", "server-to-client"].map(|direction| {
            let path = format!("{}/tests/data/{name}.{direction}.bin", env!("CARGO_MANIFEST_DIR"));
            wire::packets(&std::fs::read(path).unwrap())
        });
        let turns = streams.iter().map(Vec::len).max().unwrap();
        for turn in 0..turns {
            for (stream, direction) in streams.iter().zip([Direction::ToServer, Direction::ToClient]) {
                passed.extend(stream.get(turn).map(|bytes| Passed {
                    connection: 100 + connection,
                    direction,
                    time: UNIX_EPOCH + Duration::from_secs(TIME as u64 + turn as u64),
                    bytes: bytes.clone(),
                }));
            }
        }
    }
    passed
}

/// All that a client wrote at once, then all that it was sent, so cut that packets neither begin nor end where segments do.
fn joined(passed: &[Passed]) -> Vec<Passed> {
    let mut joined: BTreeMap<(usize, bool), Passed> = BTreeMap::new();
    for piece in passed {
        let all = joined
            .entry((piece.connection, piece.direction == Direction::ToClient))
            .or_insert_with(|| Passed { bytes: Vec::new(), ..piece.clone() });
        all.bytes.extend_from_slice(&piece.bytes);
    }
    let cut = |all: Passed| {
        let bytes = if all.direction == Direction::ToServer { all.bytes.len() } else { 61 };
        all.bytes.chunks(bytes).map(|bytes| Passed { bytes: bytes.to_vec(), ..all.clone() }).collect::<Vec<_>>()
    };
    joined.into_values().flat_map(cut).collect()
}

/// A field's name in filters, and its values in the order of the packets.
type Values = BTreeMap<&'static str, Vec<String>>;

/// What the server's decoder reads in a packet, by the dissector's names.
fn enter(values: &mut Values, cipher: &Cipher, packet: &[u8]) {
    let frame = Frame::parse(packet, usize::MAX).unwrap().unwrap();
    let mut decoder = Decoder::default();
    let mut add = |name, value: String| values.entry(name).or_default().push(value);
    add("chatserver.length", packet.len().to_string());
    add("chatserver.type", u32::from_be_bytes(packet[4..8].try_into().unwrap()).to_string());
    let mut add_some = |name, value: Option<u64>| value.into_iter().for_each(|value| add(name, value.to_string()));
    match decoder.decode(cipher, frame).unwrap().message {
        Message::ClientLogin { name, version, time, level, last_seq } => {
            add_some("chatserver.login.level", level.map(u64::from));
            add_some("chatserver.login.last_seq", last_seq);
            add("chatserver.login.name", name.to_owned());
            add("chatserver.login.version", version.to_string());
            add("chatserver.login.time", time.to_string());
        }
        Message::ServerAcceptLogin(answer) => {
            let granted = answer.granted;
            add_some("chatserver.answer.level", granted.map(|granted| granted.level.into()));
            add_some("chatserver.answer.read_timeout_secs", granted.map(|granted| granted.read_timeout_secs.into()));
            add_some("chatserver.answer.max_packet_bytes", granted.map(|granted| granted.max_packet_bytes.into()));
            add_some("chatserver.answer.last_msg_id", granted.map(|granted| granted.last_msg_id));
            add("chatserver.answer.login", u8::from(answer.login).to_string());
            add("chatserver.answer.text", answer.tips.to_owned());
            add("chatserver.answer.time", answer.time.to_string());
        }
        Message::ClientLogout { logout, time } => {
            add("chatserver.logout.logout", u8::from(logout).to_string());
            add("chatserver.logout.time", time.to_string());
        }
        Message::ClientPing { ping, time } => {
            add("chatserver.ping.ping", u8::from(ping).to_string());
            add("chatserver.ping.time", time.to_string());
        }
        Message::Chat(chat) => {
            add_some("chatserver.chat.msg_id", chat.msg_id);
            add_some("chatserver.chat.seq", chat.seq);
            add("chatserver.chat.from", chat.from.to_owned());
            add("chatserver.chat.to", chat.to.to_owned());
            add("chatserver.chat.text", chat.text.replace('\t', "\\t"));
            add("chatserver.chat.time", chat.time.to_string());
        }
        Message::ServerReceipt(receipt) => {
            receipt.msg_ids.iter().for_each(|&id| add_some("chatserver.receipt.msg_id", Some(id)));
            add_some("chatserver.receipt.reason", receipt.reason.map(|reason| u32::from(reason).into()));
            add("chatserver.receipt.status", (receipt.status as u32).to_string());
            receipt.text.iter().for_each(|&text| add("chatserver.receipt.text", text.to_owned()));
        }
        Message::ClientAck { seq } => add("chatserver.ack.seq", seq.to_string()),
        Message::ServerNotice { code, text } => {
            add("chatserver.notice.code", u32::from(code).to_string());
            add("chatserver.notice.text", text.to_owned());
        }
        Message::ServerPong { time } => add("chatserver.pong.time", time.to_string()),
    }
}

/// The same for all that passed, in the order in which packets become complete.
fn expected(passed: &[Passed], cipher: &Cipher) -> Values {
    let mut streams: BTreeMap<(usize, bool), Vec<u8>> = BTreeMap::new();
    let mut values = Values::new();
    for piece in passed {
        let stream = streams.entry((piece.connection, piece.direction == Direction::ToClient)).or_default();
        stream.extend_from_slice(&piece.bytes);
        while let Some(frame) = Frame::parse(stream, usize::MAX).unwrap() {
            let bytes = frame.packet.len();
            enter(&mut values, cipher, &stream[..bytes]);
            stream.drain(..bytes);
        }
    }
    assert!(streams.values().all(Vec::is_empty), "whole packets");
    values
}

/// What the dissector shows of these fields: a line for each frame, the values of each field in it.
fn fields(capture: &[u8], names: &[&str], arguments: &[&str]) -> Vec<Vec<Vec<String>>> {
    let mut all = vec!["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|", "--color"];
    names.iter().for_each(|name| all.extend(["-e", name]));
    all.extend(arguments);
    let split = |value: &str| value.split('|').filter(|value| !value.is_empty()).map(str::to_owned).collect();
    tshark(capture, &all).lines().map(|line| line.split('\t').map(split).collect()).collect()
}

/// Compares every field that was expected with what the dissector shows; expert infos there must be none.
#[track_caller]
fn compare(capture: &[u8], expected: &Values, arguments: &[&str]) {
    let mut names: Vec<&str> = expected.keys().copied().collect();
    let trouble =
        ["chatserver.bad_padding", "chatserver.bad_length", "chatserver.malformed", "chatserver.missing_field"];
    let others = ["chatserver.unknown_field", "chatserver.unknown_type", "chatserver.cut_off", "chatserver.unknown"];
    names.extend(trouble);
    names.extend(others);
    let mut shown: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in fields(capture, &names, arguments) {
        for (name, values) in names.iter().zip(line) {
            // Newer versions of Wireshark say True and False.
            let as_number = |value: String| match value.as_str() {
                "True" => "1".to_owned(),
                "False" => "0".to_owned(),
                _ => value,
            };
            shown.entry(name).or_default().extend(values.into_iter().map(as_number));
        }
    }
    for name in names {
        assert_eq!(shown[name], expected.get(name).cloned().unwrap_or_default(), "{name}");
    }
}

#[test]
fn wireshark_shows_what_was_sent_however_tcp_cuts_it() {
    if !has_tshark("wireshark_shows_what_was_sent_however_tcp_cuts_it") {
        return;
    }
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let mut passed = conversation();
    let texts = &expected(&passed, &cipher)["chatserver.chat.text"];
    assert_eq!(
        texts.iter().filter(|text| *text == "早上好 ☕").count(),
        2,
        "what ann wrote and what bob got: {texts:?}"
    );
    passed.extend(recordings());
    let as_sent = expected(&passed, &cipher);
    thread::scope(|scope| {
        scope.spawn(|| compare(&capture(&passed, 1400, 8989), &as_sent, &[]));
        scope.spawn(|| compare(&capture(&passed, 1, 8989), &as_sent, &[]));
        let joined = joined(&passed);
        compare(&capture(&joined, 65_000, 8989), &expected(&joined, &cipher), &[]);
        // On any other port: what the first packets say, or the user.
        compare(&capture(&passed, 1400, 12_345), &as_sent, &[]);
        compare(&capture(&passed, 1, 12_345), &as_sent, &["-d", "tcp.port==12345,chatserver"]);
    });
}

#[test]
fn wireshark_links_answers_with_questions() {
    if !has_tshark("wireshark_links_answers_with_questions") {
        return;
    }
    let passed = conversation();
    let sent = expected(&passed, &Cipher::new(PUBLISHED_KEY).unwrap());
    let names = [
        "frame.number",
        "frame.time_relative",
        "chatserver.type",
        "chatserver.response_to",
        "chatserver.response_in",
        "chatserver.response_time",
        "frame.coloring_rule.name",
    ];
    for segment_bytes in [1400, 1] {
        let lines = fields(&capture(&passed, segment_bytes, 8989), &names, &[]);
        let number = |value: &String| value.parse::<usize>().unwrap();
        let seconds = |value: &String| value.parse::<f64>().unwrap();
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for line in &lines {
            let [frame, time, types, to, within, took, _] = &line[..] else { panic!("{line:?}") };
            asked.extend(to.iter().map(|to| (number(to), number(&frame[0]))));
            answered.extend(within.iter().map(|response| (number(&frame[0]), number(response))));
            for to in to {
                let request = &lines[number(to) - 1];
                let fits = |question: &str, answer: &str| {
                    request[2].iter().any(|kind| kind == question) && types.iter().any(|kind| kind == answer)
                };
                let pairs = [("1", "2"), ("4", "104"), ("5", "101"), ("5", "102")];
                assert!(pairs.iter().any(|(question, answer)| fits(question, answer)), "{line:?} answers {request:?}");
            }
            if let ([to], [took]) = (&to[..], &took[..]) {
                let expected = seconds(&time[0]) - seconds(&lines[number(to) - 1][1][0]);
                assert!((seconds(took) - expected).abs() < 1e-6, "{took} s instead of {expected} s");
            }
        }
        asked.sort_unstable();
        answered.sort_unstable();
        assert_eq!(asked, answered, "each link has two ends");
        let count = |name| sent.get(name).map_or(0, Vec::len);
        let links = count("chatserver.answer.time")
            + count("chatserver.pong.time")
            + count("chatserver.receipt.msg_id")
            + count("chatserver.chat.seq");
        assert_eq!(asked.len(), links, "logins, pings, receipts, acknowledged messages");
        let refused = lines.iter().filter(|line| line[6].iter().any(|rule| rule == "Chat: refused")).count();
        assert_eq!(refused, 1, "the rules for colours are read");
    }
}

#[test]
fn wireshark_decrypts_with_every_length_of_key() {
    if !has_tshark("wireshark_decrypts_with_every_length_of_key") {
        return;
    }
    let keys: [(&[u8], &str); 4] = [
        (b"24 bytes: a key for AES.", "24 bytes: a key for AES."),
        (b"0123456789abcdefghijklmnopqrstuv", "hex:303132333435363738396162636465666768696a6b6c6d6e6f70717273747576"),
        (b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\xfe\xff", "base64:AAECAwQFBgcICQoLDA3+/w=="),
        (b"24 bytes: a key for AES.", "32342062797465733a2061206b657920666f72204145532e"),
    ];
    for (key, written) in keys {
        let cipher = Cipher::new(key).unwrap();
        let mut passed = Vec::new();
        let long = "长".repeat(5000);
        for (n, text) in ["short", long.as_str()].iter().enumerate() {
            let chat = Chat { from: "ann", to: "bob", text, time: -1, msg_id: Some((1 << 53) - 1), seq: None };
            let mut bytes = Vec::new();
            Message::Chat(chat).encode(&cipher, &mut bytes);
            passed.push(Passed { connection: n, direction: Direction::ToServer, time: UNIX_EPOCH, bytes });
        }
        compare(
            &capture(&passed, 1400, 8989),
            &expected(&passed, &cipher),
            &["-o", &format!("chatserver.key:{written}")],
        );
    }
}

#[test]
fn wireshark_says_that_the_key_may_be_wrong() {
    if !has_tshark("wireshark_says_that_the_key_may_be_wrong") {
        return;
    }
    let passed = recordings();
    let file = capture(&passed, 1400, 8989);
    let names = [
        "chatserver.type",
        "chatserver.bad_padding",
        "chatserver.no_key",
        "chatserver.chat.text",
        "chatserver.malformed",
    ];
    let count = |key: &str| {
        let mut counts = [0; 5];
        for line in fields(&file, &names, &["-o", &format!("chatserver.key:{key}")]) {
            line.iter().zip(&mut counts).for_each(|(values, count)| *count += values.len());
        }
        counts
    };
    let packets = passed.len();
    // Good padding comes by chance in one of 256.
    let [types, padding, no_key, texts, malformed] = count("abcdef1234567890");
    assert_eq!((types, no_key, texts), (packets, 0, 0));
    assert!(padding + malformed >= packets && padding * 10 >= packets * 9, "{padding} of {packets}");
    assert_eq!(count("too short"), [packets, 0, packets, 0, 0]);
}

#[test]
fn wireshark_survives_damage() {
    if !has_tshark("wireshark_survives_damage") {
        return;
    }
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let mut dice = Dice(7);
    let whole: Vec<Vec<u8>> = recordings()
        .into_iter()
        .map(|piece| piece.bytes)
        .chain(["client-to-server", "server-to-client"].into_iter().flat_map(|direction| {
            let path = format!("{}/tests/data/level2.{direction}.bin", env!("CARGO_MANIFEST_DIR"));
            wire::packets(&std::fs::read(path).unwrap())
        }))
        .collect();
    let mut passed = Vec::new();
    for n in 0..2000 {
        let mut bytes = whole[dice.roll(whole.len())].clone();
        let mut scratch = Vec::new();
        // Half of them are damaged before they are encrypted: there it reaches the protobuf.
        let inside = dice.roll(2) == 0;
        if inside {
            let plain = cipher.open(&bytes[8..], &mut scratch).unwrap();
            let kind = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
            let mut plain = plain.to_vec();
            for _ in 0..=dice.roll(3) {
                let position = dice.roll(plain.len());
                plain[position] ^= 1 << dice.roll(8);
            }
            plain.truncate(plain.len() - dice.roll(2) * dice.roll(plain.len()));
            bytes = wire::sealed(kind, &plain);
        } else {
            let position = dice.roll(bytes.len());
            bytes[position] ^= 1 << dice.roll(8);
        }
        // A wrong length takes what follows with it: few packets for each connection.
        let direction = if dice.roll(2) == 0 { Direction::ToServer } else { Direction::ToClient };
        passed.push(Passed { connection: n / 5, direction, time: UNIX_EPOCH, bytes });
    }
    let shown = tshark(&capture(&passed, 1400, 8989), &["-V", "-O", "chatserver"]);
    for sign in
        ["wrong key?", "Cannot be read as protobuf", "Unknown field", "Required field missing", "A packet has at least"]
    {
        assert!(shown.contains(sign), "{sign}");
    }
    assert!(shown.matches("Chat Protocol, ").count() > 1500);
}

/// The installed Wireshark has one version of Lua, others have another: in a bare interpreter of that one the dissector finds the same.
#[test]
fn the_dissector_runs_with_the_newer_lua() {
    let mut command = Command::new("lua5.4");
    if command.arg("-v").output().is_err() {
        return skipped("the_dissector_runs_with_the_newer_lua", "no lua5.4");
    }
    let cipher = Cipher::new(b"24 bytes: a key for AES.").unwrap();
    let id = (1_u64 << 53) - 1;
    let messages = [
        Message::ClientLogin { name: "ann", version: 3.14, time: TIME, level: Some(2), last_seq: Some(id) },
        Message::Chat(Chat {
            from: "ann", to: "鲍勃", text: "早上好 ☕", time: TIME, msg_id: Some(id), seq: None
        }),
        Message::ClientPing { ping: true, time: TIME },
        Message::ServerPong { time: TIME },
    ];
    let mut packets = Vec::new();
    messages.iter().for_each(|message| message.encode(&cipher, &mut packets));
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(input.path(), &packets).unwrap();
    let mock = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/wireshark/mock.lua");
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec lua5.4 \"$0\" \"$1\" \"$2\" < \"$3\"", mock, DISSECTOR, "24 bytes: a key for AES."])
        .arg(input.path());
    let output = run(command, "");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{shown}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "chatserver.login.name = ann".to_owned(),
        format!("chatserver.login.last_seq = {id}"),
        "chatserver.chat.to = 鲍勃".to_owned(),
        "chatserver.chat.text = 早上好 ☕".to_owned(),
        format!("chatserver.chat.msg_id = {id}"),
        "chatserver.ping.ping = true".to_owned(),
        "chatserver.response_to = 1".to_owned(),
        "chatserver.response_time = 0.000000000".to_owned(),
        format!("info ann logs in, level 2 ┊ ann → 鲍勃: 早上好 ☕ msg_id={id} ┊ ping ┊ pong"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in:\n{shown}");
    }
    assert!(!shown.contains("expert"), "{shown}");
}
