//! Identifies a cgroup from its path alone.
//!
//! The path is parsed from the hierarchy's root, because the meaning of a name depends on its parents: 64 hex digits are
//! a container in a pod or in `/docker`, and mean nothing inside a container. The names of Kubernetes (`kubepods`, pod
//! slices) count only where the host's root makes the cgroups: below slices and plain directories, and in the services of
//! container runtimes. A container, a systemd unit or an LXC container may be allowed to create cgroups below itself, with
//! any name: if it imitated a pod, its usage would feed the workload of another team.
//!
//! A Kubernetes node that is itself a container, a unit or an LXC container of this host (kind, minikube, k3s in a container,
//! systemd-nspawn) is an exception that [`NestedNodes`] names: its pods are pods. Below these pods the rule holds again.
//!
//! Some cgroups have no identity of their own. Their usage is included in that of their parent:
//! - everything below a container, unless the container is a nested node;
//! - everything below a systemd unit, except containers (rootless podman, `podman --cgroups=split`);
//! - `conmon`, which podman and CRI-O start for each container;
//! - mount, automount, socket and swap units: nodes have hundreds, and almost none has a process.

use crate::{
    model::{Level, PathIdentity, Qos, Runtime},
    patterns::Pattern,
};

/// Services of container runtimes and of Kubernetes. A runtime with the cgroupfs driver under a kubelet with the systemd driver
/// makes the cgroups of pods below its own.
const RUNTIME_SERVICES: [&str; 12] = [
    "containerd",
    "cri-docker",
    "crio",
    "docker",
    "k0scontroller",
    "k0sworker",
    "k3s",
    "k3s-agent",
    "kubelet",
    "rke2-agent",
    "rke2-server",
    "snap.microk8s.daemon-containerd",
];

/// The containers, units and LXC containers of this host in which a Kubernetes node of its own runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NestedNodes(Vec<Vec<Pattern>>);

impl NestedNodes {
    /// The patterns of their paths. `*` does not match `/`, so that a pattern cannot include the containers of the node's pods.
    pub fn new(patterns: &[Pattern]) -> Self {
        Self(patterns.iter().map(|pattern| names(&pattern.as_text()).map(Pattern::new).collect()).collect())
    }

    /// Whether the cgroup at `path` is a nested node, or may have one below itself.
    pub(crate) fn is_around(&self, path: &str) -> bool {
        let depth = names(path).count();
        let matches =
            |parts: &[Pattern]| parts.iter().zip(names(path)).all(|(part, name)| part.matches(name));
        self.0.iter().any(|parts| parts.len() >= depth && matches(parts))
    }

    /// Whether the first `depth` names of a path are those of a nested node.
    fn contain(&self, path: &str, depth: usize) -> bool {
        let matches =
            |parts: &[Pattern]| parts.iter().zip(names(path)).all(|(part, name)| part.matches(name));
        self.0.iter().any(|parts| parts.len() == depth && matches(parts))
    }
}

/// Identifies the cgroup at `path` on a host without nested nodes.
pub fn parse(path: &str) -> Option<PathIdentity> {
    parse_with(path, &NestedNodes::default())
}

/// Identifies the cgroup at `path`, which is relative to the hierarchy's root and begins with `/`.
///
/// `None` for a cgroup without an identity of its own (see the module), and for an invalid path: without a leading `/`, or
/// with `..`, as the kernel shows cgroups outside the cgroup namespace.
///
/// `id` of the result is the 64 hex digits of a container, the id of a podman pod, the name of a unit as systemd prints
/// it, `/` for the root, and the last component for everything else. Podman pods are [`Level::Slice`], because no pod
/// metadata names them.
pub fn parse_with(path: &str, nested_nodes: &NestedNodes) -> Option<PathIdentity> {
    let mut walk = Walk { inside: Inside::Nothing, of_host: true, spot: Spot::Elsewhere, parent: "" };
    let mut found = Found::Root;
    for (above, name) in names(path.strip_prefix('/')?).enumerate() {
        if name == "." || name == ".." {
            return None;
        }
        found = walk.step(name);
        walk.parent = name;
        walk.of_host = walk.of_host || nested_nodes.contain(path, above + 1);
    }
    found.identity()
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// The innermost unit or container on the path, which changes the meaning of the names below it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    Unit,
    Container,
}

