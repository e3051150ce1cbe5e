//! The validated settings as plain data: everything is present, in range and resolved per target.
//!
//! Nothing here knows where a value came from; [`super::Loaded::show`] does.

use crate::base::ids::TargetName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `prod`, `staging`, …: a part of every object's key.
    pub environment: String,
    /// Ledger, spool, scratch and locks.
    pub state_directory: PathBuf,
    /// By name; never empty.
    pub repositories: BTreeMap<String, RepositorySettings>,
    /// By name; empty where nothing is configured yet.
    pub targets: BTreeMap<TargetName, TargetSettings>,
    /// `[encryption]` itself, for what belongs to no target (`encrypt FILE`, `key list`).
    pub encryption: EncryptionSettings,
}

/// Where backups are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositorySettings {
    /// A directory of this host.
    Local {
        /// Absolute.
        path: PathBuf,
    },
    /// A bucket of an S3-compatible store.
    S3(S3Settings),
}

/// See [`RepositorySettings::S3`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with, without a slash at either end; `%H` is expanded. May be empty.
    pub prefix: String,
    /// `None` = as the SDK's own chain finds it.
    pub region: Option<String>,
    /// `None` = Amazon's.
    pub endpoint: Option<String>,
    /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.
    pub path_style: bool,
    /// Whether an `http://` endpoint may be spoken to.
    pub allow_http: bool,
    /// Encryption at the store's side.
    pub sse: ServerSideEncryption,
    /// The key for [`ServerSideEncryption::Kms`]; `None` = the account's default key.
    pub kms_key_id: Option<String>,
    /// Checksums that requests carry.
    pub checksums: RequestChecksums,
}

/// Which requests carry the newer checksums (CRC), which some stores refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestChecksums {
    /// Where the protocol demands one.
    WhenRequired,
    /// Wherever the protocol knows one.
    WhenSupported,
}

/// Encryption at the store's side, on top of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerSideEncryption {
    /// Nothing is asked for.
    None,
    /// With keys of the store (SSE-S3).
    S3,
    /// With a key of its key service (SSE-KMS).
    Kms,
}

/// One database, with every table that can be overridden below it already resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSettings {
    /// Its name.
    pub name: TargetName,
    /// Names of the repositories it is written to; never empty, each is a key of [`Settings::repositories`].
    pub repositories: Vec<String>,
    /// What `backup TARGET` takes when it is given no type.
    pub default_type: RunType,
    /// Encryption and keys.
    pub encryption: EncryptionSettings,
    /// Compression.
    pub compression: CompressionSettings,
    /// When it is backed up.
    pub schedule: ScheduleSettings,
    /// What is kept.
    pub retention: RetentionSettings,
    /// What must hold before a job begins.
    pub preflight: PreflightSettings,
    /// Bounds.
    pub limits: LimitSettings,
    /// What was promised.
    pub slo: SloSettings,
    /// Who is told.
    pub alerts: AlertSettings,
    /// The database itself.
    pub database: DatabaseSettings,
}

/// A run's type: the whole database, or the changes since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunType {
    /// The whole database.
    Full,
    /// The changes since.
    Incremental,
}

/// Where a secret is. Its content is read by whoever needs it, never by the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that was named or is at the default place.
    File(PathBuf),
    /// A systemd credential, below `$CREDENTIALS_DIRECTORY`.
    Credential(PathBuf),
}

impl SecretSource {
    /// The file to read, whichever way it came here.
    pub fn path(&self) -> &PathBuf {
        match self {
            SecretSource::File(path) | SecretSource::Credential(path) => path,
        }
    }
}

/// How stored bytes are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptionMethod {
    /// As `openssl enc -aes-256-cbc -pbkdf2 -md sha256` does.
    Aes256Cbc,
    /// Not at all; said aloud in the configuration.
    None,
}

/// Encryption and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionSettings {
    /// How.
    pub method: EncryptionMethod,
    /// The passphrase new backups are encrypted and signed with.
    pub passphrase: SecretSource,
    /// Files with passphrases of older backups.
    pub older: Vec<PathBuf>,
    /// The signing secret; always there with [`EncryptionMethod::None`]. Otherwise new backups are signed by a key that
    /// is derived from the passphrase, and this one, if it is there, still proves older ones.
    pub signing_file: Option<SecretSource>,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// Whether fewer than [`super::sections::ITERATIONS_MIN`] iterations were allowed aloud.
    pub allow_low_iterations: bool,
}

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionAlgorithm {
    /// Zstandard, level 1 to 19.
    Zstd,
    /// gzip, level 1 to 9.
    Gzip,
    /// Not at all.
    None,
}

/// Compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionSettings {
    /// How.
    pub algorithm: CompressionAlgorithm,
    /// How hard; in the algorithm's own range, 0 with [`CompressionAlgorithm::None`].
    pub level: u32,
}

/// When a target is backed up: `OnCalendar` values of systemd; `None` = never by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleSettings {
    /// Full backups.
    pub full: Option<String>,
    /// Incremental backups.
    pub incremental: Option<String>,
    /// Also once as soon as the agent has started.
    pub at_start: bool,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// The newest of this many days.
    pub daily: u32,
    /// The newest of this many weeks.
    pub weekly: u32,
    /// The newest of this many months.
    pub monthly: u32,
    /// Everything younger than this many days.
    pub days: Option<u32>,
    /// How far back every second can be restored.
    pub point_in_time: Duration,
    /// Never fewer verified bases than this.
    pub minimum_verified: u32,
    /// How long a deleted backup can be undeleted.
    pub trash: Duration,
}

