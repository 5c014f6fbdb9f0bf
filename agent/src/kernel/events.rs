//! Decoding events from the ring buffer.

use std::ptr;

use snug_ebpf::abi::{
    events::{EMPTIED, EXITED, Header, MADE, OOM_KILL, REMOVED, STARTED},
    lifecycle::{FinalRecord, LifecycleEvent},
    oom::OomEvent,
    process::{COMM_BYTES, ProcessEvent},
    snapshot::SnapshotRecord,
};

/// An event of the eBPF programs. Each is about a cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelEvent {
    /// The kernel's id of the hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// The cgroup's kernfs id.
    pub id: u64,
    /// Time of the event, nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Kind of the event and its data.
    pub kind: KernelEventKind,
}

/// The kinds of events. A path is `None` if it was truncated or is not UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelEventKind {
    /// The cgroup was created.
    Made {
        /// Path below the hierarchy's root.
        path: Option<String>,
    },
    /// The cgroup and its descendants have no tasks any more.
    Emptied {
        /// Path below the hierarchy's root.
        path: Option<String>,
    },
    /// The cgroup was removed.
    Removed {
        /// Path below the hierarchy's root.
        path: Option<String>,
        /// The cgroup's final values.
        last: Box<SnapshotRecord>,
    },
    /// The cgroup's init process called `execve`.
    Started(InitProcess),
    /// The cgroup's init process has exited.
    Exited {
        init: InitProcess,
        /// Exit status as `wait(2)` reports it.
        status: u32,
    },
    /// The OOM killer has chosen a victim in the cgroup.
    OomKill(OomEvent),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitProcess {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Time of its `execve`, nanoseconds of `CLOCK_MONOTONIC`.
    pub started_ns: u64,
    /// `task_struct.comm`: its name, at most 15 bytes.
    pub comm: String,
    /// Whether its mount namespace differed from its parent's at `execve`.
    pub contained: bool,
}

impl KernelEvent {
    /// Decodes an entry of the ring buffer; `None` if the kind is unknown or the entry is too short.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Header { kind, hierarchy, id, at_ns } = read(bytes)?;
        let kind = match kind {
            MADE => KernelEventKind::Made { path: path(&read(bytes)?) },
            EMPTIED => KernelEventKind::Emptied { path: path(&read(bytes)?) },
            REMOVED => {
                let record: FinalRecord = read(bytes)?;
                KernelEventKind::Removed { path: path(&record.event), last: Box::new(record.record) }
            }
            STARTED => KernelEventKind::Started(init(&read(bytes)?)),
            EXITED => {
                let event: ProcessEvent = read(bytes)?;
                KernelEventKind::Exited { init: init(&event), status: event.status }
            }
            OOM_KILL => KernelEventKind::OomKill(read(bytes)?),
            _ => return None,
        };
        Some(Self { hierarchy, id, at_ns, kind })
    }
}

fn path(event: &LifecycleEvent) -> Option<String> {
    let length = event.path_len as usize;
    // A path that fills the buffer may be truncated.
    let path = event.path.get(..length).filter(|_| length + 1 < event.path.len())?;
    Some(std::str::from_utf8(path).ok()?.to_owned())
}

fn init(event: &ProcessEvent) -> InitProcess {
    InitProcess {
        pid: event.pid,
        started_ns: event.started_ns,
        comm: task_name(&event.comm),
        contained: event.contained != 0,
    }
}

