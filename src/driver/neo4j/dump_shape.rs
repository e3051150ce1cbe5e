//! Follows the shape of a dump while it streams by, so that an empty or cut stream is noticed even when the tool that
//! made it claims success.
//!
//! A dump is four letters, `DZV1` (Zstandard) or `DGV1` (gzip), then one compressed stream. Zstandard frames (RFC 8878)
//! say of each block how long it is and whether it is the last, so that the end can be found without decompressing
//! anything.

use crate::base::{Code, Error, Result};

/// No dump is smaller: that of an empty database has about 15 KB.
pub(super) const SMALLEST_DUMP_BYTES: u64 = 1024;

const FRAME_MAGIC: u32 = 0xfd2f_b528;
/// Skippable frames have sixteen magic numbers from here.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The four letters.
    Letters,
    /// A frame's magic number; the stream may end here, once a frame has been.
    Magic,
    /// The byte that says which fields the frame's header has.
    Descriptor,
    /// The rest of a frame's header, of which nothing is needed.
    Header { checksum: bool },
    /// A block's header.
    Block { checksum: bool },
    /// A block's content.
    Content { last: bool, checksum: bool },
    /// The frame's checksum.
    Checksum,
    /// Length of a skippable frame.
    SkipLength,
    /// Content of a skippable frame.
    Skip,
    /// A gzip stream, whose end cannot be seen without decompressing it.
    Gzip,
}

/// Where in its shape a stream is.
#[derive(Clone, Debug)]
pub(super) struct DumpShape {
    next: Next,
    /// Bytes of the field at hand; at most four are ever needed.
    field: Vec<u8>,
    /// Bytes still to come of a field that is not looked at.
    pass: u64,
    total: u64,
    /// Fewer bytes cannot be what it claims to be.
    smallest: u64,
    wrong: Option<&'static str>,
}

impl Default for DumpShape {
    fn default() -> Self {
        let (field, smallest) = (Vec::with_capacity(4), SMALLEST_DUMP_BYTES);
        DumpShape { next: Next::Letters, field, pass: 0, total: 0, smallest, wrong: None }
    }
}

impl DumpShape {
    /// The shape of what has no letters before its frames, or whose letters were looked at before.
    pub(super) fn of_frames() -> Self {
        DumpShape { next: Next::Magic, ..DumpShape::default() }
    }

    /// The same, of whatever length: a piece of log may be short.
    pub(super) fn of_short_frames() -> Self {
        DumpShape { smallest: 0, ..DumpShape::of_frames() }
    }

