mod injected;

use proptest::prelude::*;
use serde_json::{Value, json};
use snug_sizing::{
    evidence::PodTotals,
    workload::{Container, Workload},
};

use super::{
    super::{api_server, apply, tests},
    *,
};

const MIB: u64 = 1 << 20;

fn entry(container: &str, now: (u64, u64), then: (u64, u64)) -> Entry {
    let requests = |(cpu, memory)| Resources {
        cpu_request: Some(cpu),
        memory_request: Some(memory),
        ..Resources::default()
    };
    let entry = tests::entry(["shop", "Deployment", "web", container], requests(now), requests(then));
    Entry { replicas: 3, ..entry }
}

/// The usage history of a container of the pod `web-1`.
fn evidence(container: &str, current: Resources) -> Evidence {
    let workload = Workload {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        owner: "Deployment".to_owned(),
        ..Workload::default()
    };
    let container = Container { name: container.to_owned(), seen: 1, current, ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    evidence.pods.insert("web-1".to_owned(), PodTotals::default());
    evidence
}

/// What is found of the entries, by container.
fn warnings(entries: &mut [Entry], objects: &Value) -> Vec<String> {
    let known: Vec<Evidence> = entries.iter().map(|it| evidence(&it.container, it.current)).collect();
    check(
        entries,
        &known.iter().collect::<Vec<_>>(),
        &ClusterConstraints::from_objects(objects),
        Rollout::default(),
    );
    let texts = |entry: &Entry| -> Vec<String> {
        entry.warnings.iter().map(|warning| format!("{}: {}", entry.container, warning.text)).collect()
    };
    entries.iter().flat_map(texts).collect()
}

fn autoscaled(metric: &Value) -> Value {
    json!({ "horizontalpodautoscalers": [{
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": {
            "maxReplicas": 9, "metrics": [metric],
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        },
    }] })
}

fn by_cpu() -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": 80 });
    autoscaled(&json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }))
}

#[test]
fn request_and_target_of_an_autoscaler_change_together() {
    // 80 % of 1000 are 800: at a target of 90 % the pod asks for 889, of which the larger container takes what is missing.
    let mut entries = [entry("app", (900, MIB), (600, MIB)), entry("proxy", (100, MIB), (100, MIB))];
    let texts = warnings(&mut entries, &by_cpu());
    assert_eq!(texts.len(), 1);
    assert!(texts[0].starts_with(
        "app: the HorizontalPodAutoscaler web scales on cpu utilization: change its target from 80 % to 90 %"
    ));
    let requests = entries.each_ref().map(|entry| entry.recommended.cpu_request);
    assert_eq!(requests, [Some(789), Some(100)]);
    assert_eq!(entries[0].quantities.requests.cpu.as_deref(), Some("789m"));
    let mut other = [entry("app", (900, MIB), (900, MIB))];
    assert_eq!(warnings(&mut other, &by_cpu()), [""; 0], "nothing changes");
    let mut other = [Entry { workload: "api".to_owned(), ..entry("app", (900, MIB), (600, MIB)) }];
    assert_eq!(warnings(&mut other, &by_cpu()), [""; 0], "it scales another");
}

#[test]
fn an_autoscaler_of_one_container_is_about_its_request_alone() {
    let target = json!({ "type": "Utilization", "averageUtilization": 80 });
    let metric = json!({ "name": "cpu", "container": "proxy", "target": target });
    let objects = autoscaled(&json!({ "type": "ContainerResource", "containerResource": metric }));
    let mut entries = [entry("app", (900, MIB), (600, MIB)), entry("proxy", (100, MIB), (50, MIB))];
    let texts = warnings(&mut entries, &objects);
    assert_eq!(texts.len(), 1);
    assert!(texts[0].starts_with(
        "proxy: the HorizontalPodAutoscaler web scales on cpu utilization of the container proxy: change its target from 80 % to 90 %"
    ), "{texts:?}");
    assert_eq!(entries.each_ref().map(|entry| entry.recommended.cpu_request), [Some(600), Some(89)]);
    let json = serde_json::to_value(&entries[1].warnings[0]).unwrap();
    assert_eq!(
        (&json["container"], &json["target"], &json["raised"]),
        (&json!("proxy"), &json!(90), &json!(true))
    );
}

