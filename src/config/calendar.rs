//! `OnCalendar` values of systemd, looked at lightly (systemd itself is the judge when timers are made), and cron's
//! five fields turned into them for `BACKUP_SCHEDULE`.

/// Words systemd knows for whole expressions.
const WORDS: [&str; 8] = ["minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly"];
/// Days as cron numbers them; 7 is Sunday too.
const DAYS: [&str; 8] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Whether `text` can be an `OnCalendar` value: its characters are of the right kind and it names a time.
pub fn check(text: &str) -> Result<(), String> {
    let trimmed = text.trim();
    if WORDS.contains(&trimmed) {
        return Ok(());
    }
    let good = |c: char| c.is_ascii_alphanumeric() || " *:/.,~+-_".contains(c);
    if !trimmed.chars().all(good) || !(trimmed.contains(':') || trimmed.contains('-')) {
        return Err(format!("{text:?} is not a time as systemd's OnCalendar= takes it"));
    }
    Ok(())
}

/// Turns `MINUTE HOUR DAY MONTH WEEKDAY` into an `OnCalendar` value; anything that is not five fields is returned as it
/// is. Cron runs when day *or* weekday match, systemd when both do, so a line that restricts both is refused.
pub fn from_cron(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [shortcut] = words.as_slice() {
        return Ok(shortcut.strip_prefix('@').unwrap_or(shortcut).to_owned());
    }
    let [minute, hour, day, month, weekday] = words.as_slice() else { return Ok(text.to_owned()) };
    let refuse = |why: &str| format!("{text:?} is not a cron expression this can translate: {why}");
    if *day != "*" && *weekday != "*" {
        return Err(refuse("day and weekday are both restricted"));
    }
    let numeric = |name: &str, text: &str, first: u32, last: u32| {
        field(text, first, last).ok_or_else(|| refuse(&format!("{name} {text:?}")))
    };
    let minute = numeric("minute", minute, 0, 59)?;
    let hour = numeric("hour", hour, 0, 23)?;
    let day = numeric("day", day, 1, 31)?;
    let month = numeric("month", month, 1, 12)?;
    let weekday = weekdays(weekday).ok_or_else(|| refuse(&format!("weekday {weekday:?}")))?;
    Ok(format!("{weekday}*-{month}-{day} {hour}:{minute}:00"))
}

/// One numeric field: `*`, `*/n`, `a`, `a-b`, `a-b/n`, and lists of these.
fn field(text: &str, first: u32, last: u32) -> Option<String> {
    if text == "*" {
        return Some("*".to_owned());
    }
    let number = |text: &str| -> Option<u32> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|value| plain && (first..=last).contains(value))
    };
    let step = |text: &str| -> Option<u32> { text.parse().ok().filter(|step| (1..=last).contains(step)) };
    let part = |text: &str| -> Option<String> {
        let (range, every) = match text.split_once('/') {
            Some((range, every)) => (range, Some(step(every)?)),
            None => (text, None),
        };
        let base = match (range, range.split_once('-')) {
            ("*", _) => format!("{first}"),
            (_, Some((from, to))) => {
                let (from, to) = (number(from)?, number(to)?);
                if from > to {
                    return None;
                }
                format!("{from:02}..{to:02}")
            }
            _ => format!("{:02}", number(range)?),
        };
        Some(every.map_or_else(|| base.clone(), |every| format!("{base}/{every}")))
    };
    text.split(',').map(part).collect::<Option<Vec<_>>>().map(|parts| parts.join(","))
}

/// The weekday field, with the blank that follows it; empty for `*`.
fn weekdays(text: &str) -> Option<String> {
    if text == "*" {
        return Some(String::new());
    }
    let day = |text: &str| -> Option<&'static str> {
        match text.parse::<usize>() {
            Ok(number) => DAYS.get(number).copied(),
            Err(_) => DAYS.iter().copied().find(|name| name.eq_ignore_ascii_case(text)),
        }
    };
    let part = |text: &str| match text.split_once('-') {
        Some((from, to)) => Some(format!("{}..{}", day(from)?, day(to)?)),
        None => day(text).map(str::to_owned),
    };
    text.split(',').map(part).collect::<Option<Vec<_>>>().map(|parts| format!("{} ", parts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_values_are_told_from_other_text() {
        for good in
            ["02:00 UTC", "*:0/15", "daily", "Mon *-*-* 04:00:00", "*-*-01 02:00 Europe/Berlin", "Sat,Sun 20:00"]
        {
            check(good).expect(good);
        }
        for bad in ["", "whenever", "2", "02:00; rm -rf /", "0 2 * * *", "02:00\nExecStart=/bin/sh"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cron_lines_become_calendar_values() {
        let good = [
            ("0 2 * * *", "*-*-* 02:00:00"),
            ("*/15 * * * *", "*-*-* *:0/15:00"),
            ("30 4 1 * *", "*-*-01 04:30:00"),
            ("0 3 * * 0", "Sun *-*-* 03:00:00"),
            ("0 3 * * mon-fri", "Mon..Fri *-*-* 03:00:00"),
            ("0 1,13 * 1-6 *", "*-01..06-* 01,13:00:00"),
            ("@daily", "daily"),
            ("02:00 UTC", "02:00 UTC"),
        ];
        for (cron, calendar) in good {
            assert_eq!(from_cron(cron).as_deref(), Ok(calendar), "{cron}");
            check(calendar).expect(calendar);
        }
        for bad in ["60 2 * * *", "0 2 1 * 1", "a b c d e", "0 2 * * 9", "*/0 * * * *", "5-1 * * * *"] {
            assert!(from_cron(bad).is_err(), "{bad}");
        }
    }

    /// Where systemd is at hand it has the last word about what we produce.
    #[test]
    fn systemd_accepts_what_we_produce() {
        let Ok(version) = std::process::Command::new("systemd-analyze").arg("--version").output() else {
            println!("skipped: no systemd-analyze here");
            return;
        };
        assert!(version.status.success());
        for cron in ["0 2 * * *", "*/15 * * * *", "30 4 1 * *", "0 3 * * mon-fri", "0 1,13 * 1-6 *"] {
            let calendar = from_cron(cron).expect(cron);
            let judged =
                std::process::Command::new("systemd-analyze").args(["calendar", &calendar]).output().expect("run");
            assert!(judged.status.success(), "{calendar}: {}", String::from_utf8_lossy(&judged.stderr));
        }
    }
}
