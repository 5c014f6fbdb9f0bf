//! OOM kills: the victim, and the cgroup whose limit caused the kill.
//!
//! The tracepoint `mark_victim` does not name the cgroup whose limit was reached. But such a cgroup increments its own
//! `memory_events_local[MEMCG_OOM]` before the OOM killer runs. So the cgroup is the lowest one, from the victim's cgroup
//! upwards, whose counter has increased since it was last read here, or since the cgroup was created, if the programs ran by then. If
//! none has, the node ran out of memory.
//!
//! With `memory.oom.group`, which the kubelet sets for containers, the kernel kills all processes of the cgroup after the victim, and
//! the tracepoint reports each of them. They belong to one OOM kill: the same task kills them within one call. Tasks that wait
//! for the OOM killer meanwhile increase the counter, too, so the counter does not tell these kills apart.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns},
    macros::{btf_tracepoint, map},
    maps::{LruHashMap, PerCpuArray},
    programs::BtfTracePointContext,
};
use snug_ebpf::abi::{events::OOM_KILL, field::ABSENT, oom::OomEvent};

use crate::{
    age::is_young,
    events::{header, reserve_final},
    lifecycle::index_of,
    process::{comm, init_task},
    read::{field, offset, pointer},
    subtree::container_around,
};

/// `memory_events_local[MEMCG_OOM]` as last read here, by the cgroup's kernfs id.
#[map]
static LAST_OOM_COUNTS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// The last kill of all processes of a cgroup with `memory.oom.group`, by the cgroup's kernfs id.
#[map]
static GROUP_KILLS: LruHashMap<u64, GroupKill> = LruHashMap::with_max_entries(1024, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct GroupKill {
    /// Time of the first kill.
    at_ns: u64,
    /// Process and thread id of the task that runs the OOM killer.
    killer: u64,
}

/// Kills of one group by one task belong to one OOM kill for this long.
const GROUP_KILL_NS: u64 = 5_000_000_000;

/// At most this many cgroups, from the victim's upwards, are checked.
const MAX_ANCESTORS: u32 = 12;

/// A failing charge requests at most this many pages. A counter of an older cgroup that was not read before may have been
/// incremented before the programs ran, so it counts only if the cgroup's usage is this close to its limit. Usage may have decreased
/// since the charge failed: for younger cgroups it does not matter.
const MAX_CHARGE_PAGES: u64 = 64;

#[btf_tracepoint(function = "mark_victim")]
fn oom_kill(context: BtfTracePointContext) -> i32 {
    let _ = report(&context);
    0
}

#[inline(always)]
fn report(context: &BtfTracePointContext) -> Option<()> {
    let argument: u64 = context.arg(0);
    let argument_is_task = offset!(mark_victim_task) != ABSENT;
    // SAFETY: the helper has no precondition.
    let task = if argument_is_task { argument } else { unsafe { bpf_get_current_task() } } as *const u8;
    let pid = if argument_is_task { field(task, offset!(task_tgid))? } else { argument as u32 };
    let css = pointer(pointer(task, offset!(task_cgroups))?, offset!(css_set_memory))?;
    let (hierarchy, own_id) = cgroup_of_css(css)?;
    let mut id = own_id;
    let Ancestors { limiting_css, group, killed_before } = ancestors(css)?;
    let limiting_css = Some(limiting_css as *const u8).filter(|css| !css.is_null());
    if killed_before != 0 {
        return None;
    }
    if group != 0 {
        let _ = GROUP_KILLS.insert(group, this_kill(), BPF_ANY.into());
    }
    if !argument_is_task {
        // `task` is the current one, which triggered the OOM kill and need not be the victim. At a cgroup's limit it is in
        // that cgroup or a descendant. If the node ran out of memory it can be any task: then the victim's cgroup is not
        // known (0), unless the victim is an init process.
        match init_task(pid) {
            Some(init) if hierarchy == 0 => id = init.cgroup,
            _ if limiting_css.is_none() => id = 0,
            _ => {}
        }
    }
    // What a container makes below itself belongs to it.
    let container = |css| container_around(css, index_of(hierarchy)?);
    if id == own_id {
        id = container(css).unwrap_or(id);
    }
    let memcg = limiting_css.unwrap_or(css);
    let mut entry = reserve_final::<OomEvent>(context, OOM_KILL)?;
    let event = OomEvent {
        header: header(OOM_KILL, hierarchy, id),
        limit_id: match limiting_css {
            Some(limiting_css) => {
                container(limiting_css).or_else(|| cgroup_of_css(limiting_css).map(|(_, id)| id)).unwrap_or(0)
            }
            None => 0,
        },
        usage_pages: field(memcg, offset!(memory.usage_pages)).unwrap_or(0),
        limit_pages: field(memcg, offset!(memory.limit_pages)).unwrap_or(u64::MAX),
        pid,
        reserved: 0,
        comm: comm(task),
    };
    // SAFETY: the reservation is ours until it is submitted.
    unsafe { *entry.as_mut_ptr() = event };
    entry.submit(0);
    Some(())
}

/// What the cgroups from the victim's upwards say about a kill. In a map, because the verifier follows each iteration once for each
/// state of the variables that it knows.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ancestors {
    /// The lowest cgroup whose counter of OOM events has increased since it was last read; 0: none.
    limiting_css: u64,
    /// The highest cgroup with `memory.oom.group` that is not above the limiting one: all of its processes are killed. 0: none.
    group: u64,
    /// Not 0 if the victim belongs to a group that this task is killing already.
    killed_before: u64,
}

