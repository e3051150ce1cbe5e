//! Spans of time as people write them: `5s`, `15min`, `4h`, `7d`, `1h 30min`.

use std::time::Duration;

/// Longest span, in seconds: a hundred years. Keeps every later sum of times in range.
pub const SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// Reads a span: whole numbers, each with its unit, added up. `0` needs no unit. A year is 365 days; there is no unit
/// for months, because they differ and `m` means minutes.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0u64;
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        seconds = seconds.checked_add(number.checked_mul(unit(&rest[..letters])?)?)?;
        rest = rest[letters..].trim_start();
        any = true;
    }
    (any && seconds <= SECONDS_MAX).then(|| Duration::from_secs(seconds))
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hr" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        "y" | "year" | "years" => 365 * 86_400,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        let good = [
            ("5s", 5),
            ("15min", 900),
            ("4h", 14_400),
            ("7d", 604_800),
            ("14 days", 1_209_600),
            ("1h 30min", 5_400),
            ("1h30m", 5_400),
            ("1y", 31_536_000),
            ("0", 0),
        ];
        for (text, seconds) in good {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "7", "d", "-1d", "1.5h", "7 fortnights", "1d,2h", "99999999999999999999s", "101y", "1é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
