//! What a peer can send that is wrong: bytes in, expected error out, one line per case.

use super::ProtocolError::{BadBody, UnknownType};
use super::*;

/// One field as bytes: its key, then its value.
type Field = &'static [u8];

/// For each type, its required fields in order, and for each of them the wire type that it has.
const MESSAGES: [(u32, &[(Field, u8)]); 5] = [
    (1, &[(b"\x0a\x01A", 2), (b"\x15\xc3\xf5\x48\x40", 5), (b"\x18\x01", 0)]),
    (2, &[(b"\x08\x01", 0), (b"\x12\x02ok", 2), (b"\x18\x01", 0)]),
    (3, &[(b"\x08\x01", 0), (b"\x10\x01", 0)]),
    (4, &[(b"\x08\x01", 0), (b"\x10\x01", 0)]),
    (5, &[(b"\x0a\x01A", 2), (b"\x12\x01B", 2), (b"\x1a\x02hi", 2), (b"\x20\x01", 0)]),
];

/// A well-formed value of each wire type; field number and wire type go before it.
const VALUES: [(u8, &[u8]); 5] = [
    (0, b"\x01"),
    (1, b"\x01\x02\x03\x04\x05\x06\x07\x08"),
    (2, b"\x01x"),
    (3, b""), // a group; its end goes after it
    (5, b"\x01\x02\x03\x04"),
];

fn value(number: u8, wire_type: u8) -> Vec<u8> {
    let (_, value) = VALUES.iter().find(|(known, _)| *known == wire_type).unwrap();
    let mut bytes = vec![number << 3 | wire_type];
    bytes.extend_from_slice(value);
    if wire_type == 3 {
        bytes.push(number << 3 | 4);
    }
    bytes
}

fn plain(fields: &[(Field, u8)]) -> Vec<u8> {
    fields.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect()
}

/// What becomes of a whole packet; of a good one, whether it is exact.
fn outcome(packet: &[u8]) -> Result<bool, ProtocolError> {
    let frame = Frame::parse(packet, MAX)?.expect("a whole packet");
    assert_eq!(frame.packet.len(), packet.len());
    Decoder::default().decode(&cipher(), frame).map(|decoded| decoded.exact)
}

/// A packet whose body decrypts to exactly these blocks, padding included.
fn unpadded(kind: u32, blocks: &[u8]) -> Vec<u8> {
    assert!(blocks.len().is_multiple_of(16));
    let padded = packet(kind, blocks);
    let mut packet = Vec::new();
    Frame::write(kind, &mut packet, |out| out.extend_from_slice(&padded[HEADER_BYTES..HEADER_BYTES + blocks.len()]));
    packet
}

#[test]
fn the_table_itself_is_sound() {
    for (kind, fields) in MESSAGES {
        assert_eq!(outcome(&packet(kind, &plain(fields))), Ok(true), "type {kind}");
    }
}

#[test]
fn every_missing_field_is_noticed() {
    for (kind, fields) in MESSAGES {
        assert_eq!(outcome(&packet(kind, b"")), Err(BadBody), "type {kind} without any field");
        for missing in 0..fields.len() {
            let mut rest = fields.to_vec();
            rest.remove(missing);
            assert_eq!(
                outcome(&packet(kind, &plain(&rest))),
                Err(BadBody),
                "type {kind} without field {}",
                missing + 1
            );
            // A field that is there twice does not stand in for one that is missing.
            rest.push(rest[0]);
            assert_eq!(
                outcome(&packet(kind, &plain(&rest))),
                Err(BadBody),
                "type {kind} without field {}",
                missing + 1
            );
        }
    }
}

#[test]
fn every_wrong_wire_type_is_refused() {
    for (kind, fields) in MESSAGES {
        for (index, (_, right)) in fields.iter().enumerate() {
            let number = index as u8 + 1;
            for (wire_type, _) in VALUES.iter().filter(|(wire_type, _)| wire_type != right) {
                let mut bytes = plain(fields);
                bytes.extend_from_slice(&value(number, *wire_type));
                assert_eq!(
                    outcome(&packet(kind, &bytes)),
                    Err(BadBody),
                    "type {kind} field {number} wire type {wire_type}"
                );
            }
        }
    }
}

