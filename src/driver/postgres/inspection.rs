//! What there is to back up, from the running server, or from the files of a stopped one.

use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, explain, within};
use super::tools::Tools;
use super::{PostgresDriverSettings, census, control_file, postmaster, tablespaces};
use crate::artifact::manifest::ServerRecord;
use crate::base::process::OsUser;
use crate::base::space::tree_bytes;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Source;
use postgres::Client;
use std::collections::BTreeMap;
use std::time::Duration;

/// Oldest server that is supported: the first whose base backups carry a manifest.
pub(crate) const OLDEST_VERSION_NUM: i32 = 130_000;
/// Settings that a scratch server must match, or recovery refuses to go on.
pub(crate) const RECOVERY_SETTINGS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];
/// Further settings worth having in the manifest.
const RECORDED_SETTINGS: [&str; 7] = [
    "data_checksums",
    "wal_segment_size",
    "block_size",
    "shared_preload_libraries",
    "wal_level",
    "server_version_num",
    "lc_messages",
];
/// Encoding and locale of new databases.
pub(crate) const TEMPLATE_FACTS: [&str; 3] = ["template_encoding", "template_collate", "template_ctype"];
/// How long asking for the size of all databases may take; it walks their files.
const SIZE_TIMEOUT: Duration = Duration::from_secs(60);

/// Examines the source; see [`crate::driver::Driver::inspect`].
pub(crate) fn inspect(
    settings: &PostgresDriverSettings,
    address: &Address,
    tools: &Tools,
    task: &Task,
) -> Result<Source> {
    let owner = OsUser::owner_of(&settings.data_directory)?;
    let (asked, its) = (address.clone(), settings.clone());
    match within(TALK_TIMEOUT, "examining the server", task, move || ask(&asked, &its)) {
        Ok(answer) => {
            let source = answer.into_source(settings, owner);
            check_identity(settings, address, &source)?;
            Ok(source)
        }
        // Stopped is fine; running and silent is not.
        Err(cause) if cause.code() == Code::PostgresUnreachable => {
            match postmaster::is_running(&settings.data_directory) {
                Ok(false) => from_files(settings, tools, owner, task).map_err(|also| {
                    cause.context(format!(
                        "{} could not be read either ({})",
                        settings.data_directory.display(),
                        also.message()
                    ))
                }),
                _ => Err(cause),
            }
        }
        Err(cause) => Err(cause),
    }
}

/// What the server told.
struct Answer {
    identity: String,
    version: String,
    size: Option<u64>,
    cluster_name: String,
    facts: BTreeMap<String, String>,
}

impl Answer {
    fn into_source(self, settings: &PostgresDriverSettings, owner: OsUser) -> Source {
        let database = match (settings.databases.as_slice(), self.cluster_name.as_str()) {
            ([], "") => "all".to_owned(),
            ([], name) => name.to_owned(),
            (names, _) => names.join(","),
        };
        let size = self.size.unwrap_or_else(|| tree_bytes(&settings.data_directory));
        let server = ServerRecord { version: self.version, edition: String::new(), facts: self.facts };
        Source { database, data_identity: self.identity, server, owner, estimated_bytes: size }
    }
}

