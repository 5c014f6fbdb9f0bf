//! Evidence: the usage history of one container of one workload, by the hour.
//!
//! [`Evidence::merge`] adds up the histories of several agents, replicas and times. It is associative and commutative, so
//! the order in which agents answer does not matter. Sizes are bytes, CPU is in cores, times are seconds since the Unix
//! epoch.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};

pub use crate::HOUR;
use crate::{
    cpu_quota::QuotaWhatIf,
    histogram::Histogram,
    minutes::{self, Minutes},
    start_up::UsageByAge,
    workload::{Container, Workload},
};

/// The value of [`Header::schema`]. This version cannot read data with another number after the slash.
pub const SCHEMA: &str = "snug.evidence/1";

/// The first line of a snapshot. Each further line is the [`Evidence`] of one container, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: String,
    /// The node of the agent; the names of several nodes are separated by commas.
    pub node: String,
    /// Time of writing, seconds.
    pub at: u64,
}

impl Header {
    /// A header with the schema of this version.
    pub fn new(node: &str, at: u64) -> Self {
        Self { schema: SCHEMA.to_owned(), node: node.to_owned(), at }
    }
}

/// Seconds of a pod's life that count as start-up: one hour, because evidence is kept by the hour.
pub const START_UP: u64 = HOUR;

/// An hour, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hour(pub u32);

impl Hour {
    /// The hour of a time in seconds. Times beyond the year 491,000 are in the last hour.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(u32::try_from(seconds / HOUR).unwrap_or(u32::MAX))
    }

    /// So many hours later; at most the last hour of all.
    #[must_use]
    pub const fn later(self, hours: u32) -> Self {
        Self(self.0.saturating_add(hours))
    }

    /// So many hours earlier; at least the first hour of all.
    #[must_use]
    pub const fn earlier(self, hours: u32) -> Self {
        Self(self.0.saturating_sub(hours))
    }

    /// The first hour that is not complete in a history read at a time in seconds.
    ///
    /// An hour is complete two minutes after its end: agents write their history every 30 seconds, and Prometheus often scrapes
    /// once a minute.
    pub fn first_unfinished(now: u64) -> Self {
        const LATE: u64 = 120;
        Self::from_seconds(now.saturating_sub(LATE))
    }

    /// Day of the week in UTC, 0..7, from Thursday, 1970-01-01.
    pub fn weekday(self) -> u32 {
        self.0 / 24 % 7
    }
}

/// The highest memory usage, with its time and pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peak {
    pub bytes: u64,
    /// Time, seconds.
    pub at: u64,
    /// Name of the pod.
    pub pod: String,
}

/// An OOM kill by the container's own memory limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OomKill {
    /// Time, seconds.
    pub at: u64,
    /// The limit that was hit, bytes.
    pub limit: u64,
    /// Name of the pod.
    pub pod: String,
}

/// The highest memory usage of a container that ran before the agent did: the kernel's watermark when the agent first read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EarlierPeak {
    /// Bytes, with page cache.
    pub bytes: u64,
    /// When the agent first read it, seconds. The peak itself is older.
    pub at: u64,
    /// Name of the pod.
    pub pod: String,
}

/// Usage of all replicas in one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourRecord {
    /// Container-seconds observed: 3600 for each container that ran for the whole hour.
    pub observed: u64,
    /// Cores used per window, after start-up.
    pub cpu: Histogram,
    /// Cores used per window, in start-up.
    pub cpu_start: Histogram,
    /// Cores used per minute, after start-up; empty where a window is a minute.
    pub minutes: Histogram,
    /// Cores used per minute, in start-up.
    pub minutes_start: Histogram,
    /// Highest memory use after start-up.
    pub peak: Option<Peak>,
    /// Highest memory use in start-up.
    pub start_peak: Option<Peak>,
    /// Working set in bytes, sampled over time.
    pub working_set: Histogram,
    /// OOM kills, sorted.
    pub kills: Vec<OomKill>,
    /// The quota simulation; `None` without the eBPF programs.
    #[serde(alias = "ladder")]
    pub quota_what_if: Option<QuotaWhatIf>,
    /// CFS periods in which the container was runnable, under its current limit.
    pub periods: u64,
    /// Of these, periods in which it was throttled.
    pub throttled: u64,
    /// Containers started.
    pub starts: u64,
    /// Containers that ended, by exit code.
    #[serde(default)]
    pub exits: BTreeMap<u8, u64>,
    /// Run-queue waits of tasks, seconds; empty unless the run queue is traced.
    #[serde(default)]
    pub waits: Histogram,
    /// Unreclaimable memory (anonymous, shared, and unreclaimable kernel memory), bytes, sampled over time.
    #[serde(default)]
    pub unreclaimable: Histogram,
    /// Stalls and refaults.
    #[serde(default)]
    pub stalled: Stalled,
    /// CPU usage by the age of containers in their first hour.
    #[serde(default, skip_serializing_if = "UsageByAge::is_empty")]
    pub by_age: UsageByAge,
}

