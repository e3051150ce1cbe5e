//! A repository as its users see it: which one it is, its backups, and who writes them.
//!
//! Everything stands above [`Store`], so that it is the same for every kind of place. What counts here is signed; the
//! rest (`RECOVER.txt`, `restore.sh`) only helps people and is rewritten when it differs.

use super::fault::StoreError;
use super::small_object::{put, put_with, read};
use super::store::{Commit, ObjectFacts, ObjectInfo, Store};
use super::{escrow, ownership, recover_text};
use crate::artifact::identity::{FORMAT, OwnerRecord, RepositoryDocument, RepositoryRecord};
use crate::artifact::manifest::{Manifest, SignedManifest};
use crate::artifact::object_key::{self, MANIFEST_SUFFIX, ObjectKey};
use crate::artifact::signing::{self, DOCUMENT_MAX, Key, KeyId, Keyring};
use crate::base::clock::Clock;
use crate::base::ids::{BackupId, TargetName};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest `repository.json` that is read, in bytes.
const RECORD_MAX: u64 = 64 << 10;
/// Random bytes in a repository's id.
const ID_BYTES: usize = 16;

/// What became of a document that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// It was written and is durable.
    Stored,
    /// The very same bytes were there already; nothing was sent.
    Identical,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    name: String,
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    record: RepositoryRecord,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({} = {} at {})", self.name, self.record.id, self.store.location())
    }
}

impl Repository {
    /// Opens the repository that the configuration calls `name`: reads its record and checks the signature.
    /// `REPOSITORY_NOT_FOUND` without a record, `FORMAT_UNSUPPORTED` if a newer release made it, `WRONG_KEY`.
    pub fn open(name: &str, store: Arc<dyn Store>, keyring: Arc<Keyring>) -> Result<Repository> {
        escrow::unlock(&*store, &keyring)?;
        match read_record(&*store, &keyring)? {
            Some(record) => Ok(Repository { name: name.to_owned(), store, keyring, record }),
            None => Err(Error::new(
                Code::RepositoryNotFound,
                format!("repository {name} at {} has no {}", store.location(), object_key::repository()),
            )),
        }
    }

    /// Opens the repository; on first use makes its record with a random id. Keeps the instructions beside the
    /// backups up to date. Of several that do so at once, one makes the record and all use it.
    pub fn open_or_create(
        name: &str,
        store: Arc<dyn Store>,
        keyring: Arc<Keyring>,
        clock: &dyn Clock,
    ) -> Result<Repository> {
        escrow::unlock(&*store, &keyring)?;
        let record = match read_record(&*store, &keyring)? {
            Some(record) => record,
            None => make_record(&*store, &keyring, clock)?,
        };
        escrow::keep_older(&*store, &keyring)?;
        recover_text::refresh(&*store)?;
        Ok(Repository { name: name.to_owned(), store, keyring, record })
    }

    /// Begins a rotation: keeps the current key under `next`, which is not in use yet. Whoever has either of the two can
    /// read everything from then on.
    pub fn prepare_rotation(&self, next: &Key) -> Result<()> {
        escrow::keep(&*self.store, &self.keyring.current(), next)
    }

    /// Ends a rotation, after which the keyring's current key is the new one: keeps every older key under it, and signs
    /// with it what lasts as long as the repository.
    pub fn finish_rotation(&self, environment: &str, targets: &[TargetName]) -> Result<()> {
        // Each of these is worth doing, whatever becomes of the others.
        let kept = escrow::keep_older(&*self.store, &self.keyring);
        let bytes = signing::seal(&self.record, &self.keyring.current())?;
        put(&*self.store, &object_key::repository(), &bytes, Commit::Replace)?;
        for target in targets {
            if let Some(record) = self.owner(environment, target)? {
                self.take_over(&record)?;
            }
        }
        kept
    }

