//! Traces: recorded usage of containers, at most one sample per minute.

use std::collections::BTreeMap;

use crate::families::{Family, blocks};

/// Samples of one container, from the first to the last, at equal distances; NaN is a time without a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    first: usize,
    /// Minutes between values, at least 1.
    step: usize,
    values: Vec<f64>,
}

impl Default for Series {
    fn default() -> Self {
        Self { first: 0, step: 1, values: Vec::new() }
    }
}

/// The greatest common divisor; `gcd(0, b)` is `b`.
fn gcd(a: usize, b: usize) -> usize {
    if a == 0 { b } else { gcd(b % a, a) }
}

impl Series {
    /// From one value per minute; NaN is no sample.
    pub fn new(minutes: &[f64]) -> Self {
        let seen = || minutes.iter().enumerate().filter(|(_, value)| !value.is_nan());
        let Some((first, _)) = seen().next() else { return Self::default() };
        let last = minutes.iter().rposition(|value| !value.is_nan()).unwrap_or(first);
        let step = seen().fold(0, |step, (at, _)| gcd(step, at - first)).max(1);
        Self {
            first,
            step,
            values: minutes.get(first..=last).unwrap_or_default().iter().step_by(step).copied().collect(),
        }
    }

    /// One value each `step` minutes, from minute 0 on; NaN is no sample.
    pub fn with_step(step: usize, values: Vec<f64>) -> Self {
        Self { first: 0, step: step.max(1), values }
    }

    /// Minute of the first sample; `None` without samples.
    pub fn start(&self) -> Option<usize> {
        (!self.values.is_empty()).then_some(self.first)
    }

    /// Minutes between samples, if there are two.
    fn step(&self) -> Option<usize> {
        (self.values.len() > 1).then_some(self.step)
    }

    /// The place of the first value at a minute or later.
    fn place(&self, minute: usize) -> usize {
        minute.saturating_sub(self.first).div_ceil(self.step).min(self.values.len())
    }

    /// The sample of a minute.
    pub fn at(&self, minute: usize) -> Option<f64> {
        let after = minute.checked_sub(self.first).filter(|after| after.is_multiple_of(self.step))?;
        self.values.get(after / self.step).copied().filter(|value| !value.is_nan())
    }

    /// Samples of the minutes `from..to` with their minutes.
    pub fn range(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let begin = self.place(from);
        let values = self.values.get(begin..self.place(to).max(begin)).unwrap_or_default();
        let places = (begin..).zip(values).filter(|(_, value)| !value.is_nan());
        places.map(|(place, value)| (self.first + place * self.step, *value))
    }

    /// The same series without the samples from a minute on.
    #[must_use]
    pub fn before(&self, minute: usize) -> Self {
        let values: Vec<f64> = self.values.get(..self.place(minute)).unwrap_or_default().to_vec();
        let known = values.iter().rposition(|value| !value.is_nan()).map_or(0, |last| last + 1);
        Self { first: self.first, step: self.step, values: values.into_iter().take(known).collect() }
    }

    /// The highest sample of the minutes `from..to`.
    pub fn highest(&self, from: usize, to: usize) -> Option<f64> {
        self.range(from, to).map(|(_, value)| value).reduce(f64::max)
    }

    /// Caps the samples of the minutes `from..to` at a value.
    pub fn cap(&mut self, from: usize, to: usize, max: f64) {
        let (begin, end) = (self.place(from), self.place(to));
        for value in self.values.get_mut(begin..end.max(begin)).into_iter().flatten() {
            if *value > max {
                *value = max;
            }
        }
    }
}

/// The trace of one container: one row of the trace files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerTrace {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// Node, empty if unknown.
    pub node: String,
    /// Millicores.
    pub cpu: Series,
    /// KiB.
    pub memory: Series,
}

/// Identifies a workload's container: its pods are grouped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    pub namespace: String,
    /// Owner of the pods, from [`owner`].
    pub owner: String,
    pub container: String,
}

/// The rows of one workload's container, one per pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The workload's container.
    pub key: GroupKey,
    pub rows: Vec<ContainerTrace>,
}

/// A trace of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    pub minutes: usize,
    /// Minutes between samples: the greatest distance that all series have.
    pub interval: usize,
    /// Groups, sorted by key.
    pub groups: Vec<Group>,
}

impl Trace {
    /// Groups rows by workload.
    pub fn new(minutes: usize, rows: impl IntoIterator<Item = ContainerTrace>) -> Self {
        let mut groups = BTreeMap::<GroupKey, Vec<ContainerTrace>>::new();
        let mut interval = 0;
        for row in rows {
            interval = [&row.cpu, &row.memory].iter().filter_map(|series| series.step()).fold(interval, gcd);
            let key = GroupKey {
                namespace: row.namespace.clone(),
                owner: owner(&row.pod),
                container: row.container.clone(),
            };
            groups.entry(key).or_default().push(row);
        }
        let groups = groups.into_iter().map(|(key, rows)| Group { key, rows }).collect();
        Self { minutes, interval: interval.max(1), groups }
    }

    /// The family of each group, and its block ([`blocks`]).
    pub fn families(&self) -> (Vec<Family>, Vec<usize>) {
        let family = |group: &Group| {
            let node = group.rows.first().map_or("", |row| &row.node);
            Family::new(&group.key.namespace, &group.key.owner, &group.key.container, node)
        };
        let families: Vec<Family> = self.groups.iter().map(family).collect();
        let blocks = blocks(&families);
        (families, blocks)
    }

