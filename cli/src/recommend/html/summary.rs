//! The head of the page: what is dangerous, what is wasted, and whether past recommendations would have held.

use std::{collections::BTreeMap, fmt::Write as _};

use snug_sizing::engine::Reason;

use super::{ClusterSection, container, escape, tables::table};
use crate::{
    recommend::{
        cost::Total,
        report::{Entry, Issue, Report, Savings},
    },
    units,
};

/// Rows of a list.
const LISTED: usize = 20;

/// All issues as options of a list.
pub(super) fn issue_options() -> String {
    let option =
        |issue: Issue| format!("<option value=\"{}\">{}</option>", container::class(issue), issue.as_str());
    Issue::ALL.into_iter().map(option).collect()
}

pub(super) fn html(clusters: &[ClusterSection]) -> String {
    let mut text = String::from("<main>\n<header>\n<h1>Recommended requests and limits</h1>\n");
    for ClusterSection { name, report, .. } in clusters {
        let cluster =
            if name.is_empty() { String::new() } else { format!("Cluster {}: ", escape::text(name)) };
        let window = &report.window;
        let _ = writeln!(
            text,
            "<p class=\"faint\">{cluster}{} to {} on {}: {:.1} container-days of usage history</p>",
            units::time(window.from.unwrap_or(0)),
            units::time(window.to.unwrap_or(0)),
            units::count(window.nodes.len(), "node"),
            window.container_days
        );
    }
    if let Some(risk) = clusters.first().map(|cluster| cluster.report.risk) {
        let _ = writeln!(
            text,
            "<p>Asked risk, on average over all workloads: OOM kills {} of a pod, {} of CPU time above the request.</p>",
            units::rate(risk.oom_kills),
            units::percent(risk.cpu_work)
        );
    }
    text.push_str("</header>\n");
    text += &cards(clusters);
    let entries: Vec<(usize, &Entry)> =
        clusters.iter().flat_map(|cluster| &cluster.report.recommendations).enumerate().collect();
    text += &danger(&entries);
    text += &waste(&entries);
    for cluster in clusters {
        text += &totals(cluster);
    }
    text += &calibration(&entries);
    text += &skipped(clusters);
    text
}

fn cards(clusters: &[ClusterSection]) -> String {
    let reports = || clusters.iter().map(|cluster| &cluster.report);
    let count = |issue: Issue| {
        reports().flat_map(|report| &report.recommendations).filter(|entry| entry.issue == issue).count()
    };
    let total =
        reports().map(|report| report.total.clone()).reduce(|sum, one| sum.plus(&one)).unwrap_or_default();
    let mut text =
        "<section aria-labelledby=\"summary\">\n<h2 id=\"summary\">Summary</h2>\n<ul class=\"cards\">\n"
            .to_owned();
    let mut card = |value: &str, words: &str, class: &str| {
        let _ = writeln!(text, "<li><b class=\"{class}\">{value}</b>{words}</li>");
    };
    for issue in Issue::ALL {
        if count(issue) > 0 {
            card(&count(issue).to_string(), issue.as_str(), &format!("issue {}", container::class(issue)));
        }
    }
    let cores = |millicores: u64| units::cores(millicores as f64 / 1000.0);
    card(
        &format!("{} → {}", cores(total.cpu_request_now), cores(total.cpu_request)),
        "CPU requests of all pods",
        "",
    );
    card(
        &format!(
            "{} → {}",
            units::bytes(total.memory_request_now as f64),
            units::bytes(total.memory_request as f64)
        ),
        "memory requests of all pods",
        "",
    );
    if let Some(cost) = total.cost {
        card(
            &format!("{:.2} → {:.2}", cost.month_now, cost.month_then),
            "monthly cost at list prices, saved only when nodes are removed",
            "",
        );
    }
    text + "</ul>\n</section>\n"
}

fn link(number: usize, entry: &Entry) -> String {
    format!("<a href=\"#c{number}\">{}</a>", container::title(entry))
}

/// Containers that fail or are slow with their current values.
fn danger(entries: &[(usize, &Entry)]) -> String {
    let mut text = "<section aria-labelledby=\"danger\">\n<h2 id=\"danger\">Danger</h2>\n".to_owned();
    let found: Vec<&(usize, &Entry)> = entries.iter().filter(|(_, entry)| entry.issue.is_danger()).collect();
    if found.is_empty() {
        return text + "<p>No container has a high risk of OOM kills or is throttled much.</p>\n</section>\n";
    }
    let row = |(number, entry): &&(usize, &Entry)| {
        let rate = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), units::rate);
        let throttled = entry.throttled_periods.map_or_else(|| "-".to_owned(), units::percent);
        vec![
            link(*number, entry),
            container::badge(entry),
            rate(entry.oom_kills_per_pod_day.and_then(|change| change.now)),
            rate(entry.expected_oom_kills_per_pod_day),
            throttled,
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().take(LISTED).map(row).collect();
    let headings =
        ["Container", "Issue", "OOM kills of a pod now", "expected then", "CFS periods throttled now"];
    text += &table("Containers in danger, the worst first", &headings, 2, &rows);
    text + &more(found.len()) + "</section>\n"
}

