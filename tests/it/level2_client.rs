//! Level 2 as the client library and the client commands use it: with the real server, and where a server must misbehave, with a scripted one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use chatserver::client::{Client, Event, Level, SessionState};
use chatserver::protocol::{
    Cipher, Decoder, Frame, Granted, LoginAnswer, Message, PUBLISHED_KEY, Reason, Receipt, Status,
};
use parking_lot::Mutex;

use crate::harness::*;
use crate::running::Running;

fn two(server: &Server, name: &str) -> Client {
    server.connect().level(Level::Two).login(name).unwrap()
}

fn resume(server: &Server, state: SessionState) -> Client {
    server.connect().resume(state).map_err(|failed| failed.1).unwrap()
}

fn command(arguments: &[&str], addr: &str) -> Command {
    let mut command = program();
    command.args(arguments).args(["--addr", addr]);
    command
}

fn chatserver(arguments: &[&str], addr: &str, input: &str) -> Output {
    run(command(arguments, addr), input)
}

#[track_caller]
fn assert_ends(output: &Output, code: i32) -> (String, String) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "standard output:\n{out}\nstandard error:\n{err}");
    (out.into_owned(), err.into_owned())
}

fn start(arguments: &[&str], addr: &str) -> Running {
    Running::start(command(arguments, addr))
}

/// The number before the first one that a scripted server's client uses: above every clock.
const BEFORE: u64 = 1 << 52;

/// A server's end of a connection, for what the real one does not do.
struct Peer {
    stream: TcpStream,
    cipher: Cipher,
}

impl Peer {
    /// The next packet; `None` = the client has closed.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 8];
        self.stream.read_exact(&mut packet).ok()?;
        packet.resize(u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize, 0);
        self.stream.read_exact(&mut packet[8..]).ok()?;
        Some(packet)
    }

    fn is_logout(packet: &[u8]) -> bool {
        let frame = Frame::parse(packet, usize::MAX).unwrap().unwrap();
        let (cipher, mut decoder) = (Cipher::new(PUBLISHED_KEY).unwrap(), Decoder::default());
        matches!(decoder.decode(&cipher, frame).unwrap().message, Message::ClientLogout { .. })
    }

    fn write(&mut self, message: &Message<'_>) {
        let mut packet = Vec::new();
        message.encode(&self.cipher, &mut packet);
        self.stream.write_all(&packet).unwrap();
    }

    fn answer(&mut self, granted: Option<Granted>) {
        self.packet().expect("a login");
        self.write(&Message::ServerAcceptLogin(LoginAnswer { login: true, tips: "hi", time: 7, granted }));
    }

    fn grant(&mut self) {
        self.answer(Some(Granted { level: 2, read_timeout_secs: 120, max_packet_bytes: 65_536, last_msg_id: BEFORE }));
    }

    fn tell(&mut self, msg_id: u64, status: Status, reason: Option<Reason>) {
        let msg_ids = &[BEFORE + msg_id];
        self.write(&Message::ServerReceipt(Receipt { msg_ids, status, reason, text: None }));
    }
}

/// One connection after the other.
fn scripted<T: Send + 'static>(scripts: Vec<fn(&mut Peer) -> T>) -> (String, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let connections = scripts.into_iter().map(|script| {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            script(&mut Peer { stream, cipher: Cipher::new(PUBLISHED_KEY).unwrap() })
        });
        connections.collect()
    };
    (addr, thread::spawn(serve))
}

