//! A capture of bytes that no capture has seen: those that passed a proxy. Wireshark and tcpdump open it like any other.
//!
//! Addresses, ports, sequence numbers, acknowledgements and checksums are as TCP would have them; the segments are ours: one for each write, or for each
//! 1,400 bytes of it. Every record is flushed when it is written, so that `tail -f` and a pipe into Wireshark show it at once.
//!
//! It must not know what the bytes mean. Read first: RFC 9293 §3.4; draft-ietf-opsawg-pcap.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use etherparse::PacketBuilder;

use super::Direction;

/// Raw IP, of either version: there was no Ethernet.
const LINK_TYPE: u32 = 101;

/// A segment on Ethernet would hold 60 more; this leaves room for every header.
const SEGMENT_BYTES: usize = 1400;

/// The longest segment that fits in an IP packet with either header, bytes.
const MAX_SEGMENT_BYTES: usize = 65_000;

/// After so many bytes the receiver acknowledges, as it would have; without that Wireshark marks the window as full.
const ACK_BYTES: u32 = 32 << 10;

const WINDOW: u16 = u16::MAX;
const HOPS: u8 = 64;

/// How exact the times in the file are. Some programs read microseconds only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// 10⁻⁶ s.
    Microseconds,
    /// 10⁻⁹ s.
    Nanoseconds,
}

/// A connection of this file: what [`Writer::open`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(usize);

/// Writes a capture in pcap format.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
    resolution: Resolution,
    segment_bytes: usize,
    /// How many were opened.
    opened: usize,
    /// Those that have not been forgotten.
    connections: HashMap<usize, [End; 2]>,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy)]
struct End {
    addr: SocketAddr,
    /// The sequence number of what it sends next.
    seq: u32,
    /// What it has told the other end to have received.
    acked: u32,
}

/// What is set in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Syn,
    Ack,
    Push,
    Fin,
    Reset,
}

impl<W: Write> Writer<W> {
    /// Writes the file's header.
    ///
    /// # Errors
    /// The output's.
    pub fn new(mut output: W, resolution: Resolution) -> io::Result<Writer<W>> {
        let magic = match resolution {
            Resolution::Microseconds => 0xa1b2_c3d4_u32,
            Resolution::Nanoseconds => 0xa1b2_3c4d,
        };
        let mut header = magic.to_le_bytes().to_vec();
        header.extend([2_u16, 4].map(u16::to_le_bytes).as_flattened());
        // Time zone and accuracy, which nobody uses; the longest frame; what a frame begins with.
        header.extend([0_u32, 0, 256 << 10, LINK_TYPE].map(u32::to_le_bytes).as_flattened());
        output.write_all(&header)?;
        output.flush()?;
        Ok(Writer { output, resolution, segment_bytes: SEGMENT_BYTES, opened: 0, connections: HashMap::new() })
    }