    /// More bytes of the stream. What is wrong is told at the end.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        while !bytes.is_empty() && self.wrong.is_none() && self.next != Next::Gzip {
            let wanted = self.field_length();
            if wanted == 0 {
                let now = self.pass.min(bytes.len() as u64);
                self.pass -= now;
                bytes = &bytes[now as usize..];
            } else {
                let now = (wanted - self.field.len()).min(bytes.len());
                self.field.extend_from_slice(&bytes[..now]);
                bytes = &bytes[now..];
                if self.field.len() == wanted {
                    self.take_field();
                }
            }
            self.skip_finished();
        }
    }

    /// Length of the field that must be looked at next; 0 = pass over `pass` bytes.
    fn field_length(&self) -> usize {
        match self.next {
            Next::Letters | Next::Magic | Next::SkipLength => 4,
            Next::Descriptor => 1,
            Next::Block { .. } => 3,
            Next::Header { .. } | Next::Content { .. } | Next::Checksum | Next::Skip | Next::Gzip => 0,
        }
    }

    fn take_field(&mut self) {
        let number = self.field.iter().rev().fold(0u32, |value, &byte| value << 8 | u32::from(byte));
        self.next = match self.next {
            Next::Letters => match self.field.as_slice() {
                b"DZV1" => Next::Magic,
                b"DGV1" => Next::Gzip,
                _ => self.fail("it does not begin like a dump"),
            },
            Next::Magic if number == FRAME_MAGIC => Next::Descriptor,
            Next::Magic if number & !15 == SKIPPABLE_MAGIC => Next::SkipLength,
            Next::Magic => self.fail("there is something else where a Zstandard frame should begin"),
            Next::Descriptor => self.header(number as u8),
            Next::Block { checksum } => self.block(number, checksum),
            Next::SkipLength => {
                self.pass = u64::from(number);
                Next::Skip
            }
            other => other,
        };
        self.field.clear();
    }

    fn header(&mut self, descriptor: u8) -> Next {
        let single_segment = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_size = match descriptor >> 6 {
            0 => u64::from(single_segment),
            1 => 2,
            2 => 4,
            _ => 8,
        };
        self.pass = u64::from(!single_segment) + dictionary + content_size;
        Next::Header { checksum: descriptor & 4 != 0 }
    }

    fn block(&mut self, header: u32, checksum: bool) -> Next {
        self.pass = match header >> 1 & 3 {
            // A run of one byte is stored as that byte.
            1 => 1,
            3 => return self.fail("a block has a type that does not exist"),
            _ => u64::from(header >> 3),
        };
        Next::Content { last: header & 1 == 1, checksum }
    }

    fn fail(&mut self, why: &'static str) -> Next {
        self.wrong = Some(why);
        self.next
    }

    /// Goes on from fields that have been passed over.
    fn skip_finished(&mut self) {
        while self.field_length() == 0 && self.pass == 0 && self.next != Next::Gzip {
            self.next = match self.next {
                Next::Header { checksum } => Next::Block { checksum },
                Next::Content { last: false, checksum } => Next::Block { checksum },
                Next::Content { last: true, checksum: true } => {
                    self.pass = 4;
                    Next::Checksum
                }
                _ => Next::Magic,
            };
        }
    }

    /// The stream has ended. Error `NEO4J_ADMIN_FAILED` when it was not a whole dump.
    pub(super) fn finish(&self, what: &str) -> Result<()> {
        let complaint = if self.total == 0 {
            "it wrote nothing at all".to_owned()
        } else if let Some(wrong) = self.wrong {
            wrong.to_owned()
        } else if self.total < self.smallest {
            format!("{} bytes are too few for a dump", self.total)
        } else if self.next == Next::Gzip || (self.next == Next::Magic && self.field.is_empty()) {
            return Ok(());
        } else {
            format!("it broke off after {} bytes, in the middle of a Zstandard frame", self.total)
        };
        Err(Error::new(Code::Neo4jAdminFailed, format!("{what}: the tool claims success, but {complaint}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dump(checksum: bool, content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(b"DZV1".to_vec(), 1).expect("encoder");
        encoder.include_checksum(checksum).expect("checksum");
        std::io::Write::write_all(&mut encoder, content).expect("write");
        encoder.finish().expect("finish")
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| step()).collect()
    }

    fn judge(bytes: &[u8], step: usize) -> Result<()> {
        let mut shape = DumpShape::default();
        bytes.chunks(step).for_each(|chunk| shape.push(chunk));
        shape.finish("dumping x")
    }

    #[test]
    fn whole_dumps_pass_however_they_are_cut_into_buffers() {
        for checksum in [true, false] {
            let whole = dump(checksum, &[noise(300_000), vec![0; 300_000]].concat());
            for step in [1, 3, 4096, usize::MAX] {
                judge(&whole, step).expect("sound");
            }
            let skippable = [&b"DZV1"[..], &[0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9], &whole[4..]].concat();
            judge(&skippable, 7).expect("sound");
        }
    }

    proptest! {
        #[test]
        fn any_cut_is_noticed(part in 0.0f64..1.0) {
            let whole = dump(true, &noise(40_000));
            let cut = (whole.len() as f64 * part) as usize;
            prop_assert_eq!(judge(&whole[..cut], 1000).map_err(|e| e.code()), Err(Code::Neo4jAdminFailed));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = judge(&[&b"DZV1"[..], &bytes].concat(), 11);
            let _ = judge(&bytes, 11);
        }
    }

    #[test]
    fn a_tool_that_prints_its_help_instead_is_noticed() {
        assert!(judge("USAGE: neo4j-admin …".repeat(100).as_bytes(), 4096).is_err());
        assert!(judge(b"", 1).expect_err("error").message().contains("nothing at all"));
        let appended = [dump(true, &noise(3000)), b"and more".to_vec()].concat();
        assert!(judge(&appended, 100).is_err());
    }
}
