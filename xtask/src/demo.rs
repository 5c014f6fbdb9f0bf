//! `cargo xtask demo`: runs containers with known usage, and compares it with the agent's measurements.

mod agent;
mod bundle;
pub(crate) mod cgroups;
mod plan;
mod report;
mod scenario;
mod table;
mod workloads;

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use snug_client::agent::Scrape;

use self::{
    agent::Agent,
    plan::{BRIEF, BURSTY, GROWER, Workload},
    report::{Check, Page, Tolerance},
    scenario::Scenario,
    table::Unit,
    workloads::{Container, Workloads},
};
use crate::{
    build, command, host,
    setup::{self, Need},
};

/// Interval between two checks of the containers.
const SUPERVISE_INTERVAL: Duration = Duration::from_millis(50);
/// Interval between two lines of progress, if standard output is not a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// How long the workloads may take to become idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time from idle workloads to the last scrape: enough for everything that the agent does once a second.
const SETTLE_TIME: Duration = Duration::from_millis(2500);

/// Maximum CPU time, in seconds, that runc itself uses in a container's cgroup.
const RUNC_CPU_SECONDS: f64 = 0.02;
const MIB: f64 = 1_048_576.0;

/// Run containers with known CPU and memory usage, and compare it with the agent's measurements. Needs root.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Length of the measurement, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(10..=3600))]
    seconds: u32,
    /// Keep the agent and the containers running after the report, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        host::is_root(),
        "the demo creates containers and cgroups and loads eBPF programs: run it as root (sudo -E env \"PATH=$PATH\" \
         cargo xtask demo)"
    );
    setup::ensure_all(&[Need::Ebpf, Need::Containers])?;
    println!(
        "demo: building the agent with its eBPF programs, and the workload program (three minutes on two cores)"
    );
    let [agent, workload] = build::build_for_demo()?;

    let interrupt = Interrupt::listen()?;
    let scenario = Scenario::set_up(&workload)?;
    let mut agent = Agent::start(&agent, &scenario)?;
    let mut workloads = Workloads::start(scenario)?;
    let outcome = run_and_compare(options, &agent, &mut workloads, &interrupt);
    agent.stop().and(workloads.clear()).and(outcome)
}

/// Measures, prints the comparison, and fails if a measurement is outside of its tolerance.
fn run_and_compare(
    options: &Options,
    agent: &Agent,
    workloads: &mut Workloads,
    interrupt: &Interrupt,
) -> Result<()> {
    if agent.uses_other_port() {
        println!("demo: port 9750 is taken, so the agent listens on another port");
    }
    println!("demo: measuring for {} s: {} (Ctrl-C stops the demo)", options.seconds, agent.url());
    let (first, last) = measure(options.seconds, agent, workloads, interrupt)?;
    let checks = checks(workloads, Page(&last.samples));
    println!("\n{}", heading(options.seconds)?);
    println!("\n{}", report::render(&checks));
    println!(
        "TRUTH is from the workloads' own clocks, the containers that the demo started and saw exit, and cpu.stat for throttling."
    );
    println!("{}", throttling_note(Page(&last.samples), workloads, options.seconds));
    let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
    println!("\nTHE AGENT ITSELF\n{}", report::cost(Page(&first.samples), Page(&last.samples), seconds));
    if options.keep {
        workloads.scenario.set_paused(false)?;
        println!("demo: the agent and the containers run until Ctrl-C: {}", agent.url());
        while interrupt.pause(SUPERVISE_INTERVAL).is_ok() {
            workloads.supervise(Duration::MAX)?;
        }
    }
    let failures = report::failures(&checks);
    ensure!(failures.is_empty(), "measurements are outside of their tolerance: {}", failures.join("; "));
    Ok(())
}

/// Runs the containers, pauses them, and returns a scrape from the beginning and one from the end.
fn measure(
    seconds: u32,
    agent: &Agent,
    workloads: &mut Workloads,
    interrupt: &Interrupt,
) -> Result<(Scrape, Scrape)> {
    let first = agent.scrape()?;
    let length = Duration::from_secs(seconds.into());
    let mut progress = Progress::begin();
    loop {
        let elapsed = first.at.elapsed();
        let left = length.saturating_sub(elapsed);
        if left.is_zero() {
            break;
        }
        interrupt.pause(SUPERVISE_INTERVAL)?;
        workloads.supervise(left)?;
        progress.show(elapsed, seconds, workloads);
    }
    progress.end();
    workloads.scenario.set_paused(true)?;
    let paused_at = Instant::now();
    loop {
        let not_idle = workloads.not_idle();
        if not_idle.is_empty() {
            break;
        }
        ensure!(
            paused_at.elapsed() < IDLE_TIMEOUT,
            "{} did not become idle within {} s: this machine may be overloaded",
            not_idle.join(", "),
            IDLE_TIMEOUT.as_secs(),
        );
        interrupt.pause(SUPERVISE_INTERVAL)?;
        workloads.supervise(Duration::ZERO)?;
    }
    let settled = Instant::now() + SETTLE_TIME;
    while Instant::now() < settled {
        interrupt.pause(SUPERVISE_INTERVAL)?;
        // All containers are idle. This fails if one of them has exited.
        workloads.supervise(Duration::ZERO)?;
    }
    Ok((first, agent.scrape()?))
}

