//! What the ledger promises as a whole.

use super::chain::ChainEnd;
use super::rescan::Scanned;
use super::*;
use crate::artifact::object_key::{self, ObjectKey};
use crate::base::Code;
use crate::base::clock::FixedClock;
use crate::base::ids::{BackupId, BackupKind, Stamp, TargetName};
use std::fs;

mod durability;
mod model;

pub(super) fn clock() -> FixedClock {
    FixedClock::new("2026-11-20T03:00:00Z".parse().expect("time"))
}

pub(super) fn ledger() -> (tempfile::TempDir, Ledger) {
    let directory = tempfile::tempdir().expect("tempdir");
    let ledger = open(&directory).expect("open");
    (directory, ledger)
}

fn open(directory: &tempfile::TempDir) -> Result<Ledger> {
    Ledger::open(&directory.path().join("ledger.db"), Arc::new(clock()))
}

pub(super) fn target(name: &str) -> TargetName {
    TargetName::new(name).expect("target")
}

pub(super) fn id(text: &str) -> BackupId {
    text.parse().expect("id")
}

/// A backup of `graph`, `number` minutes after another of number 0.
fn entry(number: u64) -> BackupEntry {
    entry_of("graph", number)
}

fn entry_of(target_name: &str, number: u64) -> BackupEntry {
    let created_at = Timestamp::from_second(1_790_000_000 + number as i64 * 60).expect("time");
    let id = BackupId { target: target(target_name), stamp: Stamp::new(created_at), kind: BackupKind::Dump };
    let object = |extension: &str, name: &str| ObjectEntry {
        key: object_key::backup_object("prod", &id, extension).expect("key"),
        role: "data".to_owned(),
        name: name.to_owned(),
        size: 10,
        sha256: "0".repeat(64),
    };
    BackupEntry {
        environment: "prod".to_owned(),
        engine: "neo4j".to_owned(),
        database: "neo4j".to_owned(),
        data_identity: "store-1".to_owned(),
        created_at,
        finished_at: created_at,
        duration_ms: 1000 + number,
        downtime_ms: 5,
        server_version: "5.26".to_owned(),
        plain_bytes: 100,
        stored_bytes: 20,
        sha256: "0".repeat(64),
        counts: vec![("nodes".to_owned(), 3), ("it's \"odd\"".to_owned(), number)],
        counts_exact: true,
        warnings: vec!["a warning".to_owned()],
        note: Some("a note".to_owned()),
        sequence: number + 1,
        manifest_key: object_key::backup_manifest("prod", &id).expect("key"),
        manifest_sha256: format!("{number:064x}"),
        signed_by: "0123456789abcdef".to_owned(),
        objects: vec![object("dump.enc", "neo4j"), object("system.dump.enc", "system")],
        id,
    }
}

fn scanned<'a>(found: &'a [BackupEntry], unusable: &'a [ObjectKey]) -> Scanned<'a> {
    Scanned { repository: "main", environment: Some("prod"), found, unusable }
}

#[test]
fn the_file_is_private_and_reopens() {
    let (directory, ledger) = ledger();
    ledger.record_backup(&entry(0), "main").expect("record");
    drop(ledger);
    let path = directory.path().join("ledger.db");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
    let ledger = open(&directory).expect("reopen");
    ledger.record_backup(&entry(1), "main").expect("record");
    for file in fs::read_dir(directory.path()).expect("list") {
        let file = file.expect("entry");
        assert_eq!(file.metadata().expect("metadata").permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    assert_eq!(ledger.backups(&BackupFilter::default()).expect("list").len(), 2);
    ledger.integrity_check().expect("sound");
    let settings: (String, i64, i64) = ledger
        .read("test", |connection| {
            Ok((
                connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?,
                connection.pragma_query_value(None, "synchronous", |row| row.get(0))?,
                connection.pragma_query_value(None, "foreign_keys", |row| row.get(0))?,
            ))
        })
        .expect("settings");
    assert_eq!(settings, ("wal".to_owned(), 2, 1));
}

#[test]
fn what_is_no_ledger_or_a_newer_one_is_left_alone() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("ledger.db");
    fs::write(&path, "this is no database at all, but it is long enough to be read as one".repeat(100)).expect("write");
    let error = open(&directory).expect_err("garbage");
    assert_eq!(error.code(), Code::LedgerFailed);
    assert!(error.hint().contains("rescan"), "{error:?}");
    fs::remove_file(&path).expect("remove");
    let ledger = open(&directory).expect("open");
    ledger.write("test", |steps| steps.0.pragma_update(None, "user_version", schema::VERSION + 1)).expect("newer");
    drop(ledger);
    let before = fs::read(&path).expect("read");
    assert_eq!(open(&directory).map(|_| ()).map_err(|e| e.code()), Err(Code::LedgerNewer));
    assert_eq!(fs::read(&path).expect("read"), before, "it was not touched");
    fs::remove_file(&path).expect("remove");
    std::os::unix::fs::symlink("/etc/passwd", &path).expect("link");
    assert!(open(&directory).is_err());
}

#[test]
fn damage_inside_the_file_is_found() {
    let (directory, ledger) = ledger();
    let entries: Vec<BackupEntry> = (0..500).map(entry).collect();
    ledger.rescan(&scanned(&entries, &[])).expect("rescan");
    drop(ledger);
    let path = directory.path().join("ledger.db");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&path, bytes).expect("write");
    let checked = open(&directory).and_then(|ledger| ledger.integrity_check());
    assert_eq!(checked.map_err(|e| e.code()), Err(Code::LedgerFailed));
}

