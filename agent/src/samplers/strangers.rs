//! Cgroups that the kernel half has counters of and nobody knows. Counters outlive their cgroup for a while, and may be there
//! before its making was told.

use std::collections::HashMap;

use super::hierarchy::{Followed, Known};
use crate::store::Key;

/// The ones of one map.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// How many looks each has been there.
    looks: HashMap<u64, u8>,
}

/// What the cgroups of a map are.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Those that belong to a cgroup in the store.
    pub(super) known: Vec<(u64, Key)>,
    /// Those that nobody has known for so long that their counters are to be removed.
    pub(super) given_up: Vec<u64>,
}

impl Strangers {
    /// Sorts the cgroups of one look; a stranger is given up at its `most`th.
    pub(super) fn sort(&mut self, ids: Vec<u64>, unified: &Followed, most: u8) -> Sorted {
        let mut sorted = Sorted::default();
        let mut looks = HashMap::new();
        for id in ids {
            if let Some(key) = unified.known(id).and_then(Known::owner) {
                sorted.known.push((id, key));
                continue;
            }
            let seen = self.looks.get(&id).map_or(1, |seen| seen + 1);
            if seen >= most {
                sorted.given_up.push(id);
            } else {
                looks.insert(id, seen);
            }
        }
        self.looks = looks;
        sorted
    }
}
