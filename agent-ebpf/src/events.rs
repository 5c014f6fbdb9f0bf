//! The ring buffer for the events of all programs, and the counters of lost events.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use aya_log_ebpf::debug;
use snug_ebpf::abi::events::{Header, LOST_KINDS, RING_BYTES, RING_BYTES_BEFORE_RESERVE};

/// Events, read by the agent.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Lost events and records, by index in `LOST_KINDS`.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_KINDS.len() as u32, 0);

/// `BPF_RB_AVAIL_DATA`: bytes not yet consumed.
const AVAILABLE_DATA: u64 = 0;

/// Reserves space for an event that may be dropped: only up to [`RING_BYTES_BEFORE_RESERVE`].
#[inline(always)]
pub(crate) fn reserve<T: 'static>(context: &impl EbpfContext, kind: u32) -> Option<RingBufEntry<T>> {
    if EVENTS.query(AVAILABLE_DATA) > RING_BYTES_BEFORE_RESERVE {
        count_lost(kind - 1);
        debug!(context, "ring full: event {} lost", kind);
        return None;
    }
    reserve_final(context, kind)
}

/// Reserves space for a final event: up to the full size of the ring buffer.
#[inline(always)]
pub(crate) fn reserve_final<T: 'static>(context: &impl EbpfContext, kind: u32) -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        count_lost(kind - 1);
        debug!(context, "ring full: event {} lost", kind);
    }
    entry
}

/// The header of an event that happens now.
#[inline(always)]
pub(crate) fn header(kind: u32, hierarchy: u32, id: u64) -> Header {
    // SAFETY: the helper has no precondition.
    Header { kind, hierarchy, id, at_ns: unsafe { bpf_ktime_get_ns() } }
}

/// Counts a lost event or record; `kind` is an index in `LOST_KINDS`.
#[inline(always)]
pub(crate) fn count_lost(kind: u32) {
    if let Some(count) = LOST.get_ptr_mut(kind) {
        // SAFETY: the entry is this CPU's own.
        unsafe { *count += 1 };
    }
}
