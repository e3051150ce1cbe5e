//! `list` and `show`: what there is, from the ledger; `show` adds the manifest from the repository.

use crate::artifact::manifest::Manifest;
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};
use crate::operation::answer::{BackupDetail, BackupList, BackupRow, TargetLog, TargetRange};
use crate::operation::context::Context;
use crate::operation::{expire, log_records, records, select};
use jiff::SignedDuration;

/// Backups that expire within this time are named in the totals.
const EXPIRING_SOON: SignedDuration = SignedDuration::from_hours(48);

/// The backups of a target, or of all, newest first, with totals.
pub fn list(context: &Context, target: Option<&TargetName>) -> Result<BackupList> {
    if let Some(name) = target {
        context.target(name)?;
    }
    let mut backups = records::rows(context, target)?;
    expire::fill_expiry(context, &mut backups)?;
    let soon = context.clock.now().saturating_add(EXPIRING_SOON).unwrap_or(jiff::Timestamp::MAX);
    let expires_soon = |row: &&BackupRow| row.expires_at.is_some_and(|at| at <= soon);
    let (mut logs, mut earlier) = (Vec::new(), Vec::new());
    for (name, target) in context.targets.iter().filter(|(name, _)| target.is_none_or(|only| only == *name)) {
        let (chain, ranges) = log_records::standing(context, target)?;
        logs.extend(chain.map(|chain| TargetLog { target: name.clone(), chain }));
        earlier.extend(ranges.into_iter().map(|range| TargetRange { target: name.clone(), range }));
    }
    Ok(BackupList {
        logs,
        earlier,
        plain_bytes: backups.iter().map(|row| row.plain_bytes).sum(),
        stored_bytes: backups.iter().map(|row| row.stored_bytes).sum(),
        expiring_soon: backups.iter().filter(expires_soon).map(|row| row.id.clone()).collect(),
        backups,
    })
}

/// Everything about one backup. The manifest is read from the first repository that has it and its signature checked.
pub fn show(context: &Context, backup: &str) -> Result<BackupDetail> {
    let id = select::backup(context, backup)?;
    let target = context.target(&id.target)?;
    let mut first_error = None;
    for name in &target.repositories {
        let found = context.repository(target, name).and_then(|r| r.find_manifest(&context.environment, &id));
        match found {
            Ok(signed) => {
                // When one expires depends on the others.
                let mut rows = records::rows(context, Some(&id.target))?;
                expire::fill_expiry(context, &mut rows)?;
                let row = rows.into_iter().find(|row| row.id == id);
                let row = row.unwrap_or_else(|| unrecorded(&signed.manifest, name));
                let verified_at = records::verified_at(context, &id)?;
                return Ok(BackupDetail { row, manifest: signed.manifest, verified_at });
            }
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Code::BackupNotFound, format!("{id} is in no repository"))))
}

/// The line of a backup that the ledger does not know, as after its loss.
fn unrecorded(manifest: &Manifest, repository: &str) -> BackupRow {
    BackupRow {
        id: manifest.id.clone(),
        engine: manifest.engine.as_str().to_owned(),
        created_at: manifest.created_at,
        expires_at: None,
        state: crate::operation::answer::BackupState::Complete,
        plain_bytes: manifest.plain_bytes(),
        stored_bytes: manifest.stored_bytes(),
        sha256: manifest.sha256.clone(),
        counts: manifest.statistics.counts.clone().into_iter().collect(),
        duration_ms: manifest.duration_ms,
        suspect: !manifest.suspect.is_empty(),
        repositories: vec![repository.to_owned()],
    }
}
