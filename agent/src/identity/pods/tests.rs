use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Loaded, Pods, PodsError};
use snug_sizing::workload::Resources;

use crate::{
    identity::path,
    model::{ContainerKind, ContainerSpec, Level, Names, PathIdentity, Runtime},
};

/// Recorded output of a kubelet, its API server and its runtime for one node, and its cgroups at about the same time.
struct Capture {
    cgroups: &'static str,
    of_api: &'static [u8],
    of_kubelet: &'static [u8],
    /// Sandboxes and containers of containerd, by the first 13 digits of their ids.
    sandboxes: &'static str,
    containers: &'static str,
}

macro_rules! fixture {
    ($include:ident, $version:literal, $file:literal) => {
        $include!(concat!("../../../../tests/fixtures/kubelet-", $version, "/", $file))
    };
}

macro_rules! capture {
    ($version:literal) => {
        Capture {
            cgroups: fixture!(include_str, $version, "cgroup-tree-memory.txt"),
            of_api: fixture!(include_bytes, $version, "pods-all.json"),
            of_kubelet: fixture!(include_bytes, $version, "kubelet-pods.json"),
            sandboxes: fixture!(include_str, $version, "crictl-pods.txt"),
            containers: fixture!(include_str, $version, "crictl-ps.txt"),
        }
    };
}

const CAPTURES: [Capture; 3] = [capture!("1.20"), capture!("1.32"), capture!("1.36")];

fn load(json: &[u8]) -> Pods {
    let Loaded { pods, skipped } = Pods::from_json(json).unwrap();
    assert_eq!(skipped, []);
    pods
}

fn load_value(json: &Value) -> Loaded {
    Pods::from_json(json.to_string().as_bytes()).unwrap()
}

impl Capture {
    fn identities(&self) -> Vec<PathIdentity> {
        let below_root = |line: &'static str| line.strip_prefix("/sys/fs/cgroup/memory").unwrap();
        self.cgroups.lines().map(|line| path::parse(below_root(line)).unwrap()).collect()
    }
}

/// A line of a crictl table whose columns are two blanks or more apart.
fn find<'a>(table: &'a str, id: &str) -> Option<Vec<&'a str>> {
    let line = table.lines().find(|line| line.starts_with(&id[..13]))?;
    Some(line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect())
}

#[test]
fn every_cgroup_of_a_real_node_finds_the_names_that_its_runtime_gives() {
    let mut kinds = BTreeMap::new();
    for capture in &CAPTURES {
        for json in [capture.of_api, capture.of_kubelet] {
            let pods = load(json);
            for identity in capture.identities() {
                let names = pods.names(&identity);
                if identity.level == Level::Slice {
                    assert_eq!(names, None);
                } else if identity.level == Level::Pod {
                    let names = names.unwrap();
                    assert_eq!((names.container.as_str(), names.image.as_str(), names.kind), ("", "", None));
                    *kinds.entry("pod").or_insert(0) += 1;
                } else if let Some(sandbox) = find(capture.sandboxes, &identity.id) {
                    assert_eq!(names, None);
                    assert!(pods.started_all(&identity));
                    let names = pods.sandbox_names(&identity).unwrap();
                    assert_eq!((names.pod.as_str(), names.namespace.as_str()), (sandbox[3], sandbox[4]));
                    assert_eq!((names.container.as_str(), names.kind), ("", Some(ContainerKind::Sandbox)));
                    *kinds.entry("sandbox").or_insert(0) += 1;
                } else if let Some(container) = find(capture.containers, &identity.id) {
                    let names = names.unwrap();
                    assert_eq!((names.container.as_str(), names.pod.as_str()), (container[4], container[7]));
                    assert_eq!((names.namespace.as_str(), container[8]), ("default", "default"));
                    assert_eq!(names.image, "registry.local/busybox:1.35");
                    assert_eq!(pods.sandbox_names(&identity), None);
                    *kinds.entry(names.kind.unwrap().as_str()).or_insert(0) += 1;
                } else {
                    // The container that is OOM-killed repeatedly: a run that is missing in the runtime's table, and
                    // that only the newest pod list may have.
                    let names = names.or_else(|| pods.sandbox_names(&identity)).unwrap();
                    assert_eq!(names.pod, "oom");
                    *kinds.entry("restarting").or_insert(0) += 1;
                }
            }
        }
    }
    let expected = [("app", 46), ("pod", 42), ("restarting", 4), ("sandbox", 42), ("sidecar", 4)];
    assert_eq!(kinds, BTreeMap::from(expected));
}

