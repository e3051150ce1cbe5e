//! Which repositories and targets this host has seen. A repository that suddenly has another identity is not the one
//! that the backups went to.

use super::row::{micros, parsed, time};
use super::{Ledger, Steps};
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use rusqlite::params;

/// A target on record, also one that the configuration no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTarget {
    /// Its name.
    pub name: TargetName,
    /// The database program.
    pub engine: String,
    /// The data's own identity when it was last seen.
    pub data_identity: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
}

impl Ledger {
    /// The identity of the repository that the configuration calls `name`; `None` before its first use. Where there
    /// is one, the repository exists and must be opened, not made.
    pub fn repository_id(&self, name: &str) -> Result<Option<String>> {
        self.read("looking up a repository in", |connection| {
            connection
                .prepare_cached("SELECT id FROM repositories WHERE name = ?1")?
                .query_map([name], |row| row.get(0))?
                .next()
                .transpose()
        })
    }

    /// Remembers a repository's identity at its first use, and compares it later: `REPOSITORY_FOREIGN` if it is not
    /// the one on record.
    pub fn remember_repository(&self, name: &str, id: &str, location: &str) -> Result<()> {
        let now = self.now();
        let known: String = self.write("remembering a repository in", |steps| {
            steps.execute(
                "INSERT INTO repositories (name, id, location, first_seen, last_seen) VALUES (?1, ?2, ?3, ?4, ?4) \
                 ON CONFLICT (name) DO UPDATE SET location = ?3, last_seen = ?4 WHERE id = ?2",
                params![name, id, location, micros(now)],
            )?;
            steps
                .first("SELECT id FROM repositories WHERE name = ?1", [name], |row| row.get(0))?
                .ok_or(rusqlite::Error::QueryReturnedNoRows)
        })?;
        if known == id {
            return Ok(());
        }
        Err(Error::new(
            Code::RepositoryForeign,
            format!("repository {name} at {location} is {id}; the one on record is {known}"),
        ))
    }

    /// Forgets a repository's identity, so that another may take the name.
    pub fn forget_repository(&self, name: &str) -> Result<bool> {
        self.write("forgetting a repository in", |steps| {
            Ok(steps.execute("DELETE FROM repositories WHERE name = ?1", [name])? > 0)
        })
    }

    /// Remembers a target and the identity of its data.
    pub fn remember_target(&self, name: &TargetName, engine: &str, data_identity: &str) -> Result<()> {
        let now = self.now();
        self.write("remembering a target in", |steps| see_target(steps, name.as_str(), engine, data_identity, now))
    }

    /// Every target ever seen, by name.
    pub fn targets(&self) -> Result<Vec<KnownTarget>> {
        self.read("listing the targets in", |connection| {
            connection
                .prepare_cached("SELECT name, engine, data_identity, first_seen, last_seen FROM targets ORDER BY name")?
                .query_map([], |row| {
                    Ok(KnownTarget {
                        name: parsed(row, 0)?,
                        engine: row.get(1)?,
                        data_identity: row.get(2)?,
                        first_seen: time(row, 3)?,
                        last_seen: time(row, 4)?,
                    })
                })?
                .collect()
        })
    }
}

pub(super) fn see_target(
    steps: &Steps<'_>,
    name: &str,
    engine: &str,
    data_identity: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    steps.execute(
        "INSERT INTO targets (name, engine, data_identity, first_seen, last_seen) VALUES (?1, ?2, ?3, ?4, ?4) \
         ON CONFLICT (name) DO UPDATE SET engine = ?2, data_identity = ?3, last_seen = ?4",
        params![name, engine, data_identity, micros(now)],
    )?;
    Ok(())
}
