//! Queries as data, their text in PromQL, and their results. Tests evaluate the same queries over series in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Deserialize;

use super::{
    error::PrometheusError,
    matcher::{Matcher, Selection},
};
use crate::{advice::CommandRule, evidence::MAX_TIME};

/// Labels of a series.
pub(super) type Labels = BTreeMap<String, String>;

/// Points of a series: time in seconds and value.
pub(super) type Points = Vec<(u64, f64)>;

/// Labels that name a container, and its namespace and pod. Where a scrape has overwritten them with those of its target
/// (without `honor_labels`), Prometheus keeps the series' own in `exported_…`.
pub(super) const KEY: [&str; 6] =
    ["namespace", "pod", "container", "exported_namespace", "exported_pod", "exported_container"];
/// Labels that identify one run of a container: the cgroup's path has the UID of the pod and the ID of the container, whichever
/// scrape it comes from.
pub(super) const RUN: [&str; 7] =
    ["namespace", "pod", "container", "exported_namespace", "exported_pod", "exported_container", "id"];

/// A container: namespace, pod, name.
pub(super) type ContainerKey = (String, String, String);

/// The own value of a label, wherever the scrape left it.
pub(super) fn own<'l>(labels: &'l Labels, name: &str) -> &'l str {
    let get = |name: &str| labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let exported = if CommandRule::ExportedLabels.is_on() { get(&format!("exported_{name}")) } else { None };
    exported.or_else(|| get(name)).unwrap_or_default()
}

/// The values of containers by time. Where the same container is in several results, because one scrape keeps its labels and
/// another does not, the highest value counts.
pub(super) fn by_container(series: Vec<(Labels, Points)>) -> BTreeMap<ContainerKey, Points> {
    let mut all = BTreeMap::<ContainerKey, BTreeMap<u64, f64>>::new();
    for (key, _, points) in containers(series) {
        let values = all.entry(key).or_default();
        for (at, value) in points {
            let known = values.entry(at).or_insert(value);
            *known = if CommandRule::ScrapedTwice.is_on() { known.max(value) } else { value };
        }
    }
    all.into_iter().map(|(key, values)| (key, values.into_iter().collect())).collect()
}

/// The containers of series. Series of pods and of pauses are left out.
pub(super) fn containers<T>(series: Vec<(Labels, T)>) -> impl Iterator<Item = (ContainerKey, Labels, T)> {
    // Where a target has a label `container`, series of a pod have it too, but no label of their own.
    let target = |labels: &Labels| {
        ["namespace", "pod", "container"].map(|name| labels.get(name).cloned().unwrap_or_default())
    };
    let has = |labels: &Labels, name: &str| labels.get(name).is_some_and(|value| !value.is_empty());
    let targets: BTreeSet<_> = series
        .iter()
        .filter(|(labels, _)| has(labels, "exported_container"))
        .map(|(labels, _)| target(labels))
        .collect();
    series.into_iter().filter_map(move |(labels, value)| {
        let is_of_pod = !has(&labels, "exported_container") && has(&labels, "exported_pod");
        if is_of_pod && targets.contains(&target(&labels)) {
            return None;
        }
        let key = ["namespace", "pod", "container"].map(|name| own(&labels, name).to_owned());
        let is_container = !key[2].is_empty() && key[2] != "POD";
        let [namespace, pod, container] = key;
        is_container.then_some(((namespace, pod, container), labels, value))
    })
}

/// A function over the samples of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Rate,
    Increase,
    MaxOverTime,
    LastOverTime,
    CountOverTime,
    /// When the last sample was taken. The series is looked at once in this many seconds, so the last sample of a series that
    /// ends is seen if they are no more than the scrape interval.
    LastSampleTime {
        step: u64,
    },
    /// When the first sample was taken.
    FirstSampleTime {
        step: u64,
    },
    /// The highest and the lowest of the samples that `LastSampleTime` sees.
    HighestSample {
        step: u64,
    },
    LowestSample {
        step: u64,
    },
    /// The samples themselves.
    Samples,
}

/// How series are aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Max,
    Min,
    Count,
    /// The series with the highest value.
    Top,
}

/// An expression of PromQL: `aggregate by (labels) (max by (once) (function(metric{matchers}[window]) > above)) > 1`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// Names of metrics.
    pub(super) metrics: &'static [&'static str],
    pub(super) matchers: Vec<Matcher>,
    pub(super) selection: Selection,
    /// The function and its window in seconds; the value at the time of the query without one.
    pub(super) function: Option<(Function, u64)>,
    /// Only values above this one.
    pub(super) above: Option<f64>,
    /// Of series that have these labels in common, the highest counts.
    pub(super) once: Vec<String>,
    pub(super) aggregate: Option<(Aggregate, Vec<String>)>,
    /// Only results of more than one series.
    pub(super) several: bool,
}

