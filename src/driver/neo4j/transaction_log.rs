//! What the transaction log files say of a store without any server: its identity, its format, and the last
//! transaction that a cleanly closed store holds.
//!
//! Source: Neo4j's own `LogFormat` (V8, V9 headers), `StoreIdSerialization` and `CheckpointLogSerializer`, checked
//! against stores of 5.26.

use crate::base::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of a log file's header.
const HEADER_BYTES: usize = 128;
/// Bytes of a serialised store id, padding included.
const STORE_ID_BYTES: usize = 64;
/// Bytes of a checkpoint entry of kernel 5.20 and later.
const CHECKPOINT_BYTES: usize = 232;
/// Entry type of a checkpoint of kernel 5.20 and later.
const CHECKPOINT_TYPE: u8 = 9;
/// Offset of the transaction id in a checkpoint entry: version, type, two positions, time, store id.
const CHECKPOINT_TX_OFFSET: usize = 2 + 16 + 16 + 8 + STORE_ID_BYTES;
/// The checkpoint log rotates at 1 MiB; a larger file is not one.
const CHECKPOINT_FILE_MAX: u64 = 64 << 20;
/// How many bytes after the checkpoint's position must be zeros or missing for a log to count as closed.
const CLOSED_PROBE_BYTES: u64 = 4096;

/// The identity that a store got when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreId {
    /// Milliseconds since 1970 at which the store was made.
    created_ms: u64,
    random: u64,
    /// `record-aligned-1.1`, as `neo4j-admin database info` prints it.
    pub(super) format: String,
}

impl StoreId {
    /// The identity without the format: a migration changes that, but not the store.
    pub(super) fn identity(&self) -> String {
        format!("{:016x}{:016x}", self.created_ms, self.random)
    }

    fn parse(bytes: &[u8]) -> Option<StoreId> {
        let (&present, rest) = bytes.split_first()?;
        let number = |at: usize| rest.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        let (created_ms, random) = (number(0)?, number(8)?);
        let (engine, rest) = name(rest.get(16..)?)?;
        let (family, rest) = name(rest)?;
        let (&major, &minor) = (rest.first()?, rest.get(1)?);
        // Years 2000 to 2100: anything else is not a store id but bytes that happen to lie here.
        let plausible = present == 1 && (946_684_800_000..4_102_444_800_000).contains(&created_ms);
        plausible.then(|| StoreId { created_ms, random, format: format!("{engine}-{family}-{major}.{minor}") })
    }
}

fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let text = std::str::from_utf8(rest.get(..length as usize)?).ok()?;
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    good.then(|| (text, &rest[length as usize..]))
}

/// The store id in the headers of the logs in `directory`; the newest file that has one counts. `None` when there is
/// none in a form that is known.
pub(super) fn store_id(directory: &Path) -> Result<Option<StoreId>> {
    for (_, path) in numbered(directory, "checkpoint.")?.into_iter().rev() {
        if let Some(found) = read_header(&path)? {
            return Ok(Some(found));
        }
    }
    for (_, path) in numbered(directory, "neostore.transaction.db.")?.into_iter().rev() {
        if let Some(found) = read_header(&path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn read_header(path: &Path) -> Result<Option<StoreId>> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    File::open(path)
        .and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header))
        .map_err(|cause| Error::io("reading", path, cause))?;
    // V8 has one index field less than V9; later headers keep V9's beginning.
    let offset = match header.first() {
        Some(8) => 16,
        Some(9..=31) => 24,
        _ => return Ok(None),
    };
    Ok(header.get(offset..).and_then(StoreId::parse))
}

/// A checkpoint: everything up to here is in the store files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Number of the transaction log file where recovery would start.
    pub(super) log_version: u64,
    /// Byte in that file.
    pub(super) log_offset: u64,
    /// The last transaction that the checkpoint covers.
    pub(super) transaction: u64,
}

/// The newest checkpoint on record in `directory`. `None` when there is none, or its form is not known.
pub(super) fn last_checkpoint(directory: &Path) -> Result<Option<Checkpoint>> {
    let Some((_, path)) = numbered(directory, "checkpoint.")?.pop() else { return Ok(None) };
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(CHECKPOINT_FILE_MAX).read_to_end(&mut bytes))
        .map_err(|cause| Error::io("reading", &path, cause))?;
    Ok(newest_checkpoint(&bytes))
}

