//! Layer 2: the ledger, an index in SQLite of what the repositories hold and what was done. It can be deleted at any
//! time and built anew from the manifests.
//!
//! - [`schema`]: tables, and how older files are brought up to date
//! - [`entry`]: what goes in and what comes out
//! - [`copy_state`]: the life of a backup's copy in a repository; pure
//! - [`backups`], [`chain`], [`rescan`], [`summary`]: backups, the end of each chain, rebuilding, totals
//! - [`jobs`], [`process_mark`]: jobs, and whether the process that ran one still lives
//! - [`events`], [`restores`], [`places`]: what happened, what was restored, which repositories and targets are known
//! - [`fault`]: what goes wrong
//!
//! Every change is one transaction, so that a kill between its statements leaves nothing of it. `synchronous=FULL`
//! makes a finished one durable.

pub mod backups;
pub mod chain;
pub mod copy_state;
pub mod entry;
pub mod events;
pub mod fault;
pub mod jobs;
pub mod places;
pub mod process_mark;
pub mod rescan;
pub mod restores;
mod row;
pub mod schema;
pub mod summary;

pub use copy_state::{CopyState, Observation};
pub use entry::{BackupEntry, BackupFilter, BackupRow, CopyRow, ObjectEntry};

use crate::base::clock::Clock;
use crate::base::{Error, Result, atomic_file};
use fault::LedgerError;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Params, Row, Transaction, TransactionBehavior};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long a call waits while another process writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module. One connection, used by one caller at a time.
pub struct Ledger {
    connection: Mutex<Connection>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({})", self.path.display())
    }
}

/// The statements of one change.
struct Steps<'a>(&'a Transaction<'a>);

impl Steps<'_> {
    /// Executes one statement; returns how many rows it touched.
    fn execute(&self, sql: &str, parameters: impl Params) -> rusqlite::Result<usize> {
        let touched = self.0.prepare_cached(sql)?.execute(parameters)?;
        #[cfg(test)]
        crash::point();
        Ok(touched)
    }

    /// Every row of a query.
    fn rows<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.0.prepare_cached(sql)?.query_map(parameters, read)?.collect()
    }

    /// The first row of a query, if it has one.
    fn first<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.0.prepare_cached(sql)?.query_map(parameters, read)?.next().transpose()
    }
}

impl Ledger {
    /// Opens the ledger, making it (mode 0600) or bringing it up to date. `LEDGER_NEWER` if a newer release made it,
    /// `LEDGER_FAILED` if it is damaged or no ledger.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Ledger> {
        let fresh = !path.exists();
        make_private(path)?;
        let fail = |cause| fault::at(path, "opening", cause);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(fail)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
        schema::refuse_newer(&connection, path)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(fail)?;
        connection.pragma_update(None, "trusted_schema", false).map_err(fail)?;
        schema::bring_up_to_date(&mut connection, path)?;
        if fresh {
            atomic_file::sync_parent(path)?;
        }
        Ok(Ledger { connection: Mutex::new(connection), clock, path: path.to_owned() })
    }

    /// Reads the whole file and checks it, references between tables included. Takes its time.
    pub fn integrity_check(&self) -> Result<()> {
        let complaints = self.read("checking", |connection| {
            let mut found: Vec<String> = connection
                .prepare("PRAGMA integrity_check(10)")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            found.retain(|line| line != "ok");
            let dangling: Vec<String> = connection
                .prepare("PRAGMA foreign_key_check")?
                .query_map([], |row| Ok(format!("dangling reference in {}", row.get::<_, String>(0)?)))?
                .collect::<rusqlite::Result<_>>()?;
            found.extend(dangling.into_iter().take(10));
            Ok(found)
        })?;
        if complaints.is_empty() {
            return Ok(());
        }
        Err(LedgerError::Damaged { path: self.path.clone(), found: complaints.join("; ") }.into())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic in a caller's closure rolled its transaction back; the connection itself is sound.
        self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn fault(&self, doing: &'static str, cause: rusqlite::Error) -> Error {
        fault::at(&self.path, doing, cause)
    }

    /// Looks something up.
    fn read<T>(&self, doing: &'static str, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        look(&self.connection()).map_err(|cause| self.fault(doing, cause))
    }

    /// Changes something: all of it or nothing.
    fn write<T>(&self, doing: &'static str, change: impl FnOnce(&Steps<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let work = || {
            // Immediate: waiting for another writer happens here, where nothing was read yet.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = change(&Steps(&transaction))?;
            transaction.commit()?;
            Ok(done)
        };
        work().map_err(|cause| self.fault(doing, cause))
    }
}

/// Makes the file if it is not there, readable by its owner alone; SQLite gives its other files the same mode.
fn make_private(path: &Path) -> Result<()> {
    let fail = |cause| Error::io("opening the ledger", path, cause);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(fail)?;
    }
    Ok(())
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
