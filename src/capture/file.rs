//! The file formats: frame after frame out of a pcap or pcapng file, or out of a pipe while it is being written.
//!
//! A record is handed to the parser when all of it is there, and as soon as it is; so what the parser then finds missing is damage. Memory is bounded by
//! the longest record that is taken, [`MAX_FRAME_BYTES`].
//!
//! It must not know what is in a frame. Read first: draft-ietf-opsawg-pcap §3, draft-ietf-opsawg-pcapng §3.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use pcap_parser::nom::{self, IResult};
use pcap_parser::{Block, PcapError, PcapHeader};
use pcap_parser::{parse_block_be, parse_block_le, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header};

use super::{ReadError, since_epoch};

/// The longest record, bytes: four times what libpcap captures of a frame by default. A longer one is taken for damage.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// How much of an input [`is_capture`] must see, bytes.
pub const MIN_CAPTURE_BYTES: usize = 4;

/// Whether an input that begins with these bytes is a capture.
pub fn is_capture(beginning: &[u8]) -> bool {
    beginning.first_chunk().is_some_and(|first| Format::of(*first).is_some())
}

/// The space for one read, bytes: a pipe of Linux holds as much.
const READ_BYTES: usize = 64 << 10;

const PCAP_HEADER_BYTES: usize = 24;
const PCAP_RECORD_BYTES: usize = 16;
/// A block's type, its length, and the length again.
const MIN_BLOCK_BYTES: usize = 12;
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// One captured frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// Where its record begins in the file, bytes.
    pub offset: u64,
    /// When it was captured.
    pub time: SystemTime,
    /// What it begins with: a number of the list of tcpdump.org.
    pub link_type: i32,
    /// How many bytes at its end were not captured.
    pub cut: u32,
    /// The bytes.
    pub bytes: &'b [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Pcap,
    PcapNg,
}

impl Format {
    fn of(first: [u8; 4]) -> Option<Format> {
        match u32::from_be_bytes(first) {
            0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 => Some(Format::Pcap),
            _ if first == SECTION => Some(Format::PcapNg),
            _ => None,
        }
    }
}

/// An interface of a pcapng section.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: i32,
    /// The most that is captured of a frame, bytes.
    snap_bytes: usize,
    /// Units of time in a second, and the seconds that all times lack.
    units_per_second: u64,
    offset_seconds: i64,
}

/// What has been learned from the records so far.
enum Known {
    Nothing,
    Pcap(PcapHeader),
    PcapNg { big_endian: bool, interfaces: Vec<Interface> },
}

/// Reads a capture.
pub struct CaptureFile<R> {
    input: R,
    /// What is read into.
    space: Vec<u8>,
    buffer: Vec<u8>,
    /// How much of the buffer is used up: everything before the next record.
    used: usize,
    /// Where the buffer begins in the file.
    offset: u64,
    known: Known,
}

impl<R: Read> CaptureFile<R> {
    /// Reads nothing yet.
    pub fn new(input: R) -> CaptureFile<R> {
        CaptureFile { input, space: vec![0; READ_BYTES], buffer: Vec::new(), used: 0, offset: 0, known: Known::Nothing }
    }

    /// The next frame; `None` = a clean end. Waits for the input when it is a pipe.
    ///
    /// # Errors
    /// Nothing can be read after one.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        loop {
            let Some(bytes) = self.next_record()? else { return Ok(None) };
            let (from, offset) = (self.used, self.offset + self.used as u64);
            self.used += bytes;
            let record = &self.buffer[from..self.used];
            let frame = match &mut self.known {
                Known::Pcap(header) => Some(pcap_frame(header, record).map_err(|what| damaged(offset, what))?),
                Known::PcapNg { big_endian, interfaces } => block(*big_endian, interfaces, record, offset)?,
                Known::Nothing => {
                    let header = complete(parse_pcap_header(record)).map_err(|what| damaged(offset, what))?;
                    self.known = Known::Pcap(header);
                    None
                }
            };
            if let Some((time, link_type, original_bytes, range)) = frame {
                let bytes = &self.buffer[from..][range];
                let cut = original_bytes.saturating_sub(bytes.len().try_into().unwrap_or(u32::MAX));
                return Ok(Some(Frame { offset, time, link_type, cut, bytes }));
            }
        }
    }

    /// Makes sure that the next record is in the buffer, and gives its length; `None` = there is none.
    fn next_record(&mut self) -> Result<Option<usize>, ReadError> {
        if matches!(self.known, Known::Nothing) {
            if !self.wait_for(MIN_CAPTURE_BYTES)? {
                return Err(ReadError::NotACapture);
            }
            match self.buffer.first_chunk().and_then(|first| Format::of(*first)) {
                None => return Err(ReadError::NotACapture),
                Some(Format::Pcap) => return self.wait_for_all(PCAP_HEADER_BYTES).map(Some),
                Some(Format::PcapNg) => self.known = Known::PcapNg { big_endian: false, interfaces: Vec::new() },
            }
        }
        if !self.wait_for(1)? {
            return Ok(None);
        }
        let offset = self.offset + self.used as u64;
        let (bytes, at_least) = match &self.known {
            Known::Pcap(header) => {
                let big_endian = header.is_bigendian();
                self.wait_for_all(PCAP_RECORD_BYTES)?;
                (PCAP_RECORD_BYTES + self.number(8, big_endian), PCAP_RECORD_BYTES)
            }
            _ => {
                self.wait_for_all(MIN_BLOCK_BYTES)?;
                self.learn_byte_order();
                let Known::PcapNg { big_endian, .. } = self.known else { unreachable!("pcap is handled above") };
                (self.number(4, big_endian), MIN_BLOCK_BYTES)
            }
        };
        if !(at_least..=MAX_FRAME_BYTES).contains(&bytes) {
            return Err(damaged(offset, format!("a record of {bytes} bytes")));
        }
        self.wait_for_all(bytes).map(Some)
    }

    /// A section of a pcapng file has a byte order of its own, and interfaces of its own.
    fn learn_byte_order(&mut self) {
        let block = &self.buffer[self.used..];
        if block.starts_with(&SECTION) {
            let big_endian = block[8..].starts_with(&0x1a2b_3c4d_u32.to_be_bytes());
            self.known = Known::PcapNg { big_endian, interfaces: Vec::new() };
        }
    }

    /// The number at this position of the record.
    fn number(&self, position: usize, big_endian: bool) -> usize {
        let bytes = *self.buffer[self.used + position..].first_chunk().expect("the caller has waited for it");
        let number = if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        number.try_into().unwrap_or(usize::MAX).min(usize::MAX / 2)
    }

    fn wait_for_all(&mut self, bytes: usize) -> Result<usize, ReadError> {
        if self.wait_for(bytes)? {
            Ok(bytes)
        } else {
            Err(ReadError::CutOff { offset: self.offset + self.used as u64 })
        }
    }

    /// Reads until so many bytes of the next record are there; false = the input has ended before.
    fn wait_for(&mut self, bytes: usize) -> Result<bool, ReadError> {
        while self.buffer.len() - self.used < bytes {
            if self.used > 0 {
                self.buffer.drain(..self.used);
                self.offset += self.used as u64;
                self.used = 0;
            }
            let filled = self.buffer.len();
            match self.input.read(&mut self.space) {
                Ok(0) => return Ok(false),
                Ok(count) => self.buffer.extend_from_slice(&self.space[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Input { offset: self.offset + filled as u64, error }),
            }
        }
        Ok(true)
    }
}

