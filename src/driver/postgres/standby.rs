//! A restored directory that becomes a standby: it recovers by itself when it is started, fetches the archived log,
//! follows its primary if it is told of one, and archives nothing.

use super::wal::replay::OWN_SETTINGS;
use crate::base::{Error, Result, atomic_file};
use crate::driver::restore_options::Standby;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a server that is started on it a standby.
const SIGNAL: &str = "standby.signal";
/// Begins what is added to the settings that overrule all others.
const SETTINGS_MARK: &str = "# How neo4j-backup made this a standby.";
/// What the original may have said of recoveries of its own, of its primary, or of how it shuts one off.
const EMPTIED: [&str; 8] = [
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_end_command",
    "archive_cleanup_command",
    "primary_slot_name",
];

/// Leaves what a standby of `target` needs in a restored directory.
pub(crate) fn prepare(directory: &Path, target: &str, standby: &Standby) -> Result<()> {
    let path = directory.join(OWN_SETTINGS);
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    opened
        .and_then(|mut file| file.write_all(settings(target, standby).as_bytes()))
        .map_err(|cause| Error::io("writing", &path, cause))?;
    atomic_file::write(&directory.join(SIGNAL), b"", 0o600)
}

fn settings(target: &str, standby: &Standby) -> String {
    let fetch = format!("neo4j-backupctl wal fetch {target} %f \"%p\"");
    let primary = standby.primary.as_deref().unwrap_or_default();
    let mut text = format!("\n{SETTINGS_MARK}\n");
    let mut say = |name: &str, value: &str| text.push_str(&format!("{name} = '{}'\n", quoted(value)));
    say("restore_command", &fetch);
    say("recovery_target_timeline", "latest");
    say("primary_conninfo", primary);
    // What it archives would be its primary's, or a history of its own that nobody asked for.
    say("archive_mode", "off");
    EMPTIED.iter().for_each(|name| say(name, ""));
    text
}

/// As a file of settings has a text.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "''")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fetches_and_follows_and_archives_nothing() {
        let place = tempfile::tempdir().expect("tempdir");
        std::fs::write(place.path().join(OWN_SETTINGS), "archive_mode = 'always'\n").expect("settings");
        let primary = Some("host=/run user='a b' options='-c x=\\y'".to_owned());
        prepare(place.path(), "metrics", &Standby { primary }).expect("prepare");
        let text = std::fs::read_to_string(place.path().join(OWN_SETTINGS)).expect("settings");
        let value = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(" = "));
            lines.rev().find(|(said, _)| *said == name).expect("a setting").1.to_owned()
        };
        assert_eq!(value("archive_mode"), "'off'", "the last one counts");
        assert_eq!(value("restore_command"), "'neo4j-backupctl wal fetch metrics %f \"%p\"'");
        assert_eq!(value("primary_conninfo"), "'host=/run user=''a b'' options=''-c x=\\\\y'''");
        assert_eq!(
            (value("recovery_target_timeline"), value("recovery_target_time")),
            ("'latest'".into(), "''".into())
        );
        assert!(place.path().join(SIGNAL).is_file());
    }
}
