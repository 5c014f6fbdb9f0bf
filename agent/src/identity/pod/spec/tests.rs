use proptest::prelude::*;
use serde_json::{Value, json};
use snug_sizing::workload::Resources;

use crate::model::{AgentRule, ContainerKind, Pods, pod::KnownPod};

const MIB: u64 = 1 << 20;

fn list(items: &Value) -> Pods {
    let loaded = Pods::from_json(json!({ "kind": "List", "items": items }).to_string().as_bytes()).unwrap();
    assert_eq!(loaded.skipped, []);
    loaded.pods
}

/// A pod of one container and more of the spec.
fn pod(container: &Value, spec: &Value) -> Pods {
    let mut pod = json!({ "metadata": { "namespace": "shop", "name": "web-0", "uid": "u" }, "spec": spec, "status": {} });
    pod["spec"]["containers"] = json!([container]);
    list(&json!([pod]))
}

fn of_1_36() -> Pods {
    let json = include_bytes!("../../../../../tests/fixtures/kubelet-1.36/pods-resources.json");
    let loaded = Pods::from_json(json).unwrap();
    assert_eq!((loaded.pods.len(), loaded.skipped.len()), (11, 0));
    loaded.pods
}

/// The pod of that name, or of the workload if the name ends in a dash.
fn named<'p>(pods: &'p Pods, name: &str) -> &'p KnownPod {
    let is_named = |pod: &str| if name.ends_with('-') { pod.starts_with(name) } else { pod == name };
    pods.iter().find(|pod| is_named(&pod.names.pod)).unwrap()
}

fn set(
    cpu_request: impl Into<Option<u64>>,
    cpu_limit: impl Into<Option<u64>>,
    memory_request: impl Into<Option<u64>>,
    memory_limit: impl Into<Option<u64>>,
) -> Resources {
    let mib = |mib: Option<u64>| mib.map(|mib| mib * MIB);
    Resources {
        cpu_request: cpu_request.into(),
        cpu_limit: cpu_limit.into(),
        memory_request: mib(memory_request.into()),
        memory_limit: mib(memory_limit.into()),
    }
}

#[test]
fn pods_of_a_real_node_have_their_own_requests_and_limits() {
    let pods = of_1_36();
    for (name, expected) in [
        ("pl-", set(60, None, 32, 128)),
        ("plg-", set(200, 200, 64, 64)),
        ("podlevel-oom-", set(50, None, 32, 40)),
        ("podlevel", set(200, 300, 64, 128)),
    ] {
        let pod = named(&pods, name);
        assert_eq!(pod.names.resources, expected, "{name}");
        assert_eq!(pod.sandbox.resources, Resources::default(), "{name}");
        for container in &pod.containers {
            assert_eq!(container.names.spec.pod_resources, Some(expected), "{name}");
            assert_eq!(container.names.spec.image, "registry.local/busybox:1.35");
        }
    }
    // The containers' own stay apart from them.
    let own = |pod: &str, container: &str| named(&pods, pod).container(container).unwrap().names.resources;
    assert_eq!(own("pl-", "a"), Resources::default());
    assert_eq!(own("podlevel-oom-", "quiet"), set(1, None, 9, 9));
    // Without `spec.resources` the status has sums, which nobody has set.
    for name in ["resizeme", "sidecar", "mesh-", "edge-rules", "edge-hostusers"] {
        let pod = named(&pods, name);
        assert_eq!(pod.names.resources, Resources::default(), "{name}");
        assert!(pod.containers.iter().all(|one| one.names.spec.pod_resources.is_none()), "{name}");
    }
}

#[test]
fn init_containers_and_sidecars_of_a_real_node() {
    let pods = of_1_36();
    let kind = |pod: &str, container: &str| named(&pods, pod).container(container).unwrap().names.kind;
    for (pod, container, expected) in [
        ("mesh-", "setup", ContainerKind::Init),
        ("mesh-", "envoy", ContainerKind::Sidecar),
        ("mesh-", "main", ContainerKind::App),
        ("sidecar", "proxy", ContainerKind::Sidecar),
        ("edge-initoom", "setup", ContainerKind::Init),
        // `restartPolicy` of an app container does not make it a sidecar.
        ("edge-rules", "main", ContainerKind::App),
    ] {
        assert_eq!(kind(pod, container), Some(expected), "{pod} {container}");
    }
}

