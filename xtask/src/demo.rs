//! `cargo xtask demo`: real containers whose use is known, the agent, and how far both are apart.

mod agent;
mod bundle;
mod cast;
mod cgroups;
mod plan;
mod report;
mod stage;
mod table;

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
    cast::{Actor, Cast},
    plan::{BRIEF, BURSTY, GROWER, Workload},
    report::{Check, Page, Tolerance},
    stage::Stage,
    table::Unit,
};
use crate::{
    build, command, host,
    setup::{self, Need},
};

/// How often the demo looks after its containers.
const LOOK: Duration = Duration::from_millis(50);
/// From one line of progress to the next, where no terminal shows a running one.
const PROGRESS: Duration = Duration::from_secs(10);
/// How long the workloads may take to come to rest.
const REST: Duration = Duration::from_secs(20);
/// From rest to the last look at the metrics: what the agent does once a second has then happened.
const SETTLE: Duration = Duration::from_millis(2500);

/// What runc does in a container's cgroup besides the container's own process, in seconds of CPU time at most.
const RUNTIME_SECONDS: f64 = 0.02;
const MIB: f64 = 1_048_576.0;

/// Run real containers whose use of CPU and memory is known, have the agent measure them, and compare. Needs root.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(10..=3600))]
    seconds: u32,
    /// Leave agent and containers running after the report, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        host::is_root(),
        "the demo makes containers and cgroups and loads eBPF programs: run it as root (sudo -E env \"PATH=$PATH\" \
         cargo xtask demo)"
    );
    setup::ensure_all(&[Need::Ebpf, Need::Containers])?;
    println!(
        "demo: building the agent with its eBPF programs, and what the containers run (five minutes on two cores)"
    );
    let [agent, workload] = build::build_for_demo()?;

    let interrupt = Interrupt::listen()?;
    let stage = Stage::set_up(&workload)?;
    let mut agent = Agent::start(&agent, &stage)?;
    let mut cast = Cast::start(stage)?;
    let outcome = play(options, &agent, &mut cast, &interrupt);
    agent.stop().and(cast.clear()).and(outcome)
}

/// Everything between the start and the end of agent and containers.
fn play(options: &Options, agent: &Agent, cast: &mut Cast, interrupt: &Interrupt) -> Result<()> {
    if agent.is_elsewhere() {
        println!("demo: port 9750 is taken, so the agent listens on another");
    }
    println!("demo: measuring for {} s: {} (Ctrl-C ends it)", options.seconds, agent.url());
    let (first, last) = measure(options.seconds, agent, cast, interrupt)?;
    let checks = checks(cast, Page(&last.samples));
    println!("\n{}", heading(options.seconds)?);
    println!("\n{}", report::render(&checks));
    println!(
        "Truth: the workloads' own clocks, what the demo started and saw end, and cpu.stat for throttling."
    );
    println!("{}", remark(Page(&last.samples), cast, options.seconds));
    let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
    println!("\nTHE AGENT ITSELF\n{}", report::cost(Page(&first.samples), Page(&last.samples), seconds));
    if options.keep {
        cast.stage.hold(false)?;
        println!("demo: agent and containers stay until Ctrl-C: {}", agent.url());
        while interrupt.pause(LOOK).is_ok() {
            cast.look(Duration::MAX)?;
        }
    }
    let failures = report::failures(&checks);
    ensure!(failures.is_empty(), "Snug measured something else: {}", failures.join("; "));
    Ok(())
}

/// Lets the containers run, has them rest, and returns a page of metrics from the beginning and one from the end.
fn measure(seconds: u32, agent: &Agent, cast: &mut Cast, interrupt: &Interrupt) -> Result<(Scrape, Scrape)> {
    let first = agent.scrape()?;
    let length = Duration::from_secs(seconds.into());
    let mut progress = Progress::begin();
    loop {
        let elapsed = first.at.elapsed();
        let left = length.saturating_sub(elapsed);
        if left.is_zero() {
            break;
        }
        interrupt.pause(LOOK)?;
        cast.look(left)?;
        progress.show(elapsed, seconds, cast);
    }
    progress.end();
    cast.stage.hold(true)?;
    let resting = Instant::now();
    loop {
        let restless = cast.restless();
        if restless.is_empty() {
            break;
        }
        ensure!(
            resting.elapsed() < REST,
            "{} does not come to rest: is this machine overloaded?",
            restless.join(", ")
        );
        interrupt.pause(LOOK)?;
        cast.look(Duration::ZERO)?;
    }
    let settled = Instant::now() + SETTLE;
    while Instant::now() < settled {
        interrupt.pause(LOOK)?;
        // Nobody moves any more, and who should have stayed is still there.
        cast.look(Duration::ZERO)?;
    }
    Ok((first, agent.scrape()?))
}

