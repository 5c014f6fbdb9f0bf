//! Reads what the files of one cgroup say.
//!
//! Files are opened below the hierarchy's kept-open mount, read at once and closed: a file that is kept open per cgroup
//! would cost a descriptor each, and a cgroup that is removed and made again under its old name would go unseen.

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
    /// The cgroup does not exist, or ceased to while it was read.
    #[error("the cgroup {path} is gone")]
    Gone {
        /// The cgroup's path in its hierarchy.
        path: String,
    },
    /// Not a path of a cgroup.
    #[error("{path:?} is no cgroup path: it must begin with / and have no . or .. in it")]
    BadPath {
        /// What was given.
        path: String,
    },
    /// The system refuses a file or directory.
    #[error("cannot read {}", file.display())]
    Unreadable {
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("cannot make sense of {}", file.display())]
    Malformed {
        file: PathBuf,
        /// The line and what is wrong with it.
        source: ParseError,
    },
}

/// What one cgroup's files said.
#[derive(Debug, Default)]
pub struct Reading {
    /// What was asked for and is there. A subject whose files do not exist here is `None`, and so is one with a problem.
    pub values: Values,
    /// Files that could not be read or understood: each is missing from the values, the rest is not.
    pub problems: Vec<ReadError>,
    /// Lines of `io.stat` (v1: `blkio.*`) that name no device and count for nothing.
    pub skipped_lines: u64,
}

/// A hierarchy's mount, kept open.
struct Opened {
    mount: PathBuf,
    version: Version,
    directory: OwnedFd,
}

/// Which of the opened hierarchies serves what.
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

/// As many as there are [`Roles`].
const MOST_HIERARCHIES: usize = 7;

/// Reads cgroup files. Keeps one buffer and one descriptor per hierarchy; make one per thread.
pub struct CgroupReader {
    opened: Vec<Opened>,
    roles: Roles,
    tick_ns: u64,
    buffer: Vec<u8>,
}

impl CgroupReader {
    /// A reader of these hierarchies, whose mounts it opens.
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

    /// Reads what `which` names of the cgroup at `path_in_hierarchy` (`/` for the root), the same path in every
    /// hierarchy. What a hierarchy without that cgroup would have served is `None`; if none has it, it is
    /// [`ReadError::Gone`].
    pub fn read(&mut self, path_in_hierarchy: &str, which: Measurements) -> Result<Reading, ReadError> {
        let mut pass = Pass {
            relative: relative(path_in_hierarchy)?,
            opened: &self.opened,
            buffer: &mut self.buffer,
            directories: [const { Directory::NotLooked }; MOST_HIERARCHIES],
            reading: Reading::default(),
        };
        let mut values = Values::default();
        let slow = which.contains(Measurement::SlowRows);
        let mut v2 = v2::Subjects::default();

        if (which.contains(Measurement::Cpu) || slow)
            && let Some(at) = self.roles.cpu_time
        {
            let at = self.roles.cpuacct.filter(|_| !pass.exists(at)).unwrap_or(at);
            match pass.version(at) {
                Version::V2 => v2.cpu_time(&mut pass, at, which, &mut values),
                Version::V1 => v1::cpu_time(&mut pass, at, which, self.tick_ns, &mut values),
            }
        }
        if which.contains(Measurement::Throttling)
            && let Some(at) = self.roles.bandwidth
        {
            values.throttling = match pass.version(at) {
                Version::V2 => v2.throttling(&mut pass, at),
                Version::V1 => v1::throttling(&mut pass, at),
            }
            .unwrap_or(None);
        }
        if which.contains(Measurement::Pressure)
            && let Some(at) = self.roles.pressure
        {
            values.pressure = v2::pressure(&mut pass, at).unwrap_or(None);
        }
        if let Some(at) = self.roles.memory {
            match pass.version(at) {
                Version::V2 => v2::memory(&mut pass, at, which, &mut values),
                Version::V1 => v1::memory(&mut pass, at, which, &mut values),
            }
        }
        if which.contains(Measurement::Pids)
            && let Some(at) = self.roles.pids
        {
            // The files are the same in both versions.
            values.pids = v2::pids(&mut pass, at).unwrap_or(None);
        }
        if slow && let Some(at) = self.roles.io {
            values.io = match pass.version(at) {
                Version::V2 => v2::io(&mut pass, at),
                Version::V1 => v1::io(&mut pass, at),
            }
            .unwrap_or(None);
        }
        if which.contains(Measurement::Spec) {
            values.spec = self.roles.spec(&mut pass);
        }
        pass.finish(values, path_in_hierarchy)
    }

    /// The processes in the cgroup itself: of the first hierarchy in which it has any. 0 stands for one that is out of
    /// the sight of this process's PID namespace.
    pub fn processes(&self, path_in_hierarchy: &str) -> Result<Vec<u32>, ReadError> {
        let relative = relative(path_in_hierarchy)?;
        let mut found = false;
        for opened in &self.opened {
            let file = Path::new(relative).join("cgroup.procs");
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            // The kernel gives this file out in pieces of a page: only a read of nothing is its end.
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
                    Some(errno) if says_gone(errno) => {}
                    // A threaded cgroup's processes are listed above it.
                    Some(errno) if says_unsupported(errno) => found = true,
                    _ => return Err(ReadError::Unreadable { file: opened.mount.join(file), source }),
                },
            }
        }
        if found { Ok(Vec::new()) } else { Err(ReadError::Gone { path: path_in_hierarchy.to_owned() }) }
    }
}

