//! What holds for every stream, sensible or not.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A message that owns its strings, as a test needs it.
#[derive(Debug, Clone)]
enum Owned {
    Login(String, f32, i64, Option<u32>, Option<u64>),
    Answer(bool, String, i64, Option<Granted>),
    Logout(bool, i64),
    Ping(bool, i64),
    Chat(String, String, String, i64, Option<u64>, Option<u64>),
    Receipt(Vec<u64>, u32, Option<u32>, Option<String>),
    Ack(u64),
    Notice(u32, String),
    Pong(i64),
}

impl Owned {
    /// No field but the required ones: at level 1 there are no others.
    fn is_exact(&self) -> bool {
        match self {
            Owned::Login(.., level, last_seq) => level.is_none() && last_seq.is_none(),
            Owned::Answer(.., granted) => granted.is_none(),
            Owned::Chat(.., msg_id, seq) => msg_id.is_none() && seq.is_none(),
            Owned::Receipt(.., reason, text) => reason.is_none() && text.is_none(),
            Owned::Logout(..) | Owned::Ping(..) | Owned::Ack(_) | Owned::Notice(..) | Owned::Pong(_) => true,
        }
    }

    fn message(&self) -> Message<'_> {
        match self {
            Owned::Login(name, version, time, level, last_seq) => {
                Message::ClientLogin { name, version: *version, time: *time, level: *level, last_seq: *last_seq }
            }
            Owned::Answer(login, tips, time, granted) => {
                Message::ServerAcceptLogin(LoginAnswer { login: *login, tips, time: *time, granted: *granted })
            }
            Owned::Logout(logout, time) => Message::ClientLogout { logout: *logout, time: *time },
            Owned::Ping(ping, time) => Message::ClientPing { ping: *ping, time: *time },
            Owned::Chat(from, to, text, time, msg_id, seq) => {
                Message::Chat(Chat { from, to, text, time: *time, msg_id: *msg_id, seq: *seq })
            }
            Owned::Receipt(msg_ids, status, reason, text) => Message::ServerReceipt(Receipt {
                msg_ids,
                status: Status::parse(*status).unwrap(),
                reason: reason.map(Reason::from),
                text: text.as_deref(),
            }),
            Owned::Ack(seq) => Message::ClientAck { seq: *seq },
            Owned::Notice(code, text) => Message::ServerNotice { code: NoticeCode::from(*code), text },
            Owned::Pong(time) => Message::ServerPong { time: *time },
        }
    }
}

fn granted() -> impl Strategy<Value = Granted> {
    (2..9_u32, any::<u32>(), any::<u32>(), any::<u64>()).prop_map(
        |(level, read_timeout_secs, max_packet_bytes, last_msg_id)| Granted {
            level,
            read_timeout_secs,
            max_packet_bytes,
            last_msg_id,
        },
    )
}

fn message() -> impl Strategy<Value = Owned> {
    use proptest::option::of;
    let text = || any::<String>();
    prop_oneof![
        (text(), proptest::num::f32::ANY, any::<i64>(), of(any::<u32>()), of(any::<u64>()))
            .prop_map(|(a, b, c, d, e)| Owned::Login(a, b, c, d, e)),
        (any::<bool>(), text(), any::<i64>(), of(granted())).prop_map(|(a, b, c, d)| Owned::Answer(a, b, c, d)),
        (any::<bool>(), any::<i64>()).prop_map(|(a, b)| Owned::Logout(a, b)),
        (any::<bool>(), any::<i64>()).prop_map(|(a, b)| Owned::Ping(a, b)),
        (text(), text(), text(), any::<i64>(), of(any::<u64>()), of(any::<u64>()))
            .prop_map(|(a, b, c, d, e, f)| Owned::Chat(a, b, c, d, e, f)),
        (vec(any::<u64>(), 1..9), 1..4_u32, of(0..20_u32), of(text()))
            .prop_map(|(a, b, c, d)| Owned::Receipt(a, b, c, d)),
        any::<u64>().prop_map(Owned::Ack),
        (0..20_u32, text()).prop_map(|(a, b)| Owned::Notice(a, b)),
        any::<i64>().prop_map(Owned::Pong),
    ]
}

fn stream(messages: &[Owned]) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        message.message().encode(&cipher(), &mut stream);
    }
    stream
}

/// Any bytes, half of them with a plausible header, so that the body is reached.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let with_header =
        (prop_oneof![0_u32..8, 100_u32..106], 1_usize..6, vec(any::<u8>(), 96)).prop_map(|(kind, blocks, bytes)| {
            let mut packet = Vec::new();
            Frame::write(kind, &mut packet, |out| out.extend_from_slice(&bytes[..blocks * 16]));
            packet
        });
    prop_oneof![vec(any::<u8>(), 0..200), with_header]
}