#[test]
fn nothing_is_lost_or_doubled_when_the_server_is_killed() {
    let mut server = Server::start_default();
    let (mut ann, mut bob) = (two(&server, "ann"), two(&server, "bob"));
    let mut seen = Vec::new();
    for round in 0..3 {
        for text in numbered(&format!("round {round}"), 200) {
            ann.send("bob", &text).unwrap();
        }
        // Some are taken in, some are on their way, some have no receipt.
        seen.extend(texts(&mut bob, 50 * (round + 1)));
        server.kill9();
        server = server.restart();
        while let Ok(Some(event)) = bob.next_event(PATIENCE) {
            seen.extend(match event {
                Event::Message(message) => Some(message.text),
                _ => None,
            });
        }
        (ann, bob) = (resume(&server, ann.into_state()), resume(&server, bob.into_state()));
    }
    let all: Vec<String> = (0..3).flat_map(|round| numbered(&format!("round {round}"), 200)).collect();
    while seen.len() < all.len() {
        seen.push(next(&mut bob).text);
    }
    assert_eq!(seen, all);
    assert_eq!(bob.recv(Duration::from_millis(100)).unwrap(), None);
    eventually("every message has a receipt", || {
        ann.next_event(Duration::from_millis(10)).unwrap();
        ann.unreceipted() == 0
    });
}

#[test]
fn mixed_levels_talk_to_each_other_through_the_library() {
    let server = Server::start_default();
    let (mut one, mut ann) = (server.login("one"), two(&server, "ann"));
    one.send("ann", "from level 1").unwrap();
    let message = next(&mut ann);
    assert!(message.msg_id.is_none() && message.seq.is_some(), "{message:?}");
    let msg_id = ann.send_numbered("one", "from level 2").unwrap();
    let message = next(&mut one);
    assert_eq!((message.text.as_str(), message.msg_id, message.seq), ("from level 2", None, None));
    assert!(ann.wait_for_receipt(msg_id, PATIENCE).unwrap().is_some());
    ann.roundtrip().unwrap();
    assert!(ann.granted().unwrap().read_timeout_secs > 0);
    ann.ping().unwrap();
    assert!(matches!(ann.next_event(PATIENCE).unwrap(), Some(Event::Pong(_) | Event::Receipt(_))));
}

#[test]
fn send_wait_ends_well_only_with_a_receipt() {
    let server = Server::start(|setup| setup.set("max_text_bytes", "1 KiB"));
    let send = |arguments: &[&str], input: &str| {
        chatserver(&[&["send", "--as", "ann", "--to", "bob", "--wait"], arguments].concat(), server.addr(), input)
    };
    assert_eq!(assert_ends(&send(&["hello"], ""), 0).0, "stored\n");
    assert_eq!(server.rows_of("bob"), 1, "on disk when the command ends");
    let lines: String = numbered("line", 3000).iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(assert_ends(&send(&["-", "--lines"], &lines), 0).0, "stored\n".repeat(3000));

    let long = "x".repeat(1025);
    let (out, _) = assert_ends(&send(&["-", "--lines"], &format!("one\n{long}\ntwo")), 3);
    assert_eq!(out, "stored\nrefused: the text is too long for this server\nstored\n");

    let mut bob = server.login("bob");
    assert_eq!(texts(&mut bob, 3003).last().unwrap(), "two");
    let (out, _) = assert_ends(&send(&["to one who is there"], ""), 0);
    assert!(["stored\n", "delivered\n"].contains(&out.as_str()), "{out}");
}

#[test]
fn send_wait_leaves_what_waits_for_its_name() {
    let server = Server::start_default();
    let mut bob = server.login("bob");
    send_all(&mut bob, "ann", &["for ann"]);
    let send = ["send", "--as", "ann", "--to", "bob", "--wait", "hello"];
    let (out, _) = assert_ends(&chatserver(&send, server.addr(), ""), 0);
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(next(&mut server.login("ann")).text, "for ann");
}

#[test]
fn send_wait_needs_a_server_that_gives_receipts() {
    let (addr, served) = scripted(vec![|peer: &mut Peer| peer.answer(None)]);
    let send = ["send", "--as", "ann", "--to", "bob", "--wait", "hello"];
    let (out, err) = assert_ends(&chatserver(&send, &addr, ""), 1);
    assert!(out.is_empty() && err.contains("does not speak level 2"), "{err}");
    served.join().unwrap();
    assert_ends(&chatserver(&["send", "--as", "a", "--to", "b", "x", "--timeout", "1s"], &addr, ""), 2);
}

