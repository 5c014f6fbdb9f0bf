//! The cgroup hierarchies of the host: their mounts, controllers and the measurements that each has.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use procfs::process::MountInfo;

use crate::values::Measurement;

/// `CGROUP2_SUPER_MAGIC` of Linux `include/uapi/linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// `CGROUP_SUPER_MAGIC` of the same.
const CGROUP1_MAGIC: u64 = 0x0027_e0eb;

/// The version of a hierarchy's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// cgroup v1: several hierarchies, each with its own controllers.
    V1,
    /// cgroup v2: one unified hierarchy.
    V2,
}

/// A cgroup hierarchy, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The version of its interface.
    pub version: Version,
    /// Its controllers, sorted: on v1 the mount options, on v2 `cgroup.controllers` of the mount.
    pub controllers: Vec<String>,
    /// The cgroup that is the root of the mount, relative to the root of this process's cgroup namespace: `/` for that root,
    /// `/..` and so on for cgroups above it.
    pub root_in_hierarchy: String,
}

impl Hierarchy {
    /// Whether it has the controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    /// Whether it is cgroup v2 with the memory controller.
    pub fn has_v2_memory(&self) -> bool {
        self.version == Version::V2 && self.has("memory")
    }
}

/// All cgroup hierarchies of the host that have values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// cgroup v2, with or without controllers.
    pub unified: Option<Hierarchy>,
    /// cgroup v1 hierarchies with controllers, sorted by mount point.
    pub v1: Vec<Hierarchy>,
}

/// Why no hierarchies could be found.
#[derive(Debug, thiserror::Error)]
pub enum MountsError {
    /// The mount table cannot be read.
    #[error("cannot read {}: mount the host's /proc there or set --proc-root to its path", path.display())]
    Unreadable {
        /// The mount table.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// A line of the mount table cannot be parsed.
    #[error("{}, line {line}: not a line of mountinfo: {why}; is {} a proc file system?", path.display(), path.display())]
    Malformed {
        /// The mount table.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The mount table lists no cgroup file system that can be used.
    #[error(
        "{} lists no cgroup file system that can be used: mount one (`mount -t cgroup2 none /sys/fs/cgroup`) or set \
         --cgroup-root to the path of the host's",
        path.display()
    )]
    NoneMounted {
        /// The mount table.
        path: PathBuf,
    },
    /// The given root cannot be read.
    #[error("cannot use {} as the cgroup root: --cgroup-root must be a directory that the agent can read", path.display())]
    Root {
        /// The root, or the directory below it.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The given root is one hierarchy of v1.
    #[error(
        "{} is a single cgroup v1 hierarchy: give --cgroup-root the directory that holds all of them, such as \
         /sys/fs/cgroup",
        path.display()
    )]
    SingleV1 {
        /// The root.
        path: PathBuf,
    },
    /// The given root neither is nor holds a hierarchy.
    #[error(
        "{} is no cgroup file system (its type is {magic:#x}) and holds none: give --cgroup-root a cgroup v2 mount or the \
         directory that holds the hierarchies, such as /host/sys/fs/cgroup, and mount the host's there with its submounts",
        path.display()
    )]
    Empty {
        /// The root.
        path: PathBuf,
        /// The magic number of its file system, from `statfs`.
        magic: u64,
    },
}

impl Hierarchies {
    /// Finds the hierarchies by the mount table of this process as `proc_root` (usually `/proc`) shows it, or below
    /// `cgroup_root` where that is given: a cgroup v2 mount, or the directory that holds the hierarchies.
    pub fn find(proc_root: &Path, cgroup_root: Option<&Path>) -> Result<Self, MountsError> {
        let table = proc_root.join("self/mountinfo");
        let text = fs::read(&table).map_err(|source| MountsError::Unreadable { path: table.clone(), source });
        let mounts = text.and_then(|text| parse_mountinfo(&table, &text));
        let found = match cgroup_root {
            // The mount table is only needed for v1 controllers whose directories have other names.
            Some(root) => return Self::under(root, &mounts.unwrap_or_default()),
            None => {
                Self::choose(mounts?, |mount| magic(&mount.point).is_ok_and(|magic| magic == mount.magic()))
            }
        };
        if found.unified.is_none() && found.v1.is_empty() {
            return Err(MountsError::NoneMounted { path: table });
        }
        Ok(found)
    }

    /// The best mount of each hierarchy among those that `usable` accepts.
    fn choose(mut mounts: Vec<Mount>, usable: impl Fn(&Mount) -> bool) -> Self {
        mounts.sort_by_cached_key(Mount::rank);
        let mut found = BTreeMap::new();
        for mount in mounts {
            let key = (mount.version, mount.controllers.clone());
            if !found.contains_key(&key) && usable(&mount) {
                found.insert(key, mount.into_hierarchy());
            }
        }
        Self::from_list(found.into_values())
    }

