//! Whether a server that nobody writes to has anything worth archiving. It makes checkpoints and notes which transactions
//! run, after each heartbeat of ours too: a segment that was ended for that alone would be followed by the next one for ever.

use super::name::Segment;
use super::page::{PAGE, PageHeader};
use super::scan::Scanner;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A server's own records of hours are less.
const LOOKED_AT_MAX: u64 = 64 << 10;
/// A page's first bytes are no record's.
const PAGE_HEADER_MAX: u64 = 40;

/// Whether what the segment that is being written holds up to `end` is the server's housekeeping and nothing else. `false`
/// where that cannot be seen: the data directory is elsewhere, or the last of it is not on disk yet.
pub(crate) fn is_quiet(data_directory: &Path, current: Segment, size: u64, end: u64) -> bool {
    let start = current.start(size);
    let length = end.saturating_sub(start);
    if length > LOOKED_AT_MAX {
        return false;
    }
    let mut content = Vec::new();
    let path = data_directory.join("pg_wal").join(current.name(size));
    let pages = length.next_multiple_of(PAGE as u64);
    if File::open(path).and_then(|file| file.take(pages).read_to_end(&mut content)).is_err() {
        return false;
    }
    let begins = PageHeader::parse(&content).is_some_and(|header| header.continued == 0);
    let (mut reached, mut quiet) = (start, true);
    // What lies behind the end is left over from an older segment, which is no news.
    let _ = Scanner::new(current.timeline, size, None).segment(current, &content, &mut |record| {
        if record.start < end {
            quiet &= record.housekeeping;
            reached = record.end;
        }
    });
    begins && quiet && reached + PAGE_HEADER_MAX >= end
}

#[cfg(test)]
mod tests;
