//! Rules about what is known of containers: OOM kills, limits, roles, owners, throttling and autoscalers.

use snug_sizing::{constraints::Resource, workload::Role};

use super::*;
use crate::{advice::CommandRule, prometheus::oom::STEP};

/// The span of series of kube-state-metrics.
const SPAN: (u64, u64) = (NOW - 2 * HOUR, NOW + HOUR);

#[test]
fn a_restart_after_an_oom_kill_is_an_oom_kill() {
    // Steps with a restart, and whether it was an OOM kill.
    let restarts = prop::collection::btree_map(1..12_u64, any::<bool>(), 1..5);
    let cases = (model(), restarts);
    let applies = |(_, restarts): &(Model, BTreeMap<u64, bool>)| restarts.values().any(|kill| *kill);
    CommandRule::KillsFromState.prove(&cases, applies, |(model, restarts)| {
        let mut series = cluster(std::slice::from_ref(model), "", HOUR);
        // The first whole step is the first one that is read.
        let begin = (NOW - HOUR) / HOUR * HOUR;
        let at = |step: u64| begin + step * STEP - 120;
        let labels = Scrape::new("").labelled(model, "uid=u");
        let times = || (SPAN.0..SPAN.1).step_by(60);
        let count = |time: u64| restarts.keys().filter(|step| at(**step) <= time).count() as f64;
        series.add(
            "kube_pod_container_status_restarts_total",
            &labels,
            times().map(|time| (time, count(time))),
        );
        for (reason, is_kill) in [("OOMKilled", true), ("Error", false)] {
            let last = |time: u64| restarts.iter().rev().find(|(step, _)| at(**step) <= time);
            let now = |time: &u64| last(*time).is_some_and(|(_, kill)| *kill == is_kill);
            // A series that is not the last reason any more is stale at once.
            let samples = times().map(|time| (time, f64::from(u8::from(now(&time)))));
            let labels = format!("{labels},reason={reason}");
            series.add("kube_pod_container_status_last_terminated_reason", &labels, samples);
        }
        let history = read(&series, "", HOUR).map_err(|error| error.to_string())?;
        let all = evidence(&history);
        let one = &all[&model.title()];
        let wanted = restarts.values().filter(|kill| **kill).count();
        let limit = (model.limit * MIB) as u64;
        let found: Vec<_> =
            one.kills().filter(|kill| kill.limit == limit && kill.pod == model.pod()).collect();
        let starts: u64 = one.hours.values().map(|hour| hour.starts).sum();
        if found.len() == wanted && starts == restarts.len() as u64 {
            Ok(())
        } else {
            Err(format!("{found:?} and {starts} restarts, wanted {wanted} of {}", restarts.len()))
        }
    });
}

#[test]
fn kills_of_a_container_without_any_usage_count() {
    let cases = (model(), 1..10_u64, any::<bool>());
    CommandRule::KillsFromState.prove(
        &cases,
        |_| true,
        |(model, kills, is_init)| {
            // Usage of another container; this one ends before two scrapes see it.
            let other = Model { workload: model.workload + 1, ..model.clone() };
            let mut series = cluster(&[other], "", HOUR);
            state(&mut series, std::slice::from_ref(model), &Scrape::new(""), HOUR);
            let labels = Scrape::new("").labelled(model, "uid=u");
            let kind = if *is_init { "init_container" } else { "container" };
            let begin = (NOW - HOUR) / HOUR * HOUR + 120;
            let count = |time: u64| (time.saturating_sub(begin) / STEP).min(*kills) as f64;
            series.add(
                &format!("kube_pod_{kind}_status_restarts_total"),
                &labels,
                (SPAN.0..SPAN.1).step_by(60).map(|time| (time, count(time))),
            );
            let reason = format!("kube_pod_{kind}_status_last_terminated_reason");
            series.constant(&reason, &format!("{labels},reason=OOMKilled"), SPAN, 1.0);
            let history = read(&series, "", HOUR).map_err(|error| error.to_string())?;
            let found = evidence(&history).get(&model.title()).map_or(0, |one| one.kills().count());
            if found as u64 == *kills { Ok(()) } else { Err(format!("{found} kills, not {kills}")) }
        },
    );
}

