//! `snug recommend`: recommends requests and limits.

mod alike;
#[cfg(test)]
mod api_server;
mod apply;
mod checks;
mod cost;
pub mod detail;
mod formats;
mod html;
mod injectors;
pub mod issue;
mod joined;
mod judge;
pub mod lookup;
mod overview;
mod place;
mod placement;
mod quantities;
pub mod report;
mod selection;
pub mod skipped;
#[cfg(test)]
mod tests;
mod totals;
mod warning;
mod warnings;

use std::{io::Write, path::PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use snug_sizing::{
    cost::Prices,
    engine::{LikesScope, Policy, Risk},
    evidence::Evidence,
};

use self::{
    alike::Alike,
    detail::Details,
    html::Page,
    lookup::WorkloadMatch,
    report::Report,
    selection::{SelectionOptions, Shape},
};
use crate::{
    cluster::{Cluster, WorkloadObjects},
    columns::plain,
    evidence::Snapshot,
    horizon::{self, Horizon},
    policy::{CpuLimitOption, Policies, PolicyError, Problem},
    price, progress, risk,
    source::{EvidenceSource, OpenedSource},
    terminal::Terminal,
};

/// Below the help of the command.
pub const EXAMPLES: &str = "Examples:
  snug recommend                              all workloads of the cluster, or of this host
  snug recommend -n shop --sort savings --top 10
  snug recommend --min-change 10% -o patch    commands that apply the larger changes
  snug recommend -o html > snug.html          one page with pictures, for a browser
  snug recommend --prometheus http://127.0.0.1:9090 --since 14d --price cpu=0.03,memory=0.004
  snug recommend --risk critical --fail-on 0.01 || echo 'a container is in danger'

Exit codes: 0 success, 1 error, 2 --fail-on exceeded, 3 not enough usage history";

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
    /// How far alike containers (the same image and container name, versions, numbers and random parts aside) lend each other their past. With cluster,
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
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Only this workload: NAME, NAMESPACE/NAME, KIND/NAME, or the first digits of a container's id
    workload: Option<String>,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    selection: SelectionOptions,
    /// Hourly list prices of a core and of a GiB of memory, such as cpu=0.03,memory=0.004: adds the monthly cost of current
    /// and recommended requests
    #[arg(long, value_name = "PRICES", value_parser = price::parse)]
    price: Option<Prices>,
    /// Exit with code 2 if the expected OOM kills per pod-day of a container, at its current memory limit, exceed this number
    #[arg(long, value_name = "OOM-KILLS")]
    fail_on: Option<f64>,
    #[command(flatten, next_help_heading = "Method")]
    sizing: SizingOptions,
    #[command(flatten, next_help_heading = "Source of the usage history")]
    source: EvidenceSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Table for people
    Table,
    /// Table with all columns, all reasons, and each container without a recommendation
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
    /// VerticalPodAutoscaler objects in mode Off, with bounds and start-up boosts
    Vpa,
    /// One page for a browser, with pictures, without anything from other servers
    Html,
}

impl Output {
    const fn shape(self) -> Shape {
        match self {
            Self::Table | Self::Wide | Self::Markdown | Self::Html => Shape::Table,
            Self::Json | Self::Csv | Self::Yaml => Shape::Data,
            Self::Patch | Self::Kustomize | Self::Helm | Self::Vpa => Shape::Objects,
        }
    }
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

/// Options that select one workload and the source of its evidence.
#[derive(Debug, Args)]
pub struct WorkloadSelector {
    /// The workload: NAME, NAMESPACE/NAME, KIND/NAME, or the first digits of a container's id
    pub workload: String,
    /// Only this container
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    #[command(flatten, next_help_heading = "Source of the usage history")]
    pub source: EvidenceSource,
}

impl WorkloadSelector {
    /// What is selected of these snapshots.
    pub fn resolve<'s>(&self, snapshots: impl Iterator<Item = &'s Snapshot>) -> WorkloadMatch {
        WorkloadMatch::new(&self.workload, self.container.as_deref(), snapshots)
    }
}

/// What a report is made with.
#[derive(Clone, Copy, Debug)]
pub struct ReportRequest<'o> {
    /// From [`SizingOptions::policies`], with the annotations of the same cluster.
    pub policies: &'o Policies,
    /// Adds what requests cost.
    pub price: Option<Prices>,
    /// The label of pods that totals are by.
    pub group_by: Option<&'o str>,
}

