//! Streams a backup's volumes through the pipeline into every repository at once, and reads back what was written.

use crate::artifact::manifest::{Content, ObjectRecord, Role};
use crate::artifact::object_key;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Volume;
use crate::operation::context::Target;
use crate::pipeline::{self, Compression, Protection, SealSpec};
use crate::repository::catalog::Repository;
use crate::repository::store::{Commit, ObjectWriter};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Mutex;

/// Lanes that run side by side at most. Two keep two cores busy; each costs a compressor's memory.
pub(super) const LANES_AT_ONCE: usize = 2;

/// One repository during a backup. The first failure is kept; from then on the repository is left out, and the backup
/// goes on in the others.
pub(super) struct Branch {
    /// The repository.
    pub(super) repository: Repository,
    failure: Mutex<Option<Error>>,
}

impl Branch {
    /// A repository that has not failed yet.
    pub(super) fn new(repository: Repository) -> Self {
        Branch { repository, failure: Mutex::new(None) }
    }

    /// Whether it still takes part.
    pub(super) fn is_alive(&self) -> bool {
        self.failure.lock().unwrap_or_else(|p| p.into_inner()).is_none()
    }

    /// Leaves it out from now on.
    pub(super) fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(|p| p.into_inner());
        if failure.is_none() {
            *failure = Some(error.context(format!("repository {}", self.repository.name())));
        }
    }

    /// Why it was left out.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(|p| p.into_inner()).take()
    }
}

/// Fails with the first branch's reason once no branch is left.
pub(super) fn require_survivor(branches: &[Branch]) -> Result<()> {
    if branches.iter().any(Branch::is_alive) {
        return Ok(());
    }
    let first = branches.iter().find_map(Branch::take_failure);
    Err(first.unwrap_or_else(|| Error::new(Code::RepositoryNotFound, "no repository is configured for this target")))
}

/// What all objects of a backup have in common.
pub(super) struct Shape<'a> {
    /// The environment, part of the key.
    pub(super) environment: &'a str,
    /// The backup.
    pub(super) id: &'a BackupId,
    /// Compression of what is not compressed yet.
    pub(super) compression: Compression,
    /// Encryption.
    pub(super) protection: Protection,
}

impl<'a> Shape<'a> {
    /// The shape that a target's configuration asks for.
    pub(super) fn of(target: &Target, environment: &'a str, id: &'a BackupId) -> Result<Self> {
        let keyring = target.keyring.get()?;
        let protection = match target.iterations {
            Some(iterations) => Protection::Encrypted { key: keyring.current().clone(), iterations },
            None => Protection::Plain,
        };
        Ok(Shape { environment, id, compression: target.compression, protection })
    }
}

/// What an object is, before it is written.
pub(super) struct Outline {
    /// Its name within the backup.
    pub(super) name: String,
    /// What it is for.
    pub(super) role: Role,
    /// How its plaintext is laid out.
    pub(super) content: Content,
    /// Its lane.
    pub(super) lane: u32,
    /// The key's ending before filters.
    pub(super) extension: String,
    /// Whether the lane stands in the key.
    pub(super) striped: bool,
    /// Whether it is compressed already.
    pub(super) compressed: bool,
    /// Whether the plaintext's SHA-256 is wanted.
    pub(super) hash_plain: bool,
}

/// Writes one stream as one object into every living branch. The object is committed only after `finished` agreed:
/// that a stream ended proves nothing.
pub(super) fn write_object<R: Read + Send>(
    shape: &Shape<'_>,
    outline: &Outline,
    branches: &[Branch],
    mut source: R,
    finished: impl FnOnce(R) -> Result<()>,
    task: &Task,
) -> Result<ObjectRecord> {
    let compression = if outline.compressed { Compression::None } else { shape.compression };
    let suffix = match compression {
        Compression::None => None,
        Compression::Gzip(_) => Some("gzip"),
        Compression::Zstd { .. } => Some("zstd"),
    };
    let encrypted = matches!(shape.protection, Protection::Encrypted { .. });
    let mut extension = object_key::filtered_extension(&outline.extension, suffix, encrypted);
    if outline.striped {
        extension += &format!(".{:02}", outline.lane);
    }
    let key = object_key::backup_object(shape.environment, shape.id, &extension)?;

    let mut tee = Tee::open(branches, &key)?;
    let spec = SealSpec { compression, protection: shape.protection.clone(), hash_plain: outline.hash_plain };
    let sealed = pipeline::seal(&mut source, &mut tee, &spec, task).map_err(|error| tee.explain(error))?;
    finished(source)?;
    tee.commit()?;
    Ok(ObjectRecord {
        key,
        role: outline.role,
        name: outline.name.clone(),
        lane: outline.lane,
        content: outline.content,
        stored: sealed.stored,
        plain: sealed.plain,
        filters: sealed.filters,
        encryption: sealed.encryption,
    })
}

