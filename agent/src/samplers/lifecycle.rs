//! Events of the kernel half: cgroups made, emptied and removed.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use snug_ebpf::abi::snapshot::SnapshotRecord;

use super::{Found, Sampler, hierarchy::Known, pass::record_kind, snapshot};
use crate::{
    clock::unix_now,
    kernel::{Event, What},
    values::Measurement,
};

impl Sampler {
    /// Takes all events that wait.
    pub(super) fn take_events(&mut self) {
        let mut events = Vec::new();
        let Some(kernel) = &mut self.kernel else { return };
        let foreign = kernel.drain(|event| events.push(event));
        *self.skipped.entry("events_undecodable").or_default() += foreign;
        if !events.is_empty() {
            // They were made before, and who is removed is known no more.
            self.tell_looks();
        }
        let now = Instant::now();
        for event in events {
            self.take_event(&event, now);
        }
        // At once: the bundle of a container that ends within a round is gone when the round comes.
        self.name_living(false);
    }

    fn take_event(&mut self, event: &Event, now: Instant) {
        let Some(index) = self.followed.iter().position(|one| one.id == event.hierarchy) else { return };
        match &event.what {
            What::Made { path } => self.made(index, event, path.as_deref(), now),
            What::Emptied { path } => self.emptied(index, event, path.as_deref()),
            What::Removed { path, last } => self.removed(index, event, path.as_deref(), last, now),
            What::Started(init) => self.init_started(index, event, init),
            What::Exited { init, status } => self.init_exited(index, event, init, *status, now),
            What::OomKill(kill) => self.oom_killed(index, event, kill),
        }
    }

    fn made(&mut self, index: usize, event: &Event, path: Option<&str>, now: Instant) {
        let Some(one) = self.followed.get(index) else { return };
        // A listing may have met it before its event came.
        if one.known(event.id).is_some() {
            return;
        }
        let Some(path) = self.path_of(index, path) else { return };
        self.appear(index, &found(event, &path), now);
        if index == 0 && path.rfind('/') == Some(0) {
            self.refresh_flush_points();
        }
    }

    /// The last task has left: its CPU time is flushed now, because the directory may be removed next.
    fn emptied(&mut self, index: usize, event: &Event, path: Option<&str>) {
        let known = self.followed.get(index).and_then(|one| one.known(event.id));
        let Some(Known::Cgroup(key)) = known else { return };
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
        event: &Event,
        path: Option<&str>,
        last: &SnapshotRecord,
        now: Instant,
    ) {
        let Some(one) = self.followed.get_mut(index) else { return };
        let known = match one.remove(event.id) {
            Some(known) => known,
            // Its making was lost; it is counted all the same.
            None => {
                let Some(path) = self.path_of(index, path) else { return };
                match self.appear(index, &found(event, &path), now) {
                    Some(key) => Known::Cgroup(key),
                    None => Known::Inner(None),
                }
            }
        };
        let Some(one) = self.followed.get_mut(index) else { return };
        one.remove(event.id);
        let kind = record_kind(one);
        self.end_network(index, event.id, known);
        self.end_runqueue(index, event.id, known);
        let Known::Cgroup(key) = known else { return };
        // Inactive file is what the last flush left, which is no last state.
        let told = self.origins.kernel_of(index).without(Measurement::WorkingSet);
        self.store.update(key, snapshot::values(last, told, kind));
        self.store.depart(key, index, index == 0, false, now);
    }

    /// The event's path below what the hierarchy's mount shows as its root.
    fn path_of(&self, index: usize, path: Option<&str>) -> Option<String> {
        let root = self.followed.get(index)?.hierarchy.root_in_hierarchy.trim_end_matches('/');
        let path = path?.strip_prefix(root)?;
        path.starts_with('/').then(|| path.to_owned())
    }
}

/// The cgroup that an event is about. Without another time known, it was made at the event.
fn found<'a>(event: &Event, path: &'a str) -> Found<'a> {
    Found { id: event.id, path, created_unix: unix_of(event.at_ns), present_at_start: false }
}

/// A moment of `CLOCK_MONOTONIC` in seconds since the Unix epoch, by what both clocks say now.
pub(super) fn unix_of(monotonic_ns: u64) -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
    unix_now() - now.saturating_sub(Duration::from_nanos(monotonic_ns)).as_secs_f64()
}
