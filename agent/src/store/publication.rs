//! The store's view for readers.

use std::{sync::Arc, time::Instant};

use super::{
    Entry, Store,
    published::{AgentRow, CgroupRow, Published},
};
use crate::{
    identity::{Identity, Level},
    values::Values,
};

impl Store {
    /// A coherent view. `agent` is what the agent says of itself; what the store knows is filled in here.
    pub fn publish(&mut self, mut agent: AgentRow, now: Instant) -> Published {
        let sorted = self.sorted.get_or_insert_with(|| {
            let mut paths: Vec<_> = self.by_path.iter().collect();
            paths.sort_unstable();
            paths.into_iter().map(|(_, key)| *key).collect()
        });
        let (mut cgroups, mut stamps) = std::mem::take(&mut self.spare);
        let mut shown = 0;
        for entry in sorted.iter().filter_map(|key| self.entries.get(key)) {
            match (cgroups.get_mut(shown), stamps.get_mut(shown)) {
                // Most are idle most of the time.
                (Some(_), Some(stamp)) if *stamp == entry.stamp => {}
                (Some(row), Some(stamp)) => {
                    entry.show_in(row);
                    *stamp = entry.stamp;
                }
                _ => {
                    cgroups.push(entry.row());
                    stamps.push(entry.stamp);
                }
            }
            shown += 1;
        }
        cgroups.truncate(shown);
        stamps.truncate(shown);
        agent.counter_regressions = self.regressions;
        agent.events = self.events.counts();
        agent.workloads_folded = self.workloads.folded;
        agent.unnamed_containers = cgroups
            .iter()
            .filter(|row| {
                let Identity { of_path, names, .. } = &*row.identity;
                // Not pods: their cgroups may stay, empty, in a hierarchy that nobody removes them from.
                matches!(of_path.level, Level::Container | Level::Sandbox)
                    && of_path.pod_uid.is_some()
                    && names.is_none()
            })
            .count() as u64;
        Published {
            at: now,
            cgroups,
            stamps,
            workloads: self.rows.clone(),
            ends: self.end_rows.clone(),
            events: self.events.rows(),
            pods: Arc::default(),
            agent,
            host: Arc::default(),
        }
    }

    /// Takes back a view that nobody reads any more: the next one is written over it, which saves making and dropping
    /// all its parts ten times a second.
    pub fn recycle(&mut self, view: Published) {
        self.spare = (view.cgroups, view.stamps);
    }
}

impl Entry {
    /// Makes a row what [`Self::row`] would be, and touches no count of references that stay as they are.
    pub(super) fn show_in(&self, row: &mut CgroupRow) {
        if !Arc::ptr_eq(&row.identity, &self.identity) {
            row.identity.clone_from(&self.identity);
        }
        row.created_unix = self.created_unix;
        let Values {
            cpu,
            cpu_windows,
            cpu_ladder,
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
        share(&mut shown.cpu_ladder, cpu_ladder.as_ref());
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
