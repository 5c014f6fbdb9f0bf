//! One record per cgroup, in one walk over a hierarchy by the kernel's cgroup iterator.
//!
//! The records go into an array that the agent has mapped, not into the output of the iterator: a `read` of the iterator
//! returns at most 32 KiB, and a cgroup iteration cannot be resumed. The walk holds `cgroup_mutex`, so the program does a
//! fixed amount of work per cgroup, without loops.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::Array};
use snug_ebpf::abi::{
    sample::{NOT_CACHED, WalkRequest},
    snapshot::{HAS_ALL, PassStats},
};

use crate::{
    maps::{PASS_STATS, RECORDS},
    read::{TypedPointer, fill, identify, load, offset},
    sample,
    subtree::WalkState,
};

/// Parameters of the next walk, set by the agent: one entry.
#[map]
static WALK_REQUEST: Array<WalkRequest> = Array::with_max_entries(1, 0);

/// `struct bpf_iter__cgroup`: the argument of an iterator program.
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

/// Fills the next record. The kernel calls the program for each cgroup, and once with a null cgroup at the end, while the
/// agent reads the iterator.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/cgroup")]
extern "C" fn snapshot(context: *const CgroupIterContext) -> i32 {
    // SAFETY: the kernel calls an iterator program with a valid context and meta data.
    let (cgroup, first) = unsafe { ((*context).cgroup, (*(*context).meta).seq_num == 0) };
    let Some(stats) = PASS_STATS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the entry lives as long as the map, and passes exclude each other by `cgroup_mutex`.
    let stats = unsafe { &mut *stats };
    if cgroup.is_null() {
        // SAFETY: the helper has no precondition.
        stats.held_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(stats.started_ns);
        return 0;
    }
    let everything = WalkRequest { groups: HAS_ALL, hierarchy: NOT_CACHED };
    let WalkRequest { groups, hierarchy } = WALK_REQUEST.get(0).copied().unwrap_or(everything);
    if first {
        // SAFETY: the helper has no precondition.
        *stats = PassStats { started_ns: unsafe { bpf_ktime_get_ns() }, ..PassStats::default() };
        sample::begin_walk(hierarchy);
    }
    let Some(state) = WalkState::of_walk(first) else { return 0 };
    let level = load(cgroup, offset!(cgroup_level)).unwrap_or(0);
    if !state.admits(level) {
        stats.enclosed += 1;
        return 0;
    }
    let stored = stats.cgroups - stats.lost - stats.unreadable;
    stats.cgroups += 1;
    // The map has one more entry than records: if it is full, cgroups are identified there to find the containers among them.
    match u32::try_from(stored).ok().and_then(|index| RECORDS.get_ptr_mut(index)) {
        Some(record) => {
            // SAFETY: the entry lives as long as the map; nobody else writes it during the pass.
            let record = unsafe { &mut *record };
            match identify(record, cgroup) {
                Some(()) => {
                    state.enter(record.id, level, hierarchy);
                    if stored < u64::from(sample::max_cgroups()) {
                        (record.has, record.reserved) = (0, 0);
                        fill::<TypedPointer>(record, cgroup, groups);
                        sample::cache(hierarchy, cgroup, record);
                    } else {
                        stats.lost += 1;
                    }
                }
                None => stats.unreadable += 1,
            }
        }
        None => stats.lost += 1,
    }
    if stats.lost + stats.unreadable > 0 {
        // The cache lacks a cgroup, so sampling it would be incomplete.
        sample::invalidate(hierarchy);
    }
    0
}
