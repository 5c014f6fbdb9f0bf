//! The watch of pods, with a simulated API server for cases that are hard to cause with a real one: lists of newer versions of
//! Kubernetes, an expired watch, invalid objects, a new token.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use snug_tests::{
    agent::{self, Agent, eventually},
    api_server::ApiServer,
    exposition::Page,
};
use tempfile::TempDir;

/// How long the agent may take to show a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
const READY: &str = "snug_pod_container_ready";

macro_rules! pods_of {
    ($version:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!(
            "../../fixtures/kubelet-",
            $version,
            "/pods-all.json"
        )))?["items"]
            .as_array()
            .context("no list")?
            .clone()
    };
}

struct Cluster {
    server: ApiServer,
    folder: TempDir,
    agent: Agent,
}

impl Cluster {
    fn start(pods: Vec<Value>) -> Result<Self> {
        let server = ApiServer::start(pods, "first")?;
        let folder = tempfile::tempdir()?;
        let (token, kubeconfig) = (folder.path().join("token"), folder.path().join("kubeconfig"));
        fs::write(&token, "first")?;
        fs::write(&kubeconfig, server.kubeconfig(&token))?;
        let mut command = agent::command(["--listen", "127.0.0.1:0", "--kubernetes", "on"])?;
        command.args(["--node-name", "node1", "--source", "files", "--kubeconfig"]).arg(&kubeconfig);
        // As in a small image. A server without TLS needs no root certificates.
        command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/dev/null");
        let agent = Agent::launch(command)?;
        Ok(Self { server, folder, agent })
    }

    fn until(&self, within: Duration, what: &str, there: impl Fn(&Page) -> Result<bool>) -> Result<Page> {
        eventually(within, what, || {
            let page = self.agent.scrape("/metrics")?;
            Ok(there(&page)?.then_some(page))
        })
    }

    fn until_pods(&self, number: f64) -> Result<Page> {
        self.until(CHANGE_TIMEOUT, &format!("{number} pods"), |page| {
            Ok(page.one("snug_agent_kubernetes_pods", &[])? == Some(number)
                && page.one("snug_agent_kubernetes_synced", &[])? == Some(1.0))
        })
    }
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "shop", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "2" },
        "spec": { "nodeName": "node1", "containers": [{ "name": "main", "image": "a" }] },
        "status": { "containerStatuses": [{
            "name": "main", "image": "a", "imageID": "", "ready": true, "restartCount": 0,
            "state": { "running": {} },
        }] },
    })
}

fn pods_ready(page: &Page) -> Vec<String> {
    let mut pods: Vec<_> =
        page.all(READY, &[("namespace", "shop")]).iter().map(|s| s.label("pod").to_owned()).collect();
    pods.sort_unstable();
    pods
}

#[test]
fn lists_of_kubernetes_1_32_and_1_36_are_understood() -> Result<()> {
    // In-place resize and its stages were added between these versions.
    let staged = ["desired", "allocated", "applied"].as_slice();
    for (pods, stages) in [(pods_of!("1.32"), &staged[..1]), (pods_of!("1.36"), staged)] {
        let cluster = Cluster::start(pods)?;
        let page = cluster.until_pods(8.0)?;
        let kinds = |kind| page.all(READY, &[("kind", kind)]).len();
        assert_eq!((kinds("app"), kinds("init"), kinds("sidecar")), (10, 1, 1));
        for (kind, workload, containers) in
            [("Deployment", "dep", 2), ("StaticPod", "static-web", 3), ("Pod", "sidecar", 2)]
        {
            let of = [("workload_kind", kind), ("workload", workload)];
            assert_eq!(page.all(READY, &of).len(), containers, "{workload}");
        }
        let requests = page
            .all("snug_pod_container_memory_request_bytes", &[("pod", "guaranteed"), ("container", "main")]);
        let reported: Vec<&str> = requests.iter().map(|sample| sample.label("stage")).collect();
        assert_eq!(reported, stages);
    }
    Ok(())
}

