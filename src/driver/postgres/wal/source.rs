//! The log as the archive reads it: the segments of one timeline in the spool, one after the other.
//!
//! A point of the log is a position: `transaction` is the position itself, `file` and `offset` say the same by segment,
//! and `checksum` is the timeline in hex digits, since a position means something within a timeline only.

use super::name::Segment;
use super::page::{self, PAGE, PageHeader};
use super::scan::Scanner;
use super::server::{self, Finished};
use super::spool::{ClusterSpool, Held, Spool};
use crate::artifact::digest::sha256_hex;
use crate::artifact::log_batch::{LogMark, LogSegment};
use crate::artifact::log_point::Lsn;
use crate::base::process::OsUser;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::{HandOver, Intake, LogChunk, LogInbox, LogReader, LogSource, Resumption};
use crate::driver::postgres::connection::{Address, CATALOG_TIMEOUT, within};
use crate::driver::postgres::{control_file, postmaster};
use crate::driver::ranges::{Range, RangesReader};
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Where `pg_control` has the timeline of the last checkpoint.
const CHECKPOINT_TIMELINE: usize = 48;
/// The timeline that `initdb` begins.
pub(super) const FIRST_TIMELINE: u32 = 1;
/// Largest history of a timeline that is kept: a thousand timelines are less.
const HISTORY_BYTES_MAX: u64 = 64 << 10;
/// Timelines above are taken for something else.
const TIMELINE_MAX: u32 = 1 << 24;
/// Most segments in one batch.
const SEGMENTS_MAX: usize = 64;

/// The log of one cluster.
pub(crate) struct PostgresLog {
    /// The target's name, as `archive_command` has it.
    pub(super) target: String,
    pub(super) data_directory: PathBuf,
    pub(super) address: Address,
    spool: Spool,
    /// Whether a replication slot holds it, and not `archive_command` hands it over.
    pub(super) by_slot: bool,
    /// Where the server ended its log for this run.
    finished: Mutex<Option<Finished>>,
}

/// The point `position` of a timeline.
pub(crate) fn mark(timeline: u32, position: u64, size: u64, committed_at: Option<Timestamp>) -> LogMark {
    // A whole segment ends within itself, not at the next one's beginning.
    let file = position.saturating_sub(1) / size;
    LogMark {
        file,
        offset: position - file * size,
        transaction: position,
        began: None,
        checksum: Some(history(timeline)),
        append_index: None,
        committed_at,
    }
}

/// A timeline as points of the log have it.
pub(super) fn history(timeline: u32) -> String {
    format!("{timeline:08x}")
}

/// The timeline that a history's name stands for.
pub(super) fn timeline_in(history: &str) -> Option<u32> {
    u32::from_str_radix(history, 16).ok()
}

/// Whether a text is a history: lines that each name a timeline and the position where it was left.
fn leads_from(text: &str) -> bool {
    let mut lines = text.lines().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| word.parse::<u32>().is_ok()) && words.next().and_then(Lsn::parse).is_some()
    };
    lines.clone().next().is_some() && lines.all(names)
}

/// The timeline of a point.
pub(crate) fn timeline_of(mark: &LogMark) -> Option<u32> {
    timeline_in(mark.checksum.as_deref()?)
}

impl PostgresLog {
    /// The log of the cluster in `data_directory`.
    pub(crate) fn new(
        target: String,
        data_directory: PathBuf,
        address: Address,
        spool: Spool,
        by_slot: bool,
    ) -> PostgresLog {
        PostgresLog { target, data_directory, address, spool, by_slot, finished: Mutex::new(None) }
    }