// req: B3
#[test]
fn a_backup_reads_back_with_all_its_copies() {
    let (_directory, ledger) = ledger();
    let one = entry(1);
    ledger.record_backup(&one, "main").expect("record");
    ledger.record_backup(&BackupEntry { sequence: 9, ..one.clone() }, "offsite").expect("record");
    let row = ledger.backup(&one.id).expect("look up").expect("there");
    assert_eq!((&row.id, &row.counts, &row.note, row.state), (&one.id, &one.counts, &one.note, CopyState::Complete));
    assert_eq!((row.created_at, row.duration_ms, row.plain_bytes), (one.created_at, 1001, 100));
    let copies: Vec<_> = row.copies.iter().map(|copy| (copy.repository.as_str(), copy.sequence)).collect();
    assert_eq!(copies, [("main", 2), ("offsite", 9)]);
    assert_eq!(row.copies[0].recorded_at, clock().now());
    assert_eq!(ledger.objects(&one.id, "main").expect("objects"), one.objects);
    assert!(ledger.objects(&one.id, "nowhere").expect("objects").is_empty());
    assert_eq!(ledger.backup(&entry(2).id).expect("look up"), None);
    ledger.record_backup(&one, "main").expect("recording again changes nothing");
    assert_eq!(ledger.backup(&one.id).expect("look up"), Some(row));
    assert_eq!(ledger.targets().expect("targets").len(), 1);
}

#[test]
fn lists_are_newest_first_and_prefixes_find_all_their_matches() {
    let (_directory, ledger) = ledger();
    for number in [2, 0, 1] {
        ledger.record_backup(&entry(number), "main").expect("record");
    }
    ledger.record_backup(&entry_of("metrics", 5), "main").expect("record");
    let list = |filter: BackupFilter| -> Vec<BackupId> {
        ledger.backups(&filter).expect("list").into_iter().map(|row| row.id).collect()
    };
    let all = [entry_of("metrics", 5).id, entry(2).id, entry(1).id, entry(0).id];
    assert_eq!(list(BackupFilter::default()), all);
    let graph = BackupFilter { target: Some(target("graph")), ..BackupFilter::default() };
    assert_eq!(list(graph.clone()), all[1..]);
    assert_eq!(list(BackupFilter { skip: 1, limit: Some(1), ..graph.clone() }), all[2..3]);
    ledger.observe(&entry(2).id, "main", Observation::Damaged, Some("a flipped bit")).expect("observe");
    assert_eq!(list(BackupFilter { usable_only: true, ..graph }), all[2..]);
    let matches = |prefix: &str| ledger.backups_beginning_with(prefix).expect("matches").len();
    assert_eq!((matches("graph-"), matches("m"), matches(""), matches("x"), matches("%")), (3, 1, 4, 0, 0));
    assert_eq!(matches(&entry(0).id.to_string()), 1);
}

