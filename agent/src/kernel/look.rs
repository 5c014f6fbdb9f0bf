//! Running the `look` program. What it finds lies where a walk leaves it.

use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use snug_ebpf::abi::look::{CHUNK, LookState, MOST_HIERARCHIES, STALE};

use super::{error::KernelError, mapped::MappedArray, programs::array};

/// What walks leave for looks.
pub(super) struct Look {
    state: MappedArray<LookState>,
}

impl Look {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self, KernelError> {
        Ok(Self { state: array(ebpf, "LOOK_STATE", MOST_HIERARCHIES as u32)? })
    }

    /// Looks once at all cgroups of the last walk over a hierarchy. Returns whether it did: else that walk is out of date.
    pub(super) fn run(
        &self,
        program: &RawTracePoint,
        hierarchy: usize,
        wanted: u32,
    ) -> Result<bool, ProgramError> {
        let places = self.state.get(hierarchy).unwrap_or_default().places;
        // An empty walk may be out of date, too.
        for first in (0..places.max(1)).step_by(CHUNK as usize) {
            let mut options = RawTracePointRunOptions::default();
            (options.args[0], options.args[1], options.args[2]) =
                (first.into(), hierarchy as u64, wanted.into());
            if program.test_run(options)?.return_value == STALE {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