    /// At most so many bytes in a segment, 65,000 for one write to be one segment, 1 for one byte in each.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: usize) -> Writer<W> {
        self.segment_bytes = bytes.clamp(1, MAX_SEGMENT_BYTES);
        self
    }

    /// Writes the opening of a connection: SYN, SYN-ACK, ACK.
    ///
    /// # Errors
    /// The output's, here and below.
    pub fn open(&mut self, client: SocketAddr, server: SocketAddr, time: SystemTime) -> io::Result<ConnectionId> {
        let id = ConnectionId(self.opened);
        self.opened += 1;
        // Never the same twice: between the same ports they tell one connection from the next.
        let first = 1_000_000_u32.wrapping_add((id.0 as u32).wrapping_mul(64_000));
        let [client, server] = of_one_family(client, server);
        let server_first = first.wrapping_add(500_000_000);
        let ends = [
            End { addr: client, seq: first, acked: server_first },
            End { addr: server, seq: server_first, acked: first },
        ];
        self.connections.insert(id.0, ends);
        self.segment(id, Direction::ToServer, &[Flag::Syn], &[], time)?;
        self.segment(id, Direction::ToClient, &[Flag::Syn, Flag::Ack], &[], time)?;
        self.segment(id, Direction::ToServer, &[Flag::Ack], &[], time)?;
        Ok(id)
    }

    /// Writes what one end sent.
    ///
    /// # Errors
    /// The output's.
    pub fn data(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        bytes: &[u8],
        time: SystemTime,
    ) -> io::Result<()> {
        for segment in bytes.chunks(self.segment_bytes) {
            self.segment(connection, direction, &[Flag::Ack, Flag::Push], segment, time)?;
            let [from, to] = self.ends(connection, direction);
            if from.seq.wrapping_sub(to.acked) >= ACK_BYTES {
                self.segment(connection, direction.reverse(), &[Flag::Ack], &[], time)?;
            }
        }
        Ok(())
    }

    /// Writes that one end has closed its side, and that the other has noticed.
    ///
    /// # Errors
    /// The output's.
    pub fn fin(&mut self, connection: ConnectionId, direction: Direction, time: SystemTime) -> io::Result<()> {
        self.segment(connection, direction, &[Flag::Ack, Flag::Fin], &[], time)?;
        self.segment(connection, direction.reverse(), &[Flag::Ack], &[], time)
    }

    /// Writes that one end has reset the connection.
    ///
    /// # Errors
    /// The output's.
    pub fn reset(&mut self, connection: ConnectionId, direction: Direction, time: SystemTime) -> io::Result<()> {
        self.segment(connection, direction, &[Flag::Ack, Flag::Reset], &[], time)
    }

    /// Nothing more will be written of this connection, so nothing of it is kept.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection.0);
    }

    /// How many connections are kept in mind: opened and not forgotten.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Sender and receiver.
    fn ends(&mut self, connection: ConnectionId, direction: Direction) -> [&mut End; 2] {
        let [client, server] =
            self.connections.get_mut(&connection.0).expect("nothing is written of what was forgotten");
        match direction {
            Direction::ToServer => [client, server],
            Direction::ToClient => [server, client],
        }
    }

    fn segment(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        flags: &[Flag],
        bytes: &[u8],
        time: SystemTime,
    ) -> io::Result<()> {
        let [from, to] = self.ends(connection, direction);
        let has = |flag| flags.contains(&flag);
        let packet = match (from.addr.ip(), to.addr.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), HOPS)
            }
            (source, destination) => PacketBuilder::ipv6(as_v6(source), as_v6(destination), HOPS),
        };
        let mut packet = packet.tcp(from.addr.port(), to.addr.port(), from.seq, WINDOW);
        from.seq = from.seq.wrapping_add(bytes.len() as u32 + u32::from(has(Flag::Syn)) + u32::from(has(Flag::Fin)));
        if has(Flag::Ack) {
            from.acked = to.seq;
            packet = packet.ack(to.seq);
        }
        for flag in flags {
            packet = match flag {
                Flag::Syn => packet.syn(),
                Flag::Push => packet.psh(),
                Flag::Fin => packet.fin(),
                Flag::Reset => packet.rst(),
                Flag::Ack => packet,
            };
        }
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let fraction = match self.resolution {
            Resolution::Microseconds => since.subsec_micros(),
            Resolution::Nanoseconds => since.subsec_nanos(),
        };
        let frame_bytes = packet.size(bytes.len()) as u32;
        let header = [since.as_secs() as u32, fraction, frame_bytes, frame_bytes];
        let mut record = Vec::with_capacity(16 + frame_bytes as usize);
        record.extend(header.map(u32::to_le_bytes).as_flattened());
        packet.write(&mut record, bytes).map_err(io::Error::other)?;
        self.output.write_all(&record)?;
        self.output.flush()
    }
}

/// The two addresses; where one is IPv4 and the other IPv6 (a proxy may have both), as IPv6 both.
fn of_one_family(client: SocketAddr, server: SocketAddr) -> [SocketAddr; 2] {
    [client, server].map(|end| {
        if client.is_ipv4() && server.is_ipv4() {
            return end;
        }
        SocketAddr::new(IpAddr::from(as_v6(end.ip())), end.port())
    })
}

fn as_v6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}
