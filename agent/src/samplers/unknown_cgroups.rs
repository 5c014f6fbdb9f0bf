//! Cgroups that have counters in a map of the eBPF programs, but are not in the store.
//!
//! Counters can exist before the event of the cgroup's creation was handled, and after the cgroup was removed. Counters that
//! stay unknown are deleted.

use std::collections::HashMap;

use super::hierarchy::{ResolvedCgroup, TrackedHierarchy};
use crate::store::Key;

/// The unknown cgroups of one map.
#[derive(Debug, Default)]
pub(super) struct UnknownCgroups {
    /// Number of rounds in which each was unknown, by kernfs id.
    rounds: HashMap<u64, u8>,
}

/// The cgroups of a map.
#[derive(Debug, Default)]
pub(super) struct SortedIds {
    /// Cgroups that belong to one in the store.
    pub(super) known: Vec<(u64, Key)>,
    /// Whether some are unknown.
    pub(super) some_unknown: bool,
    /// Cgroups that were unknown for `max_rounds`: their counters are to be deleted.
    pub(super) expired: Vec<u64>,
}

impl UnknownCgroups {
    /// Sorts the cgroups of a map; called once per round.
    pub(super) fn sort(&mut self, ids: Vec<u64>, unified: &TrackedHierarchy, max_rounds: u8) -> SortedIds {
        let mut sorted = SortedIds::default();
        let mut rounds = HashMap::new();
        for id in ids {
            if let Some(key) = unified.resolve(id).and_then(ResolvedCgroup::owner) {
                sorted.known.push((id, key));
                continue;
            }
            sorted.some_unknown = true;
            let seen = self.rounds.get(&id).map_or(1, |seen| seen + 1);
            if seen >= max_rounds {
                sorted.expired.push(id);
            } else {
                rounds.insert(id, seen);
            }
        }
        self.rounds = rounds;
        sorted
    }
}
