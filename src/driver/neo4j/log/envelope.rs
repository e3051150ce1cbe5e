//! Envelopes: what enveloped logs (V10) wrap every entry in. Established on logs of real 2026.08.1 servers.
//!
//! A file consists of segments of a fixed size, a power of two that its header names (128 KiB by default). The first
//! holds the header and nothing else. In the others envelopes lie one after the other, none across a segment's end: an
//! entry that does not fit goes on in the next segment, and in the next file if that was the last one, so that files end
//! inside transactions more often than not. What is left of a segment that no envelope fits in is zero: up to 39 bytes.
//!
//! An envelope begins with 31 bytes, little-endian: CRC-32C of everything behind it, type (1 whole entry, 2 its
//! beginning, 3 its middle, 4 its end), length of the payload, append index, kernel version, checksum of the envelope
//! before it, term, content type (64: the kernel's own). The first envelope of a file follows the last one of the file
//! before it, whose checksum the file's header repeats beside the append index of that envelope.
//!
//! A transaction is one append index. Its payload begins with START and ends with COMMIT, as in V9 but without kernel
//! versions, append index and checksum: the envelope has them. Its checksum is that of its last envelope.
//!
//! Tried on a server: recovery takes the log up to the last whole transaction, cuts off the rest (also where that
//! began in an earlier file: the later one is removed), and goes on right there. Neither a file that ends at a
//! transaction's end nor one whose last padding is missing disturbs it.

use super::entry::{u32_at, u64_at};
use super::format::{COMMIT, Kernel, START, refused_entry};

/// Bytes before an envelope's payload.
pub(super) const ENVELOPE_BYTES: usize = 31;
/// Zeros at a segment's end that stand for no more than that: the server's own reader goes on behind up to so many.
pub(super) const PADDING_MAX: u64 = 43;
/// Sizes of segments that are believed; the server demands a power of two.
const SEGMENT_SIZES: std::ops::RangeInclusive<u64> = (4 << 10)..=(4 << 20);
/// Bytes of COMMIT in an envelope: type, transaction id, time.
pub(super) const COMMIT_TAIL: usize = 1 + 8 + 8;
/// The content of a transaction of the kernel's own; others belong to clusters.
const KERNEL_CONTENT: u8 = 64;
/// No id comes near: a larger one is damage.
const ID_MAX: u64 = 1 << 48;

/// Whether that can be the size of a segment.
pub(super) fn is_segment_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && SEGMENT_SIZES.contains(&bytes)
}

/// Which part of an entry an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Full,
    Begin,
    Middle,
    End,
}

impl Part {
    pub(super) fn begins(self) -> bool {
        matches!(self, Part::Full | Part::Begin)
    }

    pub(super) fn ends(self) -> bool {
        matches!(self, Part::Full | Part::End)
    }
}

/// What an envelope says of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) checksum: u32,
    pub(super) part: Part,
    /// Bytes of it, payload included.
    pub(super) length: usize,
    pub(super) append_index: u64,
    pub(super) kernel: Kernel,
    pub(super) previous_checksum: u32,
    content: u8,
}

/// What lies where an envelope may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Envelope(Envelope),
    /// Zeros.
    Nothing,
    /// It may begin here: bytes are not written yet.
    Unfinished,
    /// It is of a kind that this release refuses; says which.
    Refused(String),
    /// Bytes that no server writes here, finished or not; says what.
    Foreign(String),
}

impl Opening {
    /// Examines the first bytes of an envelope that may reach up to `room` bytes. Of one that is just being written some
    /// bytes are still zero: whatever is called foreign or refused would be so with any of them zero.
    pub(super) fn parse(bytes: &[u8], room: u64) -> Opening {
        if bytes.iter().all(|&byte| byte == 0) {
            return Opening::Nothing;
        }
        let Some(bytes) = bytes.get(..ENVELOPE_BYTES) else { return Opening::Unfinished };
        let part = match bytes[4] {
            0 => return Opening::Unfinished,
            1 => Part::Full,
            2 => Part::Begin,
            3 => Part::Middle,
            4 => Part::End,
            5 => return Opening::Refused("an envelope that moves the beginning of the data (START_OFFSET)".to_owned()),
            other => return Opening::Foreign(format!("an envelope of type {other}")),
        };
        let payload = u32_at(bytes, 5);
        let length = u64::from(payload) + ENVELOPE_BYTES as u64;
        if length > room {
            return Opening::Foreign(format!("an envelope of {length} bytes with {room} bytes left of its segment"));
        }
        if payload == 0 {
            return Opening::Unfinished;
        }
        Opening::Envelope(Envelope {
            checksum: u32_at(bytes, 0),
            part,
            length: length as usize,
            append_index: u64_at(bytes, 9),
            kernel: Kernel(bytes[17]),
            previous_checksum: u32_at(bytes, 18),
            content: bytes[30],
        })
    }
}

impl Envelope {
    /// Whether `bytes`, all of it, are what its checksum says.
    pub(super) fn closes(&self, bytes: &[u8]) -> bool {
        crc32c::crc32c(&bytes[4..self.length]) == self.checksum
    }

