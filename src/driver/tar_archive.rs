//! Writes a tar archive of files that others may be writing: each member has the length that was said when it began.

use crate::base::{Code, Error, Result};
use std::io::{self, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// Bytes in a tar block.
const BLOCK: u64 = 512;
/// Bytes copied at once.
const COPY_SIZE: usize = 256 << 10;
/// Reads begin at multiples of this many bytes, and so at every database's page boundaries.
pub(super) const ALIGNMENT: usize = 32 << 10;

/// What takes an archive.
pub(super) trait Sink: Write {
    /// Has `read` fill some room and takes what it put there. The room is `most` bytes, or fewer, and then a multiple of
    /// [`ALIGNMENT`]. Returns how many bytes `read` gave. An error of `read` is returned as it is.
    fn fill(&mut self, most: usize, read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize>;
}

/// Anything that can be written to, by way of a buffer.
#[cfg(test)]
pub(super) struct Copying<W> {
    out: W,
    buffer: Vec<u8>,
}

#[cfg(test)]
impl<W: Write> Copying<W> {
    /// Writes to `out`.
    pub(super) fn new(out: W) -> Self {
        Copying { out, buffer: vec![0; COPY_SIZE] }
    }
}

#[cfg(test)]
impl<W: Write> Write for Copying<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
impl<W: Write> Sink for Copying<W> {
    fn fill(&mut self, most: usize, read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let room = most.min(self.buffer.len());
        let count = read(&mut self.buffer[..room])?;
        self.out.write_all(&self.buffer[..count])?;
        Ok(count)
    }
}

/// An archive on its way to `S`.
pub(super) struct TarArchive<S> {
    out: S,
}

impl<S: Sink> TarArchive<S> {
    /// Begins an archive.
    pub(super) fn new(out: S) -> Self {
        TarArchive { out }
    }

    /// Adds a file of exactly `size` bytes: what `read` gives less is made up by zeros. `read` gets a buffer and the
    /// offset it is for, and returns how many bytes it put there; 0 = there are no more. Returns the CRC-32C of what was
    /// added.
    pub(super) fn file(
        &mut self,
        path: &Path,
        size: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> Result<u32> {
        self.write(&header(path, EntryType::Regular, size)?)?;
        let (mut offset, mut crc, mut ended) = (0, 0, false);
        while offset < size {
            let most = COPY_SIZE.min(usize::try_from(size - offset).unwrap_or(usize::MAX));
            let mut failure = None;
            let filled = self.out.fill(most, &mut |room| {
                let mut got = if ended { 0 } else { read(room, offset).inspect_err(|_| failure = Some(()))? };
                if got == 0 {
                    ended = true;
                    room.fill(0);
                    got = room.len();
                }
                crc = crc32c::crc32c_append(crc, &room[..got]);
                Ok(got)
            });
            let told = |cause| match failure {
                Some(()) => Error::from_io("reading", path, cause),
                None => closed(cause),
            };
            offset += filled.map_err(told)? as u64;
        }
        let padding = size.next_multiple_of(BLOCK) - size;
        self.write(&[0; BLOCK as usize][..padding as usize])?;
        Ok(crc)
    }

    /// Adds a file whose bytes are at hand; see [`TarArchive::file`].
    pub(super) fn bytes(&mut self, path: &Path, bytes: &[u8]) -> Result<u32> {
        self.file(path, bytes.len() as u64, |buffer, offset| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    /// Adds a directory, which a reader makes also where it stays empty.
    pub(super) fn directory(&mut self, path: &Path) -> Result<()> {
        self.write(&header(path, EntryType::Directory, 0)?)
    }

    /// Adds the archive's end.
    pub(super) fn finish(mut self) -> Result<()> {
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush().map_err(closed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(closed)
    }
}

fn header(path: &Path, kind: EntryType, size: u64) -> Result<[u8; BLOCK as usize]> {
    let mut header = Header::new_ustar();
    header.set_path(path).map_err(|_| {
        Error::new(Code::IoFailed, format!("{} is a name that a tar archive cannot hold", path.display()))
    })?;
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o700 } else { 0o600 });
    header.set_size(size);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Whoever reads the stream has stopped doing so; why, he says himself.
fn closed(cause: io::Error) -> Error {
    Error::new(Code::Cancelled, format!("the archive is no longer wanted: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrank_is_made_up_and_one_that_grew_is_cut() {
        let mut out = Vec::new();
        let mut archive = TarArchive::new(Copying::new(&mut out));
        let source = |content: &'static [u8]| {
            move |buffer: &mut [u8], offset: u64| {
                let rest = content.get(offset as usize..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        };
        assert_eq!(archive.file(Path::new("short"), 4, source(b"ab")).expect("add"), crc32c::crc32c(b"ab\0\0"));
        assert_eq!(archive.file(Path::new("long"), 2, source(b"abcd")).expect("add"), crc32c::crc32c(b"ab"));
        archive.directory(Path::new("empty")).expect("add");
        archive.finish().expect("finish");
        assert_eq!(&out[512..516], b"ab\0\0");
        assert_eq!(&out[1536..1540], b"ab\0\0");
        assert_eq!(out.len() % 512, 0);
    }
}
