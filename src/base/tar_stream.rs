//! Reads a tar archive that arrives in pieces, strictly.
//!
//! Only what this crate's own archives and `pg_basebackup`'s hold is understood: regular files, directories, and GNU
//! long names. Everything else (links, devices, sparse files, extended headers) is refused, as are names that could
//! leave a directory. An archive counts as whole only with both zero blocks at its end: a stream that merely stops
//! between two members looks complete to most readers. Layout: POSIX.1-1988 `ustar`, decoded field by field with
//! [`tar::Header`].

use super::{Code, Error, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::{EntryType, Header};

/// Bytes in a block; headers are one block, data is padded to whole ones.
const BLOCK: usize = 512;
/// Longest member name, in bytes: the kernel takes no longer path.
const NAME_MAX: u64 = 4096;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// A member's header, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Relative, without `.` and `..`; empty for the archive's root directory.
    pub path: PathBuf,
    /// File or directory.
    pub kind: MemberKind,
    /// Bytes of data; 0 for a directory.
    pub size: u64,
    /// Permission bits as recorded.
    pub mode: u32,
}

/// Takes the members of an archive, in order.
pub trait Members {
    /// A member begins.
    fn begin(&mut self, member: &Member) -> Result<()>;

    /// More of its data.
    fn data(&mut self, bytes: &[u8]) -> Result<()>;

    /// All of its data was there. Called for directories and empty files too.
    fn end(&mut self) -> Result<()>;
}

/// Cuts an archive into its members.
pub struct TarStream<M> {
    members: M,
    state: State,
    block: Vec<u8>,
    long_name: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    LongName { left: u64 },
    Data { left: u64, padding: u64 },
    Padding { left: u64 },
    SecondZeroBlock,
    Trailer,
}

impl<M: Members> TarStream<M> {
    /// Starts at the first byte of an archive.
    pub fn new(members: M) -> Self {
        TarStream { members, state: State::Header, block: Vec::with_capacity(BLOCK), long_name: None }
    }

    /// The same, to be changed.
    pub fn members_mut(&mut self) -> &mut M {
        &mut self.members
    }

    /// The taker of the members.
    pub fn members(&self) -> &M {
        &self.members
    }

    /// More of the archive. Errors: `BACKUP_CORRUPTED` for what no tar program writes, `HOSTILE_ARCHIVE` for what could
    /// do harm.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let used = match self.state {
                State::Header | State::SecondZeroBlock => self.fill_block(bytes)?,
                State::LongName { left } => self.take_long_name(bytes, left),
                State::Data { left, padding } => self.take_data(bytes, left, padding)?,
                State::Padding { left } => {
                    let used = at_most(bytes, left);
                    self.state = after_padding(left - used as u64);
                    used
                }
                State::Trailer if bytes.iter().all(|&byte| byte == 0) => bytes.len(),
                State::Trailer => return Err(corrupted("there are bytes after its end")),
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// The archive has ended. Error `BACKUP_CORRUPTED` if that was too early.
    pub fn finish(self) -> Result<M> {
        match self.state {
            State::Trailer => Ok(self.members),
            _ => Err(corrupted("it ends too early")),
        }
    }

    fn fill_block(&mut self, bytes: &[u8]) -> Result<usize> {
        let used = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..used]);
        if self.block.len() == BLOCK {
            let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
            let zero = block.iter().all(|&byte| byte == 0);
            self.state = match (self.state, zero) {
                (State::SecondZeroBlock, true) => State::Trailer,
                (State::SecondZeroBlock, false) => return Err(corrupted("a single zero block stands in its middle")),
                (_, true) if self.long_name.is_some() => return Err(corrupted("a long name has no member")),
                (_, true) => State::SecondZeroBlock,
                (_, false) => self.open_header(&block)?,
            };
        }
        Ok(used)
    }

    fn open_header(&mut self, block: &[u8]) -> Result<State> {
        let header = Header::from_byte_slice(block);
        let numbers = (header.cksum().ok(), header.entry_size().ok(), header.mode().ok());
        let (Some(recorded), Some(size), Some(mode)) = numbers else {
            return Err(corrupted("a header's numbers cannot be read"));
        };
        if recorded != checksum(block) {
            return Err(corrupted("a header's checksum is wrong"));
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let kind = match header.entry_type() {
            EntryType::Regular => MemberKind::File,
            EntryType::Directory => MemberKind::Directory,
            EntryType::GNULongName if self.long_name.is_some() => return Err(hostile("two long names in a row")),
            EntryType::GNULongName if size == 0 || size > NAME_MAX => {
                return Err(hostile(format!("a member name of {size} bytes")));
            }
            EntryType::GNULongName => {
                self.long_name = Some(Vec::with_capacity(size as usize + BLOCK));
                return Ok(State::LongName { left: size + padding });
            }
            other => {
                let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
                return Err(hostile(format!("{name:?} is a {other:?}, only files and directories are taken")));
            }
        };
        let name = self.long_name.take().map(until_nul).unwrap_or_else(|| header.path_bytes().into_owned());
        let member = Member { path: safe_path(&name, kind)?, kind, size, mode: mode & 0o7777 };
        if kind == MemberKind::Directory && size != 0 {
            return Err(hostile(format!("the directory {} carries data", member.path.display())));
        }
        self.members.begin(&member)?;
        if size == 0 {
            self.members.end()?;
            return Ok(State::Header);
        }
        Ok(State::Data { left: size, padding })
    }

    fn take_long_name(&mut self, bytes: &[u8], left: u64) -> usize {
        let used = at_most(bytes, left);
        if let Some(name) = &mut self.long_name {
            name.extend_from_slice(&bytes[..used]);
        }
        let left = left - used as u64;
        self.state = if left == 0 { State::Header } else { State::LongName { left } };
        used
    }

    fn take_data(&mut self, bytes: &[u8], left: u64, padding: u64) -> Result<usize> {
        let used = at_most(bytes, left);
        self.members.data(&bytes[..used])?;
        let left = left - used as u64;
        self.state = if left > 0 {
            State::Data { left, padding }
        } else {
            self.members.end()?;
            after_padding(padding)
        };
        Ok(used)
    }
}

