//! Rebuilding what is known of a repository from its manifests, in one transaction.

use super::backups::{enter, note};
use super::copy_state::{CopyState, Observation};
use super::entry::BackupEntry;
use super::row::parsed;
use super::{Ledger, Steps};
use crate::artifact::object_key::ObjectKey;
use crate::base::Result;
use crate::base::ids::BackupId;
use jiff::Timestamp;
use rusqlite::params;
use std::collections::HashSet;

/// What a rescan found in one repository.
#[derive(Clone, Copy, Debug)]
pub struct Scanned<'a> {
    /// The repository.
    pub repository: &'a str,
    /// The environment that was looked at; `None` = all of them. Backups of others are left as they are.
    pub environment: Option<&'a str>,
    /// Every backup whose manifest is sound.
    pub found: &'a [BackupEntry],
    /// Manifests that are there but cannot be used: their backups are not missing, they are damaged.
    pub unusable: &'a [ObjectKey],
}

/// What a rescan changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rescanned {
    /// Backups found.
    pub found: u64,
    /// Backups that were not on record in any repository.
    pub added: u64,
    /// Backups on record for this repository that are no longer in it, also those known to be missing before.
    pub missing: Vec<BackupId>,
    /// Backups on record whose manifest is there but cannot be used.
    pub damaged: Vec<BackupId>,
}

struct OnRecord {
    backup: i64,
    id: BackupId,
    manifest_key: String,
}

impl Ledger {
    /// Enters everything that was found, and marks the rest of what is on record for this repository as missing or
    /// damaged. All of it or nothing.
    pub fn rescan(&self, scanned: &Scanned<'_>) -> Result<Rescanned> {
        let now = self.now();
        self.write("entering a rescan in", |steps| {
            let mut changed = Rescanned { found: scanned.found.len() as u64, ..Rescanned::default() };
            for entry in scanned.found {
                changed.added += u64::from(enter(steps, entry, scanned.repository, now)?);
            }
            mark_the_rest(steps, scanned, now, &mut changed)?;
            Ok(changed)
        })
    }
}

fn mark_the_rest(
    steps: &Steps<'_>,
    scanned: &Scanned<'_>,
    now: Timestamp,
    changed: &mut Rescanned,
) -> rusqlite::Result<()> {
    let found: HashSet<&BackupId> = scanned.found.iter().map(|entry| &entry.id).collect();
    let unusable: HashSet<&str> = scanned.unusable.iter().map(ObjectKey::as_str).collect();
    let on_record = steps.rows(
        "SELECT b.number, b.id, c.manifest_key FROM backup_repositories c JOIN backups b ON b.number = c.backup \
         WHERE c.repository = ?1 AND (?2 IS NULL OR b.environment = ?2) ORDER BY b.id",
        params![scanned.repository, scanned.environment],
        |row| Ok(OnRecord { backup: row.get(0)?, id: parsed(row, 1)?, manifest_key: row.get(2)? }),
    )?;
    for copy in on_record {
        if found.contains(&copy.id) {
            continue;
        }
        let (observation, problem) = if unusable.contains(copy.manifest_key.as_str()) {
            (Observation::Damaged, "its manifest cannot be used")
        } else {
            (Observation::Gone, "its manifest is not in the repository")
        };
        match note(steps, copy.backup, scanned.repository, observation, Some(problem), now)? {
            Some(CopyState::Missing) => changed.missing.push(copy.id),
            Some(_) => changed.damaged.push(copy.id),
            None => {}
        }
    }
    Ok(())
}
