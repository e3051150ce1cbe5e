//! Answers about keys.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Result of a rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotateReport {
    /// Nothing was written.
    pub dry_run: bool,
    /// The passphrases, by file.
    pub keys: Vec<RotatedKey>,
}

/// A passphrase that gave way to a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotatedKey {
    /// The file that the configuration names.
    pub file: PathBuf,
    /// Id of the old key.
    pub from: String,
    /// Id of the new key; `None` in a dry run.
    pub to: Option<String>,
    /// Where this host keeps the old passphrase.
    pub kept_as: PathBuf,
    /// The repositories that keep it under the new one.
    pub repositories: Vec<String>,
}

/// A key at hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its id.
    pub id: String,
    /// Whether new backups are made with it.
    pub current: bool,
    /// Whether its passphrase is configured here; without it its backups cannot be opened.
    pub at_hand: bool,
    /// Backups signed with it.
    pub backups: u64,
}
