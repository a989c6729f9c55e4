//! `chatserver conformance`: our server passes all of it, a server that is wrong on purpose fails exactly where it is wrong.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::*;

#[path = "../../examples/wrong_server.rs"]
mod wrong_server;

/// What a run has said: its exit code, and its lines of JSON, the grade last.
fn judged(addr: &str, arguments: &[&str]) -> (Option<i32>, Vec<serde_json::Value>) {
    let output = program().args(["conformance", "--addr", addr, "--json"]).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    (output.status.code(), lines.collect())
}

fn names(lines: &[serde_json::Value], result: &str) -> BTreeSet<String> {
    let found = lines.iter().filter(|line| line["result"] == result);
    found.map(|line| format!("{}/{}", line["group"].as_str().unwrap(), line["name"].as_str().unwrap())).collect()
}

#[track_caller]
fn assert_passed((code, lines): &(Option<i32>, Vec<serde_json::Value>)) {
    let failed: Vec<_> = lines.iter().filter(|line| line["result"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(*code, Some(0));
    assert_eq!(lines.last().unwrap()["grade"], 100);
}

#[test]
fn our_server_passes_all_of_it_within_a_minute() {
    let server = Server::start_default();
    let began = Instant::now();
    let (code, lines) = judged(server.addr(), &["--timeout", "20s"]);
    let took = began.elapsed();
    let passed = names(&lines, "passed");
    let of_the_table = passed
        .iter()
        .filter(|name| name.ends_with(", stranger") || name.contains(", level ") || name.contains(", logged out"));
    let of_the_table = of_the_table.count();
    assert_passed(&(code, lines));
    assert!(of_the_table >= 500, "{of_the_table} cases of the table");
    assert!(passed.len() >= of_the_table + 40, "{} checks", passed.len());
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(server.logged("panic"), 0);
}

#[test]
fn our_server_passes_again_with_another_key_and_what_waits_for_timeouts() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "a key of 24 bytes, yes!!").unwrap();
    let server = Server::start(|setup| {
        setup
            .set("key", "a key of 24 bytes, yes!!")
            .set("login_timeout", "4 s")
            .set("read_timeout", "4 s")
            .set("packet_timeout", "2 s")
    });
    let key = key.path().to_str().unwrap();
    let slow =
        ["--key-file", key, "--deadlines", "30s", "--timeout", "20s", "--only", "deadlines", "--only", "unfinished"];
    let slow = judged(server.addr(), &slow);
    assert!(names(&slow.1, "passed").len() >= 20 && names(&slow.1, "skipped").is_empty(), "{slow:?}");
    assert_passed(&slow);
    for _ in 0..2 {
        let again =
            ["--key-file", key, "--timeout", "20s", "--only", "takeover", "--only", "level 2", "--only", "numbers"];
        assert_passed(&judged(server.addr(), &again));
    }
}

/// For each fault of the example what finds it: a group, and words of the name.
const FAULTS: &[(u8, &str, &[&str])] = &[
    (1, "sender", &[""]),
    (1, "protobuf", &["a chat with its sender twice, the first one right"]),
    (
        2,
        "cipher",
        &["right but for", "counting up", "ANSI X9.23", "ISO 10126", "is wrong", "one wrong", "of which one is 13"],
    ),
    (
        3,
        "types",
        &[
            "which the protocol does not have, level 1",
            "with a body of noise, level 1",
            "type 102, an ack of",
            "own type 101, a receipt, level 1",
            "own type 103, a notice, level 1",
            "own type 104, a pong, level 1",
        ],
    ),
    (3, "stream", &["an unknown type"]),
    (3, "greetings", &["PostgreSQL, level 1"]),
    (
        4,
        "offline",
        &[
            "five hundred",
            "while the backlog is being",
            "two senders",
            "was delivered and read",
            "twenty texts sent right before a logout",
            "after a logout texts wait",
            "after a FIN texts wait",
        ],
    ),
    (5, "offline", &["what was waiting comes again", "the same, when"]),
    (5, "takeover", &["what was waiting comes again"]),
    (6, "chat", &["a recipient that does not read"]),
];

