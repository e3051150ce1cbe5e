//! Batches on record: entered once, found in order, summed up, replaced by what a repository holds.

use super::*;
use crate::artifact::log_batch::LogBatchLink;
use crate::artifact::log_batch::sample::{self, mark, target};
use crate::artifact::manifest::LogPosition;
use crate::ledger::backups::tests::{ledger, signed};

fn batch(lineage: u32, sequence: u64, from: u64, to: u64) -> SignedLogBatch {
    let signed_by = signed("graph-20261119T020000Z-base", 1).signed_by;
    let batch = sample::batch(lineage, sequence, from, to);
    SignedLogBatch { bytes_sha256: format!("sha of {from} to {to}"), batch, signed_by }
}

fn chain(lineage: u32) -> ChainName {
    ChainName { repository: "main".to_owned(), stream: "0a".to_owned(), lineage }
}

#[test]
fn what_is_recorded_twice_counts_once() {
    let (_keep, ledger) = ledger();
    for _ in 0..2 {
        for (sequence, from, to) in [(1, 0, 9), (2, 9, 120)] {
            ledger.record_batch(&batch(1, sequence, from, to), "main").expect("record");
        }
    }
    ledger.record_batch(&batch(2, 1, 50, 60), "offsite").expect("record");
    let sums = ledger.log_sums(&target()).expect("sums");
    assert_eq!(sums[&chain(1)], ChainSums { batches: 2, transactions: 120, plain_bytes: 1200, stored_bytes: 12 });
    let last = ledger.last_batch(&target(), "main", "0a").expect("last").expect("some");
    assert_eq!((last.last_transaction, last.sequence, last.end), (120, 2, mark(120)));
    assert_eq!(ledger.batches(&target(), "main").expect("batches").len(), 2);
    assert!(ledger.last_batch(&target(), "main", "0b").expect("last").is_none());
    // Archived again under the same key, because its manifest was lost.
    ledger.record_batch(&batch(1, 2, 9, 130), "main").expect("record");
    let sums = ledger.log_sums(&target()).expect("sums");
    assert_eq!((sums[&chain(1)].batches, sums[&chain(1)].transactions), (2, 130));
    let key = ledger.last_batch(&target(), "main", "0a").expect("last").expect("some").key;
    ledger.forget_batch("main", &key).expect("forget");
    assert_eq!(ledger.log_sums(&target()).expect("sums")[&chain(1)].batches, 1);
}

#[test]
fn a_rescan_adds_marks_missing_and_keeps_what_was_verified() {
    let (_keep, ledger) = ledger();
    let (one, two, three) = (batch(1, 1, 0, 9), batch(1, 2, 9, 20), batch(1, 3, 20, 30));
    ledger.record_batch(&one, "main").expect("record");
    ledger.record_batch(&two, "main").expect("record");
    let key = one.batch.key().expect("key").to_string();
    ledger.mark_batch("main", &key, CopyState::Validated).expect("mark");
    let found = [one.clone(), three.clone()];
    assert_eq!(ledger.replace_batches("main", &target(), &found).expect("replace"), (1, 1));
    let states: Vec<_> = ledger.batches(&target(), "main").expect("batches").iter().map(|b| b.state).collect();
    assert_eq!(states, [CopyState::Validated, CopyState::Missing, CopyState::Complete]);
    assert_eq!(ledger.unsound_batches(&target(), "main").expect("count"), 1);
    assert_eq!(ledger.replace_batches("main", &target(), &[one, two, three]).expect("replace"), (0, 0));
    assert_eq!(ledger.unsound_batches(&target(), "main").expect("count"), 0);
}

#[test]
fn bases_go_with_their_copies() {
    let (_keep, ledger) = ledger();
    let mut base = signed("graph-20261120T020000Z-base", 1);
    base.manifest.owner.data_identity = "0a".to_owned();
    base.manifest.position = Some(LogPosition { lineage: "1".to_owned(), ..LogPosition::ending_at(5, mark(7)) });
    ledger.record_backup(&base, "main").expect("record");
    ledger.record_backup(&base, "main").expect("again");
    let found = ledger.log_bases(&target()).expect("bases");
    assert_eq!(found.iter().map(|base| (&base.chain, base.mark.clone())).collect::<Vec<_>>(), [(&chain(1), mark(7))]);
    ledger.mark_copy(&base.manifest.id, "main", CopyState::Missing).expect("mark");
    assert!(!ledger.log_bases(&target()).expect("bases")[0].is_usable(), "what was lost stays known");
    ledger.mark_copy(&base.manifest.id, "main", CopyState::Complete).expect("mark");
    let newest = ledger.newest_log_base(&target(), "main", "0a").expect("newest").expect("some");
    assert_eq!(newest, (base.manifest.id.clone(), base.bytes_sha256.clone()));
    ledger.forget_copy(&base.manifest.id, "main").expect("forget");
    assert!(ledger.log_bases(&target()).expect("bases").is_empty());
}

