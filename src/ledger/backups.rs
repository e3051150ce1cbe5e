//! Backups and their copies in repositories.

use super::{Ledger, log, parsed, time};
use crate::artifact::manifest::SignedManifest;
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};
use std::collections::BTreeMap;

/// How a copy stands, as the table spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Durable, read back once.
    Complete,
    /// Verified again since.
    Validated,
    /// Found damaged.
    Corrupted,
    /// On record, but not there.
    Missing,
}

impl CopyState {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            CopyState::Complete => "COMPLETE",
            CopyState::Validated => "VALIDATED",
            CopyState::Corrupted => "CORRUPTED",
            CopyState::Missing => "MISSING",
        }
    }
}

impl std::str::FromStr for CopyState {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [CopyState::Complete, CopyState::Validated, CopyState::Corrupted, CopyState::Missing]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// A backup in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The repository's name.
    pub repository: String,
    /// How it stands.
    pub state: CopyState,
    /// When it was last verified.
    pub verified_at: Option<Timestamp>,
}

/// A backup on record.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupRecord {
    /// Its id.
    pub id: BackupId,
    /// The engine's name.
    pub engine: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Bytes in one repository.
    pub stored_bytes: u64,
    /// SHA-256 of the first data object.
    pub sha256: String,
    /// Counts by name.
    pub counts: BTreeMap<String, u64>,
    /// Whether the database's own files were damaged when it was taken.
    pub suspect: bool,
    /// Where it is.
    pub copies: Vec<Copy>,
}

/// The newest backup of a target in a repository, by sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCopy {
    /// Its id.
    pub id: BackupId,
    /// Its place in the chain.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
}

/// What [`Ledger::replace_copies`] changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Copies that were not on record.
    pub added: u64,
    /// Copies on record that were not found.
    pub missing: u64,
}

/// A line for each copy of a backup, the copies of one after each other, in the order that [`collect`] reads them.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT b.id, b.engine, b.created_at, b.duration_ms, b.plain_bytes, b.stored_bytes, b.sha256, b.counts, ",
            "c.repository, c.state, c.verified_at, b.suspect FROM backups b LEFT JOIN copies c ON c.backup = b.id ",
            $rest
        )
    };
}

impl Ledger {
    /// Records that `repository` holds this backup, complete. Recording it again changes nothing but its manifest.
    pub fn record_backup(&self, signed: &SignedManifest, repository: &str) -> Result<()> {
        let now = self.now();
        self.transact(|transaction| insert(transaction, signed, repository, now).map(|_| ()))
    }

