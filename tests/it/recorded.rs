//! Recorded sessions of clients written years ago, played to the server: every answer means what theirs meant, and every chat packet
//! comes out byte for byte. The files are explained in `tests/data/README.md`.

use chatserver::client::Connection;
use chatserver::protocol::{Chat, Cipher, Decoder, Frame, Message, PUBLISHED_KEY};

use crate::harness::*;
use crate::wire;

/// One direction of a recorded connection, packet by packet.
fn recorded(name: &str, direction: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/data/{name}.{direction}.bin", env!("CARGO_MANIFEST_DIR"));
    wire::packets(&std::fs::read(path).unwrap())
}

fn kind(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[4..8].try_into().unwrap())
}

/// Sends the recorded login; the answer must be a yes with the server's time.
fn play_login(server: &Server, login: &[u8]) -> Connection {
    assert_eq!(kind(login), 1);
    let mut connection = server.connect().open().unwrap();
    connection.write_raw(login).unwrap();
    let answer = connection.read_packet(PATIENCE).unwrap().unwrap();
    let meaning = wire::meaning(&answer.bytes);
    assert!(meaning.contains("login: true"), "{meaning}");
    connection
}

fn expect_packets(connection: &mut Connection, expected: &[Vec<u8>]) {
    for expected in expected {
        let got = connection.read_packet(PATIENCE).unwrap().unwrap();
        assert_eq!(wire::meaning(&got.bytes), wire::meaning(expected));
        assert_eq!(&got.bytes, expected, "byte for byte");
    }
}

#[test]
fn two_go_clients_talk_to_each_other() {
    let server = Server::start_default();
    let streams =
        ["pair-A", "pair-B"].map(|name| (recorded(name, "client-to-server"), recorded(name, "server-to-client")));
    let connections = streams.each_ref().map(|(sent, _)| play_login(&server, &sent[0]));
    std::thread::scope(|scope| {
        for ((sent, received), mut connection) in streams.iter().zip(connections) {
            scope.spawn(move || {
                assert_eq!(kind(&received[0]), 2);
                connection.write_raw(&sent[1..].concat()).unwrap();
                expect_packets(&mut connection, &received[1..]);
            });
        }
    });
}

#[test]
fn an_offline_message_reaches_the_go_client() {
    for restart in [false, true] {
        let mut server = Server::start_default();
        let sent = recorded("offline-goclient", "client-to-server");
        let received = recorded("offline-goclient", "server-to-client");
        let frame = Frame::parse(&received[1], usize::MAX).unwrap().unwrap();
        let mut decoder = Decoder::default();
        let decoded = decoder.decode(&Cipher::new(PUBLISHED_KEY).unwrap(), frame).unwrap();
        let Message::Chat(chat) = decoded.message else { panic!("{decoded:?}") };
        assert!(!chat.text.is_ascii(), "Chinese and an emoji: {}", chat.text);
        let mut sender = server.login(chat.from);
        sender.send_at(chat.to, chat.text, chat.time).unwrap();
        sender.roundtrip().unwrap();
        if restart {
            server = server.restart();
        }
        let mut client = play_login(&server, &sent[0]);
        expect_packets(&mut client, &received[1..]);
    }
}

#[test]
fn a_python_client_uses_every_type_of_packet() {
    let server = Server::start_default();
    let sent = recorded("all-types-python", "client-to-server");
    let received = recorded("all-types-python", "server-to-client");
    assert_eq!(sent.iter().map(|packet| kind(packet)).collect::<Vec<_>>(), [1, 4, 5, 3]);
    let mut client = play_login(&server, &sent[0]);
    client.write_raw(&sent[1..3].concat()).unwrap();
    expect_packets(&mut client, &received[1..]);
    client.write_raw(&sent[3]).unwrap();
    assert_eq!(client.read_to_close(PATIENCE).unwrap(), (vec![], false), "the logout is answered with a clean close");
}

#[test]
fn a_whole_session_in_one_segment_is_answered_as_packet_by_packet() {
    let server = Server::start_default();
    let sent = recorded("all-types-python", "client-to-server");
    let received = recorded("all-types-python", "server-to-client");
    let mut client = server.connect().open().unwrap();
    client.write_raw(&sent.concat()).unwrap();
    let (packets, reset) = client.read_to_close(PATIENCE).unwrap();
    assert!(!reset);
    assert_eq!(packets.len(), received.len());
    assert!(wire::meaning(&packets[0].bytes).contains("login: true"));
    assert_eq!(packets[1].bytes, received[1]);
}

/// Level 2: one client writes to itself. The client's bytes are played; what the server answers is compared but for its clock, from which times and
/// seqs come. With UPDATE_DATA=1 the files are written anew.
#[test]
fn the_session_of_level_2_is_the_recorded_one() {
    let mut server = Server::start(|setup| setup.set("receipt_interval", "1 h"));
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let mut connection = server.connect().open().unwrap();
    let mut seq = 0;
    let mut play = |message: Option<Message<'_>>, answers: usize| {
        if let Some(message) = message {
            let packet = packet(&message);
            connection.write_raw(&packet).unwrap();
            sent.push(packet);
        }
        for _ in 0..answers {
            let packet = connection.read_packet(PATIENCE).unwrap().expect("an answer").bytes;
            let mut decoder = Decoder::default();
            let frame = Frame::parse(&packet, usize::MAX).unwrap().unwrap();
            if let Message::Chat(chat) = decoder.decode(&cipher, frame).unwrap().message {
                seq = chat.seq.unwrap();
            }
            received.push(packet);
        }
        seq
    };
    let time = 1_795_356_894;
    play(Some(Message::ClientLogin { name: "ann", version: 1.0, time, level: Some(2), last_seq: None }), 1);
    eventually("numbers are reserved, so that DELIVERED comes at once", || {
        server.db().query_row("select count(*) from senders", [], |row| row.get(0)) == Ok(1)
    });
    let chat = Chat { from: "ann", to: "ann", text: "to myself", time, msg_id: Some(1), seq: None };
    let seq = play(Some(Message::Chat(chat)), 1);
    play(Some(Message::ClientAck { seq }), 1);
    play(Some(Message::ClientPing { ping: true, time }), 1);
    assert_eq!(server.sigterm().code(), Some(0));
    play(None, 1);
    for (direction, packets) in [("client-to-server", sent), ("server-to-client", received)] {
        if std::env::var_os("UPDATE_DATA").is_some() {
            let path = format!("{}/tests/data/level2.{direction}.bin", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, packets.concat()).unwrap();
        }
        let known: Vec<String> = recorded("level2", direction).iter().map(|packet| without_clock(packet)).collect();
        assert_eq!(packets.iter().map(|packet| without_clock(packet)).collect::<Vec<_>>(), known);
    }
}

/// What a packet says, with the numbers that come from the server's clock blanked.
fn without_clock(packet: &[u8]) -> String {
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let mut decoder = Decoder::default();
    let mut message = decoder.decode(&cipher, Frame::parse(packet, usize::MAX).unwrap().unwrap()).unwrap().message;
    match &mut message {
        Message::ServerAcceptLogin(answer) => answer.time = 0,
        Message::Chat(chat) => chat.seq = chat.seq.map(|_| 0),
        Message::ClientAck { seq } => *seq = 0,
        _ => {}
    }
    format!("{message:?}")
}
