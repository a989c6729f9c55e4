//! A packet taken apart for a person: what each of its bytes means, before and after decryption, as far as that goes.
//!
//! It is not the way of messages through the server: it takes its time, allocates, and where `Decoder` says "bad body" it says why and where. Names
//! and types of the fields come from `proto/chat.proto` itself (`build.rs` makes a table of them); a test holds its verdicts against `Decoder`'s.
//!
//! Read first: PROTOCOL.md, "One session, byte by byte"; protobuf.dev, "Encoding".

use std::fmt;
use std::ops::Range;

use prost::encoding::{WireType, decode_varint};
use serde_json::{Map, json};

use super::message::MAX_GROUP_DEPTH;
use super::{Cipher, Frame, HEADER_BYTES, PacketType};
use crate::language::Language;

#[cfg(test)]
mod tests;

const BLOCK_BYTES: usize = 16;

/// A message of `proto/chat.proto`.
struct Layout {
    name: &'static str,
    fields: &'static [FieldLayout],
}

impl Layout {
    /// Whether a message may begin with this byte: the key of one of its fields.
    fn may_begin(&self, byte: u8) -> bool {
        self.fields.iter().any(|field| field.number << 3 == u32::from(byte & !7) && byte & 7 < 6)
    }
}

/// A field of it.
struct FieldLayout {
    number: u32,
    name: &'static str,
    kind: Kind,
    label: Label,
    /// Of an enumeration: its numbers and their names.
    words: &'static [(i32, &'static str)],
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bool,
    Enum,
    Float,
    Int64,
    String,
    Uint32,
    Uint64,
}

#[derive(Clone, Copy, PartialEq)]
enum Label {
    Optional,
    Repeated,
    Required,
}

const LAYOUTS: &[Layout] = include!(concat!(env!("OUT_DIR"), "/layouts.rs"));

/// Where a part's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// In the packet, as it came.
    Packet,
    /// In the plaintext of its body, padding included.
    Plain,
}

/// Some bytes and their meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where the bytes lie.
    pub layer: Layer,
    /// Which.
    pub range: Range<usize>,
    /// For a person.
    pub meaning: String,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number without a sign.
    Unsigned(u64),
    /// A number with one: a time in Unix seconds.
    Signed(i64),
    /// A floating-point number.
    Float(f32),
    /// True or false.
    Flag(bool),
    /// A text.
    Text(String),
    /// A number that has a name.
    Word(&'static str),
    /// Of a field that the protocol does not have.
    Bytes(Vec<u8>),
    /// Of a repeated field.
    Several(Vec<u64>),
}

/// A field of the message.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// Its name in `proto/chat.proto`; `None`: it has no such field.
    pub name: Option<&'static str>,
    /// What it holds.
    pub value: Value,
}

/// Why no more could be explained, or what is wrong with the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where `offset` counts.
    pub layer: Layer,
    /// The first byte that is wrong or missing.
    pub offset: usize,
    /// What is wrong, for a person.
    pub why: String,
}

/// `at byte 12 of the packet: …`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = match self.layer {
            Layer::Packet => "packet",
            Layer::Plain => "plaintext",
        };
        write!(f, "at byte {} of the {layer}: {}", self.offset, self.why)
    }
}

/// A packet, or what there is of one.
#[derive(Debug, Clone)]
pub struct Explained<'a> {
    /// Its bytes; where nobody can say how long it is, all that was given.
    pub packet: &'a [u8],
    /// The type, as received; `None`: the bytes end before it.
    pub kind: Option<u32>,
    /// The body's whole blocks, decrypted, padding included.
    pub plain: Vec<u8>,
    /// What the bytes mean, in their order: those of the packet, then those of the plaintext.
    pub parts: Vec<Part>,
    /// What the message says, in the order in which it says it.
    pub fields: Vec<Field>,
    /// `None`: the packet is one that `Decoder` takes.
    pub fault: Option<Fault>,
    /// A next packet begins behind this one.
    pub is_delimited: bool,
}

