//! The planner, by example and by property.

use super::*;
use proptest::prelude::*;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second as i64).expect("time")
}

fn mark(transaction: u64) -> LogMark {
    LogMark {
        file: transaction / 10,
        offset: transaction % 10,
        transaction,
        began: None,
        checksum: Some(format!("{transaction:08x}")),
        append_index: None,
        committed_at: Some(at(transaction)),
    }
}

/// Transaction N is committed in second N.
fn piece(from: u64, to: u64) -> Piece {
    Piece { start: mark(from), end: mark(to), last_committed_at: at(to), taken_at: at(to) }
}

fn base(lineage: u32, sequence: u64, transaction: u64) -> Base {
    let history = History { stream: "s".to_owned(), lineage };
    Base { history, sequence, mark: mark(transaction), ended_at: at(transaction), latest_commit: None }
}

fn way(base: u64, pieces: &[Piece], until: RecoveryTarget) -> Result<Vec<usize>, Obstacle> {
    path(&mark(base), at(base), pieces, until, None, Timestamp::MAX).map(|path| path.pieces)
}

#[test]
fn the_newest_base_before_the_target_begins() {
    let bases = [base(1, 1, 10), base(1, 2, 20), base(2, 3, 15), base(2, 4, 40)];
    let best = |until| bases_for(&bases, until).first().copied();
    assert_eq!(best(RecoveryTarget::End), Some(3));
    assert_eq!(best(RecoveryTarget::Transaction(40)), Some(3));
    assert_eq!(best(RecoveryTarget::BeforeTransaction(40)), Some(2));
    assert_eq!(best(RecoveryTarget::Time(at(12))), Some(0), "the second lineage had not begun");
    assert_eq!(bases_for(&bases, RecoveryTarget::Transaction(30)), [2, 1, 0], "the older lineage is the second choice");
    assert_eq!(best(RecoveryTarget::Time(at(9))), None);
    // At its very end a base may hold something that was committed a moment later: the one before is certain not to.
    assert_eq!((best(RecoveryTarget::Time(at(40))), best(RecoveryTarget::Time(at(41)))), (Some(2), Some(3)));
    // A clock that ran back before a base: it holds what was committed later than its end says. One that was wrong by years
    // says nothing.
    let ran_back = |latest| Base { latest_commit: Some(at(latest)), ..base(2, 4, 40) };
    let bases_of = |latest| [base(1, 1, 10), base(2, 3, 15), ran_back(latest)];
    assert_eq!(bases_for(&bases_of(60), RecoveryTarget::Time(at(50))).first(), Some(&1));
    assert_eq!(bases_for(&bases_of(60), RecoveryTarget::Time(at(61))).first(), Some(&2));
    assert_eq!(bases_for(&bases_of(90_000), RecoveryTarget::Time(at(50))).first(), Some(&2));
    let mut other = base(1, 9, 5);
    other.history.stream = "t".to_owned();
    let bases = [base(3, 1, 10), other];
    assert_eq!(bases_for(&bases, RecoveryTarget::End), [1, 0], "the stream that was backed up last");
}

#[test]
fn as_many_batches_as_needed_and_the_first_may_overlap_the_base() {
    let pieces = [piece(0, 10), piece(10, 20), piece(20, 30), piece(30, 40)];
    assert_eq!(way(15, &pieces, RecoveryTarget::End), Ok(vec![1, 2, 3]));
    assert_eq!(way(15, &pieces, RecoveryTarget::Transaction(30)), Ok(vec![1, 2]));
    assert_eq!(way(15, &pieces, RecoveryTarget::BeforeTransaction(31)), Ok(vec![1, 2]));
    assert_eq!(way(15, &pieces, RecoveryTarget::Transaction(31)), Ok(vec![1, 2, 3]));
    assert_eq!(way(15, &pieces, RecoveryTarget::Transaction(15)), Ok(vec![]));
    assert_eq!(way(20, &pieces, RecoveryTarget::End), Ok(vec![2, 3]));
    assert_eq!(way(40, &pieces, RecoveryTarget::End), Ok(vec![]));
    // At a time: up to and with the first batch that holds something later.
    assert_eq!(way(15, &pieces, RecoveryTarget::Time(at(19))), Ok(vec![1]));
    assert_eq!(way(15, &pieces, RecoveryTarget::Time(at(20))), Ok(vec![1, 2]));
    assert_eq!(
        way(15, &pieces, RecoveryTarget::Time(at(40))),
        Ok(vec![1, 2, 3]),
        "inside the archive, after its last commit"
    );
}

