//! Measures the cost of the agent. `cargo xtask bench` builds and runs this program. It needs root and a kernel that supports
//! the eBPF programs.

mod cgroups;
mod client;
mod growth;
mod history;
mod interrupt;
mod measure;
mod node;
mod pass;
mod process;
mod programs;
mod receiver;
mod recommend;
mod runqueue;
mod scrape;
mod top;

use std::{fs, process::ExitCode, time::SystemTime};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::measure::Section;

/// Measure the CPU and memory usage of the agent.
#[derive(Debug, Parser)]
struct Options {
    /// Run only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Fail if a budget is exceeded.
    #[arg(long)]
    strict: bool,
    /// Numbers of containers for the part `pass`.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 500, 2_000])]
    sizes: Vec<usize>,
    /// Rounds for each number of containers.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds for each kind of scrapes in the part `node`.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Scrapes of each kind per round in the part `scrape`.
    #[arg(long, default_value_t = 20)]
    scrapes: u32,
    /// Containers to create and remove in the part `growth`.
    #[arg(long, default_value_t = 10_000)]
    churn: usize,
    /// Ignored: cargo passes this flag to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Passes of the eBPF programs, compared with reading cgroup files.
    Pass,
    /// The agent on a node with 250 containers.
    Node,
    /// Scrapes with 500 containers.
    Scrape,
    /// 10,000 containers that are created and removed.
    Growth,
    /// eBPF programs that run in the context of other processes.
    Programs,
    /// Run-queue tracing.
    Runqueue,
    History,
    /// `snug recommend` for a large cluster.
    Recommend,
    /// `snug top` with 500 containers.
    Top,
}

fn main() -> ExitCode {
    match process::run_as_child().and_then(|()| run(&Options::parse())) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    interrupt::watch()?;
    let parts = if options.only.is_empty() { Part::value_variants() } else { &options.only };
    let mut missed = Vec::new();
    for part in parts {
        let load = format!("load average {}, slowdown {:.1}", load(), measure::slowdown());
        let section = measure(*part, options)?;
        print(&section, &load);
        missed.extend(section.budgets.into_iter().filter(|budget| !budget.met));
    }
    for budget in &missed {
        eprintln!("bench: BUDGET NOT MET: {}: {} ({})", budget.name, budget.measured, budget.allowed);
    }
    if missed.is_empty() {
        eprintln!("bench: all budgets met");
    }
    Ok(if options.strict && !missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure(part: Part, options: &Options) -> Result<Section> {
    match part {
        Part::Pass => pass::run(&options.sizes, options.rounds),
        Part::Node => node::run(&process::agent_binary()?, options.seconds),
        Part::Scrape => scrape::run(&process::agent_binary()?, options.scrapes),
        Part::Growth => growth::run(&process::agent_binary()?, options.churn),
        Part::Programs => programs::run(&process::agent_binary()?),
        Part::Runqueue => runqueue::run(),
        Part::History => history::run(),
        Part::Recommend => recommend::run(&recommend::cli_binary()?),
        Part::Top => top::run(&recommend::cli_binary()?),
    }
}

/// Prints a section between the markers that `cargo xtask bench --write` looks for.
fn print(section: &Section, load: &str) {
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    println!("<!-- bench: {} -->", section.name);
    println!("_{}, {}; {load} at the start_\n", date.split('T').next().unwrap_or(&date), machine());
    print!("{}", section.text);
    println!("<!-- end: {} -->", section.name);
}

/// CPU, cores and kernel.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|pair| pair.1);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {}, Linux {}", model.unwrap_or("unknown processor"), kernel.trim())
}

/// The load average of the last minute. A value above the number of cores means that other processes compete.
fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}
