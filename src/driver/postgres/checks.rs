//! What a restored cluster is asked before it counts as restored.
//!
//! First the files, as they came out of the archive, against the server's own backup manifest; then a scratch server
//! recovers them and is asked. Questions run in read-only sessions, but for `amcheck`, which is made for the purpose
//! and rolled back.

use super::census::{self, COUNT_BUDGET, COUNT_LIMIT_BYTES, Scope};
use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, explain, quoted, within};
use super::scratch::{self, ScratchPlan, ScratchServer};
use super::tools::Tools;
use super::wal::replay::{self, Ending, Stop};
use super::{control_file, delta};
use crate::artifact::log_point::Lsn;
use crate::artifact::manifest::Manifest;
use crate::artifact::statistics::Statistics;
use crate::base::bytes::human;
use crate::base::process::{self, OsUser};
use crate::base::task::Task;
use crate::base::{Code, Result};
use crate::driver::HealthCheck;
use postgres::Client;
use postgres::error::SqlState;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How long `pg_verifybackup` may read without a word.
const VERIFY_SILENCE: Duration = Duration::from_secs(6 * 3600);
/// Most findings that are named in one check.
const NAMED_MAX: usize = 10;

/// What is checked.
pub(crate) struct Subject<'a> {
    /// What the backup says of itself.
    pub manifest: &'a Manifest,
    /// The restored data directory.
    pub directory: &'a Path,
    /// See [`ScratchPlan::workspace`].
    pub workspace: &'a Path,
    /// Who runs the scratch server; `None` = this process's own account.
    pub owner: Option<&'a OsUser>,
    /// The configured role.
    pub role: &'a str,
    /// The timeline that the backup was taken on, where that is known.
    pub timeline: Option<u32>,
    /// Where recovery ends, if the log is replayed.
    pub ending: Option<Ending>,
    /// How the server is told that.
    pub stop: Stop,
}

/// Makes all checks; see [`crate::driver::RestoreSession::check`].
pub(crate) fn run(subject: &Subject<'_>, tools: &Tools, task: &Task) -> Result<Vec<HealthCheck>> {
    scratch::require_reachable(subject.directory, subject.owner, tools, task)?;
    let mut found = Vec::new();
    // A cluster that a dump was loaded into has no files of the original.
    if subject.manifest.position.is_some() {
        found.push(verify_files(subject, tools, task)?);
        if found[0].passed == Some(false) {
            found.push(HealthCheck::skipped("connectivity", "not started: the files are damaged"));
            return Ok(found);
        }
    }
    let major = control_file::major_version(subject.directory)?;
    let facts = &subject.manifest.server.facts;
    let mut roles: Vec<String> = facts.get("superuser").cloned().into_iter().collect();
    roles.extend([subject.role.to_owned(), "postgres".to_owned()]);
    roles.dedup();
    let plan = ScratchPlan {
        data_directory: subject.directory,
        workspace: subject.workspace,
        user: subject.owner,
        major,
        facts,
        roles: &roles,
        recovery: &recovery(subject),
    };
    task.phase("recovering in a scratch server", 0);
    let server = match ScratchServer::start(&plan, tools, task) {
        Ok(server) => server,
        Err(cause) if cause.code() == Code::RestoreHealthFailed => {
            found.push(HealthCheck::of("connectivity", false, cause.message()));
            return Ok(found);
        }
        Err(cause) => return Err(cause),
    };
    task.phase("checking", 0);
    found.push(HealthCheck::of("connectivity", true, connected(&server, subject)));
    let address = server.address().clone();
    let due = match subject.ending {
        Some(ending) => Some(Lsn(ending.end).to_string()),
        None => subject.manifest.position.as_ref().map(|position| position.end.clone()),
    };
    let general = address.clone();
    found.extend(within(TALK_TIMEOUT, "checking the recovery", task, move || {
        let mut client = general.connect_any(CATALOG_TIMEOUT)?;
        let mut found = Vec::new();
        if let Some(due) = due {
            found.push(recovered_end(&mut client, &due));
        }
        if major >= 15 {
            found.push(collations(&mut client));
        }
        Ok(found)
    })?);
    found.extend(compare(&recorded(subject), &address, task)?);
    found.extend(every_database(&address, major, task)?);
    match server.stop() {
        Ok(()) => found.extend(subject.timeline.map(|timeline| left_timeline(subject, timeline))),
        Err(cause) => found.push(HealthCheck::of("clean_stop", false, cause.message())),
    }
    Ok(found)
}

