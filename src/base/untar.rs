//! Unpacks a tar archive below a directory, and nowhere else.
//!
//! Every directory on the way is opened from its parent's descriptor without following links, every file is created
//! exclusively: neither the archive nor another process that plants a link meanwhile can lead a write elsewhere. Modes
//! are 0600 and 0700 whatever the archive says; owners are the caller's matter, and so is making the tree durable
//! ([`super::durable_tree`]).

use super::overwrite::Overwrite;
use super::tar_stream::{Member, MemberKind, Members, TarStream, hostile};
use super::{Code, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes read at once by [`unpack`].
const READ_SIZE: usize = 256 << 10;

/// What an archive may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of file data in all.
    pub bytes: u64,
    /// Most members.
    pub members: u64,
    /// How often one file may come; a later one replaces an earlier one. 1 = each comes once.
    pub times: u32,
}

/// A file that was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How often it came.
    pub times: u32,
    /// Bytes of the last one.
    pub size: u64,
    /// CRC-32C of the last one.
    pub crc32c: u32,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files.
    pub files: u64,
    /// Directories that the archive names.
    pub directories: u64,
    /// Bytes of file data.
    pub bytes: u64,
}

/// What was unpacked over an older tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Laid {
    /// Every file of the archive, by its name there.
    pub files: HashSet<PathBuf>,
    /// Every directory that it names.
    pub directories: HashSet<PathBuf>,
    /// Files that were there as they shall be.
    pub unchanged: u64,
    /// Bytes that were written over others, or were not there.
    pub changed_bytes: u64,
    /// The sums.
    pub unpacked: Unpacked,
}

/// Unpacks all of `reader` below `directory`, which exists.
///
/// Errors: `HOSTILE_ARCHIVE` for links, devices, names that lead out, duplicates and whatever exceeds `limits`;
/// `BACKUP_CORRUPTED` for an archive that is cut or damaged; `BACKUP_NO_SPACE` and `IO_FAILED`.
pub fn unpack(reader: &mut dyn Read, directory: &Path, limits: Limits) -> Result<Unpacked> {
    let mut unpacker = Unpacker::new(directory, limits)?;
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return unpacker.finish(),
            Ok(count) => unpacker.push(&buffer[..count])?,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(Error::from_io("unpacking an archive into", directory, cause)),
        }
    }
}

/// [`unpack`] for an archive that is written to it.
pub struct Unpacker {
    stream: TarStream<Tree>,
    directory: PathBuf,
}

impl Unpacker {
    /// Unpacks below `directory`, which exists.
    pub fn new(directory: &Path, limits: Limits) -> Result<Self> {
        Unpacker::branching(directory, &[], limits)
    }

    /// The same, but what the archive has at and below the first path of a branch goes to the second, which exists.
    pub fn branching(directory: &Path, branches: &[(&Path, &Path)], limits: Limits) -> Result<Self> {
        let root = open_root(directory)?;
        let opened = branches.iter().map(|(inside, elsewhere)| Ok(((*inside).to_owned(), open_root(elsewhere)?)));
        let branches = opened.collect::<Result<Vec<_>>>()?;
        let tree = Tree {
            root,
            branches,
            shown: directory.to_owned(),
            limits,
            seen: 0,
            done: Unpacked::default(),
            directories: HashSet::new(),
            written: BTreeMap::new(),
            parent: None,
            file: None,
            over: None,
        };
        Ok(Unpacker { stream: TarStream::new(tree), directory: directory.to_owned() })
    }

    /// Unpacks over what is in `directory`: files that are there are compared and changed, in place, where they differ; the
    /// first path of `instead` is written as the second. What the archive does not have stays ([`Unpacker::finish_over`]).
    pub fn over(directory: &Path, instead: (&Path, &Path), limits: Limits) -> Result<Self> {
        let mut unpacker = Unpacker::new(directory, limits)?;
        let over = Over { instead: (instead.0.to_owned(), instead.1.to_owned()), laid: Laid::default() };
        unpacker.stream.members_mut().over = Some(over);
        Ok(unpacker)
    }

