//! `snug explain`: the usage history behind a recommendation and its reasons, so that it can be checked by hand.

use std::{fmt::Write as _, io::Write, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use snug_sizing::{
    cpu_quota::QuotaWhatIf,
    engine::{self, Context, Policy, Profile, Recommendation, cpu, oom},
    evidence::{Evidence, HourRecord, Stalled},
    histogram::Histogram,
    quantity::Quantity,
    simulate::{self, CurrentLimit},
    workload::Resources,
};

use crate::{
    columns::{self, Align, plain},
    recommend::{Outcome, SizingOptions, WorkloadSelector, report::Quantities},
    source::OpenedSource,
    units,
};

/// The options of `snug explain`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    selected: WorkloadSelector,
    #[command(flatten)]
    sizing: SizingOptions,
}

/// Runs `snug explain`.
///
/// # Errors
/// When the evidence cannot be read, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { selected, sizing } = options;
    let (mut texts, mut known, mut outcome) = (Vec::new(), 0, Outcome::NotEnoughData);
    for OpenedSource { name, snapshot, pools, cluster, .. } in selected.source.open(sizing.likes())? {
        known += snapshot.evidence().count();
        let policies = sizing.policies(cluster.as_ref())?;
        let of_cluster = if name.is_empty() { name } else { format!("Cluster {}: ", plain(&name)) };
        let all = snapshot.with_qos().into_iter().filter(|(evidence, _)| selected.is(evidence));
        for (evidence, qos) in all {
            let title = format!("{of_cluster}{}", title(evidence));
            let Some(policy) = policies.for_container(evidence) else {
                texts.push(format!("{title}\n  excluded by a policy\n"));
                continue;
            };
            let context = Context { pool: pools.of(evidence), qos, previous: None };
            texts.push(match engine::recommend(evidence, &policy, context) {
                Ok(recommendation) => {
                    outcome = Outcome::Success;
                    format!("{title}\n{}", explain(evidence, &recommendation, &policy, context))
                }
                Err(error) => format!("{title}\n  {error}\n"),
            });
        }
    }
    out.write_all(texts.join("\n").as_bytes()).context("cannot write the explanation")?;
    if outcome == Outcome::NotEnoughData {
        let workload = &selected.workload;
        crate::remark!(
            "nothing to explain: none of {known} containers belongs to {workload:?} and has enough usage history"
        );
    }
    Ok(outcome)
}

pub(crate) fn title(evidence: &Evidence) -> String {
    let owner = &evidence.workload.owner;
    let kind = if owner.is_empty() { String::new() } else { format!("{} ", plain(owner)) };
    let container = &evidence.container.name;
    let container =
        if container.is_empty() { String::new() } else { format!(", container {}", plain(container)) };
    let namespace = &evidence.workload.namespace;
    let namespace = if namespace.is_empty() { String::new() } else { format!("{}/", plain(namespace)) };
    format!("{kind}{namespace}{}{container}", plain(&evidence.workload.name))
}

fn explain(
    evidence: &Evidence,
    recommendation: &Recommendation,
    policy: &Policy,
    context: Context,
) -> String {
    let mut text = format!(
        "  usage history: {} of {}; {} of hours and {} of 7 weekdays observed\n\n",
        engine::span(evidence.pod_days()),
        units::count(evidence.pods.len(), "pod"),
        units::percent(evidence.coverage()),
        evidence.weekdays()
    );
    text += &values(evidence.container.current, recommendation.values);
    text += "\nCPU\n";
    text += &cpu_use(evidence, recommendation);
    if let Some(CurrentLimit { limit, periods }) = simulate::current_limit(evidence) {
        let limit = Quantity::from_millicores(limit);
        let _ = writeln!(
            text,
            "  current limit {limit}: throttled {} of CFS periods in the last day",
            percent(periods)
        );
    }
    text += &quota_simulation(evidence);
    text += "\nMemory\n";
    text += &memory_use(evidence, recommendation, policy, context);
    text += &contention(evidence);
    text += "\nReasons\n";
    for reason in &recommendation.reasons {
        let _ = writeln!(text, "  {}", plain(&reason.to_string()));
    }
    text
}