#[test]
fn workloads_of_a_real_node() {
    for capture in &CAPTURES {
        for json in [capture.of_api, capture.of_kubelet] {
            let pods = load(json);
            let mut workloads: Vec<_> = capture
                .identities()
                .iter()
                .filter(|identity| identity.level == Level::Pod)
                .map(|identity| pods.names(identity).unwrap())
                .map(|names| format!("{} {}", names.workload_kind, names.workload))
                .collect();
            workloads.sort();
            workloads.retain(|workload| workload != "Pod sidecar" && workload != "Pod done");
            assert_eq!(
                workloads,
                [
                    "Deployment dep",
                    "Deployment dep",
                    "Pod besteffort",
                    "Pod guaranteed",
                    "Pod oom",
                    "StaticPod static-web"
                ],
            );
        }
    }
}

#[test]
fn a_kubelet_without_an_api_server_is_enough() {
    let pods = load(include_bytes!("../../../../tests/fixtures/kubelet-1.36/standalone-kubelet-pods.json"));
    let web = "/kubepods/burstable/pod2e19131d9ac919f52a714034285af442/\
               d6e7b4f9fbf2cd482682990e017312b11b6713373c8cb30f99dede85c5763889";
    let names = pods.names(&path::parse(web).unwrap()).unwrap();
    assert_eq!((names.pod.as_str(), names.container.as_str()), ("static-web-node1", "web"));
    assert_eq!((names.workload_kind.as_str(), names.workload.as_str()), ("StaticPod", "static-web"));
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn identity(level: Level, pod_uid: Option<&str>, id: &str) -> PathIdentity {
    PathIdentity {
        level,
        runtime: Runtime::Unknown,
        pod_uid: pod_uid.map(str::to_owned),
        qos: None,
        id: id.to_owned(),
    }
}

fn status(name: &str, image: &str, container_id: &str) -> Value {
    json!({"name": name, "image": image, "imageID": "", "ready": true, "restartCount": 0, "containerID": container_id})
}

fn all_kinds() -> Value {
    json!({"kind": "List", "apiVersion": "v1", "items": [{
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "n", "uid": "u1"},
        "spec": {
            "containers": [{"name": "app", "image": "of-spec", "resources": {
                "limits": {"cpu": "1500m", "memory": "lots"}, "requests": {"memory": "64Mi"},
            }}],
            "initContainers": [{"name": "init"}, {"name": "proxy", "restartPolicy": "Always"}],
            "ephemeralContainers": [{"name": "debug"}],
        },
        "status": {
            "containerStatuses": [status("app", "", &format!("cri-o://{}", id('a')))],
            "initContainerStatuses": [
                status("init", "i", &format!("docker://{}", id('b'))),
                status("proxy", "i", &id('c')),
            ],
            "ephemeralContainerStatuses": [status("debug", "i", &format!("containerd://{}", id('d')))],
        },
    }]})
}

#[test]
fn kinds_images_and_runtimes() {
    let Loaded { pods, skipped } = load_value(&all_kinds());
    assert_eq!(skipped, []);
    let names = |digit| pods.names(&identity(Level::Container, Some("u1"), &id(digit))).unwrap();
    let app = Names {
        namespace: "n".to_owned(),
        pod: "p".to_owned(),
        container: "app".to_owned(),
        image: "of-spec".to_owned(),
        workload_kind: "Pod".to_owned(),
        workload: "p".to_owned(),
        kind: Some(ContainerKind::App),
        // A limit without a request is the request, too. An invalid quantity counts as not set.
        resources: Resources {
            cpu_request: Some(1500),
            cpu_limit: Some(1500),
            memory_request: Some(64 << 20),
            memory_limit: None,
        },
        spec: ContainerSpec { image: "of-spec".to_owned(), ..ContainerSpec::default() }.into(),
    };
    assert_eq!(*names('a'), app);
    let kinds = ['b', 'c', 'd'].map(|digit| (names(digit).container.clone(), names(digit).kind));
    assert_eq!(kinds[0], ("init".to_owned(), Some(ContainerKind::Init)));
    assert_eq!(kinds[1], ("proxy".to_owned(), Some(ContainerKind::Sidecar)));
    assert_eq!(kinds[2], ("debug".to_owned(), Some(ContainerKind::Ephemeral)));
}