    /// More of the archive.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.push(bytes).map_err(|cause| cause.context(format!("unpacking into {}", self.directory.display())))
    }

    /// The archive has ended; error `BACKUP_CORRUPTED` if that was too early.
    pub fn finish(self) -> Result<Unpacked> {
        self.end().map(|tree| tree.done)
    }

    /// [`Unpacker::finish`] for an archive whose files may come more than once: says what became of each.
    pub fn finish_listing(self) -> Result<BTreeMap<PathBuf, Written>> {
        self.end().map(|tree| tree.written)
    }

    /// [`Unpacker::finish`] for [`Unpacker::over`].
    pub fn finish_over(self) -> Result<Laid> {
        let tree = self.end()?;
        let laid = tree.over.map(|over| over.laid).unwrap_or_default();
        Ok(Laid { directories: tree.directories, unpacked: tree.done, ..laid })
    }

    fn end(self) -> Result<Tree> {
        let shown = self.directory.display();
        self.stream.finish().map_err(|cause| cause.context(format!("unpacking into {shown}")))
    }
}

fn open_root(directory: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(directory, flags, Mode::empty()).map_err(|cause| Error::io("opening the directory", directory, cause.into()))
}

impl Write for Unpacker {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The directory that is being filled.
struct Tree {
    root: OwnedFd,
    /// Paths of the archive that go elsewhere.
    branches: Vec<(PathBuf, OwnedFd)>,
    shown: PathBuf,
    limits: Limits,
    seen: u64,
    done: Unpacked,
    /// Directories the archive named, so that a second naming is noticed.
    directories: HashSet<PathBuf>,
    /// Files so far, where one may come again.
    written: BTreeMap<PathBuf, Written>,
    /// The directory of the last member, open: archives list a directory's files one after the other.
    parent: Option<(PathBuf, OwnedFd)>,
    file: Option<(PathBuf, Target)>,
    over: Option<Over>,
}

/// Where a file's bytes go.
enum Target {
    New(File),
    Over(Overwrite),
}

/// What is known of an older tree that is unpacked over.
struct Over {
    instead: (PathBuf, PathBuf),
    laid: Laid,
}

impl Tree {
    fn fail(&self, doing: &str, path: &Path, cause: Errno) -> Error {
        match cause {
            Errno::EEXIST => hostile(format!("{} comes twice", path.display())),
            Errno::ELOOP | Errno::ENOTDIR => {
                hostile(format!("{} lies below something that is no directory", path.display()))
            }
            Errno::ENAMETOOLONG => hostile(format!("the name of {} is too long", path.display())),
            other => Error::io(doing, &self.shown.join(path), other.into()),
        }
    }

    /// The directory that `path` is below, and where there.
    fn root_of<'a>(&self, path: &'a Path) -> (&OwnedFd, &'a Path) {
        let branch = self.branches.iter().find_map(|(inside, root)| Some((root, path.strip_prefix(inside).ok()?)));
        branch.unwrap_or((&self.root, path))
    }

