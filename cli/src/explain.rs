//! `snug explain`: what a recommendation is made of, so that it can be checked by hand.

use std::{fmt::Write as _, io::Write, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use snug_sizing::{
    cpu_quota::QuotaWhatIf,
    engine::{self, Context, Policy, Profile, Recommendation, cpu},
    evidence::{Evidence, HourRecord, Stalled},
    histogram::Histogram,
    quantity::Quantity,
    workload::Resources,
};

use crate::{
    columns::{self, Align, plain},
    recommend::{
        Outcome, SizingOptions, WorkloadSelector,
        report::{self, Quantities},
    },
    source::OpenedSource,
    units,
};

/// The options of `snug explain`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    chosen: WorkloadSelector,
    #[command(flatten)]
    wanted: SizingOptions,
}

/// Runs `snug explain`.
///
/// # Errors
/// When there is no evidence to be had, or nobody takes the output.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { chosen, wanted } = options;
    let OpenedSource { snapshot, cluster } = chosen.source.open()?;
    let policies = wanted.policies(cluster.as_ref())?;
    let pool = report::pool(&snapshot, &policies);
    let mut outcome = Outcome::NotEnoughData;
    let all = snapshot.with_qos().into_iter().filter(|(evidence, _)| chosen.is(evidence));
    for (number, (evidence, qos)) in all.enumerate() {
        let Some(policy) = policies.of(evidence) else {
            writeln!(out, "{}\n  excluded by its policy", title(evidence))
                .context("cannot write the explanation")?;
            continue;
        };
        let context = Context { pool, qos, previous: None };
        let text = match engine::recommend(evidence, &policy, context) {
            Ok(said) => {
                outcome = Outcome::Success;
                explain(evidence, &said, &policy, context)
            }
            Err(refusal) => format!("{}\n  {refusal}\n", title(evidence)),
        };
        let gap = if number > 0 { "\n" } else { "" };
        out.write_all(format!("{gap}{text}").as_bytes()).context("cannot write the explanation")?;
    }
    if outcome == Outcome::NotEnoughData {
        let (known, workload) = (snapshot.evidence().count(), &chosen.workload);
        eprintln!(
            "snug: nothing to explain: of {known} containers none is of {workload:?} with enough evidence"
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

fn explain(evidence: &Evidence, said: &Recommendation, policy: &Policy, context: Context) -> String {
    let mut text = format!("{}\n", title(evidence));
    text += &format!(
        "  seen: {}, {} of the hours from first to last, {} of 7 days of the week, {} pods\n\n",
        engine::span(evidence.pod_days()),
        units::percent(evidence.coverage()),
        evidence.weekdays(),
        evidence.pods.len()
    );
    text += &values(evidence.container.current, said.values);
    text += "\nCPU\n";
    text += &cpu_use(evidence, said);
    text += &quota_what_if(evidence);
    text += "\nMemory\n";
    text += &memory_use(evidence, said, policy, context);
    text += &suffered(evidence);
    text += "\nWhy\n";
    for reason in &said.reasons {
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
    let headings = [("", Align::Left), ("NOW", Align::Right), ("RECOMMENDED", Align::Right)];
    columns::render(&headings, &rows)
}

/// How use is spread: a line for each doubling, and the request among them.
fn cpu_use(evidence: &Evidence, said: &Recommendation) -> String {
    const WIDTH: f64 = 40.0;
    let (windows, start_up) = cpu::windows(evidence);
    if windows.is_empty() {
        return "  no use was seen\n".to_owned();
    }
    let during = if start_up { " of the first hour of pods" } else { "" };
    let mut text = format!("  {} windows of {} ms{during}\n", windows.count(), evidence.window_millis);
    let rows = doublings(&windows);
    let most = rows.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    let cores: Vec<String> = rows.iter().map(|(upper, _)| units::cores(*upper)).collect();
    let width = cores.iter().map(String::len).max().unwrap_or(0);
    for ((_, share), upper) in rows.iter().zip(cores) {
        // A window that was seen is seen.
        let bar = "█".repeat(((share / most * WIDTH).round() as usize).max(usize::from(*share > 0.0)));
        let line = format!("    up to {upper:>width$}  {:>6}  {bar}", percent(*share));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let quantile = |share| windows.quantile(share).map_or_else(String::new, units::cores);
    let _ = writeln!(
        text,
        "  half of them up to {}, 90 % up to {}, 99 % up to {}, 99.9 % up to {}, all up to {}",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0)
    );
    let (of_request, millis, _) = cpu::request_windows(evidence);
    let by =
        if millis == evidence.window_millis { String::new() } else { format!(", by the {}", length(millis)) };
    let requests =
        [("now", evidence.container.current.cpu_request), ("recommended", said.values.cpu_request)];
    for (name, request) in requests {
        if let Some(request) = request {
            let cores = request as f64 / 1000.0;
            let _ = writeln!(
                text,
                "  request {name}, {}: use is above it {} of the time, with {} of the work{by}",
                Quantity::from_millicores(request),
                percent(of_request.share_above(cores)),
                percent(of_request.work_above(cores))
            );
        }
    }
    text
}

/// Upper bound and share of the windows, by powers of two; between the lowest and the highest none is left out.
fn doublings(windows: &Histogram) -> Vec<(f64, f64)> {
    let all = windows.count() as f64;
    let mut rows: Vec<(f64, f64)> = Vec::new();
    for (count, _, upper) in windows.buckets() {
        let bound = if upper > 0.0 { upper.log2().ceil().exp2() } else { 0.0 };
        // What is below a millicore is one line.
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

fn quota_what_if(evidence: &Evidence) -> String {
    let Some(QuotaWhatIf(outcomes)) = evidence.quota_what_if() else { return String::new() };
    // From the last quota that would have held up nearly all to the first that holds up nothing.
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
        ("  IF THE CPU LIMIT WERE", Align::Left),
        ("THROTTLED PERIODS", Align::Right),
        ("WORK PUT OFF", Align::Right),
    ];
    columns::render(&headings, &rows)
}

fn memory_use(evidence: &Evidence, said: &Recommendation, policy: &Policy, context: Context) -> String {
    let Some(memory) = &said.memory else { return "  no use was seen\n".to_owned() };
    let peak = &memory.basis.peak;
    let mut text = format!(
        "  highest use {} in {} at {}; {} of it count\n",
        units::bytes(peak.bytes as f64),
        plain(&peak.pod),
        units::time(peak.at),
        units::bytes(memory.basis.bytes)
    );
    for kill in evidence.kills() {
        let _ = writeln!(
            text,
            "  OOM kill at a limit of {} in {} at {}",
            units::bytes(kill.limit as f64),
            plain(&kill.pod),
            units::time(kill.at)
        );
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
        &[("  PROFILE", Align::Left), ("OOM KILLS", Align::Left), ("LIMIT", Align::Right)],
        &rows,
    );
    text
}

/// What it had to wait for, and how it ended; nothing where nothing of it is known.
fn suffered(evidence: &Evidence) -> String {
    let mut sum = HourRecord::default();
    evidence.hours.values().for_each(|hour| sum.merge(hour));
    let mut lines = Vec::new();
    if let (Some(most), Some(all)) = (sum.waits.quantile(0.99), sum.waits.quantile(1.0)) {
        let [most, all] = [most, all].map(seconds);
        lines.push(format!(
            "tasks waited for a CPU {} times, 99 % of them up to {most}, all up to {all}",
            sum.waits.count()
        ));
    }
    let Stalled { cpu_millis, memory_millis, io_millis, refaults } = sum.stalled;
    if (cpu_millis, memory_millis, io_millis) != (0, 0, 0) {
        let share = |millis: u64| percent(millis as f64 / 1000.0 / sum.observed.max(1) as f64);
        lines.push(format!(
            "some task was stalled {} of the time for a CPU, {} for memory, {} for I/O",
            share(cpu_millis),
            share(memory_millis),
            share(io_millis)
        ));
    }
    if refaults > 0 {
        lines.push(format!("{refaults} pages were read again soon after they had been reclaimed"));
    }
    if let (Some(half), Some(all)) = (sum.unreclaimable.quantile(0.5), sum.unreclaimable.quantile(1.0)) {
        let [half, all] = [half, all].map(units::bytes);
        lines.push(format!(
            "memory that cannot be given back: half of the time up to {half}, always up to {all}"
        ));
    }
    let exits: Vec<String> =
        sum.exits.iter().map(|(code, count)| format!("{code} ({count} times)")).collect();
    if !exits.is_empty() {
        lines.push(format!("containers ended with exit code {}", exits.join(", ")));
    }
    if lines.is_empty() { String::new() } else { format!("\nSuffered\n  {}\n", lines.join("\n  ")) }
}

/// A short time with two digits that mean something.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// A window's length in words.
fn length(millis: u64) -> String {
    if millis == 60_000 {
        "minute".to_owned()
    } else {
        humantime::format_duration(Duration::from_millis(millis)).to_string()
    }
}

/// A share of windows or of work; what is not nothing is not shown as nothing.
pub(crate) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.0005 { "<0.1%".to_owned() } else { units::percent(share) }
}
