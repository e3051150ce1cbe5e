//! Commits and restore points are found in whatever batch they lie, and across two.

use super::*;
use crate::artifact::log_batch::{LogMark, LogSegment, sample};
use crate::driver::postgres::wal::scan::tests::{CLUSTER_TIMELINE, FIRST, Log, SIZE, Written};
use crate::driver::postgres::wal::source::mark;
use proptest::prelude::*;

fn end_of(number: u64) -> LogMark {
    mark(CLUSTER_TIMELINE, (number + 1) * SIZE, SIZE, None)
}

/// A batch of segments `numbers` of the log.
fn batch(numbers: std::ops::Range<u64>) -> LogBatch {
    let mut batch = sample::batch(1, 1, 1, 2);
    batch.end = end_of(numbers.end - 1);
    let template = batch.segments[0].clone();
    let segment = |file| LogSegment { file, offset: 0, length: SIZE, ..template.clone() };
    batch.segments = numbers.map(segment).collect();
    batch
}

/// Searches the log, cut into batches of `length` segments, from its end backwards.
fn look(log: &Log, length: u64, until: RecoveryTarget) -> Option<RecoveryTarget> {
    let mut search = search(until).expect("a target").expect("that is looked for");
    let count = log.bytes.len() as u64 / SIZE;
    let mut starts: Vec<u64> = (0..count).step_by(length as usize).collect();
    while let Some(start) = starts.pop() {
        let end = count.min(start + length);
        search.begin(&batch(FIRST + start..FIRST + end)).expect("begin");
        search.write_all(&log.bytes[(start * SIZE) as usize..(end * SIZE) as usize]).expect("sound");
        if let Some(found) = search.end().expect("sound") {
            return Some(found.until);
        }
    }
    None
}

fn written() -> impl Strategy<Value = Vec<Written>> {
    let one = prop_oneof![
        4 => (0usize..40_000).prop_map(Written::Data),
        1 => (900_000usize..1_100_000).prop_map(Written::Data),
        4 => (0i64..2_000_000_000).prop_map(Written::Commit),
        2 => "[a-z]{1,63}".prop_map(Written::Point),
        1 => Just(Written::Switch),
    ];
    proptest::collection::vec(one, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_restore_point_and_commit_is_found_however_the_log_is_cut(written in written(), length in 1u64..4) {
        let log = Log::finished(written);
        for record in &log.records {
            if let Some(point) = record.point {
                let newest = log.records.iter().rev().find(|other| other.point == Some(point)).expect("itself");
                let found = look(&log, length, RecoveryTarget::Point(point));
                prop_assert_eq!(found, Some(RecoveryTarget::Lsn(newest.end)));
            }
        }
        let last = log.records.iter().rev().find(|record| record.commit.is_some());
        let found = |until| look(&log, length, until);
        prop_assert_eq!(found(RecoveryTarget::Transaction(77)), last.map(|last| RecoveryTarget::Lsn(last.end)));
        prop_assert_eq!(found(RecoveryTarget::BeforeTransaction(77)), last.map(|last| RecoveryTarget::Lsn(last.start)));
        prop_assert_eq!(found(RecoveryTarget::Transaction(78)), None);
    }
}

#[test]
fn targets_that_say_where_recovery_ends_need_no_search() {
    for until in [RecoveryTarget::End, RecoveryTarget::Lsn(7)] {
        assert!(search(until).expect("a target").is_none());
    }
    let error = search(RecoveryTarget::Transaction(1 << 32)).err().map(|error| error.code());
    assert_eq!(error, Some(Code::Usage));
}
