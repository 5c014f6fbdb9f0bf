//! What counters gained since the export before, for receivers that want that instead of sums.

use std::collections::HashMap;

use crate::{exporters::catalogue::Value, values::Distribution};

/// Nanoseconds by which a row may be older than the export before it and still count as new: cgroups are seen, and
/// named, some moments after they were made.
const SLACK: u64 = 5_000_000_000;

/// A row's counters when it was last exported.
#[derive(Debug, Default)]
struct Row {
    /// By metric and attributes.
    values: HashMap<Box<str>, Sum>,
    /// The export in which it was last seen.
    seen: u64,
}

/// A counter's value, or a distribution.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sum {
    Int(u64),
    Float(f64),
    Distribution(Distribution),
}

impl Sum {
    /// A copy of a value.
    pub(super) fn of(value: Value<'_>) -> Self {
        match value {
            Value::Int(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
            Value::Histogram(distribution) => Self::Distribution(distribution.clone()),
        }
    }

    /// What was added since an earlier sum; all of it where that was larger, because it has begun again.
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

/// Sums of the export before.
#[derive(Debug)]
pub(super) struct Deltas {
    rows: HashMap<Box<str>, Row>,
    export: u64,
    /// Nanoseconds since the Unix epoch: the export before, at first the agent's start.
    before: u64,
    now: u64,
}

/// The row that is being exported.
#[derive(Debug)]
pub(super) struct OfRow<'a> {
    row: &'a mut Row,
    /// Whether what it counted before now is nobody's: it was there before the agent, or was not exported.
    baseline: bool,
    since: u64,
}

impl Deltas {
    /// Nothing was exported yet; nanoseconds since the Unix epoch.
    pub(super) fn since(started: u64) -> Self {
        Self { rows: HashMap::new(), export: 0, before: started, now: started }
    }

    /// Begins an export.
    pub(super) fn begin(&mut self, now: u64) {
        self.export += 1;
        self.now = now;
    }

    /// Ends an export: what was not in it is forgotten.
    pub(super) fn end(&mut self) {
        let export = self.export;
        self.rows.retain(|_, row| row.seen == export);
        self.before = self.now;
    }

    /// The row of this name, whose counters began at `start`.
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
    /// What a counter gained, and since when; `None` if it is only taken down for the next export.
    pub(super) fn gained(&mut self, name: String, value: Value<'_>) -> Option<(Sum, u64)> {
        let now = Sum::of(value);
        let before = self.row.values.insert(name.into(), now.clone());
        if self.baseline {
            return None;
        }
        // One that has just appeared began at 0.
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
    fn only_what_was_gained_since_the_export_before_is_told() {
        let mut deltas = Deltas::since(s(100));
        deltas.begin(s(110));
        // It was there before the agent: what it used then is not this agent's to tell.
        assert_eq!(gained(&mut deltas, "old", s(10), 5_000), None);
        // It was made while the agent ran.
        assert_eq!(gained(&mut deltas, "new", s(105), 7), Some((Sum::Int(7), s(105))));
        deltas.end();
        deltas.begin(s(120));
        assert_eq!(gained(&mut deltas, "old", s(10), 5_030), Some((Sum::Int(30), s(110))));
        assert_eq!(gained(&mut deltas, "new", s(105), 7), Some((Sum::Int(0), s(110))));
        deltas.end();
        deltas.begin(s(130));
        // A counter that began again.
        assert_eq!(gained(&mut deltas, "old", s(10), 4), Some((Sum::Int(4), s(120))));
        deltas.end();
        // Not exported for once, for instance because its name was not known: nothing is told twice.
        deltas.begin(s(140));
        assert_eq!(gained(&mut deltas, "new", s(105), 9), None);
        assert_eq!(deltas.rows.len(), 2);
        deltas.end();
        assert_eq!(deltas.rows.len(), 1);
    }
}
