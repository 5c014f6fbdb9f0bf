//! What the agent reports of this kernel: the source of each measurement, and the state of each program.
//!
//! In a guest with a recorded kernel (`SNUG_TEST_KERNEL`) it must be what `docs/kernels.md` says. Programs keep their budget of
//! instructions on all kernels.

use std::{fs, time::Duration};

use snug_agent::{
    model::{OomScope, TerminationReason},
    values::Values,
};
use snug_tests::{
    cgroup::{Cgroup, Host},
    kernels::{KERNEL_VARIABLE, KernelReport, ProgramReport, REPORT, SourceReport, recorded},
    required,
    wait::until,
    worker::{Job, Worker},
};

use crate::driver::{Driver, values_of, workload_of};

const MIB: u64 = 1 << 20;

type Has = fn(&Values) -> bool;

/// Values that kernels may lack in all sources.
const VALUES: [(&str, Has); 5] = [
    ("memory.peak_bytes", |values| values.memory.is_some_and(|memory| memory.peak_bytes.is_some())),
    ("swap.peak_bytes", |values| values.swap.is_some_and(|swap| swap.peak_bytes.is_some())),
    ("memory_stat.kernel_bytes", |values| {
        values.memory_stat.as_ref().is_some_and(|stat| stat.kernel_bytes.is_some())
    }),
    ("memory_stat.refaults_anon", |values| {
        values.memory_stat.as_ref().is_some_and(|stat| stat.refaults_anon.is_some())
    }),
    ("pressure", |values| values.pressure.is_some()),
];

fn report() -> Option<KernelReport> {
    let hierarchies = required(Host::any())?;
    let cgroup = Cgroup::new(&hierarchies, "support");
    let _worker = Worker::start_in(&cgroup);
    let mut driver = Driver::as_far_as_supported(&["--source", "kernel", "--runqueue", "on"]);
    driver.round();
    let view = driver.round();
    let values = values_of(&view, cgroup.path());
    let (v1, unified) = (&hierarchies.hierarchies.v1, &hierarchies.hierarchies.unified);
    let cgroups = match (v1.is_empty(), unified) {
        (true, _) => "v2",
        (false, None) => "v1",
        (false, Some(_)) => "hybrid",
    };
    let measurements = view.agent.sources.iter().map(|row| {
        let source = SourceReport { source: row.source.as_str().to_owned(), reason: row.reason.clone() };
        (row.measurement.as_str().to_owned(), source)
    });
    let programs = view.agent.programs.iter().map(|row| {
        let program = ProgramReport {
            verdict: row.verdict.as_str().to_owned(),
            reason: row.verdict.reason().to_owned(),
            instructions: row.verified_instructions,
        };
        (row.name.to_owned(), program)
    });
    let absent = VALUES.iter().filter(|(_, has)| !has(&values)).map(|(name, _)| (*name).to_owned());
    Some(KernelReport {
        release: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned(),
        cgroups: cgroups.to_owned(),
        machine: std::env::consts::ARCH.to_owned(),
        page_bytes: rustix::param::page_size(),
        measurements: measurements.collect(),
        absent_values: absent.collect(),
        programs: programs.collect(),
    })
}

#[test]
fn this_kernel_has_what_the_page_says_and_programs_keep_their_budget() {
    let Some(report) = report() else { return };
    println!("{REPORT}{}", serde_json::to_string(&report).unwrap());
    assert_eq!(report.over_budget(), [] as [String; 0]);
    let Ok(name) = std::env::var(KERNEL_VARIABLE) else { return };
    if std::env::var_os("SNUG_BLESS").is_none()
        && let Some(recorded) = recorded().get(&name)
    {
        assert_eq!(report.of_series(), recorded.of_series(), "run `cargo xtask kernels --write`");
    }
}

/// A kernel before Linux 6.1; others have the iterator, and other tests run all programs.
fn host_without_iterator() -> Option<Host> {
    let version = procfs::sys::kernel::Version::current().unwrap();
    if (version.major, version.minor) >= (6, 1) {
        println!("skipped: this kernel has the iterator");
        return None;
    }
    required(Host::any())
}

/// Values come from files, and the programs that do not walk cgroups report what they see.
#[test]
fn without_the_iterator_programs_report_kills_exits_and_traffic() {
    let Some(host) = host_without_iterator() else { return };
    let mut driver = Driver::as_far_as_supported(&["--source", "kernel"]);
    driver.round();
    let cgroup = Cgroup::new(&host, "no-iterator");
    cgroup.limit_memory(24 * MIB, 0);
    let mut init = Worker::start_in(&cgroup);
    let view = driver.round();
    assert!(values_of(&view, cgroup.path()).cpu.is_some(), "it is known by its event, and read from files");
    let unified = host.hierarchies.unified.is_some();
    if unified {
        init.run(&Job::Datagrams { times: 20, bytes: 100, ipv6: false }).unwrap();
        // Counters of traffic are read more rarely than files.
        let traffic = until("traffic", Duration::from_secs(60), || {
            let network = values_of(&driver.round(), cgroup.path()).network?;
            (network.ipv4.transmit_packets >= 20).then_some(network)
        });
        assert!(traffic.ipv4.transmit_bytes >= 20 * 100, "{traffic:?}");
    }
    let (_, end, kill) = driver.oom_kill(&cgroup, &mut init);
    assert_eq!((kill.scope, kill.limit_bytes), (OomScope::Container, Some(24 * MIB)), "{kill:?}");
    if unified {
        assert_eq!(kill.pid, init.pid());
        assert_eq!(end.termination.as_ref().unwrap().reason, TerminationReason::OomKilled, "{end:?}");
    }
}

/// Its final record is not used, because no live cgroup verifies the fields that the program reads.
#[test]
fn without_the_iterator_a_container_between_two_readings_is_counted_without_usage() {
    let Some(host) = host_without_iterator() else { return };
    let mut driver = Driver::as_far_as_supported(&["--source", "kernel"]);
    driver.round();
    let cgroup = Cgroup::new(&host, "between-readings");
    let mut worker = Worker::start_in(&cgroup);
    worker.run(&Job::Spin { cpu_ms: 60, threads: 1 }).unwrap();
    worker.kill();
    cgroup.remove();
    let workload = until("its end is counted", Duration::from_secs(10), || {
        let workload = workload_of(&driver.round(), cgroup.path());
        (workload.containers_ended > 0).then_some(workload)
    });
    assert_eq!((workload.containers_started, workload.containers_ended), (1, 1), "{workload:?}");
    assert_eq!((workload.cpu_ns, workload.memory_peak_bytes), (0, 0), "{workload:?}");
}
