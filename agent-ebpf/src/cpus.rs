//! CPU time in the per-CPU counters of a cgroup that no rstat flush has propagated yet.
//!
//! The kernel stores per-CPU counters behind `__percpu` pointers: a CPU's copy is at the pointer plus the offset of that
//! CPU, which is the same for all such pointers. No interface exposes the offsets. The program `cpus` computes them from a
//! per-CPU array of its own: the `__percpu` pointer is a field of the map's structure, and a helper returns the address of
//! each CPU's copy.

use aya_ebpf::{
    helpers::bpf_map_lookup_percpu_elem,
    macros::map,
    maps::{Array, PerCpuArray},
};
use snug_ebpf::abi::{field::ABSENT, lifecycle::MAX_CPUS};

use crate::{
    read::{field, offset},
    snapshot::CgroupIterContext,
};

/// Number of possible CPUs. Set before loading.
#[unsafe(no_mangle)]
static CPUS: u32 = 0;

/// Per-CPU array whose addresses give the offsets; the values are not used.
#[map]
static PROBE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Offset of each CPU in bytes, 0: not known. The agent sets the number of entries.
#[map]
static CPU_OFFSETS: Array<u64> = Array::with_max_entries(MAX_CPUS, 0);

/// Computes the offsets. The agent runs the program once; it is an iterator, so any one cgroup serves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/cgroup")]
extern "C" fn cpus(_context: *const CgroupIterContext) -> i32 {
    let own = (&raw const PROBE).cast_mut();
    // SAFETY: the loader replaces the address of a map by the address of its `bpf_map`.
    let Some(base) = (unsafe { address_to_u64(own.cast()) })
        .and_then(|map| field::<u64>(map as *const u8, offset!(array_pointers)))
    else {
        return 0;
    };
    for cpu in 0..possible_cpus() {
        // SAFETY: the key is 4 bytes, as the map's keys are.
        let copy = unsafe { bpf_map_lookup_percpu_elem(own.cast(), (&raw const KEY).cast(), cpu) };
        if copy.is_null() {
            continue;
        }
        // SAFETY: not null, so the address of this CPU's copy.
        if let Some(copy) = unsafe { address_to_u64(copy.cast()) }
            && let Some(offset) = CPU_OFFSETS.get_ptr_mut(cpu)
        {
            // SAFETY: the entry lives as long as the map.
            unsafe { *offset = copy.wrapping_sub(base) };
        }
    }
    0
}

static KEY: u32 = 0;

/// A pointer that is stored here and loaded again is a plain number to the verifier, which forbids arithmetic on some
/// pointers.
#[map]
static SCRATCH: Array<u64> = Array::with_max_entries(1, 0);

/// An address as a number.
///
/// # Safety
/// Not reentrant: only one run of a program may use [`SCRATCH`] at a time.
#[inline(always)]
unsafe fn address_to_u64(address: *const u8) -> Option<u64> {
    let place = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the entry lives as long as the map. Volatile, so that it is really written and read.
    unsafe {
        core::ptr::write_volatile(place.cast::<*const u8>(), address);
        Some(core::ptr::read_volatile(place))
    }
}

#[inline(always)]
fn possible_cpus() -> u32 {
    // SAFETY: a reference to a static is valid for reads; volatile, because the agent sets it before loading.
    let cpus = unsafe { core::ptr::read_volatile(&raw const CPUS) };
    if cpus > MAX_CPUS { MAX_CPUS } else { cpus }
}

/// CPU time of a cgroup, without its children, that no rstat flush has propagated yet, nanoseconds.
#[inline(always)]
pub(crate) fn unflushed_cpu_ns(cgroup: *const u8) -> u64 {
    if offset!(per_cpu_runtime) == ABSENT || offset!(per_cpu_runtime_flushed) == ABSENT {
        return 0;
    }
    let Some(counted) = field::<u64>(cgroup, offset!(cgroup_per_cpu)) else { return 0 };
    let mut sum = 0u64;
    for cpu in 0..possible_cpus() {
        let Some(offset) = CPU_OFFSETS.get(cpu).copied().filter(|offset| *offset != 0) else { continue };
        let copy = counted.wrapping_add(offset) as *const u8;
        if let Some(runtime) = field::<u64>(copy, offset!(per_cpu_runtime))
            && let Some(flushed) = field::<u64>(copy, offset!(per_cpu_runtime_flushed))
        {
            sum += runtime.saturating_sub(flushed);
        }
    }
    sum
}
