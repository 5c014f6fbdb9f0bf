//! `cargo xtask test`: runs all checks, in stages.
//!
//! All stages use one build. The programs of a Kubernetes node are built in the background meanwhile. The tests of the eBPF programs
//! compare values that change ten times a second, and those of the agent's processes compare rates, so no other stage runs at the same
//! time. The pods of the node's tests have small CPU shares, so nothing runs beside them either. The virtual machines need as much CPU
//! time as all the others: they run in the background of the lints, which do not measure.

mod background;
mod changed;
mod report;
mod stages;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use self::{
    background::{Background, Job},
    report::Report,
    stages::Products,
};
use crate::{
    build::Built,
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
    /// Build the eBPF programs with `build-ebpf --toolchain prebuilt` and `build-std`, and compare the results.
    Toolchain,
    /// Check that kustomize and Helm render the same objects, and validate them for Kubernetes 1.25 to 1.37.
    Manifests,
    /// Test the agent on a Kubernetes node.
    Cluster,
    /// Test the agent with containers, Prometheus and an OTLP receiver.
    System,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Fmt => &[],
            Self::Clippy => &[Need::Ebpf, Need::Lint, Need::Cross],
            Self::Docs => &[Need::Ebpf, Need::Cross],
            Self::Toolchain => &[Need::Ebpf],
            // A unit test packs busybox into a guest's initramfs.
            Self::Unit | Self::Kernel => &[Need::Ebpf, Need::Containers],
            Self::Vm => &[Need::Ebpf, Need::Containers, Need::Vm],
            Self::Manifests => &[Need::Ebpf, Need::Manifests],
            Self::Cluster => &[Need::Ebpf, Need::Manifests, Need::Cluster, Need::Prometheus],
            Self::System => &[Need::Ebpf, Need::Containers, Need::Prometheus, Need::Otlp],
        }
    }

    /// Whether the stage runs executables of the shared build.
    fn needs_build(self) -> bool {
        !matches!(self, Self::Fmt | Self::Clippy | Self::Docs | Self::Toolchain)
    }

    /// Whether no other stage may run at the same time.
    fn runs_alone(self) -> bool {
        matches!(self, Self::Kernel | Self::Cluster | Self::System)
    }

    /// Whether the stage runs in the background of the stages after it.
    fn runs_in_background(self) -> bool {
        self == Self::Vm
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
    run_all(&chosen, &mut report)?;
    report.print();
    report.verdict()
}

fn run_all(chosen: &BTreeSet<Stage>, report: &mut Report) -> Result<()> {
    let mut needs: BTreeSet<Need> = chosen.iter().flat_map(|stage| stage.needs()).copied().collect();
    let mut background = Background::default();
    let ready = report.run("setup", || setup::install_packages(&needs));
    // Build the programs of the node in the background, while the stages before `Cluster` run.
    if ready && needs.remove(&Need::Cluster) && chosen.len() > 1 {
        background.start(NODE_PROGRAMS, &Job::Setup(Need::Cluster))?;
    } else if chosen.contains(&Stage::Cluster) {
        needs.insert(Need::Cluster);
    }
    let ready =
        ready && report.run("setup tools", || setup::ensure_all(&Vec::from_iter(needs.iter().copied())));
    let mut products = Products::default();
    let mut built = true;
    if ready && chosen.iter().any(|stage| stage.needs_build()) {
        built = report.run("build", || products.build());
    }
    let last = chosen.last().copied();
    for &stage in chosen {
        if !ready || stage.needs_build() && !built {
            report.skip(&stage.name(), "setup or build failed");
            continue;
        }
        // Two jobs in the background are too much for the stages in front of them.
        if stage.runs_alone() || stage.runs_in_background() {
            background.join(report);
        }
        if stage.runs_in_background() && last != Some(stage) {
            let name = stage.name();
            background.start(&name, &Job::Stage(name.clone(), products.saved()?))?;
        } else {
            report.run(&stage.name(), || products.run(stage));
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

    #[test]
    fn a_background_stage_has_a_stage_after_it() {
        assert!(
            !Stage::value_variants().last().unwrap().runs_in_background(),
            "the last one runs in the foreground"
        );
        assert!(
            Stage::value_variants().iter().all(|stage| !(stage.runs_alone() && stage.runs_in_background()))
        );
    }
}
