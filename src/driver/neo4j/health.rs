//! What is checked on a restored copy: through a scratch server while it runs, and by the official consistency check
//! once it has stopped.

use super::bolt::Cypher;
use super::census::{self, IndexState};
use super::dump::Admin;
use crate::artifact::statistics::Statistics;
use crate::base::clock::{Stopwatch, wait_until};
use crate::base::process::run;
use crate::base::task::Task;
use crate::base::{Code, Result};
use crate::driver::HealthCheck;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The database answers.
pub(super) const CONNECTIVITY: &str = "connectivity";
/// Indexes and constraints are all there and usable.
pub(super) const SCHEMA: &str = "schema_consistency";
/// As many nodes and relationships as were backed up.
pub(super) const COUNTS: &str = "counts";
/// No relationship without its two nodes.
pub(super) const ORPHANS: &str = "orphan_detection";
/// `neo4j-admin database check` on the closed files.
pub(super) const DATABASE_CHECK: &str = "database_check";

/// How long indexes may take to be built again.
const POPULATION_TIMEOUT: Duration = Duration::from_secs(1800);
/// How long an index that is built may take to come ONLINE.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often they are looked at.
const POPULATION_INTERVAL: Duration = Duration::from_millis(200);
/// How long the consistency check may say nothing; on a large store its steps are long.
const CHECK_SILENCE: Duration = Duration::from_secs(1800);
/// Memory beside its heap that the consistency check may use; it makes more passes over a store that needs more.
const CHECK_MEMORY: &str = "256m";

/// Counts every relationship whose start or end cannot be reached: reads each one, not the count store.
const DANGLING: &str =
    "MATCH ()-[r]->() WHERE startNode(r) IS NULL OR endNode(r) IS NULL OR type(r) IS NULL RETURN count(r) AS count";
/// Counts relationships from their nodes' side: one that hangs on no node is missing here.
const BY_NODES: &str = "MATCH (n) RETURN sum(COUNT { (n)-->() }) AS count";

/// The checks of a server that is up. A question that it does not answer is a failed check, not an error.
pub(super) fn of_server(
    server: &dyn Cypher,
    database: &str,
    recorded: &Statistics,
    task: &Task,
) -> Result<Vec<HealthCheck>> {
    let mut checks = Vec::new();
    let census = match census::take(server, database, task) {
        Ok(census) => census.statistics,
        Err(error) if error.code() == Code::Cancelled => return Err(error),
        Err(error) => return Ok(not_connected(error.message())),
    };
    checks.push(HealthCheck::of(CONNECTIVITY, true, format!("database {database} is online and answers")));
    checks.push(or_failed(SCHEMA, schema(server, database, recorded, &census, task))?);
    checks.push(or_failed(ORPHANS, orphans(server, database, &census, task))?);
    checks.push(counts(recorded, &census));
    Ok(checks)
}

/// The checks of a server that did not come up.
pub(super) fn not_connected(why: &str) -> Vec<HealthCheck> {
    let mut checks = vec![HealthCheck::of(CONNECTIVITY, false, why)];
    checks.extend([SCHEMA, ORPHANS, COUNTS].map(|name| HealthCheck::skipped(name, "the database did not answer")));
    checks
}

fn or_failed(name: &str, outcome: Result<HealthCheck>) -> Result<HealthCheck> {
    match outcome {
        Err(error) if error.code() != Code::Cancelled => Ok(HealthCheck::of(name, false, error.message())),
        other => other,
    }
}

fn schema(
    server: &dyn Cypher,
    database: &str,
    recorded: &Statistics,
    census: &Statistics,
    task: &Task,
) -> Result<HealthCheck> {
    let states = await_population(server, database, task)?;
    let Judged { usable, odd, mut complaints } = judge(&states, recorded);
    // Only the schema's half of the comparison: counts have a check of their own.
    let schema_alone = Statistics { counts: BTreeMap::new(), ..recorded.clone() };
    complaints.extend(schema_alone.differences(census));
    if !complaints.is_empty() {
        return Ok(HealthCheck::of(SCHEMA, false, complaints.join("; ")));
    }
    odd.iter().for_each(|what| task.warn(what));
    let odd: String = odd.iter().map(|what| format!("; {what}")).collect();
    let compared = match (recorded.schema.is_empty(), &recorded.remark) {
        (true, Some(remark)) => format!("; which ones were backed up is not known: {remark}"),
        _ => format!("; all {} recorded indexes and constraints are there", recorded.schema.len()),
    };
    Ok(HealthCheck::of(SCHEMA, true, format!("{usable} indexes are ONLINE{odd}{compared}")))
}

