//! `continuous` of a real server: what is committed is in the repository seconds later, and a server that nobody writes to
//! fills nothing.

use super::Scene;
use crate::continuous::{Shipping, archive_of, becomes};
use neo4j_backup_agent::artifact::log_point::Lsn;
use neo4j_backup_agent::operation::answer::JobState;

// req: D6 A11
#[test]
fn what_is_committed_is_shipped_within_seconds_and_an_idle_server_ends_no_segments() {
    let scene = Scene::set_up("continuous = \"1s\"\n");
    let server = &scene.server;
    server.sql("ALTER SYSTEM SET autovacuum = off");
    server.sql("SELECT pg_reload_conf()");
    server.sql("CREATE TABLE t (n int)");
    let agent = Shipping::start(&scene.site);
    becomes("a base was taken", || agent.jobs().iter().any(|job| job.state == JobState::Succeeded));
    for number in 1..=4 {
        server.sql(&format!("INSERT INTO t VALUES ({number})"));
        let committed = Lsn::parse(&server.sql("SELECT pg_current_wal_lsn()")).expect("a position").0;
        becomes("the newest commit is archived", || agent.archived() >= committed);
    }
    assert_eq!(agent.jobs().len(), 1, "rounds leave no job: {:?}", agent.jobs());

    // A checkpoint writes to the log what no restore needs: neither a round nor the timer ends a segment for it.
    let current = || server.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    let segment = current();
    for _ in 0..3 {
        server.sql("CHECKPOINT");
        agent.run(archive_of("metrics"));
    }
    assert_eq!(current(), segment);
    server.sql("INSERT INTO t VALUES (5)");
    agent.run(archive_of("metrics"));
    assert_ne!(current(), segment);

    drop(agent);
    let (_, copy) = scene.restore("end", None);
    assert_eq!(copy.sql("SELECT string_agg(n::text, ',' ORDER BY n) FROM t"), "1,2,3,4,5");
}

#[test]
fn a_target_of_dumps_has_no_log_to_ship() {
    let scene = Scene::set_up("");
    let text = std::fs::read_to_string(scene.site.config()).expect("read");
    let text = text.replace("full = \"base\"\n", "full = \"dump\"\ncontinuous = \"5s\"\n");
    std::fs::write(scene.site.config(), text).expect("write");
    let refused = scene.site.run(&["status"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("continuous") && said.contains("takes none"), "{said}");
}
