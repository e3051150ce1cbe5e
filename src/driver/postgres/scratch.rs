//! A private server on a restored directory.
//!
//! Its configuration is generated, and whatever could reach out of it is given on the command line, which is stronger
//! than any file, the directory's own `postgresql.auto.conf` included: no listener but a socket in a private
//! directory, no archiving, no replication, no subscriptions, no jobs, no preloaded code but what the data cannot be
//! read without.

use super::connection::{Address, CATALOG_TIMEOUT, CONNECT_TIMEOUT, within};
use super::inspection::RECOVERY_SETTINGS;
use super::postmaster;
use super::tools::Tools;
use crate::base::clock::{Stopwatch, wait_until};
use crate::base::process::{self, OsUser, Running, Streams, Tool};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long recovery may take: the WAL of one base backup.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long the final checkpoint may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long processes may take to go away once they were told to drop everything.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a starting or stopping server is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The port is part of the socket's name only.
const PORT: u16 = 5432;
/// Longest directory of a socket: `sun_path` takes 107 bytes, `/.s.PGSQL.5432` included.
const SOCKET_DIRECTORY_MAX: usize = 107 - "/.s.PGSQL.5432".len();
/// Libraries that a database cannot be read without. Others could run jobs or connect elsewhere.
const NEEDED_LIBRARIES: [&str; 1] = ["timescaledb"];

/// What a scratch server is started with.
pub(crate) struct ScratchPlan<'a> {
    /// The restored data directory.
    pub data_directory: &'a Path,
    /// Where its socket and configuration go, if they can.
    pub workspace: &'a Path,
    /// Who runs it; `None` = this process's own account.
    pub user: Option<&'a OsUser>,
    /// Major version of the data directory.
    pub major: u32,
    /// The facts that the backup's manifest has of the server.
    pub facts: &'a BTreeMap<String, String>,
    /// Roles to connect as; the first that exists is taken.
    pub roles: &'a [String],
    /// Settings that say how far it recovers.
    pub recovery: &'a [(String, String)],
}

/// A running scratch server; dropping it ends it at once.
pub(crate) struct ScratchServer {
    running: Option<Running>,
    home: Home,
    data_directory: PathBuf,
    address: Address,
    /// Libraries of the original server that were left out.
    pub left_out: Vec<String>,
}

