//! Creates, reads and removes the demo's cgroups in all hierarchies.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long removing a cgroup may fail with EBUSY after its processes were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Mount points of the cgroup hierarchies.
pub(crate) fn mounts() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(mount_points(&mounts))
}

fn mount_points(mounts: &str) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            // device, mount point, type, options, …
            let mut words = line.split_whitespace().skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
        })
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// Creates the cgroup at `path` in all hierarchies, with ten times the default CPU weight where the controller is enabled:
/// other processes on this machine should not slow the workloads down.
pub(super) fn make(mounts: &[PathBuf], path: &str) -> Result<()> {
    for mount in mounts {
        let cgroup = mount.join(path.trim_start_matches('/'));
        fs::create_dir(&cgroup).with_context(|| format!("cannot create {}", cgroup.display()))?;
        for (file, share) in [("cpu.shares", "10240"), ("cpu.weight", "1000")] {
            let file = cgroup.join(file);
            if file.exists() {
                fs::write(&file, share).with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes the cgroup at `path` and its descendants in all hierarchies, and kills the processes that are left in them.
pub(crate) fn remove(mounts: &[PathBuf], path: &str) -> Result<()> {
    mounts.iter().try_for_each(|mount| remove_one(&mount.join(path.trim_start_matches('/'))))
}

/// Removes a cgroup and its descendants in one hierarchy, and kills the processes that are left in them.
pub(crate) fn remove_one(cgroup: &Path) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match remove_tree(cgroup) {
            Ok(()) => return Ok(()),
            // A killed process stays in its cgroup until it has exited.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", cgroup.display())),
        }
    }
}

fn kill_processes(cgroup: &Path) {
    let inside = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        // It may have exited already.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Removes directories only: the kernel removes a cgroup's files with it.
fn remove_tree(cgroup: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    kill_processes(cgroup);
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Throttling of a cgroup, from `cpu.stat`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Throttling {
    pub(super) periods: f64,
    pub(super) seconds: f64,
}

/// Reads a cgroup's `cpu.stat` in the hierarchy that limits CPU time.
pub(super) fn throttling(mounts: &[PathBuf], path: &str) -> Option<Throttling> {
    let files = mounts.iter().map(|mount| mount.join(path.trim_start_matches('/')).join("cpu.stat"));
    files.filter_map(|file| fs::read_to_string(file).ok()).find_map(|stat| throttling_in(&stat))
}

/// Reads `throttled_time` (v1, nanoseconds) or `throttled_usec` (v2, microseconds).
fn throttling_in(stat: &str) -> Option<Throttling> {
    let seconds = match (row(stat, "throttled_time"), row(stat, "throttled_usec")) {
        (Some(nanoseconds), _) => nanoseconds / 1e9,
        (None, Some(microseconds)) => microseconds / 1e6,
        (None, None) => return None,
    };
    Some(Throttling { periods: row(stat, "nr_throttled")?, seconds })
}

fn row(stat: &str, name: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_by_their_type() {
        let mounts = "proc /proc proc rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\nbroken\n";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(mount_points(mounts), expected);
    }

    #[test]
    fn throttling_is_read_from_both_versions() {
        let expected = Some(Throttling { periods: 7.0, seconds: 1.5 });
        let v1 = "nr_periods 9\nnr_throttled 7\nthrottled_time 1500000000\n";
        let v2 = "usage_usec 1\nnr_periods 9\nnr_throttled 7\nthrottled_usec 1500000\nnr_bursts 0\n";
        assert_eq!((throttling_in(v1), throttling_in(v2)), (expected, expected));
        // A hierarchy without the cpu controller.
        assert_eq!(throttling_in("usage_usec 1\nuser_usec 1\n"), None);
        assert_eq!(throttling_in("nr_throttled_x 1\nthrottled_usec many\n"), None);
    }

    #[test]
    fn only_the_named_tree_is_removed_and_only_if_it_is_a_cgroup() {
        let root = tempfile::tempdir().unwrap();
        let mounts = ["cpu", "memory"].map(|name| root.path().join(name));
        for mount in &mounts {
            fs::create_dir_all(mount.join("other")).unwrap();
        }
        make(&mounts, "/demo").unwrap();
        assert!(make(&mounts, "/demo").is_err(), "the demo must not use an existing cgroup");
        fs::create_dir_all(mounts[0].join("demo/kubepods/pod1")).unwrap();
        remove(&mounts, "/demo").unwrap();
        assert!(mounts.iter().all(|mount| !mount.join("demo").exists()));
        assert!(mounts.iter().all(|mount| mount.join("other").exists()));

        // The directory has a regular file, so it is not a cgroup.
        fs::create_dir_all(mounts[1].join("demo")).unwrap();
        fs::write(mounts[1].join("demo/file"), "").unwrap();
        let error = format!("{:#}", remove(&mounts, "/demo").unwrap_err());
        assert!(error.contains("memory/demo"), "{error}");
    }
}
