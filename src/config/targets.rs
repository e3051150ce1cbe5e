//! The targets: each with its database, found as far as it was not said, and with its own view of the shared tables.

use super::discovery::{neo4j, postgresql};
use super::kind;
use super::resolver::{Pick, Resolver};
use super::schema;
use super::sections;
use super::settings::{
    DatabaseSettings, EncryptionSettings, RepositorySettings, RunType, ServiceSettings, SimSettings, TargetSettings,
};
use super::value::{Origin, Value};
use crate::base::ids::TargetName;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The keys of one target, read by their last name.
pub struct TargetReader<'r, 'h> {
    /// Everything.
    pub r: &'r mut Resolver<'h>,
    /// `target.graph`.
    pub table: String,
    /// `neo4j`, `postgresql` or `sim`.
    pub kind: &'static str,
}

impl TargetReader<'_, '_> {
    /// The dotted path of a key.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.table)
    }

    /// What was said.
    pub fn said(&mut self, name: &str) -> Option<Pick> {
        let key = self.key(name);
        self.r.said(&key)
    }

    /// What was said, else the default of the table of keys; empty text if there is neither.
    pub fn text(&mut self, name: &str) -> String {
        let key = self.key(name);
        self.r.value(&key, &format!("target.*.{name}"), self.kind).map(|pick| pick.text()).unwrap_or_default()
    }

    /// Settles a key that nobody said.
    pub fn found(&mut self, name: &str, value: Value, how: impl Into<String>) -> Pick {
        let key = self.key(name);
        self.r.settle(&key, value, Origin::Discovered(how.into()))
    }

    /// Settles a key that nobody said and nothing on the host tells.
    pub fn assumed(&mut self, name: &str, value: Value) -> Pick {
        let key = self.key(name);
        self.r.settle(&key, value, Origin::Default)
    }

    /// A path: what was said, else what was found, else what is assumed. Warns if it is not there.
    pub fn path(&mut self, name: &str, found: Option<(PathBuf, String)>, assumed: &str) -> PathBuf {
        let pick = match (self.said(name), found) {
            (Some(said), _) => said,
            (None, Some((path, how))) => self.found(name, Value::Text(path.display().to_string()), how),
            (None, None) => self.assumed(name, Value::Text(assumed.to_owned())),
        };
        self.r.warn_if_missing(&pick);
        pick.path_buf()
    }

    /// Something is wrong with the target as a whole.
    pub fn wrong(&mut self, text: impl std::fmt::Display) {
        let table = self.table.clone();
        self.r.wrong_table(&table, text);
    }

    /// Worth a word.
    pub fn warn(&mut self, text: impl std::fmt::Display) {
        self.r.warnings.push(format!("{}: {text}", self.table));
    }

    /// How the server is stopped and started; `found` is the unit of the package, and how it was found.
    pub fn service(&mut self, found: Option<(String, String)>) -> ServiceSettings {
        let unit = self.said("unit");
        let (stop, start) = (self.said("stop_command"), self.said("start_command"));
        if let (Some(unit), true) = (&unit, stop.is_some() || start.is_some()) {
            self.r.wrong(unit, "excludes stop_command and start_command");
        }
        match (stop, start) {
            (Some(stop), Some(start)) => {
                let command = |pick: &Pick| kind::command(&pick.value).unwrap_or_default();
                return ServiceSettings::Commands { stop: command(&stop), start: command(&start) };
            }
            (Some(one), None) if !self.refused("start_command") => self.r.wrong(&one, "needs start_command too"),
            (None, Some(one)) if !self.refused("stop_command") => self.r.wrong(&one, "needs stop_command too"),
            _ => {}
        }
        let name = match (unit, found) {
            (Some(unit), _) => {
                let name = unit.text();
                if name != "none" && self.r.host.unit_file(&name).is_none() {
                    self.warn(format_args!("unit {name} has no file on this host ({})", unit.origin));
                }
                name
            }
            (None, Some((name, how))) => self.found("unit", Value::Text(name), how).text(),
            (None, None) => self.assumed("unit", Value::Text("none".to_owned())).text(),
        };
        if name == "none" { ServiceSettings::Unmanaged } else { ServiceSettings::Unit(name) }
    }

    fn refused(&self, name: &str) -> bool {
        self.r.was_given(&self.key(name))
    }
}

