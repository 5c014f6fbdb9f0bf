//! CPU time that the CPUs have counted and no flush has taken along.
//!
//! The kernel keeps it behind `__percpu` pointers. A CPU's copy lies at the pointer plus that CPU's offset, the same for
//! all such pointers, and no interface tells the offsets. But of an array for each CPU that is our own, we get both: the
//! `__percpu` pointer out of the map's own structure, and from a helper where a given CPU's copy is.

use aya_ebpf::{
    helpers::bpf_map_lookup_percpu_elem,
    macros::map,
    maps::{Array, PerCpuArray},
};
use snug_ebpf::abi::{lifecycle::MOST_CPUS, offsets::ABSENT};

use crate::{
    read::{field, offset},
    snapshot::CgroupIterContext,
};

/// CPUs that this machine can have. Set before loading.
#[unsafe(no_mangle)]
static CPUS: u32 = 0;

/// The array whose addresses are looked at; its content means nothing.
#[map]
static OWN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Offset of each CPU; the agent sets the size. 0 = not known: nothing is read.
#[map]
static CPU_OFFSETS: Array<u64> = Array::with_max_entries(MOST_CPUS, 0);

/// Learns the offsets. The agent runs it once, over one cgroup; which one does not matter.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/cgroup")]
extern "C" fn cpus(_context: *const CgroupIterContext) -> i32 {
    let own = (&raw const OWN).cast_mut();
    // SAFETY: a map's address is its `bpf_map` to the kernel.
    let Some(base) = (unsafe { as_number(own.cast()) })
        .and_then(|map| field::<u64>(map as *const u8, offset!(array_pointers)))
    else {
        return 0;
    };
    for cpu in 0..cpus_here() {
        // SAFETY: the key is 4 bytes, as the map's keys are.
        let copy = unsafe { bpf_map_lookup_percpu_elem(own.cast(), (&raw const KEY).cast(), cpu) };
        if copy.is_null() {
            continue;
        }
        // SAFETY: not null, so the address of this CPU's copy.
        if let Some(copy) = unsafe { as_number(copy.cast()) }
            && let Some(offset) = CPU_OFFSETS.get_ptr_mut(cpu)
        {
            // SAFETY: the entry lives as long as the map.
            unsafe { *offset = copy.wrapping_sub(base) };
        }
    }
    0
}

static KEY: u32 = 0;

/// Where the verifier loses track of what a number was: it forbids to compute with some pointers.
#[map]
static NUMBER: Array<u64> = Array::with_max_entries(1, 0);

/// An address as a number.
///
/// # Safety
/// None is needed for the address; only one run at a time may use this.
#[inline(always)]
unsafe fn as_number(address: *const u8) -> Option<u64> {
    let place = NUMBER.get_ptr_mut(0)?;
    // SAFETY: the entry lives as long as the map. Volatile, so that it is really written and read.
    unsafe {
        core::ptr::write_volatile(place.cast::<*const u8>(), address);
        Some(core::ptr::read_volatile(place))
    }
}

#[inline(always)]
fn cpus_here() -> u32 {
    // SAFETY: a reference to a static is valid for reads; volatile, because the agent sets it before loading.
    let cpus = unsafe { core::ptr::read_volatile(&raw const CPUS) };
    if cpus > MOST_CPUS { MOST_CPUS } else { cpus }
}

/// CPU time of a cgroup, its children's not included, that no flush has taken along, nanoseconds.
#[inline(always)]
pub(crate) fn unflushed_cpu_ns(cgroup: *const u8) -> u64 {
    if offset!(per_cpu_runtime) == ABSENT || offset!(per_cpu_runtime_flushed) == ABSENT {
        return 0;
    }
    let Some(counted) = field::<u64>(cgroup, offset!(cgroup_per_cpu)) else { return 0 };
    let mut sum = 0u64;
    for cpu in 0..cpus_here() {
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
