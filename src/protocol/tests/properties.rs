//! What holds for every stream, sensible or not.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A message that owns its strings, as a test needs it.
#[derive(Debug, Clone)]
enum Owned {
    Login(String, f32, i64),
    Answer(bool, String, i64),
    Logout(bool, i64),
    Ping(bool, i64),
    Chat(String, String, String, i64),
}

impl Owned {
    fn message(&self) -> Message<'_> {
        match self {
            Owned::Login(name, version, time) => Message::ClientLogin { name, version: *version, time: *time },
            Owned::Answer(login, tips, time) => {
                Message::ServerAcceptLogin(LoginAnswer { login: *login, tips, time: *time })
            }
            Owned::Logout(logout, time) => Message::ClientLogout { logout: *logout, time: *time },
            Owned::Ping(ping, time) => Message::ClientPing { ping: *ping, time: *time },
            Owned::Chat(from, to, text, time) => Message::Chat(Chat { from, to, text, time: *time }),
        }
    }
}

fn message() -> impl Strategy<Value = Owned> {
    let text = || any::<String>();
    prop_oneof![
        (text(), proptest::num::f32::ANY, any::<i64>()).prop_map(|(a, b, c)| Owned::Login(a, b, c)),
        (any::<bool>(), text(), any::<i64>()).prop_map(|(a, b, c)| Owned::Answer(a, b, c)),
        (any::<bool>(), any::<i64>()).prop_map(|(a, b)| Owned::Logout(a, b)),
        (any::<bool>(), any::<i64>()).prop_map(|(a, b)| Owned::Ping(a, b)),
        (text(), text(), text(), any::<i64>()).prop_map(|(a, b, c, d)| Owned::Chat(a, b, c, d)),
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
    let with_header = (0_u32..8, 1_usize..6, vec(any::<u8>(), 96)).prop_map(|(kind, blocks, bytes)| {
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
            prop_assert!(decoded.exact);
            if !matches!(message, Owned::Login(_, version, _) if version.is_nan()) {
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
