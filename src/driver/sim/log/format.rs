//! The fake database's log and state, byte by byte. All numbers are big-endian.
//!
//! A log file begins with a header of 32 bytes: `SIMLOG1\n`, its number, the last transaction before it, that one's
//! checksum, CRC-32C of the 28 bytes before. Records of 64 bytes follow: transaction, time in milliseconds, checksum of
//! the transaction before, key, length of the value, 38 bytes of value, CRC-32C of the 60 bytes before, which is the
//! transaction's checksum. A record that is not whole at the end of the last file is being written.

use crate::artifact::log_batch::LogMark;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Bytes of a file's header.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes of a record, and of a slot.
pub(super) const RECORD_BYTES: usize = 64;
/// Longest value, in bytes.
pub(super) const VALUE_MAX: usize = 38;
/// The file of slots.
pub(super) const STATE_FILE: &str = "kv";
/// How many slots it has.
pub(super) const SLOTS: usize = 256;

const MAGIC: &[u8; 8] = b"SIMLOG1\n";
const PREFIX: &str = "log.";

/// The name of a log file.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The number of a log file, from its name.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let number = path.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    (path == Path::new(&name(number))).then_some(number)
}

/// One transaction: one key gets one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its id.
    pub(super) transaction: u64,
    /// When it was committed, in milliseconds since 1970.
    pub(super) time_ms: i64,
    /// Checksum of the one before; 0 for the first.
    pub(super) previous: u32,
    /// Which key.
    pub(super) key: u8,
    /// Its value.
    pub(super) value: Vec<u8>,
}

impl Record {
    /// Its bytes in the log and in its slot.
    pub(super) fn bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.previous.to_be_bytes());
        bytes[20] = self.key;
        bytes[21] = self.value.len() as u8;
        bytes[22..22 + self.value.len()].copy_from_slice(&self.value);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads one; `None` if its checksum or its length is wrong, or there is none.
    pub(super) fn of(bytes: &[u8]) -> Option<Record> {
        let bytes = bytes.get(..RECORD_BYTES)?;
        let record = Record {
            transaction: number(&bytes[..8]),
            time_ms: number(&bytes[8..16]) as i64,
            previous: number(&bytes[16..20]) as u32,
            key: bytes[20],
            value: bytes[22..22 + usize::from(bytes[21]).min(VALUE_MAX)].to_vec(),
        };
        (record.transaction > 0 && bytes == record.bytes()).then_some(record)
    }

    /// Its checksum, by which its successor names it.
    pub(super) fn checksum(&self) -> u32 {
        number(&self.bytes()[60..]) as u32
    }

    /// When it was committed.
    pub(super) fn committed_at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.time_ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A header's bytes.
pub(super) fn header(file: u64, last_transaction: u64, checksum: u32) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(file.to_be_bytes());
    bytes.extend(last_transaction.to_be_bytes());
    bytes.extend(checksum.to_be_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    bytes
}

/// One log file, up to its last whole record.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    /// Its number.
    pub(super) number: u64,
    /// The last transaction before it, and its checksum.
    pub(super) before: (u64, u32),
    /// Header and whole records.
    pub(super) bytes: Vec<u8>,
    /// The records.
    pub(super) records: Vec<Record>,
}

/// A log, or the part of it that is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// In order, without a hole between them.
    pub(super) files: Vec<LogFile>,
}

impl Log {
    /// The point it ends at.
    pub(super) fn end(&self, data: &Path) -> Result<LogMark> {
        let none = || Error::new(Code::LogCorrupted, format!("there is no log in {}", data.display()));
        self.files.last().map(LogFile::end).ok_or_else(none)
    }

    /// Every record with the number of its file and its offset there.
    pub(super) fn records(&self) -> impl Iterator<Item = (u64, u64, &Record)> {
        self.files.iter().flat_map(|file| {
            file.records.iter().enumerate().map(|(index, record)| (file.number, offset_of(index), record))
        })
    }
}

/// Where a file's record begins.
pub(super) fn offset_of(index: usize) -> u64 {
    (HEADER_BYTES + index * RECORD_BYTES) as u64
}

