//! Random clusters: containers of the template, injected ones and removed ones, managed objects, pods that run and are gone.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;
use snug_sizing::{
    constraints::Rollout,
    evidence::{Evidence, PodTotals},
    workload::{Container, Resources, Role, Workload},
};

use super::{entry, holds, recommended, report, resources, shell};
use crate::{
    advice::CommandRule,
    cluster::{Manager, TEMPLATED, Template, WorkloadObjects},
    evidence::Snapshot,
    recommend::{
        apply,
        injectors::Injector,
        report::{Entry, Report},
    },
};

/// Where a container of the pods comes from.
#[derive(Clone, Debug, PartialEq)]
enum ContainerSource {
    Template(Role),
    /// A webhook or an earlier template.
    Elsewhere,
}

#[derive(Clone, Debug)]
struct Workloads {
    kind: &'static str,
    /// By name.
    containers: BTreeMap<String, (ContainerSource, Resources, Resources)>,
    manager: Option<Manager>,
    exists: bool,
    /// Whether each pod runs.
    pods: Vec<bool>,
}

fn manager() -> impl Strategy<Value = Manager> {
    let name = || "[a-z]{1,8}".prop_map(String::from);
    prop_oneof![
        (name(), name()).prop_map(|(kind, name)| Manager::Operator { kind, name }),
        name().prop_map(|application| Manager::ArgoCd { application }),
        (prop::sample::select(vec!["HelmRelease", "Kustomization"]), name(), name())
            .prop_map(|(kind, namespace, name)| Manager::Flux { kind, namespace, name }),
        name().prop_map(|release| Manager::Helm { release }),
    ]
}

fn workload() -> impl Strategy<Value = Workloads> {
    let kind = prop::sample::select(TEMPLATED.map(|(kind, _)| kind).to_vec());
    let known = prop::sample::select(Injector::all_containers()).prop_map(str::to_owned);
    let name = prop_oneof![3 => "[a-d]".prop_map(String::from), 1 => known];
    let origin = prop_oneof![
        3 => Just(ContainerSource::Template(Role::App)),
        1 => Just(ContainerSource::Template(Role::Init)),
        1 => Just(ContainerSource::Template(Role::Sidecar)),
        2 => Just(ContainerSource::Elsewhere),
    ];
    let containers = prop::collection::btree_map(name, (origin, resources(), recommended()), 1..5);
    let pods = prop::collection::vec(any::<bool>(), 1..5);
    let is_there = prop::bool::weighted(0.8);
    (kind, containers, prop::option::of(manager()), is_there, pods).prop_map(
        |(kind, containers, manager, exists, pods)| Workloads { kind, containers, manager, exists, pods },
    )
}

/// The report of a command with a connection to the cluster, or without one.
fn placed(of: &Workloads, is_connected: bool) -> Report {
    let names = |container: &str| ["shop", of.kind, "web", container].map(str::to_owned);
    let mut snapshot = Snapshot::default();
    let mut entries = Vec::new();
    for (container, (_, current, recommended)) in &of.containers {
        let [namespace, owner, name, container] = names(container);
        let workload = Workload { namespace, owner, name, ..Workload::default() };
        let mut evidence =
            Evidence::new(workload, Container { name: container.clone(), ..Container::default() }, 100);
        evidence.pods = (0..of.pods.len()).map(|pod| (format!("web-{pod}"), PodTotals::default())).collect();
        snapshot.insert(evidence);
        let mut entry = entry(["shop", of.kind, "web", &container], *current, *recommended);
        entry.replicas = of.pods.len() as u64;
        entries.push(entry);
    }
    let mut objects = WorkloadObjects::default();
    if is_connected {
        objects.listed.insert(of.kind.to_owned());
        let running = of.pods.iter().enumerate().filter(|(_, runs)| **runs);
        objects.running = Some(running.map(|(pod, _)| ("shop".to_owned(), format!("web-{pod}"))).collect());
    }
    if is_connected && of.exists {
        let in_template = of.containers.iter().filter_map(|(name, (origin, ..))| match origin {
            ContainerSource::Template(role) => Some((name.clone(), *role)),
            ContainerSource::Elsewhere => None,
        });
        let template = Template {
            containers: in_template.collect(),
            manager: of.manager.clone(),
            rollout: Rollout::default(),
        };
        objects.templates.insert(["shop", of.kind, "web"].map(str::to_owned), template);
    }
    let mut report = report(entries);
    report.place(&snapshot, objects);
    report.remark(&snapshot);
    report
}

/// The containers of a patch by section.
fn sections(patch: &Value) -> BTreeSet<(String, String)> {
    let spec = &patch["spec"];
    let template = if spec["jobTemplate"].is_null() { spec } else { &spec["jobTemplate"]["spec"] };
    let pod = template["template"]["spec"].as_object().into_iter().flatten();
    let names = |(section, list): (&String, &Value)| -> Vec<(String, String)> {
        let all = list.as_array().into_iter().flatten();
        all.map(|one| (section.clone(), one["name"].as_str().unwrap_or_default().to_owned())).collect()
    };
    pod.flat_map(names).collect()
}

