//! Names of pods and containers, also if they are known late.

use std::{fs, path::Path};

use serde_json::{Value, json};
use snug_agent::{
    identity::{ContainerKind, Identity, Level, Qos},
    model::{View, WorkloadRow},
};
use snug_tests::{
    cgroup::{Cgroup, Host},
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, row_of, values_of};

const UID: &str = "0c7f4d1e-5a2b-4c3d-8e9f-a0b1c2d3e4f5";
const LATE_UID: &str = "7e1d9c54-11aa-4b6e-9a77-2f0e6d5c4b3a";
const STATIC_UID: &str = "b3b0a1c2-0000-4111-8222-333344445555";
const CONFIG_HASH: &str = "9f86d081884c7d659a2feaa0c55ad015";

fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

pub(crate) fn pod(
    name: &str,
    uid: &str,
    owner: Option<(&str, &str)>,
    annotations: &Value,
    container: &str,
) -> Value {
    let owners: Vec<Value> = owner
        .iter()
        .map(|(kind, name)| {
            json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true})
        })
        .collect();
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "annotations": annotations,
            "labels": {"pod-template-hash": "5d4f8b7c9"}, "ownerReferences": owners,
        },
        "spec": {"nodeName": "node-a", "containers": [{"name": "main", "image": "registry.example/main:1"}]},
        "status": {"containerStatuses": [{
            "name": "main", "image": "registry.example/main:1", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{container}"),
        }]},
    })
}

pub(crate) fn write(file: &Path, pods: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "PodList", "items": pods}).to_string();
    let beside = file.with_extension("new");
    fs::write(&beside, list).unwrap();
    fs::rename(beside, file).unwrap();
}

/// Cgroups as runc creates them with the cgroupfs driver, below a cgroup of the test.
struct Pods {
    containers: [Cgroup; 3],
    pods: [Cgroup; 3],
    _parents: [Cgroup; 2],
    _top: Cgroup,
}

impl Pods {
    fn new(host: &Host) -> Self {
        let top = Cgroup::new(host, "names");
        let kubepods = top.child("kubepods");
        let burstable = kubepods.child("burstable");
        let pods = [
            burstable.child(&format!("pod{UID}")),
            burstable.child(&format!("pod{LATE_UID}")),
            kubepods.child(&format!("pod{CONFIG_HASH}")),
        ];
        let containers = [pods[0].child(&id('a')), pods[1].child(&id('b')), pods[2].child(&id('c'))];
        Self { containers, pods, _parents: [burstable, kubepods], _top: top }
    }
}

fn identity(published: &View, cgroup: &Cgroup) -> Identity {
    Identity::clone(&row_of(published, cgroup.path()).unwrap().identity)
}

fn workload(published: &View, kind: &str, name: &str) -> Option<WorkloadRow> {
    let mut rows = published.workloads.iter();
    rows.find(|row| (&*row.workload_kind, &*row.workload) == (kind, name)).cloned()
}

#[test]
fn names_that_are_known_late_are_used() {
    let Some(host) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pods.json");
    let web = pod("web-5d4f8b7c9-xk2lp", UID, Some(("ReplicaSet", "web-5d4f8b7c9")), &json!({}), &id('a'));
    let source = json!({"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": CONFIG_HASH});
    let api = pod("api-node-a", STATIC_UID, None, &source, &id('c'));
    write(&file, &[web.clone(), api.clone()]);
    let Some(mut driver) = Driver::kernel(&["--pods-file", file.to_str().unwrap()]) else { return };
    let pods = Pods::new(&host);
    let [container, late, of_static] = &pods.containers;
    let mut worker = Worker::start();
    late.add(worker.pid());
    let used = worker.run(&Job::Spin { cpu_ms: 200, threads: 1 }).unwrap();

    driver.round();
    let published = driver.round();
    let known = identity(&published, container);
    assert_eq!(known.of_path.level, Level::Container);
    assert_eq!(known.of_path.pod_uid.as_deref(), Some(UID));
    assert_eq!(known.of_path.qos, Some(Qos::Burstable));
    let names = known.names.unwrap();
    assert_eq!((&*names.namespace, &*names.pod, &*names.container), ("shop", "web-5d4f8b7c9-xk2lp", "main"));
    assert_eq!((&*names.workload_kind, &*names.workload), ("Deployment", "web"));
    assert_eq!((&*names.image, names.kind), ("registry.example/main:1", Some(ContainerKind::App)));
    let of_pod = identity(&published, &pods.pods[0]);
    assert_eq!((of_pod.of_path.level, &*of_pod.names.unwrap().pod), (Level::Pod, "web-5d4f8b7c9-xk2lp"));

    let by_hash = identity(&published, of_static);
    assert_eq!(by_hash.of_path.pod_uid.as_deref(), Some(CONFIG_HASH));
    assert_eq!(by_hash.of_path.qos, Some(Qos::Guaranteed));
    let names = by_hash.names.unwrap();
    assert_eq!((&*names.pod, &*names.workload_kind, &*names.workload), ("api-node-a", "StaticPod", "api"));

    // The third one is not in the file yet: it is sampled, and counted in its workload once its names are known.
    assert_eq!(identity(&published, late).names, None);
    assert!(published.agent.unnamed_containers >= 1, "the container");
    assert!(values_of(&published, late.path()).cpu.unwrap().usage_ns >= used);
    assert!(workload(&published, "StatefulSet", "ledger").is_none());
    let ledger = pod("ledger-0", LATE_UID, Some(("StatefulSet", "ledger")), &json!({}), &id('b'));
    write(&file, &[web, api, ledger]);
    let published = driver.round();
    let names = identity(&published, late).names.unwrap();
    assert_eq!((&*names.pod, &*names.container), ("ledger-0", "main"));
    let counted = workload(&published, "StatefulSet", "ledger").unwrap();
    assert!(counted.cpu_ns >= used, "nothing from before is lost: {} of {used} ns", counted.cpu_ns);
    assert_eq!((counted.containers_started, counted.containers_ended), (1, 0));

    // If the file cannot be read, names stay as they are.
    fs::write(&file, "{").unwrap();
    let published = driver.round();
    assert_eq!(identity(&published, late).names.unwrap().pod, "ledger-0");
    assert!(crate::driver::skipped(&published, "pods_file_reloads") > 0);

    worker.kill();
    late.remove();
    let published = driver.round();
    let ended = workload(&published, "StatefulSet", "ledger").unwrap();
    assert_eq!((ended.containers_started, ended.containers_ended), (1, 1));
    assert!(ended.cpu_ns >= counted.cpu_ns);
}
