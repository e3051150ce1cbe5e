//! The checkpoint log: what is in the store files for certain, and where recovery begins.
//!
//! Entries follow the header one after the other; by kernel they have 232 bytes or, from 2026.08, 486, and one
//! position or, from 5.22, two: the point up to which everything is in the store, and the beginning of the oldest
//! transaction that was not complete then, from which recovery reads. In an enveloped log each is the payload of an
//! envelope: without kernel version and checksum, which the envelope has, and by kernel of another length.

use super::entry::{u32_at, u64_at};
use super::envelope::{ENVELOPE_BYTES, Opening, PADDING_MAX};
use super::files::{self, numbered};
use super::format::{Kernel, LogFormat};
use super::header::{Envelopes, HEADER_BYTES, STORE_ID_BYTES};
use super::scan::checksum_text;
use crate::artifact::log_batch::LogMark;
use crate::base::{Error, Result};
use jiff::Timestamp;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of an entry before 2026.08.
const ENTRY_BYTES: usize = 232;
/// Bytes of an entry of 2026.08.
const LONG_ENTRY_BYTES: usize = 486;
/// Least bytes of an entry in an envelope: type, four numbers of positions, time, store id, the last transaction.
const FIELD_BYTES: usize = 1 + 5 * 8 + STORE_ID_BYTES + 8 + 8 + 1 + 4 + 8;
/// Entry type of a checkpoint in a log of its own since 5.0.
const ENTRY_TYPE: u8 = 9;
/// The checkpoint log rotates at 1 MiB; a larger file is not one.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How many bytes after the checkpoint's position must be zeros or missing for a log to count as closed.
const CLOSED_PROBE_BYTES: u64 = 4096;

/// A checkpoint: everything up to here is in the store files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of the transaction log file of its position.
    pub log_version: u64,
    /// Byte in that file: the end of its last transaction.
    pub log_offset: u64,
    /// File and byte where recovery starts to read: the position, or before it.
    pub recovery_start: (u64, u64),
    /// The last transaction that the checkpoint covers.
    pub transaction: u64,
    /// That transaction's checksum.
    pub checksum: u32,
    /// When that transaction was committed, in milliseconds since 1970.
    pub committed_ms: i64,
    /// That transaction's append index (5.20 and later).
    pub append_index: Option<u64>,
    /// When the checkpoint was made, in milliseconds since 1970.
    pub made_ms: i64,
}

impl Checkpoint {
    /// Its position as a point in the log.
    pub fn mark(&self) -> LogMark {
        LogMark {
            file: self.log_version,
            offset: self.log_offset,
            transaction: self.transaction,
            began: None,
            checksum: Some(checksum_text(self.checksum)),
            append_index: self.append_index,
            committed_at: Timestamp::from_millisecond(self.committed_ms).ok(),
        }
    }

    /// Reads one at the beginning of `bytes`, and says how long it is. `None` = its form is not known, or its checksum
    /// is wrong.
    fn parse(bytes: &[u8]) -> Option<(Checkpoint, usize)> {
        let kernel = Kernel(*bytes.first()?);
        let length = entry_bytes(kernel);
        let (body, sum) = bytes.get(..length)?.split_at(length - 4);
        if !kernel.is_known() || body[1] != ENTRY_TYPE || sum != crc32c::crc32c(body).to_le_bytes() {
            return None;
        }
        Some((Checkpoint::fields(kernel, &body[2..]), length))
    }

    /// Reads what stands behind the type of an entry.
    fn fields(kernel: Kernel, body: &[u8]) -> Checkpoint {
        let mut at = 0;
        let mut long = || {
            at += 8;
            u64_at(body, at - 8)
        };
        let (log_version, log_offset) = (long(), long());
        let position = (log_version, log_offset);
        let oldest = if kernel >= Kernel::V5_22 { (long(), long()) } else { position };
        let made_ms = long() as i64;
        at += STORE_ID_BYTES;
        let transaction = u64_at(body, at);
        // From 5.20 its append index and kernel version stand before its checksum. The last append index of all,
        // further on, may be that of a later transaction, which was not complete then.
        let append_index = (kernel >= Kernel::V5_20).then(|| u64_at(body, at + 8));
        at += if kernel >= Kernel::V5_20 { 8 + 8 + 1 } else { 8 };
        let (checksum, committed_ms) = (u32_at(body, at), u64_at(body, at + 4) as i64);
        Checkpoint {
            log_version,
            log_offset,
            recovery_start: oldest.min(position),
            transaction,
            checksum,
            committed_ms,
            append_index,
            made_ms,
        }
    }
}