    /// What was known at a minute: without later samples, and without pods that had none yet.
    #[must_use]
    pub fn before(&self, minute: usize) -> Self {
        let known = |row: &ContainerTrace| {
            let row = ContainerTrace {
                cpu: row.cpu.before(minute),
                memory: row.memory.before(minute),
                ..row.clone()
            };
            (row.cpu.start().is_some() || row.memory.start().is_some()).then_some(row)
        };
        let groups = self.groups.iter().map(|group| {
            let rows = group.rows.iter().filter_map(known).collect();
            Group { key: group.key.clone(), rows }
        });
        let groups = groups.filter(|group| !group.rows.is_empty()).collect();
        Self { minutes: self.minutes, interval: self.interval, groups }
    }
}

/// Whether a text is lower-case hexadecimal.
fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Lengths of the parts of a UUID.
const UUID: [usize; 5] = [8, 4, 4, 4, 12];
const UUID_LENGTH: usize = 36;

fn is_uuid(text: &str) -> bool {
    let mut parts = text.split('-');
    UUID.iter().all(|length| parts.next().is_some_and(|part| part.len() == *length && is_hex(part)))
        && parts.next().is_none()
}

/// The pod's name with every UUID in it replaced by `*`.
fn without_uuids(pod: &str) -> String {
    let mut text = String::with_capacity(pod.len());
    let mut rest = pod;
    while let Some(next) = rest.chars().next() {
        if let Some(after) =
            rest.get(..UUID_LENGTH).filter(|text| is_uuid(text)).and_then(|_| rest.get(UUID_LENGTH..))
        {
            text.push('*');
            rest = after;
        } else {
            text.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        }
    }
    text
}

/// The owner of a pod, derived from the pod's name. First every UUID in the name is replaced by `*`. Then a suffix is removed:
/// `-<8..10 hex>-<5 alphanumeric>` (ReplicaSet), else `-<5 alphanumeric>` (DaemonSet), else `-<digits>` (StatefulSet).
pub fn owner(pod: &str) -> String {
    let pod = without_uuids(pod);
    let random = |text: &str| {
        text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    };
    let Some((name, last)) = pod.rsplit_once('-') else { return pod };
    let hash = name.rsplit_once('-').filter(|(_, hash)| (8..=10).contains(&hash.len()) && is_hex(hash));
    match hash {
        Some((owner, _)) if random(last) => owner.to_owned(),
        _ if random(last) || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())) => {
            name.to_owned()
        }
        _ => pod,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn owners() {
        for (pod, wanted) in [
            ("web-7bf6fb4c8c-d8jgw", "web"),
            ("my-web-7bf6fb4c-d8jgw", "my-web"),
            ("web-7bf6fb4c8cc-d8jgw", "web-7bf6fb4c8cc"),
            ("agent-x7q6g", "agent"),
            ("db-12", "db"),
            ("db-12345", "db"),
            ("0ac2ee3c-44a1-47cd-9a6e-000000000001", "*"),
            ("run-0ac2ee3c-44a1-47cd-9a6e-000000000001-test", "run-*-test"),
            ("single", "single"),
            ("web-", "web-"),
            ("", ""),
        ] {
            assert_eq!(owner(pod), wanted, "{pod}");
        }
    }

    #[test]
    fn a_series_by_minute() {
        let nan = f64::NAN;
        let mut series = Series::new(&[nan, nan, 3.0, nan, 5.0, nan]);
        assert_eq!(
            (series.start(), series.at(1), series.at(2), series.at(3), series.at(9)),
            (Some(2), None, Some(3.0), None, None)
        );
        assert_eq!(series.range(0, 4).collect::<Vec<_>>(), [(2, 3.0)]);
        assert_eq!(series.range(3, 99).collect::<Vec<_>>(), [(4, 5.0)]);
        series.cap(0, 9, 4.0);
        assert_eq!((series.highest(0, 9), series.highest(5, 9)), (Some(4.0), None));
        assert_eq!(Series::new(&[nan; 3]).start(), None);
    }

    proptest! {
        #[test]
        fn a_range_is_what_a_filter_would_give(minutes in prop::collection::vec(prop_oneof![Just(f64::NAN), 0.0..9.0_f64], 0..20), from in 0..25_usize, to in 0..25_usize) {
            let series = Series::new(&minutes);
            let wanted: Vec<_> = minutes.iter().copied().enumerate().filter(|(at, value)| (from..to).contains(at) && !value.is_nan()).collect();
            prop_assert_eq!(series.range(from, to).collect::<Vec<_>>(), wanted);
            for (at, value) in minutes.iter().enumerate() {
                prop_assert_eq!(series.at(at), Some(*value).filter(|value| !value.is_nan()));
                prop_assert_eq!(series.before(from).at(at), series.at(at).filter(|_| at < from));
            }
        }

        #[test]
        fn sparse_samples_are_the_same_as_dense_ones(step in 1..7_usize, values in prop::collection::vec(prop_oneof![Just(f64::NAN), 0.0..9.0_f64], 0..9), from in 0..60_usize, to in 0..60_usize, max in 0.0..9.0_f64) {
            let minutes: Vec<f64> = values.iter().flat_map(|value| [*value].into_iter().chain(vec![f64::NAN; step - 1])).collect();
            let (mut dense, mut sparse) = (Series::new(&minutes), Series::with_step(step, values));
            prop_assert_eq!(dense.range(from, to).collect::<Vec<_>>(), sparse.range(from, to).collect::<Vec<_>>());
            dense.cap(from, to, max);
            sparse.cap(from, to, max);
            prop_assert_eq!(dense.range(0, 99).collect::<Vec<_>>(), sparse.range(0, 99).collect::<Vec<_>>());
        }

        #[test]
        fn any_name_has_an_owner(pod in "\\PC{0,60}") {
            owner(&pod);
        }
    }
}
