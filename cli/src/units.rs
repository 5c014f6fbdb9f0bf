//! Formats numbers for people.

use std::time::{Duration, UNIX_EPOCH};

/// Placeholder for a value that was not measured, or a limit that is not set.
pub const NONE: &str = "-";

/// Cores: thousandths below one (`250m`), two digits above (`1.50`).
pub fn cores(cores: f64) -> String {
    if cores.abs() < 0.9995 { format!("{:.0}m", cores * 1000.0) } else { format!("{cores:.2}") }
}

/// Bytes in powers of 1024, with three significant digits where there is a fraction: `64Mi`, `1.5Gi`.
pub fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut value = bytes;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // A value that would be shown as 1024 of a unit is shown as 1 of the next unit.
        if value.abs() < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    let digits = match value.abs() {
        _ if unit.is_empty() => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// The unit of a column of amounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Millicores,
    Mebibytes,
    Gibibytes,
}

impl Unit {
    /// For a column of sizes in bytes: gibibytes if the smallest one has a tenth of it that shows.
    pub fn of_bytes(all: impl Iterator<Item = u64>) -> Self {
        match all.filter(|bytes| *bytes > 0).min() {
            Some(min) if min >= 10 << 30 => Self::Gibibytes,
            _ => Self::Mebibytes,
        }
    }

    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Millicores => "m",
            Self::Mebibytes => "Mi",
            Self::Gibibytes => "Gi",
        }
    }

    /// An amount in millicores or bytes, in this unit, with a digit after the point where it is not whole.
    pub fn format(self, amount: u64) -> String {
        let one = match self {
            Self::Millicores => return amount.to_string(),
            Self::Mebibytes => 1_u64 << 20,
            Self::Gibibytes => 1 << 30,
        };
        // An amount above 0 is not shown as 0.
        let value = (amount as f64 / one as f64).max(if amount > 0 { 0.1 } else { 0.0 });
        let text = format!("{value:.1}");
        text.strip_suffix(".0").unwrap_or(&text).to_owned()
    }
}

/// A rate per day as its inverse: `1 in 400 days`, with about three significant digits. At most one a day.
pub fn rate(per_day: f64) -> String {
    if per_day.is_nan() || per_day <= 0.0 {
        return "0".to_owned();
    }
    let days = 1.0 / per_day;
    match days {
        _ if days < 0.95 => format!("{per_day:.1} a day"),
        _ if days < 1.05 => "1 a day".to_owned(),
        _ if days < 9.95 => format!("1 in {days:.1} days"),
        _ if days < 1e6 => format!("1 in {days:.0} days"),
        _ => "1 in >1e6 days".to_owned(),
    }
}

/// A time from seconds since the Unix epoch, capped at the end of the year 9999.
pub fn time(seconds: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))).to_string()
}

/// A count with its noun: `1 pod`, `2 pods`.
pub fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A duration in hours, or in days from two days on.
pub fn hours(seconds: u64) -> String {
    let hours = seconds.saturating_add(1800) / 3600;
    if hours < 48 { format!("{hours} h") } else { format!("{} days", hours.saturating_add(12) / 24) }
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_short() {
        for (value, text) in [
            (0.0, "0m"),
            (0.0004, "0m"),
            (0.25, "250m"),
            (0.9996, "1.00"),
            (0.999, "999m"),
            (1.5, "1.50"),
            (64.0, "64.00"),
        ] {
            assert_eq!(cores(value), text);
        }
    }

    #[test]
    fn bytes_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (512.0, "512"),
            (1023.0, "1023"),
            (1024.0, "1Ki"),
            (1536.0, "1.5Ki"),
            (67_108_864.0, "64Mi"),
            (1_048_575.0, "1Mi"),
            (104_857_600.0, "100Mi"),
            (1_610_612_736.0, "1.5Gi"),
            (12_345_678_901.0, "11.5Gi"),
            (1.5e19, "13Ei"),
        ] {
            assert_eq!(bytes(value), text, "{value}");
        }
    }

    #[test]
    fn columns_have_one_unit() {
        for (unit, amount, text) in [
            (Unit::Millicores, 12_345, "12345"),
            (Unit::Mebibytes, 352 << 20, "352"),
            (Unit::Mebibytes, 128_000_000, "122.1"),
            (Unit::Mebibytes, 1, "0.1"),
            (Unit::Mebibytes, 0, "0"),
            (Unit::Gibibytes, 3 << 29, "1.5"),
        ] {
            assert_eq!(unit.format(amount), text);
        }
        assert_eq!(Unit::of_bytes([0, 64 << 30].into_iter()), Unit::Gibibytes);
        assert_eq!(Unit::of_bytes([64 << 30, 1 << 30].into_iter()), Unit::Mebibytes);
    }

    #[test]
    fn rates_are_once_in_so_many_days() {
        for (rate, text) in [
            (0.0, "0"),
            (0.0025, "1 in 400 days"),
            (0.8, "1 in 1.2 days"),
            (1.0, "1 a day"),
            (0.1, "1 in 10 days"),
            (2.5, "2.5 a day"),
            (1e-9, "1 in >1e6 days"),
        ] {
            assert_eq!(super::rate(rate), text);
        }
    }

    #[test]
    fn times_are_capped_at_the_year_9999() {
        assert_eq!(time(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(percent(0.1234), "12.3%");
        assert_eq!(percent(1.0), "100.0%");
    }
}
