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
/// is told then (`WRONG_KEY`).
pub(super) fn unlock(store: &dyn Store, keyring: &Keyring) -> Result<()> {
    let mut locked = Vec::new();
    for (id, key) in escrowed(store)? {
        if !keyring.holds(&id) && locked.len() < TRIED_MAX {
            locked.push(Locked { id, bytes: read_escrow(store, &key)? });
        }
    }
    // What opens may open others in turn.
    let mut tried = 0;
    while tried < keyring.keys().len() && !locked.is_empty() {
        let with = keyring.keys()[tried].clone();
        let mut still = Vec::new();
        for one in locked {
            match escrow::open(&one.bytes, &with, &one.id)? {
                Some(key) => keyring.add_older(key),
                None => still.push(one),
            }
        }
        locked = still;
        tried += 1;
    }
    Ok(())
}

/// Ids of the passphrases that are kept, in order.
pub(super) fn kept(store: &dyn Store) -> Result<Vec<KeyId>> {
    Ok(escrowed(store)?.into_iter().map(|(id, _)| id).collect())
}

/// Makes sure that every older key at hand is kept under the current one, so that one step leads to each. What one key
/// fails at keeps none of the others from it; the first error comes back.
pub(super) fn keep_older(store: &dyn Store, keyring: &Keyring) -> Result<()> {
    let current = keyring.current();
    let mut outcome = Ok(());
    for older in keyring.keys().iter().skip(1) {
        // Looking takes 120 ms for each key, and nothing of ours undoes what was seen once.
        let seen = format!("{} under {} in {}", older.id(), current.id(), store.location());
        if keyring.was_seen(&seen) {
            continue;
        }
        match keep_one(store, older, &current) {
            Ok(()) => keyring.see(seen),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome
}

fn keep_one(store: &dyn Store, older: &Arc<Key>, current: &Key) -> Result<()> {
    match read_escrow(store, &escrowed_key(older.id())?) {
        Ok(bytes) if escrow::open(&bytes, current, older.id())?.is_some() => Ok(()),
        Err(error) if error.code() != Code::ObjectNotFound => Err(error),
        _ => keep(store, older, current),
    }
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
