//! What goes wrong in a store. Each case names the place and the key, and knows its registered code.

use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Coded};
use std::io;
use std::ops::Range;

/// A failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing that could be a repository is at the place.
    #[error("opening the repository {location}: {cause}")]
    Absent {
        /// The place.
        location: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Another directory is at the place than the one that was opened: its filesystem was unmounted or exchanged.
    /// Nothing may be written there, or backups would land on the disk below the mount point.
    #[error(
        "the repository {location} is no longer the directory that was opened: its filesystem was unmounted or exchanged"
    )]
    Exchanged {
        /// The place.
        location: String,
    },
    /// The system refused an operation.
    #[error("{doing} {what} in {location}: {cause}")]
    Io {
        /// What was tried: `writing`, `flushing`.
        doing: &'static str,
        /// On what: a key or a name.
        what: String,
        /// The place.
        location: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A component of the key's path is a symbolic link, which is never followed: it could lead anywhere.
    #[error("{what} in {location} is a symbolic link; none is followed inside a repository")]
    SymbolicLink {
        /// The path below the place.
        what: String,
        /// The place.
        location: String,
    },
    /// There is no such object.
    #[error("{key} is not in {location}")]
    NotFound {
        /// Its key.
        key: ObjectKey,
        /// The place.
        location: String,
    },
    /// The key is taken.
    #[error("{key} is already in {location}")]
    Conflict {
        /// The key.
        key: ObjectKey,
        /// The place.
        location: String,
    },
    /// More bytes were asked for than there are. Whoever asks takes the range from a signed manifest, so the object
    /// was cut.
    #[error("{key} in {location} has {size} bytes; bytes {} to {} were wanted", .range.start, .range.end)]
    TooShort {
        /// Its key.
        key: ObjectKey,
        /// The place.
        location: String,
        /// What there is.
        size: u64,
        /// What was wanted.
        range: Range<u64>,
    },
    /// A small document is larger than any of its kind can be.
    #[error("{key} in {location} has more than {max} bytes")]
    TooLarge {
        /// Its key.
        key: ObjectKey,
        /// The place.
        location: String,
        /// The limit.
        max: u64,
    },
    /// A writer whose write failed cannot be committed.
    #[error("{key} in {location} was not written completely and cannot be committed")]
    Incomplete {
        /// Its key.
        key: ObjectKey,
        /// The place.
        location: String,
    },
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::Absent { .. } | StoreError::Exchanged { .. } => Code::RepositoryNotFound,
            StoreError::Io { cause, .. } if is_full(cause) => Code::BackupNoSpace,
            StoreError::Io { .. } | StoreError::SymbolicLink { .. } | StoreError::Incomplete { .. } => {
                Code::RepositoryIo
            }
            StoreError::NotFound { .. } => Code::ObjectNotFound,
            StoreError::Conflict { .. } => Code::ObjectConflict,
            StoreError::TooShort { .. } | StoreError::TooLarge { .. } => Code::BackupCorrupted,
        }
    }
}

fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Error;

    fn io_error(number: i32) -> Error {
        StoreError::Io {
            doing: "writing",
            what: "a".to_owned(),
            location: "/backup".to_owned(),
            cause: io::Error::from_raw_os_error(number),
        }
        .into()
    }

    // req: B5
    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        assert_eq!(io_error(libc::ENOSPC).code(), Code::BackupNoSpace);
        assert_eq!(io_error(libc::EDQUOT).code(), Code::BackupNoSpace);
        assert_eq!(io_error(libc::EIO).code(), Code::RepositoryIo);
        assert!(io_error(libc::EIO).message().contains("/backup"));
    }
}
