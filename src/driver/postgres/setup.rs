//! `setup`: the role, its rights, its admission and the archiving of the log, as far as a cluster lacks them.
//!
//! The server is asked and told as its administrator: by `psql`, as the account that owns the data directory. What a
//! server would have to be restarted for is set, and the restart left to a person.

use super::connection::{Address, quoted};
use super::{PostgresDriverSettings, admission, online, tools::Tools, wal};
use crate::base::ids::BackupKind;
use crate::base::process::{self, OsUser};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::setup::{SetupBy, SetupStep};
use serde::Deserialize;
use std::path::PathBuf;

/// What the server says of itself to its administrator. Settings are as its files have them: what waits for a restart
/// need not be set again.
#[derive(Debug, Deserialize)]
struct Facts {
    superuser: bool,
    hba: PathBuf,
    ident: PathBuf,
    standby: bool,
    role: RoleFacts,
    wal_level: String,
    max_wal_senders: String,
    archive_mode: String,
    archive_library: Option<String>,
    archive_command: String,
    restart_pending: bool,
}

#[derive(Debug, Deserialize)]
struct RoleFacts {
    exists: bool,
    login: bool,
    replication: bool,
    /// Memberships it lacks.
    lacks: Vec<String>,
    /// Functions that it may not call, with their arguments' types.
    refused: Vec<String>,
}

const MEMBERSHIPS: &str = "ARRAY['pg_read_all_settings', 'pg_read_all_data']";
const SWITCH: &str = "pg_switch_wal()";
/// Commands that somebody set so that archiving can be switched on later without a restart.
const PLACEHOLDERS: [&str; 6] = ["", "(disabled)", "true", "/bin/true", ":", "exit 0"];

/// The administrator's way to the server.
struct Administrator<'a> {
    tools: &'a Tools,
    address: &'a Address,
    account: OsUser,
}

impl Administrator<'_> {
    /// What a statement gives, one row of one column. No password is used: the account must be let in.
    fn ask(&self, database: &str, statement: &str, task: &Task) -> Result<String> {
        let port = self.address.port.to_string();
        let mut failure = None;
        // The role is called like the account that made the cluster, or was called so by somebody who made it for another.
        for role in [self.account.name.as_str(), "postgres"] {
            let words = ["-h", &self.address.host, "-p", &port, "-U", role, "-d", database, "-c", statement];
            let tool =
                self.tools.tool("psql").args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"]).args(words);
            let tool = if self.account.is_current() { tool } else { tool.user(self.account.clone()) };
            let finished = process::run(self.tools.launcher.as_ref(), &tool, task)?;
            if finished.success {
                return Ok(finished.text());
            }
            let said = finished.stderr.trim().replace('\n', "; ");
            let other_role =
                said.contains(&format!("role \"{role}\" does not exist")) || said.contains("authentication failed");
            failure.get_or_insert(Error::new(Code::PostgresUnreachable, said));
            if !other_role {
                break;
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(Code::Internal, "no role was tried")))
    }
}

/// See [`crate::driver::Driver::setup`].
pub(super) fn run(
    settings: &PostgresDriverSettings,
    address: &Address,
    tools: &Tools,
    apply: bool,
    task: &Task,
) -> Result<Vec<SetupStep>> {
    let account = OsUser::owner_of(&settings.data_directory)?;
    let administrator = Administrator { tools, address, account };
    let (database, facts) = facts(settings, &administrator, task)?;
    let mut steps = statements(settings, &facts);
    if apply {
        for step in steps.iter_mut().filter(|step| step.by == SetupBy::Statement) {
            administrator
                .ask(&database, &step.statement, task)
                .map_err(|error| error.context(format!("running `{}` in {database}", step.statement)))?;
            step.done = true;
            task.info(format!("{}: {}", step.text, step.statement));
        }
    }
    let files = admission::Files { hba: &facts.hba, ident: &facts.ident };
    steps.extend(admission::steps(settings, address, tools, &files, apply, task)?);
    if apply && steps.iter().any(|step| step.done) {
        administrator.ask(&database, "SELECT pg_reload_conf()", task)?;
        let wrong = "SELECT coalesce(string_agg(format('line %s: %s', line_number, error), '; '), '') \
                     FROM pg_hba_file_rules WHERE error IS NOT NULL";
        let wrong = administrator.ask(&database, wrong, task)?;
        if !wrong.trim().is_empty() {
            let text = format!("the server does not understand {}: {}", facts.hba.display(), wrong.trim());
            return Err(Error::new(Code::PostgresUnsupported, text)
                .with_hint("mend that line before the server is started again; until then the former rules hold"));
        }
    }
    steps.extend(left_over(settings, &facts, &steps));
    Ok(steps)
}

