//! The node under test, with `kubectl` and the deployed agent.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use snug_tests::{
    agent::eventually,
    exposition::{self, Page},
    manifests::Tools,
    required,
};

/// The image of the test pods.
pub(crate) const IMAGE: &str = "snug.example/busybox:1";
/// How long it may take until a pod runs and the agent knows it, also where the kubelet reports a container late.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A node with Snug on it.
pub(crate) struct Node {
    folder: PathBuf,
}

/// The node with the agent installed and ready; `None` if there is no node.
pub(crate) fn node() -> Option<Node> {
    required(env::var("SNUG_TEST_CLUSTER").map_err(|_| "no cluster: run `cargo xtask cluster`")).map(
        |folder| {
            let node = Node { folder: folder.into() };
            node.install().unwrap();
            node
        },
    )
}

impl Node {
    /// Applies `deploy/base` and waits until the agent knows the pods of the node.
    pub(crate) fn install(&self) -> Result<()> {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base").canonicalize()?;
        self.kubectl(&["apply", "-k", &base.display().to_string()])?;
        // Otherwise the old agent may answer.
        self.rolled_out("snug", "daemonset/snug-agent")?;
        eventually(SOON, "the agent knows the node's pods", || {
            let synced =
                self.page("/metrics").and_then(|page| page.value("snug_agent_kubernetes_synced", &[]));
            Ok(synced.is_ok_and(|synced| synced == 1.0).then_some(()))
        })
    }

