//! Network interfaces of pods and containers, as a kubelet has them: from `/proc/PID/net/dev` of a process inside.
//!
//! A network namespace is shown once: on the pod's sandbox (where it is not known, on another cgroup of the pod), on the
//! container's own row where there is no pod, and on the root for the host's. Pods in the host's namespace show nothing.
//! Namespaces are told apart by the inode of `net/dev`, of which each has one of its own: to read `ns/net` of a process
//! takes the right to trace it, which the agent need not have.

use std::{
    cmp::Ordering,
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{files::FileSampler, processes::gone, round_robin::RoundRobin};
use crate::{
    identity::Level,
    store::{Key, Store},
    values::{Interface, Traffic, Values},
};

/// Processes of a cgroup that are tried, should the first ones go away meanwhile.
const MAX_PROCESSES_TRIED: usize = 4;

/// Interfaces that kubelets leave out, by the beginning of their names: `isIgnoredDevice` of cAdvisor's
/// `lib/container/libcontainer/handler.go` (6a0c4f25).
const IGNORED: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// Looks at interfaces for the store.
#[derive(Debug)]
pub(super) struct InterfaceSampler {
    proc_root: PathBuf,
    /// `None` is the root, whose turn comes first.
    queue: RoundRobin<Option<Target>>,
    /// The host's namespace.
    host: Option<u64>,
    /// Who shows a namespace, by the inode of its `net/dev`.
    owners: HashMap<u64, NamespaceOwner>,
}

/// A pod, or a container without one.
#[derive(Clone, Debug)]
struct Target {
    claim: Claim,
    /// Its cgroups; the first one shows its interfaces.
    rows: Vec<Key>,
}

/// Of several that share a namespace, the one with the better claim shows it: a pod before a container without one, then
/// the older one.
#[derive(Clone, Debug)]
struct Claim {
    alone: bool,
    created: f64,
    /// The pod's uid, or the container's path.
    name: Arc<str>,
}

#[derive(Debug)]
struct NamespaceOwner {
    claim: Claim,
    row: Key,
}

impl Claim {
    fn order(&self, other: &Self) -> Ordering {
        let by_age = || self.created.total_cmp(&other.created).then_with(|| self.name.cmp(&other.name));
        self.alone.cmp(&other.alone).then_with(by_age)
    }
}

impl InterfaceSampler {
    pub(super) fn new(proc_root: PathBuf) -> Self {
        Self { proc_root, queue: RoundRobin::default(), host: None, owners: HashMap::new() }
    }

    /// Reads the interfaces of as many pods and containers as are due, so that each has its turn once in `interval`.
    pub(super) fn sample(
        &mut self,
        store: &mut Store,
        files: &mut FileSampler,
        now: Instant,
        interval: Duration,
        skipped: &mut HashMap<&'static str, u64>,
    ) {
        let owners = &mut self.owners;
        let due = self.queue.due(now, interval, || {
            owners.retain(|_, owner| store.identity(owner.row).is_some());
            [None].into_iter().chain(targets(store).into_iter().map(Some)).collect()
        });
        for target in due {
            match (target, self.host) {
                (None, _) => self.sample_host(store, skipped),
                (Some(target), Some(host)) => self.sample_target(&target, host, store, files, skipped),
                // Without it there is no telling which pods share it.
                (Some(_), None) => *skipped.entry("interfaces_without_the_hosts").or_default() += 1,
            }
        }
    }

    fn sample_host(&mut self, store: &mut Store, skipped: &mut HashMap<&'static str, u64>) {
        match read(&self.proc_root, 1) {
            Ok(seen) => {
                self.host = Some(seen.namespace);
                *skipped.entry("interface_lines").or_default() += seen.skipped;
                if let Some(root) = store.at("/") {
                    set_interfaces(store, root, seen.interfaces);
                }
            }
            Err(_) => *skipped.entry("interfaces").or_default() += 1,
        }
    }

    fn sample_target(
        &mut self,
        target: &Target,
        host: u64,
        store: &mut Store,
        files: &mut FileSampler,
        skipped: &mut HashMap<&'static str, u64>,
    ) {
        let Some(first) = target.rows.first().copied() else { return };
        let seen = target.rows.iter().find_map(|key| self.read_cgroup(*key, store, files, skipped));
        // What is not seen now stays as it was.
        let Some(NetDev { namespace, interfaces, .. }) = seen else { return };
        let shown = namespace != host && self.claim(namespace, target, first, store);
        set_interfaces(store, first, if shown { interfaces } else { Vec::new() });
        for other in target.rows.iter().skip(1) {
            set_interfaces(store, *other, Vec::new());
        }
    }

    /// Whether a target may show a namespace; who showed it until now no longer does then.
    fn claim(&mut self, namespace: u64, target: &Target, first: Key, store: &mut Store) -> bool {
        if let Some(owner) = self.owners.get(&namespace) {
            let living = store.identity(owner.row).is_some();
            if living
                && owner.claim.order(&target.claim) == Ordering::Less
                && owner.claim.name != target.claim.name
            {
                return false;
            }
            if owner.row != first {
                set_interfaces(store, owner.row, Vec::new());
            }
        }
        self.owners.insert(namespace, NamespaceOwner { claim: target.claim.clone(), row: first });
        true
    }

    /// What the first process of a cgroup sees that is still there; `None` if there is none, or none in sight.
    fn read_cgroup(
        &self,
        key: Key,
        store: &Store,
        files: &mut FileSampler,
        skipped: &mut HashMap<&'static str, u64>,
    ) -> Option<NetDev> {
        let is_empty = store.values(key).and_then(|values| values.pids).is_some_and(|pids| pids.current == 0);
        let path = store.identity(key).filter(|_| !is_empty).map(|identity| identity.path.clone())?;
        let pids = files.processes(&path, skipped).unwrap_or_default();
        if !pids.is_empty() && pids.iter().all(|pid| *pid == 0) {
            *skipped.entry("interfaces_of_processes_out_of_sight").or_default() += 1;
        }
        for pid in pids.into_iter().filter(|pid| *pid != 0).take(MAX_PROCESSES_TRIED) {
            match read(&self.proc_root, pid) {
                Ok(seen) => {
                    *skipped.entry("interface_lines").or_default() += seen.skipped;
                    return Some(seen);
                }
                Err(error) if gone(&error) => {}
                Err(_) => *skipped.entry("interfaces").or_default() += 1,
            }
        }
        None
    }
}

/// Puts interfaces on a row; a row that never had any is left alone if there are none.
fn set_interfaces(store: &mut Store, key: Key, interfaces: Vec<Interface>) {
    let has_any = store.values(key).is_some_and(|values| values.interfaces.is_some());
    if has_any || !interfaces.is_empty() {
        store.update(key, Values { interfaces: Some(interfaces.into()), ..Values::default() });
    }
}

/// Pods and containers without one. Of a pod's cgroups the sandbox comes first, then what has names, since series
/// without them are in no sum by pod, then the oldest, which is most likely a sandbox that is not known yet.
fn targets(store: &Store) -> Vec<Target> {
    struct Candidate<'a> {
        key: Key,
        rank: u8,
        created: f64,
        path: &'a str,
    }
    let mut groups: HashMap<&str, Vec<Candidate<'_>>> = HashMap::new();
    for (key, identity) in store.living() {
        let of_path = &identity.of_path;
        let rank = match (of_path.level, &identity.names) {
            (Level::Sandbox, _) => 0,
            (Level::Container, Some(_)) => 1,
            (Level::Container, None) => 2,
            _ => continue,
        };
        let created = store.created(key).unwrap_or_default();
        let group = of_path.pod_uid.as_deref().unwrap_or(&identity.path);
        groups.entry(group).or_default().push(Candidate { key, rank, created, path: &identity.path });
    }
    let target = |(name, mut group): (&str, Vec<Candidate<'_>>)| {
        group.sort_by(|a, b| {
            let by_age = || a.created.total_cmp(&b.created).then_with(|| a.path.cmp(b.path));
            a.rank.cmp(&b.rank).then_with(by_age)
        });
        let created = group.iter().map(|one| one.created).fold(f64::INFINITY, f64::min);
        // A path begins so, a uid does not.
        let claim = Claim { alone: name.starts_with('/'), created, name: name.into() };
        Target { claim, rows: group.into_iter().map(|one| one.key).collect() }
    };
    groups.into_iter().map(target).collect()
}

