//! The option `--horizon`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A day at least: growth is measured by the hour. A year at most.
const RANGE: std::ops::RangeInclusive<u64> = DAY..=365 * DAY;
const DAY: u64 = 24 * 60 * 60;

/// For how long the memory limit of a growing container must last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon(Duration);

impl Horizon {
    pub fn days(self) -> f64 {
        self.0.as_secs_f64() / DAY as f64
    }
}

/// Parses a duration such as `7d`.
///
/// # Errors
/// When it is not a duration, or is out of range.
pub fn parse(text: &str) -> Result<Horizon, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write a duration such as 7d"))?;
    if RANGE.contains(&duration.as_secs()) {
        Ok(Horizon(duration))
    } else {
        Err("the horizon must be from 1d to 365d".to_owned())
    }
}

impl<'de> Deserialize<'de> for Horizon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_horizon_is_from_a_day_to_a_year() {
        assert_eq!(parse("36h").unwrap().days(), 1.5);
        for bad in ["", "7", "1h", "366d", "-1d", "for ever"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
