//! Cgroups that the kernel half has counters of and nobody knows. Counters outlive their cgroup for a while, and may be there
//! before its making was told.

use std::collections::HashMap;

use super::hierarchy::{ResolvedCgroup, TrackedHierarchy};
use crate::store::Key;

/// The ones of one map.
#[derive(Debug, Default)]
pub(super) struct UnknownCgroups {
    /// How many rounds each has been there.
    rounds: HashMap<u64, u8>,
}

/// What the cgroups of a map are.
#[derive(Debug, Default)]
pub(super) struct SortedIds {
    /// Those that belong to a cgroup in the store.
    pub(super) known: Vec<(u64, Key)>,
    /// Those that nobody has known for so long that their counters are to be removed.
    pub(super) expired: Vec<u64>,
}

impl UnknownCgroups {
    /// Sorts the cgroups of one look; a stranger is given up at its `most`th.
    pub(super) fn sort(&mut self, ids: Vec<u64>, unified: &TrackedHierarchy, max_rounds: u8) -> SortedIds {
        let mut sorted = SortedIds::default();
        let mut rounds = HashMap::new();
        for id in ids {
            if let Some(key) = unified.resolve(id).and_then(ResolvedCgroup::owner) {
                sorted.known.push((id, key));
                continue;
            }
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
