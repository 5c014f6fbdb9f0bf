//! Adds the usage of cgroups to the counters of their workloads.

use std::time::Instant;

use super::{Key, Store};
use crate::model::WorkloadKey;

impl Store {
    /// Updates the counters of all workloads.
    pub fn count_workloads(&mut self, now: Instant) {
        let due = self.entries.iter_mut().filter_map(|(key, entry)| {
            let ended = entry.lifecycle.confirm_exit_if_due(now);
            (ended.is_some() || entry.counted != entry.stamp).then_some((*key, ended))
        });
        let due: Vec<_> = due.collect();
        for (key, ended) in due {
            self.terminated(key, ended);
            self.count(key);
        }
        self.workload_rows = self.workloads.rows();
        self.events.settle(now);
    }

    /// Adds the usage of a cgroup since the last call to its workload.
    pub(super) fn count(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.counted = entry.stamp;
        if !entry.identity.of_path.level.is_container() {
            return;
        }
        if entry.workload.is_none() {
            // The workload of a cgroup never changes: otherwise the old workload's counters would decrease.
            entry.workload =
                WorkloadKey::from_identity(&entry.identity).map(|workload| self.workloads.admit(workload));
            if entry.workload.is_some() {
                // In any order: of several runs under one name, the name of the first may arrive last.
                let is_restart = self.terminated.is_restart(&entry.identity);
                entry.contribution.restarted = is_restart && !entry.contribution.is_present_at_start();
                self.terminated.remember(&entry.identity);
            }
        }
        if let Some(workload) = &entry.workload {
            self.workloads.count(workload, &mut entry.contribution, &entry.values);
        }
    }
}
