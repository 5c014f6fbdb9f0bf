//! Turns a trace into evidence, as an agent would have recorded it.

use super::trace::{ContainerTrace, Group, Series};
use crate::{
    evidence::{Evidence, Hour, Peak, START_UP},
    workload::{Container, Workload, WorkloadKind},
};

/// A container whose first sample is later in the trace than this, in minutes, started with that sample.
const KNOWN_START: usize = 5;
/// Seconds and milliseconds in a minute.
const MINUTE: u64 = 60;
const MINUTE_MILLIS: u64 = 60_000;
const KIB: f64 = 1024.0;
/// A pod with a sample in so many minutes before a decision is a replica.
const REPLICA_MINUTES: usize = 60;

/// Builds the evidence of one workload, minute by minute.
#[derive(Debug)]
pub struct Observer {
    evidence: Evidence,
    /// Minutes between samples.
    interval: usize,
    /// Hours that are kept; `None`: all.
    keep: Option<u32>,
    until: usize,
    /// The minute at which the start-up of each container ends.
    started: Vec<usize>,
}

impl Observer {
    /// An observer of a workload, with nothing observed yet. `interval` is in minutes; `keep` is how many hours of history are
    /// kept, `None` for all.
    pub fn new(group: &Group, interval: usize, keep: Option<u32>) -> Self {
        let workload = Workload {
            namespace: group.key.namespace.clone(),
            name: group.key.owner.clone(),
            owner: String::new(),
            kind: WorkloadKind::Service,
            replicas: 0,
        };
        let container = Container { name: group.key.container.clone(), ..Container::default() };
        let start_up = (START_UP / MINUTE) as usize;
        let started = group.rows.iter().map(|row| {
            let first = row.cpu.start().into_iter().chain(row.memory.start()).min();
            first.filter(|first| *first > KNOWN_START).map_or(0, |first| first + start_up)
        });
        Self {
            evidence: Evidence::new(workload, container, MINUTE_MILLIS * interval as u64),
            interval,
            keep,
            until: 0,
            started: started.collect(),
        }
    }

    /// The evidence before the minute `now`, which must not decrease between calls. `memory` is the observable memory, KiB:
    /// capped at limits in the closed loop.
    pub fn advance(&mut self, group: &Group, memory: &[Series], now: usize) -> &mut Evidence {
        for ((row, memory), started) in group.rows.iter().zip(memory).zip(&self.started) {
            // Row by row and then hour by hour, so that each hour is looked up once.
            let mut from = self.until;
            while from < now {
                let to = now.min((from / 60 + 1) * 60);
                observe(&mut self.evidence, row, memory, *started, (from, to), self.interval);
                from = to;
            }
        }
        self.until = self.until.max(now);
        // Those that ran in the last hour: how many there will be is not known.
        let runs = |row: &ContainerTrace| {
            let from = now.saturating_sub(REPLICA_MINUTES);
            row.cpu.range(from, now).next().is_some() || row.memory.range(from, now).next().is_some()
        };
        self.evidence.workload.replicas = group.rows.iter().filter(|row| runs(row)).count() as u64;
        if let Some(keep) = self.keep {
            let first = Hour::from_seconds(now as u64 * MINUTE).0.saturating_sub(keep);
            self.evidence.hours = self.evidence.hours.split_off(&Hour(first));
        }
        &mut self.evidence
    }

    /// The evidence before the minute of the last [`Observer::advance`].
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

/// Adds the minutes `from..to` of one container, all in one hour.
fn observe(
    evidence: &mut Evidence,
    row: &ContainerTrace,
    memory: &Series,
    started: usize,
    (from, to): (usize, usize),
    interval: usize,
) {
    let cpu = row.cpu.range(from, to).count();
    let memory_alone = memory.range(from, to).filter(|(minute, _)| row.cpu.at(*minute).is_none()).count();
    let seen = cpu + memory_alone;
    if seen == 0 {
        return;
    }
    let record = evidence.hour(Hour::from_seconds(from as u64 * MINUTE));
    record.observed += (seen * interval) as u64 * MINUTE;
    for (minute, millicores) in row.cpu.range(from, to) {
        let windows = if minute < started { &mut record.cpu_start } else { &mut record.cpu };
        windows.record(millicores / 1000.0, 1);
    }
    for (minute, kib) in memory.range(from, to) {
        let highest = if minute < started { &mut record.start_peak } else { &mut record.peak };
        // `as` saturates, and takes NaN for 0.
        let bytes = (kib * KIB) as u64;
        record.working_set.record(bytes as f64, interval as u64 * MINUTE);
        if highest.as_ref().is_none_or(|peak| peak.bytes < bytes) {
            *highest = Some(Peak { bytes, at: minute as u64 * MINUTE, pod: row.pod.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::trace::Trace;

    #[test]
    fn start_up_is_separate_after_a_known_start() {
        let minutes = |from: usize, value: f64| {
            Series::new(&(0..180).map(|at| if at < from { f64::NAN } else { value }).collect::<Vec<_>>())
        };
        let row = |pod: &str, from| ContainerTrace {
            pod: pod.to_owned(),
            cpu: minutes(from, 100.0),
            memory: minutes(from, 1024.0),
            ..ContainerTrace::default()
        };
        let trace = Trace::new(180, [row("web-0", 0), row("web-1", 90)]);
        let group = &trace.groups[0];
        let memory: Vec<Series> = group.rows.iter().map(|row| row.memory.clone()).collect();
        let mut observer = Observer::new(group, 1, None);
        observer.advance(group, &memory, 100);
        let evidence = observer.advance(group, &memory, 180);
        assert_eq!(evidence.hours.values().map(|hour| hour.observed).collect::<Vec<_>>(), [3600, 5400, 7200]);
        let start: Vec<u64> = evidence.hours.values().map(|hour| hour.cpu_start.count()).collect();
        assert_eq!(start, [0, 30, 30]);
        assert_eq!(
            evidence.hours[&Hour(2)].start_peak.as_ref().map(|peak| (peak.bytes, peak.at)),
            Some((1 << 20, 7200))
        );
    }
}
