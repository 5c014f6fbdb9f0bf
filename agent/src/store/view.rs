//! The store's view for readers.

use std::{collections::HashMap, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;

use super::{Entry, Key, Store};
use crate::{
    model::{AgentRow, CgroupRow, Identity, Level, View},
    values::Values,
};

/// Living cgroups as they are shown: by path.
#[derive(Debug, Default)]
pub(super) struct Living {
    keys: Vec<Key>,
    /// Of each, side by side: most do not change between two views.
    changes: Vec<Changes>,
    /// Pods' containers without names.
    unnamed: u64,
}

/// When what is shown of a cgroup has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes {
    last: Stamp,
    /// The last one of something else than CPU time.
    beside_cpu: Stamp,
}

/// Another with each change of what is shown, and never that of another cgroup.
pub(crate) type Stamp = u64;

impl Store {
    pub(super) const fn next_stamp(&mut self) -> Stamp {
        self.stamp += 1;
        self.stamp
    }

    /// A coherent view. `agent` is what the agent says of itself; what the store knows is filled in here.
    pub fn publish(&mut self, mut agent: AgentRow, now: Instant) -> View {
        let living = self.living.get_or_insert_with(|| Living::of(&self.by_path, &mut self.entries));
        let (mut cgroups, mut stamps) = std::mem::take(&mut self.spare);
        cgroups.truncate(living.keys.len());
        stamps.truncate(living.keys.len());
        for (place, (key, Changes { last, beside_cpu })) in
            living.keys.iter().zip(&living.changes).enumerate()
        {
            let shown = stamps.get_mut(place);
            // Most are idle most of the time.
            if shown.as_ref().is_some_and(|shown| **shown == *last) {
                continue;
            }
            let Some(entry) = self.entries.get(key) else { continue };
            match (cgroups.get_mut(place), shown) {
                (Some(row), Some(shown)) => {
                    // A row of the same cgroup: what it does not show yet is its CPU time.
                    if *shown >= *beside_cpu && Arc::ptr_eq(&row.identity, &entry.identity) {
                        row.values.cpu = entry.values.cpu;
                    } else {
                        entry.show_in(row);
                    }
                    *shown = *last;
                }
                _ => {
                    cgroups.push(entry.row());
                    stamps.push(*last);
                }
            }
        }
        agent.counter_regressions = self.regressions;
        agent.events = self.events.counts();
        agent.workloads_folded = self.workloads.folded;
        agent.unnamed_containers = living.unnamed;
        View {
            at: now,
            cgroups,
            stamps,
            workloads: self.rows.clone(),
            terminated: self.terminated_rows.clone(),
            events: self.events.rows(),
            pods: Arc::default(),
            agent,
            host: Arc::default(),
        }
    }

    /// Takes back a view that nobody reads any more: the next one is written over it, which saves making and dropping
    /// all its parts ten times a second.
    pub fn recycle(&mut self, view: View) {
        self.spare = (view.cgroups, view.stamps);
    }
}

impl Living {
    fn of(by_path: &HashMap<Arc<str>, Key>, entries: &mut FxHashMap<Key, Entry>) -> Self {
        let mut paths: Vec<_> = by_path.iter().collect();
        paths.sort_unstable();
        let mut living = Self::default();
        for (_, key) in paths {
            let Some(entry) = entries.get_mut(key) else { continue };
            entry.place = living.keys.len();
            living.keys.push(*key);
            living.changes.push(Changes { last: entry.stamp, beside_cpu: entry.stamp });
            let Identity { of_path, names, .. } = &*entry.identity;
            // Not pods: their cgroups may stay, empty, in a hierarchy that nobody removes them from.
            let is_container = matches!(of_path.level, Level::Container | Level::Sandbox);
            living.unnamed += u64::from(is_container && of_path.pod_uid.is_some() && names.is_none());
        }
        living
    }
}

impl Entry {
    /// What is shown of it has changed.
    pub(super) fn show_anew(&mut self, key: Key, stamp: Stamp, living: &mut Option<Living>) {
        if let Some(changes) = self.show_cpu_anew(key, stamp, living) {
            changes.beside_cpu = stamp;
        }
    }

    /// Nothing that is shown of it but its CPU time has changed. Returns its changes if it lives.
    pub(super) fn show_cpu_anew<'l>(
        &mut self,
        key: Key,
        stamp: Stamp,
        living: &'l mut Option<Living>,
    ) -> Option<&'l mut Changes> {
        self.stamp = stamp;
        let Living { keys, changes, .. } = living.as_mut()?;
        let changes = changes.get_mut(self.place).filter(|_| keys.get(self.place) == Some(&key))?;
        changes.last = stamp;
        Some(changes)
    }

    /// Makes a row what [`Self::row`] would be, and touches no count of references that stay as they are.
    pub(super) fn show_in(&self, row: &mut CgroupRow) {
        if !Arc::ptr_eq(&row.identity, &self.identity) {
            row.identity.clone_from(&self.identity);
        }
        row.created_unix = self.created_unix;
        let Values {
            cpu,
            cpu_windows,
            quota_what_if,
            runqueue,
            cpu_split,
            throttling,
            pressure,
            memory,
            window_peak,
            memory_growth,
            memory_histograms,
            working_set,
            memory_events,
            swap,
            pids,
            memory_stat,
            io,
            spec,
            interfaces,
            processes,
            network,
            tcp,
            round_trips,
        } = &self.values;
        let shown = &mut row.values;
        shown.cpu = *cpu;
        share(&mut shown.runqueue, runqueue.as_ref());
        share(&mut shown.cpu_windows, cpu_windows.as_ref());
        share(&mut shown.quota_what_if, quota_what_if.as_ref());
        shown.cpu_split = *cpu_split;
        shown.throttling = *throttling;
        shown.pressure = *pressure;
        shown.memory = *memory;
        shown.window_peak = *window_peak;
        shown.memory_growth = *memory_growth;
        share(&mut shown.memory_histograms, memory_histograms.as_ref());
        shown.working_set = *working_set;
        shown.memory_events = *memory_events;
        shown.swap = *swap;
        shown.pids = *pids;
        share(&mut shown.memory_stat, memory_stat.as_ref());
        share(&mut shown.io, io.as_ref());
        shown.spec = *spec;
        share(&mut shown.interfaces, interfaces.as_ref());
        shown.processes = *processes;
        shown.network = *network;
        shown.tcp = *tcp;
        share(&mut shown.round_trips, round_trips.as_ref());
    }
}

/// Has `shown` be `current`.
fn share<T: ?Sized>(shown: &mut Option<Arc<T>>, current: Option<&Arc<T>>) {
    let same = match (&*shown, current) {
        (Some(shown), Some(current)) => Arc::ptr_eq(shown, current),
        (shown, current) => shown.is_none() && current.is_none(),
    };
    if !same {
        *shown = current.cloned();
    }
}
