//! The cgroups that the last walk met, seen once more: ten times a second, where walks are seldom.
//!
//! A walk leaves the addresses of the cgroups, and a look reads there. That is sound because a look that finds a cgroup made or
//! removed since the walk reads nothing, and because programs run in a read-side critical section of RCU: who is told of as removed
//! only after the look began is not freed before it ends. (`cgroup_rmdir` in kernel/cgroup/cgroup.c holds a reference while the
//! tracepoint is hit, and css_free_rwork follows a grace period.) It saves what the iterator costs for each cgroup, and `cgroup_mutex`.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use snug_ebpf::abi::{
    look::{LOOK_CHUNK, LookState, MOST_HIERARCHIES, Place, REVISIT_CHUNK, STALE},
    snapshot::{
        HAS_CPU, HAS_MEMORY, HAS_PIDS, HAS_PRESSURE, HAS_THROTTLING, HAS_WORKING_SET, PassEnd, SnapshotRecord,
    },
};

use crate::{
    maps::{PASS_END, RECORDS},
    read::{Address, field, fill, offset, pointer},
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

/// The places of a hierarchy that one run sees, from the one on that the agent, who runs the program, gives as its first argument; the
/// second is the hierarchy.
struct Seen {
    hierarchy: u32,
    first: u32,
    places: u32,
    end: &'static mut PassEnd,
}

impl Seen {
    /// `None`: the last walk is out of date.
    #[inline(always)]
    fn of(arguments: *const u64) -> Option<Self> {
        // SAFETY: the kernel calls a program of a raw tracepoint with valid arguments.
        let (first, hierarchy) = unsafe { (*arguments as u32, *arguments.add(1) as u32) };
        let state = LOOK_STATE.get_ptr_mut(hierarchy)?;
        // SAFETY: the entry lives as long as the map; volatile, because a cgroup may be made or removed meanwhile.
        let fresh = unsafe { (&raw const (*state).fresh).read_volatile() } != 0;
        // SAFETY: nobody walks while the agent looks.
        let places = unsafe { (*state).places };
        // SAFETY: the entry lives as long as the map, and runs exclude each other.
        let end = unsafe { &mut *PASS_END.get_ptr_mut(0)? };
        if first == 0 {
            *end = PassEnd::default();
        }
        fresh.then_some(Self { hierarchy, first, places, end })
    }

    /// A place, `index` after the first; `None` at the end.
    #[inline(always)]
    fn place(&self, index: u32) -> Option<&'static mut Place> {
        let index = self.first + index;
        let place = if index < self.places { place(self.hierarchy, index) } else { None };
        // SAFETY: the entry lives as long as the map, and runs exclude each other.
        place.map(|place| unsafe { &mut *place })
    }

    /// Fills groups of fields of the places' records, the first of which is `record`.
    #[inline(always)]
    fn fill(&self, record: u32, groups: u32) {
        for index in 0..REVISIT_CHUNK {
            let Some(place) = self.place(index) else { break };
            let Some(record) = RECORDS.get_ptr_mut(record + index) else { break };
            // SAFETY: as above.
            let record = unsafe { &mut *record };
            fill::<Address>(record, place.cgroup as *const u8, groups);
            if groups & HAS_CPU != 0 {
                place.cpu_usage_ns = record.cpu_usage_ns;
            }
        }
    }

    /// The next record, of the cgroup of a place; `None` if there is no room.
    #[inline(always)]
    fn record(&mut self, place: &Place) -> Option<&'static mut SnapshotRecord> {
        // SAFETY: as above.
        let record = unsafe { &mut *RECORDS.get_ptr_mut(self.end.cgroups as u32)? };
        (record.id, record.level, record.serial) = (place.id, place.level, place.serial);
        self.end.cgroups += 1;
        Some(record)
    }
}

/// Writes records of the cgroups that have used CPU time since they were last seen, with that and memory usage. aya's macro would drop
/// what it returns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn look(arguments: *const u64) -> u32 {
    let Some(mut seen) = Seen::of(arguments) else { return STALE };
    // Below a cgroup that used nothing nobody did: a flush adds up from the leaves, and places lie below each other as in the walk.
    let mut at_rest = u32::MAX;
    for index in 0..LOOK_CHUNK {
        let Some(place) = seen.place(index) else { break };
        if place.level > at_rest {
            continue;
        }
        at_rest = u32::MAX;
        if place.level == 0 {
            // The kernel keeps its sums elsewhere.
            continue;
        }
        let cgroup = place.cgroup as *const u8;
        let Some(cpu_usage_ns) = field(cgroup, offset!(cgroup_cpu_runtime)) else { continue };
        if cpu_usage_ns == place.cpu_usage_ns {
            at_rest = place.level;
            continue;
        }
        place.cpu_usage_ns = cpu_usage_ns;
        let Some(record) = seen.record(place) else { break };
        let memory = pointer(cgroup, offset!(cgroup_memory));
        record.memory_usage_pages =
            memory.and_then(|memory| field(memory, offset!(memory_usage))).unwrap_or(0);
        record.cpu_usage_ns = cpu_usage_ns;
        record.has = HAS_CPU;
    }
    0
}

/// Writes records as a walk does; the third argument is the groups of fields that are wanted.
///
/// A loop for each group, because the verifier follows all branches of all rounds.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn revisit(arguments: *const u64) -> u32 {
    let Some(mut seen) = Seen::of(arguments) else { return STALE };
    let before = seen.end.cgroups as u32;
    for index in 0..REVISIT_CHUNK {
        let Some(place) = seen.place(index) else { break };
        let Some(record) = seen.record(place) else { break };
        (record.has, record.reserved) = (0, 0);
    }
    // SAFETY: as in `Seen::of`.
    let wanted = unsafe { *arguments.add(2) } as u32;
    if wanted & HAS_CPU != 0 {
        seen.fill(before, HAS_CPU);
    }
    if wanted & HAS_THROTTLING != 0 {
        seen.fill(before, HAS_THROTTLING);
    }
    if wanted & HAS_MEMORY != 0 {
        seen.fill(before, HAS_MEMORY | HAS_WORKING_SET);
    }
    if wanted & HAS_PRESSURE != 0 {
        seen.fill(before, HAS_PRESSURE);
    }
    if wanted & HAS_PIDS != 0 {
        seen.fill(before, HAS_PIDS);
    }
    0
}
