//! Cgroups made, emptied and removed. A removal carries the cgroup's last state.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use snug_ebpf::abi::{
    events::{EMPTY, MADE, REMOVED},
    lifecycle::{FinalRecord, LifecycleEvent, PATH_BYTES},
    look::MOST_HIERARCHIES,
    snapshot::{HAS_ALL, HAS_CPU, HAS_WORKING_SET},
};

use crate::{
    cpus::unflushed_cpu_ns,
    events::{header, lost, reserve, reserve_last},
    look::made_or_removed,
    process::forget_init,
    read::{Typed, cgroup_id, field, fill, identify, offset, pointer},
};

/// Ids of the hierarchies that the agent samples; events of others are none of its business. Set before loading.
#[unsafe(no_mangle)]
static HIERARCHIES: [u32; MOST_HIERARCHIES] = [u32::MAX; MOST_HIERARCHIES];

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_made(context: BtfTracePointContext) -> i32 {
    report(&context, MADE);
    0
}

#[btf_tracepoint(function = "cgroup_notify_populated")]
fn cgroup_emptied(context: BtfTracePointContext) -> i32 {
    if context.arg::<i32>(2) == 0 {
        report(&context, EMPTY);
    }
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_removed(context: BtfTracePointContext) -> i32 {
    let cgroup: *const u8 = context.arg(0);
    let Some((place, hierarchy)) = sampled_hierarchy(cgroup) else { return 0 };
    made_or_removed(place);
    if hierarchy == 0 {
        forget_init(cgroup_id(cgroup).unwrap_or(0));
    }
    let Some(mut entry) = reserve_last::<FinalRecord>(&context, REMOVED) else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is ours until it is submitted or discarded; `fill` writes all that `has` announces.
    let identified = unsafe {
        (*record).record.has = 0;
        write_event(&raw mut (*record).event, &context, REMOVED, hierarchy);
        let record = &mut (*record).record;
        // What lies in the reservation is of another.
        (record.serial, record.reserved) = (0, 0);
        let identified = identify(record, cgroup);
        fill::<Typed>(record, cgroup, HAS_ALL & !HAS_WORKING_SET);
        if record.has & HAS_CPU != 0 {
            record.cpu_usage_ns += unflushed_cpu_ns(cgroup);
        }
        identified
    };
    if identified.is_some() {
        entry.submit(0);
    } else {
        entry.discard(0);
        lost(REMOVED - 1);
    }
    0
}

#[inline(always)]
fn report(context: &BtfTracePointContext, kind: u32) {
    let Some((place, hierarchy)) = sampled_hierarchy(context.arg(0)) else { return };
    if kind == MADE {
        made_or_removed(place);
    }
    let Some(mut entry) = reserve::<LifecycleEvent>(context, kind) else { return };
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
        (*event).header = header(kind, hierarchy, cgroup_id(cgroup).unwrap_or(0));
        (*event).level = level;
        let written =
            bpf_probe_read_kernel_str((&raw mut (*event).path).cast(), PATH_BYTES as u32, path.cast());
        (*event).path_len = if written > 0 { (written - 1) as u32 } else { 0 };
    }
    debug!(context, "cgroup event {} in hierarchy {}", kind, hierarchy);
}

/// The hierarchy of a cgroup, if the agent samples it: its place among these, and its id.
#[inline(always)]
fn sampled_hierarchy(cgroup: *const u8) -> Option<(u32, u32)> {
    let id: u32 = field(pointer(cgroup, offset!(cgroup_root))?, offset!(root_hierarchy))?;
    // SAFETY: a reference to a static is valid for reads; volatile, because the agent sets it before loading.
    let sampled = unsafe { core::ptr::read_volatile(&raw const HIERARCHIES) };
    (0..).zip(sampled).find(|(_, sampled)| *sampled == id)
}
