//! `cargo xtask test`: everything that is checked, in stages.
//!
//! One build serves all stages. What takes long and measures nothing runs beside it: the programs of a Kubernetes node are built
//! while the tests are, and the virtual machines run beside lints and unit tests. The stages that measure have the machine alone.

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

/// One kind of check. They run in this order, but for the virtual machines, which run beside those before them.
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
    /// The eBPF programs on stock kernels in virtual machines.
    Vm,
    /// The eBPF programs on this host's kernel.
    Kernel,
    /// The agent and what scrapes it.
    System,
    /// The agent on a real Kubernetes node.
    Cluster,
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

    /// Whether the stage may run while other work takes the machine's time.
    fn runs_beside(self) -> bool {
        self == Self::Vm
    }

    /// Whether the stage compares what it measures, and so must have the machine alone.
    fn measures(self) -> bool {
        matches!(self, Self::Kernel | Self::System | Self::Cluster)
    }
}

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
        side.start("cluster setup", &Job::Setup(Need::Cluster))?;
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
    for &stage in chosen {
        if !ready || stage.needs_build() && !built {
            report.skip(&stage.name(), "what it needs is not there");
        } else if stage.runs_beside() && chosen.len() > 1 {
            let name = stage.name();
            side.start(&name, &Job::Stage(name.clone(), products.saved()?))?;
        }
    }
    if !ready {
        return Ok(());
    }
    for &stage in chosen.iter().filter(|stage| !stage.runs_beside() || chosen.len() == 1) {
        if stage.needs_build() && !built {
            continue;
        }
        if stage.measures() {
            side.join(report);
        }
        report.run(&stage.name(), || products.run(stage));
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
    fn what_measures_comes_after_all_that_runs_beside() {
        let stages = Stage::value_variants();
        let last_beside = stages.iter().rposition(|stage| stage.runs_beside()).unwrap();
        let first_measuring = stages.iter().position(|stage| stage.measures()).unwrap();
        assert!(last_beside < first_measuring);
        assert!(stages.iter().all(|stage| !(stage.measures() && stage.runs_beside())));
    }
}
