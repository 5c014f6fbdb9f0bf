//! Families of values from a cgroup's own files.

use super::{
    Family,
    Kind::{Counter, Gauge},
    family, int, time,
};
use crate::{
    exporters::{
        catalogue::Value,
        kubelet::{Emit, Scrape},
    },
    model::{CgroupRow, Level},
    values::{Memory, MemoryEvents, MemoryStat, Pressure, Throttling},
};

fn memory(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&Memory) -> Option<u64>) {
    int(emit, row.values.memory.as_ref().and_then(value));
}

fn stat(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&MemoryStat) -> Option<u64>) {
    int(emit, row.values.memory_stat.as_deref().and_then(value));
}

fn events(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&MemoryEvents) -> u64) {
    int(emit, row.values.memory_events.as_ref().map(value));
}

fn pressure(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&Pressure) -> u64) {
    time(emit, &[], row.values.pressure.as_ref().map(value));
}

/// As the kubelet does, emits CFS bandwidth control only if there is a quota: alerts divide by the number of periods.
fn limited(row: &CgroupRow) -> Option<&Throttling> {
    row.values.throttling.as_ref().filter(|t| t.quota_ns.is_some())
}

fn failures(row: &CgroupRow, _: &Scrape<'_>, emit: &mut Emit<'_>) {
    let Some(stat) = row.values.memory_stat.as_deref() else { return };
    for (failure, count) in [("pgfault", stat.page_faults), ("pgmajfault", stat.major_page_faults)] {
        for scope in ["container", "hierarchy"] {
            emit(&[("failure_type", failure), ("scope", scope)], Value::Int(count));
        }
    }
}