/// What was true against what the page says.
fn checks(cast: &Cast, page: Page<'_>) -> Vec<Check> {
    let Cast { stage, steady, bursty, idle, grower, .. } = cast;
    let cpu = |what: &str, actor: &Actor| {
        let measured = page.of_pod(&actor.pod, "snug_container_cpu_usage_seconds_total");
        let truth = actor.truth(stage, "cpu_seconds");
        check(actor.pod.workload, what, Unit::Seconds, truth, measured, cpu_tolerance(1.0))
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
        steady.truth(stage, "anonymous_bytes"),
        page.of_pod(&steady.pod, "snug_container_memory_working_set_bytes"),
        // Kernel memory and file cache of the process are no memory of its own.
        Tolerance { absolute: 2.0 * MIB, relative: 0.0 },
    );
    let bursty_limit = BURSTY.cpu_limit.map(|millicores| f64::from(millicores) / 1000.0);
    let throttling = stage.throttling(&bursty.pod);
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
    let (briefs_started, briefs_over) = cast.briefs();
    let brief_cpu = check(
        &BRIEF,
        "CPU time, all pods",
        Unit::Seconds,
        Some(cast.brief_cpu_seconds),
        of_brief("snug_workload_cpu_usage_seconds_total"),
        cpu_tolerance(briefs_over as f64),
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
        count(grower.pod.workload, "OOM kills", cast.kills.into(), kills),
        count(
            grower.pod.workload,
            "killed at its own limit",
            cast.kills.into(),
            of_grower("snug_workload_oom_kills_total", Some(("limit", "container"))),
        ),
        count(
            grower.pod.workload,
            "exit code 137, OOMKilled",
            cast.kills.into(),
            of_grower("snug_workload_terminations_total", Some(("exit_code", "137"))),
        ),
        count(
            grower.pod.workload,
            "restarts",
            (cast.growers_started() - 1).into(),
            of_grower("snug_workload_restarts_total", None),
        ),
        grower_peak,
        count(
            grower.pod.workload,
            "containers started",
            cast.growers_started().into(),
            of_grower(started, None),
        ),
        count(grower.pod.workload, "containers ended", cast.kills.into(), of_grower(ended, None)),
        count(&BRIEF, "containers started", briefs_started as f64, of_brief(started)),
        count(&BRIEF, "containers ended", briefs_over as f64, of_brief(ended)),
        count(
            &BRIEF,
            "exit code 0",
            briefs_over as f64,
            page.of_workload(&BRIEF, "snug_workload_terminations_total", Some(("exit_code", "0"))),
        ),
        brief_cpu,
        cpu("CPU time", idle),
        exact(
            idle.pod.workload,
            "sent over IPv4",
            Unit::Bytes,
            idle.truth(stage, "sent_bytes"),
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
    Tolerance { absolute: RUNTIME_SECONDS * containers, relative: 0.01 }
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

/// Why an average does not show what a quota does.
fn remark(page: Page<'_>, cast: &Cast, seconds: u32) -> String {
    let Cast { stage, bursty, .. } = cast;
    let measured = |metric| page.of_pod(&bursty.pod, metric).unwrap_or(f64::NAN);
    let average = measured("snug_container_cpu_usage_seconds_total") / f64::from(seconds);
    let limit = measured("snug_container_cpu_limit_cores");
    let throttled = measured("snug_container_cpu_cfs_throttled_periods_total");
    let share = throttled / measured("snug_container_cpu_cfs_periods_total");
    let felt = |name| bursty.truth(stage, name).unwrap_or(f64::NAN);
    let delay = felt("stalled_seconds") / felt("bursts");
    let title = bursty.pod.workload.title();
    if throttled == 0.0 {
        return format!(
            "This machine is too busy for {title} to reach its limit: there is no throttling to see."
        );
    }
    format!(
        "{title} averages {} of its {}; yet {:.0} % of its periods are throttled,\n\
         and what takes 100 ms of work takes {:.0} ms.",
        Unit::Cores.show(average),
        Unit::Cores.show(limit),
        share * 100.0,
        100.0 + delay * 1000.0,
    )
}

fn heading(seconds: u32) -> Result<String> {
    let kernel = host::kernel_release().context("cannot read the kernel's release")?;
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

/// Whether the demo was asked to end.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, asked.clone()).context("cannot handle signals")?;
        }
        Ok(Self(asked))
    }

    /// Sleeps; an error when the demo was asked to end.
    fn pause(&self, length: Duration) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted; agent, containers and cgroups are removed");
        }
        thread::sleep(length);
        Ok(())
    }
}

/// One line that runs on a terminal, and a few lines elsewhere.
struct Progress {
    live: bool,
    next: Duration,
}

impl Progress {
    fn begin() -> Self {
        Self { live: io::stdout().is_terminal(), next: Duration::ZERO }
    }

    fn show(&mut self, elapsed: Duration, seconds: u32, cast: &Cast) {
        if elapsed < self.next {
            return;
        }
        let (_, briefs) = cast.briefs();
        let line = format!(
            "demo: {:>3} of {seconds} s, grower killed {} times, {briefs} short pods over",
            elapsed.as_secs(),
            cast.kills,
        );
        if self.live {
            self.next = elapsed + Duration::from_secs(1);
            print!("\r{line}");
            // The line is a courtesy.
            let _ = io::stdout().flush();
        } else {
            self.next = elapsed + PROGRESS;
            println!("{line}");
        }
    }

    fn end(&self) {
        if self.live {
            println!();
        }
    }
}
