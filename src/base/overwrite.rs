//! Writes a file over an older one: what is there is read and compared, byte by byte, and only blocks that differ are
//! written. Nothing is taken for the same because of its size or its time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are written if one of them differs: a page of most databases and filesystems, or two.
const BLOCK: usize = 8192;

/// A file that is written over.
pub(super) struct Overwrite {
    file: File,
    /// Bytes that it had.
    length: u64,
    at: u64,
    there: Vec<u8>,
    changed: u64,
}

impl Overwrite {
    /// Begins at the first byte of a file that is open for reading and writing.
    pub(super) fn new(file: File) -> io::Result<Overwrite> {
        let length = file.metadata()?.len();
        Ok(Overwrite { file, length, at: 0, there: Vec::new(), changed: 0 })
    }

    /// The next bytes that it shall have.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let known = self.length.saturating_sub(self.at).min(bytes.len() as u64) as usize;
        self.there.resize(known, 0);
        self.file.read_exact_at(&mut self.there, self.at)?;
        let mut differs_from = None;
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            let begin = index * BLOCK;
            let same = self.there.get(begin..begin + block.len()) == Some(block);
            match (same, differs_from) {
                (false, None) => differs_from = Some(begin),
                (true, Some(from)) => {
                    self.replace(&bytes[from..begin], from)?;
                    differs_from = None;
                }
                _ => {}
            }
        }
        if let Some(from) = differs_from {
            self.replace(&bytes[from..], from)?;
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8], from: usize) -> io::Result<()> {
        self.changed += bytes.len() as u64;
        self.file.write_all_at(bytes, self.at + from as u64)
    }

    /// There are no more: what the older file had behind them goes. Returns the bytes that were written, or `None` if it is
    /// as it was.
    pub(super) fn end(self) -> io::Result<Option<u64>> {
        if self.length > self.at {
            self.file.set_len(self.at)?;
        }
        Ok((self.changed > 0 || self.length != self.at).then_some(self.changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn over(old: &[u8], new: &[u8], piece: usize) -> (Vec<u8>, Option<u64>) {
        let place = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(place.path(), old).expect("old");
        let file = File::options().read(true).write(true).open(place.path()).expect("open");
        let mut over = Overwrite::new(file).expect("begin");
        new.chunks(piece).for_each(|piece| over.write(piece).expect("write"));
        let changed = over.end().expect("end");
        (std::fs::read(place.path()).expect("read"), changed)
    }

    #[test]
    fn only_what_differs_is_written() {
        let old = vec![7; 10 * BLOCK];
        assert_eq!(over(&old, &old, 3 * BLOCK), (old.clone(), None));
        let mut new = old.clone();
        new[5 * BLOCK + 17] = 8;
        assert_eq!(over(&old, &new, 4 * BLOCK), (new, Some(BLOCK as u64)));
        assert_eq!(over(&old, &old[..BLOCK], BLOCK), (old[..BLOCK].to_vec(), Some(0)), "it is cut");
        assert_eq!(over(b"", b"new", 1), (b"new".to_vec(), Some(3)));
        assert_eq!(over(b"", b"", 1), (Vec::new(), None));
    }

    proptest! {
        #[test]
        fn it_always_becomes_what_it_shall_be(
            old in proptest::collection::vec(0u8..2, 0..30_000),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
            length in 0usize..40_000,
            piece in 1usize..20_000,
        ) {
            let mut new = old.clone();
            new.resize(length, 1);
            if !new.is_empty() {
                for (at, byte) in edits {
                    let at = at.index(new.len());
                    new[at] = byte;
                }
            }
            let (found, changed) = over(&old, &new, piece);
            prop_assert_eq!(changed.is_none(), old == new);
            prop_assert_eq!(found, new);
        }
    }
}
