//! The ledger's tables, and how an older ledger becomes a current one.

use rusqlite_migration::{M, Migrations};

/// Migrations in order; the file's `user_version` counts those that were applied. Never edit one that was released.
pub(super) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(FIRST)])
}

/// How many there are: a file with a higher `user_version` was made by a newer release.
pub(super) const CURRENT_VERSION: i64 = 1;

/// Times are microseconds since 1970 in UTC; lists and maps are JSON.
const FIRST: &str = r"
CREATE TABLE targets (
    name        TEXT PRIMARY KEY,
    engine      TEXT NOT NULL,
    first_seen  INTEGER NOT NULL
) STRICT;

CREATE TABLE backups (
    id             TEXT PRIMARY KEY,
    target         TEXT NOT NULL REFERENCES targets(name),
    engine         TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    duration_ms    INTEGER NOT NULL,
    plain_bytes    INTEGER NOT NULL,
    stored_bytes   INTEGER NOT NULL,
    sha256         TEXT NOT NULL,
    server_version TEXT NOT NULL,
    counts         TEXT NOT NULL
) STRICT;
CREATE INDEX backups_by_target ON backups(target, created_at DESC, id DESC, stored_bytes);
CREATE INDEX backups_by_time ON backups(created_at DESC, id DESC);

-- Which repository holds which backup, and how it stands there.
CREATE TABLE copies (
    backup          TEXT NOT NULL REFERENCES backups(id) ON DELETE CASCADE,
    repository      TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('COMPLETE','VALIDATED','CORRUPTED','MISSING')),
    sequence        INTEGER NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    key_id          TEXT NOT NULL,
    verified_at     INTEGER,
    PRIMARY KEY (backup, repository)
) STRICT, WITHOUT ROWID;
CREATE INDEX copies_by_repository ON copies(repository, sequence DESC);
CREATE INDEX copies_verified ON copies(verified_at DESC) WHERE state = 'VALIDATED';

CREATE TABLE objects (
    backup        TEXT NOT NULL REFERENCES backups(id) ON DELETE CASCADE,
    key           TEXT NOT NULL,
    name          TEXT NOT NULL,
    stored_bytes  INTEGER NOT NULL,
    stored_sha256 TEXT NOT NULL,
    plain_bytes   INTEGER NOT NULL,
    PRIMARY KEY (backup, key)
) STRICT;

CREATE TABLE jobs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    verb        TEXT NOT NULL,
    target      TEXT,
    actor       TEXT NOT NULL,
    state       TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    error_code  TEXT,
    message     TEXT,
    pid         INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_running ON jobs(ended_at) WHERE ended_at IS NULL;
CREATE INDEX jobs_by_target ON jobs(target, id DESC);

CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    severity TEXT NOT NULL,
    name     TEXT NOT NULL,
    target   TEXT,
    job      INTEGER,
    actor    TEXT NOT NULL,
    text     TEXT NOT NULL
) STRICT;

CREATE TABLE restores (
    name        TEXT PRIMARY KEY,
    target      TEXT NOT NULL,
    backup      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    directory   TEXT NOT NULL,
    in_place    INTEGER NOT NULL,
    set_aside   TEXT NOT NULL,
    plain_bytes INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    healthy     INTEGER
) STRICT;
CREATE INDEX restores_by_target ON restores(target, at DESC);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_valid_and_counted() {
        migrations().validate().expect("valid");
        let mut connection = rusqlite::Connection::open_in_memory().expect("open");
        migrations().to_latest(&mut connection).expect("migrate");
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("version");
        assert_eq!(version, CURRENT_VERSION);
    }
}