/// How far the server recovers; whoever gets in finds one that has.
fn recovery(subject: &Subject<'_>) -> Vec<(String, String)> {
    let mut settings = replay::settings(subject.stop);
    settings.push(("hot_standby".to_owned(), "off".to_owned()));
    settings
}

/// What the manifest counted holds for the backup's own moment only.
fn recorded(subject: &Subject<'_>) -> Statistics {
    let mut recorded = subject.manifest.statistics.clone();
    recorded.exact &= subject.ending.is_none();
    recorded
}

/// Where recovery really ended, to the byte: the new timeline's history says so.
fn left_timeline(subject: &Subject<'_>, timeline: u32) -> HealthCheck {
    const NAME: &str = "timeline";
    match (replay::settle(subject.directory, timeline), subject.ending) {
        (Ok((new, end)), Some(ending)) => {
            let text = format!("goes on as timeline {new} from {}, {} was due", Lsn(end), Lsn(ending.end));
            HealthCheck::of(NAME, end == ending.end, text)
        }
        (Ok((new, end)), None) => HealthCheck::of(NAME, true, format!("goes on as timeline {new} from {}", Lsn(end))),
        (Err(cause), _) => HealthCheck::of(NAME, false, cause.message()),
    }
}

fn connected(server: &ScratchServer, subject: &Subject<'_>) -> String {
    let mut text = format!("PostgreSQL {} recovered and answers", subject.manifest.server.version);
    if !server.left_out.is_empty() {
        text.push_str(&format!("; not loaded for the check: {}", server.left_out.join(", ")));
    }
    text
}

fn verify_files(subject: &Subject<'_>, tools: &Tools, task: &Task) -> Result<HealthCheck> {
    const NAME: &str = "pg_verifybackup";
    if !tools.has(NAME) {
        return Ok(HealthCheck::skipped(NAME, format!("{} has no {NAME}", tools.bin_directory.display())));
    }
    task.phase("comparing files with the backup's manifest", 0);
    // The restore itself takes the signal files of a standby away.
    let mut tool = tools
        .tool(NAME)
        .args([
            "--quiet",
            "--ignore=standby.signal",
            "--ignore=recovery.signal",
            &format!("--ignore={}", delta::MARKER),
        ])
        .arg(subject.directory)
        .idle_timeout(VERIFY_SILENCE);
    if let Some(owner) = subject.owner {
        tool = tool.user(owner.clone());
    }
    let finished = process::run(tools.launcher.as_ref(), &tool, task)?;
    let said: Vec<&str> = finished.stderr.lines().take(NAMED_MAX).collect();
    let text = if finished.success { "every file is as it was sent".to_owned() } else { said.join(" | ") };
    Ok(HealthCheck::of(NAME, finished.success, text))
}

/// Recovery that ends early means lost transactions, whatever the server thinks of it.
fn recovered_end(client: &mut Client, planned: &str) -> HealthCheck {
    const NAME: &str = "recovered_end";
    let statement = "SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_insert_lsn() >= $1::text::pg_lsn";
    match client.query_one(statement, &[&planned]) {
        Ok(row) => {
            let (reached, enough): (String, bool) = (row.get(0), row.get(1));
            HealthCheck::of(NAME, enough, format!("{reached} was reached, {planned} was due"))
        }
        Err(cause) => HealthCheck::of(NAME, false, explain(&cause)),
    }
}

