//! Who is killed because memory ran out, and by whose limit.
//!
//! The tracepoint does not say on whose behalf the OOM killer works. But a cgroup whose limit cannot be kept counts that,
//! for itself alone, before it has anyone killed: the lowest one around the victim whose count has moved is the one. If
//! none has, the node is out of memory.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_task,
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use snug_ebpf::abi::{events::OOM_KILL, offsets::ABSENT, oom::OomEvent};

use crate::{
    events::{header, reserve_last},
    process::{comm, init_task},
    read::{field, offset, pointer},
};

/// How often each cgroup's limit could not be kept, as last seen here, by the cgroup's id.
#[map]
static OOMS_SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// Cgroups above the victim's that are looked at.
const DEEPEST: u32 = 12;

/// A charge that fails asks for so many pages at most: of a cgroup that has not been seen before, a count counts only
/// if its usage is that close to its limit.
const CHARGE: u64 = 64;

#[btf_tracepoint(function = "mark_victim")]
fn oom_kill(context: BtfTracePointContext) -> i32 {
    let _ = report(&context);
    0
}

#[inline(always)]
fn report(context: &BtfTracePointContext) -> Option<()> {
    let argument: u64 = context.arg(0);
    let by_task = offset!(mark_victim_task) != ABSENT;
    // SAFETY: the helper has no precondition.
    let task = if by_task { argument } else { unsafe { bpf_get_current_task() } } as *const u8;
    let pid = if by_task { field(task, offset!(task_tgid))? } else { argument as u32 };
    let css = pointer(pointer(task, offset!(task_cgroups))?, offset!(css_set_memory))?;
    let (hierarchy, mut id) = place(css)?;
    let limiting = limiting(css);
    if !by_task {
        // Who charges beyond a limit is below it, but need not be the victim; who finds the node full is anyone.
        match init_task(pid) {
            Some(init) if hierarchy == 0 => id = init.cgroup,
            _ if limiting.is_none() => id = 0,
            _ => {}
        }
    }
    let memcg = limiting.unwrap_or(css);
    let mut entry = reserve_last::<OomEvent>(context, OOM_KILL)?;
    let event = OomEvent {
        header: header(OOM_KILL, hierarchy, id),
        limit_id: match limiting {
            Some(limiting) => place(limiting).map_or(0, |(_, id)| id),
            None => 0,
        },
        usage_pages: field(memcg, offset!(memory_usage)).unwrap_or(0),
        limit_pages: field(memcg, offset!(memory_limit)).unwrap_or(u64::MAX),
        pid,
        reserved: 0,
        comm: comm(task),
    };
    // SAFETY: the reservation is ours until it is submitted.
    unsafe { *entry.as_mut_ptr() = event };
    entry.submit(0);
    Some(())
}

/// The lowest cgroup, from this one up, whose limit could not be kept since it was last looked at.
#[inline(always)]
fn limiting(css: *const u8) -> Option<*const u8> {
    let mut memcg = css;
    let mut found = None;
    for _ in 0..DEEPEST {
        let (Some((_, id)), Some(ooms)) = (place(memcg), field::<u64>(memcg, offset!(memory_local_ooms)))
        else {
            break;
        };
        // SAFETY: the value is copied at once.
        let seen = unsafe { OOMS_SEEN.get(id) }.copied();
        let moved = match seen {
            Some(seen) => ooms > seen,
            None => ooms > 0 && is_at_limit(memcg),
        };
        if moved && found.is_none() {
            found = Some(memcg);
        }
        if seen != Some(ooms) {
            let _ = OOMS_SEEN.insert(id, ooms, BPF_ANY.into());
        }
        match pointer(memcg, offset!(css_parent)) {
            Some(parent) => memcg = parent,
            None => break,
        }
    }
    found
}

#[inline(always)]
fn is_at_limit(memcg: *const u8) -> bool {
    let (usage, limit) =
        (field::<u64>(memcg, offset!(memory_usage)), field::<u64>(memcg, offset!(memory_limit)));
    let reaches = |usage: Option<u64>, limit: Option<u64>| {
        matches!((usage, limit), (Some(usage), Some(limit))
            if limit > CHARGE && usage.saturating_add(CHARGE) >= limit)
    };
    // On cgroup v1 the same place limits memory and swap together.
    reaches(usage, limit) || reaches(field(memcg, offset!(swap_usage)), field(memcg, offset!(swap_limit)))
}

/// Hierarchy and id of the cgroup that a controller's state (which a `mem_cgroup` begins with) belongs to.
#[inline(always)]
fn place(css: *const u8) -> Option<(u32, u64)> {
    let cgroup = pointer(css, offset!(css_cgroup))?;
    let hierarchy = field(pointer(cgroup, offset!(cgroup_root))?, offset!(root_hierarchy))?;
    let id = field(pointer(cgroup, offset!(cgroup_kn))?, offset!(kernfs_id))?;
    Some((hierarchy, id))
}
