//! How long tasks are runnable and wait for a CPU, by the cgroup they are in.
//!
//! A wait begins when a task is woken, and when it is taken off its CPU while it could run on; it ends when the task
//! gets a CPU. Where a task's wait began is kept in a place that its pid names: two that share one at the same moment cost
//! one wait, and nothing is ever allocated.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map},
    maps::{Array, PerCpuArray, PerCpuHashMap},
    programs::BtfTracePointContext,
};
use snug_ebpf::abi::{
    events::LOST_RUNQUEUE,
    histogram::{BUCKETS, HistogramRecord, bucket},
    runqueue::{RunqueueCost, SLOTS, TIMED, Waiting},
};

use crate::{
    counters::record_of,
    read::{cgroup_id, load, load_pointer, offset},
};

/// Waits by the cgroup's id; the agent sets the size, and removes them when the cgroup has gone.
#[map]
static RUNQUEUE: PerCpuHashMap<u64, HistogramRecord> =
    PerCpuHashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Tasks that wait, by their pid.
#[map]
static WAITING: Array<Waiting> = Array::with_max_entries(SLOTS, 0);

/// What the programs cost.
#[map]
static RUNQUEUE_COST: PerCpuArray<RunqueueCost> = PerCpuArray::with_max_entries(1, 0);

/// The root of cgroup v2 has this id; what kernel threads wait is nobody's.
const ROOT: u64 = 1;

static NONE: HistogramRecord = HistogramRecord::NONE;

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

/// The place of a task whose type the verifier knows; none for the idle one.
#[inline(always)]
fn place(task: *const u8) -> Option<(u32, *mut Waiting)> {
    let pid: u32 = load(task, offset!(task_pid))?;
    if pid == 0 {
        return None;
    }
    WAITING.get_ptr_mut(pid & (SLOTS - 1)).map(|place| (pid, place))
}

#[inline(always)]
fn begin(task: *const u8, now: u64) {
    if let Some((pid, place)) = place(task) {
        // SAFETY: the place is an entry of an array. Another CPU may write it too; then one wait is not counted.
        unsafe {
            (*place).since_ns = now;
            (*place).pid = pid;
        }
    }
}

#[inline(always)]
fn end(task: *const u8, now: u64) -> Option<()> {
    let (pid, place) = place(task)?;
    // SAFETY: as in `begin`.
    let since = unsafe {
        if (*place).pid != pid || (*place).since_ns == 0 {
            return None;
        }
        let since = (*place).since_ns;
        (*place).since_ns = 0;
        since
    };
    let css_set = load_pointer(task, offset!(task_cgroups))?;
    let id = cgroup_id(load_pointer(css_set, offset!(css_set_default))?)?;
    if id == ROOT {
        return None;
    }
    // It is too large for the stack, so it is no temporary.
    let record = record_of(&RUNQUEUE, id, &NONE, LOST_RUNQUEUE)?;
    let waited = now.saturating_sub(since);
    // SAFETY: the record is this CPU's own, and the scheduler lets nothing come between.
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

/// Times one run in [`TIMED`].
#[inline(always)]
fn count_cost(began: u64) {
    if let Some(cost) = RUNQUEUE_COST.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own. A wake-up in an interrupt may come between and be forgotten.
        unsafe {
            (*cost).runs += 1;
            if (*cost).runs % TIMED == 0 {
                (*cost).timed_ns += now() - began;
            }
        }
    }
}
