//! PostgreSQL's log on real servers: handed over by `archive_command`, archived, replayed.

mod bus;
mod continuous;
mod damage;
mod delta;
mod fetch;
mod in_place;
mod push;
mod rounds;
mod slot;
mod standby;
mod tablespaces;
mod timelines;
mod writers;

use crate::servers::postgres::{PostgresOptions, PostgresServer};
use crate::site::{BACKUPD, Site, restore_request};
use neo4j_backup_agent::base::Result;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::operation::answer::{Answer, ArchiveReport, RestoreReport};
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request, RestoreRequest};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Compares files with a backup's manifest.
const VERIFIER: &str = "pg_verifybackup";

/// A cluster that hands its log over, and an installation that archives it.
struct Scene {
    /// Ends before its directory goes.
    server: Arc<PostgresServer>,
    site: Site,
}

impl Scene {
    /// `limits` are lines for the configuration.
    fn set_up(limits: &str) -> Scene {
        Scene::of(None, limits)
    }

    /// With a cluster of that version; see [`PostgresOptions::version`].
    fn of(version: Option<&'static str>, limits: &str) -> Scene {
        let site = Site::with("");
        let command = site.path("archive");
        let settings = [
            "archive_mode = on".to_owned(),
            format!("archive_command = '{} wal push metrics %p'", command.display()),
            "max_wal_size = 32MB".to_owned(),
            "checkpoint_timeout = 30s".to_owned(),
        ];
        let options =
            PostgresOptions { settings: settings.to_vec(), segment: 1, version, ..PostgresOptions::default() };
        // What the server runs, and where it may write, is there before it starts.
        let text = format!("#!/bin/sh\nexec {BACKUPD} --config {} run \"$@\"\n", site.config().display());
        fs::write(&command, text).expect("script");
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).expect("mode");
        for name in ["state", "state/spool", "state/spool/metrics"] {
            fs::create_dir(site.path(name)).expect("directory");
            fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o711)).expect("mode");
        }
        let server = Arc::new(PostgresServer::start(site.root(), &options));
        server.give(&site.path("state/spool/metrics"));
        let scene = Scene { server, site };
        scene.configure(limits);
        scene
    }

    fn configure(&self, limits: &str) {
        let server = &self.server;
        let script = |name: &str, arguments: &str| server.control_script(&self.site.path(name), arguments);
        let (stop, start) = (script("stop", "-m fast stop"), script("start", "start"));
        self.site.configure(&format!(
            "[target.metrics]\nkind = \"postgresql\"\ndata_directory = \"{}\"\nbin_directory = \"{}\"\nhost = \"{}\"\n\
             port = {}\nuser = \"postgres\"\nfull = \"base\"\nstop_command = [\"{stop}\"]\nstart_command = [\"{start}\"]\n\
             {limits}",
            server.data.display(),
            server.bin.display(),
            server.directory.display(),
            server.port,
        ));
    }

    /// Archives what was committed since.
    fn archive(&self) -> ArchiveReport {
        self.try_archive().unwrap_or_else(|error| panic!("archiving failed: {error:?}"))
    }

    fn try_archive(&self) -> Result<ArchiveReport> {
        let target = TargetName::new("metrics").expect("name");
        match self.site.ask(&Request::Archive(ArchiveRequest { target, dry_run: false }))? {
            Answer::Archive(report) => Ok(report),
            other => panic!("archiving answered {other:?}"),
        }
    }

    /// A restore into a new directory, and another server on it.
    fn restore(&self, name: &str, until: Option<RecoveryTarget>) -> (RestoreReport, PostgresServer) {
        let aside = self.site.path(name);
        let report = self.try_restore(&aside, until).unwrap_or_else(|error| panic!("restoring {name}: {error:?}"));
        let mut names = vec!["connectivity", "recovered_end", "timeline", "amcheck", "orphan_detection"];
        // Fetched versions come without it.
        let verifies = self.server.bin.join(VERIFIER).exists();
        names.extend(verifies.then_some(VERIFIER));
        let judged =
            report.checks.iter().filter(|check| check.name != "counts" && (verifies || check.name != VERIFIER));
        crate::roundtrip::all_passed(&judged.cloned().collect::<Vec<_>>(), &names);
        (report, self.server.open_copy(&aside, name))
    }

    fn try_restore(&self, aside: &Path, until: Option<RecoveryTarget>) -> Result<RestoreReport> {
        let request = RestoreRequest { until, ..restore_request("metrics", Destination::Into(aside.to_owned())) };
        self.ask_restore(request)
    }

    fn ask_restore(&self, request: RestoreRequest) -> Result<RestoreReport> {
        match self.site.ask(&Request::Restore(request))? {
            Answer::Restore(report) => Ok(report),
            other => panic!("restoring answered {other:?}"),
        }
    }

    /// Names of the segments in the spool.
    fn spooled(&self) -> Vec<String> {
        let mut files = Vec::new();
        crate::site::walk(&self.site.path("state/spool/metrics"), &mut files);
        let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let segment = |name: &String| name.len() == 24;
        let inside = |path: &&PathBuf| !path.components().any(|part| part.as_os_str() == "digests");
        let mut names: Vec<String> = files.iter().filter(inside).filter_map(name).filter(segment).collect();
        names.sort();
        names
    }
}
