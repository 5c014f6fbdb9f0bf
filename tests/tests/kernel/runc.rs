//! Containers of runc: their init process, its exit status, and restarts.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use snug_agent::model::{TerminatedContainer, TerminationReason, View};
use snug_tests::{
    cgroup::{Cgroup, Host},
    required,
    runc::{PidNamespace, Runc},
    wait::until,
};

use crate::{
    driver::{Driver, Running, host},
    names::{pod, write},
};

const MIB: u64 = 1 << 20;
const UID: &str = "4d1e7c0f-5a2b-4c3d-8e9f-0123456789ab";

/// Waits for a line of input and exits.
const WAIT_FOR_LINE: [&str; 3] = ["sh", "-c", "read -r line; exit 5"];

fn runc(host: &Host, name: &str) -> Option<(Cgroup, Runc)> {
    let top = Cgroup::new(host, name);
    let runc = required(Runc::find(&top))?;
    Some((top, runc))
}

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn pod_cgroup() -> String {
    format!("kubepods/burstable/pod{UID}")
}

fn now_unix() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn terminations_of(published: &View, path: &str) -> Vec<Arc<TerminatedContainer>> {
    published.terminated.iter().filter(|end| &*end.identity.path == path).cloned().collect()
}

#[test]
fn the_init_process_is_found_in_any_pid_namespace() {
    let Some(host) = host() else { return };
    let Some((_top, runc)) = runc(&host, "runc-init") else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let sandbox = runc.start(&pod_cgroup(), &id(1), PidNamespace::Own, &["sleep", "1000"]);
    for (number, namespace) in
        [(2, PidNamespace::Own), (3, PidNamespace::Host), (4, PidNamespace::Of(sandbox.pid))]
    {
        let before = now_unix();
        let mut container = runc.start(&pod_cgroup(), &id(number), namespace, &WAIT_FOR_LINE);
        let running = now_unix();
        assert_eq!(container.exec(&["sh", "-c", "exit 9"]).code(), Some(9));
        container.exec_detached(&["sleep", "1000"]);
        let init = driver.round().cgroups.iter().find(|row| *row.identity.path == container.path).cloned();
        assert!(
            init.is_some() && terminations_of(&driver.round(), &container.path).is_empty(),
            "{namespace:?}"
        );
        let fed = now_unix();
        container.feed("now\n");
        assert_eq!(container.wait(), Some(5), "{namespace:?}");
        let after = now_unix();

        let end = until("its termination is recorded", Duration::from_secs(10), || {
            terminations_of(&driver.round(), &container.path).first().cloned()
        });
        let ended = end.termination.clone().unwrap();
        assert_eq!(
            (ended.exit_code, ended.signal, ended.reason),
            (5, None, TerminationReason::Error),
            "{namespace:?}"
        );
        let process = ended.init.as_ref().unwrap();
        assert_eq!((process.pid, &*process.comm), (container.pid, "sh"), "{namespace:?}");
        // CLOCK_MONOTONIC and CLOCK_REALTIME drift slightly.
        let slack = 0.05;
        let started = process.started_unix;
        assert!(before - slack < started && started < running + slack, "{before} {started} {running}");
        assert!(
            fed - slack < ended.ended_unix && ended.ended_unix < after + slack,
            "{fed} {ended:?} {after}"
        );
    }
    assert!(terminations_of(&driver.round(), &sandbox.path).is_empty(), "the sandbox is still running");
}

#[test]
fn signals_are_distinguished_from_exit_codes() {
    let Some(host) = host() else { return };
    let Some((_top, runc)) = runc(&host, "runc-signal") else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let mut container = runc.start(&pod_cgroup(), &id(1), PidNamespace::Own, &["sleep", "1000"]);
    driver.round();
    let pid = rustix::process::Pid::from_raw(container.pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(container.wait(), Some(128 + 9), "runc's exit code");
    let end = until("its termination is recorded", Duration::from_secs(10), || {
        terminations_of(&driver.round(), &container.path).first().cloned()
    });
    let ended = end.termination.clone().unwrap();
    assert_eq!((ended.exit_code, ended.signal, ended.reason), (128 + 9, Some(9), TerminationReason::Error));
}

#[test]
fn restarts_are_seen_from_cgroups_and_processes_alone() {
    let Some(host) = host() else { return };
    let Some((_top, runc)) = runc(&host, "runc-restarts") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pods.json");
    let named = |number| {
        write(&file, &[pod("ledger-0", UID, Some(("StatefulSet", "ledger")), &json!({}), &id(number))]);
    };
    named(1);
    let Some(mut driver) = Driver::kernel(&["--pods-file", file.to_str().unwrap()]) else { return };
    for number in 1..=3_u32 {
        named(number);
        let mut container = runc.start(&pod_cgroup(), &id(number), PidNamespace::Own, &WAIT_FOR_LINE);
        driver.round();
        driver.round();
        container.feed("now\n");
        assert_eq!(container.wait(), Some(5));
        let workload = until("the termination is counted", Duration::from_secs(10), || {
            let published = driver.round();
            let mut rows = published.workloads.iter();
            let row = rows.find(|row| &*row.workload == "ledger").cloned()?;
            (row.containers_ended == u64::from(number)).then_some(row)
        });
        assert_eq!(workload.restarts, u64::from(number) - 1);
        assert_eq!(
            workload.terminations.iter().collect::<Vec<_>>(),
            [(TerminationReason::Error, Some(5), u64::from(number))]
        );
    }
}

#[test]
fn a_container_of_fifty_milliseconds_has_a_complete_final_record() {
    let Some(host) = host() else { return };
    let Some((_top, runc)) = runc(&host, "runc-brief") else { return };
    let Some(running) = Running::start(&["--source", "kernel"]) else { return };
    let worker = Runc::worker();
    let args: Vec<&str> = worker.iter().map(String::as_str).collect();
    let began = Instant::now();
    let mut container = runc.start(&pod_cgroup(), &id(1), PidNamespace::Own, &args);
    container.feed("spin 20 1\ntouch 5242880\ndatagrams 5 100 0\ndatagrams 5 100 1\npulse 1 0 50\nexit 7\n");
    assert_eq!(container.wait(), Some(7));
    let lived = began.elapsed();
    let end = until("its termination is recorded", Duration::from_secs(10), || {
        terminations_of(&running.published(), &container.path).first().cloned()
    });
    let values = &end.values;
    let network = values.network.unwrap();
    println!("{lived:?}: {:?} {:?} {network:?}", values.cpu, values.memory);
    let cpu = Duration::from_nanos(values.cpu.unwrap().usage_ns);
    // CPU time that runc itself uses in the container's cgroup counts, too.
    assert!(cpu >= Duration::from_millis(20) && cpu <= 2 * lived, "{cpu:?} in {lived:?}");
    assert!(values.memory.unwrap().peak_bytes.unwrap() >= 5 * MIB);
    for (traffic, headers) in [(network.ipv4, 20 + 8), (network.ipv6, 40 + 8)] {
        assert_eq!((traffic.receive_packets, traffic.transmit_packets), (5, 5), "{network:?}");
        assert_eq!(
            (traffic.receive_bytes, traffic.transmit_bytes),
            (5 * (100 + headers), 5 * (100 + headers))
        );
    }
    let ended = end.termination.clone().unwrap();
    assert_eq!((ended.exit_code, ended.signal, ended.reason), (7, None, TerminationReason::Error));
    let lifetime = ended.run_seconds().unwrap();
    assert!(lifetime >= 0.05 && lifetime <= lived.as_secs_f64() + 0.05, "{lifetime} s in {lived:?}");
}
