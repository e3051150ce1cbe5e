//! Data in service is put back to the second before a mistake, and its log goes on.

use super::Scene;
use super::writers::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::operation::request::{Destination, RestoreRequest};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

// req: D5 X2 X4
#[test]
fn a_dropped_table_comes_back_and_the_log_goes_on_in_a_history_of_its_own() {
    let scene = Scene::set_up("");
    let server = &scene.server;
    server.sql("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 500)");
    scene.site.backup("metrics");
    server.sql("INSERT INTO kept SELECT generate_series(501, 900)");
    scene.archive();
    server.sql("INSERT INTO kept VALUES (901)");
    let before = SystemClock.now();
    assert!(wait_until(PATIENCE, INTERVAL, || SystemClock.now() > before));
    server.sql("DROP TABLE kept");
    scene.archive();

    let request = RestoreRequest {
        until: Some(RecoveryTarget::Time(before)),
        ..crate::site::restore_request("metrics", Destination::InPlace)
    };
    let report = scene.ask_restore(request).expect("restored in place");
    let judged: Vec<_> = report.checks.iter().filter(|check| check.name != "counts").cloned().collect();
    crate::roundtrip::all_passed(&judged, &["connectivity", "recovered_end", "timeline", "in_service"]);
    assert_eq!(server.sql("SELECT count(*), max(n) FROM kept"), "901|901");
    assert_eq!(server.sql("SELECT timeline_id FROM pg_control_checkpoint()"), "2");
    // Whatever a restore left behind that the server may not open would stop its archiver, or the server itself.
    let mut files = Vec::new();
    crate::site::walk(&server.data, &mut files);
    let owner = |path: &Path| path.symlink_metadata().map(|found| found.uid()).ok();
    let strange = files.iter().find(|path| owner(path).is_some_and(|uid| Some(uid) != owner(&server.data)));
    assert_eq!(strange, None);
    let handed_over = || server.data.join("pg_wal/archive_status/00000002.history.done").exists();
    assert!(wait_until(PATIENCE, INTERVAL, handed_over), "the history of its timeline is not archived");

    // It goes on where the archive has another history: a lineage of its own, from a base of its own, nothing torn.
    server.sql("INSERT INTO kept VALUES (902)");
    let forked = scene.archive();
    let here = forked.repositories.last().expect("a repository");
    assert_eq!((forked.bases.len(), here.lineage, forked.gaps.len()), (1, 2, 0), "{forked:?}");
    server.sql("INSERT INTO kept VALUES (903)");
    let next = scene.archive();
    assert_eq!((next.bases.len(), next.repositories[0].lineage), (0, 2), "{next:?}");
    assert!(next.repositories[0].covered_until.is_some(), "{next:?}");
    let (report, copy) = scene.restore("latest", None);
    assert_eq!(report.reached.expect("reached").lineage, 2);
    assert_eq!(copy.sql("SELECT count(*), max(n) FROM kept"), "903|903");
    // The copy is of a timeline that neither history has.
    assert_eq!(copy.sql("SELECT timeline_id FROM pg_control_checkpoint()"), "3");
    drop(copy);

    // The moments before the restore in place are still there for whoever names them.
    let (report, copy) = scene.restore("left", Some(RecoveryTarget::Time(before)));
    assert_eq!((report.reached.expect("reached").lineage, copy.sql("SELECT max(n) FROM kept")), (1, "901".to_owned()));
    drop(copy);
    scene.site.verify().expect("everything is sound");
}

// req: D5
#[test]
fn recovery_that_is_left_to_the_first_start_ends_where_it_should() {
    let scene = Scene::set_up("");
    let server = &scene.server;
    server.sql("CREATE TABLE t (n int)");
    scene.site.backup("metrics");
    server.sql("INSERT INTO t VALUES (1)");
    scene.archive();
    let moment = SystemClock.now();
    assert!(wait_until(PATIENCE, INTERVAL, || SystemClock.now() > moment));
    server.sql("INSERT INTO t VALUES (2)");
    scene.archive();
    let aside = scene.site.path("raw");
    let request = RestoreRequest {
        until: Some(RecoveryTarget::Time(moment)),
        no_recover: true,
        ..crate::site::restore_request("metrics", Destination::Into(aside.clone()))
    };
    scene.ask_restore(request).expect("restored");
    assert!(aside.join("recovery.signal").exists());
    let copy = server.open_copy(&aside, "raw");
    let promoted = || copy.sql("SELECT pg_is_in_recovery()") == "f";
    assert!(wait_until(PATIENCE, INTERVAL, promoted), "it stays in recovery");
    assert_eq!(copy.sql("SELECT count(*), max(n) FROM t"), "1|1");
    assert!(fs::read_to_string(aside.join("postgresql.auto.conf")).expect("settings").contains("recovery_target_lsn"));
}
