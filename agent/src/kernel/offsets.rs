//! Resolves the offsets of the fields that the programs read, by name, from the kernel's BTF.

use std::io;

use snug_ebpf::abi::offsets::{ABSENT, Offsets};

use super::btf::{Btf, Field, FieldKind, ParseBtfError};

/// Size of a pointer and of a `long`, bytes: Snug supports 64-bit kernels only.
const POINTER: u32 = size_of::<u64>() as u32;

/// Why the offsets could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The kernel's BTF cannot be read.
    #[error(
        "cannot read the kernel's BTF from {path}: {source}; kernels built with CONFIG_DEBUG_INFO_BTF have it, \
         on others the agent reads cgroup files"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// The kernel's BTF cannot be parsed.
    #[error("{path} is {source}; the agent reads cgroup files instead")]
    Types {
        /// The file.
        path: String,
        /// The reason.
        source: ParseBtfError,
    },
    /// The kernel's BTF lacks a field that every program needs.
    #[error(
        "the kernel's BTF has no {0}: Snug does not support this kernel; the agent reads cgroup files instead"
    )]
    Missing(&'static str),
}

/// Resolves every field. Fields that the kernel lacks are [`ABSENT`], and the second value has their names.
///
/// # Errors
/// When the fields of a cgroup's id are missing.
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
        cgroup_serial: at("cgroup", "self.serial_nr", "cgroup.self.serial_nr"),
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
        memory_oom_group: at("mem_cgroup", "oom_group", "mem_cgroup.oom_group"),
        memory_vmstats: at("mem_cgroup", "vmstats", "mem_cgroup.vmstats"),
        pids_counter: at("pids_cgroup", "counter", "pids_cgroup.counter"),
        pids_limit: at("pids_cgroup", "limit", "pids_cgroup.limit"),
        psi_total: at("psi_group", "total", "psi_group.total"),
        css_cgroup: at("cgroup_subsys_state", "cgroup", "cgroup_subsys_state.cgroup"),
        css_set_default: at("css_set", "dfl_cgrp", "css_set.dfl_cgrp"),
        array_pointers: at("bpf_array", "pptrs", "bpf_array.pptrs"),
        task_cgroups: at("task_struct", "cgroups", "task_struct.cgroups"),
        task_comm: at("task_struct", "comm", "task_struct.comm"),
        task_exit_code: at("task_struct", "exit_code", "task_struct.exit_code"),
        task_leader: at("task_struct", "group_leader", "task_struct.group_leader"),
        task_namespaces: at("task_struct", "nsproxy", "task_struct.nsproxy"),
        task_parent: at("task_struct", "real_parent", "task_struct.real_parent"),
        task_pid: at("task_struct", "pid", "task_struct.pid"),
        task_signal: at("task_struct", "signal", "task_struct.signal"),
        task_start: at("task_struct", "start_boottime", "task_struct.start_boottime"),
        task_tgid: at("task_struct", "tgid", "task_struct.tgid"),
        signal_exit_code: at("signal_struct", "group_exit_code", "signal_struct.group_exit_code"),
        signal_flags: at("signal_struct", "flags", "signal_struct.flags"),
        signal_live: at("signal_struct", "live", "signal_struct.live"),
        mount_namespace: at("nsproxy", "mnt_ns", "nsproxy.mnt_ns"),
        css_parent: at("cgroup_subsys_state", "parent", "cgroup_subsys_state.parent"),
        sock_cgroup: at("sock", "sk_cgrp_data.cgroup", "sock.sk_cgrp_data.cgroup"),
        sock_error: at("sock", "sk_err", "sock.sk_err"),
        sock_protocol: at("sock", "sk_protocol", "sock.sk_protocol"),
        ..Offsets::ALL_ABSENT
    };
    for (field, structure, controller, name) in [
        (&mut offsets.cgroup_cpu, "cgroup", "cpu_cgrp_id", "cgroup.subsys[cpu]"),
        (&mut offsets.cgroup_memory, "cgroup", "memory_cgrp_id", "cgroup.subsys[memory]"),
        (&mut offsets.cgroup_pids, "cgroup", "pids_cgrp_id", "cgroup.subsys[pids]"),
        (&mut offsets.css_set_memory, "css_set", "memory_cgrp_id", "css_set.subsys[memory]"),
    ] {
        match subsystem(btf, structure, controller) {
            Some(offset) => *field = offset,
            None => missing.push(name),
        }
    }
    // Before Linux 6.1 `psi` is a structure, not a pointer.
    match btf.field("cgroup", "psi") {
        Some(Field { offset, kind: FieldKind::Pointer }) => offsets.cgroup_psi = offset,
        _ => missing.push("cgroup.psi"),
    }
    match inactive_file(btf) {
        Some(offset) => offsets.vmstats_inactive_file = offset,
        None => missing.push("memcg_vmstats.state[inactive_file]"),
    }
    match local_ooms(btf) {
        Some(offset) => offsets.memory_local_ooms = offset,
        None => missing.push("mem_cgroup.memory_events_local"),
    }
    // The argument is the task since Linux 6.9, before that the pid.
    if btf.tracepoint_argument_is_pointer("mark_victim", 0) == Some(true) {
        offsets.mark_victim_task = 0;
    }
    match per_cpu_runtime(btf) {
        Some([counted, runtime, flushed]) => {
            offsets.cgroup_per_cpu = counted;
            offsets.per_cpu_runtime = runtime;
            offsets.per_cpu_runtime_flushed = flushed;
        }
        None => missing.push("cgroup.rstat_cpu"),
    }
    for (offset, name) in [(offsets.cgroup_kn, "cgroup.kn"), (offsets.kernfs_id, "kernfs_node.id")] {
        if offset == ABSENT {
            return Err(OffsetsError::Missing(name));
        }
    }
    Ok((offsets, missing))
}

