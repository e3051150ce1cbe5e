//! Sizes as people read and write them.

use super::{Code, Error, Result};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// `1536` → `1.5 KiB`; exact below 1 KiB.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Reads `200MB`, `10 GiB`, `4096`: decimal and binary units, no sign, no fraction.
pub fn parse(text: &str) -> Result<u64> {
    let trimmed = text.trim();
    let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = trimmed.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        "t" | "tb" => 1_000_000_000_000,
        "tib" => 1 << 40,
        _ => 0,
    };
    number.parse::<u64>().ok().filter(|_| factor > 0).and_then(|value| value.checked_mul(factor)).ok_or_else(|| {
        Error::new(Code::ConfigInvalid, format!("{text:?} is not a size"))
            .with_hint("write sizes like 4096, 200MB or 10GiB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        assert_eq!(human(512), "512 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(3 * GIB), "3.0 GiB");
        assert_eq!(parse("200MB").ok(), Some(200_000_000));
        assert_eq!(parse("10 GiB").ok(), Some(10 * GIB));
        for bad in ["", "-1", "x", "1.5GB", "99999999999999999999", "9999999999TB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
