//! Layer 1: the configuration. Fragments (files, environment) → one merged tree → validated [`Settings`].
//!
//! In reading order:
//! - [`value`], [`fragment`], [`environment`], [`merge`]: what the sources say, and where each word of it stands
//! - [`schema`], [`keys`], [`kind`]: what can be said at all; the one table that everything else reads
//! - [`text_rules`], [`duration`], [`calendar`], [`command_line`]: how single values are judged
//! - [`validate`], [`problem`]: the tree against the table; everything wrong is collected, nothing stops at the first
//! - [`resolver`], [`sections`], [`repositories`], [`targets`], [`discovery`]: from what was said to settings; what was
//!   left out is looked up on the host
//! - [`settings`]: the result, plain data
//! - [`begin`]: the beginning of a configuration, for the servers that are found
//! - [`secrets`], [`show`], [`template`], [`reference`](mod@reference): what people are shown

pub mod begin;
pub mod calendar;
pub mod command_line;
pub mod discovery;
pub mod duration;
pub mod environment;
pub mod fragment;
pub mod keys;
pub mod kind;
pub mod merge;
pub mod problem;
pub mod reference;
pub mod repositories;
pub mod resolver;
pub mod schema;
pub mod secrets;
pub mod sections;
pub mod settings;
pub mod show;
pub mod targets;
pub mod template;
pub mod text_rules;
pub mod validate;
pub mod value;

#[cfg(test)]
mod tests;

pub use secrets::check_secrets;
pub use settings::*;
pub use template::template;
pub use value::{Origin, Value};

use crate::base::Result;
use discovery::host::Host;
use problem::{ConfigError, Problem};
use resolver::Resolver;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use validate::Said;
use value::{Table, Values};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/neo4j-backup/config.toml";
/// The variable in which systemd names the directory of credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// What a configuration is made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file that is read first, for example [`DEFAULT_FILE`].
    pub main: PathBuf,
    /// The directory whose `*.toml` are read after it, in the order of their names.
    pub fragments: PathBuf,
    /// Environment variables; they have the last word.
    pub environment: Vec<(String, String)>,
    /// Discovery looks at the host below this directory: `/`, or a fake for tests.
    pub root: PathBuf,
}

impl Sources {
    /// A file, `config.d` beside it, this process's environment and this host.
    pub fn of_file(path: &Path) -> Sources {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Sources {
            main: path.to_owned(),
            fragments: path.with_file_name("config.d"),
            environment: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            root: PathBuf::from("/"),
        }
    }
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What is worth a word: missing paths, settings this version does not act on.
    pub warnings: Vec<String>,
    /// The files it was read from, in order. A privileged reader checks who may write them.
    pub files: Vec<PathBuf>,
    values: Values,
}

impl Loaded {
    /// Every value in force as TOML text that can be read back; with `origin`, each line ends in
    /// `# file:line`, `# environment NAME`, `# discovered: how` or `# default`. Secrets are only file names anyway.
    pub fn show(&self, origin: bool) -> String {
        show::show(&self.values, origin)
    }

    /// Where the value at a dotted path came from.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.values.get(path).map(|(_, origin)| origin)
    }
}

/// Reads, merges, validates and completes a configuration.
///
/// Error: `CONFIG_INVALID`, whose message lists every problem on a line of its own (`file:line: …`).
pub fn load(sources: &Sources) -> Result<Loaded> {
    let mut input = Input::default();
    input.file(&sources.main, true);
    for path in fragment_files(&sources.fragments, &mut input.problems) {
        input.file(&path, false);
    }
    Ok(input.load(sources)?)
}

/// What was read so far.
#[derive(Default)]
struct Input {
    files: Vec<(PathBuf, String)>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    main_missing: bool,
}

/// The fragments that belong to a configuration, in the order of their names; none where they cannot be listed.
pub fn fragments_beside(config: &Path) -> Vec<PathBuf> {
    fragments_in(&Sources::of_file(config).fragments).unwrap_or_default()
}

