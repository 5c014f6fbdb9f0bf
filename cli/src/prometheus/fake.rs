//! Series in memory that answer the same queries as a server, for tests.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    error::PrometheusError,
    gather::{self, PrometheusHistory},
    matcher::{Comparison, Matcher, Selection},
    query::{Aggregate, At, Function, Labels, Number, Query, QueryApi, Series},
    reader::Reader,
};

/// How long a sample is the current one.
const LOOKBACK: f64 = 300.0;

/// Series with their samples: time in seconds and value.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesInMemory {
    pub(super) series: Vec<(Labels, Vec<(f64, f64)>)>,
    pub(super) now: u64,
    /// Longest period of a query, seconds, above which it is too large; 0 is unlimited.
    pub(super) longest: u64,
    /// What the server says of its results.
    pub(super) partial: Option<String>,
    /// What was queried: text, and period in seconds.
    pub(super) queries: RefCell<Vec<(String, u64)>>,
}

/// Labels from `name=value,…`.
pub(super) fn labels(text: &str) -> Labels {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect()
}

impl SeriesInMemory {
    pub(crate) fn at(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Adds a series.
    pub(crate) fn add(&mut self, metric: &str, text: &str, samples: impl IntoIterator<Item = (u64, f64)>) {
        let mut labels = labels(text);
        labels.insert("__name__".to_owned(), metric.to_owned());
        self.series.push((labels, samples.into_iter().map(|(at, value)| (at as f64, value)).collect()));
    }

    /// Adds a series with one value at regular times.
    pub(super) fn constant(&mut self, metric: &str, text: &str, (from, to): (u64, u64), value: f64) {
        self.add(metric, text, (from..to).step_by(60).map(|at| (at, value)));
    }

    /// Drops the samples after a time.
    pub(super) fn cut(&mut self, end: u64) {
        self.series.iter_mut().for_each(|(_, samples)| samples.retain(|it| it.0 <= end as f64));
    }

    /// Adds all series of another one.
    pub(super) fn extend(&mut self, other: Self) {
        self.series.extend(other.series);
    }

    /// What is read of the last `since` seconds, cluster by cluster.
    pub(crate) fn histories(&self, since: u64) -> Result<Vec<PrometheusHistory>, PrometheusError> {
        gather::read_each(&Reader::new(self), &Selection::default(), since, None)
    }

    /// Evaluates a query at some times.
    fn evaluate(&self, query: &Query, times: &[u64]) -> Vec<Series> {
        let selected: Vec<&(Labels, Vec<(f64, f64)>)> = self.selected(query).collect();
        let keeps_name = matches!(query.function, None | Some((Function::LastOverTime, _)));
        let named = |(labels, _): &&(Labels, Vec<(f64, f64)>)| {
            let mut labels = labels.clone();
            if !keeps_name {
                labels.remove("__name__");
            }
            labels
        };
        let all: Vec<Labels> = selected.iter().map(named).collect();
        let distinct: BTreeSet<&Labels> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "two series with the same labels: {query}");
        let once = Groups::new(&all, (!query.once.is_empty()).then_some(&query.once));
        let (aggregate, by) = query.aggregate.as_ref().map_or((None, None), |(it, by)| (Some(*it), Some(by)));
        let groups = Groups::new(&once.labels, by.filter(|_| aggregate != Some(Aggregate::Top)));
        let mut points = vec![Vec::new(); groups.labels.len()];
        for at in times {
            let values: Vec<Option<f64>> = selected
                .iter()
                .map(|(_, samples)| evaluate(query.function, samples, *at as f64))
                .map(|value| value.filter(|value| query.above.is_none_or(|above| *value > above)))
                .collect();
            let values = once.aggregate(&values, Aggregate::Max);
            let values = groups.aggregate(&values, aggregate.unwrap_or(Aggregate::Max));
            for (points, value) in points.iter_mut().zip(values) {
                let value = value.filter(|value| !query.several || *value > 1.0);
                points.extend(value.map(|value| (*at as f64, Number::Number(value))));
            }
        }
        let mut series: Vec<Series> = groups
            .labels
            .into_iter()
            .zip(points)
            .filter(|(_, points)| !points.is_empty())
            .map(|(metric, values)| Series { metric, values, ..Series::default() })
            .collect();
        if let (Some(Aggregate::Top), Some(by)) = (aggregate, by) {
            let value = |series: &Series| series.points().first().map_or(0.0, |it| it.1);
            series.sort_by(|one, other| value(other).total_cmp(&value(one)));
            let mut known = BTreeSet::new();
            series.retain(|it| known.insert(only(&it.metric, by)));
        }
        series
    }

    fn selected(&self, query: &Query) -> impl Iterator<Item = &(Labels, Vec<(f64, f64)>)> {
        let alternatives = query.selection.alternatives(&query.matchers);
        let metrics: BTreeSet<&str> = query.metrics.iter().copied().collect();
        self.series.iter().filter(move |(labels, _)| {
            metrics.contains(labels["__name__"].as_str())
                && alternatives.iter().any(|all| all.iter().all(|matcher| matches(matcher, labels)))
        })
    }
}

fn matches(matcher: &Matcher, labels: &Labels) -> bool {
    let value = labels.get(&matcher.label).map(String::as_str).unwrap_or_default();
    // The regular expressions of queries are names with `|` between them.
    let is_one = || matcher.value.replace('\\', "").split('|').any(|name| name == value);
    match matcher.comparison {
        Comparison::Equal => value == matcher.value,
        Comparison::NotEqual => value != matcher.value,
        Comparison::Regex => is_one(),
        Comparison::NotRegex => !is_one(),
    }
}

