//! Which hierarchy and which source each measurement comes from, and why.

use std::time::Instant;

use crate::{
    cgroupfs::{
        Measurements,
        mounts::{Hierarchies, Hierarchy},
    },
    store::published::SourceRow,
    values::{Measurement, SourceKind},
};

/// One measurement's place.
#[derive(Clone, Debug)]
pub(super) struct MeasurementSource {
    pub(super) measurement: Measurement,
    /// Index among the tracked hierarchies; `None` if nothing serves it, or a hierarchy that is read by files only.
    pub(super) hierarchy: Option<usize>,
    pub(super) source: SourceKind,
    pub(super) reason: String,
    pub(super) sampled_at: Option<Instant>,
    /// Whether the kernel half still has to be compared with the files.
    pub(super) needs_verification: bool,
}

/// All measurements' places.
#[derive(Debug)]
pub(super) struct MeasurementSources(Vec<MeasurementSource>);

/// The hierarchies that are walked: the one that keeps CPU time first.
pub(super) fn tracked_hierarchies(hierarchies: &Hierarchies) -> Vec<Hierarchy> {
    let mut tracked: Vec<Hierarchy> = Vec::new();
    let serving = [
        hierarchies.cpu_time(),
        hierarchies.memory(),
        hierarchies.bandwidth(),
        hierarchies.pids(),
        hierarchies.pressure(),
    ];
    for hierarchy in serving.into_iter().flatten() {
        if !tracked.contains(hierarchy) {
            tracked.push(hierarchy.clone());
        }
    }
    tracked
}

/// The measurement that a field of the kernel's types is needed for.
fn needed_for(field: &str) -> Measurements {
    const MEMORY: Measurements = Measurements::new(&[
        Measurement::Memory,
        Measurement::WorkingSet,
        Measurement::MemoryEvents,
        Measurement::Swap,
    ]);
    match field {
        "cgroup.bstat.cputime.sum_exec_runtime" => Measurements::new(&[Measurement::Cpu]),
        "cgroup.subsys[cpu]"
        | "cfs_bandwidth.period"
        | "cfs_bandwidth.quota"
        | "cfs_bandwidth.nr_periods"
        | "cfs_bandwidth.nr_throttled"
        | "cfs_bandwidth.throttled_time" => Measurements::new(&[Measurement::Throttling]),
        "cgroup.subsys[memory]" => MEMORY,
        "mem_cgroup.memory.usage" => {
            Measurements::new(&[Measurement::Memory, Measurement::WorkingSet, Measurement::Swap])
        }
        "mem_cgroup.memory.watermark" | "mem_cgroup.memory.max" => Measurements::new(&[Measurement::Memory]),
        "mem_cgroup.memory.failcnt" | "mem_cgroup.memory_events" => {
            Measurements::new(&[Measurement::MemoryEvents])
        }
        "mem_cgroup.vmstats" | "memcg_vmstats.state[inactive_file]" => {
            Measurements::new(&[Measurement::WorkingSet])
        }
        "mem_cgroup.swap.usage" | "mem_cgroup.swap.max" => Measurements::new(&[Measurement::Swap]),
        "cgroup.subsys[pids]" | "pids_cgroup.counter" | "pids_cgroup.limit" => {
            Measurements::new(&[Measurement::Pids])
        }
        "cgroup.psi" | "psi_group.total" => Measurements::new(&[Measurement::Pressure]),
        _ => Measurements::NONE,
    }
}

impl MeasurementSources {
    /// Everything from files, as far as a hierarchy serves it; `reason` says why not from the kernel half.
    pub(super) fn files(hierarchies: &Hierarchies, tracked: &[Hierarchy], reason: &str) -> Self {
        let sources = Measurement::ALL.into_iter().map(|measurement| {
            let serving = hierarchies.serving(measurement);
            let hierarchy = serving.and_then(|one| tracked.iter().position(|other| other == one));
            let (source, reason) = match (serving, measurement) {
                (None, _) => (SourceKind::None, "no cgroup hierarchy of this host keeps it".to_owned()),
                (Some(_), measurement) if Measurements::ONLY_IN_FILES.contains(measurement) => {
                    (SourceKind::Files, String::new())
                }
                (Some(_), _) => (SourceKind::Files, reason.to_owned()),
            };
            MeasurementSource {
                measurement,
                hierarchy,
                source,
                reason,
                sampled_at: None,
                needs_verification: false,
            }
        });
        Self(sources.collect())
    }

