//! `snug_pod_*`: one row per pod cgroup. It holds more than its containers' sum: the sandbox, and what ended.

use super::{
    Family,
    Samples::Pod,
    Unit::{Bytes, Cores, Seconds},
    Value, limit_cores, seconds,
};

pub(super) static FAMILIES: &[Family] = &[
    Family::counter(
        "snug_pod_cpu_usage_seconds",
        "CPU time used by the pod, containers that ended included",
        Seconds,
        Pod(|row, emit| {
            if let Some(cpu) = row.values.cpu {
                emit(&[], seconds(cpu.usage_ns));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_memory_working_set_bytes",
        "Memory usage of the pod less inactive file cache",
        Bytes,
        Pod(|row, emit| {
            if let Some(set) = row.values.working_set {
                emit(&[], Value::Int(set.bytes));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_memory_usage_bytes",
        "Memory charged to the pod, file cache and memory-backed volumes included",
        Bytes,
        Pod(|row, emit| {
            if let Some(memory) = row.values.memory {
                emit(&[], Value::Int(memory.usage_bytes));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_cpu_limit_cores",
        "CPU limit in force on the pod's cgroup; absent without one",
        Cores,
        Pod(limit_cores),
    ),
    Family::gauge(
        "snug_pod_memory_limit_bytes",
        "Memory limit in force on the pod's cgroup; absent without one",
        Bytes,
        Pod(|row, emit| {
            if let Some(limit) = row.values.memory.and_then(|m| m.limit_bytes) {
                emit(&[], Value::Int(limit));
            }
        }),
    ),
];
