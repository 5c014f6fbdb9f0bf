//! The store: one writer (the sampling thread), one view for readers.
//!
//! Cgroups are the entries. Names are attributes of an entry and may arrive later. A removed cgroup leaves the view at
//! once, and its usage stays in the counters of its workload. For up to a second the cgroup may be *leaving*: it is no
//! longer in the view, but the final record of another hierarchy is still expected. A container of a pod that ends before its
//! workload is known waits for its name, and is counted when it has one (see `ended`).

mod counting;
mod ended;
mod monotone;
mod recorder;
mod reported;
pub mod terminations;
mod view;
mod workloads;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use rustc_hash::FxHashMap;

pub(crate) use self::view::Stamp;
use self::{
    ended::EndedContainers,
    recorder::Recorder,
    reported::Reported,
    terminations::{InitLifecycle, RecentTerminations},
    view::Living,
    workloads::{Contribution, Workloads},
};
pub use self::{
    ended::Unnamed,
    recorder::MAX_EVENTS,
    reported::{KERNEL_REPORT_TIMEOUT, ReportedKill},
};
use crate::{
    model::{
        CgroupRow, EventDetails, Exit, Identity, Init, Level, Names, OomKill, PathIdentity, Subject,
        TerminatedContainer, TerminationReason, WorkloadKey, WorkloadRow,
    },
    values::{Cpu, Values},
};

/// The id of a cgroup in the store. It is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

/// A set of hierarchies: one bit for each.
type Hierarchies = u8;

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    /// The stamp when the cgroup was last added to its workload.
    counted: Stamp,
    /// Its index in [`Living`]. Stale if the cgroup is leaving.
    index: usize,
    identity: Arc<Identity>,
    created_unix: f64,
    values: Values,
    contribution: Contribution,
    workload: Option<WorkloadKey>,
    present_in: Hierarchies,
    /// All hierarchies that the cgroup has ever been in.
    appeared_in: Hierarchies,
    /// When the cgroup was removed, if it was.
    leaving_since: Option<Instant>,
    /// Since when the settled cgroup waits for its name, if it does.
    unnamed_since: Option<Instant>,
    /// When the cgroup was removed, seconds since the Unix epoch.
    removed_unix: f64,
    lifecycle: InitLifecycle,
}

impl Entry {
    fn row(&self) -> CgroupRow {
        CgroupRow {
            identity: self.identity.clone(),
            created_unix: self.created_unix,
            values: self.values.clone(),
        }
    }
}

/// A cgroup as it is when it is first seen.
#[derive(Debug)]
pub struct Appearance {
    /// Path below the hierarchy's root.
    pub path: Arc<str>,
    /// The identity that its path gives it.
    pub of_path: PathIdentity,
    /// Seconds since the Unix epoch.
    pub created_unix: f64,
    /// Whether the cgroup existed before the agent's first pass.
    pub present_at_start: bool,
}

/// All cgroups and workloads.
#[derive(Debug)]
pub struct Store {
    entries: FxHashMap<Key, Entry>,
    by_path: HashMap<Arc<str>, Key>,
    /// By path, the cgroup that started leaving last.
    leaving_by_path: HashMap<Arc<str>, Key>,
    /// The living cgroups in the order of the view; `None` after a cgroup was added, removed or renamed.
    living: Option<Living>,
    /// Paths of cgroups with children.
    parents: HashSet<Box<str>>,
    leaving: usize,
    ended: EndedContainers,
    /// New cgroups that [`Store::next_appeared`] has not returned yet.
    appeared: VecDeque<Key>,
    next_key: u64,
    workloads: Workloads,
    workload_rows: Arc<[WorkloadRow]>,
    terminated: RecentTerminations,
    terminated_rows: Arc<[Arc<TerminatedContainer>]>,
    reported: Reported,
    reported_kills: Reported,
    /// Exit codes that [`Store::take_exits`] has not returned yet.
    exits: Vec<(Key, u8)>,
    events: Recorder,
    /// Rows of an old view, whose memory the next view reuses, and the stamps of these rows.
    spare: (Vec<CgroupRow>, Vec<Stamp>),
    /// The last stamp that was assigned.
    stamp: Stamp,
    regressions: u64,
}

impl Entry {
    fn join(&mut self, hierarchy: usize) {
        self.present_in |= bit(hierarchy);
        self.appeared_in |= bit(hierarchy);
    }
}

impl Store {
    /// An empty store with room for `max_workloads` workloads.
    pub fn new(max_workloads: usize) -> Self {
        Self {
            entries: FxHashMap::default(),
            by_path: HashMap::new(),
            leaving_by_path: HashMap::new(),
            living: None,
            parents: HashSet::new(),
            leaving: 0,
            ended: EndedContainers::default(),
            appeared: VecDeque::new(),
            next_key: 0,
            workloads: Workloads::new(max_workloads),
            workload_rows: Arc::new([]),
            terminated: RecentTerminations::default(),
            terminated_rows: Arc::new([]),
            reported: Reported::default(),
            reported_kills: Reported::default(),
            exits: Vec::new(),
            events: Recorder::default(),
            spare: (Vec::new(), Vec::new()),
            stamp: 0,
            regressions: 0,
        }
    }