/// All targets that could be made out; what is wrong with the others is among the problems.
pub fn targets(
    r: &mut Resolver<'_>,
    repositories: &BTreeMap<String, RepositorySettings>,
) -> BTreeMap<TargetName, TargetSettings> {
    let mut found = BTreeMap::new();
    for name in r.names_below("target") {
        let Ok(name) = TargetName::new(&name) else { continue };
        if let Some(settings) = target(r, &name, repositories) {
            found.insert(name, settings);
        }
    }
    found
}

fn target(
    r: &mut Resolver<'_>,
    name: &TargetName,
    repositories: &BTreeMap<String, RepositorySettings>,
) -> Option<TargetSettings> {
    let table = format!("target.{name}");
    let kind_key = format!("{table}.kind");
    let Some(kind) = r.said(&kind_key) else {
        if !r.was_given(&kind_key) {
            r.wrong_table(&table, "needs a kind: kind = \"neo4j\" or kind = \"postgresql\"");
        }
        return None;
    };
    let kind = match kind.text().as_str() {
        "neo4j" => "neo4j",
        "sim" => "sim",
        _ => "postgresql",
    };
    let chosen = chosen_repositories(r, &table, repositories);
    let default_type = match r.value(&format!("{table}.default_type"), "target.*.default_type", kind) {
        Some(pick) if pick.text() == "incremental" => RunType::Incremental,
        _ => RunType::Full,
    };
    let database = {
        let mut reader = TargetReader { r, table, kind };
        match kind {
            "neo4j" => DatabaseSettings::Neo4j(neo4j::settings(&mut reader)),
            "sim" => DatabaseSettings::Sim(sim(&mut reader)?),
            _ => DatabaseSettings::Postgresql(postgresql::settings(&mut reader)?),
        }
    };
    let own = Some(name.as_str());
    Some(TargetSettings {
        name: name.clone(),
        repositories: chosen,
        default_type,
        encryption: sections::encryption(r, own),
        compression: sections::compression(r, own),
        schedule: sections::schedule(r, Some((name.as_str(), kind))),
        retention: sections::retention(r, own),
        preflight: sections::preflight(r, own),
        limits: sections::limits(r, own),
        slo: sections::slo(r, own),
        alerts: sections::alerts(r, own),
        database,
    })
}

fn sim(reader: &mut TargetReader<'_, '_>) -> Option<SimSettings> {
    match reader.said("directory") {
        Some(pick) => Some(SimSettings {
            directory: pick.path_buf(),
            continuous: crate::config::duration::parse(&reader.text("continuous")),
        }),
        None => {
            reader.wrong("needs a directory");
            None
        }
    }
}

/// The repositories a target is written to; all of them unless it names some.
fn chosen_repositories(
    r: &mut Resolver<'_>,
    table: &str,
    repositories: &BTreeMap<String, RepositorySettings>,
) -> Vec<String> {
    let all = || repositories.keys().cloned().collect::<Vec<_>>();
    let key = format!("{table}.repositories");
    let Some(pick) = r.said(&key) else {
        let value = Value::texts(all());
        r.settle(&key, value, Origin::Discovered("all repositories".to_owned()));
        return all();
    };
    let names = kind::texts(&pick.value);
    if names.is_empty() {
        r.wrong(&pick, "must name at least one repository");
    }
    for (index, name) in names.iter().enumerate() {
        // A repository that was refused is reported already.
        if !repositories.contains_key(name) && !r.has_table(&format!("repository.{name}")) {
            let near = schema::nearest(name, repositories.keys().map(String::as_str));
            let guess = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            r.wrong(&pick, format_args!("there is no repository {name:?}{guess}"));
        } else if names[..index].contains(name) {
            r.wrong(&pick, format_args!("names {name:?} twice"));
        }
    }
    names
}

/// `[encryption]` of the top level.
pub fn shared_encryption(r: &mut Resolver<'_>) -> EncryptionSettings {
    // Every shared table is read once for nobody, so that `config show` has them all.
    sections::compression(r, None);
    sections::schedule(r, None);
    sections::retention(r, None);
    sections::preflight(r, None);
    sections::limits(r, None);
    sections::slo(r, None);
    sections::alerts(r, None);
    sections::encryption(r, None)
}
