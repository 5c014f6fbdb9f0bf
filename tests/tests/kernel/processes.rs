//! Init processes in special cases: with threads, with a reused pid, by the thousand.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use snug_agent::{
    model::{OomScope, TerminationReason},
    store::terminations::MAX_TERMINATED,
};
use snug_tests::{
    cannot_run,
    cgroup::Cgroup,
    wait::until,
    worker::{Job, Worker},
};

use crate::driver::{Driver, Running, end_of, host, lost, own_machine, terminations, values_of, workload_of};

/// The next `fork` uses the pid after this one.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

#[test]
fn exits_of_threads_are_no_terminations_and_any_thread_may_exit_or_exec() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    for (name, last, code) in [
        ("thread-exit", Job::ExitFromThread { code: 11 }, 11),
        ("thread-exec", Job::ExecFromThread { code: 12 }, 12),
    ] {
        let cgroup = Cgroup::new(&host, name);
        let mut init = Worker::start_in(&cgroup);
        init.run(&Job::Spin { cpu_ms: 20, threads: 4 }).unwrap();
        assert_eq!(
            terminations(&workload_of(&driver.round(), cgroup.path())),
            [],
            "only its threads have exited"
        );
        init.begin(&last);
        assert_eq!(init.wait().code(), Some(code));
        let ended = workload_of(&driver.round(), cgroup.path());
        assert_eq!(terminations(&ended), [(TerminationReason::Error, Some(code as u8), 1)], "{name}");
    }
}

/// Starts workers in `cgroup` until one has this pid.
fn start_with_pid(cgroup: &Cgroup, pid: u32) -> Option<Worker> {
    (0..50).find_map(|_| {
        fs::write(LAST_PID, (pid - 1).to_string()).ok()?;
        Some(Worker::start_in(cgroup)).filter(|worker| worker.pid() == pid)
    })
}

#[test]
fn a_reused_pid_is_another_process() {
    let Some(host) = host() else { return };
    if !fs::exists(LAST_PID).unwrap() {
        return cannot_run("pids cannot be chosen on this kernel (CONFIG_CHECKPOINT_RESTORE)");
    }
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let (first, second) = (Cgroup::new(&host, "pid-first"), Cgroup::new(&host, "pid-second"));
    let mut init = Worker::start_in(&first);
    let pid = init.pid();
    assert_eq!(init.exit(21).0.code(), Some(21));
    let Some(mut again) = start_with_pid(&second, pid) else {
        return cannot_run(&format!("pid {pid} is always taken by others"));
    };
    // Both in one round: only their events distinguish them.
    assert_eq!(again.exit(22).0.code(), Some(22));
    let published = driver.round();
    assert_eq!(
        terminations(&workload_of(&published, first.path())),
        [(TerminationReason::Error, Some(21), 1)]
    );
    // The workers with other pids were init processes of the same cgroup, and were killed.
    let of_second = terminations(&workload_of(&published, second.path()));
    assert!(of_second.contains(&(TerminationReason::Error, Some(22), 1)), "{of_second:?}");
    assert!(of_second.iter().all(|(_, code, _)| matches!(code, Some(22 | 137))), "{of_second:?}");
}

#[test]
fn a_renamed_cgroup_keeps_its_first_name() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "renamed");
    let mut worker = Worker::start_in(&cgroup);
    driver.round();
    let memory = host.hierarchies.memory().unwrap();
    let directory = cgroup.directory(memory);
    let renamed = directory.with_extension("new");
    if host.unified() {
        let refused = fs::rename(&directory, &renamed);
        assert!(refused.is_err(), "this kernel can rename cgroups of v2: a test of their values is missing");
        return;
    }
    fs::rename(&directory, &renamed).unwrap();
    worker.run(&Job::Touch { bytes: 8 << 20 }).unwrap();
    let published = driver.round();
    let usage = values_of(&published, cgroup.path()).memory.unwrap().usage_bytes;
    fs::rename(&renamed, &directory).unwrap();
    assert!(usage >= 8 << 20, "{usage}");
    let rows = published.cgroups.iter().filter(|row| row.identity.path.starts_with(cgroup.path()));
    assert_eq!(rows.count(), 1, "one cgroup under two names");
}

const CONTAINERS: u64 = 10_000;
/// Time limit, for emulated processors.
const TIME_LIMIT: Duration = Duration::from_secs(40);
const MAKERS: u64 = 2;

/// Creates a container whose process exits at once, and removes it.
fn live_briefly(directory: &Path) {
    fs::create_dir(directory).unwrap();
    let script = format!("echo $$ >{}/cgroup.procs; exec sh -c 'exit 3'", directory.display());
    let status = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(3));
    fs::remove_dir(directory).unwrap();
}

#[test]
fn short_containers_created_in_a_loop_are_all_counted() {
    let Some(host) = host() else { return };
    let parent = Cgroup::new(&host, "ten-thousand");
    let _always = parent.child("always");
    let Some(running) = Running::start(&["--source", "kernel"]) else { return };
    let directory = parent.directory(host.hierarchies.cpu_time().unwrap());
    let began = Instant::now();
    let made: u64 = thread::scope(|scope| {
        let makers = (0..MAKERS).map(|maker| {
            let directory = &directory;
            scope.spawn(move || {
                let mine = (0..CONTAINERS / MAKERS).take_while(|_| began.elapsed() < TIME_LIMIT);
                mine.map(|number| live_briefly(&directory.join(format!("c{maker}-{number}")))).count() as u64
            })
        });
        makers.collect::<Vec<_>>().into_iter().map(|maker| maker.join().unwrap()).sum()
    });
    println!("{made} in {:?}", began.elapsed());
    let workload = until("all are counted", Duration::from_secs(30), || {
        let workload = workload_of(&running.published(), parent.path());
        (workload.containers_ended >= made).then_some(workload)
    });
    assert_eq!((workload.containers_started, workload.containers_ended), (made, made));
    assert_eq!(terminations(&workload), [(TerminationReason::Error, Some(3), made)]);
    let published = running.published();
    for kind in ["cgroup_removed", "process_exited", "process_inits"] {
        assert_eq!(lost(&published, kind), 0, "{kind}");
    }
    assert!(
        !published.terminated.is_empty() && published.terminated.len() <= MAX_TERMINATED,
        "{} recent terminations",
        published.terminated.len()
    );
}

#[test]
fn an_oom_kill_of_the_node_has_the_scope_node() {
    if !own_machine() {
        println!("skipped: the node runs out of memory, so in virtual machines only");
        return;
    }
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "node-oom");
    cgroup.limit_memory(256 << 20, 0);
    let mut init = Worker::start_in(&cgroup);
    init.run(&Job::Touch { bytes: 32 << 20 }).unwrap();
    fs::write(format!("/proc/{}/oom_score_adj", init.pid()), "1000").unwrap();
    // Runs the OOM killer for the whole machine: Documentation/admin-guide/sysrq.rst.
    fs::write("/proc/sysrq-trigger", "f").unwrap();
    assert_eq!(init.wait().signal(), Some(9));
    cgroup.remove();
    driver.round();
    let published = driver.round();
    let end = end_of(&published, cgroup.path()).unwrap();
    let kill = end.last_oom_kill.clone().unwrap();
    assert_eq!((kill.scope, kill.pid), (OomScope::Node, init.pid()), "{kill:?}");
    assert_eq!(end.termination.as_ref().unwrap().reason, TerminationReason::OomKilled);
    let node = OomScope::ALL.map(|scope| u64::from(scope == OomScope::Node));
    assert_eq!(workload_of(&published, cgroup.path()).oom_kills, Some(node));
}
