//! Where what the server archives waits until every repository has it: a directory per cluster below the target's own.
//!
//! A file is there whole and durable or not at all, and what has been promised to the server is never given another
//! content. Of segments that every repository holds the digest stays, so that one that comes again is known.

use super::name::{Segment, WalFile, is_segment_size};
use super::page::{self, PAGE};
use crate::artifact::digest::sha256_of;
use crate::base::lock::FileLock;
use crate::base::{Code, Error, Result, atomic_file};
use crate::driver::log::{Intake, Taken};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Segments that stay although every repository holds them: a base that begins in a repository goes on from one of
/// them, and the record that crosses into the next one begins there.
const KEPT: usize = 8;
/// Digests that are kept of segments that have gone.
const DIGESTS_MAX: usize = 4096;
/// Largest file that is not a segment: histories and labels are lines of text.
const SMALL_MAX: u64 = 1 << 20;
/// Where the digests are.
const DIGESTS: &str = "digests";
/// Where it is noted what was given up.
const DROPPED: &str = "dropped";
/// Says that the spool was found full, and that this was told.
const FULL: &str = "full";

/// The spool of one target.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    limit: u64,
    drop_when_full: bool,
}

/// The spool of one cluster.
pub(crate) struct ClusterSpool<'a> {
    spool: &'a Spool,
    cluster: u64,
    directory: PathBuf,
}

impl Spool {
    /// A spool in `directory`, of at most `limit` bytes.
    pub(crate) fn new(directory: PathBuf, limit: u64, drop_when_full: bool) -> Spool {
        Spool { directory, limit, drop_when_full }
    }

    /// What it holds of one cluster.
    pub(crate) fn of_cluster(&self, cluster: u64) -> ClusterSpool<'_> {
        ClusterSpool { spool: self, cluster, directory: self.directory.join(cluster.to_string()) }
    }

    /// Bytes in it, and how many there may be.
    pub(crate) fn filling(&self) -> (u64, u64) {
        let clusters = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let of = |directory: PathBuf| -> u64 {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.metadata().ok()).filter(|data| data.is_file()).map(|data| data.len()).sum()
        };
        (clusters.map(|entry| of(entry.path())).sum(), self.limit)
    }
}

