//! Formats tables and numbers for the terminal.

/// Unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    /// Cores, printed as millicores.
    Cores,
    /// Bytes, in powers of 1024.
    Bytes,
    /// A count without a unit.
    Count,
}

impl Unit {
    /// A number with its unit.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.3} s"),
            Self::Cores => format!("{:.0} m", value * 1000.0),
            Self::Bytes => bytes(value),
            Self::Count => format!("{value:.0}"),
        }
    }
}

/// Bytes in KiB or MiB.
pub(super) fn bytes(value: f64) -> String {
    if value.abs() < 1024.0 * 1024.0 {
        format!("{:.0} KiB", value / 1024.0)
    } else {
        format!("{:.1} MiB", value / (1024.0 * 1024.0))
    }
}

/// Seconds in the unit that leaves one to three digits before the point.
pub(super) fn short_time(seconds: f64) -> String {
    match seconds.abs() {
        s if s >= 1.0 => format!("{seconds:.1} s"),
        s if s >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        s if s >= 1e-6 => format!("{:.1} µs", seconds * 1e6),
        _ => format!("{:.0} ns", seconds * 1e9),
    }
}

/// Aligns columns, two spaces apart. `right` marks the columns that are aligned to the right.
pub(super) fn render<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).zip(right).map(|((cell, width), right)| {
            if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = [["a", "12 µs", "x"], ["long", "3 s", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(render(&rows, [false, true, false]), "a     12 µs  x\nlong    3 s\n");
        assert_eq!(render::<2>(&[], [false, true]), "");
    }

    #[test]
    fn numbers_have_their_units() {
        assert_eq!(Unit::Seconds.show(1.23456), "1.235 s");
        assert_eq!(Unit::Cores.show(0.3), "300 m");
        assert_eq!(Unit::Count.show(7.0), "7");
        assert_eq!(Unit::Bytes.show(33_554_432.0), "32.0 MiB");
        assert_eq!(bytes(2048.0), "2 KiB");
        for (seconds, shown) in [(2.5, "2.5 s"), (0.0021, "2.1 ms"), (1.4e-5, "14.0 µs"), (4.2e-7, "420 ns")]
        {
            assert_eq!(short_time(seconds), shown);
        }
    }
}
