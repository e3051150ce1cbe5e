//! Counts the rows of every user table and lists what the schema holds.
//!
//! Each database is counted in one `REPEATABLE READ` transaction, so its counts belong to a single snapshot. That
//! snapshot (`pg_current_snapshot()`: oldest and next transaction number and those in progress, for the whole cluster)
//! is also the mark: every transaction that writes gets a number and changes it by ending, while reading, checkpoints
//! and base backups leave it alone. Autovacuum's `ANALYZE` writes statistics and so moves it too; that errs on the safe
//! side. Rows of unlogged tables are not counted, because recovery empties those.

use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, explain, quoted, within};
use crate::artifact::statistics::Statistics;
use crate::base::bytes::{GIB, human};
use crate::base::clock::Stopwatch;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Census;
use postgres::error::SqlState;
use postgres::{Client, IsolationLevel, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Above this many bytes in all databases rows are not counted: reading everything once more would cost more than the
/// comparison is worth.
pub(crate) const COUNT_LIMIT_BYTES: u64 = 4 * GIB;
/// How long counting may take in all.
pub(crate) const COUNT_BUDGET: Duration = Duration::from_secs(120);
/// See the module: what any write moves.
const SNAPSHOT: &str = "SELECT pg_current_snapshot()::text";
/// What is added to the line of an index that is not valid.
pub(crate) const INVALID: &str = " (invalid)";
/// Most lines of schema that a manifest carries.
const SCHEMA_LINES_MAX: usize = 20_000;

/// What to count, and how long at most.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// Databases; empty = all that accept connections and are no templates.
    pub databases: Vec<String>,
    /// See [`COUNT_LIMIT_BYTES`].
    pub limit_bytes: u64,
    /// See [`COUNT_BUDGET`].
    pub budget: Duration,
    /// Snapshots to count in, by database; where none is named, a fresh one.
    pub snapshots: BTreeMap<String, String>,
    /// See [`SCHEMA_LINES_MAX`]; a restored copy is listed in full, or lines could seem to be missing.
    pub schema_lines_max: usize,
}

impl Scope {
    /// With the usual limits, for a server in service.
    pub(crate) fn of(databases: &[String]) -> Self {
        Scope {
            databases: databases.to_vec(),
            snapshots: BTreeMap::new(),
            limit_bytes: COUNT_LIMIT_BYTES,
            budget: COUNT_BUDGET,
            schema_lines_max: SCHEMA_LINES_MAX,
        }
    }

    /// With the usual limits, but the whole schema, for a restored copy.
    pub(crate) fn whole_schema(databases: &[String]) -> Self {
        Scope { schema_lines_max: usize::MAX, ..Scope::of(databases) }
    }
}

/// Counts what the server at `address` holds. The only error is `CANCELLED`: a server that cannot be asked has
/// uncounted statistics.
pub(crate) fn take(address: &Address, scope: &Scope, task: &Task) -> Result<Census> {
    let limit = scope.budget + CATALOG_TIMEOUT;
    let (address, scope, inner) = (address.clone(), scope.clone(), task.clone());
    match within(limit, "counting rows", task, move || Counting::new(&scope).run(&address, &inner)) {
        Ok(census) => Ok(census),
        Err(cause) if cause.code() == Code::Cancelled => Err(cause),
        Err(cause) => Ok(Census { statistics: Statistics::not_checked(cause.message()), mark: None }),
    }
}

/// The mark alone; `None` where the server cannot be asked. The only error is `CANCELLED`.
pub(crate) fn mark(address: &Address, wanted: &[String], task: &Task) -> Result<Option<String>> {
    let (address, wanted) = (address.clone(), wanted.to_vec());
    let asked = within(TALK_TIMEOUT, "asking for the snapshots", task, move || {
        let databases = databases(&mut address.connect_any(CATALOG_TIMEOUT)?, &wanted)?;
        let mut marks = BTreeSet::new();
        for database in &databases {
            let mut client = address.connect(database, CATALOG_TIMEOUT)?;
            let row = client.query_one(SNAPSHOT, &[]).map_err(asking("the snapshot"))?;
            marks.insert(row.get::<_, String>(0));
        }
        Ok(joined(marks))
    });
    match asked {
        Err(cause) if cause.code() == Code::Cancelled => Err(cause),
        asked => Ok(asked.ok().flatten()),
    }
}

