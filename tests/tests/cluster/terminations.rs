//! Restarts, terminations and their reasons, as eBPF programs and the kubelet report them.

use std::{thread, time::Duration};

use serde_json::{Value, json};
use snug_tests::{agent::eventually, exposition::Page};

use crate::node::{Node, Objects, SOON, container, node, pod, signal, spec};

/// A pod with a sleeping container `main` that the agent knows, and the container's id.
fn sleeper<'a>(node: &'a Node, name: &str) -> (Objects<'a>, String) {
    let objects = node.apply(&[pod(name, &spec(&[container("main", "exec sleep 1000")]))]).unwrap();
    let of = [("namespace", "default"), ("workload", name), ("container", "main")];
    node.metrics_until(SOON, name, |page| {
        Ok(page.one("snug_container_cpu_usage_seconds_total", &of)?.is_some())
    })
    .unwrap();
    let id = eventually(SOON, "its id", || Ok(node.container_id(name, "main").ok())).unwrap();
    (objects, id)
}

#[test]
fn a_killed_container_is_counted_once_although_ebpf_and_kubelet_report_it() {
    let Some(node) = node() else { return };
    let (_pod, id) = sleeper(&node, "victim");
    let of = [("namespace", "default"), ("workload", "victim"), ("container", "main")];
    signal("KILL", &node.pid_of(&id).unwrap().to_string()).unwrap();
    let page = node
        .metrics_until(SOON, "the restart in the pod's status", |page| {
            Ok(page.one("snug_pod_container_restarts_total", &of)? == Some(1.0))
        })
        .unwrap();
    let terminations = page.all("snug_workload_terminations_total", &of);
    let [one] = terminations.as_slice() else { panic!("one termination: {terminations:?}") };
    assert_eq!((one.label("reason"), one.label("exit_code"), one.value), ("Error", "137", 1.0));
    assert_eq!(page.value("snug_workload_restarts_total", &of).unwrap(), 1.0);
    let last = [of.as_slice(), &[("reason", "Error"), ("exit_code", "137")]].concat();
    assert_eq!(page.value("snug_pod_container_last_termination", &last).unwrap(), 1.0);
}

#[test]
fn repeated_oom_kills_are_counted_as_often_as_by_the_kubelet() {
    let Some(node) = node() else { return };
    let mut eater = container("eater", "sleep 1; exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'");
    eater["resources"] = json!({ "limits": { "memory": "32Mi" } });
    let _pod = node.apply(&[pod("oom", &spec(&[eater]))]).unwrap();
    let of = [("workload", "oom"), ("container", "eater")];
    let killed = [of.as_slice(), &[("reason", "OOMKilled"), ("exit_code", "137")]].concat();
    let page = node
        .metrics_until(SOON * 2, "two restarts, and a third end", |page| {
            let waiting = [of.as_slice(), &[("reason", "CrashLoopBackOff")]].concat();
            Ok(page.one("snug_pod_container_restarts_total", &of)? == Some(2.0)
                && page.one("snug_pod_container_waiting", &waiting)?.is_some())
        })
        .unwrap();
    assert_eq!(page.value("snug_workload_terminations_total", &killed).unwrap(), 3.0);
    // The pod's limit is the sum of its containers' limits, and the sandbox uses some of it, so mostly the pod's limit is hit.
    let kills = page.all("snug_workload_oom_kills_total", &of);
    let of_limits = kills.iter().filter(|kills| ["container", "pod"].contains(&kills.label("limit")));
    assert_eq!(of_limits.map(|kills| kills.value).sum::<f64>(), 3.0, "{kills:?}");
    assert_eq!(page.value("snug_pod_container_last_termination", &killed).unwrap(), 1.0);
}

