//! What is kept beside the backups for the day when nothing of ours is left: `RECOVER.txt`, which says in plain words
//! what this is, and `restore.sh`, which restores with standard tools alone.
//!
//! The script must never put a secret into a program's arguments, where every user of the host can read it. OpenSSL's
//! own PBKDF2 command accepts the passphrase only there, so the script derives the signing key with python3, perl or,
//! at last, with the shell's own arithmetic.

use super::small_object::{put, read};
use super::store::{Commit, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Result};

/// `RECOVER.txt`.
pub const RECOVER_TEXT: &str = include_str!("recover.txt");
/// `restore.sh`.
pub const RESTORE_SCRIPT: &str = include_str!("restore.sh");

/// Largest earlier version that is read for comparison, in bytes.
const TEXT_MAX: u64 = 1 << 20;

/// Writes both files where they are missing or differ.
pub(super) fn refresh(store: &dyn Store) -> Result<()> {
    for (name, text) in outdated(store)? {
        put(store, &ObjectKey::new(name)?, text.as_bytes(), Commit::Replace)?;
    }
    Ok(())
}

/// Name and right content of what is missing or differs.
pub(super) fn outdated(store: &dyn Store) -> Result<Vec<(&'static str, &'static str)>> {
    let mut found = Vec::new();
    for (name, text) in [("RECOVER.txt", RECOVER_TEXT), ("restore.sh", RESTORE_SCRIPT)] {
        let key = ObjectKey::new(name)?;
        let current = match read(store, &key, TEXT_MAX) {
            Ok(bytes) => bytes == text.as_bytes(),
            // Missing, or too large to be ours.
            Err(error) if matches!(error.code(), Code::ObjectNotFound | Code::BackupCorrupted) => false,
            Err(error) => return Err(error),
        };
        if !current {
            found.push((name, text));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