impl LogFile {
    /// The point it ends at.
    pub(super) fn end(&self) -> LogMark {
        match self.records.last() {
            Some(record) => mark_after(self.number, offset_of(self.records.len() - 1), record),
            None => LogMark {
                file: self.number,
                offset: HEADER_BYTES as u64,
                transaction: self.before.0,
                began: None,
                checksum: (self.before.0 > 0).then(|| format!("{:08x}", self.before.1)),
                append_index: None,
                committed_at: None,
            },
        }
    }
}

/// The point after a record that begins at `began`.
pub(super) fn mark_after(file: u64, began: u64, record: &Record) -> LogMark {
    LogMark {
        file,
        offset: began + RECORD_BYTES as u64,
        transaction: record.transaction,
        began: Some(began),
        checksum: Some(format!("{:08x}", record.checksum())),
        append_index: None,
        committed_at: Some(record.committed_at()),
    }
}

/// Reads all log files of a data directory. `LOG_CORRUPTED` for what cannot be a log.
pub(super) fn read(data: &Path) -> Result<Log> {
    let mut numbers: Vec<u64> = fs::read_dir(data)
        .map_err(|cause| Error::io("listing", data, cause))?
        .flatten()
        .filter_map(|entry| number_of(Path::new(&entry.file_name())))
        .collect();
    numbers.sort_unstable();
    let mut log = Log::default();
    for (index, number) in numbers.iter().enumerate() {
        let path = data.join(name(*number));
        let bytes = fs::read(&path).map_err(|cause| Error::io("reading", &path, cause))?;
        let damaged = |why: &str| Error::new(Code::LogCorrupted, format!("{}: {why}", path.display()));
        let last = index + 1 == numbers.len();
        if last && bytes.len() < HEADER_BYTES {
            // Its header is being written.
            break;
        }
        let file = parse(*number, &bytes, last).map_err(damaged)?;
        if let Some(before) = log.files.last() {
            let end = before.records.last().map_or(before.before, |record| (record.transaction, record.checksum()));
            if before.number + 1 != file.number || end != file.before {
                return Err(damaged("it does not go on where the file before it ends"));
            }
        }
        log.files.push(file);
    }
    Ok(log)
}

fn parse(file: u64, bytes: &[u8], last: bool) -> Result<LogFile, &'static str> {
    let head = bytes.get(..HEADER_BYTES).ok_or("its header is cut")?;
    let before = (number(&head[16..24]), number(&head[24..28]) as u32);
    if head != header(file, before.0, before.1) {
        return Err("its header is not one");
    }
    let (mut records, mut previous) = (Vec::new(), before);
    let mut rest = bytes[HEADER_BYTES..].chunks(RECORD_BYTES).peekable();
    while let Some(chunk) = rest.next() {
        match Record::of(chunk) {
            Some(record) if (record.transaction, record.previous) == (previous.0 + 1, previous.1) => {
                previous = (record.transaction, record.checksum());
                records.push(record);
            }
            None if last && rest.peek().is_none() => break,
            _ => return Err("a record does not follow from the one before it"),
        }
    }
    let whole = HEADER_BYTES + records.len() * RECORD_BYTES;
    Ok(LogFile { number: file, before, bytes: bytes[..whole].to_vec(), records })
}

/// The slots of a data directory: keys that were written, with what the slot holds. A torn slot is left out.
pub(super) fn slots(data: &Path) -> Result<BTreeMap<u8, Record>> {
    let path = data.join(STATE_FILE);
    let bytes = fs::read(&path).map_err(|cause| Error::io("reading", &path, cause))?;
    let records = bytes.chunks(RECORD_BYTES).enumerate().filter_map(|(slot, chunk)| {
        Record::of(chunk).filter(|record| usize::from(record.key) == slot).map(|record| (record.key, record))
    });
    Ok(records.collect())
}

/// The state of the fake database whose files lie in `data`: each key's value, and the transaction that wrote it.
pub fn state(data: &Path) -> Result<BTreeMap<u8, (u64, String)>> {
    let text = |record: Record| (record.transaction, String::from_utf8_lossy(&record.value).into_owned());
    Ok(slots(data)?.into_iter().map(|(key, record)| (key, text(record))).collect())
}
