//! `init`: from an installed package to the first verified backup. It finds the servers of this host, writes a
//! configuration and a passphrase, sets the servers up, enables the timers, and takes and verifies a backup of each.
//!
//! It may be run again: what is configured stays as it is, and only what has no backup yet is gone on with.
//!
//! - `files`: what is written, tried out beside the present configuration first
//! - `protection`: a target from its configuration to a verified backup

mod files;
mod protection;

use self::files::Files;
use self::protection::Protected;
use super::args::{Init, Style};
use super::connection::Backend;
use super::in_process::InProcess;
use super::output::{Output, say};
use super::over_bus::OverBus;
use super::program::Parts;
use super::questions::Person;
use super::setup::{self, Will};
use super::{exit, timers};
use crate::base::ids::TargetName;
use crate::base::neo4j_conf::Neo4jConf;
use crate::base::{Code, Error, Result};
use crate::config::begin::{self, NewTarget};
use crate::config::discovery::host::Host;
use crate::config::discovery::servers::{self, Engine, FoundServer};
use crate::config::{self, Settings, Sources};
use crate::dbus::address::BusAddress;
use crate::operation::answer::Answer;
use crate::operation::request::Request;
use serde_json::{Value, json};
use std::path::Path;

/// What the command works with.
pub struct Surroundings<'a> {
    /// The bus of agent and systemd; `None` = in this process, without timers.
    pub bus: Option<BusAddress>,
    /// How answers look.
    pub style: &'a Style,
    /// The configuration file.
    pub config: &'a Path,
    /// What a process that works by itself is made of.
    pub parts: &'a Parts<'a>,
    /// Where answers go.
    pub output: &'a Output,
    /// Who is asked.
    pub person: Person,
}

/// Carries out `init`.
pub fn run(args: &Init, with: &Surroundings<'_>) -> Result<u8> {
    let present = present(with.config)?;
    let found = find(args)?;
    let host = Host::below(Path::new("/"));
    let mut new = begin::new_targets(&present.settings, found.servers.clone(), &files::names_taken(with.config));
    tell_found(&found, &present.settings, &new);
    if new.is_empty() && present.settings.targets.is_empty() {
        return Err(Error::new(Code::NotAvailable, "no database server was found on this host")
            .with_hint("name its directory: `neo4j-backupctl init /opt/neo4j`, or write the configuration by hand"));
    }
    let person = if args.dry_run { Person::nobody() } else { with.person };
    let mut plan = Files::new(with.config);
    if let Some(place) = repository(args, &present, person)? {
        plan.fragment("repository", begin::repository_fragment(&place))?;
    }
    for target in &mut new {
        if target.server.engine == Engine::Neo4j && asks_for_login(&host, &target.server) {
            target.password_file = password(target, &mut plan, person)?;
        }
        plan.fragment(target.name.as_str(), target.fragment())?;
    }
    // What could not be read is not written.
    let staged = plan.staged()?;
    let planned = config::load(&Sources::of_file(staged.config()))?;
    planned.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let key = files::missing_key(&planned.settings);
    tell_plan(&plan, key, &planned.settings, &found);
    if args.dry_run {
        return dry_run(&new, &plan, key, staged.config(), with);
    }
    if !plan.is_empty() || key.is_some() {
        if !with.person.agrees("Shall this be written?")? {
            return Err(Error::new(Code::NotConfirmed, "nothing was written"));
        }
        if let Some(address) = &with.bus {
            timers::reach(address, with.style)?;
        }
        plan.write(key)?;
    }
    let settings = config::load(&Sources::of_file(with.config))?.settings;
    if let Some(problem) = config::check_secrets(&settings).into_iter().next() {
        return Err(Error::new(Code::SecretUnsafe, problem));
    }
    protect(args, &new, &settings, &plan, key, with)
}

/// The configuration as it is; one that is not there says nothing.
fn present(path: &Path) -> Result<config::Loaded> {
    match path.exists() {
        true => config::load(&Sources::of_file(path)),
        false => config::load(&Sources::of_file(Files::new(path).staged()?.config())),
    }
}

