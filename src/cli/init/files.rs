//! What `init` writes: a file for each target and one for the repository in `config.d`, secrets beside the
//! configuration, and a passphrase. Nothing that is there is written over.

use crate::base::atomic_file;
use crate::base::clock::{Clock, SystemClock};
use crate::base::secret::{Secret, read_first_line};
use crate::base::space;
use crate::base::{Code, Error, Result};
use crate::cli::local::write_key;
use crate::config::discovery::servers::FoundServer;
use crate::config::{EncryptionMethod, RepositorySettings, SecretSource, Settings, fragments_beside};
use crate::operation::keys;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Mode of files without secrets.
const READABLE: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// Files to be written.
pub(super) struct Files {
    config: PathBuf,
    texts: Vec<(PathBuf, String)>,
    secrets: Vec<(PathBuf, Secret)>,
}

impl Files {
    pub(super) fn new(config: &Path) -> Files {
        Files { config: config.to_owned(), texts: Vec::new(), secrets: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.secrets.is_empty()
    }

    /// A file in `config.d`. `OBJECT_CONFLICT` if there is one of that name.
    pub(super) fn fragment(&mut self, name: &str, text: String) -> Result<()> {
        let path = fragments(&self.config).join(format!("{name}.toml"));
        refuse_present(&path)?;
        self.texts.push((path, text));
        Ok(())
    }

    fn beside(&self, name: &str) -> Result<PathBuf> {
        std::path::absolute(self.config.with_file_name(name))
            .map_err(|cause| Error::io("finding the absolute path of", &self.config, cause))
    }

    /// The path of a secret beside the configuration, if there is one of that name. `SECRET_UNSAFE` if others may read it.
    pub(super) fn secret_there(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.beside(name)?;
        if !path.exists() {
            return Ok(None);
        }
        read_first_line(&path).map(|_| Some(path))
    }

    /// A file that only the agent may read, beside the configuration. Gives its path.
    pub(super) fn secret(&mut self, name: &str, secret: Secret) -> Result<PathBuf> {
        let path = self.beside(name)?;
        refuse_present(&path)?;
        self.secrets.push((path.clone(), secret));
        Ok(path)
    }

    /// Those that may be shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_path(), text.as_str()))
    }

    /// The configuration as it would be, in a directory of its own that goes with the value.
    pub(super) fn staged(&self) -> Result<Staged> {
        let directory = std::env::temp_dir().join(format!(
            "neo4j-backup-init-{}-{}",
            std::process::id(),
            SystemClock.now().as_nanosecond()
        ));
        let fail = |cause| Error::io("making", &directory, cause);
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(fail)?;
        let staged = Staged { config: directory.join("config.toml"), directory: directory.clone() };
        fs::create_dir(directory.join("config.d")).map_err(fail)?;
        let write = |path: &Path, text: &[u8]| fs::write(path, text).map_err(|cause| Error::io("writing", path, cause));
        let main = if self.config.exists() { read(&self.config)? } else { Vec::new() };
        write(&staged.config, &main)?;
        let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
        for path in fragments_beside(&self.config) {
            write(&directory.join("config.d").join(name(&path)), &read(&path)?)?;
        }
        for (path, text) in &self.texts {
            write(&directory.join("config.d").join(name(path)), text.as_bytes())?;
        }
        Ok(staged)
    }

    /// Writes everything, secrets first: a configuration never names what is not there. Where one file cannot be
    /// written, those before it are taken away again; a passphrase stays.
    pub(super) fn write(&self, key: Option<&Path>) -> Result<()> {
        if let Some(path) = key {
            make_directory(path.parent(), 0o700)?;
            write_key(path, &keys::new_passphrase()?)?;
        }
        make_directory(Some(&fragments(&self.config)), 0o755)?;
        let template = (!self.config.exists()).then(|| (self.config.clone(), crate::config::template()));
        let mut written = Vec::new();
        let secrets = self.secrets.iter().map(|(path, secret)| (path, [secret.expose(), b"\n"].concat(), PRIVATE));
        let texts = self.texts.iter().chain(&template).map(|(path, text)| (path, text.clone().into_bytes(), READABLE));
        for (path, content, mode) in secrets.chain(texts) {
            if let Err(error) = atomic_file::create(path, &content, mode) {
                for path in written {
                    let _ = fs::remove_file(path);
                }
                return Err(error);
            }
            written.push(path);
        }
        Ok(())
    }
}

/// See [`Files::staged`].
pub(super) struct Staged {
    config: PathBuf,
    directory: PathBuf,
}

impl Staged {
    pub(super) fn config(&self) -> &Path {
        &self.config
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn fragments(config: &Path) -> PathBuf {
    config.with_file_name("config.d")
}

/// Names that a file in `config.d` bears already.
pub(super) fn names_taken(config: &Path) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    fragments_beside(config).into_iter().filter_map(stem).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|cause| Error::io("reading", path, cause))
}

fn refuse_present(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    Err(Error::new(Code::ObjectConflict, format!("{} is there already and is left as it is", path.display()))
        .with_hint("look what it says; move it away, or write what is missing by hand"))
}

fn make_directory(directory: Option<&Path>, mode: u32) -> Result<()> {
    let Some(directory) = directory.filter(|directory| !directory.is_dir()) else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(directory);
    made.map_err(|cause| Error::io("making", directory, cause))
}

/// The passphrase's file, if it is needed and not there.
pub(super) fn missing_key(settings: &Settings) -> Option<&Path> {
    match &settings.encryption.passphrase {
        SecretSource::File(path) if settings.encryption.method != EncryptionMethod::None && !path.exists() => {
            Some(path)
        }
        _ => None,
    }
}

/// What must be known of a new passphrase.
pub(super) fn keep_a_copy(path: &Path) -> String {
    format!(
        "\nKeep a copy of {} in two other places, now: a password manager, a safe. Without it no backup can be restored, \
         and nobody can make it again.",
        path.display()
    )
}

/// Repositories on the same filesystem as the databases, a line each.
pub(super) fn on_one_disk(settings: &Settings, servers: &[FoundServer]) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, repository) in &settings.repositories {
        let RepositorySettings::Local { path } = repository else { continue };
        let same = servers.iter().find(|server| {
            let (ours, its) = (space::of(path), space::of(&server.place));
            matches!((ours, its), (Ok(ours), Ok(its)) if ours.device == its.device)
        });
        if let Some(server) = same {
            lines.push(format!(
                "repository {name} ({}) is on the same filesystem as {}: a disk that fails takes both; add one elsewhere",
                path.display(),
                server.place.display()
            ));
        }
    }
    lines
}
