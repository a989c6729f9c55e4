//! Packets in a stream of bytes: where one begins and ends. It knows the 8 header bytes and no more of a packet.
//!
//! TCP hands over bytes, not packets: a read may bring half a header or ten packets. "Read more" is therefore a value
//! (`Ok(None)`), not an error, and consumes nothing. An announced length is judged as soon as its 4 bytes are there,
//! before anyone reserves memory for it: the peer may be a stranger, and may not even mean this protocol.
//!
//! Read first: PROTOCOL.md, "Packet".

use super::ProtocolError;

/// Bytes of a packet's header: length and type, each a big-endian `u32`.
pub const HEADER_BYTES: usize = 8;
/// The shortest legal packet, header included: padding makes every body at least one block.
pub const MIN_PACKET_BYTES: usize = HEADER_BYTES + BLOCK_BYTES;

const BLOCK_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;

/// One packet, borrowed from the bytes it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type, as received.
    pub kind: u32,
    /// The whole packet, header included.
    pub packet: &'a [u8],
}

impl<'a> Frame<'a> {
    /// First packet of `bytes`; `Ok(None)` = read more, nothing was consumed. The next packet begins at
    /// `packet.len()`. Neither copies nor allocates.
    ///
    /// # Errors
    /// `TooShort`, `TooLong`, `Unaligned`, `OtherProtocol`: end the connection, since nobody can say where the next
    /// packet begins. More bytes never turn an error into a packet.
    pub fn parse(bytes: &'a [u8], max_packet_bytes: usize) -> Result<Option<Frame<'a>>, ProtocolError> {
        let Some(wanted) = Frame::wanted(bytes, max_packet_bytes)? else {
            return Ok(None);
        };
        let Some(packet) = bytes.get(..wanted) else {
            return Ok(None);
        };
        let kind = big_endian(packet, LENGTH_BYTES).expect("a packet has a header");
        Ok(Some(Frame { kind, packet }))
    }

    /// How many bytes the first packet of `bytes` has in all, `None` as long as its length is not there. A reader that
    /// got `Ok(None)` from `parse` makes room for so many; the number is never above `max_packet_bytes`.
    ///
    /// # Errors
    /// As `parse`.
    pub fn wanted(bytes: &[u8], max_packet_bytes: usize) -> Result<Option<usize>, ProtocolError> {
        let Some(length) = big_endian(bytes, 0) else {
            return Ok(None);
        };
        let max = u32::try_from(max_packet_bytes).unwrap_or(u32::MAX);
        if length < MIN_PACKET_BYTES as u32 {
            return Err(ProtocolError::TooShort { length });
        }
        if length > max {
            // Only here: what is a greeting to others may be the length of a packet to those who allow such packets.
            return Err(match greeting(bytes) {
                Some(protocol) => ProtocolError::OtherProtocol { protocol },
                None => ProtocolError::TooLong { length, max },
            });
        }
        let body = length - HEADER_BYTES as u32;
        if !body.is_multiple_of(BLOCK_BYTES as u32) {
            return Err(ProtocolError::Unaligned { length: body });
        }
        Ok(Some(length as usize))
    }

    /// The encrypted body.
    pub fn body(&self) -> &'a [u8] {
        &self.packet[HEADER_BYTES..]
    }

    /// Appends a packet of type `kind` to `out`. `body` appends the body, encrypted, after whatever `out` holds by then,
    /// and must leave that as it is.
    ///
    /// # Panics
    /// If the packet exceeds 4 GiB, which its length cannot express: callers bound their texts far below.
    pub fn write(kind: u32, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        out.extend_from_slice(&kind.to_be_bytes());
        body(out);
        let length = u32::try_from(out.len() - start).expect("a packet is shorter than 4 GiB");
        out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    }
}

