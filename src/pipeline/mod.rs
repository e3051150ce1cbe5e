//! Layer 2: from plaintext to stored bytes ([`seal`]) and back ([`unseal`]).
//!
//! A chain is a list of synchronous [`Filter`]s. Each runs on a thread of its own; buffers travel between them through
//! bounded channels, so that memory does not grow with the data. Sealing runs
//! `measure plain → compress → encrypt → digest stored`, unsealing the same chain reversed, with each stored part
//! authenticated before its first byte is decrypted.

use crate::artifact::digest::StoredDigest;
use crate::artifact::manifest::{EncryptionRecord, PlainDigest};
use crate::artifact::signing::Key;
use crate::base::Result;

/// How plaintext is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, level 1 to 9.
    Gzip(u32),
    /// Zstandard, level 1 to 19, with a content checksum, on `workers` threads.
    Zstd {
        /// Level.
        level: i32,
        /// Threads that compress; 0 = in the stage's own thread.
        workers: u32,
    },
}

/// How stored bytes are protected.
#[derive(Clone, Debug)]
pub enum Protection {
    /// As `openssl enc -aes-256-cbc -pbkdf2 -iter N -md sha256` with this key's passphrase.
    Encrypted {
        /// Whose passphrase.
        key: Key,
        /// PBKDF2 iterations.
        iterations: u32,
    },
    /// Not encrypted; the manifest is signed all the same.
    Plain,
}

/// How to turn plaintext into stored bytes.
#[derive(Clone, Debug)]
pub struct SealSpec {
    /// Compression.
    pub compression: Compression,
    /// Encryption.
    pub protection: Protection,
    /// Whether the plaintext's SHA-256 is wanted too (its CRC-32C always is).
    pub hash_plain: bool,
}

/// What is known of an object once it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Of the plaintext.
    pub plain: PlainDigest,
    /// Of the stored bytes.
    pub stored: StoredDigest,
    /// The filters in order, as the manifest names them: `zstd`, `gzip`, `aes-256-cbc`.
    pub filters: Vec<String>,
    /// How it is encrypted.
    pub encryption: Option<EncryptionRecord>,
}

/// One stage of a chain: takes bytes, gives bytes.
pub trait Filter: Send {
    /// Its name in manifests and messages.
    fn name(&self) -> &'static str;

    /// Takes `input` and appends what is ready to `output`.
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<()>;

    /// The input has ended: appends the rest to `output`. Fails if the input ended too early or its own checksum is wrong.
    fn finish(&mut self, output: &mut Vec<u8>) -> Result<()>;
}
