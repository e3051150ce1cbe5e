//! Size, CRC-32C and SHA-256 of plaintext as it passes.

use crate::artifact::manifest::PlainDigest;
use sha2::{Digest, Sha256};

/// Measures plaintext, all but its SHA-256, which costs more than all else and so has a stage of its own.
#[derive(Default)]
pub(super) struct PlainMeter {
    size: u64,
    crc: u32,
}

impl PlainMeter {
    /// More plaintext.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The digest; `sha256` where it was wanted.
    pub(super) fn finish(&self, sha256: Option<Sha256>) -> PlainDigest {
        PlainDigest {
            size: self.size,
            crc32c: format!("{:08x}", self.crc),
            sha256: sha256.map(|hasher| hex::encode(hasher.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digests_are_the_published_ones() {
        let mut meter = PlainMeter::default();
        meter.update(b"1234");
        meter.update(b"56789");
        // The check value of CRC-32C (iSCSI) in the catalogue of CRC algorithms.
        assert_eq!(meter.finish(None), PlainDigest { size: 9, crc32c: "e3069283".to_owned(), sha256: None });
        let empty = PlainMeter::default().finish(Some(Sha256::new()));
        assert_eq!(empty.crc32c, "00000000");
        assert_eq!(empty.sha256.as_deref(), Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    }
}
