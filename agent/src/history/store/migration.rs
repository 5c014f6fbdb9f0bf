//! Records of older versions.
//!
//! Postcard does not say what a record is made of, so each form that was ever written is kept here, as it was.

use std::collections::BTreeMap;

use serde::Deserialize;
use snug_sizing::{
    cpu_quota::QuotaWhatIf,
    evidence::{Evidence, Hour, HourRecord, OomKill, Peak, PodTotals},
    histogram::Histogram,
    workload::{Container, Workload},
};

/// `Evidence` up to version 2: no minutes. Its hours were of two forms.
#[derive(Debug, Deserialize)]
struct Evidence2<H> {
    workload: Workload,
    container: Container,
    window_millis: u64,
    hours: BTreeMap<Hour, H>,
    pods: BTreeMap<String, PodTotals>,
}

impl<H: Into<HourRecord>> From<Evidence2<H>> for Evidence {
    fn from(old: Evidence2<H>) -> Self {
        let Evidence2 { workload, container, window_millis, hours, pods } = old;
        let hours = hours.into_iter().map(|(hour, record)| (hour, record.into())).collect();
        Self { hours, pods, ..Self::new(workload, container, window_millis) }
    }
}

/// `HourRecord` of version 1: no exits, waits and stalls.
#[derive(Debug, Deserialize)]
struct HourRecord1 {
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

impl From<HourRecord1> for HourRecord {
    fn from(old: HourRecord1) -> Self {
        let HourRecord1 { observed, cpu, cpu_start, minutes, minutes_start, peak, start_peak, .. } = old;
        let HourRecord1 { working_set, kills, quota_what_if, periods, throttled, starts, .. } = old;
        Self {
            observed,
            cpu,
            cpu_start,
            minutes,
            minutes_start,
            peak,
            start_peak,
            working_set,
            kills,
            quota_what_if,
            periods,
            throttled,
            starts,
            ..Self::default()
        }
    }
}

/// A record of a version, as it is now.
///
/// # Errors
/// When it is none of that version.
pub(super) fn record(version: u32, bytes: &[u8]) -> Result<Evidence, postcard::Error> {
    match version {
        1 => postcard::from_bytes::<Evidence2<HourRecord1>>(bytes).map(Evidence::from),
        2 => postcard::from_bytes::<Evidence2<HourRecord>>(bytes).map(Evidence::from),
        _ => postcard::from_bytes(bytes),
    }
}
