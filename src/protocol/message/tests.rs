//! What this file adds to prost, held against prost.

use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as ProstMessage;

use super::*;
use crate::protocol::MAX_NUMBER;
use crate::protocol::tests::{MAX, cipher, encoded, packet};

/// Numbers of the top-level fields of a message that prost reads.
fn field_numbers(mut plain: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while !plain.is_empty() {
        let (number, wire_type) = decode_key(&mut plain).unwrap();
        skip_field(wire_type, number, &mut plain, DecodeContext::default()).unwrap();
        numbers.push(number);
    }
    numbers
}

/// `Noted` and prost judge these bytes alike, but for required fields; and `exact` means what it says.
fn check_agreement<M: ProstMessage + Default + PartialEq>(
    plain: &[u8],
    required: u32,
    known: u32,
) -> Result<(), TestCaseError> {
    let mut noted = Noted::<M>::default();
    let ours = noted.read(plain, required, known);
    let Ok(theirs) = M::decode(plain) else {
        prop_assert!(ours.is_err(), "prost refuses {plain:x?}");
        return Ok(());
    };
    let numbers = field_numbers(plain);
    if let Some(missing) = (1..=required).find(|number| !numbers.contains(number)) {
        prop_assert!(ours.is_err(), "{plain:x?} lacks field {missing}");
        return Ok(());
    }
    let Ok((message, exact)) = ours else {
        return Err(TestCaseError::fail(format!("prost takes {plain:x?}")));
    };
    let canonical = theirs.encode_to_vec();
    prop_assert_eq!(message.encode_to_vec(), &canonical[..]);
    let once_each = numbers.iter().copied().eq(1..=required);
    prop_assert_eq!(exact, once_each && canonical.len() == plain.len(), "{:x?}", plain);
    Ok(())
}

fn check_all_messages(plain: &[u8]) -> Result<(), TestCaseError> {
    check_agreement::<pb::PbClientLogin>(plain, 3, 6)?;
    check_agreement::<pb::PbServerAcceptLogin>(plain, 3, 7)?;
    check_agreement::<pb::PbClientLogout>(plain, 2, 2)?;
    check_agreement::<pb::PbClientPing>(plain, 2, 2)?;
    check_agreement::<pb::PbC2cTextChat>(plain, 4, 6)?;
    check_agreement::<pb::PbServerReceipt>(plain, 2, 4)?;
    check_agreement::<pb::PbClientAck>(plain, 1, 1)?;
    check_agreement::<pb::PbServerNotice>(plain, 2, 2)?;
    check_agreement::<pb::PbServerPong>(plain, 1, 1)?;
    check_short_way(plain)
}

/// The short way is open to messages as an encoder writes them and to no others, and leads to the same place.
fn check_short_way(plain: &[u8]) -> Result<(), TestCaseError> {
    let mut noted = Noted::<pb::PbC2cTextChat>::default();
    let read = noted.read(plain, 4, 6).ok().map(|(m, _)| m.clone());
    let canonical = read.filter(|m| noted.ascending && noted.last <= 6 && m.encoded_len() == plain.len());
    prop_assert_eq!(canonical_chat(plain), canonical.as_ref().map(Chat::from));
    Ok(())
}

/// A varint, in its shortest form or up to two bytes longer.
fn varint() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![0_u64..300, any::<u64>()], 0_usize..12).prop_map(|(number, longer)| {
        let mut bytes = Vec::new();
        encode_varint(number, &mut bytes);
        if (1..=2).contains(&longer) {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.resize(bytes.len() + longer - 1, 0x80);
            bytes.push(0);
        }
        bytes
    })
}

/// A value for a field of any wire type: a varint, a text of at most 24 bytes, 8 bytes.
type Value = (Vec<u8>, String, [u8; 8]);

fn any_value() -> impl Strategy<Value = Value> {
    (varint(), "\\PC{0,6}", any::<[u8; 8]>())
}

/// The bytes of one field; of wire types that do not exist, and of the end of a group, the key alone.
fn field(number: u8, wire_type: u8, (varint, text, fixed): &Value) -> Vec<u8> {
    let mut bytes = vec![number << 3 | wire_type];
    match wire_type {
        0 => bytes.extend_from_slice(varint),
        1 => bytes.extend_from_slice(fixed),
        2 => {
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
        3 => bytes.extend_from_slice(&[0x08, 0x01, number << 3 | 4]),
        5 => bytes.extend_from_slice(&fixed[..4]),
        _ => {}
    }
    bytes
}

/// Any small number, any wire type, mostly well-formed.
fn any_field() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..16, 0_u8..8, any_value()).prop_map(|(number, wire_type, value)| field(number, wire_type, &value))
}

