//! Passes of the kernel half: one record of each cgroup, in the order of the walk.

use std::time::{Duration, Instant};

use super::{
    Sampler,
    evidence::Gatherer,
    hierarchy::{Followed, Known},
    snapshot::{self, RecordKind},
};
use crate::{
    cgroupfs::{Measurements, mounts::Version},
    clock::unix_now,
    values::{Measurement, Source},
};

/// Passes over a hierarchy that may fail one after the other before files take over.
const MOST_FAILED_PASSES: u32 = 10;

/// Between two walks, while no cgroup is made or removed: looks tell the same for less.
const BETWEEN_WALKS: Duration = Duration::from_secs(10);

const TASKS: Measurements = Measurements::of(&[Measurement::Pids]);
/// A pass for the number of tasks alone, which cgroup v1 keeps in a hierarchy of its own, is made once in so many seconds.
const SECONDS_OF_TASKS: u32 = 5;

impl Sampler {
    /// Has the kernel sum up what the kernel half is about to see.
    pub(super) fn flush(&mut self, second: bool) {
        let kernel_side = self.origins.with(Source::Kernel);
        let started = Instant::now();
        if kernel_side.contains(Measurement::Cpu) {
            self.files.flush_cpu();
        }
        if second && kernel_side.contains(Measurement::WorkingSet) {
            self.files.flush_memory();
        }
        self.agent.flush_seconds += started.elapsed().as_secs_f64();
    }

    /// Passes of the kernel half over the hierarchies that are due.
    pub(super) fn sample_kernel(&mut self, now: Instant, second: bool) {
        if self.origins.with(Source::Kernel).is_empty() {
            return;
        }
        let started = Instant::now();
        self.agent.pass_cgroups = 0;
        for index in 0..self.followed.len() {
            let taken = if second { self.origins.kernel_of(index) } else { self.by_windows(index) };
            if !taken.is_empty() && (taken != TASKS || self.tasks_are_due(index, now)) {
                self.pass(index, taken, second, now);
            }
        }
        self.agent.pass_seconds += started.elapsed().as_secs_f64();
        self.agent.passes += 1;
    }

    /// Whether it is time for a pass over a hierarchy that keeps nothing but tasks.
    fn tasks_are_due(&mut self, index: usize, now: Instant) -> bool {
        let Some(one) = self.followed.get_mut(index) else { return false };
        let interval = self.config.working_set_interval * SECONDS_OF_TASKS;
        let is_due = one.tasks_taken.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if is_due || one.has_changed() {
            one.tasks_taken = Some(now);
            return true;
        }
        false
    }

    /// What is taken from a hierarchy in each round.
    ///
    /// Only CPU time has to be seen per window: of the rest the kernel keeps the sums. Memory usage is looked at, too, where the kernel
    /// does not say its highest, and no pass has to be made for it.
    pub(super) fn by_windows(&self, index: usize) -> Measurements {
        let measured = self.origins.kernel_of(index);
        match measured.only(Measurement::Cpu) {
            cpu if !cpu.is_empty() && self.evidence.as_ref().is_some_and(Gatherer::samples_memory) => {
                cpu.and(measured.only(Measurement::Memory))
            }
            cpu => cpu,
        }
    }

    /// One pass over one hierarchy.
    fn pass(&mut self, index: usize, taken: Measurements, second: bool, now: Instant) {
        let by_windows = self.by_windows(index);
        let Self { kernel: Some(kernel), followed, store, evidence, .. } = self else { return };
        let (seen, seen_unix) = (Instant::now(), unix_now());
        let Some(one) = followed.get_mut(index) else { return };
        let Some(walk) = &one.walk else { return };
        let kind = record_kind(one);
        let walked_lately = one.walked.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_WALKS);
        // Why a program does not run is told with the programs.
        let looked = walked_lately.then(|| kernel.revisit(index, taken).ok().flatten()).flatten();
        let pass = match looked {
            Some(pass) => Ok(pass),
            None => kernel.pass(walk, taken).inspect(|_| one.walked = Some(now)),
        };
        let pass = match pass {
            Ok(pass) => pass,
            Err(error) => {
                one.failed_passes += 1;
                if one.failed_passes == MOST_FAILED_PASSES {
                    let hierarchy = one.hierarchy.mount.display();
                    tracing::error!(%hierarchy, %error, "measuring by cgroup files from now on");
                    self.origins.fall_back_all(index, &error.to_string());
                }
                return;
            }
        };
        one.failed_passes = 0;
        let end = pass.end;
        if let (true, Some(evidence)) = (by_windows.contains(Measurement::Cpu), evidence.as_mut()) {
            evidence.look(seen);
        }
        let mut unknown = 0;
        one.begin();
        for record in pass.records() {
            let known = one.see(record.id);
            let same = second && known.is_some() && one.says_the_same(&record);
            match known {
                // The root is there, but the kernel keeps its sums elsewhere.
                Some(_) if record.level == 0 => {}
                Some(Known::Cgroup(key)) => {
                    // What the store has already it need not be told.
                    let taken = if same { by_windows.only(Measurement::Cpu) } else { taken };
                    let values = snapshot::values(&record, taken, kind);
                    if let (Some(cpu), Some(evidence)) = (values.cpu, evidence.as_mut()) {
                        evidence.cpu(key, cpu, seen_unix);
                    }
                    if let (false, Some(cpu)) = (second, values.cpu) {
                        store.update_cpu(key, cpu);
                        if let (Some(memory), Some(evidence)) = (values.memory, evidence.as_mut()) {
                            evidence.memory(key, memory.usage_bytes);
                        }
                    } else if !same {
                        store.update(key, values);
                    }
                }
                Some(Known::Inner(_)) => {}
                None => unknown += 1,
            }
        }
        let (complete, unresolved) = (end.lost + end.unreadable == 0, unknown);
        self.agent.pass_cgroups = self.agent.pass_cgroups.max(end.cgroups);
        if end.lost > 0 && !self.said_full {
            self.said_full = true;
            tracing::error!(
                hierarchy = %one.hierarchy.mount.display(), cgroups = end.cgroups, room = self.config.max_cgroups,
                "more cgroups than max-cgroups: the last ones are not measured; raise max-cgroups"
            );
        }
        *self.skipped.entry("cgroup_records_without_room").or_default() += end.lost;
        *self.skipped.entry("cgroup_records_unreadable").or_default() += end.unreadable;
        self.origins.sampled(taken, now);
        if complete {
            self.end_pass(index, now);
        }
        if let Some(one) = self.followed.get_mut(index) {
            one.unresolved = unresolved;
        }
        if unresolved > 0 {
            self.list(index, now);
        }
    }

    /// After a complete pass or listing: what was not met has gone.
    pub(super) fn end_pass(&mut self, index: usize, now: Instant) {
        let awaited = self.final_records_come();
        let Some(one) = self.followed.get_mut(index) else { return };
        for key in one.end(awaited) {
            self.store.depart(key, index, index == 0, awaited, now);
        }
    }
}

pub(super) fn record_kind(one: &Followed) -> RecordKind {
    RecordKind { unified: one.hierarchy.version == Version::V2, page_size: procfs::page_size() }
}
