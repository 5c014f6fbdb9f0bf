//! Stops a node: ends the processes that were recorded at their start, never others of the same name.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::host;

/// The file that records the node's processes.
pub(super) const NOTES: &str = "processes";
/// Parent cgroup of all pods, in every hierarchy.
const PODS: &str = "kubepods";
const CGROUPS: &str = "/sys/fs/cgroup";

/// A process of the node. The start time tells it from a later process with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    name: String,
    pid: u32,
    began: u64,
}

impl Process {
    /// Records a running process.
    pub(super) fn from_pid(name: &str, pid: u32) -> Result<Self> {
        let began = host::start_time(pid).with_context(|| format!("{name} exited immediately"))?;
        Ok(Self { name: name.to_owned(), pid, began })
    }

    fn runs(&self) -> bool {
        host::start_time(self.pid) == Some(self.began)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.pid, self.began)
    }
}

impl FromStr for Process {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next().context("the record of a process is incomplete");
        Ok(Self { name: next()?.to_owned(), pid: next()?.parse()?, began: next()?.parse()? })
    }
}

/// Stops all recorded processes, and removes the pods, cgroups and files of the node. Does nothing without a record.
pub(super) fn down(folder: &Path) -> Result<()> {
    let notes = folder.join(NOTES);
    let Ok(text) = fs::read_to_string(&notes) else { return Ok(()) };
    let processes: Vec<Process> = text.lines().map(str::parse).collect::<Result<_>>()?;
    let mounts = processes
        .iter()
        .find(|process| process.name == "holder" && process.runs())
        .and_then(|holder| fs::read_link(format!("/proc/{}/ns/mnt", holder.pid)).ok());
    // Order: processes that create pods, then the pods, then the container runtime, API server and etcd.
    let pod_creators = ["kubelet", "kube-controller-manager", "kube-scheduler"];
    let (first, last): (Vec<_>, Vec<_>) =
        processes.into_iter().partition(|process| pod_creators.contains(&process.name.as_str()));
    end(&first);
    if mounts.is_some() {
        for pid in pods()?.iter().flat_map(|cgroup| pids(cgroup)) {
            kill(Signal::KILL, pid);
        }
    }
    end(&last.iter().filter(|process| process.name != "holder").cloned().collect::<Vec<_>>());
    // Shims outlive containerd. They are in the mount namespace of the holder.
    if let Some(mounts) = mounts {
        for pid in all_pids()? {
            if fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|its| its == mounts) {
                kill(Signal::KILL, pid);
            }
        }
    }
    end(&last);
    remove_cgroups()?;
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Ensures that this machine is not the node of another cluster. Removes empty pod cgroups, which a killed node leaves.
///
/// # Errors
///
/// Fails if a kubelet runs here, or if a pod cgroup has processes.
pub(super) fn ensure_no_pods() -> Result<()> {
    let pods = pods()?;
    let Some(first) = pods.first() else { return Ok(()) };
    let first = first.display();
    let kubelet = all_pids()?.into_iter().find(|pid| is_kubelet(*pid));
    ensure!(
        kubelet.is_none(),
        "{first} exists and a kubelet runs: this machine is the node of another cluster"
    );
    let process = pods.iter().flat_map(|cgroup| pids(cgroup)).next();
    ensure!(
        process.is_none(),
        "{first} exists and has processes: this machine is, or was, the node of another cluster"
    );
    println!("cluster: removing empty pod cgroups of an earlier node, such as {first}");
    remove_cgroups()
}

fn is_kubelet(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "kubelet")
}

/// Sends SIGTERM, then SIGKILL after five seconds.
fn end(processes: &[Process]) {
    for (signal, timeout) in [(Signal::TERM, 5), (Signal::KILL, 5)] {
        for process in processes.iter().filter(|process| process.runs()) {
            kill(signal, process.pid);
        }
        let end = Instant::now() + Duration::from_secs(timeout);
        while processes.iter().any(Process::runs) && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn kill(signal: Signal, pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The process may have exited already.
        let _ = kill_process(pid, signal);
    }
}

fn all_pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Paths of the parent cgroup of all pods in each hierarchy that has one.
fn pods() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(CGROUPS).with_context(|| format!("cannot read {CGROUPS}"))?;
    let mounts = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let candidates = mounts.map(|mount| mount.join(PODS)).chain([Path::new(CGROUPS).join(PODS)]);
    let mut found: Vec<PathBuf> = candidates
        .filter(|path| path.is_dir() && !path.parent().is_some_and(|parent| parent.ends_with(PODS)))
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn pids(cgroup: &Path) -> Vec<u32> {
    let mut all = Vec::new();
    let mut open = vec![cgroup.to_owned()];
    while let Some(folder) = open.pop() {
        let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        all.extend(procs.lines().filter_map(|pid| pid.parse::<u32>().ok()));
        open.extend(children(&folder));
    }
    all
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// Removes the pod cgroups, the deepest first. Retries, because killed processes stay in their cgroup for a moment.
fn remove_cgroups() -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut left = Vec::new();
        for top in pods()? {
            let mut all = vec![top];
            let mut next = 0;
            while let Some(folder) = all.get(next) {
                let below = children(folder);
                all.extend(below);
                next += 1;
            }
            left.extend(all.into_iter().rev().filter(|folder| fs::remove_dir(folder).is_err()));
        }
        let Some(first) = left.first() else { return Ok(()) };
        ensure!(Instant::now() < end, "cannot remove the cgroup {}", first.display());
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_a_process_from_a_later_one_of_the_same_number() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::from_pid("sleep", child.id()).unwrap();
        assert!(process.runs());
        assert_eq!(process.to_string().parse::<Process>().unwrap(), process);
        assert!(!Process { began: process.began + 1, ..process.clone() }.runs());
        end(std::slice::from_ref(&process));
        assert!(!process.runs());
        child.wait().unwrap();
        assert!(Process::from_pid("sleep", child.id()).is_err());
        assert!("sleep 1".parse::<Process>().is_err());
    }
}
