//! The header of a log file: 128 bytes, big-endian.
//!
//! Byte 0 is the format, bytes 1 to 7 the file's number; then the index of the last thing appended before this file
//! (V8: the id of the last transaction; V9 says it twice), the store's identity in 64 bytes, zeros. V10 goes on with the
//! size of a segment (4 bytes), the checksum of the last envelope of the file before, a term and the kernel version; the
//! header has a segment for itself. The index is then that of the last envelope before, the entry of which may go on here.

use super::envelope::is_segment_size;
use super::files;
use super::format::{LogFormat, unsupported};
use crate::base::{Code, Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a log file's header.
pub const HEADER_BYTES: u64 = 128;
/// Bytes of a serialised store id, padding included.
pub(super) const STORE_ID_BYTES: usize = 64;

/// Where the header of an enveloped log has the size of its segments.
const SEGMENT_AT: usize = 16 + STORE_ID_BYTES;

/// The identity that a store got when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreId {
    /// Milliseconds since 1970 at which the store was made.
    created_ms: u64,
    random: u64,
    /// `record-aligned-1.1`, as `neo4j-admin database info` prints it.
    pub format: String,
}

impl StoreId {
    /// The identity without the format: a migration changes that, but not the store.
    pub fn identity(&self) -> String {
        format!("{:016x}{:016x}", self.created_ms, self.random)
    }

    /// Reads a serialised store id; `None` = these bytes are none.
    pub(in crate::driver::neo4j) fn parse(bytes: &[u8]) -> Option<StoreId> {
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

/// What a log file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// How it is laid out.
    pub format: LogFormat,
    /// Its number.
    pub number: u64,
    /// The last append index before it (V9, V10), or the last transaction (V8).
    pub last_before: u64,
    /// Where its data begins: behind the header, or (V10) the header's segment.
    pub data_start: u64,
    /// The checksum of the last envelope before it (V10).
    pub previous_checksum: Option<u32>,
    /// Whose log it is.
    pub store: StoreId,
}

impl LogHeader {
    /// Reads the header of the file called `name`, whose number is `number`. `None` = none was written yet: an empty
    /// or preallocated file. Errors: `NEO4J_UNSUPPORTED` names a format that is not known, `LOG_CORRUPTED`.
    pub fn parse(bytes: &[u8], name: &str, number: u64) -> Result<Option<LogHeader>> {
        let Some(header) = bytes.get(..HEADER_BYTES as usize) else { return Ok(None) };
        // The server writes a header at once, but a reader may see its beginning only.
        if header[8..].iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let format = LogFormat::of(header[0])
            .map_err(|what| unsupported(format!("{name} has the log format {what}; known are V8 to V10")))?;
        let long = |at: usize| header[at..at + 8].try_into().map(u64::from_be_bytes).unwrap_or_default();
        let (last_at, store_at) = match format {
            LogFormat::V8 | LogFormat::V10 => (8, 16),
            LogFormat::V9 => (16, 24),
        };
        let own = long(0) & (u64::MAX >> 8);
        if own != number {
            return Err(Error::new(Code::LogCorrupted, format!("{name} says that it is file {own} of the log")));
        }
        let store = StoreId::parse(&header[store_at..])
            .ok_or_else(|| Error::new(Code::LogCorrupted, format!("{name} has no store id in its header")))?;
        let (data_start, previous_checksum) = match (format, Envelopes::of(header)) {
            (LogFormat::V10, Some(Envelopes { segment, previous_checksum })) => (segment, Some(previous_checksum)),
            (LogFormat::V10, None) => {
                let text = format!("{name} does not say how large its segments are");
                return Err(Error::new(Code::LogCorrupted, text));
            }
            _ => (HEADER_BYTES, None),
        };
        Ok(Some(LogHeader { format, number, last_before: long(last_at), data_start, previous_checksum, store }))
    }
}

/// What the header of an enveloped log says beyond that of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelopes {
    /// Bytes of a segment.
    pub(super) segment: u64,
    /// The checksum of the last envelope of the file before.
    pub(super) previous_checksum: u32,
}

impl Envelopes {
    /// Reads it from a header; `None` = it is no header of an enveloped log, or makes no sense.
    pub(super) fn of(header: &[u8]) -> Option<Envelopes> {
        let number = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        let segment = u64::from(number(SEGMENT_AT)?);
        let sound = header.first() == Some(&10) && is_segment_size(segment);
        sound.then_some(Envelopes { segment, previous_checksum: number(SEGMENT_AT + 4)? })
    }
}