/// Time, link type, original length, and which bytes of the record are the frame.
type Found = (SystemTime, i32, u32, std::ops::Range<usize>);

fn pcap_frame(header: &PcapHeader, record: &[u8]) -> Result<Found, String> {
    let parse = if header.is_bigendian() { parse_pcap_frame_be } else { parse_pcap_frame };
    let frame = complete(parse(record))?;
    let nanoseconds = if header.is_nanosecond_precision() { 1 } else { 1000 } * u64::from(frame.ts_usec);
    let time = since_epoch(Duration::from_secs(frame.ts_sec.into()) + Duration::from_nanos(nanoseconds));
    // The upper bits say how long the frame check sequence is.
    Ok((time, header.network.0 & 0xffff, frame.origlen, PCAP_RECORD_BYTES..record.len()))
}

fn block(
    big_endian: bool,
    interfaces: &mut Vec<Interface>,
    record: &[u8],
    offset: u64,
) -> Result<Option<Found>, ReadError> {
    let parse = if big_endian { parse_block_be } else { parse_block_le };
    let block = complete(parse(record)).map_err(|what| damaged(offset, what))?;
    let of = |id: usize| interfaces.get(id).copied().ok_or_else(|| damaged(offset, format!("no interface {id}")));
    match block {
        Block::InterfaceDescription(described) => {
            interfaces.push(Interface {
                link_type: described.linktype.0,
                snap_bytes: if described.snaplen == 0 { usize::MAX } else { described.snaplen as usize },
                units_per_second: units_per_second(described.if_tsresol)
                    .ok_or_else(|| damaged(offset, "a resolution of time that no clock has".into()))?,
                offset_seconds: described.if_tsoffset,
            });
            Ok(None)
        }
        Block::EnhancedPacket(packet) => {
            let interface = of(packet.if_id as usize)?;
            let bytes = packet.caplen as usize;
            if bytes > packet.data.len() {
                return Err(damaged(offset, format!("a frame of {bytes} bytes in a block of {}", record.len())));
            }
            let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            Ok(Some((interface.time(units), interface.link_type, packet.origlen, 28..28 + bytes)))
        }
        Block::SimplePacket(packet) => {
            let interface = of(0)?;
            // It has no length of what was captured, and padding behind that.
            let bytes = packet.data.len().min(packet.origlen as usize).min(interface.snap_bytes);
            Ok(Some((interface.time(0), interface.link_type, packet.origlen, 12..12 + bytes)))
        }
        _ => Ok(None),
    }
}

/// What the option `if_tsresol` says: a power of ten, or with its highest bit set one of two, which the parser's own reading refuses. `None`: more than a
/// number of 64 bits.
fn units_per_second(resolution: u8) -> Option<u64> {
    let exponent = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u64.checked_pow(exponent) } else { 1_u64.checked_shl(exponent) }
}

impl Interface {
    fn time(&self, units: u64) -> SystemTime {
        let seconds = (units / self.units_per_second).saturating_add_signed(self.offset_seconds);
        let rest = u128::from(units % self.units_per_second) * 1_000_000_000 / u128::from(self.units_per_second);
        since_epoch(Duration::new(seconds, rest.try_into().unwrap_or(0)))
    }
}

/// The result of a parser that was given all that there is.
fn complete<'b, T>(parsed: IResult<&'b [u8], T, PcapError<&'b [u8]>>) -> Result<T, String> {
    match parsed {
        Ok((_, found)) => Ok(found),
        Err(nom::Err::Incomplete(_)) => Err("its inner lengths are longer than itself".to_owned()),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(match error {
            PcapError::NomError(_, kind) | PcapError::OwnedNomError(_, kind) => {
                format!("its fields are not right ({kind:?})")
            }
            other => other.to_string(),
        }),
    }
}

fn damaged(offset: u64, what: String) -> ReadError {
    ReadError::Damaged { offset, what }
}
