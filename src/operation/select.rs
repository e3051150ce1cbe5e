//! Which backup an operator means: a full id, a unique prefix of one, `latest`, `latest~N`.

use crate::base::ids::{BackupId, TargetName};
use crate::base::{Code, Error, Result};
use crate::operation::context::{Context, Target};
use crate::operation::records::{self, KnownBackup};

/// Furthest that `latest~N` reaches back.
const LATEST_MAX: usize = 100_000;

/// Resolves `wanted` among a target's backups.
pub(crate) fn backup_of(context: &Context, target: &Target, wanted: &str) -> Result<BackupId> {
    let known = records::known(context, Some(&target.name))?;
    resolve(&known, wanted, Some(&target.name), Damaged::PassOver)
}

/// Resolves `wanted` among all backups; `latest` needs a target and is refused here unless there is only one.
pub(crate) fn backup(context: &Context, wanted: &str) -> Result<BackupId> {
    let known = records::known(context, None)?;
    let mut targets: Vec<_> = known.iter().map(|backup| &backup.id.target).collect();
    targets.sort();
    targets.dedup();
    if wanted.starts_with("latest") && targets.len() > 1 {
        return Err(Error::new(
            Code::BackupAmbiguous,
            format!("{wanted:?} could be a backup of any of {} targets", targets.len()),
        )
        .with_hint("give a backup's id; `neo4j-backupctl list` shows them"));
    }
    resolve(&known, wanted, None, Damaged::Count)
}

/// Whether `latest` means backups that are damaged or missing too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damaged {
    /// A restore wants one that can be restored.
    PassOver,
    /// Whoever looks at backups must not have the damaged one hidden.
    Count,
}

/// `known` is ordered newest first.
fn resolve(known: &[KnownBackup], wanted: &str, target: Option<&TargetName>, damaged: Damaged) -> Result<BackupId> {
    if let Some(back) = back_from_latest(wanted)? {
        let usable = known.iter().filter(|backup| backup.usable || damaged == Damaged::Count);
        return usable.map(|backup| backup.id.clone()).nth(back).ok_or_else(|| {
            let whose = target.map(|name| format!(" of {name}")).unwrap_or_default();
            let which = if back == 0 { String::new() } else { format!(" {back} before the latest") };
            Error::new(Code::BackupNotFound, format!("there is no usable backup{whose}{which}"))
        });
    }
    if let Ok(id) = wanted.parse::<BackupId>() {
        // A full id need not be on record: the repository decides.
        return match target {
            Some(name) if &id.target != name => {
                Err(Error::new(Code::Usage, format!("{id} is a backup of {}, not of {name}", id.target)))
            }
            _ => Ok(id),
        };
    }
    let matching: Vec<_> =
        known.iter().filter(|b| !wanted.is_empty() && b.id.to_string().starts_with(wanted)).collect();
    match matching[..] {
        [] => Err(Error::new(Code::BackupNotFound, format!("no backup on record is called {wanted:?}"))),
        [one] => Ok(one.id.clone()),
        _ => Err(Error::new(Code::BackupAmbiguous, format!("{wanted:?} fits {} backups", matching.len()))),
    }
}

/// `latest` → 0, `latest~3` → 3, anything else → `None`.
fn back_from_latest(wanted: &str) -> Result<Option<usize>> {
    match wanted.strip_prefix("latest") {
        Some("") => Ok(Some(0)),
        Some(rest) => match rest.strip_prefix('~').and_then(|number| number.parse().ok()) {
            Some(back) if back <= LATEST_MAX => Ok(Some(back)),
            _ => Err(Error::new(Code::Usage, format!("{wanted:?} is neither latest nor latest~N"))),
        },
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(ids: &[(&str, bool)]) -> Vec<KnownBackup> {
        ids.iter().map(|(id, usable)| KnownBackup { id: id.parse().expect("id"), usable: *usable }).collect()
    }

    #[test]
    fn latest_passes_over_what_is_damaged() {
        let known = known(&[
            ("graph-20261120T020000Z-dump", false),
            ("graph-20261119T020000Z-dump", true),
            ("graph-20261118T020000Z-dump", true),
        ]);
        assert_eq!(
            resolve(&known, "latest", None, Damaged::PassOver).expect("latest").to_string(),
            "graph-20261119T020000Z-dump"
        );
        let literal = resolve(&known, "latest", None, Damaged::Count).expect("latest");
        assert_eq!(literal.to_string(), "graph-20261120T020000Z-dump");
        assert_eq!(
            resolve(&known, "latest~1", None, Damaged::PassOver).expect("latest~1").to_string(),
            "graph-20261118T020000Z-dump"
        );
        assert_eq!(
            resolve(&known, "latest~2", None, Damaged::PassOver).map_err(|e| e.code()),
            Err(Code::BackupNotFound)
        );
        assert_eq!(resolve(&known, "latest~x", None, Damaged::PassOver).map_err(|e| e.code()), Err(Code::Usage));
    }

    #[test]
    fn a_prefix_must_be_unique() {
        let known = known(&[("graph-20261120T020000Z-dump", true), ("graph-20261119T020000Z-dump", true)]);
        assert_eq!(
            resolve(&known, "graph-2026", None, Damaged::Count).map_err(|e| e.code()),
            Err(Code::BackupAmbiguous)
        );
        assert_eq!(resolve(&known, "", None, Damaged::Count).map_err(|e| e.code()), Err(Code::BackupNotFound));
        assert!(resolve(&known, "graph-20261119", None, Damaged::Count).is_ok());
    }
}
