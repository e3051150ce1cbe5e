//! The bytes of a batch: ranges of log files one after the other, compared once more with what was verified.

use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::VolumeReader;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// An unbroken range of a file that is held open.
pub(in crate::driver) struct Range {
    pub(in crate::driver) file: Arc<File>,
    pub(in crate::driver) name: String,
    pub(in crate::driver) offset: u64,
    pub(in crate::driver) length: u64,
    /// Of the bytes that were verified.
    pub(in crate::driver) sha256: String,
}

/// Reads ranges one after the other.
pub(in crate::driver) struct RangesReader {
    ranges: Vec<Range>,
    current: usize,
    /// Bytes of the current range that went out.
    done: u64,
    hasher: Sha256,
}

impl RangesReader {
    pub(in crate::driver) fn new(ranges: Vec<Range>) -> Self {
        RangesReader { ranges, current: 0, done: 0, hasher: Sha256::new() }
    }

    /// Closes the current range.
    fn close(&mut self) -> Result<()> {
        let range = &self.ranges[self.current];
        if hex::encode(self.hasher.finalize_reset()) != range.sha256 {
            let Range { name, offset, length, .. } = range;
            let text = format!("{name} changed after it was verified, within {length} bytes from byte {offset}");
            return Err(Error::new(Code::LogCorrupted, text));
        }
        self.current += 1;
        self.done = 0;
        Ok(())
    }
}

impl Read for RangesReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(range) = self.ranges.get(self.current) {
            let left = range.length - self.done;
            if left == 0 {
                self.close()?;
                continue;
            }
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = range.file.read_at(&mut buffer[..wanted], range.offset + self.done)?;
            if count == 0 {
                let text = format!("{} was cut short after it was verified", range.name);
                return Err(Error::new(Code::LogCorrupted, text).into());
            }
            self.hasher.update(&buffer[..count]);
            self.done += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

impl VolumeReader for RangesReader {
    fn finish(mut self: Box<Self>, _task: &Task) -> Result<()> {
        if self.ranges.get(self.current).is_some_and(|range| range.length == self.done) {
            self.close()?;
        }
        match self.ranges.get(self.current) {
            None => Ok(()),
            Some(range) => {
                Err(Error::new(Code::Internal, format!("a batch of the log was not read to its end: {}", range.name)))
            }
        }
    }
}
