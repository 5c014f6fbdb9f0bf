use proptest::prelude::*;
use serde_json::{Value, json};

use super::{of_pod, unit_workload};
use crate::{
    identity::path,
    model::{AgentRule, Identity, WorkloadKey},
};

fn workload(pod: Value) -> (String, String) {
    let workload = of_pod(&serde_json::from_value(pod).unwrap());
    (workload.kind, workload.name)
}

fn owned(kind: &str, name: &str, labels: &Value, annotations: &Value) -> (String, String) {
    let owner = json!({"apiVersion": "x/v1", "kind": kind, "name": name, "uid": "u", "controller": true});
    let other = json!({"apiVersion": "x/v1", "kind": "Other", "name": "other", "uid": "o"});
    workload(json!({"metadata": {
        "name": "pod-1", "labels": labels, "annotations": annotations, "ownerReferences": [other, owner],
    }}))
}

fn is(found: &(String, String), kind: &str, name: &str) {
    assert_eq!((found.0.as_str(), found.1.as_str()), (kind, name));
}

#[test]
fn a_replica_set_stands_for_its_deployment_only_by_the_hash() {
    let hash = json!({"pod-template-hash": "5cf9767d58"});
    is(&owned("ReplicaSet", "web-5cf9767d58", &hash, &json!({})), "Deployment", "web");
    is(&owned("ReplicaSet", "a-b-5cf9767d58", &hash, &json!({})), "Deployment", "a-b");
    is(&owned("ReplicaSet", "web-5cf9767d58", &json!({}), &json!({})), "ReplicaSet", "web-5cf9767d58");
    is(&owned("ReplicaSet", "web5cf9767d58", &hash, &json!({})), "ReplicaSet", "web5cf9767d58");
    is(&owned("ReplicaSet", "web-5cf9767d59", &hash, &json!({})), "ReplicaSet", "web-5cf9767d59");
    is(&owned("ReplicaSet", "-5cf9767d58", &hash, &json!({})), "ReplicaSet", "-5cf9767d58");
    is(&owned("ReplicaSet", "web-", &json!({"pod-template-hash": ""}), &json!({})), "ReplicaSet", "web-");
    is(&owned("StatefulSet", "web-5cf9767d58", &hash, &json!({})), "StatefulSet", "web-5cf9767d58");
    let rollout = json!({"rollouts-pod-template-hash": "687d76d795"});
    is(&owned("ReplicaSet", "web-687d76d795", &rollout, &json!({})), "Rollout", "web");
}

#[test]
fn a_replication_controller_stands_for_its_deployment_config_only_by_the_annotation() {
    let of = json!({"openshift.io/deployment-config.name": "web"});
    is(&owned("ReplicationController", "web-3", &json!({}), &of), "DeploymentConfig", "web");
    is(&owned("ReplicationController", "web-x", &json!({}), &of), "ReplicationController", "web-x");
    is(&owned("ReplicationController", "api-3", &json!({}), &of), "ReplicationController", "api-3");
    is(&owned("ReplicationController", "web-3", &json!({}), &json!({})), "ReplicationController", "web-3");
}

#[test]
fn a_job_stands_for_its_cron_job_only_if_time_and_name_agree() {
    let at = |time| json!({"batch.kubernetes.io/cronjob-scheduled-timestamp": time});
    // 28,394,400 minutes after the epoch.
    is(&owned("Job", "backup-28394400", &json!({}), &at("2023-12-27T08:00:00Z")), "CronJob", "backup");
    is(&owned("Job", "backup-28394400", &json!({}), &at("2023-12-27T09:00:00+01:00")), "CronJob", "backup");
    is(&owned("Job", "backup-28394401", &json!({}), &at("2023-12-27T08:00:00Z")), "Job", "backup-28394401");
    is(&owned("Job", "backup-28394400", &json!({}), &at("yesterday")), "Job", "backup-28394400");
    is(&owned("Job", "backup-28394400", &json!({}), &json!({})), "Job", "backup-28394400");
}

