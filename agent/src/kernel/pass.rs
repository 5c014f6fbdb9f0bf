//! The result of a pass.

use snug_ebpf::abi::snapshot::{PassStats, SnapshotRecord};

use super::mapped::MappedArray;

/// The records of the last walk, or of the last run of `sample_active` or `resample`.
pub struct Pass<'a> {
    /// Statistics of the pass.
    pub stats: PassStats,
    records: &'a MappedArray<SnapshotRecord>,
}

impl<'a> Pass<'a> {
    pub(super) const fn new(stats: PassStats, records: &'a MappedArray<SnapshotRecord>) -> Self {
        Self { stats, records }
    }

    /// The records, in the order of the walk.
    pub fn records(&self) -> impl Iterator<Item = SnapshotRecord> + use<'a> {
        let stored = self.stats.cgroups.saturating_sub(self.stats.lost + self.stats.unreadable);
        let stored = usize::try_from(stored).unwrap_or(0).min(self.records.capacity());
        let records = self.records;
        (0..stored).map_while(move |index| records.get(index))
    }
}