proptest! {
    /// As a connection reads: what a read brought is appended, whole packets are taken from the front.
    #[test]
    fn every_split_into_reads_gives_the_same_packets(
        messages in vec(message(), 1..6),
        reads in vec(1_usize..60, 1..80),
    ) {
        let stream = stream(&messages);
        let whole: Vec<Vec<u8>> = frames(&stream).iter().map(|frame| frame.packet.to_vec()).collect();
        prop_assert_eq!(whole.len(), messages.len());
        let (mut buffer, mut packets, mut rest) = (Vec::new(), Vec::new(), &stream[..]);
        for read in reads.iter().cycle() {
            let (bytes, later) = rest.split_at(rest.len().min(*read));
            rest = later;
            buffer.extend_from_slice(bytes);
            while let Some(frame) = Frame::parse(&buffer, MAX).unwrap() {
                let packet = frame.packet.to_vec();
                buffer.drain(..packet.len());
                packets.push(packet);
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(packets, whole);
    }

    #[test]
    fn every_truncation_asks_for_more(message in message()) {
        let packet = encoded(&message.message());
        for end in 0..packet.len() {
            prop_assert_eq!(Frame::parse(&packet[..end], MAX), Ok(None));
        }
    }

    /// Texts with any characters, numbers at their limits, NaN: compared as bytes.
    #[test]
    fn what_was_encoded_is_decoded_and_encoded_again(messages in vec(message(), 1..6)) {
        let (cipher, mut decoder, mut again) = (cipher(), Decoder::default(), Vec::new());
        let stream = stream(&messages);
        for (frame, message) in frames(&stream).into_iter().zip(&messages) {
            let decoded = decoder.decode(&cipher, frame).unwrap();
            prop_assert_eq!(decoded.exact, message.is_exact());
            if !matches!(message, Owned::Login(_, version, ..) if version.is_nan()) {
                prop_assert_eq!(decoded.message, message.message());
            }
            decoded.message.encode(&cipher, &mut again);
        }
        prop_assert_eq!(again, stream);
    }

    #[test]
    fn encode_reserves_once_and_little(message in message()) {
        let packet = encoded(&message.message());
        prop_assert!(packet.capacity() - packet.len() <= 64, "{} of {}", packet.len(), packet.capacity());
    }

    #[test]
    fn no_bytes_panic_or_loop(bytes in vec(hostile(), 1..4).prop_map(|parts| parts.concat())) {
        let (cipher, mut decoder) = (cipher(), Decoder::default());
        let (mut rest, mut packets) = (&bytes[..], 0);
        while let Ok(Some(frame)) = Frame::parse(rest, MAX) {
            let _ = decoder.decode(&cipher, frame);
            prop_assert_eq!(Frame::wanted(rest, MAX), Ok(Some(frame.packet.len())));
            rest = &rest[frame.packet.len()..];
            packets += 1;
        }
        prop_assert!(packets <= bytes.len() / MIN_PACKET_BYTES);
    }

    /// Whatever was read so far, and whatever it announces: what is asked for is a legal packet within the maximum.
    #[test]
    fn no_bytes_ask_for_more_than_the_maximum(bytes in vec(any::<u8>(), 0..12), max in 0_usize..100_000) {
        if let Ok(Some(wanted)) = Frame::wanted(&bytes, max) {
            prop_assert!((MIN_PACKET_BYTES..=max).contains(&wanted));
        }
    }

    /// A verdict is final: an error stays one whatever comes after, and so does a packet.
    #[test]
    fn more_bytes_change_no_verdict(bytes in hostile(), more in vec(any::<u8>(), 0..40)) {
        let longer = [&bytes[..], &more].concat();
        match Frame::parse(&bytes, MAX) {
            Ok(None) => {}
            Ok(Some(frame)) => prop_assert_eq!(Frame::parse(&longer, MAX), Ok(Some(frame))),
            Err(_) => prop_assert!(Frame::parse(&longer, MAX).is_err()),
        }
    }

    #[test]
    fn no_body_panics_or_over_reserves(body in vec(any::<u8>(), 0..400)) {
        for key in [&[1; 16][..], &[2; 24], &[3; 32]] {
            let mut scratch = Vec::new();
            let opened = Cipher::new(key).unwrap().open(&body, &mut scratch).map(<[u8]>::len);
            prop_assert!(scratch.capacity() <= body.len().max(8));
            if let Ok(plain) = opened {
                prop_assert!(plain < body.len());
            }
        }
    }
}