#[test]
fn watch_events_are_applied_and_an_expired_watch_is_restarted() -> Result<()> {
    let cluster = Cluster::start(vec![pod("one"), pod("two")])?;
    cluster.until_pods(2.0)?;
    let mut ephemeral = pod("one");
    ephemeral["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "a" }]);
    ephemeral["status"]["ephemeralContainerStatuses"] = json!([{
        "name": "debug", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": { "running": {} },
    }]);
    cluster.server.send("MODIFIED", &ephemeral);
    cluster.server.send("ADDED", &pod("three"));
    cluster.server.send("DELETED", &pod("two"));
    let page = cluster
        .until(CHANGE_TIMEOUT, "the events", |page| Ok(pods_ready(page) == ["one", "one", "three"]))?;
    assert_eq!(page.all(READY, &[("pod", "one"), ("kind", "ephemeral")]).len(), 1);
    assert_eq!(page.value("snug_agent_kubernetes_relists_total", &[])?, 1.0);

    // Pods that were deleted while the watch was down are removed, and created ones are added.
    cluster.server.expire(vec![pod("one"), pod("four")]);
    // The agent counts the list and takes its pods at two moments.
    cluster.until(CHANGE_TIMEOUT, "the new list", |page| {
        let relists = page.value("snug_agent_kubernetes_relists_total", &[])?;
        Ok(pods_ready(page) == ["four", "one"] && relists == 2.0)
    })?;
    assert_eq!(cluster.server.asked(), (2, 0));
    let log = cluster.agent.log();
    assert!(
        !log.contains("resource version") && !log.contains("will retry"),
        "an expired watch is no failure: {log}"
    );
    Ok(())
}

#[test]
fn an_eviction_and_a_missing_image_are_one_event_each() -> Result<()> {
    let cluster = Cluster::start(vec![pod("one"), pod("two")])?;
    cluster.until_pods(2.0)?;
    let mut evicted = pod("one");
    evicted["status"] = json!({
        "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
    });
    let mut waiting = pod("two");
    for reason in ["ErrImagePull", "ImagePullBackOff"] {
        waiting["status"]["containerStatuses"][0]["state"] = json!({ "waiting": { "reason": reason } });
        cluster.server.send("MODIFIED", &waiting);
        // Events come from a later round than the state.
        cluster.until(CHANGE_TIMEOUT, reason, |page| {
            let waits = page.one("snug_pod_container_waiting", &[("reason", reason)])? == Some(1.0);
            Ok(waits && page.one("snug_agent_events_total", &[("kind", "image_pull_failure")])? == Some(1.0))
        })?;
    }
    cluster.server.send("MODIFIED", &evicted);
    cluster.until(CHANGE_TIMEOUT, "the eviction", |page| {
        Ok(page.one("snug_agent_events_total", &[("kind", "eviction")])? == Some(1.0))
    })?;
    let events: Value = serde_json::from_str(&cluster.agent.text("/api/v1/events")?)?;
    let of_pods = events["events"].as_array().context("no events")?.iter();
    let messages: Vec<&str> = of_pods
        .filter(|event| event["namespace"] == "shop")
        .filter_map(|event| event["message"].as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "shop/two/main: the image a cannot be pulled: ErrImagePull",
            "shop/one: evicted: The node was low on resource: memory.",
        ]
    );
    Ok(())
}

#[test]
fn invalid_pods_are_skipped_and_logged_once() -> Result<()> {
    let mut nameless = pod("x");
    nameless["metadata"]["name"] = Value::Null;
    let mut broken = pod("broken");
    broken["status"]["containerStatuses"] = json!("none");
    let cluster = Cluster::start(vec![nameless, broken.clone(), pod("good")])?;
    cluster.until_pods(1.0)?;
    let mut strange = pod("strange");
    strange["status"]["containerStatuses"][0]["containerID"] = json!("frobnicate:/no id");
    strange["metadata"]["ownerReferences"] = json!([{ "apiVersion": "x.example/v1", "kind": "Gizmo", "name": "g", "uid": "g", "controller": true }]);
    let mut without_status = pod("without-status");
    without_status["status"] = Value::Null;
    for event in [&broken, &strange, &without_status] {
        cluster.server.send("MODIFIED", event);
    }
    let page = cluster.until_pods(3.0)?;
    assert_eq!(page.all(READY, &[("workload_kind", "Gizmo"), ("workload", "g")]).len(), 1);
    let skipped = page.value("snug_agent_skipped_total", &[("what", "pods")])?;
    let log = cluster.agent.log();
    assert!((2.0..=3.0).contains(&skipped), "{skipped}");
    assert_eq!(log.matches("shop/broken").count(), 1, "{log}");
    Ok(())
}

#[test]
fn a_new_token_is_used() -> Result<()> {
    let cluster = Cluster::start(vec![pod("one")])?;
    cluster.until_pods(1.0)?;
    // Like the kubelet, write the new token before the old one expires.
    fs::write(cluster.folder.path().join("token"), "second")?;
    cluster.server.rotate("second");
    cluster.until(CHANGE_TIMEOUT, "a refusal", |_| Ok(cluster.server.asked().1 > 0))?;
    cluster.server.send("ADDED", &pod("two"));
    // The client reads the file again once a minute.
    cluster.until(Duration::from_secs(90), "the pod that came after", |page| {
        let connected = page.value("snug_agent_kubernetes_connected", &[])? == 1.0;
        Ok(connected && pods_ready(page) == ["one", "two"])
    })?;
    let log = cluster.agent.log();
    assert_eq!(log.matches("does not accept the token").count(), 1, "{log}");
    assert!(log.contains("the API server answers again"), "{log}");
    Ok(())
}
