//! `snug_workload_*`: one row per workload and container name, including terminated containers, since the agent started.

use super::{Emit, Family, Samples::Workload, Value, connections, memory_events, one, seconds};
use crate::{
    model::{OomScope, WorkloadRow},
    values::IpTraffic,
};

pub(super) static FAMILIES: &[Family] = &[
    Family::counter(
        "snug_workload_cpu_usage_seconds",
        "CPU time used on this node since the agent started, including terminated containers",
        Workload(|row, emit| emit(&[], seconds(row.cpu_ns))),
    ),
    Family::counter(
        "snug_workload_cpu_cfs_periods",
        "CFS periods since the agent started, including terminated containers",
        Workload(|row, emit| emit(&[], Value::Int(row.periods))),
    ),
    Family::counter(
        "snug_workload_cpu_cfs_throttled_periods",
        "Throttled CFS periods since the agent started, including terminated containers",
        Workload(|row, emit| emit(&[], Value::Int(row.throttled_periods))),
    ),
    Family::counter(
        "snug_workload_cpu_cfs_throttled_seconds",
        "Throttled time since the agent started, summed over CPUs, including terminated containers",
        Workload(|row, emit| emit(&[], seconds(row.throttled_ns))),
    ),
    Family::counter(
        "snug_workload_memory_events",
        "Counts of memory.events since the agent started, as in snug_container_memory_events_total, including terminated containers and the OOM kills that terminated them",
        Workload(|row, emit| memory_events(&row.memory_events, emit)),
    )
    .labels(&["event"]),
    Family::gauge(
        "snug_workload_memory_peak_bytes",
        "Highest memory peak of the containers of the workload that existed while the agent ran",
        Workload(|row, emit| emit(&[], Value::Int(row.memory_peak_bytes))),
    ),
    Family::counter(
        "snug_workload_containers_started",
        "Containers created since the agent started",
        Workload(|row, emit| emit(&[], Value::Int(row.containers_started))),
    ),
    Family::counter(
        "snug_workload_containers_ended",
        "Containers removed since the agent started",
        Workload(|row, emit| emit(&[], Value::Int(row.containers_ended))),
    ),
    Family::counter(
        "snug_workload_restarts",
        "Restarts: containers created in place of a terminated one, with the same name in the same pod or with the same path",
        Workload(|row, emit| emit(&[], Value::Int(row.restarts))),
    ),
    Family::counter(
        "snug_workload_terminations",
        "Terminations of containers (their init process), including containers that failed to start; for signals exit_code is 128 \
         plus the number, and `other` counts codes after the first 16 of a workload; sandboxes only for OOM kills",
        Workload(|row, emit| {
            for (reason, code, count) in row.terminations.iter() {
                let code = code.map_or_else(|| "other".to_owned(), |code| code.to_string());
                emit(&[reason.as_str(), &code], Value::Int(count));
            }
        }),
    )
    .labels(&["reason", "exit_code"]),
    Family::counter(
        "snug_workload_oom_kills",
        "OOM kills, one each time a limit was hit even if all processes of the container were killed, by that limit: of the container, the pod, another ancestor cgroup, or none because the \
         node ran out of memory",
        Workload(|row, emit| {
            for (scope, count) in OomScope::ALL.iter().zip(row.oom_kills.into_iter().flatten()) {
                emit(&[scope.as_str()], Value::Int(count));
            }
        }),
    )
    .labels(&["limit"]),
    Family::counter(
        "snug_workload_network_receive_bytes",
        "Bytes received since the agent started, including terminated containers, by IP version",
        Workload(|row, emit| network(row, emit, |traffic| traffic.receive_bytes)),
    )
    .labels(&["ip"]),
    Family::counter(
        "snug_workload_network_receive_packets",
        "Packets received since the agent started, including terminated containers, by IP version",
        Workload(|row, emit| network(row, emit, |traffic| traffic.receive_packets)),
    )
    .labels(&["ip"]),
    Family::counter(
        "snug_workload_network_transmit_bytes",
        "Bytes sent since the agent started, including terminated containers, by IP version",
        Workload(|row, emit| network(row, emit, |traffic| traffic.transmit_bytes)),
    )
    .labels(&["ip"]),
    Family::counter(
        "snug_workload_network_transmit_packets",
        "Packets sent since the agent started, including terminated containers, by IP version",
        Workload(|row, emit| network(row, emit, |traffic| traffic.transmit_packets)),
    )
    .labels(&["ip"]),
    Family::counter(
        "snug_workload_tcp_connections",
        "TCP connections and connection attempts by outcome, including terminated containers",
        Workload(|row, emit| {
            if let Some(tcp) = &row.tcp {
                connections(tcp, emit);
            }
        }),
    )
    .labels(&["outcome"]),
    Family::counter(
        "snug_workload_tcp_retransmits",
        "TCP segments retransmitted, including terminated containers",
        Workload(|row, emit| one(emit, row.tcp.map(|tcp| Value::Int(tcp.retransmits)))),
    ),
];

fn network(row: &WorkloadRow, emit: &mut Emit<'_>, value: fn(&IpTraffic) -> u64) {
    if let Some(network) = &row.network {
        emit(&["4"], Value::Int(value(&network.ipv4)));
        emit(&["6"], Value::Int(value(&network.ipv6)));
    }
}
