//! Logical dumps of a real PostgreSQL cluster: what they hold, the cluster that they become, and what goes wrong with them.

use super::postgres::Scene;
use super::{all_checked, debris, into};
use crate::site::{Site, backup_request, restore_request};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::BackupKind;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::operation::answer::{Answer, BackupReport};
use neo4j_backup_agent::operation::request::{ArchiveRequest, BackupRequest, Destination, Request, RestoreRequest};
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// A database whose name has to be quoted everywhere.
const ODD: &str = "Odd db/\u{e9}'s \"own\" \\ x=y";

fn dump(site: &Site) -> Result<BackupReport> {
    let request = BackupRequest { kind: Some(BackupKind::Dump), ..backup_request("metrics") };
    match site.ask(&Request::Backup(request))? {
        Answer::Backup(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

/// All databases of the cluster, and how they are dumped.
fn set_up(more: &str) -> Scene {
    let scene = Scene::set_up(&[]);
    let text = fs::read_to_string(scene.site.config()).expect("configuration");
    let text = text.replace("databases = [\"metrics\"]\n", "").replace("full = \"base\"\n", more);
    fs::write(scene.site.config(), text).expect("configuration");
    scene
}

/// What a physical backup would have in files.
fn furnish(scene: &Scene) {
    let quoted = format!("\"{}\"", ODD.replace('"', "\"\""));
    scene.server.sql("CREATE ROLE reader LOGIN PASSWORD 'a password of nobody' CONNECTION LIMIT 3");
    scene.server.sql(&format!("CREATE DATABASE {quoted} OWNER reader"));
    scene
        .server
        .sql_in(&connection(ODD), "CREATE TABLE \"T t\" (\"C c\" text); INSERT INTO \"T t\" VALUES (E'a\\tb\\n\\\\c')");
    scene.server.sql("CREATE TABLE in_postgres AS SELECT 42 AS answer; ALTER ROLE reader SET work_mem = '7MB'");
    scene.server.sql_in(
        "metrics",
        "ALTER DATABASE metrics SET search_path = public, pg_catalog;
         CREATE VIEW warm AS SELECT * FROM reading WHERE value > 0; GRANT SELECT ON warm TO reader;
         CREATE MATERIALIZED VIEW daily AS SELECT date_trunc('day', at) AS day, count(*) FROM reading GROUP BY 1;
         CREATE SEQUENCE numbers; SELECT setval('numbers', 77);
         CREATE TABLE debit (n bigint PRIMARY KEY); CREATE TABLE credit (n bigint PRIMARY KEY);
         SELECT lo_from_bytea(4711, decode('00ff10', 'hex'));",
    );
}

fn connection(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What must be the same in the copy.
fn told(server: &crate::servers::postgres::PostgresServer) -> Vec<String> {
    let of_metrics = "SELECT md5(string_agg(r::text, ',' ORDER BY sensor, at)) FROM reading r; SELECT count(*) FROM warm;
        SELECT has_table_privilege('reader', 'warm', 'SELECT'); SELECT sum(count) FROM daily; SELECT last_value FROM numbers;
        SELECT lo_get(4711); SELECT setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'metrics'";
    let of_cluster = "SELECT rolname, rolpassword, rolconnlimit FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1;
        SELECT setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE rolname = 'reader';
        SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate FROM pg_database ORDER BY 1;
        SELECT answer FROM in_postgres";
    vec![
        server.sql_in("metrics", of_metrics),
        server.sql(of_cluster),
        server.sql_in(&connection(ODD), "SELECT * FROM \"T t\""),
    ]
}

fn dumps_and_restores(format: &str, ending: &str) {
    let scene = set_up(&format!("full = \"base\"\ndump_format = \"{format}\"\n"));
    furnish(&scene);
    let (site, server) = (&scene.site, &scene.server);
    let (stop, before) = (AtomicBool::new(false), told(server));
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Both tables or none: whatever moment the dump is of, they have as many rows.
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                server.sql_in(
                    "metrics",
                    &format!("BEGIN; INSERT INTO debit VALUES ({n}); INSERT INTO credit VALUES ({n}); COMMIT"),
                );
            }
        });
        let written = || server.sql_in("metrics", "SELECT count(*) > 3 FROM debit") == "t";
        assert!(wait_until(PATIENCE, INTERVAL, written));
        let report = dump(site);
        stop.store(true, Ordering::SeqCst);
        report.expect("the dump")
    });
    assert!(report.counts_exact && report.id.kind == BackupKind::Dump && report.downtime_ms == 0, "{report:?}");
    let names: Vec<String> =
        site.objects().iter().map(|path| path.file_name().expect("name").to_string_lossy().into_owned()).collect();
    for ending in
        ["globals.sql.zst.enc", &format!("db-metrics.{ending}.zst.enc"), &format!("db-postgres.{ending}.zst.enc")]
    {
        assert!(names.iter().any(|name| name.ends_with(ending)), "{names:?}");
    }
    let directory = site.path("copy");
    let restored = into(site, "metrics", &directory);
    all_checked(&restored.checks, &["connectivity", "schema_consistency", "counts", "orphan_detection"]);
    assert_eq!(debris(site, &server.directory), Vec::<std::path::PathBuf>::new());
    let copy = server.open_copy(&directory, "copy");
    assert_eq!(told(&copy), before);
    let rows = copy.sql_in(
        "metrics",
        "SELECT (SELECT count(*) FROM debit) = (SELECT count(*) FROM credit), count(*) > 3 FROM debit",
    );
    assert_eq!(rows, "t|t");
    drop(copy);

    // In place it would be another cluster.
    let in_place =
        RestoreRequest { backup: Some(report.id.to_string()), ..restore_request("metrics", Destination::InPlace) };
    assert_eq!(site.ask(&Request::Restore(in_place)).map_err(|error| error.code()), Err(Code::NotAvailable));
    assert_eq!(told(server), before);

    // Damage is found before the copy is handed over, and nothing is left of it.
    let object = site.objects().into_iter().find(|path| path.to_string_lossy().contains("db-metrics")).expect("object");
    let mut bytes = fs::read(&object).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).expect("write");
    let damaged = site.path("damaged");
    assert_eq!(site.restore_into("metrics", "latest", &damaged).err(), Some(Code::BackupCorrupted));
    assert!(!damaged.exists() && debris(site, &server.directory).is_empty());
    assert!(site.restore_into("metrics", "latest", &damaged).is_err_and(|code| code == Code::BackupNotFound));
}

