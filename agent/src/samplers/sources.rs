//! Which hierarchy and which source each measurement comes from, and why.

use std::time::Instant;

use crate::{
    cgroupfs::{
        Measurements,
        mounts::{Hierarchies, Hierarchy},
    },
    model::SourceRow,
    values::{Measurement, Source},
};

/// One measurement's place.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) measurement: Measurement,
    /// Index among the followed hierarchies; `None` if nothing serves it, or a hierarchy that is read by files only.
    pub(super) hierarchy: Option<usize>,
    pub(super) source: Source,
    pub(super) reason: String,
    pub(super) sampled_at: Option<Instant>,
    /// Whether the kernel half still has to be compared with the files.
    pub(super) to_compare: bool,
}

/// All measurements' places.
#[derive(Debug)]
pub(super) struct Origins(Vec<Origin>);

/// The hierarchies that are walked: the one that keeps CPU time first.
pub(super) fn followed(hierarchies: &Hierarchies) -> Vec<Hierarchy> {
    let mut followed: Vec<Hierarchy> = Vec::new();
    let serving = [
        hierarchies.cpu_time(),
        hierarchies.memory(),
        hierarchies.bandwidth(),
        hierarchies.pids(),
        hierarchies.pressure(),
    ];
    for hierarchy in serving.into_iter().flatten() {
        if !followed.contains(hierarchy) {
            followed.push(hierarchy.clone());
        }
    }
    followed
}

/// The measurement that a field of the kernel's types is needed for.
fn needed_for(field: &str) -> Measurements {
    const MEMORY: Measurements = Measurements::of(&[
        Measurement::Memory,
        Measurement::WorkingSet,
        Measurement::MemoryEvents,
        Measurement::Swap,
    ]);
    match field {
        "cgroup.bstat.cputime.sum_exec_runtime" => Measurements::of(&[Measurement::Cpu]),
        "cgroup.subsys[cpu]"
        | "cfs_bandwidth.period"
        | "cfs_bandwidth.quota"
        | "cfs_bandwidth.nr_periods"
        | "cfs_bandwidth.nr_throttled"
        | "cfs_bandwidth.throttled_time" => Measurements::of(&[Measurement::Throttling]),
        "cgroup.subsys[memory]" => MEMORY,
        "mem_cgroup.memory.usage" => {
            Measurements::of(&[Measurement::Memory, Measurement::WorkingSet, Measurement::Swap])
        }
        "mem_cgroup.memory.watermark" | "mem_cgroup.memory.max" => Measurements::of(&[Measurement::Memory]),
        "mem_cgroup.memory.failcnt" | "mem_cgroup.memory_events" => {
            Measurements::of(&[Measurement::MemoryEvents])
        }
        "mem_cgroup.vmstats" | "memcg_vmstats.state[inactive_file]" => {
            Measurements::of(&[Measurement::WorkingSet])
        }
        "mem_cgroup.swap.usage" | "mem_cgroup.swap.max" => Measurements::of(&[Measurement::Swap]),
        "cgroup.subsys[pids]" | "pids_cgroup.counter" | "pids_cgroup.limit" => {
            Measurements::of(&[Measurement::Pids])
        }
        "cgroup.psi" | "psi_group.total" => Measurements::of(&[Measurement::Pressure]),
        _ => Measurements::NONE,
    }
}

impl Origins {
    /// Everything from files, as far as a hierarchy serves it; `reason` says why not from the kernel half.
    pub(super) fn files(hierarchies: &Hierarchies, followed: &[Hierarchy], reason: &str) -> Self {
        let origins = Measurement::ALL.into_iter().map(|measurement| {
            let serving = hierarchies.serving(measurement);
            let hierarchy = serving.and_then(|one| followed.iter().position(|other| other == one));
            let (source, reason) = match (serving, measurement) {
                (None, _) => (Source::None, "no cgroup hierarchy of this host keeps it".to_owned()),
                (Some(_), measurement) if Measurements::ONLY_IN_FILES.contains(measurement) => {
                    (Source::Files, String::new())
                }
                (Some(_), _) => (Source::Files, reason.to_owned()),
            };
            Origin { measurement, hierarchy, source, reason, sampled_at: None, to_compare: false }
        });
        Self(origins.collect())
    }

