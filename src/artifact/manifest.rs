//! The signed record of one backup: `.meta.json`, written last. Without it there is no backup.

use super::digest::{StoredDigest, sha256_hex};
use super::identity::{FORMAT, Owner};
use super::log_batch::{Known, LogMark};
use super::object_key::{self, ObjectKey};
use super::signing::{self, Key, KeyId, Keyring};
use super::statistics::Statistics;
use crate::base::ids::{BackupId, TargetName};
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The database program behind a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Neo4j, Community or Enterprise.
    Neo4j,
    /// PostgreSQL, with or without TimescaleDB.
    Postgresql,
    /// The deterministic fake that tests use.
    Sim,
}

impl Engine {
    /// The name in configuration and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Engine::Neo4j => "neo4j",
            Engine::Postgresql => "postgresql",
            Engine::Sim => "sim",
        }
    }
}

/// A backup's record. Fields are only ever added; `docs/FORMAT.md` explains each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `backup`.
    pub document: BackupDocument,
    /// Format version.
    pub format: u32,
    /// The backup's id; target, second and kind stand in it.
    pub id: BackupId,
    /// The environment, part of every key.
    pub environment: String,
    /// The database program.
    pub engine: Engine,
    /// The database's name on its server (A2).
    pub db_name: String,
    /// When the backup counted as begun, and whose second the id carries.
    pub created_at: Timestamp,
    /// When everything but this manifest was in the repository.
    pub finished_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How long the server was stopped for it, in milliseconds.
    pub downtime_ms: u64,
    /// Program and version (A2).
    pub created_by: String,
    /// Version of the agent (A2).
    pub tool_version: String,
    /// The host (A2).
    pub hostname: String,
    /// Who writes this chain.
    pub owner: Owner,
    /// 1 for a target's first backup in this repository, then counting.
    pub sequence: u64,
    /// The backup before this one, bound by the hash of its manifest.
    pub predecessor: Option<Predecessor>,
    /// The server's own account of itself.
    pub server: ServerRecord,
    /// Where this backup stands in the database's log.
    pub position: Option<LogPosition>,
    /// What the database held.
    pub statistics: Statistics,
    /// `statistics.rows()`, as A2 names it.
    pub rows_estimate: u64,
    /// SHA-256 of the first data object's stored bytes (A2).
    pub sha256: String,
    /// Everything that belongs to it, in the order in which it is restored.
    pub objects: Vec<ObjectRecord>,
    /// What was weaker than it should have been.
    pub warnings: Vec<String>,
    /// Damage that the database's own files had when they were read. Empty = none was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspect: Vec<String>,
    /// The operator's words.
    pub note: Option<String>,
}

/// Tells signed documents of different sorts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackupDocument {
    /// The only value.
    #[serde(rename = "backup")]
    Backup,
}

/// Binds a backup to the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its id.
    pub id: BackupId,
    /// SHA-256 of its manifest's bytes.
    pub manifest_sha256: String,
}

/// What the server said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Its version, as it prints it.
    pub version: String,
    /// `community`, `enterprise`, or empty where that means nothing.
    pub edition: String,
    /// Settings and facts that a restore needs, by name: `shared_preload_libraries`, `store_format`.
    pub facts: std::collections::BTreeMap<String, String>,
}

/// Where a backup stands in the database's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// PostgreSQL's timeline, or our lineage of a Neo4j store.
    pub lineage: String,
    /// Where recovery starts: an LSN, or a transaction id.
    pub start: String,
    /// Where the backup is consistent.
    pub end: String,
    /// Whether the backup holds all log between the two, and so restores without any archive.
    pub log_contained: bool,
    /// The end as a point of the log, from which batches go on; absent where the log cannot be archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<LogMark>,
    /// The latest time of commit that is known of what the backup holds: later than the last transaction's where the
    /// server's clock ran back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_commit: Option<Timestamp>,
    /// As in a batch of the log: where the chains of the target's other repositories were known to end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<String, Known>,
}

impl LogPosition {
    /// Of a backup that holds the log it needs, from `start` on, and ends at `mark`; its lineage is told where it is stored.
    pub fn ending_at(start: u64, mark: LogMark) -> LogPosition {
        LogPosition {
            lineage: String::new(),
            start: start.to_string(),
            end: mark.transaction.to_string(),
            log_contained: true,
            latest_commit: mark.committed_at,
            mark: Some(mark),
            beside: BTreeMap::new(),
        }
    }
}

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The database's data.
    Data,
    /// A piece of the database's log.
    Log,
    /// What lies outside the data directories: configuration, certificates, package versions.
    Config,
}

