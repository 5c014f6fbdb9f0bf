//! Delta temporality: the increase of counters since the previous export.

use std::collections::HashMap;

use crate::{exporters::catalogue::Value, values::Distribution};

/// Nanoseconds by which a row may be older than the previous export and count as new: cgroups are found and
/// named a moment after their creation.
const SLACK: u64 = 5_000_000_000;

/// Counters of a row at its last export.
#[derive(Debug, Default)]
struct LastExport {
    /// By metric and attributes.
    values: HashMap<Box<str>, Sum>,
    /// The number of the last export with this row.
    seen: u64,
}

/// The value of a counter or histogram.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sum {
    Int(u64),
    Float(f64),
    Distribution(Distribution),
}

impl Sum {
    /// Copies a value.
    pub(super) fn from_value(value: Value<'_>) -> Self {
        match value {
            Value::Int(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
            Value::Histogram(distribution) => Self::Distribution(distribution.clone()),
        }
    }

    /// The increase since an earlier sum. After a counter reset it is the whole sum.
    fn since(&self, before: &Self) -> Self {
        let added = match (self, before) {
            (Self::Int(now), Self::Int(before)) => now.checked_sub(*before).map(Self::Int),
            (Self::Float(now), Self::Float(before)) => (now >= before).then(|| Self::Float(now - before)),
            (Self::Distribution(now), Self::Distribution(before)) => {
                now.histogram.since(&before.histogram).map(|histogram| {
                    Self::Distribution(Distribution {
                        histogram,
                        sum: (now.sum - before.sum).max(0.0),
                        zero_threshold: now.zero_threshold,
                    })
                })
            }
            _ => None,
        };
        added.unwrap_or_else(|| self.clone())
    }
}

/// Sums of the previous export.
#[derive(Debug)]
pub(super) struct Deltas {
    rows: HashMap<Box<str>, LastExport>,
    export: u64,
    /// The time of the previous export, at first the start of the agent, in nanoseconds since the Unix epoch.
    before: u64,
    now: u64,
}

/// The row that is being exported.
#[derive(Debug)]
pub(super) struct OfRow<'a> {
    row: &'a mut LastExport,
    /// Whether the value before this export must not be reported: the row is older than the agent, or was not exported.
    baseline: bool,
    since: u64,
}

impl Deltas {
    /// The state before the first export. `started` is in nanoseconds since the Unix epoch.
    pub(super) fn since(started: u64) -> Self {
        Self { rows: HashMap::new(), export: 0, before: started, now: started }
    }

    /// Begins an export.
    pub(super) fn begin(&mut self, now: u64) {
        self.export += 1;
        self.now = now;
    }

    /// Finishes an export: rows that were not in it are removed.
    pub(super) fn end(&mut self) {
        let export = self.export;
        self.rows.retain(|_, row| row.seen == export);
        self.before = self.now;
    }

    /// The row with this name, whose counters started at `start`.
    pub(super) fn row(&mut self, name: String, start: u64) -> OfRow<'_> {
        let row = self.rows.entry(name.into()).or_default();
        let is_new = row.seen == 0;
        row.seen = self.export;
        OfRow {
            row,
            baseline: is_new && start.saturating_add(SLACK) < self.before,
            since: if is_new { start } else { self.before },
        }
    }
}

impl OfRow<'_> {
    /// The increase of a counter and the start of the interval. `None` if the value is only recorded for the next export.
    pub(super) fn gained(&mut self, name: String, value: Value<'_>) -> Option<(Sum, u64)> {
        let now = Sum::from_value(value);
        let before = self.row.values.insert(name.into(), now.clone());
        if self.baseline {
            return None;
        }
        // A new counter started at 0.
        Some((before.map_or_else(|| now.clone(), |before| now.since(&before)), self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gained(deltas: &mut Deltas, row: &str, start: u64, value: u64) -> Option<(Sum, u64)> {
        deltas.row(row.to_owned(), start).gained("cpu".to_owned(), Value::Int(value))
    }

    const fn s(seconds: u64) -> u64 {
        seconds * 1_000_000_000
    }

    #[test]
    fn only_the_increase_since_the_previous_export_is_reported() {
        let mut deltas = Deltas::since(s(100));
        deltas.begin(s(110));
        // A row that is older than the agent: this agent does not report usage from before its start.
        assert_eq!(gained(&mut deltas, "old", s(10), 5_000), None);
        // A row that was created while the agent ran.
        assert_eq!(gained(&mut deltas, "new", s(105), 7), Some((Sum::Int(7), s(105))));
        deltas.end();
        deltas.begin(s(120));
        assert_eq!(gained(&mut deltas, "old", s(10), 5_030), Some((Sum::Int(30), s(110))));
        assert_eq!(gained(&mut deltas, "new", s(105), 7), Some((Sum::Int(0), s(110))));
        deltas.end();
        deltas.begin(s(130));
        // A counter reset.
        assert_eq!(gained(&mut deltas, "old", s(10), 4), Some((Sum::Int(4), s(120))));
        deltas.end();
        // A row that was missing from one export, for instance because its name was not known: nothing is reported twice.
        deltas.begin(s(140));
        assert_eq!(gained(&mut deltas, "new", s(105), 9), None);
        assert_eq!(deltas.rows.len(), 2);
        deltas.end();
        assert_eq!(deltas.rows.len(), 1);
    }
}