#[test]
fn the_wrong_server_fails_exactly_where_it_is_wrong() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || wrong_server::serve(&listener));
    let (code, lines) = judged(&addr, &["--timeout", "3s"]);
    let (failed, passed) = (names(&lines, "failed"), names(&lines, "passed"));
    let found_by = |name: &str, group: &str, words: &[&str]| {
        name.strip_prefix(&format!("{group}/")).is_some_and(|name| words.iter().any(|words| name.contains(words)))
    };
    let unexplained: Vec<&String> =
        failed.iter().filter(|name| !FAULTS.iter().any(|(_, group, words)| found_by(name, group, words))).collect();
    assert!(unexplained.is_empty(), "it is blamed for what it does right: {unexplained:#?}");
    for (fault, group, words) in FAULTS {
        for words in *words {
            assert!(
                failed.iter().any(|name| found_by(name, group, &[words])),
                "fault {fault} is not found by {group}/…{words}"
            );
            let missed: Vec<&String> = passed.iter().filter(|name| found_by(name, group, &[words])).collect();
            assert!(missed.is_empty(), "fault {fault} passed {missed:#?}");
        }
    }
    assert_eq!(code, Some(3));
    let grade = lines.last().unwrap();
    assert!(grade["grade"].as_u64().is_some_and(|points| (50..95).contains(&points)), "{grade}");
    assert_eq!(grade["level"], 1);
    let skipped = names(&lines, "skipped");
    assert!(skipped.iter().any(|name| name.starts_with("level 2/")), "what it does not offer is skipped");
    assert!(!failed.iter().any(|name| name.starts_with("level 2/") || name.ends_with(", level 2")));
    let forged = lines.iter().find(|line| line["group"] == "sender" && line["result"] == "failed").unwrap();
    assert!(forged["why"].as_str().unwrap().contains("from_uuid must be the name"), "{forged}");
    assert!(forged["bytes"][0]["hex"].as_str().unwrap().starts_with("00 00 00"), "{forged}");
}

#[test]
fn a_failure_is_explained_with_its_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || wrong_server::serve(&listener));
    let mut command = program();
    command.args(["conformance", "--addr", &addr, "--timeout", "4s", "--only", "ANSI X9.23"]);
    let output = run(command, "");
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "FAILED cipher/a ping whose padding is ANSI X9.23, level 1",
        "  what happened: ",
        "  the rule:      ",
        "me → server, ",
        "type: 4, PK_ClientPing",
        "field 1, ping: wire type 0",
        "no padding: the last byte is 0c",
        "grade: 0 of 100",
    ] {
        assert!(text.contains(words), "{words:?} is missing:\n{text}");
    }
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_server_that_does_not_answer_or_lets_nobody_in_is_not_judged() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let server = Server::start(|setup| setup.set("key", "a key of 16 byte"));
    for (addr, arguments, code, words) in [
        (silent.local_addr().unwrap().to_string(), &["--timeout", "500ms"][..], 4, "answers nothing"),
        (nobody.clone(), &[], 4, "there is no server"),
        (server.addr().to_owned(), &[], 3, "do both sides use the same key?"),
        (nobody.clone(), &["--only", "nonsense"], 2, "no check has"),
        (nobody, &["--key-file", "/nowhere"], 1, "/nowhere"),
    ] {
        let mut command = program();
        command.args(["conformance", "--addr", &addr]).args(arguments);
        let output = run(command, "");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(words), "{errors}");
    }
}

#[test]
fn checks_can_be_listed() {
    let mut command = program();
    command.args(["conformance", "--list", "--only", "takeover"]);
    let output = run(command, "");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() >= 8 && text.lines().all(|line| line.starts_with("takeover/")), "{text}");
    assert_eq!(output.status.code(), Some(0));
}
