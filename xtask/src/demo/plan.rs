//! The workloads of the demo, and their pods as the API server would list them.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use serde_json::{Value, json};

/// The namespace of all pods.
pub(super) const NAMESPACE: &str = "shop";
/// The name of every pod's only container.
pub(super) const CONTAINER: &str = "app";
/// The image in the pod specs. Nothing is pulled.
const IMAGE: &str = "registry.example/shop/workload:1";

/// Kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Deployment,
    DaemonSet,
    Job,
}

impl Owner {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
        }
    }
}

#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) owner: Owner,
    /// Millicores.
    pub(super) cpu_limit: Option<u32>,
    /// MiB.
    pub(super) memory_limit: Option<u32>,
    /// Subcommand and arguments of `snug-workload`.
    pub(super) behaviour: &'static [&'static str],
}

/// Uses a constant share of CPU and a constant amount of memory.
pub(super) const STEADY: Workload = Workload {
    name: "steady",
    owner: Owner::Deployment,
    cpu_limit: None,
    memory_limit: Some(64),
    behaviour: &["steady", "--millicores", "200", "--memory", "40"],
};
/// Uses CPU in bursts that exceed its quota; the average is a third of the quota.
pub(super) const BURSTY: Workload = Workload {
    name: "bursty",
    owner: Owner::Deployment,
    cpu_limit: Some(300),
    memory_limit: Some(64),
    behaviour: &["bursts", "--cpu-ms", "100", "--every-ms", "1000"],
};
/// Allocates memory until the OOM killer kills it, then restarts.
pub(super) const GROWER: Workload = Workload {
    name: "grower",
    owner: Owner::Deployment,
    cpu_limit: None,
    memory_limit: Some(32),
    behaviour: &["grow", "--rate", "10"],
};
/// Runs for one second, in a new pod each time.
pub(super) const BRIEF: Workload = Workload {
    name: "brief",
    owner: Owner::Job,
    cpu_limit: None,
    memory_limit: None,
    behaviour: &["work", "--cpu-ms", "300", "--life-ms", "1000"],
};
/// Is almost idle.
pub(super) const IDLE: Workload = Workload {
    name: "idle",
    owner: Owner::DaemonSet,
    cpu_limit: None,
    memory_limit: None,
    behaviour: &["idle"],
};

impl Workload {
    /// Kind and name: `Deployment/steady`.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.owner.kind(), self.name)
    }

    /// Parent cgroup of the QoS class. A limit without a request sets the request, so the pod is not best-effort.
    fn qos_folder(&self) -> &'static str {
        let limited = self.cpu_limit.is_some() || self.memory_limit.is_some();
        if limited { "burstable" } else { "besteffort" }
    }
}

/// A pod of a workload with its one container.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) workload: &'static Workload,
    pub(super) name: String,
    /// The hash in the names of a Deployment's ReplicaSet and pods.
    template_hash: String,
    uid: String,
    /// Id of the current container.
    pub(super) container_id: String,
    /// Id of the previous container, which has ended.
    last_id: Option<String>,
    pub(super) restarts: u32,
}

impl Pod {
    pub(super) fn new(workload: &'static Workload) -> Self {
        let (template_hash, suffix) = (word(9), word(5));
        let name = match workload.owner {
            Owner::Deployment => format!("{}-{template_hash}-{suffix}", workload.name),
            Owner::DaemonSet | Owner::Job => format!("{}-{suffix}", workload.name),
        };
        Self { workload, name, template_hash, uid: uuid(), container_id: hex(64), last_id: None, restarts: 0 }
    }

    /// Gives the pod a new container id, as a restart by the kubelet does.
    pub(super) fn restart(&mut self) {
        self.last_id = Some(std::mem::replace(&mut self.container_id, hex(64)));
        self.restarts += 1;
    }

    /// The pod's cgroup below `root`, as the kubelet's cgroupfs driver names it.
    pub(super) fn cgroup(&self, root: &str) -> String {
        format!("{root}/kubepods/{}/pod{}", self.workload.qos_folder(), self.uid)
    }

    /// The container's cgroup.
    pub(super) fn container_cgroup(&self, root: &str) -> String {
        format!("{}/{}", self.cgroup(root), self.container_id)
    }

