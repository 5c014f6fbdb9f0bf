//! Sampling the cgroups of the last walk without another walk, ten times a second.
//!
//! A walk caches the addresses of the cgroups; the programs `sample_active` and `resample` read there. Unlike a walk they
//! do not take `cgroup_mutex` and do not pay for the iterator.
//!
//! No freed cgroup is read. The creation or removal of a cgroup invalidates the cached addresses, and the programs read
//! nothing then. A cgroup that is removed while a program runs is not freed before the program ends: the program is an RCU
//! read-side critical section, `cgroup_rmdir` (kernel/cgroup/cgroup.c) holds a reference in its tracepoint, and
//! `css_free_rwork` waits for a grace period.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use snug_ebpf::abi::{
    sample::{CacheState, CgroupRef, MAX_HIERARCHIES, RESAMPLE_CHUNK, SAMPLE_ACTIVE_CHUNK, STALE},
    snapshot::{
        HAS_CPU, HAS_MEMORY, HAS_PIDS, HAS_PRESSURE, HAS_THROTTLING, HAS_WORKING_SET, PassStats,
        SnapshotRecord,
    },
};

use crate::{
    maps::{PASS_STATS, RECORDS},
    read::{Hidden, RawAddress, field, fill, offset, pointer},
};

/// The cgroups of the last walk over each sampled hierarchy: [`MAX_CGROUPS`] entries per hierarchy. The agent sets the
/// size.
#[map]
static CACHED_CGROUPS: Array<CgroupRef> = Array::with_max_entries(8192, 0);

/// One entry per sampled hierarchy.
#[map]
static CACHE_STATE: Array<CacheState> = Array::with_max_entries(MAX_HIERARCHIES as u32, BPF_F_MMAPABLE);

/// Entries of each hierarchy in [`CACHED_CGROUPS`]. Set before loading.
#[unsafe(no_mangle)]
static MAX_CGROUPS: u32 = 8192;

/// Maximum number of records, and of cached cgroups of a hierarchy.
pub(crate) fn max_cgroups() -> u32 {
    // SAFETY: a reference to a static is valid for reads; volatile, because the agent sets it before loading.
    unsafe { core::ptr::read_volatile(&raw const MAX_CGROUPS) }
}

fn cached(hierarchy: u32, index: u32) -> Option<*mut CgroupRef> {
    let room = max_cgroups();
    if index < room { CACHED_CGROUPS.get_ptr_mut(hierarchy * room + index) } else { None }
}

/// Invalidates the cached addresses of a hierarchy until its next walk. Called when a cgroup is created or removed, which
/// happens under `cgroup_mutex`, as walks do.
#[inline(always)]
pub(crate) fn invalidate(hierarchy: u32) {
    if let Some(state) = CACHE_STATE.get_ptr_mut(hierarchy) {
        // SAFETY: the entry lives as long as the map; the sampling programs only read it.
        unsafe { (&raw mut (*state).valid).write_volatile(0) };
    }
}

/// Empties the cache of a hierarchy when a walk over it begins.
#[inline(always)]
pub(crate) fn begin_walk(hierarchy: u32) {
    let Some(state) = CACHE_STATE.get_ptr_mut(hierarchy) else { return };
    // SAFETY: the entry lives as long as the map; the agent does not sample while it walks.
    unsafe { *state = CacheState { valid: 1, ..CacheState::default() } };
}

/// Caches a cgroup that the walk visits.
#[inline(always)]
pub(crate) fn cache(hierarchy: u32, cgroup: *const u8, record: &SnapshotRecord) {
    let Some(state) = CACHE_STATE.get_ptr_mut(hierarchy) else { return };
    // SAFETY: as above.
    let state = unsafe { &mut *state };
    if let Some(free) = cached(hierarchy, state.cgroups) {
        let SnapshotRecord { id, serial, cpu_usage_ns, level, .. } = *record;
        // SAFETY: as above.
        unsafe { *free = CgroupRef { cgroup: cgroup as u64, id, serial, cpu_usage_ns, level, reserved: 0 } };
        state.cgroups += 1;
    }
}

/// The cached cgroups that one run of a program samples. The agent passes the index of the first cgroup and the index of
/// the hierarchy as the program's arguments.
struct Chunk {
    hierarchy: u32,
    first: u32,
    cgroups: u32,
    /// [`CacheState::idle_level`]. In a map, because the verifier does not tell apart the values there: in a variable, it would check
    /// each iteration once for each way through the one before.
    idle_level: Hidden<u32>,
    stats: &'static mut PassStats,
}

impl Chunk {
    /// `None`: the cached addresses are invalid.
    #[inline(always)]
    fn from_arguments(arguments: *const u64) -> Option<Self> {
        // SAFETY: the kernel calls a program of a raw tracepoint with valid arguments.
        let (first, hierarchy) = unsafe { (*arguments as u32, *arguments.add(1) as u32) };
        let state = CACHE_STATE.get_ptr_mut(hierarchy)?;
        // SAFETY: the entry lives as long as the map; volatile, because a cgroup may be created or removed meanwhile.
        let valid = unsafe { (&raw const (*state).valid).read_volatile() } != 0;
        // SAFETY: the agent does not walk while it samples.
        let (cgroups, idle_level) = unsafe { ((*state).cgroups, Hidden::new(&raw mut (*state).idle_level)) };
        // SAFETY: the entry lives as long as the map, and runs exclude each other.
        let stats = unsafe { &mut *PASS_STATS.get_ptr_mut(0)? };
        if first == 0 {
            *stats = PassStats::default();
        }
        valid.then_some(Self { hierarchy, first, cgroups, idle_level, stats })
    }

