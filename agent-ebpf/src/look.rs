//! CPU time once more, of the cgroups that the last walk met: ten times a second, where a walk is made once a second.
//!
//! The walk leaves the addresses of the cgroups, and a look reads there. That is sound because a look that finds a cgroup made or
//! removed since the walk reads nothing, and because programs run in a read-side critical section of RCU: who is told of as removed
//! only after the look began is not freed before it ends. (`cgroup_rmdir` in kernel/cgroup/cgroup.c holds a reference while the
//! tracepoint is hit, and css_free_rwork follows a grace period.)

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use snug_ebpf::abi::look::{CHUNK, LookRecord, LookState, Place, STALE};

use crate::read::{field, offset, pointer};

/// The cgroups of the last walk over cgroup v2, without the root, whose sums the kernel keeps elsewhere. The agent sets the size.
#[map]
static PLACES: Array<Place> = Array::with_max_entries(8192, 0);

/// What the last look found. The agent sets the size.
#[map]
static LOOK_RECORDS: Array<LookRecord> = Array::with_max_entries(8192, BPF_F_MMAPABLE);

/// One entry.
#[map]
static LOOK_STATE: Array<LookState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Has looks refuse until the next walk: a cgroup of cgroup v2 is made or removed, under `cgroup_mutex`, as walks are.
#[inline(always)]
pub(crate) fn made_or_removed() {
    if let Some(state) = LOOK_STATE.get_ptr_mut(0) {
        // SAFETY: the entry lives as long as the map; a look reads this field, and writes another.
        unsafe { (&raw mut (*state).fresh).write_volatile(0) };
    }
}

/// A walk over cgroup v2 begins.
#[inline(always)]
pub(crate) fn begin() {
    let Some(state) = LOOK_STATE.get_ptr_mut(0) else { return };
    // SAFETY: the entry lives as long as the map; the agent does not look while it walks.
    unsafe { *state = LookState { fresh: 1, places: 0, records: 0 } };
}

/// A walk has met a cgroup.
#[inline(always)]
pub(crate) fn remember(cgroup: *const u8, id: u64, cpu_usage_ns: u64, level: u32) {
    let Some(state) = LOOK_STATE.get_ptr_mut(0) else { return };
    // SAFETY: as above.
    let state = unsafe { &mut *state };
    let free = u32::try_from(state.places).ok().and_then(|index| PLACES.get_ptr_mut(index));
    if let Some(place) = free {
        // SAFETY: as above.
        unsafe { *place = Place { cgroup: cgroup as u64, id, cpu_usage_ns, level, reserved: 0 } };
        state.places += 1;
    }
}

/// Looks at `CHUNK` places from the one on that the agent, who runs it, gives as its argument. aya's macro would drop what it returns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn look(arguments: *const u64) -> u32 {
    // SAFETY: the kernel calls a program of a raw tracepoint with valid arguments.
    let first = unsafe { *arguments };
    let Some(state) = LOOK_STATE.get_ptr_mut(0) else { return STALE };
    // SAFETY: the entry lives as long as the map; volatile, because a cgroup may be made or removed meanwhile.
    if unsafe { (&raw const (*state).fresh).read_volatile() } == 0 {
        return STALE;
    }
    // SAFETY: of the other fields looks alone, one after the other, write `records`, and nobody `places`.
    let (places, found) = unsafe { ((*state).places, &mut (*state).records) };
    let mut records = if first == 0 { 0 } else { *found };
    // Below a cgroup that used nothing nobody did: a flush adds up from the leaves, and places lie below each other as in the walk.
    let mut at_rest = u32::MAX;
    for place in 0..CHUNK {
        let index = first as u32 + place;
        if u64::from(index) >= places {
            break;
        }
        let Some(place) = PLACES.get_ptr_mut(index) else { break };
        // SAFETY: the entry lives as long as the map.
        let place = unsafe { &mut *place };
        if place.level > at_rest {
            continue;
        }
        at_rest = u32::MAX;
        let cgroup = place.cgroup as *const u8;
        let Some(cpu_usage_ns) = field(cgroup, offset!(cgroup_cpu_runtime)) else { continue };
        if cpu_usage_ns == place.cpu_usage_ns {
            at_rest = place.level;
            continue;
        }
        place.cpu_usage_ns = cpu_usage_ns;
        let Some(record) = LOOK_RECORDS.get_ptr_mut(records as u32) else { break };
        let memory = pointer(cgroup, offset!(cgroup_memory));
        let memory_usage_pages = memory.and_then(|memory| field(memory, offset!(memory_usage))).unwrap_or(0);
        // SAFETY: as above.
        unsafe { *record = LookRecord { id: place.id, cpu_usage_ns, memory_usage_pages } };
        records += 1;
    }
    *found = records;
    0
}
