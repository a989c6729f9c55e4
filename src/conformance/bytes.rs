//! The little language in which the table writes bytes, so that a person can read and write a malformed packet by hand.
//!
//! | written | bytes |
//! |---|---|
//! | `0a ff00` | these, in hex |
//! | `"text\n"` | the text's; `\n` `\r` `\t` `\0` `\\` `\"` `\xff` `\u{202e}` as in Rust; `$me`, `$you`, `$absent` are names of this run |
//! | `1="Ann"` `2=<c3 28>` | a protobuf field with a length and these bytes |
//! | `3=7` `3=-1` | a field with a varint |
//! | `2=1.5` | a field with a float |
//! | `2=fixed32(7)` `2=fixed64(7)` `2=group(…)` | a field with another wire type |
//! | `tag(1, 6)` `varint(300)` `u32(24)` | a field's key, a varint, four bytes big-endian |
//! | `1000*(7b)` | so many times |
//! | `fill("$me", 129)` | the text, made 129 bytes long with "x" |
//! | `packet(5, …)` | a packet of type 5 that decrypts to these bytes |
//! | `blocks(5, …)` | the same, without padding: the bytes are whole blocks and bring their own |
//! | `sized(5, 1016, …)` | the same as `packet`, with an unknown field 15 that makes the packet 1,016 bytes long |
//! | `tail(5, 03 03 03, …)` | the same as `blocks`, with an unknown field 15 that makes message and tail fill whole blocks |
//! | `plain(5, …)` | a packet of type 5 with these bytes as its body, not encrypted |
//! | `wrongkey(5, …)` | as `packet`, with another key |
//! | `length(7, …)` | these bytes, the first four of them replaced by this length |
//! | `login` `login2` `ping` `logout` `chat("hello")` | good packets of `$me`, the chat one for `$you`; their time is 7 |
//!
//! Read first: PROTOCOL.md, "Packet"; protobuf.dev, "Encoding".

use crate::protocol::{Chat, Cipher, Message, encode_packet};

use super::wire::{put_tag, put_varint};

/// The time in all good packets of the table.
pub const TIME: i64 = 7;

/// What the language's words mean in one check.
pub struct Words<'a> {
    /// Who sends.
    pub me: &'a str,
    /// Somebody who is there.
    pub you: &'a str,
    /// Somebody who never was.
    pub absent: &'a str,
    /// The server's key.
    pub cipher: &'a Cipher,
    /// Another one.
    pub wrong: &'a Cipher,
}

/// The bytes that `text` describes.
///
/// # Errors
/// Where and why it cannot be understood. The table is compiled in, so only a change of it can bring one.
pub fn encode(text: &str, words: &Words<'_>) -> Result<Vec<u8>, String> {
    let mut parser = Parser { text, rest: text, words };
    let bytes = parser.sequence()?;
    if parser.rest.is_empty() { Ok(bytes) } else { Err(parser.fault("this belongs to nothing")) }
}

/// A pattern of an answer, `type: field=value …`: its type, and its fields in bytes.
///
/// # Errors
/// As [`encode`].
pub fn pattern(text: &str, words: &Words<'_>) -> Result<(u32, Vec<u8>), String> {
    let (kind, fields) = text.split_once(':').unwrap_or((text, ""));
    let kind = kind.trim().parse().map_err(|_| format!("{text:?} does not begin with a packet type"))?;
    Ok((kind, encode(fields, words)?))
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    words: &'a Words<'a>,
}

