//! The init process of each cgroup: when it starts and how it ends.
//!
//! A container's init process is the first process that runs a program in the container's cgroup and whose parent is not
//! in it: the runtime puts it there and lets it go. Its pid says nothing, for it is 1 only where the container has a pid
//! namespace of its own. What is run later in the container (`exec`, probes) comes from outside, too, but finds an init
//! process; what a hook runs before the program has its parent inside.
//!
//! A runtime may run itself once more in the cgroup before all that (runc does, from a copy that the container cannot
//! overwrite). Such a process shares its parent's mount namespace and gives way to the first one that does not. Where
//! none comes the program has no mount namespace of its own, as in a systemd unit.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC},
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map},
    maps::HashMap,
    programs::BtfTracePointContext,
};
use snug_ebpf::abi::{
    events::{EXITED, LOST_INITS, STARTED},
    process::{COMM_BYTES, Init, InitTask, ProcessEvent, TICK_NS},
};

use crate::{
    events::{header, lost, reserve, reserve_last},
    read::{field, offset, pointer},
};

/// Init processes by the id of their cgroup; the agent sets the size.
#[map]
static INITS: HashMap<u64, Init> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// The living ones by their pid.
#[map]
static INIT_TASKS: HashMap<u32, InitTask> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// `SIGNAL_GROUP_EXIT` of `include/linux/sched/signal.h`: all threads end, with one code.
const GROUP_EXIT: u32 = 4;

#[btf_tracepoint(function = "sched_process_exec")]
fn process_started(context: BtfTracePointContext) -> i32 {
    let _ = started(&context);
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exited(context: BtfTracePointContext) -> i32 {
    let _ = exited(&context);
    0
}

#[inline(always)]
fn started(context: &BtfTracePointContext) -> Option<()> {
    let task: *const u8 = context.arg(0);
    let cgroup = cgroup_of(task)?;
    let id = cgroup_id_of(cgroup)?;
    let pid: u32 = field(task, offset!(task_tgid))?;
    // SAFETY: entries are only replaced whole, and one that was removed meanwhile says what was true a moment ago.
    let living = unsafe { INITS.get(id) }.copied().filter(|init| init.ended == 0);
    if living.is_some_and(|init| init.contained != 0 || init.pid == pid) {
        return None;
    }
    let level: u32 = field(cgroup, offset!(cgroup_level))?;
    let parent = pointer(task, offset!(task_parent))?;
    if level == 0 || cgroup_of(parent)? == cgroup {
        return None;
    }
    let contained = u32::from(mount_namespace(task) != mount_namespace(parent));
    if living.is_some() && contained == 0 {
        return None;
    }
    // SAFETY: the helper has no precondition.
    let started_ns = unsafe { bpf_ktime_get_ns() };
    let init_task = InitTask { cgroup: id, start_ticks: start_ticks(task)?, started_ns };
    if INIT_TASKS.insert(pid, init_task, BPF_ANY.into()).is_err()
        || INITS.insert(id, Init { pid, ended: 0, contained }, BPF_ANY.into()).is_err()
    {
        lost(LOST_INITS);
        return None;
    }
    let mut entry = reserve::<ProcessEvent>(context, STARTED)?;
    let comm = comm(task);
    // SAFETY: the reservation is ours until it is submitted.
    unsafe {
        *entry.as_mut_ptr() = ProcessEvent {
            header: header(STARTED, 0, id),
            started_ns,
            pid,
            status: 0,
            contained,
            reserved: 0,
            comm,
        };
    }
    entry.submit(0);
    Some(())
}

#[inline(always)]
fn exited(context: &BtfTracePointContext) -> Option<()> {
    let task: *const u8 = context.arg(0);
    let pid: u32 = field(task, offset!(task_tgid))?;
    // SAFETY: only the process itself, here, removes its entry.
    let task_of_init = *unsafe { INIT_TASKS.get(pid) }?;
    let signal = pointer(task, offset!(task_signal))?;
    if field::<u32>(signal, offset!(signal_live))? != 0 {
        return None;
    }
    let leader = pointer(task, offset!(task_leader))?;
    let _ = INIT_TASKS.remove(pid);
    if start_ticks(leader)? != task_of_init.start_ticks {
        // Its end was missed; this is another one with the same pid.
        return None;
    }
    let id = task_of_init.cgroup;
    // SAFETY: as above. Gone with its cgroup, it must not come back.
    let init = unsafe { INITS.get(id) }.copied().filter(|init| init.pid == pid)?;
    // What wait(2) reports: kernel/exit.c, wait_task_zombie.
    let flags: u32 = field(signal, offset!(signal_flags))?;
    let status: u32 = if flags & GROUP_EXIT != 0 {
        field(signal, offset!(signal_exit_code))?
    } else {
        field(leader, offset!(task_exit_code))?
    };
    let _ = INITS.insert(id, Init { ended: 1, ..init }, BPF_ANY.into());
    let mut entry = reserve_last::<ProcessEvent>(context, EXITED)?;
    let comm = comm(leader);
    // SAFETY: the reservation is ours until it is submitted.
    unsafe {
        *entry.as_mut_ptr() = ProcessEvent {
            header: header(EXITED, 0, id),
            started_ns: task_of_init.started_ns,
            pid,
            status,
            contained: init.contained,
            reserved: 0,
            comm,
        };
    }
    entry.submit(0);
    Some(())
}

/// A cgroup has gone, and with it the name of its init process.
#[inline(always)]
pub(crate) fn forget_init(cgroup: u64) {
    let _ = INITS.remove(cgroup);
}

/// The living init process with this pid.
#[inline(always)]
pub(crate) fn init_task(pid: u32) -> Option<InitTask> {
    // SAFETY: the value is copied at once.
    unsafe { INIT_TASKS.get(pid) }.copied()
}

/// A task's cgroup in cgroup v2.
#[inline(always)]
fn cgroup_of(task: *const u8) -> Option<*const u8> {
    pointer(pointer(task, offset!(task_cgroups))?, offset!(css_set_default))
}

/// A task's mount namespace; `None` if it has none any more.
#[inline(always)]
fn mount_namespace(task: *const u8) -> Option<*const u8> {
    pointer(pointer(task, offset!(task_namespaces))?, offset!(mount_namespace))
}

/// kernfs id of a cgroup.
#[inline(always)]
fn cgroup_id_of(cgroup: *const u8) -> Option<u64> {
    field(pointer(cgroup, offset!(cgroup_kn))?, offset!(kernfs_id)).filter(|id| *id != 0)
}

/// When a task was forked, as /proc/PID/stat has it.
#[inline(always)]
fn start_ticks(task: *const u8) -> Option<u64> {
    Some(field::<u64>(task, offset!(task_start))? / TICK_NS)
}

/// A task's name; empty if it cannot be read.
#[inline(always)]
pub(crate) fn comm(task: *const u8) -> [u8; COMM_BYTES] {
    field(task, offset!(task_comm)).unwrap_or_default()
}
