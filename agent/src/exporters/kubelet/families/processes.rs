//! Families about processes, with `process-metrics` on.

use super::{Family, Kind::Gauge, family, int};
use crate::{exporters::catalogue::Value, values::Ulimit};

pub(super) static FAMILIES: &[Family] = &[
    family("container_processes", Gauge, "Processes in the cgroup itself", |row, _, emit| {
        int(emit, row.values.processes.map(|processes| processes.count));
    })
    .differs("with `process-metrics` on"),
    family(
        "container_file_descriptors",
        Gauge,
        "Open file descriptors of the cgroup's processes",
        |row, _, emit| {
            int(emit, row.values.processes.and_then(|p| p.descriptors).map(|descriptors| descriptors.all));
        },
    )
    .differs("with `process-metrics` on; absent if the agent may not read /proc of every process"),
    family("container_sockets", Gauge, "Open sockets of the cgroup's processes", |row, _, emit| {
        int(emit, row.values.processes.and_then(|p| p.descriptors).map(|descriptors| descriptors.sockets));
    })
    .differs("with `process-metrics` on; absent if the agent may not read /proc of every process"),
    family(
        "container_ulimits_soft",
        Gauge,
        "Soft limit of open files of the cgroup's first process; -1 = none",
        |row, _, emit| {
            if let Some(limit) = row.values.processes.and_then(|processes| processes.open_files_limit) {
                let value = match limit {
                    Ulimit::At(value) => Value::Int(value),
                    Ulimit::Unlimited => Value::Float(-1.0),
                };
                emit(&[("ulimit", "max_open_files")], value);
            }
        },
    )
    .differs("with `process-metrics` on"),
];
