//! What lies in a store directory, and how each file may be copied while the server writes it.

use crate::base::{Error, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Directories of index providers that keep GB+-trees.
const TREE_PROVIDERS: [&str; 3] = ["range-", "token-lookup-", "point-"];
/// Directories of index providers that keep Lucene indexes.
const LUCENE_PROVIDERS: [&str; 3] = ["fulltext-", "text-", "vector-"];
/// Trees beside the record stores.
const STORE_TREES: [&str; 3] =
    ["neostore.counts.db", "neostore.indexstats.db", "neostore.relationshipgroupstore.degrees.db"];
/// Locks and scratch files of the running server.
const SKIPPED: [&str; 4] = ["database_lock", "store_lock", "id-buffer.tmp.", "profiles"];

/// The files of one database's store, by how they may be copied. Paths are relative to the store directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Record stores: pages of any age, which recovery makes right.
    pub(super) records: Vec<(PathBuf, u64)>,
    /// GB+-trees: sound if no checkpoint of theirs falls into the copy.
    pub(super) trees: Vec<(PathBuf, u64)>,
    /// Directories of Lucene indexes: sound as a set.
    pub(super) lucene: Vec<PathBuf>,
    /// Indexes of a kind that is not known; the server builds them anew.
    pub(super) unknown: Vec<PathBuf>,
}

impl Survey {
    /// Looks through a store directory. What vanishes meanwhile is not listed.
    pub(super) fn of(store: &Path) -> Result<Survey> {
        let mut survey = Survey::default();
        survey.visit(store, Path::new(""))?;
        for list in [&mut survey.records, &mut survey.trees] {
            list.sort();
        }
        survey.lucene.sort();
        Ok(survey)
    }

    /// Bytes of all that is copied file by file.
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().chain(&self.trees).map(|(_, bytes)| bytes).sum()
    }

    fn visit(&mut self, store: &Path, below: &Path) -> Result<()> {
        let directory = store.join(below);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && !below.as_os_str().is_empty() => {
                return Ok(());
            }
            Err(cause) => return Err(Error::io("listing", &directory, cause)),
        };
        for entry in entries {
            let entry = entry.map_err(|cause| Error::io("listing", &directory, cause))?;
            if is_skipped(&entry.file_name()) {
                continue;
            }
            let path = below.join(entry.file_name());
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                match index_of(&path) {
                    Some(Index::Lucene) => self.lucene.push(path),
                    Some(Index::Unknown) => self.unknown.push(path),
                    Some(Index::Tree) | None => self.visit(store, &path)?,
                }
            } else if metadata.is_file() {
                let list = if is_tree(&path) { &mut self.trees } else { &mut self.records };
                list.push((path, metadata.len()));
            }
        }
        Ok(())
    }
}

fn is_skipped(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    SKIPPED.iter().any(|skipped| name == *skipped || (skipped.ends_with('.') && name.starts_with(skipped)))
}

enum Index {
    Tree,
    Lucene,
    Unknown,
}

/// What kind of index a directory `schema/index/PROVIDER/ID` is; `None` for every other directory.
fn index_of(path: &Path) -> Option<Index> {
    let parts: Vec<String> = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let [schema, index, provider, _id] = &parts[..] else { return None };
    if (schema.as_str(), index.as_str()) != ("schema", "index") {
        return None;
    }
    let is = |known: &[&str]| known.iter().any(|prefix| provider.starts_with(prefix));
    Some(match (is(&TREE_PROVIDERS), is(&LUCENE_PROVIDERS)) {
        (true, _) => Index::Tree,
        (_, true) => Index::Lucene,
        _ => Index::Unknown,
    })
}

fn is_tree(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let below_index = path.ancestors().any(|ancestor| matches!(index_of(ancestor), Some(Index::Tree)));
    name.ends_with(".id") || STORE_TREES.contains(&name.as_ref()) || below_index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_copied_in_its_own_way() {
        let store = tempfile::tempdir().expect("tempdir");
        let file = |name: &str| {
            let path = store.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, b"12345").expect("write");
        };
        for name in [
            "neostore",
            "neostore.nodestore.db",
            "neostore.nodestore.db.id",
            "neostore.counts.db",
            "database_lock",
            "id-buffer.tmp.0",
            "profiles/neostore.cacheprof",
            "schema/index/range-1.0/3/index-3",
            "schema/index/fulltext-1.0/5/fulltext-1.0/1/segments_2",
            "schema/index/quantum-9.0/7/x",
        ] {
            file(name);
        }
        let survey = Survey::of(store.path()).expect("survey");
        let names = |list: &[(PathBuf, u64)]| {
            list.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&survey.records), "neostore neostore.nodestore.db");
        assert_eq!(
            names(&survey.trees),
            "neostore.counts.db neostore.nodestore.db.id schema/index/range-1.0/3/index-3"
        );
        assert_eq!(survey.lucene, [Path::new("schema/index/fulltext-1.0/5")]);
        assert_eq!(survey.unknown, [Path::new("schema/index/quantum-9.0/7")]);
        assert_eq!(survey.bytes(), 25);
    }

    #[test]
    fn a_store_that_is_not_there_is_an_error() {
        assert!(Survey::of(Path::new("/no/such/store")).is_err());
    }
}
