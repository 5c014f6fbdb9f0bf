//! The cgroups that the last walk met, seen once more: ten times a second, where walks are seldom.
//!
//! A walk leaves the addresses of the cgroups, and a look reads there. That is sound because a look that finds a cgroup made or
//! removed since the walk reads nothing, and because programs run in a read-side critical section of RCU: who is told of as removed
//! only after the look began is not freed before it ends. (`cgroup_rmdir` in kernel/cgroup/cgroup.c holds a reference while the
//! tracepoint is hit, and css_free_rwork follows a grace period.) It saves what the iterator costs for each cgroup, and `cgroup_mutex`.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use snug_ebpf::abi::{
    look::{CHUNK, LookState, MOST_HIERARCHIES, ONLY_BUSY, Place, STALE},
    snapshot::{HAS_CPU, PassEnd, SnapshotRecord},
};

use crate::{
    read::{Address, field, fill, offset},
    snapshot::{PASS_END, RECORDS},
};

/// The cgroups of the last walk over each followed hierarchy: so many places for the first one, then as many for the next. The agent
/// sets the size.
#[map]
static PLACES: Array<Place> = Array::with_max_entries(8192, 0);

/// One entry for each followed hierarchy.
#[map]
static LOOK_STATE: Array<LookState> = Array::with_max_entries(MOST_HIERARCHIES as u32, BPF_F_MMAPABLE);

/// Places of each hierarchy. Set before loading.
#[unsafe(no_mangle)]
static MAX_CGROUPS: u32 = 8192;

fn place(hierarchy: u32, index: u32) -> Option<*mut Place> {
    // SAFETY: a reference to a static is valid for reads; volatile, because the agent sets it before loading.
    let room = unsafe { core::ptr::read_volatile(&raw const MAX_CGROUPS) };
    if index < room { PLACES.get_ptr_mut(hierarchy * room + index) } else { None }
}

/// Has looks at a hierarchy refuse until its next walk: a cgroup of it is made or removed, under `cgroup_mutex`, as walks are.
#[inline(always)]
pub(crate) fn made_or_removed(hierarchy: u32) {
    if let Some(state) = LOOK_STATE.get_ptr_mut(hierarchy) {
        // SAFETY: the entry lives as long as the map; a look only reads it.
        unsafe { (&raw mut (*state).fresh).write_volatile(0) };
    }
}

/// A walk over a hierarchy begins.
#[inline(always)]
pub(crate) fn begin(hierarchy: u32) {
    let Some(state) = LOOK_STATE.get_ptr_mut(hierarchy) else { return };
    // SAFETY: the entry lives as long as the map; the agent does not look while it walks.
    unsafe { *state = LookState { fresh: 1, places: 0 } };
}

/// A walk has met a cgroup.
#[inline(always)]
pub(crate) fn remember(hierarchy: u32, cgroup: *const u8, record: &SnapshotRecord) {
    let Some(state) = LOOK_STATE.get_ptr_mut(hierarchy) else { return };
    // SAFETY: as above.
    let state = unsafe { &mut *state };
    if let Some(free) = place(hierarchy, state.places) {
        let SnapshotRecord { id, serial, cpu_usage_ns, level, .. } = *record;
        // SAFETY: as above.
        unsafe { *free = Place { cgroup: cgroup as u64, id, serial, cpu_usage_ns, level, reserved: 0 } };
        state.places += 1;
    }
}

/// Looks at `CHUNK` places and writes records as a walk does. The agent, who runs it, gives as arguments: the first place, the
/// hierarchy, and the groups of fields that it wants, with [`ONLY_BUSY`] or without. aya's macro would drop what it returns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn look(arguments: *const u64) -> u32 {
    // SAFETY: the kernel calls a program of a raw tracepoint with valid arguments.
    let [first, hierarchy, wanted] = unsafe { [*arguments, *arguments.add(1), *arguments.add(2)] };
    let (first, hierarchy, wanted) = (first as u32, hierarchy as u32, wanted as u32);
    let Some(state) = LOOK_STATE.get_ptr_mut(hierarchy) else { return STALE };
    // SAFETY: the entry lives as long as the map; volatile, because a cgroup may be made or removed meanwhile.
    if unsafe { (&raw const (*state).fresh).read_volatile() } == 0 {
        return STALE;
    }
    // SAFETY: nobody walks while the agent looks.
    let places = unsafe { (*state).places };
    let Some(end) = PASS_END.get_ptr_mut(0) else { return STALE };
    // SAFETY: as above.
    let end = unsafe { &mut *end };
    if first == 0 {
        *end = PassEnd::default();
    }
    // Below a cgroup that used nothing nobody did: a flush adds up from the leaves, and places lie below each other as in the walk.
    let mut at_rest = u32::MAX;
    for index in first..first.saturating_add(CHUNK) {
        if index >= places {
            break;
        }
        let Some(place) = place(hierarchy, index) else { break };
        // SAFETY: the entry lives as long as the map.
        let place = unsafe { &mut *place };
        let cgroup = place.cgroup as *const u8;
        if wanted & ONLY_BUSY != 0 {
            if place.level > at_rest {
                continue;
            }
            at_rest = u32::MAX;
            // The kernel keeps the root's sums elsewhere.
            let seen = if place.level == 0 { None } else { field(cgroup, offset!(cgroup_cpu_runtime)) };
            match seen {
                Some(cpu_usage_ns) if place.cpu_usage_ns != cpu_usage_ns => {}
                Some(_) => {
                    at_rest = place.level;
                    continue;
                }
                None => continue,
            }
        }
        let Some(record) = RECORDS.get_ptr_mut(end.cgroups as u32) else { break };
        // SAFETY: as above.
        let record = unsafe { &mut *record };
        record.id = place.id;
        record.level = place.level;
        record.serial = place.serial;
        fill::<Address>(record, cgroup, wanted);
        if record.has & HAS_CPU != 0 {
            place.cpu_usage_ns = record.cpu_usage_ns;
        }
        end.cgroups += 1;
    }
    0
}
