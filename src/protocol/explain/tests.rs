//! What is explained is what the decoder reads, and every byte has its place.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::{
    Chat, Decoder, Granted, LoginAnswer, Message, NoticeCode, PUBLISHED_KEY, Reason, Receipt, Status, encode_packet,
};

const MAX: usize = 65_536;

fn cipher() -> Cipher {
    Cipher::new(PUBLISHED_KEY).unwrap()
}

fn packet(message: Message<'_>) -> Vec<u8> {
    let mut packet = Vec::new();
    message.encode(&cipher(), &mut packet);
    packet
}

/// One of each type, with all fields.
fn messages() -> Vec<Message<'static>> {
    let granted = Granted { level: 2, read_timeout_secs: 120, max_packet_bytes: 65_536, last_msg_id: 300 };
    let text = Some("已满");
    vec![
        Message::ClientLogin { name: "小明", version: 2.5, time: 1_400_000_000, level: Some(2), last_seq: Some(7) },
        Message::ServerAcceptLogin(LoginAnswer { login: true, tips: "hello", time: -1, granted: Some(granted) }),
        Message::ClientLogout { logout: true, time: 1 },
        Message::ClientPing { ping: true, time: 1 },
        Message::Chat(Chat {
            from: "Ann",
            to: "Bob",
            text: "a \"text\"",
            time: 5,
            msg_id: Some(1 << 40),
            seq: Some(1),
        }),
        Message::ServerReceipt(Receipt {
            msg_ids: &[1, 300],
            status: Status::Refused,
            reason: Some(Reason::Rate),
            text,
        }),
        Message::ClientAck { seq: 128 },
        Message::ServerNotice { code: NoticeCode::Kicked, text: "bye" },
        Message::ServerPong { time: 1 },
    ]
}

fn meanings(it: &Explained<'_>, layer: Layer) -> Vec<String> {
    let bytes = if layer == Layer::Packet { it.packet } else { &it.plain };
    let parts = it.parts.iter().filter(|part| part.layer == layer);
    parts.map(|part| format!("{} {}", hex(&bytes[part.range.clone()]), part.meaning)).collect()
}

/// Every byte has one meaning.
fn assert_tiled(it: &Explained<'_>) {
    for (layer, length) in [(Layer::Packet, it.packet.len()), (Layer::Plain, it.plain.len())] {
        let mut at = 0;
        for part in it.parts.iter().filter(|part| part.layer == layer) {
            assert_eq!(part.range.start, at, "{it:?}");
            at = part.range.end;
        }
        assert_eq!(at, length, "{it:?}");
    }
}

#[test]
fn every_byte_of_a_login_is_explained() {
    let bytes =
        packet(Message::ClientLogin { name: "Ann", version: 2.5, time: 1_400_000_000, level: None, last_seq: None });
    let it = explain(&bytes, &cipher(), MAX);
    assert_tiled(&it);
    assert_eq!((it.kind, it.name(), it.is_from_client(), &it.fault), (Some(1), "PK_ClientLogin", Some(true), &None));
    assert_eq!(
        meanings(&it, Layer::Packet)[..2],
        ["00000028 length: 40 bytes, these 4 included", "00000001 type: 1, PK_ClientLogin"]
    );
    assert!(meanings(&it, Layer::Packet)[2].ends_with("body, encrypted with AES-128-CBC: block 1 of 2"));
    assert_eq!(
        meanings(&it, Layer::Plain),
        [
            "0a field 1, uuid: wire type 2, a length follows (1 << 3 | 2)",
            "03 length of the text: 3 bytes",
            "416e6e \"Ann\"",
            "15 field 2, version: wire type 5, 4 bytes follow (2 << 3 | 5)",
            "00002040 2.5: IEEE 754 single precision, lowest byte first",
            "18 field 3, timestamp: wire type 0, a varint follows (3 << 3 | 0)",
            "809cc99b05 1400000000: 5 bytes, 7 bits of each, lowest first, 2014-05-13 16:53:20 UTC",
            "10101010101010101010101010101010 padding: 16 × 10",
        ]
    );
    assert_eq!(it.summary(), "uuid=\"Ann\" version=2.5 timestamp=1400000000");
}

