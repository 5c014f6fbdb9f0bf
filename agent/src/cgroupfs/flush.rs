//! Makes the kernel flush the per-CPU counters of all cgroups (rstat).
//!
//! The kernel counts per CPU and sums the counters up when a file is read: reading `cpu.stat` of a cgroup flushes CPU time,
//! reading `memory.stat` flushes memory statistics, of the cgroup and its descendants (Linux `kernel/cgroup/rstat.c` and
//! `mm/memcontrol.c`). The eBPF programs read the sums directly, so the agent flushes them before.

use std::{collections::HashMap, fs::File, os::fd::OwnedFd, os::unix::fs::FileExt, path::PathBuf};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    mounts::Hierarchies,
    reader::{ReadError, is_gone, open_mount},
};

/// A cgroup file that stays open and is read repeatedly.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    path: PathBuf,
}

impl OpenFile {
    /// Opens `relative`, a file below the open `mount`; `None` if there is no such file.
    fn open(mount: &Mount, relative: &str) -> Result<Option<Self>, ReadError> {
        let path = mount.path.join(relative);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&mount.directory, relative, flags, Mode::empty()) {
            Ok(file) => Ok(Some(Self { file: file.into(), path })),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(ReadError::Unreadable { file: path, source: errno.into() }),
        }
    }

    /// Reads the file from its start into `buffer` and returns the bytes read, at most the size of `buffer`; `None` if the cgroup
    /// was removed.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, ReadError> {
        match self.file.read_at(buffer, 0) {
            Ok(size) => Ok(buffer.get(..size)),
            Err(source) => match Errno::from_io_error(&source) {
                Some(errno) if is_gone(errno) => Ok(None),
                _ => Err(ReadError::Unreadable { file: self.path.clone(), source }),
            },
        }
    }

    /// Reads a few bytes, which makes the kernel flush. Returns whether the cgroup still exists.
    fn touch(&self) -> Result<bool, ReadError> {
        self.read(&mut [0; 16]).map(|text| text.is_some())
    }
}

/// The open mount of a hierarchy.
#[derive(Debug)]
struct Mount {
    path: PathBuf,
    directory: OwnedFd,
}

/// The files whose reading flushes CPU time.
#[derive(Debug)]
enum CpuFlushPoints {
    /// None: cgroup v1 does not use rstat for CPU time.
    Never,
    /// The root of the mount is not the root of the hierarchy: its `cpu.stat` flushes all cgroups.
    Own(OpenFile),
    /// The `cpu.stat` of the hierarchy's root does not flush; those of its children do.
    Children { mount: Mount, files: HashMap<String, OpenFile> },
}

/// Flushes the kernel's counters through open files.
#[derive(Debug)]
pub struct Flusher {
    cpu: CpuFlushPoints,
    memory: Option<OpenFile>,
}

impl Flusher {
    /// A flusher for these hierarchies. CPU time below the root is flushed only after [`Self::refresh`].
    pub fn new(hierarchies: &Hierarchies) -> Result<Self, ReadError> {
        let open = |path: &PathBuf| Ok(Mount { path: path.clone(), directory: open_mount(path)? });
        let cpu = match &hierarchies.unified {
            None => CpuFlushPoints::Never,
            Some(unified) => {
                let mount = open(&unified.mount)?;
                match OpenFile::open(&mount, "cpu.stat")? {
                    Some(own) if !is_hierarchy_root(&mount) => CpuFlushPoints::Own(own),
                    _ => CpuFlushPoints::Children { mount, files: HashMap::new() },
                }
            }
        };
        let memory = match hierarchies.memory() {
            Some(hierarchy) => OpenFile::open(&open(&hierarchy.mount)?, "memory.stat")?,
            None => None,
        };
        Ok(Self { cpu, memory })
    }

