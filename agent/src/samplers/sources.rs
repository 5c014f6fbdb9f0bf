//! The hierarchy and the source (eBPF or cgroup files) of each measurement, and the reason.

use std::time::Instant;

use crate::{
    cgroupfs::{
        Measurements,
        mounts::{Hierarchies, Hierarchy},
    },
    kernel::MissingField,
    model::SourceRow,
    values::{Measurement, SourceKind},
};

/// The hierarchy and the source of a measurement.
#[derive(Clone, Debug)]
pub(super) struct MeasurementSource {
    pub(super) row: SourceRow,
    /// Index among the tracked hierarchies; `None` if nothing serves it, or a hierarchy that is read by files only.
    hierarchy: Option<usize>,
    /// Whether the values of the eBPF programs are still to be compared with the files.
    needs_verification: bool,
}

/// All measurements' places.
#[derive(Debug)]
pub(super) struct MeasurementSources(Vec<MeasurementSource>);

/// The hierarchies that are sampled; the one with CPU time is first.
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

impl MeasurementSources {
    /// All measurements come from files, as far as a hierarchy has them.
    pub(super) fn files(hierarchies: &Hierarchies, tracked: &[Hierarchy]) -> Self {
        let sources = Measurement::ALL.into_iter().map(|measurement| {
            let serving = hierarchies.serving(measurement);
            let (source, reason) = match serving {
                None => (SourceKind::None, "no cgroup hierarchy of this host has it".to_owned()),
                Some(_) => (SourceKind::Files, String::new()),
            };
            MeasurementSource {
                row: SourceRow { measurement, source, reason, sampled_at: None },
                hierarchy: serving.and_then(|one| tracked.iter().position(|other| other == one)),
                needs_verification: false,
            }
        });
        Self(sources.collect())
    }

    /// Switches the measurements of a hierarchy that the eBPF programs support to them. `missing`: fields that the kernel's BTF lacks.
    /// `compare`: whether to verify against the files.
    pub(super) fn use_kernel(
        &mut self,
        index: usize,
        one: &Hierarchy,
        missing: &[MissingField],
        compare: bool,
    ) {
        let of_hierarchy = self.0.iter_mut().filter(|entry| entry.hierarchy == Some(index));
        for entry in of_hierarchy.filter(|entry| !Measurements::ONLY_IN_FILES.contains(entry.row.measurement))
        {
            let name = entry.row.measurement.as_str();
            if let Some(field) = missing.iter().find(|field| field.measurements.contains(&name)) {
                entry.row.reason = format!("the kernel's BTF has no {}", field.name);
            } else if entry.row.measurement == Measurement::Cpu && one.has("cpuacct") {
                "cgroup v1 has CPU time in per-CPU counters only".clone_into(&mut entry.row.reason);
            } else {
                entry.row.source = SourceKind::Kernel;
                entry.needs_verification = compare;
            }
        }
    }

    /// Switches a measurement to files.
    pub(super) fn fall_back(&mut self, measurement: Measurement, reason: String) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.row.measurement == measurement) {
            entry.row.source = SourceKind::Files;
            entry.row.reason = reason;
            entry.needs_verification = false;
        }
    }

    /// Switches the measurements of a hierarchy, or of all, to files.
    pub(super) fn fall_back_hierarchy(&mut self, hierarchy: Option<usize>, reason: &str) {
        let sources = self.0.iter_mut().filter(|entry| hierarchy.is_none() || entry.hierarchy == hierarchy);
        for entry in sources.filter(|entry| entry.row.reason.is_empty()) {
            if !Measurements::ONLY_IN_FILES.contains(entry.row.measurement) {
                entry.row.source = SourceKind::Files;
                reason.clone_into(&mut entry.row.reason);
                entry.needs_verification = false;
            }
        }
    }

    pub(super) fn with_source(&self, source: SourceKind) -> Measurements {
        self.0.iter().filter(|entry| entry.row.source == source).map(|entry| entry.row.measurement).collect()
    }

    /// The measurements of a hierarchy that come from the eBPF programs.
    pub(super) fn kernel_measurements(&self, hierarchy: usize) -> Measurements {
        self.0
            .iter()
            .filter(|entry| entry.row.source == SourceKind::Kernel && entry.hierarchy == Some(hierarchy))
            .map(|entry| entry.row.measurement)
            .collect()
    }

    /// The measurements that are still to be compared with the files.
    pub(super) fn unverified(&self) -> Vec<Measurement> {
        self.0.iter().filter(|entry| entry.needs_verification).map(|entry| entry.row.measurement).collect()
    }

    /// A measurement was found equal to the files.
    pub(super) fn mark_verified(&mut self, measurement: Measurement) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.row.measurement == measurement) {
            entry.needs_verification = false;
        }
    }

    /// Sets the time of the last sample of measurements.
    pub(super) fn sampled(&mut self, measurements: Measurements, at: Instant) {
        for entry in self.0.iter_mut().filter(|entry| measurements.contains(entry.row.measurement)) {
            entry.row.sampled_at = Some(at);
        }
    }

    /// The sources for the published view.
    pub(super) fn rows(&self) -> impl Iterator<Item = &SourceRow> {
        self.0.iter().map(|entry| &entry.row)
    }
}

#[cfg(test)]
mod tests {
    use snug_ebpf::abi::{memory::MemoryOffsets, offsets::Offsets};

    use super::*;

    #[test]
    fn fields_name_measurements_that_exist() {
        let memory = MemoryOffsets::PATHS.iter().map(|path| (path.name, path.measurements));
        let all = Offsets::PATHS.iter().map(|path| (path.name, path.measurements)).chain(memory);
        for (field, measurement) in all.flat_map(|(field, names)| names.iter().map(move |name| (field, name)))
        {
            let is_known = Measurement::ALL.iter().any(|known| known.as_str() == *measurement);
            assert!(is_known, "{field} is for {measurement}, which is no measurement");
        }
    }
}
