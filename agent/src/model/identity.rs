//! Who a cgroup is: what its path tells, and the names that pod metadata gives it.

use std::sync::Arc;

use snug_sizing::workload::Resources;

/// What a cgroup stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The root of the hierarchy.
    Root,
    /// A group of groups: `kubepods`, a QoS class, a systemd slice, a plain cgroup with children.
    Slice,
    /// A pod: the sum of its sandbox and containers.
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

    /// Whether it is a "container" of the host: what has `snug_container_*` series, without counting anything twice.
    pub const fn is_container(self) -> bool {
        matches!(self, Self::Sandbox | Self::Container | Self::Unit | Self::Cgroup)
    }
}

/// The container runtime, as far as the path tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// containerd through CRI.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker, on its own or through cri-dockerd.
    Docker,
    /// podman (libpod).
    Podman,
    /// The path does not tell (cgroupfs driver), or it is no container.
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

/// A pod's quality of service class, as its cgroup path says.
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
    /// An init container that ends before the app containers start.
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

/// What a cgroup path tells, without asking anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathIdentity {
    /// What the cgroup stands for. Plain cgroups are [`Level::Cgroup`]; the store makes those with children slices.
    pub level: Level,
    /// The runtime, where the path names it.
    pub runtime: Runtime,
    /// The pod's uid with dashes, or a static pod's config hash, as the path has it.
    pub pod_uid: Option<String>,
    /// The pod's QoS class.
    pub qos: Option<Qos>,
    /// The container's id (64 hex digits), or a systemd unit's name, or a plain cgroup's last component.
    pub id: String,
}

/// Names that only pod metadata can tell. They may arrive after the first samples.
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
    /// Kind of the container.
    pub kind: Option<ContainerKind>,
    /// The container's requests and limits, as the pod has them.
    pub resources: Resources,
}

/// A cgroup and who it is. Immutable: a name that arrives later makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The path below the hierarchy's root, beginning with `/`.
    pub path: Arc<str>,
    /// What the path tells.
    pub of_path: PathIdentity,
    /// What pod metadata tells; `None` until it is known.
    pub names: Option<Arc<Names>>,
}