/// The fields of one of the messages, in order, with values of their types; of some the optional ones too.
fn right_fields() -> impl Strategy<Value = Vec<Vec<u8>>> {
    const WIRE_TYPES: [&[u8]; 6] =
        [&[2, 5, 0], &[0, 2, 0], &[0, 0], &[2, 2, 2, 0], &[2, 2, 2, 0, 0, 0], &[0, 2, 0, 0, 0, 0, 0]];
    (proptest::sample::select(&WIRE_TYPES[..]), vec(any_value(), 7)).prop_map(|(wire_types, values)| {
        (1..)
            .zip(wire_types)
            .zip(&values)
            .map(|((number, wire_type), value)| field(number, *wire_type, value))
            .collect()
    })
}

/// A message, and what can be done to it field by field.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    (right_fields(), any_field(), any::<Index>(), any::<Index>(), 0..8).prop_map(|(mut fields, other, a, b, change)| {
        let (a, b) = (a.index(fields.len()), b.index(fields.len()));
        match change {
            0 => drop(fields.remove(a)),
            1 => fields.push(fields[a].clone()),
            2 => fields.swap(a, b),
            3 => fields.insert(a, other),
            4 => fields.push(other),
            _ => {}
        }
        fields.concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn agrees_with_prost_on_random_bytes(plain in vec(any::<u8>(), 0..40)) {
        check_all_messages(&plain)?;
    }

    #[test]
    fn agrees_with_prost_on_random_fields(fields in vec(any_field(), 0..6)) {
        check_all_messages(&fields.concat())?;
    }

    #[test]
    fn agrees_with_prost_on_changed_messages(plain in nearly_right()) {
        check_all_messages(&plain)?;
    }

    #[test]
    fn agrees_with_prost_on_mutated_bytes(mut plain in nearly_right(), at in any::<Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        if !plain.is_empty() {
            let at = at.index(plain.len());
            plain[at] = byte;
            if cut {
                plain.truncate(at);
            }
        }
        check_all_messages(&plain)?;
    }

    /// What may be forwarded as it came is what we would have written.
    #[test]
    fn an_exact_chat_packet_is_the_one_we_would_write(plain in nearly_right()) {
        let received = packet(5, &plain);
        let frame = Frame::parse(&received, MAX).unwrap().unwrap();
        let mut decoder = Decoder::default();
        if let Ok(decoded) = decoder.decode(&cipher(), frame) {
            let Message::Chat(chat) = decoded.message else { unreachable!("type 5") };
            let level_1 = Message::Chat(Chat { msg_id: None, seq: None, ..chat });
            prop_assert_eq!(decoded.exact, encoded(&level_1) == received);
        }
    }
}

#[test]
fn the_last_of_a_repeated_field_counts() {
    let received = packet(5, b"\x0a\x01A\x12\x01B\x1a\x05first\x20\x01\x1a\x04last\x0a\x01C\x20\x02");
    let frame = Frame::parse(&received, MAX).unwrap().unwrap();
    let mut decoder = Decoder::default();
    let message = Message::Chat(Chat { from: "C", to: "B", text: "last", time: 2, ..Chat::default() });
    assert_eq!(decoder.decode(&cipher(), frame), Ok(Decoded { message, exact: false }));
}

#[test]
fn numbers_in_a_longer_form_are_read_but_not_exact() {
    let cases: [&[u8]; 3] = [
        b"\x0a\x01A\x12\x01B\x1a\x02hi\x20\x81\x00",     // the time
        b"\x0a\x81\x00A\x12\x01B\x1a\x02hi\x20\x01",     // a length
        b"\x8a\x80\x00\x01A\x12\x01B\x1a\x02hi\x20\x01", // a field's key
    ];
    let mut decoder = Decoder::default();
    for plain in cases {
        let received = packet(5, plain);
        let frame = Frame::parse(&received, MAX).unwrap().unwrap();
        let message = Message::Chat(Chat { from: "A", to: "B", text: "hi", time: 1, ..Chat::default() });
        assert_eq!(decoder.decode(&cipher(), frame), Ok(Decoded { message, exact: false }), "{plain:x?}");
    }
}

/// Groups of an unknown field inside each other, and something in the innermost.
fn nested_groups(depth: usize, inside: &[u8]) -> Vec<u8> {
    [&vec![0x7b; depth], inside, &vec![0x7c; depth]].concat()
}

#[test]
fn agrees_with_prost_on_how_deep_groups_may_nest() {
    let chat = b"\x0a\x01A\x12\x01B\x1a\x02hi\x20\x01";
    for depth in [1, 2, 50, 98, 99, 100, 101, 102, 200] {
        for inside in [&b""[..], b"\x08\x01", b"\x0a\x02hi", b"\x7c", b"\x74", b"\x08"] {
            let plain = [&chat[..], &nested_groups(depth, inside)].concat();
            check_agreement::<pb::PbC2cTextChat>(&plain, 4, 6).unwrap();
        }
    }
}

