//! Cgroups for tests, in every hierarchy that the agent samples.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use snug_agent::cgroupfs::mounts::{Hierarchies, Hierarchy, Version};

/// Controllers to enable for the children of a v2 cgroup.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Time limit for removing a cgroup: it stays busy until killed processes have exited.
const REMOVAL: Duration = Duration::from_secs(20);

/// The host's cgroup hierarchies.
#[derive(Clone, Debug)]
pub struct Host {
    /// All of them.
    pub hierarchies: Hierarchies,
}

impl Host {
    /// Finds them.
    ///
    /// # Errors
    /// When there are none, or this process is not root: the reason.
    pub fn find() -> Result<Self, String> {
        let Self { hierarchies: found } = Self::any()?;
        for (what, hierarchy) in [
            ("CPU time", found.cpu_time()),
            ("bandwidth", found.bandwidth()),
            ("memory", found.memory()),
            ("tasks", found.pids()),
            ("pressure", found.pressure()),
        ] {
            if hierarchy.is_none() {
                return Err(format!("no cgroup hierarchy of this host has {what}"));
            }
        }
        Ok(Self { hierarchies: found })
    }

    /// As [`Self::find`], for a host without some of the hierarchies.
    ///
    /// # Errors
    /// When it has none, or this process is not root: the reason.
    pub fn any() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("creating cgroups and loading eBPF programs requires root".to_owned());
        }
        let hierarchies = Hierarchies::find(Path::new("/proc"), None).map_err(|error| error.to_string())?;
        Ok(Self { hierarchies })
    }

    /// Whether all controllers are in the v2 hierarchy.
    pub fn unified(&self) -> bool {
        self.hierarchies.memory().is_some_and(|memory| memory.version == Version::V2)
    }

    /// The hierarchies that the agent samples, the one with the CPU time first.
    pub fn sampled(&self) -> Vec<&Hierarchy> {
        let all = &self.hierarchies;
        let serving = [all.cpu_time(), all.memory(), all.bandwidth(), all.pids(), all.pressure()];
        let mut sampled: Vec<&Hierarchy> = Vec::new();
        for hierarchy in serving.into_iter().flatten() {
            if !sampled.contains(&hierarchy) {
                sampled.push(hierarchy);
            }
        }
        sampled
    }
}

/// A cgroup in all sampled hierarchies. When dropped, its processes are killed, and it is removed with its descendants.
#[derive(Debug)]
pub struct Cgroup {
    host: Host,
    path: String,
    /// Whether controllers are enabled for children.
    distributes: Cell<bool>,
}

