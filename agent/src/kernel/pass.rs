//! What one pass of the `snapshot` program found.

use std::mem::offset_of;

use snug_ebpf::abi::snapshot::{PassEnd, SnapshotRecord};

use super::mapped::MappedArray;

/// What one pass found.
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
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let stored = self.end.cgroups.saturating_sub(self.end.lost + self.end.unreadable);
        let stored = usize::try_from(stored).unwrap_or(0).min(self.records.capacity());
        let records = self.records;
        (0..stored).map(move |index| Record { records, index })
    }
}

/// A record where the kernel left it: of most cgroups most passes need its beginning only, which the CPU has in its cache.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    records: &'a MappedArray<SnapshotRecord>,
    index: usize,
}

impl Record<'_> {
    /// kernfs id of the cgroup.
    pub fn id(self) -> u64 {
        self.word(offset_of!(SnapshotRecord, id))
    }

    /// CPU time, nanoseconds; what an earlier pass left, where this one did not take it.
    pub fn cpu_usage_ns(self) -> u64 {
        self.word(offset_of!(SnapshotRecord, cpu_usage_ns))
    }

    /// Memory charged, pages; what an earlier pass left, where this one did not take it.
    pub fn memory_usage_pages(self) -> u64 {
        self.word(offset_of!(SnapshotRecord, memory_usage_pages))
    }

    /// A copy of all of it.
    pub fn whole(self) -> SnapshotRecord {
        self.records.get(self.index).unwrap_or_default()
    }

    fn word(self, offset: usize) -> u64 {
        self.records.word(self.index, offset).unwrap_or_default()
    }
}