impl ClusterSpool<'_> {
    /// Takes in what the server archives under `name`; when this returns it is durable, unless it says otherwise.
    /// Errors: `USAGE` for a name that no server gives, `LOG_CORRUPTED` for content that is not what the name says,
    /// `OWNER_CONFLICT` for another cluster's, `OBJECT_CONFLICT` for another content than was taken in before.
    pub(crate) fn take_in(&self, name: &str, piece: &mut File) -> Result<Intake> {
        let length = piece.metadata().map_err(|cause| Error::io("examining", Path::new(name), cause))?.len();
        let file = self.admit(name, length, piece)?;
        self.make()?;
        let _alone =
            FileLock::exclusive(&self.directory.join("lock"), &format!("the spool {}", self.directory.display()))?;
        atomic_file::sweep(&self.directory)?;
        let path = self.directory.join(name);
        let (before, limit) = self.spool.filling();
        let intake = |taken, added| Ok(Intake { taken, before, after: before + added, limit });
        if let Some(known) = self.known_digest(name)? {
            return match known == digest(piece, name)? {
                true => {
                    if path.exists() {
                        File::open(&path)
                            .and_then(|file| file.sync_all())
                            .map_err(|c| Error::io("flushing", &path, c))?;
                    }
                    atomic_file::sync_directory(&self.directory)?;
                    intake(Taken::Already, 0)
                }
                false => Err(Error::new(
                    Code::ObjectConflict,
                    format!("{name} was archived before with another content; what comes now is not taken"),
                )
                .with_hint(
                    "two servers archive as one cluster: give the copy a target of its own, or end its archiving",
                )),
            };
        }
        if before + length > limit {
            return self.full(name, file, before, limit);
        }
        piece.rewind().map_err(|cause| reading(name, cause))?;
        atomic_file::copy(&path, piece, 0o600)?;
        atomic_file::remove(&self.directory.join(FULL))?;
        intake(Taken::Stored, length)
    }

    /// What the name stands for, if the content can be that.
    fn admit(&self, name: &str, length: u64, piece: &mut File) -> Result<WalFile> {
        let is_log = name.len() == 24 || name.ends_with(".partial");
        let refuse = |why: String| Err(Error::new(Code::LogCorrupted, format!("{name} {why}")));
        if is_log && !is_segment_size(length) {
            return refuse(format!("has {length} bytes, which is no size of a segment"));
        }
        let file = WalFile::parse(name, if is_log { length } else { 1 << 20 })?;
        match file {
            WalFile::Segment(segment) | WalFile::Partial(segment) => {
                let mut first = [0; PAGE];
                piece
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| piece.read_exact(&mut first))
                    .map_err(|c| reading(name, c))?;
                page::check_first(&first, segment, length, self.cluster)?;
            }
            WalFile::History(_) | WalFile::Label(_) if length > SMALL_MAX => {
                return refuse(format!("has {length} bytes, more than a text of its sort"));
            }
            WalFile::History(_) | WalFile::Label(_) => {}
        }
        Ok(file)
    }

    fn make(&self) -> Result<()> {
        for directory in [&self.directory, &self.directory.join(DIGESTS), &self.directory.join(DROPPED)] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|cause| Error::io("making", directory, cause))?;
        }
        Ok(())
    }

    fn known_digest(&self, name: &str) -> Result<Option<String>> {
        let path = self.directory.join(name);
        match File::open(&path) {
            Ok(mut file) => return digest(&mut file, name).map(Some),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(Error::io("opening", &path, cause)),
        }
        let path = self.directory.join(DIGESTS).join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io("reading", &path, cause)),
        }
    }

    /// Whether the server keeps it, or it is given up, is the operator's to say beforehand.
    fn full(&self, name: &str, file: WalFile, before: u64, limit: u64) -> Result<Intake> {
        let marker = self.directory.join(FULL);
        let newly = !marker.exists();
        if newly {
            atomic_file::write(&marker, b"", 0o600)?;
        }
        let taken = match file {
            WalFile::Segment(_) if self.spool.drop_when_full => {
                atomic_file::write(&self.directory.join(DROPPED).join(name), b"", 0o600)?;
                Taken::Dropped { newly }
            }
            _ => Taken::Refused { newly },
        };
        Ok(Intake { taken, before, after: before, limit })
    }

    /// The segments that are there, and how large segments are.
    pub(crate) fn segments(&self) -> Result<Held> {
        let mut held = Held { size: None, segments: BTreeSet::new(), newest_timeline: 0 };
        for name in names(&self.directory)? {
            let size = match held.size {
                Some(size) => size,
                None if name.len() == 24 => {
                    let Ok(metadata) = fs::metadata(self.directory.join(&name)) else { continue };
                    held.size = Some(metadata.len()).filter(|size| is_segment_size(*size));
                    let Some(size) = held.size else { continue };
                    size
                }
                None => 1 << 20,
            };
            match WalFile::parse(&name, size) {
                Ok(WalFile::Segment(segment)) => {
                    held.segments.insert(segment);
                    held.newest_timeline = held.newest_timeline.max(segment.timeline);
                }
                Ok(other) => held.newest_timeline = held.newest_timeline.max(other.timeline()),
                Err(_) => {}
            }
        }
        Ok(held)
    }

    /// Whether the last file found no room, and none was made since.
    pub(crate) fn is_full(&self) -> bool {
        self.directory.join(FULL).exists()
    }

    /// Whether a segment was given up because the spool was full.
    pub(crate) fn was_dropped(&self, segment: Segment, size: u64) -> bool {
        self.directory.join(DROPPED).join(segment.name(size)).exists()
    }

    /// Whether a segment was taken in, if only to be given up.
    pub(crate) fn has_had(&self, name: &str) -> bool {
        [self.directory.join(name), self.directory.join(DIGESTS).join(name), self.directory.join(DROPPED).join(name)]
            .iter()
            .any(|path| path.exists())
    }

    /// What was taken in under a name that a server gives, if it is still here.
    pub(crate) fn open(&self, name: &str) -> Result<Option<File>> {
        WalFile::parse(name, 1 << 20)?;
        let path = self.directory.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io("opening", &path, cause)),
        }
    }

    /// A segment's file.
    pub(crate) fn path(&self, segment: Segment, size: u64) -> PathBuf {
        self.directory.join(segment.name(size))
    }

    /// Lets go of what lies before `position` of a timeline, which every repository holds.
    pub(crate) fn release(&self, timeline: u32, position: u64) -> Result<()> {
        let Held { size: Some(size), segments, .. } = self.segments()? else { return Ok(()) };
        let before = |segment: &&Segment| segment.timeline == timeline && segment.next().start(size) <= position;
        let done: Vec<Segment> = segments.iter().filter(before).copied().collect();
        let settled = done.len().saturating_sub(KEPT);
        for (index, segment) in done.into_iter().enumerate() {
            let path = self.path(segment, size);
            self.remember(&segment.name(size), &path)?;
            if index < settled {
                atomic_file::remove(&path)?;
                atomic_file::remove(&self.directory.join(FULL))?;
            }
        }
        // Of timelines that were left, what was never archived everywhere stays for a person to decide about.
        for segment in segments.iter().filter(|segment| segment.timeline < timeline) {
            if self.directory.join(DIGESTS).join(segment.name(size)).exists() {
                atomic_file::remove(&self.path(*segment, size))?;
            }
        }
        self.tidy(timeline, position, size)
    }

    /// Keeps the digest of a segment that every repository holds.
    fn remember(&self, name: &str, path: &Path) -> Result<()> {
        let digests = self.directory.join(DIGESTS).join(name);
        if digests.exists() {
            return Ok(());
        }
        let digest = digest(&mut File::open(path).map_err(|cause| Error::io("opening", path, cause))?, name)?;
        atomic_file::write(&digests, digest.as_bytes(), 0o600)
    }

    /// Removes what only mattered while the segments before `position` were there.
    fn tidy(&self, timeline: u32, position: u64, size: u64) -> Result<()> {
        for name in names(&self.directory)? {
            let old = match WalFile::parse(&name, size) {
                Ok(WalFile::Label(segment)) => segment.timeline <= timeline && segment.start(size) < position,
                Ok(WalFile::Partial(segment)) => segment.timeline < timeline,
                _ => false,
            };
            if old {
                atomic_file::remove(&self.directory.join(name))?;
            }
        }
        for name in names(&self.directory.join(DROPPED))? {
            let behind = |segment: Segment| segment.timeline <= timeline && segment.start(size) < position;
            if Segment::parse(&name, size).is_some_and(behind) {
                atomic_file::remove(&self.directory.join(DROPPED).join(name))?;
            }
        }
        let mut digests: Vec<String> = names(&self.directory.join(DIGESTS))?;
        digests.sort_unstable();
        digests.truncate(digests.len().saturating_sub(DIGESTS_MAX));
        digests.iter().try_for_each(|name| atomic_file::remove(&self.directory.join(DIGESTS).join(name)))
    }
}

/// What a spool holds of a cluster.
pub(crate) struct Held {
    /// Bytes of a segment; `None` = there is none.
    pub(crate) size: Option<u64>,
    /// The segments.
    pub(crate) segments: BTreeSet<Segment>,
    /// The newest timeline that a file is of; 0 = there is none.
    pub(crate) newest_timeline: u32,
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::io("listing", directory, cause)),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn reading(name: &str, cause: io::Error) -> Error {
    Error::io("reading", Path::new(name), cause)
}

fn digest(file: &mut File, name: &str) -> Result<String> {
    file.rewind().and_then(|()| sha256_of(file)).map_err(|cause| reading(name, cause))
}

#[cfg(test)]
mod tests;
