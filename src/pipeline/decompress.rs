//! Decompression. A stream that is cut, changed, or followed by anything is an error, never a short output.

use super::compress::GZIP_WINDOW_BITS;
use super::damage::Damage;
use super::{Filter, GZIP, Outlet, ZSTD};
use crate::base::{Code, Error, Result};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// log2 of the largest window that is accepted, 32 MiB: four times what level 19 writes. A reader keeps a whole
/// window in memory, so that this bounds what a stream can demand.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// Zstandard, exactly one frame.
pub(super) struct ZstdDecompress {
    decoder: Decoder<'static>,
    complete: bool,
}

impl ZstdDecompress {
    pub(super) fn new() -> Result<Self> {
        let failed = |cause| Error::new(Code::Internal, format!("preparing to decompress zstd: {cause}"));
        let mut decoder = Decoder::new().map_err(failed)?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(failed)?;
        Ok(ZstdDecompress { decoder, complete: false })
    }
}

impl Filter for ZstdDecompress {
    fn name(&self) -> &'static str {
        ZSTD
    }

    fn push(&mut self, input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        let mut taken = InBuffer::around(input);
        let mut full = false;
        // Room that was filled to its end may not have held all that is ready, though all input was taken.
        while !self.complete && (taken.pos() < input.len() || full) {
            let room = output.room(1)?;
            let size = room.len();
            let mut given = OutBuffer::around(room);
            let wanted = self
                .decoder
                .run(&mut taken, &mut given)
                .map_err(|cause| Damage::Broken { filter: ZSTD, why: cause.to_string() })?;
            let written = given.pos();
            output.filled(written);
            full = written == size;
            self.complete = wanted == 0;
        }
        match taken.pos() < input.len() {
            true => Err(Damage::Trailing(ZSTD).into()),
            false => Ok(()),
        }
    }

    fn finish(&mut self, _: &mut dyn Outlet) -> Result<()> {
        if self.complete { Ok(()) } else { Err(Damage::CutShort(ZSTD).into()) }
    }
}

/// gzip, exactly one member.
pub(super) struct GzipDecompress {
    stream: Decompress,
    complete: bool,
}

impl GzipDecompress {
    pub(super) fn new() -> Self {
        GzipDecompress { stream: Decompress::new_gzip(GZIP_WINDOW_BITS), complete: false }
    }
}

