//! Samples between two passes: CPU time, and memory usage if needed, of the cgroups that used CPU time.
//!
//! Program: `sample_active` (`BPF_PROG_TEST_RUN`), every `sample-interval`. Metrics: `snug_container_cpu_usage_seconds_total`,
//! `snug_container_cpu_window_cores` and, if enabled, `snug_container_cpu_quota_*`.
//!
//! Nine of ten rounds only take such a sample. Samples are kept pending and written to the store and the usage history together,
//! once a second or when a reader or an event needs them: that uses the CPU caches better than ten small updates.

use std::time::{Duration, Instant};

use snug_ebpf::abi::snapshot::SnapshotRecord;

use super::{Round, hierarchy::ResolvedCgroup};
use crate::{
    clock::unix_now,
    values::{Cpu, Measurement},
};

/// Maximum time that a sample is pending.
const MAX_PENDING: Duration = Duration::from_secs(1);

/// The time of a sample, and the end of its records in [`PendingSamples::records`].
#[derive(Debug)]
struct Sample {
    seen: Instant,
    seen_unix: f64,
    end: usize,
}

/// The used fields of a record. Memory usage is 0 if the hierarchy has no memory controller.
#[derive(Clone, Copy, Debug)]
struct SampledUsage {
    id: u64,
    cpu_usage_ns: u64,
    memory_usage_pages: u64,
}

/// Samples that are not written to the store yet.
#[derive(Debug, Default)]
pub(super) struct PendingSamples {
    samples: Vec<Sample>,
    records: Vec<SampledUsage>,
}

impl PendingSamples {
    /// Whether the oldest sample is older than [`MAX_PENDING`].
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.samples.first().is_some_and(|first| now.saturating_duration_since(first.seen) >= MAX_PENDING)
    }

    /// Adds a sample.
    fn push(&mut self, seen: Instant, seen_unix: f64, records: impl Iterator<Item = SnapshotRecord>) {
        self.records.extend(records.map(|record| {
            let SnapshotRecord { id, cpu_usage_ns, memory, .. } = record;
            SampledUsage { id, cpu_usage_ns, memory_usage_pages: memory.usage_pages }
        }));
        self.samples.push(Sample { seen, seen_unix, end: self.records.len() });
    }

    /// The samples with their records, the oldest first.
    fn iter(&self) -> impl Iterator<Item = (&Sample, &[SampledUsage])> {
        let mut begin = 0;
        self.samples.iter().map(move |sample| {
            let records = self.records.get(begin..sample.end).unwrap_or_default();
            begin = sample.end;
            (sample, records)
        })
    }

    /// Removes all samples; keeps the allocations.
    fn clear(&mut self) {
        self.samples.clear();
        self.records.clear();
    }
}

impl Round {
    /// Samples the CPU time of the active cgroups of cgroup v2. Returns `false` if that is not possible, so that this round
    /// needs a pass.
    pub(super) fn sample_active(&mut self) -> bool {
        let measured = self.measured_every_round(0);
        let Self { kernel: Some(kernel), hierarchies, pending, .. } = self else { return false };
        if hierarchies.first().is_none_or(|first| first.id != 0) || !measured.contains(Measurement::Cpu) {
            return false;
        }
        let (seen, seen_unix) = (Instant::now(), unix_now());
        match kernel.sample_active(0) {
            Ok(Some(found)) => pending.push(seen, seen_unix, found.records()),
            Ok(None) => return false,
            Err(error) => {
                // The reason why a program does not run is in its verdict, too.
                tracing::debug!(%error, "cannot sample active cgroups; making a pass instead");
                return false;
            }
        }
        true
    }

    /// Writes the pending samples to the store and the usage history.
    pub(super) fn flush_pending(&mut self) {
        let measured = self.measured_every_round(0);
        let page_size = procfs::page_size();
        let Self { hierarchies, store, evidence, pending, sources, .. } = self;
        let (Some(unified), Some(last)) = (hierarchies.first(), pending.samples.last()) else { return };
        for (sample, records) in pending.iter() {
            if let Some(evidence) = evidence.as_mut() {
                evidence.tick(sample.seen);
            }
            for record in records {
                let Some(ResolvedCgroup::Cgroup(key)) = unified.resolve(record.id) else { continue };
                let cpu = Cpu { usage_ns: record.cpu_usage_ns };
                store.update_cpu(key, cpu);
                let Some(evidence) = evidence.as_mut() else { continue };
                evidence.cpu(key, cpu, sample.seen_unix);
                if measured.contains(Measurement::Memory) {
                    evidence.memory(key, record.memory_usage_pages.saturating_mul(page_size));
                }
            }
            if let Some(evidence) = evidence.as_mut() {
                evidence.record_idle_cpu(sample.seen_unix);
            }
        }
        sources.sampled(measured, last.seen);
        pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_its_own_records_in_order() {
        let mut pending = PendingSamples::default();
        let record = |id| SnapshotRecord { id, ..SnapshotRecord::default() };
        let ids_by_time = |pending: &PendingSamples| -> Vec<(f64, Vec<u64>)> {
            let ids = |records: &[SampledUsage]| records.iter().map(|record| record.id).collect();
            pending.iter().map(|(sample, records)| (sample.seen_unix, ids(records))).collect()
        };
        assert!(ids_by_time(&pending).is_empty());
        pending.push(Instant::now(), 1.0, [1, 2].map(record).into_iter());
        pending.push(Instant::now(), 2.0, std::iter::empty());
        pending.push(Instant::now(), 3.0, [2].map(record).into_iter());
        assert_eq!(ids_by_time(&pending), [(1.0, vec![1, 2]), (2.0, vec![]), (3.0, vec![2])]);
        pending.clear();
        assert!(ids_by_time(&pending).is_empty());
    }

    #[test]
    fn pending_samples_are_due_a_second_after_the_first() {
        let (mut pending, first) = (PendingSamples::default(), Instant::now());
        assert!(!pending.are_due(first + MAX_PENDING));
        pending.push(first, 1.0, std::iter::empty());
        pending.push(first + MAX_PENDING, 2.0, std::iter::empty());
        assert!(!pending.are_due(first + MAX_PENDING / 2));
        assert!(pending.are_due(first + MAX_PENDING));
    }
}
