//! VerticalPodAutoscaler objects that change nothing: mode `Off`, with bounds from the risk curve, and start-up boosts.

use anyhow::Result;
use serde_json::{Map, Value, json};
use snug_sizing::workload::{Resources, Role};

use super::{Patched, are_names, not_patchable, workloads, yaml};
use crate::{
    columns::plain,
    recommend::report::{Entry, Quantities, Report, WarningKind},
};

/// Kinds that a VerticalPodAutoscaler targets, and where their API is.
const TARGETS: [(&str, &str); 6] = [
    ("Deployment", "apps/v1"),
    ("StatefulSet", "apps/v1"),
    ("DaemonSet", "apps/v1"),
    ("ReplicaSet", "apps/v1"),
    ("CronJob", "batch/v1"),
    ("Job", "batch/v1"),
];
const HEAD: &str = "\
# VerticalPodAutoscaler objects in mode Off: they recommend, and change no running pod. minAllowed and maxAllowed are Snug's requests
# at four times and at a quarter of the asked risk.
";
const BOOST: &str = "\
# startupBoost is measured: usage above the request after starts. It also works in mode Off: pods get more CPU while they start. It
# needs VerticalPodAutoscaler 1.5 or later with the feature gate CPUStartupBoost; without it, remove the field.
";

/// An object for each workload.
pub(in crate::recommend) fn vpa(report: &Report) -> Result<String> {
    let mut text = HEAD.to_owned();
    if report.recommendations.iter().any(|entry| boost(entry).is_some()) {
        text += BOOST;
    }
    for entries in workloads(report) {
        let mut patched = Patched::new(entries);
        let Some(first) = entries.first() else { continue };
        let title = plain(&first.title());
        let other =
            entries.iter().flat_map(|entry| &entry.warnings).find_map(|warning| match &warning.kind {
                WarningKind::Managed { kind: "VerticalPodAutoscaler", name } => Some(name),
                _ => None,
            });
        if let Some(other) = other {
            text += &format!("# {title}: has the VerticalPodAutoscaler {} already\n", plain(other));
            continue;
        }
        // Bounds are of no use for a pod that the cluster refuses, and a VerticalPodAutoscaler has none for init containers.
        patched.entries.retain(|entry| entry.role == Role::App);
        let target = TARGETS.iter().find(|(kind, _)| *kind == first.owner);
        let is_object = !first.namespace.is_empty() && are_names(&patched.entries);
        let Some((kind, api)) = target.filter(|_| is_object && patched.refusal.is_none()) else {
            text += &not_patchable(&Patched::new(entries));
            continue;
        };
        if patched.entries.is_empty() {
            continue;
        }
        let is_shared = report.recommendations.iter().any(|other| {
            (&other.namespace, &other.workload) == (&first.namespace, &first.workload)
                && other.owner != first.owner
        });
        let name = if is_shared {
            format!("{}-{}", first.workload, kind.to_lowercase())
        } else {
            first.workload.clone()
        };
        let policies: Vec<Value> = patched.entries.iter().map(|entry| policy(entry)).collect();
        let object = json!({
            "apiVersion": "autoscaling.k8s.io/v1",
            "kind": "VerticalPodAutoscaler",
            "metadata": { "name": name, "namespace": first.namespace },
            "spec": {
                "targetRef": { "apiVersion": api, "kind": kind, "name": first.workload },
                "updatePolicy": { "updateMode": "Off" },
                "resourcePolicy": { "containerPolicies": policies },
            },
        });
        text += &format!("---\n{}", yaml(&object)?);
    }
    Ok(text)
}

/// The policy of a container.
fn policy(entry: &Entry) -> Value {
    let recommended = entry.recommended;
    let has_limit = recommended.cpu_limit.is_some() || recommended.memory_limit.is_some();
    let mut policy = Map::new();
    policy.insert("containerName".to_owned(), entry.container.clone().into());
    policy.insert("controlledResources".to_owned(), json!(["cpu", "memory"]));
    // Limits follow requests in proportion: so only where both are the same.
    let is_equal = has_limit
        && recommended.memory_request == recommended.memory_limit
        && (recommended.cpu_limit.is_none() || recommended.cpu_request == recommended.cpu_limit);
    let values = if is_equal { "RequestsAndLimits" } else { "RequestsOnly" };
    policy.insert("controlledValues".to_owned(), values.into());
    let [low, high] = bounds(entry);
    for (field, bound) in [("minAllowed", low), ("maxAllowed", high)] {
        let requests = Quantities::from(bound).requests;
        policy.insert(field.to_owned(), json!(requests));
    }
    if let Some((factor, seconds)) = boost(entry) {
        let boost = json!({ "cpu": { "type": "Factor", "factor": factor, "durationSeconds": seconds } });
        policy.insert("startupBoost".to_owned(), boost);
    }
    policy.into()
}

/// Lower and upper bounds, with the recommended values between them.
fn bounds(entry: &Entry) -> [Resources; 2] {
    let recommended = entry.recommended;
    let Some([loose, strict]) = entry.bounds else { return [recommended, recommended] };
    let pick = |choose: fn(u64, u64) -> u64, other: Resources| {
        let one = |value: Option<u64>, other: Option<u64>| {
            value.map(|value| other.map_or(value, |it| choose(value, it)))
        };
        Resources {
            cpu_request: one(recommended.cpu_request, other.cpu_request),
            memory_request: one(recommended.memory_request, other.memory_request),
            ..Resources::default()
        }
    };
    [pick(u64::min, loose), pick(u64::max, strict)]
}

/// Factor and seconds of a measured start-up, if they fit into the fields of the object.
fn boost(entry: &Entry) -> Option<(i32, i32)> {
    let start_up = entry.start_up.filter(|it| it.factor > 1)?;
    Some((i32::try_from(start_up.factor).ok()?, i32::try_from(start_up.seconds).ok()?))
}
