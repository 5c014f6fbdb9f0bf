use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{identity::path, model::Pods, store::Appearance, values::Values};

const BEGAN: f64 = 1_800_000_000.0;
const MIB: u64 = 1 << 20;

/// What happened in a container within a second, and how many of its tasks were killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Oom {
    /// Usage met the limit, and reclaim was enough.
    None,
    /// The limit of the container, of its pod, or of something above it.
    At(OomScope, u64),
}

#[derive(Clone, Debug)]
struct Case {
    has_oom: bool,
    /// Counters from before the agent; `None` if the container is newer.
    before: Option<u64>,
    seconds: Vec<Oom>,
}

fn cases() -> impl Strategy<Value = Case> {
    let scope = prop::sample::select(vec![OomScope::Container, OomScope::Pod, OomScope::Ancestor]);
    let oom =
        prop_oneof![Just(Oom::None), (scope, 1..6_u64).prop_map(|(scope, tasks)| Oom::At(scope, tasks))];
    (any::<bool>(), prop::option::of(0..9_u64), prop::collection::vec(oom, 1..6))
        .prop_map(|(has_oom, before, seconds)| Case { has_oom, before, seconds })
}

/// Memory of a cgroup, and its counters.
#[derive(Clone, Copy)]
struct Charged {
    memory: Memory,
    events: MemoryEvents,
}

/// Lets a container run out of memory as the kernel counts it. On v2 the counters of the pod include the container's, and a limit that is
/// met is counted also if reclaim is enough. v1 counts kills for the cgroup alone, and no OOM, but the highest usage is at the limit.
fn count(oom: Oom, has_oom: bool, container: &mut Charged, pod: &mut Charged) {
    let Oom::At(scope, tasks) = oom else {
        if has_oom {
            container.events.max += 1;
            pod.events.max += 1;
        }
        return;
    };
    container.events.oom_kill += tasks;
    let at = |charged: &mut Charged| {
        charged.memory.peak_bytes = charged.memory.limit_bytes;
        // Several tasks may run out of memory before one is dead.
        charged.events.oom += if has_oom { tasks } else { 0 };
    };
    if has_oom {
        pod.events.oom_kill += tasks;
    }
    match scope {
        OomScope::Container if has_oom => {
            at(container);
            pod.events.oom += tasks;
        }
        OomScope::Container => at(container),
        OomScope::Pod => at(pod),
        OomScope::Ancestor | OomScope::Node => {}
    }
}

#[test]
fn an_oom_kill_that_only_counters_show_is_counted_once_with_its_limit() {
    AgentRule::CountedKills.prove(
        &cases(),
        |case| case.seconds.iter().any(|oom| *oom != Oom::None),
        |case| {
            let mut store = Store::new(10);
            let pod_path = "/kubepods/pod11111111-2222-3333-4444-555555555555";
            let created_unix = if case.before.is_some() { BEGAN - 100.0 } else { BEGAN + 1.0 };
            let mut appear = |path: &str| {
                let of_path = path::parse(path).unwrap();
                let appearance =
                    Appearance { path: path.into(), of_path, created_unix, present_at_start: false };
                store.appear(appearance, 0, Instant::now())
            };
            let pod = appear(pod_path);
            let container = appear(&format!("{pod_path}/{}", "a".repeat(64)));
            let before = case.before.unwrap_or(0);
            let events = MemoryEvents { max: before, oom_kill: before, ..MemoryEvents::default() };
            let charged = |limit: u64| {
                let memory =
                    Memory { peak_bytes: Some(limit / 2), limit_bytes: Some(limit), ..Memory::default() };
                Charged { memory, events }
            };
            let (mut of_container, mut of_pod) = (charged(64 * MIB), charged(96 * MIB));
            let mut counters = KillCounters::default();
            let mut found = Vec::new();
            for second in std::iter::once(&Oom::None).chain(&case.seconds) {
                count(*second, case.has_oom, &mut of_container, &mut of_pod);
                for (key, Charged { memory, events }) in [(container, of_container), (pod, of_pod)] {
                    let (memory, memory_events) = (Some(memory), Some(events));
                    store.update(key, Values { memory, memory_events, ..Values::default() });
                }
                found.extend(counters.kills(&store, BEGAN, case.has_oom));
            }
            let scopes = case.seconds.iter().filter_map(|oom| match oom {
                Oom::None => None,
                Oom::At(scope, _) => Some(*scope),
            });
            // On v1 a limit counts as met from the first time on, the container's before the pod's.
            let mut nearest = OomScope::Ancestor;
            let expected: Vec<_> = scopes
                .map(|scope| {
                    nearest = if case.has_oom { scope } else { nearest.min(scope) };
                    (container, nearest)
                })
                .collect();
            if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
        },
    );
}

#[test]
fn a_reported_kill_has_the_limit_that_it_reached() {
    let limit = |own: &serde_json::Value, second: Option<&serde_json::Value>, of_pod: &serde_json::Value| {
        let container = |name: &str, limits: &serde_json::Value| json!({ "name": name, "image": "a", "resources": { "limits": limits } });
        let both = [Some(("main", own)), second.map(|limits| ("second", limits))].into_iter().flatten();
        let containers: Vec<_> = both.map(|(name, limits)| container(name, limits)).collect();
        let list = json!({ "kind": "List", "items": [{
            "metadata": { "namespace": "shop", "name": "web", "uid": "u" },
            "spec": { "containers": containers, "resources": { "limits": of_pod },
                "initContainers": [container("first", &json!({}))] },
        }] });
        let pods = Pods::from_json(list.to_string().as_bytes()).unwrap().pods;
        let pod = pods.iter().next().unwrap();
        reached_limit(pod, pod.container("main").unwrap())
    };
    let (none, of_64, of_96) = (json!({}), json!({ "memory": "64Mi" }), json!({ "memory": "96Mi" }));
    assert_eq!(limit(&of_64, None, &none), Some(64 * MIB));
    assert_eq!(limit(&none, None, &none), None, "the node was too small");
    assert_eq!(limit(&none, None, &of_96), Some(96 * MIB), "the only container of its pod");
    assert_eq!(limit(&of_96, None, &of_64), Some(64 * MIB));
    assert_eq!(limit(&of_64, Some(&none), &of_96), Some(64 * MIB));
    assert_eq!(limit(&none, Some(&of_64), &of_96), Some(0), "nobody knows what it used of the pod's");
}
