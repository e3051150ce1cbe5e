//! `key rotate`: a new passphrase for new backups; the old one stays, in the repositories and on this host.
//!
//! At every moment some file of this host holds a passphrase that opens everything, whatever is killed when:
//!
//! 1. the new passphrase is written beside the old one, as FILE.next, and is durable;
//! 2. every repository keeps the old one, encrypted under the new one: either of the two now opens all;
//! 3. the old file is kept as FILE.KEYID, and FILE.next becomes FILE, at once;
//! 4. every repository's older passphrases are kept under the new one too.
//!
//! A rotation that was cut short before step 3 is taken up with the same new passphrase. What step 4 did not reach opens
//! by way of the passphrase between, and is mended by the next backup.

use crate::artifact::signing::{Key, Keyring};
use crate::base::ids::TargetName;
use crate::base::secret::read_passphrase;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::operation::answer::{RotateReport, RotatedKey};
use crate::operation::context::{Context, KeyFile, Lane, Target};
use crate::operation::keys::new_passphrase;
use crate::operation::records;
use crate::repository::catalog::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Rotates the passphrase of every target. Nothing is changed unless every repository can be reached and written.
pub fn run(context: &Context, dry_run: bool, task: &Task) -> Result<RotateReport> {
    let mut files: BTreeMap<&Path, Vec<&Target>> = BTreeMap::new();
    for target in context.targets.values() {
        match &target.key_file {
            KeyFile::File(path) => files.entry(path).or_default().push(target),
            KeyFile::Credential(path) => return Err(provided_by_others(target, path)),
        }
    }
    if files.is_empty() {
        return Err(Error::new(Code::ConfigInvalid, "no database is configured: there is no passphrase to rotate")
            .with_hint("`neo4j-backupctl key new --output FILE` makes a first one"));
    }
    // A backup's objects and its manifest are made with one passphrase.
    let mut lanes = Vec::new();
    for target in context.targets.values() {
        for lane in [Lane::Base, Lane::Log, Lane::Restore] {
            lanes.push(context.lane(&target.name, lane)?);
        }
    }
    let mut rotations = Vec::new();
    for (path, targets) in files {
        rotations.push(Rotation::prepare(context, path, targets)?);
    }
    if dry_run {
        return Ok(RotateReport { dry_run, keys: rotations.iter().map(|rotation| rotation.report(None)).collect() });
    }
    // Whatever can be wrong with any of the files is found before the first of them changes.
    let next: Vec<Key> = rotations.iter().map(|rotation| rotation.next_key(task)).collect::<Result<_>>()?;
    task.check()?;
    let mut keys: Vec<RotatedKey> = Vec::new();
    for (rotation, next) in rotations.iter().zip(&next) {
        match rotation.carry_out(next, task) {
            Ok(rotated) => keys.push(rotated),
            Err(error) => return Err(told_with(&keys, error)),
        }
    }
    Ok(RotateReport { dry_run, keys })
}

/// An error after some of the passphrases were rotated: nobody must take those for what they were.
fn told_with(done: &[RotatedKey], error: Error) -> Error {
    if done.is_empty() {
        return error;
    }
    let of = |key: &RotatedKey| format!("{} (key {} gave way to a new one)", key.file.display(), key.from);
    let done: Vec<_> = done.iter().map(of).collect();
    error.context(format!(
        "{} was rotated, and a copy of the new passphrase belongs where the old one is kept; another was not",
        done.join(", ")
    ))
}

fn provided_by_others(target: &Target, path: &Path) -> Error {
    let what = format!(
        "the passphrase of {} is a systemd credential ({}), which this agent cannot replace; nothing was changed",
        target.name,
        path.display()
    );
    Error::new(Code::NotAvailable, what).with_hint(
        "keep the present passphrase in a file of its own, name that in `older_passphrase_files` of `[encryption]`, put \
         a new one where the credential comes from, and restart the agent: the next backup keeps the older one in the \
         repositories",
    )
}

/// A passphrase file, whose keyrings and repositories move on together.
struct Rotation {
    file: PathBuf,
    keyrings: Vec<Arc<Keyring>>,
    repositories: Vec<Repository>,
    targets: Vec<TargetName>,
    environment: String,
    current: Arc<Key>,
}

impl Rotation {
    /// Opens everything that must be reached.
    fn prepare(context: &Context, file: &Path, targets: Vec<&Target>) -> Result<Rotation> {
        let unchanged = |error: Error| error.context("rotating the passphrase, before anything was changed");
        let mut keyrings = Vec::new();
        let mut repositories = Vec::new();
        let mut opened = BTreeSet::new();
        for target in &targets {
            keyrings.push(target.keyring.get().map_err(unchanged)?);
            for name in &target.repositories {
                match context.repository(target, name) {
                    Ok(_) if !opened.insert(name.clone()) => {}
                    Ok(repository) => repositories.push(repository),
                    // One that was never used holds nothing that the old passphrase would have to open.
                    Err(error)
                        if error.code() == Code::RepositoryNotFound
                            && !records::any_in(context, &target.name, name)? => {}
                    Err(error) => return Err(unchanged(error.context(format!("repository {name}")))),
                }
            }
        }
        let key = Key::derive(read_passphrase(file).map_err(unchanged)?, &file.display().to_string())?;
        // An agent that was started before somebody replaced the file by hand must not lose the key it still uses.
        if let Some(stale) = keyrings.iter().find(|keyring| keyring.current().id() != key.id()) {
            return Err(Error::new(
                Code::WrongKey,
                format!(
                    "{} holds key {}, but the agent works with key {}; nothing was changed",
                    file.display(),
                    key.id(),
                    stale.current().id()
                ),
            )
            .with_hint("restart the agent, and rotate then: `systemctl restart neo4j-backupd`"));
        }
        let targets = targets.into_iter().map(|target| target.name.clone()).collect();
        let environment = context.environment.clone();
        let current = Arc::new(key);
        let rotation = Rotation { file: file.to_owned(), keyrings, repositories, targets, environment, current };
        rotation.check_beside()?;
        Ok(rotation)
    }

