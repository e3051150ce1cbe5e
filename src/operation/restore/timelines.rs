//! Which history of the log is followed, where the operator says so by the number that the database gives it.

use super::bases::Candidate;
use crate::base::{Code, Error, Result};
use crate::driver::restore_options::Timeline;
use crate::operation::context::Target;
use crate::repository::catalog::Repository;
use std::collections::BTreeSet;

/// Leaves the bases of that timeline. `RESTORE_TARGET_UNREACHABLE` names those that there are.
pub(super) fn retain(
    target: &Target,
    timeline: Option<Timeline>,
    candidates: &mut Vec<Candidate>,
    repository: &Repository,
) -> Result<()> {
    let number = |candidate: &Candidate| target.driver.timeline(&candidate.base.mark);
    match timeline {
        None => Ok(()),
        Some(Timeline::Latest) => {
            // The stream that was backed up last is the one in service, and its newest lineage what it went on as.
            let in_service = candidates.iter().max_by_key(|candidate| candidate.base.sequence);
            let stream = in_service.map(|candidate| candidate.base.history.stream.clone());
            let of_stream =
                candidates.iter().filter(|candidate| Some(&candidate.base.history.stream) == stream.as_ref());
            let newest =
                of_stream.map(|candidate| candidate.base.history.clone()).max_by_key(|history| history.lineage);
            candidates.retain(|candidate| Some(&candidate.base.history) == newest.as_ref());
            Ok(())
        }
        Some(Timeline::Number(wanted)) => {
            let there: BTreeSet<u32> = candidates.iter().filter_map(number).collect();
            candidates.retain(|candidate| number(candidate) == Some(wanted));
            match candidates.is_empty() {
                true => Err(missing(target, wanted, &there, repository)),
                false => Ok(()),
            }
        }
    }
}

fn missing(target: &Target, wanted: u32, there: &BTreeSet<u32>, repository: &Repository) -> Error {
    let text = format!("repository {} holds no backup of {} on timeline {wanted}", repository.name(), target.name);
    let there: Vec<String> = there.iter().map(u32::to_string).collect();
    let hint = match &there[..] {
        [] => "it holds none that names a timeline".to_owned(),
        some => format!("it holds backups on {}: a history before them is a timeline of its own", some.join(", ")),
    };
    Error::new(Code::RestoreTargetUnreachable, text).with_hint(hint)
}
