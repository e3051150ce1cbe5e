//! A restored directory that is a standby: it catches up with what was archived, streams, and archives nothing.

use super::Scene;
use super::bus::Agent;
use super::writers::{INTERVAL, PATIENCE};
use crate::servers::bus::PrivateBus;
use crate::site::BACKUPCTL;
use crate::site::restore_request;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::restore_options::{RestoreOptions, Standby, Timeline};
use neo4j_backup_agent::operation::request::{Destination, RestoreRequest};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A directory that holds the client under the name that settings have, for a bus of its own.
fn path_of_client(scene: &Scene, address: &str) -> PathBuf {
    let directory = scene.site.path("bin");
    let client = directory.join("neo4j-backupctl");
    fs::create_dir(&directory).expect("directory");
    fs::write(&client, format!("#!/bin/sh\nexec {BACKUPCTL} --bus '{address}' \"$@\"\n")).expect("script");
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).expect("mode");
    directory
}

fn request(aside: &Path, primary: Option<String>) -> RestoreRequest {
    RestoreRequest {
        options: RestoreOptions { standby: Some(Standby { primary }), ..RestoreOptions::default() },
        ..restore_request("metrics", Destination::Into(aside.to_owned()))
    }
}

// req: D5 E2
#[test]
fn a_standby_catches_up_from_the_archive_then_streams_and_archives_nothing() {
    let scene = Scene::set_up("");
    let server = &scene.server;
    // What a cluster carries along that was a standby or was recovered once, and what would archive as a standby.
    for setting in ["archive_mode = 'always'", "recovery_target_time = '2020-01-01'", "primary_slot_name = 'gone'"] {
        server.sql(&format!("ALTER SYSTEM SET {setting}"));
    }
    server.sql("CREATE TABLE t (n int)");
    scene.site.backup("metrics");
    server.sql("INSERT INTO t SELECT generate_series(1, 1000)");
    scene.archive();
    let aside = scene.site.path("standby");
    let primary = format!("host={} port={} user=postgres", server.directory.display(), server.port);
    let asked = request(&aside, Some(primary));
    let plan = scene.ask_restore(RestoreRequest { dry_run: true, ..asked.clone() }).expect("a plan");
    assert!(plan.steps.iter().any(|step| step.contains("a standby of host=")), "{:?}", plan.steps);
    let report = scene.ask_restore(asked).expect("restored");
    assert!(report.checks.iter().all(|check| check.passed.is_none()), "nothing is proven: {:?}", report.checks);
    assert_eq!(report.batches, 0, "it fetches them itself");
    assert!(aside.join("standby.signal").exists() && !aside.join("recovery.signal").exists());

    // With its primary gone there is the archive alone.
    server.stop();
    let spooled = scene.spooled();
    let bus = PrivateBus::start();
    let _agent = Agent::start(&scene, bus.address());
    let path = path_of_client(&scene, bus.address());
    let fetch = || {
        let beyond = "000000010000000000000F00";
        let to = ["wal", "fetch", "metrics", beyond, "/nonexistent/x"];
        std::process::Command::new(path.join("neo4j-backupctl")).args(to).output().expect("the client")
    };
    assert!(wait_until(PATIENCE, INTERVAL, || fetch().status.code() == Some(1)), "{:?}", fetch());
    let standby = server.open_standby(&aside, "standby", &path);
    let count = || standby.sql("SELECT count(*) FROM t");
    assert!(wait_until(PATIENCE, INTERVAL, || count() == "1000"), "{}", count());
    assert_eq!(standby.sql("SELECT pg_is_in_recovery(), current_setting('archive_mode')"), "t|off");

    server.run();
    server.sql("INSERT INTO t SELECT generate_series(1001, 1700)");
    let streams = || standby.sql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "1";
    assert!(wait_until(PATIENCE, INTERVAL, || streams() && count() == "1700"), "{}", count());

    // Promoted, it goes on as a history of its own, and hands over nothing of it.
    standby.sql("SELECT pg_promote()");
    standby.sql("INSERT INTO t VALUES (0); SELECT pg_switch_wal(); CHECKPOINT");
    assert_eq!(standby.sql("SELECT timeline_id FROM pg_control_checkpoint()"), "2");
    assert_eq!(standby.sql("SELECT archived_count, failed_count FROM pg_stat_archiver"), "0|0");
    let later: Vec<_> = scene.spooled().into_iter().filter(|name| !spooled.contains(name)).collect();
    assert!(later.iter().all(|name| name.starts_with("00000001")), "{later:?}");
}

// req: D5
#[test]
fn what_a_standby_cannot_be_is_refused() {
    let scene = Scene::set_up("");
    scene.server.sql("CREATE TABLE t (n int)");
    scene.site.backup("metrics");
    let aside = scene.site.path("standby");
    let plain = request(&aside, None);
    let on_a_timeline = RestoreOptions { timeline: Some(Timeline::Latest), ..plain.options.clone() };
    for asked in [
        RestoreRequest { destination: Destination::InPlace, ..plain.clone() },
        RestoreRequest { until: Some(RecoveryTarget::Immediate), ..plain.clone() },
        RestoreRequest { options: on_a_timeline, ..plain.clone() },
        request(&aside, Some("host=a password=b".to_owned())),
    ] {
        let refused = scene.ask_restore(asked.clone()).map(|_| ()).map_err(|error| error.code());
        assert_eq!(refused, Err(Code::Usage), "{asked:?}");
        assert!(!aside.exists());
    }
}
