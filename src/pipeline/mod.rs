//! Layer 2: from plaintext to stored bytes ([`seal`]) and back ([`unseal`]).
//!
//! A chain is a list of synchronous [`Filter`]s. Each runs on a thread of its own; buffers travel between them through
//! bounded channels, so that memory does not grow with the data. Sealing runs
//! `measure plain → compress → encrypt → digest stored`, unsealing the same chain reversed, with each stored part
//! authenticated before its first byte is decrypted.
//!
//! | module | what is in it |
//! |---|---|
//! | [`seal`](mod@seal) | plaintext to stored bytes |
//! | [`unseal`](mod@unseal) | stored bytes to plaintext |
//! | `stored` | the check of stored bytes alone |
//! | [`standalone`] | one encrypted stream without any record, as `openssl enc` makes it |
//! | `chain` | threads, bounded channels, buffers |
//! | `compress`, `decompress`, `encrypt`, `decrypt` | the filters |
//! | `measure` | size, CRC-32C and SHA-256 of plaintext |
//! | `damage` | what can be wrong with a stream |

mod chain;
mod compress;
mod damage;
mod decompress;
mod decrypt;
mod encrypt;
#[cfg(test)]
mod fixture;
mod measure;
pub mod seal;
pub mod standalone;
mod stored;
pub mod unseal;

pub use seal::seal;
pub use standalone::{decrypt_bytes, encrypt_bytes};
pub use stored::verify_stored;
pub use unseal::{ReadPolicy, unseal};

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

/// The name of Zstandard in manifests.
pub const ZSTD: &str = "zstd";
/// The name of gzip in manifests.
pub const GZIP: &str = "gzip";
/// The name of the encryption in manifests.
pub const AES_256_CBC: &str = "aes-256-cbc";
/// PBKDF2 iterations where nothing else is asked for, and the fewest that are read unless a policy says otherwise.
pub const DEFAULT_ITERATIONS: u32 = 100_000;
/// Most PBKDF2 iterations that are accepted, a few seconds' work: a record cannot make a reader compute for hours.
pub const MAX_ITERATIONS: u32 = 10_000_000;

/// One stage of a chain: takes bytes, gives bytes.
pub trait Filter: Send {
    /// Its name in manifests and messages.
    fn name(&self) -> &'static str;

    /// Takes all of `input` and puts what is ready into `output`. The output may be far larger than the input: it
    /// goes out piece by piece, so that memory stays bounded whatever a compressed stream claims.
    fn push(&mut self, input: &[u8], output: &mut dyn Outlet) -> Result<()>;

    /// The input has ended: puts the rest into `output`. Fails if the input ended too early or its own checksum is wrong.
    fn finish(&mut self, output: &mut dyn Outlet) -> Result<()>;
}

/// Where a filter puts its bytes.
pub trait Outlet {
    /// Room to write to, at least `least` bytes (1 to 4096). Fails if nobody takes the bytes any longer.
    fn room(&mut self, least: usize) -> Result<&mut [u8]>;

    /// The first `bytes` of the room are filled.
    fn filled(&mut self, bytes: usize);
}
