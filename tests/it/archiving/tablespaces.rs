//! Tablespaces are restored where the operator says, and never into the places of the cluster in service.

use super::Scene;
use crate::site::restore_request;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::driver::restore_options::{Relocation, Relocations, RestoreOptions};
use neo4j_backup_agent::operation::request::{Destination, RestoreRequest};
use std::fs;
use std::path::{Path, PathBuf};

/// Makes a tablespace with a table of its name in it; returns its place.
fn tablespace(scene: &Scene, name: &str, rows: u32) -> PathBuf {
    let place = scene.server.directory.join(name);
    fs::create_dir(&place).expect("tablespace");
    scene.server.give(&place);
    scene.server.sql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display()));
    scene.server.sql(&format!(
        "CREATE TABLE {name} (n int PRIMARY KEY) TABLESPACE {name}; INSERT INTO {name} SELECT generate_series(1, {rows})"
    ));
    place
}

fn request(scene: &Scene, name: &str, pairs: &[(&str, &Path)], all: Option<&Path>) -> RestoreRequest {
    let pair = |(old, new): &(&str, &Path)| Relocation { old: (*old).to_owned(), new: (*new).to_owned() };
    let pairs = pairs.iter().map(pair).collect();
    let tablespaces = Relocations { pairs, all: all.map(Path::to_owned) };
    RestoreRequest {
        options: RestoreOptions { tablespaces, ..RestoreOptions::default() },
        ..restore_request("metrics", Destination::Into(scene.site.path(name)))
    }
}

fn links(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("pg_tblspc")).expect("pg_tblspc").flatten();
    let mut links: Vec<_> = entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    links.sort();
    links
}

// req: D5 D6
#[test]
fn tablespaces_go_where_they_are_told() {
    let scene = Scene::set_up("");
    let (fast, slow) = (tablespace(&scene, "fast", 1000), tablespace(&scene, "slow", 2000));
    scene.site.backup("metrics");
    scene.server.sql("INSERT INTO fast SELECT generate_series(1001, 1500)");
    scene.archive();
    let (elsewhere, others) = (scene.site.path("elsewhere"), scene.site.path("others"));
    let old = fast.display().to_string();
    let asked = request(&scene, "aside", &[(&old, &elsewhere)], Some(&others));

    let plan = scene.ask_restore(RestoreRequest { dry_run: true, ..asked.clone() }).expect("a plan");
    let steps = plan.steps.join("\n");
    assert!(steps.contains(&format!("tablespace fast, which was {old}")), "{steps}");
    assert!(steps.contains(&others.join("slow").display().to_string()), "{steps}");
    assert!(!scene.site.path("aside").exists() && !elsewhere.exists() && !others.exists());

    let report = scene.ask_restore(asked.clone()).expect("restored");
    let judged: Vec<_> = report.checks.iter().filter(|check| check.name != "counts").cloned().collect();
    crate::roundtrip::all_passed(&judged, &["pg_verifybackup", "connectivity", "timeline", "orphan_detection"]);
    let aside = scene.site.path("aside");
    assert_eq!(links(&aside), [elsewhere.clone(), others.join("slow")]);
    let settings = fs::read_to_string(aside.join("postgresql.auto.conf")).expect("settings");
    assert!(!settings.contains("allow_in_place_tablespaces"), "{settings}");
    let copy = scene.server.open_copy(&aside, "aside");
    copy.sql("DELETE FROM slow WHERE n > 500; CHECKPOINT");
    assert_eq!(copy.sql("SELECT (SELECT count(*) FROM fast), (SELECT count(*) FROM slow)"), "1500|500");
    assert_eq!(scene.server.sql("SELECT count(*) FROM slow"), "2000", "the original's is its own");
    drop(copy);

    // Without a word they are inside, as far as nothing else is said of them.
    scene.ask_restore(request(&scene, "half", &[("slow", &scene.site.path("half-slow"))], None)).expect("restored");
    assert_eq!(links(&scene.site.path("half")), [scene.site.path("half-slow")]);
    let copy = scene.server.open_copy(&scene.site.path("half"), "half");
    assert_eq!(copy.sql("SELECT (SELECT count(*) FROM fast), (SELECT count(*) FROM slow)"), "1500|2000");
    drop(copy);
    refusals(&scene, &asked, &elsewhere, &slow);
}

fn refusals(scene: &Scene, asked: &RestoreRequest, taken: &Path, live: &Path) {
    let (again, free) = (scene.site.path("again"), scene.site.path("free"));
    let inside = again.join("below");
    for (why, pairs, code) in [
        ("it holds something", vec![("fast", taken)], Code::RestoreNotEmpty),
        ("it is the original's", vec![("fast", live)], Code::RestoreNotEmpty),
        ("it is inside the restored directory", vec![("fast", inside.as_path())], Code::Usage),
        ("two in one", vec![("fast", free.as_path()), ("slow", &free)], Code::Usage),
        ("nobody is called so", vec![("unknown", &free)], Code::Usage),
        ("twice", vec![("fast", &free), ("fast", &again)], Code::Usage),
    ] {
        let refused = scene.ask_restore(request(scene, "again", &pairs, None)).map(|_| ());
        assert_eq!(refused.map_err(|error| error.code()), Err(code), "{why}");
        assert!(!again.exists() && !free.exists(), "{why}");
    }
    let in_place = RestoreRequest { destination: Destination::InPlace, ..asked.clone() };
    assert_eq!(scene.ask_restore(in_place).map(|_| ()).map_err(|error| error.code()), Err(Code::Usage));

    // What was begun goes, wherever it is.
    let mut files = Vec::new();
    crate::site::walk(&scene.site.path("repository"), &mut files);
    let data = files.iter().find(|path| path.to_string_lossy().contains(".base.tar")).expect("an object");
    let mut bytes = fs::read(data).expect("read");
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(data, &bytes).expect("damage");
    let refused = scene.ask_restore(request(scene, "again", &[("fast", &free)], None)).map(|_| ());
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::BackupCorrupted));
    assert!(!again.exists() && !free.exists());
}

// req: D6
#[test]
fn a_tablespace_that_was_made_after_the_base_is_never_written_into() {
    let scene = Scene::set_up("");
    scene.server.sql("CREATE TABLE t (n int)");
    scene.site.backup("metrics");
    scene.server.sql("INSERT INTO t VALUES (1)");
    let before = scene.server.sql("SELECT pg_current_wal_insert_lsn()");
    let late = tablespace(&scene, "late", 1000);
    scene.archive();
    let before = neo4j_backup_agent::artifact::log_point::Lsn::parse(&before).expect("a position").0;
    let error = scene.try_restore(&scene.site.path("end"), None).expect_err("it would write into production");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(error.message().contains(&late.display().to_string()), "{error}");
    assert!(!scene.site.path("end").exists());
    let until = neo4j_backup_agent::driver::log::RecoveryTarget::Lsn(before);
    let (_, copy) = scene.restore("before", Some(until));
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "1");
    assert_eq!(scene.server.sql("SELECT count(*) FROM late"), "1000");
}