/// Explains the first packet of `bytes`. Never fails: what is no packet is explained as far as it goes.
pub fn explain<'a>(bytes: &'a [u8], cipher: &Cipher, max_packet_bytes: usize) -> Explained<'a> {
    let mut it = Explained {
        packet: bytes,
        kind: None,
        plain: Vec::new(),
        parts: Vec::new(),
        fields: Vec::new(),
        fault: None,
        is_delimited: false,
    };
    let length = match Frame::wanted(bytes, max_packet_bytes) {
        Ok(Some(length)) => length,
        Ok(None) => {
            it.part(Layer::Packet, 0..bytes.len(), "the beginning of a length");
            it.fault(
                Layer::Packet,
                bytes.len(),
                format!("the bytes end within the length, of which {} of 4 are here", bytes.len()),
            );
            return it;
        }
        Err(error) => {
            let announced = u32::from_be_bytes(*bytes.first_chunk().expect("only a length can be wrong"));
            it.part(Layer::Packet, 0..4, format!("length: {announced} bytes"));
            it.kind(bytes);
            it.part(
                Layer::Packet,
                bytes.len().min(HEADER_BYTES)..bytes.len(),
                "not explained: where a packet ends is not known",
            );
            it.fault(Layer::Packet, 0, error.describe(Language::English));
            return it;
        }
    };
    it.is_delimited = bytes.len() >= length;
    it.packet = &bytes[..length.min(bytes.len())];
    it.part(Layer::Packet, 0..4, format!("length: {length} bytes, these 4 included"));
    it.kind(it.packet);
    it.body(cipher, length);
    if !it.is_delimited {
        let here = bytes.len();
        // Whatever else is wrong comes of it.
        it.fault = None;
        it.fault(Layer::Packet, here, format!("the bytes end within the packet, of which {here} of {length} are here"));
    }
    it
}

