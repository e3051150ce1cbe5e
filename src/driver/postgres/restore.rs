//! A restore: the base backup's archive is unpacked, put into shape, and proven on a scratch server.

use super::delta::{self, Delta};
use super::tools::Tools;
use super::wal::replay::{self, Ending, SegmentsSink, Stop};
use super::wal::source::{PostgresLog, timeline_of};
use super::{PostgresDriverSettings, checks, control_file, standby, tablespaces};
use crate::artifact::log_batch::{LogBatch, LogMark};
use crate::artifact::manifest::{Content, Manifest, ObjectRecord, Role};
use crate::base::process::OsUser;
use crate::base::task::Task;
use crate::base::untar::{Limits, Unpacked, Unpacker};
use crate::base::{Code, Error, Result, atomic_file, durable_tree};
use crate::driver::log::RecoveryTarget;
use crate::driver::{Branch, HealthCheck, RestorePlace, RestoreSession, VolumeSink};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Most files and directories that a cluster may have.
const MEMBERS_MAX: u64 = 50_000_000;
/// What the original server's processes leave behind, and what would make a copy a standby.
const NOT_OURS: [&str; 5] = ["postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "recovery.conf"];
/// What no data directory is without.
const ESSENTIAL: [&str; 3] = ["PG_VERSION", "global/pg_control", "backup_label"];

/// See [`crate::driver::Driver::begin_restore`].
pub(crate) fn begin(
    settings: &PostgresDriverSettings,
    tools: &Tools,
    log: &PostgresLog,
    manifest: &Manifest,
    place: &RestorePlace,
    _task: &Task,
) -> Result<Box<dyn RestoreSession>> {
    let owner = owner_of_result(settings, place)?;
    let delta = if place.options.delta { Delta::begin(&place.directory, manifest)? } else { None };
    Ok(Box::new(Session {
        tools: tools.clone(),
        role: settings.user.clone(),
        target: settings.target.clone(),
        manifest: manifest.clone(),
        place: place.clone(),
        owner,
        unpacked: Arc::default(),
        newest_timeline: newest_timeline(settings, log, place),
        last: None,
        ending: None,
        delta: delta.map(Arc::new),
        swept: false,
    }))
}

/// The newest timeline that is known of: to the archive, to the spool, to the cluster in service.
fn newest_timeline(settings: &PostgresDriverSettings, log: &PostgresLog, place: &RestorePlace) -> u32 {
    let archived = place.histories.iter().filter_map(timeline_of).max();
    let in_service = fs::read_dir(settings.data_directory.join(replay::WAL)).into_iter().flatten().flatten();
    let of = |name: String| {
        u32::from_str_radix(name.get(..8)?, 16).ok().filter(|_| name.len() == 24 || name.ends_with(".history"))
    };
    let in_service = in_service.filter_map(|entry| entry.file_name().into_string().ok().and_then(of)).max();
    archived.max(in_service).unwrap_or(0).max(log.newest_timeline())
}

/// Who gets the result and runs its servers: as asked, or else, for root, the account of the cluster in service.
/// PostgreSQL refuses to run as root.
pub(crate) fn owner_of_result(settings: &PostgresDriverSettings, place: &RestorePlace) -> Result<Option<OsUser>> {
    let not_root = |owner: &OsUser| owner.uid != 0;
    if let Some(owner) = &place.owner {
        return Ok(Some(owner.clone()));
    }
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let of_cluster = OsUser::owner_of(&settings.data_directory).ok().filter(not_root);
    let owner = of_cluster.or_else(|| OsUser::of_name("postgres").ok().filter(not_root));
    owner.map(Some).ok_or_else(|| {
        Error::new(Code::RestoreFailed, "nobody is known who could own the restored cluster; root cannot run it")
            .with_hint("create the account postgres: apt-get install postgresql-common")
    })
}

struct Session {
    tools: Tools,
    role: String,
    target: String,
    manifest: Manifest,
    place: RestorePlace,
    owner: Option<OsUser>,
    unpacked: Arc<Mutex<Option<Unpacked>>>,
    newest_timeline: u32,
    /// Where the last batch ends.
    last: Option<LogMark>,
    /// Where recovery ends, if the log is replayed.
    ending: Option<Ending>,
    /// If it goes over an older copy.
    delta: Option<Arc<Delta>>,
    /// Whether what is superfluous there was removed.
    swept: bool,
}

impl RestoreSession for Session {
    fn takes_lanes_side_by_side(&self) -> bool {
        true
    }

    fn sink(&mut self, object: &ObjectRecord, _task: &Task) -> Result<Option<Box<dyn VolumeSink>>> {
        match (object.role, object.content) {
            // Configuration outside the data directory is the operator's to compare, not to be overwritten.
            (Role::Config | Role::Log, _) => Ok(None),
            (Role::Data, Content::Tar) => {
                let limits = Limits { bytes: object.plain.size, members: MEMBERS_MAX, times: 1 };
                let branches = self.place.branches.iter();
                let branches: Vec<_> = branches.map(|branch| (&*branch.inside, &*branch.directory)).collect();
                let instead = (Path::new(delta::CONTROL), Path::new(delta::HELD_BACK));
                let unpacker = match self.delta {
                    Some(_) => Unpacker::over(&self.place.directory, instead, limits)?,
                    None => Unpacker::branching(&self.place.directory, &branches, limits)?,
                };
                Ok(Some(Box::new(BaseSink { unpacker, unpacked: self.unpacked.clone(), delta: self.delta.clone() })))
            }
            (Role::Data, content) => Err(Error::new(
                Code::NotAvailable,
                format!("{} holds {content:?}, which cannot be restored into a data directory", object.key),
            )),
        }
    }

    fn log_sink(&mut self, batch: &LogBatch, task: &Task) -> Result<Box<dyn VolumeSink>> {
        self.sweep(task)?;
        self.last = Some(batch.end.clone());
        Ok(Box::new(SegmentsSink::new(&self.place.directory, batch)?))
    }

    fn end_log(&mut self, until: RecoveryTarget, task: &Task) -> Result<LogMark> {
        let base = self.manifest.position.as_ref().and_then(|position| position.mark.clone());
        let (Some(base), Some(last)) = (base, &self.last) else {
            return Err(Error::new(Code::Internal, "there is no base or no log to replay"));
        };
        let (ending, end) = replay::ending(&self.place.directory, &base, last, until, task)?;
        self.ending = Some(ending);
        Ok(end)
    }

    fn complete(&mut self, task: &Task) -> Result<()> {
        self.sweep(task)?;
        let unpacked = *self.unpacked.lock().unwrap_or_else(|p| p.into_inner());
        let directory = &self.place.directory;
        let corrupted = |what: String| Error::new(Code::BackupCorrupted, what);
        let unpacked = unpacked.ok_or_else(|| corrupted("the backup has no base archive".to_owned()))?;
        if let Some(missing) = ESSENTIAL.iter().find(|name| !self.place_of(name).is_file()) {
            return Err(corrupted(format!("the restored directory {} lacks {missing}", directory.display())));
        }
        self.check_identity()?;
        self.settle_tablespaces(task)?;
        let links = self.link_branches()?;
        for name in NOT_OURS {
            atomic_file::remove(&directory.join(name))?;
        }
        self.prepare_recovery()?;
        for branch in &self.place.branches {
            durable_tree::settle(&branch.directory, self.owner.as_ref(), task)?;
        }
        durable_tree::settle_with_links(directory, &links, self.owner.as_ref(), task)?;
        self.delta.as_ref().map_or(Ok(()), |delta| delta.open())?;
        task.info(format!("{} files, {} bytes unpacked and made durable", unpacked.files, unpacked.bytes));
        Ok(())
    }

    fn check(&mut self, task: &Task) -> Result<Vec<HealthCheck>> {
        let subject = checks::Subject {
            manifest: &self.manifest,
            directory: &self.place.directory,
            workspace: &self.place.workspace,
            owner: self.owner.as_ref(),
            role: &self.role,
            timeline: self.timeline(),
            ending: self.ending,
            stop: self.stop(),
        };
        let found = checks::run(&subject, &self.tools, task)?;
        // The scratch server's command line is no business of whoever starts the real one.
        atomic_file::remove(&self.place.directory.join("postmaster.opts"))?;
        replay::remove_settings(&self.place.directory)?;
        Ok(found)
    }

    fn hand_over(&mut self) -> Result<()> {
        self.delta.as_ref().map_or(Ok(()), |delta| delta.finish())
    }
}

impl Session {
    /// The timeline of the base, where it says one.
    fn timeline(&self) -> Option<u32> {
        timeline_of(self.manifest.position.as_ref()?.mark.as_ref()?)
    }

    /// Once all lanes are there, and before anything else is written.
    fn sweep(&mut self, task: &Task) -> Result<()> {
        match &self.delta {
            Some(delta) if !std::mem::replace(&mut self.swept, true) => delta.sweep(task),
            _ => Ok(()),
        }
    }

    /// Where a file of the restored directory is until all else is whole.
    fn place_of(&self, name: &str) -> PathBuf {
        let waits = self.delta.is_some() && name == delta::CONTROL;
        self.place.directory.join(if waits { delta::HELD_BACK } else { name })
    }

    fn stop(&self) -> Stop {
        match self.ending.and_then(|ending| ending.before) {
            Some(before) => Stop::Before(before),
            None if self.place.immediate => Stop::Consistent,
            None => Stop::End,
        }
    }

    /// Recovery ends on a timeline of its own, whoever starts the server: under the old one it would write other
    /// segments under names that the archive has.
    fn prepare_recovery(&self) -> Result<()> {
        let directory = &self.place.directory;
        if let Some(standby) = &self.place.options.standby {
            return standby::prepare(directory, &self.target, standby);
        }
        let Some(timeline) = self.timeline() else { return Ok(()) };
        replay::occupy(directory, timeline, self.newest_timeline)?;
        replay::leave_settings(directory, self.stop())?;
        atomic_file::write(&directory.join("recovery.signal"), b"", 0o600)
    }

    /// Without this setting a server that recovers takes such tablespaces for leftovers and gives up.
    fn allow_tablespaces_inside(&self) -> Result<()> {
        let path = self.place.directory.join("postgresql.auto.conf");
        let appended = "\n# Its tablespaces were restored into the data directory.\nallow_in_place_tablespaces = on\n";
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(appended.as_bytes()))
            .map_err(|cause| Error::io("writing", &path, cause))
    }

    /// Has the tablespaces where they were unpacked, inside the data directory.
    fn settle_tablespaces(&self, task: &Task) -> Result<()> {
        let directory = &self.place.directory;
        let path = directory.join("tablespace_map");
        let map = match fs::read_to_string(&path) {
            Ok(map) => map,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(Error::io("reading", &path, cause)),
        };
        if map.is_empty() {
            // `pg_basebackup` has one sent whether there are tablespaces or not, and the server's own manifest names it.
            return Ok(());
        }
        let missing = missing_tablespaces(&self.place, &map);
        if !missing.is_empty() {
            let text = format!("the backup lacks the tablespaces {}", missing.join(", "));
            return Err(Error::new(Code::BackupCorrupted, text));
        }
        atomic_file::remove(&path)?;
        let lines = lines(&map);
        let inside: Vec<_> = lines.iter().filter(|(number, _)| branch_of(&self.place, number).is_none()).collect();
        if !inside.is_empty() {
            self.allow_tablespaces_inside()?;
            let places: Vec<String> = inside.iter().map(|(number, place)| format!("{number} {place}")).collect();
            let places = places.join(", ");
            task.warn(format!("tablespaces are inside the restored directory, in pg_tblspc; they were: {places}"));
        }
        Ok(())
    }

    /// Links to what was filled in elsewhere, with what each leads to.
    fn link_branches(&self) -> Result<Vec<(PathBuf, &Path)>> {
        let mut links = Vec::new();
        for branch in &self.place.branches {
            let link = self.place.directory.join(&branch.inside);
            let made =
                link.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| symlink(&branch.directory, &link));
            made.map_err(|cause| Error::io("making the link", &link, cause))?;
            links.push((link, branch.directory.as_path()));
        }
        Ok(links)
    }

    /// The archive must be of the cluster that the signed manifest names.
    fn check_identity(&self) -> Result<()> {
        let identity = control_file::read_at(&self.place_of(delta::CONTROL))
            .map_err(|cause| cause.recode(Code::BackupCorrupted))?
            .system_identifier
            .to_string();
        if identity == self.manifest.owner.data_identity {
            return Ok(());
        }
        let text = format!(
            "the restored directory is cluster {identity}, the manifest speaks of {}",
            self.manifest.owner.data_identity
        );
        Err(Error::new(Code::BackupCorrupted, text))
    }
}