/// Compares the true values with the scraped ones.
fn checks(workloads: &Workloads, page: Page<'_>) -> Vec<Check> {
    let Workloads { scenario, steady, bursty, idle, grower, .. } = workloads;
    let cpu = |what: &str, container: &Container| {
        let measured = page.of_pod(&container.pod, "snug_container_cpu_usage_seconds_total");
        let truth = container.truth(scenario, "cpu_seconds");
        check(container.pod.workload, what, Unit::Seconds, truth, measured, cpu_tolerance(1.0))
    };
    let exact = |workload, what: &str, unit, truth: Option<f64>, measured| {
        check(workload, what, unit, truth, measured, Tolerance::EXACT)
    };
    let count = |workload, what: &str, truth: f64, measured| {
        exact(workload, what, Unit::Count, Some(truth), measured)
    };
    let steady_memory = check(
        steady.pod.workload,
        "memory, working set",
        Unit::Bytes,
        steady.truth(scenario, "anonymous_bytes"),
        page.of_pod(&steady.pod, "snug_container_memory_working_set_bytes"),
        // The working set includes kernel memory and page cache, which the workload does not count.
        Tolerance { absolute: 2.0 * MIB, relative: 0.0 },
    );
    let bursty_limit = BURSTY.cpu_limit.map(|millicores| f64::from(millicores) / 1000.0);
    let throttling = scenario.throttling(&bursty.pod);
    let of_grower = |metric, label| page.of_workload(grower.pod.workload, metric, label);
    let grower_peak = check(
        grower.pod.workload,
        "memory, peak",
        Unit::Bytes,
        GROWER.memory_limit.map(|mib| f64::from(mib) * MIB),
        of_grower("snug_workload_memory_peak_bytes", None),
        Tolerance { absolute: MIB / 4.0, relative: 0.0 },
    );
    let kills = of_grower("snug_workload_memory_events_total", Some(("event", "oom_kill")));
    let of_brief = |metric| page.of_workload(&BRIEF, metric, None);
    let (briefs_started, briefs_finished) = workloads.briefs();
    let brief_cpu = check(
        &BRIEF,
        "CPU time, all pods",
        Unit::Seconds,
        Some(workloads.brief_cpu_seconds),
        of_brief("snug_workload_cpu_usage_seconds_total"),
        cpu_tolerance(briefs_finished as f64),
    );
    let started = "snug_workload_containers_started_total";
    let ended = "snug_workload_containers_ended_total";
    vec![
        cpu("CPU time, at 200 m", steady),
        steady_memory,
        cpu("CPU time, 0.1 s a second", bursty),
        exact(
            bursty.pod.workload,
            "CPU limit",
            Unit::Cores,
            bursty_limit,
            page.of_pod(&bursty.pod, "snug_container_cpu_limit_cores"),
        ),
        exact(
            bursty.pod.workload,
            "throttled periods",
            Unit::Count,
            throttling.map(|throttling| throttling.periods),
            page.of_pod(&bursty.pod, "snug_container_cpu_cfs_throttled_periods_total"),
        ),
        exact(
            bursty.pod.workload,
            "throttled time",
            Unit::Seconds,
            throttling.map(|throttling| throttling.seconds),
            page.of_pod(&bursty.pod, "snug_container_cpu_cfs_throttled_seconds_total"),
        ),
        count(grower.pod.workload, "OOM kills", workloads.kills.into(), kills),
        count(
            grower.pod.workload,
            "killed at its own limit",
            workloads.kills.into(),
            of_grower("snug_workload_oom_kills_total", Some(("limit", "container"))),
        ),
        count(
            grower.pod.workload,
            "exit code 137, OOMKilled",
            workloads.kills.into(),
            of_grower("snug_workload_terminations_total", Some(("exit_code", "137"))),
        ),
        count(
            grower.pod.workload,
            "restarts",
            (workloads.growers_started() - 1).into(),
            of_grower("snug_workload_restarts_total", None),
        ),
        grower_peak,
        count(
            grower.pod.workload,
            "containers started",
            workloads.growers_started().into(),
            of_grower(started, None),
        ),
        count(grower.pod.workload, "containers ended", workloads.kills.into(), of_grower(ended, None)),
        count(&BRIEF, "containers started", briefs_started as f64, of_brief(started)),
        count(&BRIEF, "containers ended", briefs_finished as f64, of_brief(ended)),
        count(
            &BRIEF,
            "exit code 0",
            briefs_finished as f64,
            page.of_workload(&BRIEF, "snug_workload_terminations_total", Some(("exit_code", "0"))),
        ),
        brief_cpu,
        cpu("CPU time", idle),
        exact(
            idle.pod.workload,
            "sent over IPv4",
            Unit::Bytes,
            idle.truth(scenario, "sent_bytes"),
            page.of_workload(
                idle.pod.workload,
                "snug_workload_network_transmit_bytes_total",
                Some(("ip", "4")),
            ),
        ),
        count(idle.pod.workload, "tasks", 1.0, page.of_pod(&idle.pod, "snug_container_tasks")),
    ]
}

