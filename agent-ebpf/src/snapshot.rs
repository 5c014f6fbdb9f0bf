//! One record per cgroup, in one pass over a hierarchy.
//!
//! The records go into an array that the agent has mapped: what a `read` of the iterator returns is capped at 32 KiB,
//! and a cgroup iteration cannot be resumed. The pass holds `cgroup_mutex`, hence: fixed work per cgroup, no loops.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::Array};
use snug_ebpf::abi::{
    look::{NOT_FOLLOWED, Wanted},
    snapshot::{HAS_ALL, PassEnd},
};

use crate::{
    look,
    maps::{PASS_END, RECORDS},
    read::{Typed, fill, identify},
};

/// What the agent wants of the next walk: one entry.
#[map]
static WANTED: Array<Wanted> = Array::with_max_entries(1, 0);

/// What the kernel hands an iterator program: pointers to its meta data and to the cgroup.
#[repr(C)]
pub(crate) struct CgroupIterContext {
    meta: *const IterMeta,
    cgroup: *const u8,
}

/// `struct bpf_iter_meta`.
#[repr(C)]
pub(crate) struct IterMeta {
    seq_file: *const u8,
    session_id: u64,
    seq_num: u64,
}

/// Fills the next record. The agent drives it by reading the iterator to its end.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/cgroup")]
extern "C" fn snapshot(context: *const CgroupIterContext) -> i32 {
    // SAFETY: the kernel calls an iterator program with a valid context and meta data.
    let (cgroup, first) = unsafe { ((*context).cgroup, (*(*context).meta).seq_num == 0) };
    let Some(end) = PASS_END.get_ptr_mut(0) else { return 0 };
    // SAFETY: the entry lives as long as the map, and passes exclude each other by `cgroup_mutex`.
    let end = unsafe { &mut *end };
    if cgroup.is_null() {
        // SAFETY: the helper has no precondition.
        end.held_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(end.started_ns);
        return 0;
    }
    let everything = Wanted { groups: HAS_ALL, hierarchy: NOT_FOLLOWED };
    let Wanted { groups, hierarchy } = WANTED.get(0).copied().unwrap_or(everything);
    if first {
        // SAFETY: the helper has no precondition.
        *end = PassEnd { started_ns: unsafe { bpf_ktime_get_ns() }, ..PassEnd::default() };
        look::begin(hierarchy);
    }
    let stored = end.cgroups - end.lost - end.unreadable;
    end.cgroups += 1;
    match u32::try_from(stored).ok().and_then(|index| RECORDS.get_ptr_mut(index)) {
        Some(record) => {
            // SAFETY: the entry lives as long as the map; nobody else writes it during the pass.
            let record = unsafe { &mut *record };
            match identify(record, cgroup) {
                Some(()) => {
                    (record.has, record.reserved) = (0, 0);
                    fill::<Typed>(record, cgroup, groups);
                    look::remember(hierarchy, cgroup, record);
                }
                None => end.unreadable += 1,
            }
        }
        None => end.lost += 1,
    }
    if end.lost + end.unreadable > 0 {
        // A look would not see all that the walk has met.
        look::made_or_removed(hierarchy);
    }
    0
}