fn joined(marks: BTreeSet<String>) -> Option<String> {
    let mark = marks.into_iter().collect::<Vec<_>>().join(" ");
    (!mark.is_empty()).then_some(mark)
}

struct Counting<'a> {
    scope: &'a Scope,
    watch: Stopwatch,
    statistics: Statistics,
    marks: BTreeSet<String>,
    /// Why rows are no longer counted.
    stopped: Option<String>,
    /// Tables that could not be counted, and why.
    skipped: Vec<String>,
}

/// A table as the catalog lists it.
struct Table {
    schema: String,
    name: String,
    kind: String,
    unlogged: bool,
    /// A partition or another table's child: its parent's count includes it.
    child: bool,
    readable: bool,
    populated: bool,
}

impl<'a> Counting<'a> {
    fn new(scope: &'a Scope) -> Self {
        Counting {
            scope,
            watch: Stopwatch::start(),
            statistics: Statistics::default(),
            marks: BTreeSet::new(),
            stopped: None,
            skipped: Vec::new(),
        }
    }

    fn run(mut self, address: &Address, task: &Task) -> Result<Census> {
        let mut client = address.connect_any(CATALOG_TIMEOUT)?;
        let databases = databases(&mut client, &self.scope.databases)?;
        let size = total_size(&mut client, &databases);
        drop(client);
        if size.is_some_and(|size| size > self.scope.limit_bytes) {
            self.stopped = Some(format!(
                "rows were not counted: the databases hold {}, more than {}",
                human(size.unwrap_or_default()),
                human(self.scope.limit_bytes)
            ));
        }
        for database in &databases {
            task.check()?;
            let mut client = address.connect(database, CATALOG_TIMEOUT)?;
            self.database(&mut client, database, task)?;
        }
        if self.stopped.is_some() {
            self.statistics.counts.clear();
        }
        if !self.skipped.is_empty() {
            self.remark(format!("not counted: {}", self.skipped.join("; ")));
        }
        let left_out = bound_schema(&mut self.statistics.schema, self.scope.schema_lines_max);
        if left_out > 0 {
            self.remark(format!("{left_out} objects of the schema were not listed"));
        }
        self.statistics.remark = self.stopped;
        Ok(Census { statistics: self.statistics, mark: joined(self.marks) })
    }

    fn database(&mut self, client: &mut Client, database: &str, task: &Task) -> Result<()> {
        let what = format!("the tables of {database}");
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .map_err(asking(&what))?;
        if let Some(id) = self.scope.snapshots.get(database) {
            transaction.batch_execute(&format!("SET TRANSACTION SNAPSHOT '{id}'")).map_err(asking(&what))?;
        }
        let snapshot: String = transaction.query_one(SNAPSHOT, &[]).map_err(asking(&what))?.get(0);
        self.marks.insert(snapshot);
        self.statistics.schema.insert(format!("database {}", plain(database)));
        let tables = tables(&mut transaction).map_err(asking(&what))?;
        for table in &tables {
            self.statistics.schema.insert(table.schema_line(database));
        }
        self.statistics.schema.extend(schema_lines(&mut transaction, database).map_err(asking(&what))?);
        for table in tables.iter().filter(|table| table.counts()) {
            task.check()?;
            self.count(&mut transaction, database, table)?;
        }
        Ok(())
    }

