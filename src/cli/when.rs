//! Times as people type them, the way systemd takes them: RFC 3339, local dates and times, `yesterday 14:00`, `-21min`.

use crate::base::{Code, Error, Result};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Reads a time. What does not name its zone is of `zone`; a moment that the clocks of that zone skip or repeat is
/// refused, because nobody could tell which one is meant.
pub fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    let bad = || {
        Error::new(Code::Usage, format!("{text:?} is not a time"))
            .with_hint("give `2026-11-20T02:39:00Z`, `2026-11-20 02:39:00`, `yesterday 14:00`, `14:00` or `-21min`")
    };
    let trimmed = text.trim();
    if let Ok(time) = trimmed.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Some(time) = relative(trimmed, now) {
        return Ok(time);
    }
    let (rest, zone) = match trimmed.strip_suffix(" UTC") {
        Some(rest) => (rest, TimeZone::UTC),
        None => (trimmed, zone.clone()),
    };
    let civil = civil(rest, now.to_zoned(zone.clone()).date()).ok_or_else(bad)?;
    let zoned = zone.to_ambiguous_zoned(civil).unambiguous().map_err(|_| {
        Error::new(Code::Usage, format!("{text:?} is skipped or repeated by the clocks here: which moment is meant?"))
            .with_hint("say it in UTC: `2026-10-25T00:30:00Z`")
    })?;
    Ok(zoned.timestamp())
}

/// `now`, `-21min`, `- 1h 30min`, `2 days ago`.
fn relative(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    let span = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago"))?;
    let seconds = seconds(span)?;
    now.checked_sub(SignedDuration::from_secs(seconds)).ok()
}

/// `1h 30min` → 5400.
fn seconds(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut sum: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit = match &rest[..letters] {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hr" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 7 * 86_400,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(sum)
}

/// `2026-11-20 02:39:00`, `2026-11-20`, `yesterday 14:00`, `today`, `14:00`.
fn civil(text: &str, today: Date) -> Option<DateTime> {
    let (day, time) = match text.split_once([' ', 'T']) {
        Some((day, time)) => (Some(day), Some(time)),
        None if text.contains(':') => (None, Some(text)),
        None => (Some(text), None),
    };
    let day = match day {
        None | Some("today") => today,
        Some("yesterday") => today.checked_sub(1.day()).ok()?,
        Some(date) => Date::strptime("%Y-%m-%d", date).ok()?,
    };
    let time = match time.map(str::trim) {
        None => Time::midnight(),
        Some(time) => Time::strptime("%H:%M:%S%.f", time).or_else(|_| Time::strptime("%H:%M", time)).ok()?,
    };
    Some(day.to_datetime(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-11-20T03:00:00Z".parse().expect("time")
    }

    fn read(text: &str) -> Result<String, Code> {
        let zone = TimeZone::get("Europe/Berlin").expect("zone");
        parse(text, now(), &zone).map(|time| time.to_string()).map_err(|error| error.code())
    }

    #[test]
    fn the_forms_that_are_promised() {
        for (text, expected) in [
            ("2026-11-20T02:39:00Z", "2026-11-20T02:39:00Z"),
            ("2026-11-20T02:39:00+01:00", "2026-11-20T01:39:00Z"),
            ("2026-11-20 02:39:00", "2026-11-20T01:39:00Z"),
            ("2026-11-20 02:39:00.5", "2026-11-20T01:39:00.5Z"),
            ("2026-11-20 02:39", "2026-11-20T01:39:00Z"),
            ("2026-11-20 02:39:00 UTC", "2026-11-20T02:39:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("yesterday 14:00", "2026-11-19T13:00:00Z"),
            ("yesterday", "2026-11-18T23:00:00Z"),
            ("today 02:00", "2026-11-20T01:00:00Z"),
            ("02:00", "2026-11-20T01:00:00Z"),
            ("-21min", "2026-11-20T02:39:00Z"),
            ("-1h 30min", "2026-11-20T01:30:00Z"),
            ("2 days ago", "2026-11-18T03:00:00Z"),
            ("now", "2026-11-20T03:00:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_single_meaning_is_refused() {
        for text in
            ["", "-", "soon", "-21", "-21 parsecs", "2026-13-01", "25:00", "2026-11-20 02:39:00 PM", "-9999999999999d"]
        {
            assert_eq!(read(text), Err(Code::Usage), "{text}");
        }
        assert_eq!(read("2026-10-25 02:30:00"), Err(Code::Usage), "the hour is repeated");
        assert_eq!(read("2026-03-29 02:30:00"), Err(Code::Usage), "the hour is skipped");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = parse(&text, now(), &TimeZone::UTC);
        }
    }
}