#[test]
fn other_owners_are_taken_as_they_are() {
    is(&owned("DaemonSet", "cni", &json!({}), &json!({})), "DaemonSet", "cni");
    is(&owned("StatefulSet", "db", &json!({}), &json!({})), "StatefulSet", "db");
    is(&owned("CloneSet", "web", &json!({}), &json!({})), "CloneSet", "web");
    let owner = |kind: &str| json!({"apiVersion": "x/v1", "kind": kind, "name": "x", "uid": "u"});
    is(&workload(json!({"metadata": {"name": "p", "ownerReferences": [owner("Custom")]}})), "Custom", "x");
    let two = json!({"metadata": {"name": "p", "ownerReferences": [owner("A"), owner("B")]}});
    is(&workload(two), "Pod", "p");
    is(&workload(json!({"metadata": {"name": "bare"}})), "Pod", "bare");
    is(&workload(json!({"metadata": {}})), "Pod", "");
}

#[test]
fn static_pods_of_all_nodes_are_one_workload() {
    let mirror = |name: &str, node: &str| {
        json!({
            "metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": node, "uid": "u", "controller": true},
            ]},
            "spec": {"containers": [], "nodeName": node},
        })
    };
    is(&workload(mirror("etcd-node1", "node1")), "StaticPod", "etcd");
    is(&workload(mirror("kube-apiserver-node-2.example", "Node-2.example")), "StaticPod", "kube-apiserver");
    is(&workload(mirror("etcd", "node1")), "StaticPod", "etcd");
    let of_kubelet = |source: &str| {
        json!({
            "metadata": {"name": "etcd-node1", "annotations": {"kubernetes.io/config.source": source}},
            "spec": {"containers": [], "nodeName": "node1"},
        })
    };
    is(&workload(of_kubelet("file")), "StaticPod", "etcd");
    is(&workload(of_kubelet("http")), "StaticPod", "etcd");
    is(&workload(of_kubelet("api")), "Pod", "etcd-node1");
}

