//! The client against scripted servers: a thread that accepts one connection and does what the test says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::*;
use crate::protocol::{Chat, Cipher, Decoder, Frame, LoginAnswer, PUBLISHED_KEY};

mod level2;

/// For what is expected to come: only a hang waits so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// For what is expected not to come.
const SHORT: Duration = Duration::from_millis(30);

/// The server's end of the one connection.
struct Peer {
    stream: TcpStream,
    cipher: Cipher,
    decoder: Decoder,
}

impl Peer {
    /// The next packet's bytes; `None` = the client has closed.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 8];
        self.stream.read_exact(&mut packet).ok()?;
        let length = u32::from_be_bytes(packet[..4].try_into().unwrap());
        packet.resize(length as usize, 0);
        self.stream.read_exact(&mut packet[8..]).ok()?;
        Some(packet)
    }

    /// The next packet's message, printed.
    fn message(&mut self) -> Option<String> {
        let packet = self.packet()?;
        let frame = Frame::parse(&packet, usize::MAX).unwrap().unwrap();
        Some(format!("{:?}", self.decoder.decode(&self.cipher, frame).unwrap().message))
    }

    fn encoded(&self, message: &Message<'_>) -> Vec<u8> {
        let mut packet = Vec::new();
        message.encode(&self.cipher, &mut packet);
        packet
    }

    fn chat(&self, text: &str) -> Vec<u8> {
        self.encoded(&Message::Chat(Chat { from: "bob", to: "alice", text, time: 7, ..Chat::default() }))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Takes the login and answers it.
    fn answer(&mut self, login: bool, tips: &str) {
        assert!(self.message().unwrap().starts_with("ClientLogin { name: \"alice\""));
        let answer =
            self.encoded(&Message::ServerAcceptLogin(LoginAnswer { login, tips, time: 42, ..LoginAnswer::default() }));
        self.write(&answer);
    }
}

/// Runs `script` as the server of one connection.
fn server<T: Send + 'static>(script: impl FnOnce(&mut Peer) -> T + Send + 'static) -> (Connect, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        script(&mut Peer { stream, cipher, decoder: Decoder::default() })
    });
    (Client::connect(addr, PUBLISHED_KEY).timeout(PATIENCE).numbers_above(0), served)
}

#[test]
fn a_login_tells_its_answer() {
    let (connect, _) = server(|peer| peer.answer(true, "welcome"));
    let client = connect.login("alice").unwrap();
    assert_eq!((client.name(), client.welcome(), client.server_time()), ("alice", "welcome", 42));

    let (connect, _) = server(|peer| peer.answer(false, "no room"));
    assert!(matches!(connect.login("alice"), Err(ClientError::Refused { tips }) if tips == "no room"));

    let (connect, _) = server(|peer| peer.message());
    assert!(matches!(connect.login("alice"), Err(ClientError::Closed { reset: false })));

    let (connect, _) = server(|peer| (peer.message(), peer.packet()));
    let connect = connect.timeout(SHORT);
    assert!(matches!(connect.login("alice"), Err(ClientError::Timeout { .. })));
}

#[test]
fn no_connection_says_where() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::connect(addr.as_str(), PUBLISHED_KEY).login("alice").unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }) && error.to_string().contains(&addr), "{error}");
    assert!(matches!(Client::connect(addr, b"short").open(), Err(ClientError::Key(_))));
}

/// The packet's pieces wait for the client to have run into its timeout in between: the channel is the clock.
#[test]
fn a_packet_in_pieces_survives_timeouts() {
    let (next, waiting) = std::sync::mpsc::channel::<()>();
    let (connect, served) = server(move |peer| {
        peer.answer(true, "");
        let packet = peer.chat("in pieces");
        for piece in [&packet[..3], &packet[3..8], &packet[8..20], &packet[20..]] {
            waiting.recv().unwrap();
            peer.write(piece);
        }
    });
    let mut client = connect.login("alice").unwrap();
    for _ in 0..3 {
        next.send(()).unwrap();
        assert_eq!(client.recv(SHORT).unwrap(), None);
    }
    next.send(()).unwrap();
    let expected =
        Incoming { from: "bob".into(), to: "alice".into(), text: "in pieces".into(), time: 7, ..Incoming::default() };
    assert_eq!(client.recv(PATIENCE).unwrap(), Some(expected));
    served.join().unwrap();
    assert!(matches!(client.recv(PATIENCE), Err(ClientError::Closed { reset: false })));
}

#[test]
fn many_packets_in_one_read_come_one_by_one_before_the_close() {
    let (connect, served) = server(|peer| {
        peer.answer(true, "");
        let long = "x".repeat(20_000);
        let stream: Vec<u8> = (0..100).flat_map(|n| peer.chat(&format!("{n} {long}"))).collect();
        peer.write(&stream);
    });
    let mut client = connect.login("alice").unwrap();
    for n in 0..100 {
        let message = client.recv(PATIENCE).unwrap().unwrap();
        assert!(message.text.starts_with(&format!("{n} ")) && message.text.len() > 20_000);
    }
    assert!(matches!(client.recv(PATIENCE), Err(ClientError::Closed { reset: false })));
    served.join().unwrap();
}