    fn count(&mut self, transaction: &mut Transaction<'_>, database: &str, table: &Table) -> Result<()> {
        if self.stopped.is_some() {
            return Ok(());
        }
        let name = table.full_name(database);
        if !table.readable {
            self.skipped.push(format!("{name} (the role may not read it)"));
            return Ok(());
        }
        let left = self.scope.budget.saturating_sub(self.watch.elapsed());
        if left.is_zero() {
            self.out_of_time();
            return Ok(());
        }
        let statement = format!("SELECT count(*) FROM {}.{}", quoted(&table.schema), quoted(&table.name));
        // A savepoint, so that one table that cannot be read does not end the snapshot for the others.
        let mut savepoint = transaction.transaction().map_err(asking("a savepoint"))?;
        let counted = savepoint
            .batch_execute(&format!("SET LOCAL statement_timeout = {}", left.as_millis().max(1)))
            .and_then(|()| savepoint.query_one(&statement, &[]));
        match counted {
            Ok(row) => {
                let rows: i64 = row.get(0);
                self.statistics.counts.insert(name, rows.max(0) as u64);
                savepoint.commit().map_err(asking("a savepoint"))
            }
            Err(cause) => {
                if savepoint.rollback().is_err() {
                    return Err(Error::new(Code::PostgresUnreachable, format!("counting {name}: {}", explain(&cause))));
                }
                match cause.code() {
                    Some(code) if *code == SqlState::QUERY_CANCELED => self.out_of_time(),
                    _ => self.skipped.push(format!("{name} ({})", explain(&cause))),
                }
                Ok(())
            }
        }
    }

    fn remark(&mut self, text: String) {
        self.stopped = Some(match self.stopped.take() {
            Some(earlier) => format!("{earlier}; {text}"),
            None => text,
        });
    }

    fn out_of_time(&mut self) {
        let seconds = self.scope.budget.as_secs();
        self.stopped = Some(format!("rows were not counted: that takes longer than {seconds} s"));
    }
}

impl Table {
    fn full_name(&self, database: &str) -> String {
        format!("{}.{}.{}", plain(database), plain(&self.schema), plain(&self.name))
    }

    fn counts(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "p" | "m") && !self.child && !self.unlogged && self.populated
    }

    fn schema_line(&self, database: &str) -> String {
        let kind = match self.kind.as_str() {
            "r" if self.unlogged => "unlogged table",
            "r" => "table",
            "p" => "partitioned table",
            "m" => "materialized view",
            "v" => "view",
            "S" => "sequence",
            _ => "foreign table",
        };
        format!("{kind} {}", self.full_name(database))
    }
}

/// Databases in the order of their names: those asked for, or all that can be connected to.
pub(crate) fn databases(client: &mut Client, wanted: &[String]) -> Result<Vec<String>> {
    let rows = client
        .query("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname", &[])
        .map_err(asking("the databases"))?;
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if let Some(missing) = wanted.iter().find(|name| !there.contains(name)) {
        let text = format!("the database {missing:?} of the configuration does not exist on this server");
        return Err(Error::new(Code::PostgresUnreachable, text)
            .with_hint(format!("set `databases` of the target to some of: {}", there.join(", "))));
    }
    Ok(if wanted.is_empty() { there } else { wanted.to_vec() })
}

/// Bytes of these databases; `None` where the role may not ask.
fn total_size(client: &mut Client, databases: &[String]) -> Option<u64> {
    let statement = "SELECT coalesce(sum(pg_database_size(datname)), 0)::int8 FROM pg_database WHERE datname = ANY($1)";
    client.query_one(statement, &[&databases]).ok().map(|row| row.get::<_, i64>(0).max(0) as u64)
}

/// Leaves out the system's schemas and TimescaleDB's own, whose contents its jobs change all the time; the chunks there
/// are counted through their hypertables.
const USER_SCHEMAS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND n.nspname !~ '^_timescaledb'";

