//! What one pass of the `snapshot` program found, or a look in its place.

use snug_ebpf::abi::snapshot::{PassEnd, SnapshotRecord};

use super::mapped::MappedArray;

/// What one pass or look found.
pub struct Pass<'a> {
    /// How it went.
    pub end: PassEnd,
    records: &'a MappedArray<SnapshotRecord>,
}

impl<'a> Pass<'a> {
    pub(super) const fn new(end: PassEnd, records: &'a MappedArray<SnapshotRecord>) -> Self {
        Self { end, records }
    }

    /// The records, in the order of the walk.
    pub fn records(&self) -> impl Iterator<Item = SnapshotRecord> + use<'a> {
        let stored = self.end.cgroups.saturating_sub(self.end.lost + self.end.unreadable);
        let stored = usize::try_from(stored).unwrap_or(0).min(self.records.capacity());
        let records = self.records;
        (0..stored).map_while(move |index| records.get(index))
    }
}
