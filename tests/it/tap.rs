//! `chatserver tap` between real clients and a real server: it shows what passes, and does wrong what it is asked to; and `chatserver decode`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::{Client, Level};
use chatserver::protocol::PUBLISHED_KEY;

use crate::harness::*;
use crate::running::Running;
use crate::wire;

/// A running tap, and where it listens.
struct Tap {
    running: Running,
    addr: String,
}

impl Tap {
    fn start(server: &Server, arguments: &[&str]) -> Tap {
        let mut command = program();
        command.args(["tap", "--listen", "127.0.0.1:0", "--addr", server.addr()]).args(arguments);
        let running = Running::start(command);
        running.prints(&format!(", passing on to {}", server.addr()));
        let first = running.out();
        let addr = first.strip_prefix("listening on ").and_then(|rest| rest.split(',').next());
        let addr = addr.unwrap_or_else(|| panic!("{first}")).to_owned();
        Tap { running, addr }
    }

    fn login(&self, name: &str) -> Client {
        Client::connect(self.addr.as_str(), PUBLISHED_KEY).timeout(PATIENCE).login(name).unwrap()
    }

    fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Waits for a line that has all of these.
    #[track_caller]
    fn wait_for(&self, parts: &[&str]) {
        let has_come = || self.running.out().lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(happens_within(PATIENCE, has_come), "no line with {parts:?}:\n{}", self.running.out());
    }

    fn count(&self, part: &str) -> usize {
        self.running.out().lines().filter(|line| line.contains(part)).count()
    }
}

