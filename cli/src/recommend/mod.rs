//! `snug recommend`: recommends requests and limits.

#[cfg(test)]
mod api_server;
mod apply;
mod checks;
mod formats;
mod injectors;
mod joined;
mod place;
mod placement;
mod quantities;
pub mod report;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, io::Write, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use snug_sizing::{
    cost::Prices,
    engine::{LikesScope, Policy, Risk},
    evidence::Evidence,
};

use self::report::Report;
use crate::{
    cluster::{Cluster, WorkloadObjects},
    columns::plain,
    horizon::{self, Horizon},
    policy::{CpuLimitOption, Policies, PolicyError, Problem},
    price, risk,
    source::{EvidenceSource, OpenedSource},
};

/// Options of the sizing engine, shared by `recommend` and `explain`.
#[derive(Debug, Args)]
pub struct SizingOptions {
    /// Accepted risk: a profile (critical, standard, batch), or numbers such as oom=0.001,cpu=0.01: OOM kills per pod-day and
    /// share of CPU time above the request
    #[arg(long, value_name = "RISK", default_value = "standard", value_parser = risk::parse)]
    risk: Risk,
    /// Whether to recommend a CPU limit
    #[arg(long, value_enum, default_value_t = CpuLimitOption::None)]
    cpu_limit: CpuLimitOption,
    /// Policy file with settings for some workloads: risk, bounds, CPU limit, exclusion; overrides the pod annotation
    /// snug/policy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// For how long the memory limit of a growing container must last
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = horizon::parse)]
    horizon: Horizon,
    /// How far alike containers (the same container name, number and random parts aside) lend each other their past. With cluster,
    /// advice for one tenant also depends on alike containers of others
    #[arg(long, value_enum, default_value_t = LikesOption::Namespace)]
    likes: LikesOption,
}

/// Values of `--likes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LikesOption {
    /// Within a namespace
    Namespace,
    /// Within the cluster
    Cluster,
}

impl SizingOptions {
    /// How far alike containers lend each other their past.
    pub fn likes(&self) -> LikesScope {
        match self.likes {
            LikesOption::Namespace => LikesScope::Namespace,
            LikesOption::Cluster => LikesScope::Cluster,
        }
    }

    /// The settings of all workloads. Invalid annotations of pods are reported on standard error.
    ///
    /// # Errors
    /// When the policy file is invalid.
    pub fn policies(&self, cluster: Option<&Cluster>) -> Result<Policies, PolicyError> {
        let mut policies = Policies::new(self.default_policy());
        if let Some(cluster) = cluster {
            let annotated = cluster.policies().unwrap_or_else(|error| {
                crate::remark!("{error}; pod annotations are ignored");
                Vec::new()
            });
            let wrong;
            (policies, wrong) = policies.with_annotations(annotated);
            wrong.iter().for_each(|wrong| crate::remark!("{wrong}; the annotation is ignored"));
        }
        self.policy.as_ref().map_or_else(|| Ok(policies.clone()), |file| policies.clone().with_file(file))
    }

    fn default_policy(&self) -> Policy {
        Policy {
            cpu_limit: self.cpu_limit.into(),
            horizon_days: self.horizon.days(),
            ..Policy::new(self.risk)
        }
    }
}

/// The options of `snug recommend`.
#[derive(Debug, Args)]
pub struct Options {
    /// Only this workload: NAME or NAMESPACE/NAME
    workload: Option<String>,
    #[command(flatten)]
    source: EvidenceSource,
    #[command(flatten)]
    sizing: SizingOptions,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Hourly list prices of a core and of a GiB of memory, such as cpu=0.03,memory=0.004: adds the monthly cost of current
    /// and recommended requests
    #[arg(long, value_name = "PRICES", value_parser = price::parse)]
    price: Option<Prices>,
    /// Exit with code 2 if the expected OOM kills per pod-day of a container, at its current memory limit, exceed this number
    #[arg(long, value_name = "OOM-KILLS")]
    fail_on: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Table for people
    Table,
    /// Table with all reasons
    Wide,
    /// Everything as JSON
    Json,
    /// Table as CSV
    Csv,
    /// Table as Markdown
    Markdown,
    /// Everything as YAML
    Yaml,
    /// Shell commands: kubectl patch for each workload
    Patch,
    /// Kustomize component with a patch for each workload
    Kustomize,
    /// Values for Helm charts
    Helm,
}

/// The result of a command that had no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is output.
    Success,
    /// A container exceeds `--fail-on`.
    AboveThreshold,
    /// There is not enough usage history for any output.
    NotEnoughData,
    /// A container of the manifests exceeds a threshold.
    Problem(Problem),
}

/// Whether evidence is of the workload `NAME` or `NAMESPACE/NAME`.
fn is_workload(evidence: &Evidence, name: &str) -> bool {
    let workload = &evidence.workload;
    // A unit of a guest has a slash in its own name.
    workload.name == name
        || name
            .split_once('/')
            .is_some_and(|(namespace, name)| workload.namespace == namespace && workload.name == name)
}

/// Options that select one workload and the source of its evidence.
#[derive(Debug, Args)]
pub struct WorkloadSelector {
    /// The workload: NAME or NAMESPACE/NAME
    pub workload: String,
    /// Only this container
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    #[command(flatten)]
    pub source: EvidenceSource,
}

impl WorkloadSelector {
    /// Whether evidence is of a selected container.
    pub fn is(&self, evidence: &Evidence) -> bool {
        is_workload(evidence, &self.workload)
            && self.container.as_ref().is_none_or(|name| evidence.container.name == *name)
    }
}

