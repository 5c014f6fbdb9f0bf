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

/// A field that the kernel's BTF lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingField {
    pub name: &'static str,
    /// Names of the measurements that need it.
    pub measurements: &'static [&'static str],
}

/// Resolves every field. Fields that the kernel lacks are [`ABSENT`], and in the second value.
///
/// # Errors
/// When the fields of a cgroup's id are missing.
pub(super) fn resolve(btf: &Btf<'_>) -> Result<(Offsets, Vec<MissingField>), OffsetsError> {
    let mut missing = Vec::new();
    let mut set = |at: &mut u32, found: Option<u32>, name, measurements| match found {
        Some(offset) => *at = offset,
        None => missing.push(MissingField { name, measurements }),
    };
    let mut offsets = Offsets::ALL_ABSENT;
    for Path { name, structure, path, measurements, at } in Offsets::PATHS {
        set(at(&mut offsets), offset(btf, structure, path), name, measurements);
    }
    for Path { name, structure, path, measurements, at } in MemoryOffsets::PATHS {
        set(at(&mut offsets.memory), offset(btf, structure, path), name, measurements);
    }
    let of_memory = &["memory", "working_set", "memory_events", "swap"];
    let cpu = subsystem(btf, "cgroup", "cpu_cgrp_id");
    set(&mut offsets.cgroup_cpu, cpu, "cgroup.subsys[cpu]", &["throttling"]);
    let memory = subsystem(btf, "cgroup", "memory_cgrp_id");
    set(&mut offsets.cgroup_memory, memory, "cgroup.subsys[memory]", of_memory);
    let pids = subsystem(btf, "cgroup", "pids_cgrp_id");
    set(&mut offsets.cgroup_pids, pids, "cgroup.subsys[pids]", &["pids"]);
    let of_tasks = subsystem(btf, "css_set", "memory_cgrp_id");
    set(&mut offsets.css_set_memory, of_tasks, "css_set.subsys[memory]", &[]);
    // Before Linux 6.1 `psi` is a structure, not a pointer.
    let psi = btf.field("cgroup", "psi").filter(|field| field.kind == FieldKind::Pointer);
    set(&mut offsets.cgroup_psi, psi.map(|field| field.offset), "cgroup.psi", &["pressure"]);
    let inactive = "memcg_vmstats.state[inactive_file]";
    set(&mut offsets.vmstats_inactive_file, inactive_file(btf), inactive, &["working_set"]);
    set(&mut offsets.memory_local_ooms, local_ooms(btf), "mem_cgroup.memory_events_local", &[]);
    // The argument is the task since Linux 6.9, before that the pid.
    if btf.tracepoint_argument_is_pointer("mark_victim", 0) == Some(true) {
        offsets.mark_victim_task = 0;
    }
    let [counted, runtime, flushed] = per_cpu_runtime(btf).map_or([None; 3], |found| found.map(Some));
    set(&mut offsets.cgroup_per_cpu, counted, "cgroup.rstat_cpu", &[]);
    offsets.per_cpu_runtime = runtime.unwrap_or(ABSENT);
    offsets.per_cpu_runtime_flushed = flushed.unwrap_or(ABSENT);
    for (offset, name) in [(offsets.cgroup_kn, "cgroup.kn"), (offsets.kernfs_id, "kernfs_node.id")] {
        if offset == ABSENT {
            return Err(OffsetsError::Missing(name));
        }
    }
    Ok((offsets, missing))
}

fn offset(btf: &Btf<'_>, structure: &str, path: &str) -> Option<u32> {
    btf.field(structure, path).map(|field| field.offset)
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