#[test]
fn a_container_that_does_not_run_has_a_reason() {
    let Some(node) = node() else { return };
    let mut absent = container("main", "true");
    absent["image"] = json!("snug.example/absent:1");
    let mut unpullable = absent.clone();
    unpullable["imagePullPolicy"] = json!("Always");
    let mut unconfigured = container("main", "true");
    unconfigured["envFrom"] = json!([{ "configMapRef": { "name": "absent" } }]);
    let pods = [
        ("no-image", absent, "ErrImageNeverPull"),
        ("no-registry", unpullable, "ImagePullBackOff"),
        ("no-config", unconfigured, "CreateContainerConfigError"),
        ("crashes", container("main", "exit 3"), "CrashLoopBackOff"),
    ];
    let objects = pods.iter().map(|(name, container, _)| pod(name, &spec(std::slice::from_ref(container))));
    let _objects = node.apply(&objects.collect::<Vec<_>>()).unwrap();
    for (name, _, reason) in &pods {
        let waits = [("pod", *name), ("container", "main"), ("reason", *reason)];
        node.metrics_until(SOON * 2, reason, |page| {
            Ok(page.one("snug_pod_container_waiting", &waits)? == Some(1.0))
        })
        .unwrap();
    }
    for (name, reason) in [("no-image", "ErrImageNeverPull"), ("no-registry", "ErrImagePull")] {
        let text = node.text(&format!("/api/v1/events?kind=image_pull_failure&pod={name}")).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let events = answer["events"].as_array().unwrap();
        let [event] = events.as_slice() else { panic!("{name}: {events:?}") };
        assert_eq!((&event["reason"], &event["container"]), (&json!(reason), &json!("main")));
    }
    let text = node.text("/api/v1/events?kind=termination&pod=crashes").unwrap();
    let ends: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(ends["events"][0]["termination"]["exit_code"], 3, "{text}");
}

#[test]
fn a_container_that_cannot_start_is_counted_once() {
    let Some(node) = node() else { return };
    let mut main = container("main", "");
    main["command"] = json!(["/absent"]);
    let mut unstartable = spec(&[main]);
    unstartable["restartPolicy"] = json!("Never");
    let _pod = node.apply(&[pod("unstartable", &unstartable)]).unwrap();
    let of = [("workload", "unstartable"), ("container", "main")];
    let failed = [of.as_slice(), &[("reason", "StartError"), ("exit_code", "128")]].concat();
    let count = |page: &Page| page.one("snug_workload_terminations_total", &failed);
    node.metrics_until(SOON, "its termination", |page| Ok(count(page)? == Some(1.0))).unwrap();
    thread::sleep(Duration::from_secs(3));
    let page = node.page("/metrics").unwrap();
    let terminations = page.all("snug_workload_terminations_total", &of);
    assert_eq!(terminations.iter().map(|one| one.value).sum::<f64>(), 1.0, "{terminations:?}");
    assert_eq!(page.value("snug_pod_container_last_termination", &failed).unwrap(), 1.0);
}

#[test]
fn a_termination_during_downtime_is_counted_by_the_next_agent() {
    let Some(node) = node() else { return };
    let (_pod, id) = sleeper(&node, "absentee");
    let of = [("namespace", "default"), ("workload", "absentee"), ("container", "main")];
    node.remove_agent().unwrap();
    signal("KILL", &node.pid_of(&id).unwrap().to_string()).unwrap();
    eventually(SOON, "the kubelet restarts it", || {
        let pod = node.json(&["get", "pod", "absentee"])?;
        let status = &pod["status"]["containerStatuses"][0];
        Ok((status["restartCount"] == 1 && !status["state"]["running"].is_null()).then_some(()))
    })
    .unwrap();
    node.install().unwrap();
    let killed = [of.as_slice(), &[("reason", "Error"), ("exit_code", "137")]].concat();
    let page = node
        .metrics_until(SOON, "the termination in the counter", |page| {
            Ok(page.one("snug_workload_terminations_total", &killed)? == Some(1.0))
        })
        .unwrap();
    assert_eq!(page.value("snug_workload_restarts_total", &of).unwrap(), 1.0);
    assert!(page.value("snug_agent_downtime_seconds", &[]).unwrap() > 0.0);
}
