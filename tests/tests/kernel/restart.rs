//! An agent that is killed and restarted.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Read},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use snug_agent::{model::View, samplers::Sampler, views::CurrentView};
use snug_tests::{
    cgroup::Cgroup,
    wait::until,
    worker::{Job, Respawned, Worker, answer},
};

use crate::driver::{configured, host, row_of, workload_of};

/// Environment variable for [`entry`]: the data directory of the agent.
const VARIABLE: &str = "SNUG_TEST_AGENT";

/// The agent's answer about a cgroup.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Report {
    starts: u64,
    away_seconds: f64,
    started_unix: f64,
    row_cpu_ns: Option<u64>,
    workload_cpu_ns: u64,
    containers_started: u64,
    resident_bytes: u64,
}

impl Report {
    fn of(published: &View, path: &str) -> Self {
        let workload = workload_of(published, path);
        let cpu = row_of(published, path).and_then(|row| row.values.cpu);
        Self {
            starts: published.agent.starts,
            away_seconds: published.agent.downtime_seconds,
            started_unix: published.agent.started_unix,
            row_cpu_ns: cpu.map(|cpu| cpu.usage_ns),
            workload_cpu_ns: workload.cpu_ns,
            containers_started: workload.containers_started,
            resident_bytes: published.agent.resident_bytes,
        }
    }
}

/// If [`VARIABLE`] is set: samples as the agent does and answers questions. Else returns at once.
pub(crate) fn entry() {
    let Ok(data_dir) = env::var(VARIABLE) else { return };
    let views = Arc::new(CurrentView::default());
    let config = configured(&["--source", "kernel", "--data-dir", &data_dir, "--sample-interval", "50ms"]);
    let sampler = Sampler::start(config, Arc::clone(&views)).unwrap();
    let (_stop, stopped) = UnixStream::pair().unwrap();
    thread::spawn(move || sampler.run(&stopped));
    for path in io::stdin().lines() {
        let view: Arc<View> = until("a view", Duration::from_secs(20), || views.last());
        answer(serde_json::to_string(&Report::of(&view, &path.unwrap())).unwrap());
    }
    std::process::exit(0);
}

struct Agent(Respawned);

impl Agent {
    fn start(data_dir: &Path) -> Self {
        Self(Respawned::start("agent_entry", VARIABLE, data_dir.to_str().unwrap()))
    }

    fn ask(&mut self, path: &str) -> Report {
        self.0.order(path);
        serde_json::from_str(&self.0.answer().unwrap()).unwrap()
    }

    /// The ids of its eBPF programs and links, from its file descriptors.
    fn programs_and_links(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let (mut programs, mut links) = (BTreeSet::new(), BTreeSet::new());
        for info in fs::read_dir(format!("/proc/{}/fdinfo", self.0.pid())).unwrap().flatten() {
            let Ok(mut file) = fs::File::open(info.path()) else { continue };
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            for (name, ids) in [("prog_id:", &mut programs), ("link_id:", &mut links)] {
                let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
                ids.extend(found);
            }
        }
        (programs, links)
    }
}

fn loaded_programs() -> BTreeSet<u32> {
    aya::programs::loaded_programs().flatten().map(|program| program.id()).collect()
}

fn loaded_links() -> BTreeSet<u32> {
    aya::programs::loaded_links().flatten().map(|link| link.id()).collect()
}

#[test]
fn a_killed_agent_leaves_no_programs_and_the_next_one_continues() {
    let Some(host) = host() else { return };
    let data = tempfile::tempdir().unwrap();
    let cgroup = Cgroup::new(&host, "restart");
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    let mut spin = || worker.run(&Job::Spin { cpu_ms: 300, threads: 1 }).unwrap();
    spin();

    let mut first = Agent::start(data.path());
    let begun = first.ask(cgroup.path());
    assert_eq!((begun.starts, begun.away_seconds, begun.containers_started), (1, 0.0, 0));
    assert!(begun.workload_cpu_ns < 50_000_000, "CPU time from before the agent is not counted: {begun:?}");
    let used = spin();
    let at_kill = until("the work is counted", Duration::from_secs(10), || {
        let report = first.ask(cgroup.path());
        (report.workload_cpu_ns >= used).then_some(report)
    });
    let (programs, links) = first.programs_and_links();
    assert!(programs.len() >= 4 && links.len() >= 4, "{programs:?} {links:?}");
    assert!(loaded_programs().is_superset(&programs) && loaded_links().is_superset(&links));
    first.0.kill();
    until("no programs and links are left", Duration::from_secs(20), || {
        (loaded_programs().is_disjoint(&programs) && loaded_links().is_disjoint(&links)).then_some(())
    });

    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(data.path().join("agent.json")).unwrap()).unwrap();
    let last_alive = state["last_alive"].as_f64().unwrap();
    spin();
    thread::sleep(Duration::from_secs(2));

    let mut second = Agent::start(data.path());
    let again = second.ask(cgroup.path());
    assert_eq!((again.starts, again.containers_started), (2, 0));
    assert!(again.away_seconds >= 2.0, "{again:?}");
    let gap = again.started_unix - last_alive;
    assert!((again.away_seconds - gap).abs() < 1.0, "{again:?}, last alive {last_alive}");
    let row = again.row_cpu_ns.unwrap();
    assert!(row >= at_kill.row_cpu_ns.unwrap() + used / 2, "the kernel went on counting: {again:?}");
    assert!(again.workload_cpu_ns < 50_000_000, "no agent ran meanwhile: {again:?}");
    let used = spin();
    let end = until("the work is counted", Duration::from_secs(10), || {
        let report = second.ask(cgroup.path());
        (report.workload_cpu_ns >= used).then_some(report)
    });
    let (by_row, by_workload) = (end.row_cpu_ns.unwrap() - row, end.workload_cpu_ns - again.workload_cpu_ns);
    assert!(by_workload <= by_row + 50_000_000, "counted twice: {by_workload} of {by_row} ns");
}
