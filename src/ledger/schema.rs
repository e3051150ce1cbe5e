//! The tables. A change of them is a further migration at the end of the list; those that were released stay as they
//! are. The number of migrations is the file's `user_version`.
//!
//! Times are microseconds since 1970 in UTC, durations milliseconds, sizes bytes, paths the bytes of the path.

use super::fault::{self, LedgerError};
use crate::base::Result;
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};
use std::path::Path;

/// The version that this release writes.
pub const VERSION: i64 = 1;

const FIRST: &str = "
CREATE TABLE targets (
    name TEXT PRIMARY KEY,
    engine TEXT NOT NULL,
    data_identity TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE repositories (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    location TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE backups (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    environment TEXT NOT NULL,
    target TEXT NOT NULL REFERENCES targets (name),
    engine TEXT NOT NULL,
    database TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    downtime_ms INTEGER NOT NULL,
    server_version TEXT NOT NULL,
    plain_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    counts TEXT NOT NULL,               -- JSON: [[name, number], ...]
    counts_exact INTEGER NOT NULL,
    warnings TEXT NOT NULL,             -- JSON: [line, ...]
    note TEXT,
    -- The copies' states taken together, so that lists and totals need not look at them.
    state TEXT NOT NULL CHECK (state IN ('complete', 'validated', 'corrupted', 'missing'))
) STRICT;
CREATE INDEX backups_by_target ON backups (target, created_at, id);
CREATE INDEX backups_by_time ON backups (created_at, id);
CREATE INDEX backups_totals ON backups (target, state, plain_bytes, stored_bytes);

CREATE TABLE backup_repositories (
    backup INTEGER NOT NULL REFERENCES backups (number) ON DELETE CASCADE,
    repository TEXT NOT NULL,
    target TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('complete', 'validated', 'corrupted', 'missing')),
    sequence INTEGER NOT NULL,
    manifest_key TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    signed_by TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    verified_at INTEGER,
    problem TEXT,
    PRIMARY KEY (backup, repository)
) STRICT, WITHOUT ROWID;
CREATE INDEX backup_repositories_by_repository ON backup_repositories (repository, backup);
CREATE INDEX backup_repositories_proven ON backup_repositories (target, verified_at);
CREATE INDEX backup_repositories_by_key ON backup_repositories (signed_by);

CREATE TABLE objects (
    backup INTEGER NOT NULL,
    repository TEXT NOT NULL,
    position INTEGER NOT NULL,
    key TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (backup, repository, position),
    FOREIGN KEY (backup, repository) REFERENCES backup_repositories (backup, repository) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The newest manifest of each chain. It stays when that backup is deleted, so that numbers are never given twice.
CREATE TABLE chains (
    environment TEXT NOT NULL,
    target TEXT NOT NULL,
    repository TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    id TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    PRIMARY KEY (environment, target, repository)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    verb TEXT NOT NULL,
    target TEXT,
    actor TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
    pid INTEGER NOT NULL,
    process_start INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    error_code TEXT,
    message TEXT,
    CHECK ((state = 'running') = (ended_at IS NULL))
) STRICT;
CREATE INDEX jobs_running ON jobs (id) WHERE state = 'running';
CREATE INDEX jobs_by_target ON jobs (target, verb, state, id);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
    name TEXT NOT NULL,
    target TEXT,
    job INTEGER,
    actor TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;

CREATE TABLE restores (
    name TEXT PRIMARY KEY,
    target TEXT NOT NULL,
    backup TEXT NOT NULL,
    repository TEXT NOT NULL,
    at INTEGER NOT NULL,
    directory BLOB NOT NULL,
    in_place INTEGER NOT NULL,
    plain_bytes INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    healthy INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX restores_by_time ON restores (at);
CREATE INDEX restores_by_target ON restores (target, at);

CREATE TABLE set_aside (
    restore TEXT NOT NULL REFERENCES restores (name) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    path BLOB NOT NULL,
    PRIMARY KEY (restore, position)
) STRICT, WITHOUT ROWID;
";

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(FIRST)])
}

fn version(connection: &Connection, path: &Path) -> Result<i64> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|cause| fault::at(path, "opening", cause))
}

/// Fails with `LEDGER_NEWER` before anything of a newer release's file is touched.
pub(super) fn refuse_newer(connection: &Connection, path: &Path) -> Result<()> {
    let found = version(connection, path)?;
    if found > VERSION {
        return Err(LedgerError::Newer { path: path.to_owned(), found, known: VERSION }.into());
    }
    Ok(())
}

/// Applies the migrations that are missing, each in a transaction.
pub(super) fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<()> {
    if version(connection, path)? == VERSION {
        return Ok(());
    }
    match migrations().to_latest(connection) {
        Ok(()) => Ok(()),
        // Another process did it at the same moment.
        Err(_) if version(connection, path)? == VERSION => Ok(()),
        Err(rusqlite_migration::Error::RusqliteError { err, .. }) => Err(fault::at(path, "bringing up to date", err)),
        Err(cause) => Err(LedgerError::Damaged { path: path.to_owned(), found: cause.to_string() }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_sound_and_end_at_the_version() {
        migrations().validate().expect("valid");
        let mut connection = Connection::open_in_memory().expect("open");
        bring_up_to_date(&mut connection, Path::new("memory")).expect("migrate");
        assert_eq!(version(&connection, Path::new("memory")).expect("version"), VERSION);
    }
}