#[test]
fn violations_of_rules_and_headroom_are_named() {
    let shop = |name: &str| json!({ "name": name, "namespace": "shop" });
    let range = |min: &str| json!({ "limits": [{ "type": "Container", "min": { "cpu": min } }] });
    let labels = json!({ "app": "web" });
    let budget = |name: &str, app: &str| {
        json!({
            "metadata": shop(name), "spec": { "selector": { "matchLabels": { "app": app } } },
            "status": { "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1 },
        })
    };
    let objects = json!({
        "limitranges": [
            { "metadata": shop("least"), "spec": range("50m") },
            { "metadata": { "name": "more", "namespace": "other" }, "spec": range("900m") },
        ],
        "resourcequotas": [{
            "metadata": shop("q"), "status": { "hard": { "requests.memory": "2Mi" }, "used": { "requests.memory": "0" } },
        }],
        "poddisruptionbudgets": [budget("held", "web"), budget("free", "api")],
        "verticalpodautoscalers": [{
            "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler", "metadata": shop("vpa"),
            "spec": { "targetRef": { "kind": "Deployment", "name": "web" } },
        }],
        "nodes": [{ "metadata": { "name": "n" }, "status": { "allocatable": { "cpu": "1", "memory": "3Mi" } } }],
        "pods": [{ "metadata": { "name": "web-1", "namespace": "shop", "labels": labels } }],
    });
    let mut entries = [entry("app", (100, MIB), (20, 4 * MIB)), entry("proxy", (100, 0), (60, 0))];
    assert_eq!(
        warnings(&mut entries, &objects),
        [
            "app: cpu 20m is below the LimitRange min 50m (least): raised to it",
            "app: all replicas together need 9Mi more requests.memory than now, but the ResourceQuota q has 2Mi left",
            "app: the pod's memory request 4Mi fits no node: the largest has 3Mi beside its DaemonSets",
            "app: the PodDisruptionBudget held allows no disruption now; a rollout replaces its pods all the same",
            "app: the VerticalPodAutoscaler vpa also sets requests of this workload: use only one of the two",
        ]
    );
    assert_eq!(entries[0].recommended.cpu_request, Some(50));
    assert!(Entry::refusal(&entries).is_none(), "the API server takes the pods");
    let json = serde_json::to_value(&entries[0].warnings[1]).unwrap();
    assert_eq!((&json["violation"], &json["left"]), (&json!("quota"), &json!(2 * MIB)));
    assert_eq!(json["objection"], json["violation"], "the old name, for one version");
}

#[test]
fn containers_without_a_recommendation_count_for_the_pod() {
    let shop = json!({ "name": "least", "namespace": "shop" });
    let limits =
        json!([{ "type": "Container", "min": { "cpu": "50m" } }, { "type": "Pod", "max": { "cpu": "1" } }]);
    let objects = json!({ "limitranges": [{ "metadata": shop, "spec": { "limits": limits } }] });
    let small = Resources { cpu_request: Some(10), cpu_limit: Some(10), ..Resources::default() };
    let mut entries = [entry("app", (100, MIB), (60, MIB))];
    entries[0].current.cpu_limit = Some(500);
    let known = [evidence("app", entries[0].current), evidence("proxy", small)];
    check(
        &mut entries,
        &known.iter().collect::<Vec<_>>(),
        &ClusterConstraints::from_objects(&objects),
        Rollout::default(),
    );
    let warnings = &entries[0].warnings;
    assert_eq!(entries[0].recommended.cpu_limit, Some(500), "a pod with a max needs limits");
    let proxy = warnings.iter().find(|warning| warning.container.as_deref() == Some("proxy")).unwrap();
    assert_eq!(proxy.text, "container proxy: cpu 10m is below the LimitRange min 50m (least)");
    assert!(Entry::refusal(&entries).is_some(), "no patch of `app` makes the pod valid");
}

#[test]
fn requests_and_limits_of_the_pod_are_raised_where_its_containers_do_not_fit() {
    // The proposals of a pod with 20m and 60Mi, limited to 30m and 80Mi, as its own resources.
    let own = Resources {
        cpu_request: Some(20),
        cpu_limit: Some(30),
        memory_request: Some(60 * MIB),
        memory_limit: Some(80 * MIB),
    };
    let of = |container: &str, cpu, mib| {
        let mut entry = entry(container, (0, 0), (cpu, mib * MIB));
        entry.current = Resources::default();
        entry.recommended.memory_limit = Some(mib * MIB);
        entry
    };
    let mut entries = [of("app", 25, 54), of("side", 11, 83)];
    let known: Vec<Evidence> = entries
        .iter()
        .map(|entry| {
            let mut evidence = evidence(&entry.container, entry.current);
            evidence.container.pod_resources = Some(own);
            evidence
        })
        .collect();
    check(
        &mut entries,
        &known.iter().collect::<Vec<_>>(),
        &ClusterConstraints::default(),
        Rollout::default(),
    );
    let texts: Vec<&str> = entries[0].warnings.iter().map(|warning| warning.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "the containers request 36m of cpu, more than the pod's request 20m (spec.resources): it is raised to 36m",
            "cpu 36m does not fit below the pod's limit 30m (spec.resources): it is raised to 36m",
            "the containers request 137Mi of memory, more than the pod's request 60Mi (spec.resources): it is raised to 137Mi",
            "memory 137Mi does not fit below the pod's limit 80Mi (spec.resources): it is raised to 137Mi",
        ]
    );
    let raised = json!({ "limits": { "cpu": "36m", "memory": "137Mi" }, "requests": { "cpu": "36m", "memory": "137Mi" } });
    let patch = apply::pod_spec(&entries);
    assert_eq!(patch["resources"], raised);
    let json = serde_json::to_value(&entries[1]).unwrap();
    assert_eq!(json["pod_resources"]["current"]["cpu_request"], 20);
    let template = json!({
        "containers": [{ "name": "app" }, { "name": "side" }],
        "resources": { "requests": { "cpu": "20m", "memory": "60Mi" }, "limits": { "cpu": "30m", "memory": "80Mi" } },
    });
    let mut patched = template.clone();
    api_server::merge(&mut patched, &patch);
    assert_eq!(api_server::refusals(&patched, &[], &[]), [""; 0]);
    let mut without = patch.clone();
    without.remove("resources");
    let mut refused = template;
    api_server::merge(&mut refused, &without);
    assert_eq!(api_server::refusals(&refused, &[], &[]).len(), 3, "two sums of requests, and a limit");
}

