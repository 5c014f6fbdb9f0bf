//! What the pod's spec says, from the list of pods to the history.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{model::Pods, values::Throttling};

/// A random pod of one container, and when containers of it were created.
#[derive(Clone, Debug)]
struct Case {
    /// The section of the spec.
    section: &'static str,
    is_sidecar: bool,
    /// CPU and memory, in millicores and MiB.
    of_pod: Option<Limits>,
    own: Option<Limits>,
    /// Image number and seconds before the agent's start, of each container.
    containers: Vec<(u8, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    cpu: Option<u64>,
    memory: Option<u64>,
}

fn cases() -> impl Strategy<Value = Case> {
    let limits = || {
        let one = || prop::option::of(1..4000_u64);
        prop::option::of((one(), one()).prop_map(|(cpu, memory)| Limits { cpu, memory }))
    };
    let sections =
        prop_oneof![3 => Just("containers"), 2 => Just("initContainers"), 1 => Just("ephemeralContainers")];
    let containers = prop::collection::vec((0..2_u8, 1..9000_u32), 1..4);
    (sections, any::<bool>(), limits(), limits(), containers).prop_map(
        |(section, is_sidecar, of_pod, own, containers)| Case {
            section,
            is_sidecar: is_sidecar && section == "initContainers",
            of_pod,
            own: own.filter(|_| section != "ephemeralContainers"),
            containers,
        },
    )
}

impl Limits {
    fn json(self) -> Value {
        let mut limits = json!({});
        if let Some(cpu) = self.cpu {
            limits["cpu"] = format!("{cpu}m").into();
        }
        if let Some(memory) = self.memory {
            limits["memory"] = format!("{memory}Mi").into();
        }
        json!({ "limits": limits })
    }

    fn resources(self) -> Resources {
        let memory = self.memory.map(|mib| mib * MIB);
        Resources { cpu_request: self.cpu, cpu_limit: self.cpu, memory_request: memory, memory_limit: memory }
    }

    const fn is_set(self) -> bool {
        self.cpu.is_some() || self.memory.is_some()
    }
}

impl Case {
    fn pod_resources(&self) -> Option<Resources> {
        self.of_pod.filter(|limits| limits.is_set()).map(Limits::resources)
    }

    fn own(&self) -> Resources {
        self.own.map(Limits::resources).unwrap_or_default()
    }

    /// The pod as the API server shows it, one container of the case after the other.
    fn pod(&self, id: &str, image: u8) -> Pods {
        let mut container = json!({ "name": "app", "image": format!("app:{image}") });
        let mut pod = json!({
            "metadata": {
                "namespace": "shop", "name": "web-1", "uid": "11111111-2222-3333-4444-555555555555",
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "w", "controller": true }],
            },
            "spec": { "containers": [] }, "status": {},
        });
        if let Some(own) = self.own {
            container["resources"] = own.json();
        }
        if self.is_sidecar {
            container["restartPolicy"] = "Always".into();
        }
        if let Some(of_pod) = self.of_pod {
            pod["spec"]["resources"] = of_pod.json();
        }
        pod["spec"][self.section] = json!([container]);
        let statuses = format!("{}Statuses", self.section.trim_end_matches('s'));
        pod["status"][statuses] = json!([{
            "name": "app", "image": format!("example/app:{image}"), "imageID": "", "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{id}"),
        }]);
        Pods::from_json(json!({ "kind": "List", "items": [pod] }).to_string().as_bytes()).unwrap().pods
    }

    /// The history of the containers. The cgroup of one without a limit has the pod's, as the kubelet sets it.
    fn history(&self) -> Vec<Evidence> {
        let mut node = Node::new();
        for (letter, (image, before)) in ('a'..).zip(&self.containers) {
            let key = node.container(letter, START - f64::from(*before));
            let pods = self.pod(&String::from(letter).repeat(64), *image);
            let names = pods.names(&node.store.identity(key).unwrap().of_path).unwrap();
            node.store.set_names(key, names, Level::Container);
            let of_cgroup =
                |limit: fn(Limits) -> Option<u64>| self.own.and_then(limit).or(self.of_pod.and_then(limit));
            let values = Values {
                memory: Some(Memory {
                    usage_bytes: MIB,
                    peak_bytes: Some(MIB),
                    limit_bytes: of_cgroup(|limits| limits.memory).map(|mib| mib * MIB),
                    ..Memory::default()
                }),
                working_set: Some(WorkingSet { inactive_file_bytes: 0, bytes: MIB }),
                throttling: of_cgroup(|limits| limits.cpu).map(|millicores| Throttling {
                    quota_ns: Some(millicores * 100_000),
                    period_ns: 100_000_000,
                    ..Throttling::default()
                }),
                ..Values::default()
            };
            node.store.update(key, values);
        }
        node.second(0.0);
        node.finish(1.5)
    }

    /// The history of the only container.
    fn only(&self) -> Result<Evidence, String> {
        let mut history = self.history();
        let one = history.pop().ok_or("no history")?;
        if history.is_empty() { Ok(one) } else { Err(format!("several containers: {history:?}")) }
    }
}

