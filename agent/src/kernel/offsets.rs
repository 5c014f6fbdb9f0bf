//! Where this kernel keeps what the programs read: field offsets from its BTF, by name.

use btf_rs::{Btf, BtfType, Type};
use snug_ebpf::abi::snapshot::{ABSENT, Offsets};

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
        source: btf_rs::Error,
    },
    /// It lacks what no program can do without.
    #[error("the kernel's types have no {0}: this kernel is not one that Snug knows")]
    Missing(&'static str),
}

/// Resolves every field; what a kernel lacks is [`ABSENT`] and named in the second value.
///
/// # Errors
/// When even a cgroup's id cannot be found.
pub fn resolve(btf: &Btf) -> Result<(Offsets, Vec<&'static str>), OffsetsError> {
    let mut missing = Vec::new();
    let mut at = |structure: &'static str, path: &'static str, name: &'static str| {
        locate(btf, structure, path).map_or_else(
            || {
                missing.push(name);
                ABSENT
            },
            |place| place.offset,
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
    match locate(btf, "cgroup", "psi") {
        Some(Place { offset, kind: Type::Ptr(_) }) => offsets.cgroup_psi = offset,
        _ => missing.push("cgroup.psi"),
    }
    match inactive_file(btf) {
        Some(offset) => offsets.vmstats_inactive_file = offset,
        None => missing.push("memcg_vmstats.state[inactive_file]"),
    }
    for (offset, name) in
        [(offsets.cgroup_kn, "cgroup.kn"), (offsets.kernfs_id, "kernfs_node.id")]
    {
        if offset == ABSENT {
            return Err(OffsetsError::Missing(name));
        }
    }
    Ok((offsets, missing))
}

/// A field: its byte offset and its type without modifiers.
struct Place {
    offset: u32,
    kind: Type,
}

/// Finds `structure.path`, where `path` may go through inner structures ("a.b") and anonymous ones.
fn locate(btf: &Btf, structure: &str, path: &str) -> Option<Place> {
    let mut place = btf
        .resolve_types_by_name(structure)
        .ok()?
        .into_iter()
        .find(|kind| matches!(kind, Type::Struct(inner) if !inner.members.is_empty()))
        .map(|kind| Place { offset: 0, kind })?;
    for name in path.split('.') {
        let inner = member(btf, &place.kind, name)?;
        place = Place { offset: place.offset + inner.offset, kind: inner.kind };
    }
    Some(place)
}

fn member(btf: &Btf, kind: &Type, name: &str) -> Option<Place> {
    let (Type::Struct(structure) | Type::Union(structure)) = kind else { return None };
    for member in &structure.members {
        let own = btf.resolve_name(member).unwrap_or_default();
        if own != name && !own.is_empty() {
            continue;
        }
        let offset = member.bit_offset() / 8;
        let kind = without_modifiers(btf, member)?;
        if own == name {
            return Some(Place { offset, kind });
        }
        if let Some(inner) = self::member(btf, &kind, name) {
            return Some(Place { offset: offset + inner.offset, kind: inner.kind });
        }
    }
    None
}

fn without_modifiers(btf: &Btf, of: &dyn BtfType) -> Option<Type> {
    let mut kind = btf.resolve_chained_type(of).ok()?;
    while let Type::Typedef(_) | Type::Const(_) | Type::Volatile(_) | Type::Restrict(_) | Type::TypeTag(_) = kind
    {
        kind = btf.resolve_chained_type(kind.as_btf_type()?).ok()?;
    }
    Some(kind)
}

/// Offset of `cgroup.subsys[controller]`; controllers are numbered anew in every build of a kernel.
fn subsystem(btf: &Btf, controller: &str) -> Option<u32> {
    let first = locate(btf, "cgroup", "subsys")?.offset;
    let index = enumerator(btf, "cgroup_subsys_id", controller)?;
    Some(first + index * size_of::<u64>() as u32)
}

/// Offset of inactive file in `memcg_vmstats.state`.
///
/// The array is indexed by `enum node_stat_item` up to 6.9 or so and by a compressed index later; the LRU lists come
/// first in both, so that the number is the same. The comparison with memory.stat at start would show if not.
fn inactive_file(btf: &Btf) -> Option<u32> {
    let state = locate(btf, "memcg_vmstats", "state")?;
    let Type::Array(array) = &state.kind else { return None };
    let index = enumerator(btf, "node_stat_item", "NR_INACTIVE_FILE")?;
    (usize::try_from(index).ok()? < array.len()).then_some(state.offset + index * size_of::<u64>() as u32)
}

fn enumerator(btf: &Btf, name: &str, value: &str) -> Option<u32> {
    btf.resolve_types_by_name(name).ok()?.into_iter().find_map(|kind| {
        let Type::Enum(all) = kind else { return None };
        all.members
            .iter()
            .find(|member| btf.resolve_name(*member).is_ok_and(|own| own == value))
            .map(btf_rs::EnumMember::val)
    })
}