fn find(args: &Init) -> Result<servers::Survey> {
    let host = Host::below(Path::new("/"));
    if args.servers.is_empty() {
        return Ok(servers::survey(&host));
    }
    let mut survey = servers::Survey::default();
    for place in &args.servers {
        let real = std::fs::canonicalize(place).map_err(|cause| Error::io("looking at", place, cause))?;
        let server = servers::in_directory(&host, &real).ok_or_else(|| {
            let text = format!("{} is neither a home of Neo4j nor a data directory of PostgreSQL", place.display());
            Error::new(Code::Usage, text).with_hint("the one has conf/neo4j.conf in it, the other PG_VERSION")
        })?;
        survey.servers.push(server);
    }
    Ok(survey)
}

fn describe(server: &FoundServer) -> String {
    let what = server.engine.name();
    let unit = server.unit.as_ref().map(|unit| format!(", unit {unit}")).unwrap_or_default();
    let runs = if server.process.is_some() { ", running" } else { "" };
    format!("{what} in {}{unit}{runs}", server.place.display())
}

fn tell_found(found: &servers::Survey, settings: &Settings, new: &[NewTarget]) {
    for server in &found.servers {
        let target = new.iter().find(|target| target.server == *server).map(|target| target.name.to_string());
        let known = begin::covering(settings, server).map(|name| format!("{name}, configured already"));
        if let Some(target) = target.or(known) {
            say(&format!("found: {} → {target}", describe(server)));
        }
    }
    found.out_of_reach.iter().for_each(|line| say(&format!("warning: {line}")));
}

/// Where backups are to be kept, if that was not said anywhere and is not the usual place.
fn repository(args: &Init, present: &config::Loaded, person: Person) -> Result<Option<String>> {
    let settings = &present.settings;
    let said = present.origin("repository.main.path") != Some(&config::Origin::Default);
    if said {
        return match &args.repository {
            Some(_) => {
                let names: Vec<_> = settings.repositories.keys().cloned().collect();
                let text = format!("a repository is configured already: {}", names.join(", "));
                Err(Error::new(Code::Usage, text).with_hint("`neo4j-backupctl config show --origin` says where"))
            }
            None => Ok(None),
        };
    }
    let usual = settings.state_directory.join("repository");
    let answer = match &args.repository {
        Some(place) => place.clone(),
        None => person.line(&format!(
            "Where shall backups be kept: a directory, or s3://BUCKET/PREFIX?region=REGION? [{}]",
            usual.display()
        ))?,
    };
    if answer.is_empty() {
        return Ok(None);
    }
    if answer.contains("://") || Path::new(&answer).is_absolute() {
        return Ok(Some(answer));
    }
    Err(Error::new(Code::Usage, format!("{answer:?} is neither an absolute path nor an s3:// address")))
}

/// Whether the server wants to know who asks.
fn asks_for_login(host: &Host<'_>, server: &FoundServer) -> bool {
    let own = server.place.join("conf/neo4j.conf");
    let packaged = Path::new(crate::config::discovery::neo4j::PACKAGE_CONF);
    let conf = server.conf.as_deref().unwrap_or(if host.is_file(&own) { &own } else { packaged });
    let said = Neo4jConf::parse(&host.read(conf).unwrap_or_default());
    !said.get("dbms.security.auth_enabled").is_some_and(|value| value.eq_ignore_ascii_case("false"))
}

/// The file with the password of Neo4j's user: one that somebody has put there, or a new one with what is typed.
fn password(target: &NewTarget, plan: &mut Files, person: Person) -> Result<Option<std::path::PathBuf>> {
    let name = format!("{}.password", target.name);
    if let Some(path) = plan.secret_there(&name)? {
        return Ok(Some(path));
    }
    let question = format!("{}: the password of Neo4j's user neo4j, to count what is restored [none]:", target.name);
    let password = person.hidden_line(&question)?;
    if password.expose().is_empty() {
        return Ok(None);
    }
    plan.secret(&name, password).map(Some)
}

