//! Backups and their copies: recording, looking up, and noting what was seen of them.

use super::copy_state::{CopyState, Observation};
use super::entry::{BackupEntry, BackupFilter, BackupRow, CopyRow, ObjectEntry};
use super::row::{json, micros, number, parsed, time, time_option, to_json, unreadable, unsigned};
use super::{Ledger, Steps, chain, places};
use crate::artifact::object_key::ObjectKey;
use crate::base::ids::BackupId;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

/// Most matches that a prefix is answered with; more than one is too many for a person anyway.
pub const MATCHES_MAX: u32 = 100;

const COLUMNS: &str = "number, id, environment, engine, database, created_at, finished_at, duration_ms, downtime_ms, \
    server_version, plain_bytes, stored_bytes, sha256, counts, counts_exact, warnings, note, state";

const COPIES: &str = "SELECT repository, state, sequence, manifest_key, manifest_sha256, signed_by, recorded_at, \
    verified_at, problem FROM backup_repositories WHERE backup = ?1 ORDER BY repository";

const NUMBER_OF: &str = "SELECT number FROM backups WHERE id = ?1";

impl Ledger {
    /// Enters a backup that is in `repository`, or what is now known of it. Its copy's earlier verification stays.
    pub fn record_backup(&self, entry: &BackupEntry, repository: &str) -> Result<()> {
        let now = self.now();
        self.write("recording a backup in", |steps| enter(steps, entry, repository, now).map(|_| ()))
    }

    /// Backups, newest first.
    pub fn backups(&self, filter: &BackupFilter) -> Result<Vec<BackupRow>> {
        let limit = filter.limit.map_or(-1, i64::from);
        let target = filter.target.as_ref().map(|target| target.as_str());
        self.read("listing the backups in", |connection| {
            let sql = list_query(target.is_some(), filter.usable_only);
            match target {
                Some(target) => select(connection, &sql, params![limit, filter.skip, target]),
                None => select(connection, &sql, params![limit, filter.skip]),
            }
        })
    }

    /// One backup.
    pub fn backup(&self, id: &BackupId) -> Result<Option<BackupRow>> {
        self.read("looking up a backup in", |connection| {
            let sql = format!("SELECT {COLUMNS} FROM backups WHERE id = ?1");
            Ok(select(connection, &sql, params![id.to_string()])?.pop())
        })
    }

    /// Every backup whose id begins with `prefix`, in the order of ids, at most [`MATCHES_MAX`]. A whole id matches
    /// itself alone.
    pub fn backups_beginning_with(&self, prefix: &str) -> Result<Vec<BackupRow>> {
        self.read("looking up a backup in", |connection| select(connection, &prefix_query(), params![prefix]))
    }

    /// A backup's objects in `repository`, in order; empty if it has no copy there.
    pub fn objects(&self, id: &BackupId, repository: &str) -> Result<Vec<ObjectEntry>> {
        self.read("looking up objects in", |connection| {
            connection
                .prepare_cached(
                    "SELECT key, role, name, size, sha256 FROM objects \
                     WHERE backup = (SELECT number FROM backups WHERE id = ?1) AND repository = ?2 ORDER BY position",
                )?
                .query_map(params![id.to_string(), repository], |row| {
                    Ok(ObjectEntry {
                        key: key(row, 0)?,
                        role: row.get(1)?,
                        name: row.get(2)?,
                        size: unsigned(row, 3)?,
                        sha256: row.get(4)?,
                    })
                })?
                .collect()
        })
    }

    /// Notes what was seen of a backup's copy; `problem` says what was wrong. Returns the copy's new state.
    /// `BACKUP_NOT_FOUND` if no such copy is on record.
    pub fn observe(
        &self,
        id: &BackupId,
        repository: &str,
        observation: Observation,
        problem: Option<&str>,
    ) -> Result<CopyState> {
        let now = self.now();
        let noted = self.write("noting the state of a backup in", |steps| {
            let Some(backup) = steps.first(NUMBER_OF, params![id.to_string()], |row| row.get(0))? else {
                return Ok(None);
            };
            note(steps, backup, repository, observation, problem, now)
        })?;
        noted.ok_or_else(|| {
            Error::new(Code::BackupNotFound, format!("backup {id} in repository {repository} is not in the ledger"))
        })
    }

