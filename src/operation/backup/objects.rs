//! Streams a backup's volumes through the pipeline into every repository at once.

use crate::artifact::manifest::{Content, ObjectRecord, Role};
use crate::artifact::object_key::{self, ObjectKey};
use crate::artifact::signing::Key;
use crate::base::ids::BackupId;
use crate::base::side_by_side;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::{Source, Volume};
use crate::operation::archive::BasePlace;
use crate::operation::context::Target;
use crate::pipeline::{self, Compression, Protection, SealSpec};
use crate::repository::catalog::Repository;
use crate::repository::store::{Commit, ObjectFacts, ObjectWriter};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Mutex;

/// Lanes that run side by side at most. Two keep two cores busy; each costs a compressor's memory.
pub(crate) const LANES_AT_ONCE: usize = 2;

/// One repository during a backup. The first failure is kept; from then on the repository is left out, and the backup
/// goes on in the others.
pub(crate) struct Branch {
    /// The repository.
    pub(crate) repository: Repository,
    /// Where a base stands in this repository's histories of the log; `None` = there is no log.
    pub(crate) place: Option<BasePlace>,
    failure: Mutex<Option<Error>>,
}

impl Branch {
    /// A repository that has not failed yet.
    pub(crate) fn new(repository: Repository) -> Self {
        Branch { repository, place: None, failure: Mutex::new(None) }
    }

    /// Whether it still takes part.
    pub(crate) fn is_alive(&self) -> bool {
        self.failure.lock().unwrap_or_else(|p| p.into_inner()).is_none()
    }

    /// Leaves it out from now on.
    pub(crate) fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(|p| p.into_inner());
        if failure.is_none() {
            *failure = Some(error.context(format!("repository {}", self.repository.name())));
        }
    }

    /// Why it was left out.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(|p| p.into_inner()).take()
    }
}

/// Fails with the first branch's reason once no branch is left.
pub(crate) fn require_survivor(branches: &[Branch]) -> Result<()> {
    if branches.iter().any(Branch::is_alive) {
        return Ok(());
    }
    let first = branches.iter().find_map(Branch::take_failure);
    Err(first.unwrap_or_else(|| Error::new(Code::RepositoryNotFound, "no repository is configured for this target")))
}

/// How a target's objects are sealed.
pub(crate) struct Sealing {
    /// Compression of what is not compressed yet.
    pub(crate) compression: Compression,
    /// Encryption.
    pub(crate) protection: Protection,
    /// What is known of the objects before they are written.
    pub(crate) facts: ObjectFacts,
}

impl Sealing {
    /// As the target's configuration asks for.
    pub(crate) fn of(target: &Target, source: &Source) -> Result<Self> {
        let keyring = target.keyring.get()?;
        let protection = match target.iterations {
            Some(iterations) => Protection::Encrypted { key: Key::clone(&keyring.current()), iterations },
            None => Protection::Plain,
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let facts = BTreeMap::from([("db_name", source.database.clone()), ("tool_version", version)]);
        Ok(Sealing { compression: target.compression, protection, facts })
    }
}

/// What all objects of a backup have in common.
pub(crate) struct Shape<'a> {
    /// The backup.
    pub(crate) id: &'a BackupId,
    /// What their keys begin with.
    pub(crate) stem: String,
    /// How they are sealed.
    pub(crate) sealing: Sealing,
}

impl<'a> Shape<'a> {
    /// The shape of a backup of `target`.
    pub(crate) fn of(target: &Target, source: &Source, environment: &str, id: &'a BackupId) -> Result<Self> {
        let manifest = object_key::backup_manifest(environment, id)?;
        let stem = manifest.as_str().trim_end_matches(object_key::MANIFEST_SUFFIX).to_owned();
        Ok(Shape { id, stem, sealing: Sealing::of(target, source)? })
    }
}