    /// Makes the record of `repository` agree with what was found there: new copies are added, copies that were not
    /// found are marked missing, and the verification results of those that were are kept. One transaction.
    pub fn replace_copies(&self, repository: &str, found: &[SignedManifest]) -> Result<Replaced> {
        let now = self.now();
        self.transact(|transaction| {
            let mut before: BTreeMap<String, String> = transaction
                .prepare("SELECT backup, state FROM copies WHERE repository = ?1")?
                .query_map([repository], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let mut replaced = Replaced::default();
            for signed in found {
                insert(transaction, signed, repository, now)?;
                match before.remove(&signed.manifest.id.to_string()).as_deref() {
                    None => replaced.added += 1,
                    Some("MISSING") => {
                        set_state(transaction, &signed.manifest.id, repository, CopyState::Complete, None)?;
                    }
                    Some(_) => {}
                }
            }
            for backup in before.keys() {
                transaction.execute(
                    "UPDATE copies SET state = 'MISSING' WHERE backup = ?1 AND repository = ?2",
                    params![backup, repository],
                )?;
                replaced.missing += 1;
            }
            Ok(replaced)
        })
    }

    /// Backups of a target, or of all, newest first.
    pub fn backups(&self, target: Option<&TargetName>) -> Result<Vec<BackupRecord>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(match target {
                Some(_) => select!("WHERE b.target = ?1 ORDER BY b.created_at DESC, b.id DESC"),
                None => select!("ORDER BY b.created_at DESC, b.id DESC"),
            })?;
            let name = target.map(TargetName::as_str);
            collect(statement.query(rusqlite::params_from_iter(name))?)
        })
    }

    /// One backup, if it is on record.
    pub fn backup(&self, id: &BackupId) -> Result<Option<BackupRecord>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(select!("WHERE b.id = ?1"))?;
            let found = collect(statement.query([id.to_string()])?)?;
            Ok(found.into_iter().next())
        })
    }

    /// Whether there is no backup on record at all.
    pub fn has_no_backups(&self) -> Result<bool> {
        self.with(|connection| connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM backups)", [], |row| row.get(0)))
    }

    /// The copy of a target with the highest sequence in a repository, missing ones left out.
    pub fn last_copy(&self, target: &TargetName, repository: &str) -> Result<Option<LastCopy>> {
        self.with(|connection| {
            connection
                .query_row(
                    "SELECT c.backup, c.sequence, c.manifest_sha256 FROM copies c JOIN backups b ON b.id = c.backup
                     WHERE c.repository = ?1 AND b.target = ?2 AND c.state <> 'MISSING'
                     ORDER BY c.sequence DESC LIMIT 1",
                    params![repository, target.as_str()],
                    |row| {
                        let sequence: i64 = row.get(1)?;
                        Ok(LastCopy { id: parsed(row, 0)?, sequence: sequence as u64, manifest_sha256: row.get(2)? })
                    },
                )
                .optional()
        })
    }

    /// The backups of a target that a repository is known to hold, or to have held.
    pub fn known_in(&self, target: &TargetName, repository: &str) -> Result<Vec<BackupId>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT c.backup FROM copies c JOIN backups b ON b.id = c.backup WHERE c.repository = ?1 AND b.target = ?2",
            )?;
            let rows = statement.query_map(params![repository, target.as_str()], |row| parsed(row, 0))?;
            rows.collect()
        })
    }

    /// SHA-256 of a copy's manifest as it was recorded.
    pub fn manifest_sha256(&self, id: &BackupId, repository: &str) -> Result<Option<String>> {
        self.with(|connection| {
            connection
                .query_row(
                    "SELECT manifest_sha256 FROM copies WHERE backup = ?1 AND repository = ?2",
                    params![id.to_string(), repository],
                    |row| row.get(0),
                )
                .optional()
        })
    }

    /// Records how a copy was found to stand. A backup that is not on record is left so.
    pub fn mark_copy(&self, id: &BackupId, repository: &str, state: CopyState) -> Result<()> {
        let now = self.now();
        self.transact(|transaction| set_state(transaction, id, repository, state, Some(now)))
    }

    /// Takes a copy off the record; a backup without copies goes with it.
    pub fn forget_copy(&self, id: &BackupId, repository: &str) -> Result<()> {
        self.transact(|transaction| {
            let id = id.to_string();
            transaction.execute("DELETE FROM copies WHERE backup = ?1 AND repository = ?2", params![id, repository])?;
            transaction.execute(
                "DELETE FROM backups WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM copies WHERE backup = ?1)",
                [id],
            )?;
            Ok(())
        })
    }

    /// How many copies each key has signed, by key id.
    pub fn copies_by_key(&self) -> Result<BTreeMap<String, u64>> {
        self.with(|connection| {
            let mut statement =
                connection.prepare("SELECT key_id, count(DISTINCT backup) FROM copies GROUP BY key_id")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
            rows.collect()
        })
    }
}

fn collect(mut rows: Rows<'_>) -> rusqlite::Result<Vec<BackupRecord>> {
    let mut found: Vec<BackupRecord> = Vec::new();
    let mut last = String::new();
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_str()?;
        if found.is_empty() || last != id {
            last.clear();
            last.push_str(id);
            found.push(record(row)?);
        }
        if let (Some(backup), Some(copy)) = (found.last_mut(), copy(row)?) {
            backup.copies.push(copy);
        }
    }
    for backup in &mut found {
        backup.copies.sort_by(|a, b| a.repository.cmp(&b.repository));
    }
    Ok(found)
}

