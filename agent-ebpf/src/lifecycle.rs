//! Cgroups made, populated, emptied and removed. A removal carries the cgroup's last state.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str},
    macros::{btf_tracepoint, map},
    maps::{PerCpuArray, RingBuf},
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use snug_ebpf::abi::lifecycle::{
    EMPTY, FinalRecord, LOST_KINDS, LifecycleEvent, MADE, PATH_BYTES, POPULATED, REMOVED,
};
use snug_ebpf::abi::snapshot::{HAS_ALL, HAS_WORKING_SET};

use crate::read::{cgroup_id, field, fill, offset, pointer};

/// Events on their way to the agent.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(2 << 20, 0);

/// Events that found the ring full, by kind (`LOST_KINDS`).
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_KINDS.len() as u32, 0);

/// Ids of the hierarchies that the agent samples; events of others are none of its business. Set before loading.
#[unsafe(no_mangle)]
static HIERARCHIES: [u32; 4] = [u32::MAX; 4];

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_made(context: BtfTracePointContext) -> i32 {
    report(&context, MADE);
    0
}

#[btf_tracepoint(function = "cgroup_notify_populated")]
fn cgroup_populated(context: BtfTracePointContext) -> i32 {
    report(&context, if context.arg::<i32>(2) == 0 { EMPTY } else { POPULATED });
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_removed(context: BtfTracePointContext) -> i32 {
    let cgroup: *const u8 = context.arg(0);
    let Some(hierarchy) = sampled_hierarchy(cgroup) else { return 0 };
    let Some(mut entry) = EVENTS.reserve::<FinalRecord>(0) else {
        lost(&context, REMOVED);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is ours until it is submitted or discarded; `fill` writes all that `has` announces.
    let filled = unsafe {
        (*record).record.has = 0;
        write_event(&raw mut (*record).event, &context, REMOVED, hierarchy);
        fill(&mut (*record).record, cgroup, HAS_ALL & !HAS_WORKING_SET)
    };
    if filled.is_some() {
        entry.submit(0);
    } else {
        entry.discard(0);
        lost(&context, REMOVED);
    }
    0
}

#[inline(always)]
fn report(context: &BtfTracePointContext, kind: u32) {
    let Some(hierarchy) = sampled_hierarchy(context.arg(0)) else { return };
    let Some(mut entry) = EVENTS.reserve::<LifecycleEvent>(0) else { return lost(context, kind) };
    // SAFETY: the reservation is ours until it is submitted.
    unsafe { write_event(entry.as_mut_ptr(), context, kind, hierarchy) };
    entry.submit(0);
}

/// Writes every field of an event.
///
/// # Safety
/// `event` must be valid for writes.
#[inline(always)]
unsafe fn write_event(event: *mut LifecycleEvent, context: &BtfTracePointContext, kind: u32, hierarchy: u32) {
    let cgroup: *const u8 = context.arg(0);
    let path: *const u8 = context.arg(1);
    let level = field(cgroup, offset!(cgroup_level)).unwrap_or(0);
    // SAFETY: the caller's promise; the helper writes at most PATH_BYTES and checks the source.
    unsafe {
        (*event).kind = kind;
        (*event).hierarchy = hierarchy;
        (*event).id = cgroup_id(cgroup).unwrap_or(0);
        (*event).at_ns = bpf_ktime_get_ns();
        (*event).level = level;
        let written =
            bpf_probe_read_kernel_str((&raw mut (*event).path).cast(), PATH_BYTES as u32, path.cast());
        (*event).path_len = if written > 0 { (written - 1) as u32 } else { 0 };
    }
    debug!(context, "cgroup event {} in hierarchy {}", kind, hierarchy);
}

/// The hierarchy of a cgroup, if the agent samples it.
#[inline(always)]
fn sampled_hierarchy(cgroup: *const u8) -> Option<u32> {
    let id: u32 = field(pointer(cgroup, offset!(cgroup_root))?, offset!(root_hierarchy))?;
    // SAFETY: a reference to a static is valid for reads; volatile, because the agent sets it before loading.
    let sampled = unsafe { core::ptr::read_volatile(&raw const HIERARCHIES) };
    sampled.contains(&id).then_some(id)
}

/// Counts an event that found no room.
#[inline(always)]
fn lost(context: &BtfTracePointContext, kind: u32) {
    if let Some(count) = LOST.get_ptr_mut(kind - 1) {
        // SAFETY: the entry is this CPU's own.
        unsafe { *count += 1 };
    }
    debug!(context, "ring full: event {} lost", kind);
}
