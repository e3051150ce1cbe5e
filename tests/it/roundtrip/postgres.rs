//! A real PostgreSQL cluster: backed up, restored into a directory, restored in place after a loss, opened by hand.

use super::{all_passed, areas, debris, found_without_the_ledger, in_place, into, restored, restores};
use crate::servers::postgres::{PostgresOptions, PostgresServer};
use crate::site::{Site, restore_request};
use neo4j_backup_agent::operation::answer::{Answer, BackupReport};
use neo4j_backup_agent::operation::request::{Destination, Request, RestoreRequest};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// An installation with one real cluster, target `metrics`.
pub(super) struct Scene {
    // The server ends before its directory goes.
    pub(super) server: PostgresServer,
    pub(super) site: Site,
}

impl Scene {
    /// A cluster with a database `metrics` of two tables. `settings` are lines for `postgresql.conf`.
    pub(super) fn set_up(settings: &[&str]) -> Scene {
        let site = Site::with("");
        let settings = settings.iter().map(|line| (*line).to_owned()).collect();
        let server = PostgresServer::start(site.root(), &PostgresOptions { settings, ..PostgresOptions::default() });
        server.sql("CREATE DATABASE metrics");
        server.sql_in(
            "metrics",
            "CREATE TABLE sensor (id int PRIMARY KEY, name text NOT NULL);
             CREATE TABLE reading (sensor int NOT NULL REFERENCES sensor, at timestamptz NOT NULL, value float8 NOT NULL);
             CREATE INDEX ON reading (sensor, at);
             INSERT INTO sensor SELECT n, 'sensor ' || n FROM generate_series(1, 50) n;
             INSERT INTO reading SELECT 1 + n % 50, '2026-01-01'::timestamptz + n * interval '7 seconds', sin(n)
                 FROM generate_series(1, 5000) n;",
        );
        // So that no autovacuum comes between the counting and the backup.
        server.sql_in("metrics", "VACUUM (ANALYZE)");
        let scene = Scene { site, server };
        scene.configure("postgres");
        scene
    }

    /// With the role that the agent has.
    fn configure(&self, role: &str) {
        let script = |name: &str, arguments: &str| self.server.control_script(&self.site.path(name), arguments);
        let (stop, start) = (script("stop", "-m fast stop"), script("start", "start"));
        let server = &self.server;
        self.site.configure(&format!(
            "[target.metrics]\nkind = \"postgresql\"\ndata_directory = \"{}\"\nbin_directory = \"{}\"\nhost = \"{}\"\n\
             port = {}\nuser = \"{role}\"\ndatabases = [\"metrics\"]\nfull = \"base\"\n\
             stop_command = [\"{stop}\"]\nstart_command = [\"{start}\"]\n",
            server.data.display(),
            server.bin.display(),
            server.directory.display(),
            server.port,
        ));
    }

    /// Counts and a fingerprint of everything.
    pub(super) fn content(&self) -> String {
        self.server.sql_in(
            "metrics",
            "SELECT count(*), md5(string_agg(id || name, ',' ORDER BY id)) FROM sensor;
             SELECT count(*), md5(string_agg(sensor || '@' || at || '=' || value, ',' ORDER BY sensor, at)) FROM reading",
        )
    }

