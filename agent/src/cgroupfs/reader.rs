//! Reads the files of one cgroup.
//!
//! Each file is opened relative to the open mount of its hierarchy, read and closed. Keeping files open would need a descriptor
//! per file, and would miss that a cgroup was removed and created again under the same name.

mod v1;
mod v2;

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    Measurements,
    mounts::{Hierarchies, Hierarchy, Version},
    parse::{BandwidthStat, CpuMax, ParseError},
};
use crate::values::{Measurement, Spec, Throttling, Values, WorkingSet};

/// Why a cgroup or one of its files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cgroup does not exist, or was removed while it was read.
    #[error("the cgroup {path} is gone")]
    Gone {
        /// The cgroup's path in its hierarchy.
        path: String,
    },
    /// Not a path of a cgroup.
    #[error("{path:?} is no cgroup path: it must begin with / and must not contain . or ..")]
    BadPath {
        /// The given path.
        path: String,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        file: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// A file cannot be parsed.
    #[error("cannot parse {}", file.display())]
    Malformed {
        file: PathBuf,
        /// The line and the problem.
        source: ParseError,
    },
}

/// The values from one cgroup's files.
#[derive(Debug, Default)]
pub struct Reading {
    /// The requested values. `None` if the files do not exist or have a problem.
    pub values: Values,
    /// Files that could not be read or parsed. Only the values that need them are missing.
    pub problems: Vec<ReadError>,
    /// Number of lines of `io.stat` (v1: `blkio.*`) without a device, which are ignored.
    pub skipped_lines: u64,
}

/// The open mount of a hierarchy.
struct OpenMount {
    mount: PathBuf,
    version: Version,
    directory: OwnedFd,
}

/// The hierarchy of each group of files, as an index of `CgroupReader::opened`.
#[derive(Clone, Copy, Debug, Default)]
struct Roles {
    cpu_time: Option<usize>,
    cpuacct: Option<usize>,
    bandwidth: Option<usize>,
    pressure: Option<usize>,
    memory: Option<usize>,
    pids: Option<usize>,
    io: Option<usize>,
}

/// Number of fields of [`Roles`].
const MAX_HIERARCHIES: usize = 7;

/// Reads cgroup files. Has one buffer, and one open directory per hierarchy; not shared between threads.
pub struct CgroupReader {
    opened: Vec<OpenMount>,
    roles: Roles,
    tick_ns: u64,
    buffer: Vec<u8>,
}

impl CgroupReader {
    /// Opens the mounts of these hierarchies.
    pub fn new(hierarchies: &Hierarchies) -> Result<Self, ReadError> {
        let mut opened = Vec::new();
        let mut open =
            |hierarchy: Option<&Hierarchy>| hierarchy.map(|one| index_of(&mut opened, one)).transpose();
        let roles = Roles {
            cpu_time: open(hierarchies.cpu_time())?,
            cpuacct: open(hierarchies.cpuacct())?,
            bandwidth: open(hierarchies.bandwidth())?,
            pressure: open(hierarchies.pressure())?,
            memory: open(hierarchies.memory())?,
            pids: open(hierarchies.pids())?,
            io: open(hierarchies.io())?,
        };
        let tick_ns = 1_000_000_000 / procfs::ticks_per_second().max(1);
        Ok(Self { opened, roles, tick_ns, buffer: Vec::new() })
    }

    /// Reads these measurements of the cgroup at `path_in_hierarchy` (`/` for the root), the same path in every hierarchy.
    /// Values of a hierarchy that does not have the cgroup are `None`.
    ///
    /// # Errors
    /// [`ReadError::Gone`] if no hierarchy has the cgroup.
    pub fn read(
        &mut self,
        path_in_hierarchy: &str,
        measurements: Measurements,
    ) -> Result<Reading, ReadError> {
        let mut cgroup = CgroupRead {
            relative: relative(path_in_hierarchy)?,
            opened: &self.opened,
            buffer: &mut self.buffer,
            directories: [const { Directory::NotOpened }; MAX_HIERARCHIES],
            reading: Reading::default(),
        };
        let mut values = Values::default();
        let slow = measurements.contains(Measurement::SlowRows);
        let mut v2 = v2::Subjects::default();

        if (measurements.contains(Measurement::Cpu) || slow)
            && let Some(at) = self.roles.cpu_time
        {
            let at = self.roles.cpuacct.filter(|_| !cgroup.exists(at)).unwrap_or(at);
            match cgroup.version(at) {
                Version::V2 => v2.cpu_time(&mut cgroup, at, measurements, &mut values),
                Version::V1 => v1::cpu_time(&mut cgroup, at, measurements, self.tick_ns, &mut values),
            }
        }
        if measurements.contains(Measurement::Throttling)
            && let Some(at) = self.roles.bandwidth
        {
            values.throttling = match cgroup.version(at) {
                Version::V2 => v2.throttling(&mut cgroup, at),
                Version::V1 => v1::throttling(&mut cgroup, at),
            }
            .unwrap_or(None);
        }
        if measurements.contains(Measurement::Pressure)
            && let Some(at) = self.roles.pressure
        {
            values.pressure = v2::pressure(&mut cgroup, at).unwrap_or(None);
        }
        if let Some(at) = self.roles.memory {
            match cgroup.version(at) {
                Version::V2 => v2::memory(&mut cgroup, at, measurements, &mut values),
                Version::V1 => v1::memory(&mut cgroup, at, measurements, &mut values),
            }
        }
        if measurements.contains(Measurement::Pids)
            && let Some(at) = self.roles.pids
        {
            // The files are the same in cgroup v1 and v2.
            values.pids = v2::pids(&mut cgroup, at).unwrap_or(None);
        }
        if slow && let Some(at) = self.roles.io {
            values.io = match cgroup.version(at) {
                Version::V2 => v2::io(&mut cgroup, at),
                Version::V1 => v1::io(&mut cgroup, at),
            }
            .unwrap_or(None);
        }
        if measurements.contains(Measurement::Spec) {
            values.spec = self.roles.spec(&mut cgroup);
        }
        cgroup.finish(values, path_in_hierarchy)
    }

