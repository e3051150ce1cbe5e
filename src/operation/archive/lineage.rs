//! Which history of a database's log a chain goes on in: a pure state machine for one repository, and what follows for
//! all repositories of a target together.
//!
//! A lineage is one history of a log, numbered from 1, alike in all repositories. Within one, a transaction's id names one
//! transaction for ever. A restore puts the database back, so that ids come again for other transactions: that history is
//! another lineage. A base stands at the beginning of each lineage, and wherever a piece of the log was lost.

use std::fmt;

/// The lineage that begins with the archive; every later one was forked off.
pub(crate) const FIRST_LINEAGE: u32 = 1;

/// How the chain of a target stands in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// There is no base from which a log could go on.
    Absent,
    /// The log can go on.
    Whole(u32),
    /// A piece of the log was lost; it can go on from a base.
    Torn(u32),
    /// The database's history is not the archived one, and nothing says why.
    Forked(u32),
    /// A lineage that needs its first base.
    Opened(u32),
}

/// What happens to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The source goes on where the archive ends.
    Continued,
    /// The source no longer has what follows.
    LogLost,
    /// The source holds another history.
    HistoryForked,
    /// A restore of ours or an adoption is on record: history goes on under this number.
    Explained(u32),
    /// A base of this lineage is complete.
    BaseTaken(u32),
}

/// An event that must not happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IllegalTransition {
    state: Chain,
    event: Event,
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a chain that is {:?} cannot take {:?}", self.state, self.event)
    }
}

impl Chain {
    /// The state after an event.
    pub(crate) fn next(self, event: Event) -> Result<Chain, IllegalTransition> {
        match (self, event) {
            (Chain::Whole(lineage), Event::Continued) => Ok(Chain::Whole(lineage)),
            (Chain::Whole(lineage), Event::LogLost) => Ok(Chain::Torn(lineage)),
            (Chain::Whole(lineage), Event::HistoryForked) => Ok(Chain::Forked(lineage)),
            (Chain::Forked(lineage), Event::Explained(number)) if number > lineage => Ok(Chain::Opened(number)),
            (Chain::Absent, Event::Explained(number)) if number > 0 => Ok(Chain::Opened(number)),
            (Chain::Opened(lineage) | Chain::Torn(lineage), Event::BaseTaken(number)) if number == lineage => {
                Ok(Chain::Whole(lineage))
            }
            // A further base of a whole chain changes nothing.
            (Chain::Whole(lineage), Event::BaseTaken(number)) if number == lineage => Ok(Chain::Whole(lineage)),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }
}

/// What was found when the source was compared with a repository's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is no chain.
    Nothing,
    /// The source goes on where it ends.
    Continues(u32),
    /// The source has left it, and its end can still be archived.
    Left(u32),
    /// The source no longer has what follows.
    Gap(u32),
    /// The source holds another history; whether something on record explains it.
    Fork {
        /// The chain's lineage.
        lineage: u32,
        /// Whether a restore of ours or an adoption is on record since.
        explained: bool,
    },
}

/// What the record says of the repositories of a target that are not looked at: they are away, or take no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// The highest number of a history that the source goes on with.
    pub(crate) followed: u32,
    /// The highest number of a history that the source has left.
    pub(crate) left: u32,
    /// The highest number there is.
    pub(crate) highest: u32,
    /// Now, in seconds since 1970, if there is one that may hold histories of which nothing is on record.
    pub(crate) unsure_at: Option<u32>,
}