/// Text sorts by the C library's rules; with other rules than the original's, indexes on text may be wrong.
fn collations(client: &mut Client) -> HealthCheck {
    const NAME: &str = "collations";
    let statement = "SELECT datname::text, datcollversion, pg_database_collation_actual_version(oid) \
                     FROM pg_database WHERE datallowconn AND datcollversion IS NOT NULL \
                       AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid) ORDER BY 1";
    match client.query(statement, &[]) {
        Ok(rows) if rows.is_empty() => HealthCheck::of(NAME, true, "this host sorts text as the original did"),
        Ok(rows) => {
            let line = |row: &postgres::Row| {
                let (was, is): (Option<String>, Option<String>) = (row.get(1), row.get(2));
                format!("{} was {}, is {}", row.get::<_, String>(0), was.unwrap_or_default(), is.unwrap_or_default())
            };
            let lines: Vec<String> = rows.iter().take(NAMED_MAX).map(line).collect();
            let text = format!("this host sorts text by other rules ({}); run REINDEX DATABASE", lines.join("; "));
            HealthCheck::skipped(NAME, text)
        }
        Err(cause) => HealthCheck::of(NAME, false, explain(&cause)),
    }
}

/// `schema_consistency` and `counts` against what the manifest recorded.
fn compare(recorded: &Statistics, address: &Address, task: &Task) -> Result<Vec<HealthCheck>> {
    let unknown = |what: &str| recorded.remark.clone().unwrap_or_else(|| format!("{what} not recorded"));
    if recorded.schema.is_empty() && recorded.counts.is_empty() {
        let why = unknown("the schema was");
        return Ok(vec![HealthCheck::skipped("schema_consistency", &*why), HealthCheck::skipped("counts", why)]);
    }
    let databases = recorded_databases(&recorded.schema);
    let asked = address.clone();
    let there = within(TALK_TIMEOUT, "listing the databases", task, move || {
        let mut client = asked.connect_any(CATALOG_TIMEOUT)?;
        census::databases(&mut client, &[])
    })?;
    // A database that is gone shows as a difference of the schema.
    let scope: Vec<String> = match databases {
        Some(wanted) => there.into_iter().filter(|name| wanted.contains(name)).collect(),
        None => there,
    };
    let restored = census::take(address, &Scope::whole_schema(&scope), task)?.statistics;
    Ok(vec![compare_schema(recorded, &restored), compare_counts(recorded, &restored, unknown("rows were"))])
}

/// The databases that were listed; `None` where a name cannot be read back.
fn recorded_databases(schema: &BTreeSet<String>) -> Option<Vec<String>> {
    let names = schema.iter().filter_map(|line| line.strip_prefix("database "));
    names
        .map(|name| if name.starts_with('"') { serde_json::from_str(name).ok() } else { Some(name.to_owned()) })
        .collect()
}

fn compare_schema(recorded: &Statistics, restored: &Statistics) -> HealthCheck {
    const NAME: &str = "schema_consistency";
    if recorded.schema.is_empty() {
        return HealthCheck::skipped(NAME, "no schema was recorded");
    }
    let only_schema = Statistics { schema: recorded.schema.clone(), ..Statistics::default() };
    let differences = only_schema.differences(restored);
    if differences.is_empty() {
        return HealthCheck::of(NAME, true, format!("all {} recorded objects are there", recorded.schema.len()));
    }
    let text = shortened(&differences);
    if recorded.exact {
        HealthCheck::of(NAME, false, text)
    } else {
        // The list was made a moment before or after the backup's own; a table dropped in between is no damage.
        HealthCheck::skipped(NAME, format!("{text}; the database was written to while it was backed up"))
    }
}

fn compare_counts(recorded: &Statistics, restored: &Statistics, not_recorded: String) -> HealthCheck {
    const NAME: &str = "counts";
    if recorded.counts.is_empty() {
        return HealthCheck::skipped(NAME, not_recorded);
    }
    if !recorded.exact {
        let rows = format!("{} rows were counted around the backup, {} are there", recorded.rows(), restored.rows());
        return HealthCheck::skipped(NAME, format!("the database was written to while it was backed up: {rows}"));
    }
    if let (true, Some(why)) = (restored.counts.is_empty(), &restored.remark) {
        return HealthCheck::skipped(NAME, why.clone());
    }
    let only_counts = Statistics { counts: recorded.counts.clone(), exact: true, ..Statistics::default() };
    let differences = only_counts.differences(restored);
    if differences.is_empty() {
        let text = format!("{} rows in {} tables, as backed up", restored.rows(), recorded.counts.len());
        return HealthCheck::of(NAME, true, text);
    }
    HealthCheck::of(NAME, false, shortened(&differences))
}

