//! A repository in a directory.
//!
//! An object is a file of mode 0600 at its key's path below the root; directories have mode 0700. A writer works in
//! `.incomplete/`, flushes the file, gives it its name in one step and flushes the directory; directories it had to
//! make are flushed through their parents first. While it lives it holds a lock on its file, so that
//! [`Store::sweep`] can tell leftovers from work in progress even when process ids come round again.
//!
//! Nothing inside the root is reached through a symbolic link: every component is opened beneath its parent's
//! descriptor. The root itself may be behind one. Each call checks that the root is still the directory that was
//! opened; no descriptor of it is kept, so that an idle agent does not stand in the way of `umount`.

mod directory;
mod listing;
mod reader;
mod sweep;
mod writer;

use super::fault::StoreError;
use super::store::{ObjectInfo, ObjectWriter, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::atomic_file::sync_parent;
use crate::base::space::{self, Space};
use crate::base::{Code, Error, Result};
use directory::Tree;
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::DirBuilder;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Mode of the root and of every directory below it.
const DIRECTORY_MODE: u32 = 0o700;

/// See the module.
#[derive(Clone, Debug)]
pub struct LocalStore {
    tree: Arc<Tree>,
    /// Begins the names of this machine's unfinished files.
    machine: String,
}

impl LocalStore {
    /// Opens the repository's directory. `REPOSITORY_NOT_FOUND` if it is not there.
    pub fn open(root: PathBuf) -> Result<LocalStore> {
        Ok(LocalStore { tree: Arc::new(Tree::open(root)?), machine: sweep::machine_prefix() })
    }

    /// Makes the directory durably if it is not there, and opens it. Its parent must exist: a missing one is most
    /// likely a filesystem that is not mounted.
    pub fn create(root: PathBuf) -> Result<LocalStore> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(&root) {
            Ok(()) => {
                if let Err(error) = sync_parent(&root) {
                    // Flushing again later could succeed over a lost entry.
                    let _ = std::fs::remove_dir(&root);
                    return Err(error.recode(Code::RepositoryIo));
                }
            }
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                // Whoever made it may have been killed before its entry was durable. A parent that may not be read
                // is not ours to flush.
                let _ = sync_parent(&root);
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Absent { location: root.display().to_string(), cause }.into());
            }
            Err(cause) => return Err(Error::io("making the repository", &root, cause)),
        }
        LocalStore::open(root)
    }

    /// The same store as another machine would use it.
    #[cfg(test)]
    fn on_machine(mut self, machine: &str) -> Self {
        self.machine = machine.to_owned();
        self
    }
}

impl Store for LocalStore {
    fn location(&self) -> String {
        self.tree.location()
    }

    fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(writer::LocalWriter::begin(self.tree.clone(), key.clone(), &self.machine)?))
    }

    fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(reader::LocalReader::open(&self.tree, key, range)?))
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let (parents, name) = directory::split(key);
        let Some(parent) = self.tree.descend(&parents)? else { return Ok(None) };
        Ok(listing::examine(&self.tree, &parent, name, key)?)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        listing::list(&self.tree, prefix, visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<bool> {
        let (parents, name) = directory::split(key);
        let Some(parent) = self.tree.descend(&parents)? else { return Ok(false) };
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::EISDIR) => return Ok(false),
            Err(errno) => return Err(self.tree.fault("removing", key.as_str(), errno).into()),
        }
        self.tree.sync(&parent, key.as_str())?;
        self.tree.prune(&parents)?;
        Ok(true)
    }

    fn space(&self) -> Result<Option<Space>> {
        self.tree.root()?;
        space::of(self.tree.path()).map(Some)
    }

    fn sweep(&self) -> Result<Vec<String>> {
        sweep::sweep(&self.tree, &self.machine)
    }
}

#[cfg(test)]
mod tests;
