//! Bodies: AES in CBC mode with PKCS#7 padding, as level 1 prescribes it. It knows keys and bytes, and neither packets
//! nor messages.
//!
//! The IV is the first 16 bytes of the key, for every packet. Therefore equal plaintexts give equal ciphertexts, nothing
//! is authenticated, and what was recorded can be replayed: this hides text from a casual look and is not a secure
//! channel. It cannot be changed without losing every client there is; PROTOCOL.md says it to the reader plainly.
//!
//! Read first: FIPS 197 (AES), NIST SP 800-38A §6.2 (CBC), RFC 5652 §6.3 (the padding).

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::{self, NoPadding, Pkcs7};
use cbc::cipher::consts::U16;
use cbc::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};

use super::ProtocolError;

/// The key in every existing client.
pub const PUBLISHED_KEY: &[u8; 16] = b"12345abcdef67890";

const BLOCK_BYTES: usize = 16;
type Iv = [u8; BLOCK_BYTES];

/// The key has a length that AES does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key has 16, 24 or 32 bytes, this one has {0}")]
pub struct KeyError(pub usize);

/// AES-CBC with a fixed IV; key schedules are computed once. Safe from any thread.
pub struct Cipher {
    schedule: Schedule,
    iv: Iv,
}

/// Both directions' round keys.
enum Schedule {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Cipher {
    /// A cipher for a key of 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// `KeyError` with the length that was given.
    pub fn new(key: &[u8]) -> Result<Cipher, KeyError> {
        let wrong = |_| KeyError(key.len());
        let schedule = match key.len() {
            16 => Schedule::Aes128(Aes128::new_from_slice(key).map_err(wrong)?),
            24 => Schedule::Aes192(Aes192::new_from_slice(key).map_err(wrong)?),
            32 => Schedule::Aes256(Aes256::new_from_slice(key).map_err(wrong)?),
            other => return Err(KeyError(other)),
        };
        let iv = *key.first_chunk().ok_or(KeyError(key.len()))?;
        Ok(Cipher { schedule, iv })
    }

    /// Pads and encrypts `buf[from..]` in place; `buf` grows by the padding, 1 to 16 bytes.
    ///
    /// # Panics
    /// If `from` is past the end of `buf`.
    pub fn seal(&self, buf: &mut Vec<u8>, from: usize) {
        self.seal_after(&self.iv, buf, from);
    }

    /// As `seal`, where `before` is the block before.
    fn seal_after(&self, before: &Iv, buf: &mut Vec<u8>, from: usize) {
        let plain_bytes = buf.len() - from;
        let padding_bytes = BLOCK_BYTES - plain_bytes % BLOCK_BYTES;
        buf.resize(buf.len() + padding_bytes, 0);
        let body = &mut buf[from..];
        match &self.schedule {
            Schedule::Aes128(key) => encrypt(key, before, body, plain_bytes),
            Schedule::Aes192(key) => encrypt(key, before, body, plain_bytes),
            Schedule::Aes256(key) => encrypt(key, before, body, plain_bytes),
        }
    }

    /// Appends to `out` the body that `seal` makes of the plaintext of `body` followed by `more`. Only the last block of `body` is opened.
    ///
    /// # Panics
    /// If `body` was not sealed with this key.
    pub fn extend(&self, body: &[u8], more: &[u8], out: &mut Vec<u8>) {
        let (kept, last) = body.split_last_chunk::<BLOCK_BYTES>().expect("a sealed body has a block");
        let before = kept.last_chunk().unwrap_or(&self.iv);
        let mut plain = [0; BLOCK_BYTES];
        let opened = match &self.schedule {
            Schedule::Aes128(key) => decrypt(key, before, last, &mut plain),
            Schedule::Aes192(key) => decrypt(key, before, last, &mut plain),
            Schedule::Aes256(key) => decrypt(key, before, last, &mut plain),
        };
        let rest = opened.expect("a sealed body ends with its padding");
        out.extend_from_slice(kept);
        let from = out.len();
        out.extend_from_slice(rest);
        out.extend_from_slice(more);
        self.seal_after(before, out, from);
    }

