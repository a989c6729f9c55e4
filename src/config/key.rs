//! The pre-shared key: read from text or a file, never shown.

use std::fmt;
use std::path::Path;

use super::secret::{SecretFault, read_secret};
use crate::protocol::PUBLISHED_KEY;

/// A pre-shared key. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

/// Why something is not a key. Never quotes it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// A length that AES does not have.
    #[error(
        "a key has 16, 24 or 32 bytes, this one has {0}; write it as text of that length, or as \"hex:\" and 32, 48 or 64 hexadecimal digits"
    )]
    Length(usize),
    /// `hex:` and then something else.
    #[error("after \"hex:\" a key has 32, 48 or 64 hexadecimal digits (0-9, a-f) and nothing else")]
    Hex,
    /// The key file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] SecretFault),
}

impl Key {
    /// The key in every existing client. It keeps nothing secret: everybody knows it.
    pub fn published() -> Key {
        Key(PUBLISHED_KEY.to_vec())
    }

    /// From text, as in a configuration or an environment variable: the bytes of the text itself, or `hex:` and hexadecimal digits.
    ///
    /// # Errors
    /// `Length` or `Hex`.
    pub fn parse(text: &str) -> Result<Key, KeyFault> {
        Key::from_written(text.as_bytes())
    }

    /// From a file that holds what [`Key::parse`] takes, and that nobody else can read; one line end after it is ignored.
    ///
    /// # Errors
    /// `File`, `Length` or `Hex`.
    pub fn read(path: &Path) -> Result<Key, KeyFault> {
        let written = read_secret("key file", path)?;
        let line = written.strip_suffix(b"\n").unwrap_or(&written);
        Key::from_written(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// The bytes: 16, 24 or 32.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the one that everybody knows.
    pub fn is_published(&self) -> bool {
        self.0 == PUBLISHED_KEY
    }

    fn from_written(written: &[u8]) -> Result<Key, KeyFault> {
        let bytes = match written.strip_prefix(b"hex:") {
            Some(digits) => unhex(digits).ok_or(KeyFault::Hex)?,
            None => written.to_vec(),
        };
        match bytes.len() {
            16 | 24 | 32 => Ok(Key(bytes)),
            other => Err(KeyFault::Length(other)),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some((digit(high)? * 16 + digit(low)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_text_or_hex_of_three_lengths() {
        assert_eq!(Key::parse("12345abcdef67890").unwrap(), Key::published());
        assert_eq!(Key::parse("hex:000102030405060708090a0b0c0d0eFF").unwrap().bytes()[15], 255);
        assert_eq!(Key::parse(&"k".repeat(24)).unwrap().bytes().len(), 24);
        assert_eq!(Key::parse(&"k".repeat(32)).unwrap().bytes().len(), 32);
        assert!(matches!(Key::parse("short"), Err(KeyFault::Length(5))));
        assert!(matches!(Key::parse("hex:0102"), Err(KeyFault::Length(2))));
        assert!(matches!(Key::parse("hex:012"), Err(KeyFault::Hex)));
        assert!(matches!(Key::parse("hex:zz"), Err(KeyFault::Hex)));
    }

    #[test]
    fn a_key_file_may_end_with_a_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for end in ["", "\n", "\r\n"] {
            std::fs::write(&path, format!("12345abcdef67890{end}")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert_eq!(Key::read(&path).unwrap(), Key::published());
        }
        let missing = Key::read(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none cannot be read"), "{missing}");
    }

    #[test]
    fn no_message_shows_the_key() {
        let secret = "topsecretbutshort";
        assert!(!format!("{:?}", Key::parse(secret)).contains("secret"));
        assert!(!Key::parse(secret).unwrap_err().to_string().contains("secret"));
        assert_eq!(format!("{:?}", Key::published()), "Key(…)");
    }
}