#[test]
fn each_message_says_what_was_put_into_it() {
    let said: Vec<_> =
        messages().into_iter().map(packet).map(|bytes| explain(&bytes, &cipher(), MAX).json().to_string()).collect();
    assert_eq!(
        said,
        [
            r#"{"last_seq":7,"level":2,"timestamp":1400000000,"uuid":"小明","version":2.5}"#,
            r#"{"last_msg_id":300,"level":2,"login":true,"max_packet_bytes":65536,"read_timeout_secs":120,"timestamp":-1,"tips_msg":"hello"}"#,
            r#"{"logout":true,"timestamp":1}"#,
            r#"{"ping":true,"timestamp":1}"#,
            r#"{"from_uuid":"Ann","msg_id":1099511627776,"seq":1,"text_msg":"a \"text\"","timestamp":5,"to_uuid":"Bob"}"#,
            r#"{"msg_id":[1,300],"reason":"RATE","status":"REFUSED","text":"已满"}"#,
            r#"{"seq":128}"#,
            r#"{"code":"KICKED","text":"bye"}"#,
            r#"{"timestamp":1}"#,
        ]
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let sealed = |kind, plain: &[u8]| {
        let mut packet = Vec::new();
        encode_packet(kind, plain, &cipher(), &mut packet);
        packet
    };
    let fault = |bytes: &[u8]| explain(bytes, &cipher(), MAX).fault.unwrap().to_string();
    let table: [(Vec<u8>, &str); 14] = [
        (vec![0, 0], "at byte 2 of the packet: the bytes end within the length, of which 2 of 4 are here"),
        (vec![0, 0, 0, 9, 0], "at byte 0 of the packet: packet length 9 is below the minimum of 24"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "at byte 0 of the packet: this looks like HTTP, not like a chat client"),
        (
            sealed(4, b"\x08\x01\x10\x05")[..23].to_vec(),
            "at byte 23 of the packet: the bytes end within the packet, of which 23 of 24 are here",
        ),
        (sealed(7, b""), "at byte 4 of the packet: type 7 is none of this protocol's"),
        (sealed(4, b"\x08\x01"), "at byte 2 of the plaintext: field 2, timestamp, is missing, and required"),
        (sealed(4, b"\x08\x01\x12\x01\x05"), "at byte 3 of the plaintext: timestamp is not of wire type 2"),
        (sealed(4, b"\x08\x01\x10\x80"), "at byte 4 of the plaintext: the plaintext ends within a varint"),
        (sealed(4, b"\x00"), "at byte 0 of the plaintext: a field has no number 0"),
        (sealed(4, b"\x0f"), "at byte 0 of the plaintext: there is no wire type 7"),
        (sealed(5, b"\x0a\x7fAnn"), "at byte 1 of the plaintext: a length of 127 bytes, of which 3 are here"),
        (sealed(5, b"\x0a\x03A\xffn"), "at byte 3 of the plaintext: from_uuid is not UTF-8 from here on"),
        (sealed(101, b"\x0a\x00\x10\x01"), "at byte 4 of the plaintext: a receipt of no message"),
        (sealed(101, b"\x08\x01\x10\x09"), "at byte 4 of the plaintext: its status is none of this protocol's"),
    ];
    for (bytes, expected) in table {
        assert_eq!(fault(&bytes), expected);
    }
    let other_key = Cipher::new(b"another key 1234").unwrap();
    let ping = sealed(4, b"\x08\x01\x10\x05");
    let it = explain(&ping, &other_key, MAX);
    assert!(it.fault.as_ref().unwrap().why.contains("the key is another one"), "{it:?}");
    assert!(it.is_delimited, "the next packet can be found all the same");
}

#[test]
fn the_table_of_fields_has_every_packet_type() {
    for kind in (0..2000).filter_map(|kind| PacketType::parse(kind).ok()) {
        let name = kind.name().replace("PK_", "Pb");
        assert!(LAYOUTS.iter().any(|layout| layout.name == name && !layout.fields.is_empty()), "{name}");
    }
}

/// The explanation's verdict is the decoder's.
fn assert_agrees(kind: u32, plain: &[u8]) {
    let mut bytes = Vec::new();
    encode_packet(kind, plain, &cipher(), &mut bytes);
    let it = explain(&bytes, &cipher(), MAX);
    assert_tiled(&it);
    let frame = Frame::parse(&bytes, MAX).unwrap().unwrap();
    let decoded = Decoder::default().decode(&cipher(), frame).map(|decoded| format!("{decoded:?}"));
    assert_eq!(it.fault.is_none(), decoded.is_ok(), "{it:?}\n{decoded:?}");
}

fn kind() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![1, 2, 3, 4, 5, 101, 102, 103, 104, 7])
}

proptest! {
    #[test]
    fn changed_messages_are_judged_as_the_decoder_does(
        which in 0..9_usize,
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4),
    ) {
        let bytes = packet(messages()[which]);
        let kind = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        let mut plain = cipher().open(&bytes[8..], &mut Vec::new()).unwrap().to_vec();
        for (index, byte, how) in edits {
            if plain.is_empty() {
                break;
            }
            let at = index.index(plain.len());
            match how {
                0 => plain[at] = byte,
                1 => plain.insert(at, byte),
                _ => drop(plain.remove(at)),
            }
        }
        assert_agrees(kind, &plain);
    }

    #[test]
    fn any_plaintext_is_judged_as_the_decoder_does(kind in kind(), plain in vec(any::<u8>(), 0..60)) {
        assert_agrees(kind, &plain);
    }

    /// Keys of few fields, small lengths, groups.
    #[test]
    fn plaintexts_like_protobuf_are_judged_as_the_decoder_does(
        kind in kind(),
        plain in vec(prop_oneof![0..10_u8, 0x08..0x40_u8, Just(0x80), Just(0xff), Just(0x4b), Just(0x4c)], 0..40),
    ) {
        assert_agrees(kind, &plain);
    }

    #[test]
    fn any_bytes_are_explained(bytes in vec(any::<u8>(), 0..200), length in prop_oneof![Just(None), (0..200_u32).prop_map(Some)]) {
        let mut bytes = bytes;
        if let (Some(length), true) = (length, bytes.len() >= 4) {
            bytes[..4].copy_from_slice(&length.to_be_bytes());
        }
        let it = explain(&bytes, &cipher(), MAX);
        assert_tiled(&it);
        prop_assert!(it.packet.len() <= bytes.len());
    }
}

#[test]
fn groups_are_skipped_as_deep_as_the_decoder_does_it() {
    for depth in [1, 2, 99, 100, 101, 150] {
        for kind in [1, 4] {
            let mut plain = b"\x08\x01\x10\x05".to_vec();
            plain.extend(std::iter::repeat_n(0x4b, depth));
            plain.extend(std::iter::repeat_n(0x4c, depth));
            assert_agrees(kind, &plain);
        }
    }
}
