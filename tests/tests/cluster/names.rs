//! Names of all kinds of pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use snug_tests::{agent::eventually, exposition::Page};

use crate::node::{Node, SOON, container, controller, node, pod, spec};

const USAGE: &str = "snug_container_cpu_usage_seconds_total";

#[test]
fn every_kind_of_pod_has_its_names() {
    let Some(node) = node() else { return };
    let sleeps = || spec(&[container("main", "exec sleep 1000")]);
    let guaranteed = || {
        let mut main = container("main", "exec sleep 1000");
        main["resources"] = json!({ "limits": { "cpu": "100m", "memory": "32Mi" } });
        let mut spec = spec(&[main]);
        spec["initContainers"] = json!([container("first", "sleep 2")]);
        spec
    };
    let mut on_host = sleeps();
    on_host["hostNetwork"] = json!(true);
    let mut at_once = spec(&[container("main", "true")]);
    at_once["restartPolicy"] = json!("Never");
    let _objects = node
        .apply(&[
            controller("apps/v1", "Deployment", "deployed", &json!({ "replicas": 2 }), &sleeps()),
            controller("apps/v1", "StatefulSet", "stateful", &json!({ "serviceName": "none" }), &sleeps()),
            controller("apps/v1", "DaemonSet", "daemon", &json!({}), &sleeps()),
            controller(
                "batch/v1",
                "Job",
                "at-once",
                &json!({ "completions": 3, "parallelism": 2 }),
                &at_once,
            ),
            pod("bare", &guaranteed()),
            pod("on-host", &on_host),
        ])
        .unwrap();
    let _static = node.static_pod(&pod("from-file", &sleeps())).unwrap();

    for (kind, workload, pods) in [
        ("Deployment", "deployed", 2),
        ("StatefulSet", "stateful", 1),
        ("DaemonSet", "daemon", 1),
        ("Pod", "bare", 1),
        ("Pod", "on-host", 1),
        ("StaticPod", "from-file", 1),
    ] {
        let of = [("namespace", "default"), ("workload_kind", kind), ("workload", workload)];
        let main = |kind| [of.as_slice(), &[("container", "main"), ("kind", kind)]].concat();
        let page = node
            .metrics_until(SOON, workload, |page| Ok(page.all(USAGE, &main("app")).len() == pods))
            .unwrap();
        let sandboxes = [of.as_slice(), &[("container", ""), ("kind", "sandbox")]].concat();
        assert_eq!(page.all(USAGE, &sandboxes).len(), pods, "{workload}: one sandbox for each pod");
    }
    // Containers that run for milliseconds are counted under their names, too.
    let of_job = [("workload_kind", "Job"), ("workload", "at-once"), ("container", "main")];
    let completed = [of_job.as_slice(), &[("reason", "Completed"), ("exit_code", "0")]].concat();
    let page = node
        .metrics_until(SOON, "three runs that completed", |page| {
            Ok(page.one("snug_workload_terminations_total", &completed)? == Some(3.0))
        })
        .unwrap();
    assert_eq!(page.value("snug_workload_containers_started_total", &of_job).unwrap(), 3.0);
    assert_eq!(page.all("snug_workload_terminations_total", &[("workload_kind", "Unknown")]).len(), 0);
    let first = [("workload", "bare"), ("container", "first"), ("reason", "Completed")];
    assert_eq!(page.value("snug_workload_terminations_total", &first).unwrap(), 1.0);

    let limits = [("pod", "bare"), ("container", "main"), ("stage", "desired")];
    let enforced = [("pod", "bare"), ("container", "main")];
    // The files of a new cgroup are read after its counters.
    let page = node
        .metrics_until(SOON, "the limits of the cgroup", |page| {
            Ok(page.one("snug_container_cpu_limit_cores", &enforced)?.is_some()
                && page.one("snug_container_memory_limit_bytes", &enforced)?.is_some())
        })
        .unwrap();
    assert_eq!(page.value("snug_pod_container_cpu_limit_cores", &limits).unwrap(), 0.1);
    assert_eq!(page.value("snug_container_cpu_limit_cores", &enforced).unwrap(), 0.1);
    assert_eq!(page.value("snug_container_memory_limit_bytes", &enforced).unwrap(), 33_554_432.0);
}

