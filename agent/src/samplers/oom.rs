//! OOM kills: the victim's container, and the cgroup whose limit caused the kill.
//!
//! The kubelet limits a pod to the sum of its containers' limits. The sandbox uses some of it, so a container that grows reaches the pod's limit
//! just before its own. Such a kill is one of the container's limit for the history.
//!
//! Program: `oom_kill` (tracepoint `mark_victim`). Metrics: `snug_workload_oom_kills_total`, and the reason `OOMKilled` of
//! `snug_workload_terminations_total`; events of the kind `oom_kill`.

use std::sync::Arc;

use snug_ebpf::abi::oom::OomEvent;

use super::{Component, Round, cgroups::unix_of, hierarchy::ResolvedCgroup, skipped::Cause};
use crate::{
    cgroupfs::Measurements,
    identity::Level,
    kernel::{KernelEvent, KernelEventKind, task_name},
    model::{AgentRule, OomKill, OomScope},
    store::Key,
    values::{Measurement, Memory},
};

const MEMORY: Measurements = Measurements::new(&[Measurement::Memory]);

/// Limits and usage in the pod of a victim, bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct InPod {
    /// The victim's own limit.
    pub(super) own: Option<u64>,
    /// The limits of the pod's other containers.
    pub(super) others: Vec<Option<u64>>,
    /// The victim's highest usage.
    pub(super) highest: Option<u64>,
}

impl InPod {
    /// The limit that was too low for a container that was killed at the limit `of_pod`.
    ///
    /// A pod without other containers has one limit, whoever enforces it. If the limits of all containers fit into the pod's, the
    /// pod reaches its limit only when each container reaches its own. Otherwise the pod is too small for all of them, and what is
    /// known of the container is that its highest usage was not enough.
    pub(super) fn exceeded(&self, of_pod: u64) -> Option<u64> {
        let Self { own, others, highest } = self;
        if others.is_empty() {
            return Some(own.map_or(of_pod, |own| own.min(of_pod)));
        }
        let sum =
            others.iter().try_fold(*own, |sum, limit| Some(Some(sum?.saturating_add((*limit)?)))).flatten();
        if sum.is_some_and(|sum| sum <= of_pod) { *own } else { highest.or(*own) }
    }
}

/// The memory limit that was too low for the victim's container, bytes, after a kill at a `limit`; `None` if another cgroup was too
/// large or the node too small.
pub(super) fn exceeded_limit(
    scope: OomScope,
    limit: Option<u64>,
    pod: impl FnOnce() -> InPod,
) -> Option<u64> {
    match scope {
        OomScope::Container => limit,
        _ if !AgentRule::ExceededLimit.is_on() => limit,
        OomScope::Pod => pod().exceeded(limit?),
        OomScope::Ancestor | OomScope::Node => None,
    }
}

/// `PAGE_COUNTER_MAX` in bytes: no limit.
const NO_LIMIT: u64 = i64::MAX as u64;

pub(super) struct OomKills;

impl Component for OomKills {
    fn event(&mut self, round: &mut Round, index: usize, event: &KernelEvent) {
        if let KernelEventKind::OomKill(kill) = &event.kind {
            round.oom_killed(index, event, kill);
        }
    }
}

impl Round {
    fn oom_killed(&mut self, index: usize, event: &KernelEvent, kernel_kill: &OomEvent) {
        let Some(victim) = self.resolve(index, event.id).and_then(ResolvedCgroup::owner) else {
            self.skipped[Cause::OomKills] += 1;
            return;
        };
        let scope = match kernel_kill.limit_id {
            0 => OomScope::Node,
            id => self.scope(victim, self.resolve(index, id).and_then(ResolvedCgroup::owner)),
        };
        let page = procfs::page_size();
        let limit_bytes = kernel_kill.limit_pages.saturating_mul(page);
        let kill = OomKill {
            at_unix: unix_of(event.at_ns),
            scope,
            usage_bytes: kernel_kill.usage_pages.saturating_mul(page),
            limit_bytes: (limit_bytes < NO_LIMIT / page * page).then_some(limit_bytes),
            pid: kernel_kill.pid,
            comm: task_name(&kernel_kill.comm),
        };
        tracing::info!(
            path = self.store.identity(victim).map_or("", |identity| &identity.path),
            limit = kill.scope.as_str(),
            pid = kill.pid,
            usage_bytes = kill.usage_bytes,
            limit_bytes = kill.limit_bytes,
            "OOM kill"
        );
        let exceeded = exceeded_limit(kill.scope, kill.limit_bytes, || self.in_pod(victim));
        if let (Some(limit), Some(evidence)) = (exceeded, self.evidence.as_mut()) {
            evidence.oom_killed(&self.store, victim, kill.at_unix, limit);
        }
        self.store.record_oom_kill(victim, kill);
    }

    pub(super) fn in_pod(&mut self, victim: Key) -> InPod {
        let of_victim = self.memory_of(victim);
        let mut others = Vec::new();
        for (key, is_named) in self.siblings(victim) {
            let limit = self.memory_of(key).and_then(|memory| memory.limit_bytes);
            // Without a name and a limit it is the sandbox.
            if is_named || limit.is_some() {
                others.push(limit);
            }
        }
        let highest = of_victim.map(|memory| memory.peak_bytes.unwrap_or(memory.usage_bytes));
        InPod {
            own: of_victim.and_then(|memory| memory.limit_bytes),
            others,
            highest: highest.filter(|bytes| *bytes > 0),
        }
    }

