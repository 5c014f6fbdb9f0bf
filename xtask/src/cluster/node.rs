//! The Kubernetes node: its namespaces, and its processes in the order of their start.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{pki::Pki, teardown};
use crate::{command, kubernetes::Binaries};

const PKI: &str = "pki";
const NODE: &str = "node1";
/// The node's address on its bridge, and the cluster IP of the API server. The latter is an address of `lo`, as there is no
/// kube-proxy.
const ADDRESS: &str = "10.200.0.1";
const SERVICE: &str = "10.96.0.1";
const PODS: &str = "10.244.0.0/24";

/// Script that sets up the namespaces of the node and keeps them open: tmpfs where Kubernetes writes, bind mounts over the
/// sysctls that the kubelet changes, and a network without a connection to the outside.
const HOLDER: &str = r#"
set -eu
mount --make-rshared /
for folder in /run /var/log /var/lib; do mount -t tmpfs tmpfs "$folder"; done
mkdir -p /run/netns /var/log/pods /var/log/containers /var/lib/cni
setting() {
    echo "$2" > "$FOLDER/sys-$1"
    mount --bind "$FOLDER/sys-$1" "/proc/sys/$(echo "$1" | tr . /)"
}
setting vm.overcommit_memory 1
setting vm.panic_on_oom 0
setting kernel.panic 10
setting kernel.panic_on_oops 1
setting kernel.keys.root_maxkeys 1000000
setting kernel.keys.root_maxbytes 25000000
ip link set lo up
ip link add node type bridge
ip addr add "$ADDRESS/24" dev node
ip addr add "$SERVICE/32" dev lo
ip link set node up
ip route add default via 10.200.0.254
echo 1 > /proc/sys/net/ipv4/ip_forward
touch "$FOLDER/ready"
exec sleep 86400
"#;

/// A running node. Dropping it stops the node.
pub(super) struct Node {
    folder: PathBuf,
    holder: u32,
    path: String,
    kubectl: PathBuf,
    /// Whether the node keeps running when this value is dropped.
    keeps_running: bool,
}

impl Node {
    /// Starts all processes, and waits until pods can be created.
    pub(super) fn up(
        folder: &Path,
        binaries: &Binaries,
        pki_maker: &Path,
        pause: &str,
        images: &[PathBuf],
    ) -> Result<Self> {
        for name in ["", "log", "cni", "manifests"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let path = format!(
            "{}:{}:{}",
            binaries.packaged("usr/bin").display(),
            binaries.packaged("usr/sbin").display(),
            std::env::var("PATH").unwrap_or_default(),
        );
        let kubectl = folder.join("kubectl");
        let mut node = Self { folder: folder.to_owned(), holder: 0, path, kubectl, keeps_running: false };
        node.hold()?;
        let server = format!("https://{ADDRESS}:443");
        let pki = Pki::make(pki_maker, &folder.join(PKI), NODE, [ADDRESS, SERVICE], &server)?;
        node.write_kubectl(&binaries.packaged("usr/bin/kubectl"), &pki)?;

        node.start_etcd(binaries)?;
        node.start_api_server(binaries, &pki)?;
        node.start_containerd(binaries, pause)?;
        let ctr = binaries.packaged("usr/bin/ctr");
        let ctr = |arguments: &[&str]| -> Command {
            let mut command = node.inside(&ctr);
            command.args(["-n", "k8s.io"]).args(arguments);
            command
        };
        node.wait("containerd", 20, || command::capture(&mut ctr(&["version"])).is_ok())?;
        for image in images {
            command::capture(ctr(&["images", "import"]).arg(image))?;
        }
        node.wait("kube-apiserver", 60, || node.kubectl(&["get", "--raw", "/readyz"]).is_ok())?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let mut program = node.inside(&binaries.built(name));
            program.args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
            program.arg(option("--kubeconfig", &pki.path(&format!("{name}.conf"))));
            if name == "kube-controller-manager" {
                program.arg("--use-service-account-credentials=true");
                program.arg(option("--root-ca-file", &pki.path("ca.crt")));
                program.arg(option("--service-account-private-key-file", &pki.path("accounts.key")));
            }
            node.start(name, program)?;
        }
        node.start_kubelet(binaries, &pki)?;
        node.wait("the node", 60, || {
            let wanted = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            node.kubectl(&["get", "node", NODE, "-o", wanted]).is_ok_and(|ready| ready == "True")
        })?;
        node.wait("the default service account", 30, || {
            node.kubectl(&["get", "serviceaccount", "default"]).is_ok()
        })?;
        Ok(node)
    }