#[test]
fn sixty_pods_are_counted_as_started_and_ended() {
    let Some(node) = node() else { return };
    let sleeps = spec(&[container("main", "exec sleep 1000")]);
    let many = controller("apps/v1", "Deployment", "many", &json!({ "replicas": 60 }), &sleeps);
    let objects = node.apply(&[many]).unwrap();
    let of = [("workload_kind", "Deployment"), ("workload", "many"), ("container", "main")];
    node.metrics_until(SOON * 4, "sixty containers, and none without a name", |page| {
        let named = page.value("snug_agent_unnamed_containers", &[])? == 0.0;
        Ok(named && page.all(USAGE, &of).len() == 60)
    })
    .unwrap();
    // If the kubelet fails to start a container it tries again, which is another container.
    let runs = eventually(SOON * 4, "the kubelet has reported all of them", || {
        let pods = node.json(&["get", "pods", "-l", "app=many"])?;
        let of_one = |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            status["state"]["running"].as_object()?;
            Some(1.0 + status["restartCount"].as_f64()?)
        };
        let runs: Vec<f64> = pods["items"].as_array().into_iter().flatten().filter_map(of_one).collect();
        Ok((runs.len() == 60).then(|| runs.iter().sum::<f64>()))
    })
    .unwrap();
    drop(objects);
    node.metrics_until(SOON * 8, "no container", |page| Ok(page.all(USAGE, &of).is_empty())).unwrap();
    // Removed cgroups are counted after at most a second.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let page = node.page("/metrics").unwrap();
    let counted = |name: &str| page.value(&format!("snug_workload_containers_{name}_total"), &of).unwrap();
    assert_eq!((counted("started"), counted("ended")), (runs, runs), "{:#?}", more_than_once(&node, "many"));
    let lost: f64 = page.all("snug_agent_lost_events_total", &[]).iter().map(|lost| lost.value).sum();
    assert_eq!(lost, 0.0);
}

/// The terminations of a workload in pods with more than one.
fn more_than_once(node: &Node, workload: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&node.text("/api/v1/terminations").unwrap()).unwrap();
    let of_workload = |one: &&Value| one["workload"] == workload && one["container"] != "";
    let all: Vec<&Value> = answer["terminations"].as_array().unwrap().iter().filter(of_workload).collect();
    let twice = |one: &&&Value| all.iter().filter(|other| other["pod"] == one["pod"]).count() > 1;
    all.iter().filter(twice).map(|one| (*one).clone()).collect()
}

#[test]
fn a_rollout_stays_one_workload_and_restarts_nothing() {
    let Some(node) = node() else { return };
    let sleeps = spec(&[container("main", "exec sleep 1000")]);
    let rolled = controller("apps/v1", "Deployment", "rolled", &json!({ "replicas": 2 }), &sleeps);
    let of = [("workload_kind", "Deployment"), ("workload", "rolled"), ("container", "main")];
    let _deployment = node.apply(&[rolled]).unwrap();
    let running = |page: &Page| -> BTreeSet<String> {
        page.all(USAGE, &of).iter().map(|sample| sample.label("pod").to_owned()).collect()
    };
    let page = node.metrics_until(SOON, "two pods", |page| Ok(running(page).len() == 2)).unwrap();
    let before = running(&page);
    node.kubectl(&["set", "env", "deployment/rolled", "VERSION=2"]).unwrap();
    node.rolled_out("default", "deployment/rolled").unwrap();
    let page = node
        .metrics_until(SOON, "two others, and two ends", |page| {
            let ended = page.one("snug_workload_containers_ended_total", &of)? == Some(2.0);
            Ok(ended && running(page).len() == 2 && running(page).is_disjoint(&before))
        })
        .unwrap();
    assert_eq!(page.value("snug_workload_containers_started_total", &of).unwrap(), 4.0);
    assert_eq!(page.value("snug_workload_restarts_total", &of).unwrap(), 0.0);
}