    /// Decrypts `body` into the beginning of `scratch` and gives the plaintext without its padding. `scratch` grows to
    /// the length of the longest body it has seen, so that one that is kept costs no allocation.
    ///
    /// # Errors
    /// `BadBody`: empty, not a multiple of 16, or badly padded; most often a wrong key. End the connection.
    ///
    /// What a peer learns from it: bad padding and a bad message are one error, with one log line, no answer, and the
    /// same close. Not hidden: the padding is not checked in constant time, and a message is read only after its padding
    /// was found good, which takes some nanoseconds more. Whoever measures those has a padding oracle (Vaudenay 2002);
    /// with a key that every user shares and nothing authenticated there is nothing left to protect by hiding them.
    pub fn open<'s>(&self, body: &[u8], scratch: &'s mut Vec<u8>) -> Result<&'s [u8], ProtocolError> {
        if scratch.len() < body.len() {
            scratch.resize(body.len(), 0);
        }
        let scratch = &mut scratch[..body.len()];
        let plain = match &self.schedule {
            Schedule::Aes128(key) => decrypt(key, &self.iv, body, scratch),
            Schedule::Aes192(key) => decrypt(key, &self.iv, body, scratch),
            Schedule::Aes256(key) => decrypt(key, &self.iv, body, scratch),
        };
        plain.map_err(|_| ProtocolError::BadBody)
    }

    /// Decrypts the whole blocks of `body`, whatever padding they end with: for whoever explains what cannot be opened.
    pub fn decrypt_blocks(&self, body: &[u8]) -> Vec<u8> {
        let mut plain = body[..body.len() - body.len() % BLOCK_BYTES].to_vec();
        let done = match &self.schedule {
            Schedule::Aes128(key) => decrypt_in_place(key, &self.iv, &mut plain),
            Schedule::Aes192(key) => decrypt_in_place(key, &self.iv, &mut plain),
            Schedule::Aes256(key) => decrypt_in_place(key, &self.iv, &mut plain),
        };
        debug_assert!(done.is_ok(), "whole blocks can be decrypted");
        plain
    }

    /// The algorithm: `AES-128-CBC`, `AES-192-CBC` or `AES-256-CBC`.
    pub fn algorithm(&self) -> &'static str {
        match self.schedule {
            Schedule::Aes128(_) => "AES-128-CBC",
            Schedule::Aes192(_) => "AES-192-CBC",
            Schedule::Aes256(_) => "AES-256-CBC",
        }
    }
}

/// Names the algorithm and hides the key.
impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher({})", self.algorithm())
    }
}

// Both borrow the key schedule: neither computing nor copying it is part of a packet's cost.

fn encrypt<C>(key: &C, iv: &Iv, body: &mut [u8], plain_bytes: usize)
where
    C: BlockCipherEncrypt<BlockSize = U16>,
{
    cbc::Encryptor::inner_iv_init(key, iv.into())
        .encrypt_padded::<Pkcs7>(body, plain_bytes)
        .expect("seal made room for the padding");
}

fn decrypt<'s, C>(key: &C, iv: &Iv, body: &[u8], scratch: &'s mut [u8]) -> Result<&'s [u8], block_padding::Error>
where
    C: BlockCipherDecrypt<BlockSize = U16>,
{
    cbc::Decryptor::inner_iv_init(key, iv.into()).decrypt_padded_b2b::<Pkcs7>(body, scratch)
}

