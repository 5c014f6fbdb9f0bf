//! An agent that is killed again and again, and one with a thousand containers beside which short ones come and go.
//!
//! In each run of all checks they are short. `cargo xtask soak --minutes N` runs them for long.

use std::{
    collections::BTreeSet,
    env, fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use snug_tests::{
    agent::{Agent, Signal, eventually},
    cgroup::{Cgroup, Host},
    exposition::{self, Page},
};

use crate::{cannot_run, container};

/// How often the agent is killed.
const KILLS: &str = "SNUG_TEST_KILLS";
/// How long containers come and go, seconds.
const SOAK: &str = "SNUG_TEST_SOAK_SECONDS";

const LONG: Duration = Duration::from_secs(30);
const LIVING: usize = 1_000;
/// Short containers are made in groups of this size, one group per [`PAUSE`].
const GROUP: usize = 10;
const PAUSE: Duration = Duration::from_millis(300);
/// Scrapes that may fail on a busy machine. A Prometheus goes on after one that times out, too.
const MAX_FAILED_SCRAPES: usize = 3;
/// Growth of the agent's memory in the second half, bytes. 10,000 containers that leave 400 bytes each exceed it.
const MAX_GROWTH: u64 = 4 << 20;

fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(value) => value.parse().with_context(|| format!("{variable}={value}: expected a number")),
        Err(_) => Ok(default),
    }
}

/// The ids of the eBPF programs, links and maps of a process, from its file descriptors.
fn of_ebpf(pid: u32) -> Result<[BTreeSet<u32>; 3]> {
    let mut all = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for info in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let Ok(text) = fs::read_to_string(info.path()) else { continue };
        for (name, ids) in ["prog_id:", "link_id:", "map_id:"].iter().zip(&mut all) {
            ids.extend(text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok()));
        }
    }
    Ok(all)
}

fn loaded() -> [BTreeSet<u32>; 3] {
    [
        aya::programs::loaded_programs().flatten().map(|program| program.id()).collect(),
        aya::programs::loaded_links().flatten().map(|link| link.id()).collect(),
        aya::maps::loaded_maps().flatten().map(|map| map.id()).collect(),
    ]
}

#[test]
fn an_agent_that_is_killed_again_and_again_leaves_nothing_and_counters_never_decrease() -> Result<()> {
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    container.be_busy()?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().to_str().context("the folder's name is UTF-8")?;
    let id = [("id", &*container.path)];
    let mut before = 0.0;
    let times = number(KILLS, 3)?;
    for kill in 1..=times {
        let agent = Agent::start(["--data-dir", data])?;
        let usage = |page: &Page| page.one("snug_container_cpu_usage_seconds_total", &id);
        let page = eventually(LONG, "the container is measured", || {
            let page = agent.scrape("/metrics")?;
            Ok(usage(&page)?.is_some_and(|now| now > before).then_some(page))
        })?;
        before = usage(&page)?.context("the container has CPU time")?;
        assert_eq!(page.value("snug_agent_starts_total", &[])? as u64, kill, "each start is counted");
        for lost in ["damaged_records_total", "files_moved_aside_total", "records_lost_total"] {
            assert_eq!(page.value(&format!("snug_agent_history_{lost}"), &[])?, 0.0, "{lost} at kill {kill}");
        }
        let own = of_ebpf(agent.id())?;
        ensure!(own.iter().all(|ids| !ids.is_empty()), "the agent has programs, links and maps: {own:?}");
        ensure!(agent.end_by(Signal::KILL)?.status.code().is_none());
        eventually(LONG, "nothing of the killed agent is left in the kernel", || {
            Ok(loaded().iter().zip(&own).all(|(all, own)| all.is_disjoint(own)).then_some(()))
        })?;
    }
    println!("killed {times} times; {before} s of CPU time counted");
    Ok(())
}

/// The agent's resident memory without that of files.
fn memory(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    let row = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    Ok(row.context("no RssAnon")?.parse::<u64>()? << 10)
}

/// Scrapes of an agent on a machine that may be busy.
struct Scrapes<'a> {
    agent: &'a Agent,
    failed: usize,
}

