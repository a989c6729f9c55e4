//! A bare connection of a check: it sends any bytes, reads packets with a deadline, and remembers both for who has to find the fault.
//!
//! What the server sends is read leniently, field by field: whether it is right is for the checks to say. No client library in here: a
//! client would not send what the checks must send.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::protocol::{Cipher, Frame, Message};

/// Longest packet that is taken from a server, in bytes: far more than any needs.
const MAX_PACKET_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that one read takes.
const READ_BYTES: usize = 16 * 1024;

/// Longest wait of a write: a server that does not read is not waited for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a check has failed, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The server did something else than it should.
    Broken(String),
    /// There is no connection to be had.
    Unreachable(String),
}

impl From<String> for Fault {
    fn from(what: String) -> Fault {
        Fault::Broken(what)
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Fault {
        Fault::Broken(what.to_owned())
    }
}

/// The value of a protobuf field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(Vec<u8>),
    /// Wire type 5.
    Fixed32(u32),
}

/// A field: its number, its value, and how many bytes both take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// 1 and up.
    pub number: u32,
    /// Without interpretation.
    pub value: Value,
    /// In the message, key included.
    pub bytes: usize,
}

/// The first field of a message; `None`: it is malformed, or a group.
pub fn first_field(message: &[u8]) -> Option<Field> {
    let mut rest = message;
    let key = take_varint(&mut rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
    let value = match key & 7 {
        0 => Value::Varint(take_varint(&mut rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(8, &mut rest)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(take_varint(&mut rest)?).ok()?;
            Value::Bytes(take(length, &mut rest)?.to_vec())
        }
        5 => Value::Fixed32(u32::from_le_bytes(take(4, &mut rest)?.try_into().ok()?)),
        _ => return None,
    };
    Some(Field { number, value, bytes: message.len() - rest.len() })
}

/// All fields of a message; `None`: it is malformed.
pub fn fields(mut message: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let field = first_field(message)?;
        message = &message[field.bytes..];
        fields.push(field);
    }
    Some(fields)
}

/// Packed varints.
pub fn packed(mut bytes: &[u8]) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(take_varint(&mut bytes)?);
    }
    Some(numbers)
}

fn take<'a>(count: usize, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends a varint.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field's key.
pub fn put_tag(number: u32, wire_type: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | u64::from(wire_type), out);
}

/// What went over the connections of one check, in order.
pub type Transcript = Rc<RefCell<Vec<Said>>>;

/// A piece of it. Neighbours of one direction are one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The connection's name in the check.
    pub who: &'static str,
    /// Whether the check has sent it.
    pub is_sent: bool,
    /// Nothing: the server has closed.
    pub bytes: Vec<u8>,
}

/// A packet of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its type.
    pub kind: u32,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its fields.
    pub fields: Vec<Field>,
}

impl Packet {
    /// The last value of a number field.
    pub fn number(&self, field: u32) -> Option<u64> {
        self.fields.iter().rev().filter(|found| found.number == field).find_map(|found| match found.value {
            Value::Varint(value) => Some(value),
            _ => None,
        })
    }

    /// All values of a field of numbers, packed or not.
    pub fn all_numbers(&self, field: u32) -> Vec<u64> {
        let found = self.fields.iter().filter(|found| found.number == field);
        found
            .flat_map(|found| match &found.value {
                Value::Varint(value) => vec![*value],
                Value::Bytes(bytes) => packed(bytes).unwrap_or_default(),
                _ => Vec::new(),
            })
            .collect()
    }

