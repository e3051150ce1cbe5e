//! The entries that bound a transaction: START at its beginning, COMMIT at its end. Little-endian.
//!
//! START: kernel version, 1, time written, last transaction committed when it began, then by kernel the checksum of
//! the transaction before, the append index, a sequence number; the length of an additional header (at most 8) and
//! that header. COMMIT: kernel version, 5, transaction id, time of commit, CRC-32C of everything from the START's
//! first byte up to here. The end of a chunk has the shape of a COMMIT.

use super::format::{Kernel, START, refused_entry};

/// The most bytes that a START entry has.
pub(super) const START_BYTES_MAX: usize = 2 + 8 + 8 + 8 + 8 + 4 + ADDITIONAL_BYTES_MAX;
/// Neo4j itself calls a longer additional header damage.
const ADDITIONAL_BYTES_MAX: usize = 8;
/// Bytes of a COMMIT entry.
pub(super) const COMMIT_BYTES: usize = SUMMED_BYTES + 4;
/// Bytes of a COMMIT entry that its own checksum covers.
pub(super) const SUMMED_BYTES: usize = 2 + 8 + 8;
/// No id comes near: a candidate with a larger one is not a COMMIT, but a user's bytes.
const ID_MAX: u64 = 1 << 48;

/// The beginning of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) kernel: Kernel,
    pub(super) append_index: Option<u64>,
    pub(super) previous_checksum: Option<u32>,
    /// Bytes of the entry.
    pub(super) length: usize,
}

/// What lies where a transaction should begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It does begin here.
    Start(Start),
    /// It may begin here: bytes are missing, or not written yet.
    Unfinished,
    /// An entry of a kind or kernel that this release refuses; says which.
    Refused(String),
    /// Bytes that no server writes here, finished or not; says what.
    Foreign(String),
}

impl Beginning {
    /// Examines `bytes`, which begin with a byte that is not zero. Whatever is called foreign would be so with any of
    /// the bytes still zero: a transaction that is just being written shows its bytes or zeros, nothing else.
    pub(super) fn parse(bytes: &[u8]) -> Beginning {
        let (Some(&version), Some(&entry_type)) = (bytes.first(), bytes.get(1)) else { return Beginning::Unfinished };
        let kernel = Kernel(version);
        if entry_type == 0 {
            return Beginning::Unfinished;
        }
        let Some(layout) = kernel.start_layout() else {
            return match entry_type {
                START => Beginning::Refused(format!("an entry of kernel version {version}, which is not known")),
                _ => Beginning::Foreign(format!("an entry of type {entry_type} and kernel version {version}")),
            };
        };
        if let Some(what) = refused_entry(entry_type) {
            return Beginning::Refused(what.to_owned());
        }
        if entry_type != START {
            return Beginning::Foreign(format!("an entry of type {entry_type} where a transaction should begin"));
        }
        let fixed = layout.fixed_bytes();
        let Some(length_field) = bytes.get(fixed - 4..fixed) else { return Beginning::Unfinished };
        let additional = u32::from_le_bytes(length_field.try_into().unwrap_or_default()) as usize;
        if additional > ADDITIONAL_BYTES_MAX {
            return Beginning::Foreign(format!("a transaction with an additional header of {additional} bytes"));
        }
        if bytes.len() < fixed + additional {
            return Beginning::Unfinished;
        }
        let checksum_at = 2 + 8 + 8;
        let index_at = if layout.has_previous_checksum() { checksum_at + 4 } else { checksum_at };
        Beginning::Start(Start {
            kernel,
            append_index: layout.has_append_index().then(|| u64_at(bytes, index_at)),
            previous_checksum: layout.has_previous_checksum().then(|| u32_at(bytes, checksum_at)),
            length: fixed + additional,
        })
    }
}

/// The end of a transaction, or of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) id: u64,
    /// Milliseconds since 1970 by the server's clock; in the end of a chunk, the chunk's number.
    pub(super) time_ms: i64,
    pub(super) checksum: u32,
}

