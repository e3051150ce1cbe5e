//! What a swap moves, and in which order: a plan made before anything is touched, and a state machine that says what
//! may follow what.
//!
//! Each [`Move`] is one `rename(2)`. The inode of what it moves is on record, and an inode keeps its number over a
//! rename; so that after a crash it is certain for each move whether it happened, whatever else appeared meanwhile.
//!
//! ```text
//!             Moved           Moved (the last)         Settle
//! Moving 0 ──────────▶ Moving k ─────────────▶ InPlace ───────▶ Settled
//!      │ Undo             │ Undo                 │ Undo
//!      └─────────────────▶└───────▶ Undoing k ◀──┘
//!                                       │ MovedBack (the last)
//!                                       ▼
//!                                     Undone
//! ```

use super::mounts::Mounts;
use super::{Exchange, SwapPlan};
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Move {
    /// Where it is before.
    pub(super) from: PathBuf,
    /// Where it is afterwards.
    pub(super) to: PathBuf,
    /// The number of what is moved.
    pub(super) inode: u64,
}

/// What is written durably before the first rename; it never changes afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Format of this file.
    pub(super) format: u32,
    /// The swap's name.
    pub(super) id: String,
    /// Whose data it is.
    pub(super) target: TargetName,
    /// Directories that must be made before the first move.
    pub(super) make: Vec<PathBuf>,
    /// The renames, in order.
    pub(super) moves: Vec<Move>,
    /// The directories in service.
    pub(super) live: Vec<PathBuf>,
    /// The new data was found good, and the journal could not be removed: nothing is to be undone.
    #[serde(default)]
    pub(super) settled: bool,
}

impl Journal {
    /// Whether a move puts new data into service; the others set the old data aside.
    pub(super) fn brings(&self, step: &Move) -> bool {
        self.live.iter().any(|live| step.to == *live || step.to.parent() == Some(live))
    }
}

/// The journal's format.
pub(super) const JOURNAL_FORMAT: u32 = 1;

/// Where a swap stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SwapState {
    /// The journal is durable, `moved` of `of` moves are made.
    Moving {
        /// Moves made.
        moved: usize,
        /// Moves in all.
        of: usize,
    },
    /// All moves are made; the new data waits for its verdict.
    InPlace {
        /// Moves in all.
        of: usize,
    },
    /// Moves are being taken back.
    Undoing {
        /// Moves that still have to be looked at.
        left: usize,
    },
    /// The old data is in service, the journal may go.
    Undone,
    /// The new data was found good, the journal may go.
    Settled,
}

/// What can happen to a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SwapEvent {
    /// The next move was made and is durable.
    Moved,
    /// A move failed, the process died, or the new data was found bad.
    Undo,
    /// The last move that stood was taken back and that is durable.
    MovedBack,
    /// The new data was found good.
    Settle,
}

/// An event that cannot happen in a state: a bug of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a swap that is {state:?} cannot see {event:?}")]
pub(super) struct IllegalTransition {
    state: SwapState,
    event: SwapEvent,
}

impl crate::base::Coded for IllegalTransition {
    fn code(&self) -> Code {
        Code::Internal
    }
}

impl SwapState {
    /// The state after the journal of `of` moves was written.
    pub(super) fn begin(of: usize) -> Self {
        if of == 0 { SwapState::InPlace { of } } else { SwapState::Moving { moved: 0, of } }
    }

    /// What follows.
    pub(super) fn next(self, event: SwapEvent) -> Result<Self, IllegalTransition> {
        use SwapEvent::{Moved, MovedBack, Settle, Undo};
        use SwapState::{InPlace, Moving, Settled, Undoing, Undone};
        let undoing = |left| if left == 0 { Undone } else { Undoing { left } };
        match (self, event) {
            (Moving { moved, of }, Moved) if moved + 1 == of => Ok(InPlace { of }),
            (Moving { moved, of }, Moved) => Ok(Moving { moved: moved + 1, of }),
            // A move that failed may have been made all the same, so that it is looked at too.
            (Moving { moved, of }, Undo) => Ok(undoing((moved + 1).min(of))),
            (InPlace { of }, Undo) => Ok(undoing(of)),
            (InPlace { .. }, Settle) => Ok(Settled),
            (Undoing { left }, MovedBack) => Ok(undoing(left - 1)),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }
}

fn refused(exchange: &Exchange, why: impl std::fmt::Display) -> Error {
    Error::new(
        Code::SwapFailed,
        format!("exchanging {} for {}: {why}; nothing was moved", exchange.live.display(), exchange.staged.display()),
    )
    .with_hint("nothing was moved; the data in service is the old one")
}

/// Works out the moves of a plan. Nothing is touched; whatever would fail half way is refused here where it can be seen.
pub(super) fn plan(plan: &SwapPlan, mounts: &Mounts) -> Result<Journal> {
    let name_is_safe = !plan.id.is_empty()
        && plan.id.len() <= 200
        && !plan.id.starts_with('.')
        && plan.id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !name_is_safe {
        return Err(Error::new(Code::Internal, format!("{:?} cannot name a swap", plan.id)));
    }
    let mut journal = Journal {
        format: JOURNAL_FORMAT,
        id: plan.id.clone(),
        target: plan.target.clone(),
        make: Vec::new(),
        moves: Vec::new(),
        live: plan.exchanges.iter().map(|exchange| exchange.live.clone()).collect(),
        settled: false,
    };
    for exchange in &plan.exchanges {
        check(exchange)?;
        let live = fs::canonicalize(&exchange.live).unwrap_or_else(|_| exchange.live.clone());
        if mounts.is_mount_point(&live) {
            plan_children(exchange, mounts, &mut journal)?;
        } else {
            plan_whole(exchange, mounts, &mut journal)?;
        }
    }
    Ok(journal)
}

fn check(exchange: &Exchange) -> Result<()> {
    let paths = [&exchange.live, &exchange.staged, &exchange.set_aside];
    if paths.iter().any(|path| !path.is_absolute() || path.components().any(|c| c.as_os_str() == "..")) {
        return Err(refused(exchange, "a path is not absolute or holds `..`"));
    }
    if is_there(&exchange.set_aside) {
        return Err(refused(exchange, format!("{} exists already", exchange.set_aside.display())));
    }
    if !exchange.staged.is_dir() || fs::symlink_metadata(&exchange.staged).is_ok_and(|m| m.is_symlink()) {
        return Err(refused(exchange, format!("{} is not a directory", exchange.staged.display())));
    }
    if fs::symlink_metadata(&exchange.live).is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(refused(exchange, "the directory in service is a symbolic link")
            .with_hint("configure the directory that the link leads to"));
    }
    Ok(())
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn inode(path: &Path) -> Result<u64> {
    fs::symlink_metadata(path).map(|metadata| metadata.ino()).map_err(|cause| Error::io("examining", path, cause))
}

/// The usual case: the directory itself is renamed away and its successor takes its name.
fn plan_whole(exchange: &Exchange, mounts: &Mounts, journal: &mut Journal) -> Result<()> {
    let parent = exchange.live.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        return Err(refused(exchange, format!("{} is not there", parent.display())));
    }
    check_one_filesystem(exchange, parent, mounts)?;
    if is_there(&exchange.live) {
        make_missing(exchange.set_aside.parent(), journal);
        let inode = inode(&exchange.live)?;
        journal.moves.push(Move { from: exchange.live.clone(), to: exchange.set_aside.clone(), inode });
    }
    let inode = inode(&exchange.staged)?;
    journal.moves.push(Move { from: exchange.staged.clone(), to: exchange.live.clone(), inode });
    Ok(())
}

