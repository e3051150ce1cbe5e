//! The registry of error codes, and [`Error`], the one type that crosses layers.
//!
//! Each module has typed errors of its own (`thiserror`), which say what was tried on what and implement [`Coded`].
//! `?` turns any of them into [`Error`], which keeps the code, the hint and the chain of causes. `docs/ERRORS.md`
//! lists every code; `tests/tidy.rs` compares the two.

use std::fmt;

/// What may sensibly be done after an error of this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// The same call will fail the same way until a person changes something.
    Never,
    /// It may go through later by itself (a busy lock, a server that is starting, a remote side that is overloaded).
    Later,
    /// Credentials: keep probing hourly, resume by itself.
    Probe,
}

macro_rules! registry {
    ($($variant:ident = $number:literal, $name:literal, exit $exit:literal, $retry:ident, $hint:literal;)*) => {
        /// A registered error: its name is stable, and is what scripts, alerts and D-Bus callers match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Code { $($variant = $number),* }

        impl Code {
            /// Every registered code, in the order of its number.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The stable name, for example `BACKUP_NO_SPACE`.
            pub fn name(self) -> &'static str { match self { $(Code::$variant => $name),* } }

            /// The exit status of a command that ends with this error.
            pub fn exit(self) -> u8 { match self { $(Code::$variant => $exit),* } }

            /// Whether trying again can help.
            pub fn retry(self) -> RetryClass { match self { $(Code::$variant => RetryClass::$retry),* } }

            /// What to do about it: prose and, where there is one, the literal command.
            pub fn hint(self) -> &'static str { match self { $(Code::$variant => $hint),* } }
        }
    };
}