impl<'a> Parser<'a> {
    fn fault(&self, what: &str) -> String {
        format!("{what}, at {:?} of {:?}", self.rest, self.text)
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: char) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn need(&mut self, token: char) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(self.fault(&format!("{token:?} is missing"))) }
    }

    /// As many characters as are of this kind.
    fn run_of(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        self.skip_space();
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn sequence(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        loop {
            self.skip_space();
            match self.rest.chars().next() {
                None | Some(')' | '>' | ',') => return Ok(bytes),
                Some('"') => bytes.extend(self.string()?),
                Some(_) => bytes.extend(self.item()?),
            }
        }
    }

    fn item(&mut self) -> Result<Vec<u8>, String> {
        let word = self.run_of(|c| c.is_ascii_alphanumeric());
        match self.rest.chars().next() {
            Some('=') => {
                self.rest = &self.rest[1..];
                self.field(word.parse().map_err(|_| self.fault("no field number"))?)
            }
            Some('*') => {
                self.rest = &self.rest[1..];
                let times = word.parse().map_err(|_| self.fault("no number of times"))?;
                self.need('(')?;
                let bytes = self.sequence()?;
                self.need(')')?;
                Ok(bytes.repeat(times))
            }
            Some('(') => {
                self.rest = &self.rest[1..];
                let bytes = self.function(word)?;
                self.need(')')?;
                Ok(bytes)
            }
            _ => self.good_packet(word).map_or_else(|| self.hex(word), Ok),
        }
    }

    fn hex(&self, word: &str) -> Result<Vec<u8>, String> {
        let bytes = (0..word.len()).step_by(2).map(|at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok()).collect();
        match bytes {
            Some(bytes) if !word.is_empty() => Ok(bytes),
            _ => Err(self.fault(&format!("{word:?} is neither hex nor a word"))),
        }
    }

    fn good_packet(&self, word: &str) -> Option<Vec<u8>> {
        let Words { me: name, cipher, .. } = *self.words;
        let login = |level| Message::ClientLogin { name, version: 1.0, time: TIME, level, last_seq: None };
        let message = match word {
            "login" => login(None),
            "login2" => login(Some(2)),
            "ping" => Message::ClientPing { ping: true, time: TIME },
            "logout" => Message::ClientLogout { logout: true, time: TIME },
            _ => return None,
        };
        let mut packet = Vec::new();
        message.encode(cipher, &mut packet);
        Some(packet)
    }

    fn function(&mut self, word: &str) -> Result<Vec<u8>, String> {
        let Words { me: from, you: to, cipher, wrong, .. } = *self.words;
        let mut out = Vec::new();
        match word {
            "u32" => out.extend_from_slice(&self.u32()?.to_be_bytes()),
            "varint" => put_varint(self.number()? as u64, &mut out),
            "tag" => {
                let (number, wire_type) = (self.u32()?, self.second()?);
                put_tag(number, wire_type as u8, &mut out);
            }
            "fill" => {
                out = self.string()?;
                out.resize(self.second()? as usize, b'x');
            }
            "chat" => {
                let text = String::from_utf8(self.sequence()?).map_err(|_| self.fault("the text is no UTF-8"))?;
                Message::Chat(Chat { from, to, text: &text, time: TIME, ..Chat::default() }).encode(cipher, &mut out);
            }
            "packet" | "wrongkey" => {
                let cipher = if word == "packet" { cipher } else { wrong };
                let (kind, body) = self.kind_and_body()?;
                encode_packet(kind, &body, cipher, &mut out);
            }
            "blocks" => {
                let (kind, body) = self.kind_and_body()?;
                if body.is_empty() || !body.len().is_multiple_of(16) {
                    return Err(self.fault(&format!("{} bytes are not whole blocks", body.len())));
                }
                put_blocks(kind, &body, cipher, &mut out);
            }
            "sized" => {
                let kind = self.u32()?;
                let bytes = self.second()? as usize;
                let message = if self.take(',') { self.sequence()? } else { Vec::new() };
                // One byte of padding at least, so up to fifteen lengths of the field will do.
                let sizes = (0..bytes.saturating_sub(message.len())).rev();
                let message =
                    sizes.map(|count| with_filler(&message, count)).find(|filled| packet_bytes(filled) == bytes);
                let message = message.ok_or_else(|| self.fault("no packet has that length"))?;
                encode_packet(kind, &message, cipher, &mut out);
            }
            "tail" => {
                let kind = self.u32()?;
                self.need(',')?;
                let tail = self.sequence()?;
                let message = if self.take(',') { self.sequence()? } else { Vec::new() };
                let filled = (0..16).map(|count| [&with_filler(&message, count)[..], &tail].concat());
                let body = filled.into_iter().find(|body| body.len().is_multiple_of(16)).unwrap_or_default();
                put_blocks(kind, &body, cipher, &mut out);
            }
            "plain" => {
                let (kind, body) = self.kind_and_body()?;
                out.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
                out.extend_from_slice(&kind.to_be_bytes());
                out.extend_from_slice(&body);
            }
            "length" => {
                let (length, bytes) = self.kind_and_body()?;
                out = bytes;
                set_length(length, &mut out);
            }
            _ => return Err(self.fault(&format!("there is no function {word:?}"))),
        }
        Ok(out)
    }

    fn kind_and_body(&mut self) -> Result<(u32, Vec<u8>), String> {
        let kind = self.u32()?;
        let body = if self.take(',') { self.sequence()? } else { Vec::new() };
        Ok((kind, body))
    }

    fn field(&mut self, number: u32) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let delimited = |bytes: Vec<u8>, out: &mut Vec<u8>| {
            put_tag(number, 2, out);
            put_varint(bytes.len() as u64, out);
            out.extend(bytes);
        };
        match self.rest.chars().next() {
            Some('"') => delimited(self.string()?, &mut out),
            Some('<') => {
                self.rest = &self.rest[1..];
                let bytes = self.sequence()?;
                self.need('>')?;
                delimited(bytes, &mut out);
            }
            Some('-' | '0'..='9') => {
                let word = self.run_of(|c| c.is_ascii_digit() || "-.".contains(c));
                if word.contains('.') {
                    let float: f32 = word.parse().map_err(|_| self.fault("no float"))?;
                    put_tag(number, 5, &mut out);
                    out.extend_from_slice(&float.to_le_bytes());
                } else {
                    let integer: i128 = word.parse().map_err(|_| self.fault("no integer"))?;
                    put_tag(number, 0, &mut out);
                    put_varint(integer as u64, &mut out);
                }
            }
            _ => {
                let word = self.run_of(|c| c.is_ascii_alphanumeric());
                self.need('(')?;
                match word {
                    "fixed32" => {
                        put_tag(number, 5, &mut out);
                        out.extend_from_slice(&self.u32()?.to_le_bytes());
                    }
                    "fixed64" => {
                        put_tag(number, 1, &mut out);
                        out.extend_from_slice(&(self.number()? as u64).to_le_bytes());
                    }
                    "group" => {
                        put_tag(number, 3, &mut out);
                        out.extend(self.sequence()?);
                        put_tag(number, 4, &mut out);
                    }
                    _ => delimited(self.function(word)?, &mut out),
                }
                self.need(')')?;
            }
        }
        Ok(out)
    }

    fn number(&mut self) -> Result<i128, String> {
        let word = self.run_of(|c| c.is_ascii_alphanumeric() || c == '-');
        let number = match word.strip_prefix("0x") {
            Some(digits) => i128::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        };
        number.ok_or_else(|| self.fault(&format!("{word:?} is no number")))
    }

    fn u32(&mut self) -> Result<u32, String> {
        u32::try_from(self.number()?).map_err(|_| self.fault("the number is no u32"))
    }

    /// The number behind a comma.
    fn second(&mut self) -> Result<i128, String> {
        self.need(',')?;
        self.number()
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        self.need('"')?;
        let mut bytes = Vec::new();
        loop {
            let mut chars = self.rest.chars();
            let c = chars.next().ok_or_else(|| self.fault("a string does not end"))?;
            self.rest = chars.as_str();
            match c {
                '"' => return Ok(bytes),
                '\\' => self.escape(&mut bytes)?,
                '$' => {
                    let Words { me, you, absent, .. } = *self.words;
                    let name = match self.run_of(|c| c.is_ascii_lowercase()) {
                        "me" => me,
                        "you" => you,
                        "absent" => absent,
                        other => return Err(self.fault(&format!("there is no name ${other}"))),
                    };
                    bytes.extend_from_slice(name.as_bytes());
                }
                c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let mut chars = self.rest.chars();
        let c = chars.next().ok_or_else(|| self.fault("a string does not end"))?;
        self.rest = chars.as_str();
        match c {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            '\\' | '"' | '$' => bytes.push(c as u8),
            'x' => {
                let digits = self.rest.get(..2).ok_or_else(|| self.fault("no two digits"))?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| self.fault("no hex"))?);
                self.rest = &self.rest[2..];
            }
            'u' => {
                self.need('{')?;
                let digits = self.run_of(|c| c.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                let c = code.ok_or_else(|| self.fault(&format!("{digits:?} is no code point")))?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                self.need('}')?;
            }
            _ => return Err(self.fault(&format!("there is no escape \\{c}"))),
        }
        Ok(())
    }
}