/// Offset of `<structure>.subsys[controller]`. The indexes of controllers depend on the kernel's configuration.
fn subsystem(btf: &Btf<'_>, structure: &str, controller: &str) -> Option<u32> {
    let first = btf.field(structure, "subsys")?.offset;
    let index = btf.enumerator("cgroup_subsys_id", controller)?;
    first.checked_add(index.checked_mul(POINTER)?)
}

/// Offset of `mem_cgroup.memory_events_local[MEMCG_OOM]`.
fn local_ooms(btf: &Btf<'_>) -> Option<u32> {
    let first = btf.field("mem_cgroup", "memory_events_local")?.offset;
    let index = btf.enumerator("memcg_memory_event", "MEMCG_OOM")?;
    first.checked_add(index.checked_mul(POINTER)?)
}

/// Offsets of a cgroup's per-CPU counters and, within these, of the CPU time and of the CPU time at the last rstat flush.
fn per_cpu_runtime(btf: &Btf<'_>) -> Option<[u32; 3]> {
    // Linux 6.16 split the structure.
    let names = [("rstat_base_cpu", "cgroup_rstat_base_cpu"), ("rstat_cpu", "cgroup_rstat_cpu")];
    names.into_iter().find_map(|(field, structure)| {
        Some([
            btf.field("cgroup", field)?.offset,
            btf.field(structure, "bstat.cputime.sum_exec_runtime")?.offset,
            btf.field(structure, "last_bstat.cputime.sum_exec_runtime")?.offset,
        ])
    })
}

/// Offset of inactive file in `memcg_vmstats.state`.
///
/// The index is `enum node_stat_item` in older kernels and a compressed index later. The LRU lists come first in both, so
/// the index is the same. If it were not, the verification against memory.stat would fail.
fn inactive_file(btf: &Btf<'_>) -> Option<u32> {
    let Field { offset, kind: FieldKind::Array(elements) } = btf.field("memcg_vmstats", "state")? else {
        return None;
    };
    let index = btf.enumerator("node_stat_item", "NR_INACTIVE_FILE")?;
    (index < elements).then(|| offset.checked_add(index.checked_mul(POINTER)?))?
}
