//! Carries swaps out and takes them back. Every change goes through [`Disk`], so that tests can make each one fail, or
//! end the process before or after it.

use super::swap::{Journal, Move, SwapEvent, SwapState};
use crate::base::{Code, Error, Result, atomic_file};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What a swap does to a disk.
pub(super) trait Disk: Send + Sync {
    /// Renames; fails if `to` exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes renames, creations and removals inside a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Makes a directory for this account alone; one that is there is fine.
    fn make_directory(&self, directory: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_directory(&self, directory: &Path) -> io::Result<()>;
    /// Writes a file durably, at once.
    fn write(&self, path: &Path, content: &[u8]) -> Result<()>;
    /// Removes a file durably.
    fn remove(&self, path: &Path) -> Result<()>;
}

/// The real disk.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // Some filesystems cannot refuse to replace; then looking first must do.
            Err(nix::Error::EINVAL | nix::Error::ENOSYS) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
            Err(nix::Error::EINVAL | nix::Error::ENOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
            result => Ok(result?),
        }
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }

    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn remove_directory(&self, directory: &Path) -> io::Result<()> {
        fs::remove_dir(directory)
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        atomic_file::write(path, content, 0o600)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        atomic_file::remove(path)
    }
}

/// Where one move stands, by the inode on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Before,
    After,
    Lost,
}

fn stand(step: &Move) -> Stand {
    let is_it = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == step.inode);
    if is_it(&step.to) {
        Stand::After
    } else if is_it(&step.from) {
        Stand::Before
    } else {
        Stand::Lost
    }
}

/// Carries out and takes back the swaps of one journal directory.
pub(super) struct Swaps<'a> {
    /// Where journals lie; it exists.
    pub(super) journals: &'a Path,
    /// What is changed.
    pub(super) disk: &'a dyn Disk,
}

const JOURNAL_PREFIX: &str = "swap-";
const JOURNAL_SUFFIX: &str = ".json";

