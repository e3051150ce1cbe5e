//! Everything that is wrong or weak about a Neo4j target, each with the literal change that mends it.

use super::bolt::{Cypher, is_refused_login};
use super::installation::{self, Match};
use super::layout::SYSTEM;
use super::{Neo4jDriver, census, occupancy};
use crate::base::Code;
use crate::base::ids::BackupKind;
use crate::base::task::{Severity, Task};
use crate::driver::Finding;
use nix::unistd::{AccessFlags, access};
use std::path::Path;
use std::time::Duration;

/// How long a server that starts is waited for until its database is open.
const STARTING: Duration = Duration::from_secs(5);

fn finding(code: &str, severity: Severity, text: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { code: code.to_owned(), severity, text: text.into(), fix: fix.into() }
}

/// Examines the target. Findings are in the order in which they are best mended.
pub(super) fn examine(driver: &Neo4jDriver, task: &Task) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(kind(driver.settings.full));
    let admin_works = program(&driver.settings.admin, "admin", "neo4j-admin", &mut found);
    program(&driver.settings.server_command, "server_command", "neo4j", &mut found);
    if driver.settings.conf.file_name().is_none_or(|name| name != "neo4j.conf") {
        let text =
            format!("conf is {}, but Neo4j's own tools read a file called neo4j.conf", driver.settings.conf.display());
        found.push(finding("conf-name", Severity::Error, text, "set `conf` to the path of the server's neo4j.conf"));
    }
    let running = files(driver, task, &mut found);
    bolt(driver, running, task, &mut found);
    if admin_works {
        version(driver, task, &mut found);
    }
    if driver.settings.full == BackupKind::Enterprise {
        enterprise(driver, admin_works, task, &mut found);
    }
    found
}

fn kind(full: BackupKind) -> Option<Finding> {
    (!matches!(full, BackupKind::Base | BackupKind::Dump | BackupKind::Enterprise)).then(|| {
        let text = format!("full backups of kind {full} are not available for Neo4j in this version");
        finding("kind-not-available", Severity::Error, text, "set `full = \"online\"`")
    })
}

fn program(path: &Path, setting: &str, name: &str, found: &mut Vec<Finding>) -> bool {
    let fix = format!("set `{setting}` to the path of {name}: `command -v {name}`");
    match access(path, AccessFlags::X_OK) {
        Ok(()) if path.is_file() => return true,
        Ok(()) => found.push(finding(
            &format!("{name}-missing"),
            Severity::Error,
            format!("{} is not a program", path.display()),
            fix,
        )),
        Err(cause) => {
            let text = format!("{} cannot be run: {}", path.display(), cause.desc());
            found.push(finding(&format!("{name}-missing"), Severity::Error, text, fix));
        }
    }
    false
}

/// Looks at configuration and data; tells whether the server runs.
fn files(driver: &Neo4jDriver, task: &Task, found: &mut Vec<Finding>) -> bool {
    let layout = match driver.conf().and_then(|conf| super::layout::Layout::of(&conf)) {
        Ok(layout) => layout,
        Err(error) => {
            found.push(finding("conf-unreadable", Severity::Error, error.message(), error.hint()));
            return false;
        }
    };
    match layout.owner(&driver.settings.database) {
        Err(error) => found.push(finding("database-missing", Severity::Error, error.message(), error.hint())),
        Ok(owner) if !owner.is_current() && !nix::unistd::geteuid().is_root() => {
            let text = format!("the data belongs to {0}, and only root can run neo4j-admin as {0}", owner.name);
            found.push(finding(
                "not-the-owner",
                Severity::Warning,
                text,
                "run backups through the service, or as root",
            ));
        }
        Ok(_) => {}
    }
    match super::log::store_id(&layout.logs(&driver.settings.database)) {
        Ok(Some(_)) => {}
        Ok(None) => {
            let text = format!("no store id in the logs at {}", layout.logs(&driver.settings.database).display());
            found.push(finding("store-id-unknown", Severity::Error, text, "set `home` and `conf` to the server's own"));
        }
        Err(error) => found.push(finding("data-unreadable", Severity::Error, error.message(), error.hint())),
    }
    if let Err(error) = occupancy::is_locked(&layout, &[SYSTEM]) {
        found.push(finding("locks-unreadable", Severity::Error, error.message(), error.hint()));
    } else if let Err(error) = driver.check_whereabouts(&layout, task) {
        found.push(finding("data-elsewhere", Severity::Error, error.message(), error.hint()));
    } else if let Err(error) = driver.check_open(&layout, &driver.server_version(task).edition, STARTING, task) {
        found.push(finding("database-not-open", Severity::Error, error.message(), error.hint()));
    }
    crate::driver::Driver::is_running(driver, task).unwrap_or(false)
}

