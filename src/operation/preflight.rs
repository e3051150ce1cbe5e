//! Is there room? Asked of each filesystem that a job writes to, before it starts.

use crate::base::space::{self, Space};
use crate::base::{Code, Error, Result, bytes};
use std::path::Path;

/// What a job needs of one filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Bytes it will write; an estimate.
    pub required: u64,
    /// Free space there must be before it starts, in percent of the filesystem.
    pub minimum_free_percent: u8,
}

/// Checks the filesystem below `path`.
pub fn check_path(path: &Path, need: Need) -> Result<Space> {
    let space = space::of(path)?;
    judge(&path.display().to_string(), space, need)?;
    Ok(space)
}

/// Checks known numbers; `place` names the filesystem in the message.
pub fn judge(place: &str, space: Space, need: Need) -> Result<()> {
    let percent = space.available_percent();
    let required = bytes::human(need.required);
    let available = bytes::human(space.available);
    if need.required > space.available {
        let text = format!("{place}: {required} are required, {available} are available ({percent:.0} % free)");
        return Err(Error::new(Code::BackupNoSpace, text));
    }
    if percent < f64::from(need.minimum_free_percent) {
        let demanded = bytes::human(share(space.total, need.minimum_free_percent));
        let mut text = format!(
            "{place}: {percent:.1} % are free, {} % are demanded: {demanded} of {} are required to be free, {available} are available",
            need.minimum_free_percent,
            bytes::human(space.total)
        );
        if need.required > 0 {
            text.push_str(&format!("; the job itself writes about {required}"));
        }
        return Err(Error::new(Code::BackupNoSpace, text));
    }
    Ok(())
}

/// `percent` of `total`, rounded up.
fn share(total: u64, percent: u8) -> u64 {
    (u128::from(total) * u128::from(percent)).div_ceil(100) as u64
}

/// Stored bytes to expect from `plain` bytes: by the ratio of the last backup with a quarter on top, or everything
/// where there was none. Erring upwards costs a message, erring downwards a full disk.
pub fn expected_stored(plain: u64, last: Option<(u64, u64)>) -> u64 {
    match last {
        Some((last_plain, last_stored)) if last_plain > 0 => {
            let expected = plain as f64 * (last_stored as f64 / last_plain as f64) * 1.25;
            (expected as u64).min(plain.saturating_mul(2))
        }
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space { available: 30 << 30, total: 100 << 30, device: 1 };

    // req: B5
    #[test]
    fn both_numbers_are_said() {
        let need = Need { required: 40 << 30, minimum_free_percent: 20 };
        let error = judge("/backup", SPACE, need).expect_err("too little");
        assert_eq!(error.code(), Code::BackupNoSpace);
        assert!(error.message().contains("40.0 GiB") && error.message().contains("30.0 GiB"), "{error}");
    }

    // req: B5 K7
    #[test]
    fn below_the_threshold_it_fails_although_the_job_would_fit() {
        let need = |percent| Need { required: 1, minimum_free_percent: percent };
        assert!(judge("/backup", SPACE, need(30)).is_ok());
        assert_eq!(judge("/backup", SPACE, need(31)).map_err(|e| e.code()), Err(Code::BackupNoSpace));
    }

    // req: B5
    #[test]
    fn below_the_threshold_it_says_how_much_must_be_free_and_how_much_is() {
        let said = |required| {
            let refused = judge("/state", SPACE, Need { required, minimum_free_percent: 31 });
            refused.expect_err("too little").message().to_owned()
        };
        assert_eq!(
            said(0),
            "/state: 30.0 % are free, 31 % are demanded: 31.0 GiB of 100.0 GiB are required to be free, \
             30.0 GiB are available"
        );
        assert!(said(1 << 20).ends_with("; the job itself writes about 1.0 MiB"), "{}", said(1 << 20));
        assert_eq!(share(u64::MAX, 100), u64::MAX);
    }

    #[test]
    fn the_last_ratio_counts() {
        assert_eq!(expected_stored(1000, None), 1000);
        assert_eq!(expected_stored(1000, Some((100, 10))), 125);
    }
}
