//! Cgroups created, emptied and removed.
//!
//! Programs: `cgroup_made` (tracepoint `cgroup_mkdir`), `cgroup_emptied` (`cgroup_notify_populated`), `cgroup_removed`
//! (`cgroup_rmdir`). Metrics: the final values of removed cgroups in `snug_workload_*`,
//! `snug_workload_containers_started_total`, `snug_workload_containers_ended_total`.

use snug_ebpf::abi::snapshot::SnapshotRecord;

use super::{Component, Round, hierarchy::ResolvedCgroup, pass::record_format, snapshot};
use crate::{
    kernel::{KernelEvent, KernelEventKind},
    values::Measurement,
};

pub(super) struct Lifecycle;

impl Component for Lifecycle {
    fn event(&mut self, round: &mut Round, index: usize, event: &KernelEvent) {
        match &event.kind {
            KernelEventKind::Emptied { path } => emptied(round, index, event, path.as_deref()),
            KernelEventKind::Removed { last, .. } => removed(round, index, event.id, last),
            _ => {}
        }
    }
}

/// The cgroup has no tasks any more: its CPU time is flushed now, because its directory may be removed next.
fn emptied(round: &mut Round, index: usize, event: &KernelEvent, path: Option<&str>) {
    let Some(ResolvedCgroup::Cgroup(key)) = round.resolve(index, event.id) else { return };
    if event.hierarchy == 0 {
        round.store.record_empty(key);
    }
    if index == 0
        && let Some(path) = round.path_of(index, path)
    {
        round.files.flush_cpu_of(&path);
    }
}

fn removed(round: &mut Round, index: usize, id: u64, last: &SnapshotRecord) {
    let Some(tracked) = round.hierarchies.get_mut(index) else { return };
    let Some(known) = tracked.remove(id) else { return };
    let format = record_format(tracked);
    if let Some(kernel) = &mut round.kernel {
        kernel.subtrees.remove(index, id);
    }
    let ResolvedCgroup::Cgroup(key) = known else { return };
    // Without the working set: the inactive file cache is as of the last flush, which is no final value.
    let measured = round.sources.kernel_measurements(index).without(Measurement::WorkingSet);
    round.store.update(key, snapshot::values(last, measured, format));
    round.store.depart(key, index, index == 0, false, round.now);
}
