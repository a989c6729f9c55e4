//! stub
use super::ProtocolError;

/// Bytes of a packet's header.
pub const HEADER_BYTES: usize = 8;
/// The shortest legal packet, header included.
pub const MIN_PACKET_BYTES: usize = 24;

/// One packet, borrowed from the bytes it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type, as received.
    pub kind: u32,
    /// The whole packet, header included.
    pub packet: &'a [u8],
}

impl<'a> Frame<'a> {
    /// First packet of `bytes`; `Ok(None)` = read more, nothing was consumed.
    pub fn parse(_bytes: &'a [u8], _max_packet_bytes: usize) -> Result<Option<Frame<'a>>, ProtocolError> {
        todo!()
    }
    /// How long the first packet will be.
    pub fn wanted(_bytes: &[u8]) -> Option<usize> {
        todo!()
    }
    /// The encrypted body.
    pub fn body(&self) -> &'a [u8] {
        &self.packet[HEADER_BYTES..]
    }
}
