//! The fake database's log: what is archived and laid over a base gives every state back, exactly.

use super::*;
use crate::artifact::log_batch::LogMark;
use crate::base::task::Task;
use crate::driver::log::{LogSource, RecoveryTarget, Resumption};
use crate::driver::sim::{SimDriver, populate};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::Read;

fn fake() -> (tempfile::TempDir, SimDriver) {
    let place = tempfile::tempdir().expect("tempdir");
    populate(place.path(), 2, 100).expect("populate");
    begin(place.path()).expect("begin");
    let driver = SimDriver::new(place.path().to_owned());
    (place, driver)
}

fn at(number: u64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + number as i64 * 1000).expect("time")
}

fn write(place: &Path, count: u64) {
    for _ in 0..count {
        let next = last_transaction(place).expect("last") + 1;
        commit(place, (next % 5) as u8, &format!("value {next}"), at(next)).expect("commit");
    }
}

fn chunks(driver: &SimDriver, after: &LogMark, limit: u64) -> Vec<(LogMark, LogMark, u64)> {
    let task = Task::unobserved();
    let Resumption::Continues(mut reader) = driver.resume(after, &task).expect("resume") else { panic!("it forked") };
    let mut found = Vec::new();
    while let Some(mut chunk) = reader.next(limit, &task).expect("next") {
        let mut bytes = Vec::new();
        chunk.reader.read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes.len() as u64, chunk.segments.iter().map(|segment| segment.length).sum::<u64>());
        found.push((chunk.start, chunk.end, chunk.segments.iter().map(|segment| segment.transactions).sum()));
    }
    found
}

#[test]
fn chunks_follow_each_other_without_a_gap_and_hold_everything() {
    let (place, driver) = fake();
    let start = end(&driver.data()).expect("end");
    write(place.path(), 30);
    for limit in [1, 64, 200, 1000, 1 << 20] {
        let found = chunks(&driver, &start, limit);
        assert_eq!(found[0].0, start);
        assert!(found.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!(found.iter().map(|chunk| chunk.2).sum::<u64>(), 30, "with {limit} bytes at once");
        assert_eq!(found.last().expect("chunk").1, end(&driver.data()).expect("end"));
        // Every end is a point to go on from.
        assert_eq!(chunks(&driver, &found[found.len() / 2].1, 1 << 20).iter().map(|c| c.2).sum::<u64>(), {
            30 - found[found.len() / 2].1.transaction
        });
    }
}

#[test]
fn a_pruned_log_is_a_gap_and_another_history_a_fork() {
    let (place, driver) = fake();
    write(place.path(), 10);
    let archived = end(&driver.data()).expect("end");
    let aside: BTreeMap<_, _> = std::fs::read_dir(driver.data())
        .expect("list")
        .flatten()
        .map(|entry| (entry.path(), std::fs::read(entry.path()).expect("read")))
        .collect();
    write(place.path(), 20);
    let later = end(&driver.data()).expect("end");
    let what = |mark: &LogMark| match driver.resume(mark, &Task::unobserved()).expect("resume") {
        Resumption::Continues(_) => "continues",
        Resumption::Forked(_) => "forked",
        Resumption::Gap(_) => "gap",
    };
    assert_eq!((what(&archived), what(&later)), ("continues", "continues"));
    prune(place.path(), 1).expect("prune");
    assert_eq!((what(&archived), what(&later)), ("gap", "continues"));
    for (path, bytes) in &aside {
        std::fs::write(path, bytes).expect("write");
    }
    for number in 2..9 {
        let _ = std::fs::remove_file(driver.data().join(format::name(number)));
    }
    assert_eq!((what(&archived), what(&later)), ("continues", "forked"), "the log is shorter");
    for number in 11..31 {
        commit(place.path(), 0, "otherwise", at(number)).expect("commit");
    }
    assert_eq!((what(&archived), what(&later)), ("continues", "forked"), "the same id, another transaction");
}

#[test]
fn every_state_comes_back_from_slots_of_any_age() {
    let (place, driver) = fake();
    let data = driver.data();
    let old = std::fs::read(data.join("kv")).expect("read");
    let mut states = vec![state(&data).expect("state")];
    for _ in 0..20 {
        write(place.path(), 1);
        states.push(state(&data).expect("state"));
    }
    let whole: Vec<_> =
        DataTree::scan(&data, &Task::unobserved()).expect("scan").files().map(|f| f.0.to_owned()).collect();
    for (number, expected) in states.iter().enumerate() {
        for until in [
            RecoveryTarget::Transaction(number as u64),
            RecoveryTarget::BeforeTransaction(number as u64 + 1),
            RecoveryTarget::Time(at(number as u64)),
        ] {
            let copy = tempfile::tempdir().expect("tempdir");
            for path in &whole {
                std::fs::copy(data.join(path), copy.path().join(path)).expect("copy");
            }
            std::fs::write(copy.path().join("kv"), &old).expect("write");
            let mark = replay::cut(copy.path(), until, 0).expect("cut");
            assert_eq!(mark.transaction, number as u64, "{until:?}");
            assert_eq!(replay::recover(copy.path()).expect("recover"), number as u64);
            assert_eq!(&state(copy.path()).expect("state"), expected, "{until:?}");
        }
    }
    let beyond = replay::cut(&data, RecoveryTarget::Transaction(21), 0);
    assert_eq!(beyond.map_err(|error| error.code()), Err(Code::RestoreTargetUnreachable));
    assert_eq!(
        replay::cut(&data, RecoveryTarget::Transaction(4), 5).map_err(|e| e.code()),
        Err(Code::RestoreTargetUnreachable)
    );
}

#[test]
fn a_torn_tail_is_being_written_and_damage_before_it_is_damage() {
    let (place, driver) = fake();
    write(place.path(), 3);
    let path = driver.data().join(format::name(0));
    let whole = std::fs::read(&path).expect("read");
    for cut in 1..=format::RECORD_BYTES {
        std::fs::write(&path, &whole[..whole.len() - cut]).expect("write");
        assert_eq!(last_transaction(place.path()).expect("last"), 2);
    }
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    std::fs::write(&path, &damaged).expect("write");
    assert_eq!(last_transaction(place.path()).map_err(|error| error.code()), Err(Code::LogCorrupted));
}