/// `chatserver decode`: exit code, standard output, standard error.
fn decode(arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command: Command = program();
    command.arg("decode").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // Whoever has seen enough closes its input.
    let _ = writing.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_tap_shows_what_passes_and_keeps_it_in_a_capture() {
    let server = Server::start_default();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("passed.pcap");
    let tap = Tap::start(&server, &["--pcap", file.to_str().unwrap()]);
    let mut bob = server.login("bob");
    let connect = Client::connect(tap.addr.as_str(), PUBLISHED_KEY).timeout(PATIENCE).level(Level::Two);
    let mut ann = connect.login("ann").unwrap();
    let msg_id = ann.send_numbered("bob", "你好, \x1b[2J").unwrap();
    assert_eq!(next(&mut bob).text, "你好, \x1b[2J");
    ann.wait_for_receipt(msg_id, PATIENCE).unwrap().unwrap();
    ann.logout().unwrap();
    tap.wait_for(&["#1", "has connected, passed on to", server.addr()]);
    tap.wait_for(&["client → server", "PK_ClientLogin", "uuid=\"ann\"", "level=2"]);
    tap.wait_for(&["server → client", "PK_ServerAcceptLogin", "login=true"]);
    tap.wait_for(&["client → server", "PK_C2CTextChat", "text_msg=\"你好, \\u001b[2J\"", "msg_id="]);
    tap.wait_for(&["server → client", "PK_ServerReceipt", "status="]);
    tap.wait_for(&["client → server", "PK_ClientLogout"]);
    tap.wait_for(&["server → client", "closed"]);
    assert_eq!(tap.count("✗"), 0);

    let packets = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (code, text, _) = decode(&["--json", file.to_str().unwrap()], b"");
    let captured = packets(&text);
    assert_eq!(code, Some(0), "{text}");
    let names: Vec<_> = captured.iter().map(|packet| packet["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["PK_ClientLogin", "PK_ServerAcceptLogin", "PK_C2CTextChat"], "{names:?}");
    assert_eq!(names.len(), tap.count("PK_"), "the capture has what was shown");
    let chat = &captured[2];
    assert_eq!(
        (&chat["direction"], &chat["offset"], &chat["type"]),
        (&"client-to-server".into(), &40.into(), &5.into())
    );
    assert_eq!((&chat["fields"]["text_msg"], &chat["fields"]["msg_id"]), (&"你好, \x1b[2J".into(), &msg_id.into()));
    assert_eq!((&chat["connection"], &chat["error"]), (&1.into(), &serde_json::Value::Null));
    // From a pipe as from a file; and short.
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(packets(&decode(&["--json", "-"], &bytes).1), captured);
    let (_, short, _) = decode(&["--short", "-"], &bytes);
    assert_eq!(short.lines().count(), captured.len());
    assert!(!short.contains('\x1b'), "nothing that arrives commands the terminal: {short:?}");
}

#[test]
fn a_server_reads_packets_out_of_single_bytes_and_several_out_of_one_segment() {
    let server = Server::start_default();
    let bytes = Tap::start(&server, &["--one-byte", "--from", "client", "--reads"]);
    let mut ann = bytes.login("ann");
    ann.send("ann", "byte by byte").unwrap();
    assert_eq!(next(&mut ann).text, "byte by byte");
    let sent = wire::login("ann").len() + wire::chat("ann", "ann", "byte by byte").len();
    eventually("each byte was written alone", || bytes.count("client → server  write 1 bytes") == sent);
    ann.logout().unwrap();

    let join = Tap::start(&server, &["--join", "3", "--from", "client", "--reads"]);
    let mut socket = join.socket();
    let packets = [wire::login("eve"), wire::chat("eve", "eve", "one"), wire::chat("eve", "eve", "two")];
    for packet in &packets {
        let reads = join.count("client → server  read");
        socket.write_all(packet).unwrap();
        eventually("the tap has read it by itself", || join.count("client → server  read") > reads);
    }
    join.wait_for(&["client → server", &format!("write {} bytes", packets.concat().len())]);
    assert_eq!(join.count("client → server  write"), 1);
    join.wait_for(&["server → client", "text_msg=\"two\""]);
}

/// A shell limits the file that the lines go to, as a full disk does.
#[test]
fn a_tap_whose_lines_cannot_be_written_says_so_once_and_passes_on() {
    let server = Server::start_default();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("lines");
    let mut command = without_settings(Command::new("sh"));
    command.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\" >\"$0\""]).arg(&file).arg(program().get_program());
    command.args(["tap", "--listen", "127.0.0.1:0", "--addr", server.addr()]);
    let running = Running::start(command);
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("it listens", || lines().contains('\n'));
    let addr = lines().strip_prefix("listening on ").and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    let tap = Tap { running, addr };
    let (mut ann, mut bob) = (tap.login("ann"), tap.login("bob"));
    for text in numbered(&"long".repeat(1000), 5) {
        ann.send("bob", &text).unwrap();
        assert_eq!(next(&mut bob).text, text);
    }
    tap.running.notes("standard output cannot be written (File too large");
    assert_eq!(tap.running.err().matches("cannot be written").count(), 1, "{}", tap.running.err());
}

/// A client that goes on sending must not make it longer.
#[test]
fn what_is_joined_waits_no_longer_than_it_says_though_more_keeps_coming() {
    let server = Server::start_default();
    let join = Tap::start(&server, &["--join", "1000000", "--from", "client", "--reads"]);
    let mut socket = join.socket();
    let began = Instant::now();
    while join.count("client → server  write") == 0 {
        assert!(began.elapsed() < PATIENCE, "{} reads and no write", join.count("client → server  read"));
        socket.write_all(&wire::login("ann")).unwrap();
        // Slowly, so that it is not their number that ends it.
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_delayed_comes_later_and_in_order() {
    let server = Server::start_default();
    let tap = Tap::start(&server, &["--delay", "150ms", "--from", "client"]);
    let mut ann = tap.login("ann");
    let began = Instant::now();
    send_all(&mut ann, "ann", &numbered("late", 20));
    assert_eq!(texts(&mut ann, 20), numbered("late", 20));
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[test]
fn a_connection_is_cut_closed_or_silent_after_so_many_bytes() {
    let server = Server::start_default();
    let login = wire::login("ann");
    let after = (login.len() + 10).to_string();
    let spoilt = |how: &str| {
        let tap = Tap::start(&server, &["--from", "client", how, &after]);
        let mut socket = tap.socket();
        socket.write_all(&login).unwrap();
        let mut answer = [0; 40];
        socket.read_exact(&mut answer).unwrap();
        socket.write_all(&wire::chat("ann", "ann", "never whole")).unwrap();
        (tap, socket)
    };
    let (tap, mut socket) = spoilt("--cut-after");
    assert_eq!(socket.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    tap.wait_for(&["client → server", "cut on purpose"]);
    tap.wait_for(&["✗", "of which 10 of"]);
    server.wait_for_log("ann: connection lost");

    let (tap, mut socket) = spoilt("--close-after");
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0);
    tap.wait_for(&["client → server", "closed on purpose"]);
    server.wait_for_log("ann: closed by the client");

    let (tap, mut socket) = spoilt("--silent-after");
    tap.wait_for(&["silent on purpose"]);
    // Whatever is written is taken, and nothing comes back: no end, no reset.
    (0..50).for_each(|_| socket.write_all(&wire::chat("ann", "ann", "into the void")).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(matches!(socket.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    // The server knows nothing of it, and the name is still taken over.
    server.login("ann").roundtrip().unwrap();
    server.wait_for_log("ann: replaced by another login");
}

/// A reset is no leave-taking: what the client had not read must come again, also when the tap was between.
#[test]
fn a_reset_is_passed_on_as_one_also_when_messages_are_on_their_way() {
    let server = Server::start_default();
    let tap = Tap::start(&server, &[]);
    let mut eve = server.login("eve");
    for round in 0..5 {
        let mut socket = tap.socket();
        socket.write_all(&wire::login("ann")).unwrap();
        socket.read_exact(&mut [0; 40]).unwrap();
        send_all(&mut eve, "ann", &vec!["x".repeat(50_000); 20]);
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        drop(socket);
        eventually("it is lost", || server.logged("ann: connection lost") == round + 1);
        assert_eq!(server.logged("ann: closed by the client"), 0);
        // Nothing waits for the next round.
        let mut ann = server.login("ann");
        all_texts(&mut ann);
        ann.logout().unwrap();
    }
}

#[test]
fn one_bit_turned_over_spoils_one_block_and_changes_the_next() {
    let server = Server::start_default();
    // The text begins in block 1 of the body and goes on for two more.
    let text = "a".repeat(40);
    let chat = wire::chat("ann", "ann", &text);
    let byte = wire::login("ann").len() + 8 + 16 + 3;
    let tap = Tap::start(&server, &["--from", "client", "--flip", &format!("{byte}:1")]);
    let mut socket = tap.socket();
    socket.write_all(&[wire::login("ann"), chat].concat()).unwrap();
    tap.wait_for(&["turned over bit 1 of byte", &byte.to_string()]);
    // Nothing is authenticated, so it is decrypted all the same, to sixteen bytes of nonsense and a changed letter.
    tap.wait_for(&["client → server", "PK_C2CTextChat", "✗", "text_msg is not UTF-8"]);
    server.wait_for_log("ann: the body cannot be read");
}

#[test]
fn decode_reads_hexadecimal_raw_bytes_and_says_what_it_does_not_understand() {
    let stream = [wire::login("ann"), wire::chat("ann", "bob", "hello"), wire::logout()].concat();
    let (code, raw, notes) = decode(&["--short", "-"], &stream);
    assert_eq!((code, notes.as_str()), (Some(0), ""));
    assert_eq!(raw.lines().count(), 3);
    assert!(
        raw.contains("client → server  PK_C2CTextChat        from_uuid=\"ann\" to_uuid=\"bob\" text_msg=\"hello\""),
        "{raw}"
    );
    let hex = stream
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>() + "\n")
        .collect::<String>();
    assert_eq!(decode(&["--short", "-"], hex.as_bytes()).1, raw);

    let (_, full, _) = decode(&["-"], &stream);
    for line in [
        "byte 0  client → server  PK_ClientLogin, ",
        "  00000000  00 00 00 28                                      length: 40 bytes, these 4 included",
        "  00000002  61 6e 6e                                         \"ann\"",
        "  00000030  ",
    ] {
        assert!(full.lines().any(|shown| shown.starts_with(line)), "{line:?} is missing:\n{full}");
    }

    let (code, text, notes) = decode(&["--json", "-"], &stream[..50]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(code, Some(5));
    assert_eq!(last["error"], "at byte 10 of the packet: the bytes end within the packet, of which 10 of 40 are here");
    assert_eq!(notes, "chatserver: 1 of 2 packets were not understood\n");
    let (code, _, notes) = decode(&["-"], b"hello, world");
    assert_eq!(code, Some(5));
    assert!(notes.contains("line 1: 'h' in \"hello\" is no hexadecimal digit"), "{notes}");
    assert_eq!(decode(&["/no/such/file"], b"").0, Some(5));
    assert_eq!(decode(&["--short", "--json", "-"], b"").0, Some(2));
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "another key 1234").unwrap();
    let (code, text, _) = decode(&["--short", "--key-file", key.path().to_str().unwrap(), "-"], &stream);
    assert_eq!(code, Some(5));
    assert!(text.lines().all(|line| line.contains('✗')), "{text}");
    // Also where the stream has both sides, or is told to be one's.
    let both = [wire::login("ann"), wire::sealed(104, &wire::integer(1, 5)), wire::chat("ann", "bob", "?")].concat();
    let (_, text, notes) = decode(&["--short", "-"], &both);
    assert!(text.contains("server → client  PK_ServerPong") && text.contains("either way"), "{text}");
    assert!(notes.contains("both sides' packets are mixed"), "{notes}");
    let (_, text, _) = decode(&["--short", "--from", "server", "-"], &wire::chat("ann", "bob", "?"));
    assert!(text.contains("server → client  PK_C2CTextChat"), "{text}");
}

#[test]
fn decode_reads_what_the_clients_of_2014_sent() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut packets = 0;
    for file in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "bin") {
            let (code, text, notes) = decode(&["--json", file.to_str().unwrap()], b"");
            assert_eq!(code, Some(0), "{}: {notes}{text}", file.display());
            packets += text.lines().count();
        }
    }
    assert!(packets >= 20, "{packets}");
}