/// A task's name up to the first NUL. The process can set any bytes.
pub fn task_name(comm: &[u8; COMM_BYTES]) -> String {
    let bytes = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// Copies a `T` from the start of `bytes`, which need not be aligned.
fn read<T: PlainRecord>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, and every bit pattern is a valid `Record`.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Records that consist of integers only.
///
/// # Safety
/// Every bit pattern must be a valid value.
unsafe trait PlainRecord: Copy {}
// SAFETY: integers.
unsafe impl PlainRecord for Header {}
// SAFETY: integers and arrays of integers.
unsafe impl PlainRecord for LifecycleEvent {}
// SAFETY: records of integers.
unsafe impl PlainRecord for FinalRecord {}
// SAFETY: integers and arrays of integers.
unsafe impl PlainRecord for ProcessEvent {}
// SAFETY: integers and arrays of integers.
unsafe impl PlainRecord for OomEvent {}

#[cfg(test)]
mod tests {
    use super::*;
    use snug_ebpf::abi::lifecycle::PATH_BYTES;

    fn header(kind: u32) -> Header {
        Header { kind, hierarchy: 3, id: 7, at_ns: 9 }
    }

    /// The first `length` bytes of a record.
    fn bytes<T: PlainRecord>(record: &T, length: usize) -> Vec<u8> {
        assert!(length <= size_of::<T>());
        // SAFETY: a plain value is readable as bytes.
        unsafe { std::slice::from_raw_parts(ptr::from_ref(record).cast::<u8>(), length) }.to_vec()
    }

    fn of_cgroup(kind: u32, path: &[u8], path_len: u32) -> Vec<u8> {
        let mut event = LifecycleEvent { header: header(kind), level: 1, path_len, path: [0; PATH_BYTES] };
        event.path[..path.len()].copy_from_slice(path);
        let record = FinalRecord { event, record: SnapshotRecord { id: 7, ..SnapshotRecord::default() } };
        let length = if kind == REMOVED { size_of::<FinalRecord>() } else { size_of::<LifecycleEvent>() };
        bytes(&record, length)
    }

    #[test]
    fn events_are_decoded_from_unaligned_memory() {
        let mut unaligned = vec![0];
        unaligned.extend(of_cgroup(REMOVED, b"/a", 2));
        let event = KernelEvent::decode(&unaligned[1..]).unwrap();
        assert_eq!((event.hierarchy, event.id, event.at_ns), (3, 7, 9));
        let KernelEventKind::Removed { path, last } = event.kind else { panic!("{event:?}") };
        assert_eq!((path.as_deref(), last.id), (Some("/a"), 7));
    }

    #[test]
    fn short_and_unknown_entries_are_refused() {
        let removed = of_cgroup(REMOVED, b"/a", 2);
        assert_eq!(KernelEvent::decode(&removed[..removed.len() - 1]), None);
        assert_eq!(KernelEvent::decode(&[]), None);
        assert_eq!(KernelEvent::decode(&of_cgroup(99, b"/a", 2)), None);
        let kill = OomEvent { header: header(OOM_KILL), ..OomEvent::default() };
        assert_eq!(KernelEvent::decode(&bytes(&kill, size_of::<OomEvent>() - 1)), None);
    }

    #[test]
    fn truncated_and_non_utf8_paths_are_none() {
        let path_of = |bytes: &[u8]| match KernelEvent::decode(bytes).unwrap().kind {
            KernelEventKind::Made { path } => path,
            kind => panic!("{kind:?}"),
        };
        assert_eq!(path_of(&of_cgroup(MADE, b"/a", 2)).as_deref(), Some("/a"));
        assert_eq!(path_of(&of_cgroup(MADE, b"/\xff", 2)), None);
        let full = PATH_BYTES as u32 - 1;
        assert_eq!(path_of(&of_cgroup(MADE, b"/a", full)), None);
        assert_eq!(path_of(&of_cgroup(MADE, b"/a", u32::MAX)), None);
    }

    #[test]
    fn process_names_may_have_any_bytes() {
        let mut comm = [0; COMM_BYTES];
        comm[..4].copy_from_slice(b"a\xff\n\"");
        let event = ProcessEvent {
            header: header(EXITED),
            started_ns: 5,
            pid: 6,
            status: 9,
            contained: 1,
            reserved: 0,
            comm,
        };
        let decoded = KernelEvent::decode(&bytes(&event, size_of::<ProcessEvent>())).unwrap();
        let comm = "a\u{fffd}\n\"".to_owned();
        let init = InitProcess { pid: 6, started_ns: 5, comm, contained: true };
        assert_eq!(decoded.kind, KernelEventKind::Exited { init, status: 9 });
        let full = OomEvent { header: header(OOM_KILL), comm: [b'x'; COMM_BYTES], ..OomEvent::default() };
        let decoded = KernelEvent::decode(&bytes(&full, size_of::<OomEvent>())).unwrap();
        let KernelEventKind::OomKill(kill) = decoded.kind else { panic!("{decoded:?}") };
        assert_eq!((kill.limit_id, task_name(&kill.comm).len()), (0, COMM_BYTES));
    }
}