fn tell_plan(plan: &Files, key: Option<&Path>, settings: &Settings, found: &servers::Survey) {
    for (path, text) in plan.shown() {
        say(&format!("\n{}:", path.display()));
        text.lines().for_each(|line| say(&format!("    {line}")));
    }
    if let Some(key) = key {
        say(&format!("\n{}: a new passphrase, which encrypts and signs every backup", key.display()));
    }
    for line in files::on_one_disk(settings, &found.servers) {
        say(&format!("warning: {line}"));
    }
}

fn dry_run(new: &[NewTarget], plan: &Files, key: Option<&Path>, staged: &Path, with: &Surroundings<'_>) -> Result<u8> {
    let mut targets = Vec::new();
    let mut text = Vec::new();
    for target in new {
        let driver = (with.parts.driver)(staged, &target.name)?;
        let (steps, error) = match setup::settle(target.name.as_str(), &*driver, Will::Show, with.person) {
            Ok(steps) => (steps, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        text.push(match &error {
            Some(error) => format!("{}: {error}\n  hint: {}", target.name, error.hint()),
            None if steps.is_empty() => setup::told(target.name.as_str(), &steps),
            None => format!("{}: the server lacks\n{}", target.name, setup::told(target.name.as_str(), &steps)),
        });
        targets
            .push(json!({ "target": target.name, "setup": steps, "error": error.as_ref().map(protection::as_json) }));
    }
    text.push("nothing was written".to_owned());
    let value = report(true, plan, key, &targets);
    with.output.print(&value, || text.join("\n"))?;
    Ok(exit::DONE)
}

fn report(dry_run: bool, plan: &Files, key: Option<&Path>, targets: &[Value]) -> Value {
    let files: Vec<Value> = plan.shown().map(|(path, text)| json!({ "path": path, "content": text })).collect();
    json!({ "dry_run": dry_run, "files": files, "new_passphrase": key, "targets": targets })
}

/// Each target that is new, or has no backup yet.
fn protect(
    args: &Init,
    new: &[NewTarget],
    settings: &Settings,
    plan: &Files,
    key: Option<&Path>,
    with: &Surroundings<'_>,
) -> Result<u8> {
    let backend: Box<dyn Backend> = match &with.bus {
        Some(address) => {
            timers::agent(address, with.style)?;
            Box::new(OverBus::connect(address, !with.style.no_ask_password)?)
        }
        None => {
            say("warning: without the bus there are no timers: something else must run the backups");
            Box::new(InProcess::new((with.parts.workshop)(with.config)?)?)
        }
    };
    let is_new = |name: &TargetName| new.iter().any(|target| target.name == *name);
    let mut protected = Vec::new();
    for name in settings.targets.keys() {
        if is_new(name) || !has_backups(&*backend, name)? {
            let will = if args.no_setup { Will::Show } else { Will::Ask };
            protected.push(protection::protect(name, will, &*backend, with)?);
        }
    }
    let targets: Vec<Value> = protected.iter().map(Protected::as_json).collect();
    let value = report(false, plan, key, &targets);
    let done = protected.iter().all(|target| target.error.is_none());
    with.output.print(&value, || {
        let mut text: Vec<String> = protected.iter().map(Protected::told).collect();
        if protected.is_empty() {
            text.push("everything that was found is configured and has backups".to_owned());
        }
        text.extend(key.map(files::keep_a_copy));
        text.join("\n")
    })?;
    Ok(if done { exit::DONE } else { exit::PARTLY })
}

fn has_backups(backend: &dyn Backend, name: &TargetName) -> Result<bool> {
    match backend.query(&Request::List { target: Some(name.clone()) })? {
        Answer::List(list) => Ok(!list.backups.is_empty()),
        _ => Err(Error::new(Code::Internal, format!("the backups of {name} could not be listed"))),
    }
}
