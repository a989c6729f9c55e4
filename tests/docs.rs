//! The documents are checked like code: what they quote, list or explain byte by byte is compared with where it comes from.
//!
//! A test that fails prints the text that the document should have; `UPDATE_DOCS=1 cargo test --test docs` writes it there.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use chatserver::config::{self, Config};
use chatserver::protocol::{Cipher, Frame, NameError, NoticeCode, PUBLISHED_KEY, PacketType, ProtocolError, Status};
use chatserver::server::Server;

const CHINESE: &str = "README.zh-CN.md";

const DOCUMENTS: [&str; 6] = ["README.md", "ARCHITECTURE.md", "PROTOCOL.md", "SECURITY.md", "CHANGELOG.md", CHINESE];

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where in `text` the section between `<!-- NAME: begin -->` and `<!-- NAME: end -->` is.
fn span(document: &str, text: &str, name: &str) -> Range<usize> {
    let mark = |which| format!("<!-- {name}: {which} -->\n");
    let begin = text.find(&mark("begin")).unwrap_or_else(|| panic!("{document} has no section {name}"));
    let begin = begin + mark("begin").len();
    let length = text[begin..].find(&mark("end")).unwrap_or_else(|| panic!("{document}: {name} has no end"));
    begin..begin + length
}

fn section(document: &str, name: &str) -> String {
    let text = read(document);
    text[span(document, &text, name)].to_owned()
}

/// The section must be `expected`, with a blank line on either side.
#[track_caller]
fn assert_current(document: &str, name: &str, expected: &str) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = WRITING.lock();
    let expected = format!("\n{}\n\n", expected.trim());
    let mut text = read(document);
    let span = span(document, &text, name);
    if text[span.clone()] != expected && std::env::var_os("UPDATE_DOCS").is_some() {
        text.replace_range(span, &expected);
        return fs::write(root().join(document), text).unwrap();
    }
    assert!(text[span] == expected, "{document}, section {name}, should be:\n{expected}");
}

#[test]
fn the_readme_quotes_the_python_client() {
    let client = read("examples/client.py");
    assert!(client.lines().count() <= 40, "the client is advertised with at most 40 lines");
    for readme in ["README.md", CHINESE] {
        assert_current(readme, "client", &format!("```python\n{client}```"));
    }
}

/// The lines of code blocks, without the comments at their ends.
fn code(document: &str) -> Vec<String> {
    let text = read(document);
    let blocks = text.split("\n```").skip(1).step_by(2).flat_map(|block| block.lines().skip(1));
    let uncommented = blocks.map(|line| line.split("  # ").next().unwrap_or_default());
    uncommented.map(|line| line.split(" // ").next().unwrap_or_default().trim_end().to_owned()).collect()
}

/// The first two columns of a table of settings: names and defaults.
fn names_and_defaults(table: &str) -> Vec<(String, String)> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split(" | ").take(2).map(str::to_owned).collect::<Vec<_>>());
    cells.map(|cells| (cells[0].replace('`', ""), cells[1].clone())).collect()
}

#[test]
fn the_chinese_readme_has_what_the_english_one_has() {
    let (english, chinese) = (read("README.md"), read(CHINESE));
    assert!(english.contains(&format!("]({CHINESE})")) && chinese.contains("](README.md)"), "each links to the other");
    let headings = |text: &str| -> Vec<usize> {
        text.lines().filter(|line| line.starts_with("##")).map(|line| line.find(' ').unwrap()).collect()
    };
    assert_eq!(headings(&chinese), headings(&english), "the same sections");

    let translated = code(CHINESE);
    let missing: Vec<String> = code("README.md").into_iter().filter(|line| !translated.contains(line)).collect();
    assert!(missing.is_empty(), "{CHINESE} lacks these lines of code blocks:\n{}", missing.join("\n"));

    let prose = |text: &str| text.replace(&text[span("a README", text, "settings")], "");
    let (english, chinese) = (prose(&english), prose(&chinese));
    let named: Vec<&str> = quoted(&chinese).collect();
    let missing: Vec<&str> = quoted(&english).filter(|word| !named.contains(word)).collect();
    assert!(missing.is_empty(), "{CHINESE} does not name {missing:?}");
}

