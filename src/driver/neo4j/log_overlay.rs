//! Lays archived log over the log of a restored base.
//!
//! The base's log is the beginning of the archive's: where both have bytes, they must be the same, or the two belong to
//! different histories and nothing is replayed.

use super::log::TRANSACTIONS;
use crate::artifact::log_batch::{LogBatch, LogMark, LogSegment};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::VolumeSink;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Takes the bytes of one batch.
pub(super) struct LogSink {
    directory: PathBuf,
    /// Where the base's own log ends.
    base: LogMark,
    segments: VecDeque<LogSegment>,
    open: Option<Open>,
}

struct Open {
    path: PathBuf,
    file: File,
    offset: u64,
    left: u64,
    /// Bytes before this one are the base's and must not differ.
    compared_below: u64,
}

impl LogSink {
    /// Lays `batch` over the logs in `directory`, where the base ends at `base`.
    pub(super) fn new(directory: &Path, base: &LogMark, batch: &LogBatch) -> Self {
        let segments = batch.segments.iter().filter(|segment| segment.length > 0).cloned().collect();
        LogSink { directory: directory.to_owned(), base: base.clone(), segments, open: None }
    }

    fn open_next(&mut self) -> Result<&mut Open> {
        let segment = self
            .segments
            .pop_front()
            .ok_or_else(|| Error::new(Code::BackupCorrupted, "the batch holds more bytes than its segments"))?;
        let path = self.directory.join(format!("{TRANSACTIONS}{}", segment.file));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|cause| Error::io("opening", &path, cause))?;
        let compared_below = match segment.file.cmp(&self.base.file) {
            std::cmp::Ordering::Less => u64::MAX,
            std::cmp::Ordering::Equal => self.base.offset,
            std::cmp::Ordering::Greater => 0,
        };
        let length = file.metadata().map_err(|cause| Error::io("examining", &path, cause))?.len();
        // Bytes of a file that the base did not need lie before its start; there is nothing to compare them with.
        let compared_below = compared_below.min(length);
        Ok(self.open.insert(Open { path, file, offset: segment.offset, left: segment.length, compared_below }))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let open = match &mut self.open {
            Some(open) if open.left > 0 => open,
            _ => self.open_next()?,
        };
        let count = bytes.len().min(usize::try_from(open.left).unwrap_or(usize::MAX));
        let piece = &bytes[..count];
        let shared = usize::try_from(open.compared_below.saturating_sub(open.offset)).unwrap_or(usize::MAX).min(count);
        let fail = |cause| Error::io("laying the log over", &open.path, cause);
        if shared > 0 {
            let mut there = vec![0; shared];
            open.file.read_exact_at(&mut there, open.offset).map_err(fail)?;
            if there != piece[..shared] {
                let text = format!(
                    "{} differs from the archived log before byte {}: they are of different histories",
                    open.path.display(),
                    open.offset + shared as u64
                );
                return Err(Error::new(Code::LogForked, text));
            }
        }
        open.file.write_all_at(&piece[shared..], open.offset + shared as u64).map_err(fail)?;
        open.offset += count as u64;
        open.left -= count as u64;
        Ok(count)
    }
}

impl Write for LogSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        Ok(self.take(bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl VolumeSink for LogSink {
    fn finish(self: Box<Self>, _task: &Task) -> Result<()> {
        if self.segments.is_empty() && self.open.is_none_or(|open| open.left == 0) {
            return Ok(());
        }
        Err(Error::new(Code::BackupCorrupted, "the batch holds fewer bytes than its segments"))
    }
}
