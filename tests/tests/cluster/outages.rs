//! Outages: the API server does not answer, or denies access.

use std::{thread, time::Duration};

use snug_tests::{agent::eventually, exposition};

use crate::node::{SOON, container, node, pod, spec};

const USAGE: &str = "snug_container_cpu_usage_seconds_total";

#[test]
fn pods_that_start_during_an_outage_of_the_api_server_have_names_and_get_their_workload_later() {
    let Some(node) = node() else { return };
    let address = node.address(9751).unwrap();
    let probes = node.address(9752).unwrap();
    let frozen = node.freeze_api_server().unwrap();
    let meanwhile = pod("meanwhile", &spec(&[container("main", "exec sleep 1000")]));
    let _static = node.static_pod(&meanwhile).unwrap();
    // Static pods are named after their node.
    let named = [("namespace", "default"), ("pod", "meanwhile-node1"), ("container", "main")];
    let page = eventually(SOON, "the container under its runtime's name", || {
        let page = exposition::parse(&node.text_at(address, "/metrics")?)?;
        Ok(page.one(USAGE, &named)?.is_some().then_some(page))
    })
    .unwrap();
    let sample = page.all(USAGE, &named)[0].clone();
    assert_eq!(sample.label("workload"), "", "its owner is not known yet");
    thread::sleep(Duration::from_secs(60));
    let health = ureq::get(format!("http://{probes}/healthz")).call();
    assert_eq!(health.unwrap().status(), 200);
    drop(frozen);
    let owned = [named.as_slice(), &[("workload_kind", "StaticPod"), ("workload", "meanwhile")]].concat();
    // The kubelet reports a static pod to the API server at its next sync, about once a minute.
    node.metrics_until(SOON * 6, "its workload", |page| Ok(page.one(USAGE, &owned)?.is_some())).unwrap();
}

#[test]
fn without_permission_to_list_pods_the_agent_logs_it_once_and_measures() {
    let Some(node) = node() else { return };
    let _pod = node.apply(&[pod("nameless", &spec(&[container("main", "exec sleep 1000")]))]).unwrap();
    node.kubectl(&["delete", "clusterrolebinding", "snug-agent"]).unwrap();
    // The API server caches its authorization decisions for some seconds.
    thread::sleep(Duration::from_secs(2));
    let before = node.agent().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    node.kubectl(&["-n", "snug", "delete", "pod", &before, "--grace-period=1"]).unwrap();
    let named = [("namespace", "default"), ("pod", "nameless"), ("container", "main"), ("workload", "")];
    eventually(SOON * 2, "names of the runtime alone", || {
        let Ok(page) = node.page("/metrics") else { return Ok(None) };
        let refused =
            page.one("snug_agent_kubernetes_errors_total", &[])?.is_some_and(|errors| errors >= 3.0);
        Ok((refused && page.one(USAGE, &named)?.is_some()).then_some(()))
    })
    .unwrap();
    let after = node.agent().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    let log = node.kubectl(&["-n", "snug", "logs", &after]).unwrap();
    let messages = log.lines().filter(|line| line.contains("may not list and watch pods")).count();
    assert_eq!(messages, 1, "{log}");

    node.install().unwrap();
    let owned =
        [("pod", "nameless"), ("container", "main"), ("workload_kind", "Pod"), ("workload", "nameless")];
    let page =
        node.metrics_until(SOON, "its workload", |page| Ok(page.one(USAGE, &owned)?.is_some())).unwrap();
    assert_eq!(page.value("snug_agent_kubernetes_connected", &[]).unwrap(), 1.0);
    // A container that existed before the agent is not counted as started.
    let started = [("workload", "nameless"), ("container", "main")];
    assert_eq!(page.value("snug_workload_containers_started_total", &started).unwrap(), 0.0);
}