#[test]
fn the_chinese_readme_lists_the_settings() {
    let expected = names_and_defaults(&config::markdown().replace("not set", "未设置"));
    assert!(expected.len() > 20, "{expected:?}");
    assert_eq!(names_and_defaults(&section(CHINESE, "settings")), expected, "names and defaults, in this order");
}

#[test]
fn the_readme_lists_the_settings() {
    assert_current("README.md", "settings", &config::markdown());
}

#[test]
#[cfg(feature = "tools")]
fn the_readme_shows_a_packet_as_decode_does() {
    use chatserver::decode::{Look, Options, decode};
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap().into();
    let options =
        Options { cipher, max_packet_bytes: 65_536, format: None, port: None, from: None, look: Look::default() };
    let mut shown = Vec::new();
    let stream = fs::File::open(root().join("tests/data/all-types-python.client-to-server.bin")).unwrap();
    decode(stream, &options, &mut shown).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    let first = shown.split("\n\n").next().unwrap();
    for readme in ["README.md", CHINESE] {
        assert_current(readme, "packet", &format!("```text\n{first}\n```"));
    }
}

#[test]
fn the_session_is_the_recorded_one() {
    let recorded = |direction| fs::read(root().join(format!("tests/data/all-types-python.{direction}.bin"))).unwrap();
    let (client, server) = (recorded("client-to-server"), recorded("server-to-client"));
    // In the order in which they went over the wire.
    let (client, server) = (packets(&client), packets(&server));
    let order = [
        ("client → server", client[0]),
        ("server → client", server[0]),
        ("client → server", client[1]),
        ("client → server", client[2]),
        ("server → client", server[1]),
        ("client → server", client[3]),
    ];
    assert_eq!((client.len(), server.len()), (4, 2));
    for (index, (direction, packet)) in order.iter().enumerate() {
        let name = format!("packet {}", index + 1);
        assert_current("PROTOCOL.md", &name, &format!("```text\n{}```", explained(direction, *packet)));
    }
    let recorded = |direction| fs::read(root().join(format!("tests/data/level2.{direction}.bin"))).unwrap();
    let (at_level_2, answers) = (recorded("client-to-server"), recorded("server-to-client"));
    let (at_level_2, answers) = (packets(&at_level_2), packets(&answers));
    let order = [
        ("client → server", at_level_2[0]),
        ("server → client", answers[0]),
        ("client → server", at_level_2[1]),
        ("server → client", answers[1]),
        ("client → server", at_level_2[2]),
        ("server → client", answers[2]),
        ("client → server", at_level_2[3]),
        ("server → client", answers[3]),
        ("server → client", answers[4]),
    ];
    assert_eq!((at_level_2.len(), answers.len()), (4, 5));
    for (index, (direction, packet)) in order.iter().enumerate() {
        let name = format!("level 2 packet {}", index + 1);
        assert_current("PROTOCOL.md", &name, &format!("```text\n{}```", explained(direction, *packet)));
    }
    let login = opened(client[0]);
    assert_current("PROTOCOL.md", "varint", &format!("```text\n{}```", varint_explained(&login[10..15])));
}

fn packets(mut stream: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some(frame) = Frame::parse(stream, 65_536).unwrap() {
        stream = &stream[frame.packet.len()..];
        frames.push(frame);
    }
    assert!(stream.is_empty());
    frames
}

fn opened(frame: Frame<'_>) -> Vec<u8> {
    let mut scratch = Vec::new();
    Cipher::new(PUBLISHED_KEY).unwrap().open(frame.body(), &mut scratch).unwrap().to_vec()
}

