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
}

impl Statistics {
    /// Nothing was counted, and why.
    pub fn not_checked(why: impl Into<String>) -> Self {
        Statistics { remark: Some(why.into()), ..Statistics::default() }
    }

    /// The sum of all counts: requirement A2's `rows_estimate`.
    pub fn rows(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Where `restored` differs from what was recorded here, one line each; empty if it does not.
    /// Counts are compared only when they were exact, the schema always.
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
            remark: None,
            schema: BTreeSet::from(["index a".to_owned()]),
        };
        let mut restored = recorded.clone();
        assert!(recorded.differences(&restored).is_empty());
        restored.counts.insert("nodes".to_owned(), 2);
        restored.schema.clear();
        assert_eq!(recorded.differences(&restored).len(), 2);
    }
}