/// The `u32` at `offset`, if its bytes are there.
fn big_endian(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

/// The protocol whose clients begin with these bytes (at least 4): people point browsers and scanners at any port, and
/// the log should say so rather than complain of a length of a gigabyte.
fn greeting(bytes: &[u8]) -> Option<&'static str> {
    // "PRI " begins HTTP/2.
    const HTTP: [&[u8]; 10] =
        [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ", b"PRI "];
    let agrees = |known: &[u8]| known.iter().zip(bytes).all(|(known, byte)| known == byte);
    match bytes {
        // A handshake record of SSL 3.0 to TLS 1.3.
        [0x16, 0x03, 0..=4, ..] => Some("TLS"),
        _ if agrees(b"SSH-") => Some("SSH"),
        _ if HTTP.iter().any(|method| agrees(method)) => Some("HTTP"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 65_528;

    fn parse(bytes: &[u8]) -> Result<Option<Frame<'_>>, ProtocolError> {
        Frame::parse(bytes, MAX)
    }

    #[test]
    fn shortest_packet_is_a_header_and_one_block() {
        let mut bytes = Vec::new();
        Frame::write(7, &mut bytes, |out| out.extend_from_slice(&[9; 16]));
        bytes.push(1);
        let frame = parse(&bytes).unwrap().unwrap();
        assert_eq!(frame.kind, 7);
        assert_eq!(frame.packet, &bytes[..MIN_PACKET_BYTES]);
        assert_eq!(frame.body(), [9; 16]);
    }

    #[test]
    fn every_truncation_asks_for_more() {
        let mut bytes = Vec::new();
        Frame::write(7, &mut bytes, |out| out.extend_from_slice(&[9; 32]));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "after {end} bytes");
            let wanted = (end >= LENGTH_BYTES).then_some(bytes.len());
            assert_eq!(Frame::wanted(&bytes[..end], MAX), Ok(wanted), "after {end} bytes");
        }
    }

    #[test]
    fn length_is_judged_as_soon_as_it_is_there() {
        let max = MAX as u32;
        let table = [
            (max - 1, Err(ProtocolError::Unaligned { length: max - 9 })),
            (max, Ok(None)),
            (max + 1, Err(ProtocolError::TooLong { length: max + 1, max })),
            (1 << 31, Err(ProtocolError::TooLong { length: 1 << 31, max })),
            ((1 << 31) - 1, Err(ProtocolError::TooLong { length: (1 << 31) - 1, max })),
            ((1 << 31) + 1, Err(ProtocolError::TooLong { length: (1 << 31) + 1, max })),
            (u32::MAX, Err(ProtocolError::TooLong { length: u32::MAX, max })),
            (24, Ok(None)),
            (25, Err(ProtocolError::Unaligned { length: 17 })),
            (39, Err(ProtocolError::Unaligned { length: 31 })),
            (40, Ok(None)),
        ];
        for (length, expected) in table {
            assert_eq!(parse(&length.to_be_bytes()), expected, "length {length}");
        }
        for length in 0..24_u32 {
            assert_eq!(parse(&length.to_be_bytes()), Err(ProtocolError::TooShort { length }));
        }
    }

    #[test]
    fn greetings_of_other_protocols_are_named() {
        let table: [(&[u8], &str); 11] = [
            (b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n", "HTTP"),
            (b"HEAD", "HTTP"),
            (b"POST", "HTTP"),
            (b"PUT ", "HTTP"),
            (b"DELET", "HTTP"),
            (b"OPTIONS * HTTP/1.1", "HTTP"),
            (b"CONNECT chat:443 HTTP/1.1", "HTTP"),
            (b"PRI * HTTP/2.0\r\n", "HTTP"),
            (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
            (b"\x16\x03\x03\x00", "TLS"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "SSH"),
        ];
        for (bytes, protocol) in table {
            assert_eq!(parse(bytes), Err(ProtocolError::OtherProtocol { protocol }));
            assert_eq!(parse(&bytes[..3]), Ok(None), "three bytes tell nothing yet");
        }
    }

    #[test]
    fn what_only_begins_like_a_greeting_is_too_long() {
        for bytes in [&b"DELTA"[..], b"POSTCARD", b"SSH_", b"\x16\x03\x05\x00", b"\x16\x04\x01\x00"] {
            assert!(matches!(parse(bytes), Err(ProtocolError::TooLong { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn a_maximum_above_four_gib_allows_every_length() {
        let length = u32::MAX - 7;
        assert_eq!(Frame::parse(&length.to_be_bytes(), usize::MAX), Ok(None));
        assert_eq!(Frame::wanted(&length.to_be_bytes(), usize::MAX), Ok(Some(length as usize)));
        // The first bytes of "GET " are a length then, and not even a bad one.
        assert_eq!(Frame::parse(b"GET\x28", usize::MAX), Ok(None));
    }
}