/// What an object is, before it is written.
pub(crate) struct Outline {
    /// Its name within the backup.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) role: Role,
    /// How its plaintext is laid out.
    pub(crate) content: Content,
    /// Its lane.
    pub(crate) lane: u32,
    /// The key's ending before filters.
    pub(crate) extension: String,
    /// Whether the lane stands in the key.
    pub(crate) striped: bool,
    /// Whether it is compressed already.
    pub(crate) compressed: bool,
    /// Whether the plaintext's SHA-256 is wanted.
    pub(crate) hash_plain: bool,
}

impl Outline {
    /// A batch of a log.
    pub(crate) fn of_log(extension: &str) -> Outline {
        Outline {
            name: "log".to_owned(),
            role: Role::Log,
            content: Content::LogRanges,
            lane: 0,
            extension: extension.to_owned(),
            striped: false,
            compressed: false,
            hash_plain: true,
        }
    }

    /// The key it gets.
    pub(crate) fn key(&self, sealing: &Sealing, stem: &str) -> Result<ObjectKey> {
        let suffix = match self.compression(sealing) {
            Compression::None => None,
            Compression::Gzip(_) => Some("gzip"),
            Compression::Zstd { .. } => Some("zstd"),
        };
        let encrypted = matches!(sealing.protection, Protection::Encrypted { .. });
        let mut extension = object_key::filtered_extension(&self.extension, suffix, encrypted);
        if self.striped {
            extension += &format!(".{:02}", self.lane);
        }
        ObjectKey::new(format!("{stem}.{extension}"))
    }

    fn compression(&self, sealing: &Sealing) -> Compression {
        match sealing.compression {
            _ if self.compressed => Compression::None,
            Compression::Zstd { level, workers } if self.striped => {
                Compression::Zstd { level, workers: workers_of_a_lane(workers) }
            }
            other => other,
        }
    }
}

/// Lanes share the processors. Where each has one at most, its own thread compresses: workers would only copy what they
/// are handed.
fn workers_of_a_lane(workers: u32) -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match processors / LANES_AT_ONCE {
        0 | 1 => 0,
        share => workers.min(share as u32),
    }
}

/// Writes one stream as one object into every living branch. The object is committed only after `finished` agreed:
/// that a stream ended proves nothing.
pub(crate) fn write_object<R: Read + Send>(
    sealing: &Sealing,
    stem: &str,
    outline: &Outline,
    branches: &[Branch],
    mut source: R,
    finished: impl FnOnce(R) -> Result<()>,
    task: &Task,
) -> Result<ObjectRecord> {
    let (key, compression) = (outline.key(sealing, stem)?, outline.compression(sealing));

    let mut tee = Tee::open(branches, &key, &sealing.facts)?;
    let spec = SealSpec { compression, protection: sealing.protection.clone(), hash_plain: outline.hash_plain };
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
pub(crate) fn write_volumes(
    shape: &Shape<'_>,
    volumes: Vec<Volume>,
    branches: &[Branch],
    at_once: usize,
    task: &Task,
) -> Result<Vec<ObjectRecord>> {
    side_by_side::each(volumes, at_once, |volume| write_volume(shape, volume, branches, task))
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
    let record =
        write_object(&shape.sealing, &shape.stem, &outline, branches, reader, |reader| reader.finish(task), task)
            .map_err(|error| error.context(format!("backing up {}", outline.name)))?;
    task.info(format!(
        "{}: {} bytes of data, {} stored",
        record.key.file_name(),
        record.plain.size,
        record.stored.size
    ));
    Ok(record)
}

/// Hands the same bytes to a writer in each living branch.
struct Tee<'a> {
    key: String,
    writers: Vec<(&'a Branch, Box<dyn ObjectWriter>)>,
    branches: &'a [Branch],
}

impl<'a> Tee<'a> {
    fn open(branches: &'a [Branch], key: &ObjectKey, facts: &ObjectFacts) -> Result<Self> {
        let mut writers = Vec::new();
        for branch in branches.iter().filter(|branch| branch.is_alive()) {
            match branch.repository.store().create_with(key, facts) {
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
