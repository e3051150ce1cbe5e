//! Files of the log that were taken out of batches and wait to be asked for: `STATE/fetched/TARGET`.
//!
//! A file stands there under the server's name for it and its digest, which is compared again when it is given out.

use crate::artifact::digest::sha256_of;
use crate::artifact::log_batch::{LogBatch, LogSegment};
use crate::base::lock::FileLock;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::driver::log::LogOutbox;
use crate::operation::context::{Context, Target};
use crate::operation::log_object;
use crate::operation::preflight::{self, Need};
use crate::repository::catalog::Repository;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

/// Where they are, below the state directory.
const DIRECTORY: &str = "fetched";
/// Bytes that may wait there, besides those of one batch: what was asked for longest ago goes first.
const KEPT_BYTES: u64 = 512 << 20;

/// The files of one target.
pub(super) struct Unpacked {
    directory: PathBuf,
}

impl Unpacked {
    pub(super) fn of(context: &Context, target: &Target) -> Unpacked {
        Unpacked { directory: context.state_directory.join(DIRECTORY).join(target.name.as_str()) }
    }

    /// The right to unpack; `BUSY` while another has it.
    pub(super) fn turn(&self) -> Result<FileLock> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|cause| Error::io("making", &self.directory, cause))?;
        FileLock::exclusive(&self.directory.join("lock"), "unpacking the log")
    }

    /// The file that the server calls `name`, if it is there and has its digest.
    pub(super) fn open(&self, name: &str) -> Result<Option<File>> {
        let of_name =
            |(found, _): &(String, fs::Metadata)| found.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let Some((found, _)) = self.files()?.into_iter().find(of_name) else { return Ok(None) };
        let path = self.directory.join(&found);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // Another call has just made room.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::io("opening", &path, cause)),
        };
        let digest = sha256_of(&mut file).and_then(|digest| file.rewind().map(|()| digest));
        let digest = digest.map_err(|cause| Error::io("reading", &path, cause))?;
        if found.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) == Some(digest.as_str()) {
            return Ok(Some(file));
        }
        // A power cut, or somebody's hand: it is taken out of its batch again.
        atomic_file::remove(&path)?;
        Ok(None)
    }

    /// The files' names and what the filesystem says of them.
    fn files(&self) -> Result<Vec<(String, fs::Metadata)>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(Error::io("listing", &self.directory, cause)),
        };
        let ours = |name: &String| name.contains('.') && !name.starts_with(atomic_file::TEMPORARY_PREFIX);
        let of_entry =
            |entry: fs::DirEntry| Some((entry.file_name().into_string().ok().filter(ours)?, entry.metadata().ok()?));
        Ok(entries.flatten().filter_map(of_entry).collect())
    }

    /// Removes what was unpacked: the server has come to the archive's end.
    pub(super) fn clear(&self) -> Result<()> {
        self.files()?.iter().try_for_each(|(name, _)| atomic_file::remove(&self.directory.join(name)))
    }

    /// Takes the files of a batch out of its object. None of them is given out before all of the object was
    /// authenticated. Only for whoever has the turn.
    pub(super) fn take_in(
        &self,
        context: &Context,
        target: &Target,
        outbox: &dyn LogOutbox,
        repository: &Repository,
        batch: &LogBatch,
        task: &Task,
    ) -> Result<()> {
        atomic_file::sweep(&self.directory)?;
        self.make_room()?;
        let need = Need { required: batch.object.plain.size, minimum_free_percent: 0 };
        preflight::check_path(&context.state_directory, need)?;
        let mut names = Vec::new();
        for segment in &batch.segments {
            let (history, whole) = (batch.end.checksum.as_deref(), segment.offset == 0);
            let named =
                history.filter(|_| whole).and_then(|history| outbox.name_of(history, segment.file, segment.length));
            let name = named.ok_or_else(|| {
                let text = format!("{} holds a part of file {} only", batch.object.key, segment.file);
                Error::new(Code::LogGap, text)
            })?;
            names.push(format!("{name}.{}", segment.sha256));
        }
        let mut pieces = Pieces { unpacked: self, names, segments: &batch.segments, current: None, done: Vec::new() };
        let opened = log_object::open(repository, target, &batch.object, &batch.segments, &mut pieces, task);
        let kept = opened.and_then(|()| pieces.keep());
        if kept.is_err() {
            atomic_file::sweep(&self.directory)?;
        }
        kept
    }

    fn make_room(&self) -> Result<()> {
        let mut files = self.files()?;
        files.sort_by_key(|(_, data)| data.modified().unwrap_or(SystemTime::UNIX_EPOCH));
        let mut bytes: u64 = files.iter().map(|(_, data)| data.len()).sum();
        for (name, data) in files {
            if bytes <= KEPT_BYTES {
                break;
            }
            atomic_file::remove(&self.directory.join(name))?;
            bytes -= data.len();
        }
        Ok(())
    }
}

/// Cuts a batch's bytes into its files, under temporary names.
struct Pieces<'a> {
    unpacked: &'a Unpacked,
    names: Vec<String>,
    segments: &'a [LogSegment],
    /// The file that is being written, its temporary name, and how many bytes it lacks.
    current: Option<(File, PathBuf, u64)>,
    /// Temporary names of those that are written.
    done: Vec<PathBuf>,
}

impl Pieces<'_> {
    fn begin(&mut self) -> io::Result<()> {
        let (Some(name), Some(segment)) = (self.names.get(self.done.len()), self.segments.get(self.done.len())) else {
            return Err(io::Error::other("the batch holds more than its files"));
        };
        let path = atomic_file::temporary_beside(&self.unpacked.directory.join(name));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.current = Some((file, path, segment.length));
        Ok(())
    }

    /// Gives them their names.
    fn keep(self) -> Result<()> {
        for (path, name) in self.done.iter().zip(&self.names) {
            let kept = self.unpacked.directory.join(name);
            fs::rename(path, &kept).map_err(|cause| Error::io("renaming", &kept, cause))?;
        }
        Ok(())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.current.is_none() {
            self.begin()?;
        }
        let Some((file, _, left)) = &mut self.current else { return Err(io::Error::other("no file was begun")) };
        let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        file.write_all(&bytes[..count])?;
        *left -= count as u64;
        if *left == 0
            && let Some((_, path, _)) = self.current.take()
        {
            self.done.push(path);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