    /// Opens `path` from the root, component by component, making what is missing.
    fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fail = |cause| self.fail("opening the directory", path, cause);
        let (root, below) = self.root_of(path);
        let mut handle = root.try_clone().map_err(|cause| Error::io("opening", &self.shown, cause))?;
        for part in below.components() {
            let part = Path::new(part.as_os_str());
            handle = match openat(&handle, part, flags, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    match mkdirat(&handle, part, Mode::S_IRWXU) {
                        // Another lane of the same tree was quicker.
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(cause) => return Err(fail(cause)),
                    }
                    openat(&handle, part, flags, Mode::empty()).map_err(fail)?
                }
                other => other.map_err(fail)?,
            };
        }
        Ok(handle)
    }

    /// Makes `path`'s directory the open one.
    fn enter(&mut self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.parent.as_ref().is_none_or(|(open, _)| open != parent) {
            self.parent = Some((parent.to_owned(), self.open_directory(parent)?));
        }
        Ok(())
    }

    /// Opens the file that is there, to be changed. What is no file of this name alone makes place: behind a link, or under
    /// another name of the same file, is what is not ours to change.
    fn open_older(&mut self, member: &Member) -> Result<Option<Overwrite>> {
        let Some(over) = &mut self.over else { return Ok(None) };
        if !over.laid.files.insert(member.path.clone()) {
            return Err(hostile(format!("{} comes twice", member.path.display())));
        }
        let (Some((_, parent)), Some(name)) = (&self.parent, shown_name(&self.over, &member.path)) else {
            return Err(Error::new(Code::Internal, "unpacking without an open directory"));
        };
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let older = match openat(parent, name.as_path(), flags, Mode::empty()) {
            Ok(handle) => Some(File::from(handle)),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP | Errno::ENXIO) => None,
            Err(cause) => return Err(self.fail("opening", &member.path, cause)),
        };
        let failed = |cause| Error::io("opening", &self.shown.join(&member.path), cause);
        if let Some(file) = older {
            let metadata = file.metadata().map_err(failed)?;
            if metadata.is_file() && metadata.nlink() == 1 {
                return Overwrite::new(file).map(Some).map_err(failed);
            }
        }
        unlinkat(parent, name.as_path(), UnlinkatFlags::NoRemoveDir)
            .map_err(|cause| self.fail("removing", &member.path, cause))?;
        Ok(None)
    }

    fn create_file(&mut self, member: &Member) -> Result<()> {
        self.enter(&member.path)?;
        self.done.files += 1;
        if let Some(older) = self.open_older(member)? {
            self.file = Some((member.path.clone(), Target::Over(older)));
            return Ok(());
        }
        let name = shown_name(&self.over, &member.path).unwrap_or_default();
        let name = name.as_path();
        let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let replace = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let times = self.written.get(&member.path).map_or(0, |written| written.times);
        // Only a file of this archive is ever replaced, never one that somebody else put there.
        let flags = if (1..self.limits.times).contains(&times) { replace } else { create };
        let Some((_, parent)) = &self.parent else {
            return Err(Error::new(Code::Internal, "unpacking without an open directory"));
        };
        let handle = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|cause| self.fail("creating", &member.path, cause))?;
        self.file = Some((member.path.clone(), Target::New(File::from(handle))));
        if self.limits.times > 1 {
            self.written.insert(member.path.clone(), Written { times: times + 1, size: member.size, crc32c: 0 });
        }
        Ok(())
    }

    fn create_directory(&mut self, member: &Member) -> Result<()> {
        if !self.directories.insert(member.path.clone()) {
            return Err(hostile(format!("the directory {} comes twice", member.path.display())));
        }
        // A file of that name is found out here: opening it as a directory fails.
        self.open_directory(&member.path)?;
        self.done.directories += 1;
        Ok(())
    }
}

impl Members for Tree {
    fn begin(&mut self, member: &Member) -> Result<()> {
        self.seen += 1;
        if self.seen > self.limits.members {
            return Err(hostile(format!("it has more than {} members", self.limits.members)));
        }
        if member.size > self.limits.bytes.saturating_sub(self.done.bytes) {
            return Err(hostile(format!(
                "{} would take it beyond the {} bytes it may hold",
                member.path.display(),
                self.limits.bytes
            )));
        }
        self.done.bytes += member.size;
        match member.kind {
            MemberKind::File => self.create_file(member),
            MemberKind::Directory => self.create_directory(member),
        }
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some((path, file)) => {
                if let Some(written) = self.written.get_mut(path) {
                    written.crc32c = crc32c::crc32c_append(written.crc32c, bytes);
                }
                let written = match (file, &mut self.over) {
                    (Target::Over(older), _) => older.write(bytes),
                    (Target::New(file), over) => {
                        over.iter_mut().for_each(|over| over.laid.changed_bytes += bytes.len() as u64);
                        file.write_all(bytes)
                    }
                };
                written.map_err(|cause| Error::io("writing", &self.shown.join(path), cause))
            }
            None => Err(Error::new(Code::Internal, "unpacking data without an open file")),
        }
    }

    fn end(&mut self) -> Result<()> {
        if let (Some((path, Target::Over(older))), Some(over)) = (self.file.take(), &mut self.over) {
            match older.end().map_err(|cause| Error::io("cutting", &self.shown.join(path), cause))? {
                Some(changed) => over.laid.changed_bytes += changed,
                None => over.laid.unchanged += 1,
            }
        }
        Ok(())
    }
}