#[test]
fn with_owner_lookup_jobs_belong_to_their_cron_job() {
    let Some(node) = node() else { return };
    node.install_with(&["owner-lookup"]).unwrap();
    let mut at_once = spec(&[container("main", "true")]);
    at_once["restartPolicy"] = json!("Never");
    let job = json!({ "template": { "spec": at_once } });
    // A schedule that does not fire during the test.
    let cron = json!({
        "apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": { "name": "nightly" },
        "spec": { "schedule": "0 0 29 2 *", "jobTemplate": { "spec": job } },
    });
    let _cron = node.apply(&[cron]).unwrap();
    for run in ["nightly-1", "nightly-2"] {
        node.kubectl(&["create", "job", run, "--from=cronjob/nightly"]).unwrap();
    }
    let completed = [
        ("workload_kind", "CronJob"),
        ("workload", "nightly"),
        ("container", "main"),
        ("reason", "Completed"),
    ];
    let page = node
        .metrics_until(SOON, "both runs under the CronJob", |page| {
            Ok(page.one("snug_workload_terminations_total", &completed)? == Some(2.0))
        })
        .unwrap();
    assert_eq!(page.value("snug_agent_kubernetes_owner_reads_total", &[]).unwrap(), 2.0);

    // Without permission the agent logs it, and each Job is a workload of its own.
    node.kubectl(&["delete", "clusterrolebinding", "snug-agent-owner-lookup"]).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    node.kubectl(&["create", "job", "nightly-3", "--from=cronjob/nightly"]).unwrap();
    let alone = [("workload_kind", "Job"), ("workload", "nightly-3"), ("container", "main")];
    node.metrics_until(SOON, "a run by itself", |page| {
        Ok(!page.all("snug_workload_terminations_total", &alone).is_empty())
    })
    .unwrap();
    let agent = node.agent().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    let log = node.kubectl(&["-n", "snug", "logs", &agent]).unwrap();
    assert_eq!(log.matches("owners of this kind cannot be read").count(), 1, "{log}");
    node.install().unwrap();
}

#[test]
fn without_api_server_and_bundles_the_cri_socket_provides_names() {
    let Some(node) = node() else { return };
    let _pod = node.apply(&[pod("asked", &spec(&[container("main", "exec sleep 1000")]))]).unwrap();
    node.install_with(&["cri-socket"]).unwrap();
    let env = |variables: [&str; 2]| {
        let set = ["-n", "snug", "set", "env", "daemonset/snug-agent"];
        node.kubectl(&[set.as_slice(), &variables].concat()).unwrap();
        node.rolled_out("snug", "daemonset/snug-agent").unwrap();
    };
    env(["SNUG_KUBERNETES=off", "SNUG_RUN_ROOT=/nowhere"]);
    let main = [("namespace", "default"), ("pod", "asked"), ("container", "main"), ("workload", "")];
    let sandbox = [("namespace", "default"), ("pod", "asked"), ("kind", "sandbox")];
    let named = node.metrics_until(SOON, "its names", |page| {
        Ok(page.one(USAGE, &main)?.is_some() && page.one(USAGE, &sandbox)?.is_some())
    });
    env(["SNUG_KUBERNETES-", "SNUG_RUN_ROOT-"]);
    node.install().unwrap();
    let page = named.unwrap();
    assert!(!page.has("snug_agent_kubernetes_connected"));
    assert_eq!(page.value("snug_agent_skipped_total", &[("what", "cri_lists")]).unwrap(), 0.0);
}
