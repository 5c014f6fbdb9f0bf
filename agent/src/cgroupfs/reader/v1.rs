//! Files of cgroup v1 hierarchies.

use std::sync::Arc;

use super::{CgroupRead, Subject};
use crate::{
    cgroupfs::{
        Measurements,
        parse::{self, BlkioRow, CpuMax},
    },
    values::{Cpu, IoDevice, Measurement, Memory, MemoryEvents, MemoryStat, Swap, Throttling, Values},
};

pub(super) fn cpu_time(
    cgroup: &mut CgroupRead<'_>,
    at: usize,
    measurements: Measurements,
    tick_ns: u64,
    values: &mut Values,
) {
    if measurements.contains(Measurement::Cpu) {
        let usage = cgroup.parse(at, "cpuacct.usage", parse::number).unwrap_or(None);
        values.cpu = usage.map(|usage_ns| Cpu { usage_ns });
    }
    if measurements.contains(Measurement::SlowRows) {
        let split = cgroup.parse(at, "cpuacct.stat", |text| parse::cpuacct_stat(text, tick_ns));
        values.cpu_split = split.unwrap_or(None);
    }
}

pub(super) fn throttling(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<Throttling> {
    let Some(stat) = cgroup.parse(at, "cpu.stat", parse::cpu_stat_v1)? else { return Ok(None) };
    let Some(quota_ns) = cgroup.parse(at, "cpu.cfs_quota_us", parse::cfs_quota_v1)? else { return Ok(None) };
    let Some(period_ns) = cgroup.parse(at, "cpu.cfs_period_us", parse::microseconds)? else {
        return Ok(None);
    };
    let burst_limit_ns = cgroup.parse(at, "cpu.cfs_burst_us", parse::microseconds)?.unwrap_or(0);
    Ok(Some(super::throttling_of(stat, CpuMax { quota_ns, period_ns }, burst_limit_ns)))
}

pub(super) fn memory(
    cgroup: &mut CgroupRead<'_>,
    at: usize,
    measurements: Measurements,
    values: &mut Values,
) {
    let mut usage = None;
    let uses_usage = [Measurement::Memory, Measurement::WorkingSet, Measurement::Swap];
    if uses_usage.into_iter().any(|one| measurements.contains(one)) {
        usage = cgroup.parse(at, "memory.usage_in_bytes", parse::number).unwrap_or(None);
    }
    // Read right after the usage: memory charged between the two readings would show as swap.
    if measurements.contains(Measurement::Swap) {
        values.swap = usage.and_then(|usage| swap(cgroup, at, usage).unwrap_or(None));
    }
    let mut inactive_file = None;
    if measurements.contains(Measurement::SlowRows) {
        let stat = stat(cgroup, at).unwrap_or(None);
        inactive_file = stat.as_ref().map(|stat| stat.inactive_file_bytes);
        values.memory_stat = stat.map(Arc::new);
    } else if measurements.contains(Measurement::WorkingSet) {
        inactive_file = cgroup.parse(at, "memory.stat", parse::inactive_file_v1).unwrap_or(None);
    }
    if measurements.contains(Measurement::WorkingSet) {
        values.working_set = usage.zip(inactive_file).map(super::working_set_of);
    }
    if measurements.contains(Measurement::Memory) {
        values.memory = usage.and_then(|usage| usage_and_limit(cgroup, at, usage).unwrap_or(None));
    }
    if measurements.contains(Measurement::MemoryEvents) {
        values.memory_events = events(cgroup, at).unwrap_or(None);
    }
}

fn usage_and_limit(cgroup: &mut CgroupRead<'_>, at: usize, usage_bytes: u64) -> Subject<Memory> {
    let Some(limit_bytes) = cgroup.parse(at, "memory.limit_in_bytes", parse::limit_v1)? else {
        return Ok(None);
    };
    let peak_bytes = cgroup.parse(at, "memory.max_usage_in_bytes", parse::number)?;
    Ok(Some(Memory { usage_bytes, peak_bytes, limit_bytes, ..Memory::default() }))
}

fn swap(cgroup: &mut CgroupRead<'_>, at: usize, usage_bytes: u64) -> Subject<Swap> {
    let Some(both) = cgroup.parse(at, "memory.memsw.usage_in_bytes", parse::number)? else { return Ok(None) };
    let limit = cgroup.parse(at, "memory.memsw.limit_in_bytes", parse::limit_v1)?;
    let Some(limit_bytes) = limit else { return Ok(None) };
    Ok(Some(Swap { usage_bytes: both.saturating_sub(usage_bytes), limit_bytes, ..Swap::default() }))
}

/// v1 counts charges that failed at the limit and OOM kills, of the cgroup without its descendants. It has no `low`, `high`
/// and `oom`.
fn events(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<MemoryEvents> {
    let Some(max) = cgroup.parse(at, "memory.failcnt", parse::number)? else { return Ok(None) };
    let Some(control) = cgroup.parse(at, "memory.oom_control", parse::oom_control)? else { return Ok(None) };
    Ok(Some(MemoryEvents { max, oom_kill: control.oom_kill, ..MemoryEvents::default() }))
}

fn stat(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<MemoryStat> {
    let kernel_bytes = cgroup.parse(at, "memory.kmem.usage_in_bytes", parse::number)?;
    cgroup.parse(at, "memory.stat", |text| parse::memory_stat_v1(text, kernel_bytes))
}

pub(super) fn cpu_shares(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<u64> {
    cgroup.parse(at, "cpu.shares", parse::number)
}

pub(super) fn memory_reservation(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<u64> {
    Ok(cgroup.parse(at, "memory.soft_limit_in_bytes", parse::limit_v1)?.map(|limit| limit.unwrap_or(0)))
}

pub(super) fn io(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<Arc<[IoDevice]>> {
    let bytes =
        throttle(cgroup, at, "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes")?;
    let operations =
        throttle(cgroup, at, "blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced")?;
    let (Some(bytes), Some(operations)) = (bytes, operations) else { return Ok(None) };
    Ok(Some(parse::merge_blkio(&bytes, &operations).into()))
}

/// The recursive file, which includes descendants as `io.stat` does; if the kernel lacks it, the file of the cgroup alone.
fn throttle(
    cgroup: &mut CgroupRead<'_>,
    at: usize,
    recursive: &'static str,
    own: &'static str,
) -> Subject<Vec<BlkioRow>> {
    let mut found = cgroup.parse(at, recursive, parse::blkio_throttle)?;
    if found.is_none() {
        found = cgroup.parse(at, own, parse::blkio_throttle)?;
    }
    Ok(found.map(|(rows, skipped)| {
        cgroup.reading.skipped_lines += skipped;
        rows
    }))
}
