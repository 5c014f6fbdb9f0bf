//! `cargo xtask test`: runs all checks, in stages.
//!
//! All stages use one build. Stages that compare measurements run one after the other: the tests of the eBPF programs compare values
//! that change ten times a second, those of the agent's processes compare rates, and a kubelet on a busy machine reports containers
//! minutes late. They wait most of their time, so all other stages but the unit tests run behind them, in a cgroup that gets only CPU
//! time which nothing else wants ([`idle`]). Where there can be no such cgroup, nothing runs beside the stages that measure.

mod background;
mod changed;
mod idle;
mod leftovers;
mod plan;
mod report;
mod stages;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, anyhow};
use clap::{Parser, ValueEnum};

use self::{
    background::{Background, Job},
    idle::IdleGroup,
    plan::Step,
    report::Report,
    stages::Products,
};
use crate::{
    build::Built,
    libtest,
    setup::{self, Need},
};

/// Run all checks: formatting, lints, documentation, and tests from units to a Kubernetes cluster.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Run only these stages, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
    /// Run only the stages that uncommitted changes and the commits since --base can affect.
    #[arg(long, conflicts_with = "only")]
    changed: bool,
    /// Commit that --changed compares with.
    #[arg(long, value_name = "COMMIT", default_value = "HEAD", requires = "changed")]
    base: String,
    /// For stages in the background: file with the messages of the build.
    #[arg(long, hide = true, requires = "only")]
    built: Option<PathBuf>,
}

/// A kind of check. Stages start in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// Check the formatting.
    Fmt,
    /// Test the eBPF programs on this host's kernel.
    Kernel,
    /// Test the eBPF programs on stock kernels in virtual machines.
    Vm,
    /// Lint all crates: the eBPF programs for BPF, the others for the architecture that is not this host's.
    Clippy,
    /// Build the documentation without warnings.
    Docs,
    /// Run unit tests and doc tests.
    Unit,
    /// Build the eBPF programs twice, and with `build-ebpf --toolchain prebuilt` and `build-std`, and compare the results.
    Toolchain,
    /// Check that kustomize and Helm render the same objects, and validate them for Kubernetes 1.25 to 1.37.
    Manifests,
    /// Test the output of `snug` for browsers in one.
    Browser,
    /// Make a site of the pages, and check its links.
    Pages,
    /// Check licences, bans and sources of dependencies with cargo-deny, which is built on first use.
    Deny,
    /// Run the fuzz targets over mutated samples.
    Fuzz,
    /// Test the agent with containers, Prometheus and an OTLP receiver.
    System,
    /// Test the agent on a Kubernetes node.
    Cluster,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Fmt | Self::Deny => &[],
            Self::Clippy => &[Need::Ebpf, Need::Lint, Need::Cross],
            Self::Docs => &[Need::Ebpf, Need::Cross],
            Self::Toolchain | Self::Fuzz => &[Need::Ebpf],
            Self::Kernel => &[Need::Ebpf, Need::Containers],
            // A unit test packs busybox into a guest's initramfs, and one takes a terminal.
            Self::Unit => &[Need::Ebpf, Need::Containers, Need::Terminal],
            Self::Vm => &[Need::Ebpf, Need::Containers, Need::Vm],
            Self::Manifests => &[Need::Ebpf, Need::Manifests, Need::Prometheus],
            Self::Browser => &[Need::Ebpf, Need::Browser],
            Self::Pages => &[Need::Pages],
            Self::Cluster => &[Need::Ebpf, Need::Manifests, Need::Cluster, Need::Prometheus],
            Self::System => &[Need::Ebpf, Need::Containers, Need::Prometheus, Need::Otlp, Need::Terminal],
        }
    }

    /// Whether the stage runs executables of the shared build.
    fn needs_build(self) -> bool {
        !matches!(self, Self::Fmt | Self::Clippy | Self::Docs | Self::Toolchain | Self::Deny | Self::Pages)
    }

    /// Whether the stage compares measurements, so that it must not wait for a CPU.
    fn measures(self) -> bool {
        matches!(self, Self::Kernel | Self::System | Self::Cluster)
    }
}