impl Explained<'_> {
    /// Its type, if the protocol has it.
    pub fn packet_type(&self) -> Option<PacketType> {
        PacketType::parse(self.kind?).ok()
    }

    /// `PK_ClientLogin`, or what else can be said of the type.
    pub fn name(&self) -> &'static str {
        match (self.packet_type(), self.kind) {
            (Some(kind), _) => kind.name(),
            (None, Some(6..=21)) => "a type of a later dialect",
            (None, Some(kind)) if kind >= 1000 => "a type of the program's own",
            (None, Some(_)) => "unknown type",
            (None, None) => "no type",
        }
    }

    /// Whether a client sends it, where its type tells; `None` for a chat message, which goes both ways, and for types that the protocol does not have.
    pub fn is_from_client(&self) -> Option<bool> {
        self.packet_type().and_then(PacketType::is_from_client)
    }

    /// Whether the plaintext ends with no padding: most often the key is another one.
    pub fn is_unpadded(&self) -> bool {
        self.is_delimited && !self.plain.is_empty() && padding(&self.plain).is_err()
    }

    /// Number of bytes of padding at the plaintext's end; 0 where it is wrong.
    pub fn padding_bytes(&self) -> usize {
        padding(&self.plain).unwrap_or(0)
    }

    /// The fields in one line: `from_uuid="Ann" to_uuid="Bob"`.
    pub fn summary(&self) -> String {
        self.fields.iter().map(|field| format!("{}={}", field.name(), field.value.json())).collect::<Vec<_>>().join(" ")
    }

    /// The fields by name. One that comes more than once counts as protobuf has it: the last one, or all of a repeated one.
    pub fn json(&self) -> serde_json::Value {
        let mut fields = Map::new();
        for field in &self.fields {
            let value = field.value.json();
            match (fields.get_mut(&field.name()), &field.value) {
                (Some(serde_json::Value::Array(all)), Value::Several(more)) => {
                    all.extend(more.iter().map(|number| json!(number)))
                }
                _ => drop(fields.insert(field.name(), value)),
            }
        }
        fields.into()
    }

    fn part(&mut self, layer: Layer, range: Range<usize>, meaning: impl Into<String>) {
        if !range.is_empty() {
            self.parts.push(Part { layer, range, meaning: meaning.into() });
        }
    }

    /// The first one counts: later ones come of it.
    fn fault(&mut self, layer: Layer, offset: usize, why: impl Into<String>) {
        self.fault.get_or_insert(Fault { layer, offset, why: why.into() });
    }

    fn kind(&mut self, packet: &[u8]) {
        let Some(kind) = packet.get(4..8) else {
            return self.part(Layer::Packet, 4..packet.len(), "the beginning of a type");
        };
        let kind = u32::from_be_bytes(*kind.first_chunk().expect("4 bytes"));
        self.kind = Some(kind);
        self.part(Layer::Packet, 4..8, format!("type: {kind}, {}", self.name()));
    }

    fn body(&mut self, cipher: &Cipher, length: usize) {
        let body = self.packet.get(HEADER_BYTES..).unwrap_or_default();
        let blocks = (length - HEADER_BYTES) / BLOCK_BYTES;
        for (index, block) in body.chunks(BLOCK_BYTES).enumerate() {
            let start = HEADER_BYTES + index * BLOCK_BYTES;
            let meaning = match block.len() {
                BLOCK_BYTES if index == 0 => {
                    format!("body, encrypted with {}: block 1 of {blocks}", cipher.algorithm())
                }
                BLOCK_BYTES => format!("block {} of {blocks}", index + 1),
                _ => "the beginning of a block".to_owned(),
            };
            self.part(Layer::Packet, start..start + block.len(), meaning);
        }
        self.plain = cipher.decrypt_blocks(body);
        let mut end = self.plain.len();
        let is_whole = body.len() == length - HEADER_BYTES;
        if is_whole {
            match padding(&self.plain) {
                Ok(padding) => end -= padding,
                Err(last) => self.fault(
                    Layer::Plain,
                    end - 1,
                    format!("no padding: the last byte is {last:02x}, and so many bytes of that value should end it, 01 to 10 in hexadecimal; most often the key is another one"),
                ),
            }
        }
        let plain = std::mem::take(&mut self.plain);
        if let Some(kind) = self.packet_type() {
            let name = kind.name().replace("PK_", "Pb");
            let layout = LAYOUTS.iter().find(|layout| layout.name == name).expect("each packet type has a message");
            // Without padding there may be a message all the same; but of nonsense no fields are made up.
            let is_nonsense = is_whole && end == plain.len() && !layout.may_begin(plain[0]);
            match is_nonsense {
                true => self.part(Layer::Plain, 0..end, "not explained"),
                false => Walk { it: self, plain: &plain[..end], at: 0, layout }.message(kind),
            }
        } else if let Some(kind) = self.kind {
            self.part(Layer::Plain, 0..end, "a body that only those know who made the type");
            self.fault(Layer::Packet, 4, format!("type {kind} is none of this protocol's"));
        }
        if is_whole && end < plain.len() {
            let padding = plain.len() - end;
            self.part(Layer::Plain, end..plain.len(), format!("padding: {padding} × {padding:02x}"));
        }
        self.plain = plain;
    }
}

/// Its length, or the last byte, which is not one.
fn padding(plain: &[u8]) -> Result<usize, u8> {
    let last = plain.last().copied().unwrap_or(0);
    let length = usize::from(last);
    let is_padding = (1..=BLOCK_BYTES).contains(&length) && plain.len() >= length;
    if is_padding && plain[plain.len() - length..].iter().all(|byte| *byte == last) { Ok(length) } else { Err(last) }
}

impl Field {
    /// Its name, or `field_9`.
    pub fn name(&self) -> String {
        self.name.map_or_else(|| format!("field_{}", self.number), str::to_owned)
    }
}

