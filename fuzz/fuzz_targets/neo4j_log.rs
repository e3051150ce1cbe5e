//! Any bytes as a transaction log, as its header and as a checkpoint log: never a panic, and no transaction whose
//! checksum does not close. `src/driver/neo4j/log/scan/tests.rs` and `scan/enveloped/tests.rs` have the
//! same as property tests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use neo4j_backup_agent::driver::neo4j::log::{LogHeader, Predecessor, Scanner, Step, newest_checkpoint};

fuzz_target!(|bytes: &[u8]| {
    let _ = LogHeader::parse(bytes, "fuzzed", 0);
    let _ = newest_checkpoint(bytes);
    let mut scanner = Scanner::new(bytes, "fuzzed", 0, Predecessor::default());
    let enveloped = bytes.first() == Some(&10);
    let mut last: Option<(u64, u64)> = None;
    loop {
        let found = match scanner.step() {
            Ok(Step::Transaction(found)) => found,
            Ok(Step::Remainder(_)) => continue,
            _ => break,
        };
        let (start, end) = (found.start as usize, found.end as usize);
        assert!(last.is_none_or(|(id, end)| id + 1 == found.id && end <= found.start));
        assert!(enveloped || last.is_none_or(|(_, end)| end == found.start));
        if !enveloped {
            assert_eq!(crc32c::crc32c(&bytes[start..end - 4]), found.checksum);
            assert_eq!(bytes[end - 4..end], found.checksum.to_le_bytes());
        } else if bytes[start + 4] == 1 {
            assert_eq!(crc32c::crc32c(&bytes[start + 4..end]), found.checksum);
            assert_eq!(bytes[start..start + 4], found.checksum.to_le_bytes());
        }
        last = Some((found.id, found.end));
    }
});