#[test]
fn what_a_kubelet_shows_without_a_limit_is_no_limit() {
    let resources =
        json!({ "requests": { "cpu": "1" }, "limits": { "memory": "9007199254740988Ki", "cpu": "2" } });
    let mut of = json!({ "metadata": { "name": "p", "uid": "u" }, "spec": {
        "resources": resources, "containers": [{ "name": "app", "resources": resources }],
    } });
    let check = |of: &Value| {
        let pods = list(&json!([of]));
        let pod = pods.iter().next().unwrap();
        assert_eq!(pod.names.resources, set(1000, 2000, None, None));
        assert_eq!(pod.containers[0].names.resources, set(1000, 2000, None, None));
    };
    check(&of);
    // The applied values count, if there are any.
    of["status"] = json!({ "resources": {} });
    check(&of);
    of["spec"]["resources"] = json!({ "limits": { "memory": "64Mi" } });
    of["status"] = json!({ "resources": resources });
    check(&of);
}

/// Names of variables and arguments whose values are settings, with a value.
const SETTINGS: [(&str, &str); 3] = [("GOMEMLIMIT", "512MiB"), ("GOMAXPROCS", "3"), ("WEB_CONCURRENCY", "4")];

#[test]
fn no_value_of_an_environment_gets_out_but_settings() {
    let secret = "[ =]?S3CRET[a-z]{0,4}";
    let cases = (
        prop::collection::vec(("[A-Z_]{1,9}", "[a-z]{4}S3CRET[a-z0-9 =,\"-]{0,9}"), 0..6),
        prop::collection::vec("-?-?[a-zA-Z]{0,9}[= ]?S3CRET[a-z]{0,4}", 0..6),
        (
            prop::sample::select(SETTINGS.to_vec()),
            "(JAVA_OPTS|NODE_OPTIONS|GOMEMLIMIT|JAVA_TOOL_OPTIONS)",
            secret,
        ),
        any::<bool>(),
    );
    AgentRule::SettingsOnly.prove(
        &cases,
        |_| true,
        |(variables, arguments, ((name, value), held, secret), is_in_args)| {
            let variable = |(name, value): &(String, String)| json!({ "name": name, "value": value });
            let mut env: Vec<Value> = variables.iter().map(variable).collect();
            env.push(json!({ "name": name, "value": value }));
            if held != name {
                let value = format!("-Xmx1g -Dpassword{secret} -XX:MaxHeapSize{secret} -Xmx{secret}");
                env.push(json!({ "name": held, "value": value }));
            }
            let elsewhere = json!({ "secretKeyRef": { "name": "S3CRET", "key": "S3CRET" } });
            env.push(json!({ "name": "DOTNET_PROCESSOR_COUNT", "valueFrom": elsewhere }));
            let at = if *is_in_args { "args" } else { "command" };
            let container = json!({ "name": "app", "image": "app:1", "env": env, at: arguments });
            let pods = pod(&container, &json!({}));
            let shown = format!("{pods:?}");
            let settings = &pods.iter().next().unwrap().containers[0].names.spec.settings;
            let found = [name, "DOTNET_PROCESSOR_COUNT"].map(|name| settings.get(name).map(String::as_str));
            let is_right = !shown.contains("S3CRET") && found == [Some(*value), Some("")];
            if is_right { Ok(()) } else { Err(shown) }
        },
    );
}

/// A volume of a pod.
#[derive(Clone, Debug)]
struct Volume {
    /// MiB.
    size: Option<u64>,
    is_in_memory: bool,
    is_mounted: bool,
    is_read_only: bool,
}

fn volume() -> impl Strategy<Value = Volume> {
    (prop::option::of(0..300_u64), any::<[bool; 3]>()).prop_map(
        |(size, [is_in_memory, is_mounted, is_read_only])| Volume {
            size,
            is_in_memory,
            is_mounted,
            is_read_only,
        },
    )
}

impl Volume {
    /// Whether files in it can be the container's memory.
    const fn counts(&self) -> bool {
        self.is_in_memory && self.is_mounted && !self.is_read_only
    }
}

