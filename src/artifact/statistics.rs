//! What a database held when it was backed up, and how a restored copy compares with it.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Counts and schema of a database at the moment of its backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Number of things by name: `nodes`, `relationships`, or a table's qualified name.
    pub counts: BTreeMap<String, u64>,
    /// Whether the counts hold for the backup's very moment: nothing was written between counting and that moment.
    pub exact: bool,
    /// Why there are no counts, or why they are not exact. Said to the user, never silent.
    pub remark: Option<String>,
    /// What the schema holds, one line each: indexes, constraints, tables, extensions.
    pub schema: BTreeSet<String>,
    /// What of it was of no use in the source already: indexes that it could not build.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unusable: BTreeSet<String>,
}

impl Statistics {
    /// Nothing was counted, and why.
    pub fn not_checked(why: impl Into<String>) -> Self {
        Statistics { remark: Some(why.into()), ..Statistics::default() }
    }

    /// What still holds once log was replayed over the backup, and why the rest is not known.
    pub fn replayed(self, why: impl Into<String>) -> Self {
        Statistics { unusable: self.unusable, ..Statistics::not_checked(why) }
    }

    /// Keeps of the schema what is in `later` too: something was written between the two, and what is in one of them alone
    /// may have come or gone on either side of the backup's moment.
    pub fn keep_schema_of(&mut self, later: &BTreeSet<String>) {
        self.schema.retain(|line| later.contains(line));
    }

    /// The sum of all counts: requirement A2's `rows_estimate`.
    pub fn rows(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Where `restored` differs from what was recorded here, one line each; empty if it does not.
    /// Counts are compared only when they were exact, what is on record of the schema always.
    pub fn differences(&self, restored: &Statistics) -> Vec<String> {
        let mut found = Vec::new();
        if self.exact {
            for (name, expected) in &self.counts {
                match restored.counts.get(name) {
                    Some(actual) if actual == expected => {}
                    Some(actual) => found.push(format!("{name}: {expected} were backed up, {actual} are there")),
                    None => found.push(format!("{name}: {expected} were backed up, it is missing")),
                }
            }
        }
        found.extend(self.schema.difference(&restored.schema).map(|item| format!("missing from the schema: {item}")));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // req: B8
    #[test]
    fn a_difference_names_itself() {
        let recorded = Statistics {
            counts: BTreeMap::from([("nodes".to_owned(), 3)]),
            exact: true,
            schema: BTreeSet::from(["index a".to_owned()]),
            ..Statistics::default()
        };
        let mut restored = recorded.clone();
        assert!(recorded.differences(&restored).is_empty());
        restored.counts.insert("nodes".to_owned(), 2);
        restored.schema.clear();
        assert_eq!(recorded.differences(&restored).len(), 2);
    }
}
