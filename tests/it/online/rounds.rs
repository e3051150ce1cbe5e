//! Rounds of what a bad day holds: writers, a base at a random moment, increments, the server killed at a random
//! moment and started again, and a restore to the end, to a time, or to a transaction.
//!
//! What is right is known without any bookkeeping of transactions: a database holds a prefix of each writer's history,
//! and the sum of the writers' counters moves by one with each transaction id.

use super::writers::{Acknowledged, Writers, check_invariants, prepare};
use super::{configure, holds_all, open, restless, restored};
use crate::chain::batches;
use crate::chain::merging::{FAN_IN, merged};
use crate::roundtrip::all_passed;
use crate::servers::neo4j::{NEWEST_VERSION, Neo4jOptions, Neo4jServer, VERSION};
use crate::site::{Site, restore_request};
use jiff::Timestamp;
use neo4j_backup_agent::base::clock::{Clock, SystemClock};
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::neo4j::log;
use neo4j_backup_agent::operation::answer::{Answer, ArchiveReport, RestoreReport};
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request, RestoreRequest};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

/// How many rounds the campaign plays with each version, or which: `25`, or `10-25` to go on.
const ROUNDS: &str = "NEO4J_BACKUP_ROUNDS";
/// The format of the log, if only one of them is to be played: `V9`, `V10`.
const LOG: &str = "NEO4J_BACKUP_LOG";

fn rounds() -> RangeInclusive<u64> {
    // One of each kind is a round on a history of its own for every kind of restore; the campaign plays more.
    let text = std::env::var(ROUNDS).unwrap_or_else(|_| "1".to_owned());
    let number = |text: &str| text.parse().expect("a number of rounds");
    text.split_once('-').map_or_else(|| 1..=number(&text), |(from, to)| number(from)..=number(to))
}

/// What makes a server of 2026.08 write enveloped logs into a database that it creates; its files are small, so that
/// most of them end inside a transaction.
const ENVELOPED: [&str; 2] =
    ["internal.dbms.allow_new_log_format_on_upgrade_or_create=true", "db.tx_log.rotation.size=256k"];

/// The format of the newest log file.
fn log_format(server: &Neo4jServer) -> &'static str {
    let files = log::numbered(&server.data().join("transactions/neo4j"), log::TRANSACTIONS).expect("list");
    let (number, path) = files.last().expect("a log");
    let opened = log::LogFile::open(*number, path).expect("open").expect("there");
    opened.header().expect("read").expect("a header").0.format.name()
}

/// A small random generator: rounds are random, a failure names its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Archives what was committed since.
pub(super) fn archive(site: &Site) -> ArchiveReport {
    let target = TargetName::new("graph").expect("name");
    match site.ask(&Request::Archive(ArchiveRequest { target, dry_run: false })) {
        Ok(Answer::Archive(report)) => report,
        other => panic!("archiving failed: {other:?}"),
    }
}

/// A restore into a new directory, and another server on it.
fn restore(round: &Round, name: &str, until: Option<RecoveryTarget>) -> (RestoreReport, Neo4jServer) {
    let site = &round.site;
    let aside: PathBuf = site.path(&format!("{name}-data"));
    let request = RestoreRequest { until, ..restore_request("graph", Destination::Into(aside.clone())) };
    let report = restored(site, request);
    let judged: Vec<_> = report.checks.iter().filter(|check| check.name != "counts").cloned().collect();
    all_passed(&judged, &["connectivity", "schema_consistency", "orphan_detection", "database_check", "recovered_end"]);
    let server = open(site, name, &aside, round.version);
    (report, server)
}

/// What a round has to show at its end.
struct Round {
    /// Before the site: it is dropped first, while its home is still there to tell its process.
    server: Arc<Neo4jServer>,
    site: Site,
    /// Acknowledged before the last increment began.
    archived: Vec<Acknowledged>,
    /// The archive's last transaction.
    end: u64,
    /// The base's last transaction.
    base_end: u64,
    /// A moment between the base and the archive's end.
    moment: Timestamp,
    version: Option<&'static str>,
}

