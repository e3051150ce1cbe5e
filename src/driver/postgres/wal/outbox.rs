//! What `restore_command` asks for: segments by their names, and how timelines came to be.

use super::name::{Segment, WalFile, is_segment_size};
use super::page::{self, PAGE};
use super::source::{FIRST_TIMELINE, PostgresLog, history, timeline_in};
use crate::base::{Code, Error, Result};
use crate::driver::log::{Asked, LogOutbox, Piece};
use std::fs::{self, File};
use std::io::{self, Read, Seek};

/// Characters of a segment's name.
const SEGMENT_NAME: usize = 24;
/// Any size of segments, to read names that hold none.
const ANY_SIZE: u64 = 16 << 20;

impl PostgresLog {
    /// Bytes of a segment of this cluster. A wrong guess would take one segment for another: where neither the spool
    /// nor the cluster itself holds one, that is an error.
    fn segment_size(&self) -> Result<u64> {
        if let Some(size) = self.spooled()?.segments()?.size {
            return Ok(size);
        }
        let directory = self.data_directory.join("pg_wal");
        let entries = fs::read_dir(&directory).map_err(|cause| Error::io("listing", &directory, cause))?;
        for entry in entries.flatten() {
            let named = entry.file_name().to_str().is_some_and(|name| name.len() == SEGMENT_NAME);
            if let (true, Ok(data)) = (named, entry.metadata())
                && is_segment_size(data.len())
            {
                return Ok(data.len());
            }
        }
        let text = format!("{} holds no segment that would show how large they are", directory.display());
        Err(Error::new(Code::PostgresUnsupported, text))
    }
}

impl LogOutbox for PostgresLog {
    fn asked(&self, name: &str) -> Result<Asked> {
        let size = if name.len() == SEGMENT_NAME { self.segment_size()? } else { ANY_SIZE };
        let stream = self.cluster()?.to_string();
        match WalFile::parse(name, size)? {
            WalFile::Segment(Segment { timeline, number }) => {
                Ok(Asked::Piece(Piece { stream, history: history(timeline), file: number, length: size }))
            }
            // The first timeline came from nowhere.
            WalFile::History(FIRST_TIMELINE) => Ok(Asked::Nothing),
            WalFile::History(timeline) => Ok(Asked::Origin { stream, history: history(timeline) }),
            WalFile::Label(_) | WalFile::Partial(_) => {
                let text = format!("{name} is not archived: no recovery needs it");
                Err(Error::new(Code::ObjectNotFound, text))
            }
        }
    }

    fn waiting(&self, name: &str) -> Result<Option<File>> {
        let spool = self.spooled()?;
        let Some(mut file) = spool.open(name)? else { return Ok(None) };
        let reading = |cause: io::Error| Error::io("reading", name.as_ref(), cause);
        let size = file.metadata().map_err(reading)?.len();
        if let WalFile::Segment(segment) = WalFile::parse(name, size)? {
            let mut first = [0; PAGE];
            file.read_exact(&mut first).and_then(|()| file.rewind()).map_err(reading)?;
            page::check_first(&first, segment, size, self.cluster()?)?;
        }
        Ok(Some(file))
    }

    fn name_of(&self, history: &str, file: u64, length: u64) -> Option<String> {
        let timeline = timeline_in(history).filter(|_| is_segment_size(length))?;
        Some(Segment { timeline, number: file }.name(length))
    }
}
