//! The log that a base backup needs, copied while it is taken.
//!
//! A checkpoint removes segments that the server itself no longer needs, or writes new log into them under another name,
//! and holding them open helps against neither alone. So a replication slot holds them where it can be had, each segment is
//! copied soon after it is complete, and each of its pages must bear its own position. Source: `XLogPageHeaderData` in `src/include/access/xlog_internal.h`.

use super::archive::Archive;
use crate::base::{Code, Error, Result};
use crate::driver::tar_archive::Sink;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Sizes that segments can have, in bytes.
const SEGMENT_SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
/// Bytes of a page of the log: what every build of PostgreSQL that is distributed has.
const PAGE: usize = 8192;
/// Bytes of a page's header up to the end of its position.
const HEADER: usize = 16;

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub(super) u64);

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl std::str::FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let half = |digits: &str| match digits.len() {
            1..=8 if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        let parsed = text.split_once('/').and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)));
        parsed.ok_or_else(|| Error::new(Code::PostgresToolFailed, format!("{text:?} is no position in a log")))
    }
}

/// The log of one backup.
pub(super) struct WalTail {
    directory: PathBuf,
    timeline: u32,
    segment_size: u64,
    /// The number of the next segment to copy.
    next: u64,
}

impl WalTail {
    /// The log in `directory` from `start` on.
    pub(super) fn new(directory: PathBuf, timeline: u32, segment_size: u64, start: Lsn) -> Result<Self> {
        if !segment_size.is_power_of_two() || !SEGMENT_SIZES.contains(&segment_size) {
            let text = format!("segments of the log have {segment_size} bytes, which no server has");
            return Err(Error::new(Code::PostgresUnsupported, text));
        }
        Ok(WalTail { directory, timeline, segment_size, next: start.0 / segment_size })
    }

    /// Adds the segments that are complete when the server has written up to `written`; up to where all is copied, if there
    /// were any.
    pub(super) fn copy_complete<S: Sink>(&mut self, archive: &mut Archive<S>, written: Lsn) -> Result<Option<Lsn>> {
        let first = self.next;
        while (self.next + 1) * self.segment_size <= written.0 {
            self.copy_next(archive, written)?;
        }
        Ok((self.next > first).then_some(Lsn(self.next * self.segment_size)))
    }

    /// Adds all that is left up to `end`, and the histories of timelines.
    pub(super) fn copy_rest<S: Sink>(&mut self, archive: &mut Archive<S>, end: Lsn) -> Result<()> {
        while self.next * self.segment_size < end.0 {
            self.copy_next(archive, end)?;
        }
        let entries = fs::read_dir(&self.directory).map_err(|cause| Error::io("listing", &self.directory, cause))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut histories: Vec<String> = names.filter(|name| is_history(name)).collect();
        histories.sort();
        for name in histories {
            let path = self.directory.join(&name);
            let bytes = fs::read(&path).map_err(|cause| Error::io("reading", &path, cause))?;
            archive.wal_bytes(&format!("pg_wal/{name}"), &bytes)?;
            archive.wal_bytes(&format!("pg_wal/archive_status/{name}.done"), &[])?;
        }
        Ok(())
    }

    fn copy_next<S: Sink>(&mut self, archive: &mut Archive<S>, end: Lsn) -> Result<()> {
        let name = segment_name(self.timeline, self.next, self.segment_size);
        let path = self.directory.join(&name);
        let file = File::open(&path).map_err(|cause| match cause.kind() {
            ErrorKind::NotFound => gone(&name, "is no longer there"),
            _ => Error::io("opening", &path, cause),
        })?;
        let begin = self.next * self.segment_size;
        let mut zeroed = false;
        archive.wal_file(&format!("pg_wal/{name}"), self.segment_size, |buffer, offset| {
            let read = read_fully(&file, buffer, offset)?;
            for (number, page) in buffer[..read].chunks(PAGE).enumerate() {
                let position = begin + offset + (number * PAGE) as u64;
                // What lies behind the end may be anything: a standby writes into segments that it used before.
                if position < end.0 && !is_page_of(page, position, &mut zeroed) {
                    return Err(gone(&name, "was used again for other log").into());
                }
            }
            Ok(read)
        })?;
        let whole = file.metadata().map_err(|cause| Error::io("examining", &path, cause))?.len();
        if whole < self.segment_size {
            return Err(Error::new(Code::PostgresUnsupported, format!("{} has {whole} bytes only", path.display())));
        }
        // A restored server has nothing to archive of what the original has archived or will.
        archive.wal_bytes(&format!("pg_wal/archive_status/{name}.done"), &[])?;
        self.next += 1;
        Ok(())
    }
}

