//! How large the heap of a scratch server may grow. It replays what the server in service committed, so that it may need as
//! much; but it must not take the memory away from under the one that runs beside it.

use super::conf::Conf;
use std::path::Path;

/// What is always granted, in MiB.
const LEAST_MIB: u64 = 512;
/// Of the memory that is available, at most so many hundredths.
const SHARE_PERCENT: u64 = 75;
/// Of all memory, what Java takes at most where nothing is said, as Neo4j's server does then.
const JAVA_SHARE: u64 = 4;

/// The largest heap in MiB: that of the server in service, as far as there is memory for it.
pub(super) fn of_scratch(conf: &Path, home: &Path) -> u64 {
    let of_server = Conf::read(conf, home).ok().and_then(|conf| mebibytes(conf.heap()?));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let known = |name| meminfo(&memory, name).unwrap_or(0);
    choose(of_server, known("MemTotal:"), known("MemAvailable:"))
}

fn choose(of_server: Option<u64>, total: u64, available: u64) -> u64 {
    let wanted = of_server.unwrap_or(total / JAVA_SHARE);
    wanted.min(available * SHARE_PERCENT / 100).max(LEAST_MIB)
}

/// A size as Neo4j's settings and Java's options say it: `512m`, `4g`, `31GiB`, bytes without a unit.
fn mebibytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()?.checked_mul(1 << shift)? >> 20)
}

/// A line of `/proc/meminfo`, whose numbers are kibibytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_neo4j_writes_them() {
        let sizes =
            [("512m", 512), ("4g", 4096), ("4000M", 4000), ("31GiB", 31 << 10), ("536870912", 512), ("1024 k", 1)];
        for (text, expected) in sizes {
            assert_eq!(mebibytes(text), Some(expected), "{text}");
        }
        assert_eq!((mebibytes("much"), mebibytes("4x"), mebibytes("99999999999t")), (None, None, None));
        assert_eq!(meminfo("MemTotal:  1 kB\nMemAvailable:   2097152 kB\n", "MemAvailable:"), Some(2048));
    }

    #[test]
    fn a_scratch_server_gets_what_the_server_has_and_there_is() {
        assert_eq!(choose(Some(4000), 16_000, 12_000), 4000);
        assert_eq!(choose(Some(31_000), 64_000, 20_000), 15_000, "the server in service runs beside it");
        assert_eq!(choose(None, 16_000, 12_000), 4000);
        assert_eq!(choose(Some(256), 16_000, 100), LEAST_MIB);
    }
}