    /// Removes the agent from the node until it is installed again.
    pub(crate) fn remove_agent(&self) -> Result<()> {
        let nowhere = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/os":"none"}}}}}"#;
        self.kubectl(&["-n", "snug", "patch", "daemonset", "snug-agent", "-p", nowhere])?;
        eventually(SOON, "the agent is gone", || {
            let pods = self.json(&["-n", "snug", "get", "pods"])?;
            Ok(pods["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })
    }

    /// Applies the base with these kustomize components and waits for the rollout.
    pub(crate) fn install_with(&self, components: &[&str]) -> Result<()> {
        let manifests = Tools::given().map_err(anyhow::Error::msg)?.kustomize(components)?;
        self.send("apply", &manifests, &[])?;
        self.rolled_out("snug", "daemonset/snug-agent")
    }

    /// Waits for the rollout of an object.
    pub(crate) fn rolled_out(&self, namespace: &str, object: &str) -> Result<()> {
        self.kubectl(&["-n", namespace, "rollout", "status", object, "--timeout=180s"])?;
        Ok(())
    }

    /// Runs `kubectl <verb>` on objects in JSON or YAML.
    fn send(&self, verb: &str, objects: &str, more: &[&str]) -> Result<()> {
        let mut kubectl = Command::new(self.folder.join("kubectl"));
        kubectl.args([verb, "-f", "-"]).args(more).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = kubectl.spawn()?;
        child.stdin.take().context("no input")?.write_all(objects.as_bytes())?;
        ensure!(child.wait()?.success(), "kubectl {verb} of {objects}");
        Ok(())
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.folder.join("kubectl")).args(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Creates objects. They are deleted when the guard is dropped.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<Objects<'_>> {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string();
        self.send("apply", &list, &[])?;
        Ok(Objects { node: self, list })
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// The agent's pod.
    pub(crate) fn agent(&self) -> Result<Value> {
        let pods = self.json(&["-n", "snug", "get", "pods", "-l", "app.kubernetes.io/name=snug-agent"])?;
        let pods = pods["items"].as_array().context("no list")?.iter();
        let mut living = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        living.next().cloned().context("there is no pod of the agent")
    }

    /// Scrapes the agent by its address.
    pub(crate) fn page(&self, path: &str) -> Result<Page> {
        exposition::parse(&self.text(path)?)
    }

    /// The body of a request to the agent.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let agent = self.agent()?;
        text_at(agent["status"]["podIP"].as_str().context("it has no address yet")?, path)
    }

    /// Scrapes `/metrics` until a condition holds. Returns that page.
    pub(crate) fn metrics_until(
        &self,
        within: Duration,
        what: &str,
        there: impl Fn(&Page) -> Result<bool>,
    ) -> Result<Page> {
        eventually(within, what, || {
            let page = self.page("/metrics")?;
            Ok(there(&page)?.then_some(page))
        })
    }

    /// The pid of a process in a container, by the container's id.
    pub(crate) fn pid_of(&self, container: &str) -> Result<u32> {
        for process in procfs::process::all_processes()?.flatten() {
            let Ok(cgroups) = process.cgroups() else { continue };
            if cgroups.into_iter().any(|cgroup| cgroup.pathname.contains(container)) {
                return Ok(process.pid().try_into()?);
            }
        }
        bail!("no process is in container {container}")
    }

    /// The id of a pod's container.
    pub(crate) fn container_id(&self, pod: &str, container: &str) -> Result<String> {
        let pod = self.json(&["get", "pod", pod])?;
        let statuses = pod["status"]["containerStatuses"].as_array().context("no statuses")?;
        let status =
            statuses.iter().find(|status| status["name"] == container).context("no such container")?;
        let id = status["containerID"].as_str().context("it has no id")?;
        Ok(id.rsplit('/').next().unwrap_or(id).to_owned())
    }

    /// Creates a static pod. It is deleted when the guard is dropped.
    pub(crate) fn static_pod(&self, pod: &Value) -> Result<StaticPod> {
        let name = pod["metadata"]["name"].as_str().context("it has no name")?;
        let file = self.folder.join("manifests").join(format!("{name}.json"));
        fs::write(&file, pod.to_string())?;
        Ok(StaticPod(file))
    }

    /// Stops the process of the API server. It continues when the guard is dropped.
    pub(crate) fn freeze_api_server(&self) -> Result<Frozen> {
        let notes = fs::read_to_string(self.folder.join("processes"))?;
        let pid = notes.lines().find_map(|line| line.strip_prefix("kube-apiserver ")?.split(' ').next());
        let frozen = Frozen(pid.context("the API server is not noted")?.to_owned());
        signal("STOP", &frozen.0)?;
        Ok(frozen)
    }
}

/// Scrapes the agent at an address.
pub(crate) fn page_at(address: &str, path: &str) -> Result<Page> {
    exposition::parse(&text_at(address, path)?)
}

fn text_at(address: &str, path: &str) -> Result<String> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build();
    let mut response = ureq::Agent::from(agent).get(format!("http://{address}:9750{path}")).call()?;
    Ok(response.body_mut().read_to_string()?)
}

pub(crate) fn signal(signal: &str, pid: &str) -> Result<()> {
    // The shell's own `kill`: a minimal system has no such program.
    let line = format!("kill -s {signal} {pid}");
    ensure!(Command::new("sh").args(["-c", &line]).status()?.success(), "{line}");
    Ok(())
}

pub(crate) struct Objects<'a> {
    node: &'a Node,
    list: String,
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        let _ = self.node.send("delete", &self.list, &["--wait=false", "--grace-period=1"]);
    }
}

pub(crate) struct StaticPod(PathBuf);

impl Drop for StaticPod {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) struct Frozen(String);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = signal("CONT", &self.0);
    }
}

/// A container of [`IMAGE`] that runs a shell line.
pub(crate) fn container(name: &str, line: &str) -> Value {
    serde_json::json!({
        "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", line],
    })
}

/// The spec of a pod with these containers.
pub(crate) fn spec(containers: &[Value]) -> Value {
    serde_json::json!({ "terminationGracePeriodSeconds": 1, "containers": containers })
}

/// A pod in the default namespace.
pub(crate) fn pod(name: &str, spec: &Value) -> Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec })
}

/// A controller with a pod template.
pub(crate) fn controller(api: &str, kind: &str, name: &str, more: &Value, spec: &Value) -> Value {
    let labels = serde_json::json!({ "app": name });
    let mut object = serde_json::json!({
        "apiVersion": api, "kind": kind, "metadata": { "name": name },
        "spec": { "template": { "metadata": { "labels": labels }, "spec": spec } },
    });
    if kind != "Job" {
        object["spec"]["selector"] = serde_json::json!({ "matchLabels": labels });
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}
