//! A data directory as a tar stream that is made while it is read. The same tree gives the same bytes: names are
//! sorted, times, owners and modes are fixed.

use super::data_tree::{DataTree, Entry};
use crate::base::{Code, Error, Result};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::vec::IntoIter;
use tar::{Builder, EntryType, Header};

/// Bytes in a tar block.
const BLOCK: u64 = 512;

/// Reads a tree as a tar archive.
pub(super) struct TarReader {
    root: PathBuf,
    entries: IntoIter<Entry>,
    /// Lists what comes last, once everything else was read.
    late: Option<Late>,
    /// Headers, padding and the end mark: whatever is not a file's data.
    frame: Cursor<Vec<u8>>,
    file: Option<OpenFile>,
    ended: bool,
}

/// Lists entries when it is their turn.
pub(super) type Late = Box<dyn FnOnce() -> Result<Vec<Entry>> + Send>;

struct OpenFile {
    path: PathBuf,
    file: File,
    left: u64,
    padding: u64,
}

impl TarReader {
    /// Starts before the first entry; what `late` lists comes after all of them.
    pub(super) fn new(tree: DataTree, late: Option<Late>) -> Self {
        TarReader {
            root: tree.root,
            entries: tree.entries.into_iter(),
            late,
            frame: Cursor::default(),
            file: None,
            ended: false,
        }
    }

    /// Puts the next entry's header into the frame and opens its file; after the last entry, the end mark.
    fn advance(&mut self) -> Result<()> {
        let Some(entry) = self.entries.next() else {
            if let Some(list) = self.late.take() {
                self.entries = list()?.into_iter();
                return Ok(());
            }
            self.ended = true;
            self.frame = Cursor::new(vec![0; 2 * BLOCK as usize]);
            return Ok(());
        };
        let path = self.root.join(&entry.path);
        self.frame = Cursor::new(header(&entry).map_err(|cause| Error::io("describing", &path, cause))?);
        if let Some(size) = entry.size {
            let file = File::open(&path).map_err(|cause| Error::io("opening", &path, cause))?;
            self.file = Some(OpenFile { path, file, left: size, padding: size.next_multiple_of(BLOCK) - size });
        }
        Ok(())
    }
}

/// An entry's header blocks, a GNU long name included where the name needs one.
fn header(entry: &Entry) -> std::io::Result<Vec<u8>> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(entry.size.unwrap_or(0));
    header.set_mode(if entry.size.is_some() { 0o600 } else { 0o700 });
    header.set_entry_type(if entry.size.is_some() { EntryType::Regular } else { EntryType::Directory });
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header, &entry.path, std::io::empty())?;
    Ok(std::mem::take(builder.get_mut()))
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.frame.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            match self.file.take() {
                Some(open) if open.left == 0 => self.frame = Cursor::new(vec![0; open.padding as usize]),
                Some(mut open) => {
                    let wanted = buffer.len().min(usize::try_from(open.left).unwrap_or(usize::MAX));
                    let count = open
                        .file
                        .read(&mut buffer[..wanted])
                        .map_err(|cause| Error::io("reading", &open.path, cause))?;
                    if count == 0 {
                        let text = format!("reading {}: it became shorter meanwhile", open.path.display());
                        return Err(Error::new(Code::IoFailed, text).into());
                    }
                    open.left -= count as u64;
                    self.file = Some(open);
                    return Ok(count);
                }
                None if self.ended => return Ok(0),
                None => self.advance()?,
            }
        }
    }
}