    /// The cached cgroup `index` after the first; `None` at the end.
    #[inline(always)]
    fn cgroup(&self, index: u32) -> Option<&'static mut CgroupRef> {
        let index = self.first + index;
        let cached = if index < self.cgroups { cached(self.hierarchy, index) } else { None };
        // SAFETY: the entry lives as long as the map, and runs exclude each other.
        cached.map(|cached| unsafe { &mut *cached })
    }

    /// Fills groups of fields (`HAS_*`) of the chunk's records; the first record has the index `first_record`.
    #[inline(always)]
    fn fill_records(&self, first_record: u32, groups: u32) {
        for index in 0..RESAMPLE_CHUNK {
            let Some(cached) = self.cgroup(index) else { break };
            let Some(record) = RECORDS.get_ptr_mut(first_record + index) else { break };
            // SAFETY: as above.
            let record = unsafe { &mut *record };
            fill::<RawAddress>(record, cached.cgroup as *const u8, groups);
            if groups & HAS_CPU != 0 {
                cached.cpu_usage_ns = record.cpu_usage_ns;
            }
        }
    }

    /// Appends a record for a cgroup; `None` if the map is full.
    #[inline(always)]
    fn next_record(&mut self, cgroup: &CgroupRef) -> Option<&'static mut SnapshotRecord> {
        // SAFETY: as above.
        let record = unsafe { &mut *RECORDS.get_ptr_mut(self.stats.cgroups as u32)? };
        (record.id, record.level, record.serial) = (cgroup.id, cgroup.level, cgroup.serial);
        self.stats.cgroups += 1;
        Some(record)
    }
}

/// Writes a record with CPU time and memory usage for each cgroup whose CPU time has changed since it was last sampled.
///
/// Without aya's macro, which would discard the return value.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn sample_active(arguments: *const u64) -> u32 {
    let Some(mut chunk) = Chunk::from_arguments(arguments) else { return STALE };
    // If a cgroup used no CPU time, its descendants used none either: an rstat flush propagates from the leaves to the root.
    // The walk is in pre-order, so the descendants follow their ancestor.
    const NONE: u32 = u32::MAX;
    chunk.idle_level.set(NONE);
    for index in 0..SAMPLE_ACTIVE_CHUNK {
        let Some(cached) = chunk.cgroup(index) else { break };
        if cached.level > chunk.idle_level.get() {
            continue;
        }
        chunk.idle_level.set(NONE);
        if cached.level == 0 {
            // The kernel does not maintain the counters of the root here.
            continue;
        }
        let cgroup = cached.cgroup as *const u8;
        let Some(cpu_usage_ns) = field(cgroup, offset!(cgroup_cpu_runtime)) else { continue };
        if cpu_usage_ns == cached.cpu_usage_ns {
            chunk.idle_level.set(cached.level);
            continue;
        }
        cached.cpu_usage_ns = cpu_usage_ns;
        let Some(record) = chunk.next_record(cached) else { break };
        let memory = pointer(cgroup, offset!(cgroup_memory));
        record.memory.usage_pages =
            memory.and_then(|memory| field(memory, offset!(memory.usage_pages))).unwrap_or(0);
        record.cpu_usage_ns = cpu_usage_ns;
        record.has = HAS_CPU;
    }
    0
}

/// Writes a record for each cached cgroup, as a walk does. The third argument selects the groups of fields (`HAS_*`).
///
/// One loop per group: the verifier explores the branches of every iteration, so a loop over all groups would be too
/// complex.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn resample(arguments: *const u64) -> u32 {
    let Some(mut chunk) = Chunk::from_arguments(arguments) else { return STALE };
    let first_record = chunk.stats.cgroups as u32;
    for index in 0..RESAMPLE_CHUNK {
        let Some(cached) = chunk.cgroup(index) else { break };
        let Some(record) = chunk.next_record(cached) else { break };
        (record.has, record.reserved) = (0, 0);
    }
    // SAFETY: as in `Chunk::from_arguments`.
    let groups = unsafe { *arguments.add(2) } as u32;
    if groups & HAS_CPU != 0 {
        chunk.fill_records(first_record, HAS_CPU);
    }
    if groups & HAS_THROTTLING != 0 {
        chunk.fill_records(first_record, HAS_THROTTLING);
    }
    if groups & HAS_MEMORY != 0 {
        chunk.fill_records(first_record, HAS_MEMORY | HAS_WORKING_SET);
    }
    if groups & HAS_PRESSURE != 0 {
        chunk.fill_records(first_record, HAS_PRESSURE);
    }
    if groups & HAS_PIDS != 0 {
        chunk.fill_records(first_record, HAS_PIDS);
    }
    0
}
