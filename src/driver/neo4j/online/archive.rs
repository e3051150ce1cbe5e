//! The tar archive that an online base is streamed as, and the list of its files at its end.
//!
//! A file that had to be copied again comes again under the same name, and the later one counts, as every tar program
//! has it. The last member, [`LISTING`], says which files there are in the end, how often each came, with what CRC-32C,
//! and which ones were left out and have to be removed again.

use crate::base::{Code, Error, Result};
use crate::driver::tar_archive::{Sink, TarArchive};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The last member's name.
pub(in crate::driver::neo4j) const LISTING: &str = ".neo4j-backup-files.json";

/// A file of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver::neo4j) struct Listed {
    /// How often it comes; the last one counts.
    pub(in crate::driver::neo4j) times: u32,
    /// Bytes of the last one.
    pub(in crate::driver::neo4j) size: u64,
    /// CRC-32C of the last one.
    pub(in crate::driver::neo4j) crc32c: u32,
}

/// What the archive holds in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver::neo4j) struct Listing {
    /// By path.
    pub(in crate::driver::neo4j) files: BTreeMap<String, Listed>,
    /// Files that no longer count: what can be derived from the rest and would not hold still.
    pub(in crate::driver::neo4j) left_out: Vec<String>,
}

/// Writes an archive.
pub(in crate::driver::neo4j) struct Archive<S> {
    tar: TarArchive<S>,
    listing: Listing,
}

impl<S: Sink> Archive<S> {
    /// Begins an archive.
    pub(in crate::driver::neo4j) fn new(out: S) -> Self {
        Archive { tar: TarArchive::new(out), listing: Listing::default() }
    }

    /// Adds a file; see [`TarArchive::file`].
    pub(in crate::driver::neo4j) fn file(
        &mut self,
        path: &Path,
        size: u64,
        read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> Result<()> {
        let name = named(path)?;
        let crc32c = self.tar.file(path, size, read)?;
        self.list(name, size, crc32c);
        Ok(())
    }

    /// Adds a file whose bytes are at hand.
    pub(in crate::driver::neo4j) fn bytes(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let name = named(path)?;
        let crc32c = self.tar.bytes(path, bytes)?;
        self.list(name, bytes.len() as u64, crc32c);
        Ok(())
    }

    fn list(&mut self, name: String, size: u64, crc32c: u32) {
        let times = self.listing.files.get(&name).map_or(0, |listed| listed.times) + 1;
        self.listing.files.insert(name, Listed { times, size, crc32c });
    }

    /// Says that a file which may have been added does not count.
    pub(in crate::driver::neo4j) fn leave_out(&mut self, path: &Path) -> Result<()> {
        self.listing.left_out.push(named(path)?);
        Ok(())
    }

    /// Adds the listing and the archive's end.
    pub(in crate::driver::neo4j) fn finish(mut self) -> Result<Listing> {
        let text = serde_json::to_vec(&self.listing)
            .map_err(|cause| Error::new(Code::Internal, format!("listing the archive: {cause}")))?;
        self.tar.bytes(Path::new(LISTING), &text)?;
        self.tar.finish()?;
        Ok(self.listing)
    }
}

fn named(path: &Path) -> Result<String> {
    let unnameable =
        || Error::new(Code::Neo4jUnsupported, format!("{} is a name that a tar archive cannot hold", path.display()));
    path.to_str().map(str::to_owned).ok_or_else(unnameable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tar_archive::Copying;
    use std::io::Read;

    #[test]
    fn tar_reads_it_and_the_listing_tells_what_counts() {
        let mut out = Vec::new();
        let mut archive = Archive::new(Copying::new(&mut out));
        archive.bytes(Path::new("databases/neo4j/a"), b"first").expect("add");
        archive.bytes(Path::new("databases/neo4j/b"), &vec![7; 1000]).expect("add");
        archive.bytes(Path::new("databases/neo4j/a"), b"again").expect("add");
        archive.leave_out(Path::new("databases/neo4j/b")).expect("leave out");
        let listing = archive.finish().expect("finish");
        let a = listing.files["databases/neo4j/a"];
        assert_eq!((a.times, a.size, a.crc32c), (2, 5, crc32c::crc32c(b"again")));
        assert_eq!(listing.left_out, ["databases/neo4j/b"]);
        let mut members = tar::Archive::new(&out[..]);
        let mut last = String::new();
        let mut names = Vec::new();
        for entry in members.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            names.push(entry.path().expect("path").display().to_string());
            last.clear();
            let _ = entry.read_to_string(&mut last);
        }
        assert_eq!(names, ["databases/neo4j/a", "databases/neo4j/b", "databases/neo4j/a", LISTING]);
        assert_eq!(serde_json::from_str::<Listing>(&last).expect("listing"), listing);
    }
}
