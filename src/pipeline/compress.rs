//! Compression that `zstd -d` and `gzip -d` read.

use super::{Filter, GZIP, Outlet, ZSTD};
use crate::base::{Code, Error, Result};
use flate2::{Compress, FlushCompress, Status};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// Levels of Zstandard that are offered; those above need far more memory to write and to read.
pub(super) const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// Levels of gzip.
pub(super) const GZIP_LEVELS: std::ops::RangeInclusive<u32> = 1..=9;
/// Most threads that compress one stream.
pub(super) const ZSTD_WORKERS_MAX: u32 = 64;

/// Largest piece that one worker compresses at a time, in bytes: what level 3 takes by itself. Higher levels would take
/// up to 32 MiB, which needs half as much memory again and makes a cancelled task wait for a minute at level 19.
const ZSTD_JOB_BYTES_MAX: u32 = 8 << 20;
/// Highest level whose pieces are small enough by themselves.
const ZSTD_SMALL_JOBS_LEVEL: i32 = 3;
/// log2 of the entries in each of the two tables in which [`ZSTD_LEAN_LEVEL`] looks for matches, an eighth of what it
/// takes by itself: 128 KiB in all stay in a core's own cache, and the database beside it keeps its cache. Beside tables of
/// 2^15, 9 % less time and 0.3 % fewer bytes for a store of Neo4j, 25 % and 0.6 % more for a cluster of pgbench, 2 % and
/// 1.8 % more for texts, 5 % and 2.2 % more for programs; those of 2^15 had been 15 to 28 % quicker than its own.
const ZSTD_LEAN_TABLE_LOG: u32 = 14;
/// The default level.
const ZSTD_LEAN_LEVEL: i32 = 3;

fn failed(filter: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("compressing with {filter}: {why}"))
}

/// Zstandard, one frame with a checksum of its content.
pub(super) struct ZstdCompress {
    encoder: Encoder<'static>,
}

impl ZstdCompress {
    pub(super) fn new(level: i32, workers: u32) -> Result<Self> {
        if !ZSTD_LEVELS.contains(&level) || workers > ZSTD_WORKERS_MAX {
            let said = format!("zstd level {level} with {workers} workers is not supported; 1 to 19 with up to 64 is");
            return Err(Error::new(Code::ConfigInvalid, said));
        }
        let mut encoder = Encoder::new(level).map_err(|cause| failed(ZSTD, cause))?;
        let mut parameters = vec![CParameter::ChecksumFlag(true), CParameter::NbWorkers(workers)];
        if workers > 0 && level > ZSTD_SMALL_JOBS_LEVEL {
            parameters.push(CParameter::JobSize(ZSTD_JOB_BYTES_MAX));
        }
        if level == ZSTD_LEAN_LEVEL {
            parameters.extend([CParameter::HashLog(ZSTD_LEAN_TABLE_LOG), CParameter::ChainLog(ZSTD_LEAN_TABLE_LOG)]);
        }
        for parameter in parameters {
            encoder.set_parameter(parameter).map_err(|cause| failed(ZSTD, cause))?;
        }
        Ok(ZstdCompress { encoder })
    }
}

impl Filter for ZstdCompress {
    fn name(&self) -> &'static str {
        ZSTD
    }

    fn push(&mut self, input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        let mut taken = InBuffer::around(input);
        while taken.pos() < input.len() {
            let mut given = OutBuffer::around(output.room(1)?);
            self.encoder.run(&mut taken, &mut given).map_err(|cause| failed(ZSTD, cause))?;
            let written = given.pos();
            output.filled(written);
        }
        Ok(())
    }

    fn finish(&mut self, output: &mut dyn Outlet) -> Result<()> {
        loop {
            let mut given = OutBuffer::around(output.room(1)?);
            let left = self.encoder.finish(&mut given, true).map_err(|cause| failed(ZSTD, cause))?;
            let written = given.pos();
            output.filled(written);
            if left == 0 {
                return Ok(());
            }
        }
    }
}

/// gzip, one member without name and time.
pub(super) struct GzipCompress {
    stream: Compress,
}

impl GzipCompress {
    pub(super) fn new(level: u32) -> Result<Self> {
        if !GZIP_LEVELS.contains(&level) {
            return Err(Error::new(Code::ConfigInvalid, format!("gzip level {level} is not supported; 1 to 9 is")));
        }
        Ok(GzipCompress { stream: Compress::new_gzip(flate2::Compression::new(level), GZIP_WINDOW_BITS) })
    }

    /// One step; says how much was taken, and whether the stream is complete.
    fn step(&mut self, input: &[u8], output: &mut dyn Outlet, flush: FlushCompress) -> Result<(usize, bool)> {
        let (taken, given) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.compress(input, output.room(1)?, flush).map_err(|cause| failed(GZIP, cause))?;
        output.filled((self.stream.total_out() - given) as usize);
        Ok(((self.stream.total_in() - taken) as usize, status == Status::StreamEnd))
    }
}

/// log2 of gzip's window, the largest there is.
pub(super) const GZIP_WINDOW_BITS: u8 = 15;

impl Filter for GzipCompress {
    fn name(&self) -> &'static str {
        GZIP
    }

    fn push(&mut self, mut input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        while !input.is_empty() {
            let (taken, _) = self.step(input, output, FlushCompress::None)?;
            input = &input[taken..];
        }
        Ok(())
    }

    fn finish(&mut self, output: &mut dyn Outlet) -> Result<()> {
        while !self.step(&[], output, FlushCompress::Finish)?.1 {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_do_not_exist_are_refused() {
        for (level, workers) in [(0, 0), (-1, 0), (20, 2), (3, 65)] {
            let error = ZstdCompress::new(level, workers).err().map(|error| error.code());
            assert_eq!(error, Some(Code::ConfigInvalid), "{level} {workers}");
        }
        for level in [0, 10] {
            assert_eq!(GzipCompress::new(level).err().map(|error| error.code()), Some(Code::ConfigInvalid), "{level}");
        }
    }
}