    /// The target's name.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn cluster(&self) -> Result<u64> {
        Ok(control_file::read(&self.data_directory)?.system_identifier)
    }

    /// What the spool holds of the cluster; without its data directory there is nothing to hold.
    pub(super) fn spooled(&self) -> Result<ClusterSpool<'_>> {
        Ok(self.spool.of_cluster(self.cluster()?))
    }

    /// The newest timeline that the spool has seen.
    pub(crate) fn newest_timeline(&self) -> u32 {
        self.spooled().and_then(|spool| spool.segments()).map_or(0, |held| held.newest_timeline)
    }

    /// The timeline of the last checkpoint, which stands at the same place in all supported versions (`CheckPoint` in
    /// `src/include/catalog/pg_control.h`); 0 = not known.
    fn timeline_on_disk(&self) -> u32 {
        let content = fs::read(self.data_directory.join("global/pg_control")).unwrap_or_default();
        let timeline = page::bytes(&content, CHECKPOINT_TIMELINE).map_or(0, u32::from_ne_bytes);
        if timeline <= TIMELINE_MAX { timeline } else { 0 }
    }

    /// The segment that follows on a point, if the server finished it and it can never come any more.
    fn lost_after(&self, after: &LogMark, timeline: u32) -> Result<Option<String>> {
        let Some(Finished { last, segment_size: size, .. }) = self.finished() else { return Ok(None) };
        let next = next_segment(after, timeline, size);
        let finished = last.timeline == timeline && last.number >= next.number;
        Ok(if finished && self.is_lost(next, size)? { Some(next.name(size)) } else { None })
    }

    fn finished(&self) -> Option<Finished> {
        *self.finished.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl LogInbox for PostgresLog {
    fn owner(&self) -> Result<u32> {
        Ok(OsUser::owner_of(&self.data_directory)?.uid)
    }

    fn take_in(&self, name: &str, piece: &mut File) -> Result<Intake> {
        // A copy of the cluster has the same identity and the same settings; only its files lie elsewhere.
        let own = self.data_directory.join("pg_wal").join(name);
        if let (false, Ok(own), Ok(given)) = (name.contains('/'), fs::metadata(&own), piece.metadata())
            && (own.dev(), own.ino()) != (given.dev(), given.ino())
        {
            let text = format!("{name} comes from another data directory than {}", self.data_directory.display());
            return Err(Error::new(Code::OwnerConflict, text).with_hint(format!(
                "a copy of {0} must not archive as {0}: ALTER SYSTEM SET archive_mode = 'off'; on the copy",
                self.target
            )));
        }
        self.spooled()?.take_in(name, piece)
    }

    fn filling(&self) -> (u64, u64) {
        self.spool.filling()
    }
}

impl LogSource for PostgresLog {
    fn origin(&self, mark: &LogMark) -> Result<Option<String>> {
        let Some(timeline) = timeline_of(mark).filter(|timeline| *timeline > FIRST_TIMELINE) else { return Ok(None) };
        let name = format!("{timeline:08X}.history");
        let file = match self.spooled()?.open(&name)? {
            Some(file) => file,
            // A server that began the timeline before it archived has not handed it over.
            None => match File::open(self.data_directory.join("pg_wal").join(&name)) {
                Ok(file) => file,
                Err(_) => return Ok(None),
            },
        };
        let mut content = Vec::new();
        let read = file.take(HISTORY_BYTES_MAX + 1).read_to_end(&mut content);
        read.map_err(|cause| Error::io("reading", name.as_ref(), cause))?;
        // One that is damaged or boundless is none: a restore of ours needs none either.
        let whole = content.len() as u64 <= HISTORY_BYTES_MAX;
        Ok(String::from_utf8(content).ok().filter(|text| whole && leads_from(text)))
    }

    fn resume(&self, after: &LogMark, _task: &Task) -> Result<Resumption> {
        let Some(timeline) = timeline_of(after) else {
            return Ok(Resumption::Gap("the archive does not say on which timeline it ends".to_owned()));
        };
        let cluster = self.cluster()?;
        let Held { size, segments, newest_timeline } = self.spool.of_cluster(cluster).segments()?;
        let server = self.finished().map_or_else(|| self.timeline_on_disk(), |finished| finished.last.timeline);
        let newest = newest_timeline.max(server);
        let position = Lsn(after.transaction);
        if let Some(lost) = self.lost_after(after, timeline)? {
            return Ok(Resumption::Gap(format!(
                "after {position} the server finished {lost} before it archived its log, and keeps it no more"
            )));
        }
        let Some(size) = size else {
            return Ok(match newest > timeline {
                true => Resumption::Forked(format!("the server is on timeline {newest}, the archive on {timeline}")),
                false => Resumption::Continues(Box::new(Reader::new(self, cluster, after, timeline, newest, None)?)),
            });
        };
        let next = next_segment(after, timeline, size);
        if !segments.contains(&next) {
            let later = segments.iter().find(|segment| segment.timeline == timeline && segment.number > next.number);
            if self.spool.of_cluster(cluster).was_dropped(next, size) {
                return Ok(Resumption::Gap(format!("{} was given up because the spool was full", next.name(size))));
            }
            if let Some(later) = later {
                let (next, later) = (next.name(size), later.name(size));
                return Ok(Resumption::Gap(format!(
                    "after {position} the server handed over {later} and never {next}"
                )));
            }
            if newest > timeline {
                let why = format!("the server went on from timeline {timeline} to {newest} after {position}");
                return Ok(Resumption::Forked(why));
            }
        }
        Ok(Resumption::Continues(Box::new(Reader::new(self, cluster, after, timeline, newest, Some(size))?)))
    }

    fn pulse(&self) -> Option<u64> {
        // What comes into the spool was written before; a server that does not answer is for the round to tell of.
        let address = self.address.clone();
        within(CATALOG_TIMEOUT, "asking for the end of the log", &Task::unobserved(), move || server::end(&address))
            .ok()
    }

    fn finish_current(&self, hand_over: HandOver<'_>, task: &Task) -> Result<()> {
        *self.finished.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        if !postmaster::is_running(&self.data_directory)? {
            // What a stopped server has not handed over, it hands over when it runs again.
            task.info(format!("the server of {} does not run: what it has handed over is archived", self.target));
            return Ok(());
        }
        let finished =
            if self.by_slot { self.finish_by_slot(hand_over, task)? } else { self.finish_by_command(hand_over, task)? };
        *self.finished.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(finished);
        Ok(())
    }

    fn durable(&self, marks: &[LogMark]) -> Result<()> {
        let Some(first) = marks.iter().min_by_key(|mark| mark.transaction) else { return Ok(()) };
        let timelines: Vec<Option<u32>> = marks.iter().map(timeline_of).collect();
        match timeline_of(first) {
            Some(timeline) if timelines.iter().all(|other| *other == Some(timeline)) => {
                self.spooled()?.release(timeline, first.transaction)
            }
            _ => Ok(()),
        }
    }
}

fn next_segment(after: &LogMark, timeline: u32, size: u64) -> Segment {
    let whole = after.offset >= size;
    Segment { timeline, number: if whole { after.file + 1 } else { after.file } }
}

/// Reads segments in their order.
struct Reader {
    spool: Spool,
    cluster: u64,
    timeline: u32,
    position: LogMark,
    size: Option<u64>,
    scanner: Option<Scanner>,
    /// Whether a record that began before what is read may end in it, and was not seen.
    blind: bool,
    /// The newest timeline there is.
    newest: u32,
    finished: Option<Finished>,
}

impl Reader {
    fn new(
        log: &PostgresLog,
        cluster: u64,
        after: &LogMark,
        timeline: u32,
        newest: u32,
        size: Option<u64>,
    ) -> Result<Reader> {
        let mut reader = Reader {
            spool: log.spool.clone(),
            cluster,
            timeline,
            position: after.clone(),
            size,
            scanner: None,
            blind: false,
            newest,
            finished: log.finished(),
        };
        if let Some(size) = size {
            reader.begin(size);
        }
        Ok(reader)
    }

    /// Finds the first record: where a base ends one begins; else the segment before, of which the end is known, shows
    /// what crosses into the next.
    fn begin(&mut self, size: u64) {
        let next = next_segment(&self.position, self.timeline, size);
        if self.position.offset < size {
            self.scanner = Some(Scanner::new(self.timeline, size, Some(self.position.transaction)));
            return;
        }
        let before = Segment { number: next.number.saturating_sub(1), ..next };
        let mut scanner = Scanner::new(self.timeline, size, None);
        let content = fs::read(self.spool.of_cluster(self.cluster).path(before, size));
        let seen = content.is_ok_and(|content| scanner.segment(before, &content, &mut |_| {}).is_ok());
        self.blind = !seen;
        self.scanner = Some(if seen { scanner } else { Scanner::new(self.timeline, size, None) });
    }

    /// Verifies a segment, record by record.
    fn read(&mut self, segment: Segment, size: u64) -> Result<Option<(LogSegment, Range)>> {
        let path = self.spool.of_cluster(self.cluster).path(segment, size);
        let (content, file) = match fs::read(&path).and_then(|content| Ok((content, File::open(&path)?))) {
            Ok(read) => read,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::io("reading", &path, cause)),
        };
        if content.len() as u64 != size {
            let text = format!("{} has {} bytes, not {size}", path.display(), content.len());
            return Err(Error::new(Code::LogCorrupted, text));
        }
        let header = page::check_first(&content[..PAGE], segment, size, self.cluster)?;
        let mut commits = Vec::new();
        let scanner = self.scanner.get_or_insert_with(|| Scanner::new(self.timeline, size, None));
        scanner.segment(segment, &content, &mut |record| commits.extend(record.commit))?;
        let mut times: Vec<Timestamp> = commits.iter().map(|commit| commit.time).collect();
        if std::mem::take(&mut self.blind) && header.continued > 0 {
            // A commit may end here that was not seen begin: it was made before the segment came.
            let came = file.metadata().and_then(|metadata| metadata.modified()).ok();
            times.extend(came.and_then(|came| Timestamp::try_from(came).ok()));
        }
        let range = Range {
            file: Arc::new(file),
            name: path.display().to_string(),
            offset: 0,
            length: size,
            sha256: sha256_hex(&content),
        };
        let described = LogSegment {
            file: segment.number,
            offset: 0,
            length: size,
            sha256: range.sha256.clone(),
            first_transaction: commits.first().map(|commit| u64::from(commit.xid)),
            last_transaction: commits.last().map(|commit| u64::from(commit.xid)),
            transactions: commits.len() as u64,
            first_committed_at: times.iter().min().copied(),
            last_committed_at: times.iter().max().copied(),
            log_format: format_of(&header),
        };
        Ok(Some((described, range)))
    }
}

