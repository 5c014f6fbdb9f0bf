//! The values of a cgroup, from any source.
//!
//! Every group of values is an `Option`: `None` means "not measured" (the controller is off, the kernel has no such file, no
//! pass has run yet), never zero. Times are nanoseconds, sizes are bytes, counters count from the
//! cgroup's creation.

mod all;
pub(crate) mod compared;
mod measurements;
mod observed;

use std::sync::Arc;

use self::compared::compared;
pub use self::{
    all::Values,
    measurements::Measurements,
    observed::{Distribution, MemoryHistograms, PeakSource, WindowPeak},
};

/// A measurement: a group of values that comes from one source, either the eBPF programs or cgroup files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measurement {
    /// CPU time in total.
    Cpu,
    /// CFS bandwidth: quota, period, periods, throttling and bursts.
    Throttling,
    /// Pressure stall information.
    Pressure,
    /// Memory usage, peak and limit.
    Memory,
    /// Inactive file cache, hence the working set.
    WorkingSet,
    /// memory.events.
    MemoryEvents,
    /// Swap usage and limit.
    Swap,
    /// Number of tasks and its limit.
    Pids,
    /// User and system CPU time, memory.stat, io.stat: always from files.
    SlowRows,
    /// Shares and reservation: always from files.
    Spec,
}

impl Measurement {
    /// All measurements, in the order of the metrics.
    pub const ALL: [Self; 10] = [
        Self::Cpu,
        Self::Throttling,
        Self::Pressure,
        Self::Memory,
        Self::WorkingSet,
        Self::MemoryEvents,
        Self::Swap,
        Self::Pids,
        Self::SlowRows,
        Self::Spec,
    ];

    /// The name in logs and in the `measurement` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Throttling => "throttling",
            Self::Pressure => "pressure",
            Self::Memory => "memory",
            Self::WorkingSet => "working_set",
            Self::MemoryEvents => "memory_events",
            Self::Swap => "swap",
            Self::Pids => "pids",
            Self::SlowRows => "slow_rows",
            Self::Spec => "spec",
        }
    }
}

/// Where a measurement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// The eBPF programs.
    Kernel,
    /// cgroup files.
    Files,
    /// Not available on this host.
    None,
}

impl SourceKind {
    /// The name in logs and in the `source` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Files => "files",
            Self::None => "none",
        }
    }
}

compared! {
    /// CPU time in total: cgroup v2 `cpu.stat` usage_usec, v1 `cpuacct.usage`.
    Cpu as cpu {
        /// Nanoseconds of CPU time since the cgroup was created.
        usage_ns: u64 = time,
    }
}

/// User and system CPU time, scaled by the kernel to add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSplit {
    /// Nanoseconds in user mode.
    pub user_ns: u64,
    /// Nanoseconds in the kernel.
    pub system_ns: u64,
}

compared! {
    /// CFS bandwidth control: `cpu.max`, `cpu.max.burst` and the `nr_*` rows of `cpu.stat`.
    Throttling as throttling {
        /// Nanoseconds of CPU time allowed in each period; `None` = no limit.
        quota_ns: Option<u64> = time_limit,
        /// Length of a CFS period in nanoseconds.
        period_ns: u64 = time,
        /// Unused quota that may accumulate for bursts, nanoseconds.
        burst_limit_ns: u64 = time,
        /// Periods in which the group was runnable.
        periods: u64 = count,
        /// Periods in which it was throttled.
        throttled_periods: u64 = count,
        /// Nanoseconds throttled, summed over CPUs.
        throttled_ns: u64 = time,
        /// Periods in which it used more than its quota by bursting.
        burst_periods: u64 = count,
        /// Nanoseconds used beyond the quota by bursting.
        burst_ns: u64 = time,
    }
}

/// Time stalled on one resource (PSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Nanoseconds in which at least one task was stalled.
    pub some_ns: u64,
    /// Nanoseconds in which all tasks were stalled. 0 where the kernel has no such line.
    pub full_ns: u64,
}