/// A cluster: pod template, LimitRanges, quotas, and for each container the recommended values.
#[derive(Clone, Debug)]
struct Cluster {
    template: Value,
    objects: Value,
    recommended: Vec<Option<Resources>>,
}

fn amounts() -> impl Strategy<Value = (u64, u64)> {
    (1..4000_u64, (10..2048_u64).prop_map(|mib| mib * MIB))
}

fn quantities(cpu: Option<u64>, memory: Option<u64>) -> Value {
    let quantities =
        Quantities::from(Resources { cpu_request: cpu, memory_request: memory, ..Resources::default() });
    json!(quantities.requests)
}

/// Requests and limits of a container in a template: any of them may be missing.
fn written() -> impl Strategy<Value = Value> {
    (amounts(), amounts(), any::<[bool; 4]>()).prop_map(|(one, other, is_set)| {
        let (requests, limits) =
            ((one.0.min(other.0), one.1.min(other.1)), (one.0.max(other.0), one.1.max(other.1)));
        let some = |is_set: bool, value: u64| is_set.then_some(value);
        json!({
            "requests": quantities(some(is_set[0], requests.0), some(is_set[1], requests.1)),
            "limits": quantities(some(is_set[2], limits.0), some(is_set[3], limits.1)),
        })
    })
}

fn proposal() -> impl Strategy<Value = Option<Resources>> {
    let values =
        (amounts(), proptest::option::weighted(0.2, 1..4000_u64)).prop_map(|((cpu, memory), limit)| {
            Resources {
                cpu_request: Some(cpu),
                cpu_limit: limit.map(|limit| limit.max(cpu)),
                memory_request: Some(memory),
                memory_limit: Some(memory),
            }
        });
    proptest::option::weighted(0.9, values)
}

fn limit_range() -> impl Strategy<Value = Value> {
    (any::<bool>(), prop::collection::vec(amounts(), 4), any::<[[bool; 2]; 5]>(), 2..5_u64).prop_map(
        |(is_pod, values, is_set, ratio)| {
            let sorted = |pick: fn(&(u64, u64)) -> u64| {
                let mut all: Vec<u64> = values.iter().map(pick).collect();
                all.sort_unstable();
                all
            };
            let (cpu, memory) = (sorted(|it| it.0), sorted(|it| it.1));
            let pair = |at: usize| {
                let [is_cpu, is_memory] = is_set[at];
                quantities(is_cpu.then_some(cpu[at]), is_memory.then_some(memory[at]))
            };
            let mut item =
                json!({ "type": if is_pod { "Pod" } else { "Container" }, "min": pair(0), "max": pair(3) });
            if !is_pod {
                item["defaultRequest"] = pair(1);
                item["default"] = pair(2);
            }
            if is_set[4] == [true, true] {
                item["maxLimitRequestRatio"] = json!({ "cpu": ratio.to_string() });
            }
            json!({ "metadata": { "name": "range", "namespace": "shop" }, "spec": { "limits": [item] } })
        },
    )
}