/// On a quarter of the stack that a connection has, and in a build without optimisation.
#[test]
fn nested_groups_do_not_overflow_a_small_stack() {
    let chat = b"\x0a\x01A\x12\x01B\x1a\x02hi\x20\x01";
    let nested = |depth: usize| packet(5, &[&chat[..], &nested_groups(depth, b"")].concat());
    let endless = packet(5, &vec![0x7b; 60_000]);
    let cases = [
        (nested(100), Ok(false)),
        (nested(101), Err(ProtocolError::BadBody)),
        (nested(10_000), Err(ProtocolError::BadBody)),
        (endless, Err(ProtocolError::BadBody)),
    ];
    let run = move || {
        for (received, expected) in &cases {
            let frame = Frame::parse(received, MAX).unwrap().unwrap();
            let mut decoder = Decoder::default();
            assert_eq!(decoder.decode(&cipher(), frame).map(|decoded| decoded.exact), *expected);
        }
    };
    thread::Builder::new().stack_size(64 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn shrinking_gives_back_what_a_long_message_took() {
    let text = "x".repeat(50_000);
    let received = encoded(&Message::ServerAcceptLogin(LoginAnswer {
        login: true,
        tips: &text,
        time: 1,
        ..LoginAnswer::default()
    }));
    let frame = Frame::parse(&received, MAX).unwrap().unwrap();
    let mut decoder = Decoder::default();
    decoder.decode(&cipher(), frame).unwrap();
    let capacities = |decoder: &Decoder| (decoder.plain.capacity(), decoder.answer.message.tips_msg.capacity());
    decoder.shrink_above(60_000);
    assert!(capacities(&decoder).0 >= 50_000 && capacities(&decoder).1 >= 50_000);
    decoder.shrink_above(4096);
    assert_eq!(capacities(&decoder), (0, 0));
}

#[test]
fn types_have_their_numbers_and_names() {
    let level_1 = ["PK_ClientLogin", "PK_ServerAcceptLogin", "PK_ClientLogout", "PK_ClientPing", "PK_C2CTextChat"];
    let level_2 = ["PK_ServerReceipt", "PK_ClientAck", "PK_ServerNotice", "PK_ServerPong"];
    for (kind, name) in (1..).zip(level_1).chain((101..).zip(level_2)) {
        let parsed = PacketType::parse(kind).unwrap();
        assert_eq!((parsed as u32, parsed.name()), (kind, name));
    }
}

proptest! {
    /// What is made of the level-1 packet is what would have been written from the start.
    #[test]
    fn a_numbered_packet_is_the_one_we_would_write(text in "\\PC{0,40}", msg_id in proptest::option::of(1..=MAX_NUMBER), seq in 1..=MAX_NUMBER) {
        let chat = Chat { from: "ann", to: "bob", text: &text, time: 7, ..Chat::default() };
        let mut numbered = Vec::new();
        encode_numbered(&encoded(&Message::Chat(chat)), msg_id, seq, &cipher(), &mut numbered);
        prop_assert_eq!(numbered, encoded(&Message::Chat(Chat { msg_id, seq: Some(seq), ..chat })));
    }
}

/// Numbers that this version does not know are passed on; a status that it does not know says nothing.
#[test]
fn words_of_a_later_version_end_nothing() {
    let notice = packet(103, b"\x08\x63\x12\x02hi");
    let receipt = packet(101, b"\x0a\x01\x07\x10\x03\x18\x63");
    let unknown_status = packet(101, b"\x0a\x01\x07\x10\x09");
    let mut decoder = Decoder::default();
    let mut decode = |packet: &[u8]| {
        let frame = Frame::parse(packet, MAX).unwrap().unwrap();
        decoder.decode(&cipher(), frame).map(|decoded| format!("{:?}", decoded.message))
    };
    assert_eq!(decode(&notice).unwrap(), "ServerNotice { code: Other(99), text: \"hi\" }");
    assert!(decode(&receipt).unwrap().contains("[7], status: Refused, reason: Some(Other(99)), text: None"));
    assert_eq!(decode(&unknown_status), Err(ProtocolError::BadBody));
}

#[test]
fn a_receipt_names_at_least_one_message() {
    // The list left out, empty, empty in a longer form; then a good one.
    for (plain, is_good) in [
        (&b"\x10\x02"[..], false),
        (b"\x0a\x00\x10\x02", false),
        (b"\x0a\x80\x00\x10\x02", false),
        (b"\x0a\x01\x07\x10\x02", true),
        (b"\x08\x07\x10\x02", true),
    ] {
        let mut bytes = Vec::new();
        encode_packet(101, plain, &cipher(), &mut bytes);
        let mut decoder = Decoder::default();
        let decoded = decoder.decode(&cipher(), Frame::parse(&bytes, MAX).unwrap().unwrap());
        assert_eq!(decoded.is_ok(), is_good, "{plain:x?}");
    }
}
