//! Checks recommendations against the constraints of the cluster.

use std::collections::BTreeSet;

use snug_sizing::{
    constraints::{self as rules, Headroom, Violation},
    hpa,
    pod::{PodRequests, effective_requests},
    workload::{Resources, Role},
};

use super::report::{Entry, Quantities, Report, Warning, WarningKind};
use crate::{
    cluster::{Autoscaler, ClusterConstraints},
    evidence::Snapshot,
};

impl Report {
    /// Checks all recommendations against the constraints of the cluster.
    pub fn check(&mut self, snapshot: &Snapshot, constraints: &ClusterConstraints) {
        for entries in self.recommendations.chunk_by_mut(Entry::is_of_one_workload) {
            let Some(Entry { namespace, owner, workload, .. }) = entries.first() else { continue };
            let of_workload = snapshot.evidence().filter(|evidence| {
                let it = &evidence.workload;
                (&it.namespace, &it.owner, &it.name) == (namespace, owner, workload)
            });
            let pods = of_workload.flat_map(|evidence| evidence.pods.keys().map(String::as_str)).collect();
            check(entries, &pods, constraints);
        }
    }
}

/// Checks the containers of one workload against the constraints: adjusts requests to autoscalers and adds warnings. `pods` are
/// the names of the workload's pods.
fn check(entries: &mut [Entry], pods: &BTreeSet<&str>, constraints: &ClusterConstraints) {
    let Some(first) = entries.first() else { return };
    let (namespace, owner, workload) = (first.namespace.clone(), first.owner.clone(), first.workload.clone());
    let is_workload = |target: &(String, String)| (&target.0, &target.1) == (&owner, &workload);
    let mut pod_warnings: Vec<WarningKind> = Vec::new();
    let autoscalers =
        constraints.autoscalers.iter().filter(|one| one.namespace == namespace && is_workload(&one.target));
    for autoscaler in autoscalers {
        pod_warnings.extend(scale(entries, autoscaler));
    }
    let managed =
        constraints.managed.iter().filter(|one| one.namespace == namespace && is_workload(&one.target));
    pod_warnings.extend(managed.map(|one| WarningKind::Managed { kind: one.by.0, name: one.by.1.clone() }));
    pod_warnings
        .extend(headroom(entries, &namespace, pods, constraints).into_iter().map(WarningKind::Violation));
    for entry in &mut *entries {
        let ranges = constraints.limit_ranges.iter().filter(|(of, _)| *of == namespace);
        let found: Vec<Violation> =
            ranges.flat_map(|(_, range)| rules::limit_range(&entry.recommended, range)).collect();
        entry.warnings.extend(found.into_iter().map(WarningKind::Violation).map(Warning::from));
    }
    if let Some(first) = entries.first_mut() {
        first.warnings.extend(pod_warnings.into_iter().map(Warning::from));
    }
}

