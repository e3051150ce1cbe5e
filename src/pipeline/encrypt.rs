//! Encryption exactly as `openssl enc -aes-256-cbc -pbkdf2 -iter N -md sha256 -salt -pass file:FILE` does it.
//!
//! The stream is `Salted__`, eight random bytes of salt, then AES-256-CBC with PKCS#7 padding. Key and IV are the 48
//! bytes of PBKDF2-HMAC-SHA256 over passphrase and salt: 32 bytes of key, 16 of IV.

use super::damage::libcrypto;
use super::{AES_256_CBC, Filter, MAX_ITERATIONS, Outlet};
use crate::base::secret::Secret;
use crate::base::{Code, Error, Result};
use openssl::symm::{Cipher, Crypter, Mode};
use zeroize::Zeroizing;

/// What an encrypted stream begins with.
pub(super) const MAGIC: &[u8; 8] = b"Salted__";
/// Bytes of salt after it.
pub(super) const SALT_BYTES: usize = 8;
/// Bytes in a block of AES.
pub(super) const BLOCK: usize = 16;
const KEY_BYTES: usize = 32;

/// Refuses numbers of iterations that no reader would accept.
pub(super) fn check_iterations(iterations: u32) -> Result<()> {
    if (1..=MAX_ITERATIONS).contains(&iterations) {
        return Ok(());
    }
    let said = format!("{iterations} PBKDF2 iterations are not supported, 1 to {MAX_ITERATIONS} are");
    Err(Error::new(Code::FormatUnsupported, said))
}

/// The cipher for this passphrase and salt. Takes about 20 ms for 100 000 iterations.
pub(super) fn cipher(mode: Mode, passphrase: &Secret, salt: &[u8], iterations: u32) -> Result<Crypter> {
    check_iterations(iterations)?;
    let mut derived = Zeroizing::new([0u8; KEY_BYTES + BLOCK]);
    passphrase.derive_key(salt, iterations, &mut *derived);
    let (key, iv) = derived.split_at(KEY_BYTES);
    Crypter::new(Cipher::aes_256_cbc(), mode, key, Some(iv)).map_err(libcrypto)
}

/// Passes `input` through `crypter`, in pieces that fit the room there is.
pub(super) fn update(crypter: &mut Crypter, mut input: &[u8], output: &mut dyn Outlet) -> Result<()> {
    while !input.is_empty() {
        // The cipher may give back up to a block more than it takes.
        let room = output.room(2 * BLOCK)?;
        let (now, later) = input.split_at(input.len().min((room.len() - BLOCK) / BLOCK * BLOCK));
        let written = crypter.update(now, room).map_err(libcrypto)?;
        output.filled(written);
        input = later;
    }
    Ok(())
}

/// Encrypts. The key is derived with the first bytes, so that the stages before this one have begun by then.
pub(super) struct Encrypt {
    passphrase: Secret,
    iterations: u32,
    crypter: Option<Crypter>,
}

impl Encrypt {
    /// A stream with a random salt of its own.
    pub(super) fn new(passphrase: &Secret, iterations: u32) -> Result<Self> {
        check_iterations(iterations)?;
        Ok(Encrypt { passphrase: passphrase.clone(), iterations, crypter: None })
    }

    /// The cipher; begins the stream where nothing was written yet.
    fn crypter(&mut self, output: &mut dyn Outlet) -> Result<&mut Crypter> {
        let crypter = match self.crypter.take() {
            Some(crypter) => crypter,
            None => {
                let mut salt = [0u8; SALT_BYTES];
                openssl::rand::rand_bytes(&mut salt).map_err(libcrypto)?;
                for part in [&MAGIC[..], &salt] {
                    output.room(part.len())?[..part.len()].copy_from_slice(part);
                    output.filled(part.len());
                }
                cipher(Mode::Encrypt, &self.passphrase, &salt, self.iterations)?
            }
        };
        Ok(self.crypter.insert(crypter))
    }
}

impl Filter for Encrypt {
    fn name(&self) -> &'static str {
        AES_256_CBC
    }

    fn push(&mut self, input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        update(self.crypter(output)?, input, output)
    }

    fn finish(&mut self, output: &mut dyn Outlet) -> Result<()> {
        let written = self.crypter(output)?.finalize(output.room(2 * BLOCK)?).map_err(libcrypto)?;
        output.filled(written);
        Ok(())
    }
}