/// Time in which some task was stalled (PSI), and refaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    /// Stalled on CPU, milliseconds.
    pub cpu_millis: u64,
    /// Stalled on memory, milliseconds.
    pub memory_millis: u64,
    /// Stalled on I/O, milliseconds.
    pub io_millis: u64,
    /// Refaults: anonymous and file pages that were needed again soon after they were reclaimed.
    pub refaults: u64,
}

impl Stalled {
    fn merge(&mut self, other: &Self) {
        let Self { cpu_millis, memory_millis, io_millis, refaults } = other;
        for (mine, theirs) in [
            (&mut self.cpu_millis, cpu_millis),
            (&mut self.memory_millis, memory_millis),
            (&mut self.io_millis, io_millis),
            (&mut self.refaults, refaults),
        ] {
            *mine = mine.saturating_add(*theirs);
        }
    }
}

impl HourRecord {
    /// The higher of both peaks.
    pub fn highest(&self) -> Option<&Peak> {
        self.peak.iter().chain(&self.start_peak).max()
    }

    /// Adds another record, of the same hour or of another one.
    pub fn merge(&mut self, other: &Self) {
        let Self { observed, cpu, cpu_start, minutes, minutes_start, peak, start_peak, .. } = self;
        minutes.merge(&other.minutes);
        minutes_start.merge(&other.minutes_start);
        *observed = observed.saturating_add(other.observed);
        cpu.merge(&other.cpu);
        cpu_start.merge(&other.cpu_start);
        higher(peak, &other.peak);
        higher(start_peak, &other.start_peak);
        let Self { working_set, kills, quota_what_if, .. } = self;
        working_set.merge(&other.working_set);
        kills.extend(other.kills.iter().cloned());
        kills.sort();
        match (quota_what_if, &other.quota_what_if) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => mine.clone_from(theirs),
            (Some(_), None) => {}
        }
        self.periods = self.periods.saturating_add(other.periods);
        self.throttled = self.throttled.saturating_add(other.throttled);
        self.starts = self.starts.saturating_add(other.starts);
        for (code, count) in &other.exits {
            let mine = self.exits.entry(*code).or_default();
            *mine = mine.saturating_add(*count);
        }
        self.waits.merge(&other.waits);
        self.unreclaimable.merge(&other.unreclaimable);
        self.stalled.merge(&other.stalled);
        self.by_age.merge(&other.by_age);
    }
}

fn higher<P: Clone + Ord>(mine: &mut Option<P>, theirs: &Option<P>) {
    if *mine < *theirs {
        mine.clone_from(theirs);
    }
}

/// Totals of one pod over the whole history, for [`crate::skew`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodTotals {
    /// Seconds observed.
    pub observed: u64,
    /// CPU time used, milliseconds.
    pub cpu_millis: u64,
    /// Highest memory use, bytes.
    pub peak: u64,
    /// Class of the node that the pod ran on: its instance type, or its allocatable CPU and memory. Empty if unknown.
    pub node_class: String,
}

/// The usage history of one container of one workload, over all replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub workload: Workload,
    /// The container with its current requests and limits.
    pub container: Container,
    /// Length of a CPU window in milliseconds. Histories with different windows are not merged.
    pub window_millis: u64,
    #[serde(deserialize_with = "hours")]
    pub hours: BTreeMap<Hour, HourRecord>,
    /// Hours that were taken out of `hours` because they are not complete ([`crate::engine::settle`]).
    #[serde(skip)]
    pub unfinished: BTreeMap<Hour, HourRecord>,
    pub pods: BTreeMap<String, PodTotals>,
    /// The last hours minute by minute, if requested from the agent.
    #[serde(default)]
    pub minutes: Minutes,
    /// The highest memory usage from before the agent; `None` if the agent saw all containers start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_peak: Option<EarlierPeak>,
    /// When each image was first seen, seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, u64>,
    /// Why a source says that a part of the history is missing; empty if it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub partial: String,
}

/// Why two histories cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The histories are of different containers.
    #[error("the usage histories of {0} and {1} cannot be merged: these are different containers")]
    Container(String, String),
    /// Short windows show bursts that long windows hide, so their usage is not comparable.
    #[error("CPU windows of {0} ms and {1} ms cannot be merged: use sources with the same window length")]
    Window(u64, u64),
}

impl Evidence {
    /// An empty history.
    pub fn new(workload: Workload, container: Container, window_millis: u64) -> Self {
        Self {
            workload,
            container,
            window_millis,
            hours: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            pods: BTreeMap::new(),
            minutes: Minutes::new(),
            earlier_peak: None,
            images: BTreeMap::new(),
            partial: String::new(),
        }
    }

