//! Maps that several programs write: a walk, and the programs that sample its cgroups again, leave their records in the same place.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use snug_ebpf::abi::snapshot::{PassStats, SnapshotRecord};

/// The records of the last pass, in the order of the walk (pre-order). The agent sets the size.
#[map]
pub(crate) static RECORDS: Array<SnapshotRecord> = Array::with_max_entries(8192, BPF_F_MMAPABLE);

/// Statistics of the last pass: one entry.
#[map]
pub(crate) static PASS_STATS: Array<PassStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);
