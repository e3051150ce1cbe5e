//! Which Neo4j is installed: version and edition from the jars, and whether `neo4j-admin` is of the same one.

use crate::artifact::digest::sha256_of;
use crate::base::process::{Launcher, Tool, run};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the jars of an installation say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Installed {
    /// Version of the kernel's jar; empty if it was not found.
    pub(super) version: String,
    /// `community` or `enterprise`; empty if no jars were found.
    pub(super) edition: String,
}

/// Looks at the jars beside `home` and beside the programs: packages keep them in `/usr/share/neo4j/lib`.
pub(super) fn of(home: &Path, programs: &[&Path]) -> Installed {
    let beside = |program: &&Path| Some(program.canonicalize().ok()?.parent()?.parent()?.join("lib"));
    std::iter::once(home.join("lib"))
        .chain(programs.iter().filter_map(beside))
        .map(|directory| from_jars(&directory))
        .find(|installed| !installed.version.is_empty())
        .unwrap_or_default()
}

/// What tells an installation from the one that an upgrade puts in its place: the program and the directories of jars, as they
/// are on the disk now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks(Vec<Option<[i64; 4]>>);

/// The marks of the installation that `admin` belongs to, of a server whose home is `home`. Links are followed.
pub(super) fn marks(home: &Path, admin: &Path) -> Marks {
    let real = admin.canonicalize().unwrap_or_else(|_| admin.to_owned());
    let beside = |program: &Path| program.parent().and_then(Path::parent).map(|above| above.join("lib"));
    let places = [Some(real.clone()), Some(home.join("lib")), beside(admin), beside(&real)];
    let mark = |place: PathBuf| {
        let found = std::fs::metadata(place).ok()?;
        Some([found.dev() as i64, found.ino() as i64, found.mtime(), found.mtime_nsec()])
    };
    Marks(places.into_iter().map(|place| place.and_then(mark)).collect())
}

fn from_jars(directory: &Path) -> Installed {
    let names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let kernel = names.iter().find_map(|name| {
        let version = name.strip_prefix("neo4j-kernel-")?.strip_suffix(".jar")?;
        version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
    });
    let enterprise = names.iter().any(|name| name.starts_with("neo4j-enterprise-") && name.ends_with(".jar"));
    match kernel {
        Some(version) => Installed { version, edition: if enterprise { "enterprise" } else { "community" }.to_owned() },
        None => Installed::default(),
    }
}

/// What `neo4j-admin --version` prints. Costs the start of a JVM: half a second to five.
pub(super) fn admin_version(admin: &Path, conf: &Path, launcher: &dyn Launcher, task: &Task) -> Result<String> {
    let tool = Tool::new(admin).arg("--version").env("NEO4J_CONF", configuration_directory(conf)).as_its_owner();
    let what = format!("asking {} for its version", admin.display());
    let text = run(launcher, &tool, task)?.expect_success(Code::Neo4jAdminFailed, &what)?.text();
    let version = text.lines().last().unwrap_or_default().trim();
    if version.starts_with(|c: char| c.is_ascii_digit()) && version.len() < 64 {
        return Ok(version.to_owned());
    }
    Err(Error::new(Code::Neo4jAdminFailed, format!("{what}: it printed {version:?}, which is no version"))
        .with_hint("set `admin` of the target to the server's own neo4j-admin"))
}

/// The directory that `NEO4J_CONF` names.
pub(super) fn configuration_directory(conf: &Path) -> PathBuf {
    conf.parent().map(Path::to_owned).unwrap_or_else(|| PathBuf::from("/"))
}

/// The plugins in `directory`, as facts: `plugin apoc-5.26.0-core.jar` → SHA-256.
pub(super) fn plugins(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.ends_with(".jar") && path.is_file() {
            let fail = |cause| Error::io("reading", &path, cause);
            let digest = File::open(&path).and_then(|mut file| sha256_of(&mut file)).map_err(fail)?;
            found.insert(format!("plugin {name}"), digest);
        }
    }
    Ok(found)
}

/// How two versions relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Equal, or one of them is not known.
    Same,
    /// Only the patch differs: the format is the same.
    Patch,
    /// A tool of this version may write archives that the server cannot read, or the other way round.
    Different,
}

/// Compares the tool's version with the server's.
pub(super) fn compare(tool: &str, server: &str) -> Match {
    let release = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    if tool.is_empty() || server.is_empty() || tool == server {
        Match::Same
    } else if release(tool) == release(server) {
        Match::Patch
    } else {
        Match::Different
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_shows() {
        let root = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| root.path().join(name);
        for release in ["old", "new"] {
            std::fs::create_dir_all(path(release).join("lib")).expect("mkdir");
            std::fs::create_dir_all(path(release).join("bin")).expect("mkdir");
            std::fs::write(path(release).join("bin/neo4j-admin"), b"").expect("write");
        }
        let link = |to: &str, name: &str| {
            let _ = std::fs::remove_file(path(name));
            std::os::unix::fs::symlink(path(to), path(name)).expect("link");
        };
        let look = || marks(&path("home"), &path("neo4j/bin/neo4j-admin"));
        link("old", "neo4j");
        let before = look();
        assert_eq!(look(), before, "nothing changed");
        link("new", "neo4j");
        let after = look();
        assert_ne!(after, before, "another installation behind the link");
        std::fs::write(path("new/lib/neo4j-kernel-2026.08.1.jar"), b"").expect("write");
        assert_ne!(look(), after, "another jar");
    }

    #[test]
    fn jars_tell_version_and_edition() {
        let home = tempfile::tempdir().expect("tempdir");
        let lib = home.path().join("lib");
        std::fs::create_dir_all(&lib).expect("mkdir");
        assert_eq!(of(home.path(), &[]), Installed::default());
        for jar in ["neo4j-kernel-api-5.26.0.jar", "neo4j-kernel-5.26.0.jar"] {
            std::fs::write(lib.join(jar), b"").expect("write");
        }
        let found = of(home.path(), &[]);
        assert_eq!((found.version.as_str(), found.edition.as_str()), ("5.26.0", "community"));
        std::fs::write(lib.join("neo4j-enterprise-kernel-5.26.0.jar"), b"").expect("write");
        assert_eq!(of(home.path(), &[]).edition, "enterprise");
    }

    #[test]
    fn another_release_is_not_taken_for_the_same() {
        assert_eq!(compare("5.26.0", "5.26.0"), Match::Same);
        assert_eq!(compare("5.26.1", "5.26.0"), Match::Patch);
        assert_eq!(compare("5.25.1", "5.26.0"), Match::Different);
        assert_eq!(compare("2026.08.1", "5.26.0"), Match::Different);
        assert_eq!(compare("", "5.26.0"), Match::Same);
    }
}
