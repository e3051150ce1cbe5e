//! Decryption of what `openssl enc -aes-256-cbc -pbkdf2 -md sha256` wrote; see `encrypt.rs` for the format.
//!
//! CBC authenticates nothing: most changes of a stream decrypt without any error. Whoever calls this checks the
//! stored bytes against a signed record first, or says that they were not checked.

use super::damage::Damage;
use super::encrypt::{BLOCK, MAGIC, SALT_BYTES, check_iterations, cipher, update};
use super::{AES_256_CBC, Filter, Outlet};
use crate::base::Result;
use crate::base::secret::Secret;
use openssl::symm::{Crypter, Mode};

const HEADER_BYTES: usize = MAGIC.len() + SALT_BYTES;

/// Decrypts.
pub(super) struct Decrypt {
    passphrase: Secret,
    iterations: u32,
    header: Vec<u8>,
    crypter: Option<Crypter>,
    encrypted_bytes: u64,
}

impl Decrypt {
    /// The salt comes with the stream, the number of iterations does not.
    pub(super) fn new(passphrase: &Secret, iterations: u32) -> Result<Self> {
        check_iterations(iterations)?;
        Ok(Decrypt {
            passphrase: passphrase.clone(),
            iterations,
            header: Vec::with_capacity(HEADER_BYTES),
            crypter: None,
            encrypted_bytes: 0,
        })
    }
}

impl Filter for Decrypt {
    fn name(&self) -> &'static str {
        AES_256_CBC
    }

    fn push(&mut self, input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        let (head, body) = input.split_at(input.len().min(HEADER_BYTES - self.header.len()));
        self.header.extend_from_slice(head);
        if self.header.len() < HEADER_BYTES {
            return Ok(());
        }
        let crypter = match &mut self.crypter {
            Some(crypter) => crypter,
            None => {
                let (magic, salt) = self.header.split_at(MAGIC.len());
                if magic != MAGIC {
                    return Err(Damage::NotEncrypted.into());
                }
                let crypter = cipher(Mode::Decrypt, &self.passphrase, salt, self.iterations)?;
                self.crypter.insert(crypter)
            }
        };
        self.encrypted_bytes += body.len() as u64;
        update(crypter, body, output)
    }

    fn finish(&mut self, output: &mut dyn Outlet) -> Result<()> {
        let Some(crypter) = &mut self.crypter else {
            let begun = MAGIC.starts_with(&self.header[..self.header.len().min(MAGIC.len())]);
            return Err(if begun { Damage::CutShort(AES_256_CBC) } else { Damage::NotEncrypted }.into());
        };
        // Padding always fills up the last block, so that even nothing is encrypted as one block.
        if self.encrypted_bytes == 0 || !self.encrypted_bytes.is_multiple_of(BLOCK as u64) {
            return Err(Damage::CutShort(AES_256_CBC).into());
        }
        let written = crypter.finalize(output.room(2 * BLOCK)?).map_err(|_| Damage::Padding)?;
        output.filled(written);
        Ok(())
    }
}