#[test]
fn what_is_missing_is_named_and_what_lies_beyond_is_refused() {
    let pieces = [piece(0, 10), piece(10, 20), piece(30, 40)];
    let hole = Err(Obstacle::Hole { after: mark(20), next: 2 });
    assert_eq!(way(5, &pieces, RecoveryTarget::End), hole);
    assert_eq!(way(5, &pieces, RecoveryTarget::Transaction(25)), hole);
    assert_eq!(way(5, &pieces, RecoveryTarget::Time(at(20))), hole, "the next one may hold an earlier one");
    assert_eq!(way(5, &pieces, RecoveryTarget::Transaction(20)), Ok(vec![0, 1]));
    assert_eq!(way(25, &pieces, RecoveryTarget::End), Err(Obstacle::Hole { after: mark(25), next: 2 }));
    let beyond = |end, covered| Err(Obstacle::Beyond { end: Box::new(mark(end)), covered_until: Some(at(covered)) });
    assert_eq!(way(30, &pieces, RecoveryTarget::Transaction(41)), beyond(40, 40));
    assert_eq!(way(30, &pieces, RecoveryTarget::Time(at(41))), beyond(40, 40));
    assert_eq!(way(50, &pieces, RecoveryTarget::Transaction(51)), beyond(50, 50));
    // Nothing was committed since, and the archive is known to have looked.
    let known = path(&mark(30), at(30), &pieces, RecoveryTarget::Time(at(99)), Some((40, at(100))), Timestamp::MAX);
    assert_eq!(known.map(|path| (path.pieces, path.cut)), Ok((vec![2], false)));
    // A clock that was ahead has dated it, and all that is known besides is the last batch.
    let dated = path(&mark(30), at(30), &pieces, RecoveryTarget::Time(at(50)), Some((40, at(100))), at(60));
    assert_eq!(dated.map(|path| path.pieces), beyond(40, 40));
    // It is known of an archive that goes on behind what is there.
    let other = path(&mark(30), at(30), &pieces, RecoveryTarget::Time(at(99)), Some((41, at(100))), Timestamp::MAX);
    assert_eq!(other.map(|path| path.pieces), beyond(40, 40));
}

#[test]
fn the_same_transaction_of_another_history_is_not_gone_on_from() {
    let mut other = piece(10, 20);
    other.start.checksum = Some("ffffffff".to_owned());
    assert!(matches!(way(10, &[other.clone()], RecoveryTarget::End), Err(Obstacle::Hole { .. })));
    assert!(matches!(way(5, &[piece(5, 10), other], RecoveryTarget::End), Err(Obstacle::Hole { .. })));
}

/// A log cut into batches at random, with larger ones over some of them, some of them missing, in any order.
fn archive() -> impl Strategy<Value = (Vec<Piece>, u64)> {
    (proptest::collection::btree_set(1u64..60, 1..20), any::<u64>(), 0u64..60).prop_map(|(cuts, seed, base)| {
        let cuts: Vec<u64> = std::iter::once(0).chain(cuts).collect();
        let mut state = seed | 1;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        let mut pieces = Vec::new();
        for pair in cuts.windows(2) {
            if random(8) > 0 {
                pieces.push(piece(pair[0], pair[1]));
            }
        }
        for _ in 0..random(4) {
            let (one, two) = (random(cuts.len() as u64) as usize, random(cuts.len() as u64) as usize);
            if one < two {
                pieces.push(piece(cuts[one], cuts[two]));
            }
        }
        let turn = random(pieces.len() as u64 + 1) as usize;
        pieces.rotate_left(turn);
        (pieces, base)
    })
}

