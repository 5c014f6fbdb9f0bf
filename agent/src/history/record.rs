//! Encodes records as protocol buffers: fields have numbers, so that different versions can read each other's records.
//!
//! [`message`] explains how to add a field.
//!
//! The names of workload and container are in the key of the record only. The hour of a busy container takes 380 bytes with
//! key and checksum, and its minutes 847: see the tests.

mod facts;
mod message;

use std::collections::BTreeMap;

use prost::Message;
use snug_sizing::{
    cpu_quota::{self, QuotaOutcome},
    evidence::{self, Evidence, Hour},
    histogram::{self, BucketsError},
    minutes::{self, Minute, MinuteRecord, Minutes},
    start_up::UsageByAge,
    workload::{self, Resources, Role, WorkloadKind},
};

use self::message::{
    ContainerHour, ContainerMinutes, Histogram, HourRecord, OomKill, Peak, Pod, QuotaWhatIf, Stalled,
};
use super::frame::{self, Frame};

/// A record cannot be decoded although its checksum is right.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The record is not a valid protocol buffer.
    #[error("a record of the history cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A histogram has invalid buckets.
    #[error("a record of the history cannot be used: {0}")]
    Buckets(#[from] BucketsError),
    /// The key has the wrong number of parts.
    #[error("a record of the history has the key {0:?}, which names no container")]
    Key(String),
}

/// The key of a record: workload, container and window length. Windows of different lengths are not summed.
pub(super) fn key(evidence: &Evidence) -> String {
    let Evidence { workload, container, window_millis, .. } = evidence;
    let window = window_millis.to_string();
    let parts = [&*workload.namespace, &*workload.owner, &*workload.name, &*container.name, &*window];
    if parts.iter().any(|part| part.contains('\0')) {
        return parts.map(|part| part.replace('\0', "\u{fffd}")).join("\0");
    }
    parts.join("\0")
}

/// An encoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: frame::Kind,
    pub(super) hour: Hour,
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

/// Encodes usage history as one record per hour. Fields that belong to no hour are in the first record.
pub(super) fn encode(evidence: &Evidence) -> Vec<Record> {
    let key = key(evidence);
    let mut records = Vec::new();
    for (hour, record) in &evidence.hours {
        let value = if records.is_empty() {
            encode_hour(evidence, record)
        } else {
            let rest = Evidence { pods: BTreeMap::new(), earlier_peak: None, ..evidence.clone() };
            encode_hour(&rest, record)
        };
        records.push(Record { kind: frame::Kind::HOUR, hour: *hour, key: key.clone(), value });
    }
    if let (Some((hour, _)), false) = (evidence.hours.first_key_value(), evidence.minutes.is_empty()) {
        let value = encode_minutes(&evidence.minutes);
        records.push(Record { kind: frame::Kind::MINUTES, hour: *hour, key, value });
    }
    records
}

/// The sum of the records of one container.
#[derive(Debug, Default)]
pub(super) struct Sum {
    /// Has the replicas of the last record.
    pub(super) evidence: Option<Evidence>,
    pub(super) minutes: Option<Minutes>,
}

impl Sum {
    /// Adds a record; `false` if it cannot be decoded.
    pub(super) fn add(&mut self, frame: &Frame<'_>) -> bool {
        match frame.kind {
            frame::Kind::HOUR => {
                let Ok(evidence) = decode_hour(frame.key, frame.hour, frame.value) else { return false };
                let Some(sum) = &mut self.evidence else {
                    self.evidence = Some(evidence);
                    return true;
                };
                if sum.merge(&evidence).is_err() {
                    return false;
                }
                sum.workload.replicas = evidence.workload.replicas;
                true
            }
            frame::Kind::MINUTES => {
                let Ok(of_hour) = decode_minutes(frame.value) else { return false };
                minutes::merge(self.minutes.get_or_insert_default(), &of_hour);
                true
            }
            _ => false,
        }
    }

    /// The sum as a record of one hour.
    pub(super) fn record(&self) -> Option<(frame::Kind, Vec<u8>)> {
        if let Some(evidence) = &self.evidence {
            let (_, record) = evidence.hours.first_key_value()?;
            return Some((frame::Kind::HOUR, encode_hour(evidence, record)));
        }
        self.minutes.as_ref().map(|minutes| (frame::Kind::MINUTES, encode_minutes(minutes)))
    }
}

/// Empty usage history for the container that a key names.
fn of_key(key: &str) -> Result<Evidence, RecordError> {
    let parts: Vec<&str> = key.split('\0').collect();
    let [namespace, owner, name, container, window] = parts[..] else {
        return Err(RecordError::Key(key.to_owned()));
    };
    let window_millis = window.parse().map_err(|_| RecordError::Key(key.to_owned()))?;
    let workload = workload::Workload {
        namespace: namespace.to_owned(),
        owner: owner.to_owned(),
        name: name.to_owned(),
        ..workload::Workload::default()
    };
    let container = workload::Container { name: container.to_owned(), ..workload::Container::default() };
    Ok(Evidence::new(workload, container, window_millis))
}