/// The newest checkpoint in an enveloped log; else as [`newest_checkpoint`].
fn newest_enveloped(file: &[u8], segment: u64) -> Option<Checkpoint> {
    let mut newest = None;
    let mut payload: Vec<u8> = Vec::new();
    let mut at = segment;
    loop {
        let room = segment - at % segment;
        let bytes = file.get(usize::try_from(at).ok()?..).unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(room as usize)];
        let rest_is_blank = |from: usize| file[from.min(file.len())..].iter().all(|&byte| byte == 0);
        let envelope = match Opening::parse(&bytes[..bytes.len().min(ENVELOPE_BYTES)], room) {
            _ if room <= PADDING_MAX && bytes.len() as u64 == room && bytes.iter().all(|&byte| byte == 0) => {
                at += room;
                continue;
            }
            Opening::Envelope(envelope) => envelope,
            Opening::Nothing => return if rest_is_blank(at as usize) { newest } else { None },
            // It is being written, or its writer died.
            Opening::Unfinished => return if rest_is_blank((at + room) as usize) { newest } else { None },
            Opening::Refused(_) | Opening::Foreign(_) => return None,
        };
        let whole = bytes.get(..envelope.length).filter(|bytes| envelope.closes(bytes));
        let end = at + envelope.length as u64;
        let Some(whole) = whole else { return if rest_is_blank(end as usize) { newest } else { None } };
        if envelope.part.begins() {
            payload.clear();
        }
        payload.extend(&whole[ENVELOPE_BYTES..]);
        if envelope.part.ends() {
            if !envelope.kernel.has_envelopes() || payload.len() < FIELD_BYTES || payload[0] != ENTRY_TYPE {
                return None;
            }
            newest = Some(Checkpoint::fields(envelope.kernel, &payload[1..]));
        }
        at = end;
    }
}

/// The newest checkpoint on record in `directory`. `None` when there is none, or its form is not known.
pub fn last_checkpoint(directory: &Path) -> Result<Option<Checkpoint>> {
    newest_of(numbered(directory, files::CHECKPOINTS)?.into_iter().map(|(_, path)| {
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|cause| Error::io("reading", &path, cause))?;
        Ok(bytes)
    }))
}

/// The newest checkpoint in checkpoint logs, the oldest first; else as [`newest_checkpoint`]. No more of them are read than
/// needed.
pub fn newest_of<B: AsRef<[u8]>>(logs: impl DoubleEndedIterator<Item = Result<B>>) -> Result<Option<Checkpoint>> {
    // A server that rotated its checkpoint log may not have written into the newest file yet.
    for log in logs.rev() {
        let log = log?;
        if !is_empty(log.as_ref()) {
            return Ok(newest_checkpoint(log.as_ref()));
        }
    }
    Ok(None)
}

/// Whether nothing was written yet. A log of an unknown format is not empty: what it holds cannot be told.
fn is_empty(file: &[u8]) -> bool {
    let known = file.first().is_none_or(|&byte| byte == 0 || LogFormat::of(byte).is_ok());
    let data = Envelopes::of(file).map_or(HEADER_BYTES, |envelopes| envelopes.segment) as usize;
    if let Some(first) = file.get(data..).filter(|_| data != HEADER_BYTES as usize) {
        // The checksum of an envelope may begin with a zero.
        return first.iter().take(ENVELOPE_BYTES).all(|&byte| byte == 0);
    }
    known && file.get(data..).is_none_or(|entries| entries.first().is_none_or(|&byte| byte == 0))
}

/// The newest checkpoint in the bytes of a checkpoint log. `None` when there is none or an unknown form is among them:
/// that one may be the newest of all, so that nothing before it counts. A last entry that is not whole is being
/// written, or its writer died, and does not count, as it would not for the server.
pub fn newest_checkpoint(file: &[u8]) -> Option<Checkpoint> {
    if LogFormat::of(*file.first()?).ok()? == LogFormat::V10 {
        return newest_enveloped(file, Envelopes::of(file)?.segment);
    }
    let mut rest = file.get(HEADER_BYTES as usize..)?;
    let mut newest = None;
    while rest.first().is_some_and(|&byte| byte != 0) {
        let Some((checkpoint, length)) = Checkpoint::parse(rest) else {
            return if is_unfinished(rest) { newest } else { None };
        };
        newest = Some(checkpoint);
        rest = &rest[length..];
    }
    newest
}

