//! The kernel's own highest memory usage since it was last asked.
//!
//! Since Linux 6.12 a write to `memory.peak` of cgroup v2 sets the watermark back for this open file alone: others who read the file, and
//! the watermark of the cgroup's life, see nothing of it. It takes a descriptor for each container, and a mount that may be written to.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustc_hash::FxHashMap;
use rustix::{
    fs::{Mode, OFlags, openat},
    io::{Errno, pread, write},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    cgroupfs::{
        parse,
        reader::{open_mount, says_gone},
    },
    store::Key,
};

const FILE: &str = "memory.peak";
/// Longer than any number.
const ROOM: usize = 32;

/// Open files of containers.
#[derive(Debug)]
pub(super) struct PeakFiles {
    mount: PathBuf,
    directory: OwnedFd,
    /// `None`: the cgroup has no such file.
    files: FxHashMap<Key, Option<OwnedFd>>,
    /// Files that may be open: all else needs descriptors, too.
    room: usize,
    refused: bool,
}

impl PeakFiles {
    /// Of the cgroups below a mount of cgroup v2.
    pub(super) fn open(mount: &Path) -> Option<Self> {
        let directory = open_mount(mount).ok()?;
        let room = descriptors() / 2;
        Some(Self { mount: mount.to_owned(), directory, files: FxHashMap::default(), room, refused: false })
    }

    /// Whether this kernel does not set watermarks back, or does not let this agent.
    pub(super) const fn is_refused(&self) -> bool {
        self.refused
    }

    /// The highest usage of a cgroup since it was last asked for, bytes; `None` the first time.
    pub(super) fn take(&mut self, key: Key, path: &str) -> Option<u64> {
        if self.refused {
            return None;
        }
        if let Some(file) = self.files.get(&key) {
            let peak = read(file.as_ref()?).ok();
            // What is charged between the two calls is not seen here; where it is the highest of all, the watermark tells.
            let set_back = peak.and_then(|_| set_back(file.as_ref()?).ok());
            return set_back.and(peak);
        }
        if self.files.len() >= self.room {
            return None;
        }
        match self.open_file(path) {
            Ok(file) => drop(self.files.insert(key, file)),
            Err(errno) => self.refuse(path, errno),
        }
        None
    }

    fn open_file(&self, path: &str) -> Result<Option<OwnedFd>, Errno> {
        let file = Path::new(path.trim_start_matches('/')).join(FILE);
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(&self.directory, &file, flags, Mode::empty()).and_then(|file| {
            set_back(&file)?;
            Ok(file)
        });
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(errno) if says_gone(errno) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn refuse(&mut self, path: &str, errno: Errno) {
        let file = format!("{}{path}/{FILE}", self.mount.display());
        let why = match errno {
            Errno::INVAL => "Linux before 6.12 does not set it back",
            Errno::ROFS => "the mount is read-only",
            Errno::MFILE | Errno::NFILE => "there is no descriptor left",
            _ => "it cannot be written",
        };
        tracing::info!(%file, error = %errno, "memory peaks between two seconds are told by watermarks and samples: {why}");
        self.refused = true;
        self.files = FxHashMap::default();
    }

    /// Of a cgroup of which nothing more is to come.
    pub(super) fn forget(&mut self, key: Key) {
        self.files.remove(&key);
    }
}

/// Descriptors that this process may have: as many as it can be given.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    allowed.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

fn read(file: &OwnedFd) -> Result<u64, Errno> {
    let mut buffer = [0_u8; ROOM];
    let size = pread(file, &mut buffer, 0)?;
    parse::number(buffer.get(..size).unwrap_or_default()).map_err(|_| Errno::INVAL)
}

fn set_back(file: &OwnedFd) -> Result<(), Errno> {
    write(file, b"0").map(drop)
}
