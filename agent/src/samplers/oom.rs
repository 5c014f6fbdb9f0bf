//! OOM kills: whose container, and whose limit.

use snug_ebpf::abi::oom::OomEvent;

use super::{Sampler, hierarchy::Known, lifecycle::unix_of};
use crate::{
    identity::Level,
    kernel::{Event, task_name},
    model::{OomKill, OomScope},
    store::Key,
};

/// What the kernel has for "no limit": the pages that fit into a `long` of bytes.
const NO_LIMIT: u64 = i64::MAX as u64;

impl Sampler {
    pub(super) fn oom_killed(&mut self, index: usize, event: &Event, told: &OomEvent) {
        let Some(one) = self.followed.get(index) else { return };
        let Some(victim) = one.known(event.id).and_then(Known::owner) else {
            *self.skipped.entry("oom_kills_of_unknown_cgroups").or_default() += 1;
            return;
        };
        let scope = match told.limit_id {
            0 => OomScope::Node,
            id => self.scope(victim, one.known(id).and_then(Known::owner)),
        };
        let page = procfs::page_size();
        let limit_bytes = told.limit_pages.saturating_mul(page);
        let kill = OomKill {
            at_unix: unix_of(event.at_ns),
            scope,
            usage_bytes: told.usage_pages.saturating_mul(page),
            limit_bytes: (limit_bytes < NO_LIMIT / page * page).then_some(limit_bytes),
            pid: told.pid,
            comm: task_name(&told.comm),
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
        self.store.oom_killed(victim, kill);
    }

    /// What the cgroup whose limit was hit is to the victim's. `None`: not known, so above everything that is.
    fn scope(&self, victim: Key, limiting: Option<Key>) -> OomScope {
        if limiting == Some(victim) {
            return OomScope::Container;
        }
        let level = limiting.and_then(|key| self.store.identity(key)).map(|identity| identity.of_path.level);
        if level == Some(Level::Pod) { OomScope::Pod } else { OomScope::Ancestor }
    }
}