/// What must hold before a job begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreflightSettings {
    /// Free space of each filesystem the job writes to, in percent: 0 to 99.
    pub minimum_free_percent: u8,
}

/// What to do when the spool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolFull {
    /// Wait; the database keeps its log.
    Block,
    /// Drop the log, record the gap, take a new base at once.
    Drop,
}

/// Bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Resident memory of a job, in bytes.
    pub memory: u64,
    /// Bytes per second to a repository; 0 = no limit.
    pub bandwidth: u64,
    /// Largest spool, in bytes.
    pub spool: u64,
    /// When it is full.
    pub spool_full: SpoolFull,
    /// How long data that a restore replaced is kept.
    pub set_aside_keep: Duration,
}

/// What was promised to the database's users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SloSettings {
    /// At most so much is lost.
    pub rpo: Duration,
    /// At most so long it takes.
    pub rto: Duration,
}

/// Who is told of trouble, beside the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertSettings {
    /// By mail.
    pub mail: Option<MailAlert>,
    /// By an HTTP request with the alert in its body.
    pub webhook: Option<WebhookAlert>,
    /// By the absence of a regular HTTP request.
    pub ping: Option<UrlSource>,
}

/// See [`AlertSettings::mail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAlert {
    /// Recipients; never empty.
    pub to: Vec<String>,
    /// Sender.
    pub from: String,
    /// `smtp://host:port`, `smtps://…`; `None` = the host's own `sendmail`.
    pub smtp: Option<String>,
    /// Login at the mail server.
    pub user: Option<String>,
    /// Its password.
    pub password_file: Option<PathBuf>,
}

/// See [`AlertSettings::webhook`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAlert {
    /// Where to.
    pub url: UrlSource,
    /// How the body looks.
    pub format: WebhookFormat,
}

/// How a webhook's body looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The alert's own fields.
    Json,
    /// `{"text": …}`, as Slack and its likes take it.
    Slack,
}

/// A URL, which may be a secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlSource {
    /// In the configuration.
    Plain(String),
    /// The first line of a secret file.
    File(PathBuf),
}

/// The database behind a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseSettings {
    /// Neo4j.
    Neo4j(Neo4jSettings),
    /// PostgreSQL, with or without TimescaleDB.
    Postgresql(PostgresSettings),
    /// The simulated database of the tests.
    Sim(SimSettings),
}

/// How a server in service is stopped and started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceSettings {
    /// A systemd unit.
    Unit(String),
    /// Argument vectors, the program's path first. Never a shell's.
    Commands {
        /// Returns when the server has stopped.
        stop: Vec<String>,
        /// Returns when the server has been started.
        start: Vec<String>,
    },
    /// Nobody said how.
    Unmanaged,
}

/// How a full backup of Neo4j is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neo4jFull {
    /// Physical, while the server runs.
    Online,
    /// `neo4j-admin database dump`.
    Dump,
    /// Logical, over Bolt.
    Export,
    /// `neo4j-admin database backup` of Neo4j Enterprise.
    Enterprise,
}

/// A Neo4j database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neo4jSettings {
    /// `NEO4J_HOME`.
    pub home: PathBuf,
    /// The server's `neo4j.conf`.
    pub conf: PathBuf,
    /// The program `neo4j-admin`.
    pub admin: PathBuf,
    /// The program that starts a scratch server; `None` = `bin/neo4j` below `home`.
    pub server_command: Option<PathBuf>,
    /// How it is stopped and started.
    pub service: ServiceSettings,
    /// Where it answers; `None` = counts are not checked.
    pub bolt: Option<String>,
    /// Login; `None` = the server has authentication off.
    pub user: Option<String>,
    /// Its password; `None` = the server has authentication off.
    pub password_file: Option<PathBuf>,
    /// The database's name.
    pub database: String,
    /// Backup services of Enterprise; empty = that of the server's own configuration.
    pub backup_servers: Vec<String>,
    /// How full backups are taken.
    pub full: Neo4jFull,
    /// How often the log is shipped between the timers; `None` = not.
    pub continuous: Option<Duration>,
}

/// How a full backup of PostgreSQL is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresFull {
    /// Physical, of the whole cluster.
    Base,
    /// Logical, of the named databases.
    Dump,
}

/// A PostgreSQL cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `PGDATA`.
    pub data_directory: PathBuf,
    /// Where `pg_basebackup` and the other programs of the server's version are.
    pub bin_directory: PathBuf,
    /// Directory of the server's socket, or a host name.
    pub host: String,
    /// Port, also part of the socket's name.
    pub port: u16,
    /// Role.
    pub user: String,
    /// For logical dumps; empty = all.
    pub databases: Vec<String>,
    /// How it is stopped and started.
    pub service: ServiceSettings,
    /// How full backups are taken.
    pub full: PostgresFull,
    /// Whether logical dumps are SQL scripts and not archives.
    pub plain_dumps: bool,
    /// How often the log is shipped between the timers; `None` = not.
    pub continuous: Option<Duration>,
    /// Whether a replication slot holds the log until it is taken, and not `archive_command` hands it over.
    pub wal_by_slot: bool,
    /// `15/main`, where it is a cluster of Debian's tools.
    pub cluster: Option<String>,
    /// Where `postgresql.conf` and `pg_hba.conf` are when that is not the data directory.
    pub config_directory: Option<PathBuf>,
}

/// The simulated database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimSettings {
    /// Where it keeps its files.
    pub directory: PathBuf,
    /// As with Neo4j.
    pub continuous: Option<Duration>,
}
