//! Older passphrases kept in the repository, `keys/KEYID.enc`: a bucket and the newest passphrase open everything.

use super::small_object::{put, read};
use super::store::{Commit, Store};
use crate::artifact::escrow::{self, ESCROW_MAX};
use crate::artifact::object_key::{ESCROW_PREFIX, ObjectKey, escrowed_id, escrowed_key};
use crate::artifact::signing::{Key, KeyId, Keyring};
use crate::base::{Code, Error, Result};
use std::sync::Arc;

/// Most passphrases that are tried: four a year for 25 years. Whoever can write here could put any number.
const TRIED_MAX: usize = 100;

/// A passphrase that the repository keeps and no key at hand has opened yet.
struct Locked {
    id: KeyId,
    bytes: Vec<u8>,
}

/// Adds to the keyring what it can open. One that it cannot open stays locked: it matters only to whoever needs it, and
/// is told then (`WRONG_KEY`). Returns the ids that opened under a key other than the current one, which a rotation that
/// was cut short has left so.
pub(super) fn unlock(store: &dyn Store, keyring: &Keyring) -> Result<Vec<KeyId>> {
    let mut locked = Vec::new();
    for (id, key) in escrowed(store)? {
        if !keyring.holds(&id) && locked.len() < TRIED_MAX {
            locked.push(Locked { id, bytes: read_escrow(store, &key)? });
        }
    }
    let mut outdated = Vec::new();
    // What opens may open others in turn.
    let mut tried = 0;
    while tried < keyring.keys().len() && !locked.is_empty() {
        let with = keyring.keys()[tried].clone();
        let mut still = Vec::new();
        for one in locked {
            match escrow::open(&one.bytes, &with, &one.id)? {
                Some(key) => {
                    keyring.add_older(key);
                    if tried > 0 {
                        outdated.push(one.id);
                    }
                }
                None => still.push(one),
            }
        }
        locked = still;
        tried += 1;
    }
    Ok(outdated)
}

/// Ids of the passphrases that are kept, in order.
pub(super) fn kept(store: &dyn Store) -> Result<Vec<KeyId>> {
    Ok(escrowed(store)?.into_iter().map(|(id, _)| id).collect())
}

/// Keeps every older key at hand that is not kept yet, and those of `outdated`, under the current one.
pub(super) fn keep_older(store: &dyn Store, keyring: &Keyring, outdated: &[KeyId]) -> Result<()> {
    let current = keyring.current();
    let kept = kept(store)?;
    for older in keyring.keys().iter().skip(1) {
        if !kept.contains(older.id()) || outdated.contains(older.id()) {
            keep(store, older, &current)?;
        }
    }
    Ok(())
}

/// Keeps `older` under `newer`, and reads it back before it counts.
pub(super) fn keep(store: &dyn Store, older: &Arc<Key>, newer: &Key) -> Result<()> {
    let key = escrowed_key(older.id())?;
    put(store, &key, &escrow::seal(older, newer)?, Commit::Replace)?;
    match escrow::open(&read_escrow(store, &key)?, newer, older.id())? {
        Some(_) => Ok(()),
        None => Err(Error::new(
            Code::BackupCorrupted,
            format!("{key} in {} reads back other than it was written", store.location()),
        )),
    }
}

fn escrowed(store: &dyn Store) -> Result<Vec<(KeyId, ObjectKey)>> {
    let mut found = Vec::new();
    store.list(ESCROW_PREFIX, &mut |object| {
        found.extend(escrowed_id(&object.key).map(|id| (id, object.key)));
        Ok(())
    })?;
    Ok(found)
}

fn read_escrow(store: &dyn Store, key: &ObjectKey) -> Result<Vec<u8>> {
    match read(store, key, ESCROW_MAX) {
        // Something that large is none of ours; it opens nothing.
        Err(error) if error.code() == Code::BackupCorrupted => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
