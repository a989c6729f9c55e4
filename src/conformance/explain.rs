//! Bytes for people: every packet as PROTOCOL.md shows them, with what its parts mean, also where they mean nothing.

use std::fmt::Write as _;

use crate::protocol::{Cipher, HEADER_BYTES, MIN_PACKET_BYTES, PacketType};

use super::wire::{Said, Value, first_field};

/// Most lines of hex for one part; what is left out is said.
const MAX_LINES: usize = 4;
/// Most packets of one piece; a thousand equal ones teach nothing.
const MAX_PACKETS: usize = 8;
/// Most fields of one message.
const MAX_FIELDS: usize = 16;
/// Bytes in a line.
const WIDTH: usize = 16;

/// Everything that was said in a check, packet by packet.
pub fn explain(transcript: &[Said], key: &[u8]) -> String {
    let mut out = String::new();
    for said in transcript {
        let (who, count) = (said.who, said.bytes.len());
        match (said.is_sent, count) {
            (false, 0) => writeln!(out, "server closes the connection of {who}"),
            (false, _) => writeln!(out, "server → {who}, {count} bytes"),
            (true, _) => writeln!(out, "{who} → server, {count} bytes"),
        }
        .expect("a string takes everything");
        explain_stream(&mut out, &said.bytes, key);
    }
    out
}

fn explain_stream(out: &mut String, mut bytes: &[u8], key: &[u8]) {
    for shown in 0.. {
        if bytes.is_empty() {
            return;
        }
        if shown == MAX_PACKETS {
            return line(out, &[], &format!("… and {} bytes more", bytes.len()));
        }
        let length = big_endian(bytes).unwrap_or_default();
        match bytes.split_at_checked(length) {
            Some((packet, rest)) if length >= MIN_PACKET_BYTES => {
                explain_packet(out, packet, key);
                bytes = rest;
            }
            _ => return explain_broken(out, bytes, length),
        }
    }
}

/// What is no whole packet.
fn explain_broken(out: &mut String, bytes: &[u8], length: usize) {
    if bytes.len() < 4 {
        return line(out, bytes, "the beginning of a length");
    }
    line(out, &bytes[..4], &format!("length: {length}, but {} bytes are there", bytes.len()));
    if let Some(kind) = bytes.get(4..8) {
        line(out, kind, &format!("type: {}", big_endian(kind).unwrap_or_default()));
        line(out, &bytes[8..], "the rest");
    }
}

fn explain_packet(out: &mut String, packet: &[u8], key: &[u8]) {
    let kind = big_endian(&packet[4..]).unwrap_or_default() as u32;
    let known = PacketType::parse(kind);
    line(out, &packet[..4], &format!("length: {}", packet.len()));
    let name = known.map_or("no type of the protocol", PacketType::name);
    line(out, &packet[4..HEADER_BYTES], &format!("type: {kind}, {name}"));
    let body = &packet[HEADER_BYTES..];
    if !body.len().is_multiple_of(WIDTH) {
        return line(out, body, "body, which is not a multiple of 16");
    }
    line(out, body, &format!("encrypted body, blocks: {}", body.len() / WIDTH));
    let Some(plain) = decrypt(body, key) else { return };
    let padding = usize::from(plain.last().copied().unwrap_or_default());
    let good = (1..=WIDTH).contains(&padding) && plain.ends_with(&vec![padding as u8; padding]);
    let message = if good { &plain[..plain.len() - padding] } else { &plain[..] };
    out.push_str("   decrypted:\n");
    explain_message(out, message, kind);
    if good {
        line(out, &plain[message.len()..], &format!("padding: {padding} × {padding:#04x}"));
    } else {
        line(out, &[], "no padding: it ends with no number from 1 to 16, so many times");
    }
}

fn explain_message(out: &mut String, mut message: &[u8], kind: u32) {
    for shown in 0.. {
        if message.is_empty() {
            return;
        }
        let Some(field) = first_field(message).filter(|_| shown < MAX_FIELDS) else {
            let what = if shown < MAX_FIELDS { "this is no field that ends" } else { "more fields" };
            return line(out, message, what);
        };
        let value = match &field.value {
            Value::Varint(value) if *value > i64::MAX as u64 => format!("{value}, or {}", *value as i64),
            Value::Varint(value) => value.to_string(),
            Value::Fixed64(value) => format!("{value} (64 bits)"),
            Value::Fixed32(value) => format!("{} (float)", f32::from_bits(*value)),
            Value::Bytes(bytes) => words(bytes),
        };
        let number = field.number;
        let name = field_name(kind, number).map_or("an unknown field", |name| name);
        line(out, &message[..field.bytes], &format!("{number}: {name} = {value}"));
        message = &message[field.bytes..];
    }
}

