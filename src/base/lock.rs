//! Advisory locks on files (`flock`), held for the life of a value and gone with the process, however it ends.

use super::clock::wait_until;
use super::task::Task;
use super::{Code, Error, Result};
use fs2::FileExt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A held lock.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Takes the lock for this process alone, or says at once who has it.
    pub fn exclusive(path: &Path, what: &str) -> Result<Self> {
        let mut file = open(path)?;
        match FileExt::try_lock_exclusive(&file) {
            Ok(()) => {
                // Only for the message that the next comer gets; the lock itself is the kernel's.
                let _ = file.set_len(0).and_then(|()| file.rewind());
                let _ = writeln!(file, "{}", std::process::id());
                Ok(FileLock { file, path: path.to_owned() })
            }
            Err(cause) => Err(refused(&mut file, path, what, cause)),
        }
    }

    /// Takes the lock together with others that share it.
    pub fn shared(path: &Path, what: &str) -> Result<Self> {
        let mut file = open(path)?;
        match FileExt::try_lock_shared(&file) {
            Ok(()) => Ok(FileLock { file, path: path.to_owned() }),
            Err(cause) => Err(refused(&mut file, path, what, cause)),
        }
    }

    /// Goes on holding an exclusive lock together with others.
    pub fn share(self) -> Result<Self> {
        FileExt::try_lock_shared(&self.file).map_err(|cause| Error::io("sharing the lock", &self.path, cause))?;
        Ok(self)
    }

    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting holds a copy of the descriptor until its
        // exec, and with it the lock. Unlocking works on the open file itself, whoever holds copies.
        let _ = FileExt::unlock(&self.file);
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|cause| {
        let denied = cause.kind() == std::io::ErrorKind::PermissionDenied;
        let error = Error::io("opening the lock", path, cause);
        if denied { error.recode(Code::NotAuthorised) } else { error }
    })
}

fn refused(file: &mut File, path: &Path, what: &str, cause: std::io::Error) -> Error {
    if cause.kind() != fs2::lock_contended_error().kind() {
        return Error::io("locking", path, cause);
    }
    let mut holder = String::new();
    let _ = file.take(32).read_to_string(&mut holder);
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    Error::new(Code::Busy, format!("{what} is in use by {holder} (lock {})", path.display()))
}

/// Repeats `attempt` every `interval` as long as it is `BUSY`, for `patience` at most; then that is the error. `waiting`
/// comes before the first repetition. Errors: those of `attempt`, `CANCELLED`.
pub fn once_free<T>(
    (patience, interval): (Duration, Duration),
    task: &Task,
    waiting: impl FnOnce(),
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let busy = |outcome: &Result<T>| outcome.as_ref().is_err_and(|error| error.code() == Code::Busy);
    let mut attempt = || task.check().and_then(|()| attempt());
    let mut outcome = attempt();
    if busy(&outcome) {
        waiting();
        wait_until(patience, interval, || {
            outcome = attempt();
            !busy(&outcome)
        });
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_it() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("lock");
        let lock = FileLock::exclusive(&path, "the lane").expect("first");
        let _as_a_child_has_it = lock.file.try_clone().expect("copy");
        drop(lock);
        FileLock::exclusive(&path, "the lane").expect("free again");
    }

    #[test]
    fn whoever_waits_gets_it_or_says_who_has_it() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("lock");
        let (task, at_once) = (Task::unobserved(), (Duration::ZERO, Duration::ZERO));
        let take = || FileLock::exclusive(&path, "the lane");
        let mut held = Some(take().expect("first"));
        let refused = once_free(at_once, &task, || {}, take).map(drop);
        assert_eq!(refused.map_err(|error| error.code()), Err(Code::Busy));
        let waits = (Duration::from_secs(60), Duration::ZERO);
        once_free(waits, &task, || held = None, take).map(drop).expect("free by then");
        let unwaited = once_free(waits, &task, || panic!("nobody has it"), take).expect("at once");
        task.cancel().cancel();
        let cancelled = once_free(waits, &task, || {}, take).map(drop);
        assert_eq!(cancelled.map_err(|error| error.code()), Err(Code::Cancelled));
        drop(unwaited);
    }

    #[test]
    fn two_cannot_hold_it_and_sharing_is_possible() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("lock");
        let first = FileLock::exclusive(&path, "the lane").expect("first");
        assert_eq!(FileLock::exclusive(&path, "the lane").map(|_| ()).map_err(|e| e.code()), Err(Code::Busy));
        let shared = first.share().expect("share");
        let other = FileLock::shared(&path, "the lane").expect("shared beside it");
        drop((shared, other));
        let _one = FileLock::shared(&path, "the lane").expect("shared");
        let _two = FileLock::shared(&path, "the lane").expect("shared");
        assert!(FileLock::exclusive(&path, "the lane").is_err());
    }
}
