//! Who writes a target's chain in a repository. A second writer, such as a cloned host or a restored machine, would
//! weave its backups into another's; it is refused.

use super::small_object::{put, read};
use super::store::{Commit, Store};
use crate::artifact::identity::{FORMAT, OwnerRecord};
use crate::artifact::object_key;
use crate::artifact::signing::{self, Keyring};
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};

/// Largest owner record that is read, in bytes.
const RECORD_MAX: u64 = 64 << 10;

pub(super) fn read_owner(
    store: &dyn Store,
    keyring: &Keyring,
    environment: &str,
    target: &TargetName,
) -> Result<Option<OwnerRecord>> {
    let key = object_key::owner(environment, target)?;
    let bytes = match read(store, &key, RECORD_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.code() == Code::ObjectNotFound => return Ok(None),
        Err(error) => return Err(replaceable(error, target)),
    };
    let what = format!("{key} of {}", store.location());
    let (record, _): (OwnerRecord, _) =
        signing::open(&bytes, keyring, &what).map_err(|error| replaceable(error, target))?;
    if record.format > FORMAT {
        return Err(Error::new(
            Code::FormatUnsupported,
            format!("{what} has format {}, this release reads up to {FORMAT}", record.format),
        ));
    }
    if record.environment != environment || record.target != *target {
        let text =
            format!("{what} is that of {} in {}: it was put in another's place", record.target, record.environment);
        return Err(replaceable(Error::new(Code::SignatureInvalid, text), target));
    }
    Ok(Some(record))
}

/// Says what helps where a record is damaged.
fn replaceable(error: Error, target: &TargetName) -> Error {
    if !matches!(error.code(), Code::SignatureInvalid | Code::BackupCorrupted) {
        return error;
    }
    error.with_hint(format!(
        "nothing is written until it is known whose backups these are; if they are this host's: `neo4j-backupctl adopt {target}` puts \
         a sound record in its place"
    ))
}

pub(super) fn claim(store: &dyn Store, keyring: &Keyring, repository: &str, record: &OwnerRecord) -> Result<()> {
    if let Some(present) = read_owner(store, keyring, &record.environment, &record.target)? {
        judge(repository, &present, record)?;
        return complete(store, keyring, &present, record);
    }
    let key = object_key::owner(&record.environment, &record.target)?;
    match put(store, &key, &signing::seal(record, &keyring.current())?, Commit::IfAbsent) {
        Ok(_) => Ok(()),
        // Two claimed at once; the one that was slower looks who won.
        Err(error) if error.code() == Code::ObjectConflict => {
            match read_owner(store, keyring, &record.environment, &record.target)? {
                Some(present) => judge(repository, &present, record),
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// A record that was made before it named the writer's state directory gets it from the first agent that comes: what names
/// none fits every agent of its machine.
fn complete(store: &dyn Store, keyring: &Keyring, present: &OwnerRecord, claimed: &OwnerRecord) -> Result<()> {
    if present.state_directory.is_some() || claimed.state_directory.is_none() {
        return Ok(());
    }
    take_over(store, keyring, &OwnerRecord { state_directory: claimed.state_directory.clone(), ..present.clone() })
}

/// Replaces the owner's record and reads it back.
pub(super) fn take_over(store: &dyn Store, keyring: &Keyring, record: &OwnerRecord) -> Result<()> {
    let key = object_key::owner(&record.environment, &record.target)?;
    put(store, &key, &signing::seal(record, &keyring.current())?, Commit::Replace)?;
    match read_owner(store, keyring, &record.environment, &record.target)? {
        Some(present) if present == *record => Ok(()),
        _ => {
            let text = format!("{key} of {} reads back other than it was written", store.location());
            Err(Error::new(Code::RepositoryIo, text))
        }
    }
}

fn judge(repository: &str, present: &OwnerRecord, claimed: &OwnerRecord) -> Result<()> {
    if present.is_same_writer(claimed) {
        return Ok(());
    }
    Err(Error::new(
        Code::OwnerConflict,
        format!(
            "target {} in repository {repository} is written by {}; this is {}",
            claimed.target,
            describe(present),
            describe(claimed)
        ),
    ))
}

/// A writer, in words.
pub fn describe(record: &OwnerRecord) -> String {
    let owner = &record.owner;
    let state = record.state_directory.iter().map(|path| format!(", state in {path}")).collect::<String>();
    let (host, machine, data, epoch) = (&owner.host, &owner.machine_id, &owner.data_identity, owner.epoch);
    format!("host {host} (machine {machine}, data {data}, epoch {epoch}{state})")
}
