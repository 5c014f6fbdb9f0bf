//! Output formats that apply recommendations: patches, values, and commands for hosts.

mod host;
mod resize;
mod vpa;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use snug_sizing::workload::Role;

pub(super) use self::vpa::vpa;
use super::{
    placement::Placement,
    report::{Entry, Quantities, Report, WarningKind},
};
use crate::{advice::CommandRule, columns::plain};

/// A command per workload, for a shell: kubectl in a cluster, systemctl and docker on a host. What cannot or should not be
/// patched is a comment.
pub(super) fn patch(report: &Report) -> String {
    let mut text = String::new();
    for entries in workloads(report) {
        let Some(first) = entries.first() else { continue };
        let patched = Patched::new(entries);
        text += &patched.comments;
        if first.namespace.is_empty() {
            text += &host::commands(&patched.entries);
        } else if first.owner == "Pod" {
            text += &resize_command(report, first, &patched);
        } else if let Some(spec) = patchable(&patched) {
            let (kind, patch) = (first.owner.to_lowercase(), json!({ "spec": spec }));
            let command = format!(
                "kubectl -n {} patch {kind}/{} --type strategic --patch '{patch}'\n",
                first.namespace, first.workload,
            );
            text += &if patched.in_manifests.is_some() { format!("# {command}") } else { command };
        } else {
            text += &not_patchable(&patched);
        }
    }
    text
}

/// A kustomize component with a patch per workload.
pub(super) fn kustomize(report: &Report) -> Result<String> {
    let mut patches = Vec::new();
    let mut comments = String::new();
    for entries in workloads(report) {
        let patched = Patched::new(entries);
        comments += &patched.comments;
        let (Some(first), Some(spec)) = (patched.entries.first(), patchable(&patched)) else {
            comments += &not_patchable(&patched);
            continue;
        };
        if patched.in_manifests == Some(false) {
            // No manifest has the object.
            continue;
        }
        let Entry { owner, workload, namespace, .. } = first;
        let api = if owner == "CronJob" { "batch/v1" } else { "apps/v1" };
        let patch = json!({
            "apiVersion": api, "kind": owner, "metadata": { "name": workload, "namespace": namespace }, "spec": spec,
        });
        patches.push(json!({
            "target": { "kind": owner, "name": workload, "namespace": namespace },
            "patch": yaml(&patch)?,
        }));
    }
    let component = json!({
        "apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "patches": patches,
    });
    Ok(format!(
        "# A kustomize component: list its directory under `components` of a kustomization.\n{comments}{}",
        yaml(&component)?
    ))
}

/// Values for Helm charts, a YAML document per workload: `resources`, or one `resources` per container if there are several.
pub(super) fn helm(report: &Report) -> Result<String> {
    let mut text = String::new();
    for entries in workloads(report) {
        let patched = Patched::new(entries);
        text += &patched.comments;
        let is_in_values = patched.in_manifests != Some(false);
        let Some(first) = patched.entries.first().filter(|_| is_in_values) else { continue };
        if first.namespace.is_empty() || patched.refusal.is_some() {
            text += &not_patchable(&patched);
            continue;
        }
        let values = match patched.entries.as_slice() {
            [only] => json!({ "resources": resources(only) }),
            several => {
                let of_one =
                    |entry: &&Entry| (entry.container.clone(), json!({ "resources": resources(entry) }));
                Value::Object(several.iter().map(of_one).collect())
            }
        };
        text += &format!("---\n# {} {}\n{}", plain(&first.owner), plain(&first.title()), yaml(&values)?);
    }
    Ok(text)
}

pub(super) fn yaml(value: &impl serde::Serialize) -> Result<String> {
    serde_saphyr::to_string(value).context("cannot write YAML")
}

/// The entries of each workload.
fn workloads(report: &Report) -> impl Iterator<Item = &[Entry]> {
    report.recommendations.chunk_by(Entry::is_of_one_workload)
}

/// What can be applied to a workload.
struct Patched<'e> {
    /// The containers that its template has.
    entries: Vec<&'e Entry>,
    /// Comments about the other containers, and about who manages the object.
    comments: String,
    /// Whether manifests or values have a managed workload; `None` if nobody is known to manage it.
    in_manifests: Option<bool>,
    /// Requests and limits of the whole pod, if they must change.
    pod_resources: Option<&'e Quantities>,
    /// Why the cluster would refuse the pods.
    refusal: Option<&'e str>,
}

impl<'e> Patched<'e> {
    fn new(all: &'e [Entry]) -> Self {
        let own = all.iter().find_map(|entry| entry.pod_resources.as_ref());
        let mut patched = Self {
            entries: Vec::new(),
            comments: String::new(),
            in_manifests: None,
            pod_resources: own.filter(|own| own.recommended != own.current).map(|own| &own.quantities),
            refusal: Entry::refusal(all),
        };
        for entry in all {
            let mut is_in_template = true;
            for warning in &entry.warnings {
                let mut about = plain(&entry.title());
                match &warning.kind {
                    WarningKind::Placement(Placement::ManagedObject { in_manifests, .. }) => {
                        patched.in_manifests = Some(*in_manifests);
                    }
                    WarningKind::Placement(Placement::NotInTemplate { .. }) => {
                        is_in_template = false;
                        about = format!("{about} {}", plain(&entry.container));
                    }
                    WarningKind::Placement(Placement::PerhapsInjected { .. }) => {
                        about = format!("{about} {}", plain(&entry.container));
                    }
                    _ => continue,
                }
                patched.comments += &format!("# {about}: {}\n", plain(&warning.text));
            }
            if is_in_template {
                patched.entries.push(entry);
            }
        }
        patched
    }