    /// The last value of a text field, with what is no UTF-8 replaced.
    pub fn text(&self, field: u32) -> Option<String> {
        self.fields.iter().rev().filter(|found| found.number == field).find_map(|found| match &found.value {
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
    }

    /// The numbers of its fields, as they come.
    pub fn numbers(&self) -> Vec<u32> {
        self.fields.iter().map(|field| field.number).collect()
    }

    /// Whether it has all these fields; a number also counts when it is one of several that are packed.
    pub fn has(&self, wanted: &[Field]) -> bool {
        wanted.iter().all(|wanted| {
            self.fields.iter().filter(|found| found.number == wanted.number).any(|found| {
                match (&found.value, &wanted.value) {
                    (Value::Bytes(many), Value::Varint(one)) => packed(many).is_some_and(|many| many.contains(one)),
                    (found, wanted) => found == wanted,
                }
            })
        })
    }
}

/// What a wait brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// A packet.
    Packet(Packet),
    /// The server has closed, in order or by a reset.
    Closed,
    /// Neither, and the time is over.
    Silence,
}

/// A connection.
pub struct Line {
    who: &'static str,
    /// The user's name, once it is logged in.
    pub name: String,
    /// Whether level 2 was granted.
    pub is_level_2: bool,
    socket: TcpStream,
    cipher: Rc<Cipher>,
    unread: Vec<u8>,
    is_closed: bool,
    /// Most bytes that one read takes.
    read_bytes: usize,
    /// A write has failed or taken too long: nothing more is written, for it would begin in the middle of a packet.
    is_stuck: bool,
    transcript: Transcript,
}

impl Line {
    /// Takes a fresh socket over.
    ///
    /// # Errors
    /// The socket cannot be set up.
    pub fn new(
        who: &'static str,
        name: String,
        socket: TcpStream,
        cipher: Rc<Cipher>,
        transcript: Transcript,
    ) -> Result<Line, Fault> {
        let set_up = socket.set_nodelay(true).and_then(|()| socket.set_write_timeout(Some(WRITE_TIMEOUT)));
        set_up.map_err(|error| Fault::Unreachable(format!("the connection cannot be set up: {error}")))?;
        Ok(Line {
            who,
            name,
            is_level_2: false,
            socket,
            cipher,
            unread: Vec::new(),
            is_closed: false,
            read_bytes: READ_BYTES,
            is_stuck: false,
            transcript,
        })
    }

    /// Sends bytes with one write. That they cannot be written shows in what is read: a server may have closed already.
    pub fn write(&mut self, bytes: &[u8]) {
        if !self.is_stuck {
            self.note(true, bytes);
            self.is_stuck = self.socket.write_all(bytes).is_err();
        }
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Message<'_>) {
        self.send_all(std::slice::from_ref(message));
    }

