//! Opens a batch's object: authenticated part by part, decrypted, decompressed, and every range of the log compared with
//! its own digest.

use crate::artifact::log_batch::LogSegment;
use crate::artifact::manifest::ObjectRecord;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::context::Target;
use crate::pipeline;
use crate::repository::catalog::Repository;
use sha2::{Digest, Sha256};
use std::io::Write;

/// Writes the plaintext to `sink`. What came out before an error is to be thrown away.
pub(crate) fn open(
    repository: &Repository,
    target: &Target,
    object: &ObjectRecord,
    segments: &[LogSegment],
    sink: &mut (dyn Write + Send),
    task: &Task,
) -> Result<()> {
    let mut stored = repository.store().read(&object.key, None)?;
    let keyring = target.keyring.get()?;
    let mut checked = SegmentCheck { sink, segments, object, left: 0, hasher: Sha256::new(), begun: false };
    pipeline::unseal(object, &keyring, &target.read_policy, &mut stored, &mut checked, task)?;
    checked.finish()
}

/// Compares each range that passes with its digest.
struct SegmentCheck<'a> {
    sink: &'a mut (dyn Write + Send),
    /// Ranges that have not ended.
    segments: &'a [LogSegment],
    object: &'a ObjectRecord,
    /// Bytes left of the first of them, once it has begun.
    left: u64,
    begun: bool,
    hasher: Sha256,
}

impl SegmentCheck<'_> {
    fn damaged(&self, why: &str) -> Error {
        let which = self
            .segments
            .first()
            .map_or(String::new(), |segment| format!(" (log file {} from byte {})", segment.file, segment.offset));
        Error::new(Code::BackupCorrupted, format!("object {}{which}: {why}", self.object.key))
    }

    /// Begins the next range and ends it, as often as there is nothing left of it.
    fn turn(&mut self) -> Result<()> {
        while let Some((first, rest)) = self.segments.split_first() {
            if !self.begun {
                (self.left, self.begun) = (first.length, true);
            }
            if self.left > 0 {
                return Ok(());
            }
            let found = hex::encode(self.hasher.finalize_reset());
            if !found.eq_ignore_ascii_case(&first.sha256) {
                return Err(self.damaged("the SHA-256 of a range of the log is not the one on record"));
            }
            (self.segments, self.begun) = (rest, false);
        }
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.turn()?;
            if self.segments.is_empty() {
                return Err(self.damaged("it holds more than the ranges on record"));
            }
            let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(count);
            self.hasher.update(now);
            self.left -= count as u64;
            bytes = later;
        }
        self.turn()
    }

    fn finish(mut self) -> Result<()> {
        self.turn()?;
        if self.segments.is_empty() { Ok(()) } else { Err(self.damaged("it ends before the ranges on record do")) }
    }
}

impl Write for SegmentCheck<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.take(bytes)?;
        self.sink.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}