registry! {
    Internal = 1, "INTERNAL", exit 1, Never, "this is a bug in neo4j-backup-agent; please report it with the lines above from `journalctl -u neo4j-backupd`";
    Usage = 2, "USAGE", exit 2, Never, "see `neo4j-backupctl help`";
    ConfigInvalid = 3, "CONFIG_INVALID", exit 78, Never, "correct the file and run `neo4j-backupctl config check`";
    SecretUnsafe = 4, "SECRET_UNSAFE", exit 78, Never, "a secret file must be a regular file, owned by root or the agent's user, mode 0600 or 0640 without access for others: `chmod 0600 FILE`";
    PassphraseInvalid = 5, "PASSPHRASE_INVALID", exit 78, Never, "the first line of the passphrase file must be 20 to 1023 bytes without carriage return or NUL: `neo4j-backupctl key new > FILE`";
    TargetUnknown = 6, "TARGET_UNKNOWN", exit 2, Never, "`neo4j-backupctl status` lists the configured targets";
    Busy = 7, "BUSY", exit 11, Later, "another run holds the lock; `neo4j-backupctl jobs` shows it, `neo4j-backupctl follow JOB` waits for it";
    Cancelled = 8, "CANCELLED", exit 130, Never, "the job was cancelled; nothing of it counts as a backup";
    Interrupted = 9, "INTERRUPTED", exit 1, Later, "the agent ended in the middle of this job; what it left was cleaned up, run the job again";
    NotConfirmed = 10, "NOT_CONFIRMED", exit 4, Never, "type the target's name when asked, or give `--yes`";
    NotAvailable = 11, "NOT_AVAILABLE", exit 4, Never, "this version cannot do that yet; `neo4j-backupctl help` lists what it can";
    NotAuthorised = 12, "NOT_AUTHORISED", exit 77, Never, "run it as root, or as the user that the agent runs as: `sudo neo4j-backupctl …`";
    BusUnavailable = 13, "BUS_UNAVAILABLE", exit 1, Later, "`systemctl status neo4j-backupd` shows why the agent does not answer; `neo4j-backupctl --direct` works without it";
    IoFailed = 14, "IO_FAILED", exit 1, Later, "look at the named path and at `dmesg` for errors of the disk below it";

    RepositoryNotFound = 20, "REPOSITORY_NOT_FOUND", exit 10, Never, "check the repository's path and that its filesystem is mounted; a new one is made by the first backup";
    RepositoryForeign = 21, "REPOSITORY_FOREIGN", exit 4, Never, "the repository's identity is not the one on record; check that the right disk or bucket is behind the path";
    RepositoryIo = 22, "REPOSITORY_IO", exit 1, Later, "look at the named path and at `dmesg` for errors of the disk below it";
    ObjectConflict = 23, "OBJECT_CONFLICT", exit 4, Never, "an object with other content already has this name and is left as it is; `neo4j-backupctl verify` shows which of the two is sound";
    ObjectNotFound = 24, "OBJECT_NOT_FOUND", exit 13, Never, "the repository lacks an object that a manifest names; `neo4j-backupctl verify --all` lists what is affected";
    FormatUnsupported = 25, "FORMAT_UNSUPPORTED", exit 4, Never, "it was written by a newer release; install that release or a later one to read it";
    OwnerConflict = 26, "OWNER_CONFLICT", exit 4, Never, "another host, data directory or agent writes this target's chain; if this one is the rightful successor: `neo4j-backupctl adopt TARGET`";
    StorageCredentials = 27, "STORAGE_CREDENTIALS", exit 15, Probe, "the store's credentials are missing, wrong or expired; they come from the environment, from a profile (`~/.aws/credentials` of the agent's user) or from the machine's role";
    StorageDenied = 28, "STORAGE_DENIED", exit 15, Probe, "the store's credentials lack a right; the message names it";
    StorageUnreachable = 29, "STORAGE_UNREACHABLE", exit 75, Later, "the store does not answer or is overloaded; check the repository's `endpoint` and the network to it, then run it again";

    BackupNoSpace = 30, "BACKUP_NO_SPACE", exit 14, Later, "free space on the named filesystem (`neo4j-backupctl cleanup --dry-run` shows which backups may go), or lower `[preflight] minimum_free_percent`";
    BackupCorrupted = 31, "BACKUP_CORRUPTED", exit 13, Never, "do not restore from this backup; `neo4j-backupctl list` shows the others, and take a new one now: `neo4j-backupctl backup TARGET`";
    BackupNotFound = 32, "BACKUP_NOT_FOUND", exit 4, Never, "`neo4j-backupctl list` shows the backups; after a loss of the ledger run `neo4j-backupctl rescan`";
    BackupIncomplete = 33, "BACKUP_INCOMPLETE", exit 13, Never, "it has no manifest, so it never counted as a backup; choose one that `neo4j-backupctl list` shows";
    BackupAmbiguous = 34, "BACKUP_AMBIGUOUS", exit 2, Never, "give more characters of the id";
    SignatureInvalid = 35, "SIGNATURE_INVALID", exit 13, Never, "the manifest was altered or signed with another key; do not use it, and look who may write to the repository";
    WrongKey = 36, "WRONG_KEY", exit 12, Never, "it was made with another passphrase; `neo4j-backupctl key list` shows the key ids at hand. One that was rotated away lies beside its file as FILE.KEYID: name that in `older_passphrase_files`";
    Downgrade = 37, "DOWNGRADE_REFUSED", exit 13, Never, "the object is less protected than this configuration demands; if that is meant, say so in `[encryption]`";

    BackupPartial = 38, "BACKUP_PARTIAL", exit 3, Later, "the backup counts where it is complete; look at the repository that failed and run it again: `neo4j-backupctl backup TARGET`";

    Neo4jUnreachable = 40, "NEO4J_UNREACHABLE", exit 75, Later, "check that the server runs and that `bolt`, `user` and `password_file` of the target are right";
    Neo4jAdminFailed = 41, "NEO4J_ADMIN_FAILED", exit 1, Later, "read the tool's last lines above; `neo4j-admin` must be of the server's version and run as the server's user";
    Neo4jUnsupported = 42, "NEO4J_UNSUPPORTED", exit 4, Never, "see docs/NEO4J.md for the versions and layouts that are supported";
    PostgresUnreachable = 43, "POSTGRES_UNREACHABLE", exit 75, Later, "check that the cluster runs and that the role may connect; docs/POSTGRESQL.md shows the role and its grants";
    PostgresToolFailed = 44, "POSTGRES_TOOL_FAILED", exit 1, Later, "read the tool's last lines above; the tools must be of the server's major version";
    PostgresUnsupported = 45, "POSTGRES_UNSUPPORTED", exit 4, Never, "see docs/POSTGRESQL.md for the versions and layouts that are supported";
    ToolMissing = 46, "TOOL_MISSING", exit 78, Never, "install the program or set its path in the target's section";
    ToolTimeout = 47, "TOOL_TIMEOUT", exit 75, Later, "the program was stopped because it made no progress in time; look at the server's own log";
    ServerControlFailed = 48, "SERVER_CONTROL_FAILED", exit 1, Later, "look at the unit: `systemctl status UNIT`, `journalctl -u UNIT`";

    SpoolFull = 49, "SPOOL_FULL", exit 75, Later, "the log waits for a repository that does not take it: `neo4j-backupctl check` says which; free it, or raise `[limits] spool`";

    RestoreHealthFailed = 50, "RESTORE_HEALTH_FAILED", exit 1, Never, "the restored data was not put into service; the check that failed is named above; try an older backup, or `--into DIR --no-recover`, which gives the files as they are";
    RestoreServerRunning = 51, "RESTORE_SERVER_RUNNING", exit 4, Never, "stop the server that uses this directory first, or restore into another one";
    RestoreNotEmpty = 52, "RESTORE_NOT_EMPTY", exit 4, Never, "give an empty or new directory, or `--in-place` to set the current data aside first";
    RestoreFailed = 53, "RESTORE_FAILED", exit 1, Later, "nothing in service was changed; the cause is named above";
    HostileArchive = 54, "HOSTILE_ARCHIVE", exit 13, Never, "the archive holds a member that could escape the directory; do not use it";
    SwapFailed = 55, "SWAP_FAILED", exit 1, Later, "the journal of the swap is kept and is finished or undone at the agent's next start";

    RestoreTargetUnreachable = 56, "RESTORE_TARGET_UNREACHABLE", exit 4, Never, "the archived log does not reach that point; `neo4j-backupctl status` shows what can be restored";
    LogGap = 57, "LOG_GAP", exit 13, Never, "a piece of the archived log is missing or damaged; what can still be restored is named above, and a new full backup closes the gap: `neo4j-backupctl backup TARGET`";
    LogForked = 58, "LOG_FORKED", exit 4, Never, "the database's history is not the one that was archived, and no restore of this agent explains it; if that is meant: `neo4j-backupctl adopt TARGET`";
    LogCorrupted = 59, "LOG_CORRUPTED", exit 13, Never, "the database's own log cannot be read to its end; look at the server's log and its disk, and take a full backup: `neo4j-backupctl backup TARGET`";

    LedgerFailed = 60, "LEDGER_FAILED", exit 1, Later, "the ledger is only an index: move it away and run `neo4j-backupctl rescan`";
    LedgerNewer = 61, "LEDGER_NEWER", exit 4, Never, "a newer release made this ledger; install that release, or move the file away and run `neo4j-backupctl rescan`";
    JobNotFound = 62, "JOB_NOT_FOUND", exit 4, Never, "`neo4j-backupctl jobs` lists running jobs, `neo4j-backupctl history` the ended ones";
}

