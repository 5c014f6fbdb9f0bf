//! OOM kills that no eBPF program reports: those that the counters of cgroups show, and those that only pod statuses show.
//!
//! Files: `memory.events`; on v1 `memory.oom_control` and `memory.failcnt`. Such kills are in the usage history. They are not in
//! `snug_workload_oom_kills_total`, which has the limit that the kernel enforced.

use std::{sync::Arc, time::Instant};

use rustc_hash::FxHashMap;

use super::{
    Sampler,
    oom::{InPod, exceeded_limit},
};
use crate::{
    clock::unix_now,
    identity::{Identity, Level, PathIdentity, Runtime},
    model::{
        AgentRule, ContainerKind, OomScope,
        pod::{KnownContainer, KnownPod},
    },
    store::{Key, ReportedKill, Store},
    values::MemoryEvents,
};

/// Counters of OOM kills as of the last full round.
#[derive(Debug, Default)]
pub(super) struct KillCounters {
    seen: FxHashMap<Key, MemoryEvents>,
}

/// What the counters of a cgroup show since the last full round.
#[derive(Clone, Copy, Debug, Default)]
struct Increase {
    /// A task was killed.
    kill: bool,
    /// The cgroup ran out of memory at its own limit, or one below it did.
    limit: bool,
}

impl KillCounters {
    /// Containers in which tasks were killed since the last call, and whose limit caused that. `began_unix` is when the agent started:
    /// the counters of older cgroups have kills from before. `has_oom`: whether the kernel counts that a cgroup ran out of memory. On
    /// v1 it does not, and only counts that usage met the limit.
    ///
    /// All kills of a container between two calls are one: with `memory.oom.group` one OOM kills all processes.
    fn kills(&mut self, store: &Store, began_unix: f64, has_oom: bool) -> Vec<(Key, OomScope)> {
        if !AgentRule::CountedKills.is_on() {
            return Vec::new();
        }
        let mut increases: FxHashMap<Key, Increase> = FxHashMap::default();
        let mut killed = Vec::new();
        for (key, identity) in store.living().chain(store.leaving()) {
            let level = identity.of_path.level;
            if !level.is_container() && level != Level::Pod {
                continue;
            }
            let Some(events) = store.values(key).and_then(|values| values.memory_events) else { continue };
            let is_new = store.created(key).is_some_and(|created| created >= began_unix);
            let increase = self.look(key, events, is_new, has_oom);
            if increase.limit {
                increases.insert(key, increase);
            }
            if increase.kill && level.is_container() {
                killed.push((key, identity.path.clone(), increase.limit));
            }
        }
        let scope = |path: &str, own: bool| {
            let pod = path.rsplit_once('/').and_then(|(pod, _)| store.get_by_path(pod));
            match pod.filter(|pod| increases.contains_key(pod)) {
                _ if own => OomScope::Container,
                Some(pod) if store.identity(pod).is_some_and(|pod| pod.of_path.level == Level::Pod) => {
                    OomScope::Pod
                }
                _ => OomScope::Ancestor,
            }
        };
        killed.into_iter().map(|(key, path, own)| (key, scope(&path, own))).collect()
    }

    fn look(&mut self, key: Key, events: MemoryEvents, is_new: bool, has_oom: bool) -> Increase {
        let before = self.seen.insert(key, events).or(is_new.then(MemoryEvents::default));
        let Some(before) = before else { return Increase::default() };
        let limit = if has_oom { events.oom > before.oom } else { events.max > before.max };
        Increase { kill: events.oom_kill > before.oom_kill, limit }
    }

    /// Drops the counters of removed cgroups.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        for key in gone {
            self.seen.remove(key);
        }
    }
}

impl Sampler {
    /// Counts OOM kills that no eBPF program reports; called in each full round.
    pub(super) fn count_unreported_kills(&mut self, now: Instant) {
        if !self.kernel.as_ref().is_some_and(|kernel| kernel.is_running("oom_kill")) {
            self.count_kills_by_counters();
        }
        let kills = self.store.take_reported_kills(self.naming.pods(), self.kills_since(), now);
        for kill in kills {
            self.count_reported_kill(&kill);
        }
    }

    /// Kills that ended before this time are in the history already: an earlier agent with the same data directory recorded them.
    fn kills_since(&self) -> f64 {
        let agent = &self.agent;
        if agent.starts > 1 { agent.started_unix - agent.downtime_seconds } else { 0.0 }
    }

    fn count_kills_by_counters(&mut self) {
        let has_oom = self.hierarchies.iter().any(|tracked| tracked.hierarchy.has_v2_memory());
        for (key, scope) in self.kill_counters.kills(&self.store, self.agent.started_unix, has_oom) {
            let limited = match scope {
                OomScope::Container => Some(key),
                OomScope::Pod => self.pod_of(key),
                OomScope::Ancestor | OomScope::Node => None,
            };
            let limit = limited.and_then(|key| self.memory_of(key)).and_then(|memory| memory.limit_bytes);
            let exceeded = exceeded_limit(scope, limit, || self.in_pod(key));
            tracing::info!(
                path = self.store.identity(key).map_or("", |identity| &identity.path),
                limit = scope.as_str(),
                limit_bytes = limit,
                "OOM kill, by the counters of the cgroup"
            );
            // Also if another cgroup was too large: no status may report it as one at the container's limit.
            self.store.account_oom_kill(key);
            if let (Some(limit), Some(evidence)) = (exceeded, self.evidence.as_mut()) {
                evidence.oom_killed(&self.store, key, unix_now(), limit);
            }
        }
    }

    fn pod_of(&self, key: Key) -> Option<Key> {
        let (pod, _) = self.store.identity(key)?.path.rsplit_once('/')?;
        self.store.get_by_path(pod)
    }

    fn count_reported_kill(&mut self, kill: &ReportedKill) {
        let Some(container) = kill.pod.container(&kill.container) else { return };
        let Some(limit) = limit_in_force(&kill.pod, container) else { return };
        tracing::info!(
            namespace = container.names.namespace,
            pod = container.names.pod,
            container = kill.container,
            limit_bytes = limit,
            "OOM kill, by the pod's status"
        );
        if let Some(evidence) = self.evidence.as_mut() {
            evidence.reported_kill(identity_of(kill, container), kill.at_unix, limit);
        }
    }
}

/// The memory limit that a container reached if it was killed, bytes. `None` if neither it nor its pod has one: then the node was
/// too small. 0 if it was the pod's, of which nobody knows what this container used.
fn limit_in_force(pod: &KnownPod, container: &KnownContainer) -> Option<u64> {
    let own = container.names.resources.memory_limit;
    let Some(of_pod) = pod.names.resources.memory_limit else { return own };
    let runs_beside = |other: &&KnownContainer| {
        other.names.container != container.names.container
            && matches!(other.names.kind, Some(ContainerKind::App | ContainerKind::Sidecar))
    };
    let others = pod.containers.iter().filter(runs_beside).map(|other| other.names.resources.memory_limit);
    InPod { own, others: others.collect(), highest: None }.exceeded(of_pod).or(Some(0))
}

/// The run that was killed. Its cgroup is gone, and its path with it.
fn identity_of(kill: &ReportedKill, container: &KnownContainer) -> Arc<Identity> {
    let of_path = PathIdentity {
        level: Level::Container,
        runtime: Runtime::Unknown,
        pod_uid: Some(kill.pod.uid.to_string()),
        qos: None,
        id: kill.id.to_string(),
    };
    Arc::new(Identity { path: "".into(), of_path, names: Some(Arc::clone(&container.names)) })
}

#[cfg(test)]
mod tests;
