//! Looks between two passes: the CPU time of the cgroups that used any.
//!
//! Nine of ten rounds are no more than a look, and what it found is kept as it is: the store and the evidence are told of all looks of
//! a second together, or when a reader or an event asks, because what is touched once a second is touched for less.

use std::time::{Duration, Instant};

use snug_ebpf::abi::snapshot::SnapshotRecord;

use super::{Sampler, hierarchy::Known};
use crate::{
    clock::unix_now,
    values::{Cpu, Measurement},
};

/// How long looks are kept at most.
const LONGEST_KEPT: Duration = Duration::from_secs(1);

/// When a look was made, and where its records end.
#[derive(Debug)]
struct Kept {
    seen: Instant,
    seen_unix: f64,
    end: usize,
}

/// What is kept of a record: CPU time, and memory usage where it is looked at.
#[derive(Clone, Copy, Debug)]
struct Used {
    id: u64,
    cpu_usage_ns: u64,
    memory_usage_pages: u64,
}

/// Looks that were made and not told yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    looks: Vec<Kept>,
    records: Vec<Used>,
}

impl Untold {
    /// Whether the first was kept so long that they have to be told now.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.looks.first().is_some_and(|first| now.saturating_duration_since(first.seen) >= LONGEST_KEPT)
    }

    /// Keeps one more.
    fn keep(&mut self, seen: Instant, seen_unix: f64, records: impl Iterator<Item = SnapshotRecord>) {
        self.records.extend(records.map(|record| {
            let SnapshotRecord { id, cpu_usage_ns, memory_usage_pages, .. } = record;
            Used { id, cpu_usage_ns, memory_usage_pages }
        }));
        self.looks.push(Kept { seen, seen_unix, end: self.records.len() });
    }

    /// The looks with their records, the oldest first.
    fn iter(&self) -> impl Iterator<Item = (&Kept, &[Used])> {
        let mut begin = 0;
        self.looks.iter().map(move |look| {
            let records = self.records.get(begin..look.end).unwrap_or_default();
            begin = look.end;
            (look, records)
        })
    }

    /// Forgets them; their room serves the next.
    fn clear(&mut self) {
        self.looks.clear();
        self.records.clear();
    }
}

impl Sampler {
    /// Looks at the CPU time of the cgroups that the last pass over cgroup v2 met. Returns whether that is all there is to see in a
    /// round; else a pass has to be made.
    pub(super) fn look(&mut self) -> bool {
        let wanted = self.by_windows(0);
        let Self { kernel: Some(kernel), followed, untold, .. } = self else { return false };
        if followed.first().is_none_or(|first| first.id != 0) || !wanted.contains(Measurement::Cpu) {
            return false;
        }
        let (seen, seen_unix) = (Instant::now(), unix_now());
        match kernel.look(0) {
            Ok(Some(found)) => untold.keep(seen, seen_unix, found.records()),
            Ok(None) => return false,
            Err(error) => {
                // Why a program does not run is told with the programs, too.
                tracing::debug!(%error, "passes take the place of looks");
                return false;
            }
        }
        true
    }

    /// Tells the store and the evidence what looks have found.
    pub(super) fn tell_looks(&mut self) {
        let wanted = self.by_windows(0);
        let page_size = procfs::page_size();
        let Self { followed, store, evidence, untold, origins, .. } = self;
        let (Some(unified), Some(last)) = (followed.first(), untold.looks.last()) else { return };
        for (look, records) in untold.iter() {
            if let Some(evidence) = evidence.as_mut() {
                evidence.look(look.seen);
            }
            for record in records {
                let Some(Known::Cgroup(key)) = unified.known(record.id) else { continue };
                let cpu = Cpu { usage_ns: record.cpu_usage_ns };
                store.update_cpu(key, cpu);
                let Some(evidence) = evidence.as_mut() else { continue };
                evidence.cpu(key, cpu, look.seen_unix);
                if wanted.contains(Measurement::Memory) {
                    evidence.memory(key, record.memory_usage_pages.saturating_mul(page_size));
                }
            }
            if let Some(evidence) = evidence.as_mut() {
                evidence.cpu_of_restless(look.seen_unix);
            }
        }
        origins.sampled(wanted, last.seen);
        untold.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_look_has_its_own_records_in_their_order() {
        let mut untold = Untold::default();
        let record = |id| SnapshotRecord { id, ..SnapshotRecord::default() };
        let kept = |untold: &Untold| -> Vec<(f64, Vec<u64>)> {
            let ids = |records: &[Used]| records.iter().map(|record| record.id).collect();
            untold.iter().map(|(look, records)| (look.seen_unix, ids(records))).collect()
        };
        assert!(kept(&untold).is_empty());
        untold.keep(Instant::now(), 1.0, [1, 2].map(record).into_iter());
        untold.keep(Instant::now(), 2.0, std::iter::empty());
        untold.keep(Instant::now(), 3.0, [2].map(record).into_iter());
        assert_eq!(kept(&untold), [(1.0, vec![1, 2]), (2.0, vec![]), (3.0, vec![2])]);
        untold.clear();
        assert!(kept(&untold).is_empty());
    }

    #[test]
    fn looks_are_due_a_second_after_the_first() {
        let (mut untold, first) = (Untold::default(), Instant::now());
        assert!(!untold.are_due(first + LONGEST_KEPT));
        untold.keep(first, 1.0, std::iter::empty());
        untold.keep(first + LONGEST_KEPT, 2.0, std::iter::empty());
        assert!(!untold.are_due(first + LONGEST_KEPT / 2));
        assert!(untold.are_due(first + LONGEST_KEPT));
    }
}