#[test]
fn the_sandbox_is_named_only_when_asked_for() {
    let mut list = all_kinds();
    let pods = load_value(&list).pods;
    let unknown = identity(Level::Container, Some("u1"), &id('e'));
    assert_eq!(pods.names(&unknown), None);
    assert_eq!(pods.sandbox_names(&unknown).unwrap().kind, Some(ContainerKind::Sandbox));
    assert!(pods.started_all(&unknown));
    let sandbox = identity(Level::Sandbox, Some("u1"), &id('e'));
    assert_eq!(pods.names(&sandbox), pods.sandbox_names(&unknown));
    assert_eq!(pods.sandbox_names(&identity(Level::Container, Some("u1"), &id('a'))), None);
    assert_eq!(pods.sandbox_names(&identity(Level::Container, Some("u2"), &id('e'))), None);
    assert_eq!(pods.sandbox_names(&identity(Level::Container, None, &id('e'))), None);
    assert_eq!(pods.sandbox_names(&identity(Level::Pod, Some("u1"), "pod")), None);

    list["items"][0]["status"]["containerStatuses"][0]["containerID"] = Value::Null;
    let pods = load_value(&list).pods;
    assert!(!pods.started_all(&unknown));
    list["items"][0]["status"] = json!({});
    assert!(!load_value(&list).pods.started_all(&unknown));
}

#[test]
fn containers_are_found_by_id_but_not_in_another_pod() {
    let mut list = all_kinds();
    list["items"].as_array_mut().unwrap().push(json!({"metadata": {"name": "q", "uid": "u2"}}));
    let Loaded { pods, skipped } = load_value(&list);
    assert_eq!((pods.len(), skipped.len()), (2, 0));
    let container = |uid| pods.names(&identity(Level::Container, uid, &id('a')));
    assert!(container(Some("u1")).is_some());
    // Without a pod in its path (cgroupsPerQOS: false), or with a uid that is not in the list.
    assert!(container(None).is_some());
    assert!(container(Some("unknown")).is_some());
    assert_eq!(container(Some("u2")), None);
    let bare = pods.names(&identity(Level::Pod, Some("u2"), "pod")).unwrap();
    assert_eq!((bare.namespace.as_str(), bare.pod.as_str()), ("default", "q"));
}

#[test]
fn an_annotation_cannot_take_another_pods_uid() {
    let pod = |name: &str, uid: &str, annotations: Value| json!({"metadata": {"name": name, "uid": uid, "annotations": annotations}});
    let hash = json!({"kubernetes.io/config.hash": "u2"});
    let mirror = json!({"kubernetes.io/config.mirror": "h3"});
    for order in [[0, 1, 2], [1, 2, 0]] {
        let items = [
            pod("liar", "u1", hash.clone()),
            pod("owner", "u2", json!({})),
            pod("mirror", "u3", mirror.clone()),
        ];
        let items: Vec<_> = order.iter().map(|index| items[*index].clone()).collect();
        let pods = load_value(&json!({"kind": "PodList", "items": items})).pods;
        let name = |uid| pods.names(&identity(Level::Pod, Some(uid), "pod")).unwrap().pod.clone();
        assert_eq!([name("u1"), name("u2"), name("u3"), name("h3")], ["liar", "owner", "mirror", "mirror"]);
    }
}

