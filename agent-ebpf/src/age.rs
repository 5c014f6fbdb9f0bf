//! Whether a cgroup was created while the programs ran: then its counters began with 0.

use aya_ebpf::{macros::map, maps::Array};

use crate::read::{field, offset};

/// Serial number of the first cgroup that was created while the programs ran; 0 if there was none.
#[map]
static FIRST_SERIAL: Array<u64> = Array::with_max_entries(1, 0);

/// Remembers the first cgroup that is created.
#[inline(always)]
pub(crate) fn was_created(cgroup: *const u8) {
    if FIRST_SERIAL.get(0) == Some(&0) {
        let _ = FIRST_SERIAL.set(0, field(cgroup, offset!(cgroup_serial)).unwrap_or(0), 0);
    }
}

/// Whether the cgroup is that one or a younger one.
#[inline(always)]
pub(crate) fn is_young(cgroup: *const u8) -> bool {
    let first = FIRST_SERIAL.get(0).copied().filter(|first| *first != 0);
    first.zip(field::<u64>(cgroup, offset!(cgroup_serial))).is_some_and(|(first, own)| own >= first)
}
