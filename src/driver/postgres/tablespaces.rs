//! Tablespaces: what a backup records of them, and where a restore puts them.

use super::connection::asking;
use crate::artifact::manifest::Manifest;
use crate::base::space::tree_bytes;
use crate::base::{Code, Error, Result};
use crate::driver::Branch;
use crate::driver::restore_options::Relocations;
use postgres::Client;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a data directory has them, as links or directories of their numbers.
pub(crate) const DIRECTORY: &str = "pg_tblspc";
/// The fact of a manifest that lists them.
const FACT: &str = "tablespaces";

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tablespace {
    oid: u32,
    name: String,
    location: String,
    bytes: u64,
}

/// Adds those of a server to the facts of its backup.
pub(crate) fn record(client: &mut Client, data_directory: &Path, facts: &mut BTreeMap<String, String>) -> Result<()> {
    let statement = "SELECT oid::int8, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace \
                     WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid";
    let rows = client.query(statement, &[]).map_err(asking("the tablespaces"))?;
    let found: Vec<Tablespace> = rows
        .iter()
        .filter_map(|row| {
            let oid = u32::try_from(row.get::<_, i64>(0)).ok()?;
            let bytes = tree_bytes(&data_directory.join(inside(oid)));
            Some(Tablespace { oid, name: row.get(1), location: row.get(2), bytes })
        })
        .collect();
    if let (false, Ok(text)) = (found.is_empty(), serde_json::to_string(&found)) {
        facts.insert(FACT.to_owned(), text);
    }
    Ok(())
}

fn inside(oid: u32) -> PathBuf {
    Path::new(DIRECTORY).join(oid.to_string())
}

/// Where the tablespaces of a backup go that are not to be inside the restored directory.
///
/// Error `USAGE` for a relocation of none of them, and for two that contradict each other.
pub(crate) fn branches(manifest: &Manifest, relocations: &Relocations) -> Result<Vec<Branch>> {
    place(&manifest.id.to_string(), &manifest.server.facts, relocations)
}

fn place(backup: &str, facts: &BTreeMap<String, String>, relocations: &Relocations) -> Result<Vec<Branch>> {
    let recorded = facts.get(FACT).map_or("[]", String::as_str);
    let recorded: Vec<Tablespace> = serde_json::from_str(recorded)
        .map_err(|cause| Error::new(Code::BackupCorrupted, format!("the manifest's list of tablespaces: {cause}")))?;
    let wrong = |text: String| Error::new(Code::Usage, text);
    let mut chosen: BTreeMap<u32, &Path> = BTreeMap::new();
    for relocation in &relocations.pairs {
        let old = relocation.old.as_str();
        let by_name = recorded.iter().find(|tablespace| tablespace.name == old);
        let same_place = |tablespace: &&Tablespace| Path::new(&tablespace.location) == Path::new(old);
        let of_number = |tablespace: &&Tablespace| tablespace.oid.to_string() == old;
        let found = by_name.or_else(|| recorded.iter().find(|one| same_place(one) || of_number(one)));
        let found = found.ok_or_else(|| {
            let text = format!("{backup} has no tablespace {old:?} that could go to {}", relocation.new.display());
            wrong(text).with_hint(listed(&recorded))
        })?;
        if chosen.insert(found.oid, &relocation.new).is_some() {
            return Err(wrong(format!("tablespace {} is to go to two places", found.name)));
        }
    }
    let goes_to = |tablespace: &Tablespace| match (chosen.get(&tablespace.oid), &relocations.all) {
        (Some(new), _) => Ok(Some((*new).to_owned())),
        (None, Some(_)) if tablespace.name.contains('/') || [".", ".."].contains(&tablespace.name.as_str()) => {
            let text = format!("no directory can be called like the tablespace {:?}", tablespace.name);
            Err(wrong(text).with_hint(format!("say where it goes: `--tablespace-map {}=DIR`", tablespace.oid)))
        }
        (None, Some(all)) => Ok(Some(all.join(&tablespace.name))),
        (None, None) => Ok(None),
    };
    let mut branches = Vec::new();
    for tablespace in &recorded {
        let Some(directory) = goes_to(tablespace)? else { continue };
        branches.push(Branch {
            inside: inside(tablespace.oid),
            directory,
            bytes: tablespace.bytes,
            what: format!("tablespace {}, which was {}", tablespace.name, tablespace.location),
        });
    }
    Ok(branches)
}

fn listed(recorded: &[Tablespace]) -> String {
    let one = |tablespace: &Tablespace| format!("{} in {}", tablespace.name, tablespace.location);
    match recorded {
        [] => "its manifest names none".to_owned(),
        some => format!("it has {}", some.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::restore_options::Relocation;

    fn facts() -> BTreeMap<String, String> {
        let tablespace = |oid: u32, name: &str, location: &str| Tablespace {
            oid,
            name: name.to_owned(),
            location: location.to_owned(),
            bytes: u64::from(oid),
        };
        let all = [
            tablespace(16384, "fast", "/srv/fast"),
            tablespace(16385, "16384", "/srv/slow"),
            tablespace(16390, "odd/name", "/srv/odd"),
        ];
        BTreeMap::from([(FACT.to_owned(), serde_json::to_string(&all).expect("fact"))])
    }

    fn places(pairs: &[(&str, &str)], all: Option<&str>) -> Result<Vec<(String, String)>, Code> {
        let pairs = pairs.iter().map(|(old, new)| Relocation { old: (*old).to_owned(), new: new.into() }).collect();
        let relocations = Relocations { pairs, all: all.map(PathBuf::from) };
        let shown = |path: &Path| path.display().to_string();
        place("b", &facts(), &relocations)
            .map(|found| found.iter().map(|branch| (shown(&branch.inside), shown(&branch.directory))).collect())
            .map_err(|error| error.code())
    }

    #[test]
    fn tablespaces_are_named_by_name_by_place_and_by_number() {
        let to = |number: u32| Ok(vec![(format!("pg_tblspc/{number}"), "/new".to_owned())]);
        assert_eq!(places(&[("fast", "/new")], None), to(16384));
        assert_eq!(places(&[("/srv/fast/", "/new")], None), to(16384));
        assert_eq!(places(&[("16384", "/new")], None), to(16385), "a name is stronger than a number");
        assert_eq!(places(&[("16390", "/new")], None), to(16390));
        assert_eq!(places(&[], None), Ok(Vec::new()));
    }

    #[test]
    fn what_fits_no_tablespace_or_two_places_is_refused() {
        assert_eq!(places(&[("slow", "/new")], None), Err(Code::Usage));
        assert_eq!(places(&[("fast", "/new"), ("/srv/fast", "/other")], None), Err(Code::Usage));
        assert_eq!(places(&[], Some("/all")), Err(Code::Usage), "no directory is called odd/name");
        let found = places(&[("odd/name", "/odd")], Some("/all")).expect("places");
        let directories: Vec<&str> = found.iter().map(|(_, directory)| directory.as_str()).collect();
        assert_eq!(directories, ["/all/fast", "/all/16384", "/odd"]);
        let none = place("b", &BTreeMap::new(), &Relocations { pairs: Vec::new(), all: Some("/all".into()) });
        assert!(none.expect("nothing to do").is_empty());
    }
}
