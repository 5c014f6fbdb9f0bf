//! Events of the kernel half: cgroups made, emptied and removed.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use snug_ebpf::abi::snapshot::SnapshotRecord;

use super::{NewCgroup, Sampler, hierarchy::ResolvedCgroup, pass::record_format, snapshot};
use crate::{
    clock::unix_now,
    kernel::{KernelEvent, KernelEventKind},
    values::Measurement,
};

impl Sampler {
    /// Takes all events that wait.
    pub(super) fn take_events(&mut self) {
        let mut events = Vec::new();
        let Some(kernel) = &mut self.kernel else { return };
        let undecodable = kernel.drain(|event| events.push(event));
        *self.skipped.entry("events_undecodable").or_default() += undecodable;
        if !events.is_empty() {
            // They were made before, and who is removed is known no more.
            self.flush_pending();
        }
        let now = Instant::now();
        for event in events {
            self.take_event(&event, now);
        }
        // At once: the bundle of a container that ends within a round is gone when the round comes.
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
        // A listing may have met it before its event came.
        if tracked.resolve(event.id).is_some() {
            return;
        }
        let Some(path) = self.path_of(index, path) else { return };
        self.appear(index, &found(event, &path), now);
        if index == 0 && path.rfind('/') == Some(0) {
            self.refresh_flush_points();
        }
    }

    /// The last task has left: its CPU time is flushed now, because the directory may be removed next.
    fn emptied(&mut self, index: usize, event: &KernelEvent, path: Option<&str>) {
        let known = self.hierarchies.get(index).and_then(|tracked| tracked.resolve(event.id));
        let Some(ResolvedCgroup::Cgroup(key)) = known else { return };
        if event.hierarchy == 0 {
            self.store.emptied(key);
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
            // Its making was lost; it is counted all the same.
            None => {
                let Some(path) = self.path_of(index, path) else { return };
                match self.appear(index, &found(event, &path), now) {
                    Some(key) => ResolvedCgroup::Cgroup(key),
                    None => ResolvedCgroup::Inner(None),
                }
            }
        };
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        tracked.remove(event.id);
        let format = record_format(tracked);
        self.end_network(index, event.id, known);
        self.end_runqueue(index, event.id, known);
        let ResolvedCgroup::Cgroup(key) = known else { return };
        // Inactive file is what the last flush left, which is no last state.
        let measured = self.sources.from_kernel(index).without(Measurement::WorkingSet);
        self.store.update(key, snapshot::values(last, measured, format));
        self.store.depart(key, index, index == 0, false, now);
    }

    /// The event's path below what the hierarchy's mount shows as its root.
    fn path_of(&self, index: usize, path: Option<&str>) -> Option<String> {
        let root = self.hierarchies.get(index)?.hierarchy.root_in_hierarchy.trim_end_matches('/');
        let path = path?.strip_prefix(root)?;
        path.starts_with('/').then(|| path.to_owned())
    }
}

/// The cgroup that an event is about. Without another time known, it was made at the event.
fn found<'a>(event: &KernelEvent, path: &'a str) -> NewCgroup<'a> {
    NewCgroup { id: event.id, path, created_unix: unix_of(event.at_ns), present_at_start: false }
}

/// A moment of `CLOCK_MONOTONIC` in seconds since the Unix epoch, by what both clocks say now.
pub(super) fn unix_of(monotonic_ns: u64) -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
    unix_now() - now.saturating_sub(Duration::from_nanos(monotonic_ns)).as_secs_f64()
}
