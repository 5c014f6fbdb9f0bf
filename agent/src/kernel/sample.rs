//! Runs the programs `sample_active` and `resample`, which write their records to the same map as a walk.

use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use snug_ebpf::abi::sample::{CacheState, MAX_HIERARCHIES, RESAMPLE_CHUNK, SAMPLE_ACTIVE_CHUNK, STALE};

use super::{
    error::KernelError,
    mapped::{MappedArray, map_array},
};

/// Which cached cgroups are sampled.
#[derive(Clone, Copy, Debug)]
pub(super) enum SampleKind {
    /// Cgroups that used CPU time since they were last sampled: by `sample_active`.
    Active,
    /// All cached cgroups, with these groups of fields (`HAS_*`): by `resample`.
    All(u32),
}

impl SampleKind {
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Active => "sample_active",
            Self::All(_) => "resample",
        }
    }
}

/// The cgroups that walks have cached.
pub(super) struct CgroupCache {
    state: MappedArray<CacheState>,
}

impl CgroupCache {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self, KernelError> {
        Ok(Self { state: map_array(ebpf, "CACHE_STATE", MAX_HIERARCHIES as u32)? })
    }

    /// Samples the cached cgroups of a hierarchy, in chunks. Returns `false` if the cache is invalid.
    pub(super) fn sample(
        &self,
        program: &RawTracePoint,
        hierarchy: usize,
        kind: SampleKind,
    ) -> Result<bool, ProgramError> {
        let (chunk, groups) = match kind {
            SampleKind::Active => (SAMPLE_ACTIVE_CHUNK, 0),
            SampleKind::All(groups) => (RESAMPLE_CHUNK, groups),
        };
        let cgroups = self.state.get(hierarchy).unwrap_or_default().cgroups;
        // One run at least: an empty cache may be invalid, too.
        for first in (0..cgroups.max(1)).step_by(chunk as usize) {
            let mut options = RawTracePointRunOptions::default();
            (options.args[0], options.args[1], options.args[2]) =
                (first.into(), hierarchy as u64, groups.into());
            if program.test_run(options)?.return_value == STALE {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