#[map]
static ANCESTORS: PerCpuArray<Ancestors> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn this_kill() -> GroupKill {
    // SAFETY: the helper has no precondition.
    GroupKill { at_ns: unsafe { bpf_ktime_get_ns() }, killer: bpf_get_current_pid_tgid() }
}

/// Reads the cgroups from `css` upwards. A memory controller's `cgroup_subsys_state` is the first member of its `mem_cgroup`,
/// so `css` is used as both.
#[inline(always)]
fn ancestors(css: *const u8) -> Option<Ancestors> {
    let all = ANCESTORS.get_ptr_mut(0)?;
    // SAFETY: the entry is this CPU's own, and the kernel does not run the program again on a CPU where it runs. Volatile, so that
    // the compiler keeps no copy in a register.
    let [limiting_css, group, killed_before] =
        unsafe { [&raw mut (*all).limiting_css, &raw mut (*all).group, &raw mut (*all).killed_before] };
    for field in [limiting_css, group, killed_before] {
        // SAFETY: as above.
        unsafe { field.write_volatile(0) };
    }
    let mut memcg = css;
    let this = this_kill();
    for _ in 0..MAX_ANCESTORS {
        let (Some((_, id)), Some(ooms)) =
            (cgroup_of_css(memcg), field::<u64>(memcg, offset!(memory_local_ooms)))
        else {
            break;
        };
        // SAFETY: as above.
        let found = unsafe { limiting_css.read_volatile() } != 0;
        // SAFETY: the value is copied at once.
        let last = unsafe { LAST_OOM_COUNTS.get(id) }.copied();
        let increased = match last {
            Some(last) => ooms > last,
            None => {
                ooms > 0 && (pointer(memcg, offset!(css_cgroup)).is_some_and(is_young) || is_at_limit(memcg))
            }
        };
        if field::<u8>(memcg, offset!(memory_oom_group)).is_some_and(|flag| flag != 0) {
            if !found {
                // SAFETY: as above.
                unsafe { group.write_volatile(id) };
            }
            // SAFETY: the value is copied at once.
            let before = unsafe { GROUP_KILLS.get(id) }.copied();
            if before.is_some_and(|before| {
                before.killer == this.killer && this.at_ns.wrapping_sub(before.at_ns) < GROUP_KILL_NS
            }) {
                // SAFETY: as above.
                unsafe { killed_before.write_volatile(1) };
            }
        }
        if increased && !found {
            // SAFETY: as above.
            unsafe { limiting_css.write_volatile(memcg as u64) };
        }
        if last != Some(ooms) {
            let _ = LAST_OOM_COUNTS.insert(id, ooms, BPF_ANY.into());
        }
        match pointer(memcg, offset!(css_parent)) {
            Some(parent) => memcg = parent,
            None => break,
        }
    }
    // SAFETY: as above.
    Some(unsafe { all.read_volatile() })
}

#[inline(always)]
fn is_at_limit(memcg: *const u8) -> bool {
    let (usage, limit) =
        (field::<u64>(memcg, offset!(memory.usage_pages)), field::<u64>(memcg, offset!(memory.limit_pages)));
    let reaches = |usage: Option<u64>, limit: Option<u64>| {
        matches!((usage, limit), (Some(usage), Some(limit))
            if limit > MAX_CHARGE_PAGES && usage.saturating_add(MAX_CHARGE_PAGES) >= limit)
    };
    // On cgroup v1 these fields are `memsw`: usage and limit of memory and swap together.
    reaches(usage, limit)
        || reaches(
            field(memcg, offset!(memory.swap_usage_pages)),
            field(memcg, offset!(memory.swap_limit_pages)),
        )
}

/// Hierarchy id and kernfs id of the cgroup of a `cgroup_subsys_state`.
#[inline(always)]
fn cgroup_of_css(css: *const u8) -> Option<(u32, u64)> {
    let cgroup = pointer(css, offset!(css_cgroup))?;
    let hierarchy = field(pointer(cgroup, offset!(cgroup_root))?, offset!(root_hierarchy))?;
    let id = field(pointer(cgroup, offset!(cgroup_kn))?, offset!(kernfs_id))?;
    Some((hierarchy, id))
}
