//! Opening and decoding a packet of every type, as ciphertext and as plaintext sealed with the key, on the stack of a connection: no panic, and
//! what is accepted reads back the same when it is written again.
#![no_main]

use std::sync::LazyLock;
use std::thread;

use chatserver::limits::STACK_BYTES;
use chatserver::protocol::{
    Chat, Cipher, Decoder, Frame, Message, PUBLISHED_KEY, PacketType, encode_numbered, encode_packet,
};
use chatserver_fuzz::Input;
use libfuzzer_sys::fuzz_target;

/// The protocol's own types, one that it reserves, and one that is free.
const KINDS: [u32; 11] = [1, 2, 3, 4, 5, 101, 102, 103, 104, 6, 1000];

static CIPHERS: LazyLock<[Cipher; 3]> = LazyLock::new(|| {
    [&PUBLISHED_KEY[..], b"a key of 24 bytes in all", b"and another one, of 32 bytes ok?"]
        .map(|key| Cipher::new(key).expect("a length that AES has"))
});

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = KINDS[input.choice(KINDS.len())];
    let mode = input.byte();
    let cipher = &CIPHERS[usize::from(mode >> 1) % 3];
    let body = input.rest();
    let mut packet = Vec::new();
    match mode & 1 {
        0 => encode_packet(kind, body, cipher, &mut packet),
        _ => Frame::write(kind, &mut packet, |out| out.extend_from_slice(body)),
    }
    // A connection of its own, with a stack of its size: what recurses dies here.
    let on_a_small_stack = thread::Builder::new().stack_size(STACK_BYTES);
    thread::scope(|scope| {
        let checked = on_a_small_stack.spawn_scoped(scope, || check(&packet, cipher));
        checked.expect("a thread").join().expect("a panic has ended the process");
    });
});

fn check(packet: &[u8], cipher: &Cipher) {
    let Ok(Some(frame)) = Frame::parse(packet, usize::MAX) else { return };
    let (mut decoder, mut again) = (Decoder::default(), Decoder::default());
    let Ok(decoded) = decoder.decode(cipher, frame) else { return };
    assert!(PacketType::parse(frame.kind).is_ok(), "a type that the protocol does not have is not decoded");
    let written = encoded(&decoded.message, cipher);
    let reread = again.decode(cipher, whole(&written)).expect("what we write we can read");
    assert_eq!(shown(&reread.message), shown(&decoded.message));
    assert_eq!(encoded(&reread.message, cipher), written, "one message has one encoding");
    if decoded.exact {
        let Message::Chat(chat) = decoded.message else { return };
        assert_eq!((chat.msg_id, chat.seq), (None, None), "an exact packet is one of level 1");
        assert_eq!(written, packet, "an exact packet may be forwarded as it came");
        check_numbered(packet, chat, cipher);
    }
}

/// The packet of a level-2 recipient is made by opening one block only: it is the one that encoding all of it gives.
fn check_numbered(packet: &[u8], chat: Chat<'_>, cipher: &Cipher) {
    let bits = chat.time.unsigned_abs();
    for (msg_id, seq) in [(None, 1), (Some(bits), bits.rotate_left(17)), (Some(u64::MAX), u64::MAX)] {
        let mut numbered = Vec::new();
        encode_numbered(packet, msg_id, seq, cipher, &mut numbered);
        assert_eq!(numbered, encoded(&Message::Chat(Chat { msg_id, seq: Some(seq), ..chat }), cipher));
    }
}

fn encoded(message: &Message<'_>, cipher: &Cipher) -> Vec<u8> {
    let mut packet = Vec::new();
    message.encode(cipher, &mut packet);
    packet
}

fn whole(packet: &[u8]) -> Frame<'_> {
    Frame::parse(packet, usize::MAX).expect("our own packets are good").expect("and whole")
}

/// In words: a version that is not a number does not equal itself.
fn shown(message: &Message<'_>) -> String {
    format!("{message:?}")
}