/// The format's own number, which tells the server's major version.
fn format_of(header: &PageHeader) -> String {
    format!("{:04X}", header.magic)
}

impl LogReader for Reader {
    fn next(&mut self, limit: u64, task: &Task) -> Result<Option<LogChunk>> {
        if self.size.is_none() {
            self.size = self.spool.of_cluster(self.cluster).segments()?.size;
            if let Some(size) = self.size {
                self.begin(size);
            }
        }
        let Some(size) = self.size else { return Ok(None) };
        let start = self.position.clone();
        let mut next = next_segment(&start, self.timeline, size);
        let (mut segments, mut ranges, mut complete) = (Vec::new(), Vec::new(), true);
        let mut latest = start.committed_at;
        loop {
            task.check()?;
            let full = segments.len() >= SEGMENTS_MAX || (segments.len() as u64 + 1) * size > limit.max(size);
            if full {
                complete = !self.spool.of_cluster(self.cluster).path(next, size).exists();
                break;
            }
            let Some((mut segment, range)) = self.read(next, size)? else { break };
            latest = latest.max(segment.last_committed_at);
            // A piece of a long transaction holds no commit; it stands at the last one before.
            let stand = latest.unwrap_or(Timestamp::UNIX_EPOCH);
            segment.first_committed_at.get_or_insert(stand);
            segment.last_committed_at.get_or_insert(stand);
            segments.push(segment);
            ranges.push(range);
            next = next.next();
        }
        if segments.is_empty() {
            return Ok(None);
        }
        self.position = mark(self.timeline, next.start(size), size, latest);
        let covered_until = match complete {
            true => self.covered_until(Timestamp::UNIX_EPOCH).or(latest),
            false => latest,
        };
        let reader = Box::new(RangesReader::new(ranges));
        let covered_until = covered_until.or(Some(Timestamp::UNIX_EPOCH));
        Ok(Some(LogChunk { start, end: self.position.clone(), complete, covered_until, segments, reader }))
    }

    fn covered_until(&self, _asked: Timestamp) -> Option<Timestamp> {
        let (finished, size) = (self.finished?, self.size?);
        let here = finished.last.timeline == self.timeline;
        (here && self.position.transaction >= finished.last.next().start(size)).then_some(finished.until)
    }

    fn is_left(&self) -> bool {
        self.newest > self.timeline
    }
}

#[cfg(test)]
mod tests;
