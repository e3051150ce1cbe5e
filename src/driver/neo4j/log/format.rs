//! The formats of log files and the kernel versions of their entries: which are known, and what the others are called.
//!
//! Source: the enumerations `LogFormat`, `KernelVersion` and `LogEntryTypeCodes` and the `LogEntrySerializationSet`s
//! of Neo4j 5.19, 5.26 and 2026.08.

use crate::base::{Code, Error};

/// The format of a log file, as the first byte of its header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Neo4j 5.0 to 5.19: transactions are counted by their ids alone.
    V8,
    /// Neo4j 5.20 and later: everything appended has an index.
    V9,
    /// Neo4j 2025.07 and later where a setting asks for it: entries lie in envelopes, and may go on in the next file.
    V10,
}

impl LogFormat {
    /// The database's own name for it.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::V8 => "V8",
            LogFormat::V9 => "V9",
            LogFormat::V10 => "V10",
        }
    }

    /// The format of a header's first byte; an unknown one is described instead.
    pub(super) fn of(byte: u8) -> Result<LogFormat, String> {
        match byte {
            8 => Ok(LogFormat::V8),
            9 => Ok(LogFormat::V9),
            10 => Ok(LogFormat::V10),
            6 => Err("V6 (Neo4j before 4.2)".to_owned()),
            7 => Err("V7 (Neo4j 4.2 to 4.4)".to_owned()),
            11 => Err("V11 (enveloped, merged with a cluster's log)".to_owned()),
            other => Err(format!("number {other}, which this release has never heard of")),
        }
    }
}

/// The version of the kernel that wrote an entry: one byte, which Neo4j raises with some of its releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel(pub u8);

/// Which fields a START entry has after its kernel version and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartLayout {
    /// 5.0 to 5.19: times, previous checksum.
    Chained,
    /// 5.20 to 2025.04: times, previous checksum, append index.
    ChainedIndexed,
    /// 2025.05 to 2026.02: times, append index.
    Indexed,
    /// 2026.06 and later: times, append index, sequence number.
    Sequenced,
}

impl StartLayout {
    pub(super) fn has_previous_checksum(self) -> bool {
        matches!(self, StartLayout::Chained | StartLayout::ChainedIndexed)
    }

    pub(super) fn has_append_index(self) -> bool {
        self != StartLayout::Chained
    }

    /// Bytes of the entry up to and with the length of its additional header.
    pub(super) fn fixed_bytes(self) -> usize {
        match self {
            StartLayout::Chained => 2 + 8 + 8 + 4 + 4,
            StartLayout::ChainedIndexed => 2 + 8 + 8 + 4 + 8 + 4,
            StartLayout::Indexed => 2 + 8 + 8 + 8 + 4,
            StartLayout::Sequenced => 2 + 8 + 8 + 8 + 8 + 4,
        }
    }
}

impl Kernel {
    /// 5.0, the first whose entries are little-endian.
    pub const V5_0: Kernel = Kernel(5);
    /// 5.20, the first with append indexes.
    pub(super) const V5_20: Kernel = Kernel(17);
    /// 5.22, the first whose checkpoints name two positions.
    pub(super) const V5_22: Kernel = Kernel(18);
    /// 5.25, that of 5.26 LTS.
    pub const V5_25: Kernel = Kernel(20);
    /// 2025.05, the first without the checksum of the transaction before.
    pub(super) const V2025_05: Kernel = Kernel(22);
    /// 2025.07, the first that may write envelopes.
    pub(super) const V2025_07: Kernel = Kernel(23);
    /// 2026.06, the first with sequence numbers.
    pub(super) const V2026_06: Kernel = Kernel(30);
    /// 2026.08, the newest that is known.
    pub const V2026_08: Kernel = Kernel(32);

    pub(super) fn has_envelopes(self) -> bool {
        self >= Kernel::V2025_07 && self.is_known()
    }

    pub(super) fn is_known(self) -> bool {
        (Kernel::V5_0..=Kernel::V2026_08).contains(&self)
    }

    pub(super) fn start_layout(self) -> Option<StartLayout> {
        match self {
            _ if !self.is_known() => None,
            _ if self < Kernel::V5_20 => Some(StartLayout::Chained),
            _ if self < Kernel::V2025_05 => Some(StartLayout::ChainedIndexed),
            _ if self < Kernel::V2026_06 => Some(StartLayout::Indexed),
            _ => Some(StartLayout::Sequenced),
        }
    }
}

/// Begins a transaction.
pub(super) const START: u8 = 1;
/// Ends a transaction.
pub(super) const COMMIT: u8 = 5;
/// Begins a later chunk of a transaction; only multi-versioned stores (Enterprise) write such.
pub(super) const CHUNK_START: u8 = 10;
/// Ends a chunk of a transaction that goes on.
pub(super) const CHUNK_END: u8 = 11;
/// Takes back the chunks of a transaction.
pub(super) const ROLLBACK: u8 = 12;
/// Stands for a transaction that left nothing; only enveloped logs have it.
pub(super) const EMPTY: u8 = 13;

/// What the entries are called that this release refuses.
pub(super) fn refused_entry(entry_type: u8) -> Option<&'static str> {
    match entry_type {
        CHUNK_START | CHUNK_END => Some("a transaction in chunks"),
        ROLLBACK => Some("a rolled-back transaction in chunks"),
        EMPTY => Some("an empty transaction"),
        _ => None,
    }
}

/// The refusal of something that is not known.
pub(super) fn unsupported(text: String) -> Error {
    Error::new(Code::Neo4jUnsupported, text)
        .with_hint("full backups of kind dump go on working: `neo4j-backupctl backup TARGET --type dump`; a later release of neo4j-backup-agent may know it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_the_layout_of_its_time() {
        let layout = |byte| Kernel(byte).start_layout();
        assert_eq!((layout(4), layout(5), layout(16)), (None, Some(StartLayout::Chained), Some(StartLayout::Chained)));
        assert_eq!((layout(17), layout(21)), (Some(StartLayout::ChainedIndexed), Some(StartLayout::ChainedIndexed)));
        assert_eq!((layout(22), layout(29)), (Some(StartLayout::Indexed), Some(StartLayout::Indexed)));
        assert_eq!(
            (layout(30), layout(32), layout(33)),
            (Some(StartLayout::Sequenced), Some(StartLayout::Sequenced), None)
        );
    }

    #[test]
    fn an_unknown_format_is_named() {
        assert_eq!(LogFormat::of(9), Ok(LogFormat::V9));
        assert_eq!(LogFormat::of(10), Ok(LogFormat::V10));
        assert!(LogFormat::of(11).is_err_and(|text| text.contains("V11 (enveloped")));
        assert_eq!(LogFormat::of(7), Err("V7 (Neo4j 4.2 to 4.4)".to_owned()));
        assert!(LogFormat::of(200).is_err_and(|text| text.contains("200")));
    }
}