    /// Takes a backup's copy off the record, and the backup with its last copy. `false` if it was not there.
    pub fn forget_backup(&self, id: &BackupId, repository: &str) -> Result<bool> {
        self.write("forgetting a backup in", |steps| {
            let Some(backup) = steps.first(NUMBER_OF, params![id.to_string()], |row| row.get::<_, i64>(0))? else {
                return Ok(false);
            };
            let gone = steps.execute(
                "DELETE FROM backup_repositories WHERE backup = ?1 AND repository = ?2",
                params![backup, repository],
            )?;
            let left =
                steps.first("SELECT COUNT(*) FROM backup_repositories WHERE backup = ?1", params![backup], |row| {
                    row.get::<_, i64>(0)
                })?;
            if left == Some(0) {
                steps.execute("DELETE FROM backups WHERE number = ?1", params![backup])?;
            } else {
                sum_up(steps, backup)?;
            }
            Ok(gone > 0)
        })
    }
}

/// The query behind [`Ledger::backups`].
pub(super) fn list_query(by_target: bool, usable_only: bool) -> String {
    let mut conditions = Vec::new();
    if by_target {
        conditions.push("target = ?3");
    }
    if usable_only {
        conditions.push("state IN ('complete', 'validated')");
    }
    let condition = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    format!("SELECT {COLUMNS} FROM backups {condition} ORDER BY created_at DESC, id DESC LIMIT ?1 OFFSET ?2")
}

/// The query behind [`Ledger::backups_beginning_with`]. `~` sorts behind every character of an id.
pub(super) fn prefix_query() -> String {
    format!("SELECT {COLUMNS} FROM backups WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT {MATCHES_MAX}")
}

