//! The ledger's tables, and how an older ledger becomes a current one.

use rusqlite_migration::{M, Migrations};

/// Migrations in order; the file's `user_version` counts those that were applied. Never edit one that was released.
pub(super) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(FIRST), M::up(LOG), M::up(MERGED), M::up(SUSPECT), M::up(REPOSITORIES), M::up(ORDER)])
}

/// How many there are: a file with a higher `user_version` was made by a newer release.
pub(super) const CURRENT_VERSION: i64 = 6;

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

/// Whether the database's own files were damaged when a backup was taken of them.
const SUSPECT: &str = "ALTER TABLE backups ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;";

/// The log's archive. Sums are kept by triggers, since nobody wants to add up a million rows for a line of `status`.
const LOG: &str = r"
CREATE TABLE log_batches (
    repository         TEXT NOT NULL,
    key                TEXT NOT NULL,
    target             TEXT NOT NULL,
    stream             TEXT NOT NULL,
    lineage            INTEGER NOT NULL,
    sequence           INTEGER NOT NULL,
    first_transaction  INTEGER NOT NULL,
    last_transaction   INTEGER NOT NULL,
    transactions       INTEGER NOT NULL,
    first_committed_at INTEGER NOT NULL,
    last_committed_at  INTEGER NOT NULL,
    start_mark         TEXT NOT NULL,
    end_mark           TEXT NOT NULL,
    anew               INTEGER NOT NULL,
    plain_bytes        INTEGER NOT NULL,
    stored_bytes       INTEGER NOT NULL,
    manifest_sha256    TEXT NOT NULL,
    state              TEXT NOT NULL CHECK (state IN ('COMPLETE','VALIDATED','CORRUPTED','MISSING')),
    created_at         INTEGER NOT NULL,
    PRIMARY KEY (repository, key)
) STRICT;
CREATE INDEX log_batches_by_chain ON log_batches(target, repository, stream, lineage, last_transaction);
CREATE INDEX log_batches_by_time ON log_batches(target, created_at DESC);
CREATE INDEX log_batches_anew ON log_batches(target, repository, stream, lineage) WHERE anew;
CREATE INDEX log_batches_unsound ON log_batches(target, repository) WHERE state IN ('CORRUPTED','MISSING');

CREATE TABLE log_sums (
    target       TEXT NOT NULL,
    repository   TEXT NOT NULL,
    stream       TEXT NOT NULL,
    lineage      INTEGER NOT NULL,
    batches      INTEGER NOT NULL,
    transactions INTEGER NOT NULL,
    plain_bytes  INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    PRIMARY KEY (target, repository, stream, lineage)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER log_batch_added AFTER INSERT ON log_batches BEGIN
    INSERT INTO log_sums VALUES (NEW.target, NEW.repository, NEW.stream, NEW.lineage, 1, NEW.transactions,
                                 NEW.plain_bytes, NEW.stored_bytes)
    ON CONFLICT DO UPDATE SET batches = batches + 1, transactions = transactions + NEW.transactions,
        plain_bytes = plain_bytes + NEW.plain_bytes, stored_bytes = stored_bytes + NEW.stored_bytes;
END;
CREATE TRIGGER log_batch_removed AFTER DELETE ON log_batches BEGIN
    UPDATE log_sums SET batches = batches - 1, transactions = transactions - OLD.transactions,
        plain_bytes = plain_bytes - OLD.plain_bytes, stored_bytes = stored_bytes - OLD.stored_bytes
    WHERE target = OLD.target AND repository = OLD.repository AND stream = OLD.stream AND lineage = OLD.lineage;
    DELETE FROM log_sums WHERE batches = 0;
END;

-- Bases from which the log goes on, by repository: each numbers its lineages by itself.
CREATE TABLE log_bases (
    backup           TEXT NOT NULL,
    repository       TEXT NOT NULL,
    target           TEXT NOT NULL,
    stream           TEXT NOT NULL,
    lineage          INTEGER NOT NULL,
    last_transaction INTEGER NOT NULL,
    mark             TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    PRIMARY KEY (backup, repository),
    FOREIGN KEY (backup, repository) REFERENCES copies(backup, repository) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX log_bases_by_chain ON log_bases(target, repository, stream, lineage, last_transaction);

-- How far the archive of each repository is known to reach: everything committed up to the time is in it.
CREATE TABLE log_ends (
    target           TEXT NOT NULL,
    repository       TEXT NOT NULL,
    stream           TEXT NOT NULL,
    lineage          INTEGER NOT NULL,
    last_transaction INTEGER NOT NULL,
    covered_until    INTEGER NOT NULL,
    PRIMARY KEY (target, repository)
) STRICT, WITHOUT ROWID;

CREATE INDEX events_by_name ON events(name, target);

ALTER TABLE restores ADD COLUMN stream TEXT;
ALTER TABLE restores ADD COLUMN lineage INTEGER;
ALTER TABLE restores ADD COLUMN reached INTEGER;
ALTER TABLE restores ADD COLUMN batches INTEGER NOT NULL DEFAULT 0;
";

const MERGED: &str = r"
ALTER TABLE log_batches ADD COLUMN level INTEGER NOT NULL DEFAULT 0;

-- Batches that were merged into another one and wait to be deleted.
CREATE TABLE log_parts (
    repository TEXT NOT NULL,
    key        TEXT NOT NULL,
    target     TEXT NOT NULL,
    since      INTEGER NOT NULL,
    PRIMARY KEY (repository, key)
) STRICT, WITHOUT ROWID;
";

const REPOSITORIES: &str = r"
-- Which repository was found under each configured name.
CREATE TABLE repositories (
    name TEXT PRIMARY KEY,
    id   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// See [`super::log::order`].
const ORDER: &str = r"
ALTER TABLE log_bases ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_ends ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE restores ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
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
