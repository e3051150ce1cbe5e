//! Composes a backup's manifest and commits it, last of all, to each repository.

use super::Taken;
use super::objects::Branch;
use crate::artifact::identity::FORMAT;
use crate::artifact::manifest::{BackupDocument, Manifest, Role, SignedManifest};
use crate::base::Result;
use crate::base::ids::BackupId;
use crate::driver::Source;
use crate::operation::context::{Context, Target};
use crate::operation::request::BackupRequest;
use crate::operation::{log_records, records};
use std::time::Duration;

/// Facts that a restore needs besides the server's own.
pub(crate) const FACT_OS_USER: &str = "os_user";
/// Bytes of the data directory when it was backed up: what a restore will need.
pub(crate) const FACT_SOURCE_BYTES: &str = "source_bytes";

/// Everything but what differs between repositories: sequence and predecessor.
pub(super) fn compose(
    context: &Context,
    target: &Target,
    request: &BackupRequest,
    source: &Source,
    id: &BackupId,
    taken: Taken,
    duration: Duration,
) -> Manifest {
    let mut server = source.server.clone();
    server.facts.insert(FACT_OS_USER.to_owned(), source.owner.name.clone());
    server.facts.insert(FACT_SOURCE_BYTES.to_owned(), source.estimated_bytes.to_string());
    let version = env!("CARGO_PKG_VERSION");
    let sha256 =
        taken.objects.iter().find(|object| object.role == Role::Data).map(|object| object.stored.sha256.clone());
    Manifest {
        document: BackupDocument::Backup,
        format: FORMAT,
        id: id.clone(),
        environment: context.environment.clone(),
        engine: target.driver.engine(),
        db_name: source.database.clone(),
        created_at: id.stamp.timestamp(),
        finished_at: context.clock.now(),
        duration_ms: duration.as_millis() as u64,
        downtime_ms: taken.downtime.as_millis() as u64,
        created_by: format!("neo4j-backupd {version}"),
        tool_version: version.to_owned(),
        hostname: context.identity.name.clone(),
        owner: context.owner(&source.data_identity, 1),
        sequence: 1,
        predecessor: None,
        server,
        position: taken.report.position,
        rows_estimate: taken.census.statistics.rows(),
        statistics: taken.census.statistics,
        sha256: sha256.unwrap_or_default(),
        objects: taken.objects,
        warnings: taken.report.warnings,
        suspect: taken.report.suspect,
        note: request.note.clone(),
    }
}

/// Completes the manifest for one repository and commits it. When this returns, the backup counts there.
pub(super) fn commit(
    context: &Context,
    target: &Target,
    branch: &Branch,
    template: &Manifest,
) -> Result<SignedManifest> {
    let repository = &branch.repository;
    let mut manifest = template.clone();
    if let Some(owner) = repository.owner(&context.environment, &target.name)? {
        manifest.owner.epoch = owner.owner.epoch;
    }
    if let (Some(position), Some(place)) = (&mut manifest.position, &branch.place)
        && let Some(mark) = &position.mark
    {
        place.admit(mark)?;
        let history = (manifest.owner.data_identity.as_str(), place.lineage);
        let recorded = log_records::latest_commit(context, target, repository.name(), history, mark.transaction)?;
        position.latest_commit = position.latest_commit.max(recorded);
        position.beside = log_records::beside(context, target, repository.name(), history.0)?;
        position.lineage = place.lineage.to_string();
    }
    if let Some(last) = records::last_in(context, target, repository)? {
        manifest.sequence = last.sequence + 1;
        manifest.predecessor = Some(last.predecessor);
    }
    repository.commit_manifest(&manifest)
}
