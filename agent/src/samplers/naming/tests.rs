use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    identity::path,
    model::{Exit, ExitStatus, Init},
    store::Appearance,
};

/// Kind, name, container, ended containers, terminations and restarts of a workload.
type Counted = (String, String, String, u64, usize, u64);

const UID: &str = "11111111-2222-3333-4444-555555555555";

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A node with one pod of a Deployment, and a pods file that does not exist yet.
struct Fixture {
    folder: tempfile::TempDir,
    naming: Naming,
    store: Store,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let naming = Naming::new(Some(root.join("pods.json")), root.clone(), root);
        Self { folder, naming, store: Store::new(16), now: Instant::now() }
    }

    /// Writes the pods file: the containers, and the id of the current run of each.
    fn know(&self, containers: &[(&str, String)]) {
        let specs: Vec<_> = containers.iter().map(|(name, _)| json!({ "name": name })).collect();
        let statuses: Vec<_> = containers
            .iter()
            .map(|(name, id)| {
                json!({
                    "name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "containerID": format!("containerd://{id}"),
                })
            })
            .collect();
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "report-6fb966c98f", "uid": "o",
            "controller": true,
        });
        let pod = json!({
            "metadata": {
                "name": "report-6fb966c98f-kf8lz", "namespace": "shop", "uid": UID, "ownerReferences": [owner],
                "labels": { "pod-template-hash": "6fb966c98f" },
            },
            "spec": { "containers": specs },
            "status": { "containerStatuses": statuses },
        });
        let list = json!({ "kind": "PodList", "items": [pod] });
        fs::write(self.folder.path().join("pods.json"), list.to_string()).unwrap();
    }

    /// A container runs `program`, fails and is removed.
    fn run(&mut self, id: &str, program: &str) -> Key {
        let path = format!("/kubepods/besteffort/pod{UID}/{id}");
        let of_path = path::parse(&path).unwrap();
        let appearance =
            Appearance { path: path.as_str().into(), of_path, created_unix: 0.0, present_at_start: false };
        let key = self.store.appear(appearance, 0, self.now);
        let init = Init { pid: 5, comm: program.to_owned(), started_unix: 0.0, contained: true };
        self.store.record_start(key, init.clone());
        let exit = Exit { init, ended_unix: 1.0, status: ExitStatus::Code(3) };
        self.store.record_exit(key, exit, self.now);
        self.store.depart(key, 0, true, false, self.now);
        self.round(Duration::ZERO);
        key
    }

    fn round(&mut self, after: Duration) {
        let now = self.now + after;
        self.naming.name_ended(&mut self.store, now);
        self.store.settle(now);
        self.store.count_workloads(now);
    }

    fn counted(&mut self) -> Vec<Counted> {
        let view = self.store.build_view(Default::default(), self.now);
        let rows = view.workloads.iter().map(|row| {
            let (kind, name) = (row.workload_kind.to_string(), row.workload.to_string());
            let ended = row.terminations.iter().map(|(_, _, count)| count as usize).sum();
            (kind, name, row.container.to_string(), row.containers_ended, ended, row.restarts)
        });
        rows.collect()
    }
}

fn deployment(container: &str, ended: u64, terminations: usize, restarts: u64) -> Counted {
    ("Deployment".into(), "report".into(), container.into(), ended, terminations, restarts)
}

#[test]
fn a_container_that_ends_before_its_pod_is_known_waits_for_its_name() {
    let mut fixture = Fixture::new();
    fixture.run(&id('a'), "app");
    assert_eq!(fixture.counted(), [], "it waits");
    fixture.know(&[("app", id('a')), ("proxy", id('b'))]);
    fixture.round(Duration::from_secs(100));
    assert_eq!(fixture.counted(), [deployment("app", 1, 1, 0)]);
    assert_eq!(fixture.store.take_finished().len(), 1);
    // The reloaded pods are also for the present cgroups.
    assert!(fixture.naming.pods_changed);
}

#[test]
fn of_a_crash_loop_all_runs_count_even_those_that_no_status_mentions() {
    let mut fixture = Fixture::new();
    fixture.run(&id('a'), "app");
    fixture.run(&id('b'), "app");
    fixture.run(&id('c'), "pause");
    fixture.know(&[("app", id('b'))]);
    fixture.round(Duration::from_secs(1));
    assert_eq!(fixture.counted(), [deployment("app", 2, 2, 1)], "the sandbox waits");
    fixture.round(Duration::from_secs(301));
    assert_eq!(fixture.counted(), [deployment("", 1, 0, 0), deployment("app", 2, 2, 1)]);
    assert_eq!(fixture.store.never_named(), 0);
}