fn evaluate(function: Option<(Function, u64)>, samples: &[(f64, f64)], at: f64) -> Option<f64> {
    let seconds = function.map_or(LOOKBACK, |(_, seconds)| seconds as f64);
    let within: Vec<(f64, f64)> =
        samples.iter().copied().filter(|it| it.0 > at - seconds && it.0 <= at).collect();
    let (last_at, last) = *within.last()?;
    let increase = || {
        let (first_at, _) = within[0];
        let sum: f64 = within
            .windows(2)
            .map(|pair| if pair[1].1 >= pair[0].1 { pair[1].1 - pair[0].1 } else { pair[1].1 })
            .sum();
        // Extrapolated to the window, by at most half an interval on each side.
        let interval = (last_at - first_at) / (within.len() - 1).max(1) as f64;
        let edge = |gap: f64| if gap < 1.1 * interval { gap } else { interval / 2.0 };
        let covered = last_at - first_at;
        let length = covered + edge(first_at - (at - seconds)) + edge(at - last_at);
        (within.len() > 1).then(|| sum * length / covered)
    };
    match function {
        None | Some((Function::LastOverTime, _)) => Some(last),
        Some((Function::Rate, seconds)) => Some(increase()? / seconds as f64),
        Some((Function::Increase, _)) => increase(),
        Some((Function::LastSampleTime { .. }, _)) => Some(last_at),
        Some((Function::FirstSampleTime { .. }, _)) => Some(within[0].0),
        Some((Function::LowestSample { .. }, _)) => within.iter().map(|it| it.1).reduce(f64::min),
        Some((Function::MaxOverTime | Function::HighestSample { .. }, _)) => {
            within.iter().map(|it| it.1).reduce(f64::max)
        }
        Some((Function::CountOverTime | Function::Samples, _)) => Some(within.len() as f64),
    }
}

fn only(labels: &Labels, by: &[String]) -> Labels {
    by.iter()
        .filter_map(|name| Some((name.clone(), labels.get(name).filter(|it| !it.is_empty())?.clone())))
        .collect()
}

/// Which series belong to which group.
struct Groups {
    labels: Vec<Labels>,
    of: Vec<usize>,
}

impl Groups {
    /// Without labels to group by, each series is a group.
    fn new(series: &[Labels], by: Option<&Vec<String>>) -> Self {
        let Some(by) = by else {
            return Self { labels: series.to_vec(), of: (0..series.len()).collect() };
        };
        let mut known = BTreeMap::<Labels, usize>::new();
        let of = series.iter().map(|labels| {
            let next = known.len();
            *known.entry(only(labels, by)).or_insert(next)
        });
        let of = of.collect();
        let mut labels: Vec<(usize, Labels)> = known.into_iter().map(|(labels, at)| (at, labels)).collect();
        labels.sort_by_key(|(at, _)| *at);
        Self { labels: labels.into_iter().map(|(_, labels)| labels).collect(), of }
    }

    fn aggregate(&self, values: &[Option<f64>], aggregate: Aggregate) -> Vec<Option<f64>> {
        let mut all = vec![None; self.labels.len()];
        for (at, value) in self.of.iter().zip(values) {
            let Some(value) = *value else { continue };
            let known: &mut Option<f64> = &mut all[*at];
            *known = Some(match aggregate {
                Aggregate::Sum => known.unwrap_or(0.0) + value,
                Aggregate::Count => known.unwrap_or(0.0) + 1.0,
                Aggregate::Min => known.map_or(value, |known| known.min(value)),
                Aggregate::Max | Aggregate::Top => known.map_or(value, |known| known.max(value)),
            });
        }
        all
    }
}

impl QueryApi for SeriesInMemory {
    fn take_partial(&self) -> Option<String> {
        self.partial.clone()
    }

    fn base(&self) -> &str {
        "http://in-memory"
    }

    fn now(&self) -> Result<u64, PrometheusError> {
        Ok(self.now)
    }

    fn query(&self, query: &Query, at: At) -> Result<Vec<Series>, PrometheusError> {
        let window = query.function.map_or(0, |(_, seconds)| seconds);
        let times: Vec<u64> = match at {
            At::Time(at) => vec![at],
            At::Range { from, to, step } => (from..=to).step_by(step as usize).collect(),
        };
        let length = match at {
            // Few points, which cost little.
            At::Range { from, to, step } if window < step => (to - from) / step,
            At::Range { from, to, .. } => to - from + window,
            _ => window,
        };
        self.queries.borrow_mut().push((query.to_string(), length));
        if self.longest > 0 && length > self.longest {
            let (base, text) = (self.base().to_owned(), "too many samples".to_owned());
            return Err(PrometheusError::TooLarge { base, seconds: 0, text });
        }
        if let Some((Function::Samples, seconds)) = query.function {
            let within = |samples: &[(f64, f64)]| {
                let times = (times[0] - seconds) as f64..=times[0] as f64;
                let all = samples.iter().filter(|it| times.contains(&it.0));
                all.map(|(at, value)| (*at, Number::Number(*value))).collect::<Vec<_>>()
            };
            let all = self.selected(query).map(|(labels, samples)| (labels.clone(), within(samples)));
            let some = all.filter(|(_, values)| !values.is_empty());
            return Ok(some.map(|(metric, values)| Series { metric, values, ..Series::default() }).collect());
        }
        Ok(self.evaluate(query, &times))
    }
}
