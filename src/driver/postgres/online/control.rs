//! `global/pg_control`, which the server rewrites in place and which is read last of all.
//!
//! Its checksum, a CRC-32C of all before it, lies at another place in every version; it is where the sum of what lies
//! before closes. Source: `ControlFileData` in `src/include/catalog/pg_control.h`.

use super::survey::CONTROL;
use crate::base::clock::wait_until;
use crate::base::{Code, Error, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Where the checksum may lie: no version's is at another place.
const PLACES: std::ops::Range<usize> = 200..508;
/// Largest file that is taken for one, in bytes.
const LARGEST: usize = 64 << 10;
/// How long a server may take to write it once.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon it is looked at again.
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

/// Reads it until it is whole.
pub(super) fn read_whole(data_directory: &Path) -> Result<Vec<u8>> {
    let path = data_directory.join(CONTROL);
    let mut outcome = Err(Error::new(Code::Internal, "the control file was not looked at"));
    wait_until(SETTLE_TIMEOUT, SETTLE_INTERVAL, || {
        outcome = fs::read(&path).map_err(|cause| Error::io("reading", &path, cause));
        outcome.as_ref().map_or(true, |bytes| is_whole(bytes))
    });
    let bytes = outcome?;
    if is_whole(&bytes) {
        return Ok(bytes);
    }
    let text = format!("{} is damaged: its checksum is wrong whenever it is read", path.display());
    Err(Error::new(Code::PostgresUnsupported, text).with_hint("look at the server's log and at `pg_controldata`"))
}

fn is_whole(bytes: &[u8]) -> bool {
    if bytes.len() > LARGEST {
        return false;
    }
    PLACES
        .step_by(4)
        .filter_map(|place| Some((place, bytes.get(place..place + 4)?)))
        .any(|(place, sum)| crc32c::crc32c(&bytes[..place]).to_ne_bytes() == *sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_when_its_sum_closes_somewhere() {
        let place = tempfile::tempdir().expect("tempdir");
        fs::create_dir(place.path().join("global")).expect("directory");
        let path = place.path().join(CONTROL);
        for at in [200, 288, 292, 296, 504] {
            let mut bytes: Vec<u8> = (0..8192u32).map(|n| (n * 7 % 251) as u8).collect();
            bytes[at..].fill(0);
            let sum = crc32c::crc32c(&bytes[..at]);
            bytes[at..at + 4].copy_from_slice(&sum.to_ne_bytes());
            fs::write(&path, &bytes).expect("file");
            assert_eq!(read_whole(place.path()).expect("whole"), bytes, "{at}");
            for torn in [0, at - 1, at, at + 3] {
                let mut bytes = bytes.clone();
                bytes[torn] ^= 1;
                assert!(!is_whole(&bytes), "{at} {torn}");
            }
        }
        assert!(!is_whole(&[]) && !is_whole(&[0; 100]));
    }
}
