//! Builds the view that exporters read.

use std::{collections::HashMap, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;

use super::{Entry, Key, Store};
use crate::model::{AgentRow, CgroupRow, Identity, Level, View};

/// The living cgroups, in the order of the view: by path.
#[derive(Debug, Default)]
pub(super) struct Living {
    keys: Vec<Key>,
    /// The changes of each cgroup. They are contiguous because most cgroups do not change between two views.
    changes: Vec<Changes>,
    /// The number of pod containers without names.
    unnamed: u64,
}

/// When a cgroup last changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes {
    last: Stamp,
    /// The last change of anything but CPU time.
    other_than_cpu: Stamp,
}

/// A version: it increases with each change in the store, and no two cgroups share one.
pub(crate) type Stamp = u64;

impl Store {
    pub(super) const fn next_stamp(&mut self) -> Stamp {
        self.stamp += 1;
        self.stamp
    }

    /// Builds a coherent view. `agent` has the metrics of the agent itself; this method adds those that the store counts.
    pub fn build_view(&mut self, mut agent: AgentRow, now: Instant) -> View {
        let living = self.living.get_or_insert_with(|| Living::new(&self.by_path, &mut self.entries));
        let (mut cgroups, mut stamps) = std::mem::take(&mut self.spare);
        cgroups.truncate(living.keys.len());
        stamps.truncate(living.keys.len());
        for (place, (key, Changes { last, other_than_cpu })) in
            living.keys.iter().zip(&living.changes).enumerate()
        {
            let shown = stamps.get_mut(place);
            // Most cgroups are idle most of the time.
            if shown.as_ref().is_some_and(|shown| **shown == *last) {
                continue;
            }
            let Some(entry) = self.entries.get(key) else { continue };
            match (cgroups.get_mut(place), shown) {
                (Some(row), Some(shown)) => {
                    // The row shows the same cgroup, and only its CPU time is old.
                    if *shown >= *other_than_cpu && Arc::ptr_eq(&row.identity, &entry.identity) {
                        row.values.cpu = entry.values.cpu;
                    } else {
                        entry.update_row(row);
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
            workloads: self.workload_rows.clone(),
            terminated: self.terminated_rows.clone(),
            events: self.events.rows(),
            pods: Arc::default(),
            agent,
            host: Arc::default(),
        }
    }

    /// Takes back a view without readers. The next view reuses its memory, which saves many allocations each second.
    pub fn recycle(&mut self, view: View) {
        self.spare = (view.cgroups, view.stamps);
    }
}

impl Living {
    fn new(by_path: &HashMap<Arc<str>, Key>, entries: &mut FxHashMap<Key, Entry>) -> Self {
        let mut paths: Vec<_> = by_path.iter().collect();
        paths.sort_unstable();
        let mut living = Self::default();
        for (_, key) in paths {
            let Some(entry) = entries.get_mut(key) else { continue };
            entry.index = living.keys.len();
            living.keys.push(*key);
            living.changes.push(Changes { last: entry.stamp, other_than_cpu: entry.stamp });
            let Identity { of_path, names, .. } = &*entry.identity;
            // Pods do not count: an empty cgroup of a pod may stay in a v1 hierarchy.
            let is_container = matches!(of_path.level, Level::Container | Level::Sandbox);
            living.unnamed += u64::from(is_container && of_path.pod_uid.is_some() && names.is_none());
        }
        living
    }
}

impl Entry {
    /// Something in the row of this cgroup has changed.
    pub(super) fn mark_changed(&mut self, key: Key, stamp: Stamp, living: &mut Option<Living>) {
        if let Some(changes) = self.mark_cpu_changed(key, stamp, living) {
            changes.other_than_cpu = stamp;
        }
    }

    /// The CPU time of this cgroup has changed. Returns its changes if the cgroup is living.
    pub(super) fn mark_cpu_changed<'l>(
        &mut self,
        key: Key,
        stamp: Stamp,
        living: &'l mut Option<Living>,
    ) -> Option<&'l mut Changes> {
        self.stamp = stamp;
        let Living { keys, changes, .. } = living.as_mut()?;
        let changes = changes.get_mut(self.index).filter(|_| keys.get(self.index) == Some(&key))?;
        changes.last = stamp;
        Some(changes)
    }

    /// Makes `row` equal to [`Self::row`] without touching the reference counts of unchanged values.
    pub(super) fn update_row(&self, row: &mut CgroupRow) {
        if !Arc::ptr_eq(&row.identity, &self.identity) {
            row.identity.clone_from(&self.identity);
        }
        row.created_unix = self.created_unix;
        row.values.assign(&self.values);
    }
}