/// A packet as the document shows it: header, ciphertext, plaintext field by field, padding.
fn explained(direction: &str, frame: Frame<'_>) -> String {
    let kind = PacketType::parse(frame.kind).unwrap();
    let plain = opened(frame);
    let mut out = format!("{direction}, {} bytes\n", frame.packet.len());
    line(&mut out, &frame.packet[..4], &format!("length: {}", frame.packet.len()));
    line(&mut out, &frame.packet[4..8], &format!("type: {}, {}", frame.kind, kind.name()));
    for (index, block) in frame.body().chunks(16).enumerate() {
        line(&mut out, block, &format!("encrypted body, block {}", index + 1));
    }
    out.push_str("the body, decrypted:\n");
    let mut rest = &plain[..];
    while !rest.is_empty() {
        let (number, length, mut value) = field(rest);
        match (kind, number) {
            (PacketType::ServerReceipt, 1) => value = numbers(&rest[2..length]),
            (PacketType::ServerReceipt, 2) => {
                value = format!("{value}, {:?}", Status::parse(value.parse().unwrap()).unwrap())
            }
            (PacketType::ServerNotice, 1) => {
                value = format!("{value}, {:?}", NoticeCode::from(value.parse::<u32>().unwrap()))
            }
            _ => {}
        }
        line(&mut out, &rest[..length], &format!("{number}: {} = {value}", field_name(kind, number)));
        rest = &rest[length..];
    }
    let padding = frame.body().len() - plain.len();
    line(&mut out, &vec![padding as u8; padding], &format!("padding: {padding} × {padding:#04x}"));
    out
}

/// Bytes in lines of 16, and their meaning behind the last.
fn line(out: &mut String, bytes: &[u8], meaning: &str) {
    let lines: Vec<&[u8]> = bytes.chunks(16).collect();
    for (index, bytes) in lines.iter().enumerate() {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let meaning = if index + 1 == lines.len() { meaning } else { "" };
        writeln!(out, "{}", format!("  {hex:47}  {meaning}").trim_end()).unwrap();
    }
}

/// A protobuf reader of its own, of a few lines: field number, length in bytes, and the value in words.
fn field(bytes: &[u8]) -> (u8, usize, String) {
    let (number, rest) = (bytes[0] >> 3, &bytes[1..]);
    match bytes[0] & 7 {
        0 => {
            let (value, length) = varint(rest);
            (number, 1 + length, value.to_string())
        }
        2 => {
            let length = usize::from(rest[0]);
            let text = String::from_utf8_lossy(&rest[1..=length]);
            (number, 2 + length, format!("{text:?}, {length} bytes"))
        }
        5 => (number, 5, f32::from_le_bytes(rest[..4].try_into().unwrap()).to_string()),
        other => panic!("wire type {other}"),
    }
}

/// Packed varints.
fn numbers(mut bytes: &[u8]) -> String {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let (number, length) = varint(bytes);
        numbers.push(number);
        bytes = &bytes[length..];
    }
    format!("{numbers:?}, packed")
}

fn varint(bytes: &[u8]) -> (u64, usize) {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    (bytes[..length].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)), length)
}

fn varint_explained(bytes: &[u8]) -> String {
    assert_eq!(varint(bytes).1, bytes.len());
    let mut out = String::new();
    for byte in bytes {
        let more = if byte & 0x80 == 0 { "the last byte" } else { "more follow" };
        writeln!(out, "{byte:02x} = {} {:07b}   {more}", byte >> 7, byte & 0x7f).unwrap();
    }
    let bits = bytes.iter().rev().map(|byte| format!("{:07b}", byte & 0x7f)).collect::<Vec<_>>().join(" ");
    writeln!(out, "{bits} = {}", varint(bytes).0).unwrap();
    out
}

/// The fields of proto/chat.proto: message, number, type (with its label, unless it is required), name.
fn proto_fields() -> Vec<(String, u8, String, String)> {
    let (mut message, mut fields) = (String::new(), Vec::new());
    for line in read("proto/chat.proto").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["message", name, "{"] => message = name.to_owned(),
            [label @ ("required" | "optional" | "repeated"), kind, name, "=", number, ..] => {
                let number = number.trim_end_matches(';').parse().unwrap();
                let kind = if label == "required" { kind.to_owned() } else { format!("{label} {kind}") };
                fields.push((message.clone(), number, kind, name.to_owned()));
            }
            _ => {}
        }
    }
    fields
}