/// The name under which the programs of a Kubernetes node are made.
const NODE_PROGRAMS: &str = "cluster setup";

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen: BTreeSet<Stage> = if options.changed {
        changed::stages(&options.base)?
    } else if options.only.is_empty() {
        Stage::value_variants().iter().copied().collect()
    } else {
        options.only.iter().copied().collect()
    };
    if chosen.is_empty() {
        println!("test: the change affects no stage");
        return Ok(());
    }
    let mut report = Report::new();
    if let Some(path) = &options.built {
        let products = Products::from_build(Built::load(path)?);
        for stage in chosen {
            report.run(&stage.name(), || products.run(stage));
        }
        return report.verdict();
    }
    libtest::forget()?;
    leftovers::remove()?;
    run_all(&chosen, &mut report)?;
    report.print(&libtest::recorded());
    report.verdict()
}

fn run_all(chosen: &BTreeSet<Stage>, report: &mut Report) -> Result<()> {
    let group = if plan::needs_group(chosen) { IdleGroup::make() } else { Err(anyhow!("it is not needed")) };
    if let (true, Err(why)) = (plan::needs_group(chosen), &group) {
        println!("test: no cgroup for idle CPU time, so stages that measure run alone: {why:#}");
    }
    // Dropped before the group, which kills what is left in it.
    let (group, mut background) = (group.ok(), Background::default());
    let mut needs: BTreeSet<Need> = chosen.iter().flat_map(|stage| stage.needs()).copied().collect();
    let ready = report.run("setup", || setup::install_packages(&needs));
    // Build the programs of the node in the background of the stages before `Cluster`.
    let node_programs = ready && chosen.len() > 1 && needs.remove(&Need::Cluster);
    if node_programs {
        background.start(&[(NODE_PROGRAMS.to_owned(), Job::Setup(Need::Cluster))], group.as_ref())?;
    }
    let ready =
        ready && report.run("setup tools", || setup::ensure_all(&Vec::from_iter(needs.iter().copied())));
    let mut products = Products::default();
    let mut built = true;
    if ready && chosen.iter().any(|stage| stage.needs_build()) {
        built = report.run("build", || products.build());
    }
    let can_run = |stage: Stage| ready && (built || !stage.needs_build());
    for stage in chosen.iter().filter(|stage| !can_run(**stage)) {
        report.skip(&stage.name(), "setup or build failed");
    }
    let chosen: BTreeSet<Stage> = chosen.iter().copied().filter(|stage| can_run(*stage)).collect();
    for step in plan::steps(&chosen, group.is_some()) {
        match step {
            Step::Foreground(Stage::Cluster) if node_programs => {
                background.join_first(report);
                report.run(&Stage::Cluster.name(), || products.run(Stage::Cluster));
            }
            Step::Foreground(stage) => {
                report.run(&stage.name(), || products.run(stage));
            }
            Step::Background(stages) => {
                let saved = products.saved()?;
                let job = |stage: &Stage| (stage.name(), Job::Stage(stage.name(), saved.clone()));
                background.start(&stages.iter().map(job).collect::<Vec<_>>(), group.as_ref())?;
            }
            Step::Join => {
                if let Some(group) = &group {
                    group.stop_yielding()?;
                }
                background.join(report);
            }
        }
    }
    background.join(report);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_chosen_by_name() {
        let options = Options::try_parse_from(["test", "--only", "vm,fmt"]).unwrap();
        assert_eq!(options.only, [Stage::Vm, Stage::Fmt]);
        assert!(Options::try_parse_from(["test", "--only", "vms"]).is_err());
        assert!(Options::try_parse_from(["test", "--only", "vm", "--changed"]).is_err());
    }
}
