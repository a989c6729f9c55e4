//! `trace`: what passes of one user, and what becomes of those who look on too slowly.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::Value;

use crate::control::Ctl;
use crate::harness::*;

/// Somebody who looks on.
struct Looker(BufReader<UnixStream>);

impl Looker {
    fn at(server: &Server, name: &str) -> Looker {
        let mut socket = UnixStream::connect(server.data().join("ctl.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(format!("trace {name}\n").as_bytes()).unwrap();
        Looker(BufReader::new(socket))
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The next line as `out PK_C2CTextChat`.
    fn brief(&mut self) -> String {
        let line = self.line();
        format!("{} {}", line["direction"].as_str().unwrap_or("?"), line["name"].as_str().unwrap_or("?"))
    }
}

#[test]
fn a_trace_shows_each_packet_of_one_user_over_logins_and_takeovers() {
    let mut server = Server::start_default();
    let mut looker = Looker::at(&server, "ann");
    let begun = looker.line();
    assert_eq!((&begun["trace"], &begun["connected"], &begun["known"]), (&"ann".into(), &false.into(), &false.into()));
    server.wait_for_log("a trace of ann begins");
    // Who logs in later is seen from the first packet on; others are not.
    let mut bob = server.login("bob");
    let mut ann = server.login("ann");
    assert_eq!([looker.brief(), looker.brief()], ["in PK_ClientLogin", "out PK_ServerAcceptLogin"]);
    ann.send("bob", "hello, 世界").unwrap();
    let sent = looker.line();
    assert_eq!((&sent["direction"], &sent["type"], &sent["error"]), (&"in".into(), &5.into(), &Value::Null));
    assert_eq!(
        (&sent["fields"]["to_uuid"], &sent["fields"]["text_msg"]),
        (&"bob".into(), &"hello, 世界".into()),
        "{sent}"
    );
    assert!(sent["time"].as_i64().unwrap() > 1_700_000_000_000 && sent["bytes"].as_i64().unwrap() >= 24, "{sent}");
    assert_eq!(next(&mut bob).text, "hello, 世界");
    bob.send("ann", "and back").unwrap();
    let got = looker.line();
    assert_eq!((&got["direction"], &got["fields"]["text_msg"]), (&"out".into(), &"and back".into()), "{got}");
    // It goes on over a takeover, whose connection has its own number and offsets.
    let _newer = server.login("ann");
    let login = looker.line();
    assert_eq!((&login["name"], &login["offset"]), (&"PK_ClientLogin".into(), &0.into()));
    assert_ne!(login["connection"], sent["connection"]);
    assert_eq!(looker.brief(), "out PK_ServerAcceptLogin");
    // Two look on at once, and the second one finds her there.
    let mut second = Looker::at(&server, "ann");
    assert_eq!(second.line()["connected"], true);
    assert_eq!(Ctl::of(&server).ask("session ann")["traced"], true);
    bob.send("ann", "to both").unwrap();
    // What the older connection had not acknowledged may come again first.
    for looker in [&mut looker, &mut second] {
        while looker.line()["fields"]["text_msg"] != "to both" {}
    }
    drop(second);
    eventually("one of two has ended", || server.logged("the trace of ann ends: its reader closed") == 1);
    bob.send("ann", "to one").unwrap();
    while looker.line()["fields"]["text_msg"] != "to one" {}
    drop(looker);
    eventually("nobody looks on", || Ctl::of(&server).ask("session ann")["traced"] == false);
    let mut last = Looker::at(&server, "bob");
    last.line();
    assert_eq!(server.sigterm().code(), Some(0));
    server.wait_for_log("the trace of bob ends: the server stops");
    // What passes at the stop may be seen, and then the end.
    last.0.read_to_end(&mut Vec::new()).unwrap();
}

/// The promise: a stuck reader of a trace loses lines, never messages.
#[test]
fn a_stuck_looker_loses_lines_and_never_a_message() {
    // Some 20,000 fit in what waits for the looker: two queues and its socket.
    const MESSAGES: usize = 40_000;
    let server = Server::start_default();
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    let mut looker = Looker::at(&server, "bob");
    assert_eq!(looker.line()["trace"], "bob");
    let sent = numbered("m", MESSAGES);
    let reader = std::thread::spawn(move || (texts(&mut bob, MESSAGES), bob));
    send_all(&mut ann, "bob", &sent);
    let (got, mut bob) = reader.join().unwrap();
    assert!(got == sent, "every message has arrived, in order");
    // Now it reads: what it was shown, then how much it was not.
    let (mut shown, mut lost) = (0, 0);
    while shown + lost < MESSAGES {
        let line = looker.line();
        match line["lost"].as_u64() {
            Some(count) => lost += count as usize,
            None if line["name"] == "PK_C2CTextChat" && line["direction"] == "out" => shown += 1,
            None => {}
        }
    }
    assert!(shown + lost >= MESSAGES && lost > 1000 && shown > 1000, "{shown} shown, {lost} lost");
    // And from here on it sees everything again.
    ann.send("bob", "the last one").unwrap();
    while looker.line()["fields"]["text_msg"] != "the last one" {}
    assert_eq!(next(&mut bob).text, "the last one");
}

#[test]
fn the_command_prints_a_line_for_each_packet() {
    let server = Server::start_default();
    let mut bob = server.login("bob");
    let mut command = program();
    command.args(["ctl", "trace", "bob", "--data"]).arg(server.data()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "tracing bob, who is there; Ctrl-C ends it");
    bob.send("ann", "two words").unwrap();
    let line = lines.next().unwrap();
    let (time, rest) = line.split_once("  ").unwrap();
    assert!(time.len() == 12 && time.as_bytes()[8] == b'.', "{line}");
    let words = "bob → server  PK_C2CTextChat        from_uuid=\"bob\" to_uuid=\"ann\" text_msg=\"two words\" ";
    assert!(rest.starts_with(words), "{line}");
    bob.ping().unwrap();
    assert!(lines.next().unwrap().contains("  PK_ClientPing         ping=true"));
    drop(server);
    // The server was killed: the command ends by itself.
    assert_eq!(lines.next(), None);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut refused = program();
    let other = Server::start_default();
    refused.args(["ctl", "trace", "no\u{7}body", "--data"]).arg(other.data());
    let output = run(refused, "");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn a_trace_that_cannot_be_written_ends_with_an_error() {
    let server = Server::start_default();
    let trace_to = |stdout: Stdio| {
        let mut command = program();
        command.args(["ctl", "trace", "bob", "--data"]).arg(server.data()).stdout(stdout).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, notes) = trace_to(File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(code, Some(1), "{notes}");
    assert!(notes.starts_with("chatserver: standard output cannot be written (No space left on device"), "{notes}");
    // Whoever has read enough is no error.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(trace_to(writer.into()), (Some(0), String::new()));
}