/// The numbers of the tablespaces in a map whose directories are not there. A map makes the server create links to places
/// outside, possibly those of the cluster in service; without it a tablespace is the directory of its number.
fn missing_tablespaces(place: &RestorePlace, map: &str) -> Vec<String> {
    let is_there = |number: &str| match branch_of(place, number) {
        // Its directory was made for it: what was filled in tells.
        Some(branch) => fs::read_dir(&branch.directory).is_ok_and(|mut entries| entries.next().is_some()),
        None => {
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            plain && place.directory.join(tablespaces::DIRECTORY).join(number).is_dir()
        }
    };
    lines(map).into_iter().map(|(number, _)| number).filter(|number| !is_there(number)).collect()
}

/// Numbers and places in a map.
fn lines(map: &str) -> Vec<(String, String)> {
    // The name of a place may go on in the next line; the line's end is then escaped.
    let lines = map.replace("\\\n", " ");
    let parts = lines.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    parts.filter(|(number, _)| !number.is_empty()).map(|(number, place)| (number.into(), place.into())).collect()
}

fn branch_of<'a>(place: &'a RestorePlace, number: &str) -> Option<&'a Branch> {
    place.branches.iter().find(|branch| branch.inside == Path::new(tablespaces::DIRECTORY).join(number))
}

