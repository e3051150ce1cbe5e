//! Times, durations, sizes and counts as people read them. Times are in UTC, and local where that differs.

use super::super::output::Output;
use crate::base::bytes::human;
use jiff::Timestamp;

/// `2026-11-20T02:00:00Z`, and the local time beside it where the reader lives elsewhere.
pub fn at(time: Timestamp, output: &Output) -> String {
    let utc = utc(time);
    let offset = output.zone.to_offset(time);
    if offset.seconds() == 0 {
        return utc;
    }
    format!("{utc} ({})", time.to_zoned(output.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z"))
}

/// `2026-11-20T02:00:00Z`.
pub fn utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The first whole second at or after a time: the beginning of a range is never shown earlier than it is.
pub fn rounded_up(time: Timestamp) -> Timestamp {
    let up = i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(time.as_second() + up).unwrap_or(time)
}

/// `02:58:51Z` if that is less than a day from now, else with the date.
pub fn short(time: Timestamp, output: &Output) -> String {
    if output.now.as_second().abs_diff(time.as_second()) < 20 * 3600 {
        return time.strftime("%H:%M:%SZ").to_string();
    }
    utc(time)
}

/// How long ago, or until when: `4 s ago`, `in 3 h`.
pub fn ago(time: Timestamp, output: &Output) -> String {
    let seconds = output.now.as_second() - time.as_second();
    match seconds {
        0.. => format!("{} ago", span(seconds.unsigned_abs())),
        _ => format!("in {}", span(seconds.unsigned_abs())),
    }
}

/// The largest unit that fits, rounded down: `4 s`, `22 min`, `6 d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `0.8 s`, `12.3 s`, `4 min 5 s`, `2 h 3 min`.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `60.0 MiB → 9.8 MiB (6.1:1)`.
pub fn sizes(plain: u64, stored: u64) -> String {
    format!("{} → {} ({})", human(plain), human(stored), ratio(plain, stored))
}

/// `6.1:1`; `–` where there is nothing to compare.
pub fn ratio(plain: u64, stored: u64) -> String {
    if plain == 0 || stored == 0 {
        return "–".to_owned();
    }
    format!("{:.1}:1", plain as f64 / stored as f64)
}

/// `12 nodes, 7 relationships`; of many, the first few.
pub fn counts(counts: &[(String, u64)], most: usize) -> String {
    if counts.is_empty() {
        return "not counted".to_owned();
    }
    let mut parts: Vec<_> =
        counts.iter().take(most).map(|(name, count)| format!("{} {name}", grouped(*count))).collect();
    if counts.len() > most {
        parts.push(format!("{} more", counts.len() - most));
    }
    parts.join(", ")
}

/// `1 234 567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut groups: Vec<&str> = Vec::with_capacity(digits.len() / 3 + 1);
    if first > 0 {
        groups.push(&digits[..first]);
    }
    groups.extend((first..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    groups.join("\u{202f}")
}

/// `1 backup`, `2 backups`.
pub fn number_of(count: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::tests::output;
    use super::*;
    use jiff::tz::TimeZone;

    #[test]
    fn local_time_is_shown_where_it_differs() {
        let time: Timestamp = "2026-11-20T02:00:00Z".parse().expect("time");
        let mut output = output();
        assert_eq!(at(time, &output), "2026-11-20T02:00:00Z");
        output.zone = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::fixed(jiff::tz::offset(1)));
        assert_eq!(at(time, &output), "2026-11-20T02:00:00Z (2026-11-20 03:00:00 +01:00)");
    }

    #[test]
    fn the_beginning_of_a_range_is_rounded_up() {
        let up = |text: &str| utc(rounded_up(text.parse().expect("time")));
        assert_eq!(up("2026-11-20T02:00:00.000001Z"), "2026-11-20T02:00:01Z");
        assert_eq!(up("2026-11-20T02:00:00Z"), "2026-11-20T02:00:00Z");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((grouped(0), grouped(999)), ("0".to_owned(), "999".to_owned()));
        assert_eq!(
            (duration(812), duration(245_000), duration(7_380_000)),
            ("0.8 s".to_owned(), "4 min 5 s".to_owned(), "2 h 3 min".to_owned())
        );
        assert_eq!((span(4), span(1320), span(518_400)), ("4 s".to_owned(), "22 min".to_owned(), "6 d".to_owned()));
        assert_eq!((ratio(60, 10), ratio(0, 10)), ("6.0:1".to_owned(), "–".to_owned()));
    }
}
