//! The end of a base's own log, and histories by their numbers.

use super::Scene;
use crate::site::restore_request;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::restore_options::{RestoreOptions, Timeline};
use neo4j_backup_agent::operation::answer::RestoreReport;
use neo4j_backup_agent::operation::request::{Destination, RestoreRequest};

fn request(scene: &Scene, name: &str, timeline: Option<Timeline>, until: Option<RecoveryTarget>) -> RestoreRequest {
    RestoreRequest {
        until,
        options: RestoreOptions { timeline, ..RestoreOptions::default() },
        ..restore_request("metrics", Destination::Into(scene.site.path(name)))
    }
}

/// What a restored copy holds.
fn restored(scene: &Scene, name: &str, asked: RestoreRequest) -> (RestoreReport, String) {
    let report = scene.ask_restore(asked).unwrap_or_else(|error| panic!("restoring {name}: {error:?}"));
    let judged: Vec<_> = report.checks.iter().filter(|check| check.name != "counts").cloned().collect();
    crate::roundtrip::all_passed(&judged, &["connectivity", "recovered_end", "timeline"]);
    let copy = scene.server.open_copy(&scene.site.path(name), name);
    let held = copy.sql("SELECT string_agg(n::text, ',' ORDER BY n) FROM t");
    (report, held)
}

// req: D5 X2
#[test]
fn a_restore_ends_with_the_base_and_follows_the_history_that_is_named() {
    let scene = Scene::set_up("");
    let server = &scene.server;
    server.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    scene.site.backup("metrics");
    server.sql("INSERT INTO t VALUES (2)");
    scene.archive();

    let immediate = Some(RecoveryTarget::Immediate);
    let plan = RestoreRequest { dry_run: true, ..request(&scene, "immediate", None, immediate) };
    let steps = scene.ask_restore(plan).expect("a plan").steps;
    assert!(steps.iter().any(|step| step.starts_with("end as soon as the backup is consistent")), "{steps:?}");
    let (report, held) = restored(&scene, "immediate", request(&scene, "immediate", None, immediate));
    assert_eq!((held.as_str(), report.batches, report.until), ("1", 0, immediate));

    // Put back in place, the cluster goes on as timeline 2; its log and the one that was left are both archived.
    let in_place = RestoreRequest { destination: Destination::InPlace, ..request(&scene, "-", None, immediate) };
    scene.ask_restore(in_place).expect("restored in place");
    assert_eq!(server.sql("SELECT string_agg(n::text, ',') FROM t"), "1");
    server.sql("INSERT INTO t VALUES (3)");
    assert_eq!(scene.archive().bases.len(), 1);
    server.sql("INSERT INTO t VALUES (4)");
    scene.archive();
    for (name, timeline, until, expected) in [
        ("default", None, None, "1,3,4"),
        ("latest", Some(Timeline::Latest), None, "1,3,4"),
        ("two", Some(Timeline::Number(2)), None, "1,3,4"),
        ("one", Some(Timeline::Number(1)), None, "1,2"),
        ("one-immediate", Some(Timeline::Number(1)), immediate, "1"),
        ("two-immediate", Some(Timeline::Number(2)), immediate, "1,3"),
    ] {
        let (report, held) = restored(&scene, name, request(&scene, name, timeline, until));
        assert_eq!(held, expected, "{name}: {report:?}");
    }
    let plan = RestoreRequest { dry_run: true, ..request(&scene, "plan", Some(Timeline::Number(1)), None) };
    let steps = scene.ask_restore(plan).expect("a plan").steps;
    assert!(steps.iter().any(|step| step.contains("follow timeline 1")), "{steps:?}");

    let refused = |asked: RestoreRequest| scene.ask_restore(asked).map(|_| ()).expect_err("refused");
    let error = refused(request(&scene, "nine", Some(Timeline::Number(9)), None));
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(error.hint().contains("1, 2"), "{error:?}");
    let both =
        RestoreRequest { backup: Some("latest".to_owned()), ..request(&scene, "x", Some(Timeline::Latest), None) };
    assert_eq!(refused(both).code(), Code::Usage);
}