    /// What this release refuses of an envelope whose checksum closes, and whose payload begins an entry if `begins`.
    pub(super) fn refusal(&self, payload: &[u8]) -> Option<String> {
        if !self.kernel.has_envelopes() {
            return Some(format!("an envelope of kernel version {}, which is not known", self.kernel.0));
        }
        if self.content != KERNEL_CONTENT {
            return Some(format!("an envelope of content type {}, as clusters write", self.content));
        }
        let first = payload.first().copied().unwrap_or_default();
        match first {
            _ if !self.part.begins() => None,
            START => None,
            other => Some(refused_entry(other).map_or_else(|| format!("an entry of type {other}"), str::to_owned)),
        }
    }
}

/// The last bytes of a payload, gathered over its envelopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    bytes: [u8; COMMIT_TAIL],
    length: usize,
}

/// How an entry's payload ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// Transaction id, and time of commit in milliseconds since 1970.
    Whole(u64, i64),
    /// Its first bytes were not seen.
    Unseen,
    /// The end of something else: its type.
    Other(u8),
}

impl Ending {
    pub(super) fn extend(&mut self, payload: &[u8]) {
        let new = &payload[payload.len().saturating_sub(COMMIT_TAIL)..];
        let kept = self.length.min(COMMIT_TAIL - new.len());
        self.bytes.copy_within(self.length - kept..self.length, 0);
        self.bytes[kept..kept + new.len()].copy_from_slice(new);
        self.length = kept + new.len();
    }

    pub(super) fn commit(&self) -> Commit {
        if self.length < COMMIT_TAIL {
            return Commit::Unseen;
        }
        let (id, time) = (u64_at(&self.bytes, 1), u64_at(&self.bytes, 9) as i64);
        match self.bytes[0] {
            COMMIT if (1..ID_MAX).contains(&id) => Commit::Whole(id, time),
            other => Commit::Other(other),
        }
    }
}

/// A transaction that goes on in the next file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPart {
    pub(super) append_index: u64,
    /// Of its last envelope so far.
    pub(super) checksum: u32,
    /// Of the envelope before its first.
    pub(super) previous_checksum: u32,
    pub(super) ending: Ending,
    /// Bytes of its envelopes so far.
    pub(super) bytes: u64,
    /// Where its file's data ends: at the end of a segment.
    pub(in crate::driver::neo4j) file_end: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first envelope of a real store of 2026.08.1, without its payload of 1220 bytes.
    const REAL: &str = "91564f7101c40400000200000000000000 20 ed5eadde 0000000000000000 40";

    #[test]
    fn a_real_envelope_is_read() {
        let bytes = hex::decode(REAL.replace(' ', "")).expect("hex");
        let expected = Envelope {
            checksum: 0x714f_5691,
            part: Part::Full,
            length: 1251,
            append_index: 2,
            kernel: Kernel::V2026_08,
            previous_checksum: 0xdead_5eed,
            content: KERNEL_CONTENT,
        };
        assert_eq!(Opening::parse(&bytes, 131_072), Opening::Envelope(expected));
        assert!(matches!(Opening::parse(&bytes, 1250), Opening::Foreign(_)));
        assert_eq!(Opening::parse(&bytes[..30], 131_072), Opening::Unfinished);
        assert_eq!(expected.refusal(&[START]), None);
        let other = Envelope { content: 0, ..expected };
        assert!(other.refusal(&[START]).is_some_and(|text| text.contains("content type 0")));
        let other = Envelope { kernel: Kernel(33), ..expected };
        assert!(other.refusal(&[START]).is_some_and(|text| text.contains("33")));
        assert!(expected.refusal(&[13]).is_some_and(|text| text.contains("empty transaction")));
        let mut moved = bytes;
        moved[4] = 5;
        assert!(matches!(Opening::parse(&moved, 131_072), Opening::Refused(text) if text.contains("START_OFFSET")));
    }

    #[test]
    fn sizes_of_segments_are_judged() {
        assert!(is_segment_size(131_072) && is_segment_size(4096) && is_segment_size(4 << 20));
        assert!(!is_segment_size(0) && !is_segment_size(131_071) && !is_segment_size(8 << 20) && !is_segment_size(128));
    }

    proptest! {
        /// However a payload is cut into pieces, its last bytes are the same.
        #[test]
        fn an_ending_is_gathered_over_pieces(
            payload in proptest::collection::vec(any::<u8>(), 17..80),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len())).collect();
            at.sort_unstable();
            at.push(payload.len());
            let (mut ending, mut from) = (Ending::default(), 0);
            for to in at {
                ending.extend(&payload[from..to]);
                from = to;
            }
            prop_assert_eq!(&ending.bytes[..], &payload[payload.len() - COMMIT_TAIL..]);
        }

        /// What a writer has not written yet reads as zero: that must never turn an envelope into something foreign.
        #[test]
        fn a_half_written_envelope_is_never_foreign(
            part in 1u8..=4,
            payload in 1u32..100_000,
            body in proptest::collection::vec(any::<u8>(), ENVELOPE_BYTES),
            holes in proptest::collection::vec(any::<bool>(), ENVELOPE_BYTES),
        ) {
            let mut bytes = body;
            bytes[4] = part;
            bytes[5..9].copy_from_slice(&payload.to_le_bytes());
            for (at, _) in holes.iter().enumerate().filter(|(_, hole)| **hole) {
                bytes[at] = 0;
            }
            prop_assert!(!matches!(Opening::parse(&bytes, 131_072), Opening::Foreign(_) | Opening::Refused(_)));
        }
    }
}
