//! Reading kernel structures at offsets that the agent learnt from BTF.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use snug_ebpf::abi::snapshot::{
    ABSENT, HAS_CPU, HAS_MEMORY, HAS_PIDS, HAS_PRESSURE, HAS_THROTTLING, Offsets, SnapshotRecord,
};

/// Set by the agent before loading, frozen by the kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::NONE;

/// One field of [`OFFSETS`]. The read is volatile: the compiler must not fold the value that it sees at build time.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a reference to a static is valid for reads.
        unsafe { core::ptr::read_volatile(&raw const $crate::read::offsets().$field) }
    };
}
pub(crate) use offset;

pub(crate) fn offsets() -> &'static Offsets {
    &OFFSETS
}

/// Reads a `T` at `base + offset`; `None` if the field is absent here or the address cannot be read.
#[inline(always)]
pub(crate) fn field<T: Copy>(base: *const u8, offset: u32) -> Option<T> {
    if offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// Like [`field`], with 0 for what is not there.
#[inline(always)]
fn or_zero(base: *const u8, offset: u32) -> u64 {
    field(base, offset).unwrap_or(0)
}

/// A pointer kept in a field; `None` also if it is null.
#[inline(always)]
pub(crate) fn pointer(base: *const u8, offset: u32) -> Option<*const u8> {
    field::<*const u8>(base, offset).filter(|pointer| !pointer.is_null())
}

/// kernfs id of a cgroup.
#[inline(always)]
pub(crate) fn cgroup_id(cgroup: *const u8) -> Option<u64> {
    field(pointer(cgroup, offset!(cgroup_kn))?, offset!(kernfs_id))
}

/// Fills a record from a `cgroup *`. `None` if not even its id can be read.
#[inline(always)]
pub(crate) fn fill(record: &mut SnapshotRecord, cgroup: *const u8) -> Option<()> {
    record.id = cgroup_id(cgroup)?;
    record.level = field(cgroup, offset!(cgroup_level)).unwrap_or(0);
    record.reserved = 0;
    let mut has = 0;
    if let Some(runtime) = field(cgroup, offset!(cgroup_cpu_runtime)) {
        record.cpu_usage_ns = runtime;
        has |= HAS_CPU;
    }
    if let Some(group) = pointer(cgroup, offset!(cgroup_cpu)) {
        throttling(record, group);
        has |= HAS_THROTTLING;
    }
    if let Some(memcg) = pointer(cgroup, offset!(cgroup_memory)) {
        memory(record, memcg);
        has |= HAS_MEMORY;
    }
    if let Some(psi) = pointer(cgroup, offset!(cgroup_psi)) {
        if let Some(totals) = field(psi, offset!(psi_total)) {
            record.pressure_ns = totals;
            has |= HAS_PRESSURE;
        }
    }
    if let Some(pids) = pointer(cgroup, offset!(cgroup_pids)) {
        record.pids_current = or_zero(pids, offset!(pids_counter));
        record.pids_limit = or_zero(pids, offset!(pids_limit));
        has |= HAS_PIDS;
    }
    record.has = has;
    Some(())
}

#[inline(always)]
fn throttling(record: &mut SnapshotRecord, group: *const u8) {
    record.cfs_period_ns = or_zero(group, offset!(cfs_period));
    record.cfs_quota_ns = or_zero(group, offset!(cfs_quota));
    record.cfs_burst_limit_ns = or_zero(group, offset!(cfs_burst));
    record.cfs_throttled_ns = or_zero(group, offset!(cfs_throttled_time));
    record.cfs_burst_ns = or_zero(group, offset!(cfs_burst_time));
    record.cfs_periods = field(group, offset!(cfs_periods)).unwrap_or(0);
    record.cfs_throttled_periods = field(group, offset!(cfs_throttled_periods)).unwrap_or(0);
    record.cfs_burst_periods = field(group, offset!(cfs_burst_periods)).unwrap_or(0);
}

#[inline(always)]
fn memory(record: &mut SnapshotRecord, memcg: *const u8) {
    record.memory_usage_pages = or_zero(memcg, offset!(memory_usage));
    record.memory_peak_pages = or_zero(memcg, offset!(memory_peak));
    record.memory_limit_pages = or_zero(memcg, offset!(memory_limit));
    record.memory_failcnt = or_zero(memcg, offset!(memory_failcnt));
    record.swap_usage_pages = or_zero(memcg, offset!(swap_usage));
    record.swap_limit_pages = or_zero(memcg, offset!(swap_limit));
    record.memory_events = field(memcg, offset!(memory_events)).unwrap_or_default();
    record.memory_inactive_file_pages = match pointer(memcg, offset!(memory_vmstats)) {
        Some(vmstats) => or_zero(vmstats, offset!(vmstats_inactive_file)),
        None => 0,
    };
}
