//! Which base and which batches of the log a restore needs. Pure: it sees what manifests say and decides.
//!
//! The newest base that ends at or before the target, in the lineage that was current then; after it every batch up to the
//! target, each beginning where the one before it ends. Never a lineage or a stream mixed with another, never a hole
//! passed over, never a batch more than needed.

use crate::artifact::log_batch::LogMark;
use crate::driver::log::RecoveryTarget;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How far commit times may run back within a log. Real servers were seen to by a tenth of it.
const INVERSION_MAX: SignedDuration = SignedDuration::from_secs(1);
/// A clock that was set back by more was wrong before: what it said then tells nothing of the order of things.
const STEP_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A history of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct History {
    /// Whose log it is.
    pub(super) stream: String,
    /// Which of its lineages.
    pub(super) lineage: u32,
}

/// A base as planning sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// Its history.
    pub(super) history: History,
    /// Its number among the target's backups.
    pub(super) sequence: u64,
    /// Where its log ends.
    pub(super) mark: LogMark,
    /// When its last transaction was committed, or a later moment where that is not known.
    pub(super) ended_at: Timestamp,
    /// The latest time of commit that is known of what it holds: not that of its last transaction where a clock ran back.
    pub(super) latest_commit: Option<Timestamp>,
}

/// A batch as planning sees it, all of one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it begins.
    pub(super) start: LogMark,
    /// Where it ends.
    pub(super) end: LogMark,
    /// The latest time of commit in it.
    pub(super) last_committed_at: Timestamp,
    /// When it was read: everything committed before is in it, or in what comes before it.
    pub(super) taken_at: Timestamp,
}

/// The pieces that lead to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Indexes of the pieces, in the order of the log.
    pub(super) pieces: Vec<usize>,
    /// Where the last of them ends, or the base.
    pub(super) end: LogMark,
    /// Whether the target lies before that end.
    pub(super) cut: bool,
}

/// Why there is no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// What follows `after` is missing, though there is log after it: the piece `next` is the first.
    Hole {
        /// The last point that can be reached.
        after: LogMark,
        /// Index of the first piece after the hole.
        next: usize,
    },
    /// The archive ends before the target.
    Beyond {
        /// Where it ends.
        end: Box<LogMark>,
        /// Up to when it is known to hold everything; `None` where all that is known was dated by a clock that was ahead.
        covered_until: Option<Timestamp>,
    },
}

/// Indexes of the bases a restore to `until` may begin with, the best first: in the newest history and as late as the
/// target allows.
pub(super) fn bases_for(bases: &[Base], until: RecoveryTarget) -> Vec<usize> {
    // The stream that was backed up last is the one in service.
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for base in bases {
        let sequence = newest.entry(base.history.stream.as_str()).or_default();
        *sequence = base.sequence.max(*sequence);
    }
    let admissible = |base: &Base| admits(until, base.mark.transaction, base.ended_at);
    let mut found: Vec<usize> = (0..bases.len()).filter(|index| admissible(&bases[*index])).collect();
    found.sort_by_key(|index| {
        let base = &bases[*index];
        // Times do not always rise with the log: just before the end of a base something later may lie in it.
        let certain = match until {
            RecoveryTarget::Time(time) => {
                let latest = base.latest_commit.filter(|latest| latest.duration_since(time) <= STEP_MAX);
                time.duration_since(latest.map_or(base.ended_at, |latest| latest.max(base.ended_at))) >= INVERSION_MAX
            }
            _ => true,
        };
        let stream = newest.get(base.history.stream.as_str()).copied().unwrap_or(0);
        Reverse((stream, base.history.lineage, certain, base.mark.transaction, base.sequence))
    });
    found
}

/// Whether a base that ends with `transaction`, and tells what the database held from `ended_at` on, may lead to a target.
pub(super) fn admits(until: RecoveryTarget, transaction: u64, ended_at: Timestamp) -> bool {
    match until {
        RecoveryTarget::End | RecoveryTarget::Point(_) | RecoveryTarget::Immediate => true,
        RecoveryTarget::Time(time) => ended_at <= time,
        RecoveryTarget::Transaction(number) => transaction <= number,
        // What a base holds beyond its own end can be cut off with log after it only.
        RecoveryTarget::Lsn(position) => transaction < position,
        RecoveryTarget::BeforeTransaction(number) => transaction < number,
    }
}