#[test]
fn what_is_done_is_numbered_and_what_is_found_is_not() {
    let (_keep, ledger) = ledger();
    let end =
        |transaction| ends::LogEnd { chain: chain(1), transaction, covered_until: Timestamp::UNIX_EPOCH, number: 99 };
    let mut base = signed("graph-20261119T020000Z-base", 1);
    base.manifest.position = Some(LogPosition { lineage: "1".to_owned(), ..LogPosition::ending_at(5, mark(7)) });
    let numbers = || {
        let bases = ledger.log_bases(&target()).expect("bases").into_iter().map(|base| base.number);
        let ends = ledger.log_ends(&target()).expect("ends").into_iter().map(|end| end.number);
        (bases.collect::<Vec<_>>(), ends.collect::<Vec<_>>())
    };
    ledger.record_backup(&base, "main").expect("record");
    assert_eq!(numbers(), (vec![0], vec![]));
    ledger.number_base(&target(), &base.manifest.id, "main").expect("number");
    ledger.record_log_end(&target(), &end(8)).expect("record");
    assert_eq!(numbers(), (vec![1], vec![2]));
    // A rescan finds what is known, and a run that is known to have been keeps its number only if it is not replaced.
    ledger.record_backup(&base, "main").expect("record again");
    ledger.replace_copies("main", &[base.clone()]).expect("rescan");
    assert_eq!(numbers(), (vec![1], vec![2]));
    ledger.record_found_log_end(&target(), &end(9)).expect("found");
    assert_eq!(numbers(), (vec![1], vec![0]));
    ledger.record_log_end(&target(), &end(9)).expect("record");
    assert_eq!(numbers(), (vec![1], vec![2]), "the next one that is free");
}

#[test]
fn the_end_of_a_chain_is_found_by_its_index() {
    let (_keep, ledger) = ledger();
    let plan: Vec<String> = ledger
        .with(|connection| {
            let mut statement = connection.prepare(concat!(
                "EXPLAIN QUERY PLAN SELECT key FROM log_batches WHERE target = 'x' AND repository = 'main' ",
                "AND stream = 's' AND state <> 'MISSING' ORDER BY lineage DESC, last_transaction DESC LIMIT 1"
            ))?;
            let rows = statement.query_map([], |row| row.get(3))?;
            rows.collect()
        })
        .expect("plan");
    assert!(plan.iter().any(|line| line.contains("log_batches_by_chain")), "{plan:?}");
    assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{plan:?}");
}

#[test]
fn a_hole_between_batches_is_entered_by_a_rescan_that_knows_nothing_else() {
    let (_keep, ledger) = ledger();
    let (one, two, mut three) = (batch(1, 1, 0, 9), batch(1, 2, 9, 20), batch(1, 3, 20, 30));
    let key = two.batch.key().expect("key");
    three.batch.predecessor = Some(LogBatchLink { key: key.clone(), manifest_sha256: two.bytes_sha256.clone() });
    ledger.replace_batches("main", &target(), &[three.clone(), one.clone()]).expect("replace");
    assert_eq!(ledger.unsound_pieces(&target(), &chain(1)).expect("pieces"), [(9, 20)]);
    let before = |transaction| ledger.batch_end_before(&target(), &chain(1), transaction).expect("end");
    assert_eq!(before(25).map(|end| end.transaction), Some(9));
    assert_eq!(before(30).map(|end| end.transaction), Some(30));
    // Where it comes back, it is whole again.
    ledger.replace_batches("main", &target(), &[one.clone(), two, three.clone()]).expect("replace");
    assert_eq!(ledger.log_sums(&target()).expect("sums")[&chain(1)].transactions, 30);
    assert_eq!(ledger.unsound_batches(&target(), "main").expect("count"), 0);
    ledger.replace_batches("main", &target(), &[one, three]).expect("replace");
    ledger.forget_missing_batches(&target(), &chain(1), Some(15)).expect("forget");
    assert_eq!(ledger.unsound_batches(&target(), "main").expect("count"), 1, "it is needed");
    ledger.forget_missing_batches(&target(), &chain(1), Some(20)).expect("forget");
    assert_eq!(ledger.unsound_batches(&target(), "main").expect("count"), 0);
}
