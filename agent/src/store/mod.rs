//! The store: one writer (the sampling thread), one view for readers.
//!
//! The key is the cgroup. Names are attributes that may come later. A cgroup that has ended leaves the view at once;
//! what it did stays in its workload's counters. Between the two it may be *leaving*: gone from the view, but with a
//! final record of another hierarchy still on its way.

mod counting;
mod monotone;
mod recorder;
mod reported;
pub mod terminations;
mod view;
mod workloads;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

pub use self::recorder::MAX_EVENTS;
pub(crate) use self::view::Stamp;
use self::{
    recorder::Recorder,
    reported::ReportedTerminations,
    terminations::{Life, RecentTerminations},
    view::Living,
    workloads::{Contribution, Workloads},
};
use crate::{
    clock::unix_now,
    model::{
        CgroupRow, EventDetails, Exit, Identity, Init, Level, Names, OomKill, PathIdentity, Subject,
        TerminatedContainer, TerminationReason, WorkloadKey, WorkloadRow,
    },
    values::{Cpu, Values},
};

/// How long an ended cgroup waits for its final records before it is counted as it was last seen.
const LEAVING: Duration = Duration::from_secs(1);

/// A cgroup in the store. Never used for two cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

/// The hierarchies that a cgroup is in, as bits of their numbers.
type Hierarchies = u8;

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    /// The stamp that it had when it was last counted in its workload.
    counted: Stamp,
    /// Its place among the living; of another one if it does not live.
    place: usize,
    identity: Arc<Identity>,
    created_unix: f64,
    values: Values,
    contribution: Contribution,
    workload: Option<WorkloadKey>,
    present_in: Hierarchies,
    /// Those that it ever appeared in.
    appeared_in: Hierarchies,
    /// When it ended, if it has.
    leaving_since: Option<Instant>,
    /// When it ended, seconds since the Unix epoch.
    removed_unix: f64,
    life: Life,
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

/// What is known of a cgroup when it appears.
#[derive(Debug)]
pub struct Appearance {
    /// Path below the hierarchy's root.
    pub path: Arc<str>,
    /// Who it is.
    pub of_path: PathIdentity,
    /// Seconds since the Unix epoch.
    pub created_unix: f64,
    /// Whether it was there before the agent looked for the first time.
    pub present_at_start: bool,
}

