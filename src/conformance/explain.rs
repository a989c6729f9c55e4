//! What was said in a check, for people: every packet with what its bytes mean, also where they mean nothing.

use std::fmt::Write as _;

use crate::protocol::{self, Cipher, Layer};

use super::wire::Said;

/// Most lines of hex for one part; what is left out is said.
const MAX_LINES: usize = 4;
/// Most packets of one piece; a thousand equal ones teach nothing.
const MAX_PACKETS: usize = 8;
/// Most parts of a packet: the header and a few blocks, and of its message some sixteen fields.
const MAX_PARTS: [usize; 2] = [5, 48];
/// A length above it is no packet's, whatever a server takes.
const MAX_PACKET_BYTES: usize = 16 << 20;
/// Bytes in a line.
const WIDTH: usize = 16;

/// Everything that was said in a check, packet by packet.
pub fn explain(transcript: &[Said], key: &[u8]) -> String {
    let Ok(cipher) = Cipher::new(key) else { return String::new() };
    let mut out = String::new();
    for said in transcript {
        let (who, count) = (said.who, said.bytes.len());
        match (said.is_sent, count) {
            (false, 0) => writeln!(out, "server closes the connection of {who}"),
            (false, _) => writeln!(out, "server → {who}, {count} bytes"),
            (true, _) => writeln!(out, "{who} → server, {count} bytes"),
        }
        .expect("a string takes everything");
        explain_stream(&mut out, &said.bytes, &cipher);
    }
    out
}

fn explain_stream(out: &mut String, mut bytes: &[u8], cipher: &Cipher) {
    for shown in 0.. {
        if bytes.is_empty() {
            return;
        }
        if shown == MAX_PACKETS {
            return line(out, &[], &format!("… and {} bytes more", bytes.len()));
        }
        let packet = protocol::explain(bytes, cipher, MAX_PACKET_BYTES);
        for (layer, most) in [Layer::Packet, Layer::Plain].into_iter().zip(MAX_PARTS) {
            let parts: Vec<_> = packet.parts.iter().filter(|part| part.layer == layer).collect();
            if layer == Layer::Plain && !parts.is_empty() {
                out.push_str("   decrypted:\n");
            }
            let whole = if layer == Layer::Packet { packet.packet } else { &packet.plain };
            parts.iter().take(most).for_each(|part| line(out, &whole[part.range.clone()], &part.meaning));
            if parts.len() > most {
                line(out, &[], &format!("… and {} parts more", parts.len() - most));
            }
        }
        if let Some(fault) = &packet.fault {
            writeln!(out, "   wrong {fault}").expect("a string takes everything");
        }
        bytes = &bytes[packet.packet.len()..];
    }
}

/// Bytes in lines of 16, and their meaning behind the first.
fn line(out: &mut String, bytes: &[u8], meaning: &str) {
    let lines: Vec<&[u8]> = bytes.chunks(WIDTH).collect();
    let shown = if lines.len() > MAX_LINES + 1 { MAX_LINES } else { lines.len() };
    let left = lines.len() - shown;
    let more = if left == 0 { String::new() } else { format!(" (… {left} lines more)") };
    let first = lines.first().map_or(String::new(), |bytes| hex(bytes));
    writeln!(out, "     {first:47}  {meaning}{more}").expect("a string takes everything");
    for bytes in lines.iter().take(shown).skip(1) {
        writeln!(out, "     {}", hex(bytes)).expect("a string takes everything");
    }
}

/// Two digits each, with spaces.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
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
     00 00 00 18                                      length: 24 bytes, these 4 included
     00 00 00 04                                      type: 4, PK_ClientPing
     79 49 7b 9c 34 66 ba d8 7f 9b b2 27 59 5f 53 b8  body, encrypted with AES-128-CBC: block 1 of 1
   decrypted:
     08                                               field 1, ping: wire type 0, a varint follows (1 << 3 | 0)
     01                                               true
     10                                               field 2, timestamp: wire type 0, a varint follows (2 << 3 | 0)
     de f1 8b d8 06                                   1795356894: 5 bytes, 7 bits of each, lowest first, 2026-11-22 14:14:54 UTC
     08 08 08 08 08 08 08 08                          padding: 8 × 08
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
            (b"\0\0\0\x07".to_vec(), "wrong at byte 0 of the packet: packet length 7 is below the minimum"),
            (b"\0\0".to_vec(), "the beginning of a length"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "this looks like HTTP"),
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
