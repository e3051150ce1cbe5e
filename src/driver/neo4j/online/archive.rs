//! The tar archive that an online base is streamed as, and the list of its files at its end.
//!
//! A file that had to be copied again comes again under the same name, and the later one counts, as every tar program
//! has it. The last member, [`LISTING`], says which files there are in the end, how often each came, with what CRC-32C,
//! and which ones were left out and have to be removed again.

use crate::base::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// The last member's name.
pub(in crate::driver::neo4j) const LISTING: &str = ".neo4j-backup-files.json";
/// Bytes in a tar block.
const BLOCK: u64 = 512;
/// Bytes copied at once.
const COPY_SIZE: usize = 256 << 10;

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
pub(in crate::driver::neo4j) struct Archive<W> {
    out: W,
    listing: Listing,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub(in crate::driver::neo4j) fn new(out: W) -> Self {
        Archive { out, listing: Listing::default(), buffer: vec![0; COPY_SIZE] }
    }

    /// Adds a file of exactly `size` bytes: what `read` gives less is made up by zeros. `read` gets a buffer and the
    /// offset it is for, and returns how many bytes it put there; 0 = there are no more.
    pub(in crate::driver::neo4j) fn file(
        &mut self,
        path: &Path,
        size: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> Result<()> {
        let name = path.to_str().ok_or_else(|| unnameable(path))?.to_owned();
        self.write(&header(path, size)?)?;
        let (mut offset, mut crc, mut ended) = (0, 0, false);
        while offset < size {
            let wanted = self.buffer.len().min(usize::try_from(size - offset).unwrap_or(usize::MAX));
            let mut got = match ended {
                true => 0,
                false => read(&mut self.buffer[..wanted], offset).map_err(|cause| Error::io("reading", path, cause))?,
            };
            if got == 0 {
                ended = true;
                self.buffer[..wanted].fill(0);
                got = wanted;
            }
            crc = crc32c::crc32c_append(crc, &self.buffer[..got]);
            let piece = &self.buffer[..got];
            self.out.write_all(piece).map_err(closed)?;
            offset += got as u64;
        }
        self.pad(size)?;
        let times = self.listing.files.get(&name).map_or(0, |listed| listed.times) + 1;
        self.listing.files.insert(name, Listed { times, size, crc32c: crc });
        Ok(())
    }

    /// Adds a file whose bytes are at hand.
    pub(in crate::driver::neo4j) fn bytes(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.file(path, bytes.len() as u64, |buffer, offset| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    /// Says that a file which may have been added does not count.
    pub(in crate::driver::neo4j) fn leave_out(&mut self, path: &Path) -> Result<()> {
        let name = path.to_str().ok_or_else(|| unnameable(path))?.to_owned();
        self.listing.left_out.push(name);
        Ok(())
    }

    /// Adds the listing and the archive's end.
    pub(in crate::driver::neo4j) fn finish(mut self) -> Result<Listing> {
        let listing = std::mem::take(&mut self.listing);
        let text = serde_json::to_vec(&listing)
            .map_err(|cause| Error::new(Code::Internal, format!("listing the archive: {cause}")))?;
        self.bytes(Path::new(LISTING), &text)?;
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush().map_err(closed)?;
        Ok(listing)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(closed)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = size.next_multiple_of(BLOCK) - size;
        self.write(&[0; BLOCK as usize][..padding as usize])
    }
}

fn header(path: &Path, size: u64) -> Result<[u8; BLOCK as usize]> {
    let mut header = Header::new_ustar();
    header.set_path(path).map_err(|_| unnameable(path))?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    Ok(*header.as_bytes())
}

fn unnameable(path: &Path) -> Error {
    Error::new(Code::Neo4jUnsupported, format!("{} is a name that a tar archive cannot hold", path.display()))
}

/// Whoever reads the stream has stopped doing so; why, he says himself.
fn closed(cause: io::Error) -> Error {
    Error::new(Code::Cancelled, format!("the archive is no longer wanted: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn tar_reads_it_and_the_listing_tells_what_counts() {
        let mut out = Vec::new();
        let mut archive = Archive::new(&mut out);
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

    #[test]
    fn a_file_that_shrank_is_made_up_and_one_that_grew_is_cut() {
        let mut out = Vec::new();
        let mut archive = Archive::new(&mut out);
        let source = |content: &'static [u8]| {
            move |buffer: &mut [u8], offset: u64| {
                let rest = content.get(offset as usize..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        };
        archive.file(Path::new("short"), 4, source(b"ab")).expect("add");
        archive.file(Path::new("long"), 2, source(b"abcd")).expect("add");
        archive.finish().expect("finish");
        assert_eq!(&out[512..516], b"ab\0\0");
        assert_eq!(&out[1536..1540], b"ab\0\0");
        assert_eq!(out.len() % 512, 0);
    }
}
