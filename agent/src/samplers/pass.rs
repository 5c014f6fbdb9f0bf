//! Passes of the eBPF programs: one record per cgroup, in the order of the walk.
//!
//! Programs: `snapshot` (cgroup iterator, at least every [`MAX_WALK_AGE`]) and `resample` (`BPF_PROG_TEST_RUN`, in between).
//! Metrics: `snug_container_*` of CPU time, throttling, pressure, memory, swap and tasks; `snug_agent_passes_total`,
//! `snug_agent_pass_seconds_total`, `snug_agent_flush_seconds_total`, `snug_agent_pass_cgroups`.

use std::time::{Duration, Instant};

use super::{
    Component, Round,
    evidence::UsageCollector,
    hierarchy::{ResolvedCgroup, TrackedHierarchy},
    skipped::Cause,
    snapshot::{self, RecordFormat},
};
use crate::{
    cgroupfs::{Measurements, mounts::Version},
    clock::unix_now,
    retry::Outage,
    store::Key,
    values::{Measurement, SourceKind},
};

/// After this many consecutive failed passes over a hierarchy its measurements come from files.
const MAX_FAILED_PASSES: u32 = 10;

/// Maximum time between two walks. While no cgroup is created or removed, `resample` gives the same records for less.
const MAX_WALK_AGE: Duration = Duration::from_secs(10);

const TASKS: Measurements = Measurements::new(&[Measurement::Pids]);
/// A hierarchy that has only the number of tasks (cgroup v1's pids) is sampled in every fifth full round.
const TASKS_ROUNDS: u32 = 5;

#[derive(Default)]
pub(super) struct Passes {
    /// The hierarchies of which it was logged that they have more cgroups than `max-cgroups`.
    too_large: Outage,
}

impl Component for Passes {
    /// Samples the hierarchies that are due.
    fn round(&mut self, round: &mut Round) {
        if round.is_sampled || round.sources.with_source(SourceKind::Kernel).is_empty() {
            return;
        }
        let started = Instant::now();
        round.agent.pass_cgroups = 0;
        for index in 0..round.hierarchies.len() {
            let measured = if round.is_full {
                round.sources.kernel_measurements(index)
            } else {
                round.measured_every_round(index)
            };
            if !measured.is_empty() && (measured != TASKS || round.tasks_are_due(index)) {
                self.pass(round, index, measured);
            }
        }
        round.agent.pass_seconds += started.elapsed().as_secs_f64();
        round.agent.passes += 1;
    }

    fn forget(&mut self, round: &mut Round, settled: &[Key]) {
        round.hierarchies.iter_mut().for_each(|tracked| tracked.forget(settled));
    }
}

impl Round {
    /// Makes the kernel flush the counters that this round samples.
    pub(super) fn flush(&mut self) {
        let kernel_side = self.sources.with_source(SourceKind::Kernel);
        let started = Instant::now();
        if kernel_side.contains(Measurement::Cpu) {
            self.files.flush_cpu();
        }
        if self.is_full && kernel_side.contains(Measurement::WorkingSet) {
            self.files.flush_memory();
        }
        self.agent.flush_seconds += started.elapsed().as_secs_f64();
    }

    /// Whether a hierarchy that has only the number of tasks is due. If so, notes the time.
    fn tasks_are_due(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(tracked) = self.hierarchies.get_mut(index) else { return false };
        let interval = self.config.working_set_interval * TASKS_ROUNDS;
        let is_due = tracked.tasks_sampled.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if is_due || tracked.has_changed() {
            tracked.tasks_sampled = Some(now);
            return true;
        }
        false
    }

    /// The measurements of a hierarchy that are sampled in every round, not only in full ones.
    ///
    /// Only CPU time is needed per window. Memory usage is sampled, too, if the kernel does not report its peak and the
    /// hierarchy is sampled for CPU time anyway.
    pub(super) fn measured_every_round(&self, index: usize) -> Measurements {
        let measured = self.sources.kernel_measurements(index);
        match measured.only(Measurement::Cpu) {
            cpu if !cpu.is_empty() && self.evidence.as_ref().is_some_and(UsageCollector::samples_memory) => {
                cpu.and(measured.only(Measurement::Memory))
            }
            cpu => cpu,
        }
    }

    /// Reads the files of the cgroups for which a pass had no room.
    fn sample_unvisited(&mut self, index: usize, measured: Measurements) {
        let Some(tracked) = self.hierarchies.get(index) else { return };
        let unvisited = tracked.unvisited();
        self.files.sample(&mut self.store, &unvisited, measured, &mut self.skipped);
    }
}

impl Passes {
    /// One pass over a hierarchy, without a walk if possible.
    fn pass(&mut self, round: &mut Round, index: usize, measured: Measurements) {
        let measured_every_round = round.measured_every_round(index);
        let (now, full) = (round.now, round.is_full);
        let Round { kernel: Some(kernel), hierarchies, store, evidence, .. } = round else { return };
        let (seen, seen_unix) = (Instant::now(), unix_now());
        let Some(tracked) = hierarchies.get_mut(index) else { return };
        let Some(walk) = &tracked.walk else { return };
        let format = record_format(tracked);
        let walked_lately =
            tracked.last_walk.is_some_and(|at| now.saturating_duration_since(at) < MAX_WALK_AGE);
        // The reason why a program does not run is in its verdict.
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
                    tracing::error!(%hierarchy, %error, "passes fail; reading cgroup files from now on");
                    round.sources.fall_back_hierarchy(Some(index), &error.to_string());
                }
                return;
            }
        };
        tracked.failed_passes = 0;
        let stats = pass.stats;
        if let (true, Some(evidence)) = (measured_every_round.contains(Measurement::Cpu), evidence.as_mut()) {
            evidence.tick(seen);
        }
        let mut unresolved = 0;
        tracked.begin_pass();
        for record in pass.records() {
            let known = tracked.visit(record.id);
            let same = full && known.is_some() && tracked.is_unchanged(&record);
            match known {
                // The kernel does not maintain the root's counters here.
                Some(_) if record.level == 0 => {}
                Some(ResolvedCgroup::Cgroup(key)) => {
                    // An unchanged record only needs its CPU window.
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
                None => unresolved += 1,
            }
        }
        let complete = stats.lost + stats.unreadable == 0;
        round.agent.pass_cgroups = round.agent.pass_cgroups.max(stats.cgroups);
        if stats.lost > 0
            && let Some(hierarchy) = self.too_large.new_text(tracked.hierarchy.mount.display().to_string())
        {
            tracing::error!(
                hierarchy,
                cgroups = stats.cgroups,
                room = round.config.max_cgroups,
                "more cgroups than max-cgroups: the last ones are not measured; raise max-cgroups"
            );
        }
        round.skipped[Cause::RecordsWithoutRoom] += stats.lost;
        round.skipped[Cause::RecordsUnreadable] += stats.unreadable;
        round.sources.sampled(measured, now);
        if complete {
            round.end_pass(index, true);
        } else if full && stats.lost > 0 {
            round.sample_unvisited(index, measured);
        }
        if let Some(tracked) = round.hierarchies.get_mut(index) {
            tracked.unresolved = unresolved;
        }
        if unresolved > 0 || stats.lost > 0 {
            round.list_directories(index);
        }
    }
}

pub(super) fn record_format(tracked: &TrackedHierarchy) -> RecordFormat {
    RecordFormat { unified: tracked.hierarchy.version == Version::V2, page_size: procfs::page_size() }
}
