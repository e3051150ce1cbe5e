//! The host's files, below a root directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most bytes that are read of a server's configuration file.
const FILE_MAX: u64 = 1 << 20;
/// Where units lie, first come, first served.
pub const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A host. Every path given and returned is as on the host itself, without the root.
#[derive(Clone, Copy, Debug)]
pub struct Host<'h> {
    root: &'h Path,
}

impl<'h> Host<'h> {
    /// The host below `root`; `/` is this one.
    pub fn below(root: &'h Path) -> Self {
        Host { root }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether it is certainly not there; what may not be looked at is not called missing.
    pub fn missing(&self, path: &Path) -> bool {
        let missing = |error: std::io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        fs::metadata(self.at(path)).is_err_and(missing)
    }

    /// Whether there is a file.
    pub fn is_file(&self, path: &Path) -> bool {
        self.at(path).is_file()
    }

    /// Whether there is a directory.
    pub fn is_directory(&self, path: &Path) -> bool {
        self.at(path).is_dir()
    }

    /// The start of a file as text; `None` if it cannot be read.
    pub fn read(&self, path: &Path) -> Option<String> {
        let file = File::open(self.at(path)).ok().filter(|file| file.metadata().is_ok_and(|m| m.is_file()))?;
        let mut content = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut content).ok()?;
        Some(String::from_utf8_lossy(&content).into_owned())
    }

    /// The number of the account that owns a file or directory; `None` if it cannot be looked at.
    pub fn owner(&self, path: &Path) -> Option<u32> {
        fs::metadata(self.at(path)).ok().map(|metadata| metadata.uid())
    }

    /// Where a symbolic link leads; `None` if it cannot be read.
    pub fn link(&self, path: &Path) -> Option<PathBuf> {
        fs::read_link(self.at(path)).ok()
    }

    /// The names in a directory, sorted; empty if it cannot be read.
    pub fn list(&self, path: &Path) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The file of a unit, that of its template for an instance (`postgresql@15-main.service`).
    pub fn unit_file(&self, unit: &str) -> Option<PathBuf> {
        let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
        let candidates = std::iter::once(unit.to_owned()).chain(template);
        let mut paths = candidates.flat_map(|name| UNIT_DIRECTORIES.map(|directory| Path::new(directory).join(&name)));
        paths.find(|path| self.is_file(path))
    }

    /// The host's name: the kernel's, or what a faked root says.
    pub fn name(&self) -> String {
        let kernel = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let file = || self.read(Path::new("/etc/hostname"));
        let name = if self.root == Path::new("/") { kernel().or_else(file) } else { file() };
        let name: String = name
            .unwrap_or_default()
            .trim()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c))
            .collect();
        if name.is_empty() { "localhost".to_owned() } else { name }
    }
}
