//! Network interfaces of pods and containers, with the kubelet's metrics.
//!
//! File: `/proc/PID/net/dev` of one process per pod. Metrics: `container_network_*` of `/metrics/cadvisor`.
//!
//! The interfaces of a network namespace are shown once: on the row of the pod's sandbox (on another cgroup of the pod, if the
//! sandbox is not known), on the row of a container without a pod, and on the root for the host. Pods with `hostNetwork` have
//! none. Namespaces are identified by the inode of `net/dev`, which differs between namespaces: reading `ns/net` of a process
//! requires ptrace permission, which the agent may lack.

use std::{
    cmp::Ordering,
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use super::{Component, Round, processes::gone, round_robin::RoundRobin, skipped::Cause};
use crate::{
    identity::Level,
    store::{Key, Store},
    values::{Interface, Traffic, Values},
};

/// Number of processes tried per cgroup, because the first ones may exit meanwhile.
const MAX_PROCESSES_TRIED: usize = 4;

/// Name prefixes of interfaces that the kubelet ignores: `isIgnoredDevice` of cAdvisor's
/// `lib/container/libcontainer/handler.go` (6a0c4f25).
const IGNORED: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

#[derive(Default)]
pub(super) struct InterfaceSampler {
    /// The order of reading. `None`: the host, which comes first.
    queue: RoundRobin<Option<Target>>,
    /// The host's namespace, as the inode of its `net/dev`.
    host: Option<u64>,
    /// The row that shows each namespace, by the inode of its `net/dev`.
    owners: HashMap<u64, NamespaceOwner>,
}

/// A pod, or a container without one.
#[derive(Clone, Debug)]
struct Target {
    claim: Claim,
    /// The cgroups of the pod; the row of the first one shows the interfaces.
    rows: Vec<Key>,
}

/// If several targets share a namespace, the one whose claim sorts first shows the interfaces: pods before containers without
/// a pod, then the older one.
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

impl Component for InterfaceSampler {
    /// Reads the interfaces of the pods and containers that are due, so that each is read once per `slow-interval`.
    fn round(&mut self, round: &mut Round) {
        let Self { queue, owners, .. } = self;
        let store = &round.store;
        let due = queue.due(round.now, round.config.slow_interval, || {
            owners.retain(|_, owner| store.identity(owner.row).is_some());
            [None].into_iter().chain(targets(store).into_iter().map(Some)).collect()
        });
        for target in due {
            match (target, self.host) {
                (None, _) => self.sample_host(round),
                (Some(target), Some(host)) => self.sample_target(&target, host, round),
                // Without the host's namespace, pods with `hostNetwork` cannot be recognised.
                (Some(_), None) => round.skipped[Cause::InterfacesWithoutHost] += 1,
            }
        }
    }
}

impl InterfaceSampler {
    fn sample_host(&mut self, round: &mut Round) {
        let Round { store, skipped, config, .. } = round;
        match read(&config.proc_root, 1) {
            Ok(seen) => {
                self.host = Some(seen.namespace);
                skipped[Cause::InterfaceLines] += seen.skipped;
                if let Some(root) = store.get_by_path("/") {
                    set_interfaces(store, root, seen.interfaces);
                }
            }
            Err(_) => skipped[Cause::Interfaces] += 1,
        }
    }

    fn sample_target(&mut self, target: &Target, host: u64, round: &mut Round) {
        let Some(first) = target.rows.first().copied() else { return };
        let seen = target.rows.iter().find_map(|key| read_cgroup(*key, round));
        // If no process could be read, the row keeps its interfaces.
        let Some(NetDev { namespace, interfaces, .. }) = seen else { return };
        let store = &mut round.store;
        let shown = namespace != host && self.claim(namespace, target, first, store);
        set_interfaces(store, first, if shown { interfaces } else { Vec::new() });
        for other in target.rows.iter().skip(1) {
            set_interfaces(store, *other, Vec::new());
        }
    }

    /// Whether a target shows a namespace. If so, the row that showed it until now loses its interfaces.
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
}

/// The interfaces that the first running process of a cgroup sees; `None` if there is none, or none in the agent's PID namespace.
fn read_cgroup(key: Key, round: &mut Round) -> Option<NetDev> {
    let Round { store, files, skipped, config, .. } = round;
    let is_empty = store.values(key).and_then(|values| values.pids).is_some_and(|pids| pids.current == 0);
    let path = store.identity(key).filter(|_| !is_empty).map(|identity| identity.path.clone())?;
    let pids = files.processes(&path, skipped).unwrap_or_default();
    if !pids.is_empty() && pids.iter().all(|pid| *pid == 0) {
        skipped[Cause::InterfacesOutOfSight] += 1;
    }
    for pid in pids.into_iter().filter(|pid| *pid != 0).take(MAX_PROCESSES_TRIED) {
        match read(&config.proc_root, pid) {
            Ok(seen) => {
                skipped[Cause::InterfaceLines] += seen.skipped;
                return Some(seen);
            }
            Err(error) if gone(&error) => {}
            Err(_) => skipped[Cause::Interfaces] += 1,
        }
    }
    None
}

/// Sets the interfaces of a row. A row that never had interfaces is not changed if there are none.
fn set_interfaces(store: &mut Store, key: Key, interfaces: Vec<Interface>) {
    let has_any = store.values(key).is_some_and(|values| values.interfaces.is_some());
    if has_any || !interfaces.is_empty() {
        store.update(key, Values { interfaces: Some(interfaces.into()), ..Values::default() });
    }
}

/// Pods, and containers without a pod. The cgroups of a pod are ordered: the sandbox; containers with names, because series
/// without names are missing in sums by pod; then the oldest, which is most likely an unrecognised sandbox.
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
        // The group's name is a path or a pod uid.
        let claim = Claim { alone: name.starts_with('/'), created, name: name.into() };
        Target { claim, rows: group.into_iter().map(|one| one.key).collect() }
    };
    groups.into_iter().map(target).collect()
}

/// The content of a namespace's `net/dev`.
#[derive(Debug, Default)]
pub(super) struct NetDev {
    /// Inode of the file, which identifies the namespace.
    namespace: u64,
    interfaces: Vec<Interface>,
    /// Lines that cannot be parsed or repeat an interface.
    skipped: u64,
}

fn read(proc_root: &Path, pid: u32) -> io::Result<NetDev> {
    let mut file = File::open(proc_root.join(pid.to_string()).join("net/dev"))?;
    let namespace = file.metadata()?.ino();
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(NetDev { namespace, ..parse(&text) })
}

/// Parses `net/dev`: two lines of headings, then a line per interface with eight numbers for receiving and eight for sending
/// (Linux `net/core/net-procfs.c`). Names are bytes without `/`, `:` and white space.
pub(super) fn parse(text: &[u8]) -> NetDev {
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