/// The states of a target's chains after what was found, in the same order.
///
/// The history in service has one number everywhere, and a higher one than all that were left: restores compare numbers across
/// repositories. That is the number of a chain that already follows the source, unless a history that was left, or may have been,
/// has it or a higher one; then it is one above every number there is, and where another number was used so far, a base begins it.
/// Where not all of them can be known it is the time, which no other history has, and later ones surpass.
pub(crate) fn judge(found: &[Found], others: Others) -> Result<Vec<Chain>, IllegalTransition> {
    let highest_of = |which: &dyn Fn(&Found) -> Option<u32>| found.iter().filter_map(which).max().unwrap_or(0);
    let followed = highest_of(&|found| match found {
        Found::Continues(lineage) | Found::Gap(lineage) => Some(*lineage),
        Found::Nothing | Found::Left(_) | Found::Fork { .. } => None,
    });
    let left = highest_of(&|found| match found {
        Found::Left(lineage) | Found::Fork { lineage, .. } => Some(*lineage),
        Found::Nothing | Found::Continues(_) | Found::Gap(_) => None,
    });
    let (followed, left) = (followed.max(others.followed), left.max(others.left));
    let highest = followed.max(left).max(others.highest);
    let current = match others.unsure_at {
        _ if followed > left && followed == highest => followed,
        Some(now) => now.max(highest + 1),
        None => highest + 1,
    };
    let moved_on = |lineage: u32| Chain::Whole(lineage).next(Event::HistoryForked)?.next(Event::Explained(current));
    let judged = found.iter().map(|found| match *found {
        Found::Nothing => Chain::Absent.next(Event::Explained(current)),
        Found::Left(lineage) => Chain::Whole(lineage).next(Event::Continued),
        Found::Continues(lineage) if lineage == current => Chain::Whole(lineage).next(Event::Continued),
        Found::Gap(lineage) if lineage == current => Chain::Whole(lineage).next(Event::LogLost),
        Found::Continues(lineage) | Found::Gap(lineage) => moved_on(lineage),
        Found::Fork { lineage, explained: true } => moved_on(lineage),
        Found::Fork { lineage, explained: false } => Chain::Whole(lineage).next(Event::HistoryForked),
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_ways() {
        let judge = |found: &[Found]| super::judge(found, Others::default());
        assert_eq!(judge(&[Found::Nothing, Found::Nothing]), Ok(vec![Chain::Opened(1), Chain::Opened(1)]));
        assert_eq!(judge(&[Found::Continues(3), Found::Nothing]), Ok(vec![Chain::Whole(3), Chain::Opened(3)]));
        let fork = |lineage, explained| Found::Fork { lineage, explained };
        assert_eq!(judge(&[fork(1, true), fork(1, true)]), Ok(vec![Chain::Opened(2), Chain::Opened(2)]));
        assert_eq!(judge(&[fork(1, false)]), Ok(vec![Chain::Forked(1)]));
        // A repository that was away while the other one began a new lineage joins it.
        assert_eq!(judge(&[Found::Continues(2), fork(1, true)]), Ok(vec![Chain::Whole(2), Chain::Opened(2)]));
        // One history is never known by two numbers, nor two by one.
        assert_eq!(judge(&[Found::Gap(2), fork(2, true)]), Ok(vec![Chain::Opened(3), Chain::Opened(3)]));
        assert_eq!(judge(&[Found::Continues(1), fork(3, true)]), Ok(vec![Chain::Opened(4), Chain::Opened(4)]));
        assert_eq!(judge(&[Found::Continues(2), Found::Continues(3)]), Ok(vec![Chain::Opened(3), Chain::Whole(3)]));
        assert_eq!(judge(&[Found::Continues(1), fork(1, false)]), Ok(vec![Chain::Opened(2), Chain::Forked(1)]));
        // What was left is archived to its end, wherever the others are.
        assert_eq!(judge(&[Found::Left(1), Found::Continues(2)]), Ok(vec![Chain::Whole(1), Chain::Whole(2)]));
    }

    #[test]
    fn numbers_of_repositories_that_are_away_are_not_given_again() {
        let fork = [Found::Fork { lineage: 1, explained: true }];
        let away = |followed, left, highest| Others { followed, left, highest, unsure_at: None };
        assert_eq!(judge(&fork, away(0, 3, 3)), Ok(vec![Chain::Opened(4)]), "what was left there");
        assert_eq!(judge(&fork, away(3, 2, 3)), Ok(vec![Chain::Opened(3)]), "the history in service is known there");
        assert_eq!(judge(&fork, away(0, 0, 5)), Ok(vec![Chain::Opened(6)]), "nobody can say any more");
        assert_eq!(judge(&[Found::Continues(2)], away(0, 3, 3)), Ok(vec![Chain::Opened(4)]));
        assert_eq!(judge(&[Found::Continues(2)], away(2, 1, 2)), Ok(vec![Chain::Whole(2)]));
        assert_eq!(judge(&[Found::Continues(2)], away(0, 0, 3)), Ok(vec![Chain::Opened(4)]), "it may have been left");
        let unsure = |highest| Others { highest, unsure_at: Some(1_800_000_000), ..Others::default() };
        assert_eq!(judge(&[Found::Continues(2)], unsure(2)), Ok(vec![Chain::Whole(2)]));
        assert_eq!(judge(&[Found::Continues(2)], unsure(3)), Ok(vec![Chain::Opened(1_800_000_000)]));
        assert_eq!(judge(&fork, unsure(0)), Ok(vec![Chain::Opened(1_800_000_000)]));
        assert_eq!(
            judge(&fork, unsure(1_800_000_001)),
            Ok(vec![Chain::Opened(1_800_000_002)]),
            "a clock that ran back"
        );
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Continued),
            Just(Event::LogLost),
            Just(Event::HistoryForked),
            (1u32..9).prop_map(Event::Explained),
            (1u32..9).prop_map(Event::BaseTaken),
        ]
    }

    fn number(state: Chain) -> u32 {
        match state {
            Chain::Absent => 0,
            Chain::Whole(n) | Chain::Torn(n) | Chain::Forked(n) | Chain::Opened(n) => n,
        }
    }

    proptest! {
        #[test]
        fn a_lineage_never_goes_back_and_never_goes_on_after_a_fork(events in proptest::collection::vec(events(), 0..60)) {
            let mut state = Chain::Absent;
            let mut forked = None;
            for event in events {
                let Ok(next) = state.next(event) else { continue };
                prop_assert!(number(next) >= number(state));
                if let Chain::Forked(lineage) = next {
                    forked = Some(lineage);
                }
                // A history that was left is never archived into again.
                if let Chain::Whole(lineage) = next {
                    prop_assert!(forked.is_none_or(|forked| lineage > forked));
                }
                // And a chain becomes whole by nothing but a base.
                if matches!(next, Chain::Whole(_)) && !matches!(state, Chain::Whole(_)) {
                    prop_assert!(matches!(event, Event::BaseTaken(_)));
                }
                state = next;
            }
        }

        #[test]
        fn what_is_found_always_has_an_answer(found in proptest::collection::vec(
            prop_oneof![
                Just(Found::Nothing),
                (1u32..5).prop_map(Found::Continues),
                (1u32..5).prop_map(Found::Left),
                (1u32..5).prop_map(Found::Gap),
                (1u32..5, any::<bool>()).prop_map(|(lineage, explained)| Found::Fork { lineage, explained }),
            ], 0..5), others in (0u32..5, 0u32..5, 0u32..5, any::<bool>())) {
            let (followed, left, more, unsure) = others;
            let unsure_at = unsure.then_some(1_800_000_000);
            let others = Others { followed, left, highest: followed.max(left).max(more), unsure_at };
            let judged = judge(&found, others).expect("legal");
            prop_assert_eq!(judged.len(), found.len());
            let mut current = None;
            for (found, state) in found.iter().zip(judged) {
                if let Found::Fork { lineage, explained } = found {
                    prop_assert_eq!(matches!(state, Chain::Opened(n) if n > *lineage), *explained);
                    prop_assert_eq!(matches!(state, Chain::Forked(_)), !*explained);
                }
                // One number for the history in service, and above all that were left.
                if let Found::Left(lineage) = found {
                    prop_assert_eq!(state, Chain::Whole(*lineage));
                } else if !matches!(state, Chain::Forked(_)) {
                    prop_assert_eq!(*current.get_or_insert(number(state)), number(state));
                    prop_assert!(number(state) > left);
                }
            }
            for found in found {
                if let Found::Left(lineage) | Found::Fork { lineage, .. } = found {
                    prop_assert!(current.is_none_or(|current| current > lineage));
                }
            }
        }
    }
}
