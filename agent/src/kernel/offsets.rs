//! Where this kernel keeps what the programs read: field offsets from its BTF, by name.

use std::io;

use snug_ebpf::abi::snapshot::{ABSENT, Offsets};

use super::btf::{Btf, Field, Kind, NotBtf};

/// Bytes of a pointer and of a `long`: Snug runs on 64-bit kernels.
const POINTER: u32 = size_of::<u64>() as u32;

/// What went wrong while reading the kernel's types.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The kernel's type information cannot be read.
    #[error(
        "cannot read the kernel's types from {path}: {source}; \
         a kernel built with CONFIG_DEBUG_INFO_BTF has them, others are measured by cgroup files"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// They can be read but not understood.
    #[error("{path} is {source}; the agent then measures by cgroup files")]
    Types {
        /// The file.
        path: String,
        /// The reason.
        source: NotBtf,
    },
    /// It lacks what no program can do without.
    #[error("the kernel's types have no {0}: this kernel is not one that Snug knows")]
    Missing(&'static str),
}

/// Resolves every field; what a kernel lacks is [`ABSENT`] and named in the second value.
///
/// # Errors
/// When even a cgroup's id cannot be found.
pub(super) fn resolve(btf: &Btf<'_>) -> Result<(Offsets, Vec<&'static str>), OffsetsError> {
    let mut missing = Vec::new();
    let mut at = |structure: &'static str, path: &'static str, name: &'static str| {
        btf.field(structure, path).map_or_else(
            || {
                missing.push(name);
                ABSENT
            },
            |field| field.offset,
        )
    };
    let mut offsets = Offsets {
        cgroup_kn: at("cgroup", "kn", "cgroup.kn"),
        cgroup_level: at("cgroup", "level", "cgroup.level"),
        cgroup_root: at("cgroup", "root", "cgroup.root"),
        cgroup_cpu_runtime: at(
            "cgroup",
            "bstat.cputime.sum_exec_runtime",
            "cgroup.bstat.cputime.sum_exec_runtime",
        ),
        kernfs_id: at("kernfs_node", "id", "kernfs_node.id"),
        root_hierarchy: at("cgroup_root", "hierarchy_id", "cgroup_root.hierarchy_id"),
        cfs_period: at("task_group", "cfs_bandwidth.period", "cfs_bandwidth.period"),
        cfs_quota: at("task_group", "cfs_bandwidth.quota", "cfs_bandwidth.quota"),
        cfs_burst: at("task_group", "cfs_bandwidth.burst", "cfs_bandwidth.burst"),
        cfs_periods: at("task_group", "cfs_bandwidth.nr_periods", "cfs_bandwidth.nr_periods"),
        cfs_throttled_periods: at("task_group", "cfs_bandwidth.nr_throttled", "cfs_bandwidth.nr_throttled"),
        cfs_throttled_time: at("task_group", "cfs_bandwidth.throttled_time", "cfs_bandwidth.throttled_time"),
        cfs_burst_periods: at("task_group", "cfs_bandwidth.nr_burst", "cfs_bandwidth.nr_burst"),
        cfs_burst_time: at("task_group", "cfs_bandwidth.burst_time", "cfs_bandwidth.burst_time"),
        memory_usage: at("mem_cgroup", "memory.usage", "mem_cgroup.memory.usage"),
        memory_peak: at("mem_cgroup", "memory.watermark", "mem_cgroup.memory.watermark"),
        memory_limit: at("mem_cgroup", "memory.max", "mem_cgroup.memory.max"),
        memory_failcnt: at("mem_cgroup", "memory.failcnt", "mem_cgroup.memory.failcnt"),
        swap_usage: at("mem_cgroup", "swap.usage", "mem_cgroup.swap.usage"),
        swap_limit: at("mem_cgroup", "swap.max", "mem_cgroup.swap.max"),
        memory_events: at("mem_cgroup", "memory_events", "mem_cgroup.memory_events"),
        memory_vmstats: at("mem_cgroup", "vmstats", "mem_cgroup.vmstats"),
        pids_counter: at("pids_cgroup", "counter", "pids_cgroup.counter"),
        pids_limit: at("pids_cgroup", "limit", "pids_cgroup.limit"),
        psi_total: at("psi_group", "total", "psi_group.total"),
        ..Offsets::NONE
    };
    for (field, controller, name) in [
        (&mut offsets.cgroup_cpu, "cpu_cgrp_id", "cgroup.subsys[cpu]"),
        (&mut offsets.cgroup_memory, "memory_cgrp_id", "cgroup.subsys[memory]"),
        (&mut offsets.cgroup_pids, "pids_cgrp_id", "cgroup.subsys[pids]"),
    ] {
        match subsystem(btf, controller) {
            Some(offset) => *field = offset,
            None => missing.push(name),
        }
    }
    // Before Linux 6.1 the group is part of the cgroup and not a pointer.
    match btf.field("cgroup", "psi") {
        Some(Field { offset, kind: Kind::Pointer }) => offsets.cgroup_psi = offset,
        _ => missing.push("cgroup.psi"),
    }
    match inactive_file(btf) {
        Some(offset) => offsets.vmstats_inactive_file = offset,
        None => missing.push("memcg_vmstats.state[inactive_file]"),
    }
    for (offset, name) in [(offsets.cgroup_kn, "cgroup.kn"), (offsets.kernfs_id, "kernfs_node.id")] {
        if offset == ABSENT {
            return Err(OffsetsError::Missing(name));
        }
    }
    Ok((offsets, missing))
}

/// Offset of `cgroup.subsys[controller]`; controllers are numbered anew in every build of a kernel.
fn subsystem(btf: &Btf<'_>, controller: &str) -> Option<u32> {
    let first = btf.field("cgroup", "subsys")?.offset;
    let index = btf.enumerator("cgroup_subsys_id", controller)?;
    first.checked_add(index.checked_mul(POINTER)?)
}

/// Offset of inactive file in `memcg_vmstats.state`.
///
/// The array is indexed by `enum node_stat_item` in older kernels and by a compressed index later; the LRU lists come
/// first in both, so that the number is the same. The comparison with memory.stat at start would show if not.
fn inactive_file(btf: &Btf<'_>) -> Option<u32> {
    let Field { offset, kind: Kind::Array(elements) } = btf.field("memcg_vmstats", "state")? else {
        return None;
    };
    let index = btf.enumerator("node_stat_item", "NR_INACTIVE_FILE")?;
    (index < elements).then(|| offset.checked_add(index.checked_mul(POINTER)?))?
}
