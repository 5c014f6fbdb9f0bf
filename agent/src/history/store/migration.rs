//! Records of older versions.
//!
//! Postcard does not say what a record is made of, so each form that was ever written is kept here, as it was.

use std::collections::BTreeMap;

use serde::Deserialize;
use snug_sizing::{
    evidence::{Evidence, Hour, HourRecord, OomKill, Peak, PodTotals},
    histogram::Histogram,
    ladder::Ladder,
    workload::{Container, Workload},
};

/// `Evidence` of version 1.
#[derive(Debug, Deserialize)]
struct Evidence1 {
    workload: Workload,
    container: Container,
    window_millis: u64,
    hours: BTreeMap<Hour, HourRecord1>,
    pods: BTreeMap<String, PodTotals>,
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
    ladder: Option<Ladder>,
    periods: u64,
    throttled: u64,
    /// Always 0.
    _waited: u64,
    starts: u64,
}

impl From<HourRecord1> for HourRecord {
    fn from(old: HourRecord1) -> Self {
        let HourRecord1 { observed, cpu, cpu_start, minutes, minutes_start, peak, start_peak, .. } = old;
        let HourRecord1 { working_set, kills, ladder, periods, throttled, starts, .. } = old;
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
            ladder,
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
        1 => {
            let Evidence1 { workload, container, window_millis, hours, pods } = postcard::from_bytes(bytes)?;
            let hours = hours.into_iter().map(|(hour, record)| (hour, record.into())).collect();
            Ok(Evidence { workload, container, window_millis, hours, pods })
        }
        _ => postcard::from_bytes(bytes),
    }
}
