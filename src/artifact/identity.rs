//! Who writes a chain, and which repository this is: small signed documents beside the backups.

use crate::base::ids::TargetName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format that this release writes. Older ones are read; newer ones are refused politely.
pub const FORMAT: u32 = 1;

/// The writer of a target's chain. A second writer is refused until `adopt` raises the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Host name, for people.
    pub host: String,
    /// `/etc/machine-id`: tells a clone's chain from the original's only together with `data_identity`.
    pub machine_id: String,
    /// The data directory's own identity: Neo4j's store id, PostgreSQL's system identifier.
    pub data_identity: String,
    /// Raised by `adopt`.
    pub epoch: u64,
}

impl Owner {
    /// Whether both are the same writer: same machine, same data, same epoch. The host's name may change.
    pub fn is_same_writer(&self, other: &Owner) -> bool {
        self.machine_id == other.machine_id && self.data_identity == other.data_identity && self.epoch == other.epoch
    }
}

/// `log/TARGET/owner.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// Always `owner`.
    pub document: OwnerDocument,
    /// Format version.
    pub format: u32,
    /// The environment whose chain it is.
    pub environment: String,
    /// The target whose chain it is.
    pub target: TargetName,
    /// Its writer.
    pub owner: Owner,
    /// Where the writer remembers what it wrote. Two agents of one machine are two writers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_directory: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

impl OwnerRecord {
    /// Whether both name the same writer: [`Owner::is_same_writer`], with the same memory.
    pub fn is_same_writer(&self, other: &OwnerRecord) -> bool {
        self.owner.is_same_writer(&other.owner) && self.is_same_agent(other)
    }

    /// Whether both are of the same agent on the same machine, whatever data it has now.
    pub fn is_same_agent(&self, other: &OwnerRecord) -> bool {
        let differ = matches!((&self.state_directory, &other.state_directory), (Some(one), Some(two)) if one != two);
        self.owner.machine_id == other.owner.machine_id && !differ
    }
}

/// `repository.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// Always `repository`.
    pub document: RepositoryDocument,
    /// Format version.
    pub format: u32,
    /// 32 random hex digits, the same for ever.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The program that made it.
    pub created_by: String,
}

/// Tells signed documents of different sorts apart, so that none can stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerDocument {
    /// The only value.
    #[serde(rename = "owner")]
    Owner,
}

/// See [`OwnerDocument`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepositoryDocument {
    /// The only value.
    #[serde(rename = "repository")]
    Repository,
}
