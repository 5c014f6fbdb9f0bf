//! Bringing the counters of workloads up to date.

use std::time::Instant;

use super::{Key, Store};
use crate::model::WorkloadKey;

impl Store {
    /// Brings the workloads' counters up to date.
    pub fn count_workloads(&mut self, now: Instant) {
        let due = self.entries.iter_mut().filter_map(|(key, entry)| {
            let ended = entry.life.nothing_followed(now);
            (ended.is_some() || entry.counted != entry.stamp).then_some((*key, ended))
        });
        let due: Vec<_> = due.collect();
        for (key, ended) in due {
            self.terminated(key, ended);
            self.count(key);
        }
        self.rows = self.workloads.rows();
        self.events.settle(now);
    }

    /// Counts what a cgroup has done since it was last counted.
    pub(super) fn count(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.counted = entry.stamp;
        if !entry.identity.of_path.level.is_container() {
            return;
        }
        if entry.workload.is_none() {
            // Once counted under a name, always under this one: its counters must not go back.
            entry.workload = WorkloadKey::of(&entry.identity).map(|workload| self.workloads.admit(workload));
            let first = entry.workload.is_some() && !entry.contribution.was_there();
            entry.contribution.restarted = first && self.terminated.is_restart(&entry.identity);
        }
        if let Some(workload) = &entry.workload {
            self.workloads.count(workload, &mut entry.contribution, &entry.values);
        }
    }
}
