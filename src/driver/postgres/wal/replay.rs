//! What a restore does with the log: segments are laid into the restored `pg_wal`, from where recovery reads them.
//!
//! Nothing is left to be found out by the server: every record up to the target has been read and its checksum compared
//! before one starts, so that where recovery must end is known to the byte. Recovery always ends on a timeline that no
//! archive has seen, since a cluster that went on under the old one would write other segments under archived names.

use super::name::{Segment, is_segment_size};
use super::scan::{Record, Scanner};
use super::search::search;
use super::source::{mark, timeline_of};
use crate::artifact::log_batch::{LogBatch, LogMark};
use crate::artifact::log_point::Lsn;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::driver::VolumeSink;
use crate::driver::log::RecoveryTarget;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Where the log is in a data directory.
pub(crate) const WAL: &str = "pg_wal";
/// Where the server keeps what became of each segment.
const STATUS: &str = "pg_wal/archive_status";
/// The settings that `ALTER SYSTEM` writes, which overrule all others.
pub(crate) const OWN_SETTINGS: &str = "postgresql.auto.conf";
/// Begins what is added to them.
const SETTINGS_MARK: &str =
    "# How neo4j-backup left recovery to the first start; without recovery.signal it means nothing.";
/// How the timelines below the first one look: there are none.
const FIRST_TIMELINE: u32 = 1;

/// How far a server recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// To the end of the log that is there.
    End,
    /// As soon as it is consistent.
    Consistent,
    /// Before the record that begins there.
    Before(u64),
}

/// Where recovery ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The end of the last record that is replayed.
    pub(crate) end: u64,
    /// Where the first record begins that is not; `None` = recovery ends with the log.
    pub(crate) before: Option<u64>,
}

/// Takes the segments of a batch.
pub(crate) struct SegmentsSink {
    directory: PathBuf,
    segments: VecDeque<(String, u64)>,
    current: Option<(File, PathBuf, u64)>,
}

impl SegmentsSink {
    /// For a batch that goes into a restored data directory.
    pub(crate) fn new(data_directory: &Path, batch: &LogBatch) -> Result<SegmentsSink> {
        let bad = |why: &str| Error::new(Code::BackupCorrupted, format!("the batch {} {why}", batch.object.key));
        let timeline = timeline_of(&batch.end).ok_or_else(|| bad("names no timeline"))?;
        let mut segments = VecDeque::new();
        for segment in &batch.segments {
            if segment.offset != 0 || !is_segment_size(segment.length) {
                return Err(bad("holds something else than whole segments"));
            }
            let name = Segment { timeline, number: segment.file }.name(segment.length);
            segments.push_back((name, segment.length));
        }
        let status = data_directory.join(STATUS);
        fs::create_dir_all(&status).map_err(|cause| Error::io("making", &status, cause))?;
        Ok(SegmentsSink { directory: data_directory.to_owned(), segments, current: None })
    }

    fn open_next(&mut self) -> io::Result<()> {
        let (name, length) =
            self.segments.pop_front().ok_or_else(|| io::Error::other("the batch holds more than its segments"))?;
        // The archive has it already; a server that archives need not hand it over again.
        fs::write(self.directory.join(STATUS).join(format!("{name}.done")), b"")?;
        let path = self.directory.join(WAL).join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        self.current = Some((file, path, length));
        Ok(())
    }
}

