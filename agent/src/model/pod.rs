//! A pod, reduced to the fields that Snug uses: names, requests, limits and status.

use std::sync::Arc;

use snug_sizing::workload::Resources;

use super::Names;

#[derive(Clone, Debug, PartialEq)]
pub struct KnownPod {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// Hashes of a static pod's manifest, which its cgroup paths contain instead of the uid.
    pub(crate) hashes: Vec<Box<str>>,
    /// Names of the pod itself, without a container.
    pub names: Arc<Names>,
    pub sandbox: Arc<Names>,
    /// Its containers, of all kinds.
    pub containers: Vec<KnownContainer>,
    /// Whether the status has an id for every container of the spec.
    pub(crate) all_started: bool,
    /// `spec.nodeName`; empty until the pod is scheduled.
    pub node: Box<str>,
    /// Pending, Running, Succeeded, Failed or Unknown; empty without a status.
    pub phase: Box<str>,
    /// `status.reason`, for example Evicted; empty if there is none.
    pub reason: Box<str>,
    /// `status.message`, cut to some hundred characters; empty if there is none.
    pub message: Box<str>,
    /// `status.podIP`; empty until the pod has an address.
    pub ip: Box<str>,
    /// The node's address.
    pub host_ip: Box<str>,
    /// Whether the pod uses the node's network namespace.
    pub host_network: bool,
    /// Name of its priority class.
    pub priority_class: Box<str>,
    /// The owner: the controller if the pod has one.
    pub owner: Option<Owner>,
}

/// An owner reference of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Group and version of its kind.
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    /// Whether it is the managing controller.
    pub controller: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownContainer {
    /// Its names. They include the current requests and limits: the applied ones if the status has them, else the desired ones.
    pub names: Arc<Names>,
    /// Ids of its current and its previous run, without the runtime's name.
    pub ids: Vec<Box<str>>,
    /// Its status, if it has one.
    pub status: Option<Status>,
    /// Requests and limits by stage of a resize.
    pub resources: Stages,
}

/// Requests and limits in the three stages of an in-place resize.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// `spec.containers[].resources`.
    pub desired: Resources,
    /// `status.containerStatuses[].allocatedResources`: the requests that the node has reserved.
    pub allocated: Option<Resources>,
    /// `status.containerStatuses[].resources`: the requests and limits that the kubelet has applied.
    pub applied: Option<Resources>,
}

impl Stages {
    /// The stages that are known, with the name of each in the `stage` label.
    pub fn known(&self) -> impl Iterator<Item = (&'static str, Resources)> {
        let stages =
            [("desired", Some(self.desired)), ("allocated", self.allocated), ("applied", self.applied)];
        stages.into_iter().filter_map(|(name, resources)| Some((name, resources?)))
    }

    /// The current requests and limits: applied if the status has them, else desired.
    pub(crate) fn current(&self) -> Resources {
        self.applied.unwrap_or(self.desired)
    }
}

/// The status of a container in its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Times that the kubelet restarted it.
    pub restarts: u64,
    /// Whether it is ready.
    pub ready: bool,
    /// The current state.
    pub state: State,
    /// The termination of the previous run.
    pub last: Option<Terminated>,
}

/// The state of a container.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Waiting, with the reason.
    Waiting(Box<str>),
    Running,
    Terminated(Terminated),
}

/// The termination of a container as the kubelet reports it (`ContainerStateTerminated`).
#[derive(Clone, Debug, PartialEq)]
pub struct Terminated {
    /// The reason that the runtime or the kubelet gives.
    pub reason: Box<str>,
    /// The exit code; 128 plus the signal number for a signal.
    pub exit_code: i32,
    /// Time of the termination, seconds since the Unix epoch; 0 if unknown.
    pub finished_unix: f64,
    /// The id of the container, without the runtime's name; empty if unknown.
    pub id: Box<str>,
}

impl KnownPod {
    pub fn container(&self, name: &str) -> Option<&KnownContainer> {
        self.containers.iter().find(|one| one.names.container == name)
    }
}

impl Status {
    /// The terminations in the status: of the previous run and of the current one.
    pub fn terminations(&self) -> impl Iterator<Item = &Terminated> {
        let now = match &self.state {
            State::Terminated(termination) => Some(termination),
            State::Waiting(_) | State::Running => None,
        };
        self.last.iter().chain(now)
    }
}
