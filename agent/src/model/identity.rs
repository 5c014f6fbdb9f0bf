//! Identity of a cgroup: from its path, and from pod metadata.

use std::{collections::BTreeMap, sync::Arc};

use snug_sizing::workload::Resources;

/// The kind of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The root of the hierarchy.
    Root,
    /// A group of groups: `kubepods`, a QoS class, a systemd slice, a plain cgroup with children.
    Slice,
    /// A pod: its usage is the sum of its sandbox and containers.
    Pod,
    /// A pod's sandbox (pause container).
    Sandbox,
    /// A container, of a pod or on its own.
    Container,
    /// A systemd service or scope that is not a container.
    Unit,
    /// Any other cgroup without children.
    Cgroup,
}

impl Level {
    /// The name in the `level` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Slice => "slice",
            Self::Pod => "pod",
            Self::Sandbox => "sandbox",
            Self::Container => "container",
            Self::Unit => "unit",
            Self::Cgroup => "cgroup",
        }
    }

    /// Whether cgroups of this level have `snug_container_*` series. No two of them overlap, so usage is not counted twice.
    pub const fn is_container(self) -> bool {
        matches!(self, Self::Sandbox | Self::Container | Self::Unit | Self::Cgroup)
    }
}

/// The container runtime, if the path names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// containerd through CRI.
    Containerd,
    CriO,
    /// Docker, on its own or through cri-dockerd.
    Docker,
    /// podman (libpod).
    Podman,
    /// The path does not name the runtime (cgroupfs driver), or the cgroup is no container.
    #[default]
    Unknown,
}

impl Runtime {
    /// The name in the `runtime` label; empty when unknown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Unknown => "",
        }
    }
}

/// The QoS class of a pod, from its cgroup path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    /// Requests equal limits.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// Neither.
    BestEffort,
}

impl Qos {
    /// The name that Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The kind of a pod's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// A regular container.
    App,
    /// An init container, which terminates before the app containers start.
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    /// An ephemeral (debug) container.
    Ephemeral,
    /// The pod's sandbox.
    Sandbox,
}

impl ContainerKind {
    /// The name in the `kind` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Ephemeral => "ephemeral",
            Self::Sandbox => "sandbox",
        }
    }
}

/// The identity that a cgroup has by its path alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathIdentity {
    /// The kind of the cgroup. Plain cgroups are [`Level::Cgroup`]; the store changes those with children to slices.
    pub level: Level,
    /// The runtime, if the path names it.
    pub runtime: Runtime,
    /// The pod's uid with dashes, or a static pod's config hash, as the path has it.
    pub pod_uid: Option<String>,
    /// The pod's QoS class.
    pub qos: Option<Qos>,
    /// The container's id (64 hex digits), or a systemd unit's name, or a plain cgroup's last component.
    pub id: String,
}

/// Names from pod metadata. They may arrive after the first samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container in the pod; empty for the pod itself and for its sandbox.
    pub container: String,
    /// Image reference as the runtime reports it; empty for the pod itself.
    pub image: String,
    /// Kind of the workload that owns the pod: Deployment, StatefulSet, …, Pod for a bare one, Unit on a host.
    pub workload_kind: String,
    /// Name of the workload.
    pub workload: String,
    pub kind: Option<ContainerKind>,
    /// Requests and limits of the container; for the pod itself those of the whole pod (`spec.resources`).
    pub resources: Resources,
    /// What else the pod's spec says of the container.
    pub spec: Arc<ContainerSpec>,
}

/// What the pod's spec says of a container, beside its names, requests and limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Image as the spec names it; empty if unknown.
    pub image: String,
    /// Requests and limits of the whole pod (`spec.resources`); `None` without them.
    pub pod_resources: Option<Resources>,
    /// Settings of language runtimes in arguments and environment; see [`snug_sizing::settings`].
    pub settings: BTreeMap<String, String>,
    /// Size limits of the mounted `emptyDir` volumes in memory, bytes; `u64::MAX` if one has no limit.
    pub memory_volumes: u64,
    /// Limits of huge pages, bytes.
    pub hugepages: u64,
}

/// The identity of a cgroup. Immutable: when names arrive, the store creates a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The path below the hierarchy's root, beginning with `/`.
    pub path: Arc<str>,
    /// The identity from the path.
    pub of_path: PathIdentity,
    /// Names from pod metadata; `None` until they arrive.
    pub names: Option<Arc<Names>>,
    /// The name that docker, podman or nerdctl gave to a container outside of a pod.
    pub engine_name: Option<Arc<str>>,
}