impl ScratchServer {
    /// Starts it and waits until it has recovered. Error `RESTORE_HEALTH_FAILED` with the server's last words if it
    /// gives up.
    pub(crate) fn start(plan: &ScratchPlan<'_>, tools: &Tools, task: &Task) -> Result<ScratchServer> {
        let home = Home::choose(plan, tools, task)?;
        let (libraries, left_out) = libraries(plan.facts, &tools.bin_directory);
        let mut tool = tools.tool("postgres").arg("-D").arg(plan.data_directory);
        for (name, value) in settings(plan, &home.directory, &libraries) {
            tool = tool.arg("-c").arg(format!("{name}={value}"));
        }
        let running = tools.launcher.launch(&as_user(tool, plan.user), Streams::default(), task)?;
        let mut server = ScratchServer {
            running: Some(running),
            address: Address {
                host: home.directory.display().to_string(),
                port: PORT,
                user: String::new(),
                password_file: None,
                preferred: Vec::new(),
            },
            home,
            data_directory: plan.data_directory.to_owned(),
            left_out,
        };
        server.wait_ready(plan.roles, task)?;
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    fn wait_ready(&mut self, roles: &[String], task: &Task) -> Result<()> {
        let watch = Stopwatch::start();
        let mut last = String::from("it did not accept connections");
        while watch.elapsed() < RECOVERY_TIMEOUT {
            task.check()?;
            if self.running.as_mut().is_none_or(|running| !running.is_alive()) {
                let ended = self.running.take().map(Running::wait).transpose()?;
                let words = ended.map(|ended| format!("{}: {}", ended.status, ended.stderr.replace('\n', " | ")));
                let text = format!("the scratch server gave up: {}", words.unwrap_or_default());
                return Err(Error::new(Code::RestoreHealthFailed, text));
            }
            // It may have become ready between two roles; once it lets anybody in, a refusal is about the role.
            match self.admitted(roles, task).and_then(|_| self.admitted(roles, task)) {
                Ok(address) => {
                    self.address = address;
                    return Ok(());
                }
                Err(cause) => last = cause.message().to_owned(),
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let text = format!("the scratch server was not ready within {} s: {last}", RECOVERY_TIMEOUT.as_secs());
        Err(Error::new(Code::RestoreHealthFailed, text))
    }

    /// The server's address as the first of these roles that it lets in.
    fn admitted(&self, roles: &[String], task: &Task) -> Result<Address> {
        let mut last = Error::new(Code::PostgresUnreachable, "there is no role to connect as");
        for role in roles {
            let address = Address { user: role.clone(), ..self.address.clone() };
            let asked = address.clone();
            let hello = move || asked.connect_any(CATALOG_TIMEOUT).map(|_| ());
            match within(2 * CONNECT_TIMEOUT, "connecting to the scratch server", task, hello) {
                Ok(()) => return Ok(address),
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    /// Stops it cleanly (a fast shutdown with its checkpoint).
    pub(crate) fn stop(mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.signal(Signal::SIGINT);
        if !wait_until(STOP_TIMEOUT, POLL_INTERVAL, || !running.is_alive()) {
            let text = format!("the scratch server did not stop within {} s", STOP_TIMEOUT.as_secs());
            self.running = Some(running);
            return Err(Error::new(Code::RestoreHealthFailed, text));
        }
        running.wait()?.expect_success(Code::RestoreHealthFailed, "stopping the scratch server")?;
        Ok(())
    }
}

impl Drop for ScratchServer {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // An immediate shutdown: the directory is given up anyway.
            running.signal(Signal::SIGQUIT);
            wait_until(ABANDON_TIMEOUT, POLL_INTERVAL, || !running.is_alive());
            drop(running);
            // Its children are no longer of its process group, and must be gone before the directory is removed.
            wait_until(ABANDON_TIMEOUT, POLL_INTERVAL, || {
                !postmaster::is_running(&self.data_directory).unwrap_or(false)
            });
        }
        let _ = fs::remove_dir_all(&self.home.directory);
    }
}

fn as_user(tool: Tool, user: Option<&OsUser>) -> Tool {
    match user {
        Some(user) => tool.user(user.clone()),
        None => tool,
    }
}

static HOMES: AtomicU64 = AtomicU64::new(0);

/// The directory of the socket and of the generated configuration: private, and its user's own.
struct Home {
    directory: PathBuf,
}

impl Home {
    /// Below the workspace if the path is short enough for a socket and the server's account gets there; else below
    /// the system's directory for temporary files.
    fn choose(plan: &ScratchPlan<'_>, tools: &Tools, task: &Task) -> Result<Home> {
        let candidates = [plan.workspace.to_owned(), std::env::temp_dir()];
        for parent in candidates {
            // Several restores may run in one process.
            let number = HOMES.fetch_add(1, Ordering::Relaxed);
            let directory = parent.join(format!("nba-{}-{number}", std::process::id()));
            if directory.as_os_str().len() > SOCKET_DIRECTORY_MAX {
                continue;
            }
            // Exclusive: a directory that somebody else put there is not taken.
            if DirBuilder::new().mode(0o700).create(&directory).is_err() {
                continue;
            }
            let home = Home { directory };
            home.fill(plan.user)?;
            if plan.user.is_none() || can(plan.user, "-x", &home.directory, tools, task)? {
                return Ok(home);
            }
            let _ = fs::remove_dir_all(&home.directory);
        }
        Err(Error::new(
            Code::RestoreFailed,
            format!("found no directory for the scratch server's socket in {}", plan.workspace.display()),
        )
        .with_hint("set TMPDIR to a short path that every account may enter"))
    }

    fn fill(&self, user: Option<&OsUser>) -> Result<()> {
        let files = [
            ("postgresql.conf", "# Everything is said on the command line.\n"),
            ("pg_hba.conf", "local all all trust\n"),
            ("pg_ident.conf", ""),
        ];
        for (name, content) in files {
            let path = self.directory.join(name);
            fs::write(&path, content).map_err(|cause| Error::io("writing", &path, cause))?;
        }
        let Some(user) = user else { return Ok(()) };
        for path in files.iter().map(|(name, _)| self.directory.join(name)).chain([self.directory.clone()]) {
            chown(&path, Some(user.uid), Some(user.gid))
                .map_err(|cause| Error::io(&format!("giving to {}", user.name), &path, cause))?;
        }
        Ok(())
    }
}

/// Whether the account passes `test FLAG PATH`.
fn can(user: Option<&OsUser>, flag: &str, path: &Path, tools: &Tools, task: &Task) -> Result<bool> {
    let tool = as_user(Tool::new("test").arg(flag).arg(path), user);
    Ok(process::run(tools.launcher.as_ref(), &tool, task)?.success)
}

/// Error `RESTORE_FAILED` if `user` cannot get at the restored directory.
pub(crate) fn require_reachable(
    data_directory: &Path,
    user: Option<&OsUser>,
    tools: &Tools,
    task: &Task,
) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    if can(Some(user), "-r", &data_directory.join("PG_VERSION"), tools, task)? {
        return Ok(());
    }
    Err(Error::new(
        Code::RestoreFailed,
        format!(
            "the account {} cannot reach {}: a directory above is closed to it",
            user.name,
            data_directory.display()
        ),
    )
    .with_hint("restore below a directory that the database's account may enter, or open the way: chmod o+x DIR"))
}

/// The original's preloaded libraries: those that are needed and installed here, and those left out.
fn libraries(facts: &BTreeMap<String, String>, bin_directory: &Path) -> (Vec<String>, Vec<String>) {
    let installed = |name: &str| {
        let file = format!("{name}.so");
        ["../lib", "../lib/postgresql", "../lib64"].iter().any(|lib| bin_directory.join(lib).join(&file).is_file())
    };
    facts
        .get("shared_preload_libraries")
        .map(String::as_str)
        .unwrap_or_default()
        .split(',')
        .map(|name| name.trim().trim_matches('"').trim_start_matches("$libdir/").to_owned())
        .filter(|name| !name.is_empty())
        .partition(|name| NEEDED_LIBRARIES.contains(&name.as_str()) && installed(name))
}

/// Everything the server is told, in the order of the command line.
fn settings(plan: &ScratchPlan<'_>, home: &Path, libraries: &[String]) -> Vec<(String, String)> {
    let file = |name: &str| home.join(name).display().to_string();
    let mut settings: Vec<(String, String)> = vec![
        ("config_file".into(), file("postgresql.conf")),
        ("hba_file".into(), file("pg_hba.conf")),
        ("ident_file".into(), file("pg_ident.conf")),
        ("unix_socket_directories".into(), home.display().to_string()),
        ("port".into(), PORT.to_string()),
        ("shared_preload_libraries".into(), libraries.join(",")),
        ("shared_buffers".into(), "64MB".into()),
        ("log_destination".into(), "stderr".into()),
        ("lc_messages".into(), "C".into()),
        ("cluster_name".into(), "neo4j_backup_scratch".into()),
        ("unix_socket_permissions".into(), "0700".into()),
        ("dynamic_library_path".into(), "$libdir".into()),
        ("max_logical_replication_workers".into(), "0".into()),
    ];
    // Nothing listens, nothing is sent, nothing is fetched, nothing runs by itself.
    const EMPTY: [&str; 18] = [
        "listen_addresses",
        "archive_command",
        "restore_command",
        "archive_cleanup_command",
        "recovery_end_command",
        "primary_conninfo",
        "primary_slot_name",
        "synchronous_standby_names",
        "session_preload_libraries",
        "local_preload_libraries",
        "external_pid_file",
        "unix_socket_group",
        "log_line_prefix",
        "recovery_target",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
        "recovery_target_lsn",
    ];
    const OFF: [&str; 9] = [
        "archive_mode",
        "ssl",
        "bonjour",
        "autovacuum",
        "logging_collector",
        "restart_after_crash",
        "jit",
        "huge_pages",
        "log_checkpoints",
    ];
    settings.extend(EMPTY.iter().map(|name| ((*name).to_owned(), String::new())));
    settings.extend(OFF.iter().map(|name| ((*name).to_owned(), "off".to_owned())));
    settings.extend(plan.recovery.iter().cloned());
    if plan.major >= 15 {
        settings.push(("archive_library".into(), String::new()));
    }
    if plan.major >= 17 {
        settings.extend(["event_triggers", "summarize_wal"].map(|name| (name.to_owned(), "off".to_owned())));
    }
    if libraries.iter().any(|name| name == "timescaledb") {
        settings.push(("timescaledb.max_background_workers".into(), "0".into()));
        settings.push(("timescaledb.telemetry_level".into(), "off".into()));
    }
    for name in RECOVERY_SETTINGS {
        // Only numbers: a manifest must not be able to say anything else here.
        if let Some(value) = plan.facts.get(name).and_then(|value| value.parse::<u32>().ok()) {
            settings.push((name.to_owned(), value.to_string()));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn nothing_reaches_out_of_a_scratch_server() {
        let facts = facts(&[("max_connections", "300"), ("max_wal_senders", "7 -c archive_mode=on")]);
        let plan = ScratchPlan {
            data_directory: Path::new("/restored"),
            workspace: Path::new("/w"),
            user: None,
            major: 17,
            facts: &facts,
            roles: &[],
            recovery: &[],
        };
        let said: BTreeMap<String, String> = settings(&plan, Path::new("/w/nba"), &[]).into_iter().collect();
        for name in ["listen_addresses", "archive_command", "archive_library", "primary_conninfo", "restore_command"] {
            assert_eq!(said[name], "", "{name}");
        }
        assert_eq!((said["archive_mode"].as_str(), said["event_triggers"].as_str()), ("off", "off"));
        assert_eq!(said["max_connections"], "300");
        assert!(!said.contains_key("max_wal_senders"));
    }

    #[test]
    fn only_needed_libraries_are_loaded() {
        let place = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(place.path().join("bin")).expect("bin");
        fs::create_dir_all(place.path().join("lib")).expect("lib");
        let facts = facts(&[("shared_preload_libraries", "timescaledb, pg_cron,\"$libdir/other\"")]);
        let bin = place.path().join("bin");
        assert_eq!(libraries(&facts, &bin).1, ["timescaledb", "pg_cron", "other"]);
        fs::write(place.path().join("lib/timescaledb.so"), b"").expect("library");
        fs::write(place.path().join("lib/pg_cron.so"), b"").expect("library");
        let (loaded, left_out) = libraries(&facts, &bin);
        assert_eq!(
            (loaded, left_out),
            (vec!["timescaledb".to_owned()], vec!["pg_cron".to_owned(), "other".to_owned()])
        );
    }
}
