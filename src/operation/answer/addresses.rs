//! Answers that give out addresses.

use crate::artifact::object_key::ObjectKey;
use crate::base::ids::BackupId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a backup's objects can be fetched without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresignReport {
    /// The backup.
    pub backup: BackupId,
    /// The repository that gives them out.
    pub repository: String,
    /// Until when, at most: with credentials that expire earlier, so do the addresses.
    pub expires_at: Timestamp,
    /// The manifest first.
    pub objects: Vec<Address>,
}

/// See [`PresignReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The object.
    pub key: ObjectKey,
    /// Its bytes.
    pub size: u64,
    /// Whoever has this can read it.
    pub url: String,
}