#[test]
fn send_wait_sends_again_after_a_lost_connection() {
    let (addr, served) = scripted(vec![
        |peer: &mut Peer| {
            peer.grant();
            let packets = vec![peer.packet().unwrap(), peer.packet().unwrap()];
            peer.tell(2, Status::Delivered, None);
            packets
        },
        |peer: &mut Peer| {
            peer.grant();
            let packets = vec![peer.packet().unwrap()];
            peer.tell(1, Status::Refused, Some(Reason::IdUsed));
            let under_a_new_number = peer.packet().unwrap();
            peer.tell(3, Status::Stored, None);
            while peer.packet().is_some_and(|packet| !Peer::is_logout(&packet)) {}
            [packets, vec![under_a_new_number]].concat()
        },
    ]);
    let send = ["send", "--as", "ann", "--to", "bob", "--wait", "--lines", "-"];
    let (out, err) = assert_ends(&chatserver(&send, &addr, "one\ntwo\n"), 0);
    assert_eq!((out.as_str(), err.as_str()), ("stored\ndelivered\n", ""));
    let packets = served.join().unwrap();
    assert_eq!(packets[0][0], packets[1][0], "the same packet");
    assert_ne!(packets[0][0], packets[1][1]);
}

#[test]
fn send_wait_gives_up_in_time() {
    let (addr, served) = scripted(vec![|peer: &mut Peer| {
        peer.grant();
        std::iter::from_fn(|| peer.packet()).count()
    }]);
    let send = ["send", "--as", "ann", "--to", "bob", "--wait", "--timeout", "300ms", "hello"];
    let (out, err) = assert_ends(&chatserver(&send, &addr, ""), 4);
    assert!(out.is_empty() && err.contains("no receipt in time for 1 of the texts"), "{err}");
    assert_eq!(served.join().unwrap(), [1]);
}

#[test]
fn listen_prints_numbers_and_nothing_twice_across_its_restarts() {
    let mut server = Server::start_default();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let listen = ["listen", "--as", "bob", "--json", "--state", file.to_str().unwrap()];
    let last_seq = |file: &Path| SessionState::load(file).map_or(0, |state| state.last_seq());
    let mut ann = two(&server, "ann");
    let msg_id = ann.send_numbered("bob", "one").unwrap();
    let first = start(&listen, server.addr());
    first.prints("\"one\"");
    let printed: serde_json::Value = serde_json::from_str(&first.out()).unwrap();
    assert_eq!(printed["msg_id"].as_u64(), Some(msg_id));
    let seq = printed["seq"].as_u64().expect("a number");
    eventually("the state is kept", || last_seq(&file) == seq);
    drop(first);

    ann.send("bob", "two").unwrap();
    eventually("all has a receipt", || {
        ann.next_event(Duration::from_millis(10)).unwrap();
        ann.unreceipted() == 0
    });
    server.kill9();
    let server = server.restart();
    let two = [&listen[..], &["--count", "1"]].concat();
    let (out, _) = assert_ends(&chatserver(&two, server.addr(), ""), 0);
    assert!(out.contains("\"two\"") && !out.contains("\"one\""), "{out}");
    assert!(last_seq(&file) > seq);
    let none = [&listen[..], &["--timeout", "300ms"]].concat();
    assert_eq!(assert_ends(&chatserver(&none, server.addr(), ""), 4).0, "");

    let other = ["listen", "--as", "eve", "--state", file.to_str().unwrap()];
    assert!(assert_ends(&chatserver(&other, server.addr(), ""), 1).1.contains("is the state of bob, not of eve"));
    std::fs::write(&file, "{").unwrap();
    assert!(assert_ends(&chatserver(&listen, server.addr(), ""), 1).1.contains("move it away to start anew"));
}

#[test]
fn listen_with_a_count_leaves_the_rest_for_later() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &["one", "two"]);
    let listen = ["listen", "--as", "bob", "--count", "1"];
    let (out, err) = assert_ends(&chatserver(&listen, server.addr(), ""), 0);
    assert!(out.ends_with(" ann: one\n") && err.is_empty(), "{out}{err}");
    let (out, _) = assert_ends(&chatserver(&listen, server.addr(), ""), 0);
    assert!(out.ends_with(" ann: two\n"), "{out}");
}

