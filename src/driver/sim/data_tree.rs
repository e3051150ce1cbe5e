//! The files of a fake database, in a fixed order, and what can be counted of them.

use super::log;
use crate::artifact::statistics::Statistics;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Census;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes read at once for the mark.
const READ_SIZE: usize = 256 << 10;

/// A file or directory below the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the data directory.
    pub(super) path: PathBuf,
    /// Bytes of a file; `None` = a directory.
    pub(super) size: Option<u64>,
}

/// All of a data directory, sorted by path: a directory comes before what is in it.
#[derive(Clone, Debug)]
pub(super) struct DataTree {
    /// The data directory.
    pub(super) root: PathBuf,
    /// What is below it.
    pub(super) entries: Vec<Entry>,
}

impl DataTree {
    /// Lists `root`. Error `IO_FAILED` if it is gone or holds anything but files and directories.
    pub(super) fn scan(root: &Path, task: &Task) -> Result<DataTree> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            task.check()?;
            let listed = root.join(&directory);
            for entry in fs::read_dir(&listed).map_err(|cause| Error::io("listing", &listed, cause))? {
                let entry = entry.map_err(|cause| Error::io("listing", &listed, cause))?;
                let path = directory.join(entry.file_name());
                let metadata = entry.metadata().map_err(|cause| Error::io("examining", &entry.path(), cause))?;
                let size = if metadata.is_dir() {
                    waiting.push(path.clone());
                    None
                } else if metadata.is_file() {
                    Some(metadata.len())
                } else {
                    let text = format!("{} is neither a file nor a directory", entry.path().display());
                    return Err(Error::new(Code::IoFailed, text));
                };
                found.insert(path, size);
            }
        }
        let entries = found.into_iter().map(|(path, size)| Entry { path, size }).collect();
        Ok(DataTree { root: root.to_owned(), entries })
    }

    /// The files and their sizes.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.entries.iter().filter_map(|entry| entry.size.map(|size| (entry.path.as_path(), size)))
    }

    /// The files that no log changes: they are as many in every state.
    fn tables(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files().filter(|(path, _)| !log::is_part(path))
    }

    /// The sum of the files' sizes.
    pub(super) fn bytes(&self) -> u64 {
        self.files().map(|(_, size)| size).sum()
    }

    /// Files whose name begins with a dot: the fake database makes none, so they are leftovers of somebody's.
    pub(super) fn orphans(&self) -> Vec<&Path> {
        let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        self.files().map(|(path, _)| path).filter(|path| hidden(path)).collect()
    }

    /// How many files and bytes there are, and which files.
    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            counts: BTreeMap::from([
                ("files".to_owned(), self.tables().count() as u64),
                ("bytes".to_owned(), self.tables().map(|(_, size)| size).sum()),
            ]),
            schema: self.tables().map(|(path, _)| path.to_string_lossy().into_owned()).collect(),
            ..Statistics::default()
        }
    }

    /// The statistics with a mark that covers names, sizes and contents.
    pub(super) fn census(&self, task: &Task) -> Result<Census> {
        let mut crc = 0;
        let mut buffer = vec![0; READ_SIZE];
        for (name, size) in self.files() {
            let path = self.root.join(name);
            // The length before the name keeps two neighbouring names from being taken for one longer.
            let head = format!("{}:{}:{size}:", name.as_os_str().len(), name.display());
            crc = crc32c::crc32c_append(crc, head.as_bytes());
            let mut file = File::open(&path).map_err(|cause| Error::io("opening", &path, cause))?;
            loop {
                task.check()?;
                match file.read(&mut buffer).map_err(|cause| Error::io("reading", &path, cause))? {
                    0 => break,
                    count => crc = crc32c::crc32c_append(crc, &buffer[..count]),
                }
            }
        }
        Ok(Census { statistics: self.statistics(), mark: Some(format!("{crc:08x}")) })
    }
}
