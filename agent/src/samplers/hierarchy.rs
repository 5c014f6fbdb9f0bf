//! One sampled hierarchy: its iterator, and which cgroup in the store each of its directories is.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use snug_ebpf::abi::snapshot::SnapshotRecord;

use crate::{
    cgroupfs::mounts::{Hierarchy, Version},
    kernel::CgroupIterator,
    retry::Outage,
    store::Key,
};

/// Directories of a hierarchy that are kept, if containers make more below themselves.
const MAX_DIRECTORIES: usize = 65_536;

/// What a directory of the hierarchy stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResolvedCgroup {
    /// A cgroup in the store.
    Cgroup(Key),
    /// A cgroup inside a container, which has no values of its own; the container, if known.
    Inner(Option<Key>),
}

impl ResolvedCgroup {
    /// The cgroup in the store: itself or the container around it.
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

/// A directory that the last pass visited.
#[derive(Clone, Copy, Debug)]
struct VisitedDir {
    id: u64,
    known: ResolvedCgroup,
}

/// A hierarchy and its directories.
#[derive(Debug)]
pub(super) struct TrackedHierarchy {
    pub(super) hierarchy: Hierarchy,
    /// The kernel's id of the hierarchy; 0 is cgroup v2.
    pub(super) id: u32,
    /// The iterator, if the eBPF programs sample this hierarchy.
    pub(super) walk: Option<CgroupIterator>,
    /// Time of the last walk.
    pub(super) last_walk: Option<Instant>,
    /// When its directories may be listed next, and the pause until then.
    pub(super) listing: Option<(Instant, Duration)>,
    /// Since listings fail.
    pub(super) outage: Outage,
    /// Time of the last pass for the number of tasks alone.
    pub(super) tasks_sampled: Option<Instant>,
    /// Directories by kernfs id.
    present: FxHashMap<u64, PresentDir>,
    /// The directories in the order of the last pass. The next pass usually has the same order, so no lookup is needed.
    order: Vec<VisitedDir>,
    /// The records of the directories in `order` that were last written to the store; may be shorter than `order`.
    last_records: Vec<SnapshotRecord>,
    /// Number of directories that the current pass has visited.
    cursor: usize,
    /// Whether a directory was added, removed or reordered since the last complete pass.
    changed: bool,
    /// Directories that are gone, but whose final records may still come.
    departed: HashMap<u64, Key>,
    /// Directories below which a walk makes few records or none.
    subtrees: FxHashSet<u64>,
    pass: u64,
    /// Directories of the last pass whose path is not known.
    pub(super) unresolved: u64,
    /// Number of consecutive failed passes.
    pub(super) failed_passes: u32,
}

impl TrackedHierarchy {
    pub(super) fn new(hierarchy: Hierarchy) -> Self {
        Self {
            id: hierarchy_number(&hierarchy),
            hierarchy,
            walk: None,
            last_walk: None,
            listing: None,
            outage: Outage::default(),
            tasks_sampled: None,
            present: FxHashMap::default(),
            order: Vec::new(),
            last_records: Vec::new(),
            cursor: 0,
            changed: false,
            departed: HashMap::new(),
            subtrees: FxHashSet::default(),
            pass: 0,
            unresolved: 0,
            failed_passes: 0,
        }
    }

    /// Whether a directory was added, removed or reordered since the last complete pass.
    pub(super) const fn has_changed(&self) -> bool {
        self.changed
    }

    /// Begins a pass or a listing of the directories.
    pub(super) fn begin_pass(&mut self) {
        self.pass += 1;
        self.unresolved = 0;
        self.cursor = 0;
    }

    /// The pass visits a directory. `None`: its path is not known.
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

    /// Whether the record of the directory just visited equals the last one. If not, stores it as the last one.
    pub(super) fn is_unchanged(&mut self, record: &SnapshotRecord) -> bool {
        let Some(index) = self.cursor.checked_sub(1) else { return false };
        let recorded = self.last_records.len();
        match self.last_records.get_mut(index) {
            Some(last) if last == record => return true,
            Some(last) => *last = *record,
            None if recorded == index => self.last_records.push(*record),
            None => {}
        }
        false
    }

    fn forget_order(&mut self, from: usize) {
        self.order.truncate(from);
        self.last_records.truncate(from);
    }

    /// What a directory stands for, including departed ones.
    pub(super) fn resolve(&self, id: u64) -> Option<ResolvedCgroup> {
        let present = self.present.get(&id).map(|present| present.known);
        present.or_else(|| self.departed.get(&id).map(|key| ResolvedCgroup::Cgroup(*key)))
    }

    /// The kernfs id of a cgroup's directory.
    pub(super) fn id_of(&self, key: Key) -> Option<u64> {
        let mut present = self.present.iter();
        present.find(|(_, present)| present.known == ResolvedCgroup::Cgroup(key)).map(|(id, _)| *id)
    }

    /// Adds a directory. Of those inside containers only so many are kept.
    pub(super) fn insert(&mut self, id: u64, known: ResolvedCgroup) {
        if matches!(known, ResolvedCgroup::Inner(_)) && self.present.len() >= MAX_DIRECTORIES {
            return;
        }
        if self.present.insert(id, PresentDir { known, seen: self.pass }).is_some() {
            self.forget_order(0);
        }
        self.changed = true;
    }

    /// Below the directory, walks make few records or none.
    pub(super) fn add_subtree(&mut self, id: u64) {
        self.subtrees.insert(id);
    }

    /// Takes the subtrees whose directories are gone.
    pub(super) fn take_gone_subtrees(&mut self) -> Vec<u64> {
        let Self { subtrees, present, .. } = self;
        subtrees.extract_if(|id| !present.contains_key(id)).collect()
    }