impl Filter for GzipDecompress {
    fn name(&self) -> &'static str {
        GZIP
    }

    fn push(&mut self, mut input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        let mut full = false;
        while !self.complete && (!input.is_empty() || full) {
            let (taken, given) = (self.stream.total_in(), self.stream.total_out());
            let room = output.room(1)?;
            let size = room.len();
            let status = self
                .stream
                .decompress(input, room, FlushDecompress::None)
                .map_err(|cause| Damage::Broken { filter: GZIP, why: cause.to_string() })?;
            let (taken, given) =
                ((self.stream.total_in() - taken) as usize, (self.stream.total_out() - given) as usize);
            output.filled(given);
            input = &input[taken..];
            full = given == size;
            self.complete = status == Status::StreamEnd;
            if !self.complete && taken == 0 && given == 0 && !input.is_empty() {
                return Err(Damage::Broken { filter: GZIP, why: "it makes no progress".to_owned() }.into());
            }
        }
        if input.is_empty() { Ok(()) } else { Err(Damage::Trailing(GZIP).into()) }
    }

    fn finish(&mut self, _: &mut dyn Outlet) -> Result<()> {
        if self.complete { Ok(()) } else { Err(Damage::CutShort(GZIP).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compress::{GzipCompress, ZstdCompress};
    use super::super::fixture::bytes;
    use super::super::standalone::Collected;
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn through(mut filter: Box<dyn Filter>, pieces: &[&[u8]]) -> (Result<()>, Vec<u8>) {
        let mut output = Collected::default();
        let result = (|| {
            for piece in pieces {
                filter.push(piece, &mut output)?;
            }
            filter.finish(&mut output)
        })();
        (result, output.into_bytes())
    }

    fn compressors() -> [(&'static str, Box<dyn Filter>); 4] {
        [
            (GZIP, Box::new(GzipCompress::new(6).expect("gzip"))),
            (ZSTD, Box::new(ZstdCompress::new(3, 0).expect("zstd"))),
            (ZSTD, Box::new(ZstdCompress::new(3, 2).expect("zstd"))),
            (ZSTD, Box::new(ZstdCompress::new(4, 2).expect("zstd"))),
        ]
    }

    fn decompressor(name: &str) -> Box<dyn Filter> {
        match name {
            GZIP => Box::new(GzipDecompress::new()),
            _ => Box::new(ZstdDecompress::new().expect("zstd")),
        }
    }

    fn program(name: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} is needed for this test: {e}"));
        let mut stdin = child.stdin.take().expect("stdin");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).expect("feed"));
            child.wait_with_output().expect("wait")
        });
        assert!(output.status.success(), "{name} {arguments:?}");
        output.stdout
    }

    // req: D3
    #[test]
    fn the_programs_read_ours_and_we_read_theirs() {
        for size in [0, 1, 100, 70_000, 20_000_000] {
            let plain = bytes(size);
            for (name, compressor) in compressors() {
                let (result, ours) = through(compressor, &[&plain]);
                result.expect("compress");
                assert!(program(name, &["-dc"], &ours) == plain, "{name} {size}");
            }
            for name in [GZIP, ZSTD] {
                let theirs = program(name, &["-c"], &plain);
                let (result, out) = through(decompressor(name), &[&theirs]);
                result.expect("decompress");
                assert!(out == plain, "{name} {size}");
            }
        }
    }

    #[test]
    fn zstd_frames_carry_a_checksum_of_their_content() {
        let (_, ours) = through(Box::new(ZstdCompress::new(3, 2).expect("zstd")), &[b"content"]);
        // Frame_Header_Descriptor, bit 2: Content_Checksum_flag (RFC 8878, 3.1.1.1.1).
        assert_eq!((&ours[..4], ours[4] & 4), (&[0x28, 0xb5, 0x2f, 0xfd][..], 4));
    }

    #[test]
    fn every_cut_and_every_addition_is_an_error() {
        let plain = bytes(3000);
        for (name, compressor) in compressors() {
            let (_, whole) = through(compressor, &[&plain]);
            for length in 0..whole.len() {
                let (result, _) = through(decompressor(name), &[&whole[..length]]);
                assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted), "{name} cut at {length}");
            }
            for more in [&b"x"[..], &[0; 20], &whole] {
                let joined = [&whole[..], more].concat();
                let (result, _) = through(decompressor(name), &[&joined]);
                assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted), "{name} and {} more", more.len());
                let (result, _) = through(decompressor(name), &[&whole, more]);
                assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted), "{name}, then {}", more.len());
            }
        }
    }

    #[test]
    fn every_changed_byte_of_the_content_is_found() {
        let plain = bytes(3000);
        for (name, compressor) in compressors() {
            let (_, whole) = through(compressor, &[&plain]);
            for position in 0..whole.len() {
                let mut changed = whole.clone();
                changed[position] ^= 0x10;
                let (result, out) = through(decompressor(name), &[&changed]);
                // A few bits of the headers mean nothing (gzip's operating system, for one): then nothing changes.
                assert!(result.is_err() || out == plain, "{name} byte {position}");
            }
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        // A frame header with a window of 2^31 bytes and nothing else (RFC 8878, 3.1.1.1.2).
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        let (result, _) = through(decompressor(ZSTD), &[&header]);
        assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn garbage_never_panics_and_never_passes(garbage in proptest::collection::vec(any::<u8>(), 0..600), begin in 0usize..4) {
            for name in [GZIP, ZSTD] {
                let magic: &[u8] = if name == GZIP { &[0x1f, 0x8b, 8, 0] } else { &[0x28, 0xb5, 0x2f, 0xfd] };
                let (result, _) = through(decompressor(name), &[&magic[..begin.min(magic.len())], &garbage]);
                prop_assert_eq!(result.map_err(|e| e.code()), Err(Code::BackupCorrupted));
            }
        }

        #[test]
        fn mutated_streams_never_panic(
            edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
            which in 0usize..4,
        ) {
            let plain = bytes(5000);
            let (name, compressor) = compressors().into_iter().nth(which).expect("one of four");
            let (_, mut stream) = through(compressor, &[&plain]);
            for (position, value) in edits {
                let position = position.index(stream.len());
                stream[position] = value;
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            let (result, out) = through(decompressor(name), &pieces);
            prop_assert!(result.is_err() || out == plain);
        }
    }
}