/// Whether `rest` is the beginning of one entry of a known kernel and nothing else.
fn is_unfinished(rest: &[u8]) -> bool {
    let kernel = Kernel(rest.first().copied().unwrap_or_default());
    let typed = rest.get(1).is_none_or(|&byte| byte == ENTRY_TYPE || byte == 0);
    let behind = rest.get(entry_bytes(kernel)..).unwrap_or_default();
    kernel.is_known() && typed && behind.iter().all(|&byte| byte == 0)
}

fn entry_bytes(kernel: Kernel) -> usize {
    if kernel >= Kernel::V2026_08 { LONG_ENTRY_BYTES } else { ENTRY_BYTES }
}

/// The last transaction of a store that was closed cleanly. `None` when its newest checkpoint is not the end of its
/// log, so that recovery would add transactions, or when the form of the logs is not known.
pub fn last_transaction_of_closed(directory: &Path) -> Result<Option<u64>> {
    Ok(end_of_closed(directory)?.map(|checkpoint| checkpoint.transaction))
}

/// The newest checkpoint of a store that was closed cleanly, which is the end of its log; else as
/// [`last_transaction_of_closed`].
pub fn end_of_closed(directory: &Path) -> Result<Option<Checkpoint>> {
    let Some(checkpoint) = last_checkpoint(directory)? else { return Ok(None) };
    match numbered(directory, files::TRANSACTIONS)?.pop() {
        Some((version, path)) if version == checkpoint.log_version && is_blank(&path, checkpoint.log_offset)? => {
            Ok(Some(checkpoint))
        }
        _ => Ok(None),
    }
}

