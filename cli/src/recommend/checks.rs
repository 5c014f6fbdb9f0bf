//! Fits recommendations to what the cluster allows, and adds warnings about the rest.

use std::collections::{BTreeMap, BTreeSet};

use snug_sizing::{
    HOUR,
    constraints::{ClusterLimits, Finding, FindingKind, LimitType, PodContainer, PodSpec, Rollout, fit},
    evidence::Evidence,
    workload::{Resources, Role},
};

use super::report::{Entry, InTemplate, PodResources, Quantities, Report, Warning, WarningKind};
use crate::{
    advice::CommandRule,
    cluster::{ClusterConstraints, LivePod},
    evidence::Snapshot,
};

impl Report {
    /// Fits all recommendations to the constraints of the cluster, and adds warnings.
    pub fn check(&mut self, snapshot: &Snapshot, constraints: &ClusterConstraints) {
        let key = |workload: [&str; 3]| workload.map(str::to_owned);
        let mut workloads: BTreeMap<[String; 3], Vec<&Evidence>> = BTreeMap::new();
        for evidence in snapshot.evidence() {
            let it = &evidence.workload;
            workloads.entry(key([&it.namespace, &it.owner, &it.name])).or_default().push(evidence);
        }
        for entries in self.recommendations.chunk_by_mut(Entry::is_of_one_workload) {
            let Some(names) = entries.first().map(|entry| key(entry.workload_names())) else { continue };
            let evidence = workloads.get(&names);
            let template = self.objects.templates.get(&names);
            let rollout = template.map(|template| template.rollout).unwrap_or_default();
            check(entries, evidence.map_or(&[], Vec::as_slice), constraints, rollout);
        }
    }
}

/// Fits the containers of one workload. `evidence` is that of all its containers, `rollout` how its pods are replaced.
fn check(entries: &mut [Entry], evidence: &[&Evidence], constraints: &ClusterConstraints, rollout: Rollout) {
    let Some(first) = entries.first() else { return };
    let namespace = first.namespace.clone();
    let owner = (first.owner.clone(), first.workload.clone());
    let replicas = entries.iter().map(|entry| entry.replicas).max().unwrap_or(0);
    let pods: BTreeSet<&str> =
        evidence.iter().flat_map(|evidence| evidence.pods.keys().map(String::as_str)).collect();
    let limits = constraints.limits(&namespace, &owner, &pods, (replicas, rollout));
    let now = current(entries, evidence, constraints.newest_pod(&namespace, &pods));
    let proposed = proposed(&now, entries);
    let mut fitted = proposed.clone();
    let found = fit(&now, &mut fitted, &limits);
    for entry in &mut *entries {
        let values = |pod: &PodSpec| {
            let mut named = pod.containers.iter().filter(|it| it.is_advised && it.name == entry.container);
            named.next().map(|container| container.values)
        };
        if let (Some(before), Some(after)) = (values(&proposed), values(&fitted)) {
            change(entry, before, after);
        }
        entry.pod_resources =
            now.pod.zip(fitted.pod).map(|(current, fitted)| PodResources::new(current, fitted));
    }
    warn(entries, &fitted, found);
    fit_injected(entries, &now, &limits);
    let managed = constraints.managed.iter().filter(|one| one.namespace == namespace && one.target == owner);
    for one in managed {
        let kind = WarningKind::Managed { kind: one.by.0, name: one.by.1.clone() };
        if let Some(entry) = entries.iter_mut().find(|entry| one.manages(&entry.container)) {
            entry.warnings.push(kind.into());
        }
    }
}

/// Fits the containers that a patch of the template cannot size, each as if its annotations were set: LimitRanges apply to it, but
/// what the pod as a whole lacks is for the containers of the template.
fn fit_injected(entries: &mut [Entry], now: &PodSpec, limits: &ClusterLimits) {
    let limits = ClusterLimits {
        ranges: limits.ranges.iter().filter(|it| it.limit_type == LimitType::Container).cloned().collect(),
        ..ClusterLimits::default()
    };
    for entry in entries.iter_mut().filter(|entry| !is_adjustable(entry)) {
        let mut alone = now.clone();
        let Some(at) = alone.containers.iter().position(|container| container.name == entry.container) else {
            continue;
        };
        let Some(container) = alone.containers.get_mut(at) else { continue };
        (container.values, container.is_advised) = (wanted(entry), true);
        let before = container.values;
        let found = fit(now, &mut alone, &limits).into_iter().filter(|it| it.container == Some(at));
        entry.warnings.extend(found.filter_map(|it| match it.kind {
            FindingKind::Violation(violation) => Some(WarningKind::OfAnnotations(violation).into()),
            FindingKind::Adjusted(adjusted) => Some(WarningKind::Adjusted(adjusted).into()),
            FindingKind::Scaled(_) => None,
        }));
        if let Some(container) = alone.containers.get(at) {
            change(entry, before, container.values);
        }
    }
}