#[test]
fn every_truncation_of_a_message_is_refused() {
    for (kind, fields) in MESSAGES {
        let whole = plain(fields);
        for end in 0..whole.len() {
            assert_eq!(outcome(&packet(kind, &whole[..end])), Err(BadBody), "type {kind} after {end} bytes");
        }
    }
}

#[test]
fn fields_that_are_unknown_or_repeated_are_legal_but_not_exact() {
    for (kind, fields) in MESSAGES {
        let whole = plain(fields);
        for (wire_type, _) in VALUES {
            // 15: the highest number whose key is one byte; no level uses it.
            let unknown = value(15, wire_type);
            let before = [&unknown[..], &whole].concat();
            let after = [&whole[..], &unknown].concat();
            for bytes in [before, after] {
                assert_eq!(outcome(&packet(kind, &bytes)), Ok(false), "type {kind} wire type {wire_type}");
            }
        }
        for (field, _) in fields {
            let twice = [&whole[..], field].concat();
            assert_eq!(outcome(&packet(kind, &twice)), Ok(false), "type {kind} with {field:?} twice");
        }
        let reversed: Vec<u8> = fields.iter().rev().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        assert_eq!(outcome(&packet(kind, &reversed)), Ok(false), "type {kind} in reverse");
    }
}

#[test]
fn broken_protobuf_is_refused() {
    let chat = plain(MESSAGES[4].1);
    let table: [(&str, &[u8]); 17] = [
        ("field number 0", b"\x00\x01"),
        ("field number 0, length-delimited", b"\x02\x00"),
        ("wire type 6", b"\x7e\x01"),
        ("wire type 7", b"\x7f\x01"),
        ("key above 32 bits", b"\x80\x80\x80\x80\x10\x01"),
        ("key of 11 bytes", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x01"),
        ("key cut off", b"\x80"),
        ("varint of 11 bytes", b"\x20\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        ("varint above 64 bits", b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
        ("unknown varint of 11 bytes", b"\x78\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        ("string longer than the message", b"\x1a\x05hi"),
        ("string of 2^63 bytes", b"\x1a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        ("unknown field longer than the message", b"\x7a\x05hi"),
        ("unknown field of 2^64-1 bytes", b"\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("end of a group that never began", b"\x7c"),
        ("group that never ends", b"\x7b\x08\x01"),
        ("group that ends as another", b"\x7b\x74"),
    ];
    for (name, bytes) in table {
        for plain in [[&chat[..], bytes].concat(), [bytes, &chat[..]].concat()] {
            assert_eq!(outcome(&packet(5, &plain)), Err(BadBody), "{name}");
        }
    }
}

#[test]
fn invalid_utf8_is_refused_in_every_string() {
    let invalid: [&[u8]; 8] = [
        b"\xff",                 // never a byte of UTF-8
        b"\x80",                 // continuation of nothing
        b"\xc3",                 // cut off
        b"\xc0\x80",             // NUL in two bytes
        b"\xe0\x80\xaf",         // '/' in three bytes
        b"\xed\xa0\x80",         // a surrogate
        b"\xf4\x90\x80\x80",     // above U+10FFFF
        b"\xe4\xbd\xa0\xe5\xa5", // good, then cut off
    ];
    for (kind, fields) in MESSAGES {
        for (index, _) in fields.iter().enumerate().filter(|(_, (_, wire_type))| *wire_type == 2) {
            for text in invalid {
                let mut bytes = plain(fields);
                bytes.extend_from_slice(&[(index as u8 + 1) << 3 | 2, text.len() as u8]);
                bytes.extend_from_slice(text);
                assert_eq!(outcome(&packet(kind, &bytes)), Err(BadBody), "type {kind} field {} {text:x?}", index + 1);
                // The last of a repeated field counts, but each must be valid.
                bytes.extend_from_slice(fields[index].0);
                assert_eq!(outcome(&packet(kind, &bytes)), Err(BadBody), "type {kind} field {} {text:x?}", index + 1);
            }
        }
    }
}

#[test]
fn bad_padding_is_refused_around_a_good_message() {
    // 14 bytes of message, so two of padding.
    let message = b"\x0a\x01A\x12\x01B\x1a\x04text\x20\x01"; // 14 bytes
    assert_eq!(message.len(), 14);
    let ends: [(&[u8], Result<bool, ProtocolError>); 10] = [
        (b"\x02\x02", Ok(true)),
        (b"\x00\x00", Err(BadBody)),
        (b"\x01\x02", Err(BadBody)),
        (b"\x03\x02", Err(BadBody)),
        (b"\x02\x03", Err(BadBody)),
        (b"\x03\x03", Err(BadBody)),
        (b"\x10\x10", Err(BadBody)),
        (b"\x11\x11", Err(BadBody)),
        (b"\x02\x00", Err(BadBody)),
        (b"\xff\xff", Err(BadBody)),
    ];
    for (end, expected) in ends {
        assert_eq!(outcome(&unpadded(5, &[message, end].concat())), expected, "{end:x?}");
    }
    // Padding of one byte only, so that one byte of it is left in the message: a key without a value.
    assert_eq!(outcome(&unpadded(5, &[&message[..], b"\x78\x01"].concat())), Err(BadBody));
    // Nothing but padding.
    assert_eq!(outcome(&unpadded(5, &[16; 16])), Err(BadBody));
}

#[test]
fn another_key_is_a_bad_body() {
    let other = Cipher::new(b"another key, 16.").unwrap();
    for (kind, fields) in MESSAGES {
        let packet = packet(kind, &plain(fields));
        let frame = Frame::parse(&packet, MAX).unwrap().unwrap();
        assert_eq!(Decoder::default().decode(&other, frame), Err(BadBody), "type {kind}");
    }
}

#[test]
fn every_type_that_the_protocol_does_not_have_is_unknown() {
    for kind in (6..=21).chain([0, 22, 100, 105, 0x0100_0000, u32::MAX]) {
        assert_eq!(outcome(&packet(kind, b"")), Err(UnknownType { kind }));
    }
}

#[test]
fn a_message_is_not_read_as_another() {
    for (sent, fields) in MESSAGES {
        for (taken, others) in MESSAGES {
            let same_shape =
                fields.iter().map(|(_, wire_type)| wire_type).eq(others.iter().map(|(_, wire_type)| wire_type));
            let expected = if same_shape { Ok(true) } else { Err(BadBody) };
            assert_eq!(outcome(&packet(taken, &plain(fields))), expected, "type {sent} as type {taken}");
        }
    }
}

#[test]
fn what_an_error_leaves_behind_does_not_show_in_the_next_message() {
    let cipher = cipher();
    let mut decoder = Decoder::default();
    let bad = packet(5, b"\x0a\x05alice\x12\x03bob\x1a\x06secret\x20");
    let frame = Frame::parse(&bad, MAX).unwrap().unwrap();
    assert_eq!(decoder.decode(&cipher, frame), Err(BadBody));
    let missing = packet(5, b"\x0a\x01A\x20\x01");
    let frame = Frame::parse(&missing, MAX).unwrap().unwrap();
    assert_eq!(decoder.decode(&cipher, frame), Err(BadBody));
    let empty = Message::Chat(Chat { from: "", to: "", text: "", time: 0, ..Chat::default() });
    let good = encoded(&empty);
    let frame = Frame::parse(&good, MAX).unwrap().unwrap();
    assert_eq!(decoder.decode(&cipher, frame), Ok(Decoded { message: empty, exact: true }));
}