    /// What lies where the new passphrase and the kept old one go must be just these.
    fn check_beside(&self) -> Result<()> {
        let (next, kept) = (self.next_file(), self.kept_file());
        if next.symlink_metadata().is_ok() && self.read_next(&next)?.id() == self.current.id() {
            let what = format!("{} holds the passphrase that is in use; nothing was changed", next.display());
            return Err(Error::new(Code::ObjectConflict, what).with_hint("remove that file and rotate again"));
        }
        if kept.symlink_metadata().is_ok()
            && Key::derive(read_passphrase(&kept)?, &kept.display().to_string())?.id() != self.current.id()
        {
            let what = format!("{} is there and holds another passphrase; nothing was changed", kept.display());
            return Err(Error::new(Code::ObjectConflict, what)
                .with_hint("move that file away and run `neo4j-backupctl key rotate` again"));
        }
        Ok(())
    }

    /// The passphrase that a rotation left beside the old one; whatever else that could be is refused.
    fn read_next(&self, path: &Path) -> Result<Key> {
        let read = read_passphrase(path).and_then(|secret| Key::derive(secret, &path.display().to_string()));
        read.map_err(|error| {
            let hint =
                format!("remove {} unless you put it there; the passphrase in use is another file", path.display());
            error.context("a rotation would go on with what was left there").with_hint(hint)
        })
    }

    fn next_file(&self) -> PathBuf {
        with_suffix(&self.file, "next")
    }

    fn kept_file(&self) -> PathBuf {
        with_suffix(&self.file, self.current.id().as_str())
    }

    fn report(&self, to: Option<&Key>) -> RotatedKey {
        RotatedKey {
            file: self.file.clone(),
            from: self.current.id().to_string(),
            to: to.map(|key| key.id().to_string()),
            kept_as: self.kept_file(),
            repositories: self.repositories.iter().map(|repository| repository.name().to_owned()).collect(),
        }
    }

    fn carry_out(&self, next: &Key, task: &Task) -> Result<RotatedKey> {
        for repository in &self.repositories {
            repository.prepare_rotation(next).map_err(|error| {
                let what = format!("repository {}; the passphrase in use is still the old one", repository.name());
                error.context(what)
            })?;
        }
        // From here to the end it is carried through: half a rotation is whole again with the next backup only.
        self.exchange_files()?;
        for keyring in &self.keyrings {
            keyring.renew(next.clone());
        }
        for repository in &self.repositories {
            if let Err(error) = repository.finish_rotation(&self.environment, &self.targets) {
                task.warn(format!(
                    "the new passphrase is in use, but repository {} keeps some older ones under the one before ({error}); \
                     the next backup mends that",
                    repository.name()
                ));
            }
        }
        Ok(self.report(Some(next)))
    }

    /// The new passphrase: that of a rotation that was cut short, or a fresh one.
    fn next_key(&self, task: &Task) -> Result<Key> {
        let path = self.next_file();
        if path.symlink_metadata().is_ok() {
            // Read first: what others could have written is not given to the database's account, it is refused.
            self.read_next(&path)?;
            task.info(format!("{} was left by a rotation that did not end; it is taken up", path.display()));
        } else {
            let line = Zeroizing::new([new_passphrase()?.expose(), b"\n"].concat());
            atomic_file::write(&path, &line, 0o600)?;
        }
        copy_owner(&self.file, &path)?;
        self.read_next(&path)
    }

    /// Keeps the old file under its key id, and puts the new one in its place.
    fn exchange_files(&self) -> Result<()> {
        let (kept, next) = (self.kept_file(), self.next_file());
        match std::fs::hard_link(&self.file, &kept) {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("keeping the old passphrase as", &kept, cause));
            }
            _ => {}
        }
        let held = Key::derive(read_passphrase(&kept)?, &kept.display().to_string())?;
        if held.id() != self.current.id() {
            return Err(Error::new(
                Code::ObjectConflict,
                format!(
                    "{} is there and holds another passphrase; the one in use is still the old one",
                    kept.display()
                ),
            )
            .with_hint("move that file away and run `neo4j-backupctl key rotate` again"));
        }
        atomic_file::sync_parent(&kept)?;
        std::fs::rename(&next, &self.file).map_err(|cause| Error::io("putting into use", &next, cause))?;
        atomic_file::sync_parent(&self.file)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// Whoever could read the old passphrase must be able to read the new one.
fn copy_owner(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let like = std::fs::metadata(from).map_err(|cause| Error::io("examining", from, cause))?;
    let mode = std::fs::Permissions::from_mode(like.mode() & 0o7777);
    std::os::unix::fs::chown(to, Some(like.uid()), Some(like.gid()))
        .and_then(|()| std::fs::set_permissions(to, mode))
        .map_err(|cause| Error::io("giving the old file's owner and mode to", to, cause))
}
