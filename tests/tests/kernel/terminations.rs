//! Terminations of containers: final records, exit codes, OOM kills, and network counters.

use std::{process::Command, sync::Arc, time::Duration};

use snug_agent::model::{EventDetails, OomScope, TerminatedContainer, TerminationReason, View};
use snug_tests::{
    cgroup::Cgroup,
    wait::until,
    worker::{Job, Worker},
};

use crate::driver::{Driver, Running, end_of, host, row_of, terminations, workload_of};

const MIB: u64 = 1 << 20;

/// Headers of IP and UDP, bytes.
const UDP_IPV4: u64 = 20 + 8;
const UDP_IPV6: u64 = 40 + 8;

fn wait_for_termination(running: &Running, path: &str) -> Arc<TerminatedContainer> {
    until("its termination is recorded", Duration::from_secs(10), || end_of(&running.published(), path))
}

#[test]
fn a_container_removed_at_once_has_a_complete_final_record() {
    let Some(host) = host() else { return };
    let Some(running) = Running::start(&["--source", "kernel"]) else { return };
    let cgroup = Cgroup::new(&host, "whole");
    let mut init = Worker::start_in(&cgroup);
    init.run(&Job::Spin { cpu_ms: 20, threads: 1 }).unwrap();
    init.run(&Job::Touch { bytes: 5 * MIB }).unwrap();
    assert_eq!(init.run(&Job::Datagrams { times: 5, bytes: 100, ipv6: false }), Some(500));
    assert_eq!(init.run(&Job::Datagrams { times: 5, bytes: 200, ipv6: true }), Some(1_000));
    let (status, used) = init.exit(7);
    cgroup.remove();
    assert_eq!(status.code(), Some(7));

    let end = wait_for_termination(&running, cgroup.path());
    let cpu = Duration::from_nanos(end.values.cpu.unwrap().usage_ns);
    println!("used {used:?} by the kernel's account of the process, recorded {cpu:?}");
    // The process' account ends before its exit does.
    assert!(cpu.abs_diff(used) <= Duration::from_millis(5), "{cpu:?} of {used:?}");
    assert!(end.values.memory.unwrap().peak_bytes.unwrap() >= 5 * MIB, "{end:?}");
    let network = end.values.network.unwrap();
    for (traffic, bytes) in [(network.ipv4, 5 * (100 + UDP_IPV4)), (network.ipv6, 5 * (200 + UDP_IPV6))] {
        assert_eq!((traffic.receive_packets, traffic.transmit_packets), (5, 5), "{network:?}");
        assert_eq!((traffic.receive_bytes, traffic.transmit_bytes), (bytes, bytes), "{network:?}");
    }
    let ended = end.termination.clone().unwrap();
    assert_eq!((ended.exit_code, ended.signal, ended.reason), (7, None, TerminationReason::Error));
    let process = ended.init.as_ref().unwrap();
    assert_eq!(process.pid, init.pid());
    assert!(ended.ended_unix > process.started_unix, "{ended:?}");
    assert!(end.created_unix <= process.started_unix + 0.1 && end.removed_unix + 0.1 >= ended.ended_unix);
    let workload = until("it is counted", Duration::from_secs(5), || {
        let workload = workload_of(&running.published(), cgroup.path());
        (workload.containers_ended == 1).then_some(workload)
    });
    assert_eq!(terminations(&workload), [(TerminationReason::Error, Some(7), 1)]);
    assert_eq!(workload.network, Some(network));
}

#[test]
fn exits_of_other_processes_are_not_counted_and_signals_are() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "signal");
    let mut init = Worker::start_in(&cgroup);
    // As `kubectl exec` does: started later from outside; it exits first.
    let mut beside = Worker::start_in(&cgroup);
    assert_eq!(beside.exit(3).0.code(), Some(3));
    let before = workload_of(&driver.round(), cgroup.path());
    assert_eq!(terminations(&before), [], "{before:?}");
    init.kill();
    // Counted before the cgroup is removed.
    let after = workload_of(&driver.round(), cgroup.path());
    assert_eq!(terminations(&after), [(TerminationReason::Error, Some(137), 1)]);
    assert!(row_of(&driver.round(), cgroup.path()).is_some());
}

#[test]
fn only_a_program_in_its_own_mount_namespace_terminates_a_container_of_a_pod() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let top = Cgroup::new(&host, "program");
    let pods = top.child("kubepods");
    let pod = pods.child("pod5e57ab1e-0000-4000-8000-00000000abce");
    let v2 = host.hierarchies.cpu_time().unwrap();
    for (number, (script, expected)) in [
        // A runtime that executes itself in the cgroup, and fails before the program starts.
        ("exec sh -c 'exit 1'", None),
        ("sh -c 'exit 0'; exec sh -c 'exit 0'", None),
        // One that executes the program in its own process, at once and after it has executed itself.
        ("exec unshare --mount sh -c 'exit 3'", Some(3)),
        ("exec sh -c 'exec unshare --mount sh -c \"exit 4\"'", Some(4)),
    ]
    .into_iter()
    .enumerate()
    {
        let container = pod.child(&format!("{number:064x}"));
        let procs = container.directory(v2).join("cgroup.procs");
        let script = format!("echo $$ >{}; {script}", procs.display());
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert_eq!(status.code(), Some(expected.unwrap_or(i32::from(number == 0))), "{script}");
        container.remove();
        driver.round();
        let published = driver.round();
        let end = end_of(&published, container.path()).unwrap();
        assert_eq!(end.termination.as_ref().map(|end| i32::from(end.exit_code)), expected, "{script}");
    }
}

