//! How serious the state of a container is.

use super::rows::ContainerRow;

/// How serious a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    #[default]
    Normal,
    /// Worth a look.
    Warning,
    /// The container loses work, or is about to be killed.
    Danger,
}

/// From which share of throttled CFS periods on.
const THROTTLED: [f64; 2] = [0.05, 0.25];
/// From which share of the memory limit on. The working set has no cache that can be reclaimed at once.
const MEMORY: [f64; 2] = [0.85, 0.95];

impl Severity {
    /// The character before the name of a row. Colour is never the only sign.
    pub(crate) const fn sign(self) -> char {
        match self {
            Self::Normal => ' ',
            Self::Warning => '*',
            Self::Danger => '!',
        }
    }

    /// The most serious of a container's values.
    pub(crate) fn of(row: &ContainerRow) -> Self {
        throttling(row).max(memory(row)).max(oom_kills(row))
    }
}

fn by(value: Option<f64>, [warning, danger]: [f64; 2]) -> Severity {
    match value {
        Some(value) if value >= danger => Severity::Danger,
        Some(value) if value >= warning => Severity::Warning,
        _ => Severity::Normal,
    }
}

/// By the share of throttled CFS periods.
pub(crate) fn throttling(row: &ContainerRow) -> Severity {
    by(row.throttled_share, THROTTLED)
}

/// By the share of the memory limit that is used.
pub(crate) fn memory(row: &ContainerRow) -> Severity {
    by(row.memory_share(), MEMORY)
}

/// OOM kills of the last interval are a danger, earlier ones a warning.
pub(crate) fn oom_kills(row: &ContainerRow) -> Severity {
    match row.oom_kills {
        _ if row.new_oom_kills > 0.0 => Severity::Danger,
        Some(kills) if kills > 0.0 => Severity::Warning,
        _ => Severity::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_serious_value_counts() {
        let row = |throttled, used, kills, new| ContainerRow {
            throttled_share: Some(throttled),
            memory_working_set_bytes: Some(used),
            memory_limit_bytes: Some(100.0),
            oom_kills: Some(kills),
            new_oom_kills: new,
            ..ContainerRow::default()
        };
        for (row, sign) in [
            (row(0.0, 50.0, 0.0, 0.0), ' '),
            (row(0.05, 50.0, 0.0, 0.0), '*'),
            (row(0.25, 90.0, 0.0, 0.0), '!'),
            (row(0.0, 95.0, 0.0, 0.0), '!'),
            (row(0.0, 0.0, 3.0, 0.0), '*'),
            (row(0.0, 0.0, 3.0, 1.0), '!'),
            (ContainerRow::default(), ' '),
        ] {
            assert_eq!(Severity::of(&row).sign(), sign, "{row:?}");
        }
    }
}