    /// Keeps the node running after this value is dropped.
    pub(super) fn keep_running(mut self) {
        self.keeps_running = true;
    }

    /// Path of a script that runs kubectl as cluster administrator from outside of the namespaces.
    pub(super) fn kubectl_script(&self) -> &Path {
        &self.kubectl
    }

    /// The cluster administrator's kubeconfig, for programs in the namespaces.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.join(PKI).join("admin.conf")
    }

    /// A command in the node's namespaces.
    pub(super) fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--target", &self.holder.to_string(), "--"]).arg(program);
        command.env("PATH", &self.path);
        command
    }

    /// The node's `PATH`, before it another folder.
    pub(super) fn path_with(&self, folder: &Path) -> String {
        format!("{}:{}", folder.display(), self.path)
    }

    /// Prints the last lines of each log, to show why a test failed.
    pub(super) fn print_logs(&self) {
        for name in ["kubelet", "containerd", "kube-apiserver"] {
            eprintln!("== last lines of the log of {name}\n{}", self.log_end(name, 15));
        }
    }

    fn log_end(&self, name: &str, lines: usize) -> String {
        let text = fs::read(self.folder.join("log").join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        command::capture(Command::new(&self.kubectl).args(arguments))
    }

    fn hold(&mut self) -> Result<()> {
        let ready = self.folder.join("ready");
        let _ = fs::remove_file(&ready);
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--mount", "sh", "-c", HOLDER]);
        holder.env("FOLDER", &self.folder).env("ADDRESS", ADDRESS).env("SERVICE", SERVICE);
        self.holder = self.start("holder", holder)?;
        self.wait("the namespaces", 10, || ready.exists()).with_context(|| self.log_end("holder", 5))
    }

    fn write_kubectl(&self, kubectl: &Path, pki: &Pki) -> Result<()> {
        let script = format!(
            "#!/bin/sh\n# Entering a namespace forgets the working directory.\nexec nsenter --mount --net --target {} -- \\\n  \
             sh -c 'cd \"$0\" && exec \"$@\"' \"$PWD\" {} --kubeconfig {} \"$@\"\n",
            self.holder,
            command::quote(&kubectl.display().to_string()),
            command::quote(&pki.path("admin.conf").display().to_string()),
        );
        let cannot = || format!("cannot write {}", self.kubectl.display());
        fs::write(&self.kubectl, script).with_context(cannot)?;
        fs::set_permissions(&self.kubectl, fs::Permissions::from_mode(0o755)).with_context(cannot)
    }

    fn start_etcd(&self, binaries: &Binaries) -> Result<()> {
        let mut etcd = self.inside(&binaries.packaged("usr/bin/etcd"));
        etcd.arg("--data-dir").arg(self.folder.join("etcd"));
        etcd.args(["--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls"]);
        etcd.args(["http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380"]);
        self.start("etcd", etcd).map(drop)
    }

    fn start_api_server(&self, binaries: &Binaries, pki: &Pki) -> Result<()> {
        let mut server = self.inside(&binaries.built("kube-apiserver"));
        server.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=443",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
        ]);
        server.arg(format!("--advertise-address={ADDRESS}"));
        for (name, file) in [
            ("--tls-cert-file", "apiserver.crt"),
            ("--tls-private-key-file", "apiserver.key"),
            ("--client-ca-file", "ca.crt"),
            ("--service-account-key-file", "accounts.pub"),
            ("--service-account-signing-key-file", "accounts.key"),
            ("--kubelet-client-certificate", "apiserver-client.crt"),
            ("--kubelet-client-key", "apiserver-client.key"),
            ("--kubelet-certificate-authority", "ca.crt"),
        ] {
            server.arg(option(name, &pki.path(file)));
        }
        self.start("kube-apiserver", server).map(drop)
    }

    fn start_containerd(&self, binaries: &Binaries, pause: &str) -> Result<()> {
        let network = json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [{
            "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false,
            "ipam": {
                "type": "host-local", "ranges": [[{ "subnet": PODS }]], "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }] });
        self.write("cni/10-pods.conflist", &network.to_string())?;
        let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
        let config = format!(
            r#"version = 2
root = {root}
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = {runc}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {plugins}
    conf_dir = {networks}
"#,
            root = quoted(self.folder.join("containerd")),
            runc = quoted(binaries.packaged("usr/sbin/runc")),
            plugins = quoted(binaries.packaged("usr/lib/cni")),
            networks = quoted(self.folder.join("cni")),
        );
        let file = self.write("containerd.toml", &config)?;
        let mut containerd = self.inside(&binaries.packaged("usr/bin/containerd"));
        containerd.arg("--config").arg(file);
        self.start("containerd", containerd).map(drop)
    }

    fn start_kubelet(&self, binaries: &Binaries, pki: &Pki) -> Result<()> {
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": false,
            "staticPodPath": self.folder.join("manifests"),
            "address": ADDRESS,
            "readOnlyPort": 0,
            "healthzBindAddress": "127.0.0.1",
            "tlsCertFile": pki.path("kubelet-server.crt"),
            "tlsPrivateKeyFile": pki.path("kubelet-server.key"),
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": pki.path("ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "makeIPTablesUtilChains": false,
            // Root without CAP_SYS_RESOURCE cannot set other values.
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "resolvConf": "",
            "fileCheckFrequency": "1s",
            "nodeStatusUpdateFrequency": "1s",
            // After an outage a static pod is reported at the next sync.
            "syncFrequency": "10s",
            // The disk is the developer's: other files on it must not cause evictions of test pods.
            "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        });
        let file = self.write("kubelet.json", &config.to_string())?;
        let mut kubelet = self.inside(&binaries.built("kubelet"));
        kubelet.args(["--container-runtime=remote", "--v=2"]);
        kubelet.arg("--container-runtime-endpoint=unix:///run/containerd/containerd.sock");
        kubelet.arg(format!("--hostname-override={NODE}")).arg(format!("--node-ip={ADDRESS}"));
        kubelet.arg(option("--config", &file)).arg(option("--kubeconfig", &pki.path("node.conf")));
        kubelet.arg(option("--root-dir", &self.folder.join("kubelet")));
        self.start("kubelet", kubelet).map(drop)
    }

    fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts a process with its output in a log file, and records it for teardown.
    fn start(&self, name: &str, mut program: Command) -> Result<u32> {
        let log = self.folder.join("log").join(name);
        let log = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // A separate process group: Ctrl-C must reach this task only, which stops the processes in order.
        program.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = program.spawn().with_context(|| format!("cannot start {}", command::line(&program)))?;
        let note = self.folder.join(teardown::NOTES);
        let mut notes = OpenOptions::new().create(true).append(true).open(&note)?;
        writeln!(notes, "{}", teardown::Process::from_pid(name, child.id())?)?;
        Ok(child.id())
    }

    fn wait(&self, name: &str, seconds: u64, mut is_ready: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !is_ready() {
            if Instant::now() >= end {
                self.print_logs();
                bail!(
                    "{name} was not ready within {seconds} s; logs are in {}",
                    self.folder.join("log").display()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.keeps_running
            && let Err(error) = teardown::down(&self.folder)
        {
            eprintln!("cannot stop the node: {error:#}");
        }
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
