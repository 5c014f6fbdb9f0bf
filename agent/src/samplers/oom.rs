//! OOM kills: the victim's container, and the cgroup whose limit caused the kill.
//!
//! Program: `oom_kill` (tracepoint `mark_victim`). Metrics: `snug_workload_oom_kills_total`, and the reason `OOMKilled` of
//! `snug_workload_terminations_total`; events of the kind `oom_kill`.

use snug_ebpf::abi::oom::OomEvent;

use super::{Sampler, hierarchy::ResolvedCgroup, lifecycle::unix_of};
use crate::{
    identity::Level,
    kernel::{KernelEvent, task_name},
    model::{OomKill, OomScope},
    store::Key,
};

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
        if let (OomScope::Container, Some(limit), Some(evidence)) =
            (kill.scope, kill.limit_bytes, self.evidence.as_mut())
        {
            evidence.oom_killed(&self.store, victim, kill.at_unix, limit);
        }
        self.store.record_oom_kill(victim, kill);
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
