//! Output formats that apply recommendations: patches and values.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use snug_sizing::workload::Role;

use super::report::{Entry, Report};
use crate::columns::plain;

/// A kubectl command per workload, for a shell.
pub(super) fn patch(report: &Report) -> String {
    let command = |entries: &[Entry]| {
        let first = entries.first()?;
        let spec = patchable(entries)?;
        Some(format!(
            "kubectl -n {} patch {}/{} --type strategic --patch '{}'\n",
            first.namespace,
            first.owner.to_lowercase(),
            first.workload,
            json!({ "spec": spec }),
        ))
    };
    workloads(report).map(|entries| command(entries).unwrap_or_else(|| not_patchable(entries))).collect()
}

/// A kustomize component with a patch per workload.
pub(super) fn kustomize(report: &Report) -> Result<String> {
    let mut patches = Vec::new();
    let mut comments = String::new();
    for entries in workloads(report) {
        let (Some(first), Some(spec)) = (entries.first(), patchable(entries)) else {
            comments += &not_patchable(entries);
            continue;
        };
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
        let Some(first) = entries.first() else { continue };
        let values = match entries {
            [only] => json!({ "resources": resources(only) }),
            several => {
                let of_one =
                    |entry: &Entry| (entry.container.clone(), json!({ "resources": resources(entry) }));
                Value::Object(several.iter().map(of_one).collect())
            }
        };
        text += &format!("---\n# {} {}\n{}", plain(&first.owner), plain(&first.title()), yaml(&values)?);
    }
    Ok(text)
}

/// Serializes a value as YAML.
pub(super) fn yaml(value: &impl serde::Serialize) -> Result<String> {
    serde_saphyr::to_string(value).context("cannot write YAML")
}

/// The entries of each workload.
fn workloads(report: &Report) -> impl Iterator<Item = &[Entry]> {
    report.recommendations.chunk_by(Entry::is_of_one_workload)
}

fn not_patchable(entries: &[Entry]) -> String {
    let Some(first) = entries.first() else { return String::new() };
    let why = match first.owner.as_str() {
        "Pod" => "bare pod".to_owned(),
        "" => "unknown owner".to_owned(),
        owner if has_pod_template(owner) => "invalid name".to_owned(),
        owner => format!("kind {}", plain(owner)),
    };
    format!("# {}: cannot be patched: {why}\n", plain(&first.title()))
}

/// `resources` of a container. A CPU limit that is to be removed is null, because an absent field would keep it.
fn resources(entry: &Entry) -> Value {
    let mut value = json!(entry.quantities);
    if entry.current.cpu_limit.is_some() && entry.recommended.cpu_limit.is_none() {
        value["limits"]["cpu"] = Value::Null;
    }
    value
}

/// The `spec` of a patch; `None` if the workload has no pod template, or a name is invalid in Kubernetes.
fn patchable(entries: &[Entry]) -> Option<Value> {
    let first = entries.first()?;
    let names = entries.iter().flat_map(|entry| [&entry.namespace, &entry.workload, &entry.container]);
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
    };
    if !names.into_iter().all(|name| is_name(name)) {
        return None;
    }
    let list = |init: bool| -> Vec<Value> {
        let of_kind = entries.iter().filter(|entry| (entry.role != Role::App) == init);
        of_kind.map(|entry| json!({ "name": entry.container, "resources": resources(entry) })).collect()
    };
    let mut pod = Map::new();
    for (field, containers) in [("initContainers", list(true)), ("containers", list(false))] {
        if !containers.is_empty() {
            pod.insert(field.to_owned(), containers.into());
        }
    }
    let template = json!({ "template": { "spec": pod } });
    match first.owner.as_str() {
        "CronJob" => Some(json!({ "jobTemplate": { "spec": template } })),
        owner => has_pod_template(owner).then_some(template),
    }
}

/// Whether a patch of the pod template of this kind changes its pods.
fn has_pod_template(owner: &str) -> bool {
    matches!(owner, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "CronJob")
}
