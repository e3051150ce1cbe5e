//! Stored bytes to plaintext, each part authenticated before any of it is used.

use super::chain::{self, BUFFER_BYTES, Buffer, Feed, Stage};
use super::decompress::{GzipDecompress, ZstdDecompress};
use super::decrypt::Decrypt;
use super::measure::PlainMeter;
use super::seal::{SALT_POLICY, flush, read_some, write_all};
use super::{AES_256_CBC, DEFAULT_ITERATIONS, Filter, GZIP, Outlet, ZSTD};
use crate::artifact::digest::PART_SIZE;
use crate::artifact::manifest::ObjectRecord;
use crate::artifact::signing::Keyring;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

/// Buffers in a part. A whole part waits before the first stage, so that the next one is read and checked meanwhile:
/// two parts, 32 MiB, are in memory at most.
const PART_BUFFERS: usize = PART_SIZE as usize / BUFFER_BYTES;
const _: () = assert!((PART_SIZE as usize).is_multiple_of(BUFFER_BYTES));
/// Most filters in a record.
const FILTERS_MAX: usize = 4;

/// What the configuration demands of objects that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Fewest PBKDF2 iterations.
    pub minimum_iterations: u32,
    /// Whether objects that are not encrypted are acceptable.
    pub allow_plain: bool,
}

impl Default for ReadPolicy {
    fn default() -> Self {
        ReadPolicy { minimum_iterations: DEFAULT_ITERATIONS, allow_plain: false }
    }
}

/// Reads an object's stored bytes from `source` and writes its plaintext to `sink`.
///
/// `record` comes from a manifest whose signature was checked. Each part of 16 MiB is compared with its SHA-256 in
/// the record before any of it is decrypted or handed on; the plaintext never exceeds the size in the record, and its
/// size and digests are compared at the end. A failure may come after much of the plaintext was written: what was
/// written then is to be thrown away. Counts plaintext as the task's progress.
///
/// Errors: `BACKUP_CORRUPTED` naming the object and the part, `WRONG_KEY` if the key is not at hand, `DOWNGRADE_REFUSED`
/// if the object is less protected than `policy` demands, `FORMAT_UNSUPPORTED` for a filter this release does not know,
/// `CANCELLED`, and whatever `source` and `sink` report.
pub fn unseal(
    record: &ObjectRecord,
    keyring: &Keyring,
    policy: &ReadPolicy,
    source: &mut (dyn Read + Send),
    sink: &mut (dyn Write + Send),
    task: &Task,
) -> Result<()> {
    let what = format!("object {}", record.key);
    let mut plain_sha256 = record.plain.sha256.is_some().then(Sha256::new);
    let mut stages = Vec::new();
    for filter in reversed_filters(record, keyring, policy)? {
        stages.push(Stage::filter(OfObject { filter, what: &what }));
    }
    if let Some(hasher) = plain_sha256.as_mut() {
        stages.push(Stage::look("sha256 plain", |bytes| hasher.update(bytes)));
    }
    let mut meter = PlainMeter::default();
    let read = |feed: &mut Feed<'_>| read_parts(record, source, feed, task);
    let plaintext = format!("the plaintext of {}", record.key);
    let write = |bytes: &[u8]| {
        meter.update(bytes);
        if meter.size() > record.plain.size {
            return Err(corrupted(record, format!("it holds more than the {} bytes on record", record.plain.size)));
        }
        write_all(sink, bytes, &plaintext)?;
        task.advance(bytes.len() as u64);
        Ok(())
    };
    chain::run(task, PART_BUFFERS, read, stages, write)?;
    let found = meter.finish(plain_sha256);
    if found.size != record.plain.size {
        let said = format!("it holds {} bytes, {} are on record", found.size, record.plain.size);
        return Err(corrupted(record, said));
    }
    if !found.crc32c.eq_ignore_ascii_case(&record.plain.crc32c) {
        return Err(corrupted(record, "the CRC-32C of its plaintext is not the one on record"));
    }
    if let (Some(found), Some(expected)) = (&found.sha256, &record.plain.sha256)
        && !found.eq_ignore_ascii_case(expected)
    {
        return Err(corrupted(record, "the SHA-256 of its plaintext is not the one on record"));
    }
    flush(sink, &plaintext)
}