/// Writes all volumes, up to `at_once` side by side; the records come back in the volumes' order.
pub(super) fn write_volumes(
    shape: &Shape<'_>,
    volumes: Vec<Volume>,
    branches: &[Branch],
    at_once: usize,
    task: &Task,
) -> Result<Vec<ObjectRecord>> {
    let queue: Mutex<VecDeque<(usize, Volume)>> = Mutex::new(volumes.into_iter().enumerate().collect());
    let records: Mutex<Vec<(usize, ObjectRecord)>> = Mutex::new(Vec::new());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        loop {
            if failure.lock().unwrap_or_else(|p| p.into_inner()).is_some() {
                return;
            }
            let next = queue.lock().unwrap_or_else(|p| p.into_inner()).pop_front();
            let Some((index, volume)) = next else { return };
            match write_volume(shape, volume, branches, task) {
                Ok(record) => records.lock().unwrap_or_else(|p| p.into_inner()).push((index, record)),
                Err(error) => {
                    failure.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|p| p.into_inner()) {
        return Err(error);
    }
    let mut records = records.into_inner().unwrap_or_else(|p| p.into_inner());
    records.sort_by_key(|(index, _)| *index);
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

fn write_volume(shape: &Shape<'_>, volume: Volume, branches: &[Branch], task: &Task) -> Result<ObjectRecord> {
    let spec = volume.spec;
    let outline = Outline {
        name: spec.name,
        role: spec.role,
        content: spec.content,
        lane: spec.lane,
        extension: spec.extension,
        striped: spec.striped,
        compressed: spec.compressed,
        hash_plain: spec.hash_plain,
    };
    let reader = (volume.open)(task)?;
    let record = write_object(shape, &outline, branches, reader, |reader| reader.finish(task), task)
        .map_err(|error| error.context(format!("backing up {}", outline.name)))?;
    task.info(format!(
        "{}: {} bytes of data, {} stored",
        record.key.file_name(),
        record.plain.size,
        record.stored.size
    ));
    Ok(record)
}

/// Reads every object back from every living branch: parts, decryption, decompression, digests of the plaintext.
/// Only what passes here counts.
pub(super) fn read_back(target: &Target, records: &[ObjectRecord], branches: &[Branch], task: &Task) -> Result<()> {
    let living = branches.iter().filter(|branch| branch.is_alive()).count() as u64;
    let plain: u64 = records.iter().map(|record| record.plain.size).sum();
    task.phase("reading back", plain * living);
    let keyring = target.keyring.get()?;
    for branch in branches.iter().filter(|branch| branch.is_alive()) {
        for record in records {
            task.check()?;
            let result = branch.repository.store().read(&record.key, None).and_then(|mut stored| {
                pipeline::unseal(record, &keyring, &target.read_policy, &mut stored, &mut std::io::sink(), task)
            });
            if let Err(error) = result {
                task.check()?;
                task.warn(format!("reading back {}: {error}", record.key));
                branch.fail(error.context("reading back what was just written"));
                break;
            }
        }
    }
    require_survivor(branches)
}

/// Hands the same bytes to a writer in each living branch.
struct Tee<'a> {
    key: String,
    writers: Vec<(&'a Branch, Box<dyn ObjectWriter>)>,
    branches: &'a [Branch],
}

impl<'a> Tee<'a> {
    fn open(branches: &'a [Branch], key: &object_key::ObjectKey) -> Result<Self> {
        let mut writers = Vec::new();
        for branch in branches.iter().filter(|branch| branch.is_alive()) {
            match branch.repository.store().create(key) {
                Ok(writer) => writers.push((branch, writer)),
                Err(error) => branch.fail(error),
            }
        }
        require_survivor(branches)?;
        Ok(Tee { key: key.to_string(), writers, branches })
    }

    /// The pipeline says that the sink failed; the branches know why.
    fn explain(&self, error: Error) -> Error {
        if self.writers.is_empty() { require_survivor(self.branches).err().unwrap_or(error) } else { error }
    }

    fn keep(&mut self, mut attempt: impl FnMut(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
        let key = &self.key;
        self.writers.retain_mut(|(branch, writer)| match attempt(writer.as_mut()) {
            Ok(()) => true,
            Err(cause) => {
                branch.fail(Error::from_io("writing", key.as_ref(), cause));
                false
            }
        });
        if self.writers.is_empty() {
            return Err(std::io::Error::other("every repository failed"));
        }
        Ok(())
    }

    fn commit(self) -> Result<()> {
        for (branch, writer) in self.writers {
            if let Err(error) = writer.commit(Commit::IfAbsent) {
                branch.fail(error);
            }
        }
        require_survivor(self.branches)
    }
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.keep(|writer| writer.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.keep(|writer| writer.flush())
    }
}
