//! Maps that more than one program writes: a walk and what sees its cgroups once more leave their records in the same place.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use snug_ebpf::abi::snapshot::{PassEnd, SnapshotRecord};

/// The records of the last pass, in the order of the walk. The agent sets the size.
#[map]
pub(crate) static RECORDS: Array<SnapshotRecord> = Array::with_max_entries(8192, BPF_F_MMAPABLE);

/// How the last pass went: one entry.
#[map]
pub(crate) static PASS_END: Array<PassEnd> = Array::with_max_entries(1, BPF_F_MMAPABLE);
