//! The ring on which all programs send events, and the count of what found no room.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use aya_log_ebpf::debug;
use snug_ebpf::abi::events::{Header, LOST_KINDS, RING_BYTES, RING_BYTES_FOR_ALL};

/// Events on their way to the agent.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// What found no room, by kind (`LOST_KINDS`).
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_KINDS.len() as u32, 0);

/// `BPF_RB_AVAIL_DATA`: bytes that wait in a ring.
const WAITING: u64 = 0;

/// Room for an event that another will make up for: only while the ring is not too full.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(context: &impl EbpfContext, kind: u32) -> Option<RingBufEntry<T>> {
    if EVENTS.query(WAITING) > RING_BYTES_FOR_ALL {
        lost(kind - 1);
        debug!(context, "ring full: event {} lost", kind);
        return None;
    }
    reserve_last(context, kind)
}

/// Room for an event that tells of an end: as long as there is any.
#[inline(always)]
pub(crate) fn reserve_last<T: 'static>(context: &impl EbpfContext, kind: u32) -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lost(kind - 1);
        debug!(context, "ring full: event {} lost", kind);
    }
    entry
}

/// An event's beginning, now.
#[inline(always)]
pub(crate) fn header(kind: u32, hierarchy: u32, id: u64) -> Header {
    // SAFETY: the helper has no precondition.
    Header { kind, hierarchy, id, at_ns: unsafe { bpf_ktime_get_ns() } }
}

/// Counts something that found no room, at its place in `LOST_KINDS`.
#[inline(always)]
pub(crate) fn lost(place: u32) {
    if let Some(count) = LOST.get_ptr_mut(place) {
        // SAFETY: the entry is this CPU's own.
        unsafe { *count += 1 };
    }
}