#[test]
fn an_init_process_from_before_the_agent_is_tracked_after_moves() {
    let Some(host) = host() else { return };
    let cgroup = Cgroup::new(&host, "before");
    let other = Cgroup::new(&host, "elsewhere");
    let mut init = Worker::start_in(&cgroup);
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    other.add(init.pid());
    assert_eq!(init.exit(0).0.code(), Some(0));
    let published = driver.round();
    let ended = workload_of(&published, cgroup.path());
    assert_eq!(terminations(&ended), [(TerminationReason::Completed, Some(0), 1)]);
    assert_eq!(terminations(&workload_of(&published, other.path())), []);
}

#[test]
fn an_oom_kill_names_the_limit_that_caused_it() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let parent = Cgroup::new(&host, "oom");
    let own = parent.child("own");
    let above = parent.child("above");
    own.limit_memory(24 * MIB, 0);
    let mut init = Worker::start_in(&own);
    let (published, end, kill) = driver.oom_kill(&own, &mut init);
    assert_eq!((kill.scope, kill.limit_bytes), (OomScope::Container, Some(24 * MIB)), "{kill:?}");
    assert!(kill.usage_bytes > 23 * MIB && kill.usage_bytes <= 24 * MIB, "{kill:?}");
    assert_eq!(end.termination.as_ref().unwrap().reason, TerminationReason::OomKilled);
    assert_eq!(kill.pid, init.pid());
    let kinds: Vec<_> = published
        .events
        .iter()
        .filter(|event| *event.subject.path == *own.path())
        .map(|event| &event.details)
        .collect();
    let [EventDetails::OomKill(first), EventDetails::Termination(then)] = kinds.as_slice() else {
        panic!("{kinds:?}")
    };
    assert_eq!((first, then.reason, then.signal), (&kill, TerminationReason::OomKilled, Some(9)));

    parent.limit_memory(32 * MIB, 0);
    let mut init = Worker::start_in(&above);
    let (published, _, kill) = driver.oom_kill(&above, &mut init);
    assert_eq!((kill.scope, kill.limit_bytes), (OomScope::Ancestor, Some(32 * MIB)), "{kill:?}");
    assert_eq!(workload_of(&published, parent.path()).oom_kills, Some([1, 0, 1, 0]));
}

#[test]
fn tcp_connections_are_counted_by_outcome() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "tcp");
    let beside = Cgroup::new(&host, "tcp-beside");
    let mut init = Worker::start_in(&cgroup);
    let _idle = Worker::start_in(&beside);
    assert_eq!(init.run(&Job::Connections { times: 4 }), Some(4));
    assert_eq!(init.run(&Job::Reset), Some(1));
    let published = driver.round();
    let tcp = row_of(&published, cgroup.path()).unwrap().values.tcp.unwrap();
    assert_eq!((tcp.opened, tcp.accepted, tcp.refused, tcp.reset), (5, 5, 4, 1), "{tcp:?}");
    assert_eq!((tcp.timed_out, tcp.failed), (0, 0), "{tcp:?}");
    // Another container has its own counters.
    let other = row_of(&published, beside.path()).unwrap();
    assert_eq!(
        (other.values.tcp, other.values.network),
        (Some(Default::default()), Some(Default::default()))
    );
    init.exit(0);
    cgroup.remove();
    driver.round();
    // Both ends of five connections have at least one measurement, on loopback a short one.
    let end = end_of(&driver.round(), cgroup.path()).unwrap();
    let round_trips = end.values.round_trips.clone().unwrap();
    let (_, _, highest) = round_trips.histogram.buckets().last().unwrap();
    assert!(round_trips.histogram.count() >= 10 && highest < 1.0, "{round_trips:?}");
    let mean = round_trips.sum / round_trips.histogram.count() as f64;
    assert!(mean > 0.0 && mean <= highest, "{round_trips:?}");
}

#[test]
fn counters_of_cgroups_inside_a_container_are_the_containers() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let top = Cgroup::new(&host, "inside");
    let id = "ab".repeat(32);
    let pods = top.child("kubepods");
    let pod = pods.child("pod5e57ab1e-0000-4000-8000-00000000abcd");
    let container = pod.child(&id);
    let inner = container.child("init.scope");
    let mut worker = Worker::start_in(&inner);
    worker.run(&Job::Datagrams { times: 3, bytes: 60_000, ipv6: false }).unwrap();
    let sent = |published: &View| {
        row_of(published, container.path()).unwrap().values.network.unwrap().ipv4.transmit_bytes
    };
    let expected = 3 * (60_000 + UDP_IPV4);
    assert_eq!(sent(&driver.round()), expected, "before fragmentation");
    worker.kill();
    inner.remove();
    assert_eq!(sent(&driver.round()), expected, "counters of removed cgroups stay counted");
}
