//! OOM kills: the victim's container, and the cgroup whose limit caused the kill.
//!
//! The kubelet limits a pod to the sum of its containers' limits. The sandbox uses some of it, so a container that grows reaches the pod's limit
//! just before its own. Such a kill is one of the container's limit for the history.
//!
//! Program: `oom_kill` (tracepoint `mark_victim`). Metrics: `snug_workload_oom_kills_total`, and the reason `OOMKilled` of
//! `snug_workload_terminations_total`; events of the kind `oom_kill`.

use std::sync::Arc;

use snug_ebpf::abi::oom::OomEvent;

use super::{Sampler, hierarchy::ResolvedCgroup, lifecycle::unix_of};
use crate::{
    cgroupfs::Measurements,
    identity::Level,
    kernel::{KernelEvent, task_name},
    model::{OomKill, OomScope},
    store::Key,
    values::{Measurement, Memory},
};

const MEMORY: Measurements = Measurements::new(&[Measurement::Memory]);

/// The limit that was too low for a container that was killed at its pod's limit, bytes. `own`: its own limit; `others`: those of the pod's
/// other containers; `highest`: its highest usage.
///
/// A pod without other containers has one limit, whoever enforces it. If the limits of all containers fit into the pod's, the pod
/// reaches its limit only when each container reaches its own. Otherwise the pod is too small for all of them, and what is known of the
/// container is that its highest usage was not enough.
fn exceeded_in_pod(
    own: Option<u64>,
    others: &[Option<u64>],
    of_pod: u64,
    highest: Option<u64>,
) -> Option<u64> {
    if others.is_empty() {
        return Some(own.map_or(of_pod, |own| own.min(of_pod)));
    }
    let sum = others.iter().try_fold(own, |sum, limit| Some(Some(sum?.saturating_add((*limit)?)))).flatten();
    if sum.is_some_and(|sum| sum <= of_pod) { own } else { highest.or(own) }
}

/// `PAGE_COUNTER_MAX` in bytes: no limit.
const NO_LIMIT: u64 = i64::MAX as u64;

impl Sampler {
    pub(super) fn oom_killed(&mut self, index: usize, event: &KernelEvent, kernel_kill: &OomEvent) {
        let Some(tracked) = self.hierarchies.get(index) else { return };
        let Some(victim) = tracked.resolve(event.id).and_then(ResolvedCgroup::owner) else {
            *self.skipped.entry("oom_kills_of_unknown_cgroups").or_default() += 1;
            return;
        };
        let scope = match kernel_kill.limit_id {
            0 => OomScope::Node,
            id => self.scope(victim, tracked.resolve(id).and_then(ResolvedCgroup::owner)),
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
        if let (Some(limit), Some(evidence)) = (self.exceeded_limit(victim, &kill), self.evidence.as_mut()) {
            evidence.oom_killed(&self.store, victim, kill.at_unix, limit);
        }
        self.store.record_oom_kill(victim, kill);
    }

    /// The memory limit that was too low for the victim's container, bytes; `None` if another cgroup was too large or the node too
    /// small.
    fn exceeded_limit(&mut self, victim: Key, kill: &OomKill) -> Option<u64> {
        match kill.scope {
            OomScope::Container => kill.limit_bytes,
            OomScope::Pod => {
                let of_victim = self.memory_of(victim);
                let mut others = Vec::new();
                for (key, is_named) in self.siblings(victim) {
                    let limit = self.memory_of(key).and_then(|memory| memory.limit_bytes);
                    // Without a name and a limit it is the sandbox.
                    if is_named || limit.is_some() {
                        others.push(limit);
                    }
                }
                let own = of_victim.and_then(|memory| memory.limit_bytes);
                let highest = of_victim.map(|memory| memory.peak_bytes.unwrap_or(memory.usage_bytes));
                let highest = highest.filter(|bytes| *bytes > 0);
                exceeded_in_pod(own, &others, kill.limit_bytes?, highest)
            }
            OomScope::Ancestor | OomScope::Node => None,
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
    fn memory_of(&mut self, key: Key) -> Option<Memory> {
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

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_kill_at_the_pods_limit_counts_for_the_container_that_was_too_small() {
        let exceeded = |own: Option<u64>, others: &[Option<u64>], of_pod, usage: Option<u64>| {
            let bytes = |mib: Option<u64>| mib.map(|mib| mib * MIB);
            let others: Vec<_> = others.iter().map(|other| bytes(*other)).collect();
            exceeded_in_pod(bytes(own), &others, of_pod * MIB, bytes(usage)).map(|limit| limit / MIB)
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

    proptest! {
        #[test]
        fn no_limit_above_the_pods_is_reported(
            own in prop::option::of(1..100_u64),
            others in prop::collection::vec(prop::option::of(1..100_u64), 0..3),
            of_pod in 1..200_u64,
            usage in prop::option::of(1..100_u64),
        ) {
            // Usage of a container is at most its own limit and the pod's.
            let usage = usage.map(|usage| usage.min(own.unwrap_or(u64::MAX)).min(of_pod));
            let exceeded = exceeded_in_pod(own, &others, of_pod, usage);
            prop_assert!(exceeded.is_none_or(|limit| limit <= own.unwrap_or(u64::MAX)));
            prop_assert!(exceeded.is_none_or(|limit| limit <= of_pod || usage.is_none()));
        }
    }
}