/// One hour of a container, with the fields that belong to no hour (requests, limits, pods).
fn encode_hour(evidence: &Evidence, record: &evidence::HourRecord) -> Vec<u8> {
    let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = evidence.container.current;
    let pod = |(name, totals): (&String, &evidence::PodTotals)| Pod {
        name: name.clone(),
        observed: totals.observed,
        cpu_millis: totals.cpu_millis,
        peak: totals.peak,
        node_class: totals.node_class.clone(),
    };
    let hour = ContainerHour {
        workload_kind: match evidence.workload.kind {
            WorkloadKind::Service => 0,
            WorkloadKind::DaemonSet => 1,
            WorkloadKind::Job => 2,
        },
        replicas: evidence.workload.replicas,
        role: match evidence.container.role {
            Role::App => 0,
            Role::Init => 1,
            Role::Sidecar => 2,
        },
        seen: evidence.container.seen,
        cpu_request,
        cpu_limit,
        memory_request,
        memory_limit,
        record: Some(record.into()),
        pods: evidence.pods.iter().map(pod).collect(),
        earlier_peak: evidence.earlier_peak.as_ref().map(Peak::from),
        ..facts::encode(evidence)
    };
    hour.encode_to_vec()
}

/// The opposite of [`encode_hour`].
///
/// # Errors
/// When the record cannot be decoded.
fn decode_hour(key: &str, hour: Hour, bytes: &[u8]) -> Result<Evidence, RecordError> {
    let whole = ContainerHour::decode(bytes)?;
    let mut evidence = of_key(key)?;
    // Unknown names of a newer agent fall back to the most common value.
    evidence.workload.kind = match whole.workload_kind {
        1 => WorkloadKind::DaemonSet,
        2 => WorkloadKind::Job,
        _ => WorkloadKind::Service,
    };
    evidence.workload.replicas = whole.replicas;
    evidence.container.role = match whole.role {
        1 => Role::Init,
        2 => Role::Sidecar,
        _ => Role::App,
    };
    evidence.container.seen = whole.seen;
    facts::decode(&whole, &mut evidence);
    evidence.container.current = Resources {
        cpu_request: whole.cpu_request,
        cpu_limit: whole.cpu_limit,
        memory_request: whole.memory_request,
        memory_limit: whole.memory_limit,
    };
    evidence.hours.insert(hour, whole.record.unwrap_or_default().try_into()?);
    let pod = |Pod { name, observed, cpu_millis, peak, node_class }| {
        (name, evidence::PodTotals { observed, cpu_millis, peak, node_class })
    };
    evidence.pods = whole.pods.into_iter().map(pod).collect();
    evidence.earlier_peak = whole.earlier_peak.map(evidence::EarlierPeak::from);
    Ok(evidence)
}

impl From<&evidence::Peak> for Peak {
    fn from(peak: &evidence::Peak) -> Self {
        Self { bytes: peak.bytes, at: peak.at, pod: peak.pod.clone() }
    }
}

impl From<Peak> for evidence::Peak {
    fn from(Peak { bytes, at, pod }: Peak) -> Self {
        Self { bytes, at, pod }
    }
}

impl From<&evidence::EarlierPeak> for Peak {
    fn from(peak: &evidence::EarlierPeak) -> Self {
        Self { bytes: peak.bytes, at: peak.at, pod: peak.pod.clone() }
    }
}

impl From<Peak> for evidence::EarlierPeak {
    fn from(Peak { bytes, at, pod }: Peak) -> Self {
        Self { bytes, at, pod }
    }
}

/// Encodes minutes, usually those of one hour.
fn encode_minutes(minutes: &Minutes) -> Vec<u8> {
    let mut message = ContainerMinutes::default();
    let mut before = 0;
    for (minute, record) in minutes {
        message.steps.push(minute.0 - before);
        before = minute.0;
        message.observed_millis.push(record.observed_millis);
        message.cpu_millis.push(record.cpu_millis);
        message.memory_peak.push(record.memory_peak);
        message.periods.push(record.periods);
        message.throttled.push(record.throttled);
    }
    for values in [&mut message.periods, &mut message.throttled] {
        if values.iter().all(|value| *value == 0) {
            values.clear();
        }
    }
    message.encode_to_vec()
}

/// The opposite of [`encode_minutes`].
///
/// # Errors
/// When the record cannot be decoded.
fn decode_minutes(bytes: &[u8]) -> Result<Minutes, RecordError> {
    let message = ContainerMinutes::decode(bytes)?;
    let ContainerMinutes { steps, observed_millis, cpu_millis, memory_peak, periods, throttled } = message;
    let mut minute = 0_u32;
    let mut minutes = Minutes::new();
    for (at, step) in steps.iter().enumerate() {
        minute = minute.saturating_add(*step);
        let record = MinuteRecord {
            observed_millis: at_or_zero(&observed_millis, at),
            cpu_millis: at_or_zero(&cpu_millis, at),
            memory_peak: at_or_zero(&memory_peak, at),
            periods: at_or_zero(&periods, at),
            throttled: at_or_zero(&throttled, at),
        };
        minutes.insert(Minute(minute), record);
    }
    Ok(minutes)
}

