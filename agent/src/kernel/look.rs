//! Running the `look` program, and what it found.

use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use snug_ebpf::abi::look::{CHUNK, LookRecord, LookState, STALE};

use super::{error::KernelError, mapped::MappedArray, programs::array};

/// The arrays that the program shares with the agent.
pub(super) struct Look {
    state: MappedArray<LookState>,
    records: MappedArray<LookRecord>,
}

impl Look {
    pub(super) fn new(ebpf: &Ebpf, max_cgroups: u32) -> Result<Self, KernelError> {
        let records = array(ebpf, "LOOK_RECORDS", max_cgroups)?;
        Ok(Self { state: array(ebpf, "LOOK_STATE", 1)?, records })
    }

    /// Looks once at all cgroups of the last walk. `None`: the walk is out of date.
    pub(super) fn run(
        &self,
        program: &RawTracePoint,
    ) -> Result<Option<impl Iterator<Item = LookRecord>>, ProgramError> {
        let places = self.state.get(0).unwrap_or_default().places;
        // An empty walk may be out of date, too.
        for first in (0..places.max(1)).step_by(CHUNK as usize) {
            let mut options = RawTracePointRunOptions::default();
            options.args[0] = first;
            if program.test_run(options)?.return_value == STALE {
                return Ok(None);
            }
        }
        let found = self.state.get(0).unwrap_or_default().records;
        Ok(Some((0..usize::try_from(found).unwrap_or(0)).map_while(|index| self.records.get(index))))
    }
}
