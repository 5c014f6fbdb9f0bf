//! Places recommendations in the objects of the cluster: which containers a pod template has, who manages the object, which pods
//! run, and which workloads are gone.

use std::collections::{BTreeMap, BTreeSet};

use snug_sizing::workload::Role;

use super::{
    injectors::Injector,
    placement::Placement,
    report::{Entry, InTemplate, Report, SkipReason, Skipped, Warning, WarningKind},
};
use crate::{
    advice::CommandRule,
    cluster::{ObjectsQuery, WorkloadObjects},
    evidence::Snapshot,
};

impl Report {
    /// What has to be known of the objects in the cluster.
    pub fn objects_query(&self) -> ObjectsQuery {
        let pods = self.recommendations.iter().filter(|entry| entry.owner == "Pod");
        ObjectsQuery {
            kinds: self.recommendations.iter().map(|entry| entry.owner.clone()).collect(),
            bare_pods: pods.map(|entry| (entry.namespace.clone(), entry.workload.clone())).collect(),
        }
    }

    /// Places the recommendations in the objects of the cluster, or without a cluster by what is known of names: which workloads
    /// there are, how many of their pods run, and which containers their templates have.
    pub fn place(&mut self, snapshot: &Snapshot, objects: WorkloadObjects) {
        let mut pods: BTreeMap<[&str; 3], BTreeSet<&str>> = BTreeMap::new();
        // Containers of pods that the source saw: their images are known.
        let mut seen: BTreeSet<[&str; 4]> = BTreeSet::new();
        for evidence in snapshot.evidence() {
            let workload = &evidence.workload;
            let names = [&*workload.namespace, &*workload.owner, &*workload.name];
            if !evidence.container.image.is_empty() {
                let [namespace, owner, name] = names;
                seen.insert([namespace, owner, name, &*evidence.container.name]);
            }
            pods.entry(names).or_default().extend(evidence.pods.keys().map(String::as_str));
        }
        let mut placed = Vec::new();
        for mut entries in by_workload(std::mem::take(&mut self.recommendations)) {
            let Some(first) = entries.first() else { continue };
            if let Some(reason) = absent(first, &objects) {
                self.skipped.extend(entries.iter().map(|entry| skipped(entry, &reason)));
                continue;
            }
            let names = first.workload_names();
            let running = pods.get(&names).and_then(|pods| running(first, pods, &objects));
            let template = objects.templates.get(&names.map(str::to_owned));
            for entry in &mut entries {
                entry.replicas = running.unwrap_or(entry.replicas);
                let role = template.map(|template| template.containers.get(&entry.container).copied());
                if let Some(Some(role)) = role {
                    entry.role = role;
                }
                let is_seen = seen.contains(&entry.subject());
                entry.in_template = in_template(entry, role.map(|role| role.is_some()), is_seen);
            }
            placed.append(&mut entries);
        }
        self.recommendations = placed;
        self.skipped.sort_by(|one, other| names(one).cmp(&names(other)));
        self.objects = objects;
    }

    /// Adds warnings about the places of the recommendations, with the values that they have at last.
    pub fn remark(&mut self, snapshot: &Snapshot) {
        for entries in self.recommendations.chunk_by_mut(Entry::is_of_one_workload) {
            for entry in &mut *entries {
                entry.warnings.extend(not_in_template(entry).map(warning));
                let left_out = snapshot.other_windows_of(entry.subject());
                if !left_out.is_empty() {
                    entry
                        .warnings
                        .push(warning(Placement::OtherWindows { left_out_millis: left_out.to_vec() }));
                }
            }
            let Some(first) = entries.first_mut().filter(|_| CommandRule::Managed.is_on()) else { continue };
            let template = self.objects.templates.get(&first.workload_names().map(str::to_owned));
            if let Some(manager) = template.and_then(|template| template.manager.as_ref()) {
                let kind = Placement::ManagedObject {
                    manager: manager.to_string(),
                    change: manager.source(),
                    in_manifests: !manager.is_operator(),
                };
                first.warnings.push(warning(kind));
            }
        }
    }
}

fn warning(placement: Placement) -> Warning {
    WarningKind::Placement(placement).into()
}

fn skipped(entry: &Entry, reason: &SkipReason) -> Skipped {
    let Entry { namespace, workload, container, .. } = entry.clone();
    Skipped { cluster: String::new(), namespace, workload, container, reason: reason.clone(), oom_kills: 0 }
}

fn names(skipped: &Skipped) -> [&str; 3] {
    [&skipped.namespace, &skipped.workload, &skipped.container]
}

fn by_workload(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|last| last.is_of_one_workload(&entry)) => {
                group.push(entry);
            }
            _ => groups.push(vec![entry]),
        }
    }
    groups
}

/// Why the workload gets no advice: the cluster does not have it. `None` if it does, or if that is unknown.
fn absent(entry: &Entry, objects: &WorkloadObjects) -> Option<SkipReason> {
    if !CommandRule::Gone.is_on() {
        return None;
    }
    let reason = || SkipReason::Absent { owner: entry.owner.clone() };
    if entry.owner == "Pod" {
        let name = (entry.namespace.clone(), entry.workload.clone());
        let is_gone = objects.running.is_some() && !objects.bare_pods.contains_key(&name);
        return is_gone.then(reason);
    }
    let is_listed = objects.listed.contains(&entry.owner);
    let name = [&entry.namespace, &entry.owner, &entry.workload].map(Clone::clone);
    (is_listed && !objects.templates.contains_key(&name)).then(reason)
}

/// How many of the workload's pods run; `None` if none of them is known to the cluster.
fn running(entry: &Entry, pods: &BTreeSet<&str>, objects: &WorkloadObjects) -> Option<u64> {
    let known = objects.running.as_ref().filter(|_| CommandRule::LivingReplicas.is_on())?;
    let is_running = |pod: &&&str| known.contains(&(entry.namespace.clone(), (**pod).to_owned()));
    Some(pods.iter().filter(is_running).count() as u64).filter(|running| *running > 0)
}

/// Whether a patch of the pod template can have the container. `by_template` is what the template says; `None` where it is
/// unknown. `is_seen` is whether the source saw the container's pods.
fn in_template(entry: &Entry, by_template: Option<bool>, is_seen: bool) -> InTemplate {
    let is_injected = || Injector::of(&entry.container).is_some() && !entry.namespace.is_empty();
    match by_template {
        Some(false) if CommandRule::TemplateOnly.is_on() => InTemplate::No,
        Some(_) => InTemplate::Yes,
        None if !CommandRule::Injected.is_on() || !is_injected() => InTemplate::Yes,
        // Metrics show that it is a native sidecar, which templates and webhooks both have.
        None if entry.role == Role::Sidecar && !is_seen => InTemplate::Perhaps,
        None => InTemplate::No,
    }
}

/// Why a patch of the pod template cannot have the container, or what to check before; `None` if nothing.
fn not_in_template(entry: &Entry) -> Option<Placement> {
    let injector = Injector::of(&entry.container).filter(|_| !entry.namespace.is_empty());
    let annotations = injector.map(|injector| injector.annotations(&entry.quantities)).unwrap_or_default();
    let setting = injector.map_or("", Injector::setting);
    match entry.in_template {
        InTemplate::Yes => None,
        InTemplate::Perhaps => {
            Some(Placement::PerhapsInjected { injector: injector?.name, annotations, setting })
        }
        InTemplate::No => {
            Some(Placement::NotInTemplate { injector: injector.map(|it| it.name), annotations, setting })
        }
    }
}
