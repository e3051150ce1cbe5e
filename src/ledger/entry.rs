//! What goes into the ledger of a backup, and what comes out.

use super::copy_state::CopyState;
use crate::artifact::manifest::{Role, SignedManifest};
use crate::artifact::object_key::ObjectKey;
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;

/// A backup as its manifest in one repository tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupEntry {
    /// Its id.
    pub id: BackupId,
    /// The environment.
    pub environment: String,
    /// The database program: `neo4j`, `postgresql`.
    pub engine: String,
    /// The database's name on its server.
    pub database: String,
    /// The data's own identity.
    pub data_identity: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was finished.
    pub finished_at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// How long the server was stopped for it.
    pub downtime_ms: u64,
    /// The server's version.
    pub server_version: String,
    /// Bytes before compression and encryption.
    pub plain_bytes: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
    /// SHA-256 of the first data object.
    pub sha256: String,
    /// Counts by name.
    pub counts: Vec<(String, u64)>,
    /// Whether they hold for the backup's very moment.
    pub counts_exact: bool,
    /// What was weaker than it should have been.
    pub warnings: Vec<String>,
    /// The operator's words.
    pub note: Option<String>,
    /// Its place in the chain of this target in this repository.
    pub sequence: u64,
    /// Where its manifest is.
    pub manifest_key: ObjectKey,
    /// SHA-256 of the manifest's bytes.
    pub manifest_sha256: String,
    /// The key that signed it.
    pub signed_by: String,
    /// Its objects, in order.
    pub objects: Vec<ObjectEntry>,
}

/// An object of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Its key.
    pub key: ObjectKey,
    /// `data` or `config`.
    pub role: String,
    /// Its name within the backup.
    pub name: String,
    /// Stored bytes.
    pub size: u64,
    /// SHA-256 of the stored bytes.
    pub sha256: String,
}

impl BackupEntry {
    /// What a manifest whose signature was checked says.
    pub fn of(signed: &SignedManifest) -> Result<BackupEntry> {
        let manifest = &signed.manifest;
        let objects = manifest.objects.iter().map(|object| ObjectEntry {
            key: object.key.clone(),
            role: match object.role {
                Role::Data => "data".to_owned(),
                Role::Config => "config".to_owned(),
            },
            name: object.name.clone(),
            size: object.stored.size,
            sha256: object.stored.sha256.clone(),
        });
        Ok(BackupEntry {
            id: manifest.id.clone(),
            environment: manifest.environment.clone(),
            engine: manifest.engine.as_str().to_owned(),
            database: manifest.db_name.clone(),
            data_identity: manifest.owner.data_identity.clone(),
            created_at: manifest.created_at,
            finished_at: manifest.finished_at,
            duration_ms: manifest.duration_ms,
            downtime_ms: manifest.downtime_ms,
            server_version: manifest.server.version.clone(),
            plain_bytes: manifest.plain_bytes(),
            stored_bytes: manifest.stored_bytes(),
            sha256: manifest.sha256.clone(),
            counts: manifest.statistics.counts.iter().map(|(name, count)| (name.clone(), *count)).collect(),
            counts_exact: manifest.statistics.exact,
            warnings: manifest.warnings.clone(),
            note: manifest.note.clone(),
            sequence: manifest.sequence,
            manifest_key: manifest.key()?,
            manifest_sha256: signed.bytes_sha256.clone(),
            signed_by: signed.signed_by.to_string(),
            objects: objects.collect(),
        })
    }
}

/// A backup on record.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupRow {
    /// Its id.
    pub id: BackupId,
    /// The environment.
    pub environment: String,
    /// The database program.
    pub engine: String,
    /// The database's name on its server.
    pub database: String,
    /// When it was begun; to the microsecond.
    pub created_at: Timestamp,
    /// When it was finished.
    pub finished_at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// How long the server was stopped for it.
    pub downtime_ms: u64,
    /// The server's version.
    pub server_version: String,
    /// Bytes before compression and encryption.
    pub plain_bytes: u64,
    /// Stored bytes of one copy.
    pub stored_bytes: u64,
    /// SHA-256 of the first data object.
    pub sha256: String,
    /// Counts by name.
    pub counts: Vec<(String, u64)>,
    /// Whether they hold for the backup's very moment.
    pub counts_exact: bool,
    /// What was weaker than it should have been.
    pub warnings: Vec<String>,
    /// The operator's words.
    pub note: Option<String>,
    /// What its copies say together.
    pub state: CopyState,
    /// Its copies, by the repository's name.
    pub copies: Vec<CopyRow>,
}

impl BackupRow {
    /// The copies that may be restored from.
    pub fn usable_copies(&self) -> impl Iterator<Item = &CopyRow> {
        self.copies.iter().filter(|copy| copy.state.is_usable())
    }

    /// When any copy was last read in full and was sound.
    pub fn verified_at(&self) -> Option<Timestamp> {
        self.copies.iter().filter_map(|copy| copy.verified_at).max()
    }
}

/// A backup's copy in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRow {
    /// The repository.
    pub repository: String,
    /// How it stands.
    pub state: CopyState,
    /// Its place in the chain there.
    pub sequence: u64,
    /// Where its manifest is.
    pub manifest_key: ObjectKey,
    /// SHA-256 of the manifest's bytes.
    pub manifest_sha256: String,
    /// The key that signed it.
    pub signed_by: String,
    /// When it was entered here.
    pub recorded_at: Timestamp,
    /// When all of it was last read and was sound.
    pub verified_at: Option<Timestamp>,
    /// What was wrong when it was last looked at.
    pub problem: Option<String>,
}

/// Which backups are wanted. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct BackupFilter {
    /// Only this target's.
    pub target: Option<TargetName>,
    /// Only those that have a copy to restore from and none that is damaged.
    pub usable_only: bool,
    /// Leave out so many of the newest.
    pub skip: u32,
    /// At most so many.
    pub limit: Option<u32>,
}