fn is_blank(path: &Path, offset: u64) -> Result<bool> {
    let mut tail = Vec::new();
    File::open(path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.take(CLOSED_PROBE_BYTES).read_to_end(&mut tail)
        })
        .map_err(|cause| Error::io("reading", path, cause))?;
    Ok(tail.iter().all(|&byte| byte == 0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::envelope_writer::checkpoint_log;
    use super::super::header::tests::real_header;
    use super::*;
    use proptest::prelude::*;

    /// An entry as the kernel of that version would write it.
    pub(in super::super) fn entry(kernel: Kernel, of: &Checkpoint) -> Vec<u8> {
        let mut bytes = vec![kernel.0, ENTRY_TYPE];
        let long = |bytes: &mut Vec<u8>, number: u64| bytes.extend(number.to_le_bytes());
        long(&mut bytes, of.log_version);
        long(&mut bytes, of.log_offset);
        if kernel >= Kernel::V5_22 {
            long(&mut bytes, of.recovery_start.0);
            long(&mut bytes, of.recovery_start.1);
        }
        long(&mut bytes, of.made_ms as u64);
        bytes.extend(&real_header()[24..24 + STORE_ID_BYTES]);
        long(&mut bytes, of.transaction);
        if kernel >= Kernel::V5_20 {
            long(&mut bytes, of.append_index.unwrap_or_default());
            bytes.push(kernel.0);
        }
        bytes.extend(of.checksum.to_le_bytes());
        long(&mut bytes, of.committed_ms as u64);
        long(&mut bytes, u64::MAX);
        if let Some(index) = of.append_index {
            long(&mut bytes, index + 3);
        }
        bytes.resize(entry_bytes(kernel) - 4, 0);
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    pub(in super::super) fn checkpoint(log_version: u64, log_offset: u64, transaction: u64) -> Checkpoint {
        Checkpoint {
            log_version,
            log_offset,
            recovery_start: (log_version, log_offset),
            transaction,
            checksum: 0x1234_5678,
            committed_ms: 1_795_174_828_000,
            append_index: Some(transaction),
            made_ms: 1_795_174_828_262,
        }
    }

    #[test]
    fn every_kernels_form_is_read() {
        for kernel in (Kernel::V5_0.0..=Kernel::V2026_08.0).map(Kernel) {
            let mut expected = checkpoint(3, 500, 16);
            if kernel < Kernel::V5_20 {
                expected.append_index = None;
            }
            if kernel >= Kernel::V5_22 {
                expected.recovery_start = (2, 700);
            }
            let file = [real_header(), entry(kernel, &expected)].concat();
            assert_eq!(newest_checkpoint(&file), Some(expected), "{kernel:?}");
        }
    }

    #[test]
    fn the_newest_sound_checkpoint_counts_and_an_unknown_one_hides_all() {
        let (older, newest) = (checkpoint(0, 100, 3), checkpoint(1, 200, 16));
        let old = entry(Kernel::V5_25, &older);
        let mut file = [real_header(), old.clone(), entry(Kernel::V2026_08, &newest)].concat();
        file.resize(4096, 0);
        assert_eq!(newest_checkpoint(&file), Some(newest));
        let whole = file.clone();
        file[HEADER_BYTES as usize + ENTRY_BYTES + 130] ^= 1;
        assert_eq!(newest_checkpoint(&file), Some(older), "the last one is not whole");
        let mut file = whole;
        file[HEADER_BYTES as usize + 130] ^= 1;
        assert_eq!(newest_checkpoint(&file), None, "one in the middle is damaged");
        assert_eq!(newest_checkpoint(&[real_header(), old, vec![33, 9, 1]].concat()), None, "an unknown kernel");
    }

    #[test]
    fn a_rotated_checkpoint_log_is_read_where_it_has_entries() {
        let directory = tempfile::tempdir().expect("tempdir");
        let full = [real_header(), entry(Kernel::V5_25, &checkpoint(0, 100, 3))].concat();
        std::fs::write(directory.path().join("checkpoint.0"), &full).expect("write");
        std::fs::write(directory.path().join("checkpoint.1"), real_header()).expect("write");
        assert_eq!(last_checkpoint(directory.path()).expect("read").map(|c| c.transaction), Some(3));
        // One of an unknown format has its entries elsewhere: the older file's checkpoint is not the newest.
        let mut merged = real_header();
        merged[0] = 11;
        merged.resize(4096, 0);
        std::fs::write(directory.path().join("checkpoint.1"), merged).expect("write");
        assert_eq!(last_checkpoint(directory.path()).expect("read"), None);
    }

    #[test]
    fn enveloped_checkpoints_are_read() {
        let (older, newest) = (checkpoint(0, 5000, 3), checkpoint(1, 6000, 16));
        let mut file = checkpoint_log(&[older.clone(), newest.clone()], 4096);
        file.resize(3 * 4096, 0);
        assert_eq!(newest_checkpoint(&file), Some(newest.clone()));
        let mut torn = file.clone();
        torn[4096 + 512 + 130] ^= 1;
        assert_eq!(newest_checkpoint(&torn), Some(older), "the last one is not whole");
        torn[4096 + 130] ^= 1;
        assert_eq!(newest_checkpoint(&torn), None, "one in the middle is damaged");
        // A segment that is full, and one that has only padding left.
        let many: Vec<Checkpoint> = (0..9).map(|n| checkpoint(n, 5000, 100 + n)).collect();
        assert_eq!(newest_checkpoint(&checkpoint_log(&many, 4096)), many.last().cloned());
        let directory = tempfile::tempdir().expect("tempdir");
        let path = |number: u64| directory.path().join(format!("checkpoint.{number}"));
        std::fs::write(path(0), &file).expect("write");
        std::fs::write(path(1), checkpoint_log(&[], 4096)).expect("write");
        assert_eq!(last_checkpoint(directory.path()).expect("read"), Some(newest));
    }

    #[test]
    fn a_log_that_goes_on_after_the_checkpoint_is_not_closed() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (checkpoints, log) =
            (directory.path().join("checkpoint.0"), directory.path().join("neostore.transaction.db.7"));
        let entry = entry(Kernel::V5_25, &checkpoint(7, 130, 16));
        std::fs::write(&checkpoints, [real_header(), entry].concat()).expect("write");
        let mut content = real_header();
        content.resize(130, 1);
        content.resize(300, 0);
        std::fs::write(&log, &content).expect("write");
        assert_eq!(last_transaction_of_closed(directory.path()).expect("read"), Some(16));
        content[140] = 0x14;
        std::fs::write(&log, &content).expect("write");
        assert_eq!(last_transaction_of_closed(directory.path()).expect("read"), None);
        std::fs::rename(&log, directory.path().join("neostore.transaction.db.8")).expect("rename");
        assert_eq!(last_transaction_of_closed(directory.path()).expect("read"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = newest_checkpoint(&bytes);
        }

        // A log that is cut or changed anywhere never yields a checkpoint that was not written.
        #[test]
        fn damage_yields_no_other_checkpoint(cut in 0usize..1000, at in 0usize..1000, flip in 1u8..) {
            let written = [checkpoint(0, 100, 3), checkpoint(1, 200, 16)];
            let entries = written.iter().flat_map(|c| entry(Kernel::V5_25, c));
            let mut file: Vec<u8> = real_header().into_iter().chain(entries).collect();
            file.truncate(cut);
            if let Some(byte) = file.get_mut(at) {
                *byte ^= flip;
            }
            if let Some(found) = newest_checkpoint(&file) {
                prop_assert!(written.contains(&found));
            }
        }
    }
}
