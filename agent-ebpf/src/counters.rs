//! Counters by cgroup and CPU.

use aya_ebpf::{bindings::BPF_NOEXIST, maps::PerCpuHashMap};

use crate::events::lost;

/// This CPU's record of a cgroup, made of `none` where there is not one yet. Where there is no room, that is counted in
/// the place `kind` of what was lost.
#[inline(always)]
pub(crate) fn record_of<R>(map: &PerCpuHashMap<u64, R>, id: u64, none: &R, kind: u32) -> Option<*mut R> {
    if let Some(record) = map.get_ptr_mut(id) {
        return Some(record);
    }
    // Another CPU may be doing the same.
    let _ = map.insert(id, none, BPF_NOEXIST.into());
    let record = map.get_ptr_mut(id);
    if record.is_none() {
        lost(kind);
    }
    record
}
