//! What lies in a data directory, and what of it belongs into a base backup.
//!
//! Left out is what the server makes anew at every start, what belongs to the running one, and what does not outlive a
//! crash. Source: "Making a Base Backup Using the Low Level API" in PostgreSQL's manual, and the lists in
//! `src/backend/backup/basebackup.c`.

use super::relation::{self, Fork, RelationFile};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Directories that are kept, but not what is in them. The log is added from `pg_wal` by itself.
const EMPTIED: [&str; 8] =
    ["pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];
/// Directories that a server wants to find below the emptied ones.
const KEPT_BELOW: [&str; 2] = ["pg_wal/archive_status", "pg_wal/summaries"];
/// Files that belong to the running server or to another backup.
const LEFT_OUT: [&str; 11] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles",
    "current_logfiles.tmp",
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "backup_manifest",
    "backup_manifest.old",
];
/// What files and directories that are only of the moment begin with.
const LEFT_OUT_PREFIXES: [&str; 2] = ["pgsql_tmp", "pg_internal.init"];
/// Directories without which a cluster is none: elsewhere by a link, they would be missed.
const ESSENTIAL: [&str; 9] =
    ["base", "global", "pg_xact", "pg_multixact", "pg_commit_ts", "pg_logical", "pg_twophase", "pg_tblspc", "pg_stat"];
/// Read last of all.
pub(super) const CONTROL: &str = "global/pg_control";
/// How deep directories may be nested: a cluster's are four deep.
const DEPTH_MAX: usize = 64;

/// A file of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterFile {
    /// Its path in the data directory.
    pub(super) path: PathBuf,
    /// Bytes when it was listed.
    pub(super) bytes: u64,
}

/// The content of a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Every directory but the root, parents first.
    pub(super) directories: Vec<PathBuf>,
    /// Every file but `global/pg_control`.
    pub(super) files: Vec<ClusterFile>,
    /// Links, things that are neither, and names that are no UTF-8; they are not backed up.
    pub(super) strange: Vec<PathBuf>,
}

impl Survey {
    /// Looks through a data directory. What vanishes meanwhile is not listed.
    pub(super) fn of(root: &Path, task: &Task) -> Result<Survey> {
        let mut survey = Survey::default();
        survey.visit(root, Path::new(""), task)?;
        for kept in KEPT_BELOW {
            if root.join(kept).is_dir() {
                survey.directories.push(kept.into());
            }
        }
        Ok(survey)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn visit(&mut self, root: &Path, below: &Path, task: &Task) -> Result<()> {
        task.check()?;
        if below.components().count() > DEPTH_MAX {
            let text = format!("{} is nested too deeply for a cluster", root.join(below).display());
            return Err(Error::new(Code::PostgresUnsupported, text));
        }
        let Some((names, odd)) = list(&root.join(below), below)? else { return Ok(()) };
        self.strange.extend(odd.into_iter().map(|name| below.join(name)));
        let unlogged: HashSet<&str> = names
            .iter()
            .filter_map(|name| RelationFile::parse(name))
            .filter(|file| file.fork == Fork::Init)
            .map(|file| file.number)
            .collect();
        let names = names.iter().filter(|name| !is_left_out(name) && !is_of_unlogged(name, &unlogged));
        let mut directories = Vec::new();
        for name in names {
            let path = below.join(name);
            let metadata = match fs::symlink_metadata(root.join(&path)) {
                Ok(metadata) => metadata,
                Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
                Err(cause) => return Err(Error::io("examining", &root.join(&path), cause)),
            };
            let emptied = EMPTIED.iter().any(|emptied| path == Path::new(emptied));
            let in_tablespaces = below == Path::new("pg_tblspc");
            if emptied && (metadata.is_dir() || metadata.is_symlink()) {
                self.directories.push(path);
            } else if metadata.is_dir() || (in_tablespaces && metadata.is_symlink()) {
                directories.push(path);
            } else if metadata.is_file() {
                if path != Path::new(CONTROL) {
                    self.files.push(ClusterFile { path, bytes: metadata.len() });
                }
            } else {
                refuse_essential(root, &path)?;
                self.strange.push(path);
            }
        }
        for path in directories {
            self.directories.push(path.clone());
            self.visit(root, &path, task)?;
        }
        Ok(())
    }
}

/// Names in a directory, in order, and those that are no UTF-8, as no name of PostgreSQL's own; `None` if it vanished.
fn list(directory: &Path, below: &Path) -> Result<Option<(Vec<String>, Vec<OsString>)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound && !below.as_os_str().is_empty() => return Ok(None),
        Err(cause) => return Err(Error::io("listing", directory, cause)),
    };
    let (mut names, mut odd) = (Vec::new(), Vec::new());
    for entry in entries {
        let name = entry.map_err(|cause| Error::io("listing", directory, cause))?.file_name();
        match name.into_string() {
            Ok(name) => names.push(name),
            Err(name) => odd.push(name),
        }
    }
    names.sort();
    Ok(Some((names, odd)))
}

fn is_left_out(name: &str) -> bool {
    LEFT_OUT.contains(&name)
        || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || relation::is_temporary(name)
}

