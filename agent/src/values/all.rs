//! All values of a cgroup in one table.

use std::sync::Arc;

use snug_sizing::cpu_quota::QuotaWhatIf;

use super::{
    Cpu, CpuSplit, Distribution, Interface, IoDevice, Memory, MemoryEvents, MemoryHistograms, MemoryStat,
    Network, Pids, Pressure, Processes, Spec, Swap, Tcp, Throttling, WindowPeak, WorkingSet,
};

macro_rules! values {
    ($($(#[$about:meta])* $name:ident: $kind:ident $type:ty,)+) => {
        /// All values of a cgroup.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Values {
            $($(#[$about])* pub $name: values!(@type $kind $type),)+
        }

        impl Values {
            /// Makes these equal to others, without touching the reference counts of unchanged ones.
            pub(crate) fn assign(&mut self, others: &Self) {
                $(values!(@assign $kind self others $name);)+
            }
        }
    };
    (@type copied $type:ty) => { Option<$type> };
    (@type shared $type:ty) => { Option<Arc<$type>> };
    (@assign copied $own:ident $others:ident $name:ident) => { $own.$name = $others.$name };
    (@assign shared $own:ident $others:ident $name:ident) => { assign_shared(&mut $own.$name, &$others.$name) };
}

values! {
    /// CPU time in total.
    cpu: copied Cpu,
    /// CPU used in each window of `sample-interval`, cores, since the agent first saw the cgroup.
    cpu_windows: shared Distribution,
    /// Quota simulation: throttling had the CPU limit been another one, since the agent first saw the cgroup; if enabled.
    quota_what_if: shared QuotaWhatIf,
    /// Run queue latency: how long tasks waited for a CPU each time, seconds, since the agent first saw the cgroup.
    runqueue: shared Distribution,
    /// User and system CPU time.
    cpu_split: copied CpuSplit,
    /// CFS bandwidth.
    throttling: copied Throttling,
    /// Pressure stall information.
    pressure: copied Pressure,
    /// Memory usage, peak, limit.
    memory: copied Memory,
    /// Highest memory usage of the last minute or two.
    window_peak: copied WindowPeak,
    /// Growth of the lowest working set of each minute, bytes per second, over the last hour without start-up.
    memory_growth: copied f64,
    /// Histograms of memory usage over time; if enabled.
    memory_histograms: shared MemoryHistograms,
    working_set: copied WorkingSet,
    /// memory.events.
    memory_events: copied MemoryEvents,
    swap: copied Swap,
    /// Tasks.
    pids: copied Pids,
    /// memory.stat.
    memory_stat: shared MemoryStat,
    /// io.stat, sorted by device number.
    io: shared [IoDevice],
    /// CPU shares and memory reservation.
    spec: copied Spec,
    /// Network interfaces, sorted by name, on the row that stands for a network namespace. Empty on other rows.
    interfaces: shared [Interface],
    /// Processes; if enabled.
    processes: copied Processes,
    /// Traffic of its sockets.
    network: copied Network,
    /// Outcomes of its TCP connections.
    tcp: copied Tcp,
    /// Smoothed round-trip times (`srtt`) of TCP connections established since the agent started, seconds, one per measurement.
    round_trips: shared Distribution,
}

fn assign_shared<T: ?Sized>(own: &mut Option<Arc<T>>, other: &Option<Arc<T>>) {
    let same = match (&*own, other) {
        (Some(own), Some(other)) => Arc::ptr_eq(own, other),
        (own, other) => own.is_none() && other.is_none(),
    };
    if !same {
        own.clone_from(other);
    }
}
