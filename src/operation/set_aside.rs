//! Data that restores in place have set aside, found by looking for it: beside each target's data in service, in the
//! directories of ours that carry a restore's name. The ledger may have been lost since; the data must not be.

use crate::base::Result;
use crate::base::ids::{Stamp, TargetName};
use crate::base::task::Task;
use crate::operation::context::{Context, Target};
use crate::operation::restore::in_place::{area_of, member_of};
use crate::operation::restore::staging::{AREA_PREFIX, SET_ASIDE};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What one restore has set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetAside {
    /// The restore's name: `TARGET-STAMP`.
    pub(crate) restore: String,
    /// The target.
    pub(crate) target: TargetName,
    /// When the restore was begun, as its name says.
    pub(crate) stamp: Stamp,
    /// The data in service that took its place.
    pub(crate) live: PathBuf,
    /// Where the earlier data lies.
    pub(crate) paths: Vec<PathBuf>,
}

/// Everything that is set aside, target by target. Where a target's data would be cannot always be told (its server's
/// configuration may be gone); what cannot be looked at is not listed.
pub(crate) fn find(context: &Context) -> Vec<SetAside> {
    context.targets.values().flat_map(|target| beside(target).unwrap_or_default()).collect()
}

fn beside(target: &Target) -> Result<Vec<SetAside>> {
    let live = target.driver.live_paths(&Task::unobserved())?;
    let places: BTreeSet<PathBuf> = live.iter().filter_map(|path| area_of(path).ok()).collect();
    let mut found: BTreeMap<Stamp, SetAside> = BTreeMap::new();
    for entry in places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten() {
        let Some(stamp) = entry.file_name().to_str().and_then(|name| stamp_in(name, &target.name)) else { continue };
        let within = entry.path().join(SET_ASIDE);
        let paths: Vec<PathBuf> =
            live.iter().map(|path| within.join(member_of(path))).filter(|path| path.exists()).collect();
        if !paths.is_empty() {
            let blank = || SetAside {
                restore: format!("{}-{stamp}", target.name),
                target: target.name.clone(),
                stamp,
                live: live[0].live.clone(),
                paths: Vec::new(),
            };
            found.entry(stamp).or_insert_with(blank).paths.extend(paths);
        }
    }
    Ok(found.into_values().collect())
}

/// The time in the name of a directory that a restore of this target made.
fn stamp_in(name: &str, target: &TargetName) -> Option<Stamp> {
    name.strip_prefix(AREA_PREFIX)?.strip_prefix(target.as_str())?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_target_and_time() {
        let target = TargetName::new("graph").expect("name");
        let stamp = |name: &str| stamp_in(name, &target).map(|stamp| stamp.to_string());
        assert_eq!(stamp(".neo4j-backup-graph-20261120T020000Z").as_deref(), Some("20261120T020000Z"));
        for other in [
            ".neo4j-backup-graph2-20261120T020000Z",
            ".neo4j-backup-metrics-20261120T020000Z",
            ".neo4j-backup-graph-",
            ".neo4j-backup-graph-yesterday",
            "graph-20261120T020000Z",
            ".neo4j-backup-",
        ] {
            assert_eq!(stamp(other), None, "{other}");
        }
    }
}