fn bolt(driver: &Neo4jDriver, running: bool, task: &Task, found: &mut Vec<Finding>) {
    let Some(bolt) = driver.bolt() else {
        let text = "bolt is not configured: counts of nodes and relationships are neither recorded nor compared";
        let address = driver.conf().ok().and_then(|conf| conf.bolt_address());
        let (host, port) = address.unwrap_or_else(|| ("127.0.0.1".to_owned(), 7687));
        found.push(finding(
            "bolt-not-configured",
            Severity::Warning,
            text,
            format!("set `bolt = \"bolt://{host}:{port}\"`"),
        ));
        return;
    };
    let asks = driver.conf().is_ok_and(|conf| conf.asks_for_password());
    if asks && bolt.password_file.is_none() {
        let text = "the server asks for a password, but `password_file` is not set";
        found.push(finding("password-missing", Severity::Error, text, "set `user` and `password_file`"));
    }
    match bolt.read(&driver.settings.database, "RETURN 1 AS one", task) {
        Ok(_) => failed_indexes(&bolt, &driver.settings.database, task, found),
        Err(error) if is_refused_login(&error) => {
            found.push(finding("bolt-login-refused", Severity::Error, error.message(), error.hint()));
        }
        Err(error) if error.code() == Code::SecretUnsafe => {
            found.push(finding("password-file-unsafe", Severity::Error, error.message(), error.hint()));
        }
        Err(_) if !running => {
            let text = "the server does not run, so that bolt could not be tried";
            found.push(finding("server-stopped", Severity::Warning, text, "start the server"));
        }
        Err(error) => found.push(finding("bolt-unreachable", Severity::Error, error.message(), error.hint())),
    }
}

/// Indexes that the server could not build: a restored copy has them so, and queries do without.
fn failed_indexes(server: &dyn Cypher, database: &str, task: &Task, found: &mut Vec<Finding>) {
    let states = census::index_states(server, database, task).unwrap_or_default();
    for index in states.iter().filter(|index| index.is_failed()) {
        let text = format!("{} ({}) is FAILED: the server could not build it", index.name, index.line);
        let fix = "`SHOW INDEXES YIELD name, failureMessage` says why; drop it, or make it again once that is mended";
        found.push(finding("index-failed", Severity::Warning, text, fix));
    }
}

/// What a backup over Enterprise's backup port needs, and who else may reach that port.
fn enterprise(driver: &Neo4jDriver, admin_works: bool, task: &Task, found: &mut Vec<Finding>) {
    if admin_works {
        match driver.check_enterprise(task) {
            Ok(_) => {}
            // Another finding says both already.
            Err(error) if matches!(error.code(), Code::Neo4jAdminFailed) => {}
            Err(error) => {
                let code = "enterprise-backup-impossible";
                found.push(finding(code, Severity::Error, error.message(), error.hint()));
            }
        }
    }
    if driver.conf().is_ok_and(|conf| conf.backup_address().is_some() && conf.backup_is_exposed()) {
        let text =
            "the backup service asks for no password and listens for other hosts: whoever reaches it can copy the data";
        let fix =
            "set `server.backup.listen_address=127.0.0.1:6362`, or close the port and set `dbms.ssl.policy.backup`";
        found.push(finding("backup-service-exposed", Severity::Warning, text, fix));
    }
}

fn version(driver: &Neo4jDriver, task: &Task, found: &mut Vec<Finding>) {
    let tool = match driver.admin_version(task) {
        Ok(version) => version,
        Err(error) => {
            found.push(finding("neo4j-admin-fails", Severity::Error, error.message(), error.hint()));
            return;
        }
    };
    let server = driver.server_version(task).version;
    let severity = match installation::compare(&tool, &server) {
        Match::Same => return,
        Match::Patch => Severity::Warning,
        Match::Different => Severity::Error,
    };
    let text = format!("neo4j-admin is of version {tool}, the server of {server}");
    found.push(finding(
        "version-mismatch",
        severity,
        text,
        "set `admin` to the neo4j-admin of the server's own installation",
    ));
}