fn cpu_tolerance(containers: f64) -> Tolerance {
    Tolerance { absolute: RUNC_CPU_SECONDS * containers, relative: 0.01 }
}

fn check(
    workload: &Workload,
    what: &str,
    unit: Unit,
    truth: Option<f64>,
    measured: Option<f64>,
    tolerance: Tolerance,
) -> Check {
    Check { workload: workload.title(), what: what.to_owned(), unit, truth, measured, tolerance }
}

/// Shows that average usage hides throttling.
fn throttling_note(page: Page<'_>, workloads: &Workloads, seconds: u32) -> String {
    let Workloads { scenario, bursty, .. } = workloads;
    let measured = |metric| page.of_pod(&bursty.pod, metric).unwrap_or(f64::NAN);
    let average = measured("snug_container_cpu_usage_seconds_total") / f64::from(seconds);
    let limit = measured("snug_container_cpu_limit_cores");
    let throttled = measured("snug_container_cpu_cfs_throttled_periods_total");
    let share = throttled / measured("snug_container_cpu_cfs_periods_total");
    let value = |name| bursty.truth(scenario, name).unwrap_or(f64::NAN);
    let delay = value("stalled_seconds") / value("bursts");
    let title = bursty.pod.workload.title();
    if throttled == 0.0 {
        return format!("{title} was not throttled: this machine is too busy for it to reach its limit.");
    }
    format!(
        "{title} uses {} of its {} on average, but {:.0} % of its CFS periods are throttled:\n\
         a burst of 100 ms CPU time takes {:.0} ms.",
        Unit::Cores.show(average),
        Unit::Cores.show(limit),
        share * 100.0,
        100.0 + delay * 1000.0,
    )
}

fn heading(seconds: u32) -> Result<String> {
    let kernel = host::kernel_release().context("cannot read the kernel release")?;
    let runc = command::capture(command::new("runc").arg("--version"))?;
    let runc = runc.lines().next().unwrap_or_default().replace(" version", "");
    let layout = match host::cgroup_layout() {
        host::CgroupLayout::Unified { .. } => "cgroup v2",
        host::CgroupLayout::Hybrid { .. } => "cgroup v1 and v2 (hybrid)",
        host::CgroupLayout::Legacy => "cgroup v1",
        host::CgroupLayout::Absent => "no cgroups",
    };
    Ok(format!("{seconds} s on Linux {kernel}, {layout}, {runc}"))
}

/// Set by SIGINT, SIGTERM or SIGHUP.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, requested.clone()).context("cannot handle signals")?;
        }
        Ok(Self(requested))
    }

    /// Sleeps for `length`.
    ///
    /// # Errors
    ///
    /// Fails if a signal has arrived.
    fn pause(&self, length: Duration) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted: the agent, the containers and their cgroups are being removed");
        }
        thread::sleep(length);
        Ok(())
    }
}

/// Prints progress: one line that is updated on a terminal, separate lines otherwise.
struct Progress {
    live: bool,
    next: Duration,
}

impl Progress {
    fn begin() -> Self {
        Self { live: io::stdout().is_terminal(), next: Duration::ZERO }
    }

    fn show(&mut self, elapsed: Duration, seconds: u32, workloads: &Workloads) {
        if elapsed < self.next {
            return;
        }
        let (_, briefs) = workloads.briefs();
        let line = format!(
            "demo: {:>3} of {seconds} s, grower OOM-killed {} times, {briefs} short pods finished",
            elapsed.as_secs(),
            workloads.kills,
        );
        if self.live {
            self.next = elapsed + Duration::from_secs(1);
            print!("\r{line}");
            // A missing line of progress is not an error.
            let _ = io::stdout().flush();
        } else {
            self.next = elapsed + PROGRESS_INTERVAL;
            println!("{line}");
        }
    }

    fn end(&self) {
        if self.live {
            println!();
        }
    }
}
