//! Counters that the kernel half keeps for each cgroup v2: one record for each CPU.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
};

/// A map of the kernel half with a record `R` for each cgroup and CPU.
pub struct CgroupCounters<R: Pod> {
    map: PerCpuHashMap<MapData, u64, R>,
    entries: u64,
}

impl<R: Pod> CgroupCounters<R> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { map: PerCpuHashMap::try_from(map)?, entries: 0 })
    }

    /// Ids of all cgroups v2 that anything was counted of, ended ones included until [`Self::remove`].
    pub fn ids(&mut self) -> Vec<u64> {
        // A key that vanishes under the walk ends it early at worst; the next time has the rest.
        let ids: Vec<u64> = self.map.keys().map_while(Result::ok).collect();
        self.entries = ids.len() as u64;
        ids
    }

    /// What each CPU counted of this very cgroup; `None` if nothing was.
    pub(super) fn of_cpus(&self, id: u64) -> Option<PerCpuValues<R>> {
        self.map.get(&id, 0).ok()
    }

    /// Forgets a cgroup.
    pub fn remove(&mut self, id: u64) {
        // Nothing may have been counted.
        let _ = self.map.remove(&id);
    }

    /// Cgroups in the map when it was last listed.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }
}