fn ask(address: &Address, settings: &PostgresDriverSettings) -> Result<Answer> {
    let mut client = address.connect_any(SIZE_TIMEOUT)?;
    let version_num = version_num(&mut client)?;
    let row = client
        .query_one("SELECT system_identifier::text FROM pg_control_system()", &[])
        .map_err(asking("the system identifier"))?;
    let size = client
        .query_one("SELECT coalesce(sum(pg_database_size(oid)), 0)::int8 FROM pg_database", &[])
        .ok()
        .map(|row| row.get::<_, i64>(0).max(0) as u64);
    let mut facts = BTreeMap::new();
    for name in RECOVERY_SETTINGS.iter().chain(&RECORDED_SETTINGS) {
        if let Some(value) = setting(&mut client, name)? {
            facts.insert((*name).to_owned(), value);
        }
    }
    // The role that initdb made, by which a restored copy can be asked everything.
    let superuser = client.query_opt("SELECT rolname::text FROM pg_roles WHERE oid = 10", &[]);
    if let Some(row) = superuser.map_err(asking("the first superuser"))? {
        facts.insert("superuser".to_owned(), row.get(0));
    }
    // What a database gets that is made without saying more; a cluster that a dump is loaded into is made alike.
    let template = "SELECT pg_encoding_to_char(encoding)::text, coalesce(datcollate::text, 'C'), coalesce(datctype::text, 'C') FROM pg_database WHERE datname = 'template1'";
    if let Some(row) = client.query_opt(template, &[]).map_err(asking("the encoding"))? {
        for (index, name) in TEMPLATE_FACTS.iter().enumerate() {
            facts.insert((*name).to_owned(), row.get(index));
        }
    }
    tablespaces::record(&mut client, &settings.data_directory, &mut facts)?;
    let databases = census::databases(&mut client, &settings.databases)?;
    if let Some(version) = timescaledb_version(address, &databases) {
        facts.insert("timescaledb".to_owned(), version);
    }
    // Collations follow the C library: on a host with another one, indexes on text may be wrong.
    if version_num >= 150_000 {
        let statement = "SELECT DISTINCT datcollversion FROM pg_database WHERE datcollversion IS NOT NULL ORDER BY 1";
        let rows = client.query(statement, &[]).map_err(asking("collation versions"))?;
        let versions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if !versions.is_empty() {
            facts.insert("collation_versions".to_owned(), versions.join(","));
        }
    }
    Ok(Answer {
        identity: row.get(0),
        version: setting(&mut client, "server_version")?.unwrap_or_default(),
        size,
        cluster_name: setting(&mut client, "cluster_name")?.unwrap_or_default(),
        facts,
    })
}

/// The server's version as a number, such as 150014. Error `POSTGRES_UNSUPPORTED` for one that is too old.
pub(crate) fn version_num(client: &mut Client) -> Result<i32> {
    let text = setting(client, "server_version_num")?.unwrap_or_default();
    let number = text
        .parse()
        .map_err(|_| Error::new(Code::PostgresUnsupported, format!("the server says its version is {text:?}")))?;
    if number < OLDEST_VERSION_NUM {
        return Err(Error::new(
            Code::PostgresUnsupported,
            format!("the server's version is {text}; the oldest that is supported is {OLDEST_VERSION_NUM}"),
        ));
    }
    Ok(number)
}

/// A setting's value in its base unit; `None` where the server has no such setting or keeps it from this role.
pub(crate) fn setting(client: &mut Client, name: &str) -> Result<Option<String>> {
    let visible = "SELECT setting FROM pg_settings WHERE name = $1";
    match client.query_opt(visible, &[&name]) {
        Ok(row) => Ok(row.and_then(|row| row.get(0))),
        Err(cause) if cause.as_db_error().is_some() => Ok(None),
        Err(cause) => {
            Err(Error::new(Code::PostgresUnreachable, format!("asking for the setting {name}: {}", explain(&cause))))
        }
    }
}

/// The extension is made per database; the first that has it answers.
fn timescaledb_version(address: &Address, databases: &[String]) -> Option<String> {
    databases.iter().find_map(|database| {
        let mut client = address.connect(database, CATALOG_TIMEOUT).ok()?;
        let statement = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";
        client.query_opt(statement, &[]).ok().flatten().map(|row| row.get(0))
    })
}

/// Backing up one cluster under the name of another would be found out at the worst moment.
fn check_identity(settings: &PostgresDriverSettings, address: &Address, source: &Source) -> Result<()> {
    // Where the files cannot be read, there is nothing to compare.
    let Ok(control) = control_file::read(&settings.data_directory) else { return Ok(()) };
    if control.system_identifier.to_string() == source.data_identity {
        return Ok(());
    }
    Err(Error::new(
        Code::PostgresUnsupported,
        format!(
            "the server at {address} is cluster {}, but {} holds cluster {}",
            source.data_identity,
            settings.data_directory.display(),
            control.system_identifier
        ),
    )
    .with_hint("set `host`, `port` and `data_directory` of the target to the same cluster"))
}

fn from_files(settings: &PostgresDriverSettings, tools: &Tools, owner: OsUser, task: &Task) -> Result<Source> {
    let directory = &settings.data_directory;
    let control = control_file::read(directory)?;
    let major = control_file::major_version(directory)?;
    let facts = control_file::facts(directory, tools, &owner, task).unwrap_or_default();
    let answer = Answer {
        identity: control.system_identifier.to_string(),
        version: major.to_string(),
        size: None,
        cluster_name: String::new(),
        facts,
    };
    Ok(answer.into_source(settings, owner))
}
