//! `.config.tar`: what a server needs that does not lie in its data directories, and what an operator will miss on a
//! new machine: server configuration, certificates, our own configuration, versions.

use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::{OutsideFile, Source};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// Most bytes that one configuration file may have; larger ones are left out, aloud.
const FILE_MAX: u64 = 16 << 20;
/// Most bytes of all of them: the archive is made in memory.
const ARCHIVE_MAX: u64 = 64 << 20;

/// Makes the archive. Files that cannot be read are left out and named in a warning.
pub(super) fn build(
    source: &Source,
    files: &[OutsideFile],
    own: &[OutsideFile],
    task: &Task,
) -> Result<(Vec<u8>, Vec<String>)> {
    let mut warnings = Vec::new();
    let mut archive = tar::Builder::new(Vec::new());
    let mut total = 0;
    // Two sources may name the same file; a tar with repeated members would be refused when it is opened.
    let mut seen = BTreeMap::new();
    for file in files.iter().chain(own) {
        if seen.insert(file.archive_name.clone(), ()).is_some() {
            continue;
        }
        match append(&mut archive, file, &mut total) {
            Ok(()) => {}
            Err(why) => {
                let text = format!("{} is not in the configuration archive: {why}", file.path.display());
                task.warn(&text);
                warnings.push(text);
            }
        }
    }
    let facts = serde_json::json!({
        "database": source.database,
        "data_identity": source.data_identity,
        "server_version": source.server.version,
        "server_edition": source.server.edition,
        "facts": source.server.facts,
        "owner": source.owner.name,
        "agent_version": env!("CARGO_PKG_VERSION"),
    });
    let facts = serde_json::to_vec_pretty(&facts).unwrap_or_default();
    let fail =
        |cause: std::io::Error| Error::new(Code::Internal, format!("building the configuration archive: {cause}"));
    add_bytes(&mut archive, "facts.json", 0o600, 0, &facts).map_err(fail)?;
    Ok((archive.into_inner().map_err(fail)?, warnings))
}

fn append(archive: &mut tar::Builder<Vec<u8>>, file: &OutsideFile, total: &mut u64) -> Result<(), String> {
    let mut handle = File::open(&file.path).map_err(|cause| cause.to_string())?;
    let metadata = handle.metadata().map_err(|cause| cause.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut content = Vec::new();
    handle.by_ref().take(FILE_MAX + 1).read_to_end(&mut content).map_err(|cause| cause.to_string())?;
    if content.len() as u64 > FILE_MAX || *total + content.len() as u64 > ARCHIVE_MAX {
        return Err(format!("it is larger than {FILE_MAX} bytes, or all of them than {ARCHIVE_MAX}"));
    }
    *total += content.len() as u64;
    add_bytes(archive, &file.archive_name, metadata.mode() & 0o777, metadata.mtime().max(0) as u64, &content)
        .map_err(|cause| cause.to_string())
}

fn add_bytes(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    mode: u32,
    modified: u64,
    content: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(modified);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::manifest::ServerRecord;
    use crate::base::process::OsUser;

    #[test]
    fn what_is_missing_is_named_and_the_rest_is_kept() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("neo4j.conf");
        std::fs::write(&path, "x=1\n").expect("write");
        let file =
            |name: &str, path: &std::path::Path| OutsideFile { path: path.to_owned(), archive_name: name.into() };
        let source = Source {
            database: "neo4j".into(),
            data_identity: "1".into(),
            server: ServerRecord::default(),
            owner: OsUser::of_uid(0, 0),
            estimated_bytes: 0,
        };
        let files = [file("conf/neo4j.conf", &path), file("conf/neo4j.conf", &path), file("gone", "/no/such".as_ref())];
        let (bytes, warnings) = build(&source, &files, &[], &Task::unobserved()).expect("build");
        assert_eq!(warnings.len(), 1);
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<_> = archive
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("entry").path().expect("path").display().to_string())
            .collect();
        assert_eq!(names, ["conf/neo4j.conf", "facts.json"]);
    }
}
