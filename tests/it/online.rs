//! Neo4j without downtime, on real servers that are written to all the while: online base, archived log, restore to the
//! end, to a time, to a transaction.

mod dump;
pub(crate) mod rounds;
mod schema;
mod writers;

use crate::roundtrip::all_passed;
use crate::servers::neo4j::{Neo4jOptions, Neo4jServer};
use crate::site::{Site, restore_request};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::neo4j::log;
use neo4j_backup_agent::operation::answer::{Answer, RestoreReport};
use neo4j_backup_agent::operation::execute;
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request, RestoreRequest};
use std::path::Path;
use std::sync::Arc;
use writers::{Acknowledged, Writers, check_invariants, counters, prepare};

/// A server that makes checkpoints, evicts pages and begins new logs all the time.
fn restless() -> Neo4jOptions {
    let settings = [
        "db.checkpoint.interval.time=2s",
        "db.tx_log.rotation.size=1m",
        "db.tx_log.preallocate=true",
        "server.memory.pagecache.size=16m",
    ];
    Neo4jOptions { settings: settings.map(str::to_owned).to_vec(), ..Neo4jOptions::default() }
}

fn configure(site: &Site, server: &Neo4jServer) {
    let home = server.home().display();
    site.configure(&format!(
        "[target.graph]\nkind = \"neo4j\"\nhome = \"{home}\"\nconf = \"{home}/conf/neo4j.conf\"\n\
         admin = \"{home}/bin/neo4j-admin\"\nbolt = \"{}\"\n\
         stop_command = {:?}\nstart_command = {:?}\n",
        server.bolt(),
        server.stop_command(),
        server.start_command(),
    ));
}

fn restored(site: &Site, request: RestoreRequest) -> RestoreReport {
    match site.ask(&Request::Restore(request)) {
        Ok(Answer::Restore(report)) => report,
        other => panic!("the restore failed: {other:?}"),
    }
}

/// Another server on a restored directory.
fn open(site: &Site, name: &str, data: &Path, version: Option<&'static str>) -> Neo4jServer {
    let root = site.path(name);
    std::fs::create_dir(&root).expect("mkdir");
    let options = Neo4jOptions {
        settings: vec![format!("server.directories.data={}", data.display())],
        version,
        ..Neo4jOptions::default()
    };
    Neo4jServer::start(&root, &options)
}

/// Where a restore of all that is archived would end.
fn planned_end(site: &Site) -> u64 {
    let planned = RestoreRequest { dry_run: true, ..restore_request("graph", Destination::Into(site.path("planned"))) };
    restored(site, planned).reached.and_then(|reached| reached.transaction).expect("a transaction")
}

// req: X2 B8
#[test]
fn counts_of_a_quiet_graph_are_compared_with_its_base_but_not_with_what_was_replayed() {
    let site = Site::with("");
    let server = Neo4jServer::start(site.root(), &Neo4jOptions::default());
    server.fill();
    configure(&site, &server);
    let backup = site.backup("graph");
    assert!(backup.counts_exact, "{backup:?}");
    server.cypher("MATCH (p:Person) WHERE p.id % 2 = 0 DETACH DELETE p");
    server.cypher("DROP INDEX person_id");
    let archived = rounds::archive(&site);
    assert_eq!((archived.bases.len(), archived.repositories[0].transactions), (0, 2), "{archived:?}");
    let check = |report: &RestoreReport, name: &str| report.checks.iter().find(|check| check.name == name).cloned();

    let base = RestoreRequest {
        backup: Some(backup.id.to_string()),
        ..restore_request("graph", Destination::Into(site.path("base")))
    };
    let base = restored(&site, base);
    all_passed(&base.checks, &["counts", "schema_consistency", "recovered_end"]);

    server.cypher("MATCH (p:Person) DETACH DELETE p");
    let latest = restored(&site, restore_request("graph", Destination::InPlace));
    assert_eq!(check(&latest, "counts").and_then(|check| check.passed), None, "{latest:?}");
    assert_eq!(check(&latest, "recovered_end").and_then(|check| check.passed), Some(true));
    assert_eq!(server.number("MATCH (p:Person) RETURN count(p)"), 495);

    // All that was archived is there; what was lost by it was in service once, so that another history begins.
    server.cypher("CREATE (:Person {id: 5000})");
    let begun = rounds::archive(&site);
    assert_eq!((begun.bases.len(), begun.repositories[0].lineage, begun.gaps.len()), (1, 2, 0), "{begun:?}");
    server.cypher("CREATE (:Person {id: 5001})");
    let after = rounds::archive(&site);
    assert_eq!((after.bases.len(), after.repositories[0].lineage, after.gaps.len()), (0, 2, 0), "{after:?}");
    assert_eq!(planned_end(&site), after.repositories[0].to_transaction, "what came after is no history that was left");

    // It was archived and is taken back, by the very agent that has archived and holds the log open: history goes on
    // under a lineage of its own, from a base of its own.
    let until = Some(RecoveryTarget::BeforeTransaction(after.repositories[0].to_transaction));
    let taken_back = RestoreRequest { until, ..restore_request("graph", Destination::InPlace) };
    let archive = Request::Archive(ArchiveRequest { target: taken_back.target.clone(), dry_run: false });
    let agent = site.context();
    for request in [archive, Request::Restore(taken_back)] {
        execute(&agent, &request, None, "test", &Task::unobserved()).expect("archived and restored");
    }
    drop(agent);
    let between = SystemClock.now();
    assert_eq!(server.number("MATCH (p:Person) RETURN count(p)"), 496);
    server.cypher("CREATE (:Person {id: 6000})");
    let forked = rounds::archive(&site);
    assert_eq!((forked.bases.len(), forked.repositories[0].lineage, forked.gaps.len()), (1, 3, 0), "{forked:?}");

    // The moments before the fork are those of the history that was left; the base of the other holds another state.
    let planned = |until| {
        let request = RestoreRequest {
            until: Some(until),
            dry_run: true,
            ..restore_request("graph", Destination::Into(site.path("planned")))
        };
        site.ask(&Request::Restore(request)).map_err(|error| error.code())
    };
    let last = after.repositories[0].to_time.expect("a time of commit");
    match planned(RecoveryTarget::Time(last)) {
        Ok(Answer::Restore(report)) => assert_eq!(report.reached.expect("planned").lineage, 2),
        other => panic!("the history that was left is not found: {other:?}"),
    }
    assert_eq!(planned(RecoveryTarget::Time(between)).map(drop), Err(Code::RestoreTargetUnreachable));
    site.verify().expect("both histories are sound");
}