/// CPU, memory, pressure, limits and tasks. The families that queries use most come first.
pub(super) static FAMILIES: &[Family] = &[
    family("container_cpu_usage_seconds_total", Counter, "CPU time used, in seconds", |row, _, emit| {
        time(emit, &[("cpu", "total")], row.values.cpu.map(|cpu| cpu.usage_ns));
    })
    .differs("also exported while 0, so that a rate begins at the start of the container"),
    family(
        "container_memory_working_set_bytes",
        Gauge,
        "Memory usage without inactive file cache, in bytes",
        |row, _, emit| int(emit, row.values.working_set.map(|set| set.bytes)),
    ),
    family(
        "container_memory_usage_bytes",
        Gauge,
        "Memory usage including file cache, in bytes",
        |row, _, emit| {
            memory(row, emit, |m| Some(m.usage_bytes));
        },
    ),
    family("container_memory_rss", Gauge, "Anonymous memory, in bytes", |row, _, emit| {
        stat(row, emit, |s| Some(s.anon_bytes));
    }),
    family("container_memory_cache", Gauge, "File cache, in bytes", |row, _, emit| {
        stat(row, emit, |s| Some(s.file_bytes));
    }),
    family("container_memory_swap", Gauge, "Swap usage, in bytes", |row, _, emit| {
        int(emit, row.values.swap.map(|swap| swap.usage_bytes));
    }),
    family(
        "container_memory_max_usage_bytes",
        Gauge,
        "Highest memory usage so far, in bytes",
        |row, _, emit| {
            memory(row, emit, |m| m.peak_bytes);
        },
    )
    .differs("absent, not 0, if the kernel does not record it"),
    family("container_oom_events_total", Counter, "Processes killed by the OOM killer", |row, _, emit| {
        events(row, emit, |e| e.oom_kill);
    })
    .differs("oom_kill of memory.events, which counts processes: one OOM with memory.oom.group kills all of a container. snug_workload_oom_kills_total counts OOMs. A kubelet shows 0 although containers were killed"),
    family(
        "container_cpu_cfs_periods_total",
        Counter,
        "CFS periods in which the container was runnable",
        |row, _, emit| {
            int(emit, limited(row).map(|t| t.periods));
        },
    ),
    family("container_cpu_cfs_throttled_periods_total", Counter, "Throttled CFS periods", |row, _, emit| {
        int(emit, limited(row).map(|t| t.throttled_periods));
    }),
    family(
        "container_cpu_cfs_throttled_seconds_total",
        Counter,
        "Time throttled, in seconds",
        |row, _, emit| {
            time(emit, &[], limited(row).map(|t| t.throttled_ns));
        },
    ),
    family("container_cpu_cfs_burst_periods_total", Counter, "CFS periods with a burst", |row, _, emit| {
        int(emit, limited(row).map(|t| t.burst_periods));
    }),
    family(
        "container_cpu_cfs_burst_seconds_total",
        Counter,
        "CPU time used by bursts, in seconds",
        |row, _, emit| {
            time(emit, &[], limited(row).map(|t| t.burst_ns));
        },
    ),
    family(
        "container_cpu_user_seconds_total",
        Counter,
        "CPU time in user mode, in seconds",
        |row, _, emit| {
            time(emit, &[], row.values.cpu_split.map(|split| split.user_ns));
        },
    ),
    family(
        "container_cpu_system_seconds_total",
        Counter,
        "CPU time in the kernel, in seconds",
        |row, _, emit| {
            time(emit, &[], row.values.cpu_split.map(|split| split.system_ns));
        },
    ),
    family(
        "container_pressure_cpu_waiting_seconds_total",
        Counter,
        "Time in which some task waited for a CPU, in seconds",
        |row, _, emit| pressure(row, emit, |p| p.cpu.some_ns),
    ),
    family(
        "container_pressure_cpu_stalled_seconds_total",
        Counter,
        "Time in which all tasks waited for a CPU, in seconds",
        |row, _, emit| pressure(row, emit, |p| p.cpu.full_ns),
    ),
    family(
        "container_pressure_memory_waiting_seconds_total",
        Counter,
        "Time in which some task waited for memory, in seconds",
        |row, _, emit| pressure(row, emit, |p| p.memory.some_ns),
    ),
    family(
        "container_pressure_memory_stalled_seconds_total",
        Counter,
        "Time in which all tasks waited for memory, in seconds",
        |row, _, emit| pressure(row, emit, |p| p.memory.full_ns),
    ),
    family(
        "container_pressure_io_waiting_seconds_total",
        Counter,
        "Time in which some task waited for I/O, in seconds",
        |row, _, emit| pressure(row, emit, |p| p.io.some_ns),
    ),
    family(
        "container_pressure_io_stalled_seconds_total",
        Counter,
        "Time in which all tasks waited for I/O, in seconds",
        |row, _, emit| pressure(row, emit, |p| p.io.full_ns),
    ),
    family("container_memory_mapped_file", Gauge, "Mapped files, in bytes", |row, _, emit| {
        stat(row, emit, |s| Some(s.file_mapped_bytes));
    }),
    family("container_memory_kernel_usage", Gauge, "Kernel memory, in bytes", |row, _, emit| {
        stat(row, emit, |s| s.kernel_bytes);
    })
    .differs("the `kernel` row of memory.stat; a kubelet shows 0 on cgroup v2"),
    family("container_memory_failcnt", Counter, "Times that usage hit the limit", |row, _, emit| {
        events(row, emit, |e| e.max);
    })
    .differs("max of memory.events; a kubelet shows 0 on cgroup v2"),
    family("container_memory_failures_total", Counter, "Page faults", failures)
        .differs("both scopes include all descendants of the cgroup, as in a kubelet on cgroup v2"),
    family(
        "container_memory_total_active_file_bytes",
        Gauge,
        "Active file cache, in bytes",
        |row, _, emit| {
            stat(row, emit, |s| Some(s.active_file_bytes));
        },
    ),
    family(
        "container_memory_total_inactive_file_bytes",
        Gauge,
        "Inactive file cache, in bytes",
        |row, _, emit| {
            stat(row, emit, |s| Some(s.inactive_file_bytes));
        },
    ),
    family(
        "container_memory_events_high_total",
        Counter,
        "Times throttled above memory.high",
        |row, _, emit| {
            events(row, emit, |e| e.high);
        },
    ),
    family(
        "container_memory_events_max_total",
        Counter,
        "Times that usage hit memory.max",
        |row, _, emit| {
            events(row, emit, |e| e.max);
        },
    ),
    family(
        "container_memory_file_dirty_bytes",
        Gauge,
        "File cache not yet written, in bytes",
        |row, _, emit| {
            stat(row, emit, |s| Some(s.file_dirty_bytes));
        },
    ),
    family(
        "container_memory_file_writeback_bytes",
        Gauge,
        "File cache being written, in bytes",
        |row, _, emit| {
            stat(row, emit, |s| Some(s.file_writeback_bytes));
        },
    ),
    family("container_memory_pgscan_total", Counter, "Pages scanned by reclaim", |row, _, emit| {
        stat(row, emit, |s| s.page_scans);
    }),
    family("container_memory_pgsteal_total", Counter, "Pages reclaimed", |row, _, emit| {
        stat(row, emit, |s| s.page_steals);
    }),
    family(
        "container_memory_workingset_refault_file_total",
        Counter,
        "File pages read again soon after reclaim",
        |row, _, emit| stat(row, emit, |s| s.refaults_file),
    ),
    family(
        "container_memory_workingset_refault_anon_total",
        Counter,
        "Anonymous pages read again soon after reclaim",
        |row, _, emit| stat(row, emit, |s| s.refaults_anon),
    ),
    family("container_spec_cpu_period", Gauge, "CFS period, in microseconds", |row, _, emit| {
        int(emit, row.values.throttling.map(|t| t.period_ns / 1_000));
    }),
    family(
        "container_spec_cpu_quota",
        Gauge,
        "CFS quota, in microseconds; absent without one",
        |row, _, emit| {
            int(emit, row.values.throttling.and_then(|t| t.quota_ns).map(|ns| ns / 1_000));
        },
    ),
    family(
        "container_spec_memory_limit_bytes",
        Gauge,
        "Memory limit, in bytes; 0 = none; the machine's memory for the root",
        |row, scrape, emit| {
            if row.identity.of_path.level == Level::Root {
                int(emit, scrape.view.host.machine.memory_bytes);
            } else {
                memory(row, emit, |m| Some(m.limit_bytes.unwrap_or(0)));
            }
        },
    ),
    family(
        "container_spec_memory_swap_limit_bytes",
        Gauge,
        "Swap limit, in bytes; 0 = none",
        |row, _, emit| {
            int(emit, row.values.swap.map(|swap| swap.limit_bytes.unwrap_or(0)));
        },
    ),
    family("container_spec_cpu_shares", Gauge, "CPU shares, as cgroup v1 counts them", |row, _, emit| {
        int(emit, row.values.spec.and_then(|spec| spec.cpu_shares));
    })
    .differs("absent, not 0, for the root of cgroup v2"),
    family(
        "container_spec_memory_reservation_limit_bytes",
        Gauge,
        "Memory that is protected from reclaim, in bytes; 0 = none",
        |row, _, emit| int(emit, row.values.spec.and_then(|spec| spec.memory_reservation_bytes)),
    )
    .differs("absent, not 0, for the root of cgroup v2"),
    family(
        "container_creation_time_seconds",
        Gauge,
        "When the cgroup was created, in seconds since the Unix epoch",
        |row, _, emit| emit(&[], Value::Float(row.created_unix.trunc())),
    ),
    family(
        "container_start_time_seconds",
        Gauge,
        "When the cgroup was created, in seconds since the Unix epoch",
        |row, _, emit| emit(&[], Value::Float(row.created_unix.trunc())),
    )
    .differs("the creation of the cgroup, slightly before the start time that the runtime reports"),
    family(
        "container_last_seen",
        Gauge,
        "The time of this scrape, in seconds since the Unix epoch",
        |_, scrape, emit| emit(&[], Value::Int(scrape.now_unix.as_secs())),
    ),
    family("container_threads", Gauge, "Tasks", |row, _, emit| {
        int(emit, row.values.pids.map(|pids| pids.current));
    }),
    family("container_threads_max", Gauge, "Limit of tasks; 0 = none", |row, _, emit| {
        int(emit, row.values.pids.map(|pids| pids.limit.unwrap_or(0)));
    }),
];