    /// The pod object, with the fields that Snug reads.
    fn json(&self) -> Value {
        let Workload { name, owner, .. } = *self.workload;
        let (owner_kind, owner_name) = match owner {
            Owner::Deployment => ("ReplicaSet", format!("{name}-{}", self.template_hash)),
            Owner::DaemonSet | Owner::Job => (owner.kind(), name.to_owned()),
        };
        let mut labels = json!({ "app": name });
        if owner == Owner::Deployment {
            labels["pod-template-hash"] = self.template_hash.clone().into();
        }
        let last = self.last_id.as_ref().map(|id| {
            let id = format!("containerd://{id}");
            json!({ "terminated": { "containerID": id, "exitCode": 137, "reason": "OOMKilled" } })
        });
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "uid": self.uid,
                "labels": labels,
                "ownerReferences": [{
                    "apiVersion": if owner == Owner::Job { "batch/v1" } else { "apps/v1" },
                    "kind": owner_kind,
                    "name": owner_name,
                    // Any UID will do: the owner is not in the list of pods, and nothing looks it up.
                    "uid": self.uid,
                    "controller": true,
                }],
            },
            "spec": { "containers": [{ "name": CONTAINER, "image": IMAGE }] },
            "status": {
                "phase": "Running",
                "containerStatuses": [{
                    "name": CONTAINER,
                    "image": IMAGE,
                    "imageID": "",
                    "containerID": format!("containerd://{}", self.container_id),
                    "ready": true,
                    "restartCount": self.restarts,
                    "state": { "running": {} },
                    "lastState": last.unwrap_or_else(|| json!({})),
                }],
            },
        })
    }
}

/// The pod list that the agent reads.
pub(super) fn pod_list<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Value {
    let items: Vec<Value> = pods.into_iter().map(Pod::json).collect();
    json!({ "apiVersion": "v1", "kind": "PodList", "items": items })
}

fn uuid() -> String {
    format!("{}-{}-{}-{}-{}", hex(8), hex(4), hex(4), hex(4), hex(12))
}

fn hex(digits: usize) -> String {
    random(digits, b"0123456789abcdef")
}

/// A random suffix from the alphabet of Kubernetes, which has no vowels and no digits that look like vowels.
fn word(letters: usize) -> String {
    random(letters, b"bcdfghjklmnpqrstvwxz2456789")
}

/// Random letters from the seeds of the standard library's hash maps: these need to be unique, not secret.
fn random(length: usize, alphabet: &[u8]) -> String {
    let seed = RandomState::new();
    let letter = |at: usize| {
        let mut hasher = seed.build_hasher();
        hasher.write_usize(at);
        let index = hasher.finish() % alphabet.len().max(1) as u64;
        alphabet.get(index as usize).copied().map_or('0', char::from)
    };
    (0..length).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_cgroups_are_those_of_kubernetes() {
        let pod = Pod::new(&STEADY);
        let parts: Vec<&str> = pod.name.split('-').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("steady", 9, 5));
        assert_eq!(pod.uid.len(), 36);
        assert_eq!(pod.container_id.len(), 64);
        assert!(pod.container_id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let expected = format!("/demo/kubepods/burstable/pod{}/{}", pod.uid, pod.container_id);
        assert_eq!(pod.container_cgroup("/demo"), expected);
        assert!(Pod::new(&IDLE).cgroup("/demo").starts_with("/demo/kubepods/besteffort/pod"));
        assert_ne!(Pod::new(&STEADY).container_id, pod.container_id);
    }

    #[test]
    fn a_restart_keeps_the_pod_and_the_last_container() {
        let mut pod = Pod::new(&GROWER);
        let first = pod.container_id.clone();
        let before = pod.cgroup("/demo");
        pod.restart();
        assert_ne!(pod.container_id, first);
        assert_eq!(pod.cgroup("/demo"), before);
        let list = pod_list([&pod]);
        let status = &list["items"][0]["status"]["containerStatuses"][0];
        assert_eq!(status["restartCount"], 1);
        assert_eq!(status["containerID"], format!("containerd://{}", pod.container_id));
        assert_eq!(status["lastState"]["terminated"]["containerID"], format!("containerd://{first}"));
    }

    #[test]
    fn a_deployment_s_pods_name_its_replica_set_and_hash() {
        let pods = [Pod::new(&BURSTY), Pod::new(&BRIEF)];
        let list = pod_list(&pods);
        assert_eq!(list["kind"], "PodList");
        let owner = |at: usize| list["items"][at]["metadata"]["ownerReferences"][0].clone();
        let hash = list["items"][0]["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
        assert_eq!(owner(0)["kind"], "ReplicaSet");
        assert_eq!(owner(0)["name"], format!("bursty-{hash}"));
        assert_eq!((&owner(1)["kind"], &owner(1)["name"]), (&json!("Job"), &json!("brief")));
        assert!(list["items"][1]["metadata"]["labels"].get("pod-template-hash").is_none());
    }
}
