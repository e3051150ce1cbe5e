//! Everything that is wrong or weak about a cluster's settings, rights and versions, each with its remedy.

use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, within};
use super::inspection::{setting, version_num};
use super::tools::Tools;
use super::wal::source::PostgresLog;
use super::{PostgresDriverSettings, admission, base_backup, control_file, grants, inspection, online, wal};
use crate::base::task::{Severity, Task};
use crate::base::{Code, Error, Result, bytes};
use crate::driver::Finding;
use crate::driver::log::LogInbox;
use postgres::Client;
use std::fs;

/// Programs that backups and restores use, and whether they cannot do without.
const TOOLS: [(&str, bool); 4] =
    [("pg_basebackup", true), ("postgres", true), ("pg_verifybackup", false), ("pg_controldata", false)];

fn finding(code: &str, severity: Severity, text: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { code: code.to_owned(), severity, text: text.into(), fix: fix.into() }
}

/// See [`crate::driver::Driver::doctor`].
pub(crate) fn examine(
    settings: &PostgresDriverSettings,
    address: &Address,
    tools: &Tools,
    log: &PostgresLog,
    task: &Task,
) -> Vec<Finding> {
    let mut found = files(settings);
    let (asked, role, target) = (address.clone(), settings.user.clone(), settings.target.clone());
    let by_slot = settings.by_slot;
    let data_major = control_file::major_version(&settings.data_directory).ok();
    let major =
        match within(TALK_TIMEOUT, "examining the server", task, move || server(&asked, &role, &target, by_slot)) {
            Ok((major, of_server)) => {
                found.extend(of_server);
                if let Err(cause) = inspection::inspect(settings, address, tools, task) {
                    found.push(of_error("inspection-failed", &cause));
                }
                Some(major)
            }
            Err(cause) => {
                found.push(unreachable(settings, &cause));
                data_major
            }
        };
    found.extend(programs(tools, major, task));
    found.extend(spool(log));
    if major.is_some() && found.iter().all(|finding| finding.severity < Severity::Error) {
        found.extend(replication(settings, address, tools, task));
    }
    found
}

fn of_error(code: &str, cause: &Error) -> Finding {
    finding(code, Severity::Error, cause.message(), cause.hint())
}

fn unreachable(settings: &PostgresDriverSettings, cause: &Error) -> Finding {
    let role = &settings.user;
    let message = cause.message();
    if message.contains("does not exist") && message.contains("role") {
        let fix = format!("CREATE ROLE {} LOGIN REPLICATION;", super::connection::quoted(role));
        return finding("role-missing", Severity::Error, message, fix);
    }
    if message.contains("Peer authentication failed") {
        return finding("role-not-admitted", Severity::Error, message, admission::peer_map(settings));
    }
    if message.contains("authentication failed") || message.contains("no pg_hba.conf entry") {
        let fix = format!("add the line `local all {role} peer` to pg_hba.conf and run `SELECT pg_reload_conf();`");
        return finding("role-not-admitted", Severity::Error, message, fix);
    }
    if cause.code() != Code::PostgresUnreachable {
        return of_error("postgres-misconfigured", cause);
    }
    finding("postgres-unreachable", Severity::Error, message, "pg_lsclusters; systemctl start postgresql")
}

fn files(settings: &PostgresDriverSettings) -> Vec<Finding> {
    let directory = &settings.data_directory;
    let mut found = Vec::new();
    if let Err(cause) = control_file::read(directory) {
        let fix = "set `data_directory` of the target: SHOW data_directory;";
        found.push(finding("data-directory-unreadable", Severity::Error, cause.message(), fix));
    }
    let linked = |path: &std::path::Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if linked(&directory.join("pg_wal")) {
        let text = "pg_wal is a link to another place; a restored cluster has its WAL inside the data directory";
        found.push(finding("pg-wal-elsewhere", Severity::Warning, text, ""));
    }
    found
}

/// What the running server says; and its major version.
fn server(address: &Address, role: &str, target: &str, by_slot: bool) -> Result<(u32, Vec<Finding>)> {
    let mut client = address.connect_any(CATALOG_TIMEOUT)?;
    let version_num = version_num(&mut client)?;
    let major = version_num.max(0) as u32 / 10_000;
    let mut found = grants::obstacles(&mut client, role)?;
    found.extend(grants::weaknesses(&mut client, role)?);
    let refused = online::refused_in(address)?;
    found.extend(refused.as_ref().map(|database| grants::backup_functions(version_num, role, database)));
    let tablespaces = base_backup::tablespaces(&mut client)?;
    if !tablespaces.is_empty() {
        let named = tablespaces.join(", ");
        found.push(match refused.is_none() && online::takes_tablespaces(version_num) {
            true => {
                let text = format!("a restore puts tablespaces inside the data directory: {named}");
                finding("tablespaces", Severity::Info, text, "")
            }
            false => {
                let text = format!("the cluster has tablespaces, which cannot be backed up here: {named}");
                let fix = "ALTER TABLE ALL IN TABLESPACE … SET TABLESPACE pg_default; DROP TABLESPACE …;";
                finding("tablespaces", Severity::Error, text, fix)
            }
        });
    }
    if setting(&mut client, "data_checksums")?.as_deref() == Some("off") {
        let text = "data checksums are off: damage by the disk is not noticed and would be backed up as it is";
        let fix = "stop the server, run `pg_checksums --enable -D DATA_DIRECTORY`, start it";
        found.push(finding("no-data-checksums", Severity::Warning, text, fix));
    }
    let obstacle = if by_slot { None } else { wal::server::obstacle(&mut client, target)? };
    match obstacle {
        Some(why) => {
            let text = format!("the log is not archived, so that only full backups can be restored: {why}");
            found.push(finding("log-not-archived", Severity::Warning, text, wal::server::remedy(target)));
        }
        None if !wal::server::may_end_segments(&mut client)? => {
            let text = "the role may not end a segment, so that the newest log cannot be archived when it is due";
            found.push(finding("role-without-pg-switch-wal", Severity::Error, text, wal::server::grant(role)));
        }
        None => {}
    }
    found.extend(slot(&mut client, target, by_slot)?);
    for name in ["fsync", "full_page_writes"] {
        if setting(&mut client, name)?.as_deref() == Some("off") {
            let text = format!("{name} is off: a crash of the host can damage the cluster beyond recovery");
            let fix = format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();");
            found.push(finding(&format!("{}-off", name.replace('_', "-")), Severity::Warning, text, fix));
        }
    }
    Ok((major, found))
}