fn select(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<Vec<BackupRow>> {
    let mut copies = connection.prepare_cached(COPIES)?;
    connection
        .prepare_cached(sql)?
        .query_map(parameters, |row| {
            let backup: i64 = row.get(0)?;
            let copies = copies.query_map(params![backup], copy)?.collect::<rusqlite::Result<_>>()?;
            read_backup(row, copies)
        })?
        .collect()
}

fn read_backup(row: &Row<'_>, copies: Vec<CopyRow>) -> rusqlite::Result<BackupRow> {
    Ok(BackupRow {
        id: parsed(row, 1)?,
        environment: row.get(2)?,
        engine: row.get(3)?,
        database: row.get(4)?,
        created_at: time(row, 5)?,
        finished_at: time(row, 6)?,
        duration_ms: unsigned(row, 7)?,
        downtime_ms: unsigned(row, 8)?,
        server_version: row.get(9)?,
        plain_bytes: unsigned(row, 10)?,
        stored_bytes: unsigned(row, 11)?,
        sha256: row.get(12)?,
        counts: json(row, 13)?,
        counts_exact: row.get(14)?,
        warnings: json(row, 15)?,
        note: row.get(16)?,
        state: parsed(row, 17)?,
        copies,
    })
}

fn copy(row: &Row<'_>) -> rusqlite::Result<CopyRow> {
    Ok(CopyRow {
        repository: row.get(0)?,
        state: parsed(row, 1)?,
        sequence: unsigned(row, 2)?,
        manifest_key: key(row, 3)?,
        manifest_sha256: row.get(4)?,
        signed_by: row.get(5)?,
        recorded_at: time(row, 6)?,
        verified_at: time_option(row, 7)?,
        problem: row.get(8)?,
    })
}

fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<ObjectKey> {
    ObjectKey::new(row.get::<_, String>(column)?).map_err(|why| unreadable(column, why))
}

/// Enters one backup's copy; tells whether the backup is new here.
pub(super) fn enter(
    steps: &Steps<'_>,
    entry: &BackupEntry,
    repository: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    places::see_target(steps, entry.id.target.as_str(), &entry.engine, &entry.data_identity, now)?;
    let known = steps.first(NUMBER_OF, params![entry.id.to_string()], |row| row.get(0))?;
    let backup = enter_backup(steps, entry)?;
    enter_copy(steps, backup, entry, repository, now)?;
    chain::extend(steps, entry, repository)?;
    Ok(known.map(|number: i64| number).is_none())
}

fn enter_backup(steps: &Steps<'_>, entry: &BackupEntry) -> rusqlite::Result<i64> {
    steps.execute(
        "INSERT INTO backups (id, environment, target, engine, database, created_at, finished_at, duration_ms, \
             downtime_ms, server_version, plain_bytes, stored_bytes, sha256, counts, counts_exact, warnings, note, state) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, 'complete') \
         ON CONFLICT (id) DO UPDATE SET environment = ?2, target = ?3, engine = ?4, database = ?5, created_at = ?6, \
             finished_at = ?7, duration_ms = ?8, downtime_ms = ?9, server_version = ?10, plain_bytes = ?11, \
             stored_bytes = ?12, sha256 = ?13, counts = ?14, counts_exact = ?15, warnings = ?16, note = ?17",
        params![
            entry.id.to_string(),
            entry.environment,
            entry.id.target.as_str(),
            entry.engine,
            entry.database,
            micros(entry.created_at),
            micros(entry.finished_at),
            number(entry.duration_ms),
            number(entry.downtime_ms),
            entry.server_version,
            number(entry.plain_bytes),
            number(entry.stored_bytes),
            entry.sha256,
            to_json(&entry.counts)?,
            entry.counts_exact,
            to_json(&entry.warnings)?,
            entry.note,
        ],
    )?;
    steps.first(NUMBER_OF, params![entry.id.to_string()], |row| row.get(0))?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn enter_copy(
    steps: &Steps<'_>,
    backup: i64,
    entry: &BackupEntry,
    repository: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    steps.execute(
        "INSERT INTO backup_repositories (backup, repository, target, state, sequence, manifest_key, manifest_sha256, \
             signed_by, recorded_at) VALUES (?1, ?2, ?3, 'complete', ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT (backup, repository) DO UPDATE SET sequence = ?4, manifest_key = ?5, manifest_sha256 = ?6, \
             signed_by = ?7",
        params![
            backup,
            repository,
            entry.id.target.as_str(),
            number(entry.sequence),
            entry.manifest_key.as_str(),
            entry.manifest_sha256,
            entry.signed_by,
            micros(now),
        ],
    )?;
    steps.execute("DELETE FROM objects WHERE backup = ?1 AND repository = ?2", params![backup, repository])?;
    for (position, object) in entry.objects.iter().enumerate() {
        steps.execute(
            "INSERT INTO objects (backup, repository, position, key, role, name, size, sha256) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                backup,
                repository,
                position as i64,
                object.key.as_str(),
                object.role,
                object.name,
                number(object.size),
                object.sha256,
            ],
        )?;
    }
    note(steps, backup, repository, Observation::Found, None, now).map(|_| ())
}

/// Moves a copy on, and its backup with it. `None` if there is no such copy.
pub(super) fn note(
    steps: &Steps<'_>,
    backup: i64,
    repository: &str,
    observation: Observation,
    problem: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<Option<CopyState>> {
    let present: Option<CopyState> = steps.first(
        "SELECT state FROM backup_repositories WHERE backup = ?1 AND repository = ?2",
        params![backup, repository],
        |row| parsed(row, 0),
    )?;
    let Some(present) = present else { return Ok(None) };
    let state = present.after(observation);
    // A problem stays on record as long as the state that it explains.
    let keeps_problem = problem.is_none() && state == present && observation == Observation::Found;
    steps.execute(
        "UPDATE backup_repositories SET state = ?3, verified_at = iif(?4, ?5, verified_at), \
             problem = iif(?6, problem, ?7) WHERE backup = ?1 AND repository = ?2",
        params![
            backup,
            repository,
            state.as_str(),
            observation == Observation::Sound,
            micros(now),
            keeps_problem,
            problem
        ],
    )?;
    sum_up(steps, backup)?;
    Ok(Some(state))
}

/// Brings a backup's state in line with its copies'.
fn sum_up(steps: &Steps<'_>, backup: i64) -> rusqlite::Result<()> {
    let states =
        steps.rows("SELECT state FROM backup_repositories WHERE backup = ?1", params![backup], |row| parsed(row, 0))?;
    let together = CopyState::together(states);
    steps.execute("UPDATE backups SET state = ?2 WHERE number = ?1", params![backup, together.as_str()])?;
    Ok(())
}