fn record(row: &Row<'_>) -> rusqlite::Result<BackupRecord> {
    let number = |column| row.get::<_, i64>(column).map(|value| value as u64);
    Ok(BackupRecord {
        id: parsed(row, 0)?,
        engine: row.get(1)?,
        created_at: time(row.get(2)?),
        duration_ms: number(3)?,
        plain_bytes: number(4)?,
        stored_bytes: number(5)?,
        sha256: row.get(6)?,
        counts: serde_json::from_str(row.get_ref(7)?.as_str()?).unwrap_or_default(),
        suspect: row.get(11)?,
        copies: Vec::new(),
    })
}

/// The copy of a line; a backup without any has one line without one.
fn copy(row: &Row<'_>) -> rusqlite::Result<Option<Copy>> {
    let Some(repository) = row.get::<_, Option<String>>(8)? else { return Ok(None) };
    let verified: Option<i64> = row.get(10)?;
    Ok(Some(Copy { repository, state: parsed(row, 9)?, verified_at: verified.map(time) }))
}

fn set_state(
    connection: &Connection,
    id: &BackupId,
    repository: &str,
    state: CopyState,
    verified_at: Option<i64>,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE copies SET state = ?3, verified_at = ?4 WHERE backup = ?1 AND repository = ?2",
        params![id.to_string(), repository, state.as_str(), verified_at],
    )?;
    Ok(())
}