/// What is wrong with the replication slot that holds the log, or held it once.
fn slot(client: &mut Client, target: &str, by_slot: bool) -> Result<Vec<Finding>> {
    let name = wal::slot::name(target);
    let Some(standing) = wal::slot::standing(client, &name)? else { return Ok(Vec::new()) };
    let held = bytes::human(standing.held);
    if !by_slot {
        let text = format!(
            "the replication slot {name} holds {held} of log for nobody, and more every day, until the server's disk is full: \
             the target has no `wal = \"slot\"` any more"
        );
        return Ok(vec![finding("slot-left-behind", Severity::Error, text, wal::slot::drop_statement(&name))]);
    }
    let archive = format!("neo4j-backupctl backup {target} --type incremental");
    if standing.lost {
        let text =
            format!("the server let go of log that the replication slot {name} held: what was not archived is lost");
        return Ok(vec![finding("slot-lost", Severity::Error, text, archive)]);
    }
    // In megabytes, whatever it is shown in; -1 = without end.
    let statement = "SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'";
    let bound: i64 = client.query_one(statement, &[]).map_err(asking("max_slot_wal_keep_size"))?.get(0);
    let mut found = Vec::new();
    match u64::try_from(bound) {
        Err(_) => {
            let text = "max_slot_wal_keep_size is -1: while nothing is archived, the log that the replication slot holds grows \
                        until the server's disk is full";
            let fix = "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf();";
            found.push(finding("slot-without-bound", Severity::Warning, text, fix));
        }
        Ok(megabytes) if u128::from(standing.held) * 2 > u128::from(megabytes) << 20 => {
            let text = format!(
                "the replication slot {name} holds {held} of log; at {megabytes} MB (max_slot_wal_keep_size) the server lets \
                 go of what was not archived"
            );
            found.push(finding("slot-fills", Severity::Error, text, archive));
        }
        Ok(_) => {}
    }
    Ok(found)
}

/// Log that waits because a repository does not take it.
fn spool(log: &PostgresLog) -> Option<Finding> {
    let (filled, limit) = log.filling();
    let percent = (u128::from(filled) * 100 / u128::from(limit.max(1))) as u64;
    let severity = match percent {
        0..50 => return None,
        50..90 => Severity::Warning,
        _ => Severity::Error,
    };
    let text = format!(
        "the log that waits for a repository fills {percent} % of its room: {} of {}",
        bytes::human(filled),
        bytes::human(limit)
    );
    let fix = format!("neo4j-backupctl backup {} --type incremental", log.target());
    Some(finding("spool-fills", severity, text, fix))
}

fn programs(tools: &Tools, major: Option<u32>, task: &Task) -> Vec<Finding> {
    let package = |name: &str| {
        let version = major.map(|major| format!("-{major}")).unwrap_or_default();
        let part = if name == "pg_basebackup" { "postgresql-client" } else { "postgresql" };
        format!("apt-get install {part}{version}")
    };
    let mut found = Vec::new();
    for (name, needed) in TOOLS {
        let severity = if needed { Severity::Error } else { Severity::Warning };
        if !tools.has(name) {
            let text = format!("{} has no {name}", tools.bin_directory.display());
            found.push(finding("tool-missing", severity, text, package(name)));
            continue;
        }
        match tools.major_version(name, task) {
            Ok(version) if major.is_some_and(|major| major != version) => {
                let text = format!("{name} is of version {version}, the cluster of version {}", major.unwrap_or(0));
                found.push(finding("tool-of-other-version", severity, text, package(name)));
            }
            Ok(_) => {}
            Err(cause) => found.push(of_error("tool-fails", &cause)),
        }
    }
    found
}

/// Whether `pg_hba.conf` admits replication.
fn replication(settings: &PostgresDriverSettings, address: &Address, tools: &Tools, task: &Task) -> Option<Finding> {
    let said = admission::replication(settings, address, tools, task)?.err()?;
    let fix = format!(
        "add the line `local replication {} peer` to pg_hba.conf and run `SELECT pg_reload_conf();`",
        settings.user
    );
    let fix = if said.contains("Peer authentication failed") { admission::peer_map(settings) } else { fix };
    Some(finding("replication-not-admitted", Severity::Error, said, fix))
}