/// The store id in the headers of the logs in `directory`; the newest file that has one counts. `None` when there is
/// none in a form that is known.
pub fn store_id(directory: &Path) -> Result<Option<StoreId>> {
    for prefix in [files::CHECKPOINTS, files::TRANSACTIONS] {
        for (_, path) in files::numbered(directory, prefix)?.into_iter().rev() {
            if let Some(found) = store_id_in(&path)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn store_id_in(path: &Path) -> Result<Option<StoreId>> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    File::open(path)
        .and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut header))
        .map_err(|cause| Error::io("reading", path, cause))?;
    let offset = match header.first() {
        Some(8 | 10) => 16,
        Some(9) => 24,
        _ => return Ok(None),
    };
    Ok(header.get(offset..).and_then(StoreId::parse))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The beginning of a header that a real server of 5.26.0 wrote.
    const HEADER: &str = "090000000000000000000000000000000000000000000000010000\
        01a1f8c208e6d0a548bae547ce2a067265636f726407616c69676e65640101";

    /// The header of the checkpoint log of a store of 5.26.0.
    pub(in super::super) fn real_header() -> Vec<u8> {
        let mut bytes = hex::decode(HEADER).expect("hex");
        bytes.resize(HEADER_BYTES as usize, 0);
        bytes
    }

    /// A header of V9 or V8 as a server would write it for file `number`.
    pub(in super::super) fn header_of(format: LogFormat, number: u64, last_before: u64) -> Vec<u8> {
        let real = real_header();
        let store = &real[24..24 + STORE_ID_BYTES];
        let byte = if format == LogFormat::V8 { 8u64 } else { 9 };
        let mut bytes = (byte << 56 | number).to_be_bytes().to_vec();
        let times = if format == LogFormat::V8 { 1 } else { 2 };
        (0..times).for_each(|_| bytes.extend(last_before.to_be_bytes()));
        bytes.extend(store);
        bytes.resize(HEADER_BYTES as usize, 0);
        bytes
    }

    #[test]
    fn a_real_header_tells_identity_and_format() {
        let directory = tempfile::tempdir().expect("tempdir");
        assert_eq!(store_id(directory.path()).expect("read"), None);
        std::fs::write(directory.path().join("checkpoint.0"), real_header()).expect("write");
        let id = store_id(directory.path()).expect("read").expect("id");
        assert_eq!(id.identity(), "000001a1f8c208e6d0a548bae547ce2a");
        assert_eq!(id.format, "record-aligned-1.1");
    }

    #[test]
    fn both_formats_say_where_they_go_on() {
        for format in [LogFormat::V8, LogFormat::V9] {
            let header = LogHeader::parse(&header_of(format, 7, 42), "log", 7).expect("parse").expect("header");
            assert_eq!((header.format, header.number, header.last_before), (format, 7, 42));
            assert_eq!(header.store.identity(), "000001a1f8c208e6d0a548bae547ce2a");
        }
    }

    #[test]
    fn an_enveloped_log_says_how_large_its_segments_are() {
        let mut bytes = header_of(LogFormat::V8, 7, 42);
        bytes[0] = 10;
        let code = |bytes: &[u8]| LogHeader::parse(bytes, "log", 7).map_err(|error| error.code());
        assert_eq!(code(&bytes), Err(Code::LogCorrupted));
        bytes[80..88].copy_from_slice(&[0, 2, 0, 0, 0xde, 0xad, 0x5e, 0xed]);
        let header = LogHeader::parse(&bytes, "log", 7).expect("parse").expect("header");
        assert_eq!((header.format, header.last_before), (LogFormat::V10, 42));
        assert_eq!((header.data_start, header.previous_checksum), (131_072, Some(0xdead_5eed)));
        assert_eq!(header.store.identity(), "000001a1f8c208e6d0a548bae547ce2a");
        bytes[82] = 1;
        assert_eq!(code(&bytes), Err(Code::LogCorrupted));
    }

    #[test]
    fn a_header_that_is_not_there_yet_is_no_error_and_another_files_is() {
        let header = header_of(LogFormat::V9, 7, 42);
        assert_eq!(LogHeader::parse(&[], "log", 7).expect("empty"), None);
        assert_eq!(LogHeader::parse(&header[..127], "log", 7).expect("short"), None);
        assert_eq!(LogHeader::parse(&[0; 4096], "log", 7).expect("zeros"), None);
        assert_eq!(LogHeader::parse(&header, "log", 8).map_err(|e| e.code()), Err(Code::LogCorrupted));
        let mut merged = header.clone();
        merged[0] = 11;
        let refused = LogHeader::parse(&merged, "log", 7).expect_err("refuse");
        assert_eq!(refused.code(), Code::Neo4jUnsupported);
        assert!(refused.message().contains("V11 (enveloped"), "{refused}");
        assert!(refused.hint().contains("dump"), "{refused:?}");
        let mut nameless = header;
        nameless[24] = 0;
        assert_eq!(LogHeader::parse(&nameless, "log", 7).map_err(|e| e.code()), Err(Code::LogCorrupted));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = StoreId::parse(&bytes);
            let _ = LogHeader::parse(&bytes, "log", 0);
        }
    }
}