#[test]
fn bad_items_are_skipped_with_their_index_and_reason() {
    let mut list = all_kinds();
    let items = list["items"].as_array_mut().unwrap();
    items.insert(0, json!({"metadata": {"name": "x", "namespace": "n", "uid": 7}}));
    items.push(json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "svc", "uid": "s"}}));
    items.push(json!({"metadata": {"name": "no-uid"}}));
    items.push(json!({"metadata": {"uid": "no-name"}}));
    items.push(json!(null));
    items.push(json!("pod"));
    let Loaded { pods, skipped } = load_value(&list);
    assert_eq!(pods.len(), 1);
    assert!(pods.names(&identity(Level::Container, Some("u1"), &id('a'))).is_some());
    let expected = [
        (0, Some("n/x"), "expected a string"),
        (2, Some("svc"), "\"Service\""),
        (3, Some("no-uid"), "no metadata.uid"),
        (4, None, "no metadata.name"),
        (5, None, "invalid type: null"),
        (6, None, "invalid type: string"),
    ];
    assert_eq!(skipped.len(), expected.len());
    for (skipped, (index, name, reason)) in skipped.iter().zip(expected) {
        assert_eq!((skipped.index, skipped.name.as_deref()), (index, name));
        assert!(skipped.reason.contains(reason), "{skipped:?}");
    }
}

#[test]
fn a_reason_does_not_show_a_value() {
    for secret in
        [json!("s3cret, expected \"nothing\""), json!(73_731), json!(7.3731), json!({"a": "s3cret"})]
    {
        let mut list = all_kinds();
        list["items"][0]["spec"]["containers"][0]["env"] = json!([{"name": "TOKEN", "value": secret}]);
        if secret.is_string() {
            list["items"][0]["spec"]["containers"][0]["env"] = secret.clone();
        }
        let Loaded { pods, skipped } = load_value(&list);
        assert!(pods.is_empty());
        let reason = &skipped[0].reason;
        assert!(reason.starts_with("invalid type: ") && reason.contains(", expected "), "{reason}");
        assert!(!["s3cret", "73731", "7.3731"].iter().any(|value| reason.contains(value)), "{reason}");
    }
}

#[test]
fn content_that_is_not_a_list_of_pods_is_refused() {
    let error = |json: &[u8]| Pods::from_json(json).unwrap_err();
    for json in [
        &b""[..],
        b"apiVersion: v1\nkind: List\n",
        b"{\"kind\":\"List\",\"items\":[{",
        b"[]",
        b"7",
        b"\xff\xfe{",
    ] {
        assert!(matches!(error(json), PodsError::Json { .. }), "{}", String::from_utf8_lossy(json));
    }
    assert!(matches!(error(b"{\"kind\":\"List\"}"), PodsError::Json { .. }));
    assert!(matches!(error(b"{\"items\":[]}"), PodsError::Json { .. }));
    assert!(matches!(error(b"{\"kind\":\"PodList\",\"items\":7}"), PodsError::Json { .. }));
    for json in [&b"{\"kind\":\"Pod\",\"metadata\":{}}"[..], b"{\"kind\":\"ServiceList\",\"items\":[]}"] {
        let error = error(json);
        assert!(matches!(&error, PodsError::Kind { .. }), "{error}");
        assert!(error.to_string().contains("kubectl get pods -A -o json"), "{error}");
    }
    assert!(load(b"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":null}").is_empty());
    let deep = format!("{{\"kind\":\"List\",\"items\":[{}]}}", "[".repeat(100_000) + &"]".repeat(100_000));
    assert!(Pods::from_json(deep.as_bytes()).map_or(true, |loaded| loaded.pods.is_empty()));
}

proptest! {
    #[test]
    fn damaged_lists_never_panic(cut in 0_usize..26_000, at in 0_usize..26_000, byte: u8) {
        let mut json = CAPTURES[0].of_kubelet.to_vec();
        let at = at.min(json.len() - 1);
        json[at] = byte;
        if let Ok(Loaded { pods, skipped }) = Pods::from_json(&json) {
            prop_assert_eq!(pods.len() + skipped.len(), 7);
        }
        json.truncate(cut);
        prop_assert!(Pods::from_json(&json).is_err());
    }
}