#[test]
fn static_pods_that_differ_by_their_node_only_are_one_workload() {
    let node = || "[a-zA-Z0-9]{1,9}([.-][a-z0-9]{1,6}){0,3}";
    AgentRule::StaticPods.prove(&("[a-z]{1,9}(-[a-z0-9]{1,5})?", [node(), node()], any::<bool>()), |_| true, |(name, nodes, in_api)| {
        for node in nodes {
            let annotations = json!({ "kubernetes.io/config.source": "file" });
            let owners = json!([{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": "u", "controller": true }]);
            let mut pod = json!({
                "metadata": { "name": format!("{name}-{}", node.to_lowercase()), "annotations": annotations },
                "spec": { "containers": [], "nodeName": node },
            });
            if *in_api {
                pod["metadata"]["ownerReferences"] = owners;
            }
            let found = workload(pod);
            if found != ("StaticPod".to_owned(), name.clone()) {
                return Err(format!("{found:?} on {node}"));
            }
        }
        Ok(())
    });
}

#[test]
fn units_stay_bounded() {
    let table = [
        ("ssh.service", "ssh.service"),
        ("getty@tty1.service", "getty@.service"),
        ("systemd-nspawn@web.service", "systemd-nspawn@web.service"),
        ("container@db.service", "container@db.service"),
        ("user@1000.service", "user@.service"),
        (r"systemd-fsck@dev-disk-by\x2duuid-a.service", "systemd-fsck@.service"),
        ("dbus-:1.12-org.example.Thing@3.service", "dbus-org.example.Thing@.service"),
        ("session-12.scope", "session.scope"),
        ("session-c1.scope", "session.scope"),
        ("run-u123.service", "run.service"),
        ("run-r0123456789abcdef0123456789abcdef.scope", "run.scope"),
        ("run-p4711-i4712.scope", "run.scope"),
        ("run-4711.scope", "run.scope"),
        ("run-parts.service", "run-parts.service"),
        ("session-manager.service", "session-manager.service"),
        ("init.scope", "init.scope"),
        ("app-gnome-editor-12345.scope", "app-gnome-editor.scope"),
        ("vte-spawn-51aa0a03-5afa-462e-a0f9-efcecc71a4f3.scope", "vte-spawn.scope"),
        ("snap.editor.editor-51aa0a03-5afa-462e-a0f9-efcecc71a4f3.scope", "snap-editor-editor.scope"),
        (r"machine-qemu\x2d3\x2dweb.scope", "machine-qemu-web.scope"),
        ("4711.scope", "transient.scope"),
        ("app-cafe.scope", "app-cafe.scope"),
        ("app-1.2.service", "app-1.2.service"),
        ("odd", "odd"),
        ("", ""),
    ];
    for (unit, expected) in table {
        let workload = unit_workload(unit);
        assert_eq!((workload.kind.as_str(), workload.name.as_str()), ("Unit", expected), "{unit}");
    }
}

proptest! {
    #[test]
    fn serial_numbers_do_not_make_workloads(word in "[g-z]{3,8}", a in 0_u64.., b in 0_u64..) {
        for pattern in ["session-#.scope", "run-u#.service", "run-p#-i1.scope", "w-#.scope", "w@#.service", "#.scope"] {
            let name = |serial: u64| unit_workload(&pattern.replace('w', &word).replace('#', &serial.to_string())).name;
            prop_assert_eq!(name(a), name(b));
        }
    }

    #[test]
    fn any_unit_name_gives_a_stable_workload(unit in "\\PC{0,40}(\\.scope|\\.service)?") {
        let once = unit_workload(&unit).name;
        prop_assert_eq!(&unit_workload(&once).name, &once);
    }
}

fn workload_of(path: &str) -> String {
    let of_path = path::parse(path).unwrap();
    let identity = Identity { path: path.into(), of_path, names: None, engine_name: None };
    WorkloadKey::from_identity(&identity).unwrap().parts().2.to_owned()
}

#[test]
fn units_of_guests_are_workloads_of_their_own() {
    for (path, expected) in [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/lxc/101/ns/system.slice/nginx.service", "101/nginx.service"),
        ("/lxc/102/ns/system.slice/nginx.service", "102/nginx.service"),
        ("/lxc.payload.web/system.slice/nginx.service", "web/nginx.service"),
        ("/lxc.payload/web/system.slice/nginx.service", "web/nginx.service"),
        ("/lxc.payload.user-1_db/system.slice/getty@tty1.service", "user-1_db/getty@.service"),
        ("/lxc.payload.a/lxc.payload.b/init.scope", "a/b/init.scope"),
        ("/machine.slice/systemd-nspawn@web.service", "systemd-nspawn@web.service"),
        ("/machine.slice/systemd-nspawn@db.service", "systemd-nspawn@db.service"),
    ] {
        assert_eq!(workload_of(path), expected, "{path}");
    }
}

#[test]
fn guests_never_share_a_workload() {
    let guest = || "[a-z0-9][a-z0-9-]{0,8}";
    let places = vec![
        "/lxc/#/ns/system.slice/%",
        "/lxc.payload.#/system.slice/%",
        "/lxc.payload/#/system.slice/%",
        "/machine.slice/systemd-nspawn@#.service",
    ];
    let cases = (guest(), guest(), "[a-z]{1,8}(@[a-z]{1,4})?\\.service", prop::sample::select(places));
    AgentRule::GuestsApart.prove(
        &cases,
        |(a, b, ..)| a != b,
        |(a, b, unit, place)| {
            let of = |guest: &str| {
                let (before, after) = place.split_once('#').unwrap();
                workload_of(&format!("{before}{guest}{}", after.replace('%', unit)))
            };
            let [of_a, of_b] = [a, b].map(|guest| of(guest));
            let of_host = workload_of(&format!("/system.slice/{unit}"));
            let apart = of_a != of_b && of_a != of_host && of_b != of_host;
            if apart { Ok(()) } else { Err(format!("{of_a}, {of_b}, {of_host}")) }
        },
    );
}
