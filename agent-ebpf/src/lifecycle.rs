//! Cgroups created, emptied and removed. The event of a removal carries the cgroup's final values.
//!
//! Tracepoints: `cgroup_mkdir`, `cgroup_notify_populated`, `cgroup_rmdir`.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use snug_ebpf::abi::{
    events::{EMPTIED, MADE, REMOVED},
    lifecycle::{FinalRecord, LifecycleEvent, PATH_BYTES},
    sample::MAX_HIERARCHIES,
    snapshot::{HAS_ALL, HAS_CPU, HAS_WORKING_SET},
};

use crate::{
    age::was_created,
    cpus::unflushed_cpu_ns,
    events::{count_lost, header, reserve, reserve_final},
    network::has_sockets,
    process::forget_init,
    read::{TypedPointer, cgroup_id, field, fill, identify, offset, pointer},
    sample::invalidate,
    subtree::is_enclosed,
};

/// Ids of the hierarchies that the agent samples, the rest `u32::MAX`; events of others are ignored. Set before loading.
#[unsafe(no_mangle)]
static HIERARCHIES: [u32; MAX_HIERARCHIES] = [u32::MAX; MAX_HIERARCHIES];

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_made(context: BtfTracePointContext) -> i32 {
    was_created(context.arg(0));
    report(&context, MADE);
    0
}

#[btf_tracepoint(function = "cgroup_notify_populated")]
fn cgroup_emptied(context: BtfTracePointContext) -> i32 {
    if context.arg::<i32>(2) == 0 {
        report(&context, EMPTIED);
    }
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_removed(context: BtfTracePointContext) -> i32 {
    let cgroup: *const u8 = context.arg(0);
    let Some((index, hierarchy)) = sampled_hierarchy(cgroup) else { return 0 };
    invalidate(index);
    let id = cgroup_id(cgroup).unwrap_or(0);
    if hierarchy == 0 {
        forget_init(id);
    }
    // Of a cgroup below a container only the counters of its sockets are of interest, and they may not take the place of others.
    let entry = if !is_enclosed(cgroup, index) {
        reserve_final::<FinalRecord>(&context, REMOVED)
    } else if hierarchy == 0 && has_sockets(id) {
        reserve::<FinalRecord>(&context, REMOVED)
    } else {
        None
    };
    let Some(mut entry) = entry else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is ours until it is submitted or discarded; `fill` writes all fields that `has` names.
    let identified = unsafe {
        (*record).record.has = 0;
        write_event(&raw mut (*record).event, &context, REMOVED, hierarchy);
        let record = &mut (*record).record;
        // The reservation has bytes of an earlier event.
        (record.serial, record.reserved) = (0, 0);
        let identified = identify(record, cgroup);
        fill::<TypedPointer>(record, cgroup, HAS_ALL & !HAS_WORKING_SET);
        if record.has & HAS_CPU != 0 {
            record.cpu_usage_ns += unflushed_cpu_ns(cgroup);
        }
        identified
    };
    if identified.is_some() {
        entry.submit(0);
    } else {
        entry.discard(0);
        count_lost(REMOVED - 1);
    }
    0
}

#[inline(always)]
fn report(context: &BtfTracePointContext, kind: u32) {
    let cgroup = context.arg(0);
    let Some((index, hierarchy)) = sampled_hierarchy(cgroup) else { return };
    if is_enclosed(cgroup, index) {
        return;
    }
    if kind == MADE {
        invalidate(index);
    }
    let Some(mut entry) = reserve::<LifecycleEvent>(context, kind) else { return };
    // SAFETY: the reservation is ours until it is submitted.
    unsafe { write_event(entry.as_mut_ptr(), context, kind, hierarchy) };
    entry.submit(0);
}

/// Writes every field of an event, except the unused bytes of `path`.
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
        (*event).header = header(kind, hierarchy, cgroup_id(cgroup).unwrap_or(0));
        (*event).level = level;
        let written =
            bpf_probe_read_kernel_str((&raw mut (*event).path).cast(), PATH_BYTES as u32, path.cast());
        (*event).path_len = if written > 0 { (written - 1) as u32 } else { 0 };
    }
    debug!(context, "cgroup event {} in hierarchy {}", kind, hierarchy);
}

/// Index and id of a cgroup's hierarchy, if the agent samples the hierarchy.
#[inline(always)]
fn sampled_hierarchy(cgroup: *const u8) -> Option<(u32, u32)> {
    let id: u32 = field(pointer(cgroup, offset!(cgroup_root))?, offset!(root_hierarchy))?;
    index_of(id).map(|index| (index, id))
}

/// Index of a hierarchy, if the agent samples it.
#[inline(always)]
pub(crate) fn index_of(id: u32) -> Option<u32> {
    // SAFETY: a reference to a static is valid for reads; volatile, because the agent sets it before loading.
    let sampled = unsafe { core::ptr::read_volatile(&raw const HIERARCHIES) };
    (0..).zip(sampled).find(|(_, sampled)| *sampled == id).map(|(index, _)| index)
}
