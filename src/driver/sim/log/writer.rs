//! What a test does as the fake database's server: commit, rotate, prune.

use super::format::{self, RECORD_BYTES, Record, SLOTS, STATE_FILE, VALUE_MAX};
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Records in a file before the next one is begun.
const RECORDS_IN_FILE: usize = 8;

/// Gives the fake database in `directory` a log, empty, and a state without any key.
pub fn begin(directory: &Path) -> Result<()> {
    let data = directory.join("data");
    write_new(&data.join(STATE_FILE), &vec![0; SLOTS * RECORD_BYTES])?;
    write_new(&data.join(format::name(0)), &format::header(0, 0, 0))
}

/// Commits one transaction that gives `key` a value (38 bytes at most); returns its id. Every eighth goes to a new file.
pub fn commit(directory: &Path, key: u8, value: &str, at: Timestamp) -> Result<u64> {
    let data = directory.join("data");
    if value.len() > VALUE_MAX {
        return Err(Error::new(Code::Usage, format!("a value has at most {VALUE_MAX} bytes: {value:?}")));
    }
    let log = format::read(&data)?;
    let end = log.end(&data)?;
    let checksum = end.checksum.as_deref().and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
    let record = Record {
        transaction: end.transaction + 1,
        time_ms: at.as_millisecond(),
        previous: checksum,
        key,
        value: value.as_bytes().to_vec(),
    };
    let full = log.files.last().is_some_and(|file| file.records.len() >= RECORDS_IN_FILE);
    let (file, offset) = match full {
        true => (begin_file(&data, end.file + 1, end.transaction, checksum)?, format::offset_of(0)),
        false => (data.join(format::name(end.file)), end.offset),
    };
    write_at(&file, &record.bytes(), offset)?;
    write_at(&data.join(STATE_FILE), &record.bytes(), u64::from(key) * RECORD_BYTES as u64)?;
    Ok(record.transaction)
}

/// The id of the last transaction.
pub fn last_transaction(directory: &Path) -> Result<u64> {
    Ok(super::end(&directory.join("data"))?.transaction)
}

/// Begins the next file.
pub fn rotate(directory: &Path) -> Result<()> {
    let data = directory.join("data");
    let end = super::end(&data)?;
    let checksum = end.checksum.as_deref().and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
    begin_file(&data, end.file + 1, end.transaction, checksum).map(|_| ())
}

/// Removes all log files but the newest `keep`.
pub fn prune(directory: &Path, keep: usize) -> Result<()> {
    let data = directory.join("data");
    let files = format::read(&data)?.files;
    for file in &files[..files.len().saturating_sub(keep)] {
        let path = data.join(format::name(file.number));
        fs::remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
    }
    Ok(())
}

fn begin_file(data: &Path, number: u64, last: u64, checksum: u32) -> Result<PathBuf> {
    let path = data.join(format::name(number));
    write_new(&path, &format::header(number, last, checksum)).map(|()| path)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|cause| Error::io("writing", path, cause))
}

pub(super) fn write_at(path: &Path, bytes: &[u8], offset: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    file.and_then(|file| file.write_all_at(bytes, offset)).map_err(|cause| Error::io("writing", path, cause))
}
