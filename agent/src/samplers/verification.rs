//! Verifies the values of the eBPF programs against the cgroup files of live cgroups, until each measurement was found equal.
//!
//! A measurement that differs comes from files from then on. If `source` is `auto`. Metric: `snug_agent_measurement_source`.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Component, Round,
    compare::{Comparison, Difference, compare},
    pass::record_format,
    snapshot,
};
use crate::{
    cgroupfs::Measurements,
    identity::Level,
    values::{Measurement, Values},
};

/// Number of cgroups compared per round: those with the most CPU time.
const MAX_COMPARED: usize = 8;
/// Number of attempts for a value that changes while it is compared.
const MAX_TRIES: usize = 5;
/// The longest pause between two comparisons.
const MAX_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Verification {
    due: Instant,
    /// Pause until the next comparison; doubles each time.
    pause: Duration,
}

impl Verification {
    pub(super) const fn new(now: Instant) -> Self {
        Self { due: now, pause: Duration::from_secs(1) }
    }
}

impl Component for Verification {
    fn round(&mut self, round: &mut Round) {
        if !round.is_full || round.now < self.due {
            return;
        }
        let unverified = round.sources.unverified();
        if unverified.is_empty() {
            return;
        }
        let candidates = round.busiest();
        for index in 0..round.hierarchies.len() {
            let here = round.sources.kernel_measurements(index);
            let here: Vec<_> = unverified.iter().copied().filter(|one| here.contains(*one)).collect();
            candidates.iter().for_each(|path| round.compare_cgroup(index, path, &here));
        }
        self.due = round.now + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }
}

impl Round {
    /// Present cgroups with the most CPU time: values of 0 verify nothing.
    fn busiest(&self) -> Vec<Arc<str>> {
        let mut all: Vec<(u64, Arc<str>)> = self
            .store
            .living()
            .filter(|(_, identity)| identity.of_path.level != Level::Root)
            .map(|(key, identity)| {
                let cpu = self.store.values(key).and_then(|values| values.cpu);
                (cpu.map_or(0, |cpu| cpu.usage_ns), identity.path.clone())
            })
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(MAX_COMPARED).map(|(_, path)| path).collect()
    }

    fn compare_cgroup(&mut self, index: usize, path: &str, measurements: &[Measurement]) {
        let mut open: Vec<(Measurement, Option<Difference>)> =
            measurements.iter().map(|measurement| (*measurement, None)).collect();
        for _ in 0..MAX_TRIES {
            if open.is_empty() {
                return;
            }
            let which: Measurements = open.iter().map(|(measurement, _)| *measurement).collect();
            let Some(before) = self.files.read(path, which) else { return };
            let Some(kernel) = self.kernel_values(index, path, which) else { return };
            let Some(after) = self.files.read(path, which) else { return };
            let sources = &mut self.sources;
            open.retain_mut(|(measurement, difference)| {
                match compare(*measurement, &before, &kernel, &after) {
                    Comparison::Equal => {
                        sources.mark_verified(*measurement);
                        false
                    }
                    Comparison::Zero | Comparison::Missing => false,
                    Comparison::Differs(found) => {
                        *difference = Some(found);
                        true
                    }
                }
            });
        }
        for (measurement, difference) in open {
            let Some(difference) = difference else { continue };
            tracing::warn!(
                measurement = measurement.as_str(), cgroup = path, %difference,
                "eBPF and the cgroup files differ; this measurement now comes from the files"
            );
            self.sources.fall_back(measurement, format!("on {path} {difference}"));
        }
    }

    /// The values of one cgroup from the eBPF programs.
    fn kernel_values(&mut self, index: usize, path: &str, which: Measurements) -> Option<Values> {
        let tracked = self.hierarchies.get(index)?;
        let directory = tracked.hierarchy.mount.join(path.trim_start_matches('/'));
        let id = fs::metadata(directory).ok()?.ino();
        let pass = self.kernel.as_mut()?.pass(tracked.walk.as_ref()?, which).ok()?;
        let record = pass.records().find(|record| record.id == id)?;
        Some(snapshot::values(&record, which, record_format(tracked)))
    }
}