impl Roles {
    fn spec(&self, pass: &mut Pass<'_>) -> Option<Spec> {
        let cpu_shares = self.bandwidth.and_then(|at| match pass.version(at) {
            Version::V2 => v2::cpu_shares(pass, at).unwrap_or(None),
            Version::V1 => v1::cpu_shares(pass, at).unwrap_or(None),
        });
        let memory_reservation_bytes = self.memory.and_then(|at| match pass.version(at) {
            Version::V2 => v2::memory_reservation(pass, at).unwrap_or(None),
            Version::V1 => v1::memory_reservation(pass, at).unwrap_or(None),
        });
        let spec = Spec { cpu_shares, memory_reservation_bytes };
        (spec != Spec::default()).then_some(spec)
    }
}

fn index_of(opened: &mut Vec<Opened>, hierarchy: &Hierarchy) -> Result<usize, ReadError> {
    if let Some(index) = opened.iter().position(|other| other.mount == hierarchy.mount) {
        return Ok(index);
    }
    let directory = open_mount(&hierarchy.mount)?;
    opened.push(Opened { mount: hierarchy.mount.clone(), version: hierarchy.version, directory });
    Ok(opened.len() - 1)
}

pub(crate) fn open_mount(mount: &Path) -> Result<OwnedFd, ReadError> {
    rustix::fs::open(mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| ReadError::Unreadable { file: mount.to_owned(), source: errno.into() })
}

/// The path as `openat` wants it below the mount.
fn relative(path: &str) -> Result<&str, ReadError> {
    match path.strip_prefix('/') {
        Some("") => Ok("."),
        Some(relative) if !relative.split('/').any(|part| matches!(part, "" | "." | "..")) => Ok(relative),
        _ => Err(ReadError::BadPath { path: path.to_owned() }),
    }
}

/// Whether an error says that the cgroup of the file is no more (as `kernfs` does) or never was.
pub(crate) fn says_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV | Errno::NOTDIR)
}

/// Whether an error says that the file is there for show: pressure files do so when PSI is off.
fn says_unsupported(errno: Errno) -> bool {
    errno == Errno::OPNOTSUPP
}

/// The cgroup's directory in one hierarchy, during one pass.
enum Directory {
    NotLooked,
    Open(OwnedFd),
    Gone,
}

/// The marker of a problem that has been noted.
#[derive(Debug)]
struct Noted;

/// A subject: `None` where the files do not exist.
type Subject<T> = Result<Option<T>, Noted>;

/// One cgroup being read.
struct Pass<'a> {
    relative: &'a str,
    opened: &'a [Opened],
    buffer: &'a mut Vec<u8>,
    directories: [Directory; MOST_HIERARCHIES],
    reading: Reading,
}

impl Pass<'_> {
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

    fn note_errno(&mut self, hierarchy: usize, file: &str, errno: Errno) -> Noted {
        let file = self.path_of(hierarchy, file);
        self.reading.problems.push(ReadError::Unreadable { file, source: errno.into() });
        Noted
    }

    fn set(&mut self, hierarchy: usize, state: Directory) {
        if let Some(directory) = self.directories.get_mut(hierarchy) {
            *directory = state;
        }
    }

    /// Whether the cgroup is there in the hierarchy, as far as is known.
    fn exists(&mut self, hierarchy: usize) -> bool {
        if let (Some(Directory::NotLooked), Some(opened)) =
            (self.directories.get(hierarchy), self.opened.get(hierarchy))
        {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let state = match rustix::fs::openat(&opened.directory, self.relative, flags, Mode::empty()) {
                Ok(directory) => Directory::Open(directory),
                Err(errno) => {
                    if !says_gone(errno) {
                        self.note_errno(hierarchy, "", errno);
                    }
                    Directory::Gone
                }
            };
            self.set(hierarchy, state);
        }
        matches!(self.directories.get(hierarchy), Some(Directory::Open(_)))
    }

    /// Reads a file and parses it; `None` if there is no such file, or no such cgroup any more.
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
                    Noted
                });
            }
            Err(errno) => errno,
        };
        if says_unsupported(errno) {
            return Ok(None);
        }
        if !says_gone(errno) {
            return Err(self.note_errno(hierarchy, file, errno));
        }
        // A file that this kernel lacks, or all of them with the cgroup? This one is in every cgroup.
        let probe = rustix::fs::statat(directory, "cgroup.procs", AtFlags::SYMLINK_NOFOLLOW);
        if errno == Errno::NODEV || probe.is_err_and(says_gone) {
            self.set(hierarchy, Directory::Gone);
        }
        Ok(None)
    }

    fn finish(self, values: Values, path: &str) -> Result<Reading, ReadError> {
        let looked = self.directories.iter().any(|state| !matches!(state, Directory::NotLooked));
        let alive = self.directories.iter().any(|state| matches!(state, Directory::Open(_)));
        if looked && !alive && self.reading.problems.is_empty() {
            return Err(ReadError::Gone { path: path.to_owned() });
        }
        Ok(Reading { values, ..self.reading })
    }
}

/// Limits and counters of CFS bandwidth control put together.
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

/// The working set of a usage and an inactive file cache.
fn working_set_of((usage, inactive_file_bytes): (u64, u64)) -> WorkingSet {
    WorkingSet { inactive_file_bytes, bytes: usage.saturating_sub(inactive_file_bytes) }
}

/// Enough for every file but the longest `io.stat`.
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
        // The kernel makes the whole text in one go, so that a read that leaves room has reached its end.
        if size < room_size {
            return Ok(buffer.get(..filled).unwrap_or_default());
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

#[cfg(test)]
#[path = "reader/tests.rs"]
mod tests;
