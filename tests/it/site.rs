//! A whole installation in a temporary directory: configuration, keys, state, repository, and a simulated database.

use jiff::{SignedDuration, Timestamp};
use neo4j_backup_agent::agent::assemble::{self, Role};
use neo4j_backup_agent::base::clock::{Clock, SystemClock};
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::driver::restore_options::RestoreOptions;
use neo4j_backup_agent::operation::answer::{Answer, BackupReport};
use neo4j_backup_agent::operation::context::Context;
use neo4j_backup_agent::operation::request::{BackupRequest, Destination, Request, RestoreRequest, VerifyRequest};
use neo4j_backup_agent::operation::{self};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// The client.
pub(crate) const BACKUPCTL: &str = env!("CARGO_BIN_EXE_neo4j-backupctl");
/// The program under test.
pub(crate) const BACKUPD: &str = env!("CARGO_BIN_EXE_neo4j-backupd");

/// An installation; gone when dropped.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    clock_is_ahead: SignedDuration,
}

/// The host's clock, wrong by a constant.
struct WrongClock(SignedDuration);

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0
    }
}

impl Site {
    /// An installation whose configuration ends in `targets`.
    pub(crate) fn with(targets: &str) -> Site {
        let directory = tempfile::tempdir().expect("temporary directory");
        // Databases run as users of their own and must be able to pass through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let site = Site { directory, clock_is_ahead: SignedDuration::ZERO };
        fs::write(site.path("passphrase"), "a passphrase that only tests know\n").expect("passphrase");
        fs::set_permissions(site.path("passphrase"), fs::Permissions::from_mode(0o600)).expect("chmod");
        site.configure(targets);
        site
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, targets: &str) {
        let root = self.root().display();
        let text = format!(
            "environment = \"dev\"\nstate_directory = \"{root}/state\"\n\
             [repository.main]\ntype = \"local\"\npath = \"{root}/repository\"\n\
             [encryption]\npassphrase_file = \"{root}/passphrase\"\niterations = 1000\nallow_low_iterations = true\n\
             [preflight]\nminimum_free_percent = 0\n{targets}"
        );
        fs::write(self.config(), text).expect("configuration");
    }

    /// An installation with one simulated database, `sim`, that holds a few files.
    pub(crate) fn simulated() -> Site {
        let site = Site::with("");
        let root = site.root().display().to_string();
        site.configure(&format!("[target.sim]\nkind = \"sim\"\ndirectory = \"{root}/database\"\n"));
        neo4j_backup_agent::driver::sim::populate(&site.path("database"), 12, 40_000).expect("populate");
        site
    }

    /// The same with a database that has a log.
    pub(crate) fn logged() -> Site {
        let site = Site::simulated();
        neo4j_backup_agent::driver::sim::log::begin(&site.path("database")).expect("log");
        site
    }

    /// Sets the clock of what is carried out in this process wrong by so much.
    pub(crate) fn set_clock_ahead(&mut self, by: SignedDuration) {
        self.clock_is_ahead = by;
    }

    /// Its directory.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A path inside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Runs `neo4j-backupd run …` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("neo4j-backupd starts")
    }

    /// `neo4j-backupd --config … run`, to which arguments are added.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(BACKUPD);
        command.arg("--config").arg(self.config()).arg("run");
        command
    }

    /// The assembled agent, in this process.
    pub(crate) fn context(&self) -> Arc<Context> {
        let clock = Arc::new(WrongClock(self.clock_is_ahead));
        let context = assemble::assemble_at(&self.config(), Role::Run, clock).expect("assemble");
        assemble::recover(&context, Role::Run, &Task::unobserved()).expect("recover");
        context
    }

    /// Carries a request out in this process.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answer> {
        let context = self.context();
        operation::execute(&context, request, None, "test", &Task::unobserved())
    }

    /// Takes a backup.
    pub(crate) fn backup(&self, target: &str) -> BackupReport {
        match self.ask(&Request::Backup(backup_request(target))) {
            Ok(Answer::Backup(report)) => report,
            other => panic!("the backup failed: {other:?}"),
        }
    }

    /// Restores into a directory; the error's code if it was refused.
    pub(crate) fn restore_into(&self, target: &str, backup: &str, directory: &Path) -> Result<Answer, Code> {
        let request = RestoreRequest {
            backup: Some(backup.to_owned()),
            ..restore_request(target, Destination::Into(directory.to_owned()))
        };
        self.ask(&Request::Restore(request)).map_err(|error| error.code())
    }

    /// Verifies everything, reading every byte; the error that the report amounts to, if something is damaged.
    pub(crate) fn verify(&self) -> Result<Answer> {
        let answer = self.ask(&Request::Verify(VerifyRequest::default()))?;
        answer.verdict().map_or(Ok(answer), Err)
    }

    /// Every file of the repository that belongs to a backup.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.path("repository/environment=dev"), &mut found);
        found.retain(|path| !path.ends_with("owner.json"));
        found.sort();
        found
    }
}

/// A plain request for a backup.
pub(crate) fn backup_request(target: &str) -> BackupRequest {
    BackupRequest { target: TargetName::new(target).expect("name"), kind: None, note: None, dry_run: false }
}

/// A plain request for a restore of the newest backup.
pub(crate) fn restore_request(target: &str, destination: Destination) -> RestoreRequest {
    RestoreRequest {
        target: TargetName::new(target).expect("name"),
        backup: None,
        destination,
        until: None,
        no_recover: false,
        without_system: false,
        options: RestoreOptions::default(),
        dry_run: false,
    }
}

/// Every file below a directory.
pub(crate) fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type().expect("type").is_dir() {
            true => walk(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

/// Names and contents of a tree, for comparing two.
pub(crate) fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    walk(directory, &mut files);
    files.sort();
    let relative = |path: &PathBuf| path.strip_prefix(directory).expect("below").to_owned();
    files.iter().map(|path| (relative(path), fs::read(path).expect("read"))).collect()
}
