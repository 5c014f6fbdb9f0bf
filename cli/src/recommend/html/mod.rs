//! One self-contained page: nothing is loaded from elsewhere, and a policy in it forbids that.

mod charts;
mod container;
mod escape;
mod summary;
mod tables;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use snug_sizing::simulate::Throttled;

use super::{
    detail::{Detail, Details},
    report::{Entry, Report},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page of one or of several clusters.
#[derive(Debug, Default)]
pub(super) struct Page {
    clusters: Vec<ClusterSection>,
}

#[derive(Debug)]
struct ClusterSection {
    /// Its name, if there are several.
    name: String,
    report: Report,
    /// The history behind each recommendation.
    history: Vec<Option<Detail>>,
}

/// What the script of the page reads.
#[derive(Debug, Serialize)]
struct Data<'p> {
    /// The reports, as `-o json` has them.
    reports: Vec<&'p Report>,
    /// What-if data of each container, in the order of the page.
    simulations: Vec<Simulation>,
}

/// What a slider needs of a container.
#[derive(Debug, Default, Serialize)]
struct Simulation {
    /// The highest memory usage of each hour, bytes.
    peaks: Vec<u64>,
    /// The limits that OOM kills hit, bytes.
    kills: Vec<u64>,
    quotas: Vec<Throttled>,
}

/// A container in the page.
struct Shown<'p> {
    /// Its number, from 0.
    number: usize,
    entry: &'p Entry,
    detail: Option<&'p Detail>,
}

impl Page {
    /// Adds a cluster.
    pub(super) fn add(&mut self, name: &str, report: &Report, details: &Details<'_>) {
        let mut report = report.clone();
        for entry in &mut report.recommendations {
            name.clone_into(&mut entry.cluster);
        }
        let history = report.recommendations.iter().map(|entry| details.of(entry)).collect();
        self.clusters.push(ClusterSection { name: name.to_owned(), report, history });
    }

    fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        let all = self.clusters.iter().flat_map(|cluster| {
            cluster.report.recommendations.iter().zip(cluster.history.iter().map(Option::as_ref))
        });
        all.enumerate().map(|(number, (entry, detail))| Shown { number, entry, detail })
    }

    fn data(&self) -> Data<'_> {
        let all = self.clusters.iter().flat_map(|cluster| &cluster.history);
        let simulation = |detail: &'_ Option<Detail>| {
            let Some(detail) = detail else { return Simulation::default() };
            let peaks = detail.memory.iter().flat_map(|memory| &memory.peaks);
            Simulation {
                peaks: peaks.map(|peak| peak.bytes).collect(),
                kills: detail.oom_kills.iter().filter_map(|kill| kill.limit).collect(),
                quotas: detail.quotas.clone(),
            }
        };
        let simulations = all.map(simulation).collect();
        Data { reports: self.clusters.iter().map(|cluster| &cluster.report).collect(), simulations }
    }

    /// The page.
    ///
    /// # Errors
    /// When the data cannot be written as JSON.
    pub(super) fn html(&self) -> Result<String> {
        let data = serde_json::to_string(&self.data()).context("cannot write JSON")?;
        let hash = STANDARD.encode(Sha256::digest(SCRIPT));
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
        );
        let containers: String = self.shown().map(|shown| container::html(&shown)).collect();
        let summary = summary::html(&self.clusters);
        Ok(format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Snug: recommended requests and limits</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#containers\">Skip to the containers</a>\n\
             {summary}\
             <section aria-labelledby=\"containers\">\n<h2 id=\"containers\" tabindex=\"-1\">Containers</h2>\n\
             <div class=\"tools\"><div><label for=\"filter\">Name contains</label><input id=\"filter\" type=\"search\"></div>\
             <div><label for=\"issue\">Issue</label><select id=\"issue\"><option value=\"\">all</option>{}</select></div>\
             <p id=\"shown\" role=\"status\" class=\"faint\"></p></div>\n\
             {containers}</section>\n</main>\n\
             <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
            summary::issue_options(),
            escape::json(&data),
        ))
    }
}
