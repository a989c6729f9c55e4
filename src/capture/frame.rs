//! The headers of one frame: whose segment of which TCP connection it is. Checksums are not looked at: a network card fills in those of what it
//! sends after the capture has seen it. What is no TCP, and what is a fragment of an IP packet, is nothing.
//!
//! Read first: RFC 9293 §3.1; the link types at tcpdump.org/linktypes.html.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::file::Frame;

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'b> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The sequence number of the SYN, or of the first byte.
    pub seq: u32,
    /// What the sender has received.
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    /// Bytes that are there; `cut` more were not captured.
    pub bytes: &'b [u8],
    pub cut: u32,
}

/// A link type that is not read.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownLink;

/// The segment in a frame, if there is one.
///
/// # Errors
/// The link type is unknown: so will be that of all frames of this interface.
pub fn segment<'b>(frame: &Frame<'b>) -> Result<Option<Segment<'b>>, UnknownLink> {
    let bytes = frame.bytes;
    let sliced = match frame.link_type {
        1 => LaxSlicedPacket::from_ethernet(bytes).ok(),
        // Raw IP, by its numbers in different systems.
        12 | 14 | 101 | 228 | 229 => LaxSlicedPacket::from_ip(bytes).ok(),
        // Loopback of BSD: the address family before the packet, in whoever's byte order.
        0 | 108 => bytes.get(4..).and_then(|packet| LaxSlicedPacket::from_ip(packet).ok()),
        // Linux cooked, versions 1 and 2.
        113 => after_ether_type(bytes, 14, 16),
        276 => after_ether_type(bytes, 0, 20),
        _ => return Err(UnknownLink),
    };
    Ok(sliced.and_then(|sliced| tcp(&sliced, frame.cut)))
}

fn after_ether_type(bytes: &[u8], position: usize, header_bytes: usize) -> Option<LaxSlicedPacket<'_>> {
    let ether_type = u16::from_be_bytes(*bytes.get(position..)?.first_chunk()?);
    Some(LaxSlicedPacket::from_ether_type(EtherType(ether_type), bytes.get(header_bytes..)?))
}

fn tcp<'b>(sliced: &LaxSlicedPacket<'b>, cut: u32) -> Option<Segment<'b>> {
    let (from, to): (IpAddr, IpAddr) = match sliced.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return None };
    Some(Segment {
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        bytes: tcp.payload(),
        cut,
    })
}
