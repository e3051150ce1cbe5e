//! What an artifact of `neo4j-admin database backup` says of itself, read without the tool that made it.
//!
//! An artifact begins with four letters. `BZV1` and `BZV2` are followed by one Zstandard stream, in which the word
//! `zstd`, the description and the store's files follow each other; `BZV3` (from 2026) has the description in the
//! clear, then the stream. `BTV1` and `BTV2` are not compressed; they are never asked for. The layout is that which
//! Community's own `neo4j-admin database load` reads, in 5.26.0 and 2026.08.1.

use crate::base::{Code, Error, Result};
use crate::driver::neo4j::dump_shape::DumpShape;
use crate::driver::neo4j::log::StoreId;
use std::io::{Read, Take};

/// Longest header that is read, in bytes: the metadata script may have a megabyte, the rest is small.
const HEADER_MAX: u64 = 64 << 20;
/// Most additional fields; there is one.
const FIELDS_MAX: u32 = 1024;
/// What a compressed stream of Neo4j begins with.
const STREAM_WORD: &[u8; 4] = b"zstd";
/// Bytes before the stream, or the description: the four letters.
const LETTERS_BYTES: u64 = 4;

/// An artifact's account of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// The database's name.
    pub(super) database: String,
    /// The store's identity, as [`StoreId::identity`] writes it.
    pub(super) store: String,
    /// The first append index it holds: 1 of a full artifact, 0 of an empty differential one.
    pub(super) lowest: u64,
    /// The last append index it holds; the tool's tables call it the highest transaction.
    pub(super) highest: u64,
    /// Whether it holds the store, not only a piece of its log.
    pub(super) full: bool,
    /// Where its Zstandard frames begin.
    pub(super) frames_at: u64,
}

impl Description {
    /// The shape that its frames must have.
    pub(super) fn shape(&self) -> DumpShape {
        if self.full { DumpShape::of_frames() } else { DumpShape::of_short_frames() }
    }

    /// Reads the beginning of an artifact. Error `NEO4J_ADMIN_FAILED` says what it is instead.
    pub(super) fn read(artifact: impl Read) -> Result<Description> {
        let mut artifact = Counted { inner: artifact.take(HEADER_MAX), count: 0 };
        let mut letters = Vec::new();
        artifact
            .by_ref()
            .take(LETTERS_BYTES)
            .read_to_end(&mut letters)
            .map_err(|cause| refuse(&format!("it cannot be read: {cause}")))?;
        match letters.as_slice() {
            b"" => Err(refuse("it is empty")),
            b"BZV1" | b"BZV2" => {
                let second = letters == b"BZV2";
                let stream = zstd::Decoder::new(artifact).map_err(|cause| broken(&cause))?;
                let mut stream = stream.take(HEADER_MAX);
                if &bytes::<4>(&mut stream)? != STREAM_WORD {
                    return Err(refuse("its stream does not begin as Neo4j's do"));
                }
                if second {
                    version(&mut stream)?;
                }
                fields(&mut stream, LETTERS_BYTES)
            }
            b"BZV3" => {
                version(&mut artifact)?;
                let description = fields(&mut artifact, 0)?;
                additional_fields(&mut artifact)?;
                Ok(Description { frames_at: artifact.count, ..description })
            }
            b"BTV1" | b"BTV2" => Err(refuse("it is not compressed, although that was asked for")),
            [b'B', ..] => Err(refuse(&format!("its format {:?} is not known", String::from_utf8_lossy(&letters)))),
            _ => Err(refuse("it does not begin like a backup artifact")),
        }
    }
}

fn refuse(why: &str) -> Error {
    Error::new(Code::Neo4jAdminFailed, why)
}

fn broken(cause: &std::io::Error) -> Error {
    match cause.kind() {
        std::io::ErrorKind::UnexpectedEof => refuse("it breaks off within its description"),
        _ => refuse(&format!("its description cannot be read: {cause}")),
    }
}

fn bytes<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(|cause| broken(&cause))?;
    Ok(bytes)
}

fn long(from: &mut impl Read) -> Result<u64> {
    Ok(u64::from_be_bytes(bytes(from)?))
}

/// A length in one byte and as many bytes.
fn short_field(from: &mut impl Read) -> Result<Vec<u8>> {
    let [length] = bytes::<1>(from)?;
    let mut field = vec![0; usize::from(length)];
    from.read_exact(&mut field).map_err(|cause| broken(&cause))?;
    Ok(field)
}

fn version(from: &mut impl Read) -> Result<()> {
    match bytes::<1>(from)? {
        [2] => Ok(()),
        [other] => Err(refuse(&format!("its description has version {other}, known is 2"))),
    }
}

fn store_id(from: &mut impl Read) -> Result<StoreId> {
    let mut whole = bytes::<17>(from)?.to_vec();
    for _ in 0..2 {
        let name = short_field(from)?;
        whole.push(name.len() as u8);
        whole.extend(name);
    }
    whole.extend(bytes::<2>(from)?);
    StoreId::parse(&whole).ok_or_else(|| refuse("its store id makes no sense"))
}

