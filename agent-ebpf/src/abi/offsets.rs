//! Offsets of the kernel's structure fields that the programs read: one table for the programs and the agent.

use super::{
    field::{ABSENT, Path},
    memory::MemoryOffsets,
};

macro_rules! offsets {
    ($($(#[$about:meta])+ $field:ident $(: $structure:ident $path:literal $(for $($measurement:ident)+)?)?,)+) => {
        /// Offsets of the fields, in bytes from the start of the structure that the documentation names.
        ///
        /// The agent sets them from the kernel's BTF before it loads the programs. The map is frozen, so that the
        /// verifier sees constants. [`ABSENT`]: this kernel has no such field.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$about])+ pub $field: u32,)+
            /// Fields of `mem_cgroup` in records.
            pub memory: MemoryOffsets,
        }

        impl Offsets {
            /// No field is known: the programs read nothing.
            pub const ALL_ABSENT: Self = Self { $($field: ABSENT,)+ memory: MemoryOffsets::ALL_ABSENT };

            /// The fields whose offset their name gives. The agent finds the others in its own way.
            pub const PATHS: &[Path<Self>] = &[
                $($($crate::path_of!(Self, $field: $structure $path $(for $($measurement)+)?),)?)+
            ];
        }
    };
}

offsets! {
    /// `cgroup.kn`, a `kernfs_node *`.
    cgroup_kn: cgroup "kn",
    /// `cgroup.level`, an `int`; 0 is the root.
    cgroup_level: cgroup "level",
    /// `cgroup.self.serial_nr`, 64 bits, never reused: the number of cgroups created before; 0 in roots.
    cgroup_serial: cgroup "self.serial_nr",
    /// `cgroup.root`, a `cgroup_root *`.
    cgroup_root: cgroup "root",
    /// `cgroup.bstat.cputime.sum_exec_runtime`, nanoseconds.
    cgroup_cpu_runtime: cgroup "bstat.cputime.sum_exec_runtime" for cpu,
    /// `cgroup.subsys[cpu_cgrp_id]`, a `task_group *`.
    cgroup_cpu,
    /// `cgroup.subsys[memory_cgrp_id]`, a `mem_cgroup *`.
    cgroup_memory,
    /// `cgroup.subsys[pids_cgrp_id]`, a `pids_cgroup *`.
    cgroup_pids,
    /// `cgroup.psi`, a `psi_group *` (since 6.1).
    cgroup_psi,
    /// `kernfs_node.id`, the inode number of the cgroup's directory.
    kernfs_id: kernfs_node "id",
    /// `cgroup_root.hierarchy_id`, an `int`; 0 is cgroup v2.
    root_hierarchy: cgroup_root "hierarchy_id",
    /// `task_group.cfs_bandwidth.period`, nanoseconds.
    cfs_period: task_group "cfs_bandwidth.period" for throttling,
    /// `task_group.cfs_bandwidth.quota`, nanoseconds; all ones = no limit.
    cfs_quota: task_group "cfs_bandwidth.quota" for throttling,
    /// `task_group.cfs_bandwidth.burst`, nanoseconds.
    cfs_burst: task_group "cfs_bandwidth.burst",
    /// `task_group.cfs_bandwidth.nr_periods`, an `int`.
    cfs_periods: task_group "cfs_bandwidth.nr_periods" for throttling,
    /// `task_group.cfs_bandwidth.nr_throttled`, an `int`.
    cfs_throttled_periods: task_group "cfs_bandwidth.nr_throttled" for throttling,
    /// `task_group.cfs_bandwidth.throttled_time`, nanoseconds.
    cfs_throttled_time: task_group "cfs_bandwidth.throttled_time" for throttling,
    /// `task_group.cfs_bandwidth.nr_burst`, an `int`.
    cfs_burst_periods: task_group "cfs_bandwidth.nr_burst",
    /// `task_group.cfs_bandwidth.burst_time`, nanoseconds.
    cfs_burst_time: task_group "cfs_bandwidth.burst_time",
    /// `mem_cgroup.vmstats`, a `memcg_vmstats *`.
    memory_vmstats: mem_cgroup "vmstats" for working_set,
    /// `memcg_vmstats.state[NR_INACTIVE_FILE]`, pages.
    vmstats_inactive_file,
    /// `psi_group.total[PSI_AVGS]`, nanoseconds, indexed by `enum psi_states`.
    psi_total: psi_group "total" for pressure,
    /// `pids_cgroup.counter`, an `atomic64_t`: tasks.
    pids_counter: pids_cgroup "counter" for pids,
    /// `pids_cgroup.limit`, an `atomic64_t`: maximum number of tasks.
    pids_limit: pids_cgroup "limit" for pids,
    /// `cgroup_subsys_state.cgroup`, a `cgroup *`.
    css_cgroup: cgroup_subsys_state "cgroup",
    /// `css_set.dfl_cgrp`, a `cgroup *`: the tasks' cgroup in cgroup v2.
    css_set_default: css_set "dfl_cgrp",
    /// `css_set.subsys[memory_cgrp_id]`, a `cgroup_subsys_state *`.
    css_set_memory,
    /// `cgroup.rstat_base_cpu` (since Linux 6.16) or `cgroup.rstat_cpu`: per-CPU counters, a `__percpu` pointer.
    cgroup_per_cpu,
    /// `bstat.cputime.sum_exec_runtime` of the per-CPU counters, nanoseconds.
    per_cpu_runtime,
    /// `last_bstat.cputime.sum_exec_runtime` of the per-CPU counters: the value at the last rstat flush, nanoseconds.
    per_cpu_runtime_flushed,
    /// `bpf_array.pptrs[0]`, the first element of a per-CPU array, a `__percpu` pointer.
    array_pointers: bpf_array "pptrs",
    /// `task_struct.cgroups`, a `css_set *`.
    task_cgroups: task_struct "cgroups",
    /// `task_struct.comm`, `TASK_COMM_LEN` bytes.
    task_comm: task_struct "comm",
    /// `task_struct.exit_code`, as `wait(2)` reports it.
    task_exit_code: task_struct "exit_code",
    /// `task_struct.group_leader`, a `task_struct *`.
    task_leader: task_struct "group_leader",
    /// `task_struct.nsproxy`, an `nsproxy *`; null once the task exits.
    task_namespaces: task_struct "nsproxy",
    /// `task_struct.real_parent`, a `task_struct *`.
    task_parent: task_struct "real_parent",
    /// `task_struct.pid`: the thread id.
    task_pid: task_struct "pid",
    /// `task_struct.signal`, a `signal_struct *`.
    task_signal: task_struct "signal",
    /// `task_struct.start_boottime`, nanoseconds of `CLOCK_BOOTTIME` at the fork.
    task_start: task_struct "start_boottime",
    /// `task_struct.tgid`: the process id.
    task_tgid: task_struct "tgid",
    /// `signal_struct.group_exit_code`, as `wait(2)` reports it; valid with `SIGNAL_GROUP_EXIT`.
    signal_exit_code: signal_struct "group_exit_code",
    /// `signal_struct.flags`: `SIGNAL_*` of `include/linux/sched/signal.h`.
    signal_flags: signal_struct "flags",
    /// `signal_struct.live`: threads that have not exited.
    signal_live: signal_struct "live",
    /// `nsproxy.mnt_ns`, a `mnt_namespace *`.
    mount_namespace: nsproxy "mnt_ns",
    /// `cgroup_subsys_state.parent`: the same controller's state of the parent cgroup.
    css_parent: cgroup_subsys_state "parent",
    /// `mem_cgroup.oom_group`, a `bool`: `memory.oom.group` of cgroup v2.
    memory_oom_group: mem_cgroup "oom_group",
    /// `mem_cgroup.memory_events_local[MEMCG_OOM]`: OOM events caused by this cgroup's own limit.
    memory_local_ooms,
    /// 0: the argument of the tracepoint `mark_victim` is the victim's `task_struct *` (Linux 6.9), not its pid.
    mark_victim_task,
    /// `sock.sk_cgrp_data.cgroup`, a `cgroup *`: the cgroup v2 in which the socket was created.
    sock_cgroup: sock "sk_cgrp_data.cgroup",
    /// `sock.sk_err`, an `int`: the pending error, a positive errno.
    sock_error: sock "sk_err",
    /// `sock.sk_protocol`, 16 bits: `IPPROTO_*`.
    sock_protocol: sock "sk_protocol",
}
