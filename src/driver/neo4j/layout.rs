//! Where a server's files lie, how large they are, and who owns them.

use super::conf::Conf;
use super::log;
use crate::base::process::OsUser;
use crate::base::{Code, Error, Result};
use std::path::{Path, PathBuf};

/// The database that every server has for itself: users, roles, database names.
pub(super) const SYSTEM: &str = "system";

/// The two trees of a server: stores and transaction logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Holds one directory a database, and `store_lock`.
    pub(super) databases: PathBuf,
    /// Holds one directory a database.
    pub(super) transactions: PathBuf,
}

impl Layout {
    /// The layout of the server in service.
    pub(super) fn of(conf: &Conf) -> Result<Layout> {
        Ok(Layout { databases: conf.data()?.join("databases"), transactions: conf.transaction_logs()? })
    }

    /// The layout below a directory that a restore fills.
    pub(super) fn below(directory: &Path) -> Layout {
        Layout { databases: directory.join("databases"), transactions: directory.join("transactions") }
    }

    /// A database's store.
    pub(super) fn store(&self, database: &str) -> PathBuf {
        self.databases.join(database)
    }

    /// A database's transaction logs.
    pub(super) fn logs(&self, database: &str) -> PathBuf {
        self.transactions.join(database)
    }

    /// The account that the data belongs to. Error `NEO4J_UNSUPPORTED` if there is no such database.
    pub(super) fn owner(&self, database: &str) -> Result<OsUser> {
        let store = self.store(database);
        match store.try_exists() {
            Ok(true) => OsUser::owner_of(&store),
            Ok(false) => Err(Error::new(
                Code::Neo4jUnsupported,
                format!("there is no database {database:?}: {} is missing", store.display()),
            )
            .with_hint(
                "set `database` to a name that `SHOW DATABASES` lists, and `home` and `conf` to the server's own",
            )),
            Err(cause) => Err(Error::io("looking for", &store, cause)),
        }
    }

    /// Bytes that a backup of the database reads. The newest log file is preallocated; only its used part counts.
    pub(super) fn bytes(&self, database: &str) -> Result<u64> {
        let logs = self.logs(database);
        let checkpoint = log::last_checkpoint(&logs)?;
        let mut bytes = tree_bytes(&self.store(database))?;
        let mut files = log::numbered(&logs, log::TRANSACTIONS)?;
        let newest = files.pop();
        for (_, path) in files {
            bytes += file_bytes(&path)?;
        }
        if let Some((version, path)) = newest {
            bytes += match checkpoint {
                Some(checkpoint) if checkpoint.log_version == version => checkpoint.log_offset,
                _ => file_bytes(&path)?,
            };
        }
        Ok(bytes)
    }
}

fn file_bytes(path: &Path) -> Result<u64> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        // A running server removes files while we look.
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(cause) => Err(Error::io("examining", path, cause)),
    }
}

fn tree_bytes(directory: &Path) -> Result<u64> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(cause) => return Err(Error::io("listing", directory, cause)),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("listing", directory, cause))?;
        let kind = entry.file_type().map_err(|cause| Error::io("examining", &entry.path(), cause))?;
        bytes += if kind.is_dir() { tree_bytes(&entry.path())? } else { file_bytes(&entry.path())? };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up_and_a_missing_database_is_named() {
        let home = tempfile::tempdir().expect("tempdir");
        let layout = Layout::below(home.path());
        std::fs::create_dir_all(layout.store("neo4j").join("schema/index")).expect("mkdir");
        std::fs::create_dir_all(layout.logs("neo4j")).expect("mkdir");
        std::fs::write(layout.store("neo4j").join("neostore"), [0; 10]).expect("write");
        std::fs::write(layout.store("neo4j").join("schema/index/x"), [0; 5]).expect("write");
        std::fs::write(layout.logs("neo4j").join("neostore.transaction.db.0"), [0; 3]).expect("write");
        assert_eq!(layout.bytes("neo4j").expect("bytes"), 18);
        assert!(layout.owner("neo4j").expect("owner").is_current());
        assert_eq!(layout.owner("other").map_err(|e| e.code()), Err(Code::Neo4jUnsupported));
    }
}