fn is_recorded(case: &Case) -> bool {
    case.section != "ephemeralContainers"
}

#[test]
fn current_limits_of_a_container_are_never_those_of_its_pod() {
    let applies = |case: &Case| is_recorded(case) && case.pod_resources().is_some();
    AgentRule::PodResources.prove(&cases(), applies, |case| {
        let container = case.only()?.container;
        same(&container.pod_resources, &case.pod_resources())?;
        same(&container.current, &case.own())
    });
}

#[test]
fn without_requests_of_the_pod_current_limits_are_the_kernels() {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let cases = cases().prop_filter("recorded", |case| is_recorded(case) && case.pod_resources().is_none());
    runner
        .run(&cases, |case| {
            let container = case.only().map_err(TestCaseError::fail)?.container;
            prop_assert_eq!(container.pod_resources, None);
            prop_assert_eq!(container.current, case.own());
            Ok(())
        })
        .unwrap();
}

#[test]
fn init_containers_and_native_sidecars_have_their_role_in_the_history() {
    AgentRule::Roles.prove(&cases(), is_recorded, |case| {
        let expected = match (case.section, case.is_sidecar) {
            ("initContainers", true) => Role::Sidecar,
            ("initContainers", false) => Role::Init,
            _ => Role::App,
        };
        same(&case.only()?.container.role, &expected)
    });
}

#[test]
fn ephemeral_containers_are_not_in_the_history() {
    AgentRule::Ephemeral.prove(
        &cases(),
        |case| !is_recorded(case),
        |case| same(&case.history(), &Vec::new()),
    );
}

#[test]
fn an_image_is_as_old_as_the_oldest_container_that_runs_it() {
    AgentRule::ImageAge.prove(&cases(), is_recorded, |case| {
        let mut expected = std::collections::BTreeMap::new();
        for (image, before) in &case.containers {
            let created = START as u64 - u64::from(*before);
            let first = expected.entry(format!("app:{image}")).or_insert(created);
            *first = created.min(*first);
        }
        let evidence = case.only()?;
        if !expected.contains_key(&evidence.container.image) {
            return Err(format!("{:?} ran nowhere", evidence.container.image));
        }
        same(&evidence.images, &expected)
    });
}

#[test]
fn a_secret_of_the_environment_reaches_neither_history_nor_api() {
    let id = "a".repeat(64);
    let list = json!({ "kind": "List", "items": [{
        "metadata": {
            "namespace": "shop", "name": "web-1", "uid": "11111111-2222-3333-4444-555555555555",
            // kubectl writes the whole manifest here.
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{\"value\":\"S3CRET\"}" },
        },
        "spec": { "containers": [{
            "name": "app", "image": "app:1",
            "command": ["java", "-Xmx512m", "-Dtoken=S3CRET", "--password", "S3CRET"],
            "env": [
                { "name": "TOKEN", "value": "S3CRET" },
                { "name": "JAVA_TOOL_OPTIONS", "value": "-XX:MaxRAMPercentage=60 -Djavax.net.ssl.keyStorePassword=S3CRET" },
                { "name": "GOMEMLIMIT", "valueFrom": { "secretKeyRef": { "name": "S3CRET", "key": "S3CRET" } } },
            ],
        }] },
        "status": { "containerStatuses": [{
            "name": "app", "image": "app:1", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{id}"),
        }] },
    }] });
    let pods = Pods::from_json(list.to_string().as_bytes()).unwrap().pods;
    let mut node = Node::new();
    let key = node.container('a', START - 100.0);
    let names = pods.names(&node.store.identity(key).unwrap().of_path).unwrap();
    node.store.set_names(key, names, Level::Container);
    node.memory(key, MIB, 0, MIB);
    node.second(0.0);
    let view = node.store.build_view(Default::default(), Instant::now());
    let evidence = node.finish(1.5).pop().unwrap();
    // Whatever is written anywhere comes from these.
    for shown in [
        serde_json::to_string(&evidence).unwrap(),
        format!("{evidence:?}"),
        format!("{view:?}"),
        format!("{pods:?}"),
    ] {
        assert!(shown.contains("app:1") && !shown.contains("S3CRET"), "{shown}");
    }
    let settings: Vec<_> =
        evidence.container.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    assert_eq!(settings, ["-Xmx 512m", "GOMEMLIMIT ", "JAVA_TOOL_OPTIONS -XX:MaxRAMPercentage 60", "java "]);
}