    /// The cgroups that the last pass did not visit, because it had no room.
    pub(super) fn unvisited(&self) -> Vec<Key> {
        let visited: FxHashSet<u64> = self.order.iter().take(self.cursor).map(|met| met.id).collect();
        let rest = self.present.iter().filter(|(id, _)| !visited.contains(id));
        rest.filter_map(|(_, present)| match present.known {
            ResolvedCgroup::Cgroup(key) => Some(key),
            ResolvedCgroup::Inner(_) => None,
        })
        .collect()
    }

    /// Ends a complete pass or listing. Returns the cgroups that were not visited, which are gone. `expects_final_records`: their
    /// final records may still come. `is_walk`: directories inside containers were left out, so they may still be there.
    pub(super) fn end_pass(&mut self, expects_final_records: bool, is_walk: bool) -> Vec<Key> {
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
            if present.seen == pass || (is_walk && matches!(present.known, ResolvedCgroup::Inner(_))) {
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

    /// Removes a directory, whose final record has come.
    pub(super) fn remove(&mut self, id: u64) -> Option<ResolvedCgroup> {
        self.forget_order(0);
        self.changed = true;
        let present = self.present.remove(&id).map(|present| present.known);
        present.or_else(|| self.departed.remove(&id).map(ResolvedCgroup::Cgroup))
    }

    /// Drops departed cgroups that are settled: no final record is expected any more.
    pub(super) fn forget(&mut self, settled: &[Key]) {
        if !self.departed.is_empty() {
            self.departed.retain(|_, key| !settled.contains(key));
        }
    }
}

/// The kernel's id of a hierarchy: 0 for cgroup v2, else from `/proc/cgroups`; `u32::MAX` if it is not known.
fn hierarchy_number(hierarchy: &Hierarchy) -> u32 {
    if hierarchy.version == Version::V2 {
        return 0;
    }
    let Ok(controllers) = procfs::cgroups() else { return u32::MAX };
    controllers
        .0
        .iter()
        .find(|controller| hierarchy.has(&controller.name))
        .map_or(u32::MAX, |controller| controller.hierarchy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
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
        let mut tracked = TrackedHierarchy::new(hierarchy);
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
        tracked.end_pass(true, true)
    }

    #[test]
    fn cgroups_that_a_complete_pass_does_not_visit_are_gone() {
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
        assert_eq!(walk(&mut tracked, &[3]), [keys[1]], "also the last one of a pass");
        tracked.begin_pass();
        assert_eq!(tracked.visit(1), None);
    }

    #[test]
    fn cgroups_that_are_inserted_and_never_visited_are_gone() {
        let (mut tracked, keys) = tracked();
        assert_eq!(walk(&mut tracked, &[1, 2]), [keys[2]]);
        tracked.insert(3, ResolvedCgroup::Cgroup(keys[2]));
        assert_eq!(walk(&mut tracked, &[1, 2]), [keys[2]]);
    }

    #[test]
    fn unknown_directories_do_not_affect_others() {
        let (mut tracked, _) = tracked();
        assert_eq!(walk(&mut tracked, &[1, 2, 3]), []);
        tracked.begin_pass();
        assert_eq!(tracked.visit(9), None);
        assert!(tracked.visit(1).is_some() && tracked.visit(2).is_some() && tracked.visit(3).is_some());
        assert_eq!(tracked.end_pass(true, true), []);
        assert_eq!(tracked.resolve(9), None);
    }

    #[test]
    fn a_record_is_unchanged_for_the_same_directory_only() {
        let (mut tracked, _) = tracked();
        let record = |id, cpu_usage_ns| SnapshotRecord { id, cpu_usage_ns, ..SnapshotRecord::default() };
        let compare = |tracked: &mut TrackedHierarchy, records: &[(u64, u64)]| -> Vec<bool> {
            tracked.begin_pass();
            let unchanged = records.iter().map(|(id, cpu)| {
                let _ = tracked.visit(*id);
                tracked.is_unchanged(&record(*id, *cpu))
            });
            let unchanged = unchanged.collect();
            assert_eq!(tracked.end_pass(true, true), []);
            unchanged
        };
        assert_eq!(compare(&mut tracked, &[(1, 7), (2, 7), (3, 7)]), [false; 3], "no records before");
        assert_eq!(compare(&mut tracked, &[(1, 7), (2, 8), (3, 7)]), [true, false, true]);
        assert_eq!(compare(&mut tracked, &[(1, 7), (2, 8), (3, 7)]), [true; 3]);
        assert_eq!(compare(&mut tracked, &[(1, 7), (3, 7), (2, 8)]), [true, false, false], "another order");
        tracked.insert(2, ResolvedCgroup::Inner(None));
        assert_eq!(
            compare(&mut tracked, &[(1, 7), (3, 7), (2, 8)]),
            [false; 3],
            "a directory stands for another cgroup"
        );
        walk(&mut tracked, &[1, 3, 2]);
        assert_eq!(
            compare(&mut tracked, &[(1, 7), (3, 7), (2, 8)]),
            [true; 3],
            "a pass that does not compare records keeps them"
        );
    }

    #[test]
    fn removed_cgroups_are_not_visited_any_more() {
        let (mut tracked, keys) = tracked();
        assert_eq!(walk(&mut tracked, &[1, 2, 3]), []);
        assert_eq!(tracked.remove(2), Some(ResolvedCgroup::Cgroup(keys[1])));
        tracked.begin_pass();
        let _ = tracked.visit(1);
        assert_eq!(tracked.visit(2), None);
        let _ = tracked.visit(3);
        assert_eq!(tracked.end_pass(true, true), [], "it was removed before");
    }
}
