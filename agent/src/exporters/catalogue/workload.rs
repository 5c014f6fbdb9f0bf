//! `snug_workload_*`: one row per workload and container name, ended containers included, since the agent started.

use super::{
    Family,
    Samples::Workload,
    Unit::{Bytes, None, Seconds},
    Value, memory_events, seconds,
};

pub(super) static FAMILIES: &[Family] = &[
    Family::counter(
        "snug_workload_cpu_usage_seconds",
        "CPU time used on this node since the agent started, ended containers included",
        Seconds,
        Workload(|row, emit| emit(&[], seconds(row.cpu_ns))),
    ),
    Family::counter(
        "snug_workload_cpu_cfs_periods",
        "CFS periods since the agent started, ended containers included",
        None,
        Workload(|row, emit| emit(&[], Value::Int(row.periods))),
    ),
    Family::counter(
        "snug_workload_cpu_cfs_throttled_periods",
        "Throttled CFS periods since the agent started, ended containers included",
        None,
        Workload(|row, emit| emit(&[], Value::Int(row.throttled_periods))),
    ),
    Family::counter(
        "snug_workload_cpu_cfs_throttled_seconds",
        "Time throttled since the agent started, summed over CPUs, ended containers included",
        Seconds,
        Workload(|row, emit| emit(&[], seconds(row.throttled_ns))),
    ),
    Family::counter(
        "snug_workload_memory_events",
        "Events of memory.events since the agent started, ended containers included: an OOM kill that ended a container stays counted here",
        None,
        Workload(|row, emit| memory_events(&row.memory_events, emit)),
    )
    .labels(&["event"]),
    Family::gauge(
        "snug_workload_memory_peak_bytes",
        "Highest memory peak of any container that was alive while the agent ran",
        Bytes,
        Workload(|row, emit| emit(&[], Value::Int(row.memory_peak_bytes))),
    ),
    Family::counter(
        "snug_workload_containers_started",
        "Containers that appeared since the agent started",
        None,
        Workload(|row, emit| emit(&[], Value::Int(row.containers_started))),
    ),
    Family::counter(
        "snug_workload_containers_ended",
        "Containers that went away since the agent started",
        None,
        Workload(|row, emit| emit(&[], Value::Int(row.containers_ended))),
    ),
];