fn field_name(kind: PacketType, number: u8) -> String {
    let message = kind.name().replace("PK_", "Pb");
    let fields = proto_fields();
    let found = fields.iter().find(|field| field.0 == message && field.1 == number);
    found.unwrap_or_else(|| panic!("{message} has no field {number}")).3.clone()
}

#[test]
fn the_messages_are_those_of_the_proto_file() {
    let document = read("PROTOCOL.md");
    for kind in (1..=5).map(|kind| PacketType::parse(kind).unwrap()) {
        let message = kind.name().replace("PK_", "Pb");
        let fields: Vec<String> = proto_fields()
            .into_iter()
            .filter(|field| field.0 == message && !field.2.contains(' '))
            .map(|(_, number, kind, name)| format!("{number}: {kind} {name}"))
            .collect();
        let row = format!("| {} | {} |", kind as u32, kind.name());
        let line = document.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
        assert!(line.ends_with(&format!("| {} |", fields.join(" · "))), "{line}\nshould have {fields:?}");
    }
    let of_level_2 = |field: &(String, u8, String, String)| {
        let added = ["PbServerReceipt", "PbClientAck", "PbServerNotice", "PbServerPong"];
        field.2.contains(' ') || added.contains(&field.0.as_str())
    };
    let fields: Vec<_> = proto_fields().into_iter().filter(of_level_2).collect();
    assert!(fields.len() >= 16, "{}", fields.len());
    for (message, number, kind, name) in fields {
        let (name, field) = (message.replace("Pb", "PK_"), format!("{number}: {kind} {name}"));
        assert!(
            document.lines().any(|line| line.contains(&name) && line.contains(&field)),
            "no row of {name} with {field}"
        );
    }
}

#[test]
fn the_table_of_bad_input_has_every_sentence_of_the_log() {
    let table = section("PROTOCOL.md", "bad input");
    let refusals = [
        ProtocolError::TooShort { length: 7 },
        ProtocolError::TooLong { length: 65_537, max: 65_536 },
        ProtocolError::OtherProtocol { protocol: "HTTP" },
        ProtocolError::Unaligned { length: 17 },
        ProtocolError::BadBody,
        ProtocolError::UnknownType { kind: 9 },
        ProtocolError::WrongDirection { kind: 2 },
        ProtocolError::NotLoggedIn { kind: 5 },
        ProtocolError::SecondLogin,
        ProtocolError::ForgedSender,
    ];
    for error in &refusals {
        match error {
            // A new variant does not compile here before it is in the list above, and so in the table.
            ProtocolError::TooShort { .. }
            | ProtocolError::TooLong { .. }
            | ProtocolError::OtherProtocol { .. }
            | ProtocolError::Unaligned { .. }
            | ProtocolError::BadBody
            | ProtocolError::UnknownType { .. }
            | ProtocolError::WrongDirection { .. }
            | ProtocolError::NotLoggedIn { .. }
            | ProtocolError::SecondLogin
            | ProtocolError::ForgedSender => assert!(table.contains(&format!("`{error}`")), "missing: `{error}`"),
        }
    }
    for error in [NameError::Empty, NameError::TooLong { bytes: 129 }, NameError::Invisible('\u{202e}')] {
        assert!(table.contains(&format!("`login refused: {error}`")), "missing: {error}");
    }
    assert!(table.contains(&format!("`login refused: {}`", NameError::SpaceAtEnds)));
    let handler = read("src/server/handlers/chat.rs");
    let words = handler.split("fn words(").nth(1).and_then(|rest| rest.split("\n    }").next()).expect("the sentences");
    let words: Vec<&str> = words.split('"').skip(1).step_by(2).collect();
    assert_eq!(words.len(), 6);
    for why in words {
        assert!(table.contains(&format!("`message dropped: {why} (")), "missing: {why}");
    }
}

