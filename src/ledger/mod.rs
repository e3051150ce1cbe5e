//! Layer 2: the ledger, an SQLite file that remembers backups, jobs, events and restores.
//!
//! It is an index: what it says of backups can be rebuilt from the repositories. It is opened with a write-ahead log
//! and `synchronous=FULL`, so that what was recorded is durable; every record is one transaction.
//!
//! - [`backups`]: backups and their copies in repositories
//! - [`jobs`]: jobs, running and ended
//! - [`journal`]: events and restores
//! - [`log`]: the log's archive
//! - [`standing`]: how a target stands, without reading every backup

pub mod backups;
pub mod jobs;
pub mod journal;
pub mod log;
mod schema;
pub mod standing;

use crate::base::clock::Clock;
use crate::base::{Code, Coded, Result, space};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long a writer waits for another process's transaction. They are short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// What SQLite needs beside the file to begin with, in bytes: a page of shared memory, and the log's first.
const SHARED_MEMORY: u64 = 64 << 10;

/// What can go wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite refused.
    #[error("the ledger {path}: {cause}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
    },
    /// The migrations failed.
    #[error("bringing the ledger {path} up to date: {cause}")]
    Migration {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: rusqlite_migration::Error,
    },
    /// A newer release made it.
    #[error("the ledger {path} has version {found}, this release knows {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Its own check failed.
    #[error("the ledger {path} is damaged: {found}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What `PRAGMA integrity_check` said.
        found: String,
    },
}

impl Coded for LedgerError {
    fn code(&self) -> Code {
        match self {
            LedgerError::Newer { .. } => Code::LedgerNewer,
            LedgerError::Sqlite { path, cause } if has_no_room(path, cause) => Code::BackupNoSpace,
            _ => Code::LedgerFailed,
        }
    }
}

/// Whether a full filesystem is what is wrong. Where SQLite finds no room for its shared memory it speaks of the disk.
fn has_no_room(path: &Path, cause: &rusqlite::Error) -> bool {
    match cause.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => true,
        Some(rusqlite::ErrorCode::SystemIoFailure | rusqlite::ErrorCode::CannotOpen) => {
            space::of(path).is_ok_and(|space| space.available < SHARED_MEMORY)
        }
        _ => false,
    }
}

/// The open ledger. Calls from several threads take turns.
pub struct Ledger {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    connection: Mutex<Connection>,
}

impl Ledger {
    /// Opens the file (mode 0600), makes it if it is not there, and brings it up to date.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let sqlite = |cause| LedgerError::Sqlite { path: path.to_owned(), cause };
        // Made by us first, so that SQLite's own default mode never applies.
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o600)))
            .map_err(|cause| crate::base::Error::io("opening the ledger", path, cause))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
        if found > schema::CURRENT_VERSION {
            return Err(LedgerError::Newer { path: path.to_owned(), found, known: schema::CURRENT_VERSION }.into());
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(sqlite)?;
        if found < schema::CURRENT_VERSION {
            let migrated = schema::migrations().to_latest(&mut connection);
            migrated.map_err(|cause| LedgerError::Migration { path: path.to_owned(), cause })?;
        }
        Ok(Ledger { path: path.to_owned(), clock, connection: Mutex::new(connection) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SQLite's own check of the whole file. Error `LEDGER_FAILED` with what it found.
    pub fn integrity_check(&self) -> Result<()> {
        let found: String =
            self.with(|connection| connection.pragma_query_value(None, "integrity_check", |row| row.get(0)))?;
        if found == "ok" {
            return Ok(());
        }
        Err(LedgerError::Damaged { path: self.path.clone(), found }.into())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Runs queries that need no transaction.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.lock()).map_err(|cause| LedgerError::Sqlite { path: self.path.clone(), cause }.into())
    }

    /// Runs statements as one transaction: all of them are durable, or none.
    fn transact<T>(&self, work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let result =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).and_then(|transaction| {
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            });
        result.map_err(|cause| LedgerError::Sqlite { path: self.path.clone(), cause }.into())
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}

/// Reads a time as the tables hold it.
fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A column that holds text of one of our types; text that does not parse is damage.
fn parsed<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            format!("{text:?} is not what this column holds").into(),
        )
    })
}

/// [`parsed`] of a column that may be empty.
fn parsed_option<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => parsed(row, column).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    #[test]
    fn a_fresh_ledger_is_private_and_sound() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("ledger.db");
        let ledger = Ledger::open(&path, Arc::new(SystemClock)).expect("open");
        ledger.integrity_check().expect("sound");
        assert_eq!(path.metadata().expect("metadata").permissions().mode() & 0o777, 0o600);
        drop(ledger);
        Ledger::open(&path, Arc::new(SystemClock)).expect("open again");
    }

    #[test]
    fn a_newer_or_damaged_ledger_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("ledger.db");
        Connection::open(&path).expect("open").pragma_update(None, "user_version", 99).expect("set");
        let code = |path: &Path| Ledger::open(path, Arc::new(SystemClock)).err().map(|error| error.code());
        assert_eq!(code(&path), Some(Code::LedgerNewer));
        std::fs::write(&path, [7u8; 8192]).expect("write");
        assert_eq!(code(&path), Some(Code::LedgerFailed));
    }
}