impl Cgroup {
    /// Creates `/snug-test-<pid>-<name>`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(host: &Host, name: &str) -> Self {
        let path = format!("/snug-test-{}-{name}", process::id());
        let own = Self { host: host.clone(), path, distributes: Cell::new(false) };
        for hierarchy in host.sampled() {
            distribute(&hierarchy.mount, hierarchy.version);
        }
        own.make();
        own
    }

    /// Creates a child. Then this cgroup cannot have processes of its own any more.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn child(&self, name: &str) -> Self {
        // Once only: enabling controllers waits for all dying cgroups.
        if !self.distributes.replace(true) {
            for hierarchy in self.host.sampled() {
                distribute(&self.directory(hierarchy), hierarchy.version);
            }
        }
        let path = format!("{}/{name}", self.path);
        let child = Self { host: self.host.clone(), path, distributes: Cell::new(false) };
        child.make();
        child
    }

    fn make(&self) {
        for hierarchy in self.host.sampled() {
            let directory = self.directory(hierarchy);
            fs::create_dir(&directory)
                .unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        }
    }

    /// The path below the hierarchies' roots.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn directory(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(self.path.trim_start_matches('/'))
    }

    /// Moves a process into it, in all hierarchies.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn add(&self, pid: u32) {
        for hierarchy in self.host.sampled() {
            write(&self.directory(hierarchy).join("cgroup.procs"), &pid.to_string());
        }
    }

    /// `cpu.stat` of the hierarchy with CPU time.
    pub fn cpu_stat(&self) -> String {
        self.read(self.host.hierarchies.cpu_time(), "cpu.stat", "cpu.stat")
    }

    /// `cpu.stat` of the hierarchy with CFS bandwidth control.
    pub fn bandwidth_stat(&self) -> String {
        self.read(self.host.hierarchies.bandwidth(), "cpu.stat", "cpu.stat")
    }

    /// A file of the memory hierarchy, by its name in v2 and in v1.
    pub fn memory_file(&self, v2: &str, v1: &str) -> String {
        self.read(self.host.hierarchies.memory(), v2, v1)
    }

    /// A file of the pids hierarchy.
    pub fn pids_file(&self, name: &str) -> String {
        self.read(self.host.hierarchies.pids(), name, name)
    }

    /// A pressure file: `cpu`, `memory` or `io`.
    pub fn pressure_file(&self, resource: &str) -> String {
        let name = format!("{resource}.pressure");
        self.read(self.host.hierarchies.pressure(), &name, &name)
    }

    /// Sets quota, period and burst in microseconds.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn limit_cpu(&self, quota: u64, period: u64, burst: u64) {
        let hierarchy = self.host.hierarchies.bandwidth().unwrap();
        let directory = self.directory(hierarchy);
        if hierarchy.version == Version::V2 {
            write(&directory.join("cpu.max"), &format!("{quota} {period}"));
            write(&directory.join("cpu.max.burst"), &burst.to_string());
        } else {
            write(&directory.join("cpu.cfs_period_us"), &period.to_string());
            write(&directory.join("cpu.cfs_quota_us"), &quota.to_string());
            write(&directory.join("cpu.cfs_burst_us"), &burst.to_string());
        }
    }

    /// Sets the limits of memory and of swap, bytes. cgroup v1 has a limit of both together.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn limit_memory(&self, bytes: u64, swap: u64) {
        let hierarchy = self.host.hierarchies.memory().unwrap();
        let directory = self.directory(hierarchy);
        if hierarchy.version == Version::V2 {
            write(&directory.join("memory.max"), &bytes.to_string());
            write(&directory.join("memory.swap.max"), &swap.to_string());
        } else {
            write(&directory.join("memory.limit_in_bytes"), &bytes.to_string());
            write(&directory.join("memory.memsw.limit_in_bytes"), &(bytes + swap).to_string());
        }
    }

    /// Sets the limit of tasks.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn limit_pids(&self, limit: u64) {
        let hierarchy = self.host.hierarchies.pids().unwrap();
        write(&self.directory(hierarchy).join("pids.max"), &limit.to_string());
    }

    fn read(&self, hierarchy: Option<&Hierarchy>, v2: &str, v1: &str) -> String {
        let hierarchy = hierarchy.unwrap();
        let name = if hierarchy.version == Version::V2 { v2 } else { v1 };
        let file = self.directory(hierarchy).join(name);
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
    }

    /// Removes it from one hierarchy; its processes must have exited.
    ///
    /// # Panics
    /// When it cannot be removed.
    pub fn remove_from(&self, hierarchy: &Hierarchy) {
        let directory = self.directory(hierarchy);
        let end = Instant::now() + REMOVAL;
        while let Err(error) = fs::remove_dir(&directory) {
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            assert!(Instant::now() < end, "cannot remove {}: {error}", directory.display());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes it from all hierarchies; its processes must have exited.
    ///
    /// # Panics
    /// When it cannot be removed.
    pub fn remove(&self) {
        for hierarchy in self.host.sampled() {
            self.remove_from(hierarchy);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = Instant::now() + REMOVAL;
        for hierarchy in self.host.sampled() {
            let directory = self.directory(hierarchy);
            while directory.exists() && Instant::now() < end {
                kill_and_remove(&directory);
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Kills all processes in a cgroup and its descendants, and removes those that are empty.
pub(crate) fn kill_and_remove(directory: &Path) {
    for child in fs::read_dir(directory).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_and_remove(&child.path());
        }
    }
    let inside = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = fs::remove_dir(directory);
}

/// Enables controllers for the children of a v2 cgroup, as far as the cgroup has them.
fn distribute(directory: &Path, version: Version) {
    if version == Version::V1 {
        return;
    }
    for controller in CONTROLLERS {
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn write(file: &Path, content: &str) {
    fs::write(file, content)
        .unwrap_or_else(|error| panic!("cannot write {content:?} to {}: {error}", file.display()));
}

/// The value of a row in a flat-keyed file, such as `usage_usec 5`.
///
/// # Panics
/// When there is no such row.
pub fn row(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
        .unwrap_or_else(|| panic!("no row {name} in {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_whole_name() {
        let text = "nr_periods 3\nnr_throttled 2\nthrottled_time 9\n";
        assert_eq!(row(text, "throttled_time"), 9);
        assert_eq!(row(text, "nr_periods"), 3);
    }

    #[test]
    #[should_panic(expected = "no row nr_")]
    fn a_missing_row_is_named() {
        row("nr_periods 3\n", "nr_");
    }
}
