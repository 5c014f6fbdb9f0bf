//! Recommended patches are applied while the load that made the history goes on: nothing is killed, restarts or stays pending.

use std::{
    env,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use snug_tests::agent::eventually;

use crate::node::{Node, container, node, spec};

const NAMESPACE: &str = "applied";
/// Usage history before the recommendation. The agent writes it every half minute, and a minute is the least that advice needs.
const HISTORY: Duration = Duration::from_secs(75);
/// How long it may take until all pods run.
const SOON_FOR_ALL: Duration = Duration::from_secs(120);
/// Minutes for which pods run with the recommended values, if not the default of one: `SNUG_TEST_APPLIED_MINUTES=10`.
const MINUTES: &str = "SNUG_TEST_APPLIED_MINUTES";
/// Seconds between two peaks of the container `peaks`.
const PEAK_EVERY: u64 = 20;

fn deployment(name: &str, replicas: u64, pod: &Value) -> Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    })
}

fn sized(mut container: Value, requests: &Value, limits: &Value) -> Value {
    container["resources"] = json!({ "requests": requests, "limits": limits });
    container
}

/// Loads of several shapes: idle, steady, bursts of CPU usage, peaks of memory, start-up that needs most memory, files in memory.
fn workloads() -> Vec<Value> {
    let large = json!({ "cpu": "120m", "memory": "192Mi" });
    let limit = json!({ "memory": "384Mi" });
    let workload = |arguments: &str| format!("exec snug-workload --truth /tmp/usage {arguments}");
    let idle = container("main", "while :; do sleep 1; done");
    let steady = container("main", &workload("steady --millicores 60 --memory 40"));
    let bursts = container("main", &workload("bursts --cpu-ms 60 --every-ms 700"));
    // `dd` allocates a buffer of its block size.
    let peak = "dd if=/dev/zero of=/dev/null bs=48M count=2 2>/dev/null";
    let peaks = container("main", &format!("while :; do {peak}; sleep {PEAK_EVERY}; done"));
    let starting = container("main", &format!("{peak}; while :; do sleep 1; done"));
    let mut files = container("main", "head -c 24M /dev/zero > /cache/file; while :; do sleep 1; done");
    files["volumeMounts"] = json!([{ "name": "cache", "mountPath": "/cache" }]);
    let mut of_files = spec(&[sized(files, &large, &limit)]);
    of_files["volumes"] =
        json!([{ "name": "cache", "emptyDir": { "medium": "Memory", "sizeLimit": "32Mi" } }]);
    let guaranteed = json!({ "cpu": "200m", "memory": "128Mi" });
    let mut several = spec(&[
        sized(steady.clone(), &large, &limit),
        sized(container("second", "while :; do sleep 1; done"), &large, &limit),
    ]);
    several["initContainers"] = json!([sized(container("first", peak), &large, &limit)]);
    vec![
        deployment("idle", 2, &spec(&[sized(idle, &large, &limit)])),
        deployment("steady", 1, &spec(&[sized(steady, &large, &limit)])),
        deployment("guaranteed", 1, &spec(&[sized(bursts, &guaranteed, &guaranteed)])),
        deployment("peaks", 1, &spec(&[sized(peaks, &large, &limit)])),
        deployment("starting", 1, &spec(&[sized(starting, &large, &limit)])),
        deployment("files", 1, &of_files),
        deployment("several", 1, &several),
    ]
}

