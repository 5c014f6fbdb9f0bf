//! Where the kernel keeps what the programs read.

/// A field that this kernel does not have. The verifier then drops the code that would read it.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$about:meta])+ $field:ident,)+) => {
        /// Where the kernel keeps what the programs read, in bytes from the start of the structure named by the prefix.
        ///
        /// The agent fills it from the kernel's BTF before the programs are loaded; the kernel freezes it, so that the
        /// verifier sees constants. [`ABSENT`] marks what this kernel lacks.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$about])+ pub $field: u32,)+
        }

        impl Offsets {
            /// Nothing known: the programs read nothing.
            pub const NONE: Self = Self { $($field: ABSENT,)+ };
        }
    };
}

offsets! {
    /// `cgroup.kn`, a `kernfs_node *`.
    cgroup_kn,
    /// `cgroup.level`, an `int`; 0 is the root.
    cgroup_level,
    /// `cgroup.self.serial_nr`, 64 bits: counts all cgroups that were ever made; 0 in roots.
    cgroup_serial,
    /// `cgroup.root`, a `cgroup_root *`.
    cgroup_root,
    /// `cgroup.bstat.cputime.sum_exec_runtime`, nanoseconds.
    cgroup_cpu_runtime,
    /// `cgroup.subsys[cpu_cgrp_id]`, a `task_group *`.
    cgroup_cpu,
    /// `cgroup.subsys[memory_cgrp_id]`, a `mem_cgroup *`.
    cgroup_memory,
    /// `cgroup.subsys[pids_cgrp_id]`, a `pids_cgroup *`.
    cgroup_pids,
    /// `cgroup.psi`, a `psi_group *` (since 6.1).
    cgroup_psi,
    /// `kernfs_node.id`, the inode number of the cgroup's directory.
    kernfs_id,
    /// `cgroup_root.hierarchy_id`, an `int`; 0 is cgroup v2.
    root_hierarchy,
    /// `task_group.cfs_bandwidth.period`, nanoseconds.
    cfs_period,
    /// `task_group.cfs_bandwidth.quota`, nanoseconds; all ones = no limit.
    cfs_quota,
    /// `task_group.cfs_bandwidth.burst`, nanoseconds.
    cfs_burst,
    /// `task_group.cfs_bandwidth.nr_periods`, an `int`.
    cfs_periods,
    /// `task_group.cfs_bandwidth.nr_throttled`, an `int`.
    cfs_throttled_periods,
    /// `task_group.cfs_bandwidth.throttled_time`, nanoseconds.
    cfs_throttled_time,
    /// `task_group.cfs_bandwidth.nr_burst`, an `int`.
    cfs_burst_periods,
    /// `task_group.cfs_bandwidth.burst_time`, nanoseconds.
    cfs_burst_time,
    /// `mem_cgroup.memory.usage`, pages.
    memory_usage,
    /// `mem_cgroup.memory.watermark`, pages.
    memory_peak,
    /// `mem_cgroup.memory.max`, pages.
    memory_limit,
    /// `mem_cgroup.memory.failcnt`: charges that hit the limit.
    memory_failcnt,
    /// `mem_cgroup.swap.usage`, pages; on cgroup v1 the same place is `memsw.usage`.
    swap_usage,
    /// `mem_cgroup.swap.max`, pages; on cgroup v1 `memsw.max`.
    swap_limit,
    /// `mem_cgroup.memory_events[0]`.
    memory_events,
    /// `mem_cgroup.vmstats`, a `memcg_vmstats *`.
    memory_vmstats,
    /// `memcg_vmstats.state[inactive file]`, pages.
    vmstats_inactive_file,
    /// `psi_group.total[0]`, nanoseconds.
    psi_total,
    /// `pids_cgroup.counter`.
    pids_counter,
    /// `pids_cgroup.limit`.
    pids_limit,
    /// `cgroup_subsys_state.cgroup`.
    css_cgroup,
    /// `css_set.dfl_cgrp`: the task's cgroup in cgroup v2.
    css_set_default,
    /// `css_set.subsys[memory_cgrp_id]`, a `cgroup_subsys_state *`.
    css_set_memory,
    /// `cgroup.rstat_base_cpu` (since Linux 6.16) or `cgroup.rstat_cpu`: what the CPUs have counted, a `__percpu` pointer.
    cgroup_per_cpu,
    /// `bstat.cputime.sum_exec_runtime` of that, nanoseconds.
    per_cpu_runtime,
    /// `last_bstat.cputime.sum_exec_runtime` of that: what the last flush took along.
    per_cpu_runtime_flushed,
    /// `bpf_array.pptrs[0]`, where an array for each CPU begins, a `__percpu` pointer.
    array_pointers,
    /// `task_struct.cgroups`, a `css_set *`.
    task_cgroups,
    /// `task_struct.comm`.
    task_comm,
    /// `task_struct.exit_code`, as `wait(2)` reports it.
    task_exit_code,
    /// `task_struct.group_leader`.
    task_leader,
    /// `task_struct.nsproxy`.
    task_namespaces,
    /// `task_struct.real_parent`.
    task_parent,
    /// `task_struct.pid`: the thread.
    task_pid,
    /// `task_struct.signal`, a `signal_struct *`.
    task_signal,
    /// `task_struct.start_boottime`, nanoseconds.
    task_start,
    /// `task_struct.tgid`: the process.
    task_tgid,
    /// `signal_struct.group_exit_code`.
    signal_exit_code,
    /// `signal_struct.flags`.
    signal_flags,
    /// `signal_struct.live`: threads that have not ended.
    signal_live,
    /// `nsproxy.mnt_ns`.
    mount_namespace,
    /// `cgroup_subsys_state.parent`: the same controller's state of the cgroup above.
    css_parent,
    /// `mem_cgroup.memory_events_local[MEMCG_OOM]`: times that this very cgroup's limit could not be kept otherwise.
    memory_local_ooms,
    /// 0 where the tracepoint `mark_victim` has the victim's `task_struct` (Linux 6.9), not its pid.
    mark_victim_task,
    /// `sock.sk_cgrp_data.cgroup`: the cgroup v2 in which the socket was made.
    sock_cgroup,
    /// `sock.sk_err`, an `int`.
    sock_error,
    /// `sock.sk_protocol`, 16 bits.
    sock_protocol,
}
