//! Older passphrases, each encrypted under a newer one, so that a repository and its newest passphrase open everything.
//!
//! The bytes are what `openssl enc -aes-256-cbc -pbkdf2 -iter 100000 -md sha256` makes of a file with the passphrase as
//! its only line. CBC authenticates nothing; the key id in the object's name does: what does not open to the passphrase
//! of that id is refused.

use super::signing::{Key, KeyId};
use crate::base::secret::Secret;
use crate::base::{Code, Error, Result};
use openssl::symm::{Cipher, decrypt, encrypt};
use zeroize::Zeroizing;

/// Largest object that can hold a passphrase: header, the longest line, padding; in bytes.
pub const ESCROW_MAX: u64 = 2048;

const MAGIC: &[u8; 8] = b"Salted__";
const SALT_BYTES: usize = 8;
const HEADER_BYTES: usize = MAGIC.len() + SALT_BYTES;
const ITERATIONS: u32 = 100_000;
const KEY_BYTES: usize = 32;
const IV_BYTES: usize = 16;

/// `older`'s passphrase, encrypted under `newer`'s. Takes about 20 ms.
pub fn seal(older: &Key, newer: &Key) -> Result<Vec<u8>> {
    let mut sealed = MAGIC.to_vec();
    sealed.resize(HEADER_BYTES, 0);
    openssl::rand::rand_bytes(&mut sealed[MAGIC.len()..]).map_err(libcrypto)?;
    let derived = derive(newer, &sealed[MAGIC.len()..]);
    let line = Zeroizing::new([older.passphrase().expose(), b"\n"].concat());
    let (key, iv) = derived.split_at(KEY_BYTES);
    sealed.extend(encrypt(Cipher::aes_256_cbc(), key, Some(iv), &line).map_err(libcrypto)?);
    Ok(sealed)
}

/// The key `id`, if `sealed` opens to it under `newer`; `None` if it does not. Takes about 120 ms.
pub fn open(sealed: &[u8], newer: &Key, id: &KeyId) -> Result<Option<Key>> {
    if sealed.len() <= HEADER_BYTES || !sealed.starts_with(MAGIC) {
        return Ok(None);
    }
    let derived = derive(newer, &sealed[MAGIC.len()..HEADER_BYTES]);
    let (key, iv) = derived.split_at(KEY_BYTES);
    let Ok(line) = decrypt(Cipher::aes_256_cbc(), key, Some(iv), &sealed[HEADER_BYTES..]) else { return Ok(None) };
    let line = Zeroizing::new(line);
    let Some(passphrase) = line.strip_suffix(b"\n") else { return Ok(None) };
    // Rubbish that happens to have good padding is no passphrase, or that of another id.
    let opened = Key::derive(Secret::new(passphrase.to_vec()), "an older passphrase");
    Ok(opened.ok().filter(|opened| opened.id() == id))
}

fn derive(key: &Key, salt: &[u8]) -> Zeroizing<[u8; KEY_BYTES + IV_BYTES]> {
    let mut derived = Zeroizing::new([0u8; KEY_BYTES + IV_BYTES]);
    key.passphrase().derive_key(salt, ITERATIONS, &mut *derived);
    derived
}

fn libcrypto(cause: openssl::error::ErrorStack) -> Error {
    Error::new(Code::Internal, format!("libcrypto: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::derive(Secret::new(text.as_bytes().to_vec()), "test").expect("key")
    }

    // req: D8
    #[test]
    fn an_older_passphrase_opens_under_the_newer_one_and_under_no_other() {
        let (older, newer, other) = (
            key("correct horse battery staple"),
            key("another passphrase, long enough"),
            key("a third, as long as it"),
        );
        let sealed = seal(&older, &newer).expect("seal");
        assert!(sealed.len() as u64 <= ESCROW_MAX);
        let opened = open(&sealed, &newer, older.id()).expect("open").expect("opens");
        assert_eq!(opened.passphrase().expose(), older.passphrase().expose());
        assert!(open(&sealed, &other, older.id()).expect("open").is_none());
        assert!(open(&sealed, &newer, other.id()).expect("open").is_none(), "under another name");
    }

    #[test]
    fn no_changed_and_no_missing_byte_passes() {
        let (older, newer) = (key("correct horse battery staple"), key("another passphrase, long enough"));
        let sealed = seal(&older, &newer).expect("seal");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(open(&changed, &newer, older.id()).expect("open").is_none(), "byte {position}");
        }
        for length in [0, 1, 8, 15, 16, 17, 31, 32, sealed.len() - 1] {
            assert!(open(&sealed[..length], &newer, older.id()).expect("open").is_none(), "cut at {length}");
        }
    }

    #[test]
    fn the_longest_passphrase_fits() {
        let sealed = seal(&key(&"x".repeat(1023)), &key("another passphrase, long enough")).expect("seal");
        assert!(sealed.len() as u64 <= ESCROW_MAX);
    }
}
