//! Events from the ring, checked and copied out.

use std::ptr;

use snug_ebpf::abi::lifecycle::{EMPTY, FinalRecord, LifecycleEvent, MADE, POPULATED, REMOVED};
use snug_ebpf::abi::snapshot::SnapshotRecord;

/// Something that happened to a cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// [`MADE`], [`POPULATED`], [`EMPTY`] or [`REMOVED`].
    pub kind: u32,
    /// The hierarchy's id; 0 is cgroup v2.
    pub hierarchy: u32,
    /// kernfs id.
    pub id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
    /// Path below the hierarchy's root; `None` if it was cut or is not UTF-8.
    pub path: Option<String>,
    /// The last state, with [`REMOVED`].
    pub last: Option<Box<SnapshotRecord>>,
}

impl Event {
    /// Decodes what the ring holds. `None`: not an event of this agent's programs.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let event: LifecycleEvent = read(bytes)?;
        let last = match event.kind {
            REMOVED => Some(Box::new(read::<FinalRecord>(bytes)?.record)),
            MADE | POPULATED | EMPTY => None,
            _ => return None,
        };
        let length = event.path_len as usize;
        // A path that fills the buffer has been cut.
        let path = event
            .path
            .get(..length)
            .filter(|_| length + 1 < event.path.len())
            .and_then(|path| std::str::from_utf8(path).ok())
            .map(str::to_owned);
        Some(Self {
            kind: event.kind,
            hierarchy: event.hierarchy,
            id: event.id,
            at_ns: event.at_ns,
            path,
            last,
        })
    }
}

/// A `T` from the beginning of `bytes`, which need not be aligned.
fn read<T: Record>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, and every bit pattern is a valid `Record`.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Records made of integers only.
///
/// # Safety
/// Every bit pattern must be a valid value.
unsafe trait Record: Copy {}
// SAFETY: integers and arrays of integers.
unsafe impl Record for LifecycleEvent {}
// SAFETY: records of integers.
unsafe impl Record for FinalRecord {}

#[cfg(test)]
mod tests {
    use super::*;
    use snug_ebpf::abi::lifecycle::PATH_BYTES;

    fn bytes(kind: u32, path: &[u8], path_len: u32) -> Vec<u8> {
        let mut event =
            LifecycleEvent { kind, hierarchy: 0, id: 7, at_ns: 9, level: 1, path_len, path: [0; PATH_BYTES] };
        event.path[..path.len()].copy_from_slice(path);
        let record = FinalRecord { event, record: SnapshotRecord { id: 7, ..SnapshotRecord::default() } };
        let length = if kind == REMOVED { size_of::<FinalRecord>() } else { size_of::<LifecycleEvent>() };
        // SAFETY: a plain value is readable as bytes.
        unsafe { std::slice::from_raw_parts((&raw const record).cast::<u8>(), length) }.to_vec()
    }

    #[test]
    fn events_are_decoded_from_unaligned_memory() {
        let mut unaligned = vec![0];
        unaligned.extend(bytes(REMOVED, b"/a", 2));
        let event = Event::decode(&unaligned[1..]).unwrap();
        assert_eq!((event.kind, event.id, event.path.as_deref()), (REMOVED, 7, Some("/a")));
        assert_eq!(event.last.unwrap().id, 7);
    }

    #[test]
    fn what_is_short_or_unknown_is_refused() {
        let removed = bytes(REMOVED, b"/a", 2);
        assert_eq!(Event::decode(&removed[..removed.len() - 1]), None);
        assert_eq!(Event::decode(&[]), None);
        assert_eq!(Event::decode(&bytes(99, b"/a", 2)), None);
    }

    #[test]
    fn cut_and_foreign_paths_are_no_paths() {
        assert_eq!(Event::decode(&bytes(MADE, b"/\xff", 2)).unwrap().path, None);
        let full = PATH_BYTES as u32 - 1;
        assert_eq!(Event::decode(&bytes(MADE, b"/a", full)).unwrap().path, None);
        assert_eq!(Event::decode(&bytes(MADE, b"/a", u32::MAX)).unwrap().path, None);
    }
}
