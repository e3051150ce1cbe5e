//! The table of keys. Order is the order of the template and of the reference.

use super::kind::{Kind, choice};
use super::schema::Fallback::{Discovered, Required, Unset, Value};
use super::schema::Key;
use super::text_rules as rule;

const NEO4J: &[&str] = &["neo4j"];
const POSTGRESQL: &[&str] = &["postgresql"];
const SERVERS: &[&str] = &["neo4j", "postgresql"];
const LOCAL: &[&str] = &["local"];
const SHIPS: &[&str] = &["neo4j", "postgresql", "sim"];
const S3: &[&str] = &["s3"];

const FEW: Kind = Kind::Integer { min: 0, max: 10_000 };
const SPAN: Kind = Kind::Span { min: 0, off: false };
const ONE_LINE: Kind = Kind::Text(rule::line);

/// Every key that can be said. A line each, so that it reads as the table it is.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    Key::new("environment", Kind::Text(rule::environment), Value("\"prod\""), "dev, staging, prod or any other word; part of every object's key, so changing it begins a new history"),
    Key::new("state_directory", Kind::Path, Value("\"/var/lib/neo4j-backup\""), "ledger, spool, scratch and locks"),
    // Repositories
    Key::new("repository.*.type", choice(&["local", "s3"]), Value("\"local\""), "a directory of this host, or a bucket"),
    Key::new("repository.*.path", Kind::Path, Discovered("`repository` below `state_directory`"), "the directory").only(LOCAL).example("\"/backup\""),
    Key::new("repository.*.url", Kind::Text(rule::repository_url), Unset("the keys below say it"), "everything in one line: s3://bucket/prefix?region=…, or file:///path").example("\"s3://db-backups/%H?region=eu-central-1\"").alternative(),
    Key::new("repository.*.bucket", Kind::Text(rule::bucket), Required, "the bucket").only(S3).example("\"db-backups\""),
    Key::new("repository.*.prefix", Kind::Text(rule::prefix), Value("\"%H\""), "what every key begins with; %H is this host's name").only(S3),
    Key::new("repository.*.region", Kind::Text(rule::region), Unset("as the SDK finds it"), "the bucket's region").only(S3).example("\"eu-central-1\""),
    Key::new("repository.*.endpoint", Kind::Text(rule::endpoint), Unset("Amazon's"), "another store that speaks S3").only(S3).example("\"https://s3.example.net\""),
    Key::new("repository.*.path_style", Kind::Flag, Value("false"), "the bucket in the path, not in the host's name").only(S3),
    Key::new("repository.*.allow_http", Kind::Flag, Value("false"), "allows an endpoint without TLS").only(S3),
    Key::new("repository.*.sse", choice(&["none", "s3", "kms"]), Value("\"none\""), "encryption by the store, on top of ours").only(S3),
    Key::new("repository.*.kms_key_id", ONE_LINE, Unset("the account's default key"), "the key for sse = \"kms\"").only(S3).example("\"alias/backups\"").alternative(),
    Key::new("repository.*.checksums", choice(&["when_required", "when_supported"]), Value("\"when_required\""), "newer checksums (CRC) of requests, which some stores refuse").only(S3),
    // Encryption
    Key::new("encryption.method", choice(&["aes-256-cbc", "none"]), Value("\"aes-256-cbc\""), "as `openssl enc -aes-256-cbc -pbkdf2` does; \"none\" must be said aloud, and needs signing_file"),
    Key::new("encryption.passphrase_file", Kind::Path, Discovered("the systemd credential `passphrase`, else `/etc/neo4j-backup/keys/current`"), "its first line, 20 to 1023 bytes, is the passphrase").example("\"/etc/neo4j-backup/keys/current\""),
    Key::new("encryption.older_passphrase_files", Kind::Paths, Value("[]"), "passphrases of older backups; not needed after `key rotate`, since the repositories keep them"),
    Key::new("encryption.signing_file", Kind::Path, Discovered("the systemd credential `signing`"), "the secret that signs where nothing is encrypted").example("\"/etc/neo4j-backup/keys/signing\"").alternative(),
    Key::new("encryption.iterations", Kind::Integer { min: 1, max: 100_000_000 }, Value("100000"), "PBKDF2 iterations; fewer than 100000 only with allow_low_iterations"),
    Key::new("encryption.allow_low_iterations", Kind::Flag, Value("false"), "allows what a fast machine can guess sooner"),
    // Compression
    Key::new("compression.algorithm", choice(&["zstd", "gzip", "none"]), Value("\"zstd\""), "how"),
    Key::new("compression.level", Kind::Integer { min: 1, max: 19 }, Discovered("3 for zstd, 6 for gzip"), "how hard: 1–19 for zstd, 1–9 for gzip").example("3"),
    // Targets
    Key::new("target.*.kind", Kind::Choice { words: SERVERS, hidden: &["sim"] }, Required, "which database it is").example("\"neo4j\""),
    Key::new("target.*.repositories", Kind::List(rule::repository_name), Discovered("all of them"), "where its backups go, by name").example("[\"main\", \"offsite\"]"),
    Key::new("target.*.default_type", choice(&["full", "incremental"]), Value("\"full\""), "what `backup` takes when it is given no --type").later(),
    Key::new("target.*.home", Kind::Path, Discovered("the package's `/var/lib/neo4j`"), "NEO4J_HOME; the root of a tarball installation").only(NEO4J).example("\"/var/lib/neo4j\""),
    Key::new("target.*.conf", Kind::Path, Discovered("`conf/neo4j.conf` below `home`, `/etc/neo4j/neo4j.conf`"), "the server's neo4j.conf").only(NEO4J).example("\"/etc/neo4j/neo4j.conf\""),
    Key::new("target.*.admin", Kind::Path, Discovered("`bin/neo4j-admin` below `home`, `/usr/bin/neo4j-admin`"), "the program neo4j-admin of the server's version").only(NEO4J).example("\"/usr/bin/neo4j-admin\""),
    Key::new("target.*.server_command", Kind::Path, Discovered("`bin/neo4j` below `home`, `/usr/bin/neo4j`"), "starts a private scratch server").only(NEO4J).example("\"/usr/bin/neo4j\""),
    Key::new("target.*.bolt", Kind::Text(rule::bolt), Discovered("`server.bolt.*` in neo4j.conf"), "where the server answers; \"off\" leaves counts unchecked").only(NEO4J).example("\"bolt://127.0.0.1:7687\""),
    Key::new("target.*.user", ONE_LINE, Discovered("`neo4j` with a password_file, else nobody"), "the login at the server").only(NEO4J).example("\"neo4j\""),
    Key::new("target.*.password_file", Kind::Path, Unset("the server has authentication off"), "its first line is the password").only(NEO4J).example("\"/etc/neo4j-backup/graph.password\""),
    Key::new("target.*.database", Kind::Text(rule::neo4j_database), Discovered("`initial.dbms.default_database` in neo4j.conf, else `neo4j`"), "the database's name").only(NEO4J).example("\"neo4j\""),
    Key::new("target.*.backup_servers", Kind::List(rule::backup_server), Value("[]"), "backup services of Neo4j Enterprise, tried in order; empty = `server.backup.listen_address` in neo4j.conf").only(NEO4J).example("[\"10.0.0.1:6362\", \"10.0.0.2:6362\"]"),
    Key::new("target.*.full", choice(&["online", "dump", "export", "enterprise"]), Value("\"online\""), "how a full backup is taken").only(NEO4J),
    Key::new("target.*.continuous", Kind::Span { min: 1, off: true }, Value("\"off\""), "how often the running agent ships the log between the timers").only(SHIPS),
    Key::new("target.*.cluster", Kind::Text(rule::cluster), Discovered("the only one below `/etc/postgresql`"), "a cluster of Debian's tools; it says all that follows").only(POSTGRESQL).example("\"15/main\""),
    Key::new("target.*.data_directory", Kind::Path, Discovered("postgresql.conf of the cluster"), "PGDATA").only(POSTGRESQL).example("\"/var/lib/postgresql/15/main\""),
    Key::new("target.*.bin_directory", Kind::Path, Discovered("the server's version"), "where pg_basebackup of the server's version is").only(POSTGRESQL).example("\"/usr/lib/postgresql/15/bin\""),
    Key::new("target.*.config_directory", Kind::Path, Discovered("`/etc/postgresql/VERSION/NAME` of a cluster, else the data directory"), "where postgresql.conf and pg_hba.conf are").only(POSTGRESQL).example("\"/etc/postgresql/15/main\""),
    Key::new("target.*.host", Kind::Text(rule::socket_or_host), Discovered("`unix_socket_directories`, else `/var/run/postgresql`"), "directory of the socket, or a host").only(POSTGRESQL).example("\"/var/run/postgresql\""),
    Key::new("target.*.port", Kind::Integer { min: 1, max: 65_535 }, Discovered("postgresql.conf, else 5432"), "the port; part of the socket's name too").only(POSTGRESQL).example("5432"),
    Key::new("target.*.user", ONE_LINE, Value("\"neo4j-backup\""), "the role").only(POSTGRESQL),
    Key::new("target.*.databases", Kind::List(rule::line), Value("[]"), "what logical dumps hold; empty = all").only(POSTGRESQL).example("[\"metrics\"]"),
    Key::new("target.*.full", choice(&["base", "dump"]), Value("\"base\""), "how a full backup is taken").only(POSTGRESQL),
    Key::new("target.*.wal", choice(&["push", "slot"]), Value("\"push\""), "\"push\": `archive_command` hands the log over; \"slot\": a replication slot holds it until it is taken from `pg_wal`").only(POSTGRESQL),
    Key::new("target.*.dump_format", choice(&["custom", "plain"]), Value("\"custom\""), "how a logical dump writes each database: for pg_restore, or as SQL").only(POSTGRESQL),
    Key::new("target.*.unit", Kind::Text(rule::unit), Discovered("the package's unit, where its file exists"), "the systemd unit a restore stops and starts; \"none\" = it must not").only(SERVERS).example("\"neo4j.service\""),
    Key::new("target.*.stop_command", Kind::Command, Unset("the unit is stopped"), "stops the server and returns when it has stopped; never read by a shell").only(SERVERS).example("[\"/usr/bin/neo4j\", \"stop\"]").alternative(),
    Key::new("target.*.start_command", Kind::Command, Unset("the unit is started"), "starts the server and returns").only(SERVERS).example("\"/usr/bin/neo4j start\"").alternative(),
    Key::new("target.*.directory", Kind::Path, Required, "files of the simulated database").only(&["sim"]).hidden(),
    // When
    Key::new("schedule.full", Kind::Calendar, Value("\"02:00 UTC\""), "full backups; without it, those of Neo4j are at 02:30 UTC"),
    Key::new("schedule.incremental", Kind::Calendar, Value("\"*:0/15\""), "incremental backups, where the log is archived"),
    Key::new("schedule.at_start", Kind::Flag, Value("false"), "also one as soon as the agent has started").later(),
    // What is kept
    Key::new("retention.daily", FEW, Value("7"), "the newest of so many days"),
    Key::new("retention.weekly", FEW, Value("4"), "the newest of so many weeks"),
    Key::new("retention.monthly", FEW, Value("3"), "the newest of so many months"),
    Key::new("retention.days", Kind::Integer { min: 1, max: 36_500 }, Unset("only the three above count"), "everything younger than so many days, too").example("30"),
    Key::new("retention.point_in_time", SPAN, Value("\"14d\""), "how far back every second that can be restored stays so: bases that the archived log needs for it are kept"),
    Key::new("retention.minimum_verified", Kind::Integer { min: 1, max: 1_000 }, Value("2"), "never fewer verified bases than this"),
    Key::new("retention.trash", SPAN, Value("\"3d\""), "how long a deleted backup can be undeleted").later(),
    // Bounds and promises
    Key::new("preflight.minimum_free_percent", Kind::Integer { min: 0, max: 99 }, Value("20"), "free space of each filesystem the job writes to"),
    Key::new("limits.memory", Kind::Size { min: 64 << 20, zero: false }, Value("\"200MB\""), "resident memory of a job"),
    Key::new("limits.bandwidth", Kind::Size { min: 1_000, zero: true }, Value("\"0\""), "bytes per second to a repository").later(),
    Key::new("limits.spool", Kind::Size { min: 16 << 20, zero: false }, Value("\"10GB\""), "log that PostgreSQL has handed over and that waits for a repository"),
    Key::new("limits.spool_full", choice(&["block", "drop"]), Value("\"block\""), "\"block\": the server keeps what finds no room; \"drop\": the gap is recorded and a base taken"),
    Key::new("limits.set_aside_keep", SPAN, Value("\"7d\""), "how long replaced data is kept; always until a newer base is verified").later(),
    Key::new("slo.rpo", Kind::Span { min: 1, off: false }, Value("\"15min\""), "at most so much may be lost").later(),
    Key::new("slo.rto", Kind::Span { min: 1, off: false }, Value("\"1h\""), "at most so long a restore may take").later(),
    // Who is told
    Key::new("alerts.mail.to", Kind::List(rule::mail_address), Required, "recipients").example("[\"ops@example.net\"]").later(),
    Key::new("alerts.mail.from", Kind::Text(rule::mail_address), Discovered("`neo4j-backup` at this host"), "sender").example("\"backup@example.net\"").later(),
    Key::new("alerts.mail.smtp", Kind::Text(rule::mail_server), Unset("the host's own sendmail"), "the mail server").example("\"smtp://mail.example.net:587\"").later(),
    Key::new("alerts.mail.user", ONE_LINE, Unset("no login"), "the login at the mail server").example("\"backup\"").later(),
    Key::new("alerts.mail.password_file", Kind::Path, Unset("no login"), "its first line is the password").example("\"/etc/neo4j-backup/mail.password\"").later(),
    Key::new("alerts.webhook.url", Kind::Text(rule::web_address), Unset("see url_file"), "where the alert is posted").example("\"https://hooks.example.net/backup\"").later(),
    Key::new("alerts.webhook.url_file", Kind::Path, Unset("see url"), "the same from a file, where the address is a secret").example("\"/etc/neo4j-backup/webhook.url\"").alternative().later(),
    Key::new("alerts.webhook.format", choice(&["json", "slack"]), Value("\"json\""), "how the body looks").later(),
    Key::new("alerts.ping.url", Kind::Text(rule::web_address), Unset("see url_file"), "asked after every success; whoever listens there notices silence").example("\"https://ping.example.net/graph\"").later(),
    Key::new("alerts.ping.url_file", Kind::Path, Unset("see url"), "the same from a file").example("\"/etc/neo4j-backup/ping.url\"").alternative().later(),
];