impl Swaps<'_> {
    fn path(&self, id: &str) -> PathBuf {
        self.journals.join(format!("{JOURNAL_PREFIX}{id}{JOURNAL_SUFFIX}"))
    }

    /// Every journal on disk, in the order of their names.
    pub(super) fn journals(&self) -> Result<Vec<Journal>> {
        let fail = |cause| Error::io("listing", self.journals, cause);
        let mut found = Vec::new();
        for entry in fs::read_dir(self.journals).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let id = name.to_str().and_then(|n| n.strip_prefix(JOURNAL_PREFIX)?.strip_suffix(JOURNAL_SUFFIX));
            if let Some(id) = id {
                found.push(self.read(id)?);
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// The journal of a swap that is neither undone nor settled.
    pub(super) fn read(&self, id: &str) -> Result<Journal> {
        let path = self.path(id);
        let fail = |why: String| {
            Error::new(Code::SwapFailed, format!("reading the swap's journal {}: {why}", path.display()))
                .with_hint("without its journal a swap cannot be undone by itself; the set-aside data is where the plan of the restore put it")
        };
        let bytes = fs::read(&path).map_err(|cause| fail(cause.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|cause| fail(cause.to_string()))
    }

    /// Writes the journal, then makes every move. All or nothing: after an error the old data is in service again,
    /// unless the message says that the journal was kept.
    pub(super) fn carry_out(&self, journal: &Journal) -> Result<()> {
        let path = self.path(&journal.id);
        if path.exists() {
            return Err(Error::new(Code::SwapFailed, format!("swap {} has a journal already", journal.id)));
        }
        let text = serde_json::to_vec_pretty(journal).map_err(|cause| {
            Error::new(Code::Internal, format!("writing the journal of swap {}: {cause}", journal.id))
        })?;
        if let Err(error) = self.disk.write(&path, &text) {
            // It may be there all the same.
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        let mut state = SwapState::begin(journal.moves.len());
        let done = self.prepare(journal).and_then(|()| {
            for step in &journal.moves {
                self.make(step)?;
                state = state.next(SwapEvent::Moved)?;
            }
            Ok(())
        });
        let Err(error) = done else { return Ok(()) };
        match state.next(SwapEvent::Undo).map_err(Error::from).and_then(|state| self.take_back_from(journal, state)) {
            Ok(()) => Err(error.with_hint("nothing was changed: the data in service is the old one")),
            Err(also) => {
                let text = format!("{}; taking it back failed as well ({})", error.message(), also.message());
                Err(Error::new(Code::SwapFailed, text))
            }
        }
    }

    fn prepare(&self, journal: &Journal) -> Result<()> {
        for directory in &journal.make {
            self.disk.make_directory(directory).map_err(|cause| failed("making", directory, &cause))?;
            if let Some(parent) = directory.parent() {
                self.sync(parent)?;
            }
        }
        Ok(())
    }

    fn make(&self, step: &Move) -> Result<()> {
        let moving = format!("moving {} to", step.from.display());
        self.disk.rename(&step.from, &step.to).map_err(|cause| failed(&moving, &step.to, &cause))?;
        self.sync_both(step)
    }

    fn sync_both(&self, step: &Move) -> Result<()> {
        let parents = [step.to.parent(), step.from.parent()];
        for parent in parents.into_iter().flatten() {
            self.sync(parent)?;
        }
        Ok(())
    }

    fn sync(&self, directory: &Path) -> Result<()> {
        self.disk.sync_directory(directory).map_err(|cause| failed("flushing", directory, &cause))
    }

    /// Takes a swap back from wherever it stands, and removes its journal.
    pub(super) fn take_back(&self, journal: &Journal) -> Result<()> {
        self.take_back_from(journal, SwapState::InPlace { of: journal.moves.len() }.next(SwapEvent::Undo)?)
    }

    fn take_back_from(&self, journal: &Journal, mut state: SwapState) -> Result<()> {
        while let SwapState::Undoing { left } = state {
            let step = &journal.moves[left - 1];
            match stand(step) {
                Stand::Before => {}
                Stand::After => {
                    self.clear(&step.from, &journal.id)?;
                    self.make_parents(&step.from)?;
                    let moving = format!("moving {} back to", step.to.display());
                    self.disk.rename(&step.to, &step.from).map_err(|cause| failed(&moving, &step.from, &cause))?;
                }
                // The restore that made the new data has removed it: what matters is that the old data comes back.
                Stand::Lost if journal.brings(step) => {
                    state = state.next(SwapEvent::MovedBack)?;
                    continue;
                }
                Stand::Lost => {
                    let text = format!("{} is neither there nor at {}", step.from.display(), step.to.display());
                    return Err(Error::new(Code::SwapFailed, format!("undoing swap {}: {text}", journal.id)));
                }
            }
            // Also for a move that was taken back before a crash: that may not be durable yet. Where a directory that
            // the swap was to make is missing, there is nothing to flush.
            if step.to.parent().is_some_and(|parent| parent.exists()) {
                self.sync_both(step)?;
            }
            state = state.next(SwapEvent::MovedBack)?;
        }
        for directory in journal.make.iter().rev() {
            // Only if it is empty; what somebody else has put there stays.
            let _ = self.disk.remove_directory(directory);
        }
        self.disk.remove(&self.path(&journal.id))
    }

    /// The directory that new data was moved from may be gone.
    fn make_parents(&self, path: &Path) -> Result<()> {
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| !parent.exists()).collect();
        for directory in missing.into_iter().rev() {
            self.disk.make_directory(directory).map_err(|cause| failed("making", directory, &cause))?;
        }
        Ok(())
    }

    /// Moves away what appeared in the place of the old data (a server that started on nothing makes new directories).
    /// It is not ours, so that it is kept.
    fn clear(&self, place: &Path, id: &str) -> Result<()> {
        if fs::symlink_metadata(place).is_err() {
            return Ok(());
        }
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".found-by-{id}"));
        let aside = place.with_file_name(name);
        self.disk
            .rename(place, &aside)
            .map_err(|cause| failed(&format!("moving {} out of the way to", place.display()), &aside, &cause))
    }

    /// The new data is good: removes the journal, or writes into it that nothing is to be undone. Doing it again is fine.
    pub(super) fn settle(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        if !path.exists() {
            return Ok(());
        }
        let journal = self.read(id)?;
        if journal.settled {
            self.forget(&journal);
            return Ok(());
        }
        if let Some(step) = journal.moves.iter().find(|step| stand(step) != Stand::After) {
            let text = format!("swap {id} cannot be declared done: {} is not in its place", step.to.display());
            return Err(Error::new(Code::SwapFailed, text));
        }
        SwapState::InPlace { of: journal.moves.len() }.next(SwapEvent::Settle)?;
        let Err(error) = self.disk.remove(&path) else { return Ok(()) };
        let settled = serde_json::to_vec_pretty(&Journal { settled: true, ..journal }).unwrap_or_default();
        self.disk.write(&path, &settled).map_err(|also| {
            let text = format!(
                "the restored data is in service and was found good, but the journal of the exchange cannot be put away ({error}; \
                 {also}): the agent's next start would put the earlier data back"
            );
            Error::new(Code::SwapFailed, text)
                .with_hint(format!("once the disk of {0} is well again: `rm {0}`", path.display()))
        })
    }

    /// Removes the journal of a swap that is settled already, if that can be done now.
    pub(super) fn forget(&self, journal: &Journal) {
        let _ = self.disk.remove(&self.path(&journal.id));
    }
}

fn failed(doing: &str, path: &Path, cause: &io::Error) -> Error {
    let why = if cause.raw_os_error() == Some(libc::EXDEV) {
        "they lie on different filesystems, between which nothing can be renamed".to_owned()
    } else {
        cause.to_string()
    };
    Error::new(Code::SwapFailed, format!("{doing} {}: {why}", path.display()))
}
