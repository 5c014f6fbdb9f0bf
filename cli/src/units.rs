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
