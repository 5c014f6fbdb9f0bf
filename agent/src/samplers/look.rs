//! Looks between two passes: the CPU time of the cgroups that used any.

use std::time::Instant;

use super::{Sampler, hierarchy::Known};
use crate::{
    clock::unix_now,
    values::{Cpu, Measurement},
};

impl Sampler {
    /// Looks at the CPU time of the cgroups that the last pass over cgroup v2 met. Returns whether that is all there is to see in a
    /// round; else a pass has to be made.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let wanted = self.by_windows(0);
        let page_size = procfs::page_size();
        let Self { kernel: Some(kernel), followed, store, evidence, .. } = self else { return false };
        let Some(unified) = followed.first().filter(|first| first.id == 0) else { return false };
        if !wanted.contains(Measurement::Cpu) {
            return false;
        }
        let (seen, seen_unix) = (Instant::now(), unix_now());
        let records = match kernel.look() {
            Ok(Some(records)) => records,
            Ok(None) => return false,
            Err(error) => {
                // Why a program does not run is told with the programs, too.
                tracing::debug!(%error, "passes take the place of looks");
                return false;
            }
        };
        if let Some(evidence) = evidence.as_mut() {
            evidence.look(seen);
        }
        for record in records {
            let Some(Known::Cgroup(key)) = unified.known(record.id) else { continue };
            let cpu = Cpu { usage_ns: record.cpu_usage_ns };
            store.update_cpu(key, cpu);
            let Some(evidence) = evidence.as_mut() else { continue };
            evidence.cpu(key, cpu, seen_unix);
            if wanted.contains(Measurement::Memory) {
                evidence.memory(key, record.memory_usage_pages.saturating_mul(page_size));
            }
        }
        if let Some(evidence) = evidence.as_mut() {
            evidence.cpu_of_restless(seen_unix);
        }
        self.origins.sampled(wanted, now);
        true
    }
}
