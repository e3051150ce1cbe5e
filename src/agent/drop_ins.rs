//! What systemd's generator writes: the timers' times, as the configuration has them. So there is one place of truth, and
//! `systemctl daemon-reload` is all that a changed `[schedule]` needs.

use crate::base::{Error, Result, atomic_file};
use crate::config::settings::{DatabaseSettings, PostgresFull, Settings, TargetSettings};
use crate::config::{self, Sources};
use crate::operation::schedule;
use std::path::{Path, PathBuf};

/// The name of each drop-in. Those of `systemctl edit` come after it by their names, and so have the last word.
const NAME: &str = "50-neo4j-backup-schedule.conf";

/// Writes the drop-ins of all targets below `directory`, as `systemd.generator(7)` has it.
/// Errors: `CONFIG_INVALID`; the times of the packaged units then hold.
pub fn generate(config: &Path, directory: &Path) -> Result<()> {
    let settings = config::load(&Sources::of_file(config))?.settings;
    for (place, text) in drop_ins(&settings, config) {
        let path = directory.join(place);
        let parent = path.parent().unwrap_or(directory);
        std::fs::create_dir_all(parent).map_err(|cause| Error::io("making", parent, cause))?;
        atomic_file::write(&path, text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Path below the generator's directory, and text.
fn drop_ins(settings: &Settings, config: &Path) -> Vec<(PathBuf, String)> {
    let of = |target: &TargetSettings| {
        let full = target.schedule.full.clone().map(|time| (schedule::full_unit(&target.name), time));
        let incremental = target.schedule.incremental.clone().filter(|_| has_log(&target.database));
        let incremental = incremental.map(|time| (schedule::incremental_unit(&target.name), time));
        full.into_iter().chain(incremental)
    };
    let drop_in = |(unit, time): (String, String)| {
        let text = format!(
            "# From [schedule] of {}; `systemctl daemon-reload` makes it anew.\n[Timer]\nOnCalendar=\nOnCalendar={time}\n",
            config.display()
        );
        (PathBuf::from(format!("{unit}.d")).join(NAME), text)
    };
    settings.targets.values().flat_map(of).map(drop_in).collect()
}

fn has_log(database: &DatabaseSettings) -> bool {
    !matches!(database, DatabaseSettings::Postgresql(postgres) if postgres.full == PostgresFull::Dump)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_has_the_time_of_its_target_and_none_where_it_is_off() {
        let directory = tempfile::tempdir().expect("tempdir");
        let config = directory.path().join("config.toml");
        let text = "[schedule]\nincremental = \"*:0/5\"\n[target.graph]\nkind = \"neo4j\"\n\
            [target.ledger]\nkind = \"postgresql\"\ndata_directory = \"/var/lib/postgresql/15/main\"\nfull = \"dump\"\n\
            [target.quiet]\nkind = \"neo4j\"\n[target.quiet.schedule]\nfull = \"Sun 04:00\"\nincremental = \"off\"\n";
        std::fs::write(&config, text).expect("config");
        let generated = directory.path().join("generator");
        generate(&config, &generated).expect("generated");
        let read = |unit: &str| {
            let text = std::fs::read_to_string(generated.join(format!("neo4j-backup-{unit}.timer.d")).join(NAME));
            text.ok().map(|text| text.lines().skip(1).collect::<Vec<_>>().join("|"))
        };
        let time = |time: &str| Some(format!("[Timer]|OnCalendar=|OnCalendar={time}"));
        assert_eq!(read("full@graph"), time("02:30 UTC"), "Neo4j's own default");
        assert_eq!(read("incremental@graph"), time("*:0/5"));
        assert_eq!(read("full@ledger"), time("02:00 UTC"));
        assert_eq!(read("incremental@ledger"), None, "dumps have no log");
        assert_eq!(read("full@quiet"), time("Sun 04:00"));
        assert_eq!(read("incremental@quiet"), None, "off");
        std::fs::write(&config, "[schedule]\nfull = 3\n").expect("config");
        assert!(generate(&config, &generated).is_err());
    }
}
