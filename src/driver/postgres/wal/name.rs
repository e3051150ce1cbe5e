//! Names of files in `pg_wal`.
//!
//! A segment's name is 24 hex digits: timeline, and the segment's number in two parts of eight, the lower of which counts
//! up to 4 GiB worth of segments. Beside segments the server archives `TIMELINE.history`, `SEGMENT.OFFSET.backup` and
//! `SEGMENT.partial`.

use crate::base::{Code, Error, Result};

/// What the lower half of a segment's number counts up to.
const LOW_SPAN: u64 = 1 << 32;
/// Smallest segment a cluster can have.
const SEGMENT_MIN: u64 = 1 << 20;
/// Largest segment a cluster can have.
const SEGMENT_MAX: u64 = 1 << 30;

/// A segment of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Segment {
    /// Its timeline.
    pub(crate) timeline: u32,
    /// Its number: the position of its first byte divided by the size of segments.
    pub(crate) number: u64,
}

/// A file that a server archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WalFile {
    /// A whole segment.
    Segment(Segment),
    /// How a timeline came to be.
    History(u32),
    /// A base backup's label, kept beside the segment that it begins in.
    Label(Segment),
    /// The last, unfinished segment of a timeline that was left.
    Partial(Segment),
}

/// Whether segments can be of this size.
pub(crate) fn is_segment_size(size: u64) -> bool {
    size.is_power_of_two() && (SEGMENT_MIN..=SEGMENT_MAX).contains(&size)
}

impl Segment {
    /// The segment that holds `position`.
    pub(crate) fn holding(timeline: u32, position: u64, size: u64) -> Segment {
        Segment { timeline, number: position / size }
    }

    /// The one after it.
    pub(crate) fn next(self) -> Segment {
        Segment { number: self.number + 1, ..self }
    }

    /// The position of its first byte.
    pub(crate) fn start(self, size: u64) -> u64 {
        self.number.saturating_mul(size)
    }

    /// Its file's name.
    pub(crate) fn name(self, size: u64) -> String {
        let per_span = LOW_SPAN / size;
        format!("{:08X}{:08X}{:08X}", self.timeline, self.number / per_span, self.number % per_span)
    }

    /// The segment of that name.
    pub(crate) fn parse(name: &str, size: u64) -> Option<Segment> {
        if name.len() != 24 || !is_hex(name) {
            return None;
        }
        let part = |range: std::ops::Range<usize>| u64::from_str_radix(name.get(range)?, 16).ok();
        let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
        let per_span = LOW_SPAN / size;
        (timeline > 0 && low < per_span).then(|| Segment { timeline: timeline as u32, number: high * per_span + low })
    }
}

impl WalFile {
    /// What a name stands for. `USAGE` for one that no server gives, so that nothing else is ever made a path.
    pub(crate) fn parse(name: &str, size: u64) -> Result<WalFile> {
        Self::recognise(name, size).ok_or_else(|| {
            Error::new(Code::Usage, format!("{name:?} is not the name of a file that PostgreSQL archives"))
        })
    }

    fn recognise(name: &str, size: u64) -> Option<WalFile> {
        let (stem, rest) = match name.split_once('.') {
            None => return Segment::parse(name, size).map(WalFile::Segment),
            Some(parts) => parts,
        };
        match rest {
            "history" if stem.len() == 8 && is_hex(stem) => {
                u32::from_str_radix(stem, 16).ok().filter(|timeline| *timeline > 0).map(WalFile::History)
            }
            "partial" => Segment::parse(stem, size).map(WalFile::Partial),
            label => {
                let offset = label.strip_suffix(".backup")?;
                let good = offset.len() == 8 && is_hex(offset);
                Segment::parse(stem, size).filter(|_| good).map(WalFile::Label)
            }
        }
    }

    /// The timeline it belongs to.
    pub(crate) fn timeline(self) -> u32 {
        match self {
            WalFile::History(timeline) => timeline,
            WalFile::Segment(segment) | WalFile::Label(segment) | WalFile::Partial(segment) => segment.timeline,
        }
    }
}

/// The server writes upper case only.
fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 16 << 20;

    #[test]
    fn names_are_the_servers_own() {
        let segment = Segment { timeline: 1, number: 0x1_02 };
        assert_eq!(segment.name(SIZE), "000000010000000100000002");
        assert_eq!(segment.start(SIZE), 0x1_0200_0000);
        assert_eq!(WalFile::recognise("000000010000000100000002", SIZE), Some(WalFile::Segment(segment)));
        assert_eq!(WalFile::recognise("00000002.history", SIZE), Some(WalFile::History(2)));
        assert_eq!(WalFile::recognise("000000010000000100000002.00000028.backup", SIZE), Some(WalFile::Label(segment)));
        assert_eq!(WalFile::recognise("000000010000000100000002.partial", SIZE), Some(WalFile::Partial(segment)));
    }

    #[test]
    fn what_no_server_archives_is_refused() {
        for name in [
            "",
            "../../etc/passwd",
            "0000000100000001000000FF0",
            "000000010000000100000100",
            "00000001000000010000000a",
            "000000000000000100000002",
            "00000000.history",
            "00000001.History",
            "000000010000000100000002.partial.x",
            "000000010000000100000002.28.backup",
            "000000010000000100000002.",
        ] {
            assert_eq!(WalFile::parse(name, SIZE).err().map(|error| error.code()), Some(Code::Usage), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_segment_reads_back(timeline in 1u32.., number in 0u64..1 << 40, power in 20u32..=30) {
            let (segment, size) = (Segment { timeline, number: number % ((1 << 32) * ((1u64 << 32) >> power)) }, 1u64 << power);
            prop_assert_eq!(Segment::parse(&segment.name(size), size), Some(segment));
        }

        #[test]
        fn no_name_makes_it_panic_and_none_leaves_the_directory(name in "[0-9A-Fa-f./a-z]{0,44}") {
            if WalFile::parse(&name, SIZE).is_ok() {
                prop_assert!(!name.contains('/') && !name.contains(".."));
            }
        }
    }
}
