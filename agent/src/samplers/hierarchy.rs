//! One tracked hierarchy: its walk, and which of its directories is which cgroup.

use std::{collections::HashMap, time::Instant};

use rustc_hash::FxHashMap;

use snug_ebpf::abi::snapshot::SnapshotRecord;

use crate::{cgroupfs::mounts::Hierarchy, kernel::CgroupIterator, store::Key};

/// What a directory of the hierarchy is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResolvedCgroup {
    /// A cgroup in the store.
    Cgroup(Key),
    /// Part of a container, if that is known: nothing of its own.
    Inner(Option<Key>),
}

impl ResolvedCgroup {
    /// The cgroup in the store that it is or belongs to.
    pub(super) const fn owner(self) -> Option<Key> {
        match self {
            Self::Cgroup(key) => Some(key),
            Self::Inner(owner) => owner,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct PresentDir {
    known: ResolvedCgroup,
    seen: u64,
}

/// A directory that the last walk met.
#[derive(Clone, Copy, Debug)]
struct VisitedDir {
    id: u64,
    known: ResolvedCgroup,
}

/// A hierarchy and what is in it.
#[derive(Debug)]
pub(super) struct TrackedHierarchy {
    pub(super) hierarchy: Hierarchy,
    /// The kernel's number for it; 0 is cgroup v2.
    pub(super) id: u32,
    /// The snapshot's link, if the kernel half walks it.
    pub(super) walk: Option<CgroupIterator>,
    /// When it was last walked.
    pub(super) last_walk: Option<Instant>,
    /// When a pass was made for its tasks alone.
    pub(super) tasks_sampled: Option<Instant>,
    /// Directories by kernfs id.
    present: FxHashMap<u64, PresentDir>,
    /// In the order of the last walk: the next one meets most likely the same, and finds them here side by side.
    order: Vec<VisitedDir>,
    /// What the records of these said when all of them was last taken over, as far as it was.
    last_records: Vec<SnapshotRecord>,
    /// How many of them the walk that is under way has met.
    cursor: usize,
    /// Whether something came, went or moved since the last walk that was complete.
    changed: bool,
    /// Directories that are gone while their final record may still come.
    departed: HashMap<u64, Key>,
    pass: u64,
    /// Directories that a pass found and nobody knows.
    pub(super) unresolved: u64,
    /// Passes that failed since the last one that did not.
    pub(super) failed_passes: u32,
}

impl TrackedHierarchy {
    pub(super) fn new(hierarchy: Hierarchy, id: u32) -> Self {
        Self {
            hierarchy,
            id,
            walk: None,
            last_walk: None,
            tasks_sampled: None,
            present: FxHashMap::default(),
            order: Vec::new(),
            last_records: Vec::new(),
            cursor: 0,
            changed: false,
            departed: HashMap::new(),
            pass: 0,
            unresolved: 0,
            failed_passes: 0,
        }
    }

    /// Whether something came, went or moved since the last pass that was complete.
    pub(super) const fn has_changed(&self) -> bool {
        self.changed
    }

    /// Begins a pass or a listing.
    pub(super) fn begin_pass(&mut self) {
        self.pass += 1;
        self.unresolved = 0;
        self.cursor = 0;
    }

    /// A directory is met.
    pub(super) fn visit(&mut self, id: u64) -> Option<ResolvedCgroup> {
        if let Some(met) = self.order.get(self.cursor).filter(|met| met.id == id) {
            self.cursor += 1;
            return Some(met.known);
        }
        let known = self.present.get(&id)?.known;
        self.forget_order(self.cursor);
        self.order.push(VisitedDir { id, known });
        self.cursor += 1;
        self.changed = true;
        Some(known)
    }

    /// Whether the record of the directory that was just seen says what it said when it was last asked so; it is told from now on.
    pub(super) fn is_unchanged(&mut self, record: &SnapshotRecord) -> bool {
        let Some(place) = self.cursor.checked_sub(1) else { return false };
        let recorded = self.last_records.len();
        match self.last_records.get_mut(place) {
            Some(last) if last == record => return true,
            Some(last) => *last = *record,
            None if recorded == place => self.last_records.push(*record),
            None => {}
        }
        false
    }

    fn forget_order(&mut self, from: usize) {
        self.order.truncate(from);
        self.last_records.truncate(from);
    }

    /// What a directory is, gone ones included.
    pub(super) fn resolve(&self, id: u64) -> Option<ResolvedCgroup> {
        let present = self.present.get(&id).map(|present| present.known);
        present.or_else(|| self.departed.get(&id).map(|key| ResolvedCgroup::Cgroup(*key)))
    }

    /// The directory of a cgroup.
    pub(super) fn id_of(&self, key: Key) -> Option<u64> {
        let mut present = self.present.iter();
        present.find(|(_, present)| present.known == ResolvedCgroup::Cgroup(key)).map(|(id, _)| *id)
    }

    /// A directory has become known.
    pub(super) fn insert(&mut self, id: u64, known: ResolvedCgroup) {
        if self.present.insert(id, PresentDir { known, seen: self.pass }).is_some() {
            self.forget_order(0);
        }
        self.changed = true;
    }

    /// Ends a complete pass: cgroups that were not met are gone. `expects_final_records`: their final records may still come.
    pub(super) fn end_pass(&mut self, expects_final_records: bool) -> Vec<Key> {
        if !self.changed && self.cursor == self.order.len() {
            return Vec::new();
        }
        self.changed = false;
        self.forget_order(self.cursor);
        let pass = self.pass;
        for met in &self.order {
            if let Some(present) = self.present.get_mut(&met.id) {
                present.seen = pass;
            }
        }
        let mut keys = Vec::new();
        let departed = &mut self.departed;
        self.present.retain(|id, present| {
            if present.seen == pass {
                return true;
            }
            if let ResolvedCgroup::Cgroup(key) = present.known {
                keys.push(key);
                if expects_final_records {
                    departed.insert(*id, key);
                }
            }
            false
        });
        keys
    }

    /// A directory was removed, for certain.
    pub(super) fn remove(&mut self, id: u64) -> Option<ResolvedCgroup> {
        self.forget_order(0);
        self.changed = true;
        let present = self.present.remove(&id).map(|present| present.known);
        present.or_else(|| self.departed.remove(&id).map(ResolvedCgroup::Cgroup))
    }

    /// Cgroups that have been settled are not expects_final_records any more.
    pub(super) fn forget(&mut self, settled: &[Key]) {
        if !self.departed.is_empty() {
            self.departed.retain(|_, key| !settled.contains(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cgroupfs::mounts::Version,
        identity::path,
        store::{Appearance, Store},
    };

    fn tracked() -> (TrackedHierarchy, Vec<Key>) {
        let mut store = Store::new(16);
        let keys = ["/a", "/b", "/c"].map(|path| {
            let of_path = path::parse(path).unwrap();
            let appearance =
                Appearance { path: path.into(), of_path, created_unix: 0.0, present_at_start: true };
            store.appear(appearance, 0, Instant::now())
        });
        let hierarchy = Hierarchy {
            mount: "/".into(),
            version: Version::V2,
            controllers: Vec::new(),
            root_in_hierarchy: "/".into(),
        };
        let mut tracked = TrackedHierarchy::new(hierarchy, 0);
        for (id, key) in (1..).zip(keys) {
            tracked.insert(id, ResolvedCgroup::Cgroup(key));
        }
        (tracked, keys.to_vec())
    }

    fn walk(tracked: &mut TrackedHierarchy, ids: &[u64]) -> Vec<Key> {
        tracked.begin_pass();
        for id in ids {
            let _ = tracked.visit(*id);
        }
        tracked.end_pass(true)
    }

    #[test]
    fn what_a_complete_walk_does_not_meet_is_gone() {
        let (mut tracked, keys) = tracked();
        assert_eq!(walk(&mut tracked, &[1, 2, 3]), []);
        assert_eq!(walk(&mut tracked, &[1, 2, 3]), []);
        assert_eq!(walk(&mut tracked, &[3, 1, 2]), [], "their order does not matter");
        assert_eq!(walk(&mut tracked, &[3, 2]), [keys[0]]);
        assert_eq!(
            tracked.resolve(1),
            Some(ResolvedCgroup::Cgroup(keys[0])),
            "its final record may still come"
        );
        assert_eq!(walk(&mut tracked, &[3]), [keys[1]], "the last of a walk goes, too");
        tracked.begin_pass();
        assert_eq!(tracked.visit(1), None);
    }

    #[test]
    fn what_is_learnt_and_never_met_is_gone() {
        let (mut tracked, keys) = tracked();
        assert_eq!(walk(&mut tracked, &[1, 2]), [keys[2]]);
        tracked.insert(3, ResolvedCgroup::Cgroup(keys[2]));
        assert_eq!(walk(&mut tracked, &[1, 2]), [keys[2]]);
    }

    #[test]
    fn what_is_unknown_disturbs_nobody() {
        let (mut tracked, _) = tracked();
        assert_eq!(walk(&mut tracked, &[1, 2, 3]), []);
        tracked.begin_pass();
        assert_eq!(tracked.visit(9), None);
        assert!(tracked.visit(1).is_some() && tracked.visit(2).is_some() && tracked.visit(3).is_some());
        assert_eq!(tracked.end_pass(true), []);
        assert_eq!(tracked.resolve(9), None);
    }

    #[test]
    fn a_record_says_the_same_of_the_same_directory_only() {
        let (mut tracked, _) = tracked();
        let record = |id, cpu_usage_ns| SnapshotRecord { id, cpu_usage_ns, ..SnapshotRecord::default() };
        let say = |tracked: &mut TrackedHierarchy, records: &[(u64, u64)]| -> Vec<bool> {
            tracked.begin_pass();
            let says = records.iter().map(|(id, cpu)| {
                let _ = tracked.visit(*id);
                tracked.is_unchanged(&record(*id, *cpu))
            });
            let says = says.collect();
            assert_eq!(tracked.end_pass(true), []);
            says
        };
        assert_eq!(say(&mut tracked, &[(1, 7), (2, 7), (3, 7)]), [false; 3], "nothing was said before");
        assert_eq!(say(&mut tracked, &[(1, 7), (2, 8), (3, 7)]), [true, false, true]);
        assert_eq!(say(&mut tracked, &[(1, 7), (2, 8), (3, 7)]), [true; 3]);
        assert_eq!(say(&mut tracked, &[(1, 7), (3, 7), (2, 8)]), [true, false, false], "in another order");
        tracked.insert(2, ResolvedCgroup::Inner(None));
        assert_eq!(say(&mut tracked, &[(1, 7), (3, 7), (2, 8)]), [false; 3], "one is something else now");
        walk(&mut tracked, &[1, 3, 2]);
        assert_eq!(
            say(&mut tracked, &[(1, 7), (3, 7), (2, 8)]),
            [true; 3],
            "a walk that asks nobody forgets nothing"
        );
    }

    #[test]
    fn what_is_removed_is_not_met_any_more() {
        let (mut tracked, keys) = tracked();
        assert_eq!(walk(&mut tracked, &[1, 2, 3]), []);
        assert_eq!(tracked.remove(2), Some(ResolvedCgroup::Cgroup(keys[1])));
        tracked.begin_pass();
        let _ = tracked.visit(1);
        assert_eq!(tracked.visit(2), None);
        let _ = tracked.visit(3);
        assert_eq!(tracked.end_pass(true), [], "it was taken away already");
    }
}