/// All cgroups and workloads.
#[derive(Debug)]
pub struct Store {
    entries: FxHashMap<Key, Entry>,
    by_path: HashMap<Arc<str>, Key>,
    /// The last one that is leaving, by path.
    leaving_by_path: HashMap<Arc<str>, Key>,
    /// The living as they are shown; `None` after a change of who they are.
    living: Option<Living>,
    /// Paths with something below them.
    parents: HashSet<Box<str>>,
    leaving: usize,
    /// Not yet taken by [`Store::next_appeared`].
    appeared: VecDeque<Key>,
    next: u64,
    workloads: Workloads,
    rows: Arc<[WorkloadRow]>,
    terminated: RecentTerminations,
    terminated_rows: Arc<[Arc<TerminatedContainer>]>,
    reported: ReportedTerminations,
    /// Exit codes that were not taken yet.
    exits: Vec<(Key, u8)>,
    events: Recorder,
    /// Rows of an old view, to be written over, and what they show.
    spare: (Vec<CgroupRow>, Vec<Stamp>),
    /// The last one that was given out.
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
            appeared: VecDeque::new(),
            next: 0,
            workloads: Workloads::new(max_workloads),
            rows: Arc::new([]),
            terminated: RecentTerminations::default(),
            terminated_rows: Arc::new([]),
            reported: ReportedTerminations::default(),
            exits: Vec::new(),
            events: Recorder::default(),
            spare: (Vec::new(), Vec::new()),
            stamp: 0,
            regressions: 0,
        }
    }

    /// The living cgroup at a path.
    pub fn at(&self, path: &str) -> Option<Key> {
        self.by_path.get(path).copied()
    }

    /// Whether `key` is in `hierarchy`.
    pub fn is_in(&self, key: Key, hierarchy: usize) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.present_in & bit(hierarchy) != 0)
    }

    /// Adds a cgroup that appeared in `hierarchy`. One that still lives at the same path is joined if it is not yet
    /// known in this hierarchy; else the path has been used again and the old one has ended. One that is leaving is
    /// joined likewise: it was removed before its making was told by every hierarchy.
    pub fn appear(&mut self, appearance: Appearance, hierarchy: usize, now: Instant) -> Key {
        if let Some(key) = self.at(&appearance.path) {
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
        let key = Key(self.next);
        self.next += 1;
        let stamp = self.next_stamp();
        let entry = Entry {
            stamp,
            counted: 0,
            place: 0,
            identity: Arc::new(Identity { path: path.clone(), of_path, names: None }),
            created_unix,
            values: Values::default(),
            contribution: Contribution::new(present_at_start),
            workload: None,
            present_in: bit(hierarchy),
            appeared_in: bit(hierarchy),
            leaving_since: None,
            removed_unix: 0.0,
            life: Life::default(),
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

    /// The next cgroup, in the order in which they appeared: each is told once.
    pub fn next_appeared(&mut self) -> Option<Key> {
        self.appeared.pop_front()
    }

    /// Takes over what was measured. Values of a cgroup that is leaving are taken too.
    pub fn update(&mut self, key: Key, values: Values) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.contribution.baseline(&values);
        let advanced = monotone::advance(&mut entry.values, values);
        self.regressions += advanced.held;
        if advanced.changed {
            entry.show_anew(key, stamp, &mut self.living);
        }
    }

    /// As [`Self::update`] of CPU time alone, which is what most updates are.
    pub fn update_cpu(&mut self, key: Key, cpu: Cpu) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match &mut entry.values.cpu {
            Some(old) if *old == cpu => {}
            Some(old) if old.usage_ns < cpu.usage_ns => {
                *old = cpu;
                entry.show_cpu_anew(key, stamp, &mut self.living);
            }
            _ => self.update(key, Values { cpu: Some(cpu), ..Values::default() }),
        }
    }

    /// Whether [`Self::oom_killed`] is called for every OOM kill, so that their number is known.
    pub const fn tell_oom_kills(&mut self, told: bool) {
        self.workloads.oom_kills_reported = told;
    }

    /// The living cgroup that a path lies in, or at.
    pub fn around(&self, path: &str) -> Option<Key> {
        let mut path = path;
        loop {
            if let Some(key) = self.at(path) {
                return Some(key);
            }
            path = &path[..path.rfind('/').filter(|slash| *slash > 0)?];
        }
    }

    /// The init process of a container has started.
    pub fn started(&mut self, key: Key, init: Init) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.life.start(init, entry.identity.of_path.level);
    }

    /// The init process of a container has ended: counted at once, unless it may have been the runtime's own.
    pub fn exited(&mut self, key: Key, exit: Exit, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let ended = entry.life.end(exit, entry.identity.of_path.level, now);
        self.terminated(key, ended);
    }

    /// The last process of a cgroup has ended.
    pub fn emptied(&mut self, key: Key) {
        let ended = self.entries.get_mut(&key).and_then(|entry| entry.life.nothing_follows());
        self.terminated(key, ended);
    }

    fn terminated(&mut self, key: Key, ended: Option<(TerminationReason, u8)>) {
        let (Some(ended), Some(entry)) = (ended, self.entries.get_mut(&key)) else { return };
        let of_path = &entry.identity.of_path;
        // Every sandbox is killed when its pod goes, which is nothing to alert on.
        if of_path.level != Level::Sandbox || ended.0 == TerminationReason::OomKilled {
            entry.contribution.terminations.push(ended);
            self.exits.push((key, ended.1));
            if let Some(termination) = &entry.life.termination {
                let at_unix = termination.ended_unix;
                let details = EventDetails::Termination(termination.clone());
                self.events.record(Subject::new(&entry.identity), details, at_unix, Instant::now());
            }
        }
        self.reported.account(&of_path.id);
        self.count(key);
    }

    /// The OOM killer has chosen a victim in a container.
    pub fn oom_killed(&mut self, key: Key, kill: OomKill) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.contribution.oom_kills.push(kill.scope);
        let (subject, at_unix) = (Subject::new(&entry.identity), kill.at_unix);
        self.events.record(subject, EventDetails::OomKill(kill.clone()), at_unix, Instant::now());
        entry.life.kill(kill);
        self.count(key);
    }

    /// Exit codes of the containers that have ended since this was last asked.
    pub fn take_exits(&mut self) -> Vec<(Key, u8)> {
        std::mem::take(&mut self.exits)
    }

    /// Records an event that the store itself cannot see.
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

    /// Who a cgroup is.
    pub fn identity(&self, key: Key) -> Option<&Arc<Identity>> {
        self.entries.get(&key).map(|entry| &entry.identity)
    }

    /// Gives names to a cgroup, and its level where only they tell (a sandbox).
    pub fn name(&mut self, key: Key, names: Arc<Names>, level: Level) {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.identity.names.as_deref() == Some(&*names) && entry.identity.of_path.level == level {
            return;
        }
        let of_path = PathIdentity { level, ..entry.identity.of_path.clone() };
        entry.identity =
            Arc::new(Identity { path: entry.identity.path.clone(), of_path, names: Some(names) });
        entry.stamp = stamp;
        self.living = None;
        self.events.named(&entry.identity);
    }

    /// A cgroup is no longer in `hierarchy`. Out of the first one it was known in, or out of all: it has ended.
    /// `final_values` is its last state, `awaited` whether final records of this hierarchy may still come.
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

    /// Counts the cgroups that have ended and for which nothing more is to come; returns them.
    pub fn settle(&mut self, now: Instant) -> Vec<Key> {
        if self.leaving == 0 {
            return Vec::new();
        }
        let settled: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                entry.leaving_since.is_some_and(|since| {
                    entry.present_in == 0 || now.saturating_duration_since(since) >= LEAVING
                })
            })
            .map(|(key, _)| *key)
            .collect();
        self.leaving = self.leaving.saturating_sub(settled.len());
        for key in &settled {
            self.emptied(*key);
            self.count(*key);
            let Some(entry) = self.entries.remove(key) else { continue };
            if self.leaving_by_path.get(&entry.identity.path) == Some(key) {
                self.leaving_by_path.remove(&entry.identity.path);
            }
            if entry.identity.of_path.level.is_container() {
                let workload = match entry.workload {
                    Some(workload) => workload,
                    None => {
                        let pod = self.workloads.admit(WorkloadKey::without_workload(&entry.identity));
                        let mut contribution = entry.contribution;
                        self.workloads.count(&pod, &mut contribution, &entry.values);
                        pod
                    }
                };
                self.workloads.ended(&workload);
                let Life { init, termination, last_oom_kill, oom_kills, .. } = entry.life;
                self.terminated.push(TerminatedContainer {
                    identity: entry.identity,
                    created_unix: entry.created_unix,
                    removed_unix: entry.removed_unix,
                    init,
                    termination,
                    last_oom_kill,
                    oom_kills,
                    values: entry.values,
                });
            }
        }
        self.terminated_rows = self.terminated.rows();
        settled
    }

    /// Living cgroups.
    pub fn living(&self) -> impl Iterator<Item = (Key, &Arc<Identity>)> {
        self.by_path.values().filter_map(|key| self.entries.get(key).map(|entry| (*key, &entry.identity)))
    }

    /// Cgroups that have ended and are not settled yet.
    pub fn leaving(&self) -> impl Iterator<Item = (Key, &Arc<Identity>)> {
        let any = self.leaving > 0;
        let ended = self.entries.iter().filter(|(_, entry)| entry.leaving_since.is_some());
        any.then_some(ended).into_iter().flatten().map(|(key, entry)| (*key, &entry.identity))
    }

    fn leave(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.leaving_since = Some(now);
        entry.removed_unix = unix_now();
        self.terminated.remember(&entry.identity);
        self.leaving += 1;
        let path = &entry.identity.path;
        self.leaving_by_path.insert(path.clone(), key);
        if self.by_path.get(path) == Some(&key) {
            self.by_path.remove(path);
            self.parents.remove(&**path);
            self.living = None;
        }
    }

    fn mark_parents(&mut self, path: &str) {
        let mut end = path.len();
        while let Some(slash) = path[..end].rfind('/').filter(|slash| *slash > 0) {
            end = slash;
            let parent = &path[..end];
            if !self.parents.insert(parent.into()) {
                return;
            }
            if let Some(key) = self.at(parent) {
                self.make_slice(key);
            }
        }
    }

    /// What has other cgroups of the store below it is a sum and no container, or these would count twice: a plain
    /// cgroup with children, a container or unit that runs containers itself (a kind node). It stays one, because its
    /// counters hold theirs.
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
