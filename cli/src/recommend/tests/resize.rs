//! Resizes of bare pods against the rules of the API server.

use std::{cell::Cell, collections::BTreeMap};

use proptest::prelude::*;
use serde_json::Value;
use snug_sizing::workload::{QosClass, Resources, Role};

use super::{entry, holds, recommended, report, resources, shell};
use crate::{
    advice::CommandRule,
    cluster::{BarePod, PodContainer},
    recommend::apply,
};

type Case = (BTreeMap<String, (Role, bool, Resources, Resources)>, bool, bool, (u32, u32));

fn cases() -> impl Strategy<Value = Case> {
    let role = prop_oneof![4 => Just(Role::App), 1 => Just(Role::Sidecar), 1 => Just(Role::Init)];
    let container = (role, any::<bool>(), resources(), recommended());
    let containers = prop::collection::btree_map("[a-c]", container, 1..4);
    let rarely = || prop::bool::weighted(0.1);
    (containers, rarely(), rarely(), (Just(1), 31..37_u32))
}

fn pod((containers, is_fixed, has_pod_resources, version): &Case) -> BarePod {
    let of = |(name, (role, restarts, current, _)): (&String, &(Role, bool, Resources, Resources))| {
        (name.clone(), PodContainer { role: *role, resources: *current, restarts_for_memory: *restarts })
    };
    let all: Vec<Resources> = containers.values().map(|(_, _, current, _)| *current).collect();
    BarePod {
        containers: containers.iter().map(of).collect(),
        qos: Some(QosClass::from_containers(&all)),
        is_fixed: *is_fixed,
        has_pod_resources: *has_pod_resources,
        version: Some(*version),
    }
}

fn quantity(value: &Value) -> Option<i128> {
    let text = value.as_str()?;
    Some(text.parse::<snug_sizing::quantity::Quantity>().ok()?.millis())
}

/// The rules of `ValidatePodResize` and `validateContainerResize` (kubernetes/pkg/apis/core/validation of 1.33, without the rule for memory
/// limits from 1.34 on), for CPU and memory.
fn validate(before: &BarePod, version: (u32, u32), patch: &Value) -> Result<(), String> {
    holds(version >= (1, 33), || "the subresource does not exist".to_owned())?;
    holds(!before.is_fixed && !before.has_pod_resources, || "such pods cannot be resized".to_owned())?;
    let mut after: BTreeMap<&str, Resources> =
        before.containers.iter().map(|(name, it)| (name.as_str(), it.resources)).collect();
    for (section, list) in patch["spec"].as_object().into_iter().flatten() {
        for one in list.as_array().into_iter().flatten() {
            let name = one["name"].as_str().unwrap_or_default();
            let old = before.containers.get(name).ok_or("a container is added")?;
            holds((section == "containers") == (old.role == Role::App), || format!("{name} in {section}"))?;
            holds(old.role != Role::Init, || "init containers are immutable".to_owned())?;
            let resources = one["resources"].as_object().into_iter().flatten();
            for (kind, amounts) in resources {
                for (resource, amount) in amounts.as_object().into_iter().flatten() {
                    let was = match (kind.as_str(), resource.as_str()) {
                        ("requests", "cpu") => old.resources.cpu_request,
                        ("requests", _) => old.resources.memory_request,
                        (_, "cpu") => old.resources.cpu_limit,
                        (_, _) => old.resources.memory_limit,
                    };
                    holds(!amount.is_null() || was.is_none(), || {
                        format!("{kind} of {resource} are removed")
                    })?;
                    let now = quantity(amount);
                    let scale = if resource == "cpu" { 1 } else { 1000 };
                    // Without a limit it is the highest.
                    let lowers = now.is_some() && was.is_none_or(|was| now < Some(i128::from(was) * scale));
                    if kind == "limits"
                        && resource == "memory"
                        && version < (1, 34)
                        && !old.restarts_for_memory
                    {
                        holds(!lowers, || "a memory limit is lowered or added".to_owned())?;
                    }
                    let unit = u64::try_from(now.unwrap_or(0) / scale).ok();
                    let mine = after.get_mut(name).ok_or("a container is added")?;
                    match (kind.as_str(), resource.as_str()) {
                        ("requests", "cpu") => mine.cpu_request = unit,
                        ("requests", _) => mine.memory_request = unit,
                        (_, "cpu") => mine.cpu_limit = unit,
                        (_, _) => mine.memory_limit = unit,
                    }
                }
            }
        }
    }
    for (name, it) in &after {
        let fits = |request: Option<u64>, limit: Option<u64>| limit.is_none() || request <= limit;
        let is_valid = fits(it.cpu_request, it.cpu_limit) && fits(it.memory_request, it.memory_limit);
        holds(is_valid, || format!("a request of {name} is above its limit: {it:?}"))?;
    }
    let all: Vec<Resources> = after.into_values().collect();
    let class = QosClass::from_containers(&all);
    holds(before.qos == Some(class), || format!("the QoS class becomes {class:?}"))
}

#[test]
fn a_resize_of_a_bare_pod_is_accepted_or_its_reason_given() {
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    CommandRule::Resize.prove(
        &cases(),
        |_| true,
        |case| {
            let (containers, .., version) = case;
            let pod = pod(case);
            let entries = containers.iter().map(|(name, (role, _, current, recommended))| {
                let mut entry = entry(["shop", "Pod", "tool", name], *current, *recommended);
                entry.role = *role;
                entry
            });
            let mut report = report(entries.collect());
            report.objects.bare_pods = [(("shop".to_owned(), "tool".to_owned()), pod.clone())].into();
            let script = apply::patch(&report);
            let patches = shell::patches(&script)?;
            if CommandRule::Resize.is_on() {
                let count = if patches.is_empty() { &refused } else { &accepted };
                count.set(count.get() + 1);
            }
            holds(script.contains("--subresource resize") != patches.is_empty(), || script.clone())?;
            holds(!patches.is_empty() || script.contains("bare pod; "), || format!("no reason: {script}"))?;
            patches.iter().try_for_each(|(.., patch)| validate(&pod, *version, patch))
        },
    );
    println!("{} accepted, {} refused", accepted.get(), refused.get());
    assert!(accepted.get() > 300 && refused.get() > 300);
}

#[test]
fn without_a_version_the_command_is_a_comment() {
    let values = |mib: u64| Resources { memory_request: Some(mib << 20), ..Resources::default() };
    let mut report = report(vec![entry(["shop", "Pod", "tool", "app"], values(64), values(96))]);
    let container = PodContainer { resources: values(64), ..PodContainer::default() };
    let pod = BarePod { containers: [("app".to_owned(), container)].into(), ..BarePod::default() };
    report.objects.bare_pods = [(("shop".to_owned(), "tool".to_owned()), pod)].into();
    let script = apply::patch(&report);
    assert!(
        script.starts_with(
            "# on Kubernetes 1.33 and later: kubectl -n shop patch pod/tool --subresource resize"
        ),
        "{script}"
    );
}

#[test]
fn without_a_cluster_a_bare_pod_is_a_comment() {
    let values = Resources { memory_limit: Some(64 << 20), ..Resources::default() };
    let report = report(vec![entry(["shop", "Pod", "tool", "app"], values, values)]);
    let script = apply::patch(&report);
    assert!(script.starts_with("# shop/tool: cannot be patched: bare pod; Kubernetes 1.33"), "{script}");
}
