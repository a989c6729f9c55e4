//! Recorded sessions of clients written years ago, played to the server: every answer means what theirs meant, and every chat packet
//! comes out byte for byte. The files are explained in `tests/data/README.md`.

use chatserver::client::Connection;
use chatserver::protocol::{Cipher, Decoder, Frame, Message, PUBLISHED_KEY};

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