impl Query {
    pub(super) fn new(metrics: &'static [&'static str], selection: &Selection) -> Self {
        Self {
            metrics,
            matchers: Vec::new(),
            selection: selection.clone(),
            function: None,
            above: None,
            once: Vec::new(),
            aggregate: None,
            several: false,
        }
    }

    /// Of containers only.
    pub(super) fn of_containers(metrics: &'static [&'static str], selection: &Selection) -> Self {
        use super::matcher::Comparison::NotEqual;
        Self::new(metrics, selection)
            .matching(Matcher::new("container", NotEqual, ""))
            .matching(Matcher::new("container", NotEqual, "POD"))
    }

    pub(super) fn matching(mut self, matcher: Matcher) -> Self {
        self.matchers.push(matcher);
        self
    }

    pub(super) fn over(mut self, function: Function, seconds: u64) -> Self {
        self.function = Some((function, seconds));
        self
    }

    pub(super) fn above(mut self, value: f64) -> Self {
        self.above = Some(value);
        self
    }

    /// One value per run of a container, however often it is scraped.
    pub(super) fn once(self) -> Self {
        if CommandRule::ScrapedTwice.is_on() { self.once_by(&RUN) } else { self }
    }

    /// Of series that have these labels in common, the highest counts.
    pub(super) fn once_by(mut self, labels: &[impl ToString]) -> Self {
        self.once = labels.iter().map(ToString::to_string).collect();
        self
    }

    pub(super) fn by(mut self, aggregate: Aggregate, labels: &[impl ToString]) -> Self {
        self.aggregate = Some((aggregate, labels.iter().map(ToString::to_string).collect()));
        self
    }

    pub(super) fn several(mut self) -> Self {
        self.several = true;
        self
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut matchers = self.matchers.clone();
        let mut metric = self.metrics.first().copied().unwrap_or_default();
        if self.metrics.len() > 1 {
            metric = "";
            let names = self.metrics.join("|");
            matchers.insert(0, Matcher::new("__name__", super::matcher::Comparison::Regex, &names));
        }
        let series = |matchers: &Vec<Matcher>| {
            let all: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            let series = format!("{metric}{{{}}}", all.join(","));
            match self.function {
                None => series,
                Some((Function::Samples, seconds)) => format!("{series}[{seconds}s]"),
                Some((Function::LastSampleTime { step }, seconds)) => {
                    format!("max_over_time(timestamp({series})[{seconds}s:{step}s])")
                }
                Some((Function::FirstSampleTime { step }, seconds)) => {
                    format!("min_over_time(timestamp({series})[{seconds}s:{step}s])")
                }
                Some((Function::HighestSample { step }, seconds)) => {
                    format!("max_over_time({series}[{seconds}s:{step}s])")
                }
                Some((Function::LowestSample { step }, seconds)) => {
                    format!("min_over_time({series}[{seconds}s:{step}s])")
                }
                Some((function, seconds)) => {
                    let name = match function {
                        Function::Rate => "rate",
                        Function::Increase => "increase",
                        Function::MaxOverTime => "max_over_time",
                        Function::LastOverTime => "last_over_time",
                        _ => "count_over_time",
                    };
                    format!("{name}({series}[{seconds}s])")
                }
            }
        };
        let alternatives: Vec<String> = self.selection.alternatives(&matchers).iter().map(series).collect();
        let mut text = alternatives.join(" or ");
        if let Some(above) = self.above {
            text = if alternatives.len() > 1 {
                format!("({text}) > {above}")
            } else {
                format!("{text} > {above}")
            };
        }
        if !self.once.is_empty() {
            text = format!("max by ({}) ({text})", self.once.join(","));
        }
        if let Some((aggregate, labels)) = &self.aggregate {
            let labels = labels.join(",");
            text = match aggregate {
                Aggregate::Sum => format!("sum by ({labels}) ({text})"),
                Aggregate::Min => format!("min by ({labels}) ({text})"),
                Aggregate::Max => format!("max by ({labels}) ({text})"),
                Aggregate::Count => format!("count by ({labels}) ({text})"),
                Aggregate::Top => format!("topk by ({labels}) (1, {text})"),
            };
        }
        if self.several {
            text += " > 1";
        }
        f.write_str(&text)
    }
}

/// When a query is evaluated; times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Time(u64),
    Range { from: u64, to: u64, step: u64 },
}

/// What answers queries: a server, or series in memory.
pub(super) trait QueryApi {
    /// The address, for messages.
    fn base(&self) -> &str;

    /// The time of the server, seconds.
    ///
    /// # Errors
    /// When the query fails.
    fn now(&self) -> Result<u64, PrometheusError>;

    /// The result of a query.
    ///
    /// # Errors
    /// When the query fails. [`PrometheusError::TooLarge`] asks for a shorter part.
    fn query(&self, query: &Query, at: At) -> Result<Vec<Series>, PrometheusError>;

    /// What the server said of results that were partial and used all the same, since the last call; `None` if all were complete.
    fn take_partial(&self) -> Option<String>;
}