fn decrypt_in_place<C>(key: &C, iv: &Iv, blocks: &mut [u8]) -> Result<(), block_padding::Error>
where
    C: BlockCipherDecrypt<BlockSize = U16>,
{
    cbc::Decryptor::inner_iv_init(key, iv.into()).decrypt_padded::<NoPadding>(blocks).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that decrypts to exactly `blocks`, whatever padding they end with: sealing adds one block, which goes.
    fn sealed_without_padding(cipher: &Cipher, blocks: &[u8]) -> Vec<u8> {
        assert!(blocks.len().is_multiple_of(BLOCK_BYTES));
        let mut body = blocks.to_vec();
        cipher.seal(&mut body, 0);
        body.truncate(blocks.len());
        body
    }

    /// NIST SP 800-38A has its own IVs, this protocol has none: these come from the standard's single-block examples
    /// (F.1.1, F.1.3, F.1.5: ECB), since CBC's first block is ECB of plaintext xor IV.
    #[test]
    fn each_key_length_is_the_standards_aes() {
        let plain = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();
        let keys: [(&[u8], u128); 3] = [
            (&0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes(), 0x3ad7_7bb4_0d7a_3660_a89e_caf3_2466_ef97),
            (
                b"\x8e\x73\xb0\xf7\xda\x0e\x64\x52\xc8\x10\xf3\x2b\x80\x90\x79\xe5\x62\xf8\xea\xd2\x52\x2c\x6b\x7b",
                0xbd33_4f1d_6e45_f25f_f712_a214_571f_a5cc,
            ),
            (
                b"\x60\x3d\xeb\x10\x15\xca\x71\xbe\x2b\x73\xae\xf0\x85\x7d\x77\x81\x1f\x35\x2c\x07\x3b\x61\x08\xd7\x2d\x98\x10\xa3\x09\x14\xdf\xf4",
                0xf3ee_d1bd_b5d2_a03c_064b_5a7e_3db1_81f8,
            ),
        ];
        for (key, expected) in keys {
            let cipher = Cipher::new(key).unwrap();
            let mut body: Vec<u8> = plain.iter().zip(key).map(|(plain, iv)| plain ^ iv).collect();
            cipher.seal(&mut body, 0);
            assert_eq!(body[..16], expected.to_be_bytes(), "{cipher:?}");
        }
    }

    #[test]
    fn what_was_sealed_opens_for_every_length_and_key_length() {
        for key_bytes in [16, 24, 32] {
            let cipher = Cipher::new(&[0x5a; 32][..key_bytes]).unwrap();
            let mut scratch = Vec::new();
            for plain_bytes in 0..=300 {
                let plain: Vec<u8> = (0..plain_bytes).map(|n| n as u8).collect();
                let mut buf = b"before".to_vec();
                buf.extend_from_slice(&plain);
                cipher.seal(&mut buf, 6);
                assert_eq!(&buf[..6], b"before");
                assert_eq!(buf.len() - 6, plain_bytes / 16 * 16 + 16, "padding is always added");
                assert_eq!(cipher.open(&buf[6..], &mut scratch).unwrap(), plain);
            }
        }
    }

    #[test]
    fn other_key_lengths_are_refused_with_the_length() {
        for key_bytes in (0..=64).filter(|n| ![16, 24, 32].contains(n)) {
            assert_eq!(Cipher::new(&[0; 64][..key_bytes]).unwrap_err(), KeyError(key_bytes));
        }
    }

    #[test]
    fn every_kind_of_bad_padding_is_refused() {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        let mut scratch = Vec::new();
        for last in 0..=255_u8 {
            let mut block = [last; 16];
            let good = (1..=16).contains(&last);
            let body = sealed_without_padding(&cipher, &block);
            assert_eq!(cipher.open(&body, &mut scratch).is_ok(), good, "16 bytes of {last}");
            // One byte of the padding differs: the first of it, then the one before the last.
            for position in [16 - usize::from(last).clamp(2, 16), 14] {
                block[position] ^= 0x80;
                let body = sealed_without_padding(&cipher, &block);
                let in_padding = last != 1;
                assert_eq!(cipher.open(&body, &mut scratch).is_ok(), good && !in_padding, "{block:?}");
                block[position] ^= 0x80;
            }
        }
    }

    #[test]
    fn bodies_that_are_no_whole_blocks_are_refused() {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        let mut scratch = Vec::new();
        for body_bytes in (0..100).filter(|n| n % 16 != 0 || *n == 0) {
            assert_eq!(cipher.open(&[7; 100][..body_bytes], &mut scratch), Err(ProtocolError::BadBody));
        }
    }

    #[test]
    fn one_cipher_serves_all_threads_and_does_not_show_its_key() {
        fn shared<T: Send + Sync>(value: &T) -> &T {
            value
        }
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        assert_eq!(format!("{:?}", shared(&cipher)), "Cipher(AES-128-CBC)");
    }
}