fn values(now: Resources, then: Resources) -> String {
    let [now, then] = [now, then].map(Quantities::from);
    let row = |name: &str, now: Option<String>, then: Option<String>| {
        [format!("  {name}"), plain(&now.unwrap_or_default()), plain(&then.unwrap_or_default())]
    };
    let rows = [
        row("CPU request", now.requests.cpu, then.requests.cpu),
        row("CPU limit", now.limits.cpu, then.limits.cpu),
        row("memory request", now.requests.memory, then.requests.memory),
        row("memory limit", now.limits.memory, then.limits.memory),
    ];
    let headings = [("", Align::Left), ("CURRENT", Align::Right), ("RECOMMENDED", Align::Right)];
    columns::render(&headings, &rows)
}

/// The distribution of CPU usage, a line per power of two, with quantiles, and the CPU requests beside it.
fn cpu_use(evidence: &Evidence, recommendation: &Recommendation) -> String {
    const WIDTH: f64 = 40.0;
    let (windows, start_up) = cpu::windows(evidence);
    if windows.is_empty() {
        return "  no usage observed
"
        .to_owned();
    }
    let during = if start_up { " during the first hour of pods" } else { "" };
    let mut text =
        format!("  usage in {} windows of {} ms{during}\n", windows.count(), evidence.window_millis);
    let rows = doublings(&windows);
    let most = rows.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    let cores: Vec<String> = rows.iter().map(|(upper, _)| units::cores(*upper)).collect();
    let width = cores.iter().map(String::len).max().unwrap_or(0);
    for ((_, share), upper) in rows.iter().zip(cores) {
        // Every bucket with a window gets a bar.
        let bar = "█".repeat(((share / most * WIDTH).round() as usize).max(usize::from(*share > 0.0)));
        let line = format!("    up to {upper:>width$}  {:>6}  {bar}", percent(*share));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let quantile = |share| windows.quantile(share).map_or_else(String::new, units::cores);
    let _ = writeln!(
        text,
        "  quantiles: 50 % {}, 90 % {}, 99 % {}, 99.9 % {}, highest {}",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0)
    );
    let (of_request, millis, _) = cpu::request_windows(evidence);
    let by = if millis == evidence.window_millis {
        String::new()
    } else {
        format!(" (usage per {})", length(millis))
    };
    let requests = [
        ("current", evidence.container.current.cpu_request),
        ("recommended", recommendation.values.cpu_request),
    ];
    for (name, request) in requests {
        if let Some(request) = request {
            let cores = request as f64 / 1000.0;
            let _ = writeln!(
                text,
                "  {name} request {}: exceeded {} of the time, by {} of all CPU time{by}",
                Quantity::from_millicores(request),
                percent(of_request.share_above(cores)),
                percent(of_request.work_above(cores))
            );
        }
    }
    text
}

/// Upper bound and share of windows, by powers of two, without gaps between the lowest and the highest.
fn doublings(windows: &Histogram) -> Vec<(f64, f64)> {
    let all = windows.count() as f64;
    let mut rows: Vec<(f64, f64)> = Vec::new();
    for (count, _, upper) in windows.buckets() {
        let bound = if upper > 0.0 { upper.log2().ceil().exp2() } else { 0.0 };
        // All usage below a millicore is one line.
        let bound = if bound > 0.0 { bound.max(1.0 / 1024.0) } else { 0.0 };
        while let Some((last, _)) = rows.last().copied().filter(|(last, _)| *last > 0.0 && *last < bound) {
            rows.push((last * 2.0, 0.0));
        }
        match rows.last_mut().filter(|(last, _)| *last == bound) {
            Some((_, share)) => *share += count as f64 / all,
            None => rows.push((bound, count as f64 / all)),
        }
    }
    rows
}

fn quota_simulation(evidence: &Evidence) -> String {
    let Some(QuotaWhatIf(outcomes)) = evidence.quota_what_if() else { return String::new() };
    // Without quotas that would have throttled nearly all periods, up to the first that would have throttled none.
    let rows: Vec<[String; 3]> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.share() < 0.995)
        .scan(false, |done, (quota, outcome)| {
            (!std::mem::replace(done, outcome.throttled == 0)).then_some((quota, outcome))
        })
        .map(|(quota, outcome)| {
            let delayed = Duration::from_millis(outcome.delayed_millis);
            [
                format!("  {}", Quantity::from_millicores(*quota)),
                percent(outcome.share()),
                humantime::format_duration(delayed).to_string(),
            ]
        })
        .collect();
    let headings = [
        ("  SIMULATED CPU LIMIT", Align::Left),
        ("THROTTLED PERIODS", Align::Right),
        ("DELAYED CPU TIME", Align::Right),
    ];
    columns::render(&headings, &rows)
}