    /// What a patch changes of the pod template.
    fn pod_spec(&self) -> Map<String, Value> {
        let list = |init: bool| -> Vec<Value> {
            let of_kind = self.entries.iter().filter(|entry| (entry.role != Role::App) == init);
            of_kind.map(|entry| json!({ "name": entry.container, "resources": resources(entry) })).collect()
        };
        let mut pod = Map::new();
        for (field, containers) in [("initContainers", list(true)), ("containers", list(false))] {
            if !containers.is_empty() {
                pod.insert(field.to_owned(), containers.into());
            }
        }
        if let Some(own) = self.pod_resources {
            pod.insert("resources".to_owned(), json!(own));
        }
        pod
    }
}

fn resize_command(report: &Report, first: &Entry, patched: &Patched<'_>) -> String {
    let entries = &patched.entries;
    let title = plain(&first.title());
    let pod = report.objects.bare_pods.get(&(first.namespace.clone(), first.workload.clone()));
    let resized = match pod {
        _ if !are_names(entries) || patched.refusal.is_some() => return not_patchable(patched),
        _ if patched.pod_resources.is_some() => {
            Err(vec!["its containers do not fit spec.resources, which a resize cannot change".to_owned()])
        }
        None => Err(vec![
            "Kubernetes 1.33 and later can resize it in place: use a kubeconfig for a command".to_owned(),
        ]),
        Some(pod) => resize::resize(entries, pod),
    };
    match resized {
        Ok(resize::Resize { spec, notes }) => {
            let notes: String = notes.iter().map(|note| format!("# {title}: {}\n", plain(note))).collect();
            let patch = json!({ "spec": spec });
            let is_known = pod.is_some_and(|pod| pod.version.is_some());
            let condition = if is_known { "" } else { "# on Kubernetes 1.33 and later: " };
            let (namespace, pod) = (&first.namespace, &first.workload);
            format!(
                "{notes}{condition}kubectl -n {namespace} patch pod/{pod} --subresource resize --type strategic --patch '{patch}'\n"
            )
        }
        Err(reasons) => {
            format!("# {title}: cannot be patched: bare pod; {}\n", plain(&reasons.join("; ")))
        }
    }
}

fn not_patchable(patched: &Patched<'_>) -> String {
    let entries = &patched.entries;
    let Some(first) = entries.first() else { return String::new() };
    if let Some(refusal) = patched.refusal {
        let (title, refusal) = (plain(&first.title()), plain(refusal));
        return format!("# {title}: cannot be patched: the cluster would refuse its pods: {refusal}\n");
    }
    let why = match first.owner.as_str() {
        _ if first.namespace.is_empty() => {
            "no object of Kubernetes; -o patch has commands for hosts".to_owned()
        }
        "" => "unknown owner".to_owned(),
        "Pod" if are_names(entries) => "bare pod".to_owned(),
        owner if has_pod_template(owner) || owner == "Pod" => "invalid name".to_owned(),
        "StaticPod" => format!(
            "static pod; edit its manifest on each node that has it (in the kubelet's staticPodPath, often /etc/kubernetes/manifests): {}",
            values(entries)
        ),
        "Job" => format!(
            "the pod template of a Job never changes; set the values where the next Job is made: {}",
            values(entries)
        ),
        owner => format!(
            "the object of kind {} has a template of its own; set the values there, or where it is made: {}",
            plain(owner),
            values(entries)
        ),
    };
    format!("# {}: cannot be patched: {why}\n", plain(&first.title()))
}

/// The values of containers, to be set by hand.
fn values(entries: &[&Entry]) -> String {
    let each =
        entries.iter().map(|entry| format!("{}: {}", plain(&entry.container), json!(entry.quantities)));
    each.collect::<Vec<_>>().join("; ")
}

/// `resources` of a container. A CPU limit that is to be removed is null, because an absent field would keep it.
fn resources(entry: &Entry) -> Value {
    let mut value = json!(entry.quantities);
    if entry.current.cpu_limit.is_some() && entry.recommended.cpu_limit.is_none() {
        value["limits"]["cpu"] = Value::Null;
    }
    value
}

/// Whether all names are valid in Kubernetes. Such names need no quotes and are no options.
fn are_names(entries: &[&Entry]) -> bool {
    let names = entries.iter().flat_map(|entry| [&entry.namespace, &entry.workload, &entry.container]);
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_name = |name: &str| {
        name.len() <= 253
            && name.chars().all(is_inner)
            && is_outer(name.chars().next())
            && is_outer(name.chars().next_back())
    };
    !CommandRule::PlainNames.is_on() || names.into_iter().all(|name| is_name(name))
}

/// The `spec` of a patch; `None` if there is nothing to patch, the workload has no pod template, a name is invalid, or the
/// cluster would refuse the pods.
fn patchable(patched: &Patched<'_>) -> Option<Value> {
    let first = patched.entries.first()?;
    if !are_names(&patched.entries) || patched.refusal.is_some() {
        return None;
    }
    let template = json!({ "template": { "spec": patched.pod_spec() } });
    match first.owner.as_str() {
        "CronJob" => Some(json!({ "jobTemplate": { "spec": template } })),
        owner => has_pod_template(owner).then_some(template),
    }
}

/// Whether a patch of the pod template of this kind changes its pods.
fn has_pod_template(owner: &str) -> bool {
    matches!(owner, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "CronJob")
}

/// What a patch of these containers changes of the pod template.
#[cfg(test)]
pub(super) fn pod_spec(entries: &[Entry]) -> Map<String, Value> {
    Patched::new(entries).pod_spec()
}