/// The message and an unknown field 15 of `count` bytes.
fn with_filler(message: &[u8], count: usize) -> Vec<u8> {
    let mut filled = message.to_vec();
    put_tag(15, 2, &mut filled);
    put_varint(count as u64, &mut filled);
    filled.resize(filled.len() + count, 0);
    filled
}

/// Length of the packet that this message makes.
fn packet_bytes(message: &[u8]) -> usize {
    8 + (message.len() / 16 + 1) * 16
}

/// A packet that decrypts to whole blocks, without padding.
fn put_blocks(kind: u32, body: &[u8], cipher: &Cipher, out: &mut Vec<u8>) {
    // In CBC a block does not depend on those after it: the block of padding at the end can go.
    encode_packet(kind, body, cipher, out);
    out.truncate(8 + body.len());
    set_length(out.len() as u32, out);
}

fn set_length(length: u32, packet: &mut [u8]) {
    if let Some(place) = packet.get_mut(..4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Decoder, Frame, PUBLISHED_KEY};

    fn encoded(text: &str) -> Result<Vec<u8>, String> {
        let (cipher, wrong) = (Cipher::new(PUBLISHED_KEY).unwrap(), Cipher::new(b"another key, 16.").unwrap());
        encode(text, &Words { me: "ann", you: "bob", absent: "zoe", cipher: &cipher, wrong: &wrong })
    }

    #[test]
    fn bytes_are_what_was_written() {
        let table: [(&str, &[u8]); 19] = [
            ("", b""),
            ("0a ff00", b"\x0a\xff\x00"),
            (r#""a\n\0\x80\u{e9}$me\$""#, b"a\n\0\x80\xc3\xa9ann$"),
            (r#"1="Ann""#, b"\x0a\x03Ann"),
            (r#"1=<ff "x">"#, b"\x0a\x02\xffx"),
            ("3=300", b"\x18\xac\x02"),
            ("3=-1", b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            ("2=1.0", b"\x15\x00\x00\x80\x3f"),
            ("2=fixed32(7)", b"\x15\x07\x00\x00\x00"),
            ("2=fixed64(7)", b"\x11\x07\x00\x00\x00\x00\x00\x00\x00"),
            ("15=group(1=1)", b"\x7b\x08\x01\x7c"),
            ("tag(1, 6)", b"\x0e"),
            ("tag(16, 0)", b"\x80\x01"),
            ("varint(300)", b"\xac\x02"),
            ("u32(24) u32(0x80000000)", b"\x00\x00\x00\x18\x80\x00\x00\x00"),
            ("3*(7b 00)", b"\x7b\x00\x7b\x00\x7b\x00"),
            (r#"1=fill("$me", 5)"#, b"\x0a\x05annxx"),
            ("plain(5, ff)", b"\x00\x00\x00\x09\x00\x00\x00\x05\xff"),
            ("length(7, plain(5, ff))", b"\x00\x00\x00\x07\x00\x00\x00\x05\xff"),
        ];
        for (text, bytes) in table {
            assert_eq!(encoded(text).as_deref(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn packets_say_what_was_written() {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        let chat = Message::Chat(Chat { from: "ann", to: "bob", text: "hello", time: 7, ..Chat::default() });
        let by_field = r#"packet(5, 1="ann" 2="bob" 3="hello" 4=7)"#;
        // 8 bytes of message, so 8 of padding.
        let by_block = "blocks(4, 08 01 10 87 80 80 80 00 08080808 08080808)";
        let ping = Message::ClientPing { ping: true, time: 7 };
        for (text, expected) in [(by_field, chat), (r#"chat("hello")"#, chat), (by_block, ping), ("ping", ping)] {
            let bytes = encoded(text).unwrap();
            let frame = Frame::parse(&bytes, 65_536).unwrap().unwrap();
            assert_eq!(frame.packet, bytes);
            assert_eq!(Decoder::default().decode(&cipher, frame).unwrap().message, expected, "{text}");
        }
        let sized = encoded(r#"sized(5, 1016, 1="ann" 2="bob" 3="hello" 4=7)"#).unwrap();
        assert_eq!((sized.len(), Frame::parse(&sized, 65_536).unwrap().unwrap().kind), (1_016, 5));
        let tail = encoded("tail(4, 02 02, 1=1 2=7)").unwrap();
        let frame = Frame::parse(&tail, 65_536).unwrap().unwrap();
        assert_eq!(Decoder::default().decode(&cipher, frame).unwrap().message, ping);
        let other = encoded("wrongkey(4, 1=1 2=7)").unwrap();
        assert_ne!(other, encoded("ping").unwrap());
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        for text in ["0", "xyz", "1=", "1=\"a", "nothing(1)", "u32(-1)", "\"$nobody\"", "blocks(1, 00)", "2*00", ")"] {
            let error = encoded(text).expect_err(text);
            assert!(error.contains(" of \""), "{error}");
        }
    }

    #[test]
    fn a_pattern_has_a_type_and_fields() {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        let words = Words { me: "ann", you: "bob", absent: "zoe", cipher: &cipher, wrong: &cipher };
        assert_eq!(pattern("103: 1=4", &words), Ok((103, b"\x08\x04".to_vec())));
        assert_eq!(pattern("2", &words), Ok((2, Vec::new())));
        assert!(pattern("x: 1=4", &words).is_err());
    }
}