#[test]
fn a_copys_state_follows_what_was_seen_and_the_backups_state_follows_its_copies() {
    let (_directory, ledger) = ledger();
    let one = entry(1);
    for repository in ["main", "offsite"] {
        ledger.record_backup(&one, repository).expect("record");
    }
    let see = |repository: &str, observation, problem| {
        let state = ledger.observe(&one.id, repository, observation, problem).expect("observe");
        (state, ledger.backup(&one.id).expect("look up").expect("there").state)
    };
    assert_eq!(see("main", Observation::Sound, None), (CopyState::Validated, CopyState::Validated));
    assert_eq!(see("offsite", Observation::Damaged, Some("bit")), (CopyState::Corrupted, CopyState::Corrupted));
    let row = ledger.backup(&one.id).expect("look up").expect("there");
    assert_eq!(row.copies[1].problem.as_deref(), Some("bit"));
    assert_eq!((row.verified_at(), row.usable_copies().count()), (Some(clock().now()), 1));
    ledger.record_backup(&one, "offsite").expect("a rescan finds the manifest");
    let row = ledger.backup(&one.id).expect("look up").expect("there");
    assert_eq!((row.copies[1].state, row.copies[1].problem.as_deref()), (CopyState::Corrupted, Some("bit")));
    assert_eq!(see("offsite", Observation::Gone, None), (CopyState::Missing, CopyState::Validated));
    assert_eq!(see("main", Observation::Gone, None), (CopyState::Missing, CopyState::Missing));
    let unknown = ledger.observe(&entry(7).id, "main", Observation::Sound, None).map_err(|e| e.code());
    assert_eq!(unknown, Err(Code::BackupNotFound));
    let elsewhere = ledger.observe(&one.id, "nowhere", Observation::Sound, None).map_err(|e| e.code());
    assert_eq!(elsewhere, Err(Code::BackupNotFound));
}

#[test]
fn a_chain_remembers_its_end_even_when_the_backup_is_deleted() {
    let (_directory, ledger) = ledger();
    let graph = target("graph");
    assert_eq!(ledger.next_sequence("prod", &graph, "main").expect("sequence"), 1);
    for number in [0, 2, 1] {
        ledger.record_backup(&entry(number), "main").expect("record");
    }
    let last = entry(2);
    let end = ChainEnd { id: last.id.clone(), sequence: 3, manifest_sha256: last.manifest_sha256.clone() };
    assert!(ledger.forget_backup(&last.id, "main").expect("forget"));
    assert!(!ledger.forget_backup(&last.id, "main").expect("forget again"));
    assert_eq!(ledger.chain_end("prod", &graph, "main").expect("end"), Some(end));
    assert_eq!(ledger.next_sequence("prod", &graph, "main").expect("sequence"), 4);
    for (environment, repository) in [("prod", "offsite"), ("dev", "main")] {
        assert_eq!(ledger.next_sequence(environment, &graph, repository).expect("sequence"), 1);
    }
    assert_eq!(ledger.backup(&last.id).expect("look up"), None);
    assert!(ledger.objects(&last.id, "main").expect("objects").is_empty());
    ledger.integrity_check().expect("nothing dangles");
}

#[test]
fn a_repository_is_recognised_and_another_in_its_place_refused() {
    let (_directory, ledger) = ledger();
    assert_eq!(ledger.repository_id("main").expect("id"), None);
    ledger.remember_repository("main", "one", "/backup").expect("first use");
    ledger.remember_repository("main", "one", "/moved").expect("again");
    let foreign = ledger.remember_repository("main", "two", "/backup").expect_err("another");
    assert_eq!(foreign.code(), Code::RepositoryForeign);
    assert_eq!(ledger.repository_id("main").expect("id").as_deref(), Some("one"));
    assert!(ledger.forget_repository("main").expect("forget"));
    ledger.remember_repository("main", "two", "/backup").expect("now it may");
}

#[test]
fn a_rescan_rebuilds_a_lost_ledger() {
    let (_directory, before) = ledger();
    let entries: Vec<BackupEntry> = (0..5).map(entry).collect();
    for entry in &entries {
        before.record_backup(entry, "main").expect("record");
    }
    let (_directory, after) = ledger();
    let changed = after.rescan(&scanned(&entries, &[])).expect("rescan");
    assert_eq!((changed.found, changed.added, changed.missing.len()), (5, 5, 0));
    let list = |ledger: &Ledger| ledger.backups(&BackupFilter::default()).expect("list");
    assert_eq!(list(&after), list(&before));
    let graph = target("graph");
    assert_eq!(
        after.chain_end("prod", &graph, "main").expect("end"),
        before.chain_end("prod", &graph, "main").expect("end")
    );
    assert_eq!(after.rescan(&scanned(&entries, &[])).expect("again").added, 0);
    assert_eq!(list(&after), list(&before));
}

#[test]
fn a_rescan_tells_missing_from_damaged_and_leaves_others_alone() {
    let (_directory, ledger) = ledger();
    let entries: Vec<BackupEntry> = (0..4).map(entry).collect();
    for entry in &entries {
        ledger.record_backup(entry, "main").expect("record");
    }
    ledger.record_backup(&entries[3], "offsite").expect("record");
    let mut foreign = entry(9);
    foreign.environment = "dev".to_owned();
    ledger.record_backup(&foreign, "main").expect("record");
    let unusable = [entries[1].manifest_key.clone()];
    let changed = ledger.rescan(&scanned(&entries[..1], &unusable)).expect("rescan");
    assert_eq!(changed.missing, [entries[2].id.clone(), entries[3].id.clone()]);
    assert_eq!(changed.damaged, [entries[1].id.clone()]);
    let state = |entry: &BackupEntry| ledger.backup(&entry.id).expect("look up").expect("there").state;
    let states: Vec<CopyState> = entries.iter().map(state).collect();
    use CopyState::{Complete, Corrupted, Missing};
    assert_eq!(states, [Complete, Corrupted, Missing, Complete]);
    assert_eq!(state(&foreign), Complete);
    ledger.rescan(&scanned(&entries, &[])).expect("rescan");
    assert_eq!(state(&entries[2]), Complete, "it is back");
}