    fn verify_directory(&self, directory: &Path) {
        let output = self.server.command("pg_verifybackup").arg(directory).output().expect("pg_verifybackup");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

// req: K5 D5
#[test]
fn a_role_without_the_functions_of_a_backup_is_served_by_pg_basebackup_and_its_copy_restored() {
    let scene = Scene::set_up(&[]);
    scene.server.sql("CREATE ROLE streamer LOGIN REPLICATION");
    scene.server.sql("GRANT pg_read_all_data, pg_read_all_settings TO streamer");
    scene.configure("streamer");
    let before = scene.content();
    scene.site.backup("metrics");
    let aside = scene.site.path("aside");
    let report = into(&scene.site, "metrics", &aside);
    all_passed(&report.checks, &["pg_verifybackup", "counts"]);
    scene.server.sql_in("metrics", "DELETE FROM reading");
    in_place(&scene.site, "metrics");
    assert_eq!(scene.content(), before);
}

// req: A1 A7 B1 B3 B4 B8 B15 D5 D8
#[test]
fn a_cluster_is_backed_up_restored_aside_and_in_place() {
    let scene = Scene::set_up(&[]);
    let site = &scene.site;
    let before = scene.content();
    let backup = site.backup("metrics");
    assert!(backup.counts_exact, "nobody wrote: {backup:?}");
    assert!(backup.counts.iter().any(|(_, count)| *count == 5000), "{:?}", backup.counts);
    assert_eq!((backup.downtime_ms, &backup.repositories[..]), (0, &["main".to_owned()][..]));
    let listed = String::from_utf8(site.run(&["list"]).stdout).expect("UTF-8");
    assert!(listed.contains(&backup.id.to_string()), "{listed}");

    let raw = site.path("raw");
    let request = RestoreRequest { no_recover: true, ..restore_request("metrics", Destination::Into(raw.clone())) };
    assert!(restored(site, request).checks.iter().all(|check| check.passed.is_none()));
    scene.verify_directory(&raw);
    let aside = into(site, "metrics", &site.path("aside"));
    all_passed(&aside.checks, &["connectivity", "schema_consistency", "orphan_detection", "counts"]);
    assert!(!site.path("aside/postmaster.pid").exists(), "the scratch server was ended");

    scene.server.sql_in("metrics", "DROP TABLE reading");
    let report = in_place(site, "metrics");
    all_passed(&report.checks, &["connectivity", "counts", "in_service"]);
    assert_eq!(scene.content(), before, "the server is up with all the data");
    assert_eq!(report.set_aside.len(), 1, "{report:?}");
    assert!(report.set_aside[0].join("PG_VERSION").is_file(), "the earlier data is kept");
    assert_eq!(areas(&scene.server.directory).len(), 1);
    assert_eq!(debris(site, &scene.server.directory), Vec::<std::path::PathBuf>::new());

    let records = restores(site);
    let last = records.iter().find(|record| record.in_place).expect("the restore in place is on record");
    assert_eq!((&last.restore, last.healthy), (&report.restore, Some(true)));
    assert_eq!(last.set_aside, report.set_aside);
    assert_eq!(records.len(), 3, "{records:?}");
    // A backup that was restored with all checks passed is proven.
    match site.ask(&Request::Show { backup: backup.id.to_string() }) {
        Ok(Answer::Show(detail)) => assert_eq!(detail.row.state.as_str(), "VALIDATED"),
        other => panic!("{other:?}"),
    }
    found_without_the_ledger(site, &report);
}

// req: E4 A3
#[test]
fn synthetic_rows_are_found_in_the_artefact_by_foreign_tools_and_come_back() {
    let scene = Scene::set_up(&[]);
    let marker = "marker-7d0f4c21-of-the-synthetic-row";
    scene.server.sql_in("metrics", &format!("INSERT INTO sensor VALUES (4711, '{marker}')"));
    let backup = scene.site.backup("metrics");
    scene.server.sql_in("metrics", "DELETE FROM sensor WHERE id = 4711");
    let opened = open_by_hand(&scene.site, &backup);
    scene.verify_directory(&opened);
    let mut files = Vec::new();
    crate::site::walk(&opened, &mut files);
    let holds =
        |path: &Path| fs::read(path).expect("read").windows(marker.len()).any(|window| window == marker.as_bytes());
    assert!(files.iter().any(|path| holds(path)), "the row is in none of {} files", files.len());

    // Into a directory of its own, served by PostgreSQL itself, and asked.
    let directory = scene.site.path("queried");
    into(&scene.site, "metrics", &directory);
    assert_eq!(scene.server.sql_in("metrics", "SELECT count(*) FROM sensor WHERE id = 4711"), "0");
    in_place(&scene.site, "metrics");
    assert_eq!(scene.server.sql_in("metrics", "SELECT name FROM sensor WHERE id = 4711"), marker);
}

/// Decrypts, decompresses and unpacks with openssl, zstd and tar alone.
fn open_by_hand(site: &Site, backup: &BackupReport) -> std::path::PathBuf {
    let objects = site.objects();
    let data = objects.iter().find(|path| path.to_string_lossy().ends_with(".base.tar.zst.enc")).expect("the data");
    let directory = site.path("by-hand");
    fs::create_dir(&directory).expect("directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("chmod");
    let pipe = format!(
        "set -eo pipefail; sha256sum {object} | grep -q ^{sha256}; \
         openssl enc -d -aes-256-cbc -pbkdf2 -iter 1000 -pass file:{root}/passphrase -in {object} \
         | zstd -q -d | tar -x -C {directory}; chmod -R a+rX {directory}",
        object = data.display(),
        sha256 = backup.sha256,
        root = site.root().display(),
        directory = directory.display(),
    );
    let output = Command::new("bash").args(["-c", &pipe]).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory
}