#[test]
fn a_volume_in_memory_is_as_large_as_its_limit_and_the_pods() {
    let limit = || prop::option::of(1..300_u64);
    let cases = (prop::collection::vec(volume(), 0..5), limit(), limit());
    let applies =
        |(volumes, _, _): &(Vec<Volume>, Option<u64>, Option<u64>)| volumes.iter().any(Volume::counts);
    AgentRule::MemoryVolumes.prove(&cases, applies, |(volumes, of_pod, of_container)| {
        let mib = |size: u64| format!("{size}Mi");
        let mut spec = json!({ "volumes": [] });
        let mut container = json!({ "name": "app", "volumeMounts": [] });
        for (limit, of) in [(of_pod, &mut spec), (of_container, &mut container)] {
            if let Some(limit) = limit {
                of["resources"] = json!({ "limits": { "memory": mib(*limit) } });
            }
        }
        let mut expected = 0_u64;
        for (number, volume) in volumes.iter().enumerate() {
            let name = format!("volume-{number}");
            let medium = if volume.is_in_memory { "Memory" } else { "" };
            let mut source = json!({ "medium": medium });
            if let Some(size) = volume.size {
                source["sizeLimit"] = mib(size).into();
            }
            spec["volumes"].as_array_mut().unwrap().push(json!({ "name": name, "emptyDir": source }));
            // The same volume may be mounted twice.
            for path in ["a", "b"].iter().filter(|_| volume.is_mounted) {
                let mount = json!({ "name": name, "mountPath": path, "readOnly": volume.is_read_only });
                container["volumeMounts"].as_array_mut().unwrap().push(mount);
            }
            if volume.counts() {
                let limits = [volume.size.filter(|size| *size > 0), of_pod.or(*of_container)];
                let size = limits.into_iter().flatten().min().map_or(u64::MAX, |mib| mib * MIB);
                expected = expected.saturating_add(size);
            }
        }
        let pods = pod(&container, &spec);
        let found = pods.iter().next().unwrap().containers[0].names.spec.memory_volumes;
        if found == expected { Ok(()) } else { Err(format!("{found}, not {expected}")) }
    });
}

#[test]
fn the_memory_limit_of_a_pod_is_the_most_that_its_containers_can_have_at_a_time() {
    let container =
        |limit: u64| json!({ "name": "c", "resources": { "limits": { "memory": format!("{limit}Mi") } } });
    let sidecar = |limit: u64| {
        let mut sidecar = container(limit);
        sidecar["restartPolicy"] = "Always".into();
        sidecar
    };
    for (init, apps, expected) in [
        (vec![], vec![container(1), container(2)], Some(3)),
        (vec![sidecar(4)], vec![container(1)], Some(5)),
        (vec![sidecar(4), container(9), sidecar(1)], vec![container(1)], Some(13)),
        (vec![container(9)], vec![json!({ "name": "c" })], None),
        (vec![json!({ "name": "c" })], vec![container(9)], None),
    ] {
        let spec = json!({ "initContainers": init, "containers": apps });
        let spec = serde_json::from_value(spec).unwrap();
        assert_eq!(
            super::sum_of_memory_limits(&spec),
            expected.map(|mib: u64| mib * MIB),
            "{init:?} {apps:?}"
        );
    }
}

#[test]
fn a_limit_that_no_machine_reaches_is_no_limit() {
    let bytes = prop_oneof![1..1_u64 << 50, (1_u64 << 62) + 1..=i64::MAX as u64];
    AgentRule::NoLimit.prove(
        &bytes,
        |_| true,
        |bytes| {
            let resources = json!({ "limits": { "memory": bytes.to_string() }, "requests": { "cpu": "1" } });
            let pods =
                pod(&json!({ "name": "app", "resources": resources }), &json!({ "resources": resources }));
            let pod = pods.iter().next().unwrap();
            let expected = Some(*bytes).filter(|bytes| *bytes <= 1 << 62);
            let found = [pod.names.resources.memory_limit, pod.containers[0].names.resources.memory_limit];
            if found == [expected; 2] { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
        },
    );
}

#[test]
fn huge_pages_of_all_sizes_are_added_up() {
    let limits =
        json!({ "memory": "1Gi", "hugepages-2Mi": "64Mi", "hugepages-1Gi": "2Gi", "example.com/gpu": "1" });
    let pods = pod(&json!({ "name": "app", "resources": { "limits": limits } }), &json!({}));
    assert_eq!(pods.iter().next().unwrap().containers[0].names.spec.hugepages, (2048 + 64) * MIB);
}

#[test]
fn an_ephemeral_container_has_an_image_only() {
    let spec = json!({ "resources": { "limits": { "memory": "64Mi" } }, "ephemeralContainers": [{
        "name": "debug", "image": "busybox:1", "env": [{ "name": "GOMAXPROCS", "value": "2" }],
    }] });
    let pods = pod(&json!({ "name": "app" }), &spec);
    let debug = &pods.iter().next().unwrap().container("debug").unwrap().names;
    let only_image = crate::model::ContainerSpec { image: "busybox:1".to_owned(), ..Default::default() };
    assert_eq!((debug.kind, &*debug.spec), (Some(ContainerKind::Ephemeral), &only_image));
}