impl Write for SegmentsSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.current.is_none() {
            self.open_next()?;
        }
        let Some((file, _, left)) = &mut self.current else { return Ok(0) };
        let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        file.write_all(&bytes[..count])?;
        *left -= count as u64;
        if *left == 0 {
            self.current = None;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl VolumeSink for SegmentsSink {
    fn finish(self: Box<Self>, _task: &Task) -> Result<()> {
        match (&self.current, self.segments.is_empty()) {
            (None, true) => Ok(()),
            (Some((_, path, left)), _) => {
                Err(Error::new(Code::BackupCorrupted, format!("{} lacks its last {left} bytes", path.display())))
            }
            (None, false) => Err(Error::new(Code::BackupCorrupted, "a batch ends before its last segment")),
        }
    }
}

/// Reads the log in a restored data directory from `base` to `last`, and says where recovery ends.
pub(crate) fn ending(
    data_directory: &Path,
    base: &LogMark,
    last: &LogMark,
    until: RecoveryTarget,
    task: &Task,
) -> Result<(Ending, LogMark)> {
    let failed = |why: String| Error::new(Code::RestoreFailed, why);
    let timeline = timeline_of(base).filter(|timeline| timeline_of(last) == Some(*timeline));
    let timeline = timeline.ok_or_else(|| failed("base and log are not of one timeline".to_owned()))?;
    // The last batch ends with a whole segment.
    let size = last.offset;
    if !is_segment_size(size) {
        return Err(failed(format!("the log ends at byte {size} of a segment")));
    }
    if search(until)?.is_some() {
        return Err(failed(format!("its end, {until:?}, was not looked for in the log")));
    }
    let end = base.transaction;
    let mut found =
        Found { until, size, end, before: None, crosses: false, committed_at: None, tablespaces: Vec::new() };
    let mut scanner = Scanner::new(timeline, size, Some(base.transaction));
    for number in base.transaction / size..=last.file {
        task.check()?;
        let segment = Segment { timeline, number };
        let path = data_directory.join(WAL).join(segment.name(size));
        let content =
            fs::read(&path).map_err(|cause| Error::io("reading", &path, cause).recode(Code::RestoreFailed))?;
        scanner.segment(segment, &content, &mut |record| {
            found.see(&record);
        })?;
    }
    refuse_places_in_use(&found.tablespaces)?;
    let ending = Ending { end: found.end, before: found.before };
    let transaction = match (until, found.before) {
        (RecoveryTarget::End, _) | (RecoveryTarget::Time(_), None) => last.transaction,
        (RecoveryTarget::Lsn(position), _) => position,
        // A record that crosses into the next segment and is left out leaves nothing of that one.
        (_, Some(before)) if found.crosses => (before / size + 1) * size,
        _ => found.end,
    };
    let committed_at = found.committed_at.or(base.committed_at);
    Ok((ending, LogMark { transaction, ..mark(timeline, found.end, size, committed_at) }))
}

/// What has been read of the log.
struct Found {
    until: RecoveryTarget,
    size: u64,
    end: u64,
    before: Option<u64>,
    /// Whether the record that begins there ends in another segment.
    crosses: bool,
    committed_at: Option<Timestamp>,
    /// Places of tablespaces that are made on the way.
    tablespaces: Vec<PathBuf>,
}

impl Found {
    fn see(&mut self, record: &Record) {
        let (start, end, committed) = (record.start, record.end, record.commit.map(|commit| commit.time));
        let beyond = match self.until {
            RecoveryTarget::Time(time) => committed.is_some_and(|committed| committed > time),
            RecoveryTarget::Lsn(position) => end > position,
            _ => false,
        };
        if beyond && self.before.is_none() {
            self.before = Some(start);
            self.crosses = start / self.size != (end - 1) / self.size;
        }
        if self.before.is_none() {
            self.end = end;
            self.committed_at = self.committed_at.max(committed);
            self.tablespaces.extend(record.tablespace.clone());
        }
    }
}

/// A server that replays the making of a tablespace links to the place that it was made at, and goes on to write there: on
/// the host of the original, into the data in service.
fn refuse_places_in_use(places: &[PathBuf]) -> Result<()> {
    let is_free = |place: &&PathBuf| fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
    // A place inside a data directory is not named: it is the restored one's own.
    let Some(place) = places.iter().filter(|place| place.is_absolute()).find(|place| !is_free(place)) else {
        return Ok(());
    };
    let shown = place.display();
    let text = format!(
        "a tablespace was made in {shown} after the full backup: a server that replays that writes into {shown} itself, \
         which is not an empty directory of this host"
    );
    Err(Error::new(Code::RestoreTargetUnreachable, text).with_hint(
        "restore to a moment before, or take a full backup and restore to a moment after it; where the original's place is \
         on another host, make an empty directory there that the server's account owns",
    ))
}

/// What a server must be told to recover so, by the names of its settings.
pub(crate) fn settings(stop: Stop) -> Vec<(String, String)> {
    let mut settings = vec![
        // Everything lies in `pg_wal`: there is nothing to fetch.
        ("restore_command".to_owned(), "false".to_owned()),
        ("recovery_target_timeline".to_owned(), "current".to_owned()),
    ];
    let mut say = |name: &str, value: String| settings.push((name.to_owned(), value));
    match stop {
        Stop::End => {}
        Stop::Consistent => say("recovery_target", "immediate".to_owned()),
        Stop::Before(before) => {
            say("recovery_target_lsn", Lsn(before).to_string());
            say("recovery_target_inclusive", "off".to_owned());
        }
    }
    if stop != Stop::End {
        say("recovery_target_action", "promote".to_owned());
    }
    settings
}

/// The same for a server that starts without us: in the file that overrules all others.
pub(crate) fn leave_settings(data_directory: &Path, stop: Stop) -> Result<()> {
    let path = data_directory.join(OWN_SETTINGS);
    let mut text = format!("{SETTINGS_MARK}\n");
    for (name, value) in settings(stop) {
        text.push_str(&format!("{name} = '{value}'\n"));
    }
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|cause| Error::io("writing", &path, cause))
}

