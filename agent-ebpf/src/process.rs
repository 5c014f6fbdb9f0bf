//! The init process of each cgroup: its start and its exit status.
//!
//! The init process of a container is the first process that calls `execve` in the container's cgroup and whose parent is
//! in another cgroup: the container runtime. Its pid does not identify it, because the pid is 1 only if the container has
//! a PID namespace of its own. Processes that `kubectl exec` and probes start later also have a parent outside, but the
//! cgroup has an init process by then. Processes of OCI hooks have a parent inside.
//!
//! The runtime may first execute itself in the cgroup (runc does, from a copy of its binary that the container cannot
//! overwrite). Such a process shares its parent's mount namespace; the first process with another mount namespace replaces
//! it as the init process, be it another one or the same after its next `execve`. If none comes, as in a systemd unit, it stays
//! the init process.
//!
//! Tracepoints: `sched_process_exec`, `sched_process_exit`.

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
    events::{count_lost, header, reserve, reserve_final},
    read::{field, offset, pointer},
};

/// Init processes by the kernfs id of their cgroup; the agent sets the size.
#[map]
static INITS: HashMap<u64, Init> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Running init processes by pid; the agent sets the size.
#[map]
static INIT_TASKS: HashMap<u32, InitTask> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// `SIGNAL_GROUP_EXIT` of `include/linux/sched/signal.h`: all threads exit with one code.
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
    // SAFETY: entries are only replaced as a whole; an entry deleted meanwhile still has its values.
    let living = unsafe { INITS.get(id) }.copied().filter(|init| init.ended == 0);
    if living.is_some_and(|init| init.contained != 0) {
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
        count_lost(LOST_INITS);
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
        // The exit of the init process was missed; this process reuses its pid.
        return None;
    }
    let id = task_of_init.cgroup;
    // SAFETY: as above. If the cgroup is removed, the entry must not be inserted again.
    let init = unsafe { INITS.get(id) }.copied().filter(|init| init.pid == pid)?;
    // The status that wait(2) reports: wait_task_zombie in kernel/exit.c.
    let flags: u32 = field(signal, offset!(signal_flags))?;
    let status: u32 = if flags & GROUP_EXIT != 0 {
        field(signal, offset!(signal_exit_code))?
    } else {
        field(leader, offset!(task_exit_code))?
    };
    let _ = INITS.insert(id, Init { ended: 1, ..init }, BPF_ANY.into());
    let mut entry = reserve_final::<ProcessEvent>(context, EXITED)?;
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

/// Deletes the init process of a removed cgroup.
#[inline(always)]
pub(crate) fn forget_init(cgroup: u64) {
    let _ = INITS.remove(cgroup);
}

/// The running init process with this pid.
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

/// A task's mount namespace; `None` if the task is exiting.
#[inline(always)]
fn mount_namespace(task: *const u8) -> Option<*const u8> {
    pointer(pointer(task, offset!(task_namespaces))?, offset!(mount_namespace))
}

/// kernfs id of a cgroup.
#[inline(always)]
fn cgroup_id_of(cgroup: *const u8) -> Option<u64> {
    field(pointer(cgroup, offset!(cgroup_kn))?, offset!(kernfs_id)).filter(|id| *id != 0)
}

/// A task's start time as in `/proc/PID/stat`, ticks since boot.
#[inline(always)]
fn start_ticks(task: *const u8) -> Option<u64> {
    Some(field::<u64>(task, offset!(task_start))? / TICK_NS)
}

/// A task's name; empty if it cannot be read.
#[inline(always)]
pub(crate) fn comm(task: *const u8) -> [u8; COMM_BYTES] {
    field(task, offset!(task_comm)).unwrap_or_default()
}
