//! The time of all files of a release.

use anyhow::{Context as _, Result};

use crate::command;

/// The variable with the time, of <https://reproducible-builds.org/specs/source-date-epoch/>.
pub(super) const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// A time in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReleaseDate(pub(super) u64);

impl ReleaseDate {
    /// That of the variable, else that of the last commit.
    pub(super) fn find() -> Result<Self> {
        let seconds = match std::env::var(VARIABLE) {
            Ok(seconds) => seconds,
            Err(_) => command::capture(command::new("git").args(["log", "-1", "--format=%ct"]))
                .with_context(|| format!("outside of a clone the time of the release is in {VARIABLE}"))?,
        };
        let seconds = seconds.trim();
        Ok(Self(seconds.parse().with_context(|| format!("{seconds:?} is no number of seconds"))?))
    }

    /// In the format of mail, which a Debian changelog has.
    pub(super) fn as_in_mail(self) -> Result<String> {
        let mut date = command::new("date");
        date.env("LC_ALL", "C").args(["--utc", "--rfc-email", &format!("--date=@{}", self.0)]);
        Ok(command::capture(&mut date)?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_changelog_has_dates_as_mail() {
        let at = |seconds| ReleaseDate(seconds).as_in_mail().unwrap();
        assert_eq!(at(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(at(1_796_136_149), "Tue, 01 Dec 2026 14:42:29 +0000");
    }
}