/// Takes them out again, once recovery is done.
pub(crate) fn remove_settings(data_directory: &Path) -> Result<()> {
    let path = data_directory.join(OWN_SETTINGS);
    let failed = |cause| Error::io("changing", &path, cause);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed(cause)),
    };
    match memchr::memmem::rfind(&text, SETTINGS_MARK.as_bytes()) {
        Some(at) => {
            let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
            file.set_len(at as u64).and_then(|()| file.sync_all()).map_err(failed)
        }
        None => Ok(()),
    }
}

/// Timelines that the recovered server must not choose are occupied: it takes the first that has no history.
pub(crate) fn occupy(data_directory: &Path, own: u32, newest: u32) -> Result<()> {
    for timeline in own + 1..=newest {
        let path = history(data_directory, timeline);
        if !path.exists() {
            fs::write(&path, b"").map_err(|cause| Error::io("writing", &path, cause))?;
        }
    }
    Ok(())
}

fn history(data_directory: &Path, timeline: u32) -> PathBuf {
    data_directory.join(WAL).join(format!("{timeline:08X}.history"))
}

/// Has the server archive what `mark` names. The mark is its own, as the directory is: an archiver that may not open
/// it hands the file over again and again, and its server never shuts down.
fn put_up(mark: &Path) -> Result<()> {
    let directory = mark.parent().unwrap_or(mark);
    let owner = fs::metadata(directory).map_err(|cause| Error::io("examining", directory, cause))?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(mark)
        .and_then(|file| fchown(&file, Some(owner.uid()), Some(owner.gid())).and_then(|()| file.sync_all()))
        .map_err(|cause| Error::io("writing", mark, cause))?;
    atomic_file::sync_directory(directory)
}

/// The timeline on which a recovered server goes on, and where it left the one before. Histories that only occupied their
/// place are removed, and the new one is put up for archiving.
pub(crate) fn settle(data_directory: &Path, own: u32) -> Result<(u32, u64)> {
    let failed = |why: String| Error::new(Code::RestoreHealthFailed, why);
    let directory = data_directory.join(WAL);
    let entries = fs::read_dir(&directory).map_err(|cause| Error::io("listing", &directory, cause))?;
    let timeline_of = |name: &str| u32::from_str_radix(name.strip_suffix(".history")?, 16).ok();
    let mut newest = None;
    for entry in entries.flatten() {
        let Some(timeline) = entry.file_name().to_str().and_then(timeline_of) else { continue };
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if text.is_empty() && timeline > FIRST_TIMELINE {
            atomic_file::remove(&entry.path())?;
            continue;
        }
        newest = newest.max(Some((timeline, text)));
    }
    let (timeline, text) = newest
        .filter(|(timeline, _)| *timeline > own)
        .ok_or_else(|| failed(format!("the recovered server did not leave timeline {own}")))?;
    let left = text.lines().rev().find(|line| !line.trim().is_empty()).and_then(|line| {
        let mut words = line.split_whitespace();
        let parent: u32 = words.next()?.parse().ok()?;
        Some((parent, Lsn::parse(words.next()?)?.0))
    });
    match left {
        Some((parent, position)) if parent == own => {
            put_up(&data_directory.join(STATUS).join(format!("{timeline:08X}.history.ready")))?;
            Ok((timeline, position))
        }
        _ => Err(failed(format!("the history of timeline {timeline} does not say where it left timeline {own}"))),
    }
}
