//! An official dump of a server that is never stopped: made of a private copy of what is archived.

use super::writers::{Writers, check_invariants, check_invariants_beside, prepare};
use super::{configure, holds_all, open, restless, restored, rounds};
use crate::roundtrip::all_passed;
use crate::servers::neo4j::Neo4jServer;
use crate::site::{Site, backup_request, restore_request};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::BackupKind;
use neo4j_backup_agent::driver::log::RecoveryTarget;
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

    // The dump, and over it the log that was archived since: to where the server had made a constraint's index and not the
    // constraint, which it never uses, beside one that it could not build. Neither is a reason to refuse.
    server.cypher("CREATE (:Page {text: reduce(text = '', i IN range(1, 4000) | text + 'words')})");
    server.cypher("CREATE RANGE INDEX page_text FOR (p:Page) ON (p.text)");
    let failed =
        "SHOW INDEXES YIELD name, state WHERE name = 'page_text' AND state = 'FAILED' RETURN count(*) AS count";
    assert!(wait_until(PATIENCE, INTERVAL, || server.number(failed) == 1));
    server.cypher("UNWIND range(1, 5) AS i CREATE (:Lonely {id: i})");
    server.cypher("CREATE CONSTRAINT lonely FOR (l:Lonely) REQUIRE l.id IS UNIQUE");
    let archived = rounds::archive(&site);
    assert_eq!((archived.bases.len(), archived.gaps.len()), (0, 0), "{archived:?}");
    let until = Some(RecoveryTarget::Transaction(archived.repositories[0].to_transaction - 1));
    let request = RestoreRequest { until, ..restore_request("graph", Destination::Into(site.path("latest"))) };
    let latest = restored(&site, request);
    assert_eq!((latest.backup, latest.batches > 0), (report.id, true), "the dump is the nearest base");
    let schema = latest.checks.iter().find(|check| check.name == "schema_consistency").expect("checked");
    assert!(schema.passed == Some(true), "{schema:?}");
    assert!(["lonely", "page_text"].iter().all(|name| schema.found.contains(name)), "{schema:?}");
    let copy = open(&site, "newest", &site.path("latest"), None);
    check_invariants_beside(&copy, 2);
    holds_all(&copy, &all);
    site.verify().expect("all is sound");
}