/// What is said of indexes.
struct Judged {
    /// How many can be used.
    usable: usize,
    /// Those that cannot be used, and need not be, with why.
    odd: Vec<String>,
    /// Those that should be.
    complaints: Vec<String>,
}

fn judge(states: &[IndexState], recorded: &Statistics) -> Judged {
    let mut judged = Judged { usable: 0, odd: Vec::new(), complaints: Vec::new() };
    // What the log brought may have failed in the source as well, as values do that are too large. Of a constraint's index it
    // would be a sign of data that break the constraint.
    let replayed = recorded.schema.is_empty();
    for index in states {
        let IndexState { name, state, line, constrains, is_built } = index;
        if state == "ONLINE" {
            judged.usable += 1;
        } else if index.is_failed() && (recorded.unusable.contains(line) || replayed && !constrains) {
            judged.odd.push(format!("index {name} ({line}) is FAILED: the server cannot build it of these data"));
        } else if index.is_populating() && *is_built && !constrains {
            judged.odd.push(format!(
                "index {name} ({line}) is POPULATING: the constraint that it was built for is not part of this state"
            ));
        } else {
            judged.complaints.push(format!("index {name} is {state}"));
        }
    }
    judged
}

/// Waits until indexes are built. One that is, and does not come ONLINE, belongs to a constraint that was not finished: the
/// server makes the index in a transaction of its own, and the constraint in a later one.
fn await_population(server: &dyn Cypher, database: &str, task: &Task) -> Result<Vec<IndexState>> {
    let watch = Stopwatch::start();
    let mut built: Option<Stopwatch> = None;
    loop {
        let states = census::index_states(server, database, task)?;
        let mut populating = states.iter().filter(|index| index.is_populating()).peekable();
        if populating.peek().is_none() || watch.elapsed() > POPULATION_TIMEOUT {
            return Ok(states);
        }
        built = if populating.all(|index| index.is_built) { built.or_else(|| Some(Stopwatch::start())) } else { None };
        if built.as_ref().is_some_and(|since| since.elapsed() > ONLINE_TIMEOUT) {
            return Ok(states);
        }
        wait_until(POPULATION_INTERVAL, POPULATION_INTERVAL, || false);
    }
}

fn orphans(server: &dyn Cypher, database: &str, census: &Statistics, task: &Task) -> Result<HealthCheck> {
    let dangling = census::count(server, database, DANGLING, task)?;
    let attached = census::count(server, database, BY_NODES, task)?;
    let stored = census.counts.get("relationships").copied().unwrap_or_default();
    if dangling > 0 {
        return Ok(HealthCheck::of(ORPHANS, false, format!("{dangling} relationships lack a node")));
    }
    let found = format!("{attached} of {stored} relationships hang on nodes");
    Ok(HealthCheck::of(ORPHANS, attached == stored, found))
}

fn counts(recorded: &Statistics, census: &Statistics) -> HealthCheck {
    if !recorded.exact || recorded.counts.is_empty() {
        let why = recorded.remark.as_deref().unwrap_or("the counts of the backup's moment are not known");
        return HealthCheck::skipped(COUNTS, why);
    }
    let counts_alone = Statistics { schema: Default::default(), ..recorded.clone() };
    let differences = counts_alone.differences(census);
    if differences.is_empty() {
        let each: Vec<String> = recorded.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        return HealthCheck::of(COUNTS, true, format!("{} as backed up", each.join(", ")));
    }
    HealthCheck::of(COUNTS, false, differences.join("; "))
}

/// The official consistency check of closed databases. What it finds is a failed check; that it could not run, too.
pub(super) fn of_files(admin: &Admin, workspace: &Path, databases: &[&str], task: &Task) -> Result<HealthCheck> {
    for database in databases {
        if let Some(complaint) = inconsistency(admin, workspace, database, task)? {
            return Ok(HealthCheck::of(DATABASE_CHECK, false, format!("database {database}: {complaint}")));
        }
    }
    let found = format!("`neo4j-admin database check` found nothing in {}", databases.join(" and "));
    Ok(HealthCheck::of(DATABASE_CHECK, true, found))
}

