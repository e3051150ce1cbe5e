//! What a database holds: counts from Neo4j's count store, indexes and constraints, and the last transaction.

use super::bolt::{Answer, Cypher, Row, transaction_of};
use crate::artifact::statistics::Statistics;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Census;
use serde_json::Value;
use std::collections::BTreeSet;

/// Answered from the count store, whatever the size of the database.
const NODES: &str = "MATCH (n) RETURN count(n) AS count";
/// Answered from the count store, whatever the size of the database.
const RELATIONSHIPS: &str = "MATCH ()-[r]->() RETURN count(r) AS count";
const INDEXES: &str =
    "SHOW INDEXES YIELD name, type, state, populationPercent, entityType, labelsOrTypes, properties, owningConstraint";
const CONSTRAINTS: &str = "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties";

/// Counts `database`. The mark is taken first: if the database still stands at the mark later, nothing was written
/// after the mark, and so the counts hold for that later moment too.
pub(super) fn take(server: &dyn Cypher, database: &str, task: &Task) -> Result<Census> {
    let mark = last_transaction(server, database, task)?;
    let mut statistics = Statistics::default();
    for (name, query) in [("nodes", NODES), ("relationships", RELATIONSHIPS)] {
        statistics.counts.insert(name.to_owned(), count(server, database, query, task)?);
    }
    let indexes = index_states(server, database, task)?;
    let constraints = server.read(database, CONSTRAINTS, task)?.rows;
    statistics.unusable = indexes.iter().filter(|index| index.is_failed()).map(|index| index.line.clone()).collect();
    statistics.schema = schema(indexes, &constraints);
    Ok(Census { statistics, mark })
}

/// The last transaction that a reader sees now. The bookmark at the end of a read transaction has it; Community leaves
/// `lastCommittedTxn` of `SHOW DATABASE` empty. A bookmark of unknown form is a mark as it is: any write moves it.
pub(super) fn last_transaction(server: &dyn Cypher, database: &str, task: &Task) -> Result<Option<String>> {
    let Answer { bookmark, .. } = server.read(database, "RETURN 1 AS one", task)?;
    Ok(bookmark.map(|bookmark| transaction_of(&bookmark).map_or(bookmark, |number| number.to_string())))
}

/// The number that a query calls `count`.
pub(super) fn count(server: &dyn Cypher, database: &str, query: &str, task: &Task) -> Result<u64> {
    let answer = server.read(database, query, task)?;
    answer
        .rows
        .first()
        .and_then(|row| row.get("count"))
        .and_then(Value::as_u64)
        .ok_or_else(|| Error::new(Code::Neo4jUnsupported, format!("the server's answer to `{query}` is not a number")))
}

/// Indexes and constraints, one line each, without names: those that Neo4j makes up differ from server to server.
/// Indexes that belong to a constraint are left out, because the constraint stands for them.
fn schema(indexes: Vec<IndexState>, constraints: &[Row]) -> BTreeSet<String> {
    let own = indexes.into_iter().filter(|index| !index.constrains).map(|index| index.line);
    own.chain(constraints.iter().map(|row| line("constraint", row))).collect()
}

fn line(what: &str, row: &Row) -> String {
    let list = |name: &str, separator: &str| -> String {
        let items = row.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().map(text_of).collect::<Vec<_>>().join(separator)
    };
    let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let (labels, properties) = (list("labelsOrTypes", "|"), list("properties", ", "));
    format!("{what} {} on {} ({labels}) [{properties}]", field("type"), field("entityType"))
}

/// Names in backticks, so that one holding `|` or `, ` is not taken for two.
fn text_of(value: &Value) -> String {
    format!("`{}`", value.as_str().unwrap_or_default().replace('`', "``"))
}

/// An index and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexState {
    /// Its name.
    pub(super) name: String,
    /// `ONLINE`, `POPULATING`, `FAILED`.
    pub(super) state: String,
    /// What it is of, as the schema has it.
    pub(super) line: String,
    /// Whether a constraint needs it.
    pub(super) constrains: bool,
    /// Whether all entries are in it.
    pub(super) is_built: bool,
}

impl IndexState {
    /// Whether the server could not build it, as with values that are too large for it.
    pub(super) fn is_failed(&self) -> bool {
        self.state == "FAILED"
    }

    /// Whether it is being built, or waits for the constraint that it was made for.
    pub(super) fn is_populating(&self) -> bool {
        self.state == "POPULATING"
    }
}

/// Every index of the database.
pub(super) fn index_states(server: &dyn Cypher, database: &str, task: &Task) -> Result<Vec<IndexState>> {
    let field = |row: &Row, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows = server.read(database, INDEXES, task)?.rows;
    let state = |row: &Row| IndexState {
        name: field(row, "name"),
        state: field(row, "state"),
        line: line("index", row),
        is_built: row.get("populationPercent").and_then(Value::as_f64).is_some_and(|percent| percent >= 100.0),
        constrains: row.get("owningConstraint").is_some_and(|owner| !owner.is_null()),
    };
    Ok(rows.iter().map(state).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// Answers from a script.
    pub(in super::super) struct Script(pub(in super::super) Vec<(&'static str, Value)>);

    impl Cypher for Script {
        fn read(&self, _: &str, query: &str, _: &Task) -> Result<Answer> {
            let rows = self.0.iter().find(|(start, _)| query.starts_with(start)).map(|(_, rows)| rows.clone());
            let rows = rows.and_then(|rows| serde_json::from_value(rows).ok()).unwrap_or_default();
            Ok(Answer { rows, bookmark: Some("FB:kcwQAkQZdUecSMeelBhuHkQ3hBCQ".to_owned()) })
        }
    }

    #[test]
    fn a_census_counts_and_names_the_schema_without_names() {
        let server = Script(vec![
            ("MATCH (n)", json!([{"count": 3}])),
            ("MATCH ()", json!([{"count": 2}])),
            (
                "SHOW INDEXES",
                json!([
                    {"name": "index_343aff4e", "type": "LOOKUP", "state": "ONLINE", "entityType": "NODE",
                     "labelsOrTypes": null, "properties": null, "owningConstraint": null},
                    {"name": "c", "type": "RANGE", "state": "ONLINE", "entityType": "NODE",
                     "labelsOrTypes": ["City"], "properties": ["name"], "owningConstraint": "c"},
                ]),
            ),
            (
                "SHOW CONSTRAINTS",
                json!([{"name": "c", "type": "UNIQUENESS", "entityType": "NODE",
                        "labelsOrTypes": ["Ci`ty"], "properties": ["name", "country"]}]),
            ),
        ]);
        let census = take(&server, "neo4j", &Task::unobserved()).expect("census");
        assert_eq!(census.mark.as_deref(), Some("16"));
        assert_eq!(census.statistics.rows(), 5);
        let schema: Vec<_> = census.statistics.schema.into_iter().collect();
        assert_eq!(
            schema,
            ["constraint UNIQUENESS on NODE (`Ci``ty`) [`name`, `country`]", "index LOOKUP on NODE () []"]
        );
    }

    #[test]
    fn an_answer_that_is_no_number_is_an_error() {
        let error = count(&Script(Vec::new()), "neo4j", NODES, &Task::unobserved()).expect_err("error");
        assert_eq!(error.code(), Code::Neo4jUnsupported);
    }
}