fn at_most(bytes: &[u8], left: u64) -> usize {
    bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))
}

fn after_padding(left: u64) -> State {
    if left == 0 { State::Header } else { State::Padding { left } }
}

/// The sum of a header's bytes with its checksum field (8 bytes at 148) taken as spaces.
fn checksum(block: &[u8]) -> u32 {
    block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) }).sum()
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

/// Takes `a/b`, `./a/b` and, for directories, `a/` and `./`; anything that could leave the directory is hostile.
fn safe_path(name: &[u8], kind: MemberKind) -> Result<PathBuf> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    if name.is_empty() || name.contains(&0) {
        return Err(hostile(format!("the member name {:?}", shown())));
    }
    if name.len() as u64 > NAME_MAX {
        return Err(hostile(format!("a member name of {} bytes", name.len())));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(hostile(format!("the member name {:?} leads out of the directory", shown()))),
        }
    }
    if kind == MemberKind::File && (path.as_os_str().is_empty() || name.ends_with(b"/")) {
        return Err(hostile(format!("the file name {:?}", shown())));
    }
    Ok(path)
}

fn corrupted(what: &str) -> Error {
    Error::new(Code::BackupCorrupted, format!("reading a tar archive: {what}"))
}

/// Refuses an archive; `what` names the member.
pub(crate) fn hostile(what: impl std::fmt::Display) -> Error {
    Error::new(Code::HostileArchive, format!("the archive was refused: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Listing(Vec<(PathBuf, Vec<u8>)>);

    impl Members for Listing {
        fn begin(&mut self, member: &Member) -> Result<()> {
            self.0.push((member.path.clone(), Vec::new()));
            Ok(())
        }
        fn data(&mut self, bytes: &[u8]) -> Result<()> {
            self.0.last_mut().expect("begun").1.extend_from_slice(bytes);
            Ok(())
        }
        fn end(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, *content).expect("append");
        }
        builder.into_inner().expect("archive")
    }

    fn read(bytes: &[u8]) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut stream = TarStream::new(Listing::default());
        stream.push(bytes)?;
        Ok(stream.finish()?.0)
    }

    #[test]
    fn every_cut_is_noticed() {
        let long = "d/".repeat(80) + "long-name";
        let whole = archive(&[("a", b"alpha"), (&long, b"beta"), ("empty", b"")]);
        assert_eq!(read(&whole).expect("whole").len(), 3);
        assert_eq!(read(&whole).expect("whole")[1].0, PathBuf::from(&long));
        for cut in 0..whole.len() {
            let error = read(&whole[..cut]).err().unwrap_or_else(|| panic!("{cut} bytes passed for an archive"));
            assert_eq!(error.code(), Code::BackupCorrupted, "{cut}");
        }
    }

    #[test]
    fn a_flipped_header_bit_is_noticed() {
        let whole = archive(&[("a", b"alpha")]);
        for at in 0..BLOCK {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            assert!(read(&bytes).is_err(), "bit in byte {at}");
        }
    }

    #[test]
    fn what_follows_the_end_must_be_zero() {
        let mut bytes = archive(&[("a", b"alpha")]);
        bytes.extend_from_slice(&[0; 9216]);
        assert!(read(&bytes).is_ok());
        bytes.push(1);
        assert_eq!(read(&bytes).map_err(|e| e.code()).err(), Some(Code::BackupCorrupted));
    }

    proptest! {
        #[test]
        fn the_way_it_arrives_does_not_matter(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 0..5),
            step in 1usize..700,
        ) {
            let names: Vec<String> = (0..contents.len()).map(|n| format!("dir/{n}")).collect();
            let files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
            let bytes = archive(&files);
            let mut stream = TarStream::new(Listing::default());
            for piece in bytes.chunks(step) {
                stream.push(piece).expect("piece");
            }
            let listing = stream.finish().expect("whole").0;
            prop_assert_eq!(listing.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), contents);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = read(&bytes);
        }
    }
}