pub(super) fn corrupted(record: &ObjectRecord, why: impl std::fmt::Display) -> Error {
    Error::new(Code::BackupCorrupted, format!("object {}: {why}", record.key))
}

/// The filters that turn stored bytes into plain ones, in the order in which they run.
fn reversed_filters(record: &ObjectRecord, keyring: &Keyring, policy: &ReadPolicy) -> Result<Vec<Box<dyn Filter>>> {
    let unsupported = |why: String| Error::new(Code::FormatUnsupported, format!("object {}: {why}", record.key));
    if record.filters.len() > FILTERS_MAX {
        return Err(unsupported(format!("it has {} filters, more than {FILTERS_MAX}", record.filters.len())));
    }
    if let Some(name) = record.filters.iter().find(|name| ![ZSTD, GZIP, AES_256_CBC].contains(&name.as_str())) {
        return Err(unsupported(format!("its filter {name:?} is not known")));
    }
    let encrypted = record.filters.iter().filter(|name| *name == AES_256_CBC).count();
    if encrypted > 1 || (encrypted == 1) != record.encryption.is_some() || !record.stored.is_consistent() {
        return Err(corrupted(record, "its record makes no sense"));
    }
    check_policy(record, policy)?;
    let mut chain: Vec<Box<dyn Filter>> = Vec::with_capacity(record.filters.len());
    for name in record.filters.iter().rev() {
        match (name.as_str(), &record.encryption) {
            (ZSTD, _) => chain.push(Box::new(ZstdDecompress::new()?)),
            (GZIP, _) => chain.push(Box::new(GzipDecompress::new())),
            (_, Some(encryption)) => {
                if encryption.salt != SALT_POLICY {
                    return Err(unsupported(format!("its salt policy {:?} is not known", encryption.salt)));
                }
                let key = keyring.find(&encryption.key_id, &format!("object {}", record.key))?;
                chain.push(Box::new(Decrypt::new(key.passphrase(), encryption.iterations)?));
            }
            (name, None) => return Err(unsupported(format!("its filter {name:?} is not known"))),
        }
    }
    Ok(chain)
}

/// Whether the object is protected as well as this configuration demands.
fn check_policy(record: &ObjectRecord, policy: &ReadPolicy) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Code::Downgrade, format!("object {}: {why}", record.key)));
    match &record.encryption {
        None if !policy.allow_plain => refuse("it is not encrypted".to_owned()),
        Some(found) if found.iterations < policy.minimum_iterations => refuse(format!(
            "its key was derived with {} PBKDF2 iterations, fewer than {}",
            found.iterations, policy.minimum_iterations
        )),
        _ => Ok(()),
    }
}

/// Reads the object part by part, and hands a part on only when its SHA-256 is the one on record; the last one only
/// when nothing follows it.
fn read_parts<R: Read + ?Sized>(record: &ObjectRecord, source: &mut R, feed: &mut Feed<'_>, task: &Task) -> Result<()> {
    let what = format!("object {}", record.key);
    let parts = &record.stored.parts;
    if !record.stored.is_consistent() {
        return Err(corrupted(record, "its record makes no sense"));
    }
    let mut part: Vec<Buffer> = Vec::with_capacity(PART_BUFFERS);
    let mut left = record.stored.size;
    for (index, expected) in parts.iter().enumerate() {
        let number = format!("part {} of {}", index + 1, parts.len());
        let mut hasher = Sha256::new();
        let mut missing = left.min(PART_SIZE);
        left -= missing;
        while missing > 0 {
            task.check()?;
            let mut buffer = feed.take();
            let size = missing.min(BUFFER_BYTES as u64) as usize;
            while buffer.content().len() < size {
                let wanted = size - buffer.content().len();
                let read = read_some(source, &mut buffer.free()[..wanted], &what)?;
                if read == 0 {
                    let end = record.stored.size - left - missing + buffer.content().len() as u64;
                    let said = format!("it ends after {end} of {} bytes, in {number}", record.stored.size);
                    return Err(corrupted(record, said));
                }
                buffer.filled(read);
            }
            hasher.update(buffer.content());
            missing -= size as u64;
            part.push(buffer);
        }
        if !hex::encode(hasher.finalize()).eq_ignore_ascii_case(expected) {
            return Err(corrupted(record, format!("the SHA-256 of {number} is not the one on record")));
        }
        if left == 0 {
            expect_end(record, source, &what)?;
        }
        for buffer in part.drain(..) {
            feed.send(buffer)?;
        }
    }
    if parts.is_empty() { expect_end(record, source, &what) } else { Ok(()) }
}

