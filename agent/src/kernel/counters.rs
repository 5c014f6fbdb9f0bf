//! Per-CPU maps with one record per cgroup v2, filled by the eBPF programs.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
};

/// A per-CPU map with a record `R` for each cgroup and CPU.
pub struct CgroupCounters<R: Pod> {
    map: PerCpuHashMap<MapData, u64, R>,
    entries: u64,
}

impl<R: Pod> CgroupCounters<R> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { map: PerCpuHashMap::try_from(map)?, entries: 0 })
    }

    /// kernfs ids of all cgroups in the map. Removed cgroups stay until [`Self::remove`].
    pub fn ids(&mut self) -> Vec<u64> {
        // A key that is deleted meanwhile may end the iteration early; the next call returns the others.
        let ids: Vec<u64> = self.map.keys().map_while(Result::ok).collect();
        self.entries = ids.len() as u64;
        ids
    }

    /// The record of each CPU for a cgroup; `None` if the map has no such cgroup. Descendants are not included.
    pub(super) fn per_cpu(&self, id: u64) -> Option<PerCpuValues<R>> {
        self.map.get(&id, 0).ok()
    }

    /// Deletes a cgroup from the map.
    pub fn remove(&mut self, id: u64) {
        // The map may have no such cgroup.
        let _ = self.map.remove(&id);
    }

    /// Number of cgroups that the last call of [`Self::ids`] returned.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }
}
