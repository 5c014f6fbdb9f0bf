//! Highest memory usage since the last reading, from `memory.peak`.
//!
//! Since Linux 6.12 a write to `memory.peak` of cgroup v2 resets the watermark of the open file. Other open files, and the
//! watermark since the creation of the cgroup, are not affected. This requires an open file per container, and a mount that is
//! not read-only.

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
        reader::{is_gone, open_mount},
    },
    store::Key,
};

const FILE: &str = "memory.peak";
/// Enough for any number in decimal.
const BUFFER_BYTES: usize = 32;

/// The open `memory.peak` files of containers.
#[derive(Debug)]
pub(super) struct PeakFiles {
    mount: PathBuf,
    directory: OwnedFd,
    /// `None`: the cgroup has no `memory.peak`.
    files: FxHashMap<Key, Option<OwnedFd>>,
    /// Maximum number of open files; the rest of the descriptors is for the rest of the agent.
    max_files: usize,
    disabled: bool,
}

impl PeakFiles {
    /// For the cgroups below a mount of cgroup v2; `None` if it cannot be opened.
    pub(super) fn open(mount: &Path) -> Option<Self> {
        let directory = open_mount(mount).ok()?;
        let max_files = descriptors() / 2;
        Some(Self {
            mount: mount.to_owned(),
            directory,
            files: FxHashMap::default(),
            max_files,
            disabled: false,
        })
    }

    /// Whether the kernel cannot reset watermarks, or the agent may not.
    pub(super) const fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// The highest usage of a cgroup since the last call, bytes; `None` in the first call.
    pub(super) fn take(&mut self, key: Key, path: &str) -> Option<u64> {
        if self.disabled {
            return None;
        }
        if let Some(file) = self.files.get(&key) {
            let peak = read(file.as_ref()?).ok();
            // A peak between the two calls is missed here, unless it is the highest since the creation of the cgroup.
            let reset_peak = peak.and_then(|_| reset_peak(file.as_ref()?).ok());
            return reset_peak.and(peak);
        }
        if self.files.len() >= self.max_files {
            return None;
        }
        match self.open_file(path) {
            Ok(file) => drop(self.files.insert(key, file)),
            Err(errno) => self.disable(path, errno),
        }
        None
    }

    fn open_file(&self, path: &str) -> Result<Option<OwnedFd>, Errno> {
        let file = Path::new(path.trim_start_matches('/')).join(FILE);
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(&self.directory, &file, flags, Mode::empty()).and_then(|file| {
            reset_peak(&file)?;
            Ok(file)
        });
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn disable(&mut self, path: &str, errno: Errno) {
        let file = format!("{}{path}/{FILE}", self.mount.display());
        let why = match errno {
            Errno::INVAL => "Linux before 6.12 cannot reset it",
            Errno::ROFS => "the mount is read-only",
            Errno::MFILE | Errno::NFILE => "no file descriptor is left",
            _ => "the file cannot be written",
        };
        tracing::info!(%file, error = %errno, "no resettable memory.peak, so memory peaks come from watermarks and samples: {why}");
        self.disabled = true;
        self.files = FxHashMap::default();
    }

    /// Closes the file of a removed cgroup.
    pub(super) fn forget(&mut self, key: Key) {
        self.files.remove(&key);
    }
}

/// The limit of open files, after raising the soft limit to the hard limit.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    allowed.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

fn read(file: &OwnedFd) -> Result<u64, Errno> {
    let mut buffer = [0_u8; BUFFER_BYTES];
    let size = pread(file, &mut buffer, 0)?;
    parse::number(buffer.get(..size).unwrap_or_default()).map_err(|_| Errno::INVAL)
}

fn reset_peak(file: &OwnedFd) -> Result<(), Errno> {
    write(file, b"0").map(drop)
}
