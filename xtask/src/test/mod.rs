//! `cargo xtask test`: everything that is checked, in stages.
//!
//! One build serves all stages. The programs of a Kubernetes node are built beside it. The tests of the eBPF programs compare values that
//! change ten times a second, so they have the machine alone. The agent's tests on a node and beside Prometheus wait most of the time, so
//! they run beside each other, and the virtual machines take what they leave.

mod changed;
mod report;
mod side;
mod stages;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use self::{
    report::Report,
    side::{Job, Side},
    stages::Products,
};
use crate::{
    build::Built,
    setup::{self, Need},
};

/// Check everything: format, lints, documentation, and tests from units to whole systems.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Run these stages only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
    /// Run the stages that a change can touch: what is not committed, and the commits since --base.
    #[arg(long, conflicts_with = "only")]
    changed: bool,
    /// The commit that --changed compares with.
    #[arg(long, value_name = "COMMIT", default_value = "HEAD", requires = "changed")]
    base: String,
    /// A stage beside others: what the run that started it has built.
    #[arg(long, hide = true, requires = "only")]
    built: Option<PathBuf>,
}

/// One kind of check. They start in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// The code is formatted.
    Fmt,
    /// No lint complains: neither about the eBPF programs nor about the rest, which is linted for the other architecture.
    Clippy,
    /// The documentation builds without a warning.
    Docs,
    /// Tests beside the code.
    Unit,
    /// The eBPF programs build in both ways, and are the same programs.
    Toolchain,
    /// What installs it: kustomize and helm render the same, valid for many versions of Kubernetes.
    Manifests,
    /// The eBPF programs on this host's kernel.
    Kernel,
    /// The eBPF programs on stock kernels in virtual machines.
    Vm,
    /// The agent on a real Kubernetes node.
    Cluster,
    /// The agent and what scrapes it.
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
            // A unit test packs a guest's files, busybox among them.
            Self::Unit | Self::Kernel => &[Need::Ebpf, Need::Containers],
            Self::Vm => &[Need::Ebpf, Need::Containers, Need::Vm],
            Self::Manifests => &[Need::Ebpf, Need::Manifests],
            Self::Cluster => &[Need::Ebpf, Need::Manifests, Need::Cluster],
            Self::System => &[Need::Ebpf, Need::Containers, Need::Prometheus, Need::Otlp],
        }
    }

    /// Whether the stage runs what the one build of programs and tests makes.
    fn needs_build(self) -> bool {
        !matches!(self, Self::Fmt | Self::Clippy | Self::Docs | Self::Toolchain)
    }

    /// Whether the stage has the machine alone.
    fn is_alone(self) -> bool {
        self == Self::Kernel
    }

    /// Whether the stage runs beside those that start after it.
    fn is_beside(self) -> bool {
        matches!(self, Self::Vm | Self::Cluster)
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
        println!("test: no stage can be touched by that change");
        return Ok(());
    }
    let mut report = Report::new();
    if let Some(path) = &options.built {
        let products = Products::of(Built::load(path)?);
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
    let mut side = Side::default();
    let ready = report.run("setup", || setup::install_packages(&needs));
    // What others wait for is not made twice: the node's programs are made beside all that comes before the node.
    if ready && needs.remove(&Need::Cluster) && chosen.len() > 1 {
        side.start(NODE_PROGRAMS, &Job::Setup(Need::Cluster))?;
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
            report.skip(&stage.name(), "what it needs is not there");
            continue;
        }
        // The node's programs are there before the machine is to be quiet, and before a node needs them.
        if stage.is_alone() || stage.is_beside() && side.has(NODE_PROGRAMS) {
            side.join(report);
        }
        if stage.is_beside() && last != Some(stage) {
            let name = stage.name();
            side.start(&name, &Job::Stage(name.clone(), products.saved()?))?;
        } else {
            report.run(&stage.name(), || products.run(stage));
        }
    }
    side.join(report);
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
    fn what_has_the_machine_alone_comes_before_what_runs_beside() {
        let stages = Stage::value_variants();
        let alone = stages.iter().rposition(|stage| stage.is_alone()).unwrap();
        let beside = stages.iter().position(|stage| stage.is_beside()).unwrap();
        assert!(alone < beside);
        assert!(!stages.last().unwrap().is_beside(), "the last one runs in the foreground");
    }
}
