//! Events of the eBPF programs: cgroups created, emptied and removed.
//!
//! Programs: `cgroup_made` (tracepoint `cgroup_mkdir`), `cgroup_emptied` (`cgroup_notify_populated`), `cgroup_removed`
//! (`cgroup_rmdir`). Metrics: the final values of removed cgroups in `snug_workload_*`,
//! `snug_workload_containers_started_total`, `snug_workload_containers_ended_total`.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use snug_ebpf::abi::snapshot::SnapshotRecord;

use super::{NewCgroup, Sampler, hierarchy::ResolvedCgroup, pass::record_format, skipped::Cause, snapshot};
use crate::{
    clock::unix_now,
    kernel::{KernelEvent, KernelEventKind},
    values::Measurement,
};

impl Sampler {
    /// Handles all available events.
    pub(super) fn take_events(&mut self) {
        let mut events = Vec::new();
        let Some(kernel) = &mut self.kernel else { return };
        let undecodable = kernel.drain(|event| events.push(event));
        self.skipped[Cause::Events] += undecodable;
        if !events.is_empty() {
            // The pending samples are older than the events, and name cgroups that the events may remove.
            self.flush_pending();
        }
        let now = Instant::now();
        for event in events {
            self.take_event(&event, now);
        }
        // At once: the bundle of a short-lived container may be gone in the next round.
        self.name_living(false);
    }

    fn take_event(&mut self, event: &KernelEvent, now: Instant) {
        let Some(index) = self.hierarchies.iter().position(|tracked| tracked.id == event.hierarchy) else {
            return;
        };
        match &event.kind {
            KernelEventKind::Made { path } => self.made(index, event, path.as_deref(), now),
            KernelEventKind::Emptied { path } => self.emptied(index, event, path.as_deref()),
            KernelEventKind::Removed { path, last } => self.removed(index, event, path.as_deref(), last, now),
            KernelEventKind::Started(init) => self.init_started(index, event, init),
            KernelEventKind::Exited { init, status } => self.init_exited(index, event, init, *status, now),
            KernelEventKind::OomKill(kill) => self.oom_killed(index, event, kill),
        }
    }

    fn made(&mut self, index: usize, event: &KernelEvent, path: Option<&str>, now: Instant) {
        let Some(tracked) = self.hierarchies.get(index) else { return };
        // A listing may have found the cgroup before its event arrived.
        if tracked.resolve(event.id).is_some() {
            return;
        }
        let Some(path) = self.path_of(index, path) else { return };
        self.add_cgroup(index, &new_cgroup(event, &path), now);
        if index == 0 && path.rfind('/') == Some(0) {
            self.refresh_flush_points();
        }
    }

    /// The cgroup has no tasks any more: its CPU time is flushed now, because its directory may be removed next.
    fn emptied(&mut self, index: usize, event: &KernelEvent, path: Option<&str>) {
        let known = self.hierarchies.get(index).and_then(|tracked| tracked.resolve(event.id));
        let Some(ResolvedCgroup::Cgroup(key)) = known else { return };
        if event.hierarchy == 0 {
            self.store.record_empty(key);
        }
        if index == 0
            && let Some(path) = self.path_of(index, path)
        {
            self.files.flush_cpu_of(&path);
        }
    }

    fn removed(
        &mut self,
        index: usize,
        event: &KernelEvent,
        path: Option<&str>,
        last: &SnapshotRecord,
        now: Instant,
    ) {
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        let known = match tracked.remove(event.id) {
            Some(known) => known,
            // The event of its creation was lost.
            None => {
                let Some(path) = self.path_of(index, path) else { return };
                match self.add_cgroup(index, &new_cgroup(event, &path), now) {
                    Some(key) => ResolvedCgroup::Cgroup(key),
                    None => ResolvedCgroup::Inner(None),
                }
            }
        };
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        tracked.remove(event.id);
        let format = record_format(tracked);
        if let Some(kernel) = &mut self.kernel {
            kernel.subtrees.remove(index, event.id);
        }
        self.end_network(index, event.id, known);
        self.end_runqueue(index, event.id, known);
        let ResolvedCgroup::Cgroup(key) = known else { return };
        // Without the working set: the inactive file cache is as of the last flush, which is no final value.
        let measured = self.sources.kernel_measurements(index).without(Measurement::WorkingSet);
        self.store.update(key, snapshot::values(last, measured, format));
        self.store.depart(key, index, index == 0, false, now);
    }

    /// The event's path, relative to the root of the hierarchy's mount.
    fn path_of(&self, index: usize, path: Option<&str>) -> Option<String> {
        let root = self.hierarchies.get(index)?.hierarchy.root_in_hierarchy.trim_end_matches('/');
        let path = path?.strip_prefix(root)?;
        path.starts_with('/').then(|| path.to_owned())
    }
}

/// The cgroup of an event, for a cgroup that was not known: its creation time is that of the event.
fn new_cgroup<'a>(event: &KernelEvent, path: &'a str) -> NewCgroup<'a> {
    NewCgroup { id: event.id, path, created_unix: unix_of(event.at_ns), present_at_start: false }
}

/// Converts a time of `CLOCK_MONOTONIC` to seconds since the Unix epoch.
pub(super) fn unix_of(monotonic_ns: u64) -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
    unix_now() - now.saturating_sub(Duration::from_nanos(monotonic_ns)).as_secs_f64()
}