#[test]
fn listen_is_told_that_another_login_took_over() {
    let server = Server::start_default();
    let mut listen = start(&["listen", "--as", "bob"], server.addr());
    server.wait_for_log("bob logged in");
    let _newer = server.login("bob");
    listen.ends(3);
    listen.notes("chatserver: another program has logged in as bob");
    assert!(!listen.err().contains("likely"), "{}", listen.err());
}

#[test]
fn listen_says_why_the_server_closes_and_comes_back() {
    let mut server = Server::start_default();
    let listen = start(&["listen", "--as", "bob"], server.addr());
    server.wait_for_log("bob logged in");
    server.sigterm();
    listen.notes("chatserver: the server is stopping\n");
    listen.notes("connecting again");
}

#[test]
fn chat_marks_its_lines() {
    let server = Server::start(|setup| setup.set("max_text_bytes", "1 KiB"));
    let mut chat = start(&["chat", "--as", "ann", "--to", "bob"], server.addr());
    chat.types("hello bob, how are you, and what do you do?");
    chat.notes("✓ bob: hello bob, how are you, and wh…\n");
    chat.types(&"长".repeat(400));
    chat.notes("✗ bob: 长长长长长长长长长长长长长长长…: the text is too long for this server\n");
    let mut bob = two(&server, "bob");
    assert!(next(&mut bob).text.starts_with("hello bob"));
    assert_eq!(bob.recv(Duration::from_millis(1)).unwrap(), None);
    chat.notes("✓✓ bob: hello bob, how are you, and wh…\n");
    bob.send("ann", "well").unwrap();
    chat.prints("bob: well");
    chat.types("/quit");
    chat.ends(0);
}

#[test]
fn chat_sends_again_what_has_no_receipt_and_nobody_notices() {
    let (addr, served) = scripted(vec![
        |peer: &mut Peer| {
            peer.grant();
            peer.packet().unwrap()
        },
        |peer: &mut Peer| {
            peer.grant();
            let again = peer.packet().unwrap();
            peer.tell(1, Status::Delivered, None);
            while peer.packet().is_some_and(|packet| !Peer::is_logout(&packet)) {}
            again
        },
    ]);
    let mut chat = start(&["chat", "--as", "ann", "--to", "bob"], &addr);
    chat.types("hello");
    chat.notes("✓✓ bob: hello\n");
    assert_eq!(chat.err().lines().filter(|line| line.contains('✓')).count(), 1, "{}", chat.err());
    chat.types("/quit");
    chat.ends(0);
    let packets = served.join().unwrap();
    assert_eq!(packets[0], packets[1]);
}

#[test]
fn chat_says_how_many_lines_have_no_receipt() {
    let (addr, served) = scripted(vec![|peer: &mut Peer| {
        peer.grant();
        while peer.packet().is_some_and(|packet| !Peer::is_logout(&packet)) {}
    }]);
    let mut chat = start(&["chat", "--as", "ann", "--to", "bob"], &addr);
    chat.types("one");
    chat.types("two");
    chat.types("/quit");
    chat.ends(4);
    chat.notes("2 of your lines have no receipt");
    served.join().unwrap();
}

#[test]
fn chat_takes_a_long_pipe_in_its_stride() {
    let server = Server::start_default();
    let lines = numbered("line", 3000);
    let mut chat = start(&["chat", "--as", "ann", "--to", "bob"], server.addr());
    lines.iter().for_each(|line| chat.types(line));
    let marks = || chat.err().lines().filter(|line| line.starts_with("✓ bob: line")).count();
    eventually("every line has its mark", || marks() == 3000);
    chat.types("/quit");
    chat.ends(0);
    assert_eq!(texts(&mut server.login("bob"), 3000), lines);
}