fn shortened(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(NAMED_MAX);
    let named = lines.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{named}; and {more} more") } else { named }
}

/// What is asked of each database: `orphan_detection` and `amcheck`.
fn every_database(address: &Address, major: u32, task: &Task) -> Result<Vec<HealthCheck>> {
    let (address, inner) = (address.clone(), task.clone());
    within(COUNT_BUDGET + TALK_TIMEOUT, "checking tables and indexes", task, move || {
        let mut client = address.connect_any(CATALOG_TIMEOUT)?;
        let databases = census::databases(&mut client, &[])?;
        let statement = "SELECT coalesce(sum(pg_database_size(oid)), 0)::int8 FROM pg_database";
        let size = client.query_one(statement, &[]).map_err(asking("the size"))?.get::<_, i64>(0).max(0) as u64;
        drop(client);
        let mut files = FileSearch::default();
        for database in &databases {
            inner.check()?;
            let mut client = address.connect(database, CATALOG_TIMEOUT)?;
            files.search(&mut client, database)?;
        }
        let structure = if size > COUNT_LIMIT_BYTES {
            let limit = human(COUNT_LIMIT_BYTES);
            HealthCheck::skipped("amcheck", format!("the cluster holds {}, more than {limit}", human(size)))
        } else {
            amcheck(&address, &databases, major, &inner)?
        };
        Ok(vec![files.verdict(), structure])
    })
}

/// Relations without files, and files without relations.
#[derive(Default)]
struct FileSearch {
    relations: u64,
    missing: Vec<String>,
    ownerless: u64,
}

impl FileSearch {
    fn search(&mut self, client: &mut Client, database: &str) -> Result<()> {
        let what = format!("the files of {database}");
        let relations = "SELECT n.nspname::text, c.relname::text, \
                                (pg_stat_file(pg_relation_filepath(c.oid), true)).size IS NULL \
                         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                         WHERE c.relpersistence <> 't' AND pg_relation_filepath(c.oid) IS NOT NULL";
        for row in client.query(relations, &[]).map_err(asking(&what))? {
            self.relations += 1;
            if row.get(2) {
                self.missing.push(format!("{database}.{}.{}", row.get::<_, String>(0), row.get::<_, String>(1)));
            }
        }
        let files = "SELECT count(*) FROM pg_database d, pg_ls_dir('base/' || d.oid) file \
                     WHERE d.datname = current_database() AND file ~ '^[0-9]{1,9}$' \
                       AND pg_filenode_relation(0, file::oid) IS NULL";
        let ownerless: i64 = client.query_one(files, &[]).map_err(asking(&what))?.get(0);
        self.ownerless += ownerless.max(0) as u64;
        Ok(())
    }

    fn verdict(self) -> HealthCheck {
        const NAME: &str = "orphan_detection";
        if !self.missing.is_empty() {
            return HealthCheck::of(NAME, false, format!("without a file: {}", shortened(&self.missing)));
        }
        let mut text = format!("all {} relations have their files", self.relations);
        if self.ownerless > 0 {
            // A crash of the original server leaves such files; they waste space and harm nothing.
            text.push_str(&format!("; {} files belong to no relation", self.ownerless));
        }
        HealthCheck::of(NAME, true, text)
    }
}