impl Scrapes<'_> {
    /// The page, or `None` if there is no response: that is counted and printed, and fails after [`MAX_FAILED_SCRAPES`].
    fn page(&mut self) -> Result<Option<Page>> {
        match self.agent.text("/metrics") {
            Ok(text) => Ok(Some(exposition::parse(&text).map_err(|error| anyhow!("/metrics: {error}"))?)),
            Err(error) => {
                self.failed += 1;
                println!("scrape failed: {error:#}");
                ensure!(self.failed <= MAX_FAILED_SCRAPES, "{} scrapes have failed", self.failed);
                Ok(None)
            }
        }
    }
}

/// Makes some containers that use CPU time and end.
fn short_containers(host: &Host, parent: &Cgroup, first: u64) -> Result<()> {
    let containers: Vec<Cgroup> =
        (0..GROUP as u64).map(|number| parent.child(&format!("{:064x}", first + number))).collect();
    let mut processes = Vec::new();
    for container in &containers {
        let files = host.sampled().into_iter().map(|one| container.directory(one).join("cgroup.procs"));
        let enter: String = files.map(|file| format!("echo $$ > '{}' && ", file.display())).collect();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{enter}exec true")]).stdin(Stdio::null());
        processes.push(shell.spawn().context("cannot start sh")?);
    }
    for mut process in processes {
        ensure!(process.wait()?.success(), "the process cannot enter its container");
    }
    containers.iter().for_each(Cgroup::remove);
    Ok(())
}

#[test]
fn many_short_containers_beside_a_thousand_living_ones_are_all_counted_and_memory_stays_flat() -> Result<()> {
    let host = match Host::find() {
        Ok(host) => host,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let top = Cgroup::new(&host, "soak");
    let (living, short) = (top.child("living"), top.child("short"));
    let _living: Vec<Cgroup> =
        (0..LIVING).map(|number| living.child(&format!("{:064x}", (1 << 40) + number))).collect();
    let data = folder.path().to_str().context("the folder's name is UTF-8")?;
    let agent = Agent::start(["--data-dir", data, "--max-cgroups", "8192"])?;
    let total =
        |page: &Page, name: &str| -> f64 { page.all(name, &[]).iter().map(|sample| sample.value).sum() };
    let begun = agent.scrape("/metrics")?;
    let mut scrapes = Scrapes { agent: &agent, failed: 0 };

    let duration = Duration::from_secs(number(SOAK, 10)?);
    let started = Instant::now();
    let (mut made, mut readings) = (0_u64, Vec::new());
    let mut next_reading = Duration::ZERO;
    while started.elapsed() < duration {
        let group = Instant::now();
        short_containers(&host, &short, made)?;
        made += GROUP as u64;
        if started.elapsed() >= next_reading {
            // As a Prometheus does: a scrape takes memory of its own.
            scrapes.page()?;
            readings.push((started.elapsed(), memory(&agent)?));
            next_reading += (duration / 40).max(Duration::from_secs(1));
        }
        std::thread::sleep(PAUSE.saturating_sub(group.elapsed()));
    }

    let growth_of = |page: &Page, name: &str| total(page, name) - total(&begun, name);
    let page = eventually(LONG, "all containers are counted", || {
        let Some(page) = scrapes.page()? else { return Ok(None) };
        let lost = growth_of(&page, "snug_agent_lost_events_total");
        let (started, ended) = (
            growth_of(&page, "snug_workload_containers_started_total"),
            growth_of(&page, "snug_workload_containers_ended_total"),
        );
        Ok((started + lost >= made as f64 && ended + lost >= made as f64).then_some(page))
    })?;
    let lost = growth_of(&page, "snug_agent_lost_events_total");
    let cpu = page.value("snug_agent_cpu_seconds_total", &[])? / started.elapsed().as_secs_f64();
    let (early, late) = readings.split_at(readings.len() / 2);
    let highest = |of: &[(Duration, u64)]| of.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    println!(
        "{made} short containers beside {LIVING} in {:?}: {lost} events lost, {} scrapes failed; the agent took {:.1} % of a core; \
         at most {} KiB of memory in the first half, {} KiB in the second",
        started.elapsed(),
        scrapes.failed,
        100.0 * cpu,
        highest(early) >> 10,
        highest(late) >> 10
    );
    for (at, bytes) in &readings {
        println!("  {:>6} s {:>8} KiB", at.as_secs(), bytes >> 10);
    }
    assert_eq!(lost, 0.0, "no event is lost");
    assert!(highest(late) <= highest(early) + MAX_GROWTH, "memory grows: {readings:?}");
    Ok(())
}
