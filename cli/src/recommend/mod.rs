//! `snug recommend`: what requests and limits should be.

mod apply;
mod checks;
mod formats;
pub mod report;

use std::{io::Write, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use snug_sizing::{
    cost::Prices,
    engine::{Policy, Risk},
    evidence::Evidence,
};

use self::report::Report;
use crate::{
    cluster::Cluster,
    policy::{ANNOTATION, CpuLimitOption, Policies, PolicyError},
    price, risk,
    source::{EvidenceSource, OpenedSource},
};

/// What sizing is asked for, whatever is done with it.
#[derive(Debug, Args)]
pub struct SizingOptions {
    /// How much may go wrong: a profile (critical, standard, batch), or numbers such as oom=0.001,cpu=0.01, which are OOM kills per
    /// pod-day and the share of work above the request.
    #[arg(long, value_name = "RISK", default_value = "standard", value_parser = risk::parse)]
    risk: Risk,
    /// Whether a CPU limit is recommended: none, or the smallest that keeps throttling rare (by-risk).
    #[arg(long, value_enum, default_value_t = CpuLimitOption::None)]
    cpu_limit: CpuLimitOption,
    /// A file with what is wanted for some workloads: risk, bounds, CPU limits, or to be left alone. It has the last word over annotations
    /// (snug/policy) of a cluster's pods.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl SizingOptions {
    /// What is wanted for each workload. What is wrong with the annotations of a cluster's pods is told on standard error.
    ///
    /// # Errors
    /// When the policy file cannot be used.
    pub fn policies(&self, cluster: Option<&Cluster>) -> Result<Policies, PolicyError> {
        let mut policies = Policies::new(self.usual());
        if let Some(cluster) = cluster {
            let annotated = cluster.annotated(ANNOTATION).unwrap_or_else(|error| {
                eprintln!("snug: {error}; annotations are not read");
                Vec::new()
            });
            let wrong;
            (policies, wrong) = policies.with_annotations(annotated);
            wrong.iter().for_each(|wrong| eprintln!("snug: {wrong}; it counts for nothing"));
        }
        self.policy.as_ref().map_or_else(|| Ok(policies.clone()), |file| policies.clone().with_file(file))
    }

    fn usual(&self) -> Policy {
        Policy { cpu_limit: self.cpu_limit.into(), ..Policy::new(self.risk) }
    }
}

/// The options of `snug recommend`.
#[derive(Debug, Args)]
pub struct Options {
    /// Only this workload: NAME or NAMESPACE/NAME.
    workload: Option<String>,
    #[command(flatten)]
    source: EvidenceSource,
    #[command(flatten)]
    wanted: SizingOptions,
    /// Form of the output. patch is one kubectl command a workload, for a shell; kustomize a component with a patch for each workload; helm
    /// values for charts.
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// List prices of a core and of a GiB of memory for an hour, such as cpu=0.03,memory=0.004: what requests cost is told, now and then.
    #[arg(long, value_name = "PRICES", value_parser = price::parse)]
    price: Option<Prices>,
    /// End with code 2 if, with what is in force, a container has to expect more OOM kills per pod-day than this.
    #[arg(long, value_name = "OOM-KILLS")]
    fail_on: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
    Csv,
    Markdown,
    Yaml,
    Patch,
    Kustomize,
    Helm,
}

/// How it went, beyond errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There are recommendations.
    Success,
    /// Something is beyond `--fail-on`.
    AboveThreshold,
    /// There is not enough evidence for any.
    NotEnoughData,
}

/// Whether evidence is of the workload asked for.
fn is_of(evidence: &Evidence, asked: &str) -> bool {
    let workload = &evidence.workload;
    match asked.split_once('/') {
        Some((namespace, name)) => workload.namespace == namespace && workload.name == name,
        None => workload.name == asked,
    }
}

/// One workload's containers, and where their evidence comes from.
#[derive(Debug, Args)]
pub struct WorkloadSelector {
    /// The workload: NAME or NAMESPACE/NAME.
    pub workload: String,
    /// Only this container.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Where from.
    #[command(flatten)]
    pub source: EvidenceSource,
}

impl WorkloadSelector {
    /// Whether evidence is of them.
    pub fn is(&self, evidence: &Evidence) -> bool {
        is_of(evidence, &self.workload)
            && self.container.as_ref().is_none_or(|name| evidence.container.name == *name)
    }
}

/// Runs `snug recommend`.
///
/// # Errors
/// When there is no evidence to be had, or nobody takes the output.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { workload, source, wanted, output, price, fail_on } = options;
    let OpenedSource { snapshot, cluster } = source.open()?;
    let policies = wanted.policies(cluster.as_ref())?;
    let chosen = |evidence: &Evidence| workload.as_ref().is_none_or(|asked| is_of(evidence, asked));
    let mut report = Report::make(&snapshot, &policies, chosen);
    if let Some(cluster) = cluster {
        let around = cluster.constraints();
        around
            .missing
            .iter()
            .for_each(|missing| eprintln!("snug: {missing}; proposals are not checked against them"));
        report.check(&snapshot, &around);
        if price.is_some() {
            match cluster.occupancy() {
                Ok(occupancy) => report.emptied = Some(report.emptied(&snapshot, &occupancy)),
                Err(error) => eprintln!("snug: {error}; how many nodes could go is not known"),
            }
        }
    }
    report.cost = price.map(|prices| report.cost_at(prices));
    let text = match output {
        Output::Table => formats::table(&report, false),
        Output::Wide => formats::table(&report, true),
        Output::Json => serde_json::to_string_pretty(&report).context("cannot write JSON")? + "\n",
        Output::Csv => formats::csv(&report)?,
        Output::Markdown => formats::markdown(&report),
        Output::Yaml => apply::yaml(&report)?,
        Output::Patch => apply::patch(&report),
        Output::Kustomize => apply::kustomize(&report)?,
        Output::Helm => apply::helm(&report)?,
    };
    out.write_all(text.as_bytes()).context("cannot write the recommendations")?;
    if report.recommendations.is_empty() {
        let known = snapshot.evidence().count();
        eprintln!("snug: {}", nothing(workload.as_deref(), known, report.skipped.len()));
        return Ok(Outcome::NotEnoughData);
    }
    let now = report.recommendations.iter().filter_map(|entry| entry.oom_kills_per_pod_day?.now);
    let beyond = fail_on.is_some_and(|most| now.into_iter().any(|now| now > most));
    Ok(if beyond { Outcome::AboveThreshold } else { Outcome::Success })
}

fn nothing(workload: Option<&str>, known: usize, skipped: usize) -> String {
    match workload {
        _ if skipped > 0 => "too little was seen for a recommendation yet".to_owned(),
        Some(name) if known > 0 => format!("none of {known} containers is of a workload {name:?}"),
        _ => "no container was seen; agents hand over what they saw once in half a minute".to_owned(),
    }
}