/// Pressure stall information of the three resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `cpu.pressure`.
    pub cpu: Stall,
    /// `memory.pressure`.
    pub memory: Stall,
    /// `io.pressure`.
    pub io: Stall,
}

compared! {
    /// Memory charged to the cgroup.
    Memory as memory {
        /// `memory.current`, v1 `memory.usage_in_bytes`.
        usage_bytes: u64 = count,
        /// The kernel's own watermark: `memory.peak`, v1 `memory.max_usage_in_bytes`. `None` before Linux 5.19 on v2 files.
        peak_bytes: Option<u64> = count,
        /// `memory.high`: above it tasks are slowed down and have to reclaim. `None` = none, and on v1.
        high_bytes: Option<u64> = limit,
        /// `memory.max`, v1 `memory.limit_in_bytes`; `None` = no limit.
        limit_bytes: Option<u64> = limit,
    }
}

compared! {
    /// File cache that can be dropped at once.
    WorkingSet as working_set {
        /// `inactive_file` of `memory.stat` (v1: `total_inactive_file`).
        inactive_file_bytes: u64 = count,
        /// Usage less inactive file, not below 0: what the kubelet calls the working set and evicts by.
        bytes: u64 = never,
    }
}

compared! {
    /// `memory.events` (on v1 what `memory.failcnt` and `memory.oom_control` offer).
    /// Only the events that cgroup v1 has in files, too, are compared.
    MemoryEvents as memory_events {
        /// Reclaimed although under `memory.low`.
        low: u64 = never,
        /// Throttled over `memory.high`.
        high: u64 = never,
        /// Hit the limit (v1: `memory.failcnt`).
        max: u64 = count,
        /// Out of memory at the limit.
        oom: u64 = never,
        /// Tasks killed by the OOM killer.
        oom_kill: u64 = count,
    }
}

compared! {
    /// Swap charged to the cgroup.
    Swap as swap {
        /// `memory.swap.current`; v1: `memory.memsw.usage_in_bytes` less `memory.usage_in_bytes`.
        usage_bytes: u64 = count,
        /// The kernel's own watermark: `memory.swap.peak`. `None` on v1, and from files before Linux 6.5.
        peak_bytes: Option<u64> = count,
        /// `memory.swap.max`; `None` = no limit. v1 limits memory and swap together (`memory.memsw.limit_in_bytes`).
        limit_bytes: Option<u64> = limit,
    }
}

compared! {
    /// Tasks (processes and threads).
    Pids as pids {
        /// `pids.current`.
        current: u64 = count,
        /// `pids.max`; `None` = no limit.
        limit: Option<u64> = limit,
    }
}

/// The rows of `memory.stat` that are exported. On v1 the `total_*` rows (the cgroup and all below it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStat {
    /// `anon`; v1 `total_rss`.
    pub anon_bytes: u64,
    /// `file`; v1 `total_cache`.
    pub file_bytes: u64,
    /// `kernel` (Linux 5.18); v1 `memory.kmem.usage_in_bytes`.
    pub kernel_bytes: Option<u64>,
    /// `shmem`.
    pub shmem_bytes: u64,
    /// `file_mapped`; v1 `total_mapped_file`.
    pub file_mapped_bytes: u64,
    /// `file_dirty`; v1 `total_dirty`.
    pub file_dirty_bytes: u64,
    /// `file_writeback`; v1 `total_writeback`.
    pub file_writeback_bytes: u64,
    /// `active_file`.
    pub active_file_bytes: u64,
    /// `inactive_file`.
    pub inactive_file_bytes: u64,
    /// `active_anon`.
    pub active_anon_bytes: u64,
    /// `inactive_anon`.
    pub inactive_anon_bytes: u64,
    /// `slab_reclaimable`; v1 has no such row.
    pub slab_reclaimable_bytes: Option<u64>,
    /// `slab_unreclaimable`; v1 has no such row.
    pub slab_unreclaimable_bytes: Option<u64>,
    /// `unevictable`.
    pub unevictable_bytes: u64,
    /// `pgfault`: minor and major.
    pub page_faults: u64,
    /// `pgmajfault`.
    pub major_page_faults: u64,
    /// `pgscan`.
    pub page_scans: Option<u64>,
    /// `pgsteal`.
    pub page_steals: Option<u64>,
    /// `workingset_refault_anon`.
    pub refaults_anon: Option<u64>,
    /// `workingset_refault_file`.
    pub refaults_file: Option<u64>,
}