/// How an object's plaintext is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A POSIX tar of a directory tree.
    Tar,
    /// An archive of `neo4j-admin database dump`.
    Neo4jDump,
    /// An artifact of `neo4j-admin database backup` of Neo4j Enterprise.
    Neo4jBackup,
    /// An archive of `pg_dump`: one database.
    PgDump,
    /// A script of `pg_dump`, which makes its database: for `psql`.
    PgScript,
    /// A script of `pg_dumpall`: roles and settings of a cluster.
    PgGlobals,
    /// Ranges of log files, one after the other, as the manifest lists them.
    LogRanges,
    /// Bytes whose meaning only the driver knows.
    Opaque,
}

/// One object of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Its key in the repository.
    pub key: ObjectKey,
    /// What it is for.
    pub role: Role,
    /// Its name within the backup: `base`, `neo4j`, `system`, `config`.
    pub name: String,
    /// Its lane, from 0.
    pub lane: u32,
    /// How its plaintext is laid out.
    pub content: Content,
    /// What is stored.
    pub stored: StoredDigest,
    /// What it says when opened.
    pub plain: PlainDigest,
    /// The filters that made the stored bytes from the plain ones, in order: `zstd`, `gzip`, `aes-256-cbc`.
    pub filters: Vec<String>,
    /// How it is encrypted; absent = not at all.
    pub encryption: Option<EncryptionRecord>,
}

/// What is known of an object's plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainDigest {
    /// Bytes. Opening the object never yields more, whatever its compression claims.
    pub size: u64,
    /// CRC-32C of all of them, 8 hex digits.
    pub crc32c: String,
    /// SHA-256, where the plaintext's identity matters: dumps, log segments, configuration.
    pub sha256: Option<String>,
}

/// How an object is encrypted: exactly as `openssl enc -aes-256-cbc -pbkdf2 -md sha256` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRecord {
    /// Which passphrase.
    pub key_id: KeyId,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// Always `random-per-object`: eight bytes after `Salted__` at the object's start.
    pub salt: String,
}

impl Manifest {
    /// The target, from the id.
    pub fn target(&self) -> &TargetName {
        &self.id.target
    }

    /// Whether it holds what a database says of its content, and not its files.
    pub fn is_logical(&self) -> bool {
        let logical = |content| matches!(content, Content::PgDump | Content::PgScript | Content::PgGlobals);
        self.objects.iter().any(|object| logical(object.content))
    }

    /// Bytes before compression and encryption, over all objects.
    pub fn plain_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.plain.size).sum()
    }

    /// Bytes in the repository, over all objects.
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.stored.size).sum()
    }

    /// The key this manifest is stored under.
    pub fn key(&self) -> Result<ObjectKey> {
        object_key::backup_manifest(&self.environment, &self.id)
    }

    /// Renders and signs it.
    pub fn seal(&self, key: &Key) -> Result<Vec<u8>> {
        signing::seal(self, key)
    }

    /// Checks the signature, then the format version, then that the manifest belongs under `stored_as` and makes sense.
    pub fn open(bytes: &[u8], keyring: &Keyring, stored_as: &ObjectKey) -> Result<SignedManifest> {
        let what = format!("manifest {stored_as}");
        let (manifest, signed_by): (Manifest, KeyId) = signing::open(bytes, keyring, &what)?;
        if manifest.format > FORMAT {
            return Err(Error::new(
                Code::FormatUnsupported,
                format!("{what} has format {}, this release reads up to {FORMAT}", manifest.format),
            ));
        }
        if &manifest.key()? != stored_as {
            return Err(Error::new(
                Code::SignatureInvalid,
                format!("{what} is the manifest of {}: it was renamed or put in another's place", manifest.id),
            ));
        }
        let stem = stored_as.as_str().trim_end_matches(object_key::MANIFEST_SUFFIX);
        for object in &manifest.objects {
            let own = object.key.as_str().strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'));
            if !own || !object.stored.is_consistent() {
                return Err(Error::new(
                    Code::SignatureInvalid,
                    format!("{what}: its record of {} makes no sense", object.key),
                ));
            }
        }
        Ok(SignedManifest { manifest, signed_by, bytes_sha256: sha256_hex(bytes) })
    }
}

/// A manifest whose signature was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedManifest {
    /// Its content.
    pub manifest: Manifest,
    /// The key that signed it.
    pub signed_by: KeyId,
    /// SHA-256 of its exact bytes, by which its successor names it.
    pub bytes_sha256: String,
}
