//! One followed hierarchy: its walk, and which of its directories is which cgroup.

use std::collections::HashMap;

use rustc_hash::FxHashMap;

use crate::{cgroupfs::mounts::Hierarchy, kernel::CgroupIterator, store::Key};

/// What a directory of the hierarchy is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A cgroup in the store.
    Cgroup(Key),
    /// Part of a container, if that is known: nothing of its own.
    Inner(Option<Key>),
}

impl Known {
    /// The cgroup in the store that it is or belongs to.
    pub(super) const fn owner(self) -> Option<Key> {
        match self {
            Self::Cgroup(key) => Some(key),
            Self::Inner(owner) => owner,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Present {
    known: Known,
    seen: u64,
}

/// A hierarchy and what is in it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) hierarchy: Hierarchy,
    /// The kernel's number for it; 0 is cgroup v2.
    pub(super) id: u32,
    /// The snapshot's link, if the kernel half walks it.
    pub(super) walk: Option<CgroupIterator>,
    /// Directories by kernfs id.
    present: FxHashMap<u64, Present>,
    /// Directories that are gone while their final record may still come.
    gone: HashMap<u64, Key>,
    pass: u64,
    /// Directories that a pass found and nobody knows.
    pub(super) unresolved: u64,
    /// Passes that failed since the last one that did not.
    pub(super) failed_passes: u32,
}

impl Followed {
    pub(super) fn new(hierarchy: Hierarchy, id: u32) -> Self {
        Self {
            hierarchy,
            id,
            walk: None,
            present: FxHashMap::default(),
            gone: HashMap::new(),
            pass: 0,
            unresolved: 0,
            failed_passes: 0,
        }
    }

    /// Begins a pass or a listing.
    pub(super) fn begin(&mut self) {
        self.pass += 1;
        self.unresolved = 0;
    }

    /// A directory was met in this pass.
    pub(super) fn see(&mut self, id: u64) -> Option<Known> {
        let present = self.present.get_mut(&id)?;
        present.seen = self.pass;
        Some(present.known)
    }

    /// What a directory is, gone ones included.
    pub(super) fn known(&self, id: u64) -> Option<Known> {
        let present = self.present.get(&id).map(|present| present.known);
        present.or_else(|| self.gone.get(&id).map(|key| Known::Cgroup(*key)))
    }

    /// The directory of a cgroup.
    pub(super) fn id_of(&self, key: Key) -> Option<u64> {
        let mut present = self.present.iter();
        present.find(|(_, present)| present.known == Known::Cgroup(key)).map(|(id, _)| *id)
    }

    /// A directory has become known.
    pub(super) fn learn(&mut self, id: u64, known: Known) {
        self.present.insert(id, Present { known, seen: self.pass });
    }

    /// Ends a complete pass: cgroups that were not met are gone. `awaited`: their final records may still come.
    pub(super) fn end(&mut self, awaited: bool) -> Vec<Key> {
        let pass = self.pass;
        let mut keys = Vec::new();
        let gone = &mut self.gone;
        self.present.retain(|id, present| {
            if present.seen == pass {
                return true;
            }
            if let Known::Cgroup(key) = present.known {
                keys.push(key);
                if awaited {
                    gone.insert(*id, key);
                }
            }
            false
        });
        keys
    }

    /// A directory was removed, for certain.
    pub(super) fn remove(&mut self, id: u64) -> Option<Known> {
        let present = self.present.remove(&id).map(|present| present.known);
        present.or_else(|| self.gone.remove(&id).map(Known::Cgroup))
    }

    /// Cgroups that have been settled are not awaited any more.
    pub(super) fn forget(&mut self, settled: &[Key]) {
        if !self.gone.is_empty() {
            self.gone.retain(|_, key| !settled.contains(key));
        }
    }
}