fn fields(from: &mut impl Read, frames_at: u64) -> Result<Description> {
    let store = store_id(from)?.identity();
    let _database_id = short_field(from)?;
    let database = String::from_utf8(short_field(from)?).map_err(|_| refuse("its database has no readable name"))?;
    let (_made_at, lowest, highest) = (long(from)?, long(from)?, long(from)?);
    // Bits of the flags: recovered, compressed, full. Trailing zero bytes are left out.
    let full = short_field(from)?.first().is_some_and(|flags| flags & 0b100 != 0);
    Ok(Description { database, store, lowest, highest, full, frames_at })
}

/// Passes over what is of no concern here: the commands that would make users and roles again.
fn additional_fields(from: &mut impl Read) -> Result<()> {
    let count = u32::from_be_bytes(bytes(from)?);
    if count > FIELDS_MAX {
        return Err(refuse(&format!("its description claims {count} fields")));
    }
    for _ in 0..count * 2 {
        let length = u64::from(u32::from_be_bytes(bytes(from)?));
        let passed = std::io::copy(&mut from.take(length), &mut std::io::sink()).map_err(|cause| broken(&cause))?;
        if passed < length {
            return Err(refuse("it breaks off within its description"));
        }
    }
    Ok(())
}

/// Counts what was read.
struct Counted<R> {
    inner: Take<R>,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const STORE: &str = "01000001a1f8c208e6d0a548bae547ce2a067265636f726407616c69676e65640101";

    fn described(second: bool, database: &str, full: bool, range: (u64, u64)) -> Vec<u8> {
        let mut bytes = if second { vec![2] } else { Vec::new() };
        bytes.extend(hex::decode(STORE).expect("hex"));
        bytes.push(16);
        bytes.extend([7; 16]);
        bytes.push(database.len() as u8);
        bytes.extend(database.as_bytes());
        for number in [1_795_212_000u64, range.0, range.1] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend([1, if full { 0b111 } else { 0b011 }]);
        if second {
            bytes.extend(1u32.to_be_bytes());
            for text in ["metadataScript", "CREATE ROLE reader;\n"] {
                bytes.extend((text.len() as u32).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
        bytes
    }

    fn compressed(letters: &[u8], content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(letters.to_vec(), 1).expect("encoder");
        encoder.write_all(content).expect("write");
        encoder.finish().expect("finish")
    }

    /// An artifact in one of the three layouts.
    pub(in crate::driver::neo4j::enterprise) fn artifact(letters: &str, database: &str, full: bool) -> Vec<u8> {
        artifact_of(letters, database, full, (1, 42))
    }

    /// An artifact that holds a range.
    pub(in crate::driver::neo4j::enterprise) fn artifact_of(
        letters: &str,
        database: &str,
        full: bool,
        range: (u64, u64),
    ) -> Vec<u8> {
        let noise: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        match letters {
            "BZV3" => {
                let head = [b"BZV3".to_vec(), described(true, database, full, range)].concat();
                compressed(&head, &[b"zstd".to_vec(), noise].concat())
            }
            letters => {
                let described = described(letters == "BZV2", database, full, range);
                compressed(letters.as_bytes(), &[b"zstd".to_vec(), described, noise].concat())
            }
        }
    }

    fn words(bytes: &[u8]) -> String {
        Description::read(bytes).expect_err("refused").message().to_owned()
    }

    #[test]
    fn every_layout_tells_the_same() {
        for letters in ["BZV1", "BZV2", "BZV3"] {
            let whole = artifact(letters, "neo4j", true);
            let found = Description::read(&whole[..]).expect(letters);
            assert_eq!((found.database.as_str(), found.lowest, found.highest, found.full), ("neo4j", 1, 42, true));
            assert_eq!(found.store, "000001a1f8c208e6d0a548bae547ce2a");
            let frame = &whole[found.frames_at as usize..][..4];
            assert_eq!(frame, 0xfd2f_b528u32.to_le_bytes(), "{letters}: a frame begins there");
            assert!(!Description::read(&artifact(letters, "neo4j", false)[..]).expect(letters).full);
        }
    }

    #[test]
    fn what_is_no_artifact_is_named() {
        assert_eq!(words(b""), "it is empty");
        assert_eq!(words(b"DZV1 and so on"), "it does not begin like a backup artifact");
        assert_eq!(words(b"BTV2 and so on"), "it is not compressed, although that was asked for");
        assert_eq!(words(b"BXV9 and so on"), "its format \"BXV9\" is not known");
        assert!(words(&compressed(b"BZV2", b"tar!")).contains("does not begin as Neo4j's do"));
        let mut many = [b"BZV3".to_vec(), described(true, "neo4j", true, (1, 42))].concat();
        let at = many.len() - 46;
        many[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(words(&many).contains("claims 4294967295 fields"), "{}", words(&many));
    }

    proptest! {
        #[test]
        fn a_cut_header_is_noticed(cut in 0usize..100) {
            let whole = artifact("BZV3", "neo4j", true);
            prop_assert!(Description::read(&whole[..cut]).is_err());
        }

        #[test]
        fn any_bytes_are_survived(letters in 1u8..4, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let name = [b"BZV".to_vec(), vec![b'0' + letters]].concat();
            let _ = Description::read(&[name.clone(), bytes.clone()].concat()[..]);
            let _ = Description::read(&compressed(&name, &[b"zstd".to_vec(), bytes].concat())[..]);
        }
    }
}