impl Value {
    /// As JSON; bytes are hexadecimal.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Value::Unsigned(number) => json!(number),
            Value::Signed(number) => json!(number),
            // The shortest digits that mean this number, and not those of its neighbour with twice the bits.
            Value::Float(number) => number
                .to_string()
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .map_or_else(|| json!(number.to_string()), |number| json!(number)),
            Value::Flag(flag) => json!(flag),
            Value::Text(text) => json!(text),
            Value::Word(word) => json!(word),
            Value::Bytes(bytes) => json!(hex(bytes)),
            Value::Several(numbers) => json!(numbers),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Through a plaintext, field by field.
struct Walk<'w, 'a> {
    it: &'w mut Explained<'a>,
    plain: &'w [u8],
    at: usize,
    layout: &'static Layout,
}

/// Ends the walk; the fault has been noted.
struct Stop;

impl Walk<'_, '_> {
    fn message(mut self, kind: PacketType) {
        let mut is_walked = true;
        while self.at < self.plain.len() {
            if self.field().is_err() {
                is_walked = false;
                break;
            }
        }
        if !is_walked {
            let explained =
                self.it.parts.iter().rev().find(|part| part.layer == Layer::Plain).map_or(0, |part| part.range.end);
            let rest = explained..self.plain.len();
            return self.it.part(Layer::Plain, rest, "not explained");
        }
        let end = self.plain.len();
        for field in self.layout.fields.iter().filter(|field| field.label == Label::Required) {
            if !self.it.fields.iter().any(|known| known.number == field.number) {
                self.it.fault(
                    Layer::Plain,
                    end,
                    format!("field {}, {}, is missing, and required", field.number, field.name),
                );
            }
        }
        let names_none = |field: &Field| matches!(&field.value, Value::Several(numbers) if !numbers.is_empty());
        if kind == PacketType::ServerReceipt && !self.it.fields.iter().any(names_none) {
            self.it.fault(Layer::Plain, end, "a receipt of no message");
        }
        // Reasons and codes of a later version are passed on, a status is not.
        let last = self.it.fields.iter().rfind(|field| field.number == 2);
        if kind == PacketType::ServerReceipt && matches!(last, Some(Field { value: Value::Unsigned(_), .. })) {
            self.it.fault(Layer::Plain, end, "its status is none of this protocol's");
        }
    }

    /// One field: its key, its length if it has one, its value.
    fn field(&mut self) -> Result<(), Stop> {
        let start = self.at;
        let (number, wire_type) = self.key()?;
        let layout = self.layout.fields.iter().find(|field| field.number == number);
        let name = layout.map_or("unknown to this protocol, skipped".to_owned(), |field| field.name.to_owned());
        let wire = wire_type as u32;
        let what = match wire_type {
            WireType::Varint => "a varint follows",
            WireType::SixtyFourBit => "8 bytes follow",
            WireType::LengthDelimited => "a length follows",
            WireType::StartGroup => "a group begins",
            WireType::EndGroup => "a group ends",
            WireType::ThirtyTwoBit => "4 bytes follow",
        };
        let key = start..self.at;
        self.it.part(
            Layer::Plain,
            key,
            format!("field {number}, {name}: wire type {wire}, {what} ({number} << 3 | {wire})"),
        );
        match layout {
            Some(field) => self.known(field, wire_type),
            None => self.unknown(number, wire_type),
        }
    }