#[test]
fn a_dribbling_server_does_not_extend_the_deadline() {
    let (connect, served) = server(|peer| {
        peer.answer(true, "");
        let packet = peer.chat(&"x".repeat(10_000));
        let mut sent = 0;
        // Ends when the client hangs up.
        while sent < packet.len() && peer.stream.write_all(&packet[sent..=sent]).is_ok() {
            sent += 1;
            thread::sleep(Duration::from_millis(5));
        }
        sent < packet.len()
    });
    let mut client = connect.login("alice").unwrap();
    let started = Instant::now();
    assert_eq!(client.recv(SHORT * 3).unwrap(), None);
    assert!(started.elapsed() < PATIENCE);
    drop(client);
    assert!(served.join().unwrap(), "the whole packet was waited for");
}

#[test]
fn a_round_trip_queues_what_comes_before_it() {
    let (connect, served) = server(|peer| {
        peer.answer(true, "");
        let before = [peer.chat("one"), peer.chat("two")].concat();
        peer.write(&before);
        let own = peer.packet().unwrap();
        peer.write(&own);
        peer.message()
    });
    let mut client = connect.login("alice").unwrap();
    client.roundtrip().unwrap();
    assert_eq!(client.recv(Duration::ZERO).unwrap().unwrap().text, "one");
    assert_eq!(client.recv(Duration::ZERO).unwrap().unwrap().text, "two");
    assert_eq!(client.recv(Duration::ZERO).unwrap(), None);
    drop(client);
    assert_eq!(served.join().unwrap(), None);
}

#[test]
fn a_batch_is_written_at_the_flush_and_logout_gives_what_arrived() {
    let (connect, served) = server(|peer| {
        peer.answer(true, "");
        let received: Vec<String> = std::iter::from_fn(|| peer.message()).take(4).collect();
        let late = peer.chat("late");
        peer.write(&late);
        received
    });
    let mut client = connect.login("alice").unwrap();
    client.queue("bob", "one");
    client.queue("bob", "two");
    assert!(client.sender.batch_bytes() > 0);
    client.send_at("bob", "three", -1).unwrap();
    assert_eq!(client.sender.batch_bytes(), 0);
    let arrived = client.logout().unwrap();
    assert_eq!(arrived.iter().map(|message| message.text.as_str()).collect::<Vec<_>>(), ["late"]);
    let received = served.join().unwrap();
    assert!(received[0].contains("\"one\"") && received[1].contains("\"two\""), "{received:?}");
    assert!(received[2].contains("\"three\"") && received[2].contains("time: -1"), "{received:?}");
    assert!(received[3].starts_with("ClientLogout { logout: true"), "{received:?}");
}

#[test]
fn senders_on_two_threads_never_mix_packets() {
    const EACH: usize = 300;
    let (connect, served) = server(|peer| {
        peer.answer(true, "");
        std::iter::from_fn(|| peer.message()).take_while(|message| message.starts_with("Chat")).count()
    });
    let client = connect.login("alice").unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut sender = client.sender();
            scope.spawn(move || {
                let text = "x".repeat(10_000);
                (0..EACH).for_each(|_| sender.send("bob", &text).unwrap());
            });
        }
    });
    client.logout().unwrap();
    assert_eq!(served.join().unwrap(), 2 * EACH);
}

#[test]
fn a_server_that_does_not_read_costs_the_connection_not_the_thread() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (connect, served) = server(move |peer| {
        peer.answer(true, "");
        let _ = wait.recv();
    });
    let mut client = connect.timeout(SHORT * 3).login("alice").unwrap();
    let text = "x".repeat(60_000);
    let error = (0..2000).find_map(|_| client.send("bob", &text).err()).expect("no socket takes 120 MB");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(matches!(client.send("bob", "after it"), Err(ClientError::Closed { .. })));
    drop(done);
    served.join().unwrap();
}

#[test]
fn an_unreadable_packet_is_skipped() {
    let (connect, served) = server(|peer| {
        peer.answer(true, "");
        let mut stream = peer.chat("broken");
        let last = stream.len() - 1;
        stream[last] ^= 1;
        stream.extend(peer.chat("whole"));
        peer.write(&stream);
    });
    let mut client = connect.login("alice").unwrap();
    assert!(matches!(client.recv(PATIENCE), Err(ClientError::Protocol(ProtocolError::BadBody))));
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "whole");
    served.join().unwrap();
}

#[test]
fn raw_bytes_and_packets_pass_unchanged() {
    let (connect, served) = server(|peer| {
        let first = peer.packet().unwrap();
        peer.write(&first);
        first
    });
    let mut connection = connect.open().unwrap();
    let bytes = [&[0, 0, 0, 24, 0, 0, 0x12, 0x34][..], &[9; 16]].concat();
    connection.write_raw(&bytes).unwrap();
    let (packets, reset) = connection.read_to_close(PATIENCE).unwrap();
    assert_eq!(packets, [Packet { kind: 0x1234, bytes: bytes.clone() }]);
    assert!(!reset);
    assert_eq!(served.join().unwrap(), bytes);
}