#[test]
fn the_largest_numbers_of_cgroups_are_no_limits() {
    let numbers = prop::sample::select(vec![
        (1_u64 << 62) as f64,
        9_223_372_036_854_771_712.0,
        u64::MAX as f64,
        0.0,
        -1.0,
    ]);
    let cases = (model(), numbers.clone(), numbers);
    let applies = |(_, memory, quota): &(Model, f64, f64)| memory.max(*quota) > 1.0;
    CommandRule::Unlimited.prove(&cases, applies, |(model, memory, quota)| {
        let mut series = SeriesInMemory::at(NOW);
        kubelet(&mut series, std::slice::from_ref(model), &Scrape::new(""), HOUR);
        let labels = Scrape::new("").labelled(model, "id=/kubepods/pod1");
        series.constant("container_spec_memory_limit_bytes", &labels, SPAN, *memory);
        series.constant("container_spec_cpu_quota", &labels, SPAN, *quota);
        series.constant("container_spec_cpu_period", &labels, SPAN, 100_000.0);
        let history = read(&series, "", HOUR).map_err(|error| error.to_string())?;
        let all = evidence(&history);
        let current = all.values().next().map(|it| it.container.current).unwrap_or_default();
        match (current.memory_limit, current.cpu_limit) {
            (None, None) => Ok(()),
            limits => Err(format!("{limits:?}")),
        }
    });
}

#[test]
fn limits_of_the_kubelet_count_without_kube_state_metrics() {
    let model = Model { namespace: "shop", workload: 1, cores: 0.1, memory: 10.0, limit: 64.0 };
    let mut series = SeriesInMemory::at(NOW);
    kubelet(&mut series, std::slice::from_ref(&model), &Scrape::new(""), HOUR);
    let labels = Scrape::new("").labelled(&model, "id=/kubepods/pod1");
    series.constant("container_spec_memory_limit_bytes", &labels, SPAN, 64.0 * MIB);
    series.constant("container_spec_cpu_quota", &labels, SPAN, 25_000.0);
    series.constant("container_spec_cpu_period", &labels, SPAN, 100_000.0);
    let all = evidence(&read(&series, "", HOUR).unwrap());
    let current = all.values().next().unwrap().container.current;
    assert_eq!((current.memory_limit, current.cpu_limit), (Some(64 << 20), Some(250)));
}