    /// Sends messages with one write.
    pub fn send_all(&mut self, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&self.cipher, &mut bytes));
        self.write(&bytes);
    }

    /// From now on a read takes 8 bytes, so that what follows a packet stays unread in the kernel.
    pub fn read_sparingly(&mut self) {
        self.read_bytes = 8;
    }

    /// Waits until something is there to be read, and leaves it there: a close is a reset then.
    ///
    /// # Errors
    /// Nothing comes.
    pub fn wait_for_unread(&self, timeout: Duration) -> Result<(), Fault> {
        let peeked = self.socket.set_read_timeout(Some(timeout)).and_then(|()| self.socket.peek(&mut [0]));
        match peeked {
            Ok(1..) => Ok(()),
            _ => Err(format!("nothing more came for {}", self.who).into()),
        }
    }

    /// Ends the sending side: a FIN.
    pub fn finish(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// What comes next, within `timeout`.
    ///
    /// # Errors
    /// What came is no packet.
    pub fn next(&mut self, timeout: Duration) -> Result<Got, Fault> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(Got::Packet(packet));
            }
            if self.is_closed {
                return match self.unread.len() {
                    0 => Ok(Got::Closed),
                    left => {
                        Err(format!("the server closed in the middle of a packet, {left} bytes after its beginning")
                            .into())
                    }
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Got::Silence);
            }
            self.read(left);
        }
    }

    /// The next packet, which must come.
    ///
    /// # Errors
    /// `what` did not come.
    pub fn packet(&mut self, what: &str, timeout: Duration) -> Result<Packet, Fault> {
        match self.next(timeout)? {
            Got::Packet(packet) => Ok(packet),
            Got::Closed => Err(format!("{what} was expected for {}, but the server closed", self.who).into()),
            Got::Silence => {
                Err(format!("{what} was expected for {}, but nothing came in {timeout:?}", self.who).into())
            }
        }
    }

    /// The next packet, which must be of this type.
    ///
    /// # Errors
    /// As [`Line::packet`], or it is of another type.
    pub fn packet_of(&mut self, kind: u32, what: &str, timeout: Duration) -> Result<Packet, Fault> {
        let packet = self.packet(what, timeout)?;
        if packet.kind == kind {
            return Ok(packet);
        }
        Err(format!("{what} (type {kind}) was expected for {}, but a packet of type {} came", self.who, packet.kind)
            .into())
    }

    /// The server must close, after nothing else.
    ///
    /// # Errors
    /// It does not, or sends something.
    pub fn closed(&mut self, timeout: Duration) -> Result<(), Fault> {
        match self.next(timeout)? {
            Got::Closed => Ok(()),
            Got::Packet(packet) => Err(format!("instead of a close a packet of type {} came", packet.kind).into()),
            Got::Silence => Err(format!("the connection was still open after {timeout:?}").into()),
        }
    }

    fn read(&mut self, timeout: Duration) {
        // Zero is no legal timeout.
        let _ = self.socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1))));
        let mut bytes = [0; READ_BYTES];
        match self.socket.read(&mut bytes[..self.read_bytes]) {
            Ok(0) => self.note_close(),
            Ok(count) => {
                self.note(false, &bytes[..count]);
                self.unread.extend_from_slice(&bytes[..count]);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => self.note_close(),
        }
    }

    fn take_packet(&mut self) -> Result<Option<Packet>, Fault> {
        let frame = match Frame::parse(&self.unread, MAX_PACKET_BYTES) {
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame,
            Err(error) => return Err(format!("what the server sent is no packet: {error}").into()),
        };
        let kind = frame.kind;
        let mut scratch = Vec::new();
        let Ok(plain) = self.cipher.open(frame.body(), &mut scratch) else {
            return Err(format!(
                "a packet of type {kind} from the server cannot be decrypted, or its padding is wrong"
            )
            .into());
        };
        let Some(fields) = fields(plain) else {
            return Err(format!("a packet of type {kind} from the server is no protobuf message").into());
        };
        let bytes = frame.packet.to_vec();
        self.unread.drain(..bytes.len());
        Ok(Some(Packet { kind, bytes, fields }))
    }

    fn note(&self, is_sent: bool, bytes: &[u8]) {
        let mut transcript = self.transcript.borrow_mut();
        match transcript.last_mut() {
            Some(last) if last.who == self.who && last.is_sent == is_sent && !last.bytes.is_empty() => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => transcript.push(Said { who: self.who, is_sent, bytes: bytes.to_vec() }),
        }
    }

    fn note_close(&mut self) {
        self.is_closed = true;
        self.transcript.borrow_mut().push(Said { who: self.who, is_sent: false, bytes: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_stand() {
        let message = b"\x0a\x02hi\x10\x96\x01\x1d\x01\x00\x00\x00\x21\x02\x00\x00\x00\x00\x00\x00\x00";
        let found = fields(message).unwrap();
        let values: Vec<(u32, Value)> = found.into_iter().map(|field| (field.number, field.value)).collect();
        let expected = [
            (1, Value::Bytes(b"hi".to_vec())),
            (2, Value::Varint(150)),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
        ];
        assert_eq!(values, expected);
        for end in [1, 3, 5, 6, 8, 20] {
            assert_eq!(fields(&message[..end]), None, "after {end} bytes");
        }
        for malformed in [&b"\x00\x01"[..], b"\x0b\x0c", b"\x0e\x01", b"\x0f\x01"] {
            assert_eq!(fields(malformed), None);
        }
    }

    #[test]
    fn a_number_is_found_among_packed_ones() {
        let packet = |message: &[u8]| Packet { kind: 101, bytes: Vec::new(), fields: fields(message).unwrap() };
        let wanted = |message: &[u8]| fields(message).unwrap();
        let receipt = packet(b"\x0a\x03\x05\xac\x02\x10\x01");
        assert!(receipt.has(&wanted(b"\x08\x05\x10\x01")) && receipt.has(&wanted(b"\x08\xac\x02")));
        assert!(
            !receipt.has(&wanted(b"\x08\x06"))
                && !receipt.has(&wanted(b"\x10\x02"))
                && !receipt.has(&wanted(b"\x18\x01"))
        );
        assert_eq!((receipt.number(2), receipt.number(1), receipt.text(2)), (Some(1), None, None));
    }
}
