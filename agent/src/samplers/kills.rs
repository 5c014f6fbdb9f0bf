//! OOM kills that no eBPF program reports: those that the counters of cgroups show, and those that only pod statuses show.
//!
//! Files: `memory.events`; on v1 `memory.oom_control` and `memory.max_usage_in_bytes`. No metric: such kills are in the usage history. They are not
//! in `snug_workload_oom_kills_total`, which has the limit that the kernel enforced.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Component, Round,
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
    values::{Memory, MemoryEvents},
};

/// Counters of OOM kills as of the last full round.
#[derive(Debug, Default)]
pub(super) struct KillCounters {
    seen: FxHashMap<Key, MemoryEvents>,
}

/// Whether usage ever met the limit. The kernel charges memory in advance, by CPU, so the highest usage can be a bit lower.
fn met_limit(memory: Memory) -> bool {
    let Memory { peak_bytes, limit_bytes, .. } = memory;
    let charged_ahead = |limit: u64| (limit / 64).max(1 << 20);
    limit_bytes
        .zip(peak_bytes)
        .is_some_and(|(limit, peak)| peak >= limit.saturating_sub(charged_ahead(limit)))
}

impl KillCounters {
    /// Containers in which tasks were killed since the last call, and whose limit caused that. `began_unix` is when the agent started:
    /// the counters of older cgroups have kills from before. `has_oom`: whether the kernel counts that a cgroup ran out of memory, as
    /// v2 does. On v1 the highest usage shows which limit was ever met.
    ///
    /// All kills of a container between two calls are one: with `memory.oom.group` one OOM kills all processes.
    fn kills(&mut self, store: &Store, began_unix: f64, has_oom: bool) -> Vec<(Key, OomScope)> {
        if !AgentRule::CountedKills.is_on() {
            return Vec::new();
        }
        let mut out_of_memory: FxHashSet<Key> = FxHashSet::default();
        let mut killed = Vec::new();
        for (key, identity) in store.living().chain(store.leaving()) {
            let level = identity.of_path.level;
            if !level.is_container() && level != Level::Pod {
                continue;
            }
            let Some(values) = store.values(key) else { continue };
            let Some(events) = values.memory_events else { continue };
            let is_new = store.created(key).is_some_and(|created| created >= began_unix);
            let before = self.seen.insert(key, events).or(is_new.then(MemoryEvents::default));
            let Some(before) = before else { continue };
            let at_limit =
                if has_oom { events.oom > before.oom } else { values.memory.is_some_and(met_limit) };
            if at_limit {
                out_of_memory.insert(key);
            }
            if events.oom_kill > before.oom_kill && level.is_container() {
                killed.push((key, identity.path.clone()));
            }
        }
        let scope = |key: &Key, path: &str| {
            let pod = path.rsplit_once('/').and_then(|(pod, _)| store.get_by_path(pod));
            let is_pod = |pod: &Key| store.identity(*pod).is_some_and(|pod| pod.of_path.level == Level::Pod);
            if out_of_memory.contains(key) {
                OomScope::Container
            } else if pod.filter(is_pod).is_some_and(|pod| out_of_memory.contains(&pod)) {
                OomScope::Pod
            } else {
                OomScope::Ancestor
            }
        };
        killed.into_iter().map(|(key, path)| (key, scope(&key, &path))).collect()
    }
}

impl Component for KillCounters {
    fn round(&mut self, round: &mut Round) {
        if round.is_full {
            self.finish(round);
        }
    }

    fn finish(&mut self, round: &mut Round) {
        if !round.is_running("oom_kill") {
            self.count(round);
        }
        let kills = round.store.take_reported_kills(round.naming.pods(), round.kills_since(), round.now);
        for kill in kills {
            round.count_reported_kill(&kill);
        }
    }

    fn forget(&mut self, _: &mut Round, settled: &[Key]) {
        for key in settled {
            self.seen.remove(key);
        }
    }
}

impl KillCounters {
    fn count(&mut self, round: &mut Round) {
        let has_oom = round.hierarchies.iter().any(|tracked| tracked.hierarchy.has_v2_memory());
        for (key, scope) in self.kills(&round.store, round.agent.started_unix, has_oom) {
            round.count_kill(key, scope);
        }
    }
}

impl Round {
    /// Kills that ended before this time are in the history already: an earlier agent with the same data directory recorded them.
    fn kills_since(&self) -> f64 {
        let agent = &self.agent;
        if agent.starts > 1 { agent.started_unix - agent.downtime_seconds } else { 0.0 }
    }

    fn count_kill(&mut self, key: Key, scope: OomScope) {
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

    fn pod_of(&self, key: Key) -> Option<Key> {
        let (pod, _) = self.store.identity(key)?.path.rsplit_once('/')?;
        self.store.get_by_path(pod)
    }

    fn count_reported_kill(&mut self, kill: &ReportedKill) {
        let Some(container) = kill.pod.container(&kill.container) else { return };
        let Some(limit) = reached_limit(&kill.pod, container) else { return };
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
fn reached_limit(pod: &KnownPod, container: &KnownContainer) -> Option<u64> {
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
    let names = Some(Arc::clone(&container.names));
    Arc::new(Identity { path: "".into(), of_path, names, engine_name: None })
}

#[cfg(test)]
mod tests;
