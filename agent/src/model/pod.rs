//! One pod, pruned to what Snug uses of it: names, requests and limits, and what its status says of its containers.

use std::sync::Arc;

use snug_sizing::workload::Resources;

use super::Names;

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPod {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// Hashes of a static pod's manifest, which its cgroups carry instead of the uid.
    pub(crate) hashes: Vec<Box<str>>,
    /// Names of the pod itself: without a container.
    pub names: Arc<Names>,
    /// Names of its sandbox.
    pub sandbox: Arc<Names>,
    /// Its containers, of all kinds.
    pub containers: Vec<KnownContainer>,
    /// Whether every container of the spec had an id.
    pub(crate) all_started: bool,
    /// The node it is bound to; empty while it is bound to none.
    pub node: Box<str>,
    /// Pending, Running, Succeeded, Failed or Unknown; empty without a status.
    pub phase: Box<str>,
    /// Why it is in that phase: Evicted and the like; empty if there is nothing to say.
    pub reason: Box<str>,
    /// The same in a sentence, cut after some hundred characters; empty if there is nothing to say.
    pub message: Box<str>,
    /// Its own address, and its node's; empty while it has none.
    pub ip: Box<str>,
    /// The node's address.
    pub host_ip: Box<str>,
    /// Whether it lives in the node's network namespace.
    pub host_network: bool,
    /// Name of its priority class.
    pub priority_class: Box<str>,
    /// Its owner: the controller if it has one.
    pub owner: Option<Owner>,
}

/// What owns a pod, as the pod itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Group and version of its kind.
    pub api_version: Box<str>,
    /// Its kind.
    pub kind: Box<str>,
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Whether it is the managing controller.
    pub controller: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownContainer {
    /// Its names. Their requests and limits are those in force: applied where the status says so, else desired.
    pub names: Arc<Names>,
    /// Ids of its present and its last run, without the runtime's name.
    pub ids: Vec<Box<str>>,
    /// Its status, once there is one.
    pub status: Option<Status>,
    /// Requests and limits by how far they have come.
    pub resources: Stages,
}

/// Requests and limits on their way from the spec to the cgroup, as an in-place resize changes them one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// `spec.containers[].resources`: what is asked for.
    pub desired: Resources,
    /// `status.containerStatuses[].allocatedResources`: what the node has set aside; requests alone.
    pub allocated: Option<Resources>,
    /// `status.containerStatuses[].resources`: what the kubelet has applied.
    pub applied: Option<Resources>,
}

impl Stages {
    /// The stages that are known, with the name of each in the `stage` label.
    pub fn known(&self) -> impl Iterator<Item = (&'static str, Resources)> {
        let stages =
            [("desired", Some(self.desired)), ("allocated", self.allocated), ("applied", self.applied)];
        stages.into_iter().filter_map(|(name, resources)| Some((name, resources?)))
    }

    /// What is current: applied where the status says so, else desired.
    pub(crate) fn in_force(&self) -> Resources {
        self.applied.unwrap_or(self.desired)
    }
}

/// What a pod's status says of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Times that the kubelet restarted it.
    pub restarts: u64,
    /// Whether it is ready.
    pub ready: bool,
    /// What it does now.
    pub state: State,
    /// How its run before this one ended.
    pub last: Option<Terminated>,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It waits; why.
    Waiting(Box<str>),
    /// It runs.
    Running,
    /// It has ended.
    Terminated(Terminated),
}

/// How a run of a container ended, as the kubelet says (`ContainerStateTerminated`).
#[derive(Clone, Debug, PartialEq)]
pub struct Terminated {
    /// Why, in the runtime's or kubelet's word.
    pub reason: Box<str>,
    /// The exit code; 128 and the signal's number for a signal.
    pub exit_code: i32,
    /// When, seconds since the Unix epoch; 0 if it does not say.
    pub finished_unix: f64,
    /// The container's id, without the runtime's name; empty if it does not say.
    pub id: Box<str>,
}

impl KnownPod {
    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&KnownContainer> {
        self.containers.iter().find(|one| one.names.container == name)
    }
}

impl Status {
    /// Ends that it tells of: of the run before this one, and of this one.
    pub fn terminations(&self) -> impl Iterator<Item = &Terminated> {
        let now = match &self.state {
            State::Terminated(termination) => Some(termination),
            State::Waiting(_) | State::Running => None,
        };
        self.last.iter().chain(now)
    }
}