    /// The pids of the processes in the cgroup, without its descendants: from the first hierarchy in which it has any. Processes
    /// outside this process's PID namespace have pid 0.
    pub fn processes(&self, path_in_hierarchy: &str) -> Result<Vec<u32>, ReadError> {
        let relative = relative(path_in_hierarchy)?;
        let mut found = false;
        for opened in &self.opened {
            let file = Path::new(relative).join("cgroup.procs");
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            // The kernel returns at most a page per read, so only an empty read is the end of the file.
            let text = rustix::fs::openat(&opened.directory, &file, flags, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|file| io::read_to_string(File::from(file)));
            match text {
                Ok(text) => {
                    found = true;
                    let pids: Vec<u32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
                    if !pids.is_empty() {
                        return Ok(pids);
                    }
                }
                Err(source) => match Errno::from_io_error(&source) {
                    Some(errno) if is_gone(errno) => {}
                    // A threaded cgroup: its processes are listed in the domain cgroup above it.
                    Some(errno) if is_unsupported(errno) => found = true,
                    _ => return Err(ReadError::Unreadable { file: opened.mount.join(file), source }),
                },
            }
        }
        if found { Ok(Vec::new()) } else { Err(ReadError::Gone { path: path_in_hierarchy.to_owned() }) }
    }
}

impl Roles {
    fn spec(&self, cgroup: &mut CgroupRead<'_>) -> Option<Spec> {
        let cpu_shares = self.bandwidth.and_then(|at| match cgroup.version(at) {
            Version::V2 => v2::cpu_shares(cgroup, at).unwrap_or(None),
            Version::V1 => v1::cpu_shares(cgroup, at).unwrap_or(None),
        });
        let memory_reservation_bytes = self.memory.and_then(|at| match cgroup.version(at) {
            Version::V2 => v2::memory_reservation(cgroup, at).unwrap_or(None),
            Version::V1 => v1::memory_reservation(cgroup, at).unwrap_or(None),
        });
        let spec = Spec { cpu_shares, memory_reservation_bytes };
        (spec != Spec::default()).then_some(spec)
    }
}

fn index_of(opened: &mut Vec<OpenMount>, hierarchy: &Hierarchy) -> Result<usize, ReadError> {
    if let Some(index) = opened.iter().position(|other| other.mount == hierarchy.mount) {
        return Ok(index);
    }
    let directory = open_mount(&hierarchy.mount)?;
    opened.push(OpenMount { mount: hierarchy.mount.clone(), version: hierarchy.version, directory });
    Ok(opened.len() - 1)
}

pub(crate) fn open_mount(mount: &Path) -> Result<OwnedFd, ReadError> {
    rustix::fs::open(mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| ReadError::Unreadable { file: mount.to_owned(), source: errno.into() })
}

/// The path relative to the mount.
fn relative(path: &str) -> Result<&str, ReadError> {
    match path.strip_prefix('/') {
        Some("") => Ok("."),
        Some(relative) if !relative.split('/').any(|part| matches!(part, "" | "." | "..")) => Ok(relative),
        _ => Err(ReadError::BadPath { path: path.to_owned() }),
    }
}

/// Whether an error means that the cgroup of the file does not exist (any more).
pub(crate) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV | Errno::NOTDIR)
}

/// Whether an error means that the kernel does not support the file, such as pressure files if PSI is off.
fn is_unsupported(errno: Errno) -> bool {
    errno == Errno::OPNOTSUPP
}

/// The cgroup's directory in one hierarchy.
enum Directory {
    NotOpened,
    Open(OwnedFd),
    Gone,
}

/// Marker: the problem was added to [`Reading::problems`].
#[derive(Debug)]
struct ProblemRecorded;

/// Values of some files; `None` if the files do not exist.
type Subject<T> = Result<Option<T>, ProblemRecorded>;

/// The state while one cgroup is read.
struct CgroupRead<'a> {
    relative: &'a str,
    opened: &'a [OpenMount],
    buffer: &'a mut Vec<u8>,
    directories: [Directory; MAX_HIERARCHIES],
    reading: Reading,
}

