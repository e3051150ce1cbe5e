//! One snapshot for each database, held while its dump is read.

use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::postgres::census;
use crate::driver::postgres::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, within};
use postgres::Client;
use std::collections::BTreeMap;

/// A snapshot that others can read by.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Whose.
    pub(super) database: String,
    /// What the server calls it.
    pub(super) id: String,
    /// Bytes of the database.
    pub(super) size: u64,
}

/// The snapshots of all databases that are dumped. They end with this value.
pub(super) struct Snapshots {
    taken: Vec<Snapshot>,
    address: Address,
    /// The sessions that hold them.
    _sessions: Vec<Client>,
}

impl Snapshots {
    /// Takes them right after each other. Errors: `POSTGRES_UNREACHABLE`, also for a database of `wanted` that is not there.
    pub(super) fn take(address: &Address, wanted: &[String], task: &Task) -> Result<Snapshots> {
        let (asked, wanted) = (address.clone(), wanted.to_vec());
        let (taken, sessions) = within(TALK_TIMEOUT, "taking the snapshots", task, move || take_all(&asked, &wanted))?;
        if taken.is_empty() {
            let text = format!("the server at {address} has no database to dump");
            return Err(Error::new(Code::PostgresUnsupported, text));
        }
        Ok(Snapshots { taken, address: address.clone(), _sessions: sessions })
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Snapshot] {
        &self.taken
    }

    /// One of the databases.
    pub(super) fn any(&self) -> &str {
        self.taken.first().map_or("postgres", |snapshot| &snapshot.database)
    }

    /// The names of the databases.
    pub(super) fn names(&self) -> Vec<String> {
        self.taken.iter().map(|snapshot| snapshot.database.clone()).collect()
    }

    /// Where the server is.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Their ids by database.
    pub(super) fn by_database(&self) -> BTreeMap<String, String> {
        self.taken.iter().map(|snapshot| (snapshot.database.clone(), snapshot.id.clone())).collect()
    }
}

fn take_all(address: &Address, wanted: &[String]) -> Result<(Vec<Snapshot>, Vec<Client>)> {
    let databases = census::databases(&mut address.connect_any(CATALOG_TIMEOUT)?, wanted)?;
    let mut sessions = Vec::new();
    for database in &databases {
        sessions.push(address.connect(database, CATALOG_TIMEOUT)?);
    }
    let mut taken = Vec::new();
    for (session, database) in sessions.iter_mut().zip(databases) {
        let what = format!("a snapshot of {database}");
        // Held for as long as the dump takes, whatever the server allows an idle transaction otherwise.
        let patient = "SELECT set_config(name, '0', false) FROM pg_settings \
                       WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')";
        for statement in [patient, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"] {
            session.batch_execute(statement).map_err(asking(&what))?;
        }
        let statement = "SELECT pg_export_snapshot(), pg_database_size(current_database())::int8";
        let row = session.query_one(statement, &[]).map_err(asking(&what))?;
        taken.push(Snapshot { database, id: row.get(0), size: row.get::<_, i64>(1).max(0) as u64 });
    }
    Ok((taken, sessions))
}
