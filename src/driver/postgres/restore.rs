//! A restore: the base backup's archive is unpacked, put into shape, and proven on a scratch server.

use super::tools::Tools;
use super::{PostgresDriverSettings, checks, control_file};
use crate::artifact::manifest::{Content, Manifest, ObjectRecord, Role};
use crate::base::process::OsUser;
use crate::base::task::Task;
use crate::base::untar::{Limits, Unpacked, Unpacker};
use crate::base::{Code, Error, Result, atomic_file, durable_tree};
use crate::driver::{HealthCheck, RestorePlace, RestoreSession, VolumeSink};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
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
    manifest: &Manifest,
    place: &RestorePlace,
    _task: &Task,
) -> Result<Box<dyn RestoreSession>> {
    let owner = owner_of_result(settings, place)?;
    Ok(Box::new(Session {
        tools: tools.clone(),
        role: settings.user.clone(),
        manifest: manifest.clone(),
        place: place.clone(),
        owner,
        unpacked: Arc::default(),
    }))
}

/// Who gets the result and runs its servers: as asked, or else, for root, the account of the cluster in service.
/// PostgreSQL refuses to run as root.
fn owner_of_result(settings: &PostgresDriverSettings, place: &RestorePlace) -> Result<Option<OsUser>> {
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
    manifest: Manifest,
    place: RestorePlace,
    owner: Option<OsUser>,
    unpacked: Arc<Mutex<Option<Unpacked>>>,
}

impl RestoreSession for Session {
    fn sink(&mut self, object: &ObjectRecord, _task: &Task) -> Result<Option<Box<dyn VolumeSink>>> {
        match (object.role, object.content) {
            // Configuration outside the data directory is the operator's to compare, not to be overwritten.
            (Role::Config | Role::Log, _) => Ok(None),
            (Role::Data, Content::Tar) => {
                let limits = Limits { bytes: object.plain.size, members: MEMBERS_MAX, times: 1 };
                let unpacker = Unpacker::new(&self.place.directory, limits)?;
                Ok(Some(Box::new(BaseSink { unpacker, unpacked: self.unpacked.clone() })))
            }
            (Role::Data, content) => Err(Error::new(
                Code::NotAvailable,
                format!("{} holds {content:?}, which cannot be restored into a data directory", object.key),
            )),
        }
    }

    fn complete(&mut self, task: &Task) -> Result<()> {
        let unpacked = *self.unpacked.lock().unwrap_or_else(|p| p.into_inner());
        let directory = &self.place.directory;
        let corrupted = |what: String| Error::new(Code::BackupCorrupted, what);
        let unpacked = unpacked.ok_or_else(|| corrupted("the backup has no base archive".to_owned()))?;
        if let Some(missing) = ESSENTIAL.iter().find(|name| !directory.join(name).is_file()) {
            return Err(corrupted(format!("the restored directory {} lacks {missing}", directory.display())));
        }
        self.check_identity()?;
        refuse_tablespaces(directory)?;
        for name in NOT_OURS {
            atomic_file::remove(&directory.join(name))?;
        }
        durable_tree::settle(directory, self.owner.as_ref(), task)?;
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
        };
        let found = checks::run(&subject, &self.tools, task)?;
        // The scratch server's command line is no business of whoever starts the real one.
        atomic_file::remove(&self.place.directory.join("postmaster.opts"))?;
        Ok(found)
    }
}

impl Session {
    /// The archive must be of the cluster that the signed manifest names.
    fn check_identity(&self) -> Result<()> {
        let identity = control_file::read(&self.place.directory)
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

/// A tablespace map makes the server create links to places outside, possibly those of the cluster in service.
fn refuse_tablespaces(directory: &Path) -> Result<()> {
    let path = directory.join("tablespace_map");
    let map = match fs::read_to_string(&path) {
        Ok(map) => map,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(Error::io("reading", &path, cause)),
    };
    if map.trim().is_empty() {
        return Ok(());
    }
    let text = format!("the backup has tablespaces, which cannot be restored yet: {}", map.trim().replace('\n', ", "));
    Err(Error::new(Code::PostgresUnsupported, text))
}

/// Unpacks what is written to it.
struct BaseSink {
    unpacker: Unpacker,
    unpacked: Arc<Mutex<Option<Unpacked>>>,
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
        let unpacked = self.unpacker.finish()?;
        *self.unpacked.lock().unwrap_or_else(|p| p.into_inner()) = Some(unpacked);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_map_is_refused() {
        let place = tempfile::tempdir().expect("tempdir");
        assert!(refuse_tablespaces(place.path()).is_ok());
        fs::write(place.path().join("tablespace_map"), b"").expect("map");
        assert!(refuse_tablespaces(place.path()).is_ok());
        fs::write(place.path().join("tablespace_map"), b"16384 /srv/fast\n").expect("map");
        assert_eq!(refuse_tablespaces(place.path()).map_err(|e| e.code()), Err(Code::PostgresUnsupported));
    }
}
