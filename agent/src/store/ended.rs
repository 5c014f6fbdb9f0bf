//! Removed cgroups: those that wait for their final records, and containers of pods that wait for their names.
//!
//! The name of a container may arrive seconds after the container has ended: a run of a crash loop can be shorter than the
//! kubelet needs to report its id. Such a container is counted when its workload is known, or, after [`NAME_TIMEOUT`], under
//! the kind `Unknown`. It never counts under a workload that is not its own.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Entry, Key, Store, terminations::InitLifecycle};
use crate::{
    clock::unix_now,
    model::{AgentRule, Identity, Init, TerminatedContainer, WorkloadKey},
};

/// How long a removed cgroup waits for its final records. After that its last values count.
pub(super) const FINAL_RECORD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an ended container waits for its name: a kubelet with many new pods reports some of them minutes late.
pub(super) const NAME_TIMEOUT: Duration = Duration::from_secs(300);
/// The maximum number of ended containers that wait for a name. With one more, the first of them is counted without.
pub(super) const MAX_UNNAMED: usize = 1024;

/// The ended containers that wait for names, and those that do not any more.
#[derive(Debug, Default)]
pub(super) struct EndedContainers {
    /// Whether names of pods can still arrive.
    names_expected: bool,
    /// In the order in which they ended.
    unnamed: VecDeque<Key>,
    /// Cgroups that [`Store::take_finished`] has not returned yet.
    finished: Vec<(Key, Arc<Identity>)>,
    /// Containers that got no name in time.
    never_named: u64,
}

/// A removed container of a pod whose workload is not known.
#[derive(Clone, Debug)]
pub struct Unnamed {
    pub key: Key,
    pub identity: Arc<Identity>,
    /// Its init process, if one was seen.
    pub init: Option<Init>,
    /// Whether it will be counted without a name now.
    pub is_last_attempt: bool,
}

impl Entry {
    fn lacks_workload(&self) -> bool {
        let of_path = &self.identity.of_path;
        let in_pod = of_path.level.is_container() && of_path.pod_uid.is_some();
        in_pod && self.workload.is_none() && WorkloadKey::from_identity(&self.identity).is_none()
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.unnamed_since.is_some_and(|since| now.saturating_duration_since(since) >= NAME_TIMEOUT)
    }
}

impl Store {
    /// Sets whether names of pods can arrive after a container has ended. If not, such a container is counted at once.
    pub const fn expect_names(&mut self, expected: bool) {
        self.ended.names_expected = expected;
    }

    /// Containers that were counted without a name, although names were expected.
    pub const fn never_named(&self) -> u64 {
        self.ended.never_named
    }

    /// Removed cgroups that are not settled yet.
    pub fn leaving(&self) -> impl Iterator<Item = (Key, &Arc<Identity>)> {
        let any = self.leaving > 0;
        let is_leaving = |entry: &Entry| entry.leaving_since.is_some() && entry.unnamed_since.is_none();
        let ended = self.entries.iter().filter(move |(_, entry)| is_leaving(entry));
        any.then_some(ended).into_iter().flatten().map(|(key, entry)| (*key, &entry.identity))
    }

    /// Removed containers of pods whose workload is not known.
    pub fn unnamed(&self, now: Instant) -> Vec<Unnamed> {
        let leaving = self.leaving().map(|(key, _)| key);
        let keys = leaving.chain(self.ended.unnamed.iter().copied());
        keys.filter_map(|key| {
            let entry = self.entries.get(&key).filter(|entry| entry.lacks_workload())?;
            Some(Unnamed {
                key,
                identity: entry.identity.clone(),
                init: entry.lifecycle.init.clone(),
                is_last_attempt: entry.is_overdue(now),
            })
        })
        .collect()
    }

    pub(super) fn leave(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.leaving_since = Some(now);
        entry.removed_unix = unix_now();
        self.leaving += 1;
        let path = &entry.identity.path;
        self.leaving_by_path.insert(path.clone(), key);
        if self.by_path.get(path) == Some(&key) {
            self.by_path.remove(path);
            self.parents.remove(&**path);
            self.living = None;
        }
    }

    /// Returns the leaving cgroups for which no final record is expected any more: they get no further values. Counts them if
    /// their workload is known, else when it is.
    pub fn settle(&mut self, now: Instant) -> Vec<Key> {
        let waiting = std::mem::take(&mut self.ended.unnamed);
        for key in waiting {
            let waits = |entry: &Entry| entry.lacks_workload() && !entry.is_overdue(now);
            if self.entries.get(&key).is_some_and(waits) {
                self.ended.unnamed.push_back(key);
            } else {
                self.finish(key);
            }
        }
        if self.leaving == 0 {
            return Vec::new();
        }
        let is_settled = |entry: &Entry| {
            entry.unnamed_since.is_none()
                && entry.leaving_since.is_some_and(|since| {
                    entry.present_in == 0 || now.saturating_duration_since(since) >= FINAL_RECORD_TIMEOUT
                })
        };
        let settled = self.entries.iter().filter(|(_, entry)| is_settled(entry));
        let mut settled: Vec<Key> = settled.map(|(key, _)| *key).collect();
        settled.sort_unstable();
        self.leaving = self.leaving.saturating_sub(settled.len());
        for key in &settled {
            self.record_empty(*key);
            self.count(*key);
            let Some(entry) = self.entries.get_mut(key) else { continue };
            if self.leaving_by_path.get(&entry.identity.path) == Some(key) {
                self.leaving_by_path.remove(&entry.identity.path);
            }
            if self.ended.names_expected && entry.lacks_workload() && AgentRule::LateNames.is_on() {
                entry.unnamed_since = Some(now);
                self.ended.unnamed.push_back(*key);
            } else {
                self.finish(*key);
            }
        }
        while self.ended.unnamed.len() > MAX_UNNAMED
            && let Some(oldest) = self.ended.unnamed.pop_front()
        {
            self.finish(oldest);
        }
        settled
    }

    /// Cgroups that are counted for the last time since the last call, with their final identity.
    pub fn take_finished(&mut self) -> Vec<(Key, Arc<Identity>)> {
        std::mem::take(&mut self.ended.finished)
    }

    /// Counts a settled cgroup for the last time.
    fn finish(&mut self, key: Key) {
        self.count(key);
        let Some(entry) = self.entries.remove(&key) else { return };
        self.ended.finished.push((key, entry.identity.clone()));
        if !entry.identity.of_path.level.is_container() {
            return;
        }
        let workload = match entry.workload {
            Some(workload) => workload,
            None => {
                self.ended.never_named += u64::from(self.ended.names_expected);
                let unknown = self.workloads.admit(WorkloadKey::without_workload(&entry.identity));
                let mut contribution = entry.contribution;
                self.workloads.count(&unknown, &mut contribution, &entry.values);
                unknown
            }
        };
        self.workloads.count_ended(&workload);
        self.terminated.remember(&entry.identity);
        let InitLifecycle { init, termination, last_oom_kill, oom_kills, .. } = entry.lifecycle;
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
        self.terminated_rows = self.terminated.rows();
    }
}