/// Adjusts requests to an autoscaler, whose targets are shares of the requests of all containers of the pod.
fn scale(entries: &mut [Entry], autoscaler: &Autoscaler) -> Vec<WarningKind> {
    type Field = fn(&mut Resources) -> &mut Option<u64>;
    let resources: [(&'static str, Option<u32>, Field); 2] = [
        ("cpu", autoscaler.cpu, |values| &mut values.cpu_request),
        ("memory", autoscaler.memory, |values| &mut values.memory_request),
    ];
    let mut found = Vec::new();
    for (resource, target, field) in resources {
        let apps = || entries.iter().filter(|entry| entry.role != Role::Init);
        let sum = |pick: fn(&Entry) -> Resources| {
            apps().map(|entry| field(&mut pick(entry)).unwrap_or(0)).fold(0_u64, u64::saturating_add)
        };
        let (now, recommended) = (sum(|entry| entry.current), sum(|entry| entry.recommended));
        let Some(adjusted) = target.and_then(|target| hpa::adjust(now, target, recommended)) else {
            continue;
        };
        let more = adjusted.request.saturating_sub(recommended);
        let largest = entries
            .iter_mut()
            .filter(|entry| entry.role != Role::Init)
            .max_by_key(|entry| *field(&mut entry.recommended.clone()));
        if let (Some(largest), true) = (largest, more > 0) {
            if let Some(request) = field(&mut largest.recommended) {
                *request = request.saturating_add(more);
            }
            largest.quantities = Quantities::from(largest.recommended);
        }
        let target_now = target.unwrap_or_default();
        if adjusted.target != target_now || more > 0 {
            found.push(WarningKind::Autoscaled {
                autoscaler: autoscaler.name.clone(),
                resource,
                target_now,
                target: adjusted.target,
                raised: more > 0,
            });
        }
    }
    found
}

fn headroom(
    entries: &[Entry],
    namespace: &str,
    pods: &BTreeSet<&str>,
    constraints: &ClusterConstraints,
) -> Vec<Violation> {
    let requests = |pick: fn(&Entry) -> Resources| {
        let mut all: Vec<(Role, Resources)> = entries.iter().map(|entry| (entry.role, pick(entry))).collect();
        all.sort_by_key(|(role, _)| *role == Role::App);
        effective_requests(&all)
    };
    let (now, then) = (requests(|entry| entry.current), requests(|entry| entry.recommended));
    let replicas = entries.iter().map(|entry| entry.replicas).max().unwrap_or(0);
    let quotas = constraints.quotas.iter().filter(|quota| quota.namespace == namespace);
    let quota_left = quotas
        .map(|quota| PodRequests {
            cpu: quota.cpu_left.unwrap_or(u64::MAX),
            memory: quota.memory_left.unwrap_or(u64::MAX),
        })
        .reduce(|one, other| PodRequests {
            cpu: one.cpu.min(other.cpu),
            memory: one.memory.min(other.memory),
        });
    let budgets = constraints.budgets.iter().filter(|budget| budget.namespace == namespace);
    let held = budgets.filter(|budget| budget.pods.iter().any(|pod| pods.contains(pod.as_str())));
    let disruptions_allowed = held.map(|budget| budget.allowed).min();
    rules::headroom(
        now,
        then,
        replicas,
        &Headroom { largest_node: constraints.largest_node, quota_left, disruptions_allowed },
    )
}

#[cfg(test)]
mod tests {
    use snug_sizing::{
        constraints::LimitRange,
        engine::{Confidence, Profile},
    };

    use super::*;
    use crate::cluster::{DisruptionBudget, ManagedWorkload, QuotaHeadroom};

    const MIB: u64 = 1 << 20;

    fn entry(container: &str, now: (u64, u64), then: (u64, u64)) -> Entry {
        let requests = |(cpu, memory)| Resources {
            cpu_request: Some(cpu),
            memory_request: Some(memory),
            ..Resources::default()
        };
        Entry {
            namespace: "shop".to_owned(),
            owner: "Deployment".to_owned(),
            workload: "web".to_owned(),
            container: container.to_owned(),
            role: Role::App,
            replicas: 3,
            current: requests(now),
            recommended: requests(then),
            quantities: Quantities::from(requests(then)),
            oom_kills_per_pod_day: None,
            cpu_work_above_request: None,
            risk: Profile::Standard.risk(),
            asked_risk: Profile::Standard.risk(),
            expected_oom_kills_per_pod_day: None,
            expected_cpu_work_above: None,
            confidence: Confidence::High,
            container_days: 1.0,
            reasons: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn target() -> (String, String) {
        ("Deployment".to_owned(), "web".to_owned())
    }

    /// What is found of the entries, by container.
    fn warnings(entries: &mut [Entry], constraints: &ClusterConstraints) -> Vec<String> {
        check(entries, &BTreeSet::from(["web-1"]), constraints);
        let texts = |entry: &Entry| -> Vec<String> {
            entry.warnings.iter().map(|warning| format!("{}: {}", entry.container, warning.text)).collect()
        };
        entries.iter().flat_map(texts).collect()
    }

    fn autoscaled(cpu: u32) -> ClusterConstraints {
        let autoscaler = Autoscaler {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            target: target(),
            cpu: Some(cpu),
            memory: None,
        };
        ClusterConstraints { autoscalers: vec![autoscaler], ..ClusterConstraints::default() }
    }

    #[test]
    fn request_and_target_of_an_autoscaler_change_together() {
        // 80 % of 1000 are 800: at a target of 90 % the pod asks for 889, of which the larger container takes what is missing.
        let mut entries = [entry("app", (900, MIB), (600, MIB)), entry("proxy", (100, MIB), (100, MIB))];
        let texts = warnings(&mut entries, &autoscaled(80));
        assert_eq!(texts.len(), 1);
        assert!(texts[0].starts_with(
            "app: the HorizontalPodAutoscaler web scales on cpu utilization: change its target from 80 % to 90 %"
        ));
        let requests = entries.each_ref().map(|entry| entry.recommended.cpu_request);
        assert_eq!(requests, [Some(789), Some(100)]);
        assert_eq!(entries[0].quantities.requests.cpu.as_deref(), Some("789m"));
        let mut other = [entry("app", (900, MIB), (900, MIB))];
        assert_eq!(warnings(&mut other, &autoscaled(80)), [""; 0], "nothing changes");
        let mut other = [Entry { workload: "api".to_owned(), ..entry("app", (900, MIB), (600, MIB)) }];
        assert_eq!(warnings(&mut other, &autoscaled(80)), [""; 0], "it scales another");
    }

    #[test]
    fn violations_of_rules_and_headroom_are_named() {
        let shop = || "shop".to_owned();
        let range = LimitRange { min: (Some(50), None), ..LimitRange::default() };
        let quota = QuotaHeadroom {
            namespace: shop(),
            name: "q".to_owned(),
            cpu_left: None,
            memory_left: Some(2 * MIB),
        };
        let constraints = ClusterConstraints {
            limit_ranges: vec![
                (shop(), range),
                ("other".to_owned(), LimitRange { min: (Some(900), None), ..range }),
            ],
            quotas: vec![quota],
            budgets: vec![
                DisruptionBudget {
                    namespace: shop(),
                    allowed: 0,
                    pods: BTreeSet::from(["web-1".to_owned()]),
                },
                DisruptionBudget {
                    namespace: shop(),
                    allowed: 0,
                    pods: BTreeSet::from(["api-1".to_owned()]),
                },
            ],
            managed: vec![ManagedWorkload {
                namespace: shop(),
                target: target(),
                by: ("VerticalPodAutoscaler", "vpa".to_owned()),
            }],
            largest_node: Some(PodRequests { cpu: 1000, memory: 3 * MIB }),
            ..ClusterConstraints::default()
        };
        let mut entries = [entry("app", (100, MIB), (20, 4 * MIB)), entry("proxy", (100, 0), (60, 0))];
        assert_eq!(
            warnings(&mut entries, &constraints),
            [
                "app: cpu 20m is below the LimitRange min 50m",
                "app: the VerticalPodAutoscaler vpa also sets requests of this workload: use only one of the two",
                "app: the pod's memory request 4Mi fits no node: the largest has 3Mi allocatable",
                "app: all replicas together request 9Mi more memory than now, but the ResourceQuota has 2Mi left",
                "app: the PodDisruptionBudget allows no disruption now",
            ]
        );
        let json = serde_json::to_value(&entries[0].warnings[0]).unwrap();
        assert_eq!((&json["violation"], &json["min"]), (&"below_min".into(), &50.into()));
        assert_eq!(json["objection"], json["violation"], "the old name, for one version");
    }
}