#[test]
fn chat_is_told_that_another_login_took_over() {
    let server = Server::start_default();
    let mut chat = start(&["chat", "--as", "ann", "--to", "bob"], server.addr());
    server.wait_for_log("ann logged in");
    let newer = server.login("ann");
    chat.notes("Another login as ann has taken over; press Enter to take it back");
    chat.types("kept");
    chat.notes("another login has taken over: kept");
    drop(newer);
    chat.types("");
    chat.notes("✓ bob: kept\n");
    chat.types("/quit");
    chat.ends(0);
}

#[test]
fn the_commands_speak_level_1_where_there_is_no_other() {
    let (addr, served) = scripted(vec![
        |peer: &mut Peer| {
            peer.answer(None);
            while peer.packet().is_some_and(|packet| !Peer::is_logout(&packet)) {}
        },
        |peer: &mut Peer| {
            peer.answer(None);
            let chat =
                chatserver::protocol::Chat { from: "bob", to: "ann", text: "hello", time: 7, ..Default::default() };
            peer.write(&Message::Chat(chat));
            while peer.packet().is_some_and(|packet| !Peer::is_logout(&packet)) {}
        },
    ]);
    let mut chat = start(&["chat", "--as", "ann", "--to", "bob"], &addr);
    chat.types("hello");
    chat.types("/quit");
    chat.ends(0);
    assert!(!chat.err().contains('✓'));
    let listen = ["listen", "--as", "ann", "--json", "--count", "1"];
    let (out, _) = assert_ends(&chatserver(&listen, &addr, ""), 0);
    assert!(out.contains("\"msg_id\":null,\"seq\":null"), "{out}");
    served.join().unwrap();
}

/// A packet that takes longer than two pings comes all the same: any byte is a sign of life.
#[test]
fn a_slow_line_is_not_a_silent_one() {
    let server = Server::start(|setup| setup.set("read_timeout", "1500 ms"));
    let mut eve = server.login("eve");
    let text = "x".repeat(6000);
    eve.send("ann", &text).unwrap();
    eve.roundtrip().unwrap();
    // A line that carries 100 bytes in 50 ms to the client: 3 s for the message, and a ping is due every half second.
    let line = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, to) = (line.local_addr().unwrap().to_string(), server.addr().to_owned());
    let connections = Arc::new(Mutex::new(0));
    let counted = connections.clone();
    thread::spawn(move || {
        for client in line.incoming().map_while(Result::ok) {
            *counted.lock() += 1;
            let server = TcpStream::connect(&to).unwrap();
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            let (mut server, mut client) = (server, client);
            thread::spawn(move || {
                let mut piece = [0; 100];
                while let Ok(count @ 1..) = server.read(&mut piece) {
                    thread::sleep(Duration::from_millis(50)); // the line's own slowness
                    if client.write_all(&piece[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let listening = start(&["listen", "--as", "ann"], &addr);
    listening.prints(&text);
    assert_eq!(*connections.lock(), 1, "{}", listening.err());
}

#[test]
fn a_server_that_answers_no_more_pings_is_left_for_a_new_connection() {
    /// Answers the first ping; gives the number of pings until the client closes.
    fn falls_silent(client: &mut Peer) -> usize {
        client.answer(Some(Granted { level: 2, read_timeout_secs: 3, max_packet_bytes: 65_536, last_msg_id: BEFORE }));
        assert!(client.packet().is_some());
        client.write(&Message::ServerPong { time: 7 });
        1 + std::iter::from_fn(|| client.packet()).count()
    }
    fn comes_back(client: &mut Peer) -> usize {
        client.grant();
        std::iter::from_fn(|| client.packet()).count()
    }
    let started = [&["listen", "--as", "ann"][..], &["chat", "--as", "ann", "--to", "bob"]].map(|arguments| {
        let (addr, server) = scripted(vec![falls_silent, comes_back]);
        (start(arguments, &addr), server)
    });
    for (client, server) in started {
        client.notes("timeout while waiting for the answer to a ping");
        client.notes("connected again");
        drop(client);
        assert_eq!(server.join().unwrap()[0], 2, "one ping with an answer, one without");
    }
}