/// A text of a field, shortened and escaped.
fn words(bytes: &[u8]) -> String {
    let count = bytes.len();
    match std::str::from_utf8(bytes) {
        Err(_) => format!("{count} bytes that are no UTF-8"),
        Ok(text) if text.chars().count() <= 40 => format!("{text:?}, {count} bytes"),
        Ok(text) => format!("{:?}…, {count} bytes", text.chars().take(40).collect::<String>()),
    }
}

/// Bytes in lines of 16, and their meaning behind the last.
fn line(out: &mut String, bytes: &[u8], meaning: &str) {
    let lines: Vec<&[u8]> = bytes.chunks(WIDTH).collect();
    let shown = if lines.len() > MAX_LINES + 1 { MAX_LINES } else { lines.len() };
    for bytes in &lines[..shown.saturating_sub(1)] {
        writeln!(out, "     {}", hex(bytes)).expect("a string takes everything");
    }
    let last = lines.get(shown.wrapping_sub(1)).map_or(String::new(), |bytes| hex(bytes));
    let left = lines.len() - shown;
    let more = if left == 0 { String::new() } else { format!(" (… {left} lines more)") };
    writeln!(out, "     {last:47}  {meaning}{more}").expect("a string takes everything");
}

/// Two digits each, with spaces.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn big_endian(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize)
}

/// Decrypts without looking at the padding, which is what is to be shown. CBC lets a block be put behind that makes any padding right: the
/// encryption of sixteen times 16, chained to the last block. As the IV is known, sealing gives it.
fn decrypt(body: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let cipher = Cipher::new(key).ok()?;
    let last = body.last_chunk::<WIDTH>()?;
    let mut sealed: Vec<u8> = (0..WIDTH).map(|at| last[at] ^ 16 ^ key[at]).collect();
    cipher.seal(&mut sealed, 0);
    let mut scratch = Vec::new();
    cipher.open(&[body, &sealed[..WIDTH]].concat(), &mut scratch).ok().map(<[u8]>::to_vec)
}

/// As in `proto/chat.proto`.
fn field_name(kind: u32, number: u32) -> Option<&'static str> {
    let names: &[&str] = match kind {
        1 => &["uuid", "version", "timestamp", "level", "password", "last_seq"],
        2 => &["login", "tips_msg", "timestamp", "level", "read_timeout_secs", "max_packet_bytes", "last_msg_id"],
        3 => &["logout", "timestamp"],
        4 => &["ping", "timestamp"],
        5 => &["from_uuid", "to_uuid", "text_msg", "timestamp", "msg_id", "seq"],
        101 => &["msg_id", "status", "reason", "text"],
        102 => &["seq"],
        103 => &["code", "text"],
        104 => &["timestamp"],
        _ => &[],
    };
    names.get(number.checked_sub(1)? as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Message, PUBLISHED_KEY, encode_packet};

    fn said(is_sent: bool, bytes: Vec<u8>) -> Said {
        Said { who: "me", is_sent, bytes }
    }

    #[test]
    fn a_packet_is_shown_with_its_meaning() {
        let mut bytes = Vec::new();
        Message::ClientPing { ping: true, time: 1_795_356_894 }
            .encode(&Cipher::new(PUBLISHED_KEY).unwrap(), &mut bytes);
        let shown = explain(&[said(true, bytes), said(false, Vec::new())], PUBLISHED_KEY);
        let expected = "\
me → server, 24 bytes
     00 00 00 18                                      length: 24
     00 00 00 04                                      type: 4, PK_ClientPing
     79 49 7b 9c 34 66 ba d8 7f 9b b2 27 59 5f 53 b8  encrypted body, blocks: 1
   decrypted:
     08 01                                            1: ping = 1
     10 de f1 8b d8 06                                2: timestamp = 1795356894
     08 08 08 08 08 08 08 08                          padding: 8 × 0x08
server closes the connection of me
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_broken_is_shown_as_far_as_it_goes() {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        let mut unpadded = Vec::new();
        encode_packet(5, &[0xff; 16], &cipher, &mut unpadded);
        unpadded.truncate(24);
        unpadded[3] = 24;
        for (bytes, expected) in [
            (unpadded, "no padding"),
            (b"\0\0\0\x07".to_vec(), "length: 7, but 4 bytes are there"),
            (b"\0\0".to_vec(), "the beginning of a length"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "the rest"),
            ([&b"\0\0\0\x19\0\0\0\x05"[..], &[9; 17]].concat(), "not a multiple of 16"),
        ] {
            let shown = explain(&[said(true, bytes)], PUBLISHED_KEY);
            assert!(shown.contains(expected), "{shown}");
        }
        let mut long = Vec::new();
        encode_packet(5, &[0x7b; 10_000], &cipher, &mut long);
        let shown = explain(&[said(true, long.repeat(20))], PUBLISHED_KEY);
        assert!(shown.lines().count() < 120, "{shown}");
        assert!(shown.contains("lines more") && shown.contains("bytes more"));
    }
}
