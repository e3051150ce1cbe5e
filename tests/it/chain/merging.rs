//! Small batches become larger ones, and nothing that could be restored before cannot be restored afterwards.

use super::{State, archive, at, batches, commit, lose_the_ledger, restored, status};
use crate::site::Site;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use std::fs;
use std::path::PathBuf;

/// Batches that become one.
pub(crate) const FAN_IN: usize = 16;

/// Objects and manifests of merged batches; their keys name a fourth number.
pub(crate) fn merged(site: &Site) -> Vec<PathBuf> {
    let is_merged = |path: &PathBuf| {
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
        stem.is_some_and(|stem| stem.split('-').count() == 4)
    };
    batches(site).into_iter().filter(is_merged).collect()
}

/// As if an hour had passed since batches were merged.
fn an_hour_later(site: &Site) {
    let ledger = rusqlite::Connection::open(site.path("state/ledger.db")).expect("open");
    ledger.execute("UPDATE log_parts SET since = 0", []).expect("update");
}

fn waiting(site: &Site) -> i64 {
    let ledger = rusqlite::Connection::open(site.path("state/ledger.db")).expect("open");
    ledger.query_row("SELECT count(*) FROM log_parts", [], |row| row.get(0)).expect("count")
}

/// A site with `count` archived batches after its base.
fn shipped(count: usize) -> (Site, Vec<State>) {
    let (site, mut states) = super::archived(3, &[]);
    ship(&site, &mut states, count);
    (site, states)
}

fn ship(site: &Site, states: &mut Vec<State>, count: usize) {
    for number in 0..count as u64 {
        commit(site, 1 + number % 3, states);
        archive(site);
    }
}

/// Every `step`th transaction and time comes back exactly, and the end.
fn all_come_back(site: &Site, states: &[State], step: usize) {
    let last = states.len() - 1;
    for number in (3..=last).step_by(step).chain([last]) {
        for until in [RecoveryTarget::Transaction(number as u64), RecoveryTarget::Time(at(number as u64))] {
            let (state, _) = restored(site, Some(until));
            assert_eq!(state, states[number], "{until:?}");
        }
    }
    let (state, _) = restored(site, None);
    assert_eq!(&state, states.last().expect("states"));
}

// req: X2
#[test]
fn merged_batches_restore_what_their_parts_did_and_the_parts_go_an_hour_later() {
    let (site, mut states) = shipped(FAN_IN + 2);
    assert_eq!(merged(&site).len(), 2, "an object and its manifest: {:?}", batches(&site));
    assert_eq!(waiting(&site), FAN_IN as i64);
    assert_eq!(status(&site).log.expect("log").batches, 3, "what was merged counts once");
    all_come_back(&site, &states, 5);
    site.verify().expect("sound");
    let before = batches(&site).len();
    an_hour_later(&site);
    commit(&site, 1, &mut states);
    archive(&site);
    assert_eq!(waiting(&site), 0);
    assert_eq!(batches(&site).len(), before - 2 * FAN_IN + 2, "parts went, and one batch came");
    all_come_back(&site, &states, 3);
    let report = restored(&site, None).1;
    assert_eq!(report.batches, 4);
    site.verify().expect("sound");
}

// req: B14
#[test]
fn a_ledger_that_was_lost_learns_of_merged_batches() {
    let (site, mut states) = shipped(FAN_IN + 3);
    let known = status(&site).log.expect("log");
    lose_the_ledger(&site);
    let found = status(&site).log.expect("log");
    assert_eq!((found.batches, found.transactions), (known.batches, known.transactions));
    assert_eq!((found.from_transaction, found.to_transaction), (known.from_transaction, known.to_transaction));
    assert_eq!(waiting(&site), FAN_IN as i64);
    an_hour_later(&site);
    ship(&site, &mut states, 2);
    assert_eq!(waiting(&site), 0);
    lose_the_ledger(&site);
    let found = status(&site).log.expect("log");
    assert_eq!((found.gaps.len(), found.unsound, found.batches), (0, 0, known.batches + 2), "{found:?}");
    all_come_back(&site, &states, 7);
    site.verify().expect("sound");
}

// req: X3
#[test]
fn parts_stay_while_what_they_were_merged_into_is_damaged() {
    let (site, mut states) = shipped(FAN_IN + 1);
    let is_object = |path: &PathBuf| path.to_string_lossy().ends_with(".enc");
    let object = merged(&site).into_iter().find(is_object).expect("an object");
    let bytes = fs::read(&object).expect("read");
    fs::write(&object, &bytes[..bytes.len() - 1]).expect("cut");
    let found = site.verify().expect_err("damaged");
    assert!(found.message().contains(&*object.file_name().expect("name").to_string_lossy()), "{found}");
    an_hour_later(&site);
    commit(&site, 1, &mut states);
    archive(&site);
    assert_eq!(waiting(&site), FAN_IN as i64, "they are all that is left of that piece");
}

// req: X3
#[test]
fn a_damaged_batch_is_found_when_it_is_to_be_merged_and_never_merged() {
    let (site, mut states) = shipped(FAN_IN - 1);
    let object = batches(&site).into_iter().find(|path| path.to_string_lossy().ends_with(".enc")).expect("an object");
    let mut bytes = fs::read(&object).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).expect("flip");
    ship(&site, &mut states, 2);
    assert!(merged(&site).is_empty(), "{:?}", merged(&site));
    assert_eq!(status(&site).log.expect("log").unsound, 1, "it is on record");
    // The others are merged without it.
    ship(&site, &mut states, 1);
    assert_eq!(merged(&site).len(), 2, "{:?}", merged(&site));
}