    /// Turns to the kernel half what one of its walks can measure. `walked` says which tracked hierarchies it walks.
    pub(super) fn use_kernel(
        &mut self,
        tracked: &[Hierarchy],
        walked: impl Fn(usize) -> Result<(), String>,
        missing: &[&str],
        compare: bool,
    ) {
        for entry in &mut self.0 {
            let (SourceKind::Files, Some(hierarchy)) = (entry.source, entry.hierarchy) else { continue };
            if Measurements::ONLY_IN_FILES.contains(entry.measurement) {
                continue;
            }
            let lacking = missing.iter().find(|field| needed_for(field).contains(entry.measurement));
            let per_cpu = entry.measurement == Measurement::Cpu
                && tracked.get(hierarchy).is_some_and(|one| one.has("cpuacct"));
            entry.reason = match (walked(hierarchy), lacking) {
                (Err(reason), _) => reason,
                (_, Some(field)) => format!("this kernel's types have no {field}"),
                _ if per_cpu => "cgroup v1 keeps CPU time for each CPU apart".to_owned(),
                (Ok(()), None) => {
                    entry.source = SourceKind::Kernel;
                    entry.needs_verification = compare;
                    String::new()
                }
            };
        }
    }

    /// Has a measurement come from files from now on.
    pub(super) fn fall_back(&mut self, measurement: Measurement, reason: String) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.measurement == measurement) {
            entry.source = SourceKind::Files;
            entry.reason = reason;
            entry.needs_verification = false;
        }
    }

    /// Has everything that a hierarchy's walk measured come from files from now on.
    pub(super) fn fall_back_hierarchy(&mut self, hierarchy: usize, reason: &str) {
        for entry in &mut self.0 {
            if entry.source == SourceKind::Kernel && entry.hierarchy == Some(hierarchy) {
                entry.source = SourceKind::Files;
                entry.reason = reason.to_owned();
                entry.needs_verification = false;
            }
        }
    }

    /// The measurements with this source.
    pub(super) fn with_source(&self, source: SourceKind) -> Measurements {
        self.0.iter().filter(|entry| entry.source == source).map(|entry| entry.measurement).collect()
    }

    /// The measurements that the kernel half takes from a hierarchy.
    pub(super) fn from_kernel(&self, hierarchy: usize) -> Measurements {
        self.0
            .iter()
            .filter(|entry| entry.source == SourceKind::Kernel && entry.hierarchy == Some(hierarchy))
            .map(|entry| entry.measurement)
            .collect()
    }

    /// The measurements that have still to be compared with the files.
    pub(super) fn unverified(&self) -> Vec<Measurement> {
        self.0.iter().filter(|entry| entry.needs_verification).map(|entry| entry.measurement).collect()
    }

    /// A comparison showed the measurement equal to the files.
    pub(super) fn mark_verified(&mut self, measurement: Measurement) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.measurement == measurement) {
            entry.needs_verification = false;
        }
    }

    /// Notes when measurements were taken.
    pub(super) fn sampled(&mut self, measurements: Measurements, at: Instant) {
        for entry in self.0.iter_mut().filter(|entry| measurements.contains(entry.measurement)) {
            entry.sampled_at = Some(at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MeasurementSource> {
        self.0.iter()
    }

    /// For the published view.
    pub(super) fn rows(&self) -> Vec<SourceRow> {
        self.0
            .iter()
            .map(|entry| SourceRow {
                measurement: entry.measurement,
                source: entry.source,
                reason: entry.reason.clone(),
                sampled_at: entry.sampled_at,
            })
            .collect()
    }
}