    fn known(&mut self, field: &'static FieldLayout, wire_type: WireType) -> Result<(), Stop> {
        let start = self.at;
        let value = match (field.kind, wire_type) {
            (Kind::String, WireType::LengthDelimited) => {
                let range = self.delimited("the text")?;
                match str::from_utf8(&self.plain[range.clone()]) {
                    Ok(text) => {
                        self.it.part(Layer::Plain, range, json!(text).to_string());
                        Value::Text(text.to_owned())
                    }
                    Err(error) => {
                        return self.stop(
                            range.start + error.valid_up_to(),
                            format!("{} is not UTF-8 from here on", field.name),
                        );
                    }
                }
            }
            (Kind::Float, WireType::ThirtyTwoBit) => {
                let bytes = self.bytes(4)?;
                let number = f32::from_le_bytes(*self.plain[bytes.clone()].first_chunk().expect("4 bytes"));
                self.it.part(Layer::Plain, bytes, format!("{number}: IEEE 754 single precision, lowest byte first"));
                Value::Float(number)
            }
            (Kind::Uint64, WireType::LengthDelimited) if field.label == Label::Repeated => {
                let range = self.delimited("all of them, packed")?;
                let (mut numbers, end) = (Vec::new(), range.end);
                self.at = range.start;
                while self.at < end {
                    let number = self.at;
                    let value = self.varint()?;
                    if self.at > end {
                        return self.stop(number, "a number that reaches beyond the list");
                    }
                    self.it.part(Layer::Plain, number..self.at, varint_words(value, self.at - number));
                    numbers.push(value);
                }
                Value::Several(numbers)
            }
            (Kind::Bool | Kind::Enum | Kind::Int64 | Kind::Uint32 | Kind::Uint64, WireType::Varint) => {
                let number = self.varint()?;
                let (value, words) = numeric(field, number, self.at - start);
                self.it.part(Layer::Plain, start..self.at, words);
                value
            }
            _ => {
                return self.stop(start, format!("{} is not of wire type {}", field.name, wire_type as u32));
            }
        };
        self.it.fields.push(Field { number: field.number, name: Some(field.name), value });
        Ok(())
    }

    fn unknown(&mut self, number: u32, wire_type: WireType) -> Result<(), Stop> {
        let start = self.at;
        let value = match wire_type {
            WireType::Varint => {
                let value = self.varint()?;
                self.it.part(Layer::Plain, start..self.at, varint_words(value, self.at - start));
                Value::Unsigned(value)
            }
            WireType::LengthDelimited => {
                let range = self.delimited("the value")?;
                self.it.part(Layer::Plain, range.clone(), "its bytes");
                Value::Bytes(self.plain[range].to_vec())
            }
            WireType::SixtyFourBit | WireType::ThirtyTwoBit => {
                let range = self.bytes(if wire_type == WireType::ThirtyTwoBit { 4 } else { 8 })?;
                self.it.part(Layer::Plain, range.clone(), "its bytes");
                Value::Bytes(self.plain[range].to_vec())
            }
            WireType::StartGroup => {
                self.group(number)?;
                self.it.part(Layer::Plain, start..self.at, "a group, skipped to its end");
                Value::Bytes(self.plain[start..self.at].to_vec())
            }
            WireType::EndGroup => return self.stop(start, "the end of a group that has not begun"),
        };
        self.it.fields.push(Field { number, name: None, value });
        Ok(())
    }

