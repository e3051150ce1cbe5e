//! Batches of a target's log in a repository: committed, listed, read, deleted.
//!
//! A batch is the same wherever its manifest lies under the same key, with the same ranges of the log: encryption salts
//! each object anew, so its stored bytes never are.

use super::catalog::Repository;
use super::fault::StoreError;
use super::store::{ObjectFacts, ObjectInfo};
use crate::artifact::log_batch::{LogBatch, SignedLogBatch};
use crate::artifact::object_key::{self, BatchPlace, MANIFEST_SUFFIX, ObjectKey};
use crate::artifact::signing::DOCUMENT_MAX;
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};
use std::collections::BTreeMap;

impl Repository {
    /// Signs a batch's manifest with the current key and stores it, which is what makes its object count. It is read
    /// back and opened first. A batch with the same content that is there already is left and returned; one with another
    /// content is `OBJECT_CONFLICT`.
    pub fn commit_batch(&self, batch: &LogBatch) -> Result<SignedLogBatch> {
        let key = batch.key()?;
        if let Some(present) = self.find_batch(&key)? {
            if present.batch.same_content(batch) {
                return Ok(present);
            }
            let conflict = StoreError::Conflict { key, location: self.store().location() };
            return Err(Error::from(conflict).context("another batch of the log is there"));
        }
        let bytes = batch.seal(&self.keyring().current())?;
        self.commit_signed(&key, &bytes, &ObjectFacts::new(), |stored| LogBatch::open(stored, self.keyring(), &key))
    }

    /// Reads a batch's manifest and checks its signature.
    pub fn batch(&self, key: &ObjectKey) -> Result<SignedLogBatch> {
        LogBatch::open(&self.read_small(key, DOCUMENT_MAX)?, self.keyring(), key)
    }

    /// [`Repository::batch`], if it is there.
    pub fn find_batch(&self, key: &ObjectKey) -> Result<Option<SignedLogBatch>> {
        match self.batch(key) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Code::ObjectNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object of a target's log batches, manifests and others, in the order of keys.
    pub fn batch_objects(&self, environment: &str, target: &TargetName) -> Result<BTreeMap<ObjectKey, u64>> {
        let mut found = BTreeMap::new();
        self.store().list(&object_key::log_prefix(environment, target), &mut |object: ObjectInfo| {
            if object_key::batch_place(environment, target, &object.key).is_some() {
                found.insert(object.key, object.size);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether there is a manifest of a batch of that history which begins with that transaction.
    pub fn has_batch_from(
        &self,
        environment: &str,
        target: &TargetName,
        (stream, lineage): (&str, u32),
        first_transaction: u64,
    ) -> Result<bool> {
        let prefix = object_key::log_batch_prefix(environment, target, stream, lineage, first_transaction);
        let mut found = false;
        self.store().list(&prefix, &mut |object: ObjectInfo| {
            found |= object.key.as_str().ends_with(MANIFEST_SUFFIX);
            Ok(())
        })?;
        Ok(found)
    }

    /// Keys of the manifests of one history of a log, in the order of their first transactions.
    pub fn batch_keys(
        &self,
        environment: &str,
        target: &TargetName,
        stream: &str,
        lineage: u32,
    ) -> Result<Vec<(BatchPlace, ObjectKey)>> {
        let mut found = Vec::new();
        let prefix = object_key::log_lineage_prefix(environment, target, stream, lineage);
        self.store().list(&prefix, &mut |object: ObjectInfo| {
            if object.key.as_str().ends_with(MANIFEST_SUFFIX)
                && let Some(place) = object_key::batch_place(environment, target, &object.key)
            {
                found.push((place, object.key));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Deletes a batch, its manifest first, so that it no longer counts. Returns how many objects went, and their bytes.
    pub fn delete_batch(&self, batch: &LogBatch) -> Result<(u64, u64)> {
        self.delete_all([batch.key()?, batch.object.key.clone()].into_iter())
    }
}

#[cfg(test)]
mod tests;
