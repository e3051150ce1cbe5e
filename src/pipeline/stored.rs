//! The check of stored bytes alone, without opening them.

use super::chain::BUFFER_BYTES;
use super::seal::read_some;
use super::unseal::{corrupted, expect_end};
use crate::artifact::digest::PART_SIZE;
use crate::artifact::manifest::ObjectRecord;
use crate::base::Result;
use crate::base::task::Task;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::ops::Range;

/// Compares some of an object's parts with its record. `source` begins with the first of them and has to end after the
/// last. Returns the number of bytes read, which are counted as the task's progress.
///
/// The SHA-256 of the whole object is not compared: where every part is as recorded, so is what they make together.
///
/// Errors: `BACKUP_CORRUPTED` naming the object and the part, `CANCELLED`, and whatever `source` reports.
pub fn verify_stored<R: Read + ?Sized>(
    record: &ObjectRecord,
    parts: Range<usize>,
    source: &mut R,
    task: &Task,
) -> Result<u64> {
    let (what, all) = (format!("object {}", record.key), record.stored.parts.len());
    let Some(expected) = record.stored.parts.get(parts.clone()).filter(|_| record.stored.is_consistent()) else {
        return Err(corrupted(record, "its record makes no sense"));
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut done = 0;
    for (index, expected) in parts.zip(expected) {
        let number = format!("part {} of {all}", index + 1);
        let begin = index as u64 * PART_SIZE;
        let size = PART_SIZE.min(record.stored.size - begin);
        let (mut hasher, mut missing) = (Sha256::new(), size);
        while missing > 0 {
            task.check()?;
            let room = missing.min(BUFFER_BYTES as u64) as usize;
            let read = read_some(source, &mut buffer[..room], &what)?;
            if read == 0 {
                let end = begin + size - missing;
                return Err(corrupted(
                    record,
                    format!("it ends after {end} of {} bytes, in {number}", record.stored.size),
                ));
            }
            hasher.update(&buffer[..read]);
            missing -= read as u64;
            task.advance(read as u64);
        }
        if !hex::encode(hasher.finalize()).eq_ignore_ascii_case(expected) {
            return Err(corrupted(record, format!("the SHA-256 of {number} is not the one on record")));
        }
        done += size;
    }
    expect_end(record, source, &what)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{bytes, sealed, spec};
    use super::super::{Compression, Protection, SealSpec};
    use super::*;
    use crate::base::Code;

    #[test]
    fn parts_are_checked_in_stretches_and_damage_is_found_in_its_own() {
        let spec = SealSpec { protection: Protection::Plain, ..spec(Compression::None) };
        let part = PART_SIZE as usize;
        let (record, mut stored) = sealed(&bytes(2 * part + 1), &spec);
        let check = |parts: Range<usize>, stored: &[u8]| {
            let stretch = &stored[parts.start * part..stored.len().min(parts.end * part)];
            verify_stored(&record, parts, &mut &stretch[..], &Task::unobserved())
        };
        for (parts, size) in [(0..3, 2 * part + 1), (0..2, 2 * part), (1..2, part), (2..3, 1), (1..1, 0)] {
            assert_eq!(check(parts.clone(), &stored).ok(), Some(size as u64), "{parts:?}");
        }
        stored[part + 7] ^= 1;
        assert!(check(0..1, &stored).is_ok() && check(2..3, &stored).is_ok());
        let error = check(1..3, &stored).expect_err("damaged");
        assert_eq!(error.code(), Code::BackupCorrupted);
        assert!(error.to_string().contains("part 2 of 3"), "{error}");
        let missing = verify_stored(&record, 0..4, &mut &stored[..], &Task::unobserved());
        assert_eq!(missing.err().map(|e| e.code()), Some(Code::BackupCorrupted), "a part that is not on record");
    }
}
