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
    maps::{Array, LruHashMap},
    programs::BtfTracePointContext,
};
use snug_ebpf::abi::{events::OOM_KILL, field::ABSENT, oom::OomEvent};

use crate::{
    age::is_young,
    events::{header, reserve_final},
    lifecycle::index_of,
    process::{comm, init_task},
    read::{Hidden, field, offset, pointer, value},
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
    let ancestors = Ancestors::of(css)?;
    if ancestors.killed_before.get() {
        return None;
    }
    let group = ancestors.group.get();
    if group != 0 {
        let _ = GROUP_KILLS.insert(group, this_kill(), BPF_ANY.into());
    }
    let limiting_css = Some(ancestors.limiting_css.get() as *const u8).filter(|css| !css.is_null());
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

/// What the cgroups from the victim's upwards say about a kill. In a map, so that the verifier does not check each step once for each
/// way through those before.
#[derive(Clone, Copy)]
#[repr(C)]
struct Found {
    /// Address of the lowest cgroup whose counter of OOM events has increased since it was last read; 0: none.
    limiting_css: u64,
    /// The highest cgroup with `memory.oom.group` that is not above the limiting one: all of its processes are killed. 0: none.
    group: u64,
    /// Whether the victim belongs to a group that this task is killing already.
    killed_before: bool,
    /// Whether the counter of the cgroup that is looked at has increased.
    increased: bool,
}

/// One entry: the kernel holds `oom_lock` while it marks a victim.
#[map]
static FOUND: Array<Found> = Array::with_max_entries(1, 0);

/// The members of [`Found`].
struct Ancestors {
    limiting_css: Hidden<u64>,
    group: Hidden<u64>,
    killed_before: Hidden<bool>,
    increased: Hidden<bool>,
}

#[inline(always)]
fn this_kill() -> GroupKill {
    // SAFETY: the helper has no precondition.
    GroupKill { at_ns: unsafe { bpf_ktime_get_ns() }, killer: bpf_get_current_pid_tgid() }
}

impl Ancestors {
    /// Reads the cgroups from `css` upwards. A memory controller's `cgroup_subsys_state` is the first member of its `mem_cgroup`,
    /// so `css` is used as both.
    #[inline(always)]
    fn of(css: *const u8) -> Option<Self> {
        let found = FOUND.get_ptr_mut(0)?;
        // SAFETY: the entry lives as long as the map.
        let this = unsafe {
            Self {
                limiting_css: Hidden::new(&raw mut (*found).limiting_css),
                group: Hidden::new(&raw mut (*found).group),
                killed_before: Hidden::new(&raw mut (*found).killed_before),
                increased: Hidden::new(&raw mut (*found).increased),
            }
        };
        this.limiting_css.set(0);
        this.group.set(0);
        this.killed_before.set(false);
        let kill = this_kill();
        let mut memcg = css;
        for _ in 0..MAX_ANCESTORS {
            let Some(parent) = this.look_at(memcg, &kill) else { break };
            memcg = parent;
        }
        Some(this)
    }

    /// Adds what one cgroup says, and returns the one above it.
    #[inline(always)]
    fn look_at(&self, memcg: *const u8, kill: &GroupKill) -> Option<*const u8> {
        let (_, id) = cgroup_of_css(memcg)?;
        let ooms = field::<u64>(memcg, offset!(memory_local_ooms))?;
        // SAFETY: the value is copied at once.
        let last = unsafe { LAST_OOM_COUNTS.get(id) }.copied();
        self.increased.set(match last {
            Some(last) => ooms > last,
            None => {
                ooms > 0 && (pointer(memcg, offset!(css_cgroup)).is_some_and(is_young) || is_at_limit(memcg))
            }
        });
        if last != Some(ooms) {
            let _ = LAST_OOM_COUNTS.insert(id, ooms, BPF_ANY.into());
        }
        if value::<u8>(memcg, offset!(memory_oom_group)) != 0 {
            if self.limiting_css.get() == 0 {
                self.group.set(id);
            }
            // SAFETY: the value is copied at once.
            let before = unsafe { GROUP_KILLS.get(id) }.copied();
            if before.is_some_and(|before| {
                before.killer == kill.killer && kill.at_ns.wrapping_sub(before.at_ns) < GROUP_KILL_NS
            }) {
                self.killed_before.set(true);
            }
        }
        if self.increased.get() && self.limiting_css.get() == 0 {
            self.limiting_css.set(memcg as u64);
        }
        pointer(memcg, offset!(css_parent))
    }
}

#[inline(always)]
fn is_at_limit(memcg: *const u8) -> bool {
    // A limit that cannot be read is 0. Without short circuits, which are branches.
    let reaches = |usage: u64, limit: u64| {
        (limit > MAX_CHARGE_PAGES) & (usage.saturating_add(MAX_CHARGE_PAGES) >= limit)
    };
    // On cgroup v1 these fields are `memsw`: usage and limit of memory and swap together.
    reaches(value(memcg, offset!(memory.usage_pages)), value(memcg, offset!(memory.limit_pages)))
        | reaches(
            value(memcg, offset!(memory.swap_usage_pages)),
            value(memcg, offset!(memory.swap_limit_pages)),
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
