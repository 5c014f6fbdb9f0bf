//! Derives the workload of a pod or a systemd unit, so that replicas and restarts can be summed.

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};

use snug_sizing::workload::names::{self, strip_dashed_suffix};

use crate::model::{AgentRule, Identity, Level, WorkloadKey};

/// The owner of a pod, as far up the chain of owners as the pod itself shows for certain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Deployment, StatefulSet, …, a custom owner's kind, Pod for a bare one, StaticPod, or Unit on a host.
    pub kind: String,
    /// Its name, in the pod's namespace.
    pub name: String,
}

impl Workload {
    fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned() }
    }
}

/// The workload that owns `pod`.
///
/// - A ReplicaSet is replaced by its Deployment (or Argo Rollout) only if its name ends in the hash that the controller
///   sets in the pod's labels. A ReplicationController is replaced by its DeploymentConfig only if an annotation of the pod
///   names it.
/// - A Job is replaced by its CronJob only if the pod has the annotation with the scheduled time and the Job's name ends
///   in that minute. The name alone is no proof, because others name Jobs by the minute too. Most pods lack the
///   annotation: then each Job is a workload of its own, unless the Job itself is read (`owner-lookup`).
/// - Static pods of all nodes are one workload: the node's name is removed from the pod's name.
/// - Other owners are used as they are. An owner that is not the controller counts if it is the only one.
pub fn of_pod(pod: &Pod) -> Workload {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let owner = controller(&pod.metadata);
    if is_static(pod, owner) {
        return static_pod(pod, pod_name);
    }
    let Some(owner) = owner else { return Workload::new("Pod", pod_name) };
    let parent = match owner.kind.as_str() {
        "ReplicaSet" => deployment(pod, &owner.name),
        "ReplicationController" => deployment_config(pod, &owner.name),
        "Job" => cron_job(pod, &owner.name),
        _ => None,
    };
    parent.unwrap_or_else(|| Workload::new(&owner.kind, &owner.name))
}

/// The workload of a systemd unit. Instances of a template (`getty@tty1.service`) are one workload, unless they are machines,
/// and so are numbered transient units. This bounds the number of workloads on a long-running host.
pub fn unit_workload(unit: &str) -> Workload {
    Workload::new("Unit", &bounded_unit_name(unit))
}

impl WorkloadKey {
    /// The workload of a cgroup. `None` while it is not known: for a container of a pod without names, or with names from
    /// the runtime, which does not know owners.
    pub fn from_identity(identity: &Identity) -> Option<Self> {
        if let Some(names) = &identity.names {
            if names.workload.is_empty() {
                return None;
            }
            return Some(Self::from_names(names));
        }
        let of_path = &identity.of_path;
        let (kind, name) = match of_path.level {
            Level::Unit => {
                let unit = unit_workload(&of_path.id);
                // Guests have units of the same names as the host and as each other.
                let guests =
                    if AgentRule::GuestsApart.is_on() { guests(&identity.path) } else { String::new() };
                (unit.kind.as_str().into(), format!("{guests}{}", unit.name).as_str().into())
            }
            Level::Container | Level::Sandbox if of_path.pod_uid.is_some() => return None,
            Level::Container | Level::Sandbox => ("Container".into(), of_path.id.as_str().into()),
            // Plain cgroups count under their top-level ancestor: otherwise short-lived ones would create ever new workloads.
            _ => ("Cgroup".into(), identity.path.split('/').nth(1).unwrap_or_default().into()),
        };
        Some(Self { namespace: "".into(), kind, name, container: "".into() })
    }
}

/// The controller of an object, else its only owner. A Job that was created from a CronJob (`kubectl create job --from`)
/// has the CronJob as owner but not as controller.
pub(crate) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).or(match owners {
        [only] => Some(only),
        _ => None,
    })
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// In the API, a static pod is owned by its node. In the list of the kubelet, an annotation has the source of the manifest.
fn is_static(pod: &Pod, owner: Option<&OwnerReference>) -> bool {
    match owner {
        Some(owner) => owner.kind == "Node",
        None => matches!(annotation(pod, "kubernetes.io/config.source"), Some("file" | "http")),
    }
}

fn static_pod(pod: &Pod, pod_name: &str) -> Workload {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let node = node.filter(|_| AgentRule::StaticPods.is_on());
    Workload::new("StaticPod", node.map_or(pod_name, |node| names::static_pod(pod_name, node)))
}