fn inconsistency(admin: &Admin, workspace: &Path, database: &str, task: &Task) -> Result<Option<String>> {
    let tool = admin
        .database("check")
        .arg(format!("--report-path={}", workspace.join("logs").display()))
        .arg(format!("--max-off-heap-memory={CHECK_MEMORY}"))
        .arg(database)
        .idle_timeout(CHECK_SILENCE);
    let finished = run(admin.launcher.as_ref(), &tool, task)?;
    if finished.success {
        return Ok(None);
    }
    let text = format!("{}\n{}", finished.text(), finished.stderr);
    let telling: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| ["nconsisten", "ERROR", "rror:", "ailed", "Caused by"].iter().any(|word| line.contains(word)))
        .collect();
    let words = telling[telling.len().saturating_sub(6)..].join(" | ");
    Ok(Some(format!("{}; it said: {words}", finished.status)))
}

#[cfg(test)]
mod tests {
    use super::super::census::tests::Script;
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn server(by_nodes: u64, index_state: &'static str) -> Script {
        Script(vec![
            (BY_NODES, json!([{"count": by_nodes}])),
            (DANGLING, json!([{"count": 0}])),
            ("MATCH (n)", json!([{"count": 3}])),
            ("MATCH ()", json!([{"count": 2}])),
            (
                "SHOW INDEXES",
                json!([{"name": "i", "type": "RANGE", "state": index_state, "entityType": "NODE",
                        "labelsOrTypes": ["A"], "properties": ["b"], "owningConstraint": null}]),
            ),
        ])
    }

    fn recorded() -> Statistics {
        Statistics {
            counts: BTreeMap::from([("nodes".to_owned(), 3), ("relationships".to_owned(), 2)]),
            exact: true,
            schema: BTreeSet::from(["index RANGE on NODE (`A`) [`b`]".to_owned()]),
            ..Statistics::default()
        }
    }

    fn failed(server: &Script, recorded: &Statistics) -> Vec<String> {
        let checks = of_server(server, "neo4j", recorded, &Task::unobserved()).expect("checks");
        checks.into_iter().filter(|check| check.passed == Some(false)).map(|check| check.name).collect()
    }

    // req: B8
    #[test]
    fn each_check_fails_by_its_own_name() {
        assert!(failed(&server(2, "ONLINE"), &recorded()).is_empty());
        assert_eq!(failed(&server(1, "ONLINE"), &recorded()), [ORPHANS]);
        assert_eq!(failed(&server(2, "FAILED"), &recorded()), [SCHEMA]);
        let mut other = recorded();
        other.counts.insert("nodes".to_owned(), 4);
        assert_eq!(failed(&server(2, "ONLINE"), &other), [COUNTS]);
        let mut other = recorded();
        other.schema.insert("constraint UNIQUENESS on NODE (`X`) [`y`]".to_owned());
        assert_eq!(failed(&server(2, "ONLINE"), &other), [SCHEMA]);
        assert_eq!(failed(&Script(Vec::new()), &recorded()), [CONNECTIVITY]);
    }

    #[test]
    fn an_index_that_the_source_could_not_use_fails_no_check() {
        let mut known = recorded();
        known.unusable = known.schema.clone();
        assert!(failed(&server(2, "FAILED"), &known).is_empty());
        assert!(failed(&server(2, "ONLINE"), &known).is_empty());
        assert!(failed(&server(2, "FAILED"), &known.clone().replayed("log was replayed")).is_empty());
        known.unusable = BTreeSet::from(["index RANGE on NODE (`B`) [`b`]".to_owned()]);
        assert_eq!(failed(&server(2, "FAILED"), &known), [SCHEMA]);
        assert!(failed(&server(2, "FAILED"), &known.replayed("log was replayed")).is_empty());

        let index = |state: &str, constrains, is_built| IndexState {
            name: "u".to_owned(),
            state: state.to_owned(),
            line: "index RANGE on NODE (`A`) [`b`]".to_owned(),
            constrains,
            is_built,
        };
        let bad = |index: IndexState, recorded: &Statistics| !judge(&[index], recorded).complaints.is_empty();
        let replayed = recorded().replayed("log was replayed");
        for recorded in [&recorded(), &replayed] {
            assert!(bad(index("POPULATING", false, false), recorded), "it takes too long");
            assert!(bad(index("POPULATING", true, true), recorded), "its constraint is there");
            assert!(!bad(index("POPULATING", false, true), recorded), "its constraint was never finished");
            assert!(bad(index("FAILED", true, false), recorded), "the data break the constraint");
        }
    }

    #[test]
    fn counts_that_were_not_exact_are_not_compared() {
        let unknown = Statistics::not_checked("bolt is not configured");
        let checks = of_server(&server(2, "ONLINE"), "neo4j", &unknown, &Task::unobserved()).expect("checks");
        let counts = checks.iter().find(|check| check.name == COUNTS).expect("counts");
        assert_eq!((counts.passed, counts.found.as_str()), (None, "bolt is not configured"));
    }
}