    /// Turns to the kernel half what one of its walks can measure. `walked` says which followed hierarchies it walks.
    pub(super) fn use_kernel(
        &mut self,
        followed: &[Hierarchy],
        walked: impl Fn(usize) -> Result<(), String>,
        missing: &[&str],
        compare: bool,
    ) {
        for origin in &mut self.0 {
            let (Source::Files, Some(hierarchy)) = (origin.source, origin.hierarchy) else { continue };
            if Measurements::ONLY_IN_FILES.contains(origin.measurement) {
                continue;
            }
            let lacking = missing.iter().find(|field| needed_for(field).contains(origin.measurement));
            let per_cpu = origin.measurement == Measurement::Cpu
                && followed.get(hierarchy).is_some_and(|one| one.has("cpuacct"));
            origin.reason = match (walked(hierarchy), lacking) {
                (Err(reason), _) => reason,
                (_, Some(field)) => format!("this kernel's types have no {field}"),
                _ if per_cpu => "cgroup v1 keeps CPU time for each CPU apart".to_owned(),
                (Ok(()), None) => {
                    origin.source = Source::Kernel;
                    origin.to_compare = compare;
                    String::new()
                }
            };
        }
    }

    /// Has a measurement come from files from now on.
    pub(super) fn fall_back(&mut self, measurement: Measurement, reason: String) {
        if let Some(origin) = self.0.iter_mut().find(|origin| origin.measurement == measurement) {
            origin.source = Source::Files;
            origin.reason = reason;
            origin.to_compare = false;
        }
    }

    /// Has everything that a hierarchy's walk measured come from files from now on.
    pub(super) fn fall_back_all(&mut self, hierarchy: usize, reason: &str) {
        for origin in &mut self.0 {
            if origin.source == Source::Kernel && origin.hierarchy == Some(hierarchy) {
                origin.source = Source::Files;
                origin.reason = reason.to_owned();
                origin.to_compare = false;
            }
        }
    }

    /// The measurements with this source.
    pub(super) fn with(&self, source: Source) -> Measurements {
        self.0.iter().filter(|origin| origin.source == source).map(|origin| origin.measurement).collect()
    }

    /// The measurements that the kernel half takes from a hierarchy.
    pub(super) fn kernel_of(&self, hierarchy: usize) -> Measurements {
        self.0
            .iter()
            .filter(|origin| origin.source == Source::Kernel && origin.hierarchy == Some(hierarchy))
            .map(|origin| origin.measurement)
            .collect()
    }

    /// The measurements that have still to be compared with the files.
    pub(super) fn to_compare(&self) -> Vec<Measurement> {
        self.0.iter().filter(|origin| origin.to_compare).map(|origin| origin.measurement).collect()
    }

    /// A comparison showed the measurement equal to the files.
    pub(super) fn proved(&mut self, measurement: Measurement) {
        if let Some(origin) = self.0.iter_mut().find(|origin| origin.measurement == measurement) {
            origin.to_compare = false;
        }
    }

    /// Notes when measurements were taken.
    pub(super) fn sampled(&mut self, measurements: Measurements, at: Instant) {
        for origin in self.0.iter_mut().filter(|origin| measurements.contains(origin.measurement)) {
            origin.sampled_at = Some(at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Origin> {
        self.0.iter()
    }

    /// For the published view.
    pub(super) fn rows(&self) -> Vec<SourceRow> {
        self.0
            .iter()
            .map(|origin| SourceRow {
                measurement: origin.measurement,
                source: origin.source,
                reason: origin.reason.clone(),
                sampled_at: origin.sampled_at,
            })
            .collect()
    }
}