#[test]
fn the_timeouts_have_their_sentences_of_the_log() {
    let table = section("PROTOCOL.md", "timeouts");
    let source = read("src/server/peer.rs");
    for ending in ["no login within", "silent for too long", "a packet was begun", "no memory for its messages"] {
        let sentence = source.split('"').find(|literal| literal.starts_with(ending)).expect(ending);
        assert!(table.contains(&format!("`{sentence}`")), "missing: {sentence}");
    }
}

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn files_that_the_documents_name_exist() {
    let roots = ["src/", "tests/", "examples/", "proto/", "data/chatserver.toml", ".ci/"];
    let mut found = 0;
    for document in DOCUMENTS {
        for word in quoted(&read(document)).filter(|word| roots.iter().any(|root| word.starts_with(root))) {
            assert!(root().join(word).exists(), "{document} names {word}, which does not exist");
            found += 1;
        }
    }
    assert!(found > 20, "only {found} names were recognised");
}

fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut directories) = (Vec::new(), vec![root().join("src")]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found
}

#[test]
fn functions_that_the_architecture_names_exist() {
    let sources = sources();
    let mut found = 0;
    for word in quoted(&read("ARCHITECTURE.md")) {
        let Some((room, function)) = word.split_once("::") else { continue };
        assert!(!function.contains("::"), "{word}: write it as Type::function or file::function");
        let is_there = sources.iter().any(|(path, text)| {
            let is_room = path.file_stem().is_some_and(|stem| stem == room)
                || [format!("struct {room}"), format!("enum {room}"), format!("impl {room}")]
                    .iter()
                    .any(|item| text.contains(item.as_str()));
            is_room
                && [format!("fn {function}("), format!("fn {function}<")]
                    .iter()
                    .any(|item| text.contains(item.as_str()))
        });
        assert!(is_there, "ARCHITECTURE.md names {word}, which does not exist");
        found += 1;
    }
    assert!(found > 20, "only {found} names were recognised");
}

#[test]
fn every_lock_is_in_the_architecture() {
    let table = section("ARCHITECTURE.md", "locks");
    for (path, text) in sources() {
        let path = path.to_str().unwrap();
        if text.contains("// lock:") || (text.contains("Mutex<") && !path.ends_with("tests.rs")) {
            assert!(table.contains(&format!("`{path}`")), "{path} has a lock that the table does not name");
        }
    }
}

/// The client of the README, as its reader runs it, against a real server.
#[test]
fn the_python_client_writes_to_itself() {
    let Some(python) = python() else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: the_python_client_writes_to_itself: no python3 with the package cryptography"
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), data: dir.path().to_owned(), ..Config::default() };
    let server = Server::start(config).unwrap();
    let port = server.local_addr().port().to_string();
    let client = root().join("examples/client.py");
    let text = "hello, 世界 🌍";
    let output = Command::new(python)
        .arg(client)
        .args(["127.0.0.1", &port, "alice", "alice", text])
        .env("PYTHONIOENCODING", "utf-8")
        .output()
        .unwrap();
    let (out, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("(2, {1: 1, 2: 'welcome', 3: "), "{out}");
    assert!(lines[1].starts_with(&format!("(5, {{1: 'alice', 2: 'alice', 3: '{text}', 4: ")), "{out}");
    assert_eq!(lines.len(), 2, "{out}");
    server.stop();
}

/// A Python that can run the client. `PYTHON` names one; the system's own may have the package where the first in PATH has not.
fn python() -> Option<String> {
    let named = std::env::var("PYTHON").ok();
    let candidates = named.into_iter().chain(["python3".to_owned(), "/usr/bin/python3".to_owned()]);
    let runs = |python: &String| {
        let imported = Command::new(python).args(["-c", "import cryptography"]).output();
        imported.is_ok_and(|output| output.status.success())
    };
    candidates.into_iter().find(runs)
}

/// The longest piece of a format string that is the same in every line made from it.
fn constant_part(format: &str) -> &str {
    let pieces = format.split(['{', '}']).enumerate().filter(|(index, _)| index % 2 == 0).map(|(_, piece)| piece);
    pieces.max_by_key(|piece| piece.len()).unwrap_or_default()
}