/// Asked in the database that the agent itself would connect to: rights on functions are each database's own.
fn facts(settings: &PostgresDriverSettings, administrator: &Administrator<'_>, task: &Task) -> Result<(String, Facts)> {
    let mut failure = None;
    for database in administrator.address.candidates() {
        let version = match administrator.ask(database, "SHOW server_version_num", task) {
            Ok(text) => text.trim().parse::<i32>().unwrap_or_default(),
            // Of the first: that one was meant.
            Err(error) => {
                failure.get_or_insert(error);
                continue;
            }
        };
        let statement = question(&settings.user, version);
        let text = administrator.ask(database, &statement, task)?;
        let facts: Facts = serde_json::from_str(text.trim())
            .map_err(|cause| Error::new(Code::PostgresUnsupported, format!("the server said {text:?}: {cause}")))?;
        if !facts.superuser {
            let text = format!("{} is no administrator of the server", administrator.account.name);
            return Err(Error::new(Code::PostgresUnsupported, text).with_hint(by_hand(settings)));
        }
        return Ok((database.to_owned(), facts));
    }
    let failure = failure.unwrap_or_else(|| Error::new(Code::PostgresUnreachable, "there is no database to ask"));
    let asking = format!("asking {} as its administrator {}", administrator.address, administrator.account.name);
    let stopped = failure.message().contains("No such file") || failure.message().contains("refused");
    let failure = failure.context(asking);
    Err(if stopped { failure } else { failure.with_hint(by_hand(settings)) })
}

/// One row with everything, as JSON.
fn question(role: &str, version: i32) -> String {
    let configured = |name: &str| {
        format!(
            "coalesce((SELECT setting FROM pg_file_settings WHERE name = '{name}' ORDER BY seqno DESC LIMIT 1), \
                      current_setting('{name}'))"
        )
    };
    let (start, stop) = online::signatures(version);
    let functions = [start, stop, SWITCH].map(literal).join(", ");
    format!(
        "SELECT json_build_object(\
           'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
           'hba', current_setting('hba_file'), 'ident', current_setting('ident_file'), \
           'standby', pg_is_in_recovery(), \
           'role', (SELECT json_build_object(\
               'exists', r.oid IS NOT NULL, 'login', coalesce(rolcanlogin, false), \
               'replication', coalesce(rolsuper OR rolreplication, false), \
               'lacks', (SELECT coalesce(json_agg(m), '[]') FROM unnest({MEMBERSHIPS}) m \
                         WHERE EXISTS (SELECT FROM pg_roles p WHERE p.rolname = m) \
                           AND pg_has_role(r.oid, m, 'USAGE') IS NOT TRUE), \
               'refused', (SELECT coalesce(json_agg(f), '[]') FROM unnest(ARRAY[{functions}]) f \
                           WHERE has_function_privilege(r.oid, 'pg_catalog.' || f, 'EXECUTE') IS NOT TRUE)) \
             FROM (SELECT {role}::name AS wanted) w LEFT JOIN pg_roles r ON r.rolname = w.wanted), \
           'wal_level', {wal_level}, 'max_wal_senders', {max_wal_senders}, 'archive_mode', {archive_mode}, \
           'archive_library', current_setting('archive_library', true), 'archive_command', {archive_command}, \
           'restart_pending', (SELECT bool_or(pending_restart) FROM pg_settings \
                               WHERE name IN ('archive_mode', 'wal_level', 'max_wal_senders')))",
        role = literal(role),
        wal_level = configured("wal_level"),
        max_wal_senders = configured("max_wal_senders"),
        archive_mode = configured("archive_mode"),
        archive_command = configured("archive_command"),
    )
}