fn play(random: &mut Random, options: &Neo4jOptions) -> Round {
    let site = Site::with("");
    let version = options.version;
    let server = Arc::new(Neo4jServer::start(site.root(), options));
    configure(&site, &server);
    prepare(&server);
    let writers = Writers::start(&server, 4);
    writers.await_more(50 + random.below(300) as usize);
    site.backup("graph");
    for _ in 0..2 {
        writers.await_more(20 + random.below(200) as usize);
        archive(&site);
    }
    // Small ones, so many that they are merged: what is restored from then on comes out of merged batches.
    // What was archived before its writer was told of it leaves nothing for the next increment, so more may be needed.
    for _ in 0..4 * FAN_IN {
        writers.await_more(1 + random.below(10) as usize);
        archive(&site);
        if !merged(&site).is_empty() {
            break;
        }
    }
    assert!(!merged(&site).is_empty(), "{:?}", batches(&site));
    writers.await_more(10 + random.below(100) as usize);
    let moment = SystemClock.now();
    writers.await_more(10 + random.below(100) as usize);
    server.kill();
    // What the dead server's log holds is archived as well: nobody waits for its next start.
    archive(&site);
    server.start_again();
    writers.await_more(50 + random.below(100) as usize);
    let archived = writers.acknowledged();
    let last = archive(&site);
    writers.stop();
    let here = last.repositories.first().expect("a repository");
    assert_eq!((last.gaps.len(), last.bases.len()), (0, 0), "{last:?}");
    let listed = site.ask(&Request::Show { backup: "latest".to_owned() });
    let base_end = match listed {
        Ok(Answer::Show(shown)) => {
            let position = shown.manifest.position.clone().expect("a position");
            position.mark.expect("a mark").transaction
        }
        other => panic!("the base is not shown: {other:?}"),
    };
    Round { end: here.to_transaction, site, server, archived, base_end, moment, version }
}

/// Restores to the end; returns the difference between transaction ids and the sum of the counters.
fn to_the_end(round: &Round) -> u64 {
    let (report, copy) = restore(round, "end", None);
    let reached = report.reached.expect("reached").transaction.expect("transaction");
    assert_eq!(reached, round.end);
    let sum = check_invariants(&copy);
    holds_all(&copy, &round.archived);
    reached - sum
}

fn to_a_transaction(round: &Round, difference: u64, random: &mut Random) {
    let wanted = round.base_end + random.below(round.end - round.base_end + 1);
    let (report, copy) = restore(round, "transaction", Some(RecoveryTarget::Transaction(wanted)));
    assert_eq!(report.reached.expect("reached").transaction, Some(wanted));
    assert_eq!(check_invariants(&copy) + difference, wanted, "not one transaction more or less");
}

fn to_a_time(round: &Round, difference: u64) {
    let (report, copy) = restore(round, "time", Some(RecoveryTarget::Time(round.moment)));
    let reached = report.reached.expect("reached");
    assert!(reached.time.expect("time") <= round.moment, "{reached:?}");
    assert_eq!(check_invariants(&copy) + difference, reached.transaction.expect("transaction"));
    let before: Vec<_> = round.archived.iter().filter(|record| record.done < round.moment).cloned().collect();
    holds_all(&copy, &before);
    let held = super::writers::counters(&copy);
    for later in round.archived.iter().filter(|record| record.sent > round.moment) {
        assert!(held.get(&later.writer).is_none_or(|&there| there < later.sequence), "{later:?} came later");
    }
}

// req: X1 X2 X3 D1
#[test]
fn everything_acknowledged_is_restored_to_the_end_to_a_time_and_to_a_transaction() {
    let mut kinds = vec![(None, "V9"), (Some(NEWEST_VERSION), "V9"), (Some(NEWEST_VERSION), "V10")];
    if let Ok(only) = std::env::var(LOG) {
        kinds.retain(|(_, format)| *format == only);
        assert!(!kinds.is_empty(), "{LOG}={only}: no server writes such a log");
    }
    for number in rounds() {
        for (version, format) in kinds.iter().copied() {
            let mut options = Neo4jOptions { version, ..restless() };
            if format == "V10" {
                options.settings.extend(ENVELOPED.map(str::to_owned));
            }
            let seed = 0x2545_f491_4f6c_dd1d ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            println!("round {number} of {} with log {format}, seed {seed:#x}", version.unwrap_or(VERSION));
            let mut random = Random(seed);
            let round = play(&mut random, &options);
            assert_eq!(log_format(&round.server), format);
            let difference = to_the_end(&round);
            to_a_time(&round, difference);
            to_a_transaction(&round, difference, &mut random);
            round.site.verify().expect("base and batches are sound");
            assert!(round.server.pid().is_some());
            let (version, archived) = (version.unwrap_or(VERSION), round.archived.len());
            let span = round.end - round.base_end;
            println!(
                "figure: neo4j {version} log {format} round {number}: {archived} acknowledged, {span} transactions after the base, all restored"
            );
        }
    }
}
