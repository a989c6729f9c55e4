//! Packets made by hand, field by field: what no correct client would send. Read first: PROTOCOL.md, "Packet"; protobuf.dev,
//! "Encoding".

use chatserver::protocol::{Cipher, Decoder, Frame, Message, PUBLISHED_KEY};

use crate::harness::packet;

/// A header that announces `length` and `kind`.
pub fn header(length: u32, kind: u32) -> Vec<u8> {
    [length.to_be_bytes(), kind.to_be_bytes()].concat()
}

/// A whole packet with these bytes as its body, encrypted or not.
pub fn with_body(kind: u32, body: &[u8]) -> Vec<u8> {
    [header(8 + body.len() as u32, kind), body.to_vec()].concat()
}

/// A whole packet that decrypts to `plain`, whatever that is.
pub fn sealed(kind: u32, plain: &[u8]) -> Vec<u8> {
    let mut packet = header(0, kind);
    packet.extend_from_slice(plain);
    Cipher::new(PUBLISHED_KEY).unwrap().seal(&mut packet, 8);
    let length = packet.len() as u32;
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet
}

/// A string or bytes field.
pub fn string(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

/// An integer or bool field.
pub fn integer(number: u8, value: u64) -> Vec<u8> {
    [vec![number << 3], varint(value)].concat()
}

/// A float field.
pub fn float(number: u8, value: f32) -> Vec<u8> {
    [vec![number << 3 | 5], value.to_le_bytes().to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A login packet.
pub fn login(name: &str) -> Vec<u8> {
    packet(&Message::ClientLogin { name, version: 1.0, time: 1_400_000_000, level: None, last_seq: None })
}

/// A logout packet.
pub fn logout() -> Vec<u8> {
    packet(&Message::ClientLogout { logout: true, time: 1_400_000_000 })
}

/// A chat packet.
pub fn chat(from: &str, to: &str, text: &str) -> Vec<u8> {
    use chatserver::protocol::Chat;
    packet(&Message::Chat(Chat { from, to, text, time: 1_400_000_000, ..Chat::default() }))
}

/// The packets of a stream, each whole.
pub fn packets(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while !stream.is_empty() {
        let frame = Frame::parse(stream, usize::MAX).unwrap().expect("a whole packet");
        packets.push(frame.packet.to_vec());
        stream = &stream[frame.packet.len()..];
    }
    packets
}

/// What a packet says, as text: for comparing by meaning, and for messages of failed tests.
pub fn meaning(packet: &[u8]) -> String {
    let frame = Frame::parse(packet, usize::MAX).unwrap().expect("a whole packet");
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    format!("{:?}", Decoder::default().decode(&cipher, frame).unwrap().message)
}