/// Where nobody can be asked which of them are needed.
fn by_hand(settings: &PostgresDriverSettings) -> String {
    let role = quoted(&settings.user);
    format!(
        "run as an administrator: CREATE ROLE {role} LOGIN REPLICATION; GRANT pg_read_all_settings, pg_read_all_data TO \
         {role}; docs/POSTGRESQL.md has the rest"
    )
}

/// A text in an SQL statement.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What the server can be told at once.
fn statements(settings: &PostgresDriverSettings, facts: &Facts) -> Vec<SetupStep> {
    let role = quoted(&settings.user);
    let mut steps = Vec::new();
    let mut add = |text: &str, statement: String| steps.push(SetupStep::new(SetupBy::Statement, text, statement));
    // A standby has its roles from its primary.
    if !facts.standby {
        let known = &facts.role;
        if !known.exists {
            add("the role that backups are taken as", format!("CREATE ROLE {role} LOGIN REPLICATION"));
        } else if !known.login || !known.replication {
            add("the role may log in and take base backups", format!("ALTER ROLE {role} LOGIN REPLICATION"));
        }
        if !known.lacks.is_empty() {
            let text = "the role sees settings, and counts rows to compare restores with";
            add(text, format!("GRANT {} TO {role}", known.lacks.join(", ")));
        }
        if !known.refused.is_empty() {
            let functions: Vec<String> =
                known.refused.iter().map(|function| format!("pg_catalog.{function}")).collect();
            let text = "the role begins and ends backups, and ends segments of the log";
            add(text, format!("GRANT EXECUTE ON FUNCTION {} TO {role}", functions.join(", ")));
        }
    }
    if facts.wal_level == "minimal" {
        add("the log holds what a restore needs", "ALTER SYSTEM SET wal_level = 'replica'".to_owned());
    }
    if facts.max_wal_senders == "0" {
        add("base backups can be sent", "ALTER SYSTEM SET max_wal_senders = 10".to_owned());
    }
    if wants_archiving(settings, facts) && !another_archives(settings, facts) {
        if !wal::server::hands_over(&facts.archive_command, &settings.target) {
            let command = format!("neo4j-backupctl wal push {} %p", settings.target);
            let statement = format!("ALTER SYSTEM SET archive_command = {}", literal(&command));
            add("the server hands its log over", statement);
        }
        if facts.archive_mode == "off" {
            add("the server archives its log", "ALTER SYSTEM SET archive_mode = 'on'".to_owned());
        }
    }
    steps
}

/// Whether `archive_command` is how this target gets its log.
fn wants_archiving(settings: &PostgresDriverSettings, facts: &Facts) -> bool {
    !settings.by_slot && settings.full == BackupKind::Base && !facts.standby
}

fn another_archives(settings: &PostgresDriverSettings, facts: &Facts) -> bool {
    let command = facts.archive_command.trim();
    facts.archive_library.as_deref().is_some_and(|library| !library.is_empty())
        || !(PLACEHOLDERS.contains(&command) || wal::server::hands_over(command, &settings.target))
}