/// The shortest way from a base to the target. `pieces` are those of the base's history, in any order; `known` is the
/// transaction that the whole archive of that history is known to end with, and up to when it then holds everything. What says
/// that it holds everything up to a time that comes after `now` was dated by a clock that was ahead, and says nothing.
pub(super) fn path(
    base: &LogMark,
    base_taken_at: Timestamp,
    pieces: &[Piece],
    until: RecoveryTarget,
    known: Option<(u64, Timestamp)>,
    now: Timestamp,
) -> Result<Path, Obstacle> {
    if until == RecoveryTarget::Immediate || reaches(base.transaction, None, until) {
        return Ok(Path { pieces: Vec::new(), end: base.clone(), cut: false });
    }
    let walked = walk(base, pieces, until);
    let last = walked.way.last().map(|index| &pieces[*index]);
    let end = last.map_or(base, |piece| &piece.end).clone();
    if walked.reached {
        let target = transaction_of(until);
        let cut = target.is_none_or(|target| end.transaction > target);
        return Ok(Path { pieces: walked.way, end, cut });
    }
    let beyond = |piece: &&usize| {
        pieces[**piece].start.transaction > end.transaction || {
            let piece = &pieces[**piece];
            piece.end.transaction > end.transaction
        }
    };
    let mut ordered: Vec<usize> = (0..pieces.len()).collect();
    ordered.sort_by_key(|index| (pieces[*index].start.transaction, pieces[*index].end.transaction));
    if let Some(next) = ordered.iter().find(beyond) {
        return Err(Obstacle::Hole { after: end, next: *next });
    }
    let taken = last.map_or(base_taken_at, |piece| piece.taken_at).max(base_taken_at);
    // What is known of the archive's end says nothing of a way that does not lead there.
    let covered = known.filter(|(transaction, _)| *transaction <= end.transaction).map(|(_, covered)| covered);
    let covered_until = covered.into_iter().chain([taken]).filter(|until| *until <= now).max();
    let complete = match until {
        RecoveryTarget::End | RecoveryTarget::Point(_) => true,
        RecoveryTarget::Time(time) => covered_until.is_some_and(|until| time <= until),
        _ => false,
    };
    match complete {
        true => Ok(Path { pieces: walked.way, end, cut: false }),
        false => Err(Obstacle::Beyond { end: Box::new(end), covered_until }),
    }
}

struct Walked {
    /// To the target, or as far as it goes.
    way: Vec<usize>,
    reached: bool,
}

/// Breadth first, so that the first way found has the fewest pieces. Each point is looked at once.
fn walk(base: &LogMark, pieces: &[Piece], until: RecoveryTarget) -> Walked {
    let mut from: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut before: BTreeMap<usize, Option<usize>> = BTreeMap::new();
    for (index, piece) in pieces.iter().enumerate() {
        from.entry(piece.start.transaction).or_default().push(index);
        if follows_base(base, piece) {
            before.insert(index, None);
            queue.push_back(index);
        }
    }
    let mut seen: BTreeSet<(u64, u64, u64)> = BTreeSet::new();
    let mut farthest: Option<usize> = None;
    let mut reached = false;
    while let Some(index) = queue.pop_front() {
        let piece = &pieces[index];
        if farthest.is_none_or(|farthest| pieces[farthest].end.transaction < piece.end.transaction) {
            farthest = Some(index);
        }
        if reaches(piece.end.transaction, Some(piece), until) {
            (farthest, reached) = (Some(index), true);
            break;
        }
        if !seen.insert((piece.end.transaction, piece.end.file, piece.end.offset)) {
            continue;
        }
        for next in from.get(&piece.end.transaction).into_iter().flatten() {
            if pieces[*next].start.same_point(&piece.end) && !before.contains_key(next) {
                before.insert(*next, Some(index));
                queue.push_back(*next);
            }
        }
    }
    let mut way = Vec::new();
    let mut here = farthest;
    while let Some(index) = here {
        way.push(index);
        here = before.get(&index).copied().flatten();
    }
    way.reverse();
    Walked { way, reached }
}

/// Whether a piece can be the first after a base: it brings something, and there is nothing between the two.
fn follows_base(base: &LogMark, piece: &Piece) -> bool {
    piece.start.transaction <= base.transaction
        && piece.end.transaction > base.transaction
        && !piece.start.contradicts(base)
}

/// Whether a target is reached with the log up to `transaction`, which a piece brings.
fn reaches(transaction: u64, piece: Option<&Piece>, until: RecoveryTarget) -> bool {
    match until {
        RecoveryTarget::End => false,
        RecoveryTarget::Time(time) => piece.is_some_and(|piece| piece.last_committed_at > time),
        _ => transaction_of(until).is_some_and(|target| transaction >= target),
    }
}

/// The last transaction that a target wants; `None` if that is not known beforehand.
pub(super) fn transaction_of(until: RecoveryTarget) -> Option<u64> {
    match until {
        RecoveryTarget::Transaction(number) | RecoveryTarget::Lsn(number) => Some(number),
        RecoveryTarget::BeforeTransaction(number) => Some(number.saturating_sub(1)),
        RecoveryTarget::End | RecoveryTarget::Time(_) | RecoveryTarget::Point(_) | RecoveryTarget::Immediate => None,
    }
}

#[cfg(test)]
mod tests;