fn clusters() -> impl Strategy<Value = Cluster> {
    let quota =
        prop::sample::subsequence(vec!["cpu", "requests.memory", "limits.cpu", "limits.memory"], 1..3);
    let quota = quota.prop_map(|names| {
        let hard: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!("900Gi"))).collect();
        json!({ "metadata": { "name": "quota", "namespace": "shop" }, "status": { "hard": hard, "used": {} } })
    });
    let container = (written(), prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2)], proposal());
    (
        prop::collection::vec(container, 1..4),
        prop::collection::vec(limit_range(), 0..3),
        prop::collection::vec(quota, 0..2),
        proptest::option::weighted(0.3, amounts()),
        any::<bool>(),
    )
        .prop_map(|(containers, ranges, quotas, own, is_autoscaled)| {
            let mut template = json!({ "initContainers": [], "containers": [] });
            let mut recommended = [Vec::new(), Vec::new()];
            for (at, (resources, kind, proposal)) in containers.into_iter().enumerate() {
                // A pod has at least one app container.
                let kind = if at == 0 { 0 } else { kind };
                let mut container = json!({ "name": format!("c{at}"), "resources": resources });
                if kind == 2 {
                    container["restartPolicy"] = json!("Always");
                }
                let list = usize::from(kind == 0);
                recommended[list].push(proposal);
                template[["initContainers", "containers"][list]].as_array_mut().unwrap().push(container);
            }
            if let Some((cpu, memory)) = own {
                template["resources"] =
                    json!({ "requests": quantities(Some(cpu), Some(memory)), "limits": quantities(Some(2 * cpu), Some(2 * memory)) });
            }
            let mut objects = if is_autoscaled { by_cpu() } else { json!({}) };
            objects["limitranges"] = json!(ranges);
            objects["resourcequotas"] = json!(quotas);
            Cluster { template, objects, recommended: recommended.concat() }
        })
}

/// Recommendations for a cluster, fitted to it.
fn recommended(cluster: &Cluster) -> Vec<Entry> {
    let mut objects = cluster.objects.clone();
    objects["pods"] =
        json!([{ "metadata": { "name": "web-1", "namespace": "shop" }, "spec": cluster.template }]);
    let constraints = ClusterConstraints::from_objects(&objects);
    let live = &constraints.pods[0];
    let all = live.spec.containers.iter().zip(&cluster.recommended);
    let mut entries: Vec<Entry> = all
        .filter_map(|(container, recommended)| {
            let mut entry = entry(&container.name, (0, 0), (0, 0));
            (entry.role, entry.current, entry.recommended) =
                (container.role, container.values, (*recommended)?);
            entry.quantities = Quantities::from(entry.recommended);
            Some(entry)
        })
        .collect();
    let known = evidence("c0", Resources::default());
    check(&mut entries, &[&known], &constraints, Rollout::default());
    entries
}

/// Why the API server refuses the pods of the patched template.
fn refused(cluster: &Cluster, entries: &[Entry]) -> Vec<String> {
    let mut template = cluster.template.clone();
    api_server::merge(&mut template, &apply::pod_spec(entries));
    let list = |kind: &str| cluster.objects[kind].as_array().cloned().unwrap_or_default();
    api_server::refusals(&template, &list("limitranges"), &list("resourcequotas"))
}

#[test]
fn the_cluster_takes_every_patch_and_only_what_it_refuses_is_called_refused() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut taken, mut withheld, mut harmful) = (0, 0, 0);
    for _ in 0..6_000 {
        let cluster = clusters().new_tree(&mut runner).unwrap().current();
        let entries = recommended(&cluster);
        if entries.is_empty() {
            continue;
        }
        let refused = refused(&cluster, &entries);
        match Entry::refusal(&entries) {
            None => {
                taken += 1;
                assert_eq!(refused, [""; 0], "not foreseen for {cluster:#?} {entries:#?}");
            }
            Some(why) => {
                withheld += 1;
                assert!(!refused.is_empty(), "{why}: a false warning for {cluster:#?} {entries:#?}");
            }
        }
        let mut as_it_was = entries;
        for (entry, values) in as_it_was.iter_mut().zip(cluster.recommended.iter().flatten()) {
            entry.quantities = Quantities::from(*values);
            (entry.recommended, entry.pod_resources) = (*values, None);
        }
        harmful += usize::from(!self::refused(&cluster, &as_it_was).is_empty());
    }
    println!("taken: {taken}, withheld: {withheld}; refused if nothing were fitted: {harmful}");
    assert!(taken >= 1_000 && withheld >= 1_000 && harmful >= 1_000 + withheld);
}