    /// The living cgroup at a path.
    pub fn get_by_path(&self, path: &str) -> Option<Key> {
        self.by_path.get(path).copied()
    }

    /// Whether `key` is in `hierarchy`.
    pub fn is_in(&self, key: Key, hierarchy: usize) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.present_in & bit(hierarchy) != 0)
    }

    /// Adds a cgroup that appeared in `hierarchy`.
    ///
    /// If a cgroup exists at the same path and is not yet in this hierarchy, the two are one cgroup. If it is already in
    /// this hierarchy, the path was reused and the old cgroup was removed. A leaving cgroup may also join: it was removed
    /// before every hierarchy had reported its creation.
    pub fn appear(&mut self, appearance: Appearance, hierarchy: usize, now: Instant) -> Key {
        if let Some(key) = self.get_by_path(&appearance.path) {
            match self.entries.get_mut(&key) {
                Some(entry) if entry.present_in & bit(hierarchy) == 0 => {
                    entry.join(hierarchy);
                    return key;
                }
                Some(_) => self.leave(key, now),
                None => {}
            }
        } else if let Some(key) = self.leaving_by_path.get(&appearance.path).copied()
            && let Some(entry) = self.entries.get_mut(&key)
            && entry.appeared_in & bit(hierarchy) == 0
        {
            entry.join(hierarchy);
            return key;
        }
        let Appearance { path, of_path, created_unix, present_at_start } = appearance;
        self.mark_parents(&path);
        let key = Key(self.next_key);
        self.next_key += 1;
        let stamp = self.next_stamp();
        let entry = Entry {
            stamp,
            counted: 0,
            index: 0,
            identity: Arc::new(Identity { path: path.clone(), of_path, names: None, engine_name: None }),
            created_unix,
            values: Values::default(),
            contribution: Contribution::new(present_at_start),
            workload: None,
            present_in: bit(hierarchy),
            appeared_in: bit(hierarchy),
            leaving_since: None,
            unnamed_since: None,
            removed_unix: 0.0,
            lifecycle: InitLifecycle::default(),
        };
        let is_parent = self.parents.contains(&*path);
        self.entries.insert(key, entry);
        self.by_path.insert(path, key);
        self.appeared.push_back(key);
        self.living = None;
        if is_parent {
            self.make_slice(key);
        }
        key
    }

    /// The next new cgroup, in the order of appearance. Each cgroup is returned once.
    pub fn next_appeared(&mut self) -> Option<Key> {
        self.appeared.pop_front()
    }

    /// Merges new values. A leaving cgroup still accepts values.
    pub fn update(&mut self, key: Key, values: Values) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.contribution.baseline(&values);
        let advanced = monotone::advance(&mut entry.values, values);
        self.regressions += advanced.held;
        if advanced.changed {
            entry.mark_changed(key, stamp, &mut self.living);
        }
    }

    /// Like [`Self::update`] for CPU time alone, which most updates are.
    pub fn update_cpu(&mut self, key: Key, cpu: Cpu) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match &mut entry.values.cpu {
            Some(old) if *old == cpu => {}
            Some(old) if old.usage_ns < cpu.usage_ns => {
                *old = cpu;
                entry.mark_cpu_changed(key, stamp, &mut self.living);
            }
            _ => self.update(key, Values { cpu: Some(cpu), ..Values::default() }),
        }
    }

    /// Sets whether [`Self::record_oom_kill`] is called for every OOM kill. If not, workloads export no OOM kills.
    pub const fn set_oom_kills_reported(&mut self, reported: bool) {
        self.workloads.oom_kills_reported = reported;
    }

    /// The living cgroup at a path, else its nearest ancestor.
    pub fn enclosing(&self, path: &str) -> Option<Key> {
        let mut path = path;
        loop {
            if let Some(key) = self.get_by_path(path) {
                return Some(key);
            }
            path = &path[..path.rfind('/').filter(|slash| *slash > 0)?];
        }
    }

    /// Records the start of a container's init process.
    pub fn record_start(&mut self, key: Key, init: Init) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.lifecycle.start(init, entry.identity.of_path.level);
    }

    /// Records the exit of a container's init process. The termination counts at once, unless the process may have been one of
    /// the runtime's own.
    pub fn record_exit(&mut self, key: Key, exit: Exit, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let ended = entry.lifecycle.exit(exit, entry.identity.of_path.level, now);
        self.terminated(key, ended);
    }

    /// Records that a cgroup has no process any more.
    pub fn record_empty(&mut self, key: Key) {
        let ended = self.entries.get_mut(&key).and_then(|entry| entry.lifecycle.confirm_exit());
        self.terminated(key, ended);
    }

    fn terminated(&mut self, key: Key, ended: Option<(TerminationReason, u8)>) {
        let (Some(ended), Some(entry)) = (ended, self.entries.get_mut(&key)) else { return };
        let of_path = &entry.identity.of_path;
        // Every sandbox is killed when its pod is deleted. No one should be alerted about that.
        if of_path.level != Level::Sandbox || ended.0 == TerminationReason::OomKilled {
            entry.contribution.terminations.push(ended);
            self.exits.push((key, ended.1));
            if let Some(termination) = &entry.lifecycle.termination {
                let at_unix = termination.ended_unix;
                let details = EventDetails::Termination(termination.clone());
                self.events.record(Subject::new(&entry.identity), details, at_unix, Instant::now());
            }
        }
        self.reported.account(&of_path.id);
        self.count(key);
    }

    /// Records an OOM kill in a container.
    pub fn record_oom_kill(&mut self, key: Key, kill: OomKill) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.contribution.oom_kills.push(kill.scope);
        let (subject, at_unix) = (Subject::new(&entry.identity), kill.at_unix);
        self.events.record(subject, EventDetails::OomKill(kill.clone()), at_unix, Instant::now());
        entry.lifecycle.add_oom_kill(kill);
        self.account_oom_kill(key);
        self.count(key);
    }

    /// Exit codes of the containers that terminated since the last call.
    pub fn take_exits(&mut self) -> Vec<(Key, u8)> {
        std::mem::take(&mut self.exits)
    }

    /// Records an event that the store cannot derive itself.
    pub fn record(&mut self, subject: Subject, details: EventDetails, at_unix: f64, now: Instant) {
        self.events.record(subject, details, at_unix, now);
    }

    /// The last values of a cgroup.
    pub fn values(&self, key: Key) -> Option<&Values> {
        self.entries.get(&key).map(|entry| &entry.values)
    }

    /// Version: changes whenever the cgroup's state does.
    pub(crate) fn stamp(&self, key: Key) -> Option<Stamp> {
        self.entries.get(&key).map(|entry| entry.stamp)
    }

    /// When a cgroup was created, in seconds since the Unix epoch.
    pub fn created(&self, key: Key) -> Option<f64> {
        self.entries.get(&key).map(|entry| entry.created_unix)
    }

    /// The identity of a cgroup.
    pub fn identity(&self, key: Key) -> Option<&Arc<Identity>> {
        self.entries.get(&key).map(|entry| &entry.identity)
    }

    /// Sets the names of a cgroup, and its level, which for a sandbox only the names reveal.
    pub fn set_names(&mut self, key: Key, names: Arc<Names>, level: Level) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.identity.names.as_deref() == Some(&*names) && entry.identity.of_path.level == level {
            return;
        }
        if level == Level::Sandbox {
            // It was not known to be one when it ended: see `terminated`.
            entry.contribution.terminations.retain(|(reason, _)| *reason == TerminationReason::OomKilled);
        }
        let of_path = PathIdentity { level, ..entry.identity.of_path.clone() };
        entry.identity = Arc::new(Identity { of_path, names: Some(names), ..(*entry.identity).clone() });
        entry.stamp = stamp;
        self.living = None;
        self.events.named(&entry.identity);
    }

    /// Sets the name that an engine gave to a container.
    pub fn set_engine_name(&mut self, key: Key, name: &str) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.identity = Arc::new(Identity { engine_name: Some(name.into()), ..(*entry.identity).clone() });
        entry.stamp = stamp;
        self.living = None;
    }

    /// A cgroup is no longer in `hierarchy`. The cgroup starts leaving when this is its primary hierarchy or its last one.
    /// With `awaited`, a final record of this hierarchy may still arrive.
    pub fn depart(&mut self, key: Key, hierarchy: usize, primary: bool, awaited: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if !awaited {
            entry.present_in &= !bit(hierarchy);
        }
        let ended = primary || entry.present_in == 0;
        if ended && entry.leaving_since.is_none() {
            self.leave(key, now);
        }
    }

    /// Living cgroups.
    pub fn living(&self) -> impl Iterator<Item = (Key, &Arc<Identity>)> {
        self.by_path.values().filter_map(|key| self.entries.get(key).map(|entry| (*key, &entry.identity)))
    }

    fn mark_parents(&mut self, path: &str) {
        let mut end = path.len();
        while let Some(slash) = path[..end].rfind('/').filter(|slash| *slash > 0) {
            end = slash;
            let parent = &path[..end];
            if !self.parents.insert(parent.into()) {
                return;
            }
            if let Some(key) = self.get_by_path(parent) {
                self.make_slice(key);
            }
        }
    }

    /// Turns a cgroup with children into a slice, for example a container that is a kind node. Its counters include those
    /// of its children, so counting both would count usage twice. The cgroup stays a slice when the children are gone.
    fn make_slice(&mut self, key: Key) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if matches!(entry.identity.of_path.level, Level::Cgroup | Level::Container | Level::Unit) {
            let of_path = PathIdentity { level: Level::Slice, ..entry.identity.of_path.clone() };
            entry.identity = Arc::new(Identity { of_path, ..(*entry.identity).clone() });
            entry.stamp = stamp;
            self.living = None;
        }
    }
}

fn bit(hierarchy: usize) -> Hierarchies {
    1 << (hierarchy % 8)
}

#[cfg(test)]
mod tests;