#[test]
fn init_containers_and_sidecars_are_what_kube_state_metrics_says() {
    let role = prop::sample::select(vec![Role::App, Role::Init, Role::Sidecar]);
    let cases = prop::collection::btree_map(0..4_u8, role, 1..4);
    let applies = |roles: &BTreeMap<u8, Role>| roles.values().any(|role| *role != Role::App);
    CommandRule::RolesFromState.prove(&cases, applies, |roles| {
        let models: Vec<Model> = roles
            .keys()
            .map(|workload| Model {
                namespace: "shop",
                workload: *workload,
                cores: 0.1,
                memory: 10.0,
                limit: 64.0,
            })
            .collect();
        let mut series = cluster(&models, "", HOUR);
        for (model, role) in models.iter().zip(roles.values()) {
            let policy = match role {
                Role::App => continue,
                Role::Init => "",
                Role::Sidecar => "Always",
            };
            let labels = Scrape::new("").labelled(model, &format!("restart_policy={policy}"));
            series.constant("kube_pod_init_container_info", &labels, SPAN, 1.0);
        }
        let history = read(&series, "", HOUR).map_err(|error| error.to_string())?;
        let found: Vec<Role> = evidence(&history).values().map(|it| it.container.role).collect();
        if found.iter().eq(roles.values()) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// Kinds of owners whose own owner is unknown, and what the names say.
#[derive(Clone, Debug)]
enum Unowned {
    ReplicaSet,
    Job,
    Node,
}

#[test]
fn workloads_are_found_by_names_where_metrics_of_owners_are_missing() {
    let kinds = prop::sample::select(vec![Unowned::ReplicaSet, Unowned::Job, Unowned::Node]);
    let cases = (0..4_u8, kinds, "[456789bcdf]{7,10}");
    CommandRule::OwnersByName.prove(
        &cases,
        |_| true,
        |(number, kind, hash)| {
            let name = format!("web{number}");
            let (owner_kind, owner, pod, wanted) = match kind {
                Unowned::ReplicaSet => {
                    ("ReplicaSet", format!("{name}-{hash}"), format!("{name}-{hash}-x7k2p"), "Deployment")
                }
                Unowned::Job => {
                    let run = format!("{name}-{}", (NOW - HOUR) / 60);
                    ("Job", run.clone(), format!("{run}-x7k2p"), "CronJob")
                }
                Unowned::Node => {
                    ("Node", format!("Node{number}"), format!("{name}-node{number}"), "StaticPod")
                }
            };
            let mut series = SeriesInMemory::at(NOW);
            let labels = format!("namespace=shop,pod={pod},container=app");
            let times = || (SPAN.0..SPAN.1).step_by(60);
            let counter = times().map(|at| (at, (at - SPAN.0) as f64));
            series.add("container_cpu_usage_seconds_total", &format!("{labels},cpu=total,id=/a"), counter);
            let owner =
                format!("{labels},owner_kind={owner_kind},owner_name={owner},owner_is_controller=true");
            series.constant("kube_pod_owner", &owner, SPAN, 1.0);
            let history = read(&series, "", HOUR).map_err(|error| error.to_string())?;
            let found = history.snapshot.evidence().next().map(|it| it.workload.clone()).unwrap_or_default();
            let is_right = (found.owner.as_str(), &found.name) == (wanted, &name);
            if is_right { Ok(()) } else { Err(format!("{found:?} in place of {wanted} {name}")) }
        },
    );
}

#[test]
fn owners_of_pods_and_replica_sets_that_are_gone_are_known() {
    let models: Vec<Model> = (0..2)
        .map(|workload| Model { namespace: "shop", workload, cores: 0.1, memory: 10.0, limit: 64.0 })
        .collect();
    let (gone, lives) = models.split_at(1);
    let mut series = cluster(lives, "", 6 * HOUR);
    let mut ended = cluster(gone, "", 6 * HOUR);
    ended.cut(NOW - 3 * HOUR);
    series.extend(ended);
    let all = evidence(&read(&series, "", 6 * HOUR).unwrap());
    let found: Vec<_> = all
        .values()
        .map(|it| (it.workload.name.as_str(), it.workload.owner.as_str(), it.workload.replicas))
        .collect();
    assert_eq!(found, [("web0", "Deployment", 0), ("web1", "Deployment", 1)]);
    assert_eq!(all["shop/web0/app"].container.current.memory_limit, Some(64 << 20));
}

#[test]
fn bare_pods_and_replica_sets_are_their_own_workloads() {
    let mut series = SeriesInMemory::at(NOW);
    for (pod, owner, set) in [
        ("bare", "owner_kind=<none>,owner_name=<none>,owner_is_controller=<none>", None),
        (
            "old-5d4f8c7b9c-x7k2p",
            "owner_kind=ReplicaSet,owner_name=old-5d4f8c7b9c,owner_is_controller=true",
            Some("old-5d4f8c7b9c"),
        ),
    ] {
        let labels = format!("namespace=shop,pod={pod},container=app");
        let counter = (SPAN.0..SPAN.1).step_by(60).map(|at| (at, (at - SPAN.0) as f64));
        series.add("container_cpu_usage_seconds_total", &format!("{labels},cpu=total,id=/{pod}"), counter);
        series.constant("kube_pod_owner", &format!("{labels},{owner}"), SPAN, 1.0);
        if let Some(set) = set {
            let none = "owner_kind=<none>,owner_name=<none>,owner_is_controller=<none>";
            series.constant(
                "kube_replicaset_owner",
                &format!("namespace=shop,replicaset={set},{none}"),
                SPAN,
                1.0,
            );
        }
    }
    let history = read(&series, "", HOUR).unwrap();
    let found: Vec<_> = history
        .snapshot
        .evidence()
        .map(|it| (it.workload.owner.as_str(), it.workload.name.as_str()))
        .collect();
    assert_eq!(found, [("Pod", "bare"), ("ReplicaSet", "old-5d4f8c7b9c")]);
}

#[test]
fn throttling_and_autoscalers_are_read() {
    let model = Model { namespace: "shop", workload: 1, cores: 0.3, memory: 10.0, limit: 64.0 };
    let mut series = cluster(std::slice::from_ref(&model), "", 2 * HOUR);
    let labels = Scrape::new("").labelled(&model, "id=/kubepods/pod1");
    for (metric, per_second) in
        [("container_cpu_cfs_periods_total", 5.0), ("container_cpu_cfs_throttled_periods_total", 2.0)]
    {
        let counter =
            (SPAN.0 - HOUR..SPAN.1).step_by(60).map(|at| (at, (at + HOUR - SPAN.0) as f64 * per_second));
        series.add(metric, &labels, counter);
    }
    let autoscaler = "namespace=shop,horizontalpodautoscaler=web";
    let target = format!("{autoscaler},scaletargetref_kind=Deployment,scaletargetref_name=web1");
    series.constant("kube_horizontalpodautoscaler_info", &target, SPAN, 1.0);
    let metric = format!("{autoscaler},metric_name=cpu,metric_target_type=utilization");
    series.constant("kube_horizontalpodautoscaler_spec_target_metric", &metric, SPAN, 80.0);
    let history = read(&series, "", 2 * HOUR).unwrap();
    let all = evidence(&history);
    let hour = &all["shop/web1/app"].hours.values().next().unwrap();
    assert!(
        (17_900..=18_100).contains(&hour.periods) && (7_100..=7_300).contains(&hour.throttled),
        "{hour:?}"
    );
    let [autoscaler] = history.autoscalers.as_slice() else { panic!("{:?}", history.autoscalers) };
    let targets: Vec<_> = autoscaler.targets.iter().map(|it| (it.resource, it.percent)).collect();
    assert_eq!((targets, &*autoscaler.target.1), (vec![(Resource::Cpu, 80)], "web1"));
}