/// The name that a file of the archive has in its directory.
fn shown_name(over: &Option<Over>, path: &Path) -> Option<PathBuf> {
    let instead = over.as_ref().filter(|over| over.instead.0 == path).map(|over| over.instead.1.as_path());
    instead.unwrap_or(path).file_name().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{EntryType, Header};

    const ROOMY: Limits = Limits { bytes: 1 << 20, members: 100, times: 1 };

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o4777);
        header
    }

    /// A header whose name is written byte for byte: no builder would agree to most of these.
    fn named(kind: EntryType, name: &[u8], data: &[u8]) -> Vec<u8> {
        let mut header = header(kind, data.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        sealed(header, data)
    }

    fn sealed(mut header: Header, data: &[u8]) -> Vec<u8> {
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn link(kind: EntryType, name: &[u8], target: &[u8]) -> Vec<u8> {
        let mut header = header(kind, 0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        sealed(header, b"")
    }

    #[test]
    fn a_file_may_come_again_only_as_often_as_it_is_allowed() {
        let archive = |times: usize| {
            let mut bytes: Vec<u8> =
                (0..times).flat_map(|n| named(EntryType::Regular, b"d/a", &[n as u8; 3])).collect();
            bytes.extend([0; 1024]);
            bytes
        };
        let directory = tempfile::tempdir().expect("tempdir");
        let limits = Limits { times: 3, ..ROOMY };
        let mut unpacker = Unpacker::new(directory.path(), limits).expect("unpacker");
        unpacker.push(&archive(3)).expect("push");
        let written = unpacker.finish_listing().expect("finish")[Path::new("d/a")];
        assert_eq!(written, Written { times: 3, size: 3, crc32c: crc32c::crc32c(&[2; 3]) });
        assert_eq!(std::fs::read(directory.path().join("d/a")).expect("read"), [2; 3]);

        for (there, times) in [(false, 4), (true, 1)] {
            let directory = tempfile::tempdir().expect("tempdir");
            if there {
                std::fs::create_dir(directory.path().join("d")).expect("mkdir");
                std::fs::write(directory.path().join("d/a"), b"kept").expect("write");
            }
            let mut unpacker = Unpacker::new(directory.path(), limits).expect("unpacker");
            let error = unpacker.push(&archive(times)).expect_err("must be refused");
            assert_eq!(error.code(), Code::HostileArchive);
        }
    }

    #[test]
    fn an_older_tree_is_changed_where_it_differs_and_nothing_outside_of_it() {
        use std::fs;
        let outer = tempfile::tempdir().expect("tempdir");
        let (inner, outside) = (outer.path().join("inner"), outer.path().join("outside"));
        fs::create_dir_all(inner.join("d")).expect("inner");
        fs::write(&outside, b"kept").expect("outside");
        for (name, content) in [("d/same", "x"), ("d/other", "a longer text"), ("d/gone", "y"), ("control", "old")] {
            fs::write(inner.join(name), content).expect("write");
        }
        fs::hard_link(&outside, inner.join("d/hard")).expect("link");
        std::os::unix::fs::symlink(&outside, inner.join("d/soft")).expect("link");
        let instead = (Path::new("control"), Path::new("waiting"));
        let names = ["d/same", "d/other", "d/hard", "d/soft", "d/new", "control"];
        let members: Vec<Vec<u8>> = names.iter().map(|name| file(name)).collect();
        let mut unpacker = Unpacker::over(&inner, instead, ROOMY).expect("unpacker");
        unpacker.push(&archive(&members)).expect("push");
        let laid = unpacker.finish_over().expect("finish");
        assert_eq!((laid.files.len(), laid.unchanged, laid.changed_bytes, laid.unpacked.files), (6, 1, 5, 6));
        let read = |name: &str| fs::read(inner.join(name)).expect("read");
        assert!(["d/same", "d/other", "d/hard", "d/soft", "d/new", "waiting"].iter().all(|name| read(name) == b"x"));
        assert_eq!(
            (read("control"), read("d/gone"), fs::read(&outside).expect("read")),
            (b"old".to_vec(), b"y".to_vec(), b"kept".to_vec())
        );
        let mut unpacker = Unpacker::over(&inner, instead, ROOMY).expect("unpacker");
        let error = unpacker.push(&archive(&[file("d/same"), file("d/same")])).expect_err("twice");
        assert_eq!(error.code(), Code::HostileArchive);
    }

    #[test]
    fn branches_go_elsewhere_and_nothing_else_does() {
        let outer = tempfile::tempdir().expect("tempdir");
        let (inner, elsewhere) = (outer.path().join("inner"), outer.path().join("elsewhere"));
        std::fs::create_dir(&inner).expect("inner");
        std::fs::create_dir(&elsewhere).expect("elsewhere");
        let branches = [(Path::new("t/1"), elsewhere.as_path())];
        let mut unpacker = Unpacker::branching(&inner, &branches, ROOMY).expect("unpacker");
        let members =
            [directory("t/"), directory("t/1/"), file("t/1/v/a"), file("t/12"), file("t/2/b"), file("u/t/1/c")];
        unpacker.push(&archive(&members)).expect("push");
        unpacker.finish().expect("finish");
        assert!(elsewhere.join("v/a").is_file() && !inner.join("t/1").exists());
        assert!(["t/12", "t/2/b", "u/t/1/c"].iter().all(|name| inner.join(name).is_file()));
        assert_eq!(std::fs::read_dir(&elsewhere).expect("list").count(), 1);
        let mut unpacker = Unpacker::branching(&inner, &branches, ROOMY).expect("unpacker");
        let error = unpacker.push(&archive(&[file("t/1/../x")])).expect_err("refused");
        assert_eq!(error.code(), Code::HostileArchive);
    }

    fn file(name: &str) -> Vec<u8> {
        named(EntryType::Regular, name.as_bytes(), b"x")
    }

    fn directory(name: &str) -> Vec<u8> {
        named(EntryType::Directory, name.as_bytes(), b"")
    }

    fn archive(members: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = members.concat();
        bytes.extend_from_slice(&[0; 1024]);
        bytes
    }

    fn prefixed(prefix: &[u8], name: &[u8]) -> Vec<u8> {
        let mut header = header(EntryType::Regular, 0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        let bytes = header.as_mut_bytes();
        bytes[345..345 + prefix.len()].copy_from_slice(prefix);
        sealed(header, b"")
    }

    fn long_name(name: &[u8]) -> Vec<u8> {
        [named(EntryType::GNULongName, b"././@LongLink", name), file("short")].concat()
    }

    fn hostile_archives() -> Vec<(&'static str, Vec<u8>)> {
        use EntryType as T;
        vec![
            ("absolute file", archive(&[file("/tmp/escaped")])),
            ("absolute directory", archive(&[directory("/tmp/escaped/")])),
            ("double slash", archive(&[file("//tmp/escaped")])),
            ("parent file", archive(&[file("../escaped")])),
            ("parent directory", archive(&[directory("../escaped/")])),
            ("parent itself", archive(&[directory("..")])),
            ("parent in the middle", archive(&[file("a/../../escaped")])),
            ("parent after a dot", archive(&[file("./../escaped")])),
            ("parent at the end", archive(&[directory("a/..")])),
            ("there and back", archive(&[file("a/../b")])),
            ("parent in the prefix", archive(&[prefixed(b"..", b"escaped")])),
            ("absolute prefix", archive(&[prefixed(b"/tmp", b"escaped")])),
            ("parent in a long name", archive(&[long_name(b"../escaped\0")])),
            ("absolute long name", archive(&[long_name(b"/tmp/escaped\0")])),
            ("empty long name", archive(&[long_name(b"\0")])),
            ("long name of nothing", archive(&[named(T::GNULongName, b"x", b""), file("short")])),
            ("long name after a long name", archive(&[named(T::GNULongName, b"x", b"a\0"), long_name(b"b\0")])),
            ("name too long to be one", archive(&[long_name(&[b'a'; 5000])])),
            ("component too long", archive(&[long_name(&[b'a'; 300])])),
            ("symbolic link", archive(&[link(T::Symlink, b"l", b"/etc/passwd")])),
            ("symbolic link inside", archive(&[link(T::Symlink, b"l", b"a"), file("l/x")])),
            ("symbolic link to the parent", archive(&[link(T::Symlink, b"l", b".."), file("l/escaped")])),
            ("hard link", archive(&[file("a"), link(T::Link, b"b", b"a")])),
            ("hard link outside", archive(&[link(T::Link, b"b", b"/etc/passwd")])),
            ("character device", archive(&[link(T::Char, b"null", b"")])),
            ("block device", archive(&[link(T::Block, b"disk", b"")])),
            ("fifo", archive(&[link(T::Fifo, b"pipe", b"")])),
            ("continuous file", archive(&[named(T::Continuous, b"c", b"x")])),
            ("sparse file", archive(&[named(T::GNUSparse, b"s", b"x")])),
            ("long link", archive(&[named(T::GNULongLink, b"l", b"/etc/passwd\0"), file("a")])),
            ("extended header", archive(&[named(T::XHeader, b"x", b"18 path=../escaped\n"), file("a")])),
            ("global header", archive(&[named(T::XGlobalHeader, b"x", b"18 path=../escaped\n"), file("a")])),
            ("unknown type", archive(&[named(T::new(b'Z'), b"z", b"x")])),
            ("file twice", archive(&[file("a"), file("a")])),
            ("file twice, spelt differently", archive(&[file("a"), file("./a")])),
            ("directory twice", archive(&[directory("d/"), directory("d/")])),
            ("file, then directory", archive(&[file("d"), directory("d/")])),
            ("directory, then file", archive(&[directory("d/"), file("d")])),
            ("file below a file", archive(&[file("d"), file("d/x")])),
            ("no name", archive(&[named(T::Regular, b"", b"x")])),
            ("the root as a file", archive(&[file("./")])),
            ("file named like a directory", archive(&[file("a/")])),
            ("directory with data", archive(&[named(T::Directory, b"d/", b"x")])),
            ("more bytes than allowed", archive(&[named(T::Regular, b"big", &vec![1; (1 << 20) + 1])])),
            (
                "a size without end",
                sealed(
                    {
                        let mut h = header(T::Regular, u64::MAX / 2);
                        h.as_old_mut().name[0] = b'a';
                        h
                    },
                    b"",
                ),
            ),
            ("too many members", archive(&(0..200).map(|n| file(&format!("f{n}"))).collect::<Vec<_>>())),
        ]
    }

    #[test]
    fn hostile_archives_are_refused_and_nothing_escapes() {
        let archives = hostile_archives();
        assert!(archives.len() >= 40);
        for (what, bytes) in archives {
            let outer = tempfile::tempdir().expect("tempdir");
            let inner = outer.path().join("inner");
            std::fs::create_dir(&inner).expect("inner");
            let error =
                unpack(&mut bytes.as_slice(), &inner, ROOMY).err().unwrap_or_else(|| panic!("{what}: accepted"));
            assert_eq!(error.code(), Code::HostileArchive, "{what}: {error}");
            assert_eq!(std::fs::read_dir(outer.path()).expect("outer").count(), 1, "{what}: something escaped");
            assert!(!Path::new("/tmp/escaped").exists(), "{what}");
        }
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let outer = tempfile::tempdir().expect("tempdir");
        let (inner, elsewhere) = (outer.path().join("inner"), outer.path().join("elsewhere"));
        std::fs::create_dir(&inner).expect("inner");
        std::fs::create_dir(&elsewhere).expect("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, inner.join("d")).expect("link");
        std::os::unix::fs::symlink(elsewhere.join("f"), inner.join("f")).expect("link");
        for member in [file("d/x"), directory("d/"), file("f")] {
            let error = unpack(&mut archive(&[member]).as_slice(), &inner, ROOMY).expect_err("refused");
            assert_eq!(error.code(), Code::HostileArchive);
        }
        assert_eq!(std::fs::read_dir(&elsewhere).expect("list").count(), 0);
    }

    #[test]
    fn modes_are_private_whatever_the_archive_says() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().expect("tempdir");
        let bytes = archive(&[directory("./"), directory("d/"), file("d/x"), file("implied/y")]);
        let unpacked = unpack(&mut bytes.as_slice(), place.path(), ROOMY).expect("unpack");
        assert_eq!(unpacked, Unpacked { files: 2, directories: 2, bytes: 2 });
        let mode = |name: &str| place.path().join(name).metadata().expect("metadata").permissions().mode() & 0o7777;
        assert_eq!([mode("d"), mode("d/x"), mode("implied")], [0o700, 0o600, 0o700]);
    }
}