fn tables(transaction: &mut Transaction<'_>) -> std::result::Result<Vec<Table>, postgres::Error> {
    let statement = format!(
        "SELECT n.nspname, c.relname, c.relkind::text, c.relpersistence = 'u', \
                EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid), \
                coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), false), \
                c.relispopulated \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f', 'S') AND {USER_SCHEMAS}"
    );
    let rows = transaction.query(&statement, &[])?;
    Ok(rows
        .iter()
        .map(|row| Table {
            schema: row.get(0),
            name: row.get(1),
            kind: row.get(2),
            unlogged: row.get(3),
            child: row.get(4),
            readable: row.get(5),
            populated: row.get(6),
        })
        .collect())
}

/// Indexes, constraints and extensions, a line each. Those of partitions and chunks stand with their parents.
fn schema_lines(
    transaction: &mut Transaction<'_>,
    database: &str,
) -> std::result::Result<Vec<String>, postgres::Error> {
    let no_child = "NOT EXISTS (SELECT FROM pg_inherits p WHERE p.inhrelid = c.oid)";
    let mut lines = Vec::new();
    let indexes = format!(
        "SELECT n.nspname, i.relname, x.indisvalid FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid \
         JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {USER_SCHEMAS} AND {no_child}"
    );
    for row in transaction.query(&indexes, &[])? {
        let (schema, name, valid): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let note = if valid { "" } else { INVALID };
        lines.push(format!("index {}.{}.{}{note}", plain(database), plain(&schema), plain(&name)));
    }
    let constraints = format!(
        "SELECT n.nspname, c.relname, o.conname, o.contype::text, o.convalidated FROM pg_constraint o \
         JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {USER_SCHEMAS} AND {no_child} AND o.contype IN ('c', 'f', 'p', 'u', 'x')"
    );
    for row in transaction.query(&constraints, &[])? {
        let (schema, table, name): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let kind = match row.get::<_, String>(3).as_str() {
            "c" => "check",
            "f" => "foreign key",
            "p" => "primary key",
            "u" => "unique",
            _ => "exclusion",
        };
        let note = if row.get(4) { "" } else { " (not valid)" };
        let table = format!("{}.{}.{}", plain(database), plain(&schema), plain(&table));
        lines.push(format!("{kind} constraint {table}.{}{note}", plain(&name)));
    }
    for row in transaction.query("SELECT extname, extversion FROM pg_extension", &[])? {
        let (name, version): (String, String) = (row.get(0), row.get(1));
        lines.push(format!("extension {}.{} {version}", plain(database), plain(&name)));
    }
    Ok(lines)
}

/// Unlogged tables of the given database's user schemas, which a restored server has empty.
pub(crate) fn unlogged_tables(client: &mut Client, database: &str) -> Result<Vec<String>> {
    let statement = format!(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND {USER_SCHEMAS} ORDER BY 1, 2"
    );
    let rows = client.query(&statement, &[]).map_err(asking("unlogged tables"))?;
    let name = |row: &postgres::Row| format!("{database}.{}.{}", row.get::<_, String>(0), row.get::<_, String>(1));
    Ok(rows.iter().map(name).collect())
}

/// Keeps the first `most` lines; returns how many were left out.
fn bound_schema(schema: &mut BTreeSet<String>, most: usize) -> usize {
    let left_out = schema.len().saturating_sub(most);
    for _ in 0..left_out {
        schema.pop_last();
    }
    left_out
}

/// A name as people write it; quoted only where its parts could not be told apart otherwise.
fn plain(name: &str) -> String {
    let simple = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-$".contains(c));
    if simple { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_only_where_needed() {
        assert_eq!(plain("metrics_2024"), "metrics_2024");
        assert_eq!(plain("a.b"), "\"a.b\"");
        assert_eq!(plain("line\nbreak"), "\"line\\nbreak\"");
    }

    #[test]
    fn the_schema_is_bounded() {
        let mut schema: BTreeSet<String> = (0..15).map(|n| format!("table {n:02}")).collect();
        assert_eq!((bound_schema(&mut schema, 10), schema.len()), (5, 10));
        assert_eq!((bound_schema(&mut schema, usize::MAX), schema.len()), (0, 10));
    }
}