/// Commands of `snug recommend -o patch`, run by a shell with the cluster's `kubectl`.
fn patches() -> Result<Vec<String>> {
    let cli = env::var("SNUG_CLI_BIN").context("SNUG_CLI_BIN")?;
    let kubeconfig = env::var("SNUG_TEST_KUBECONFIG").context("SNUG_TEST_KUBECONFIG")?;
    let arguments = ["recommend", "-n", NAMESPACE, "-o", "patch"];
    let output = Command::new(cli).args(arguments).env("KUBECONFIG", kubeconfig).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn run(line: &str) -> Result<()> {
    let folder = env::var("SNUG_TEST_CLUSTER").context("SNUG_TEST_CLUSTER")?;
    let path = format!("{folder}:{}", env::var("PATH").context("PATH")?);
    let output = Command::new("sh").args(["-c", line]).env("PATH", path).output()?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn pods(node: &Node) -> Result<Vec<Value>> {
    let pods = node.json(&["-n", NAMESPACE, "get", "pods"])?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    Ok(pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect())
}

/// What is wrong with a pod: not running, not all containers started, or a container that ended.
fn faults(pod: &Value) -> Vec<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let mut faults = Vec::new();
    if pod["status"]["phase"] != "Running" {
        faults.push(format!("{name} is {}", pod["status"]["phase"]));
    }
    let containers = pod["status"]["containerStatuses"].as_array();
    for status in containers.into_iter().flatten() {
        if status["restartCount"] != 0 || status["state"]["running"].is_null() {
            let (state, before) = (&status["state"], &status["lastState"]);
            faults.push(format!("{name}, container {}: {state}, before {before}", status["name"]));
        }
    }
    faults
}

/// Waits until all pods run, and says what is wrong with them if they do not.
fn wait_until_all_run(node: &Node, count: usize) -> Result<()> {
    let all_run = || {
        let pods = pods(node)?;
        Ok((pods.len() == count && pods.iter().all(|pod| faults(pod).is_empty())).then_some(()))
    };
    let faults = || pods(node).map(|pods| pods.iter().flat_map(faults).collect::<Vec<_>>());
    eventually(SOON_FOR_ALL, "all pods run", all_run).with_context(|| format!("{:?}", faults()))
}

#[test]
fn recommended_patches_are_applied_without_harm() {
    let Some(node) = node() else { return };
    let minutes: u64 = env::var(MINUTES).ok().map_or(1, |minutes| minutes.parse().unwrap());
    let workloads = workloads();
    let count: u64 = workloads.iter().map(|object| object["spec"]["replicas"].as_u64().unwrap()).sum();
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    let _objects = node.apply(&[vec![namespace], workloads.clone()].concat()).unwrap();
    wait_until_all_run(&node, count as usize).unwrap();
    thread::sleep(HISTORY);

    let all_patched = |lines: &[String]| {
        workloads.iter().all(|object| {
            let name = format!("/{} ", object["metadata"]["name"].as_str().unwrap_or_default());
            lines.iter().any(|line| line.contains(&name))
        })
    };
    let patches = eventually(SOON_FOR_ALL, "a patch for each workload", || {
        let lines = patches()?;
        Ok(all_patched(&lines).then_some(lines))
    })
    .unwrap();
    for line in &patches {
        println!("{line}");
        run(&format!("{line} --dry-run=server")).unwrap();
    }
    patches.iter().try_for_each(|line| run(line)).unwrap();
    let names: Vec<&str> =
        workloads.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
    let settled = || {
        names.iter().try_for_each(|name| node.rolled_out(NAMESPACE, &format!("deployment/{name}"))).unwrap();
        wait_until_all_run(&node, count as usize).unwrap();
    };
    settled();
    let begun = Instant::now();
    let whole = Duration::from_secs(60 * minutes);
    let mut restarted = false;
    while begun.elapsed() < whole {
        let faults: Vec<String> = pods(&node).unwrap().iter().flat_map(faults).collect();
        assert!(faults.is_empty(), "after {:.0} s: {faults:?}", begun.elapsed().as_secs_f64());
        if !restarted && begun.elapsed() * 2 >= whole {
            // A cold restart: start-up needs its memory again.
            names
                .iter()
                .try_for_each(|name| {
                    node.kubectl(&["-n", NAMESPACE, "rollout", "restart", &format!("deployment/{name}")])
                        .map(drop)
                })
                .unwrap();
            settled();
            restarted = true;
        }
        thread::sleep(Duration::from_secs(2));
    }
    assert!(restarted && whole.as_secs() > PEAK_EVERY, "there was a peak and a cold restart");
}

#[test]
fn a_fault_of_a_pod_is_found() {
    let pod = |phase: &str, restarts: u64, state: Value| {
        json!({
            "metadata": { "name": "a" },
            "status": { "phase": phase, "containerStatuses": [{ "name": "main", "restartCount": restarts, "state": state }] },
        })
    };
    let running = || json!({ "running": {} });
    assert!(faults(&pod("Running", 0, running())).is_empty());
    for wrong in [
        pod("Pending", 0, running()),
        pod("Running", 1, running()),
        pod("Running", 0, json!({ "waiting": { "reason": "CrashLoopBackOff" } })),
    ] {
        assert_eq!(faults(&wrong).len(), 1, "{wrong}");
    }
}