#[test]
fn without_a_workload_in_time_a_container_counts_under_none() {
    let mut fixture = Fixture::new();
    fixture.know(&[("app", id('a')), ("proxy", id('b'))]);
    let key = fixture.run(&id('c'), "app");
    let names =
        Names { namespace: "shop".into(), pod: "gone".into(), container: "x".into(), ..Names::default() };
    let other = fixture.run(&id('d'), "app");
    fixture.store.set_names(other, Arc::new(names), Level::Container);
    fixture.round(Duration::from_secs(299));
    assert_eq!(fixture.counted(), [], "which of two containers it was is not known");
    fixture.round(Duration::from_secs(300));
    let unknown = |container: &str| ("Unknown".into(), String::new(), container.into(), 1, 1, 0);
    assert_eq!(fixture.counted(), [unknown(""), unknown("x")]);
    assert_eq!(fixture.store.never_named(), 2);
    assert!(fixture.store.identity(key).is_none());
}

#[test]
fn no_more_than_a_thousand_containers_wait() {
    let mut fixture = Fixture::new();
    for number in 0..1030 {
        fixture.run(&format!("{number:064x}"), "app");
    }
    assert_eq!(fixture.store.never_named(), 6);
    assert_eq!(fixture.counted().iter().map(|row| row.3).sum::<u64>(), 6);
}

/// A pod of one to three containers and their runs, one after the other: the number of the container, or a sandbox.
fn pod_with_runs() -> impl Strategy<Value = (usize, Vec<Option<usize>>)> {
    (1..4_usize).prop_flat_map(|containers| {
        let runs = prop::collection::vec(prop::option::weighted(0.8, 0..containers), 1..8);
        (Just(containers), runs)
    })
}

#[test]
fn a_run_counts_under_its_own_container_or_under_none() {
    const NAMES: [&str; 3] = ["app", "proxy", "log"];
    let is_loop = |(containers, runs): &(usize, Vec<Option<usize>>)| {
        (0..*containers).any(|number| runs.iter().filter(|run| **run == Some(number)).count() > 1)
    };
    AgentRule::OnlyContainer.prove(&pod_with_runs(), is_loop, |(containers, runs)| {
        let mut fixture = Fixture::new();
        let run_id = |number: usize| format!("{number:064x}");
        // The status of a container has the id of its last run only.
        let last_of = |container| runs.iter().rposition(|run| *run == Some(container));
        let statuses = NAMES.iter().take(*containers).enumerate();
        let statuses =
            statuses.map(|(number, name)| (*name, last_of(number).map_or_else(|| id('f'), run_id)));
        fixture.know(&statuses.collect::<Vec<_>>());
        let mut expected = BTreeMap::<(&str, &str), u64>::new();
        for (number, run) in runs.iter().enumerate() {
            fixture.run(&run_id(number), run.map_or(SANDBOX_PROGRAM, |_| "server"));
            let row = match *run {
                None => ("Deployment", ""),
                Some(container) if *containers == 1 || last_of(container) == Some(number) => {
                    ("Deployment", NAMES[container])
                }
                Some(_) => ("Unknown", ""),
            };
            *expected.entry(row).or_default() += 1;
        }
        fixture.round(Duration::from_secs(301));
        let counted = fixture.counted();
        let found: BTreeMap<_, _> = counted
            .iter()
            .map(|(kind, _, container, ended, ..)| ((kind.as_str(), container.as_str()), *ended))
            .collect();
        let is_right = found == expected && found.len() == counted.len();
        if is_right { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
    });
}

#[test]
fn a_container_outside_of_pods_gets_the_name_of_its_engine() {
    let mut fixture = Fixture::new();
    fixture.naming.lib_root = fixture.folder.path().to_owned();
    let keys = ['a', 'b'].map(|digit| {
        let path = format!("/docker/{}", id(digit));
        let of_path = path::parse(&path).unwrap();
        let appearance =
            Appearance { path: path.as_str().into(), of_path, created_unix: 0.0, present_at_start: true };
        fixture.store.appear(appearance, 0, fixture.now)
    });
    let folder = fixture.folder.path().join("docker/containers").join(id('a'));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.v2.json"), json!({ "Name": "/web" }).to_string()).unwrap();
    let root = fixture.folder.path().to_owned();
    for _ in 0..=MAX_ATTEMPTS {
        fixture.naming.refresh(&mut fixture.store, &root, true);
    }
    let names = keys.map(|key| fixture.store.identity(key).unwrap().engine_name.clone());
    assert_eq!(names, [Some("web".into()), None]);
    assert!(fixture.store.identity(keys[0]).unwrap().names.is_none());
}