/// The position in the cgroup tree of Kubernetes.
#[derive(Clone, Copy)]
enum Spot<'a> {
    Elsewhere,
    /// In `kubepods` or one of its QoS cgroups. Pods here have this QoS class.
    Kubepods(Qos),
    Pod(Pod<'a>),
}

#[derive(Clone, Copy)]
struct Pod<'a> {
    /// As in the path: a pod slice has `_` for each `-`.
    uid: &'a str,
    qos: Qos,
}

struct Walk<'a> {
    inside: Inside,
    /// Whether only the root user of this host, or of a nested node, makes cgroups here.
    of_host: bool,
    spot: Spot<'a>,
    parent: &'a str,
}

enum Found<'a> {
    Root,
    Slice(&'a str),
    PodmanPod(&'a str),
    Pod { pod: Pod<'a>, name: &'a str },
    Sandbox { id: &'a str, pod: Pod<'a> },
    Container { id: &'a str, runtime: Runtime, pod: Option<Pod<'a>> },
    Unit(&'a str),
    Cgroup(&'a str),
    PartOfParent,
}

impl<'a> Walk<'a> {
    fn step(&mut self, name: &'a str) -> Found<'a> {
        if let Some(found) = self.kubernetes(name) {
            return found;
        }
        if let Some((id, runtime, pod)) = colon_form(name)
            && if pod.is_some() { self.of_host } else { self.inside != Inside::Container }
        {
            return self.container(id, runtime, pod);
        }
        if let Spot::Pod(pod) = self.spot {
            return self.in_pod(name, pod);
        }
        self.spot = Spot::Elsewhere;
        if self.inside == Inside::Container {
            return Found::PartOfParent;
        }
        match named_container(name) {
            Some((id, Named::Container(runtime))) => return self.container(id, runtime, None),
            Some((_, Named::Conmon)) => return self.end_at_container(),
            None => {}
        }
        if let Some(id) = podman_pod_slice(name) {
            return Found::PodmanPod(id);
        }
        match (self.parent, name) {
            ("libpod_parent", "conmon") => return self.end_at_container(),
            ("libpod_parent", id) if is_container_id(id) => return Found::PodmanPod(id),
            ("docker" | "moby", id) if is_container_id(id) => {
                return self.container(id, Runtime::Docker, None);
            }
            // containerd without a cgroup path from its client: the namespace and the container's id.
            ("k8s.io" | "default", id) if is_container_id(id) => {
                return self.container(id, Runtime::Containerd, None);
            }
            _ => {}
        }
        self.on_host(name)
    }

    /// Recognises the cgroups of Kubernetes, at any depth of what the host makes.
    fn kubernetes(&mut self, name: &'a str) -> Option<Found<'a>> {
        if !self.of_host {
            return None;
        }
        if let Some(pod) = pod_slice(name) {
            self.spot = Spot::Pod(pod);
            return Some(Found::Pod { pod, name });
        }
        if let Some(qos) = kubepods(name) {
            self.spot = Spot::Kubepods(qos);
            return Some(Found::Slice(name));
        }
        let Spot::Kubepods(qos) = self.spot else { return None };
        let nested_qos = match name {
            "burstable" => Some(Qos::Burstable),
            "besteffort" => Some(Qos::BestEffort),
            _ => None,
        };
        if let Some(nested_qos) = nested_qos {
            self.spot = Spot::Kubepods(nested_qos);
            return Some(Found::Slice(name));
        }
        let uid = name.strip_prefix("pod").filter(|uid| is_uid(uid))?;
        let pod = Pod { uid, qos };
        self.spot = Spot::Pod(pod);
        Some(Found::Pod { pod, name })
    }

    /// A direct child of a pod's cgroup.
    fn in_pod(&mut self, name: &'a str, pod: Pod<'a>) -> Found<'a> {
        match named_container(name) {
            Some((id, Named::Container(runtime))) => return self.container(id, runtime, Some(pod)),
            Some((_, Named::Conmon)) => return self.end_at_container(),
            None => {}
        }
        if is_container_id(name) {
            return self.container(name, Runtime::Unknown, Some(pod));
        }
        if let Some(id) = name.strip_prefix("kata_").filter(|id| is_container_id(id)) {
            // Kata runs all containers of a pod in one virtual machine, whose cgroup has the id of the sandbox.
            self.end_at_container();
            return Found::Sandbox { id, pod };
        }
        let other_runtime = name.strip_suffix(".scope").and_then(|stem| stem.rsplit_once('-'));
        match other_runtime {
            Some((_, id)) if is_container_id(id) => self.container(id, Runtime::Unknown, Some(pod)),
            _ => self.end_at_container(),
        }
    }

    /// A cgroup that is neither of Kubernetes nor, by its name, a container.
    fn on_host(&mut self, name: &'a str) -> Found<'a> {
        if self.inside == Inside::Unit {
            return Found::PartOfParent;
        }
        // A container with a custom parent cgroup (`docker run --cgroup-parent`, ECS).
        if is_container_id(name) && kubepods(self.parent).is_none() && !is_qos_directory(self.parent) {
            return self.container(name, Runtime::Unknown, None);
        }
        match unit_type(name) {
            Some((_, "slice")) => Found::Slice(name),
            Some((unit, "service" | "scope")) => {
                self.inside = Inside::Unit;
                let stem = unit.strip_suffix(".service").filter(|_| self.parent == "system.slice");
                self.of_host &= stem.is_some_and(|stem| RUNTIME_SERVICES.contains(&stem));
                Found::Unit(unit)
            }
            Some(_) => {
                (self.inside, self.of_host) = (Inside::Unit, false);
                Found::PartOfParent
            }
            None if matches!(name, "docker" | "k8s.io" | "libpod_parent") => Found::Slice(name),
            None => {
                self.of_host &= self.parent != "lxc" && !name.starts_with("lxc.payload");
                Found::Cgroup(name)
            }
        }
    }

    fn container(&mut self, id: &'a str, runtime: Runtime, pod: Option<Pod<'a>>) -> Found<'a> {
        self.end_at_container();
        Found::Container { id, runtime, pod }
    }

    /// Cgroups below this one have no identity of their own.
    fn end_at_container(&mut self) -> Found<'a> {
        (self.inside, self.of_host) = (Inside::Container, false);
        self.spot = Spot::Elsewhere;
        Found::PartOfParent
    }
}

impl Found<'_> {
    fn identity(self) -> Option<PathIdentity> {
        let (level, runtime, pod, id) = match self {
            Self::Root => (Level::Root, Runtime::Unknown, None, "/"),
            Self::Slice(name) => (Level::Slice, Runtime::Unknown, None, name),
            Self::PodmanPod(id) => (Level::Slice, Runtime::Podman, None, id),
            Self::Pod { pod, name } => (Level::Pod, Runtime::Unknown, Some(pod), name),
            Self::Sandbox { id, pod } => (Level::Sandbox, Runtime::Unknown, Some(pod), id),
            Self::Container { id, runtime, pod } => (Level::Container, runtime, pod, id),
            Self::Unit(unit) => (Level::Unit, Runtime::Unknown, None, unit),
            Self::Cgroup(name) => (Level::Cgroup, Runtime::Unknown, None, name),
            Self::PartOfParent => return None,
        };
        Some(PathIdentity {
            level,
            runtime,
            pod_uid: pod.map(|pod| pod.uid.replace('_', "-")),
            qos: pod.map(|pod| pod.qos),
            id: id.to_owned(),
        })
    }
}

enum Named {
    Container(Runtime),
    /// The helper process of a container that holds its terminal and collects its exit code.
    Conmon,
}

/// `<runtime>-<id>.scope` (systemd driver) or `<runtime>-<id>` (cgroupfs driver).
fn named_container(name: &str) -> Option<(&str, Named)> {
    let (prefix, id) = name.strip_suffix(".scope").unwrap_or(name).rsplit_once('-')?;
    if !is_container_id(id) {
        return None;
    }
    if matches!(prefix, "crio-conmon" | "libpod-conmon") {
        return Some((id, Named::Conmon));
    }
    runtime_of_prefix(prefix).map(|runtime| (id, Named::Container(runtime)))
}

/// `<slice>:<runtime>:<id>`: the notation of the systemd driver, which a runtime with the cgroupfs driver used as a
/// directory name.
fn colon_form(name: &str) -> Option<(&str, Runtime, Option<Pod<'_>>)> {
    let mut parts = name.rsplitn(3, ':');
    let (id, prefix, slice) = (parts.next()?, parts.next()?, parts.next()?);
    let runtime = runtime_of_prefix(prefix).filter(|_| is_container_id(id))?;
    Some((id, runtime, pod_slice(slice)))
}

fn runtime_of_prefix(prefix: &str) -> Option<Runtime> {
    match prefix {
        "cri-containerd" | "nerdctl" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "docker" => Some(Runtime::Docker),
        "libpod" | "libpod-payload" => Some(Runtime::Podman),
        _ => None,
    }
}

/// `kubepods`, `kubepods.slice` and the QoS slices, also prefixed with the kubelet's `--cgroup-root`
/// (`kubelet-kubepods.slice`). Returns the QoS class of the pods directly below.
fn kubepods(name: &str) -> Option<Qos> {
    if name == "kubepods" {
        return Some(Qos::Guaranteed);
    }
    let (stem, qos) = split_qos_class(name.strip_suffix(".slice")?);
    is_kubepods_stem(stem).then_some(qos)
}

/// `kubepods[-burstable|-besteffort]-pod<uid>.slice`, with or without the prefix of a cgroup root.
fn pod_slice(name: &str) -> Option<Pod<'_>> {
    let (parent, uid) = name.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let (stem, qos) = split_qos_class(parent);
    (is_kubepods_stem(stem) && is_uid(uid)).then_some(Pod { uid, qos })
}

fn split_qos_class(stem: &str) -> (&str, Qos) {
    if let Some(stem) = stem.strip_suffix("-burstable") {
        (stem, Qos::Burstable)
    } else if let Some(stem) = stem.strip_suffix("-besteffort") {
        (stem, Qos::BestEffort)
    } else {
        (stem, Qos::Guaranteed)
    }
}

fn is_kubepods_stem(stem: &str) -> bool {
    stem == "kubepods" || stem.ends_with("-kubepods")
}

fn is_qos_directory(name: &str) -> bool {
    matches!(name, "burstable" | "besteffort")
}

/// `machine-libpod_pod_<id>.slice`; for rootless podman `user-libpod_pod_<id>.slice`.
fn podman_pod_slice(name: &str) -> Option<&str> {
    let (_, id) = name.strip_suffix(".slice")?.rsplit_once("libpod_pod_")?;
    is_container_id(id).then_some(id)
}

/// All supported runtimes name containers by 256 bits in lower-case hex.
fn is_container_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A UUID, the hash of a static pod, or any uid that the manifest of a static pod sets.
fn is_uid(uid: &str) -> bool {
    uid.len() <= 128
        && uid.bytes().any(|byte| byte.is_ascii_digit())
        && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The name and the type of a systemd unit that can have a cgroup.
///
/// systemd prefixes `_` to a name that could collide with a cgroup file (`cpu.service`).
fn unit_type(name: &str) -> Option<(&str, &str)> {
    let unit = name.strip_prefix('_').unwrap_or(name);
    let (stem, unit_type) = unit.rsplit_once('.')?;
    let is_name = !stem.is_empty()
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    let has_cgroup =
        matches!(unit_type, "service" | "scope" | "slice" | "mount" | "automount" | "socket" | "swap");
    (is_name && has_cgroup).then_some((unit, unit_type))
}

#[cfg(test)]
mod tests;