/// Runs `snug recommend`.
///
/// # Errors
/// When the evidence cannot be read, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { workload, source, sizing, output, price, fail_on } = options;
    let (mut reports, mut known) = (Vec::new(), 0);
    for opened in source.open(sizing.likes())? {
        known += opened.snapshot.evidence().count();
        let select = |evidence: &Evidence| workload.as_ref().is_none_or(|name| is_workload(evidence, name));
        let request = ReportRequest { sizing, price: *price };
        let report = report_of(&request, &opened, select)?;
        reports.push((opened.name, report));
    }
    let (text, report) = match reports.as_slice() {
        [(_, report)] => (text(report, *output)?, report.clone()),
        _ => {
            let tables = of_clusters(&reports, *output)?;
            let joined = Report::join(reports).context("there is no cluster")?;
            (tables.map_or_else(|| text(&joined, *output), Ok)?, joined)
        }
    };
    out.write_all(text.as_bytes()).context("cannot write the recommendations")?;
    if report.recommendations.is_empty() {
        let reasons: BTreeSet<&str> = report.skipped.iter().map(|skipped| skipped.why.as_str()).collect();
        crate::columns::remark(empty_message(workload.as_deref(), known, &reasons));
        return Ok(Outcome::NotEnoughData);
    }
    let now = report.recommendations.iter().filter_map(|entry| entry.oom_kills_per_pod_day?.now);
    // Without any usage there is no rate, but there were kills.
    let killed = report.skipped.iter().filter(|skipped| skipped.oom_kills > 0).map(|_| 1.0);
    let above = fail_on.is_some_and(|max| now.into_iter().chain(killed).any(|now| now > max));
    Ok(if above { Outcome::AboveThreshold } else { Outcome::Success })
}

/// What a report is asked for.
pub struct ReportRequest<'o> {
    pub sizing: &'o SizingOptions,
    pub price: Option<Prices>,
}

/// The report of the selected containers of one cluster.
///
/// # Errors
/// When the policy file is invalid.
pub fn report_of(
    request: &ReportRequest<'_>,
    opened: &OpenedSource,
    select: impl Fn(&Evidence) -> bool,
) -> Result<Report> {
    let ReportRequest { sizing, price } = request;
    let OpenedSource { snapshot, pools, cluster, constraints, .. } = opened;
    let policies = sizing.policies(cluster.as_ref())?;
    let mut report = Report::make(snapshot, pools, &policies, select);
    // Without any, the pods' own requests and limits are the only known constraint.
    let constraints =
        cluster.as_ref().map(Cluster::constraints).or_else(|| constraints.clone()).unwrap_or_default();
    constraints
        .missing
        .iter()
        .for_each(|missing| crate::remark!("{missing}; recommendations are not checked against them"));
    let mut objects = WorkloadObjects::default();
    if let Some(cluster) = &cluster {
        objects = cluster.objects(&report.objects_query());
        let missing = objects.missing.iter();
        missing.for_each(|missing| crate::remark!("{missing}; recommendations are not compared with them"));
    }
    report.place(snapshot, objects);
    report.check(snapshot, &constraints);
    report.remark(snapshot);
    if let (Some(cluster), Some(_)) = (&cluster, price) {
        match cluster.occupancy() {
            Ok(occupancy) => report.emptied = Some(report.emptied(snapshot, &occupancy)),
            Err(error) => crate::remark!("{error}; the number of nodes to empty is unknown"),
        }
    }
    report.cost = price.map(|prices| report.cost_at(prices));
    Ok(report)
}

fn text(report: &Report, output: Output) -> Result<String> {
    Ok(match output {
        Output::Table => formats::table(report, false),
        Output::Wide => formats::table(report, true),
        Output::Json => serde_json::to_string_pretty(report).context("cannot write JSON")? + "\n",
        Output::Csv => formats::csv(report)?,
        Output::Markdown => formats::markdown(report),
        Output::Yaml => apply::yaml(report)?,
        Output::Patch => apply::patch(report),
        Output::Kustomize => apply::kustomize(report)?,
        Output::Helm => apply::helm(report)?,
    })
}

/// The text of several clusters where it is not that of a joined report: tables one after the other.
fn of_clusters(reports: &[(String, Report)], output: Output) -> Result<Option<String>> {
    match output {
        Output::Table | Output::Wide => {
            let mut texts = Vec::new();
            for (name, report) in reports {
                texts.push(format!("Cluster {}\n{}", plain(name), text(report, output)?));
            }
            Ok(Some(texts.join("\n")))
        }
        // A command or a component would change whichever cluster it meets.
        Output::Patch | Output::Kustomize | Output::Helm => {
            let names: Vec<String> = reports.iter().map(|(name, _)| plain(name)).collect();
            bail!("this output is for one cluster; select one of {} with --match", names.join(", "));
        }
        Output::Json | Output::Csv | Output::Markdown | Output::Yaml => Ok(None),
    }
}

fn empty_message(workload: Option<&str>, known: usize, skipped: &BTreeSet<&str>) -> String {
    /// Distinct reasons that are named.
    const NAMED: usize = 3;
    let reasons: Vec<&str> = skipped.iter().copied().take(NAMED).collect();
    match workload {
        _ if !reasons.is_empty() => format!("no recommendation yet: {}", reasons.join("; ")),
        Some(name) if known > 0 => format!("none of {known} containers belongs to a workload {name:?}"),
        _ => "no containers found; agents update their history every 30 s".to_owned(),
    }
}
