//! What a data directory says of itself while no server answers: `PG_VERSION`, `global/pg_control`, `pg_controldata`.
//!
//! `pg_control` begins with the system identifier (8 bytes) and its own format's version (4 bytes), in the machine's
//! byte order, in every version of PostgreSQL since 8.0 (`ControlFileData` in `src/include/catalog/pg_control.h`); the
//! rest moves between versions and is left to `pg_controldata`.

use super::tools::{Tools, parse_major};
use crate::base::process::OsUser;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// Format versions of `pg_control` are numbers such as 1300; anything far off means another byte order or no such file.
const PLAUSIBLE_FORMATS: std::ops::RangeInclusive<u32> = 800..=9999;

/// The beginning of `pg_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlFile {
    /// Made by `initdb`, the same for the cluster's whole life and in all its copies.
    pub system_identifier: u64,
    /// Version of the file's format.
    pub format: u32,
}

/// Reads the beginning of `global/pg_control`.
pub(crate) fn read(data_directory: &Path) -> Result<ControlFile> {
    read_at(&data_directory.join("global/pg_control"))
}

/// Reads the beginning of such a file.
pub(crate) fn read_at(path: &Path) -> Result<ControlFile> {
    let mut bytes = [0u8; 12];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|cause| Error::io("reading", path, cause))?;
    parse(&bytes).ok_or_else(|| {
        Error::new(Code::PostgresUnsupported, format!("{} is not the control file of a cluster", path.display()))
    })
}

fn parse(bytes: &[u8; 12]) -> Option<ControlFile> {
    let (identifier, format) = bytes.split_at(8);
    let control = ControlFile {
        system_identifier: u64::from_ne_bytes(identifier.try_into().ok()?),
        format: u32::from_ne_bytes(format.try_into().ok()?),
    };
    (control.system_identifier != 0 && PLAUSIBLE_FORMATS.contains(&control.format)).then_some(control)
}

/// The major version in `PG_VERSION`.
pub(crate) fn major_version(data_directory: &Path) -> Result<u32> {
    let path = data_directory.join("PG_VERSION");
    let text = fs::read_to_string(&path).map_err(|cause| Error::io("reading", &path, cause))?;
    parse_major(&text)
        .ok_or_else(|| Error::new(Code::PostgresUnsupported, format!("{} holds {:?}", path.display(), text.trim())))
}

/// The facts a restore needs, from `pg_controldata`, by the names the server's settings have.
pub(crate) fn facts(
    data_directory: &Path,
    tools: &Tools,
    owner: &OsUser,
    task: &Task,
) -> Result<BTreeMap<String, String>> {
    let tool = tools.tool("pg_controldata").arg("-D").arg(data_directory);
    Ok(parse_facts(&tools.look(tool, Some(owner), task)?))
}

fn parse_facts(printed: &str) -> BTreeMap<String, String> {
    let renamed = |label: &str| match label {
        "Data page checksum version" => Some("data_checksums"),
        "Bytes per WAL segment" => Some("wal_segment_size"),
        "Database block size" => Some("block_size"),
        "max_connections setting" => Some("max_connections"),
        "max_worker_processes setting" => Some("max_worker_processes"),
        "max_wal_senders setting" => Some("max_wal_senders"),
        "max_prepared_xacts setting" => Some("max_prepared_transactions"),
        "max_locks_per_xact setting" => Some("max_locks_per_transaction"),
        "Database cluster state" => Some("cluster_state"),
        _ => None,
    };
    printed
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(label, value)| renamed(label.trim()).map(|name| (name, value.trim())))
        .map(|(name, value)| {
            let value = match (name, value) {
                ("data_checksums", "0") => "off",
                ("data_checksums", _) => "on",
                (_, value) => value,
            };
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_pg_control_reads() {
        let mut bytes = [0u8; 12];
        bytes[..8].copy_from_slice(&7_430_000_000_000_000_001u64.to_ne_bytes());
        bytes[8..].copy_from_slice(&1300u32.to_ne_bytes());
        assert_eq!(parse(&bytes), Some(ControlFile { system_identifier: 7_430_000_000_000_000_001, format: 1300 }));
        bytes[8..].copy_from_slice(&1300u32.swap_bytes().to_ne_bytes());
        assert_eq!(parse(&bytes), None);
        assert_eq!(parse(&[0; 12]), None);
    }

    #[test]
    fn facts_get_the_names_of_settings() {
        let facts = parse_facts(
            "pg_control version number:            1300\nBytes per WAL segment:                16777216\n\
             max_prepared_xacts setting:           7\nData page checksum version:           1\n",
        );
        assert_eq!(facts["wal_segment_size"], "16777216");
        assert_eq!(facts["max_prepared_transactions"], "7");
        assert_eq!(facts["data_checksums"], "on");
        assert_eq!(facts.len(), 3);
    }
}
