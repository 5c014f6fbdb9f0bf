//! The record formats of the redb database.
//!
//! Postcard does not describe its data, so each format is defined here. `Histogram` and `QuotaWhatIf` are the current types,
//! because their serialization is unchanged; the fixtures of the tests verify it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::Deserialize;
use snug_sizing::{
    cpu_quota::QuotaWhatIf,
    evidence::{self, Evidence, Hour},
    histogram::Histogram,
    minutes::{self, Minute},
    workload::{self, Resources, Role, WorkloadKind},
};

pub(super) const ALL: RangeInclusive<u32> = 1..=3;

#[derive(Debug, Deserialize)]
struct Workload {
    namespace: String,
    name: String,
    owner: String,
    kind: WorkloadKind,
    replicas: u64,
}

#[derive(Debug, Deserialize)]
struct Container {
    name: String,
    role: Role,
    seen: u64,
    current: CurrentResources,
}

#[derive(Debug, Deserialize)]
struct CurrentResources {
    cpu_request: Option<u64>,
    cpu_limit: Option<u64>,
    memory_request: Option<u64>,
    memory_limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Peak {
    bytes: u64,
    at: u64,
    pod: String,
}

#[derive(Debug, Deserialize)]
struct OomKill {
    at: u64,
    limit: u64,
    pod: String,
}

#[derive(Debug, Deserialize)]
struct PodTotals {
    observed: u64,
    cpu_millis: u64,
    peak: u64,
    node_class: String,
}

/// The fields of all formats. In format 3 minutes follow, which were always empty.
#[derive(Debug, Deserialize)]
struct Record<H> {
    workload: Workload,
    container: Container,
    window_millis: u64,
    hours: BTreeMap<u32, H>,
    pods: BTreeMap<String, PodTotals>,
}

/// An hour of format 1: without exits, waits and stalls.
#[derive(Debug, Deserialize)]
struct Hour1 {
    observed: u64,
    cpu: Histogram,
    cpu_start: Histogram,
    minutes: Histogram,
    minutes_start: Histogram,
    peak: Option<Peak>,
    start_peak: Option<Peak>,
    working_set: Histogram,
    kills: Vec<OomKill>,
    quota_what_if: Option<QuotaWhatIf>,
    periods: u64,
    throttled: u64,
    /// Always 0.
    _waited: u64,
    starts: u64,
}

/// An hour of formats 2 and 3.
#[derive(Debug, Deserialize)]
struct Hour2 {
    observed: u64,
    cpu: Histogram,
    cpu_start: Histogram,
    minutes: Histogram,
    minutes_start: Histogram,
    peak: Option<Peak>,
    start_peak: Option<Peak>,
    working_set: Histogram,
    kills: Vec<OomKill>,
    quota_what_if: Option<QuotaWhatIf>,
    periods: u64,
    throttled: u64,
    starts: u64,
    exits: BTreeMap<u8, u64>,
    waits: Histogram,
    unreclaimable: Histogram,
    stalled: Stalled,
}

#[derive(Debug, Deserialize)]
struct Stalled {
    cpu_millis: u64,
    memory_millis: u64,
    io_millis: u64,
    refaults: u64,
}

#[derive(Debug, Deserialize)]
struct MinuteRecord {
    observed_millis: u64,
    cpu_millis: u64,
    memory_peak: u64,
    periods: u64,
    throttled: u64,
}

impl From<Peak> for evidence::Peak {
    fn from(Peak { bytes, at, pod }: Peak) -> Self {
        Self { bytes, at, pod }
    }
}

impl From<OomKill> for evidence::OomKill {
    fn from(OomKill { at, limit, pod }: OomKill) -> Self {
        Self { at, limit, pod }
    }
}

impl From<Hour1> for evidence::HourRecord {
    fn from(old: Hour1) -> Self {
        let Hour1 { observed, cpu, cpu_start, minutes, minutes_start, peak, start_peak, .. } = old;
        let Hour1 { working_set, kills, quota_what_if, periods, throttled, starts, .. } = old;
        Self {
            observed,
            cpu,
            cpu_start,
            minutes,
            minutes_start,
            peak: peak.map(Into::into),
            start_peak: start_peak.map(Into::into),
            working_set,
            kills: kills.into_iter().map(Into::into).collect(),
            quota_what_if,
            periods,
            throttled,
            starts,
            ..Self::default()
        }
    }
}

impl From<Hour2> for evidence::HourRecord {
    fn from(old: Hour2) -> Self {
        let Hour2 { observed, cpu, cpu_start, minutes, minutes_start, peak, start_peak, .. } = old;
        let Hour2 { working_set, kills, quota_what_if, periods, throttled, starts, .. } = old;
        let Hour2 { exits, waits, unreclaimable, stalled, .. } = old;
        let Stalled { cpu_millis, memory_millis, io_millis, refaults } = stalled;
        Self {
            observed,
            cpu,
            cpu_start,
            minutes,
            minutes_start,
            peak: peak.map(Into::into),
            start_peak: start_peak.map(Into::into),
            working_set,
            kills: kills.into_iter().map(Into::into).collect(),
            quota_what_if,
            periods,
            throttled,
            starts,
            exits,
            waits,
            unreclaimable,
            stalled: evidence::Stalled { cpu_millis, memory_millis, io_millis, refaults },
            ..Self::default()
        }
    }
}

impl<H: Into<evidence::HourRecord>> From<Record<H>> for Evidence {
    fn from(old: Record<H>) -> Self {
        let Record { workload, container, window_millis, hours, pods } = old;
        let Workload { namespace, name, owner, kind, replicas } = workload;
        let workload = workload::Workload { namespace, name, owner, kind, replicas };
        let Container { name, role, seen, current } = container;
        let CurrentResources { cpu_request, cpu_limit, memory_request, memory_limit } = current;
        let current = Resources { cpu_request, cpu_limit, memory_request, memory_limit };
        let container = workload::Container { name, role, seen, current, ..workload::Container::default() };
        let totals = |PodTotals { observed, cpu_millis, peak, node_class }| evidence::PodTotals {
            observed,
            cpu_millis,
            peak,
            node_class,
        };
        Self {
            hours: hours.into_iter().map(|(hour, record)| (Hour(hour), record.into())).collect(),
            pods: pods.into_iter().map(|(pod, of_pod)| (pod, totals(of_pod))).collect(),
            ..Self::new(workload, container, window_millis)
        }
    }
}

/// Decodes a record of an hour.
///
/// # Errors
/// When the record does not have that format.
pub(super) fn evidence(form: u32, bytes: &[u8]) -> Result<Evidence, postcard::Error> {
    match form {
        1 => postcard::from_bytes::<Record<Hour1>>(bytes).map(Evidence::from),
        _ => postcard::from_bytes::<Record<Hour2>>(bytes).map(Evidence::from),
    }
}

/// Decodes the minutes of an hour, in format 3.
///
/// # Errors
/// When the record does not have that format.
pub(super) fn minutes(bytes: &[u8]) -> Result<minutes::Minutes, postcard::Error> {
    let old: BTreeMap<u32, MinuteRecord> = postcard::from_bytes(bytes)?;
    let record = |MinuteRecord { observed_millis, cpu_millis, memory_peak, periods, throttled }| {
        minutes::MinuteRecord { observed_millis, cpu_millis, memory_peak, periods, throttled }
    };
    Ok(old.into_iter().map(|(minute, of_minute)| (Minute(minute), record(of_minute))).collect())
}
