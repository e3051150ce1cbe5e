//! `restores`.

use super::super::output::{Output, lines};
use super::moment;
use crate::operation::answer::RestoreRecord;

pub(super) fn restores(restores: &[RestoreRecord], output: &Output) -> String {
    if restores.is_empty() {
        return "nothing has been restored yet".to_owned();
    }
    let mut table = output.table(&["RESTORE", "BACKUP", "ENDED", "TOOK", "CHECKS", "WHERE", "SET ASIDE"]);
    for restore in restores {
        let checks = match restore.healthy {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None => "not made",
        };
        let place = restore.directory.display();
        let set_aside: Vec<_> = restore.set_aside.iter().map(|path| path.display().to_string()).collect();
        table.add_row([
            restore.restore.clone(),
            restore.backup.to_string(),
            moment::at(restore.at, output),
            moment::duration(restore.duration_ms),
            checks.to_owned(),
            if restore.in_place { format!("in service at {place}") } else { place.to_string() },
            if set_aside.is_empty() { "–".to_owned() } else { set_aside.join(", ") },
        ]);
    }
    lines(&table)
}
