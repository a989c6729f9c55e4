//! The bytes of existing software, in both directions: what it wrote is understood, and what we write is what it wrote.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::*;

#[derive(Deserialize)]
struct KnownAnswers {
    key: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    r#type: u32,
    fields: Value,
    protobuf_hex: String,
    encrypted_body_hex: String,
    packet_len: usize,
    packet_hex: String,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn known_answers() -> KnownAnswers {
    serde_json::from_slice(&fs::read(data("vectors.json")).unwrap()).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

impl Vector {
    fn text(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap()
    }

    fn flag(&self, field: &str) -> bool {
        self.fields[field].as_bool().unwrap()
    }

    fn message(&self) -> Message<'_> {
        let time = self.fields["timestamp"].as_i64().unwrap();
        match self.r#type {
            1 => {
                let version = self.fields["version"].as_f64().unwrap() as f32;
                Message::ClientLogin { name: self.text("uuid"), version, time, level: None, last_seq: None }
            }
            2 => Message::ServerAcceptLogin(LoginAnswer {
                login: self.flag("login"),
                tips: self.text("tips_msg"),
                time,
                granted: None,
            }),
            3 => Message::ClientLogout { logout: self.flag("logout"), time },
            4 => Message::ClientPing { ping: self.flag("ping"), time },
            5 => {
                let (from, to, text) = (self.text("from_uuid"), self.text("to_uuid"), self.text("text_msg"));
                Message::Chat(Chat { from, to, text, time, ..Chat::default() })
            }
            other => panic!("a vector of type {other}"),
        }
    }
}

#[test]
fn every_known_packet_is_decoded() {
    let known = known_answers();
    let cipher = Cipher::new(known.key.as_bytes()).unwrap();
    let (mut decoder, mut scratch) = (Decoder::default(), Vec::new());
    assert_eq!(known.vectors.len(), 17);
    for vector in &known.vectors {
        let packet = unhex(&vector.packet_hex);
        assert_eq!(packet.len(), vector.packet_len, "{}", vector.name);
        let frame = Frame::parse(&packet, MAX).unwrap().unwrap();
        assert_eq!(frame.kind, vector.r#type, "{}", vector.name);
        assert_eq!(frame.body(), unhex(&vector.encrypted_body_hex), "{}", vector.name);
        assert_eq!(cipher.open(frame.body(), &mut scratch).unwrap(), unhex(&vector.protobuf_hex), "{}", vector.name);
        let decoded = decoder.decode(&cipher, frame).unwrap();
        assert_eq!(decoded, Decoded { message: vector.message(), exact: true }, "{}", vector.name);
    }
}

#[test]
fn every_known_message_is_encoded_to_the_same_bytes() {
    let known = known_answers();
    let cipher = Cipher::new(known.key.as_bytes()).unwrap();
    for vector in &known.vectors {
        let mut packet = Vec::new();
        vector.message().encode(&cipher, &mut packet);
        assert_eq!(packet, unhex(&vector.packet_hex), "{}", vector.name);
    }
}

/// Recorded connections, and the types of their packets.
const STREAMS: [(&str, &[u32]); 8] = [
    ("all-types-python.client-to-server", &[1, 4, 5, 3]),
    ("all-types-python.server-to-client", &[2, 5]),
    ("offline-goclient.client-to-server", &[1]),
    ("offline-goclient.server-to-client", &[2, 5]),
    ("pair-A.client-to-server", &[1, 5, 5, 4, 5, 5, 4, 5, 5]),
    ("pair-A.server-to-client", &[2, 5, 5, 5, 5, 5, 5]),
    ("pair-B.client-to-server", &[1, 5, 5, 5, 4, 5, 4, 5, 5]),
    ("pair-B.server-to-client", &[2, 5, 5, 5, 5, 5, 5]),
];

#[test]
fn every_recorded_stream_is_decoded_and_encoded_to_the_same_bytes() {
    let cipher = cipher();
    let mut decoder = Decoder::default();
    for (name, kinds) in STREAMS {
        let stream = fs::read(data(&format!("{name}.bin"))).unwrap();
        let mut again = Vec::new();
        for frame in frames(&stream) {
            let decoded = decoder.decode(&cipher, frame).unwrap();
            assert!(decoded.exact, "{name}");
            decoded.message.encode(&cipher, &mut again);
        }
        assert_eq!(again, stream, "{name}");
        let found: Vec<u32> = frames(&stream).iter().map(|frame| frame.kind).collect();
        assert_eq!(found, kinds, "{name}");
    }
}