/// A namespace's `net/dev`.
#[derive(Debug, Default)]
struct NetDev {
    /// Its inode, which no other namespace's has.
    namespace: u64,
    interfaces: Vec<Interface>,
    /// Lines that make no sense, or name an interface again.
    skipped: u64,
}

fn read(proc_root: &Path, pid: u32) -> io::Result<NetDev> {
    let mut file = File::open(proc_root.join(pid.to_string()).join("net/dev"))?;
    let namespace = file.metadata()?.ino();
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(NetDev { namespace, ..parse(&text) })
}

/// Reads `net/dev`: two lines of headings, then a line for each interface with eight numbers of what it received and
/// eight of what it sent (Linux `net/core/net-procfs.c`). Names are bytes without `/`, `:` and white space.
fn parse(text: &[u8]) -> NetDev {
    let mut found = NetDev::default();
    for line in text.split(|byte| *byte == b'\n').skip(2).filter(|line| !line.trim_ascii().is_empty()) {
        match interface(line) {
            Some(interface) if ignored(&interface.name) => {}
            Some(interface) => found.interfaces.push(interface),
            None => found.skipped += 1,
        }
    }
    found.interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    let all = found.interfaces.len();
    found.interfaces.dedup_by(|b, a| a.name == b.name);
    found.skipped += (all - found.interfaces.len()) as u64;
    found
}

fn interface(line: &[u8]) -> Option<Interface> {
    let colon = line.iter().rposition(|byte| *byte == b':')?;
    let (name, numbers) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_start();
    let name: Arc<str> = match std::str::from_utf8(name) {
        Ok("") => return None,
        Ok(name) => name.into(),
        Err(_) => name.escape_ascii().to_string().into(),
    };
    let numbers = std::str::from_utf8(numbers.get(1..)?).ok()?;
    let numbers: Vec<u64> =
        numbers.split_whitespace().map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = numbers[..]
    else {
        return None;
    };
    Some(Interface {
        name,
        receive: Traffic { bytes: rx_bytes, packets: rx_packets, errors: rx_errors, dropped: rx_dropped },
        transmit: Traffic { bytes: tx_bytes, packets: tx_packets, errors: tx_errors, dropped: tx_dropped },
    })
}

fn ignored(name: &str) -> bool {
    let bytes = name.as_bytes();
    IGNORED.iter().any(|prefix| {
        bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

#[cfg(test)]
mod tests;
