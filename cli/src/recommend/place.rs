//! Places recommendations in the objects of the cluster: which containers a pod template has, who manages the object, which pods
//! run, and which workloads are gone.

use std::collections::{BTreeMap, BTreeSet};

use snug_sizing::workload::Role;

use super::{
    injectors::Injector,
    placement::Placement,
    report::{Entry, Report, Skipped, Warning, WarningKind},
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

    /// Places the recommendations in the objects of the cluster, or without a cluster by what is known of names.
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
            if let Some(why) = absent(first, &objects) {
                self.skipped.extend(entries.iter().map(|entry| skipped(entry, &why)));
                continue;
            }
            let names = [&*first.namespace, &*first.owner, &*first.workload];
            let running = pods.get(&names).and_then(|pods| running(first, pods, &objects));
            let template = objects.templates.get(&names.map(str::to_owned));
            let manager = template.and_then(|template| template.manager.clone());
            for entry in &mut entries {
                entry.replicas = running.unwrap_or(entry.replicas);
                let role = template.map(|template| template.containers.get(&entry.container).copied());
                if let Some(Some(role)) = role {
                    entry.role = role;
                }
                let is_seen = seen.contains(&entry.subject());
                if let Some(kind) = not_in_template(entry, role.map(|role| role.is_some()), is_seen) {
                    entry.warnings.push(warning(kind));
                }
                let left_out = snapshot.other_windows_of(entry.subject());
                if !left_out.is_empty() {
                    entry
                        .warnings
                        .push(warning(Placement::OtherWindows { left_out_millis: left_out.to_vec() }));
                }
            }
            if let (Some(manager), Some(first), true) =
                (manager, entries.first_mut(), CommandRule::Managed.is_on())
            {
                let kind = Placement::ManagedObject {
                    manager: manager.to_string(),
                    change: manager.source(),
                    in_manifests: !manager.is_operator(),
                };
                first.warnings.push(warning(kind));
            }
            placed.append(&mut entries);
        }
        self.recommendations = placed;
        self.skipped.sort_by(|one, other| names(one).cmp(&names(other)));
        self.objects = objects;
    }
}

fn warning(placement: Placement) -> Warning {
    WarningKind::Placement(placement).into()
}

fn skipped(entry: &Entry, why: &str) -> Skipped {
    let Entry { namespace, workload, container, .. } = entry.clone();
    Skipped { namespace, workload, container, why: why.to_owned(), oom_kills: 0 }
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
fn absent(entry: &Entry, objects: &WorkloadObjects) -> Option<String> {
    if !CommandRule::Gone.is_on() {
        return None;
    }
    let is_listed = objects.listed.contains(&entry.owner);
    let name = [&entry.namespace, &entry.owner, &entry.workload].map(Clone::clone);
    (is_listed && !objects.templates.contains_key(&name))
        .then(|| format!("the cluster has no {} of this name now", entry.owner))
}

/// How many of the workload's pods run; `None` if none of them is known to the cluster.
fn running(entry: &Entry, pods: &BTreeSet<&str>, objects: &WorkloadObjects) -> Option<u64> {
    let known = objects.running.as_ref().filter(|_| CommandRule::LivingReplicas.is_on())?;
    let is_running = |pod: &&&str| known.contains(&(entry.namespace.clone(), (**pod).to_owned()));
    Some(pods.iter().filter(is_running).count() as u64).filter(|running| *running > 0)
}

/// Why a patch of the pod template cannot have the container. `in_template` is `None` where the template is unknown, and
/// `is_seen` whether the source saw the container's pods.
fn not_in_template(entry: &Entry, in_template: Option<bool>, is_seen: bool) -> Option<Placement> {
    let injector = Injector::of(&entry.container).filter(|_| !entry.namespace.is_empty());
    let annotations = injector.map(|injector| injector.annotations(&entry.quantities)).unwrap_or_default();
    let setting = injector.map_or("", Injector::setting);
    let is_absent = match in_template {
        Some(in_template) => CommandRule::TemplateOnly.is_on() && !in_template,
        None if !CommandRule::Injected.is_on() => false,
        // Metrics show that it is a native sidecar, which templates and webhooks both have.
        None if entry.role == Role::Sidecar && !is_seen => {
            let injector = injector?.name;
            return Some(Placement::PerhapsInjected { injector, annotations, setting });
        }
        None => injector.is_some(),
    };
    is_absent.then(|| Placement::NotInTemplate { injector: injector.map(|it| it.name), annotations, setting })
}
