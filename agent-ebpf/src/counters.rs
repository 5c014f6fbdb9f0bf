//! Per-CPU maps with one record per cgroup.

use aya_ebpf::{bindings::BPF_NOEXIST, maps::PerCpuHashMap};

use crate::events::count_lost;

/// This CPU's record of the cgroup `id`, inserted as a copy of `none` if the map has no such key. If the map is full,
/// returns `None` and counts a loss of `kind`, an index in `LOST_KINDS`.
#[inline(always)]
pub(crate) fn record_of<R>(map: &PerCpuHashMap<u64, R>, id: u64, none: &R, kind: u32) -> Option<*mut R> {
    if let Some(record) = map.get_ptr_mut(id) {
        return Some(record);
    }
    // Another CPU may insert the same key at the same time: then this call fails and the lookup succeeds.
    let _ = map.insert(id, none, BPF_NOEXIST.into());
    let record = map.get_ptr_mut(id);
    if record.is_none() {
        count_lost(kind);
    }
    record
}