fn deployment(pod: &Pod, replica_set: &str) -> Option<Workload> {
    let labels = pod.metadata.labels.as_ref()?;
    [("pod-template-hash", "Deployment"), ("rollouts-pod-template-hash", "Rollout")].into_iter().find_map(
        |(label, kind)| Some(Workload::new(kind, strip_dashed_suffix(replica_set, labels.get(label)?)?)),
    )
}

fn deployment_config(pod: &Pod, replication_controller: &str) -> Option<Workload> {
    let name = annotation(pod, "openshift.io/deployment-config.name")?;
    let (stem, version) = replication_controller.rsplit_once('-')?;
    (stem == name && is_number(version)).then(|| Workload::new("DeploymentConfig", name))
}

fn cron_job(pod: &Pod, job: &str) -> Option<Workload> {
    let scheduled: Timestamp =
        annotation(pod, "batch.kubernetes.io/cronjob-scheduled-timestamp")?.parse().ok()?;
    // Since Kubernetes 1.21 the name ends in the minutes since the epoch.
    let name = strip_dashed_suffix(job, &scheduled.as_second().div_euclid(60).to_string())?;
    Some(Workload::new("CronJob", name))
}

/// The guests on the way to a cgroup, each with a slash after its name; empty on the host itself.
///
/// LXC, LXD and Incus put a guest into `lxc.payload.<name>` or `lxc.payload/<name>`, Proxmox and LXC before 4.0 into
/// `lxc/<name>`. The guest of `systemd-nspawn` is part of the unit that runs it.
fn guests(path: &str) -> String {
    let mut guests = String::new();
    let mut names = path.split('/').filter(|name| !name.is_empty());
    while let Some(name) = names.next() {
        let guest = match name {
            "lxc" | "lxc.payload" => names.next(),
            name => name.strip_prefix("lxc.payload.").filter(|guest| !guest.is_empty()),
        };
        if let Some(guest) = guest {
            guests += guest;
            guests.push('/');
        }
    }
    guests
}

/// Templates of units whose instances are machines and containers, each with a workload of its own.
const MACHINES: [&str; 4] = ["container", "lxc", "systemd-nspawn", "systemd-vmspawn"];

fn bounded_unit_name(unit: &str) -> String {
    let Some((stem, unit_type)) = unit.rsplit_once('.') else { return unit.to_owned() };
    if let Some((template, _)) = stem.split_once('@') {
        if MACHINES.contains(&template) && AgentRule::GuestsApart.is_on() {
            return unit.to_owned();
        }
        return format!("{}@.{unit_type}", without_bus_name(template));
    }
    // Made by systemd-run (`run-u12.service`, `run-r<hex>.scope`) and by logind (`session-12.scope`, `session-c1.scope`).
    for prefix in ["run", "session"] {
        let is_transient = |rest: &str| rest.split('-').all(is_serial);
        if stem.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_transient) {
            return format!("{prefix}.{unit_type}");
        }
    }
    if unit_type != "scope" {
        return unit.to_owned();
    }
    // Scopes are transient: they are created for running processes, and most names contain a pid, a serial number or a
    // UUID. A dash of the name may be escaped (`machine-qemu\x2d3\x2dweb.scope`).
    let plain = stem.replace("\\x2d", "-");
    let kept: Vec<&str> = plain.split(['-', '.']).filter(|part| !is_serial_of_scope(part)).collect();
    if kept.is_empty() { "transient.scope".to_owned() } else { format!("{}.scope", kept.join("-")) }
}

/// `dbus-:1.2-org.example` without the number of the connection, which grows with each restart of the service.
fn without_bus_name(template: &str) -> String {
    let mut parts = template.splitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("dbus"), Some(connection), Some(name)) if connection.starts_with(':') => format!("dbus-{name}"),
        _ => template.to_owned(),
    }
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// `12`, `c1`, `u12`, `p4711`, `i12`, `r<hex>`.
fn is_serial(part: &str) -> bool {
    is_number(part.strip_prefix(['c', 'i', 'p', 'u']).unwrap_or(part))
        || part.strip_prefix('r').is_some_and(|hex| is_hex(hex) && hex.len() >= 16)
}

/// A number, a part of a UUID, or a hash. A word of hex letters only (`feed`, `cafe`) is not a serial.
fn is_serial_of_scope(part: &str) -> bool {
    part.is_empty()
        || is_number(part)
        || (part.len() >= 4 && is_hex(part) && part.bytes().any(|byte| byte.is_ascii_digit()))
}

fn is_hex(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
