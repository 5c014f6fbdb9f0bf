//! `snug_container_*`: one row per container, unit or other leaf cgroup.

mod rows;

use self::rows::{info, io, memory_stat, network, pressure, quotas, throttled};
use super::{
    Family,
    Samples::Container,
    Unit::{Bytes, BytesPerSecond, Cores, None, Seconds},
    Value, connections, limit_cores, memory_events, seconds,
};

pub(super) static FAMILIES: &[Family] = &[
    Family::counter(
        "snug_container_cpu_usage_seconds",
        "CPU time used",
        Seconds,
        Container(|row, emit| {
            if let Some(cpu) = row.values.cpu {
                emit(&[], seconds(cpu.usage_ns));
            }
        }),
    ),
    Family::histogram(
        "snug_container_cpu_window_cores",
        "CPU used in each window of sample-interval, in cores: how use is spread where an average over seconds shows nothing",
        Cores,
        Container(|row, emit| {
            if let Some(windows) = row.values.cpu_windows.as_deref() {
                emit(&[], Value::Histogram(windows));
            }
        }),
    )
    .since_agent(),
    Family::counter(
        "snug_container_cpu_quota_periods",
        "CFS periods with something to do, had the CPU limit been this quota in cores",
        None,
        Container(|row, emit| quotas(row, emit, |rung| Value::Int(rung.periods))),
    )
    .labels(&["quota"])
    .since_agent(),
    Family::counter(
        "snug_container_cpu_quota_throttled_periods",
        "Of these, periods in which it would have been throttled",
        None,
        Container(|row, emit| quotas(row, emit, |rung| Value::Int(rung.throttled))),
    )
    .labels(&["quota"])
    .since_agent(),
    Family::counter(
        "snug_container_cpu_quota_delayed_seconds",
        "CPU time that this quota would have put off",
        Seconds,
        Container(|row, emit| {
            quotas(row, emit, |rung| Value::Float(rung.delayed_millis as f64 / 1000.0));
        }),
    )
    .labels(&["quota"])
    .since_agent(),
    Family::histogram(
        "snug_container_runqueue_wait_seconds",
        "How long tasks that could run waited for a CPU, each time; time throttled included",
        Seconds,
        Container(|row, emit| {
            if let Some(waits) = row.values.runqueue.as_deref() {
                emit(&[], Value::Histogram(waits));
            }
        }),
    )
    .since_agent(),
    Family::gauge(
        "snug_container_memory_working_set_bytes",
        "Memory usage less inactive file cache: what the kubelet evicts by",
        Bytes,
        Container(|row, emit| {
            if let Some(set) = row.values.working_set {
                emit(&[], Value::Int(set.bytes));
            }
        }),
    ),
    Family::gauge(
        "snug_container_memory_usage_bytes",
        "Memory charged to the cgroup, file cache included",
        Bytes,
        Container(|row, emit| {
            if let Some(memory) = row.values.memory {
                emit(&[], Value::Int(memory.usage_bytes));
            }
        }),
    ),
    Family::gauge(
        "snug_container_memory_peak_bytes",
        "Highest memory usage since the cgroup was created, as the kernel itself recorded it",
        Bytes,
        Container(|row, emit| {
            if let Some(peak) = row.values.memory.and_then(|m| m.peak_bytes) {
                emit(&[], Value::Int(peak));
            }
        }),
    ),
    Family::gauge(
        "snug_container_memory_window_peak_bytes",
        "Highest memory usage of the last minute or two; of what source tells it: the kernel for this very time (peak_file), its watermark and looks in between (watermark), looks alone (samples)",
        Bytes,
        Container(|row, emit| {
            if let Some(peak) = row.values.window_peak {
                emit(&[peak.source.as_str()], Value::Int(peak.bytes));
            }
        }),
    )
    .labels(&["source"]),
    Family::gauge(
        "snug_container_memory_growth_bytes_per_second",
        "How fast the lowest working set of each minute has grown over the last hour, start-up left out; absent before ten minutes of it",
        BytesPerSecond,
        Container(|row, emit| {
            if let Some(growth) = row.values.memory_growth {
                emit(&[], Value::Float(growth));
            }
        }),
    ),
    Family::histogram(
        "snug_container_memory_working_set_distribution_bytes",
        "Working set, looked at once a second",
        Bytes,
        Container(|row, emit| {
            if let Some(histograms) = row.values.memory_histograms.as_deref() {
                emit(&[], Value::Histogram(&histograms.working_set));
            }
        }),
    )
    .since_agent(),
    Family::histogram(
        "snug_container_memory_unreclaimable_distribution_bytes",
        "Memory that cannot be given back (anonymous, shared, unreclaimable slab), looked at once in slow-interval",
        Bytes,
        Container(|row, emit| {
            if let Some(histograms) = row.values.memory_histograms.as_deref() {
                emit(&[], Value::Histogram(&histograms.unreclaimable));
            }
        }),
    )
    .since_agent(),
    Family::gauge(
        "snug_container_memory_limit_bytes",
        "Memory limit in force in the cgroup; absent without one",
        Bytes,
        Container(|row, emit| {
            if let Some(limit) = row.values.memory.and_then(|m| m.limit_bytes) {
                emit(&[], Value::Int(limit));
            }
        }),
    ),
    Family::counter(
        "snug_container_memory_events",
        "Events of memory.events: reclaimed below low, throttled above high, hit max, out of memory, tasks killed by the OOM killer",
        None,
        Container(|row, emit| {
            if let Some(events) = &row.values.memory_events {
                memory_events(events, emit);
            }
        }),
    )
    .labels(&["event"]),
    Family::gauge(
        "snug_container_cpu_limit_cores",
        "CPU limit in force in the cgroup, quota divided by period; absent without one",
        Cores,
        Container(limit_cores),
    ),
    Family::counter(
        "snug_container_cpu_cfs_periods",
        "CFS periods in which the container was runnable; absent where no limit ever applied",
        None,
        Container(|row, emit| throttled(row, emit, |t| Value::Int(t.periods))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_throttled_periods",
        "CFS periods in which the container was throttled; absent where no limit ever applied",
        None,
        Container(|row, emit| throttled(row, emit, |t| Value::Int(t.throttled_periods))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_throttled_seconds",
        "Time throttled, summed over CPUs; absent where no limit ever applied",
        Seconds,
        Container(|row, emit| throttled(row, emit, |t| seconds(t.throttled_ns))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_burst_periods",
        "CFS periods in which the container used more than its quota by bursting",
        None,
        Container(|row, emit| throttled(row, emit, |t| Value::Int(t.burst_periods))),
    ),
    Family::counter(
        "snug_container_cpu_cfs_burst_seconds",
        "CPU time used beyond the quota by bursting",
        Seconds,
        Container(|row, emit| throttled(row, emit, |t| seconds(t.burst_ns))),
    ),
    Family::counter(
        "snug_container_pressure_stalled_seconds",
        "Time in which some or all (full) tasks of the container were stalled on a resource (PSI)",
        Seconds,
        Container(pressure),
    )
    .labels(&["resource", "stall"]),
    Family::counter(
        "snug_container_cpu_user_seconds",
        "CPU time used in user mode",
        Seconds,
        Container(|row, emit| {
            if let Some(split) = row.values.cpu_split {
                emit(&[], seconds(split.user_ns));
            }
        }),
    ),
    Family::counter(
        "snug_container_cpu_system_seconds",
        "CPU time used in the kernel",
        Seconds,
        Container(|row, emit| {
            if let Some(split) = row.values.cpu_split {
                emit(&[], seconds(split.system_ns));
            }
        }),
    ),
    Family::gauge(
        "snug_container_memory_stat_bytes",
        "Rows of memory.stat that are sizes; some rows are parts of others",
        Bytes,
        Container(memory_stat),
    )
    .labels(&["row"]),
    // Not split into minor and major: the kernel counts a major fault in one row before the other, so that their
    // difference may go back, which is a reset to whoever computes a rate.
    Family::counter(
        "snug_container_page_faults",
        "Page faults, minor and major",
        None,
        Container(|row, emit| {
            if let Some(stat) = &row.values.memory_stat {
                emit(&[], Value::Int(stat.page_faults));
            }
        }),
    ),
    Family::counter(
        "snug_container_major_page_faults",
        "Page faults that had to wait for a disk",
        None,
        Container(|row, emit| {
            if let Some(stat) = &row.values.memory_stat {
                emit(&[], Value::Int(stat.major_page_faults));
            }
        }),
    ),
    Family::counter(
        "snug_container_refaults",
        "Pages that had to be read again soon after they were reclaimed: memory is too small",
        None,
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
        "Pages that reclaim looked at",
        None,
        Container(|row, emit| {
            if let Some(scans) = row.values.memory_stat.as_ref().and_then(|s| s.page_scans) {
                emit(&[], Value::Int(scans));
            }
        }),
    ),
    Family::counter(
        "snug_container_page_steals",
        "Pages that reclaim took away",
        None,
        Container(|row, emit| {
            if let Some(steals) = row.values.memory_stat.as_ref().and_then(|s| s.page_steals) {
                emit(&[], Value::Int(steals));
            }
        }),
    ),
    Family::gauge(
        "snug_container_swap_usage_bytes",
        "Swap charged to the cgroup",
        Bytes,
        Container(|row, emit| {
            if let Some(swap) = row.values.swap {
                emit(&[], Value::Int(swap.usage_bytes));
            }
        }),
    ),
    Family::gauge(
        "snug_container_swap_limit_bytes",
        "Swap limit in force in the cgroup (memory and swap together on cgroup v1); absent without one",
        Bytes,
        Container(|row, emit| {
            if let Some(limit) = row.values.swap.and_then(|s| s.limit_bytes) {
                emit(&[], Value::Int(limit));
            }
        }),
    ),
    Family::gauge(
        "snug_container_tasks",
        "Tasks (processes and threads)",
        None,
        Container(|row, emit| {
            if let Some(pids) = row.values.pids {
                emit(&[], Value::Int(pids.current));
            }
        }),
    ),
    Family::gauge(
        "snug_container_tasks_limit",
        "Limit of tasks in force in the cgroup; absent without one",
        None,
        Container(|row, emit| {
            if let Some(limit) = row.values.pids.and_then(|p| p.limit) {
                emit(&[], Value::Int(limit));
            }
        }),
    ),
    Family::counter(
        "snug_container_io_bytes",
        "Bytes read from and written to block devices, by device number",
        Bytes,
        Container(|row, emit| io(row, emit, |d| (d.read_bytes, d.write_bytes))),
    )
    .labels(&["device", "direction"]),
    Family::counter(
        "snug_container_io_operations",
        "Reads from and writes to block devices, by device number",
        None,
        Container(|row, emit| io(row, emit, |d| (d.reads, d.writes))),
    )
    .labels(&["device", "direction"]),
    Family::counter(
        "snug_container_network_receive_bytes",
        "Bytes that the sockets made in the container received, by version of IP: L3, after packets were put together",
        Bytes,
        Container(|row, emit| network(row, emit, |traffic| traffic.receive_bytes)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_network_receive_packets",
        "Packets that the sockets made in the container received, by version of IP",
        None,
        Container(|row, emit| network(row, emit, |traffic| traffic.receive_packets)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_network_transmit_bytes",
        "Bytes that the sockets made in the container sent, by version of IP: L3, before packets are segmented",
        Bytes,
        Container(|row, emit| network(row, emit, |traffic| traffic.transmit_bytes)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_network_transmit_packets",
        "Packets that the sockets made in the container sent, by version of IP",
        None,
        Container(|row, emit| network(row, emit, |traffic| traffic.transmit_packets)),
    )
    .since_agent()
    .labels(&["ip"]),
    Family::counter(
        "snug_container_tcp_connections",
        "TCP connections and attempts by what became of them: opened from here, accepted here, refused or reset by the \
         other side, timed out, failed otherwise",
        None,
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
        "TCP segments sent again",
        None,
        Container(|row, emit| {
            if let Some(tcp) = &row.values.tcp {
                emit(&[], Value::Int(tcp.retransmits));
            }
        }),
    )
    .since_agent(),
    Family::histogram(
        "snug_container_tcp_round_trip_seconds",
        "Smoothed round-trip times of TCP connections that were made while the agent ran, one for each round trip measured",
        Seconds,
        Container(|row, emit| {
            if let Some(round_trips) = row.values.round_trips.as_deref() {
                emit(&[], Value::Histogram(round_trips));
            }
        }),
    )
    .since_agent(),
    Family::gauge(
        "snug_container_created_seconds",
        "When the cgroup was created, in seconds since the Unix epoch",
        Seconds,
        Container(|row, emit| emit(&[], Value::Float(row.created_unix))),
    ),
    Family::gauge(
        "snug_container_info",
        "Always 1; says what the container's other series do not repeat",
        None,
        Container(info),
    )
    .labels(&["image", "runtime", "qos", "pod_uid", "container_id"]),
];
