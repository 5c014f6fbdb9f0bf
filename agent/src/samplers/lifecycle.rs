//! Events of the kernel half: cgroups made, emptied and removed.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use snug_ebpf::abi::lifecycle::{EMPTY, MADE, POPULATED, REMOVED};

use super::{Found, Sampler, agent::unix_now, hierarchy::Known, record_kind, snapshot};
use crate::{
    kernel::Event,
    values::{Measurement, Values},
};

impl Sampler {
    /// Takes all events that wait.
    pub(super) fn take_events(&mut self) {
        let mut events = Vec::new();
        let Some(kernel) = &mut self.kernel else { return };
        let foreign = kernel.drain(|event| events.push(event));
        *self.skipped.entry("events_undecodable").or_default() += foreign;
        let now = Instant::now();
        for event in events {
            self.take_event(&event, now);
        }
    }

    fn take_event(&mut self, event: &Event, now: Instant) {
        let Some(index) = self.followed.iter().position(|one| one.id == event.hierarchy) else { return };
        match event.kind {
            MADE => self.made(index, event, now),
            EMPTY => self.emptied(index, event),
            REMOVED => self.removed(index, event, now),
            // Who lives in a cgroup does not matter yet; that someone moved in is seen by what he uses.
            POPULATED => {}
            _ => {}
        }
    }

    fn made(&mut self, index: usize, event: &Event, now: Instant) {
        let Some(one) = self.followed.get(index) else { return };
        // A listing may have met it before its event came.
        if one.known(event.id).is_some() {
            return;
        }
        let Some(path) = self.path_of(index, event) else { return };
        self.appear(index, &found(event, &path), now);
        if index == 0 && path.rfind('/') == Some(0) {
            self.refresh_flush_points();
        }
    }

    /// The last task has left: its CPU time is flushed now, because the directory may be removed next.
    fn emptied(&mut self, index: usize, event: &Event) {
        let is_ours = self.followed.get(index).and_then(|one| one.known(event.id));
        if index == 0
            && matches!(is_ours, Some(Known::Cgroup(_)))
            && let Some(path) = self.path_of(index, event)
        {
            self.files.flush_cpu_of(&path);
        }
    }

    fn removed(&mut self, index: usize, event: &Event, now: Instant) {
        let Some(one) = self.followed.get_mut(index) else { return };
        let known = match one.remove(event.id) {
            Some(known) => known,
            // Its making was lost; it is counted all the same.
            None => {
                let Some(path) = self.path_of(index, event) else { return };
                match self.appear(index, &found(event, &path), now) {
                    Some(key) => Known::Cgroup(key),
                    None => Known::Inner,
                }
            }
        };
        let Some(one) = self.followed.get_mut(index) else { return };
        one.remove(event.id);
        let Known::Cgroup(key) = known else { return };
        if let Some(record) = &event.last {
            let kind = record_kind(one);
            let mut values = Values::default();
            for measurement in Measurement::ALL {
                // Inactive file is what the last flush left, which is no last state.
                if measurement != Measurement::WorkingSet
                    && self.origins.kernel_of(index).contains(measurement)
                {
                    snapshot::take(measurement, record, kind, &mut values);
                }
            }
            self.store.update(key, values);
        }
        self.store.depart(key, index, index == 0, false, now);
    }

    /// The event's path below what the hierarchy's mount shows as its root.
    fn path_of(&self, index: usize, event: &Event) -> Option<String> {
        let root = self.followed.get(index)?.hierarchy.root_in_hierarchy.trim_end_matches('/');
        let path = event.path.as_deref()?.strip_prefix(root)?;
        path.starts_with('/').then(|| path.to_owned())
    }
}

/// The cgroup that an event is about. Without another time known, it was made at the event.
fn found<'a>(event: &Event, path: &'a str) -> Found<'a> {
    let now = clock_gettime(ClockId::Monotonic);
    let at = Duration::from_nanos(event.at_ns);
    let now = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
    let created_unix = unix_now() - now.saturating_sub(at).as_secs_f64();
    Found { id: event.id, path, created_unix, present_at_start: false }
}
