//! A change is there whole or not at all, whatever is killed when.

use super::*;
use rusqlite::params;
use std::collections::BTreeMap;

/// Runs the test named `name` of this binary in a process of its own that dies after `statements` statements.
fn in_a_dying_process(name: &str, directory: &Path, statements: u64) -> bool {
    std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "--ignored", &format!("ledger::tests::durability::{name}")])
        .env("NBA_TEST_DIRECTORY", directory)
        .env(crash::ABORT_AT, statements.to_string())
        .output()
        .expect("a process")
        .status
        .success()
}

#[test]
#[ignore = "the other half of a_kill_between_any_two_statements_leaves_all_of_a_change_or_nothing"]
fn writer_that_is_killed() {
    // Does nothing unless the other half started it.
    let Some(directory) = std::env::var_os("NBA_TEST_DIRECTORY") else { return };
    let path = Path::new(&directory).join("ledger.db");
    let ledger = Ledger::open(&path, Arc::new(clock())).expect("open");
    ledger.record_backup(&entry(0), "main").expect("record");
    ledger.rescan(&scanned(&[entry(1)], &[])).expect("rescan");
}

#[test]
fn a_kill_between_any_two_statements_leaves_all_of_a_change_or_nothing() {
    let mut endings = BTreeMap::new();
    for statements in 1.. {
        let (directory, ledger) = ledger();
        drop(ledger);
        let survived = in_a_dying_process("writer_that_is_killed", directory.path(), statements);
        let ledger = open(&directory).expect("it opens again");
        ledger.integrity_check().expect("sound");
        let list = ledger.backups(&BackupFilter::default()).expect("list");
        let states: Vec<(BackupId, CopyState)> = list.into_iter().map(|row| (row.id, row.state)).collect();
        let whole = [
            vec![],
            vec![(entry(0).id, CopyState::Complete)],
            vec![(entry(1).id, CopyState::Complete), (entry(0).id, CopyState::Missing)],
        ];
        let ending = whole.iter().position(|expected| *expected == states);
        *endings
            .entry(ending.unwrap_or_else(|| panic!("half a change after {statements}: {states:?}")))
            .or_insert(0) += 1;
        for (id, _) in &states {
            assert_eq!(ledger.objects(id, "main").expect("objects").len(), 2, "after {statements}");
        }
        if survived {
            break;
        }
    }
    assert_eq!(endings.len(), 3, "every ending was seen: {endings:?}");
    assert!(endings[&0] > 5 && endings[&1] > 5, "{endings:?}");
}

#[test]
fn a_failure_in_the_middle_takes_everything_back() {
    let (_directory, ledger) = ledger();
    let failed = ledger.write("test", |steps| {
        backups::enter(steps, &entry(0), "main", clock().now())?;
        steps.execute("INSERT INTO backups (id) VALUES (?1)", params!["x"])
    });
    assert_eq!(failed.map_err(|e| e.code()), Err(Code::LedgerFailed));
    assert!(ledger.backups(&BackupFilter::default()).expect("list").is_empty());
    assert!(ledger.targets().expect("targets").is_empty());
}