    /// Sets the cgroups directly below the v2 root (`/kubepods` or `kubepods`); to be called when they change. Open files stay
    /// open; children that do not exist are ignored.
    ///
    /// # Errors
    /// The first error of a child; the other children are set nevertheless.
    pub fn refresh<'a>(&mut self, children: impl Iterator<Item = &'a str>) -> Result<(), ReadError> {
        let CpuFlushPoints::Children { mount, files } = &mut self.cpu else { return Ok(()) };
        let mut before = std::mem::take(files);
        let mut result = Ok(());
        for child in children {
            let name = child.trim_start_matches('/');
            if name.is_empty() || name.contains('/') || name == ".." || name == "." {
                result = result.and(Err(ReadError::BadPath { path: child.to_owned() }));
                continue;
            }
            // If the cgroup was removed and created again, reading the old file fails.
            let open = before.remove(name).filter(|file| file.touch().unwrap_or(false));
            let file = match open {
                Some(file) => Ok(Some(file)),
                None => OpenFile::open(mount, &format!("{name}/cpu.stat")),
            };
            match file {
                Ok(Some(file)) => {
                    files.insert(name.to_owned(), file);
                }
                Ok(None) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Flushes CPU time. Returns the number of files read. Children that were removed are dropped.
    ///
    /// # Errors
    /// The first error of a file; the other files are read nevertheless.
    pub fn flush_cpu(&mut self) -> Result<usize, ReadError> {
        match &mut self.cpu {
            CpuFlushPoints::Never => Ok(0),
            CpuFlushPoints::Own(file) => file.touch().map(usize::from),
            CpuFlushPoints::Children { files, .. } => {
                let mut result = Ok(());
                files.retain(|_, file| match file.touch() {
                    Ok(alive) => alive,
                    Err(error) => {
                        if result.is_ok() {
                            result = Err(error);
                        }
                        true
                    }
                });
                result.map(|()| files.len())
            }
        }
    }

    /// Flushes memory statistics; `false` if there is no memory controller.
    pub fn flush_memory(&mut self) -> Result<bool, ReadError> {
        self.memory.as_ref().map_or(Ok(false), OpenFile::touch)
    }
}

/// Whether the mount's root is the hierarchy's root, which has no `cgroup.events`.
fn is_hierarchy_root(mount: &Mount) -> bool {
    rustix::fs::statat(&mount.directory, "cgroup.events", AtFlags::SYMLINK_NOFOLLOW).is_err()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroupfs::fixtures::v2_at;

    fn root_with(children: &[&str]) -> (tempfile::TempDir, Flusher) {
        let root = tempfile::tempdir().unwrap();
        for file in ["cpu.stat", "memory.stat"] {
            fs::write(root.path().join(file), "usage_usec 1\n").unwrap();
        }
        for child in children {
            fs::create_dir(root.path().join(child)).unwrap();
            fs::write(root.path().join(child).join("cpu.stat"), "usage_usec 1\n").unwrap();
        }
        let unified = Some(v2_at(root.path(), &["cpu", "memory"]));
        let flusher = Flusher::new(&Hierarchies { unified, v1: Vec::new() }).unwrap();
        (root, flusher)
    }

    #[test]
    fn the_roots_children_are_flushed() {
        let (root, mut flusher) = root_with(&["kubepods", "system.slice"]);
        assert_eq!(flusher.flush_cpu().unwrap(), 0);
        flusher.refresh(["/kubepods", "system.slice", "/gone"].into_iter()).unwrap();
        assert_eq!(flusher.flush_cpu().unwrap(), 2);
        assert!(flusher.flush_memory().unwrap());
        fs::remove_dir_all(root.path().join("kubepods")).unwrap();
        flusher.refresh(["/system.slice"].into_iter()).unwrap();
        assert_eq!(flusher.flush_cpu().unwrap(), 1);
    }

    #[test]
    fn paths_that_are_no_children_are_refused_and_the_others_kept() {
        let (_root, mut flusher) = root_with(&["kubepods"]);
        for bad in ["/a/b", "/", "..", "."] {
            let error = flusher.refresh([bad, "kubepods"].into_iter()).unwrap_err();
            assert!(matches!(error, ReadError::BadPath { path } if path == bad));
            assert_eq!(flusher.flush_cpu().unwrap(), 1);
        }
    }

    #[test]
    fn a_mount_below_the_hierarchys_root_flushes_itself() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cpu.stat"), "usage_usec 1\n").unwrap();
        fs::write(root.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let unified = Some(v2_at(root.path(), &["cpu"]));
        let mut flusher = Flusher::new(&Hierarchies { unified, v1: Vec::new() }).unwrap();
        assert_eq!(flusher.flush_cpu().unwrap(), 1);
        flusher.refresh(["/nothing"].into_iter()).unwrap();
        assert_eq!(flusher.flush_cpu().unwrap(), 1);
        assert!(!flusher.flush_memory().unwrap(), "no memory controller");
    }

    #[test]
    fn v1_alone_has_nothing_to_flush_for_cpu_time() {
        let mut flusher = Flusher::new(&Hierarchies::default()).unwrap();
        flusher.refresh(["/a"].into_iter()).unwrap();
        assert_eq!(flusher.flush_cpu().unwrap(), 0);
        assert!(!flusher.flush_memory().unwrap());
    }
}