#[test]
fn totals_count_what_can_be_restored_once() {
    let (_directory, ledger) = ledger();
    let graph = target("graph");
    assert_eq!(ledger.summary(&graph).expect("summary"), summary::TargetSummary::default());
    for number in 0..4 {
        ledger.record_backup(&entry(number), "main").expect("record");
        ledger.record_backup(&entry(number), "offsite").expect("record");
    }
    ledger.observe(&entry(3).id, "main", Observation::Damaged, None).expect("observe");
    ledger.observe(&entry(0).id, "main", Observation::Sound, None).expect("observe");
    let summary = ledger.summary(&graph).expect("summary");
    assert_eq!((summary.backups, summary.plain_bytes, summary.stored_bytes), (3, 300, 60));
    assert_eq!((summary.corrupted, summary.missing), (1, 0));
    assert_eq!(summary.newest, Some((entry(2).id, entry(2).created_at)));
    assert_eq!(summary.last_proven, Some(clock().now()));
    assert_eq!(ledger.copies_by_key().expect("keys"), [("0123456789abcdef".to_owned(), 8)]);
    let durations = ledger.backup_durations(&graph, 2).expect("durations");
    assert_eq!(durations.iter().map(|one| one.duration_ms).collect::<Vec<_>>(), [1003, 1002]);
}

/// How SQLite would answer, line by line.
fn plan(ledger: &Ledger, sql: &str) -> Vec<String> {
    ledger
        .read("test", |connection| {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let places = statement.parameter_count();
            statement.query_map(rusqlite::params_from_iter(vec!["1"; places]), |row| row.get(3))?.collect()
        })
        .expect("plan")
}

#[test]
fn nothing_that_is_asked_all_the_time_reads_a_whole_table() {
    let (_directory, ledger) = ledger();
    let entries: Vec<BackupEntry> =
        (0..20_000).map(|number| entry_of(if number % 2 == 0 { "graph" } else { "metrics" }, number)).collect();
    ledger.rescan(&scanned(&entries, &[])).expect("rescan");
    let mut queries = vec![
        backups::prefix_query(),
        summary::TOTALS.to_owned(),
        summary::NEWEST.to_owned(),
        summary::PROVEN.to_owned(),
        summary::BY_KEY.to_owned(),
        jobs::query(jobs::RUNNING),
        jobs::query(jobs::LAST_FAILURE),
        format!("SELECT name FROM restores {}", restores::NEWEST),
    ];
    for (by_target, usable_only) in [(false, false), (false, true), (true, false), (true, true)] {
        queries.push(backups::list_query(by_target, usable_only));
    }
    // With and without the statistics that `ANALYZE` gathers.
    for analyzed in [false, true] {
        for query in &queries {
            let plan = plan(&ledger, query);
            let reads_all = |line: &String| line.starts_with("SCAN") && !line.contains("USING");
            assert!(!plan.iter().any(reads_all), "{query}: {plan:?}");
            let sorts = |line: &String| line.contains("TEMP B-TREE FOR ORDER BY");
            assert!(!plan.iter().any(sorts), "{query}: {plan:?}");
        }
        let totals = plan(&ledger, summary::TOTALS);
        assert!(totals.iter().all(|line| line.contains("COVERING INDEX")), "{totals:?}");
        if !analyzed {
            ledger.write("test", |steps| steps.0.execute_batch("ANALYZE")).expect("analyze");
        }
    }
    let filter = BackupFilter { target: Some(target("graph")), limit: Some(3), ..BackupFilter::default() };
    assert_eq!(ledger.backups(&filter).expect("list").len(), 3);
}

#[test]
fn two_processes_and_many_threads_share_one_file() {
    let (directory, one) = ledger();
    let two = open(&directory).expect("a second connection");
    std::thread::scope(|scope| {
        for ledger in [&one, &two] {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        ledger.job_begin("backup", None, "root").expect("begin");
                    }
                });
            }
        }
    });
    let mut ids: Vec<_> = one.running_jobs().expect("running").into_iter().map(|job| job.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}