/// Whether a patch can give the container other values.
fn is_adjustable(entry: &Entry) -> bool {
    entry.in_template != InTemplate::No || !CommandRule::InjectedStays.is_on()
}

/// The pod of today: as the cluster has it, with the current values of the recommendations, or as the usage history knows it.
fn current(entries: &[Entry], evidence: &[&Evidence], live: Option<&LivePod>) -> PodSpec {
    let advised = |entry: &Entry| PodContainer {
        name: entry.container.clone(),
        role: entry.role,
        values: entry.current,
        is_advised: is_adjustable(entry),
    };
    let mut pod = match live {
        Some(live) if !live.spec.containers.is_empty() => live.spec.clone(),
        other => {
            let spec = other.map(|live| live.spec.clone()).unwrap_or_default();
            PodSpec { containers: recent(evidence), ..spec }
        }
    };
    for container in &mut pod.containers {
        if let Some(entry) = entries.iter().find(|entry| entry.container == container.name) {
            *container = PodContainer { role: container.role, ..advised(entry) };
        }
    }
    if live.is_none_or(|live| live.spec.containers.is_empty()) {
        let known: BTreeSet<String> = pod.containers.iter().map(|container| container.name.clone()).collect();
        pod.containers.extend(entries.iter().filter(|entry| !known.contains(&entry.container)).map(advised));
        pod.containers.sort_by_key(|container| container.role == Role::App);
    }
    pod.pod = pod.pod.or_else(|| evidence.iter().find_map(|evidence| evidence.container.pod_resources));
    pod
}

/// The containers that the usage history saw within an hour of the newest: older ones may have been removed from the template.
fn recent(evidence: &[&Evidence]) -> Vec<PodContainer> {
    let newest = evidence.iter().map(|evidence| evidence.container.seen).max().unwrap_or(0);
    let mut found: Vec<PodContainer> = Vec::new();
    for container in evidence.iter().map(|evidence| &evidence.container) {
        let is_known = found.iter().any(|known| known.name == container.name);
        if !is_known && container.seen > 0 && newest - container.seen <= HOUR {
            let (name, role, values) = (container.name.clone(), container.role, container.current);
            found.push(PodContainer { name, role, values, is_advised: false });
        }
    }
    found
}

/// The pod with the recommendations. What they leave out stays, except for CPU limits: those are removed.
fn proposed(now: &PodSpec, entries: &[Entry]) -> PodSpec {
    let mut pod = now.clone();
    for container in pod.containers.iter_mut().filter(|container| container.is_advised) {
        let Some(entry) = entries.iter().find(|entry| entry.container == container.name) else { continue };
        container.values = wanted(entry);
    }
    pod
}

/// The recommended values, with the current ones where there are none.
fn wanted(entry: &Entry) -> Resources {
    let (current, recommended) = (entry.current, entry.recommended);
    Resources {
        cpu_request: recommended.cpu_request.or(current.cpu_request),
        cpu_limit: recommended.cpu_limit,
        memory_request: recommended.memory_request.or(current.memory_request),
        memory_limit: recommended.memory_limit.or(current.memory_limit),
    }
}

/// Takes over the values that were changed.
fn change(entry: &mut Entry, before: Resources, after: Resources) {
    let values = &mut entry.recommended;
    for (value, before, after) in [
        (&mut values.cpu_request, before.cpu_request, after.cpu_request),
        (&mut values.cpu_limit, before.cpu_limit, after.cpu_limit),
        (&mut values.memory_request, before.memory_request, after.memory_request),
        (&mut values.memory_limit, before.memory_limit, after.memory_limit),
    ] {
        if before != after {
            *value = after;
        }
    }
    entry.quantities = Quantities::from(entry.recommended);
}

/// Adds warnings to the entries that they are about; those about the pod or another container to the first entry.
fn warn(entries: &mut [Entry], pod: &PodSpec, found: Vec<Finding>) {
    for Finding { container, kind } in found {
        let kind = match kind {
            FindingKind::Violation(violation) => WarningKind::Violation(violation),
            FindingKind::Adjusted(adjusted) => WarningKind::Adjusted(adjusted),
            FindingKind::Scaled(scaled) => WarningKind::Autoscaled(scaled),
        };
        let name = container.and_then(|at| pod.containers.get(at)).map(|container| container.name.as_str());
        let own = name.and_then(|name| entries.iter().position(|entry| entry.container == name));
        let warning = match (own, name) {
            (None, Some(name)) => Warning::about(name, kind),
            _ => Warning::from(kind),
        };
        if let Some(entry) = entries.get_mut(own.unwrap_or(0)) {
            entry.warnings.push(warning);
        }
    }
}

#[cfg(test)]
mod tests;