/// What is written to the log above the level debug, and how a connection ends, is explained to who reads the log.
#[test]
fn every_log_line_is_explained() {
    let line = regex::Regex::new(r#"log::(?:error|warn|info)!\(\s*"((?:[^"\\]|\\.)*)""#).unwrap();
    let ending = regex::Regex::new(r#"#\[error\("((?:[^"\\]|\\.)*)"\)\]"#).unwrap();
    // A document breaks a sentence where a value stands.
    let table = section("docs/operating.md", "log lines").replace('`', " ");
    let (mut explained, mut missing) = (0, Vec::new());
    for (path, text) in sources() {
        let name = path.to_str().unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines = line.captures_iter(code);
        let endings = ending.captures_iter(if name.ends_with("server/peer.rs") { code } else { "" });
        for captures in lines.chain(endings) {
            let part = constant_part(&captures[1]).trim_matches([' ', ':', ';', ',', '(', ')', '"', '\\']).to_owned();
            let beginning = part.split(['(', ';']).next().unwrap().trim();
            // Shorter ones are made of values alone; their parts are explained.
            if beginning.len() >= 8 {
                explained += 1;
                if !table.contains(beginning) {
                    missing.push(format!("{name}: {beginning:?}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/operating.md:\n{}", missing.join("\n"));
    assert!(explained > 50, "{explained}");
}

/// `tests/data/hardening.toml`: each class of faults has tests, which exist, and whose comments name it.
#[test]
fn every_class_of_faults_has_tests_that_name_it() {
    let table: toml::Table = read("tests/data/hardening.toml").parse().unwrap();
    let classes = table["class"].as_array().unwrap();
    assert!(classes.len() >= 34, "{}", classes.len());
    let words = |class: &toml::Value, field: &str| -> Vec<String> {
        let list = class.get(field).and_then(|list| list.as_array()).cloned().unwrap_or_default();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let makefile = read("Makefile");
    let mut table = "| class of faults | seen in | tests |\n|---|---|---|\n".to_owned();
    for class in classes {
        let name = class["name"].as_str().unwrap();
        let tests = words(class, "tests");
        assert!(!tests.is_empty() && !class["seen_in"].as_str().unwrap().is_empty(), "{name}");
        for test in tests {
            let (module, function) = test.rsplit_once("::").unwrap();
            let file = if module.ends_with(".rs") { module.to_owned() } else { format!("tests/it/{module}.rs") };
            let comment = comment_of(&read(&file), function).unwrap_or_else(|| panic!("{file} has no test {function}"));
            let is_named = comment.iter().any(|line| line.starts_with(&format!("Hardening: {name} (")));
            assert!(is_named, "{file}, {function}: its comment should begin with \"Hardening: {name} (\"");
        }
        for target in words(class, "also") {
            let (make, target) = target.split_once(' ').unwrap_or((&target, ""));
            assert!(makefile.contains(make), "make knows no {make}");
            let file = root().join(format!("tests/fuzz/fuzz_targets/{target}.rs"));
            assert!(target.is_empty() || file.exists(), "there is no {}", file.display());
        }
        let tests = words(class, "tests").into_iter().map(|test| match test.rsplit_once(".rs::") {
            Some((file, test)) => format!("`{test}` in `{file}.rs`"),
            None => format!("`{test}`"),
        });
        let longer = words(class, "also").into_iter().map(|target| match target.split_once(' ') {
            Some((make, target)) => format!("`make {make} TARGET={target}`"),
            None => format!("`make {target}`"),
        });
        let (seen_in, shown) = (class["seen_in"].as_str().unwrap(), tests.chain(longer).collect::<Vec<_>>().join(", "));
        writeln!(table, "| {name} | {seen_in} | {shown} |").unwrap();
    }
    assert_current("SECURITY.md", "classes", &table);
}

/// The comment above a test, line by line.
fn comment_of(source: &str, function: &str) -> Option<Vec<String>> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with(&format!("fn {function}(")))?;
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let is_test = lines[..at].last().is_some_and(|line| *line == "#[test]") || source.contains("proptest!");
    is_test.then(|| above.filter_map(|line| line.strip_prefix("/// ")).map(str::to_owned).collect())
}
