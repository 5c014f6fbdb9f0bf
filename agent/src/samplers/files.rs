//! Reads cgroup files: measurements that do not come from the eBPF programs, and flushing the kernel's counters.
//!
//! Files, every full round: those of the measurements whose source is `files`, and those of the root cgroup. Metrics:
//! `snug_container_*`, as the eBPF programs would give them; `snug_agent_skipped_total` (`cgroup_files`).

use std::sync::Arc;

use super::{
    Component, Round,
    skipped::{Cause, Skipped},
};
use crate::{
    cgroupfs::{
        Measurements,
        flush::Flusher,
        mounts::Hierarchies,
        reader::{CgroupReader, ReadError},
    },
    identity::Level,
    retry::Outage,
    store::{Key, Store},
    values::{Measurement, SourceKind, Values},
};

/// Measurements of the root cgroup, which the eBPF programs skip: the kernel keeps the root's counters elsewhere. cgroup v2
/// has files for some of them only.
const ROOT_MEASUREMENTS: Measurements = Measurements::new(&[
    Measurement::Cpu,
    Measurement::Pressure,
    Measurement::Memory,
    Measurement::WorkingSet,
    Measurement::MemoryEvents,
    Measurement::Swap,
]);

const CPU: Measurements = Measurements::new(&[Measurement::Cpu]);

pub(super) struct FileSampler;

impl Component for FileSampler {
    /// Reads the measurements that come from files, of all present cgroups; in any case the root, and the CPU time of cgroups outside
    /// the primary hierarchy: on a hybrid host, cgroups of v1 hierarchies that do not exist in the v2 hierarchy, which has the CPU time.
    fn round(&mut self, round: &mut Round) {
        if !round.is_full {
            return;
        }
        for index in 0..round.hierarchies.len() {
            if !round.is_walked(index) {
                round.list_directories(index);
            }
        }
        let measured = round.sources.with_source(SourceKind::Files).minus(Measurements::ONLY_IN_FILES);
        let Round { files, store, skipped, .. } = round;
        let root: Vec<Key> = store.get_by_path("/").into_iter().collect();
        files.sample(store, &root, ROOT_MEASUREMENTS, skipped);
        let outside: Vec<Key> =
            store.living().map(|(key, _)| key).filter(|key| !store.is_in(*key, 0)).collect();
        files.sample(store, &outside, CPU, skipped);
        if !measured.is_empty() {
            let others = store.living().filter(|(_, identity)| identity.of_path.level != Level::Root);
            let others: Vec<Key> = others.map(|(key, _)| key).collect();
            files.sample(store, &others, measured, skipped);
        }
        round.sources.sampled(measured, round.now);
    }
}

/// The cgroup files of the host.
pub(super) struct CgroupFiles {
    reader: CgroupReader,
    flusher: Flusher,
    outage: Outage,
}

impl CgroupFiles {
    pub(super) fn new(hierarchies: &Hierarchies) -> Result<Self, ReadError> {
        Ok(Self {
            reader: CgroupReader::new(hierarchies)?,
            flusher: Flusher::new(hierarchies)?,
            outage: Outage::default(),
        })
    }

    /// Reads these measurements of some cgroups into the store.
    pub(super) fn sample(
        &mut self,
        store: &mut Store,
        keys: &[Key],
        measurements: Measurements,
        skipped: &mut Skipped,
    ) {
        for key in keys {
            let path = store.identity(*key).map(|identity| identity.path.clone());
            if let Some(path) = path {
                self.read_into(store, *key, &path, measurements, skipped);
            }
        }
    }

    fn read_into(
        &mut self,
        store: &mut Store,
        key: Key,
        path: &str,
        measurements: Measurements,
        skipped: &mut Skipped,
    ) {
        let reading = match self.reader.read(path, measurements) {
            Ok(reading) => reading,
            // The removal is handled elsewhere.
            Err(ReadError::Gone { .. }) => return,
            Err(error) => return self.problem(&error, skipped),
        };
        for problem in &reading.problems {
            self.problem(problem, skipped);
        }
        skipped[Cause::IoLines] += reading.skipped_lines;
        let mut values = reading.values;
        // Files have microseconds: a lower value is the same one, rounded.
        let known = store.values(key).and_then(|values| values.cpu);
        values.cpu = values.cpu.filter(|cpu| known.is_none_or(|known| known.usage_ns < cpu.usage_ns));
        store.update(key, values);
    }

    fn problem(&mut self, error: &ReadError, skipped: &mut Skipped) {
        skipped[Cause::CgroupFiles] += 1;
        if let Some(error) = self.outage.new_cause(error) {
            tracing::warn!(
                error,
                "cannot use a cgroup file; after a few of these they are only counted, in snug_agent_skipped_total"
            );
        }
    }

    /// The pids of a cgroup's processes; `None` if the cgroup does not exist or its file cannot be read.
    pub(super) fn processes(&mut self, path: &str, skipped: &mut Skipped) -> Option<Vec<u32>> {
        match self.reader.processes(path) {
            Ok(processes) => Some(processes),
            Err(ReadError::Gone { .. }) => None,
            Err(error) => {
                self.problem(&error, skipped);
                None
            }
        }
    }

    /// Reads the files of one cgroup for the verification.
    pub(super) fn read(&mut self, path: &str, measurements: Measurements) -> Option<Values> {
        self.reader.read(path, measurements).ok().map(|reading| reading.values)
    }

    /// Makes the kernel flush the CPU time of all cgroups.
    pub(super) fn flush_cpu(&mut self) {
        if let Err(error) = self.flusher.flush_cpu() {
            tracing::debug!(%error, "the CPU time of some cgroups could not be flushed");
        }
    }

    /// Makes the kernel flush the memory statistics of all cgroups.
    pub(super) fn flush_memory(&mut self) {
        if let Err(error) = self.flusher.flush_memory() {
            tracing::debug!(%error, "memory statistics could not be flushed");
        }
    }

    /// Makes the kernel flush the CPU time of a cgroup and its descendants, by reading `cpu.stat`.
    pub(super) fn flush_cpu_of(&mut self, path: &str) {
        let _ = self.reader.read(path, CPU);
    }

    /// Sets the top-level cgroups, whose files are read to flush CPU time.
    pub(super) fn refresh_flush_points(&mut self, tops: &[Arc<str>]) {
        if let Err(error) = self.flusher.refresh(tops.iter().map(|top| &**top)) {
            tracing::debug!(%error, "cannot open a cpu.stat; the CPU time below is flushed by the kernel only, every two seconds");
        }
    }
}