fn newest_checkpoint(file: &[u8]) -> Option<Checkpoint> {
    let entries = file.get(HEADER_BYTES..)?.chunks_exact(CHECKPOINT_BYTES);
    let mut newest = None;
    for entry in entries.take_while(|entry| entry[0] != 0) {
        let (body, sum) = entry.split_at(CHECKPOINT_BYTES - 4);
        if entry[1] != CHECKPOINT_TYPE || sum != crc32c::crc32c(body).to_le_bytes() {
            // An unknown form may be the newest of all, so that nothing before it counts.
            return None;
        }
        let number = |at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
        newest = Some(Checkpoint {
            log_version: number(2),
            log_offset: number(10),
            transaction: number(CHECKPOINT_TX_OFFSET),
        });
    }
    newest
}

/// The last transaction of a store that was closed cleanly. `None` when its newest checkpoint is not the end of its
/// log, so that recovery would add transactions, or when the form of the logs is not known.
pub(super) fn last_transaction_of_closed(directory: &Path) -> Result<Option<u64>> {
    let Some(checkpoint) = last_checkpoint(directory)? else { return Ok(None) };
    match numbered(directory, "neostore.transaction.db.")?.pop() {
        Some((version, path)) if version == checkpoint.log_version && is_blank(&path, checkpoint.log_offset)? => {
            Ok(Some(checkpoint.transaction))
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

/// Files called `prefix` + number, in the order of their numbers. A directory that is not there has none.
pub(super) fn numbered(directory: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::io("listing", directory, cause)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("listing", directory, cause))?;
        let number = entry.file_name().to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|n| n.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The beginning of a header that a real server of 5.26.0 wrote.
    const HEADER: &str = "090000000000000000000000000000000000000000000000010000\
        01a1f8c208e6d0a548bae547ce2a067265636f726407616c69676e65640101";

    fn header() -> Vec<u8> {
        let mut bytes = hex::decode(HEADER).expect("hex");
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    fn entry(log_version: u64, offset: u64, transaction: u64) -> Vec<u8> {
        let mut bytes = vec![0x14, CHECKPOINT_TYPE];
        for number in [log_version, offset, log_version, offset, 1_795_174_828_262] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(&header()[24..24 + STORE_ID_BYTES]);
        bytes.extend(transaction.to_le_bytes());
        bytes.resize(CHECKPOINT_BYTES - 4, 0);
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_real_header_tells_identity_and_format() {
        let directory = tempfile::tempdir().expect("tempdir");
        assert_eq!(store_id(directory.path()).expect("read"), None);
        std::fs::write(directory.path().join("checkpoint.0"), header()).expect("write");
        let id = store_id(directory.path()).expect("read").expect("id");
        assert_eq!(id.identity(), "000001a1f8c208e6d0a548bae547ce2a");
        assert_eq!(id.format, "record-aligned-1.1");
    }

    #[test]
    fn the_newest_sound_checkpoint_counts_and_an_unknown_one_hides_all() {
        let mut file = [header(), entry(0, 100, 3), entry(1, 200, 16)].concat();
        file.resize(4096, 0);
        assert_eq!(newest_checkpoint(&file).map(|c| (c.log_version, c.log_offset, c.transaction)), Some((1, 200, 16)));
        file[HEADER_BYTES + CHECKPOINT_BYTES + CHECKPOINT_TX_OFFSET] ^= 1;
        assert_eq!(newest_checkpoint(&file), None);
    }

    #[test]
    fn a_log_that_goes_on_after_the_checkpoint_is_not_closed() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (checkpoints, log) =
            (directory.path().join("checkpoint.0"), directory.path().join("neostore.transaction.db.7"));
        std::fs::write(&checkpoints, [header(), entry(7, 130, 16)].concat()).expect("write");
        let mut content = header();
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
            let _ = StoreId::parse(&bytes);
            let _ = newest_checkpoint(&bytes);
        }
    }
}