fn target() -> impl Strategy<Value = RecoveryTarget> {
    prop_oneof![
        Just(RecoveryTarget::End),
        (0u64..70).prop_map(RecoveryTarget::Transaction),
        (1u64..70).prop_map(RecoveryTarget::BeforeTransaction),
        (0u64..70).prop_map(|second| RecoveryTarget::Time(at(second))),
    ]
}

/// The fewest pieces from the base to a point where everything up to `transaction` is there, by trying all.
fn fewest(pieces: &[Piece], base: u64, transaction: u64) -> Option<usize> {
    let mut reach = vec![None::<usize>; 128];
    reach[base as usize] = Some(0);
    let mut ordered: Vec<&Piece> = pieces.iter().collect();
    ordered.sort_by_key(|piece| piece.start.transaction);
    for piece in ordered.iter().filter(|piece| piece.start.transaction <= base && piece.end.transaction > base) {
        reach[piece.end.transaction as usize] = Some(1);
    }
    for piece in ordered.iter().filter(|piece| piece.start.transaction > base) {
        if let Some(steps) = reach[piece.start.transaction as usize] {
            let here = &mut reach[piece.end.transaction as usize];
            *here = Some(here.map_or(steps + 1, |known| known.min(steps + 1)));
        }
    }
    reach[transaction as usize..].iter().flatten().min().copied()
}

proptest! {
    #[test]
    fn a_path_has_no_hole_and_is_the_shortest((pieces, from) in archive(), until in target()) {
        let base = mark(from);
        if transaction_of(until).is_some_and(|target| target < from) {
            // `bases_for` never gives such a base.
            return Ok(());
        }
        match path(&base, at(from), &pieces, until, None, Timestamp::MAX) {
            Ok(path) => {
                let mut here = base.clone();
                for (number, index) in path.pieces.iter().enumerate() {
                    let piece = &pieces[*index];
                    let fits = if number == 0 { piece.start.transaction <= here.transaction } else { piece.start == here };
                    prop_assert!(fits && piece.end.transaction > here.transaction);
                    here = piece.end.clone();
                }
                prop_assert_eq!(&here, &path.end);
                if let Some(target) = transaction_of(until) {
                    prop_assert!(here.transaction >= target);
                    prop_assert_eq!(Some(path.pieces.len()), fewest(&pieces, from, target));
                    prop_assert_eq!(path.cut, here.transaction > target);
                }
                if until == RecoveryTarget::End {
                    let end = pieces.iter().map(|piece| piece.end.transaction).max().unwrap_or(0).max(from);
                    prop_assert_eq!(here.transaction, end, "the end of all there is");
                }
            }
            Err(Obstacle::Hole { after, next }) => {
                // There is log after the hole, and no way to it.
                prop_assert!(pieces[next].end.transaction > after.transaction);
                if let Some(target) = transaction_of(until) {
                    prop_assert_eq!(fewest(&pieces, from, target), None);
                }
            }
            Err(Obstacle::Beyond { end, .. }) => {
                prop_assert!(pieces.iter().all(|piece| piece.end.transaction <= end.transaction));
                prop_assert!(until != RecoveryTarget::End);
            }
        }
    }

    #[test]
    fn a_base_never_lies_after_its_target(ends in proptest::collection::vec((1u32..4, 1u64..60), 0..12), until in target()) {
        let bases: Vec<_> = ends.iter().enumerate().map(|(n, (lineage, end))| base(*lineage, n as u64, *end)).collect();
        for index in bases_for(&bases, until) {
            let base = &bases[index];
            prop_assert!(transaction_of(until).is_none_or(|target| base.mark.transaction <= target));
            if let RecoveryTarget::Time(time) = until {
                prop_assert!(base.ended_at <= time);
            }
        }
    }
}