impl Commit {
    /// Reads it from its `COMMIT_BYTES` bytes. `None` = these cannot be one, whatever their checksum.
    pub(super) fn parse(bytes: &[u8]) -> Option<Commit> {
        let bytes = bytes.get(..COMMIT_BYTES)?;
        let id = u64_at(bytes, 2);
        let time_ms = u64_at(bytes, 10) as i64;
        (1..ID_MAX).contains(&id).then(|| Commit { id, time_ms, checksum: u32_at(bytes, SUMMED_BYTES) })
    }
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).unwrap_or_default()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first transaction's START in a real store of 5.26.0, and in one of 2026.08.1.
    const START_5_26: &str = "14014abb2efea10100000100000000000000ed5eadde020000000000000000000000";
    const START_2026_08: &str = "2001d5bc2efea101000001000000000000000200000000000000ffffffffffffffff00000000";

    #[test]
    fn real_starts_are_read() {
        let bytes = hex::decode(START_5_26).expect("hex");
        let expected = Start {
            kernel: Kernel::V5_25,
            append_index: Some(2),
            previous_checksum: Some(0xdead_5eed),
            length: bytes.len(),
        };
        assert_eq!(Beginning::parse(&bytes), Beginning::Start(expected));
        let bytes = hex::decode(START_2026_08).expect("hex");
        let expected =
            Start { kernel: Kernel::V2026_08, append_index: Some(2), previous_checksum: None, length: bytes.len() };
        assert_eq!(Beginning::parse(&bytes), Beginning::Start(expected));
    }

    #[test]
    fn what_is_not_known_is_refused_and_what_is_not_a_log_is_foreign() {
        assert!(matches!(Beginning::parse(&[0x14]), Beginning::Unfinished));
        assert!(matches!(Beginning::parse(&[0x14, 0, 7]), Beginning::Unfinished));
        assert!(matches!(Beginning::parse(&[33, 1, 7]), Beginning::Refused(text) if text.contains("33")));
        assert!(matches!(Beginning::parse(&[0x14, 10, 7]), Beginning::Refused(text) if text.contains("chunks")));
        assert!(matches!(Beginning::parse(&[0x14, 12, 7]), Beginning::Refused(text) if text.contains("rolled-back")));
        assert!(matches!(Beginning::parse(&[0x20, 13, 7]), Beginning::Refused(text) if text.contains("empty")));
        assert!(matches!(Beginning::parse(&[0x14, 3, 7]), Beginning::Foreign(_)));
        assert!(matches!(Beginning::parse(b"zz"), Beginning::Foreign(_)));
        let mut start = vec![0x14, 1];
        start.resize(START_BYTES_MAX, 0);
        start[30] = 9;
        assert!(matches!(Beginning::parse(&start), Beginning::Foreign(_)));
    }

    proptest! {
        // What a writer has not written yet reads as zero: that must never turn a transaction into something foreign.
        #[test]
        fn a_half_written_start_is_never_foreign(
            kernel in 5u8..=32,
            body in proptest::collection::vec(any::<u8>(), START_BYTES_MAX),
            additional in 0u8..=8,
            written in 0..START_BYTES_MAX,
            holes in proptest::collection::vec(any::<bool>(), START_BYTES_MAX),
        ) {
            let mut bytes = body;
            let fixed = Kernel(kernel).start_layout().expect("layout").fixed_bytes();
            bytes[0] = kernel;
            bytes[1] = START;
            bytes[fixed - 4..fixed].copy_from_slice(&[additional, 0, 0, 0]);
            prop_assert!(matches!(Beginning::parse(&bytes[..fixed + additional as usize]), Beginning::Start(_)));
            for (at, hole) in holes.iter().enumerate().skip(1) {
                if at >= written || *hole {
                    bytes[at] = 0;
                }
            }
            prop_assert!(!matches!(Beginning::parse(&bytes), Beginning::Foreign(_) | Beginning::Refused(_)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Beginning::parse(&bytes);
            let _ = Commit::parse(&bytes);
        }
    }
}
