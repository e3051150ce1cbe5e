//! What goes wrong with the ledger.

use crate::base::{Code, Coded, Error};
use rusqlite::ErrorCode;
use std::path::{Path, PathBuf};

/// A failure of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite refused.
    #[error("{doing} the ledger {}: {cause}", .path.display())]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// A newer release made the file.
    #[error("the ledger {} has version {found}, this release knows up to {known}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest known here.
        known: i64,
    },
    /// The file is damaged.
    #[error("the ledger {} is damaged: {found}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the check found.
        found: String,
    },
}

impl Coded for LedgerError {
    fn code(&self) -> Code {
        match self {
            LedgerError::Newer { .. } => Code::LedgerNewer,
            LedgerError::Sqlite { cause: rusqlite::Error::SqliteFailure(failure, _), .. } => match failure.code {
                ErrorCode::DiskFull => Code::BackupNoSpace,
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Code::Busy,
                _ => Code::LedgerFailed,
            },
            LedgerError::Sqlite { .. } | LedgerError::Damaged { .. } => Code::LedgerFailed,
        }
    }
}

pub(super) fn at(path: &Path, doing: &'static str, cause: rusqlite::Error) -> Error {
    LedgerError::Sqlite { doing, path: path.to_owned(), cause }.into()
}
