//! What a role and a server must allow for a base backup, with the statement that allows it.

use super::connection::{asking, quoted};
use super::inspection::setting;
use super::online;
use crate::base::Result;
use crate::base::task::Severity;
use crate::driver::Finding;
use postgres::Client;

fn obstacle(code: &str, text: String, fix: String) -> Finding {
    Finding { code: code.to_owned(), severity: Severity::Error, text, fix }
}

/// What stands in the way of a base backup, the most fundamental first.
pub(crate) fn obstacles(client: &mut Client, role: &str) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let rights = client
        .query_opt("SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user", &[])
        .map_err(asking("the role's rights"))?;
    if !rights.is_some_and(|row| row.get(0)) {
        found.push(obstacle(
            "role-without-replication",
            format!("the role {role} may not take a base backup"),
            format!("ALTER ROLE {} REPLICATION;", quoted(role)),
        ));
    }
    if setting(client, "wal_level")?.as_deref() == Some("minimal") {
        found.push(obstacle(
            "wal-level-minimal",
            "wal_level is minimal, which leaves out what a base backup needs".to_owned(),
            "ALTER SYSTEM SET wal_level = 'replica'; -- then restart the server".to_owned(),
        ));
    }
    if setting(client, "max_wal_senders")?.as_deref() == Some("0") {
        found.push(obstacle(
            "no-wal-senders",
            "max_wal_senders is 0, so no base backup can be taken".to_owned(),
            "ALTER SYSTEM SET max_wal_senders = 10; -- then restart the server".to_owned(),
        ));
    }
    Ok(found)
}

/// The right to begin and end a backup, without which `pg_basebackup` has to do it; asked for in `database`.
pub(crate) fn backup_functions(version_num: i32, role: &str, database: &str) -> Finding {
    let (start, stop) = online::signatures(version_num);
    Finding {
        code: "role-without-backup-functions".to_owned(),
        severity: Severity::Warning,
        text: format!(
            "the role {role} may not call the functions that begin and end a backup, so that backups go through \
             pg_basebackup, which is slower and takes no tablespaces"
        ),
        fix: format!("GRANT EXECUTE ON FUNCTION {start}, {stop} TO {}; -- in the database {database}", quoted(role)),
    }
}

/// Rights whose absence makes a backup's record poorer, but not the backup.
pub(crate) fn weaknesses(client: &mut Client, role: &str) -> Result<Vec<Finding>> {
    let statement = "SELECT right_name FROM unnest(ARRAY['pg_read_all_settings', 'pg_read_all_data']) right_name \
                     WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = right_name) \
                       AND NOT pg_has_role(current_user, right_name, 'USAGE')";
    let rows = client.query(statement, &[]).map_err(asking("the role's memberships"))?;
    let found = rows.iter().map(|row| row.get::<_, String>(0)).map(|right| {
        let loss = match right.as_str() {
            "pg_read_all_data" => "cannot count all tables, so that restores cannot be compared with them",
            _ => "cannot see where the server keeps its configuration, so that files outside are missed",
        };
        Finding {
            code: format!("role-without-{}", right.replace('_', "-")),
            severity: Severity::Warning,
            text: format!("the role {role} {loss}"),
            fix: format!("GRANT {right} TO {};", quoted(role)),
        }
    });
    Ok(found.collect())
}