// req: X2 D1
#[test]
fn a_log_that_was_pruned_between_the_runs_of_one_agent_is_a_gap_at_once() {
    let settings = [
        "db.tx_log.rotation.size=128k",
        "db.tx_log.rotation.retention_policy=keep_none",
        "db.checkpoint.interval.time=1s",
    ];
    let options = Neo4jOptions { settings: settings.map(str::to_owned).to_vec(), ..Neo4jOptions::default() };
    let site = Site::with("");
    let server = Neo4jServer::start(site.root(), &options);
    server.cypher("CREATE (:Filler {n: 0})");
    configure(&site, &server);
    site.backup("graph");
    let agent = site.context();
    let archive = || {
        let target = TargetName::new("graph").expect("name");
        let request = Request::Archive(ArchiveRequest { target, dry_run: false });
        match execute(&agent, &request, None, "test", &Task::unobserved()) {
            Ok(Answer::Archive(report)) => report,
            other => panic!("archiving failed: {other:?}"),
        }
    };
    server.cypher("CREATE (:Filler {n: 1})");
    let first = archive();
    assert_eq!((first.gaps.len(), first.bases.len()), (0, 0), "{first:?}");
    // The agent holds the file that it ended in; the next one comes and goes.
    let files = || log::numbered(&server.data().join("transactions/neo4j"), log::TRANSACTIONS).expect("list");
    let held = files().last().expect("a log").0;
    let pruned = || {
        server.cypher("UNWIND range(1, 200) AS n CREATE (:Filler {n: n, text: left(reduce(t = 'x', k IN range(1, 10) | t + t), 1000)})");
        files().first().is_some_and(|(oldest, _)| *oldest > held + 1)
    };
    assert!(wait_until(writers::PATIENCE, writers::INTERVAL, pruned), "{:?}", files());
    let second = archive();
    assert_eq!((second.gaps.len(), second.bases.len()), (1, 1), "{second:?}");
    // A transaction within the gap is not promised, with log after it and without, and the newest state is all there.
    let lost = second.repositories.iter().map(|done| done.to_transaction).max().expect("archived") - 1;
    let planned = || {
        let request = RestoreRequest {
            until: Some(RecoveryTarget::Transaction(lost)),
            dry_run: true,
            ..restore_request("graph", Destination::Into(site.path("lost")))
        };
        let answer = execute(&agent, &Request::Restore(request), None, "test", &Task::unobserved());
        answer.map(drop).map_err(|error| error.code())
    };
    assert_eq!(planned(), Err(Code::LogGap));
    server.cypher("CREATE (:Filler {n: 2})");
    let third = archive();
    assert_eq!((third.gaps.len(), third.bases.len()), (0, 0), "{third:?}");
    assert_eq!(planned(), Err(Code::LogGap));
    drop(agent);
    let fillers = server.number("MATCH (f:Filler) RETURN count(f)");
    let aside = site.path("aside");
    restored(&site, restore_request("graph", Destination::Into(aside.clone())));
    let copy = open(&site, "copy", &aside, None);
    assert_eq!(copy.number("MATCH (f:Filler) RETURN count(f)"), fillers);
}

/// Every acknowledged transaction is there.
fn holds_all(server: &Neo4jServer, acknowledged: &[Acknowledged]) {
    let held = counters(server);
    for record in acknowledged {
        let there = held.get(&record.writer).copied().unwrap_or_default();
        assert!(there >= record.sequence, "writer {} is at {there}: {record:?} is lost", record.writer);
    }
}

// req: X1
#[test]
fn a_base_is_taken_of_a_server_that_is_written_to_and_holds_what_was_acknowledged_before() {
    let site = Site::with("");
    let server = Arc::new(Neo4jServer::start(site.root(), &restless()));
    configure(&site, &server);
    prepare(&server);
    let writers = Writers::start(&server, 4);
    writers.await_more(400);
    let pid = server.pid();
    let before = writers.acknowledged();
    let backup = site.backup("graph");
    writers.await_more(100);
    let all = writers.stop();
    assert_eq!((backup.downtime_ms, server.pid()), (0, pid), "the server was never stopped");
    assert!(!before.is_empty() && before.len() < all.len());

    let aside = site.path("aside");
    let request = RestoreRequest {
        backup: Some(backup.id.to_string()),
        ..restore_request("graph", Destination::Into(aside.clone()))
    };
    let report = restored(&site, request);
    let judged: Vec<_> = report.checks.iter().filter(|check| check.name != "counts").cloned().collect();
    all_passed(&judged, &["connectivity", "schema_consistency", "orphan_detection", "database_check", "recovered_end"]);
    let copy = open(&site, "copy", &aside, None);
    let sum = check_invariants(&copy);
    assert!(sum as usize <= all.len() + 4, "{sum} transactions in the copy, {} were acknowledged", all.len());
    holds_all(&copy, &before);
    site.verify().expect("the base is sound");
}