pub(super) fn expect_end<R: Read + ?Sized>(record: &ObjectRecord, source: &mut R, what: &str) -> Result<()> {
    match read_some(source, &mut [0u8; 1], what)? {
        0 => Ok(()),
        _ => {
            let said =
                format!("bytes follow the {} on record, after part {}", record.stored.size, record.stored.parts.len());
            Err(corrupted(record, said))
        }
    }
}

/// A filter of an object whose stored bytes are as signed: if it fails all the same, the object is named, and a
/// passphrase cannot be the reason, since the key id was found in the signed record.
struct OfObject<'a> {
    filter: Box<dyn Filter>,
    what: &'a str,
}

impl OfObject<'_> {
    fn explain(&self, error: Error) -> Error {
        match error.code() {
            Code::WrongKey | Code::BackupCorrupted => error
                .recode(Code::BackupCorrupted)
                .with_hint(Code::BackupCorrupted.hint())
                .context(format_args!("{}: its stored bytes are as signed, but", self.what)),
            _ => error,
        }
    }
}

impl Filter for OfObject<'_> {
    fn name(&self) -> &'static str {
        self.filter.name()
    }

    fn push(&mut self, input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        self.filter.push(input, output).map_err(|error| self.explain(error))
    }

    fn finish(&mut self, output: &mut dyn Outlet) -> Result<()> {
        self.filter.finish(output).map_err(|error| self.explain(error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{COMPRESSIONS, FEW, POLICY, bytes, key, keyring, opened, other_key, sealed, spec};
    use super::super::{Compression, Protection, SealSpec, verify_stored};
    use super::*;
    use crate::artifact::digest::StoredDigest;
    use crate::artifact::manifest::PlainDigest;
    use proptest::prelude::*;

    const PART: usize = PART_SIZE as usize;

    fn check(record: &ObjectRecord, stored: &[u8]) -> Result<u64> {
        verify_stored(record, 0..record.stored.parts.len(), &mut &stored[..], &Task::unobserved())
    }

    #[test]
    fn what_was_sealed_opens_again() {
        let protections = [Protection::Encrypted { key: key(), iterations: FEW }, Protection::Plain];
        for size in [0, 1, 15, 16, 17, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3_000_000] {
            let plain = bytes(size);
            for compression in COMPRESSIONS {
                for protection in &protections {
                    let spec = SealSpec { compression, protection: protection.clone(), hash_plain: size % 2 == 0 };
                    let (record, stored) = sealed(&plain, &spec);
                    assert_eq!(record.stored, StoredDigest::of(&stored));
                    assert_eq!(record.plain.size, size as u64);
                    assert_eq!(check(&record, &stored).ok(), Some(stored.len() as u64));
                    let (result, out) = opened(&record, &stored);
                    result.unwrap_or_else(|e| panic!("{size} {compression:?}: {e}"));
                    assert!(out == plain, "{size} {compression:?}");
                }
            }
        }
    }

    #[test]
    fn the_record_tells_the_filters_in_order() {
        let (record, _) = sealed(b"x", &spec(Compression::Zstd { level: 3, workers: 1 }));
        assert_eq!(record.filters, ["zstd", "aes-256-cbc"]);
        let encryption = record.encryption.expect("encrypted");
        assert_eq!((encryption.key_id.as_str(), encryption.iterations), (key().id().as_str(), FEW));
        assert_eq!(record.plain.crc32c, format!("{:08x}", crc32c::crc32c(b"x")));
    }

    // req: K6
    #[test]
    fn each_part_is_checked_before_any_of_it_is_used() {
        let plain = bytes(2 * PART + 5);
        let (record, stored) = sealed(&plain, &SealSpec { protection: Protection::Plain, ..spec(Compression::None) });
        for (position, part) in [(0, 1), (PART - 1, 1), (PART, 2), (2 * PART - 1, 2), (2 * PART, 3), (2 * PART + 4, 3)]
        {
            let mut changed = stored.clone();
            changed[position] ^= 1;
            let (result, out) = opened(&record, &changed);
            let error = result.expect_err("changed bytes pass");
            assert_eq!(error.code(), Code::BackupCorrupted);
            assert!(error.message().contains(&format!("part {part} of 3")), "{error}");
            assert!(error.message().contains(record.key.as_str()), "{error}");
            assert!(out.len() <= (part - 1) * PART && plain.starts_with(&out), "part {part} came through");
            assert!(check(&record, &changed).expect_err("verify").message().contains(&format!("part {part} of 3")));
        }
    }

    #[test]
    fn stored_bytes_that_are_cut_or_longer_are_refused() {
        let plain = bytes(PART + 4096);
        let (record, stored) = sealed(&plain, &spec(Compression::None));
        for length in [0, 1, 16, PART - 1, PART, PART + 1, stored.len() - 16, stored.len() - 1] {
            let (result, out) = opened(&record, &stored[..length]);
            assert_eq!(result.as_ref().map_err(Error::code), Err(Code::BackupCorrupted), "{length}");
            assert!(out.len() <= length / PART * PART, "{length}");
            let error = check(&record, &stored[..length]).expect_err("verify");
            assert!(error.message().contains(&format!("ends after {length} of")), "{error}");
        }
        let longer = [&stored[..], b"x"].concat();
        let (result, out) = opened(&record, &longer);
        assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted));
        assert!(out.len() <= PART, "the last part came through");
        assert_eq!(check(&record, &longer).map_err(|e| e.code()), Err(Code::BackupCorrupted));
    }

    #[test]
    fn parts_that_changed_places_are_refused() {
        let (record, stored) = sealed(&bytes(3 * PART), &spec(Compression::None));
        let swapped = [&stored[PART..2 * PART], &stored[..PART], &stored[2 * PART..]].concat();
        assert_eq!(opened(&record, &swapped).0.map_err(|e| e.code()), Err(Code::BackupCorrupted));
        assert_eq!(check(&record, &swapped).map_err(|e| e.code()), Err(Code::BackupCorrupted));
    }

    #[test]
    fn a_weaker_protection_than_demanded_is_refused() {
        let open = |record: &ObjectRecord, stored: &[u8], policy: ReadPolicy| {
            let mut out = Vec::new();
            let result = unseal(record, &keyring(), &policy, &mut &stored[..], &mut out, &Task::unobserved());
            assert_eq!(result.is_ok(), !out.is_empty());
            result.map_err(|e| e.code())
        };
        let strict = ReadPolicy::default();
        assert_eq!((strict.minimum_iterations, strict.allow_plain), (100_000, false));
        let (record, stored) = sealed(b"data", &spec(Compression::None));
        assert_eq!(open(&record, &stored, strict), Err(Code::Downgrade));
        assert_eq!(open(&record, &stored, ReadPolicy { minimum_iterations: FEW, ..strict }), Ok(()));
        let (plain_record, stored) =
            sealed(b"data", &SealSpec { protection: Protection::Plain, ..spec(Compression::None) });
        assert_eq!(open(&plain_record, &stored, strict), Err(Code::Downgrade));
        assert_eq!(open(&plain_record, &stored, ReadPolicy { allow_plain: true, ..strict }), Ok(()));
        // A record that names the filter and not the key, or the other way round.
        let mixed = ObjectRecord { encryption: record.encryption.clone(), ..plain_record };
        assert_eq!(open(&mixed, &stored, POLICY), Err(Code::BackupCorrupted));
        let mixed = ObjectRecord { encryption: None, ..record };
        assert_eq!(open(&mixed, &stored, POLICY), Err(Code::BackupCorrupted));
    }

    #[test]
    fn another_key_and_an_unknown_filter_are_named() {
        let spec = SealSpec {
            protection: Protection::Encrypted { key: other_key(), iterations: FEW },
            ..spec(Compression::Gzip(6))
        };
        let (record, stored) = sealed(b"data", &spec);
        let error = opened(&record, &stored).0.expect_err("other key");
        assert_eq!(error.code(), Code::WrongKey);
        assert!(error.message().contains(other_key().id().as_str()), "{error}");
        let mut record = record;
        record.filters[0] = "brotli".to_owned();
        let error = opened(&record, &stored).0.expect_err("unknown filter");
        assert_eq!(error.code(), Code::FormatUnsupported);
        assert!(error.message().contains("brotli"), "{error}");
        record.filters[0] = "gzip".to_owned();
        record.encryption.as_mut().expect("encrypted").iterations = u32::MAX;
        assert_eq!(opened(&record, &stored).0.map_err(|e| e.code()), Err(Code::WrongKey));
        record.encryption.as_mut().expect("encrypted").key_id = key().id().clone();
        assert_eq!(opened(&record, &stored).0.map_err(|e| e.code()), Err(Code::FormatUnsupported));
    }

    #[test]
    fn plaintext_that_is_not_the_recorded_one_is_refused() {
        let plain = bytes(3_000_000);
        for compression in COMPRESSIONS {
            let (good, stored) = sealed(&plain, &spec(compression));
            let recorded = &good.plain;
            for wrong in [
                PlainDigest { size: recorded.size - 1, ..recorded.clone() },
                PlainDigest { size: recorded.size + 1, ..recorded.clone() },
                PlainDigest { crc32c: "00000000".to_owned(), ..recorded.clone() },
                PlainDigest { sha256: Some("0".repeat(64)), ..recorded.clone() },
            ] {
                let bad = ObjectRecord { plain: wrong, ..good.clone() };
                let (result, out) = opened(&bad, &stored);
                assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted));
                assert!(out.len() as u64 <= bad.plain.size, "more than the recorded size came out");
            }
        }
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_recorded_size() {
        for compression in [Compression::Zstd { level: 19, workers: 0 }, Compression::Gzip(9)] {
            let (mut record, stored) = sealed(&vec![0; 64 << 20], &spec(compression));
            assert!(stored.len() < 1 << 20);
            record.plain.size = 1000;
            let (result, out) = opened(&record, &stored);
            assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted));
            assert!(out.len() <= 1000);
        }
    }

    /// A record signed over bytes that are wrong all the same: every filter finds its own damage.
    #[test]
    fn damage_below_a_right_signature_is_still_an_error() {
        let plain = bytes(300_000);
        for compression in COMPRESSIONS {
            for encrypted in [true, false] {
                let mut spec = spec(compression);
                if !encrypted {
                    spec.protection = Protection::Plain;
                }
                let (record, stored) = sealed(&plain, &spec);
                for cut in [0, 1, 7, 8, 15, 16, 17, 31, 33, stored.len() / 2, stored.len() - 16, stored.len() - 1] {
                    let bytes = &stored[..cut];
                    let bad = ObjectRecord { stored: StoredDigest::of(bytes), ..record.clone() };
                    let (result, out) = opened(&bad, bytes);
                    let error = result.expect_err("a cut stream opens");
                    assert_eq!(error.code(), Code::BackupCorrupted, "{error}");
                    assert!(error.message().contains(bad.key.as_str()), "{error}");
                    assert!(plain.starts_with(&out) || encrypted);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_changed_byte_passes(position in any::<proptest::sample::Index>(), bit in 0u8..8, which in 0usize..4) {
            let plain = bytes(20_000);
            let (record, mut stored) = sealed(&plain, &spec(COMPRESSIONS[which]));
            let position = position.index(stored.len());
            stored[position] ^= 1 << bit;
            let (result, out) = opened(&record, &stored);
            prop_assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted));
            prop_assert!(out.is_empty());
            prop_assert!(check(&record, &stored).is_err());
        }

        #[test]
        fn any_bytes_survive_the_journey(plain in proptest::collection::vec(any::<u8>(), 0..5000), which in 0usize..4) {
            let (record, stored) = sealed(&plain, &spec(COMPRESSIONS[which]));
            let (result, out) = opened(&record, &stored);
            prop_assert!(result.is_ok());
            prop_assert_eq!(out, plain);
        }
    }
}