fn at_or_zero(values: &[u64], at: usize) -> u64 {
    values.get(at).copied().unwrap_or_default()
}

fn written(histogram: &histogram::Histogram) -> Option<Histogram> {
    let (zero, first, counts) = histogram.exponential();
    (!histogram.is_empty()).then(|| Histogram { zero, first, counts: counts.collect() })
}

fn read(histogram: Option<Histogram>) -> Result<histogram::Histogram, BucketsError> {
    let Histogram { zero, first, counts } = histogram.unwrap_or_default();
    histogram::Histogram::from_exponential(zero, first, &counts)
}

impl From<&evidence::HourRecord> for HourRecord {
    fn from(record: &evidence::HourRecord) -> Self {
        let kill =
            |kill: &evidence::OomKill| OomKill { at: kill.at, limit: kill.limit, pod: kill.pod.clone() };
        let evidence::Stalled { cpu_millis, memory_millis, io_millis, refaults } = record.stalled;
        Self {
            observed: record.observed,
            cpu: written(&record.cpu),
            cpu_start: written(&record.cpu_start),
            minutes: written(&record.minutes),
            minutes_start: written(&record.minutes_start),
            peak: record.peak.as_ref().map(Peak::from),
            start_peak: record.start_peak.as_ref().map(Peak::from),
            working_set: written(&record.working_set),
            kills: record.kills.iter().map(kill).collect(),
            quota_what_if: record.quota_what_if.as_ref().map(QuotaWhatIf::from),
            periods: record.periods,
            throttled: record.throttled,
            starts: record.starts,
            exit_codes: record.exits.keys().map(|code| u32::from(*code)).collect(),
            exit_counts: record.exits.values().copied().collect(),
            waits: written(&record.waits),
            unreclaimable: written(&record.unreclaimable),
            stalled: (record.stalled != evidence::Stalled::default()).then_some(Stalled {
                cpu_millis,
                memory_millis,
                io_millis,
                refaults,
            }),
            age_observed_micros: record.by_age.observed_micros.clone(),
            age_cpu_micros: record.by_age.cpu_micros.clone(),
        }
    }
}

impl TryFrom<HourRecord> for evidence::HourRecord {
    type Error = RecordError;

    fn try_from(record: HourRecord) -> Result<Self, RecordError> {
        let kill = |OomKill { at, limit, pod }| evidence::OomKill { at, limit, pod };
        let codes = record.exit_codes.iter().enumerate();
        let exits = codes
            .filter_map(|(at, code)| Some((u8::try_from(*code).ok()?, at_or_zero(&record.exit_counts, at))));
        let Stalled { cpu_millis, memory_millis, io_millis, refaults } = record.stalled.unwrap_or_default();
        Ok(Self {
            observed: record.observed,
            cpu: read(record.cpu)?,
            cpu_start: read(record.cpu_start)?,
            minutes: read(record.minutes)?,
            minutes_start: read(record.minutes_start)?,
            peak: record.peak.map(evidence::Peak::from),
            start_peak: record.start_peak.map(evidence::Peak::from),
            working_set: read(record.working_set)?,
            kills: record.kills.into_iter().map(kill).collect(),
            quota_what_if: record.quota_what_if.map(cpu_quota::QuotaWhatIf::from),
            periods: record.periods,
            throttled: record.throttled,
            starts: record.starts,
            exits: exits.collect(),
            waits: read(record.waits)?,
            unreclaimable: read(record.unreclaimable)?,
            stalled: evidence::Stalled { cpu_millis, memory_millis, io_millis, refaults },
            by_age: UsageByAge {
                observed_micros: record.age_observed_micros,
                cpu_micros: record.age_cpu_micros,
            },
        })
    }
}

impl From<&cpu_quota::QuotaWhatIf> for QuotaWhatIf {
    fn from(what_if: &cpu_quota::QuotaWhatIf) -> Self {
        let outcomes = || what_if.iter().map(|(_, outcome)| outcome);
        Self {
            quotas: what_if.iter().map(|(quota, _)| quota).collect(),
            periods: outcomes().map(|outcome| outcome.periods).collect(),
            throttled: outcomes().map(|outcome| outcome.throttled).collect(),
            delayed_millis: outcomes().map(|outcome| outcome.delayed_millis).collect(),
        }
    }
}

impl From<QuotaWhatIf> for cpu_quota::QuotaWhatIf {
    fn from(what_if: QuotaWhatIf) -> Self {
        let QuotaWhatIf { quotas, periods, throttled, delayed_millis } = what_if;
        let outcome = |at| QuotaOutcome {
            periods: at_or_zero(&periods, at),
            throttled: at_or_zero(&throttled, at),
            delayed_millis: at_or_zero(&delayed_millis, at),
        };
        quotas.iter().enumerate().map(|(at, quota)| (*quota, outcome(at))).collect()
    }
}

#[cfg(test)]
mod tests;