    /// The instructions that are missing, or are not what this release writes.
    pub fn outdated_instructions(&self) -> Result<Vec<&'static str>> {
        let outdated = recover_text::outdated(&*self.store)?;
        Ok(outdated.into_iter().map(|(name, _)| name).collect())
    }

    /// Ids of the older passphrases that are kept here and that no key at hand opens.
    pub fn locked_keys(&self) -> Result<Vec<KeyId>> {
        let kept = escrow::kept(&*self.store)?;
        Ok(kept.into_iter().filter(|id| !self.keyring.holds(id)).collect())
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 32 hex digits, the same for ever.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The place behind it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The keys at hand.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Stores a document that never changes. Is it there already with the same bytes, nothing is sent; with others,
    /// it is refused with `OBJECT_CONFLICT` and left as it is.
    pub fn put_document(&self, key: &ObjectKey, bytes: &[u8]) -> Result<PutOutcome> {
        self.put_described(key, bytes, &ObjectFacts::new())
    }

    fn put_described(&self, key: &ObjectKey, bytes: &[u8], facts: &ObjectFacts) -> Result<PutOutcome> {
        if self.store.stat(key)?.is_some() {
            return self.compare(key, bytes);
        }
        match put_with(&*self.store, key, bytes, Commit::IfAbsent, facts) {
            Ok(_) => Ok(PutOutcome::Stored),
            // Another writer was faster; perhaps with the same.
            Err(error) if error.code() == Code::ObjectConflict => self.compare(key, bytes),
            Err(error) => Err(error),
        }
    }

    fn compare(&self, key: &ObjectKey, bytes: &[u8]) -> Result<PutOutcome> {
        let conflict = || StoreError::Conflict { key: key.clone(), location: self.store.location() };
        let same_size = self.store.stat(key)?.is_some_and(|object| object.size == bytes.len() as u64);
        if same_size && read(&*self.store, key, bytes.len() as u64)? == bytes {
            return Ok(PutOutcome::Identical);
        }
        Err(Error::from(conflict()).context("it is there with other content"))
    }

    /// Reads a whole object of at most `max` bytes.
    pub fn read_small(&self, key: &ObjectKey, max: u64) -> Result<Vec<u8>> {
        read(&*self.store, key, max)
    }

    /// Signs the manifest with the current key and stores it, which is what makes a backup of its objects. It is
    /// read back and opened before it counts; a copy that cannot be is taken away again.
    pub fn commit_manifest(&self, manifest: &Manifest) -> Result<SignedManifest> {
        let bytes = manifest.seal(&self.keyring.current())?;
        let key = manifest.key()?;
        self.commit_signed(&key, &bytes, &manifest_facts(manifest), |stored| {
            Manifest::open(stored, &self.keyring, &key)
        })
    }

    /// Stores a signed document, reads it back and opens it; a copy that cannot be opened is taken away again.
    pub(super) fn commit_signed<T>(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        facts: &ObjectFacts,
        open: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let outcome = self.put_described(key, bytes, facts)?;
        let opened = self.read_small(key, DOCUMENT_MAX).and_then(|stored| {
            if stored == bytes {
                return open(&stored);
            }
            Err(Error::new(Code::BackupCorrupted, format!("manifest {key} reads back other than it was written")))
        });
        if opened.is_err() && outcome == PutOutcome::Stored {
            // The error that matters is the first one.
            let _ = self.store.delete(key);
        }
        opened
    }

    /// Reads a manifest and checks its signature.
    pub fn manifest(&self, key: &ObjectKey) -> Result<SignedManifest> {
        Manifest::open(&self.read_small(key, DOCUMENT_MAX)?, &self.keyring, key)
    }

    /// The manifest of a backup. `BACKUP_NOT_FOUND`, or `BACKUP_INCOMPLETE` if there are objects of it but no manifest.
    pub fn find_manifest(&self, environment: &str, id: &BackupId) -> Result<SignedManifest> {
        let key = object_key::backup_manifest(environment, id)?;
        let absent = |code, why: &str| Error::new(code, format!("backup {id} in repository {}: {why}", self.name));
        match self.manifest(&key) {
            Ok(found) if found.manifest.id == *id => Ok(found),
            Ok(found) => Err(absent(Code::BackupNotFound, &format!("of that second there is {}", found.manifest.id))),
            Err(error) if error.code() == Code::ObjectNotFound => {
                let stem = key.as_str().trim_end_matches(MANIFEST_SUFFIX);
                let mut pieces = 0u64;
                self.store.list(&format!("{stem}."), &mut |_| {
                    pieces += 1;
                    Ok(())
                })?;
                match pieces {
                    0 => Err(absent(Code::BackupNotFound, "it is not there")),
                    _ => Err(absent(Code::BackupIncomplete, &format!("it has {pieces} objects but no manifest"))),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Every manifest, in the order of keys: of one environment, or of all.
    pub fn manifest_keys(&self, environment: Option<&str>) -> Result<Vec<ObjectInfo>> {
        // Log batches have manifests too, and can be many more; they are not looked at where that can be avoided.
        let prefix = match environment {
            Some(environment) => format!("{}year=", object_key::environment_prefix(environment)),
            None => "environment=".to_owned(),
        };
        let mut found = Vec::new();
        self.store.list(&prefix, &mut |object| {
            let key = object.key.as_str();
            let of_log = key.split('/').nth(1) == Some("log");
            if key.ends_with(MANIFEST_SUFFIX) && !of_log {
                found.push(object);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Who writes a target's chain; `None` before its first backup.
    pub fn owner(&self, environment: &str, target: &TargetName) -> Result<Option<OwnerRecord>> {
        ownership::read_owner(&*self.store, &self.keyring, environment, target)
    }

    /// Makes `record` the owner if there is none. The same writer again is fine; another is refused with
    /// `OWNER_CONFLICT`, which names both.
    pub fn claim(&self, record: &OwnerRecord) -> Result<()> {
        ownership::claim(&*self.store, &self.keyring, &self.name, record)
    }

    /// Makes `record` the owner, whoever was: only for whoever was told to.
    pub fn take_over(&self, record: &OwnerRecord) -> Result<()> {
        ownership::take_over(&*self.store, &self.keyring, record)
    }

    /// Deletes a backup: its manifest first, so that it no longer counts, then its objects. Once begun it is finished,
    /// whatever `task` says. Returns how many objects went, the manifest included, and their bytes.
    pub fn delete_backup(&self, manifest: &Manifest, task: &Task) -> Result<(u64, u64)> {
        task.check()?;
        let keys = std::iter::once(manifest.key()?).chain(manifest.objects.iter().map(|object| object.key.clone()));
        self.delete_all(keys)
    }

    /// Deletes objects in this order; returns how many there were, and their bytes.
    pub(super) fn delete_all(&self, keys: impl Iterator<Item = ObjectKey>) -> Result<(u64, u64)> {
        let (mut objects, mut bytes) = (0, 0);
        for key in keys {
            let size = self.store.stat(&key)?.map_or(0, |object| object.size);
            if self.store.delete(&key)? {
                objects += 1;
                bytes += size;
            }
        }
        Ok((objects, bytes))
    }
}

/// What the metadata of a backup's manifest say: the most of it that fits.
fn manifest_facts(manifest: &Manifest) -> ObjectFacts {
    BTreeMap::from([
        ("sha256", manifest.sha256.clone()),
        ("db_name", manifest.db_name.clone()),
        ("tool_version", manifest.tool_version.clone()),
        ("rows_estimate", manifest.rows_estimate.to_string()),
        ("hostname", manifest.hostname.clone()),
        ("created_by", manifest.created_by.clone()),
        ("created_at", manifest.created_at.to_string()),
    ])
}

fn read_record(store: &dyn Store, keyring: &Keyring) -> Result<Option<RepositoryRecord>> {
    let key = object_key::repository();
    let bytes = match read(store, &key, RECORD_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.code() == Code::ObjectNotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let what = format!("{key} of {}", store.location());
    let (record, _): (RepositoryRecord, _) = signing::open(&bytes, keyring, &what)?;
    if record.format > FORMAT {
        return Err(Error::new(
            Code::FormatUnsupported,
            format!("{what} has format {}, this release reads up to {FORMAT}", record.format),
        ));
    }
    Ok(Some(record))
}

fn make_record(store: &dyn Store, keyring: &Keyring, clock: &dyn Clock) -> Result<RepositoryRecord> {
    let mut id = [0u8; ID_BYTES];
    openssl::rand::rand_bytes(&mut id)
        .map_err(|cause| Error::new(Code::Internal, format!("drawing the repository's id: {cause}")))?;
    let record = RepositoryRecord {
        document: RepositoryDocument::Repository,
        format: FORMAT,
        id: hex::encode(id),
        created_at: clock.now(),
        created_by: concat!("neo4j-backup-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    match put(store, &object_key::repository(), &signing::seal(&record, &keyring.current())?, Commit::IfAbsent) {
        Ok(_) => Ok(record),
        Err(error) if error.code() == Code::ObjectConflict => read_record(store, keyring)?.ok_or(error),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
