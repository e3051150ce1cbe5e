//! Whether the server that runs has the files open that `neo4j.conf` leads to. Another store that lies there, an old one
//! or a copy, would be backed up as if it were the one in service.

use super::bolt::{self, Bolt, Cypher};
use super::layout::{Layout, SYSTEM};
use super::occupancy;
use crate::base::clock::wait_until;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// How often a database is looked at that is to be opened.
const OPEN_INTERVAL: Duration = Duration::from_millis(100);
/// Where the running server keeps its data.
const QUERY: &str = "SHOW SETTINGS 'server.directories.data' YIELD value";

/// Error `NEO4J_UNSUPPORTED` if a server of this target answers and nobody has the files of `layout` open, or if the one who
/// has them writes their log elsewhere.
pub(super) fn check(layout: &Layout, databases: &[&str], home: &Path, bolt: Option<&Bolt>, task: &Task) -> Result<()> {
    if occupancy::is_locked(layout, databases)? {
        return check_log(layout, databases);
    }
    let data = layout.databases.parent().unwrap_or(&layout.databases);
    let said = match bolt.map(|bolt| bolt.read(SYSTEM, QUERY, task)) {
        Some(Ok(answer)) => {
            let row = answer.rows.first();
            row.and_then(|row| row.get("value")).and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        Some(Err(error)) if error.code() == Code::Cancelled => return Err(error),
        Some(Err(error)) if bolt::is_refused_login(&error) && occupancy::has_process(home) => String::new(),
        // Nobody answers: a server that starts, one that ends, or none.
        _ => return Ok(()),
    };
    // It may have opened them meanwhile.
    if same(Path::new(&said), data) || occupancy::is_locked(layout, databases)? {
        return Ok(());
    }
    let elsewhere = if said.is_empty() { "elsewhere".to_owned() } else { format!("in {said}") };
    let text =
        format!("the server answers, and it has no files open in {}: it keeps its data {elsewhere}", data.display());
    Err(Error::new(Code::Neo4jUnsupported, text).with_hint(
        "let `conf` and `home` of the target be those that the server was started with, and `bolt` be its address",
    ))
}

/// Waits until the server that runs has the database open; where nobody runs there is nothing to wait for. Error
/// `NEO4J_UNSUPPORTED` if it has not: what lies there is another one than the one in service, or does not start.
pub(super) fn check_open(layout: &Layout, database: &str, patience: Duration, task: &Task) -> Result<()> {
    let mut looked = Ok(true);
    // A server that starts opens one after the other.
    wait_until(patience, OPEN_INTERVAL, || {
        looked =
            task.check().and_then(|()| Ok(!occupancy::is_served(layout)? || occupancy::is_open(layout, database)?));
        !matches!(looked, Ok(false))
    });
    if looked? {
        return Ok(());
    }
    let text = format!(
        "the server that has {} open does not have the database {database} open: it serves another one, or that one does not start",
        layout.databases.display()
    );
    Err(Error::new(Code::Neo4jUnsupported, text).with_hint(
        "`SHOW DATABASES` says which it has and why one is offline; name the one to be backed up in `database` of the target",
    ))
}

/// A log that lies where `neo4j.conf` seems to lead, and is not written any more, would be archived as if nothing happened.
fn check_log(layout: &Layout, databases: &[&str]) -> Result<()> {
    let Some(elsewhere) = occupancy::logs_elsewhere(layout, databases)? else { return Ok(()) };
    let text = format!(
        "the server that has {} open writes its transaction log in {}, not in {}",
        layout.databases.display(),
        elsewhere.display(),
        layout.transactions.display()
    );
    Err(Error::new(Code::Neo4jUnsupported, text).with_hint(
        "let `conf` of the target be the file that the server was started with, with \
         `server.directories.transaction.logs.root` in it",
    ))
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
