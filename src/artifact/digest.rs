//! SHA-256 of a stream, as a whole and by parts of 16 MiB, so that a reader can authenticate each part before it
//! uses it. 16 MiB is also the part size of multipart uploads.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;

/// Bytes in a part; the last one may be shorter.
pub const PART_SIZE: u64 = 16 << 20;

/// What is known of an object's stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDigest {
    /// Bytes stored.
    pub size: u64,
    /// SHA-256 of all of them, 64 hex digits.
    pub sha256: String,
    /// Bytes in each part but the last.
    pub part_size: u64,
    /// SHA-256 of each part, in order; an empty object has none.
    pub parts: Vec<String>,
}

impl StoredDigest {
    /// The digest of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = PartHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether the numbers agree with each other; a signed manifest may still be nonsense.
    pub fn is_consistent(&self) -> bool {
        let hex = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        self.part_size == PART_SIZE
            && self.parts.len() as u64 == self.size.div_ceil(PART_SIZE)
            && hex(&self.sha256)
            && self.parts.iter().all(hex)
    }
}

/// Computes a [`StoredDigest`] of a stream, push by push.
#[derive(Clone, Debug, Default)]
pub struct PartHasher {
    whole: Sha256,
    part: Sha256,
    in_part: u64,
    size: u64,
    parts: Vec<String>,
}

impl PartHasher {
    /// More bytes of the stream.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = (PART_SIZE - self.in_part) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.part.update(now);
            self.in_part += now.len() as u64;
            if self.in_part == PART_SIZE {
                self.close_part();
            }
            bytes = later;
        }
    }

    fn close_part(&mut self) {
        self.parts.push(hex::encode(self.part.finalize_reset()));
        self.in_part = 0;
    }

    /// The stream has ended.
    pub fn finish(mut self) -> StoredDigest {
        if self.in_part > 0 {
            self.close_part();
        }
        StoredDigest {
            size: self.size,
            sha256: hex::encode(self.whole.finalize()),
            part_size: PART_SIZE,
            parts: self.parts,
        }
    }
}

/// Bytes read at once.
const READ_SIZE: usize = 64 << 10;

/// SHA-256 of what a reader gives up to its end, 64 hex digits.
pub fn sha256_of(content: &mut impl io::Read) -> io::Result<String> {
    let (mut hasher, mut room) = (Sha256::new(), vec![0; READ_SIZE]);
    loop {
        match content.read(&mut room) {
            Ok(0) => return Ok(hex::encode(hasher.finalize())),
            Ok(count) => hasher.update(&room[..count]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// SHA-256 of bytes at hand, 64 hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_close_at_their_size() {
        let mut hasher = PartHasher::default();
        hasher.update(&vec![1u8; PART_SIZE as usize]);
        let exact = hasher.clone().finish();
        assert_eq!((exact.parts.len(), exact.parts[0] == exact.sha256), (1, true));
        hasher.update(&[2]);
        let over = hasher.finish();
        assert_eq!(over.parts.len(), 2);
        assert!(over.is_consistent() && exact.is_consistent());
        assert!(StoredDigest::of(b"").parts.is_empty());
    }

    proptest! {
        #[test]
        fn the_way_it_is_cut_does_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..4096), cut in 0usize..4096) {
            let cut = cut.min(bytes.len());
            let mut hasher = PartHasher::default();
            hasher.update(&bytes[..cut]);
            hasher.update(&bytes[cut..]);
            prop_assert_eq!(hasher.finish(), StoredDigest::of(&bytes));
        }
    }
}
