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
    #[error("line {line}: {why}; `xxd -p FILE` writes what is read here, bytes as they are need --format raw")]
    NotHex {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It is compressed.
    #[error("this is compressed: zcat FILE | chatserver decode -")]
    Compressed,
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
    if beginning.starts_with(&[0x1f, 0x8b]) {
        return Err(InputError::Compressed);
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
        let bytes = bytes.map_err(|why| InputError::NotHex { line, why })?;
        if !take(&bytes) {
            break;
        }
    }
    Ok(())
}

/// The bytes of a line; `Err` = what is wrong with it. `is_dump`: lines have been those of a dump.
fn parse_line(line: &str, is_dump: &mut bool) -> Result<Vec<u8>, String> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut bytes = Vec::new();
    for word in columns(line, is_dump).split([' ', '\t', ':', ',', '-']) {
        // Also as programs write them: 0x2a, \x2a\x2b.
        let digits = word.strip_prefix("0x").unwrap_or(word).replace("\\x", "");
        if let Some(wrong) = digits.chars().find(|digit| !digit.is_ascii_hexdigit()) {
            let told = if line.contains(" IP ") || line.contains(" > ") {
                "this is what tcpdump prints; `tcpdump -w FILE` writes what can be read".to_owned()
            } else {
                format!("{wrong:?} in {:?} is no hexadecimal digit", shortened(word))
            };
            return Err(told);
        }
        if digits.is_empty() && !word.is_empty() || digits.len() % 2 == 1 {
            return Err(format!("{:?} has an odd number of digits", shortened(word)));
        }
        if *is_dump && digits.len() == 4 {
            return Err("words whose bytes are swapped, as hexdump writes them without -C".to_owned());
        }
        let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
        bytes.extend(digits.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])));
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
    // hexdump -C, Wireshark: "00000010  0a 05 41 6c …  |..Al|"; od: "0000020 0a 05 41 6c". At a dump's end there is the offset alone.
    let digits = line.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(line.len());
    let (offset, rest) = line.split_at(digits);
    match (offset.len(), rest) {
        (7 | 8, "") if *is_dump => "",
        (4.., _) if rest.starts_with("  ") => {
            *is_dump = true;
            rest.trim_start().split('|').next().unwrap_or_default().split("   ").next().unwrap_or_default()
        }
        (7, _) if rest.starts_with(' ') => {
            *is_dump = true;
            rest
        }
        _ => line,
    }
}

fn shortened(word: &str) -> String {
    if word.chars().count() <= 24 { word.to_owned() } else { word.chars().take(24).chain(['…']).collect() }
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
            "0000000 00 00 00 28 41 7c\n0000006\n",
            "0000  00 00 00 28 41 7c                                   ...(A|\n",
            "00000000  00 00 00 28 41 7c                                 ...(A|\n",
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_hexadecimal_is_named_with_its_line() {
        for (text, line, words) in [
            ("00\n0g\n", 2, "'g' in \"0g\" is no hexadecimal digit"),
            ("0000 002", 1, "\"002\" has an odd number of digits"),
            ("GET / HTTP/1.1", 1, "'G' in \"GET\" is no"),
            ("\n0x", 2, "odd number"),
            ("12:00:18.637438 IP 127.0.0.1.4 > 127.0.0.1.8989: Flags [P.]", 1, "tcpdump -w FILE"),
            ("0000000 0000 2800 7c41\n0000006\n", 1, "bytes are swapped"),
        ] {
            match read(text) {
                Err(InputError::NotHex { line: at, why }) => assert!(at == line && why.contains(words), "{at}: {why}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        assert!(matches!(detect(&[0x1f, 0x8b, 8, 0][..], None), Err(InputError::Compressed)));
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
