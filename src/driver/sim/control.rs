//! The files in `control/` with which a test steers the fake database.
//!
//! | file | content | effect |
//! |---|---|---|
//! | `size` | bytes | a full backup is a generated stream of that length instead of the tree |
//! | `pause-at` | bytes | reading blocks there until the file `go` appears or the job is cancelled |
//! | `pause-log-at` | bytes | reading the log blocks there, in the same way |
//! | `fail-at` | bytes | reading fails there |
//! | `fail-check` | text | the restored copy fails its connectivity check with this text |
//! | `fail-ready` | – | the server in service does not become ready while the file exists |

use crate::base::{Code, Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The control files of one fake database. They are read anew at each question.
#[derive(Clone, Debug)]
pub(super) struct Control {
    directory: PathBuf,
}

impl Control {
    /// The control files of the fake database in `directory`.
    pub(super) fn of(directory: &Path) -> Control {
        Control { directory: directory.join("control") }
    }

    /// The length of the stream that replaces the tree.
    pub(super) fn size(&self) -> Result<Option<u64>> {
        self.number("size")
    }

    /// Where reading blocks.
    pub(super) fn pause_at(&self) -> Result<Option<u64>> {
        self.number("pause-at")
    }

    /// Where reading the log blocks.
    pub(super) fn pause_log_at(&self) -> Result<Option<u64>> {
        self.number("pause-log-at")
    }

    /// Where reading fails.
    pub(super) fn fail_at(&self) -> Result<Option<u64>> {
        self.number("fail-at")
    }

    /// Whether a paused reader may go on.
    pub(super) fn may_go(&self) -> bool {
        self.directory.join("go").exists()
    }

    /// What a restored copy's check shall complain of.
    pub(super) fn check_failure(&self) -> Result<Option<String>> {
        self.text("fail-check")
    }

    /// Whether the server refuses to become ready.
    pub(super) fn refuses_ready(&self) -> bool {
        self.directory.join("fail-ready").exists()
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let invalid = |cause| {
            let text =
                format!("{} holds {text:?}, not a number of bytes: {cause}", self.directory.join(name).display());
            Error::new(Code::ConfigInvalid, text)
        };
        text.parse().map(Some).map_err(invalid)
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        let path = self.directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io("reading", &path, cause)),
        }
    }
}