// req: D2 E2 E4
#[test]
fn every_database_is_dumped_at_one_moment_and_becomes_a_cluster() {
    dumps_and_restores("custom", "dump");
}

// req: E2
#[test]
fn scripts_do_the_same() {
    dumps_and_restores("plain", "sql");
}

// req: X4
#[test]
fn a_dump_is_opened_by_standard_tools_alone() {
    let scene = set_up("full = \"dump\"\n");
    let (site, root) = (&scene.site, scene.site.root().display());
    dump(site).expect("the dump");
    let objects = site.objects();
    let object = objects.iter().find(|path| path.to_string_lossy().contains("db-metrics")).expect("object").display();
    let pipe = format!(
        "set -eo pipefail; openssl enc -d -aes-256-cbc -pbkdf2 -iter 1000 -pass file:{root}/passphrase -in {object} \
         | zstd -q -d | '{}' --data-only -t sensor -f -",
        scene.server.bin.join("pg_restore").display()
    );
    let output = Command::new("bash").args(["-c", &pipe]).output().expect("bash");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("50\tsensor 50"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_target_of_dumps_has_no_log_and_a_dump_is_never_put_before_a_base() {
    let scene = set_up("full = \"dump\"\n");
    let site = &scene.site;
    assert_eq!(site.backup("metrics").id.kind, BackupKind::Dump);
    let increment = Request::Archive(ArchiveRequest { target: backup_request("metrics").target, dry_run: false });
    let error = site.ask(&increment).expect_err("no log");
    assert!(error.code() == Code::NotAvailable && error.message().contains("full = \"dump\""), "{error}");
    into(site, "metrics", &site.path("of-a-dump"));

    let text = fs::read_to_string(site.config()).expect("configuration");
    fs::write(site.config(), text.replace("full = \"dump\"\n", "full = \"base\"\n")).expect("configuration");
    let base = site.backup("metrics").id;
    let newer = dump(site).expect("the dump").id;
    assert_eq!(into(site, "metrics", &site.path("unasked")).backup, base);
    let asked = RestoreRequest {
        backup: Some(newer.to_string()),
        ..restore_request("metrics", Destination::Into(site.path("asked")))
    };
    assert_eq!(super::restored(site, asked).backup, newer);
}

#[test]
fn a_dump_that_is_cut_off_is_none() {
    let scene = set_up("full = \"dump\"\n");
    let (site, server) = (&scene.site, &scene.server);
    let waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'";
    let locked = std::thread::scope(|scope| {
        let lock = scope.spawn(|| server.sql_in("metrics", "BEGIN; LOCK TABLE sensor; SELECT pg_sleep(120)").len());
        let held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE relname = 'sensor' AND mode = 'AccessExclusiveLock'";
        assert!(wait_until(PATIENCE, INTERVAL, || server.sql_in("metrics", held) == "1"));
        let dumped = scope.spawn(|| dump(site));
        assert!(wait_until(PATIENCE, INTERVAL, || !server.sql(waiting).is_empty()), "it waits for the table");
        server.sql(&format!("SELECT pg_terminate_backend(pid) FROM ({waiting}) waiting"));
        let dumped = dumped.join().expect("the dump's thread");
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid()");
        // Its client was ended with it.
        drop(lock.join());
        dumped
    });
    assert_eq!(locked.map_err(|error| error.code()).err(), Some(Code::PostgresToolFailed));
    assert_eq!((site.objects().len(), debris(site, &server.directory).len()), (0, 0));
    dump(site).expect("the next one");
}

#[test]
fn what_is_for_base_backups_is_refused_of_a_dump() {
    let scene = set_up("full = \"dump\"\n");
    let (site, place) = (&scene.site, scene.site.path("copy").display().to_string());
    dump(site).expect("the dump");
    for options in [&["--standby"][..], &["--delta", "--yes"], &["--tablespace-map-all", "/srv/spaces"]] {
        let refused = site.run(&[&["restore", "metrics", "--into", &place], options].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(i32::from(Code::Usage.exit())), "{options:?}: {said}");
        assert!(!std::path::Path::new(&place).exists());
    }
}
