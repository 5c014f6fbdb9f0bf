//! The store's view for readers.

use std::{sync::Arc, time::Instant};

use super::{
    Store,
    published::{AgentRow, Published},
};
use crate::identity::{Identity, Level};

impl Store {
    /// A coherent view. `agent` is what the agent says of itself; what the store knows is filled in here.
    pub fn publish(&mut self, mut agent: AgentRow, now: Instant) -> Published {
        let sorted = self.sorted.get_or_insert_with(|| {
            let mut paths: Vec<_> = self.by_path.iter().collect();
            paths.sort_unstable();
            paths.into_iter().map(|(_, key)| *key).collect()
        });
        let mut cgroups = std::mem::take(&mut self.spare);
        let mut shown = 0;
        for entry in sorted.iter().filter_map(|key| self.entries.get(key)) {
            match cgroups.get_mut(shown) {
                Some(row) => entry.show_in(row),
                None => cgroups.push(entry.row()),
            }
            shown += 1;
        }
        cgroups.truncate(shown);
        agent.counter_regressions = self.regressions;
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
            workloads: self.rows.clone(),
            ends: self.end_rows.clone(),
            pods: Arc::default(),
            agent,
            host: Arc::default(),
        }
    }

    /// Takes back a view that nobody reads any more: the next one is written over it, which saves making and dropping
    /// all its parts ten times a second.
    pub fn recycle(&mut self, view: Published) {
        self.spare = view.cgroups;
    }
}
