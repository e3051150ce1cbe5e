//! `restores`.

use super::super::output::{Output, lines};
use super::moment;
use crate::operation::answer::RestoreRecord;

/// What the ledger does not know of a restore whose set-aside data was found.
const UNKNOWN: &str = "unknown";

pub(super) fn restores(restores: &[RestoreRecord], output: &Output) -> String {
    if restores.is_empty() {
        return "no restore is on record, and nothing is set aside".to_owned();
    }
    let mut table = output.table(&["RESTORE", "BACKUP", "ENDED", "TOOK", "CHECKS", "WHERE", "SET ASIDE"]);
    for restore in restores {
        let checks = match restore.healthy {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None if restore.backup.is_none() => UNKNOWN,
            None => "not made",
        };
        let place = restore.directory.display();
        let set_aside: Vec<_> = restore.set_aside.iter().map(|path| path.display().to_string()).collect();
        table.add_row([
            restore.restore.clone(),
            restore.backup.as_ref().map_or(UNKNOWN.to_owned(), ToString::to_string),
            moment::at(restore.at, output),
            restore.backup.as_ref().map_or(UNKNOWN.to_owned(), |_| moment::duration(restore.duration_ms)),
            checks.to_owned(),
            if restore.in_place { format!("in service at {place}") } else { place.to_string() },
            if set_aside.is_empty() { "–".to_owned() } else { set_aside.join(", ") },
        ]);
    }
    lines(&table)
}

#[cfg(test)]
mod tests {
    use super::super::tests::output;
    use super::*;
    use crate::base::ids::TargetName;

    #[test]
    fn what_is_only_found_says_what_is_not_known_of_it() {
        let found = RestoreRecord {
            restore: "graph-20261120T020000Z".to_owned(),
            target: TargetName::new("graph").expect("name"),
            backup: None,
            at: "2026-11-20T02:00:00Z".parse().expect("time"),
            directory: "/data".into(),
            in_place: true,
            set_aside: vec!["/.neo4j-backup-graph-20261120T020000Z/set-aside/data".into()],
            duration_ms: 0,
            healthy: None,
            reached: None,
        };
        let text = restores(&[found], &output());
        assert_eq!(text.matches(UNKNOWN).count(), 3, "{text}");
        assert!(text.contains("/set-aside/data") && text.contains("in service at /data"), "{text}");
    }
}