    /// The record of an hour, created if missing.
    pub fn hour(&mut self, hour: Hour) -> &mut HourRecord {
        self.hours.entry(hour).or_default()
    }

    /// Adds another history of the same container. The newer current requests and limits are kept.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if !self.workload.is(&other.workload) || self.container.name != other.container.name {
            return Err(MergeError::Container(self.title(), other.title()));
        }
        if self.window_millis != other.window_millis {
            return Err(MergeError::Window(self.window_millis, other.window_millis));
        }
        self.workload.merge(&other.workload);
        self.container.merge(&other.container);
        for (hour, record) in &other.hours {
            self.hour(*hour).merge(record);
        }
        for (hour, record) in &other.unfinished {
            self.unfinished.entry(*hour).or_default().merge(record);
        }
        minutes::merge(&mut self.minutes, &other.minutes);
        // The same peak is read again when the agent starts again: the first time counts.
        let rank = |peak: &Option<EarlierPeak>| {
            peak.as_ref().map(|EarlierPeak { bytes, at, pod }| (*bytes, Reverse((*at, pod.clone()))))
        };
        if rank(&self.earlier_peak) < rank(&other.earlier_peak) {
            self.earlier_peak.clone_from(&other.earlier_peak);
        }
        if self.partial.is_empty() {
            self.partial.clone_from(&other.partial);
        }
        for (image, first) in &other.images {
            let mine = self.images.entry(image.clone()).or_insert(*first);
            *mine = (*mine).min(*first);
        }
        for (pod, totals) in &other.pods {
            let mine = self.pods.entry(pod.clone()).or_default();
            mine.observed = mine.observed.saturating_add(totals.observed);
            mine.cpu_millis = mine.cpu_millis.saturating_add(totals.cpu_millis);
            mine.peak = mine.peak.max(totals.peak);
            if mine.node_class < totals.node_class {
                mine.node_class.clone_from(&totals.node_class);
            }
        }
        Ok(())
    }

    /// `namespace/name/container`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.workload.key(), self.container.name)
    }

    /// Pod-days observed: two replicas for twelve hours are one pod-day.
    pub fn pod_days(&self) -> f64 {
        let seconds: f64 = self.hours.values().map(|hour| hour.observed as f64).sum();
        seconds / (24 * HOUR) as f64
    }

    /// Weekdays with at least one observed hour, 0..=7.
    pub fn weekdays(&self) -> u32 {
        self.hours
            .iter()
            .filter(|(_, record)| record.observed > 0)
            .fold(0_u32, |days, (hour, _)| days | 1 << hour.weekday())
            .count_ones()
    }

    /// First and last hour with a record.
    pub fn span(&self) -> Option<(Hour, Hour)> {
        Some((*self.hours.first_key_value()?.0, *self.hours.last_key_value()?.0))
    }

    /// Share of the hours from the first to the last that were observed at all, 0..=1.
    pub fn coverage(&self) -> f64 {
        let Some((first, last)) = self.span() else { return 0.0 };
        let seen = self.hours.values().filter(|record| record.observed > 0).count();
        seen as f64 / (f64::from(last.0 - first.0) + 1.0)
    }

    /// The quota simulation over all hours; `None` without one.
    pub fn quota_what_if(&self) -> Option<QuotaWhatIf> {
        let mut quota_what_ifs = self.hours.values().filter_map(|hour| hour.quota_what_if.as_ref());
        let first = quota_what_ifs.next()?.clone();
        Some(quota_what_ifs.fold(first, |mut sum, quota_what_if| {
            sum.merge(quota_what_if);
            sum
        }))
    }

    /// CPU usage by the age of containers, over all hours.
    pub fn by_age(&self) -> UsageByAge {
        self.hours.values().fold(UsageByAge::default(), |mut sum, hour| {
            sum.merge(&hour.by_age);
            sum
        })
    }

    /// OOM kills in order of time, also those of unfinished hours.
    pub fn kills(&self) -> impl Iterator<Item = &OomKill> {
        self.hours.values().chain(self.unfinished.values()).flat_map(|hour| &hour.kills)
    }
}

/// Reads hours into a tree without gaps: one that grows by single hours in order has half of its space free.
fn hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Hour, HourRecord>, D::Error> {
    deserializer.deserialize_map(HoursVisitor)
}

struct HoursVisitor;

impl<'de> Visitor<'de> for HoursVisitor {
    type Value = BTreeMap<Hour, HourRecord>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records by hour")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut hours = Vec::new();
        while let Some(hour) = map.next_entry()? {
            hours.push(hour);
        }
        Ok(hours.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