fn more(found: usize) -> String {
    match found.saturating_sub(LISTED) {
        0 => String::new(),
        others => format!("<p class=\"faint\">{others} more below.</p>\n"),
    }
}

pub(super) fn savings(savings: &Savings) -> [String; 2] {
    let sign = |value: i64| if value < 0 { "-" } else { "" };
    [
        format!("{}{}", sign(savings.cpu), units::cores(savings.cpu.unsigned_abs() as f64 / 1000.0)),
        format!("{}{}", sign(savings.memory), units::bytes(savings.memory.unsigned_abs() as f64)),
    ]
}

/// The largest savings.
fn waste(entries: &[(usize, &Entry)]) -> String {
    let mut found: Vec<&(usize, &Entry)> =
        entries.iter().filter(|(_, entry)| entry.savings.weight() > 0.0).collect();
    found.sort_by(|one, other| one.1.by_savings(other.1));
    let mut text = "<section aria-labelledby=\"waste\">\n<h2 id=\"waste\">Waste</h2>\n".to_owned();
    if found.is_empty() {
        return text + "<p>Nothing to save.</p>\n</section>\n";
    }
    let has_money = found.iter().any(|(_, entry)| entry.savings.month.is_some());
    let row = |(number, entry): &&(usize, &Entry)| {
        let [cpu, memory] = savings(&entry.savings);
        let money = entry.savings.month.map(|month| format!("{month:.2}"));
        [link(*number, entry), entry.replicas.to_string(), cpu, memory].into_iter().chain(money).collect()
    };
    let rows: Vec<Vec<String>> = found.iter().take(LISTED).map(row).collect();
    let mut headings = vec!["Container", "Pods", "CPU saved", "Memory saved"];
    if has_money {
        headings.push("Saved a month");
    }
    text += &table("The largest savings, over all pods", &headings, 1, &rows);
    text + &more(found.len()) + "</section>\n"
}

fn totals(ClusterSection { name, report, .. }: &ClusterSection) -> String {
    let Report { totals, total, group_by, .. } = report;
    if totals.len() < 2 {
        return String::new();
    }
    let by = group_by.as_deref().unwrap_or("namespace");
    let of_cluster = if name.is_empty() { String::new() } else { format!(" of cluster {name}") };
    let row = |total: &Total, name: &str| {
        let [cpu, memory] = savings(&total.savings());
        let cores = |millicores: u64| units::cores(millicores as f64 / 1000.0);
        vec![
            escape::text(name),
            total.containers.to_string(),
            format!("{} → {}", cores(total.cpu_request_now), cores(total.cpu_request)),
            cpu,
            format!(
                "{} → {}",
                units::bytes(total.memory_request_now as f64),
                units::bytes(total.memory_request as f64)
            ),
            memory,
        ]
    };
    let named = |total: &Total| {
        if total.name.is_empty() { format!("without {by}") } else { total.name.clone() }
    };
    let rows: Vec<Vec<String>> =
        totals.iter().map(|one| row(one, &named(one))).chain([row(total, "all")]).collect();
    let caption = escape::text(&format!("Requests of all pods by {by}{of_cluster}"));
    let headings = ["Name", "Containers", "CPU", "saved", "Memory", "saved"];
    let id = format!("totals-{}", escape::text(name));
    format!(
        "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">Totals{}</h2>\n{}</section>\n",
        escape::text(&of_cluster),
        table(&caption, &headings, 1, &rows)
    )
}

/// What past recommendations would have delivered, beside what was asked.
fn calibration(entries: &[(usize, &Entry)]) -> String {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for (_, entry) in entries {
        for reason in &entry.reasons {
            if matches!(reason.reason, Reason::ClusterRecord { .. } | Reason::CpuDelivered { .. }) {
                *found.entry(reason.text.clone()).or_default() += 1;
            }
        }
    }
    let mut text =
        "<section aria-labelledby=\"calibration\">\n<h2 id=\"calibration\">Calibration: asked and delivered</h2>\n".to_owned();
    if found.is_empty() {
        return text + "<p>There is too little history to judge past recommendations.</p>\n</section>\n";
    }
    text.push_str("<ul class=\"plain\">\n");
    let mut found: Vec<(String, usize)> = found.into_iter().collect();
    found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (sentence, count) in found.into_iter().take(LISTED) {
        let _ = writeln!(text, "<li>{} ({})</li>", escape::text(&sentence), units::count(count, "container"));
    }
    text + "</ul>\n</section>\n"
}

fn skipped(clusters: &[ClusterSection]) -> String {
    let all: Vec<_> = clusters.iter().flat_map(|cluster| &cluster.report.skipped).collect();
    if all.is_empty() {
        return String::new();
    }
    let row = |skipped: &&crate::recommend::report::Skipped| {
        vec![escape::text(&skipped.title()), escape::text(&skipped.reason.to_string())]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    format!(
        "<section aria-labelledby=\"skipped\">\n<h2 id=\"skipped\">No recommendation</h2>\n{}</section>\n",
        table("Containers without a recommendation", &["Container", "Why"], 2, &rows)
    )
}