/// After a recovery the server makes unlogged relations anew from their init forks.
fn is_of_unlogged(name: &str, unlogged: &HashSet<&str>) -> bool {
    RelationFile::parse(name).is_some_and(|file| file.fork != Fork::Init && unlogged.contains(file.number))
}

fn refuse_essential(root: &Path, path: &Path) -> Result<()> {
    let first = path.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    if first.is_none_or(|first| !ESSENTIAL.contains(&first.as_str())) {
        return Ok(());
    }
    let text = format!("{} is neither a file nor a directory, and a cluster needs it", root.join(path).display());
    Err(Error::new(Code::PostgresUnsupported, text)
        .with_hint("only pg_wal and tablespaces may lie elsewhere by a link"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(files: &[&str], directories: &[&str]) -> (tempfile::TempDir, Result<Survey>) {
        let place = tempfile::tempdir().expect("tempdir");
        let root = place.path().join("data");
        for directory in directories {
            fs::create_dir_all(root.join(directory)).expect("directory");
        }
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            fs::write(path, b"12345").expect("file");
        }
        let survey = Survey::of(&root, &Task::unobserved());
        (place, survey)
    }

    const FILES: &str = "PG_VERSION postgresql.conf postgresql.auto.conf postgresql.auto.conf.tmp postmaster.pid \
        postmaster.opts current_logfiles backup_label backup_label.old tablespace_map backup_manifest global/pg_control \
        global/pg_filenode.map global/pg_internal.init global/1262 base/5/16384 base/5/16384.1 base/5/16384_vm \
        base/5/pg_internal.init base/5/pg_internal.init.4711 base/5/t3_16390 base/5/t3_16390_fsm base/5/16400 \
        base/5/16400.1 base/5/16400_fsm base/5/16400_init base/5/PG_VERSION base/pgsql_tmp/pgsql_tmp12.3 \
        base/5/pgsql_tmp99 pg_wal/000000010000000000000001 pg_replslot/slot/state pg_dynshmem/mmap.1 pg_notify/0000 \
        pg_serial/0000 pg_snapshots/1 pg_stat_tmp/global.stat pg_subtrans/0000 pg_xact/0000 pg_stat/pgstat.stat \
        log/postgresql.log";
    const KEPT: &str = "PG_VERSION postgresql.auto.conf postgresql.conf base/5/16384 base/5/16384.1 base/5/16384_vm \
        base/5/16400_init base/5/PG_VERSION global/1262 global/pg_filenode.map log/postgresql.log pg_stat/pgstat.stat \
        pg_xact/0000";
    const DIRECTORIES: &str = "base base/5 global log pg_dynshmem pg_notify pg_replslot pg_serial pg_snapshots pg_stat \
        pg_stat_tmp pg_subtrans pg_twophase pg_wal pg_wal/archive_status pg_wal/summaries pg_xact";

    #[test]
    fn what_the_server_makes_anew_is_left_out_and_its_directories_are_kept() {
        let files: Vec<&str> = FILES.split_whitespace().collect();
        let (_place, survey) = survey(&files, &["pg_wal/archive_status", "pg_wal/summaries", "pg_twophase"]);
        let survey = survey.expect("survey");
        let files: Vec<_> = survey.files.iter().map(|file| file.path.to_str().expect("UTF-8")).collect();
        assert_eq!(files, KEPT.split_whitespace().collect::<Vec<_>>());
        let mut directories: Vec<_> = survey.directories.iter().map(|path| path.to_str().expect("UTF-8")).collect();
        directories.sort_unstable();
        assert_eq!(directories, DIRECTORIES.split_whitespace().collect::<Vec<_>>());
        assert_eq!((survey.bytes(), survey.strange.len()), (13 * 5, 0));
    }

    #[test]
    fn links_are_followed_only_where_postgresql_makes_them() {
        let place = tempfile::tempdir().expect("tempdir");
        let (root, elsewhere) = (place.path().join("data"), place.path().join("elsewhere"));
        for directory in ["data/pg_tblspc", "data/base", "elsewhere/wal", "elsewhere/fast/PG_15_202209061/5"] {
            fs::create_dir_all(place.path().join(directory)).expect("directory");
        }
        fs::write(elsewhere.join("wal/000000010000000000000001"), b"12345").expect("file");
        fs::write(elsewhere.join("fast/PG_15_202209061/5/16384"), b"12345").expect("file");
        let link = |to: &str, at: &str| {
            std::os::unix::fs::symlink(elsewhere.join(to), root.join(at)).expect("link");
        };
        link("wal", "pg_wal");
        link("fast", "pg_tblspc/16500");
        link("log", "log");
        let survey = Survey::of(&root, &Task::unobserved()).expect("survey");
        let file = ClusterFile { path: "pg_tblspc/16500/PG_15_202209061/5/16384".into(), bytes: 5 };
        assert_eq!(survey.files, [file]);
        assert_eq!(survey.strange, [Path::new("log")]);
        assert!(survey.directories.contains(&"pg_wal".into()));
        link("wal", "base/5");
        let refused = Survey::of(&root, &Task::unobserved());
        assert_eq!(refused.map_err(|e| e.code()), Err(Code::PostgresUnsupported));
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(Survey::of(Path::new("/no/such/cluster"), &Task::unobserved()).is_err());
    }
}
