//! Files of a cgroup v2 hierarchy.

use std::sync::Arc;

use super::{CgroupRead, Subject};
use crate::{
    cgroupfs::{
        Measurements,
        parse::{self, CpuStat},
    },
    values::{Cpu, IoDevice, Measurement, Memory, Pids, Pressure, Swap, Throttling, Values},
};

/// Files that several measurements share: `cpu.stat` is read once, because each read takes the kernel's rstat lock.
#[derive(Default)]
pub(super) struct Subjects {
    cpu_stat: Option<(usize, Option<CpuStat>)>,
}

impl Subjects {
    fn cpu_stat(&mut self, cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<CpuStat> {
        match self.cpu_stat {
            Some((same, stat)) if same == at => Ok(stat),
            _ => {
                let stat = cgroup.parse(at, "cpu.stat", parse::cpu_stat);
                self.cpu_stat = Some((at, *stat.as_ref().unwrap_or(&None)));
                stat
            }
        }
    }

    pub(super) fn cpu_time(
        &mut self,
        cgroup: &mut CgroupRead<'_>,
        at: usize,
        measurements: Measurements,
        values: &mut Values,
    ) {
        let stat = self.cpu_stat(cgroup, at).unwrap_or(None);
        if measurements.contains(Measurement::Cpu) {
            values.cpu = stat.map(|stat| Cpu { usage_ns: stat.usage_ns });
        }
        if measurements.contains(Measurement::SlowRows) {
            values.cpu_split = stat.map(|stat| stat.split);
        }
    }

    pub(super) fn throttling(&mut self, cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<Throttling> {
        let Some(stat) = self.cpu_stat(cgroup, at)?.and_then(|stat| stat.bandwidth) else { return Ok(None) };
        let Some(max) = cgroup.parse(at, "cpu.max", parse::cpu_max)? else { return Ok(None) };
        let burst_limit_ns = cgroup.parse(at, "cpu.max.burst", parse::microseconds)?.unwrap_or(0);
        Ok(Some(super::throttling_of(stat, max, burst_limit_ns)))
    }
}

pub(super) fn pressure(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<Pressure> {
    let Some(cpu) = cgroup.parse(at, "cpu.pressure", parse::stall)? else { return Ok(None) };
    let Some(memory) = cgroup.parse(at, "memory.pressure", parse::stall)? else { return Ok(None) };
    let Some(io) = cgroup.parse(at, "io.pressure", parse::stall)? else { return Ok(None) };
    Ok(Some(Pressure { cpu, memory, io }))
}

/// The root has no `memory.current`. As the kubelet does, its usage is anonymous memory plus file cache.
pub(super) fn memory(
    cgroup: &mut CgroupRead<'_>,
    at: usize,
    measurements: Measurements,
    values: &mut Values,
) {
    let mut usage = None;
    let by_usage =
        measurements.contains(Measurement::Memory) || measurements.contains(Measurement::WorkingSet);
    if by_usage {
        usage = cgroup.parse(at, "memory.current", parse::number).unwrap_or(None);
    }
    let (mut inactive_file, mut limited) = (None, true);
    if measurements.contains(Measurement::SlowRows) || (cgroup.is_root() && by_usage) {
        let stat = cgroup.parse(at, "memory.stat", parse::memory_stat).unwrap_or(None);
        inactive_file = stat.as_ref().map(|stat| stat.inactive_file_bytes);
        if cgroup.is_root() && usage.is_none() {
            usage = stat.as_ref().map(|stat| stat.anon_bytes.saturating_add(stat.file_bytes));
            limited = false;
        }
        values.memory_stat = stat.map(Arc::new);
    } else if measurements.contains(Measurement::WorkingSet) {
        inactive_file = cgroup.parse(at, "memory.stat", parse::inactive_file).unwrap_or(None);
    }
    if measurements.contains(Measurement::WorkingSet) {
        values.working_set = usage.zip(inactive_file).map(super::working_set_of);
    }
    if measurements.contains(Measurement::Memory) {
        values.memory = usage.and_then(|usage_bytes| {
            let unlimited = Memory { usage_bytes, ..Memory::default() };
            if limited { usage_and_limit(cgroup, at, usage_bytes).unwrap_or(None) } else { Some(unlimited) }
        });
    }
    if measurements.contains(Measurement::MemoryEvents) {
        values.memory_events = cgroup.parse(at, "memory.events", parse::memory_events).unwrap_or(None);
    }
    if measurements.contains(Measurement::Swap) {
        values.swap = swap(cgroup, at).unwrap_or(None);
    }
}

fn usage_and_limit(cgroup: &mut CgroupRead<'_>, at: usize, usage_bytes: u64) -> Subject<Memory> {
    let Some(limit_bytes) = cgroup.parse(at, "memory.max", parse::number_or_max)? else { return Ok(None) };
    let high_bytes = cgroup.parse(at, "memory.high", parse::number_or_max)?.flatten();
    let peak_bytes = cgroup.parse(at, "memory.peak", parse::number)?;
    Ok(Some(Memory { usage_bytes, peak_bytes, high_bytes, limit_bytes }))
}

fn swap(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<Swap> {
    let Some(usage_bytes) = cgroup.parse(at, "memory.swap.current", parse::number)? else { return Ok(None) };
    let Some(limit_bytes) = cgroup.parse(at, "memory.swap.max", parse::number_or_max)? else {
        return Ok(None);
    };
    let peak_bytes = cgroup.parse(at, "memory.swap.peak", parse::number)?;
    Ok(Some(Swap { usage_bytes, peak_bytes, limit_bytes }))
}

/// Converts `cpu.weight` (1 to 10000) to shares (2 to 262144) with the kubelet's formula:
/// <https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/2254-cgroup-v2#phase-1-convert-from-cgroups-v1-settings-to-v2>
pub(super) fn cpu_shares(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<u64> {
    let weight = cgroup.parse(at, "cpu.weight", parse::number)?;
    Ok(weight.map(|weight| 2 + weight.saturating_sub(1).saturating_mul(262_142) / 9_999))
}

pub(super) fn memory_reservation(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<u64> {
    Ok(cgroup.parse(at, "memory.min", parse::number_or_max)?.map(|min| min.unwrap_or(0)))
}

pub(super) fn pids(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<Pids> {
    let Some(current) = cgroup.parse(at, "pids.current", parse::number)? else { return Ok(None) };
    let Some(limit) = cgroup.parse(at, "pids.max", parse::number_or_max)? else { return Ok(None) };
    Ok(Some(Pids { current, limit }))
}

pub(super) fn io(cgroup: &mut CgroupRead<'_>, at: usize) -> Subject<Arc<[IoDevice]>> {
    let Some(stat) = cgroup.parse(at, "io.stat", parse::io_stat)? else { return Ok(None) };
    cgroup.reading.skipped_lines += stat.skipped;
    Ok(Some(stat.devices.into()))
}
