//! Events from the ring, checked and copied out.

use std::ptr;

use snug_ebpf::abi::{
    events::{EMPTY, EXITED, Header, MADE, OOM_KILL, REMOVED, STARTED},
    lifecycle::{FinalRecord, LifecycleEvent},
    oom::OomEvent,
    process::{COMM_BYTES, ProcessEvent},
    snapshot::SnapshotRecord,
};

/// Something that happened to a cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The hierarchy's id; 0 is cgroup v2.
    pub hierarchy: u32,
    /// The cgroup's kernfs id.
    pub id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
    /// What happened.
    pub what: What,
}

/// What can happen to a cgroup. A path is `None` if it was cut or is not UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// It was made.
    Made {
        /// Path below the hierarchy's root.
        path: Option<String>,
    },
    /// The last task left it and everything below it.
    Emptied {
        /// Path below the hierarchy's root.
        path: Option<String>,
    },
    /// It was removed.
    Removed {
        /// Path below the hierarchy's root.
        path: Option<String>,
        /// Its last state.
        last: Box<SnapshotRecord>,
    },
    /// Its init process has begun to run its program.
    Started(InitProcess),
    /// Its init process has ended.
    Exited {
        /// The process.
        init: InitProcess,
        /// As `wait(2)` reports it.
        status: u32,
    },
    /// The OOM killer has chosen a victim in it.
    OomKill(OomEvent),
}

/// An init process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitProcess {
    /// Process id in the kernel's own namespace.
    pub pid: u32,
    /// `CLOCK_MONOTONIC` when it began to run its program, nanoseconds.
    pub started_ns: u64,
    /// Its name, as far as the kernel keeps it (15 bytes).
    pub comm: String,
    /// Whether it had a mount namespace other than its parent's.
    pub contained: bool,
}

impl Event {
    /// Decodes what the ring holds. `None`: not an event of this agent's programs.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Header { kind, hierarchy, id, at_ns } = read(bytes)?;
        let what = match kind {
            MADE => What::Made { path: path(&read(bytes)?) },
            EMPTY => What::Emptied { path: path(&read(bytes)?) },
            REMOVED => {
                let record: FinalRecord = read(bytes)?;
                What::Removed { path: path(&record.event), last: Box::new(record.record) }
            }
            STARTED => What::Started(init(&read(bytes)?)),
            EXITED => {
                let event: ProcessEvent = read(bytes)?;
                What::Exited { init: init(&event), status: event.status }
            }
            OOM_KILL => What::OomKill(read(bytes)?),
            _ => return None,
        };
        Some(Self { hierarchy, id, at_ns, what })
    }
}

fn path(event: &LifecycleEvent) -> Option<String> {
    let length = event.path_len as usize;
    // A path that fills the buffer has been cut.
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

/// A task's name: whatever bytes its process chose, up to the first 0.
pub fn task_name(comm: &[u8; COMM_BYTES]) -> String {
    let bytes = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
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
// SAFETY: integers.
unsafe impl Record for Header {}
// SAFETY: integers and arrays of integers.
unsafe impl Record for LifecycleEvent {}
// SAFETY: records of integers.
unsafe impl Record for FinalRecord {}
// SAFETY: integers and arrays of integers.
unsafe impl Record for ProcessEvent {}
// SAFETY: integers and arrays of integers.
unsafe impl Record for OomEvent {}

#[cfg(test)]
mod tests {
    use super::*;
    use snug_ebpf::abi::lifecycle::PATH_BYTES;

    fn header(kind: u32) -> Header {
        Header { kind, hierarchy: 3, id: 7, at_ns: 9 }
    }

    /// The first `length` bytes of a record.
    fn bytes<T: Record>(record: &T, length: usize) -> Vec<u8> {
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
        let event = Event::decode(&unaligned[1..]).unwrap();
        assert_eq!((event.hierarchy, event.id, event.at_ns), (3, 7, 9));
        let What::Removed { path, last } = event.what else { panic!("{event:?}") };
        assert_eq!((path.as_deref(), last.id), (Some("/a"), 7));
    }

    #[test]
    fn what_is_short_or_unknown_is_refused() {
        let removed = of_cgroup(REMOVED, b"/a", 2);
        assert_eq!(Event::decode(&removed[..removed.len() - 1]), None);
        assert_eq!(Event::decode(&[]), None);
        assert_eq!(Event::decode(&of_cgroup(99, b"/a", 2)), None);
        let kill = OomEvent { header: header(OOM_KILL), ..OomEvent::default() };
        assert_eq!(Event::decode(&bytes(&kill, size_of::<OomEvent>() - 1)), None);
    }

    #[test]
    fn cut_and_foreign_paths_are_no_paths() {
        let path_of = |bytes: &[u8]| match Event::decode(bytes).unwrap().what {
            What::Made { path } => path,
            what => panic!("{what:?}"),
        };
        assert_eq!(path_of(&of_cgroup(MADE, b"/a", 2)).as_deref(), Some("/a"));
        assert_eq!(path_of(&of_cgroup(MADE, b"/\xff", 2)), None);
        let full = PATH_BYTES as u32 - 1;
        assert_eq!(path_of(&of_cgroup(MADE, b"/a", full)), None);
        assert_eq!(path_of(&of_cgroup(MADE, b"/a", u32::MAX)), None);
    }

    #[test]
    fn names_of_processes_are_theirs_to_choose() {
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
        let decoded = Event::decode(&bytes(&event, size_of::<ProcessEvent>())).unwrap();
        let comm = "a\u{fffd}\n\"".to_owned();
        let init = InitProcess { pid: 6, started_ns: 5, comm, contained: true };
        assert_eq!(decoded.what, What::Exited { init, status: 9 });
        let full = OomEvent { header: header(OOM_KILL), comm: [b'x'; COMM_BYTES], ..OomEvent::default() };
        let decoded = Event::decode(&bytes(&full, size_of::<OomEvent>())).unwrap();
        let What::OomKill(kill) = decoded.what else { panic!("{decoded:?}") };
        assert_eq!((kill.limit_id, task_name(&kill.comm).len()), (0, COMM_BYTES));
    }
}
