//! `snug_container_*`: one row per container, unit or other leaf cgroup.

mod rows;

use self::rows::{info, io, memory_stat, network, pressure, quotas, throttled};
use super::{Family, Samples::Container, Value, connections, limit_cores, memory_events, one, seconds};

pub(super) static FAMILIES: &[Family] = &[
    Family::counter(
        "snug_container_cpu_usage_seconds",
        "CPU time used",
        Container(|row, emit| one(emit, row.values.cpu.map(|cpu| seconds(cpu.usage_ns)))),
    ),
    Family::histogram(
        "snug_container_cpu_window_cores",
        "CPU usage in each window of sample-interval, in cores; shows bursts that averages over seconds hide",
        Container(|row, emit| one(emit, row.values.cpu_windows.as_deref().map(Value::Histogram))),
    )
    .since_agent(),
    Family::counter(
        "snug_container_cpu_quota_periods",
        "Simulation of a CPU limit of `quota` cores: CFS periods in which the container was runnable",
        Container(|row, emit| quotas(row, emit, |outcome| Value::Int(outcome.periods))),
    )
    .labels(&["quota"])
    .since_agent(),
    Family::counter(
        "snug_container_cpu_quota_throttled_periods",
        "Simulation of a CPU limit of `quota` cores: CFS periods in which the container would have been throttled",
        Container(|row, emit| quotas(row, emit, |outcome| Value::Int(outcome.throttled))),
    )
    .labels(&["quota"])
    .since_agent(),
    Family::counter(
        "snug_container_cpu_quota_delayed_seconds",
        "Simulation of a CPU limit of `quota` cores: CPU time that the limit would have delayed",
        Container(|row, emit| {
            quotas(row, emit, |outcome| Value::Float(outcome.delayed_millis as f64 / 1000.0));
        }),
    )
    .labels(&["quota"])
    .since_agent(),
    Family::histogram(
        "snug_container_runqueue_wait_seconds",
        "Run queue latency: time from runnable to running, one observation for each wait of a task; includes throttled time",
        Container(|row, emit| one(emit, row.values.runqueue.as_deref().map(Value::Histogram))),
    )
    .since_agent(),
    Family::gauge(
        "snug_container_memory_working_set_bytes",
        "Memory usage without inactive file cache; the kubelet evicts pods by this value",
        Container(|row, emit| one(emit, row.values.working_set.map(|set| Value::Int(set.bytes)))),
    ),
    Family::gauge(
        "snug_container_memory_usage_bytes",
        "Memory charged to the cgroup, including file cache",
        Container(|row, emit| one(emit, row.values.memory.map(|memory| Value::Int(memory.usage_bytes)))),
    ),
    Family::gauge(
        "snug_container_memory_peak_bytes",
        "Highest memory usage since the cgroup was created, recorded by the kernel",
        Container(|row, emit| one(emit, row.values.memory.and_then(|m| m.peak_bytes).map(Value::Int))),
    ),
    Family::gauge(
        "snug_container_memory_window_peak_bytes",
        "Highest memory usage of the last one to two minutes; source is a kernel peak for this time (peak_file), the kernel's watermark and samples (watermark), or samples alone (samples)",
        Container(|row, emit| {
            if let Some(peak) = row.values.window_peak {
                emit(&[peak.source.as_str()], Value::Int(peak.bytes));
            }
        }),
    )
    .labels(&["source"]),
    Family::gauge(
        "snug_container_memory_growth_bytes_per_second",
        "Growth of the lowest working set of each minute over the last hour, without start-up; absent for the first ten minutes",
        Container(|row, emit| one(emit, row.values.memory_growth.map(Value::Float))),
    ),
    Family::histogram(
        "snug_container_memory_working_set_distribution_bytes",
        "Working set, one observation each second",
        Container(|row, emit| one(emit, row.values.memory_histograms.as_deref().map(|histograms| Value::Histogram(&histograms.working_set)))),
    )
    .since_agent(),
    Family::histogram(
        "snug_container_memory_unreclaimable_distribution_bytes",
        "Unreclaimable memory (anonymous, shared, unreclaimable slab), one observation each slow-interval",
        Container(|row, emit| one(emit, row.values.memory_histograms.as_deref().map(|histograms| Value::Histogram(&histograms.unreclaimable)))),
    )
    .since_agent(),
    Family::gauge(
        "snug_container_memory_limit_bytes",
        "Memory limit of the cgroup, which may be that of its pod (spec.resources) if the container has none; absent without a limit",
        Container(|row, emit| one(emit, row.values.memory.and_then(|m| m.limit_bytes).map(Value::Int))),
    ),
    Family::gauge(
        "snug_container_memory_high_bytes",
        "Usage above which tasks are slowed down and memory is reclaimed (memory.high), so it bounds usage without OOM kills; absent without one and on cgroup v1",
        Container(|row, emit| one(emit, row.values.memory.and_then(|m| m.high_bytes).map(Value::Int))),
    ),
    Family::counter(
        "snug_container_memory_events",
        "Counts of memory.events: reclaim below memory.low (low), throttling above memory.high (high), usage at memory.max (max), out of memory (oom), processes killed by the OOM killer (oom_kill): with memory.oom.group, which the kubelet sets on cgroup v2, one OOM kills all processes of the container",
        Container(|row, emit| {
            if let Some(events) = &row.values.memory_events {
                memory_events(events, emit);
            }
        }),
    )
    .labels(&["event"]),
    Family::gauge(
        "snug_container_cpu_limit_cores",
        "CPU limit of the cgroup, quota divided by period, which may be that of its pod (spec.resources) if the container has none; absent without a limit",
        Container(limit_cores),
    ),
    Family::counter(
        "snug_container_cpu_cfs_periods",
        "CFS periods in which the container was runnable; absent if it never had a CPU limit",
        Container(|row, emit| throttled(row, emit, |t| Value::Int(t.periods))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_throttled_periods",
        "CFS periods in which the container was throttled; absent if it never had a CPU limit",
        Container(|row, emit| throttled(row, emit, |t| Value::Int(t.throttled_periods))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_throttled_seconds",
        "Throttled time, summed over CPUs; absent if the container never had a CPU limit",
        Container(|row, emit| throttled(row, emit, |t| seconds(t.throttled_ns))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_burst_periods",
        "CFS periods in which the container used more than its quota (CPU burst)",
        Container(|row, emit| throttled(row, emit, |t| Value::Int(t.burst_periods))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_burst_seconds",
        "CPU time used above the quota (CPU burst)",
        Container(|row, emit| throttled(row, emit, |t| seconds(t.burst_ns))),
    ),
    Family::counter(
        "snug_container_pressure_stalled_seconds",
        "Time in which some tasks (some) or all tasks (full) of the container were stalled on a resource (PSI)",
        Container(pressure),
    )
    .labels(&["resource", "stall"]),
    Family::counter(
        "snug_container_cpu_user_seconds",
        "CPU time used in user mode",
        Container(|row, emit| one(emit, row.values.cpu_split.map(|split| seconds(split.user_ns)))),
    ),
    Family::counter(
        "snug_container_cpu_system_seconds",
        "CPU time used in kernel mode",
        Container(|row, emit| one(emit, row.values.cpu_split.map(|split| seconds(split.system_ns)))),
    ),
    Family::gauge(
        "snug_container_memory_stat_bytes",
        "Memory by row of memory.stat; some rows are parts of others",
        Container(memory_stat),
    )
    .labels(&["row"]),
    // Not split into minor and major: the kernel counts a major fault in one row before the other, so that their
    // difference may go back, which a rate() would take for a counter reset.
    Family::counter(
        "snug_container_page_faults",
        "Page faults, minor and major",
        Container(|row, emit| one(emit, row.values.memory_stat.as_ref().map(|stat| Value::Int(stat.page_faults)))),
    ),
    Family::counter(
        "snug_container_major_page_faults",
        "Page faults that waited for a disk read",
        Container(|row, emit| one(emit, row.values.memory_stat.as_ref().map(|stat| Value::Int(stat.major_page_faults)))),
    ),
    Family::counter(
        "snug_container_refaults",
        "Pages that were read again soon after reclaim (refaults); a sign of too little memory",
        Container(|row, emit| {
            let Some(stat) = &row.values.memory_stat else { return };
            for (row, count) in [("anon", stat.refaults_anon), ("file", stat.refaults_file)] {
                if let Some(count) = count {
                    emit(&[row], Value::Int(count));
                }
            }
        }),
    )
    .labels(&["row"]),
    Family::counter(
        "snug_container_page_scans",
        "Pages scanned by reclaim",
        Container(|row, emit| one(emit, row.values.memory_stat.as_ref().and_then(|s| s.page_scans).map(Value::Int))),
    ),
    Family::counter(
        "snug_container_page_steals",
        "Pages reclaimed",
        Container(|row, emit| one(emit, row.values.memory_stat.as_ref().and_then(|s| s.page_steals).map(Value::Int))),
    ),
    Family::gauge(
        "snug_container_swap_usage_bytes",
        "Swap charged to the cgroup",
        Container(|row, emit| one(emit, row.values.swap.map(|swap| Value::Int(swap.usage_bytes)))),
    ),
    Family::gauge(
        "snug_container_swap_peak_bytes",
        "Highest swap usage since the cgroup was created; absent on cgroup v1",
        Container(|row, emit| one(emit, row.values.swap.and_then(|s| s.peak_bytes).map(Value::Int))),
    ),
    Family::gauge(
        "snug_container_swap_limit_bytes",
        "Swap limit of the cgroup (memory and swap together on cgroup v1); absent without a limit",
        Container(|row, emit| one(emit, row.values.swap.and_then(|s| s.limit_bytes).map(Value::Int))),
    ),
    Family::gauge(
        "snug_container_tasks",
        "Tasks (processes and threads)",
        Container(|row, emit| one(emit, row.values.pids.map(|pids| Value::Int(pids.current)))),
    ),
    Family::gauge(
        "snug_container_tasks_limit",
        "Limit of tasks (pids.max) of the cgroup; absent without a limit",
        Container(|row, emit| one(emit, row.values.pids.and_then(|p| p.limit).map(Value::Int))),
    ),
    Family::counter(
        "snug_container_io_bytes",
        "Bytes read from and written to block devices, by device number",
        Container(|row, emit| io(row, emit, |d| (d.read_bytes, d.write_bytes))),
    )
    .labels(&["device", "direction"]),
    Family::counter(
        "snug_container_io_operations",
        "Reads from and writes to block devices, by device number",
        Container(|row, emit| io(row, emit, |d| (d.reads, d.writes))),
    )
    .labels(&["device", "direction"]),
    Family::counter(
        "snug_container_network_receive_bytes",
        "Bytes received by sockets created in the container, by IP version; counted at L3, after packets are merged",
        Container(|row, emit| network(row, emit, |traffic| traffic.receive_bytes)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_network_receive_packets",
        "Packets received by sockets created in the container, by IP version",
        Container(|row, emit| network(row, emit, |traffic| traffic.receive_packets)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_network_transmit_bytes",
        "Bytes sent by sockets created in the container, by IP version; counted at L3, before packets are segmented",
        Container(|row, emit| network(row, emit, |traffic| traffic.transmit_bytes)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_network_transmit_packets",
        "Packets sent by sockets created in the container, by IP version",
        Container(|row, emit| network(row, emit, |traffic| traffic.transmit_packets)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_tcp_connections",
        "TCP connections and connection attempts by outcome: opened by the container, accepted by it, refused or reset by the \
         peer, timed out, or failed for another reason",
        Container(|row, emit| {
            if let Some(tcp) = &row.values.tcp {
                connections(tcp, emit);
            }
        }),
    )
    .since_agent()
    .labels(&["outcome"]),
    Family::counter(
        "snug_container_tcp_retransmits",
        "TCP segments retransmitted",
        Container(|row, emit| one(emit, row.values.tcp.as_ref().map(|tcp| Value::Int(tcp.retransmits)))),
    )
    .since_agent(),
    Family::histogram(
        "snug_container_tcp_round_trip_seconds",
        "Smoothed round-trip time (srtt) of TCP connections opened while the agent runs, one observation for each measured round trip",
        Container(|row, emit| one(emit, row.values.round_trips.as_deref().map(Value::Histogram))),
    )
    .since_agent(),
    Family::gauge(
        "snug_container_created_seconds",
        "When the cgroup was created, in seconds since the Unix epoch",
        Container(|row, emit| emit(&[], Value::Float(row.created_unix))),
    ),
    Family::gauge(
        "snug_container_info",
        "Always 1; attributes of the container that its other series do not carry",
        Container(info),
    )
    .labels(&["image", "runtime", "qos", "pod_uid", "container_id"]),
];
