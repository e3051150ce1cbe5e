//! An official dump of a server that is never stopped: made of a private copy of what is archived.

use super::writers::{Writers, check_invariants, prepare};
use super::{configure, holds_all, open, restless, restored, rounds};
use crate::roundtrip::all_passed;
use crate::servers::neo4j::Neo4jServer;
use crate::site::{Site, backup_request, restore_request};
use neo4j_backup_agent::base::ids::BackupKind;
use neo4j_backup_agent::operation::answer::{Answer, BackupReport};
use neo4j_backup_agent::operation::request::{BackupRequest, Destination, Request, RestoreRequest};
use std::sync::Arc;

fn dump(site: &Site, dry_run: bool) -> BackupReport {
    let request = BackupRequest { kind: Some(BackupKind::Dump), dry_run, ..backup_request("graph") };
    match site.ask(&Request::Backup(request)) {
        Ok(Answer::Backup(report)) => report,
        other => panic!("the dump failed: {other:?}"),
    }
}

// req: X2 D1
#[test]
fn a_dump_is_made_without_stopping_the_server_and_the_log_goes_on_from_it() {
    let site = Site::with("");
    let server = Arc::new(Neo4jServer::start(site.root(), &restless()));
    configure(&site, &server);
    prepare(&server);
    let rehearsed = dump(&site, true);
    assert!(rehearsed.steps[0].contains("the server is left alone"), "{rehearsed:?}");
    let writers = Writers::start(&server, 4);
    writers.await_more(300);
    let pid = server.pid();
    let before = writers.acknowledged();
    let report = dump(&site, false);
    writers.await_more(100);
    let all = writers.stop();
    assert_eq!((report.downtime_ms, server.pid(), report.id.kind), (0, pid, BackupKind::Dump), "never stopped");
    assert!(report.warnings.is_empty(), "{report:?}");

    // The dump alone, by the official loader.
    let alone = RestoreRequest {
        backup: Some(report.id.to_string()),
        ..restore_request("graph", Destination::Into(site.path("alone")))
    };
    let loaded = restored(&site, alone);
    let judged: Vec<_> = loaded.checks.iter().filter(|check| check.name != "counts").cloned().collect();
    all_passed(&judged, &["connectivity", "schema_consistency", "orphan_detection", "database_check", "recovered_end"]);
    let copy = open(&site, "copy", &site.path("alone"), None);
    check_invariants(&copy);
    holds_all(&copy, &before);
    copy.stop();

    // The dump, and over it the log that was archived since.
    let archived = rounds::archive(&site);
    assert_eq!((archived.bases.len(), archived.gaps.len()), (0, 0), "{archived:?}");
    let latest = restored(&site, restore_request("graph", Destination::Into(site.path("latest"))));
    assert_eq!((latest.backup, latest.batches > 0), (report.id, true), "the dump is the nearest base");
    let copy = open(&site, "newest", &site.path("latest"), None);
    check_invariants(&copy);
    holds_all(&copy, &all);
    site.verify().expect("all is sound");
}
