//! OOM kills where no eBPF program reports them: they reach the usage history from counters and from pod statuses.

use std::{thread, time::Duration};

use serde_json::{Value, json};
use snug_agent::history::{History, Retention};
use snug_tests::{
    cgroup::Cgroup,
    worker::{Job, Worker},
};

use crate::{
    driver::{Driver, host},
    evidence::recorded,
    names::{pod, write},
};

const MIB: u64 = 1 << 20;
const UID: &str = "6f1a2b3c-4d5e-4f60-8a7b-8c9d0e1f2a3b";
/// Longer than a status waits for the eBPF program.
const KERNEL_REPORT_TIMEOUT: Duration = Duration::from_secs(11);
/// Longer than the time between two full rounds, and between two listings of cgroups.
const NEXT_ROUND: Duration = Duration::from_millis(1_500);

fn full_round(driver: &mut Driver) {
    thread::sleep(NEXT_ROUND);
    driver.round();
}

/// The pod, whose container runs with `id` after its run `before` was OOM-killed.
fn after_a_kill(id: &str, before: &str, at: &str) -> Value {
    let mut pod =
        pod("looping-5d4f8b7c9-x2k4p", UID, Some(("ReplicaSet", "looping-5d4f8b7c9")), &json!({}), id);
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "48Mi" } });
    pod["status"]["containerStatuses"][0]["restartCount"] = 1.into();
    pod["status"]["containerStatuses"][0]["state"] = json!({ "running": { "startedAt": at } });
    pod["status"]["containerStatuses"][0]["lastState"] = json!({ "terminated": {
        "containerID": format!("containerd://{before}"), "reason": "OOMKilled", "exitCode": 137, "finishedAt": at,
    }});
    pod
}

fn now_utc() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn oom_kills_reach_the_history_once_without_ebpf() {
    let Some(host) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pods.json");
    let [first, second, third] = ['1', '2', '3'].map(|digit| digit.to_string().repeat(64));
    let owner = Some(("ReplicaSet", "looping-5d4f8b7c9"));
    write(&file, &[pod("looping-5d4f8b7c9-x2k4p", UID, owner, &json!({}), &first)]);
    let options =
        ["--source", "files", "--working-set-interval", "1s", "--pods-file", file.to_str().unwrap()];
    let Some(driver) = Driver::start(&options, None) else { return };
    let history = History::start(None, Retention { hours: 24, hours_by_minute: 24, bytes: 1 << 20 }).unwrap();
    let mut driver = driver.with_history(history.sink());
    let top = Cgroup::new(&host, "files-oom");
    let kubepods = top.child("kubepods");
    let of_pod = kubepods.child(&format!("pod{UID}"));
    let container = of_pod.child(&first);
    container.limit_memory(32 * MIB, 0);
    let _init = Worker::start_in(&container);
    full_round(&mut driver);
    full_round(&mut driver);
    // A process beside the init process: the container goes on, and only counters show the kill.
    let mut beside = Worker::start_in(&container);
    assert_eq!(beside.run(&Job::Touch { bytes: 96 * MIB }), None, "it should have been killed");
    full_round(&mut driver);
    // The same kill in a status, then that of a run that was never seen.
    for (now, before) in [(&second, &first), (&third, &second)] {
        write(&file, &[after_a_kill(now, before, &now_utc())]);
        full_round(&mut driver);
        thread::sleep(KERNEL_REPORT_TIMEOUT);
        full_round(&mut driver);
    }
    driver.end();
    let evidence = recorded(history, "looping");
    let kills: Vec<(u64, &str)> = evidence.kills().map(|kill| (kill.limit, &*kill.pod)).collect();
    let pod = "looping-5d4f8b7c9-x2k4p";
    assert_eq!(kills, [(32 * MIB, pod), (48 * MIB, pod)]);
    assert_eq!(evidence.workload.replicas, 1, "{:?}", evidence.workload);
}
