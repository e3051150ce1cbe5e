//! Options of `restore` that only PostgreSQL has.

use super::translate::absolute;
use crate::base::Result;
use crate::driver::restore_options::{Relocation, Relocations, RestoreOptions, Standby, Timeline};
use clap::Args;
use std::path::PathBuf;

/// See [`super::args::Command::Restore`].
#[derive(Args, Debug)]
#[command(next_help_heading = "PostgreSQL")]
pub struct PostgresRestore {
    /// End as soon as the backup is consistent: no log after it is replayed
    #[arg(long, conflicts_with_all = ["to_time", "to_tx", "before_tx", "to_lsn", "to_name"])]
    pub to_immediate: bool,
    /// Follow this history of the log, a number or `latest`; without it the newest that has the target
    #[arg(long, value_name = "N", value_parser = timeline, conflicts_with = "backup")]
    pub timeline: Option<Timeline>,
    /// Make a standby of it: started, it fetches the archived log and follows its primary; it archives nothing
    #[arg(long, conflicts_with_all = ["in_place", "to_time", "to_tx", "before_tx", "to_lsn", "to_name", "to_immediate", "timeline"])]
    pub standby: bool,
    /// How the standby connects to its primary (`primary_conninfo`); without it, it follows the archive alone
    #[arg(long, value_name = "CONNINFO", requires = "standby")]
    pub primary_conninfo: Option<String>,
    /// Restore over the older copy of the cluster that DIR holds: what differs is changed, what is superfluous goes
    #[arg(long, requires = "into", conflicts_with_all = ["in_place", "tablespace_map", "tablespace_map_all"])]
    pub delta: bool,
    /// Put a tablespace elsewhere: OLD is its name or the directory that it was in, NEW a new or empty directory; `\=` is a `=`
    #[arg(long, value_name = "OLD=NEW", value_parser = relocation)]
    pub tablespace_map: Vec<Relocation>,
    /// Put all other tablespaces into new directories of their names below DIR; without it they are inside the restored directory
    #[arg(long, value_name = "DIR")]
    pub tablespace_map_all: Option<PathBuf>,
}

impl PostgresRestore {
    /// What is asked of the driver.
    pub fn options(&self) -> Result<RestoreOptions> {
        let pair = |given: &Relocation| Ok(Relocation { old: given.old.clone(), new: absolute(&given.new)? });
        let pairs = self.tablespace_map.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let all = self.tablespace_map_all.as_deref().map(absolute).transpose()?;
        let standby = self.standby.then(|| Standby { primary: self.primary_conninfo.clone() });
        Ok(RestoreOptions {
            tablespaces: Relocations { pairs, all },
            standby,
            timeline: self.timeline,
            delta: self.delta,
        })
    }
}

fn timeline(text: &str) -> std::result::Result<Timeline, String> {
    Timeline::parse(text).map_err(|error| error.message().to_owned())
}

fn relocation(text: &str) -> std::result::Result<Relocation, String> {
    Relocation::parse(text).map_err(|error| format!("{}; {}", error.message(), error.hint()))
}
