//! Resolves the offsets of the fields that the programs read, by name, from the kernel's BTF.

use std::io;

use snug_ebpf::abi::{
    field::{ABSENT, Path},
    memory::MemoryOffsets,
    offsets::Offsets,
};

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
    let mut offsets = Offsets::ALL_ABSENT;
    for path in Offsets::PATHS {
        *(path.at)(&mut offsets) = by_name(btf, path, &mut missing);
    }
    for path in MemoryOffsets::PATHS {
        *(path.at)(&mut offsets.memory) = by_name(btf, path, &mut missing);
    }
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

fn by_name<O>(btf: &Btf<'_>, path: &Path<O>, missing: &mut Vec<&'static str>) -> u32 {
    btf.field(path.structure, path.path).map_or_else(
        || {
            missing.push(path.name);
            ABSENT
        },
        |field| field.offset,
    )
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
