//! The kubelet's families that the agent does not serve.

/// Patterns of names, with the reason.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "container_fs_usage_bytes",
        "requires a walk over the files of every container; the kubelet's `/stats/summary` has it",
    ),
    ("container_fs_limit_bytes", "the size of a file system, not of a container: node_exporter has it"),
    ("container_fs_inodes_*", "about a file system, not a container: node_exporter has it"),
    (
        "container_fs_sector_*",
        "cgroup v2 does not count it, a kubelet has it for the root alone: node_exporter has it",
    ),
    (
        "container_fs_*_merged_total",
        "cgroup v2 does not count it, a kubelet has it for the root alone: node_exporter has it",
    ),
    (
        "container_fs_*_seconds_total",
        "cgroup v2 does not count it, a kubelet has it for the root alone: node_exporter has it; values of `io.cost` are absent where it is off (the default)",
    ),
    (
        "container_fs_io_current",
        "cgroup v2 does not count it, a kubelet has it for the root alone: node_exporter has it",
    ),
    ("container_cpu_load*_average_10s", "0 at every kubelet: the load reader is off"),
    ("container_tasks_state", "0 at every kubelet: the load reader is off"),
    ("container_health_state", "Docker health checks only"),
    ("cadvisor_version_info", "the agent is not cAdvisor; see `snug_agent_build_info`"),
    ("machine_cpu_books", "0 except on s390"),
    ("machine_cpu_drawers", "0 except on s390"),
    ("machine_cpu_cache_capacity_bytes", "a kubelet does not collect it"),
    ("machine_dimm_*", "series by type of memory module; most kubelets have none"),
    ("machine_node_*", "a kubelet does not collect it: node_exporter has NUMA nodes"),
    ("machine_nvm_*", "0 without persistent memory modules"),
    ("machine_thread_siblings_count", "a kubelet does not collect it"),
];