/// Runs `snug recommend`.
///
/// # Errors
/// When the evidence cannot be read, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { workload, source, sizing, output, fail_on, selection, price, .. } = options;
    let sources = source.open(sizing.likes())?;
    let snapshots = || sources.iter().map(|source| &source.snapshot);
    let known: usize = snapshots().map(|snapshot| snapshot.evidence().count()).sum();
    let select = match workload {
        Some(name) => WorkloadMatch::new(name, None, snapshots()),
        None => WorkloadMatch::ALL,
    };
    let (mut reports, mut policies_of) = (Vec::new(), Vec::new());
    for source in &sources {
        progress::step(&format!("computing recommendations for {known} containers"));
        let policies = sizing.policies(source.cluster.as_ref())?;
        let request =
            ReportRequest { policies: &policies, price: *price, group_by: selection.group_by.as_deref() };
        reports.push((source.name.clone(), report_of(&request, source, |evidence| select.is(evidence))?));
        policies_of.push(policies);
    }
    let now = || reports.iter().flat_map(|(_, report)| &report.recommendations);
    let rates: Vec<f64> = now().filter_map(|entry| entry.oom_kills_per_pod_day?.now).collect();
    // Without any usage there is no rate, but there were kills.
    let skipped = || reports.iter().flat_map(|(_, report)| &report.skipped);
    let killed = skipped().filter(|skipped| skipped.oom_kills > 0).map(|_| 1.0);
    let above = fail_on.is_some_and(|max| rates.into_iter().chain(killed).any(|now| now > max));
    let is_empty = now().next().is_none();
    let reasons = skipped::alike(skipped());

    let mut page = Page::default();
    for (((name, report), source), policies) in reports.iter_mut().zip(&sources).zip(&policies_of) {
        report.select(selection, output.shape());
        if matches!(output, Output::Vpa | Output::Html) {
            let details = Details::new(&source.snapshot, &source.pools, policies);
            report.bound(&details);
            page.add(name, report, &details);
        }
    }
    let text = if *output == Output::Html { page.html()? } else { output_of(reports, *output)? };
    progress::clear();
    out.write_all(text.as_bytes()).context("cannot write the recommendations")?;
    if is_empty {
        crate::columns::remark(empty_message(&select, known, &reasons));
        return Ok(Outcome::NotEnoughData);
    }
    Ok(if above { Outcome::AboveThreshold } else { Outcome::Success })
}

/// The text of one or of several clusters.
fn output_of(reports: Vec<(String, Report)>, output: Output) -> Result<String> {
    match reports.as_slice() {
        [(_, report)] => text(report, output),
        _ => {
            let tables = of_clusters(&reports, output)?;
            let joined = Report::join(reports).context("there is no cluster")?;
            tables.map_or_else(|| text(&joined, output), Ok)
        }
    }
}

/// The report of one cluster, of the containers that `select` selects.
///
/// # Errors
/// When rows cannot be grouped.
pub fn report_of(
    request: &ReportRequest<'_>,
    opened: &OpenedSource,
    select: impl Fn(&Evidence) -> bool,
) -> Result<Report> {
    let ReportRequest { policies, price, group_by } = request;
    let OpenedSource { snapshot, pools, cluster, constraints, .. } = opened;
    let mut report = Report::make(snapshot, pools, policies, select);
    // Without any, the pods' own requests and limits are the only known constraint.
    let constraints =
        cluster.as_ref().map(Cluster::constraints).or_else(|| constraints.clone()).unwrap_or_default();
    constraints
        .missing
        .iter()
        .for_each(|missing| crate::remark!("{missing}; recommendations are not checked against them"));
    let mut objects = WorkloadObjects::default();
    if let Some(cluster) = &cluster {
        progress::step("reading the objects of the workloads");
        objects = cluster.objects(&report.objects_query());
        let missing = objects.missing.iter();
        missing.for_each(|missing| crate::remark!("{missing}; recommendations are not compared with them"));
    }
    report.place(snapshot, objects);
    report.check(snapshot, &constraints);
    report.remark(snapshot);
    let details = Details::new(snapshot, pools, policies);
    report.expect(&details);
    if let (Some(cluster), Some(_)) = (&cluster, price) {
        match cluster.occupancy() {
            Ok(occupancy) => report.emptied = Some(report.emptied(snapshot, &occupancy)),
            Err(error) => crate::remark!("{error}; the number of nodes to empty is unknown"),
        }
    }
    if let Some(label) = group_by {
        let Some(cluster) = &cluster else {
            bail!("--group-by needs a cluster, because labels are in its pods; set --kubeconfig");
        };
        let values = cluster.label_values(label).map_err(|error| anyhow!("{error}"))?;
        report.group(label, &details, &values);
    }
    report.recommendations.iter_mut().for_each(report::Entry::judge);
    report.add_up(*price);
    Ok(report)
}

fn text(report: &Report, output: Output) -> Result<String> {
    Ok(match output {
        Output::Table => overview::table(report, false, Terminal::detect()),
        Output::Wide => overview::table(report, true, Terminal::detect()),
        Output::Json => serde_json::to_string_pretty(report).context("cannot write JSON")? + "\n",
        Output::Csv => formats::csv(report)?,
        Output::Markdown => formats::markdown(report),
        Output::Yaml => apply::yaml(report)?,
        Output::Patch => apply::patch(report),
        Output::Kustomize => apply::kustomize(report)?,
        Output::Helm => apply::helm(report)?,
        Output::Vpa => apply::vpa(report)?,
        Output::Html => bail!("a page is made of the usage history"),
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
        Output::Patch | Output::Kustomize | Output::Helm | Output::Vpa => {
            let names: Vec<String> = reports.iter().map(|(name, _)| plain(name)).collect();
            bail!("this output is for one cluster; select one of {} with --match", names.join(", "));
        }
        Output::Json | Output::Csv | Output::Markdown | Output::Yaml | Output::Html => Ok(None),
    }
}

fn empty_message(select: &WorkloadMatch, known: usize, skipped: &[Alike]) -> String {
    /// Reasons that are named, those of most containers first.
    const NAMED: usize = 3;
    let reasons: Vec<&str> = skipped.iter().map(|group| group.remark.as_str()).take(NAMED).collect();
    match select.hint() {
        _ if !reasons.is_empty() => format!("no recommendation yet: {}", reasons.join("; ")),
        Some(hint) if known > 0 => hint,
        _ => "no containers found; agents update their history at least every 30 s".to_owned(),
    }
}