    /// To the end of a group whose start has been read.
    fn group(&mut self, number: u32) -> Result<(), Stop> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            let start = self.at;
            let (number, wire_type) = self.key()?;
            match wire_type {
                WireType::Varint => _ = self.varint()?,
                WireType::LengthDelimited => _ = self.range()?,
                WireType::SixtyFourBit => _ = self.bytes(8)?,
                WireType::ThirtyTwoBit => _ = self.bytes(4)?,
                WireType::StartGroup if open.len() == MAX_GROUP_DEPTH => {
                    return self.stop(start, "too many groups within each other");
                }
                WireType::StartGroup => open.push(number),
                WireType::EndGroup if number == innermost => _ = open.pop(),
                WireType::EndGroup => return self.stop(start, "the end of another group"),
            }
        }
        Ok(())
    }

    fn key(&mut self) -> Result<(u32, WireType), Stop> {
        let start = self.at;
        let key = self.varint()?;
        let number = key >> 3;
        let wire_type = WireType::try_from(key & 7);
        match (u32::try_from(key), wire_type) {
            (Ok(_), Ok(wire_type)) if number > 0 => Ok((number as u32, wire_type)),
            (Ok(_), Ok(_)) => self.stop(start, "a field has no number 0"),
            (Ok(_), Err(_)) => self.stop(start, format!("there is no wire type {}", key & 7)),
            (Err(_), _) => self.stop(start, "a field's number has 29 bits at most"),
        }
    }

    /// A varint's value; the walk stands behind it.
    fn varint(&mut self) -> Result<u64, Stop> {
        let start = self.at;
        let mut rest = &self.plain[start..];
        match decode_varint(&mut rest) {
            Ok(value) => {
                self.at = self.plain.len() - rest.len();
                Ok(value)
            }
            Err(_)
                if self.plain[start..].iter().take(10).all(|byte| byte & 0x80 != 0)
                    && self.plain.len() - start < 10 =>
            {
                self.stop(self.plain.len(), "the plaintext ends within a varint")
            }
            Err(_) => self.stop(start, "a varint of more than 64 bits"),
        }
    }

    /// A length, and so many bytes behind it.
    fn delimited(&mut self, of_what: &str) -> Result<Range<usize>, Stop> {
        let start = self.at;
        let range = self.range()?;
        let length = range.len();
        let bytes = if length == 1 { "byte" } else { "bytes" };
        self.it.part(Layer::Plain, start..range.start, format!("length of {of_what}: {length} {bytes}"));
        Ok(range)
    }

    fn range(&mut self) -> Result<Range<usize>, Stop> {
        let start = self.at;
        let length = self.varint()?;
        let left = self.plain.len() - self.at;
        match usize::try_from(length).ok().filter(|length| *length <= left) {
            Some(length) => {
                self.at += length;
                Ok(self.at - length..self.at)
            }
            None => self.stop(start, format!("a length of {length} bytes, of which {left} are here")),
        }
    }

    fn bytes(&mut self, length: usize) -> Result<Range<usize>, Stop> {
        let start = self.at;
        let left = self.plain.len() - start;
        if left < length {
            return self.stop(start, format!("{length} bytes are wanted, of which {left} are here"));
        }
        self.at += length;
        Ok(start..self.at)
    }

    fn stop<T>(&mut self, offset: usize, why: impl Into<String>) -> Result<T, Stop> {
        self.it.fault(Layer::Plain, offset, why);
        Err(Stop)
    }
}

/// A varint's value as the field's type has it, and in words.
fn numeric(field: &FieldLayout, number: u64, bytes: usize) -> (Value, String) {
    match field.kind {
        Kind::Bool => (Value::Flag(number != 0), (number != 0).to_string()),
        Kind::Int64 => {
            let number = number as i64;
            let date = jiff::Timestamp::from_second(number)
                .map_or_else(|_| String::new(), |date| format!(", {}", date.strftime("%Y-%m-%d %H:%M:%S UTC")));
            (Value::Signed(number), format!("{number}{}{date}", long_words(bytes)))
        }
        Kind::Enum => {
            let number = number as i32;
            match field.words.iter().find(|word| word.0 == number) {
                Some((_, word)) => (Value::Word(word), format!("{number}, {word}")),
                None => (Value::Unsigned(number as u32 as u64), format!("{number}, which has no name here")),
            }
        }
        Kind::Uint32 => (Value::Unsigned(u64::from(number as u32)), varint_words(u64::from(number as u32), bytes)),
        _ if field.label == Label::Repeated => (Value::Several(vec![number]), varint_words(number, bytes)),
        _ => (Value::Unsigned(number), varint_words(number, bytes)),
    }
}

fn varint_words(value: u64, bytes: usize) -> String {
    format!("{value}{}", long_words(bytes))
}

fn long_words(bytes: usize) -> String {
    if bytes > 1 { format!(": {bytes} bytes, 7 bits of each, lowest first") } else { String::new() }
}
