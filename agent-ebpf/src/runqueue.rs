//! Run queue latency by cgroup: how long tasks are runnable and wait for a CPU.
//!
//! A wait begins when a task is woken or preempted, and ends when the task is scheduled. The start is stored in a slot
//! chosen by the pid. If two waiting tasks have the same slot, one wait is not counted; in exchange, nothing is allocated
//! in the scheduler.
//!
//! Tracepoints: `sched_wakeup`, `sched_wakeup_new`, `sched_switch`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map},
    maps::{Array, PerCpuArray, PerCpuHashMap},
    programs::BtfTracePointContext,
};
use snug_ebpf::abi::{
    cost::{ProgramCost, TIMING_INTERVAL},
    events::LOST_RUNQUEUE,
    histogram::{BUCKETS, HistogramRecord, bucket},
    runqueue::{SLOTS, WaitingTask},
};

use crate::{
    counters::record_of,
    read::{cgroup_id, load, load_pointer, offset},
};

/// Waits by the cgroup's kernfs id. The agent sets the size and deletes the entries of removed cgroups.
#[map]
static RUNQUEUE: PerCpuHashMap<u64, HistogramRecord> =
    PerCpuHashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Waiting tasks; the index is the pid modulo [`SLOTS`].
#[map]
static WAITING: Array<WaitingTask> = Array::with_max_entries(SLOTS, 0);

/// Run time of the programs.
#[map]
static RUNQUEUE_COST: PerCpuArray<ProgramCost> = PerCpuArray::with_max_entries(1, 0);

/// kernfs id of the root of cgroup v2. Waits of tasks in the root, such as kernel threads, are not counted.
const ROOT: u64 = 1;

static EMPTY_HISTOGRAM: HistogramRecord = HistogramRecord::EMPTY;

#[btf_tracepoint(function = "sched_wakeup")]
fn runqueue_wakeup(context: BtfTracePointContext) -> i32 {
    woken(&context)
}

#[btf_tracepoint(function = "sched_wakeup_new")]
fn runqueue_wakeup_new(context: BtfTracePointContext) -> i32 {
    woken(&context)
}

#[inline(always)]
fn woken(context: &BtfTracePointContext) -> i32 {
    let now = now();
    begin(context.arg(0), now);
    count_cost(now);
    0
}

#[btf_tracepoint(function = "sched_switch")]
fn runqueue_switch(context: BtfTracePointContext) -> i32 {
    let now = now();
    let (preempted, state): (u64, u32) = (context.arg(0), context.arg(3));
    if preempted & 1 != 0 || state == 0 {
        begin(context.arg(1), now);
    }
    end(context.arg(2), now);
    count_cost(now);
    0
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// Pid and slot of a task; `None` for the idle task. The verifier must know the type of `task`.
#[inline(always)]
fn slot(task: *const u8) -> Option<(u32, *mut WaitingTask)> {
    let pid: u32 = load(task, offset!(task_pid))?;
    if pid == 0 {
        return None;
    }
    WAITING.get_ptr_mut(pid & (SLOTS - 1)).map(|slot| (pid, slot))
}

#[inline(always)]
fn begin(task: *const u8, now: u64) {
    if let Some((pid, slot)) = slot(task) {
        // SAFETY: the slot is an entry of an array. Another CPU may write it, too; then one wait is not counted.
        unsafe {
            (*slot).since_ns = now;
            (*slot).pid = pid;
        }
    }
}

#[inline(always)]
fn end(task: *const u8, now: u64) -> Option<()> {
    let (pid, slot) = slot(task)?;
    // SAFETY: as in `begin`.
    let since = unsafe {
        if (*slot).pid != pid || (*slot).since_ns == 0 {
            return None;
        }
        let since = (*slot).since_ns;
        (*slot).since_ns = 0;
        since
    };
    let css_set = load_pointer(task, offset!(task_cgroups))?;
    let id = cgroup_id(load_pointer(css_set, offset!(css_set_default))?)?;
    if id == ROOT {
        return None;
    }
    // A record is too large for the stack, hence the static.
    let record = record_of(&RUNQUEUE, id, &EMPTY_HISTOGRAM, LOST_RUNQUEUE)?;
    let waited = now.saturating_sub(since);
    // SAFETY: the record is this CPU's own, and interrupts are off in `sched_switch`.
    unsafe {
        (*record).sum_ns += waited;
        match bucket(waited) {
            Some(index) if index < BUCKETS => {
                (*record).counts[index] = (*record).counts[index].wrapping_add(1);
            }
            _ => (*record).zero = (*record).zero.wrapping_add(1),
        }
    }
    Some(())
}

/// Counts a run that began at `began`, and times one run in [`TIMING_INTERVAL`].
#[inline(always)]
fn count_cost(began: u64) {
    if let Some(cost) = RUNQUEUE_COST.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own. A wake-up in an interrupt may update it in between and be lost.
        unsafe {
            (*cost).runs += 1;
            if (*cost).runs % TIMING_INTERVAL == 0 {
                (*cost).timed_ns += now() - began;
            }
        }
    }
}