/// A series of a query result; times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Series {
    #[serde(default)]
    pub(super) metric: Labels,
    #[serde(default)]
    pub(super) values: Vec<(f64, Number)>,
    pub(super) value: Option<(f64, Number)>,
    /// Set instead of `value` for native histograms.
    pub(super) histogram: Option<(f64, NativeHistogram)>,
}

impl Series {
    /// The samples, without NaN, infinity and times that no clock shows.
    pub(super) fn points(&self) -> Points {
        // `as` saturates.
        let all = self.values.iter().chain(&self.value).filter(|(at, _)| *at <= MAX_TIME as f64);
        all.filter_map(|(at, value)| Some((*at as u64, value.finite()?))).collect()
    }
}

/// The time that `vector(time())` gives, seconds; 0 if it gives none.
pub(super) fn time(series: &[Series]) -> u64 {
    // `as` saturates.
    series.first().and_then(|it| it.points().first().map(|(_, now)| *now as u64)).unwrap_or(0).min(MAX_TIME)
}

/// A sample's value: a text in the API; some proxies make it a number.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Text(String),
    Number(f64),
}

impl Number {
    /// Not NaN, and not infinite.
    pub(super) fn finite(&self) -> Option<f64> {
        match self {
            Self::Text(text) => finite(text),
            Self::Number(number) => Some(*number).filter(|number| number.is_finite()),
        }
    }
}

pub(super) fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A native histogram of the query API.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct NativeHistogram {
    /// Boundary rule, lower bound, upper bound and count of each bucket.
    #[serde(default)]
    pub(super) buckets: Vec<(u8, String, String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::matcher::Comparison;

    #[test]
    fn queries_as_text() {
        let all = Selection::default();
        let of_shop = Selection { namespaces: vec!["shop".to_owned()], ..Selection::default() };
        let rate = Query::of_containers(&["cpu"], &all)
            .over(Function::Rate, 60)
            .once()
            .by(Aggregate::Sum, &["namespace", "pod"]);
        assert_eq!(
            rate.to_string(),
            "sum by (namespace,pod) (max by (namespace,pod,container,exported_namespace,exported_pod,exported_container,id) \
             (rate(cpu{container!=\"\",container!=\"POD\"}[60s])))"
        );
        let several = Query::new(&["a", "b"], &of_shop)
            .over(Function::MaxOverTime, 300)
            .above(0.0)
            .by(Aggregate::Count, &["pod"])
            .several();
        assert_eq!(
            several.to_string(),
            "count by (pod) ((max_over_time({__name__=~\"a|b\",namespace=~\"shop\",exported_namespace=\"\"}[300s]) or \
             max_over_time({__name__=~\"a|b\",exported_namespace=~\"shop\"}[300s])) > 0) > 1"
        );
        let samples = Query::new(&["a"], &all).matching(Matcher::new("id", Comparison::Equal, "/x\"y"));
        assert_eq!(samples.clone().over(Function::Samples, 9).to_string(), "a{id=\"/x\\\"y\"}[9s]");
        let last = samples.clone().over(Function::LastSampleTime { step: 15 }, 60);
        assert_eq!(last.to_string(), "max_over_time(timestamp(a{id=\"/x\\\"y\"})[60s:15s])");
        assert_eq!(samples.by(Aggregate::Top, &["job"]).to_string(), "topk by (job) (1, a{id=\"/x\\\"y\"})");
    }

    #[test]
    fn nan_and_infinity_are_no_values() {
        assert_eq!(["1.5", "NaN", "+Inf", "x"].map(finite), [Some(1.5), None, None, None]);
        assert_eq!(serde_json::from_str::<Number>("1.5").unwrap().finite(), Some(1.5));
    }

    #[test]
    fn labels_of_the_target_are_not_those_of_the_container() {
        let labels = |text: &str| -> Labels {
            text.split(',')
                .map(|pair| pair.split_once('=').unwrap())
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .collect()
        };
        let series: Vec<_> = [
            "namespace=shop,pod=web-0,container=app",
            "namespace=monitoring,pod=agent-x,container=agent,exported_namespace=shop,exported_pod=web-1,exported_container=app",
            // The pod of the same.
            "namespace=monitoring,pod=agent-x,container=agent,exported_namespace=shop,exported_pod=web-1",
            // A target without a label `container`.
            "namespace=monitoring,pod=agent-y,container=app,exported_namespace=shop,exported_pod=web-2",
            "namespace=shop,pod=web-0,container=POD",
            "namespace=shop,pod=web-0",
        ]
        .map(|text| (labels(text), ()))
        .into();
        let found: Vec<_> =
            containers(series).map(|(key, ..)| format!("{}/{}/{}", key.0, key.1, key.2)).collect();
        assert_eq!(found, ["shop/web-0/app", "shop/web-1/app", "shop/web-2/app"]);
    }
}