impl Code {
    /// The code's number in `docs/ERRORS.md`.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The D-Bus error name, for example `org.neo4jbackup.Error.BackupNoSpace`.
    pub fn dbus_name(self) -> String {
        format!("org.neo4jbackup.Error.{self:?}")
    }

    /// Finds a code by its stable name.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error that knows its place in the registry.
pub trait Coded: std::error::Error {
    /// The registered code.
    fn code(&self) -> Code;

    /// A hint that fits this very case better than the code's own.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Any error of the crate: a typed cause, its code, and what was being done when it happened.
pub struct Error {
    code: Code,
    message: String,
    hint: Option<String>,
}

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error made on the spot, where a type of its own would have a single use.
    /// `message` is lower case and says what was tried on what.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), hint: None }
    }

    /// Replaces the code's general hint by one for this case.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what was being done: `context: message`. The code stays.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same message under another code, for a caller who knows better what the failure means.
    pub fn recode(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The registered code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What was tried on what, and why it failed; one line, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do: the case's own hint, or the code's.
    pub fn hint(&self) -> &str {
        self.hint.as_deref().unwrap_or_else(|| self.code.hint())
    }

    /// An I/O failure on a path. A full disk is told apart, because it has an exit code of its own.
    pub fn io(doing: &str, path: &std::path::Path, cause: std::io::Error) -> Self {
        let code = match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::BackupNoSpace,
            _ => Code::IoFailed,
        };
        Error::new(code, format!("{doing} {}: {cause}", path.display()))
    }
}

impl<E: Coded> From<E> for Error {
    fn from(cause: E) -> Self {
        let mut message = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            // Typed errors often print their cause themselves; saying it twice helps nobody.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = inner.source();
        }
        Error { code: cause.code(), hint: cause.hint(), message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (hint: {})", self.code, self.message, self.hint())
    }
}

/// Carries an [`Error`] through interfaces that only know `std::io::Error` (`Read`, `Write`), and back.
#[derive(Debug)]
struct Carried(Error);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Carried {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(Carried(error))
    }
}

impl Error {
    /// Takes back an [`Error`] that travelled as an I/O error; any other I/O error gets `doing` and `path`.
    pub fn from_io(doing: &str, path: &std::path::Path, cause: std::io::Error) -> Self {
        match cause.downcast::<Carried>() {
            Ok(carried) => carried.0,
            Err(cause) => Error::io(doing, path, cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_numbers_are_unique_and_hints_are_said() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        let numbers: HashSet<_> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert_eq!(numbers.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| !code.hint().is_empty() && code.exit() != 0));
    }

    // req: B11
    #[test]
    fn the_names_that_were_asked_for_exist() {
        for name in [
            "BACKUP_NO_SPACE",
            "BACKUP_CORRUPTED",
            "BACKUP_NOT_FOUND",
            "RESTORE_HEALTH_FAILED",
            "NEO4J_UNREACHABLE",
            "NEO4J_ADMIN_FAILED",
        ] {
            assert!(Code::from_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn an_error_survives_the_journey_through_io() {
        let io: std::io::Error = Error::new(Code::WrongKey, "decrypting x").into();
        assert_eq!(Error::from_io("reading", "x".as_ref(), io).code(), Code::WrongKey);
    }
}
