//! Rounds of what a bad day holds: writers, a base at a random moment, increments, the server killed at a random moment
//! and started again, and a restore to the end, to a time, to a position, to a restore point, and to a transaction.

use super::Scene;
use super::writers::{Acknowledged, INTERVAL, PATIENCE, Writers, holds_all, holds_none, prepare};
use crate::online::rounds::Random;
use crate::site::restore_request;
use jiff::Timestamp;
use neo4j_backup_agent::artifact::log_point::Lsn;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::driver::log::{PointName, RecoveryTarget};
use neo4j_backup_agent::operation::request::{Destination, Request, RestoreRequest};

/// How many rounds the campaign plays.
const ROUNDS: &str = "NEO4J_BACKUP_ROUNDS";
/// The versions beside the system's own, as `testing/postgres/fetch.sh` has them.
const VERSIONS: [&str; 5] = ["13.23.0", "14.20.0", "16.11.0", "17.7.0", "18.1.0"];

/// A moment of a round, and what lies before and after it.
struct Moment {
    /// Before the position was asked for: what was acknowledged then lies before it.
    asked: Timestamp,
    /// Of the restore point `moment`, which every moment makes.
    position: u64,
    /// The transaction that was committed next.
    transaction: u64,
    /// After it was told: what was sent then lies after it.
    time: Timestamp,
}

impl Moment {
    fn now(scene: &Scene) -> Moment {
        let asked = SystemClock.now();
        let position = Lsn::parse(&scene.server.sql("SELECT pg_create_restore_point('moment')")).expect("a position").0;
        let noted = scene.server.sql("INSERT INTO moments VALUES (txid_current()) RETURNING transaction");
        let transaction = noted.lines().next().and_then(|line| line.parse().ok()).expect("a transaction");
        Moment { asked, position, transaction, time: SystemClock.now() }
    }
}

fn play(scene: &Scene, random: &mut Random) -> (Vec<Acknowledged>, Vec<Acknowledged>, Moment, Moment) {
    prepare(&scene.server);
    scene.server.sql("CREATE TABLE moments (transaction bigint)");
    let writers = Writers::start(&scene.server, 4);
    writers.await_more(50 + random.below(300));
    scene.site.backup("metrics");
    for _ in 0..2 {
        writers.await_more(20 + random.below(400));
        let report = scene.archive();
        assert_eq!((report.bases.len(), report.gaps.len()), (0, 0), "{report:?}");
        assert!(report.repositories[0].covered_until.is_some(), "{report:?}");
    }
    writers.await_more(10 + random.below(400));
    let first = Moment::now(scene);
    writers.await_more(10 + random.below(400));
    scene.server.kill9();
    // While a process of it is left, its socket is, and a connection is begun and reset.
    assert!(wait_until(PATIENCE, INTERVAL, || !scene.server.has_processes()));
    // What the dead server handed over is archived; of what it still has nothing is promised.
    let meanwhile = scene.archive();
    assert_eq!(meanwhile.repositories[0].covered_until, None, "{meanwhile:?}");
    scene.server.run();
    writers.await_more(50 + random.below(200));
    let second = Moment::now(scene);
    writers.await_more(50 + random.below(100));
    let archived = writers.acknowledged();
    let last = scene.archive();
    assert_eq!((last.bases.len(), last.gaps.len()), (0, 0), "{last:?}");
    writers.await_more(10);
    (archived, writers.stop(), first, second)
}

/// The newest restore point of a name, and transactions, whose numbers are in no order.
fn to_what_only_the_log_tells(scene: &Scene, second: &Moment) {
    let name = PointName::new("moment").expect("a name");
    let noted = format!("SELECT count(*) FROM moments WHERE transaction = {}", second.transaction);
    for (directory, until, count) in [
        ("to-name", RecoveryTarget::Point(name), "0"),
        ("to-tx", RecoveryTarget::Transaction(second.transaction), "1"),
        ("before-tx", RecoveryTarget::BeforeTransaction(second.transaction), "0"),
    ] {
        let (report, copy) = scene.restore(directory, Some(until));
        assert_eq!(copy.sql(&noted), count, "{directory}");
        let reached = report.reached.expect("reached").transaction.expect("a position");
        match until {
            RecoveryTarget::Point(_) => assert_eq!(reached, second.position),
            _ => assert!(reached > second.position, "{directory}"),
        }
    }
    let nothing = RestoreRequest {
        until: Some(RecoveryTarget::Point(PointName::new("another").expect("a name"))),
        ..restore_request("metrics", Destination::Into(scene.site.path("nowhere")))
    };
    let error = scene.site.ask(&Request::Restore(nothing)).expect_err("there is no such point");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(!scene.site.path("nowhere").exists());
}

// req: X2 X3 D2 D5 D6
#[test]
fn everything_acknowledged_is_restored_to_the_end_to_a_time_and_to_a_position() {
    let rounds: u64 = std::env::var(ROUNDS).map_or(3, |text| text.parse().expect("a number of rounds"));
    for number in 0..rounds {
        let seed = 0x2545_f491_4f6c_dd1d ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        println!("round {number}, seed {seed:#x}");
        let scene = Scene::set_up("");
        let (archived, second) = round(&scene, &mut Random(seed));
        if number == 0 {
            to_what_only_the_log_tells(&scene, &second);
        }
        scene.site.verify().expect("base and batches are sound");
        println!("figure: postgresql round {number}: {archived} acknowledged and archived, all restored");
    }
}

// req: X2 X3 D2 D5 D6
#[test]
fn a_round_on_every_version_that_is_supported() {
    for (number, version) in VERSIONS.iter().enumerate() {
        let seed = 0x9e37_79b9_7f4a_7c15 ^ number as u64;
        println!("PostgreSQL {version}, seed {seed:#x}");
        let scene = Scene::of(Some(version), "");
        let told = scene.server.sql("SHOW server_version");
        assert!(version.starts_with(&told), "{told} instead of {version}");
        let (archived, _) = round(&scene, &mut Random(seed));
        scene.site.verify().expect("base and batches are sound");
        println!("figure: PostgreSQL {version}: {archived} acknowledged and archived, all restored");
    }
}

/// One round on a cluster: how many transactions were acknowledged and archived, and a moment near its end.
fn round(scene: &Scene, random: &mut Random) -> (usize, Moment) {
    let (archived, all, first, second) = play(scene, random);
    let before = |time: Timestamp| all.iter().filter(|r| r.done < time).cloned().collect::<Vec<_>>();
    let after = |time: Timestamp| all.iter().filter(|r| r.sent > time).cloned().collect::<Vec<_>>();

    let (_, copy) = scene.restore("end", None);
    holds_all(&copy, &archived);
    drop(copy);
    for (name, moment) in [("one", &first), ("two", &second)] {
        let until = RecoveryTarget::Time(moment.time);
        let (report, copy) = scene.restore(&format!("time-{name}"), Some(until));
        assert!(report.reached.expect("reached").time.expect("time") <= moment.time);
        holds_all(&copy, &before(moment.time));
        holds_none(&copy, &after(moment.time));
        let until = RecoveryTarget::Lsn(moment.position);
        let (report, copy) = scene.restore(&format!("position-{name}"), Some(until));
        assert_eq!(report.reached.expect("reached").transaction, Some(moment.position));
        holds_none(&copy, &after(moment.time));
        holds_all(&copy, &before(moment.asked));
    }
    (archived.len(), second)
}
