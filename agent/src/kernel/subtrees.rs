//! The cgroups whose descendants walks leave out.

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use snug_ebpf::abi::subtree::SubtreeKey;

/// [`SubtreeKey`] as a map's key.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(SubtreeKey);
// SAFETY: integers without padding.
unsafe impl Pod for Key {}

/// The map of these cgroups.
pub struct Subtrees(HashMap<MapData, Key, u32>);

impl Subtrees {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        HashMap::try_from(map).map(Self)
    }

    /// Limits the records below the cgroup with this kernfs id, in a hierarchy of [`super::KernelOptions::hierarchies`].
    ///
    /// # Errors
    /// When the map is full.
    pub fn limit(&mut self, hierarchy: usize, id: u64, room: u32) -> Result<(), MapError> {
        self.0.insert(key(hierarchy, id), room, 0)
    }

    /// Forgets a removed cgroup.
    pub fn remove(&mut self, hierarchy: usize, id: u64) {
        // It may have no entry.
        let _ = self.0.remove(&key(hierarchy, id));
    }
}

fn key(hierarchy: usize, id: u64) -> Key {
    Key(SubtreeKey { id, hierarchy: u32::try_from(hierarchy).unwrap_or(u32::MAX), reserved: 0 })
}
