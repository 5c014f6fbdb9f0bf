//! The kubelet's families that the agent does not serve.

/// Patterns of names, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "container_blkio_device_usage_total",
        "names devices by path, which takes a look-up; `snug_container_io_bytes_total` has device numbers",
    ),
    (
        "container_fs_*",
        "walks of file systems, and device paths; `snug_container_io_*` has reads and writes by device number",
    ),
    ("container_network_*", "needs each pod's network namespace"),
    ("container_cpu_load*_average_10s", "0 at every kubelet: the load reader is off"),
    ("container_tasks_state", "0 at every kubelet: the load reader is off"),
    ("container_health_state", "Docker health checks only"),
    ("container_processes", "reads every cgroup.procs; `container_threads` counts tasks"),
    ("container_file_descriptors", "walks /proc/PID/fd of every process"),
    ("container_sockets", "walks /proc/PID/fd of every process"),
    ("container_ulimits_soft", "reads /proc/PID/limits"),
    ("container_spec_cpu_shares", "not measured: the request in the pod's spec says more"),
    ("container_spec_memory_reservation_limit_bytes", "not measured: 0 wherever memory QoS is off"),
    ("cadvisor_version_info", "the agent is not cAdvisor; see `snug_agent_build_info`"),
    ("machine_*", "about the machine; node_exporter has it"),
];