/// Disk I/O of one block device: a line of `io.stat`, v1 `blkio.throttle.io_service_bytes` and `io_serviced`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoDevice {
    /// Device number, major part.
    pub major: u32,
    /// Device number, minor part.
    pub minor: u32,
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// CPU shares and memory reservation: settings of the cgroup beside its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// v1 `cpu.shares`; v2 `cpu.weight`, converted to shares.
    pub cpu_shares: Option<u64>,
    /// `memory.min`, v1 `memory.soft_limit_in_bytes`; 0 = none.
    pub memory_reservation_bytes: Option<u64>,
}

/// One direction of a network interface, since the interface was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// A network interface: a line of `/proc/PID/net/dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name; bytes that are not UTF-8 are escaped.
    pub name: Arc<str>,
    /// What it received.
    pub receive: Traffic,
    /// What it sent.
    pub transmit: Traffic,
}

/// Open file descriptors of a cgroup's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    pub all: u64,
    pub sockets: u64,
}

/// A resource limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ulimit {
    /// So much.
    At(u64),
    /// None.
    Unlimited,
}

/// The processes in the cgroup itself, those of cgroups below it not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// How many `cgroup.procs` lists.
    pub count: u64,
    /// Open file descriptors; `None` if those of a process could not be read, or there are too many.
    pub descriptors: Option<Descriptors>,
    /// Soft limit of open files of the first process.
    pub open_files_limit: Option<Ulimit>,
}

/// Traffic of sockets with one version of IP: bytes and packets at the IP layer, before segmentation and fragmentation of sent
/// packets, after reassembly of received packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpTraffic {
    /// Bytes received.
    pub receive_bytes: u64,
    /// Packets received.
    pub receive_packets: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Packets sent.
    pub transmit_packets: u64,
}

/// Traffic of the sockets created in the cgroup, since the agent started to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// IPv4.
    pub ipv4: IpTraffic,
    /// IPv6.
    pub ipv6: IpTraffic,
}

impl Network {
    /// All counters, in a fixed order.
    pub const fn counters_mut(&mut self) -> [&mut u64; 8] {
        let Self { ipv4: four, ipv6: six } = self;
        [
            &mut four.receive_bytes,
            &mut four.receive_packets,
            &mut four.transmit_bytes,
            &mut four.transmit_packets,
            &mut six.receive_bytes,
            &mut six.receive_packets,
            &mut six.transmit_bytes,
            &mut six.transmit_packets,
        ]
    }

    /// Adds another's counters.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (own, others) in self.counters_mut().into_iter().zip(other.counters_mut()) {
            *own += *others;
        }
    }
}

/// TCP connections of the sockets created in the cgroup, by outcome, since the agent started to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Retransmitted segments.
    pub retransmits: u64,
    /// Connections established by `connect`.
    pub opened: u64,
    /// Connections established by a listening socket.
    pub accepted: u64,
    /// Attempts refused by the peer.
    pub refused: u64,
    /// Connections reset by the peer.
    pub reset: u64,
    /// Attempts and connections that timed out.
    pub timed_out: u64,
    /// Attempts that failed for other reasons: unreachable, or the socket was closed.
    pub failed: u64,
}

impl Tcp {
    /// All counters, in a fixed order.
    pub const fn counters_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.retransmits,
            &mut self.opened,
            &mut self.accepted,
            &mut self.refused,
            &mut self.reset,
            &mut self.timed_out,
            &mut self.failed,
        ]
    }

    /// Adds another's counters.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (own, others) in self.counters_mut().into_iter().zip(other.counters_mut()) {
            *own += *others;
        }
    }
}
