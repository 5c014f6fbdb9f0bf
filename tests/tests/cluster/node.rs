//! The node under test, with `kubectl` and the deployed agent.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use snug_tests::{
    agent::eventually,
    exposition::{self, Page},
    manifests::{self, Tools},
    required,
    tls::{Identity, TlsClient},
};

/// The image of the test pods.
pub(crate) const IMAGE: &str = "snug.example/busybox:1";
/// How long it may take until a pod runs and the agent knows it, also where the kubelet reports a container late.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// Held while a test installs the agent: the first one makes the certificates for all.
static INSTALLING: Mutex<()> = Mutex::new(());

/// A node with Snug on it.
pub(crate) struct Node {
    folder: PathBuf,
}

/// The node with the agent installed and ready; `None` if there is no node.
pub(crate) fn node() -> Option<Node> {
    let node = bare_node()?;
    // A test that fails here fails alone.
    let _held = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    node.install().unwrap();
    Some(node)
}

/// The node as it is: with an agent if another test has installed one.
pub(crate) fn bare_node() -> Option<Node> {
    let folder =
        required(env::var("SNUG_TEST_CLUSTER").map_err(|_| "no cluster: run `cargo xtask cluster`"))?;
    Some(Node { folder: folder.into() })
}

impl Node {
    /// Applies `deploy/base` and waits until the agent knows the pods of the node. Makes certificates the first time.
    pub(crate) fn install(&self) -> Result<()> {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base").canonicalize()?;
        if !self.folder.join("tls").exists() {
            self.kubectl(&["apply", "-f", &base.join("namespace.yaml").display().to_string()])?;
            self.renew_certificates()?;
        }
        self.kubectl(&["apply", "-k", &base.display().to_string()])?;
        // Otherwise the old agent may answer.
        self.rolled_out("snug", "daemonset/snug-agent")?;
        eventually(SOON, "the agent knows the node's pods", || {
            let synced =
                self.page("/metrics").and_then(|page| page.value("snug_agent_kubernetes_synced", &[]));
            Ok(synced.is_ok_and(|synced| synced == 1.0).then_some(()))
        })
    }

    /// As [`Self::install`], after everything was removed.
    pub(crate) fn install_anew(&self) -> Result<()> {
        let certificates = self.folder.join("tls");
        if certificates.exists() {
            fs::remove_dir_all(certificates)?;
        }
        self.install()
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
        self.install_changed(components, |_| {})
    }

    /// Applies the base with these kustomize components, each object after a change.
    pub(crate) fn install_changed(&self, components: &[&str], change: impl Fn(&mut Value)) -> Result<()> {
        let rendered = Tools::given().map_err(anyhow::Error::msg)?.kustomize(components)?;
        let mut objects = manifests::objects(&rendered)?;
        objects.iter_mut().for_each(change);
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.send("apply", &list.to_string(), &[])?;
        self.rolled_out("snug", "daemonset/snug-agent")
    }

    /// Makes the Secrets by `snug certificates`, as documented, and keeps what a client of the agent needs.
    pub(crate) fn renew_certificates(&self) -> Result<TlsClient> {
        let made =
            Command::new(env::var("SNUG_CLI_BIN").context("SNUG_CLI_BIN")?).arg("certificates").output()?;
        ensure!(made.status.success(), "snug certificates: {}", String::from_utf8_lossy(&made.stderr));
        let made = String::from_utf8(made.stdout)?;
        self.send("apply", &made, &[])?;
        let [list]: [Value; 1] = manifests::objects(&made)?.try_into().ok().context("not one list")?;
        fs::create_dir_all(self.folder.join("tls"))?;
        let secret = |name: &str| {
            let all = list["items"].as_array().into_iter().flatten();
            all.clone().find(|secret| secret["metadata"]["name"] == name).context("no such Secret")
        };
        let (agent, client) = (secret("snug-agent-tls")?, secret("snug-agent-client")?);
        let number = fs::read_dir(self.folder.join("tls"))?.count();
        for (file, secret, key) in [
            ("ca.crt", agent, "ca.crt"),
            ("client.crt", client, "tls.crt"),
            ("client.key", client, "tls.key"),
        ] {
            let folder = self.folder.join("tls").join(number.to_string());
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(file), secret["stringData"][key].as_str().context("no such key")?)?;
        }
        self.tls()
    }

    /// A client with the newest certificates.
    pub(crate) fn tls(&self) -> Result<TlsClient> {
        let number = fs::read_dir(self.folder.join("tls"))?.count().saturating_sub(1);
        let path = |file: &str| self.folder.join("tls").join(number.to_string()).join(file);
        Ok(TlsClient {
            authority: path("ca.crt"),
            certificate: path("client.crt"),
            key: path("client.key"),
            server_name: "snug-agent.snug.svc".to_owned(),
        })
    }

    /// The address of a port of the agent's pod.
    pub(crate) fn address(&self, port: u16) -> Result<SocketAddr> {
        let agent = self.agent()?;
        let address = agent["status"]["podIP"].as_str().context("it has no address yet")?;
        Ok(SocketAddr::new(address.parse()?, port))
    }

    /// A file or folder of the node.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `kubectl` as the administrator.
    pub(crate) fn command(&self) -> Command {
        Command::new(self.folder.join("kubectl"))
    }

    /// The response to an object that is posted to a path of the API.
    pub(crate) fn create_raw(&self, path: &str, object: &Value) -> Result<String> {
        let mut kubectl = self.command();
        kubectl.args(["create", "--raw", path, "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = kubectl.spawn()?;
        child.stdin.take().context("no input")?.write_all(object.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "kubectl create --raw {path}");
        Ok(String::from_utf8(output.stdout)?)
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
        self.text_at(self.address(9751)?, path)
    }

    /// The body of a request to the agent at an address, without asking the API server for it.
    pub(crate) fn text_at(&self, address: SocketAddr, path: &str) -> Result<String> {
        let (status, body) = self.tls()?.get(address, path, Identity::Certificate)?;
        ensure!(status == 200, "{path}: status {status}: {body}");
        Ok(body)
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
