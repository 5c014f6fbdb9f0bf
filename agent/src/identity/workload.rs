//! Which workload a pod or a systemd unit belongs to, so that what its replicas and runs did can be added up.

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};

use crate::model::{Identity, Level, WorkloadKey};

/// What owns a pod, as far up the chain as the pod itself tells for certain.
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
/// - A ReplicaSet stands for its Deployment (or Argo Rollout) only if its name ends in the hash that this controller
///   put into the pod's labels; a ReplicationController for its DeploymentConfig only if the pod's annotation names it.
/// - A Job stands for its CronJob only if the pod carries the schedule time as Kubernetes annotates it on Jobs, and the
///   Job's name ends in that minute. The name alone proves nothing: others name Jobs by the minute too. Where pods do
///   not carry it, which is the rule, every run is a workload of its own until the Job itself can be asked.
/// - Static pods of all nodes are one workload: the name without the node's.
/// - Custom owners are taken as they are. An owner that is not the controller counts if it is the only one.
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

/// The workload of a systemd unit: instances of a template (`getty@tty1.service`) and transient units, which systemd
/// and its clients number, are one workload, so that a host's workloads stay bounded however long it runs.
pub fn unit_workload(unit: &str) -> Workload {
    Workload::new("Unit", &bounded_unit_name(unit))
}

impl WorkloadKey {
    /// Whose work a cgroup does; `None` while that is not known: a pod's container without names, or with those that
    /// its runtime gives, which does not know owners.
    pub fn of(identity: &Identity) -> Option<Self> {
        if let Some(names) = &identity.names {
            if names.workload.is_empty() {
                return None;
            }
            return Some(Self::named(names));
        }
        let of_path = &identity.of_path;
        let (kind, name) = match of_path.level {
            Level::Unit => {
                let unit = unit_workload(&of_path.id);
                (unit.kind.as_str().into(), unit.name.as_str().into())
            }
            Level::Container | Level::Sandbox if of_path.pod_uid.is_some() => return None,
            Level::Container | Level::Sandbox => ("Container".into(), of_path.id.as_str().into()),
            // Plain cgroups are counted by what they hang under, or short-lived ones would be workloads without end.
            _ => ("Cgroup".into(), identity.path.split('/').nth(1).unwrap_or_default().into()),
        };
        Some(Self { namespace: "".into(), kind, name, container: "".into() })
    }
}

/// The owner that counts: the controller, or the only one. A Job that is made by hand from a CronJob
/// (`kubectl create job --from`) is owned by it, but not controlled.
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

/// The API's mirror of a static pod is owned by its node; the kubelet's own list says where the manifest came from.
fn is_static(pod: &Pod, owner: Option<&OwnerReference>) -> bool {
    match owner {
        Some(owner) => owner.kind == "Node",
        None => matches!(annotation(pod, "kubernetes.io/config.source"), Some("file" | "http")),
    }
}

fn static_pod(pod: &Pod, pod_name: &str) -> Workload {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    // The kubelet appends the node's name in lower case.
    let name = node.and_then(|node| strip_dashed_suffix(pod_name, &node.to_ascii_lowercase()));
    Workload::new("StaticPod", name.unwrap_or(pod_name))
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

/// `name` without `-<suffix>`, if that leaves something.
fn strip_dashed_suffix<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let stem = name.strip_suffix(suffix)?.strip_suffix('-')?;
    (!stem.is_empty() && !suffix.is_empty()).then_some(stem)
}

fn bounded_unit_name(unit: &str) -> String {
    let Some((stem, unit_type)) = unit.rsplit_once('.') else { return unit.to_owned() };
    if let Some((template, _)) = stem.split_once('@') {
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
    // No scope is configured: each is made for processes that already run, and most makers put a pid, a serial number
    // or a UUID into the name. A dash of the name itself may be escaped (`machine-qemu\x2d3\x2dweb.scope`).
    let plain = stem.replace("\\x2d", "-");
    let kept: Vec<&str> = plain.split(['-', '.']).filter(|part| !is_serial_of_scope(part)).collect();
    if kept.is_empty() { "transient.scope".to_owned() } else { format!("{}.scope", kept.join("-")) }
}

/// `dbus-:1.2-org.example` without the connection's number, which grows by the restarts of the service.
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

/// A number, a part of a UUID, or a hash. A word in hex letters alone (`feed`, `cafe`) is none of them.
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
