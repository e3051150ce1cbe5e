//! Files that a cluster needs and a base backup does not hold: Debian keeps configuration in `/etc/postgresql`, and
//! certificates may be anywhere.

use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, within};
use super::{PostgresDriverSettings, inspection};
use crate::base::Result;
use crate::base::task::Task;
use crate::driver::OutsideFile;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Most files that are taken from a configuration directory; one with more is something else.
const FILES_MAX: usize = 1000;
/// Settings that name files.
const FILE_SETTINGS: [&str; 7] =
    ["config_file", "hba_file", "ident_file", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file"];

/// See [`crate::driver::Driver::outside_files`].
pub(crate) fn list(settings: &PostgresDriverSettings, address: &Address, task: &Task) -> Result<Vec<OutsideFile>> {
    let mut paths = BTreeSet::new();
    if let Some(directory) = &settings.config_directory {
        collect(directory, &mut paths);
    }
    let asked = address.clone();
    // A stopped server cannot be asked; then the configured directory is all there is to know.
    if let Ok(named) = within(TALK_TIMEOUT, "asking for configuration files", task, move || ask(&asked)) {
        paths.extend(named);
    }
    task.check()?;
    let data = settings.data_directory.canonicalize().unwrap_or_else(|_| settings.data_directory.clone());
    let inside = |path: &Path| path.starts_with(&settings.data_directory) || path.starts_with(&data);
    Ok(paths.into_iter().filter(|path| !inside(path) && is_readable(path)).filter_map(outside).collect())
}

fn ask(address: &Address) -> Result<Vec<PathBuf>> {
    let mut client = address.connect_any(CATALOG_TIMEOUT)?;
    let mut paths = Vec::new();
    for name in FILE_SETTINGS {
        let value = inspection::setting(&mut client, name)?.map(PathBuf::from);
        // A relative path is below the data directory.
        paths.extend(value.filter(|path| path.is_absolute()));
    }
    Ok(paths)
}

fn collect(directory: &Path, paths: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if paths.len() >= FILES_MAX {
            return;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), paths),
            Ok(_) => {
                paths.insert(entry.path());
            }
            Err(_) => {}
        }
    }
}

fn is_readable(path: &Path) -> bool {
    path.is_file() && File::open(path).is_ok()
}

fn outside(path: PathBuf) -> Option<OutsideFile> {
    let archive_name = path.strip_prefix("/").ok()?.to_str()?.to_owned();
    let plain = !archive_name.is_empty() && !archive_name.split('/').any(|part| part == "..");
    plain.then_some(OutsideFile { path, archive_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_archive_are_relative() {
        let file = outside(PathBuf::from("/etc/postgresql/15/main/pg_hba.conf")).expect("taken");
        assert_eq!(file.archive_name, "etc/postgresql/15/main/pg_hba.conf");
        assert_eq!(outside(PathBuf::from("/etc/../x")), None);
        assert_eq!(outside(PathBuf::from("relative")), None);
    }
}
