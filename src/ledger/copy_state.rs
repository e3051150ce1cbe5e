//! The life of a backup's copy in one repository, and what the copies of a backup say together.
//!
//! ```text
//!            sound                    damaged
//! complete ─────────▶ validated   any ─────────▶ corrupted
//! corrupted, missing ─sound─▶ validated   any ─gone─▶ missing ─found─▶ complete
//! ```

use std::fmt;

/// How a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyState {
    /// Durable, read back once.
    Complete,
    /// All of it was read and was sound since, or it was restored with all checks passed.
    Validated,
    /// Damage was found.
    Corrupted,
    /// On record, but no longer in the repository.
    Missing,
}

/// What somebody saw of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Its signed manifest is there: it was just made, or a rescan or a quick look found it.
    Found,
    /// All of its data was read and is sound, or it was restored with all checks passed.
    Sound,
    /// Something of it is damaged or missing.
    Damaged,
    /// It is not there.
    Gone,
}

impl CopyState {
    /// Every state.
    pub const ALL: [CopyState; 4] =
        [CopyState::Complete, CopyState::Validated, CopyState::Corrupted, CopyState::Missing];

    /// The state after an observation. Every observation is possible in every state: the world does not ask.
    pub fn after(self, observation: Observation) -> CopyState {
        match (self, observation) {
            (_, Observation::Gone) => CopyState::Missing,
            (_, Observation::Damaged) => CopyState::Corrupted,
            (_, Observation::Sound) => CopyState::Validated,
            // It is back; what was known of its data no longer holds.
            (CopyState::Missing, Observation::Found) => CopyState::Complete,
            // A manifest alone neither proves nor heals the data.
            (state, Observation::Found) => state,
        }
    }

    /// Whether it may be restored from.
    pub fn is_usable(self) -> bool {
        matches!(self, CopyState::Complete | CopyState::Validated)
    }

    /// What the copies of one backup say together: damage anywhere is told, and missing is only what is nowhere.
    pub fn together(copies: impl IntoIterator<Item = CopyState>) -> CopyState {
        let mut overall = CopyState::Missing;
        for state in copies {
            overall = match (overall, state) {
                (CopyState::Corrupted, _) | (_, CopyState::Corrupted) => CopyState::Corrupted,
                (CopyState::Validated, _) | (_, CopyState::Validated) => CopyState::Validated,
                (CopyState::Complete, _) | (_, CopyState::Complete) => CopyState::Complete,
                _ => CopyState::Missing,
            };
        }
        overall
    }

    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            CopyState::Complete => "complete",
            CopyState::Validated => "validated",
            CopyState::Corrupted => "corrupted",
            CopyState::Missing => "missing",
        }
    }
}

impl fmt::Display for CopyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for CopyState {
    type Err = crate::base::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        CopyState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            crate::base::Error::new(crate::base::Code::LedgerFailed, format!("{text:?} is no state of a backup"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn states() -> impl Strategy<Value = CopyState> {
        proptest::sample::select(CopyState::ALL.to_vec())
    }

    fn observations() -> impl Strategy<Value = Observation> {
        proptest::sample::select(vec![Observation::Found, Observation::Sound, Observation::Damaged, Observation::Gone])
    }

    proptest! {
        #[test]
        fn only_reading_the_data_heals_and_validates(start in states(), seen in proptest::collection::vec(observations(), 0..12)) {
            let end = seen.iter().fold(start, |state, observation| state.after(*observation));
            if end == CopyState::Validated {
                let proof = seen.iter().rposition(|o| *o == Observation::Sound);
                prop_assert!(proof.is_some() || start == CopyState::Validated);
                let after = &seen[proof.map_or(0, |position| position + 1)..];
                prop_assert!(after.iter().all(|o| *o == Observation::Found));
            }
            if let Some(damage) = seen.iter().rposition(|o| *o == Observation::Damaged) {
                let healed = seen[damage..].iter().any(|o| matches!(o, Observation::Sound | Observation::Gone));
                prop_assert!(healed || end == CopyState::Corrupted);
            }
            prop_assert_eq!(end == CopyState::Missing, seen.last().map_or(start == CopyState::Missing, |o| *o == Observation::Gone));
        }

        #[test]
        fn together_does_not_depend_on_the_order(copies in proptest::collection::vec(states(), 0..6)) {
            let overall = CopyState::together(copies.clone());
            let mut turned = copies.clone();
            turned.reverse();
            prop_assert_eq!(overall, CopyState::together(turned));
            prop_assert_eq!(overall == CopyState::Missing, copies.iter().all(|s| *s == CopyState::Missing));
            prop_assert_eq!(overall == CopyState::Corrupted, copies.contains(&CopyState::Corrupted));
        }

        #[test]
        fn words_read_back(state in states()) {
            prop_assert_eq!(state.as_str().parse::<CopyState>().expect("state"), state);
        }
    }
}