/// A mount point cannot be renamed (EBUSY): what is in it goes, except what leads to the other two directories.
fn plan_children(exchange: &Exchange, mounts: &Mounts, journal: &mut Journal) -> Result<()> {
    check_one_filesystem(exchange, &exchange.live, mounts)?;
    make_missing(Some(&exchange.set_aside), journal);
    for child in children(&exchange.live)? {
        let keeps = exchange.staged.starts_with(&child) || exchange.set_aside.starts_with(&child);
        // fsck's own directory belongs to the filesystem, not to the data.
        if !keeps && child.file_name().is_some_and(|name| name != "lost+found") {
            let to = exchange.set_aside.join(child.file_name().unwrap_or_default());
            journal.moves.push(Move { inode: inode(&child)?, from: child, to });
        }
    }
    for child in children(&exchange.staged)? {
        let to = exchange.live.join(child.file_name().unwrap_or_default());
        if exchange.staged.starts_with(&to) || exchange.set_aside.starts_with(&to) {
            return Err(refused(exchange, format!("{} is in the way of {}", to.display(), child.display())));
        }
        journal.moves.push(Move { inode: inode(&child)?, from: child, to });
    }
    Ok(())
}

/// Directories that must be made for `directory` to be there, outermost first.
fn make_missing(directory: Option<&Path>, journal: &mut Journal) {
    let ancestors = directory.into_iter().flat_map(Path::ancestors);
    let missing: Vec<PathBuf> = ancestors.take_while(|path| !is_there(path)).map(Path::to_owned).collect();
    for path in missing.into_iter().rev() {
        if !journal.make.contains(&path) {
            journal.make.push(path);
        }
    }
}

fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let fail = |cause| Error::io("listing", directory, cause);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        found.push(entry.map_err(fail)?.path());
    }
    found.sort();
    Ok(found)
}

/// A rename works only within one mount of one filesystem (EXDEV).
fn check_one_filesystem(exchange: &Exchange, place: &Path, mounts: &Mounts) -> Result<()> {
    let expected = mounts.place_of(place)?;
    for path in [&exchange.staged, &exchange.set_aside] {
        if mounts.place_of(path)? != expected {
            let text = format!("{} lies on another filesystem than {}", path.display(), place.display());
            return Err(refused(exchange, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever happens in whatever order, a swap ends with either all moves made or none.
        #[test]
        fn a_swap_ends_whole(of in 0usize..6, events in proptest::collection::vec(0u8..4, 0..40)) {
            let mut state = SwapState::begin(of);
            let mut made = 0usize;
            for event in events {
                let event = [SwapEvent::Moved, SwapEvent::Undo, SwapEvent::MovedBack, SwapEvent::Settle][usize::from(event)];
                let Ok(next) = state.next(event) else { continue };
                match event {
                    SwapEvent::Moved => made += 1,
                    SwapEvent::MovedBack => made = made.saturating_sub(1),
                    _ => {}
                }
                state = next;
                match state {
                    SwapState::InPlace { .. } | SwapState::Settled => prop_assert_eq!(made, of),
                    SwapState::Undone => prop_assert_eq!(made, 0),
                    SwapState::Moving { moved, .. } => prop_assert_eq!(moved, made),
                    SwapState::Undoing { left } => prop_assert!(left >= made && left <= made + 1),
                }
            }
            // And from anywhere it can be brought to an end.
            let mut steps = 0;
            while !matches!(state, SwapState::Undone | SwapState::Settled) {
                let event = if matches!(state, SwapState::Undoing { .. }) { SwapEvent::MovedBack } else { SwapEvent::Undo };
                state = state.next(event).expect("legal");
                steps += 1;
                prop_assert!(steps <= of + 2);
            }
            prop_assert!(state.next(SwapEvent::Moved).is_err());
        }
    }
}