fn expected(of: &Workloads) -> BTreeSet<(String, String)> {
    let in_template = of.containers.iter().filter_map(|(name, (origin, ..))| match origin {
        ContainerSource::Template(Role::App) => Some(("containers".to_owned(), name.clone())),
        ContainerSource::Template(_) => Some(("initContainers".to_owned(), name.clone())),
        ContainerSource::Elsewhere => None,
    });
    in_template.collect()
}

#[test]
fn a_patch_has_the_containers_of_the_template_each_in_its_section() {
    let has = |of: &Workloads, wanted: bool| {
        of.containers.values().any(|(origin, ..)| (*origin == ContainerSource::Elsewhere) == wanted)
    };
    CommandRule::TemplateOnly.prove(
        &workload(),
        |of| of.exists && of.manager.is_none() && has(of, true),
        |of| {
            let report = placed(of, true);
            let script = apply::patch(&report);
            let patches = shell::patches(&script)?;
            let found: BTreeSet<_> = patches.iter().flat_map(|(.., patch)| sections(patch)).collect();
            holds(found == expected(of), || format!("{found:?} for {:?}", expected(of)))?;
            holds(patches.len() == usize::from(!found.is_empty()), || format!("{} commands", patches.len()))?;
            let kustomize = apply::kustomize(&report).map_err(|error| error.to_string())?;
            let kustomize: Value = serde_saphyr::from_str(&kustomize).map_err(|error| error.to_string())?;
            let patches = kustomize["patches"].as_array().into_iter().flatten();
            let patches =
                patches.filter_map(|patch| serde_saphyr::from_str::<Value>(patch["patch"].as_str()?).ok());
            let found: BTreeSet<_> = patches.flat_map(|patch| sections(&patch)).collect();
            holds(found == expected(of), || format!("kustomize: {found:?}"))?;
            // Each container that is left out says why, in its row and beside the patch.
            for (name, (origin, ..)) in &of.containers {
                let entry = report.recommendations.iter().find(|entry| entry.container == *name);
                let is_said = entry
                    .is_some_and(|entry| entry.warnings.iter().any(|it| it.text.contains("this container")));
                let is_comment = script.lines().any(|line| line.starts_with(&format!("# shop/web {name}: ")));
                holds((*origin == ContainerSource::Elsewhere) == (is_said && is_comment), || {
                    format!("{name}: {script}")
                })?;
            }
            Ok(())
        },
    );
}

#[test]
fn what_known_injectors_add_is_never_patched() {
    let is_known = |name: &String| Injector::of(name).is_some();
    CommandRule::Injected.prove(
        &workload(),
        |of| of.containers.keys().any(is_known),
        |of| {
            let report = placed(of, false);
            for (.., patch) in shell::patches(&apply::patch(&report))? {
                let found = sections(&patch);
                holds(!found.iter().any(|(_, name)| is_known(name)), || format!("{found:?}"))?;
            }
            for entry in report.recommendations.iter().filter(|entry| is_known(&entry.container)) {
                let texts: Vec<&str> = entry.warnings.iter().map(|it| it.text.as_str()).collect();
                let names_setting =
                    texts.iter().any(|text| text.contains("set the annotations") || text.contains("change "));
                holds(names_setting, || format!("{}: {texts:?}", entry.container))?;
            }
            Ok(())
        },
    );
}

#[test]
fn managed_objects_are_changed_where_they_are_kept() {
    CommandRule::Managed.prove(
        &workload(),
        |of| of.exists && of.manager.is_some(),
        |of| {
            let report = placed(of, true);
            let script = apply::patch(&report);
            holds(shell::commands(&script)?.is_empty(), || format!("a command would be reverted: {script}"))?;
            let source = of.manager.as_ref().map(Manager::source).unwrap_or_default();
            let is_comment = script.lines().any(|line| line.starts_with('#') && line.contains(&source));
            let is_warning = |entry: &Entry| entry.warnings.iter().any(|it| it.text.contains(&source));
            holds(is_comment && report.recommendations.iter().any(is_warning), || {
                format!("{source}: {script}")
            })?;
            let kustomize = apply::kustomize(&report).map_err(|error| error.to_string())?;
            let is_operator = of.manager.as_ref().is_some_and(Manager::is_operator);
            holds(!is_operator || kustomize.contains("patches: []"), || {
                format!("no manifest has it: {kustomize}")
            })
        },
    );
}

#[test]
fn only_pods_that_run_are_replicas() {
    CommandRule::LivingReplicas.prove(
        &workload(),
        |of| of.exists && of.pods.contains(&true) && of.pods.contains(&false),
        |of| {
            let running = of.pods.iter().filter(|runs| **runs).count() as u64;
            let report = placed(of, true);
            let replicas: Vec<u64> = report.recommendations.iter().map(|entry| entry.replicas).collect();
            holds(replicas.iter().all(|it| *it == running), || format!("{replicas:?} of {running} pods"))
        },
    );
}

#[test]
fn workloads_that_the_cluster_does_not_have_get_no_advice() {
    CommandRule::Gone.prove(
        &workload(),
        |of| !of.exists,
        |of| {
            let report = placed(of, true);
            let rows = report.recommendations.len();
            holds(rows == 0 && report.skipped.len() == of.containers.len(), || {
                format!("{rows} recommendations")
            })?;
            let unknown = placed(of, false);
            holds(unknown.skipped.is_empty(), || "nothing is known without a cluster".to_owned())
        },
    );
}
