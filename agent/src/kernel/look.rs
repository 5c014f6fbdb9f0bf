//! Running the `look` program, and what it found.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::Ebpf;
use snug_ebpf::abi::look::{CHUNK, LookRecord, LookState, STALE};

use super::{error::KernelError, iterator::bpf, mapped::MappedArray, programs::array};

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_PROG_TEST_RUN: libc::c_int = 10;

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

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
        program: BorrowedFd<'_>,
    ) -> io::Result<Option<impl Iterator<Item = LookRecord>>> {
        let places = self.state.get(0).unwrap_or_default().places;
        // An empty walk may be out of date, too.
        for first in (0..places.max(1)).step_by(CHUNK as usize) {
            if run(program, first)? == STALE {
                return Ok(None);
            }
        }
        let found = self.state.get(0).unwrap_or_default().records;
        Ok(Some((0..usize::try_from(found).unwrap_or(0)).map_while(|index| self.records.get(index))))
    }
}

/// Runs a program of a raw tracepoint, whose first argument is `argument`, here and now. Returns what it returned.
fn run(program: BorrowedFd<'_>, argument: u64) -> io::Result<u32> {
    let context = [argument];
    let mut attributes = TestRun {
        prog_fd: program.as_fd().as_raw_fd().unsigned_abs(),
        ctx_size_in: size_of_val(&context) as u32,
        ctx_in: context.as_ptr() as u64,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.retval)
}