    /// The hierarchies at or below `root`.
    fn under(root: &Path, mounts: &[Mount]) -> Result<Self, MountsError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| MountsError::Root { path, source }
        };
        let root = fs::canonicalize(root).map_err(error(root))?;
        let own_magic = magic(&root).map_err(error(&root))?;
        if own_magic == CGROUP2_MAGIC {
            let root_in_hierarchy = root_in_hierarchy(&root, Version::V2, mounts);
            let (controllers, version) = (v2_controllers(&root), Version::V2);
            return Ok(Self::from_list([Hierarchy { mount: root, version, controllers, root_in_hierarchy }]));
        }
        if own_magic == CGROUP1_MAGIC {
            return Err(MountsError::SingleV1 { path: root });
        }
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&root).map_err(error(&root))? {
            let path = entry.map_err(error(&root))?.path();
            let Ok(path) = fs::canonicalize(path) else { continue };
            let (Ok(magic), Ok(about)) = (magic(&path), fs::metadata(&path)) else { continue };
            let version = match magic {
                CGROUP2_MAGIC => Version::V2,
                CGROUP1_MAGIC => Version::V1,
                _ => continue,
            };
            found.entry(about.dev()).or_insert_with(|| Hierarchy {
                controllers: match version {
                    Version::V2 => v2_controllers(&path),
                    Version::V1 => v1_controllers(&path, about.dev(), mounts),
                },
                root_in_hierarchy: root_in_hierarchy(&path, version, mounts),
                version,
                mount: path,
            });
        }
        let found = Self::from_list(found.into_values());
        if found.unified.is_none() && found.v1.is_empty() {
            return Err(MountsError::Empty { path: root, magic: own_magic });
        }
        Ok(found)
    }

    /// From a list of hierarchies. v1 hierarchies without controllers (such as systemd's) are left out: they have no values.
    fn from_list(hierarchies: impl IntoIterator<Item = Hierarchy>) -> Self {
        let mut all = Self::default();
        for hierarchy in hierarchies {
            match hierarchy.version {
                Version::V2 => all.unified = all.unified.or(Some(hierarchy)),
                Version::V1 if hierarchy.controllers.is_empty() => {}
                Version::V1 => all.v1.push(hierarchy),
            }
        }
        all.v1.sort_by(|a, b| a.mount.cmp(&b.mount));
        all
    }

    /// The hierarchy that has a controller: v2 if the controller is there, else the v1 hierarchy that has it.
    fn with_controller(&self, v2: &str, v1: &str) -> Option<&Hierarchy> {
        self.unified.as_ref().filter(|unified| unified.has(v2)).or_else(|| self.with_v1_controller(v1))
    }

    fn with_v1_controller(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// CPU time: v2, which has it even without the cpu controller, else v1 cpuacct.
    pub fn cpu_time(&self) -> Option<&Hierarchy> {
        self.unified.as_ref().or_else(|| self.cpuacct())
    }

    /// v1 cpuacct: on a hybrid host, CPU time of cgroups that do not exist in v2.
    pub fn cpuacct(&self) -> Option<&Hierarchy> {
        self.with_v1_controller("cpuacct")
    }

    /// CFS bandwidth control.
    pub fn bandwidth(&self) -> Option<&Hierarchy> {
        self.with_controller("cpu", "cpu")
    }

    /// Pressure stall information, which only v2 has, without any controller.
    pub fn pressure(&self) -> Option<&Hierarchy> {
        self.unified.as_ref()
    }

    pub fn memory(&self) -> Option<&Hierarchy> {
        self.with_controller("memory", "memory")
    }

    /// Numbers of tasks.
    pub fn pids(&self) -> Option<&Hierarchy> {
        self.with_controller("pids", "pids")
    }

    /// Disk I/O: `io` of v2, `blkio` of v1.
    pub fn io(&self) -> Option<&Hierarchy> {
        self.with_controller("io", "blkio")
    }

    /// The hierarchy that has a measurement; the first one if several have parts of it.
    pub fn serving(&self, measurement: Measurement) -> Option<&Hierarchy> {
        match measurement {
            Measurement::Cpu => self.cpu_time(),
            Measurement::Throttling => self.bandwidth(),
            Measurement::Pressure => self.pressure(),
            Measurement::Memory | Measurement::WorkingSet | Measurement::MemoryEvents | Measurement::Swap => {
                self.memory()
            }
            Measurement::Pids => self.pids(),
            Measurement::Spec => self.bandwidth().or_else(|| self.memory()),
            Measurement::SlowRows => self.cpu_time().or_else(|| self.memory()).or_else(|| self.io()),
        }
    }
}

/// A cgroup mount in mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    device: String,
    root: String,
    point: PathBuf,
    version: Version,
    controllers: Vec<String>,
}

impl Mount {
    fn magic(&self) -> u64 {
        match self.version {
            Version::V1 => CGROUP1_MAGIC,
            Version::V2 => CGROUP2_MAGIC,
        }
    }