/// What is left to a person.
fn left_over(settings: &PostgresDriverSettings, facts: &Facts, steps: &[SetupStep]) -> Vec<SetupStep> {
    const RESTART: [&str; 3] = ["wal_level", "max_wal_senders", "archive_mode"];
    let mut left = Vec::new();
    if wants_archiving(settings, facts) && another_archives(settings, facts) {
        let text =
            "another tool archives the server's log and is left alone; a replication slot can hold it for this one";
        let statement = format!("wal = \"slot\" in [target.{}]", settings.target);
        left.push(SetupStep::new(SetupBy::Person, text, statement));
    }
    let sets = |name: &&str| steps.iter().any(|step| step.statement.contains(&format!("SYSTEM SET {name} ")));
    if facts.restart_pending || RESTART.iter().any(sets) {
        let text = "the server has to be restarted once, when it suits; what was set for archiving holds from then on";
        left.push(SetupStep::new(SetupBy::Person, text, "systemctl restart postgresql"));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(by_slot: bool) -> PostgresDriverSettings {
        PostgresDriverSettings {
            data_directory: PathBuf::from("/srv/data"),
            bin_directory: PathBuf::from("/usr/bin"),
            host: "/run/postgresql".to_owned(),
            port: 5432,
            user: "neo4j-backup".to_owned(),
            databases: vec![],
            password_file: None,
            config_directory: None,
            full: BackupKind::Base,
            dump_format: crate::driver::postgres::DumpFormat::Custom,
            lanes: None,
            target: "shop".to_owned(),
            spool: PathBuf::from("/spool"),
            spool_limit: 0,
            spool_drop: false,
            by_slot,
        }
    }

    fn facts(archive_mode: &str, archive_command: &str) -> Facts {
        Facts {
            superuser: true,

            hba: Path::new("/hba").to_owned(),
            ident: Path::new("/ident").to_owned(),
            standby: false,
            role: RoleFacts { exists: true, login: true, replication: true, lacks: vec![], refused: vec![] },
            wal_level: "replica".to_owned(),
            max_wal_senders: "10".to_owned(),
            archive_mode: archive_mode.to_owned(),
            archive_library: Some(String::new()),
            archive_command: archive_command.to_owned(),
            restart_pending: false,
        }
    }

    fn told(settings: &PostgresDriverSettings, facts: &Facts) -> Vec<String> {
        let mut steps = statements(settings, facts);
        steps.extend(left_over(settings, facts, &steps));
        steps.into_iter().map(|step| step.statement).collect()
    }

    #[test]
    fn a_server_that_lacks_nothing_is_told_nothing() {
        let ours = "neo4j-backupctl wal push shop %p";
        assert_eq!(told(&settings(false), &facts("on", ours)), Vec::<String>::new());
        assert_eq!(told(&settings(true), &facts("off", "")), Vec::<String>::new());
    }

    #[test]
    fn archiving_is_set_unless_another_tool_has_it() {
        let set = "ALTER SYSTEM SET archive_command = 'neo4j-backupctl wal push shop %p'";
        let (on, restart) = ("ALTER SYSTEM SET archive_mode = 'on'", "systemctl restart postgresql");
        for placeholder in ["", "/bin/true", "(disabled)"] {
            assert_eq!(told(&settings(false), &facts("off", placeholder)), [set, on, restart], "{placeholder}");
            assert_eq!(told(&settings(false), &facts("on", placeholder)), [set], "{placeholder}");
        }
        for other in ["pgbackrest archive-push %p", "neo4j-backupctl wal push shop2 %p"] {
            assert_eq!(told(&settings(false), &facts("on", other)), ["wal = \"slot\" in [target.shop]"], "{other}");
        }
    }

    // A role's name is the configuration's word, and goes into statements.
    #[test]
    fn names_and_texts_are_quoted() {
        let mut settings = settings(false);
        settings.user = "o\"br'ien".to_owned();
        let mut facts = facts("on", "neo4j-backupctl wal push shop %p");
        facts.role = RoleFacts {
            exists: false,
            login: false,
            replication: false,
            lacks: vec!["pg_read_all_data".to_owned()],
            refused: vec![],
        };
        let told = told(&settings, &facts);
        assert_eq!(
            told,
            ["CREATE ROLE \"o\"\"br'ien\" LOGIN REPLICATION", "GRANT pg_read_all_data TO \"o\"\"br'ien\""]
        );
        assert!(question(&settings.user, 150_000).contains("'o\"br''ien'::name"));
    }
}