impl CgroupRead<'_> {
    fn version(&self, hierarchy: usize) -> Version {
        self.opened.get(hierarchy).map_or(Version::V2, |opened| opened.version)
    }

    fn is_root(&self) -> bool {
        self.relative == "."
    }

    fn path_of(&self, hierarchy: usize, file: &str) -> PathBuf {
        let mount = self.opened.get(hierarchy).map_or(Path::new("/"), |opened| &opened.mount);
        mount.join(self.relative).join(file).components().collect()
    }

    fn record_errno(&mut self, hierarchy: usize, file: &str, errno: Errno) -> ProblemRecorded {
        let file = self.path_of(hierarchy, file);
        self.reading.problems.push(ReadError::Unreadable { file, source: errno.into() });
        ProblemRecorded
    }

    fn set(&mut self, hierarchy: usize, state: Directory) {
        if let Some(directory) = self.directories.get_mut(hierarchy) {
            *directory = state;
        }
    }

    /// Whether the hierarchy has the cgroup.
    fn exists(&mut self, hierarchy: usize) -> bool {
        if let (Some(Directory::NotOpened), Some(opened)) =
            (self.directories.get(hierarchy), self.opened.get(hierarchy))
        {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let state = match rustix::fs::openat(&opened.directory, self.relative, flags, Mode::empty()) {
                Ok(directory) => Directory::Open(directory),
                Err(errno) => {
                    if !is_gone(errno) {
                        self.record_errno(hierarchy, "", errno);
                    }
                    Directory::Gone
                }
            };
            self.set(hierarchy, state);
        }
        matches!(self.directories.get(hierarchy), Some(Directory::Open(_)))
    }

    /// Reads and parses a file; `None` if the file or the cgroup does not exist.
    fn parse<T>(
        &mut self,
        hierarchy: usize,
        file: &'static str,
        parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
    ) -> Subject<T> {
        if !self.exists(hierarchy) {
            return Ok(None);
        }
        let Some(Directory::Open(directory)) = self.directories.get(hierarchy) else { return Ok(None) };
        let errno = match read_file(directory, file, self.buffer) {
            Ok(text) => {
                return parse(text).map(Some).map_err(|source| {
                    let file = self.path_of(hierarchy, file);
                    self.reading.problems.push(ReadError::Malformed { file, source });
                    ProblemRecorded
                });
            }
            Err(errno) => errno,
        };
        if is_unsupported(errno) {
            return Ok(None);
        }
        if !is_gone(errno) {
            return Err(self.record_errno(hierarchy, file, errno));
        }
        // Is only this file missing, or was the cgroup removed? Every cgroup has cgroup.procs.
        let probe = rustix::fs::statat(directory, "cgroup.procs", AtFlags::SYMLINK_NOFOLLOW);
        if errno == Errno::NODEV || probe.is_err_and(is_gone) {
            self.set(hierarchy, Directory::Gone);
        }
        Ok(None)
    }

    fn finish(self, values: Values, path: &str) -> Result<Reading, ReadError> {
        let tried = self.directories.iter().any(|state| !matches!(state, Directory::NotOpened));
        let alive = self.directories.iter().any(|state| matches!(state, Directory::Open(_)));
        if tried && !alive && self.reading.problems.is_empty() {
            return Err(ReadError::Gone { path: path.to_owned() });
        }
        Ok(Reading { values, ..self.reading })
    }
}

/// Combines limits and counters of CFS bandwidth control.
fn throttling_of(stat: BandwidthStat, max: CpuMax, burst_limit_ns: u64) -> Throttling {
    let BandwidthStat { periods, throttled_periods, throttled_ns, burst_periods, burst_ns } = stat;
    let CpuMax { quota_ns, period_ns } = max;
    Throttling {
        quota_ns,
        period_ns,
        burst_limit_ns,
        periods,
        throttled_periods,
        throttled_ns,
        burst_periods,
        burst_ns,
    }
}

/// The working set, from usage and inactive file cache.
fn working_set_of((usage, inactive_file_bytes): (u64, u64)) -> WorkingSet {
    WorkingSet { inactive_file_bytes, bytes: usage.saturating_sub(inactive_file_bytes) }
}

/// Initial size of the buffer: enough for every file except a very long `io.stat`.
const FIRST_SIZE: usize = 16 * 1024;

/// Reads a file to its end.
fn read_file<'a>(directory: &OwnedFd, file: &str, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(rustix::fs::openat(directory, file, flags, Mode::empty())?);
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    if buffer.len() < FIRST_SIZE {
        buffer.resize(FIRST_SIZE, 0);
    }
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let room_size = room.len();
        let size = file.read(room).map_err(errno)?;
        filled += size;
        // The kernel generates the whole text at once, so a read that does not fill the buffer has reached the end.
        if size < room_size {
            return Ok(buffer.get(..filled).unwrap_or_default());
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

#[cfg(test)]
#[path = "reader/tests.rs"]
mod tests;