    /// Sort key for mounts of one hierarchy, the best first: the one with the most cgroups (a root above this process's cgroup
    /// namespace, such as `/..`, has more than `/`, any other directory less), then the one with the shortest path.
    fn rank(&self) -> (usize, Reverse<usize>, usize, PathBuf) {
        let (up, down): (Vec<&str>, Vec<&str>) =
            self.root.split('/').filter(|part| !part.is_empty()).partition(|part| *part == "..");
        (down.len(), Reverse(up.len()), self.point.as_os_str().len(), self.point.clone())
    }

    fn into_hierarchy(self) -> Hierarchy {
        let controllers = match self.version {
            Version::V1 => self.controllers,
            Version::V2 => v2_controllers(&self.point),
        };
        Hierarchy { mount: self.point, version: self.version, controllers, root_in_hierarchy: self.root }
    }
}

/// The mounts of cgroup file systems in a mount table. Other lines are not parsed, because they can contain anything.
pub(super) fn parse_mountinfo(path: &Path, text: &[u8]) -> Result<Vec<Mount>, MountsError> {
    let mut mounts = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        // Spaces within fields are escaped, so this can only be the separator before the file system type.
        if !line.windows(9).any(|window| window == b" - cgroup") {
            continue;
        }
        let malformed = |why: String| MountsError::Malformed { path: path.to_owned(), line: index + 1, why };
        let line = std::str::from_utf8(line).map_err(|error| malformed(error.to_string()))?;
        let info = MountInfo::from_line(line).map_err(|error| malformed(error.to_string()))?;
        let version = match info.fs_type.as_str() {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => continue,
        };
        let root = String::from_utf8(unescape(info.root.as_bytes()));
        let mut controllers = match version {
            Version::V1 => info.super_options.into_iter().filter_map(v1_controller).collect(),
            Version::V2 => Vec::new(),
        };
        controllers.sort_unstable();
        mounts.push(Mount {
            device: info.majmin,
            root: root.map_err(|error| malformed(error.to_string()))?,
            point: OsString::from_vec(unescape(info.mount_point.as_os_str().as_bytes())).into(),
            version,
            controllers,
        });
    }
    Ok(mounts)
}

/// A mount option of a v1 hierarchy, if it is a controller: other options have a value or a known name
/// (`cgroup1_show_options` of Linux `kernel/cgroup/cgroup-v1.c`).
fn v1_controller((option, value): (String, Option<String>)) -> Option<String> {
    const OTHERS: [&str; 10] = [
        "rw",
        "ro",
        "none",
        "all",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
        "seclabel",
    ];
    (value.is_none() && !option.is_empty() && !OTHERS.contains(&option.as_str())).then_some(option)
}

/// Resolves the octal escapes (`\040`) of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digit = |byte: u8| matches!(byte, b'0'..=b'7').then(|| byte - b'0');
        let escaped = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b, c, tail @ ..]) => {
                digit(*a).zip(digit(*b)).zip(digit(*c)).map(|((a, b), c)| (a << 6 | b << 3 | c, tail))
            }
            _ => None,
        };
        let (byte, tail) = escaped.unwrap_or((first, after));
        plain.push(byte);
        rest = tail;
    }
    plain
}

/// The magic number of the file system that `path` is on.
fn magic(path: &Path) -> io::Result<u64> {
    // `f_type` is a C long; the upper half is sign extension or padding.
    Ok(rustix::fs::statfs(path)?.f_type as u64 & 0xffff_ffff)
}

/// The controllers in `cgroup.controllers` of a v2 mount; none if the file cannot be read.
fn v2_controllers(mount: &Path) -> Vec<String> {
    let text = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    let mut controllers: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    controllers.sort_unstable();
    controllers
}

/// The controllers of a v1 hierarchy below a given root: from the mount table, else from the name of the directory, which
/// lists them by convention.
fn v1_controllers(path: &Path, device: u64, mounts: &[Mount]) -> Vec<String> {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    if let Some(mount) = mounts.iter().find(|mount| mount.version == Version::V1 && mount.device == device) {
        return mount.controllers.clone();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut controllers: Vec<String> =
        name.split(',').filter(|part| !matches!(*part, "" | "systemd")).map(str::to_owned).collect();
    controllers.sort_unstable();
    controllers
}

/// The path of `path` within its hierarchy, by its mount; `/` if the mount table does not have it.
fn root_in_hierarchy(path: &Path, version: Version, mounts: &[Mount]) -> String {
    let of_mount = |mount: &&Mount| mount.version == version && path.starts_with(&mount.point);
    let Some(mount) = mounts.iter().filter(of_mount).max_by_key(|mount| mount.point.as_os_str().len()) else {
        return "/".to_owned();
    };
    let below = path.strip_prefix(&mount.point).unwrap_or(Path::new(""));
    match below.to_string_lossy() {
        below if below.is_empty() => mount.root.clone(),
        below => format!("{}/{below}", mount.root.trim_end_matches('/')),
    }
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
