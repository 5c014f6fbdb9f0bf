//! Passes of the kernel half: one record of each cgroup, in the order of the walk.

use std::time::{Duration, Instant};

use super::{
    Sampler,
    evidence::UsageCollector,
    hierarchy::{ResolvedCgroup, TrackedHierarchy},
    snapshot::{self, RecordFormat},
};
use crate::{
    cgroupfs::{Measurements, mounts::Version},
    clock::unix_now,
    values::{Measurement, SourceKind},
};

/// Passes over a hierarchy that may fail one after the other before files take over.
const MAX_FAILED_PASSES: u32 = 10;

/// Between two walks, while no cgroup is made or removed: looks tell the same for less.
const MAX_WALK_AGE: Duration = Duration::from_secs(10);

const TASKS: Measurements = Measurements::new(&[Measurement::Pids]);
/// A pass for the number of tasks alone, which cgroup v1 keeps in a hierarchy of its own, is made once in so many seconds.
const TASKS_EVERY: u32 = 5;

impl Sampler {
    /// Has the kernel sum up what the kernel half is about to see.
    pub(super) fn flush(&mut self, full: bool) {
        let kernel_side = self.sources.with_source(SourceKind::Kernel);
        let started = Instant::now();
        if kernel_side.contains(Measurement::Cpu) {
            self.files.flush_cpu();
        }
        if full && kernel_side.contains(Measurement::WorkingSet) {
            self.files.flush_memory();
        }
        self.agent.flush_seconds += started.elapsed().as_secs_f64();
    }

    /// Passes of the kernel half over the hierarchies that are due.
    pub(super) fn sample_kernel(&mut self, now: Instant, full: bool) {
        if self.sources.with_source(SourceKind::Kernel).is_empty() {
            return;
        }
        let started = Instant::now();
        self.agent.pass_cgroups = 0;
        for index in 0..self.hierarchies.len() {
            let measured =
                if full { self.sources.from_kernel(index) } else { self.measured_every_round(index) };
            if !measured.is_empty() && (measured != TASKS || self.tasks_are_due(index, now)) {
                self.pass(index, measured, full, now);
            }
        }
        self.agent.pass_seconds += started.elapsed().as_secs_f64();
        self.agent.passes += 1;
    }

    /// Whether it is time for a pass over a hierarchy that keeps nothing but tasks.
    fn tasks_are_due(&mut self, index: usize, now: Instant) -> bool {
        let Some(tracked) = self.hierarchies.get_mut(index) else { return false };
        let interval = self.config.working_set_interval * TASKS_EVERY;
        let is_due = tracked.tasks_sampled.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if is_due || tracked.has_changed() {
            tracked.tasks_sampled = Some(now);
            return true;
        }
        false
    }

    /// What is measured from a hierarchy in each round.
    ///
    /// Only CPU time has to be seen per window: of the rest the kernel keeps the sums. Memory usage is looked at, too, where the kernel
    /// does not say its highest, and no pass has to be made for it.
    pub(super) fn measured_every_round(&self, index: usize) -> Measurements {
        let measured = self.sources.from_kernel(index);
        match measured.only(Measurement::Cpu) {
            cpu if !cpu.is_empty() && self.evidence.as_ref().is_some_and(UsageCollector::samples_memory) => {
                cpu.and(measured.only(Measurement::Memory))
            }
            cpu => cpu,
        }
    }

    /// One pass over one hierarchy.
    fn pass(&mut self, index: usize, measured: Measurements, full: bool, now: Instant) {
        let measured_every_round = self.measured_every_round(index);
        let Self { kernel: Some(kernel), hierarchies, store, evidence, .. } = self else { return };
        let (seen, seen_unix) = (Instant::now(), unix_now());
        let Some(tracked) = hierarchies.get_mut(index) else { return };
        let Some(walk) = &tracked.walk else { return };
        let format = record_format(tracked);
        let walked_lately =
            tracked.last_walk.is_some_and(|at| now.saturating_duration_since(at) < MAX_WALK_AGE);
        // Why a program does not run is told with the programs.
        let resampled = walked_lately.then(|| kernel.resample(index, measured).ok().flatten()).flatten();
        let pass = match resampled {
            Some(pass) => Ok(pass),
            None => kernel.pass(walk, measured).inspect(|_| tracked.last_walk = Some(now)),
        };
        let pass = match pass {
            Ok(pass) => pass,
            Err(error) => {
                tracked.failed_passes += 1;
                if tracked.failed_passes == MAX_FAILED_PASSES {
                    let hierarchy = tracked.hierarchy.mount.display();
                    tracing::error!(%hierarchy, %error, "measuring by cgroup files from now on");
                    self.sources.fall_back_hierarchy(index, &error.to_string());
                }
                return;
            }
        };
        tracked.failed_passes = 0;
        let stats = pass.stats;
        if let (true, Some(evidence)) = (measured_every_round.contains(Measurement::Cpu), evidence.as_mut()) {
            evidence.tick(seen);
        }
        let mut unknown = 0;
        tracked.begin_pass();
        for record in pass.records() {
            let known = tracked.visit(record.id);
            let same = full && known.is_some() && tracked.is_unchanged(&record);
            match known {
                // The root is there, but the kernel keeps its sums elsewhere.
                Some(_) if record.level == 0 => {}
                Some(ResolvedCgroup::Cgroup(key)) => {
                    // What the store has already it need not be told.
                    let measured = if same { measured_every_round.only(Measurement::Cpu) } else { measured };
                    let values = snapshot::values(&record, measured, format);
                    if let (Some(cpu), Some(evidence)) = (values.cpu, evidence.as_mut()) {
                        evidence.cpu(key, cpu, seen_unix);
                    }
                    if let (false, Some(cpu)) = (full, values.cpu) {
                        store.update_cpu(key, cpu);
                        if let (Some(memory), Some(evidence)) = (values.memory, evidence.as_mut()) {
                            evidence.memory(key, memory.usage_bytes);
                        }
                    } else if !same {
                        store.update(key, values);
                    }
                }
                Some(ResolvedCgroup::Inner(_)) => {}
                None => unknown += 1,
            }
        }
        let (complete, unresolved) = (stats.lost + stats.unreadable == 0, unknown);
        self.agent.pass_cgroups = self.agent.pass_cgroups.max(stats.cgroups);
        if stats.lost > 0 && !self.capacity_error_logged {
            self.capacity_error_logged = true;
            tracing::error!(
                hierarchy = %tracked.hierarchy.mount.display(), cgroups = stats.cgroups, room = self.config.max_cgroups,
                "more cgroups than max-cgroups: the last ones are not measured; raise max-cgroups"
            );
        }
        *self.skipped.entry("cgroup_records_without_room").or_default() += stats.lost;
        *self.skipped.entry("cgroup_records_unreadable").or_default() += stats.unreadable;
        self.sources.sampled(measured, now);
        if complete {
            self.end_pass(index, now);
        }
        if let Some(tracked) = self.hierarchies.get_mut(index) {
            tracked.unresolved = unresolved;
        }
        if unresolved > 0 {
            self.list_directories(index, now);
        }
    }

    /// After a complete pass or listing: what was not met has gone.
    pub(super) fn end_pass(&mut self, index: usize, now: Instant) {
        let expects_final_records = self.expects_final_records();
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        for key in tracked.end_pass(expects_final_records) {
            self.store.depart(key, index, index == 0, expects_final_records, now);
        }
    }
}

pub(super) fn record_format(tracked: &TrackedHierarchy) -> RecordFormat {
    RecordFormat { unified: tracked.hierarchy.version == Version::V2, page_size: procfs::page_size() }
}