    /// The other containers of the pod, and whether each has a name.
    fn siblings(&self, victim: Key) -> Vec<(Key, bool)> {
        let Some(identity) = self.store.identity(victim) else { return Vec::new() };
        let Some((pod, _)) = identity.path.rsplit_once('/') else { return Vec::new() };
        let living = self.store.living().filter(|(key, other)| {
            let of_pod = other.path.strip_prefix(pod).is_some_and(|rest| rest.rfind('/') == Some(0));
            *key != victim && of_pod && other.of_path.level == Level::Container
        });
        living.map(|(key, other)| (key, other.names.is_some())).collect()
    }

    /// Memory and limit of a container now. The last sample is from before the kill, and a container that is killed in its first
    /// second has none. If the cgroup is gone, the sample, else the limit in the pod's spec.
    pub(super) fn memory_of(&mut self, key: Key) -> Option<Memory> {
        let identity = Arc::clone(self.store.identity(key)?);
        let now = self.files.read(&identity.path, MEMORY).and_then(|values| values.memory);
        now.or_else(|| self.store.values(key)?.memory).or_else(|| {
            let limit_bytes = Some(identity.names.as_ref()?.resources.memory_limit?);
            Some(Memory { limit_bytes, ..Memory::default() })
        })
    }

    /// The relation of the cgroup whose limit caused the kill to the victim's cgroup. `limiting` is `None` if that cgroup is
    /// not known, hence above all known ones.
    fn scope(&self, victim: Key, limiting: Option<Key>) -> OomScope {
        if limiting == Some(victim) {
            return OomScope::Container;
        }
        let level = limiting.and_then(|key| self.store.identity(key)).map(|identity| identity.of_path.level);
        if level == Some(Level::Pod) { OomScope::Pod } else { OomScope::Ancestor }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_kill_at_the_pods_limit_counts_for_the_container_that_was_too_small() {
        let exceeded = |own: Option<u64>, others: &[Option<u64>], of_pod, highest| {
            InPod { own, others: others.to_vec(), highest }.exceeded(of_pod)
        };
        assert_eq!(
            exceeded(Some(64), &[], 64, Some(60)),
            Some(64),
            "the kubelet's limit of a pod of one container"
        );
        assert_eq!(exceeded(None, &[], 64, None), Some(64), "a limit of the pod alone");
        assert_eq!(exceeded(Some(64), &[], 32, None), Some(32), "a lower one of the pod");
        assert_eq!(exceeded(Some(64), &[Some(32)], 96, Some(60)), Some(64), "all are at their limits");
        assert_eq!(
            exceeded(Some(64), &[Some(64)], 96, Some(60)),
            Some(60),
            "the pod is smaller than their sum"
        );
        assert_eq!(exceeded(None, &[Some(64)], 96, Some(60)), Some(60));
        assert_eq!(exceeded(Some(64), &[None], 96, Some(60)), Some(60));
        assert_eq!(exceeded(None, &[None], 96, None), None, "nothing is known");
    }

    #[test]
    fn a_kill_has_the_limit_that_was_too_low_for_the_container_whoever_enforced_it() {
        let bytes = |max: u64| prop::option::of(1..max);
        let others = prop::collection::vec(bytes(100), 0..3);
        let scope = prop::sample::select(OomScope::ALL.to_vec());
        let cases = (scope, bytes(100), others, 1..200_u64, bytes(100)).prop_map(
            |(scope, own, others, limit, highest)| {
                // A container uses at most its own limit and the pod's.
                let highest = highest.map(|bytes| bytes.min(own.unwrap_or(u64::MAX)).min(limit));
                (scope, limit, InPod { own, others, highest })
            },
        );
        AgentRule::ExceededLimit.prove(
            &cases,
            |(scope, ..)| *scope != OomScope::Container,
            |(scope, limit, pod)| {
                let found = exceeded_limit(*scope, Some(*limit), || pod.clone());
                let InPod { own, others, highest } = pod;
                let all = others.iter().chain([own]).copied();
                let sum: Option<u64> = all.collect::<Option<Vec<u64>>>().map(|limits| limits.iter().sum());
                let is_right = match scope {
                    OomScope::Container => found == Some(*limit),
                    OomScope::Ancestor | OomScope::Node => found.is_none(),
                    OomScope::Pod if others.is_empty() => {
                        found == [*own, Some(*limit)].into_iter().flatten().min()
                    }
                    OomScope::Pod if sum.is_some_and(|sum| sum <= *limit) => found == *own,
                    // Never less than what was not enough, and never more than the container could have.
                    OomScope::Pod => {
                        found.is_some() == (own.is_some() || highest.is_some())
                            && found.is_none_or(|bytes| bytes <= own.unwrap_or(u64::MAX))
                            && highest.is_none_or(|highest| found == Some(highest))
                    }
                };
                if is_right { Ok(()) } else { Err(format!("{found:?}")) }
            },
        );
    }
}
