//! What a file holds: bytes as they are, bytes as hexadecimal text, or a capture.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use crate::capture::{MIN_CAPTURE_BYTES, is_capture};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Hexadecimal text, as xxd, hexdump -C or Wireshark's "copy as hex" write it; # begins a comment
    Hex,
    /// The bytes of one direction of a connection
    Raw,
    /// A capture: pcap or pcapng
    Capture,
}

/// Why the input cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The system says so.
    #[error("the input cannot be read ({0})")]
    Io(#[from] io::Error),
    /// A line of hexadecimal text is none.
    #[error("line {line}: {word:?} is not hexadecimal (if the input is not text, say --format raw)")]
    NotHex {
        /// From 1.
        line: u64,
        /// What stands there.
        word: String,
    },
}

const READ_BYTES: usize = 64 << 10;

/// A line of text longer than this is none.
const LINE_BYTES: u64 = 1 << 20;

/// The format that was asked for, or the one that the first bytes have; and the whole input again.
///
/// A packet begins with a zero, unless it is longer than 16 MiB; a capture with one of five numbers; text with something printable.
pub fn detect(mut input: impl Read, wanted: Option<Format>) -> Result<(Format, impl Read), InputError> {
    let mut beginning = Vec::new();
    if wanted.is_none() {
        input.by_ref().take(MIN_CAPTURE_BYTES as u64).read_to_end(&mut beginning)?;
    }
    let format = wanted.unwrap_or_else(|| match beginning.first() {
        _ if is_capture(&beginning) => Format::Capture,
        Some(b' '..=b'~' | b'\t' | b'\n' | b'\r') => Format::Hex,
        _ => Format::Raw,
    });
    Ok((format, Cursor::new(beginning).chain(input)))
}

/// Hands out the bytes as they come, until `take` has enough.
pub fn pieces(input: impl Read, format: Format, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), InputError> {
    if format == Format::Hex {
        return lines(input, take);
    }
    let (mut input, mut buffer) = (input, vec![0; READ_BYTES]);
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) if take(&buffer[..count]) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn lines(input: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), InputError> {
    let mut input = BufReader::new(input);
    let (mut text, mut is_dump) = (Vec::new(), false);
    for line in 1.. {
        text.clear();
        if (&mut input).take(LINE_BYTES).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let bytes = parse_line(&String::from_utf8_lossy(&text), &mut is_dump);
        let bytes = bytes.map_err(|word| InputError::NotHex { line, word })?;
        if !take(&bytes) {
            break;
        }
    }
    Ok(())
}

/// The bytes of a line; `Err` = the first word that is none. `is_dump`: lines have been hexdump's.
fn parse_line(line: &str, is_dump: &mut bool) -> Result<Vec<u8>, String> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut bytes = Vec::new();
    for word in columns(line, is_dump).split([' ', '\t', ':', ',', '-']) {
        // Also as programs write them: 0x2a, \x2a\x2b.
        let digits = word.strip_prefix("0x").unwrap_or(word).replace("\\x", "");
        if digits.is_empty() && !word.is_empty() {
            return Err(word.to_owned());
        }
        let pairs = digits.as_bytes().chunks(2);
        for pair in pairs {
            let digit = |index: usize| pair.get(index).and_then(|digit| char::from(*digit).to_digit(16));
            match (digit(0), digit(1)) {
                (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
                _ => return Err(word.chars().take(20).collect()),
            }
        }
    }
    Ok(bytes)
}

/// The columns of bytes alone, where a line has the offset before them and their characters behind.
fn columns<'l>(line: &'l str, is_dump: &mut bool) -> &'l str {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    // xxd, tcpdump: "00000010: 0a05 416c  ..Al".
    if let Some((offset, rest)) = line.split_once(": ")
        && is_hex(offset.strip_prefix("0x").unwrap_or(offset))
        && offset.len() >= 4
    {
        return rest.trim_start().split("  ").next().unwrap_or_default();
    }
    // hexdump -C: "00000010  0a 05 41 6c …  |..Al|", and at its end the offset alone.
    match line.split_at_checked(8) {
        Some((offset, "")) if *is_dump && is_hex(offset) => "",
        Some((offset, rest)) if rest.starts_with("  ") && is_hex(offset) => {
            *is_dump = true;
            rest.split('|').next().unwrap_or_default()
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<u8>, InputError> {
        let (format, input) = detect(text.as_bytes(), None)?;
        assert_eq!(format, Format::Hex);
        let mut bytes = Vec::new();
        pieces(input, format, |piece| {
            bytes.extend_from_slice(piece);
            true
        })?;
        Ok(bytes)
    }

    #[test]
    fn hexadecimal_is_read_as_the_usual_programs_write_it() {
        let expected = [0x00, 0x00, 0x00, 0x28, 0x41, 0x7c];
        for text in [
            "00000028417c",
            "00000028417C\n",
            "00 00 00 28\n41 7c\n",
            "0000 0028\t417c",
            "00:00:00:28:41:7c",
            "0x00, 0x00, 0x00, 0x28, 0x41, 0x7c",
            "\\x00\\x00\\x00\\x28\\x41\\x7c",
            "# a comment, 注释\n00000028 # another: 99\n\n417c",
            "00000000: 0000 0028 417c                           ...(A|\n",
            "\t0x0000:  0000 0028 417c                           ...(A|\n",
            "00000000  00 00 00 28 41 7c                                 |...(A||\n00000006\n",
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_hexadecimal_is_named_with_its_line() {
        for (text, line, word) in
            [("00\n0g\n", 2, "0g"), ("0000 002", 1, "002"), ("GET / HTTP/1.1", 1, "GET"), ("\n0x", 2, "0x")]
        {
            match read(text) {
                Err(InputError::NotHex { line: at, word: found }) => assert_eq!((at, found.as_str()), (line, word)),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_first_bytes_tell_what_a_file_holds() {
        let format = |bytes: &[u8]| detect(bytes, None).unwrap().0;
        assert_eq!(format(&[0, 0, 0, 0x28]), Format::Raw);
        assert_eq!(format(&[]), Format::Raw);
        assert_eq!(format(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]), Format::Capture);
        assert_eq!(format(&[0x0a, 0x0d, 0x0d, 0x0a]), Format::Capture);
        assert_eq!(format(b"\n0a 0d"), Format::Hex);
        let (format, mut input) = detect(&b"0000"[..], Some(Format::Raw)).unwrap();
        let mut all = Vec::new();
        input.read_to_end(&mut all).unwrap();
        assert_eq!((format, &all[..]), (Format::Raw, &b"0000"[..]));
    }
}
