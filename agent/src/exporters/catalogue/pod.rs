//! `snug_pod_*`: one row per pod cgroup. Its values include the sandbox and terminated containers, so they exceed the sum over
//! the pod's containers.

use super::{
    Family,
    Samples::Pod,
    Unit::{Bytes, Cores, Seconds},
    Value, limit_cores, seconds,
};

pub(super) static FAMILIES: &[Family] = &[
    Family::counter(
        "snug_pod_cpu_usage_seconds",
        "CPU time used by the pod, including terminated containers",
        Seconds,
        Pod(|row, emit| {
            if let Some(cpu) = row.values.cpu {
                emit(&[], seconds(cpu.usage_ns));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_memory_working_set_bytes",
        "Memory usage of the pod without inactive file cache",
        Bytes,
        Pod(|row, emit| {
            if let Some(set) = row.values.working_set {
                emit(&[], Value::Int(set.bytes));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_memory_usage_bytes",
        "Memory charged to the pod, including file cache and memory-backed volumes",
        Bytes,
        Pod(|row, emit| {
            if let Some(memory) = row.values.memory {
                emit(&[], Value::Int(memory.usage_bytes));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_cpu_limit_cores",
        "CPU limit of the pod's cgroup; absent without a limit",
        Cores,
        Pod(limit_cores),
    ),
    Family::gauge(
        "snug_pod_memory_limit_bytes",
        "Memory limit of the pod's cgroup; absent without a limit",
        Bytes,
        Pod(|row, emit| {
            if let Some(limit) = row.values.memory.and_then(|m| m.limit_bytes) {
                emit(&[], Value::Int(limit));
            }
        }),
    ),
];