/// PostgreSQL's own check of tables and B-trees. The extension is made in a transaction that is rolled back.
fn amcheck(address: &Address, databases: &[String], major: u32, task: &Task) -> Result<HealthCheck> {
    const NAME: &str = "amcheck";
    let mut checked = 0;
    for database in databases {
        task.check()?;
        let mut client = address.connect(database, COUNT_BUDGET)?;
        let there = client
            .query_opt("SELECT FROM pg_available_extensions WHERE name = 'amcheck'", &[])
            .map_err(asking("the extension amcheck"))?;
        if there.is_none() {
            return Ok(HealthCheck::skipped(NAME, "the extension amcheck is not installed on this host"));
        }
        match amcheck_database(&mut client, major) {
            Ok((count, None)) => checked += count,
            Ok((_, Some(damage))) => return Ok(HealthCheck::of(NAME, false, format!("{database}: {damage}"))),
            Err(cause) if cause.code() == Some(&SqlState::QUERY_CANCELED) => {
                let text = format!("{database}: that takes longer than {} s", COUNT_BUDGET.as_secs());
                return Ok(HealthCheck::skipped(NAME, text));
            }
            Err(cause) => return Ok(HealthCheck::of(NAME, false, format!("{database}: {}", explain(&cause)))),
        }
    }
    Ok(HealthCheck::of(NAME, true, format!("{checked} tables and indexes are sound")))
}

fn amcheck_database(client: &mut Client, major: u32) -> std::result::Result<(u64, Option<String>), postgres::Error> {
    client.batch_execute("SET default_transaction_read_only = off")?;
    let mut transaction = client.transaction()?;
    transaction.batch_execute("CREATE EXTENSION IF NOT EXISTS amcheck")?;
    let statement = "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
                     WHERE e.extname = 'amcheck'";
    let schema = quoted(&transaction.query_one(statement, &[])?.get::<_, String>(0));
    let mut checked = 0;
    // Tables can be checked since version 14.
    if major >= 14 {
        let tables = format!(
            "SELECT c.oid::regclass::text, count(v.msg), min(v.msg) \
             FROM pg_class c JOIN pg_am a ON a.oid = c.relam LEFT JOIN LATERAL {schema}.verify_heapam(c.oid) v ON true \
             WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p' AND a.amname = 'heap' GROUP BY c.oid"
        );
        for row in transaction.query(&tables, &[])? {
            checked += 1;
            let (name, problems, first): (String, i64, Option<String>) = (row.get(0), row.get(1), row.get(2));
            if problems > 0 {
                let text = format!("{name} has {problems} damaged places: {}", first.unwrap_or_default());
                return Ok((checked, Some(text)));
            }
        }
    }
    let indexes = format!(
        "SELECT count(*), count({schema}.bt_index_check(x.indexrelid)::text) FROM pg_index x \
         JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_am a ON a.oid = c.relam \
         WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND x.indisready AND x.indisvalid"
    );
    checked += transaction.query_one(&indexes, &[])?.get::<_, i64>(0).max(0) as u64;
    transaction.rollback()?;
    Ok((checked, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn statistics(rows: u64, exact: bool, schema: &[&str]) -> Statistics {
        Statistics {
            counts: BTreeMap::from([("db.public.t".to_owned(), rows)]),
            exact,
            schema: schema.iter().map(|line| (*line).to_owned()).collect(),
            ..Statistics::default()
        }
    }

    #[test]
    fn exact_counts_must_match_and_others_are_only_told() {
        let restored = statistics(3, false, &["table db.public.t"]);
        let verdict = |recorded: &Statistics| compare_counts(recorded, &restored, String::new()).passed;
        assert_eq!(verdict(&statistics(3, true, &[])), Some(true));
        assert_eq!(verdict(&statistics(4, true, &[])), Some(false));
        assert_eq!(verdict(&statistics(4, false, &[])), None);
        assert_eq!(verdict(&Statistics::not_checked("too large")), None);
    }

    #[test]
    fn a_missing_table_fails_unless_the_database_was_busy() {
        let restored = statistics(3, false, &["table db.public.t"]);
        let verdict = |recorded: &Statistics| compare_schema(recorded, &restored).passed;
        assert_eq!(verdict(&statistics(3, true, &["table db.public.t"])), Some(true));
        assert_eq!(verdict(&statistics(3, true, &["table db.public.gone"])), Some(false));
        assert_eq!(verdict(&statistics(3, false, &["table db.public.gone"])), None);
    }

    #[test]
    fn recorded_databases_read_back() {
        let schema = ["database a", "database \"b.c\"", "table a.public.t"].map(str::to_owned).into();
        assert_eq!(recorded_databases(&schema), Some(vec!["b.c".to_owned(), "a".to_owned()]));
    }
}