fn memory_use(
    evidence: &Evidence,
    recommendation: &Recommendation,
    policy: &Policy,
    context: Context,
) -> String {
    let Some(memory) = &recommendation.memory else {
        return "  no usage observed
"
        .to_owned();
    };
    let peak = &memory.basis.peak;
    let mut text = format!(
        "  highest usage {} in {} at {}",
        units::bytes(peak.bytes as f64),
        plain(&peak.pod),
        units::time(peak.at)
    );
    if memory.basis.bytes < peak.bytes as f64 {
        text += &format!("; older peaks weigh less: {} counted", units::bytes(memory.basis.bytes));
    }
    text.push('\n');
    for kill in evidence.kills() {
        let limit = if oom::is_known(kill) {
            format!("a memory limit of {}", units::bytes(kill.limit as f64))
        } else {
            "an unknown memory limit".to_owned()
        };
        let _ = writeln!(text, "  OOM kill at {limit} in {} at {}", plain(&kill.pod), units::time(kill.at));
    }
    let rows: Vec<[String; 3]> = Profile::ALL
        .into_iter()
        .filter_map(|profile| {
            let risk = profile.risk();
            let other = Policy { risk, ..policy.clone() };
            let limit = engine::recommend(evidence, &other, context).ok()?.values.memory_limit?;
            Some([
                format!("  {}", profile.as_str()),
                format!("1 in {:.0} pod-days", 1.0 / risk.oom_kills),
                Quantity::from_bytes(limit).to_string(),
            ])
        })
        .collect();
    text += &columns::render(
        &[("  RISK PROFILE", Align::Left), ("OOM KILLS", Align::Left), ("MEMORY LIMIT", Align::Right)],
        &rows,
    );
    text
}

/// Waits, stalls, unreclaimable memory and terminations, as far as they are known.
fn contention(evidence: &Evidence) -> String {
    let mut sum = HourRecord::default();
    evidence.hours.values().for_each(|hour| sum.merge(hour));
    let mut lines = Vec::new();
    if let (Some(most), Some(all)) = (sum.waits.quantile(0.99), sum.waits.quantile(1.0)) {
        let [most, all] = [most, all].map(seconds);
        lines.push(format!(
            "tasks waited for a CPU {} times: 99 % of waits up to {most}, all up to {all}",
            sum.waits.count()
        ));
    }
    let Stalled { cpu_millis, memory_millis, io_millis, refaults } = sum.stalled;
    if (cpu_millis, memory_millis, io_millis) != (0, 0, 0) {
        let share = |millis: u64| percent(millis as f64 / 1000.0 / sum.observed.max(1) as f64);
        lines.push(format!(
            "some task was stalled (PSI) on CPU {} of the time, on memory {}, on I/O {}",
            share(cpu_millis),
            share(memory_millis),
            share(io_millis)
        ));
    }
    if refaults > 0 {
        lines.push(format!("{refaults} refaults: pages that were needed again soon after reclaim"));
    }
    if let (Some(half), Some(all)) = (sum.unreclaimable.quantile(0.5), sum.unreclaimable.quantile(1.0)) {
        let [half, all] = [half, all].map(units::bytes);
        lines.push(format!("unreclaimable memory: half of the time up to {half}, always up to {all}"));
    }
    let exits: Vec<String> =
        sum.exits.iter().map(|(code, count)| format!("{code} ({count} times)")).collect();
    if !exits.is_empty() {
        lines.push(format!("terminations by exit code: {}", exits.join(", ")));
    }
    if lines.is_empty() {
        String::new()
    } else {
        format!("\nContention and terminations\n  {}\n", lines.join("\n  "))
    }
}

/// A short time with about two significant digits.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// The length of a window in words.
fn length(millis: u64) -> String {
    if millis == 60_000 {
        "minute".to_owned()
    } else {
        humantime::format_duration(Duration::from_millis(millis)).to_string()
    }
}

/// A share as a percentage; a small share is not shown as zero.
pub(crate) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.0005 { "<0.1%".to_owned() } else { units::percent(share) }
}
