//! Running `look` and `revisit`. What they find lies where a walk leaves it.

use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use snug_ebpf::abi::look::{LOOK_CHUNK, LookState, MOST_HIERARCHIES, REVISIT_CHUNK, STALE};

use super::{
    error::KernelError,
    mapped::{MappedArray, array},
};

/// What is seen once more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seeing {
    /// Cgroups that have used CPU time since they were last seen: by `look`.
    Busy,
    /// All, with these groups of fields (`HAS_*`): by `revisit`.
    All(u32),
}

impl Seeing {
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Busy => "look",
            Self::All(_) => "revisit",
        }
    }
}

/// What walks leave for looks.
pub(super) struct Look {
    state: MappedArray<LookState>,
}

impl Look {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self, KernelError> {
        Ok(Self { state: array(ebpf, "LOOK_STATE", MOST_HIERARCHIES as u32)? })
    }

    /// Sees all cgroups of the last walk over a hierarchy. Returns whether it did: else that walk is out of date.
    pub(super) fn run(
        &self,
        program: &RawTracePoint,
        hierarchy: usize,
        seeing: Seeing,
    ) -> Result<bool, ProgramError> {
        let (chunk, wanted) = match seeing {
            Seeing::Busy => (LOOK_CHUNK, 0),
            Seeing::All(groups) => (REVISIT_CHUNK, groups),
        };
        let places = self.state.get(hierarchy).unwrap_or_default().places;
        // An empty walk may be out of date, too.
        for first in (0..places.max(1)).step_by(chunk as usize) {
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
