//! Taking a node down: by the notes that were made of its processes, never by name.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// The file with the node's processes.
pub(super) const NOTES: &str = "processes";
/// Where the kubelet hangs pods in every hierarchy.
const PODS: &str = "kubepods";
const CGROUPS: &str = "/sys/fs/cgroup";

/// A process that was started, told from a later one with the same number by when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    name: String,
    pid: u32,
    began: u64,
}

impl Process {
    /// A process that runs now.
    pub(super) fn of(name: &str, pid: u32) -> Result<Self> {
        let began = began(pid).with_context(|| format!("{name} has ended at once"))?;
        Ok(Self { name: name.to_owned(), pid, began })
    }

    fn runs(&self) -> bool {
        began(self.pid) == Some(self.began)
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
        let mut next = || words.next().context("a note of a process is cut short");
        Ok(Self { name: next()?.to_owned(), pid: next()?.parse()?, began: next()?.parse()? })
    }
}

/// When a process began, in ticks since the machine did: field 22 of its stat. `None` if it has ended.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may have any character in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Ends everything that was started in the folder, and removes what it left. Nothing to do is fine.
pub(super) fn down(folder: &Path) -> Result<()> {
    let notes = folder.join(NOTES);
    let Ok(text) = fs::read_to_string(&notes) else { return Ok(()) };
    let processes: Vec<Process> = text.lines().map(str::parse).collect::<Result<_>>()?;
    let mounts = processes
        .iter()
        .find(|process| process.name == "holder" && process.runs())
        .and_then(|holder| fs::read_link(format!("/proc/{}/ns/mnt", holder.pid)).ok());
    // First who makes pods, then the pods, then who keeps them.
    let makers = ["kubelet", "kube-controller-manager", "kube-scheduler"];
    let (first, last): (Vec<_>, Vec<_>) =
        processes.into_iter().partition(|process| makers.contains(&process.name.as_str()));
    end(&first)?;
    if mounts.is_some() {
        for pid in pods()?.iter().flat_map(|cgroup| pids(cgroup)) {
            kill("KILL", pid)?;
        }
    }
    end(&last.iter().filter(|process| process.name != "holder").cloned().collect::<Vec<_>>())?;
    // Shims outlive containerd; they are in the holder's namespace.
    if let Some(mounts) = mounts {
        for pid in all_pids()? {
            if fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|its| its == mounts) {
                kill("KILL", pid)?;
            }
        }
    }
    end(&last)?;
    remove_cgroups()?;
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Refuses where a kubelet runs or its pods do: it would be another's node. Pods' cgroups without a process are what is
/// left of a node that was killed, its notes with it; the kernel keeps them for ever, so they are removed.
pub(super) fn ensure_no_pods() -> Result<()> {
    let pods = pods()?;
    let Some(first) = pods.first() else { return Ok(()) };
    let first = first.display();
    let kubelet = all_pids()?.into_iter().find(|pid| is_kubelet(*pid));
    ensure!(
        kubelet.is_none(),
        "{first} is there and a kubelet runs: this machine is the node of another cluster"
    );
    let inhabitant = pods.iter().flat_map(|cgroup| pids(cgroup)).next();
    ensure!(
        inhabitant.is_none(),
        "{first} is there and pods run in it: this machine is, or was, the node of another cluster"
    );
    println!("cluster: removing the empty cgroups of a node that is no more, {first} and its like");
    remove_cgroups()
}

fn is_kubelet(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "kubelet")
}

/// SIGTERM, and SIGKILL after some seconds.
fn end(processes: &[Process]) -> Result<()> {
    for (signal, patience) in [("TERM", 5), ("KILL", 5)] {
        for process in processes.iter().filter(|process| process.runs()) {
            kill(signal, process.pid)?;
        }
        let end = Instant::now() + Duration::from_secs(patience);
        while processes.iter().any(Process::runs) && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn kill(signal: &str, pid: u32) -> Result<()> {
    // It may have ended by now.
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &pid.to_string()]).stderr(std::process::Stdio::null());
    kill.status().context("cannot start `kill`").map(drop)
}

fn all_pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The pods' cgroup in each hierarchy that has one.
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

/// Removes the pods' cgroups, the deepest first; the kernel takes a moment to let go of those who were killed.
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
        ensure!(Instant::now() < end, "the cgroup {} cannot be removed", first.display());
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_a_process_from_a_later_one_of_the_same_number() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of("sleep", child.id()).unwrap();
        assert!(process.runs());
        assert_eq!(process.to_string().parse::<Process>().unwrap(), process);
        assert!(!Process { began: process.began + 1, ..process.clone() }.runs());
        end(std::slice::from_ref(&process)).unwrap();
        assert!(!process.runs());
        child.wait().unwrap();
        assert!(Process::of("sleep", child.id()).is_err());
        assert!("sleep 1".parse::<Process>().is_err());
    }
}