fn insert(connection: &Connection, signed: &SignedManifest, repository: &str, now: i64) -> rusqlite::Result<bool> {
    let manifest = &signed.manifest;
    let id = manifest.id.to_string();
    connection.execute(
        "INSERT INTO targets (name, engine, first_seen) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![manifest.target().as_str(), manifest.engine.as_str(), now],
    )?;
    connection.execute(
        "INSERT INTO backups (id, target, engine, created_at, duration_ms, plain_bytes, stored_bytes, sha256,
                              server_version, counts, suspect)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
        params![
            id,
            manifest.target().as_str(),
            manifest.engine.as_str(),
            manifest.created_at.as_microsecond(),
            manifest.duration_ms as i64,
            manifest.plain_bytes() as i64,
            manifest.stored_bytes() as i64,
            manifest.sha256,
            manifest.server.version,
            serde_json::to_string(&manifest.statistics.counts).unwrap_or_default(),
            !manifest.suspect.is_empty(),
        ],
    )?;
    for object in &manifest.objects {
        connection.execute(
            "INSERT INTO objects (backup, key, name, stored_bytes, stored_sha256, plain_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            params![
                id,
                object.key.as_str(),
                object.name,
                object.stored.size as i64,
                object.stored.sha256,
                object.plain.size as i64
            ],
        )?;
    }
    let changed = connection.execute(
        "INSERT INTO copies (backup, repository, state, sequence, manifest_sha256, key_id)
         VALUES (?1, ?2, 'COMPLETE', ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET sequence = excluded.sequence, manifest_sha256 = excluded.manifest_sha256,
                                   key_id = excluded.key_id",
        params![id, repository, manifest.sequence as i64, signed.bytes_sha256, signed.signed_by.as_str()],
    )?;
    log::bases::insert(connection, signed, repository)?;
    Ok(changed > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::artifact::identity::Owner;
    use crate::artifact::manifest::{BackupDocument, Engine, Manifest, ServerRecord};
    use crate::artifact::signing::{Key, Keyring};
    use crate::artifact::statistics::Statistics;
    use crate::base::clock::SystemClock;
    use crate::base::secret::Secret;
    use std::sync::{Arc, LazyLock};

    static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
        let passphrase = Secret::new(b"correct horse battery staple".to_vec());
        Keyring::new(Key::derive(passphrase, "test").expect("key"), vec![])
    });

    pub(in super::super) fn signed(id: &str, sequence: u64) -> SignedManifest {
        let id: BackupId = id.parse().expect("id");
        let manifest = Manifest {
            document: BackupDocument::Backup,
            format: 1,
            environment: "test".into(),
            engine: Engine::Sim,
            db_name: "x".into(),
            created_at: id.stamp.timestamp(),
            finished_at: id.stamp.timestamp(),
            duration_ms: 5,
            downtime_ms: 0,
            created_by: "test".into(),
            tool_version: "0".into(),
            hostname: "h".into(),
            owner: Owner { host: "h".into(), machine_id: "m".into(), data_identity: "d".into(), epoch: 1 },
            sequence,
            predecessor: None,
            server: ServerRecord::default(),
            position: None,
            statistics: Statistics::default(),
            rows_estimate: 0,
            sha256: String::new(),
            objects: vec![],
            warnings: vec![],
            suspect: vec![],
            note: None,
            id,
        };
        SignedManifest { manifest, signed_by: KEYRING.current().id().clone(), bytes_sha256: format!("sha{sequence}") }
    }

    pub(in super::super) fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().expect("tempdir");
        let ledger = Ledger::open(&directory.path().join("ledger.db"), Arc::new(SystemClock)).expect("open");
        (directory, ledger)
    }

    #[test]
    fn a_backup_is_found_again_with_its_copies() {
        let (_keep, ledger) = ledger();
        let first = signed("graph-20261119T020000Z-dump", 1);
        let second = signed("graph-20261120T020000Z-dump", 2);
        for signed in [&first, &second] {
            ledger.record_backup(signed, "main").expect("record");
            ledger.record_backup(signed, "offsite").expect("record");
        }
        let target = first.manifest.id.target.clone();
        let found = ledger.backups(Some(&target)).expect("list");
        assert_eq!(
            found.iter().map(|b| b.id.clone()).collect::<Vec<_>>(),
            [second.manifest.id.clone(), first.manifest.id.clone()]
        );
        assert_eq!(found[0].copies.iter().map(|c| c.repository.as_str()).collect::<Vec<_>>(), ["main", "offsite"]);
        assert_eq!(ledger.backup(&first.manifest.id).expect("look").as_ref(), Some(&found[1]));
        assert_eq!(ledger.backup(&"graph-20261118T020000Z-dump".parse().expect("id")).expect("look"), None);
        assert_eq!(ledger.last_copy(&target, "main").expect("last").expect("some").sequence, 2);
        ledger.forget_copy(&second.manifest.id, "main").expect("forget");
        assert_eq!(ledger.last_copy(&target, "main").expect("last").expect("some").sequence, 1);
        assert_eq!(ledger.backups(None).expect("list").len(), 2);
        ledger.forget_copy(&second.manifest.id, "offsite").expect("forget");
        assert_eq!(ledger.backups(None).expect("list").len(), 1);
    }

    #[test]
    fn a_rescan_adds_marks_missing_and_keeps_verification() {
        let (_keep, ledger) = ledger();
        let (first, second) = (signed("graph-20261119T020000Z-dump", 1), signed("graph-20261120T020000Z-dump", 2));
        ledger.record_backup(&first, "main").expect("record");
        ledger.mark_copy(&first.manifest.id, "main", CopyState::Validated).expect("mark");
        let replaced = ledger.replace_copies("main", &[first.clone(), second.clone()]).expect("replace");
        assert_eq!(replaced, Replaced { added: 1, missing: 0 });
        let copy = |id: &BackupId| {
            let all = ledger.backups(None).expect("list");
            all.into_iter().find(|b| &b.id == id).expect("there").copies[0].clone()
        };
        assert_eq!(copy(&first.manifest.id).state, CopyState::Validated);
        let replaced = ledger.replace_copies("main", std::slice::from_ref(&second)).expect("replace");
        assert_eq!((replaced.missing, copy(&first.manifest.id).state), (1, CopyState::Missing));
        ledger.replace_copies("main", &[first.clone(), second]).expect("replace");
        assert_eq!(copy(&first.manifest.id).state, CopyState::Complete);
    }

    #[test]
    fn listing_one_target_uses_its_index() {
        let (_keep, ledger) = ledger();
        let plan: String = ledger
            .with(|connection| {
                connection.query_row(
                    concat!(
                        "EXPLAIN QUERY PLAN ",
                        "SELECT id FROM backups WHERE target = 'x' ORDER BY created_at DESC"
                    ),
                    [],
                    |row| row.get(3),
                )
            })
            .expect("plan");
        assert!(plan.contains("backups_by_target"), "{plan}");
    }
}