/// The fragments in the order of their names; a directory that is not there has none.
fn fragment_files(directory: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    fragments_in(directory).unwrap_or_else(|cause| {
        problems.push(Problem::at(Origin::Default, format!("reading {}: {cause}", directory.display())));
        Vec::new()
    })
}

fn fragments_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml") && !hidden(path));
    paths.sort();
    Ok(paths)
}

impl Input {
    fn file(&mut self, path: &Path, main: bool) {
        match read(path) {
            Ok((text, mode)) => {
                if mode & 0o002 != 0 {
                    self.warnings.push(format!("{} can be changed by everybody: chmod o-w", path.display()));
                }
                self.files.push((path.to_owned(), text));
            }
            // Containers may have nothing but the environment.
            Err(cause) if main && cause.kind() == ErrorKind::NotFound => self.main_missing = true,
            Err(cause) => {
                let text = format!("reading {}: {cause}", path.display());
                self.problems.push(Problem::at(Origin::Default, text));
            }
        }
    }

    fn load(self, sources: &Sources) -> Result<Loaded, ConfigError> {
        let Input { files, mut problems, mut warnings, main_missing } = self;
        let mut tree = Table::new(Origin::Default);
        for (path, text) in &files {
            match fragment::parse(path, text) {
                Ok(table) => merge::merge(&mut tree, table),
                Err(errors) => problems.extend(errors),
            }
        }
        // Behind a syntax error, whatever else seems wrong may only follow from it.
        reject(&mut problems)?;
        environment::apply(&sources.environment, &mut tree, &mut problems);
        if main_missing && !tree.entries.contains_key("target") {
            let text = format!("{} does not exist, and nothing else names a target", sources.main.display());
            problems.push(Problem::at(Origin::Default, text));
        } else if main_missing {
            warnings.push(format!("{} does not exist", sources.main.display()));
        }
        let said = validate::validate(&tree);
        let (settings, values) = resolve(said, sources, &mut problems, &mut warnings)?;
        let files = files.into_iter().map(|(path, _)| path).collect();
        Ok(Loaded { settings, warnings, files, values })
    }
}

/// Fails with the problems, if there are any: in the order of their places, each once.
fn reject(problems: &mut Vec<Problem>) -> Result<(), ConfigError> {
    problems.sort();
    problems.dedup();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: std::mem::take(problems) }) }
}

fn resolve(
    said: Said,
    sources: &Sources,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Result<(Settings, Values), ConfigError> {
    let idle: Vec<String> = said.idle.iter().map(|(path, origin)| format!("{path} ({origin})")).collect();
    let credentials = sources.environment.iter().find(|(name, _)| name == CREDENTIALS_DIRECTORY);
    let credentials = credentials.map(|(_, path)| PathBuf::from(path)).filter(|path| path.is_absolute());
    let mut resolver = Resolver::new(said, Host::below(&sources.root), credentials);
    let r = &mut resolver;
    let top = |r: &mut Resolver<'_>, key: &str| r.section_value(None, key).text();
    let environment = top(r, "environment");
    let state_directory = PathBuf::from(top(r, "state_directory"));
    let encryption = targets::shared_encryption(r);
    let repositories = repositories::repositories(r, &state_directory);
    let targets = targets::targets(r, &repositories);
    let settings = Settings { environment, state_directory, repositories, targets, encryption };
    let (found, noted, values) = resolver.finish();
    problems.extend(found);
    reject(problems)?;
    warnings.extend(noted);
    if settings.targets.is_empty() {
        warnings.push("no target is configured".to_owned());
    }
    if !idle.is_empty() {
        warnings.push(format!("accepted, but this version does not act on it yet: {}", idle.join(", ")));
    }
    Ok((settings, values))
}

/// The text of a file, and its mode.
fn read(path: &Path) -> std::io::Result<(String, u32)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    file.take(fragment::FILE_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > fragment::FILE_MAX {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, format!("more than {} bytes", fragment::FILE_MAX)));
    }
    let text = String::from_utf8(content)
        .map_err(|cause| std::io::Error::new(ErrorKind::InvalidData, format!("not UTF-8: {cause}")))?;
    Ok((text, metadata.mode()))
}