/// Whether a page of the log is the one of this position. A server that was told to begin a new segment leaves the rest of
/// the old one zeroed; after the first such page there is no other (`zeroed`).
fn is_page_of(page: &[u8], position: u64, zeroed: &mut bool) -> bool {
    let Some(header) = page.get(..HEADER) else { return false };
    if header.iter().all(|&byte| byte == 0) && position.is_multiple_of(PAGE as u64) {
        *zeroed = true;
        return true;
    }
    let at: [u8; 8] = [header[8], header[9], header[10], header[11], header[12], header[13], header[14], header[15]];
    !*zeroed && u64::from_ne_bytes(at) == position
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_fully(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(filled)
}

/// The file name of a segment.
fn segment_name(timeline: u32, number: u64, segment_size: u64) -> String {
    let per_id = (1u64 << 32) / segment_size;
    format!("{timeline:08X}{:08X}{:08X}", number / per_id, number % per_id)
}

fn is_history(name: &str) -> bool {
    let timeline = name.strip_suffix(".history");
    timeline.is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn gone(name: &str, what: &str) -> Error {
    let text = format!("the segment {name} of the log, which this backup needs, {what}: a checkpoint recycled it");
    Error::new(Code::PostgresToolFailed, text)
        .with_hint("have the server keep more: ALTER SYSTEM SET wal_keep_size = '2GB'; SELECT pg_reload_conf();")
}

/// Where the log of a data directory lies; `pg_wal` may be a link.
pub(super) fn directory_of(data_directory: &Path) -> PathBuf {
    data_directory.join("pg_wal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tar_archive::Copying;
    use proptest::prelude::*;

    const SEGMENT: u64 = 1 << 20;

    #[test]
    fn names_and_positions_are_postgresqls() {
        assert_eq!(segment_name(1, 2, 16 << 20), "000000010000000000000002");
        assert_eq!(segment_name(0x1F, 0x1_02, 16 << 20), "0000001F0000000100000002");
        assert_eq!(segment_name(1, 4095, 1 << 20), "000000010000000000000FFF");
        assert_eq!("16/B374D848".parse::<Lsn>().expect("LSN"), Lsn(0x16_B374_D848));
        for wrong in ["", "/", "1", "1/", "/1", "g/1", "1/123456789", "+1/1", "-1/1", "1/1/1"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
        assert!(is_history("00000002.history") && !is_history("0000000200000000000000A0.history"));
    }

    proptest! {
        #[test]
        fn positions_read_as_they_are_written(lsn: u64) {
            prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>().expect("LSN"), Lsn(lsn));
        }
    }

    /// A segment as a server leaves it: pages with their positions, from `zeroed` on none.
    fn segment(number: u64, zeroed: u64) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT as usize];
        for (index, page) in bytes.chunks_mut(PAGE).enumerate().take(zeroed as usize) {
            page.fill(7);
            page[8..16].copy_from_slice(&(number * SEGMENT + (index * PAGE) as u64).to_ne_bytes());
        }
        bytes
    }

    fn copy(directory: &Path, start: u64, end: u64) -> Result<usize> {
        let mut out = Vec::new();
        let mut archive = Archive::new(Copying::new(&mut out));
        let mut tail = WalTail::new(directory.to_owned(), 1, SEGMENT, Lsn(start))?;
        tail.copy_complete(&mut archive, Lsn(end - 1))?;
        tail.copy_rest(&mut archive, Lsn(end))?;
        archive.finish()?;
        Ok(out.len())
    }

    #[test]
    fn exactly_the_segments_between_start_and_end_are_copied() {
        let place = tempfile::tempdir().expect("tempdir");
        let write = |number: u64, bytes: &[u8]| {
            fs::write(place.path().join(segment_name(1, number, SEGMENT)), bytes).expect("segment");
        };
        for number in 2..=4 {
            write(number, &segment(number, if number == 4 { 3 } else { 128 }));
        }
        let member = SEGMENT as usize + 2 * 512;
        let copied = |start, end| copy(place.path(), start, end).map_err(|e| e.code());
        assert_eq!(copied(2 * SEGMENT + 40, 3 * SEGMENT), Ok(member + 1024));
        assert_eq!(copied(2 * SEGMENT + 40, 4 * SEGMENT + 99), Ok(3 * member + 1024));
        // One that was removed, one that has become another, one of which a part has, and one that goes on after its end.
        assert_eq!(copied(SEGMENT + 40, 3 * SEGMENT), Err(Code::PostgresToolFailed));
        write(3, &segment(9, 128));
        assert_eq!(copied(2 * SEGMENT, 4 * SEGMENT), Err(Code::PostgresToolFailed));
        write(3, &[&segment(9, 128)[..PAGE], &segment(3, 128)[PAGE..]].concat());
        assert_eq!(copied(2 * SEGMENT, 4 * SEGMENT), Err(Code::PostgresToolFailed));
        write(3, &[&segment(3, 2)[..4 * PAGE], &segment(3, 128)[4 * PAGE..]].concat());
        assert_eq!(copied(2 * SEGMENT, 4 * SEGMENT), Err(Code::PostgresToolFailed));
        write(3, &segment(3, 128)[..4 * PAGE]);
        assert!(copied(2 * SEGMENT, 4 * SEGMENT).is_err());
        // What lies behind the end is nobody's business.
        write(4, &[&segment(4, 128)[..PAGE], &segment(1, 128)[PAGE..]].concat());
        assert!(copied(4 * SEGMENT, 4 * SEGMENT + 99).is_ok());
    }
}