/// Unpacks what is written to it.
struct BaseSink {
    unpacker: Unpacker,
    unpacked: Arc<Mutex<Option<Unpacked>>>,
    delta: Option<Arc<Delta>>,
}

impl Write for BaseSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unpacker.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl VolumeSink for BaseSink {
    fn finish(self: Box<Self>, _task: &Task) -> Result<()> {
        let lane = match &self.delta {
            Some(delta) => {
                let laid = self.unpacker.finish_over()?;
                let unpacked = laid.unpacked;
                delta.lane(laid)?;
                unpacked
            }
            None => self.unpacker.finish()?,
        };
        let mut unpacked = self.unpacked.lock().unwrap_or_else(|p| p.into_inner());
        let all = unpacked.get_or_insert_default();
        all.files += lane.files;
        all.directories += lane.directories;
        all.bytes += lane.bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::restore_options::RestoreOptions;

    #[test]
    fn a_tablespace_without_its_directory_is_missed() {
        let place = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(place.path().join("pg_tblspc/16384")).expect("directory");
        let elsewhere = tempfile::tempdir().expect("tempdir");
        let branch = Branch {
            what: "slow".to_owned(),
            inside: "pg_tblspc/16390".into(),
            directory: elsewhere.path().to_owned(),
            bytes: 0,
        };
        let to = RestorePlace {
            directory: place.path().to_owned(),
            workspace: place.path().to_owned(),
            owner: None,
            without_system: false,
            histories: Vec::new(),
            immediate: false,
            options: RestoreOptions::default(),
            branches: vec![branch],
        };
        let missing = |map: &str| missing_tablespaces(&to, map);
        assert!(missing("").is_empty() && missing("16384 /srv/fast\n").is_empty());
        assert!(missing("16384 /srv/odd\\\nname\n").is_empty());
        assert_eq!(missing("16384 /srv/fast\n16385 /srv/slow\n../16384 /x\n"), ["16385", "../16384"]);
        assert_eq!(missing("16390 /srv/slow\n"), ["16390"]);
        fs::create_dir(elsewhere.path().join("PG_15_202209061")).expect("directory");
        assert!(missing("16390 /srv/slow\n").is_empty());
    }
}
