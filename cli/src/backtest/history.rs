//! `--history`: the past of live agents, or a snapshot of it.

use serde::Serialize;
use snug_sizing::{
    backtest::{
        history::{HistoryPolicy, replay},
        validate::Figures,
    },
    engine::Risk,
    evidence::Evidence,
};

use crate::evidence::Snapshot;

/// Number of the form; within it fields are only added.
const SCHEMA_VERSION: u32 = 1;

/// What became of the past.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Report {
    schema_version: u32,
    /// What was replayed.
    pub history: Span,
    /// The engine's risk.
    pub risk: Risk,
    /// What policies say changes nothing in what follows. A pod-day is here a day of all pods of a workload's container.
    pub open: Vec<Figures>,
}

/// What was replayed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Span {
    /// Containers of workloads.
    pub containers: usize,
    /// Hours from the first to the last.
    pub hours: u32,
}

impl Report {
    /// Of all evidence of a snapshot.
    pub(super) fn make(snapshot: &Snapshot, risk: Risk, chosen: &[(String, HistoryPolicy)]) -> Self {
        let all: Vec<&Evidence> = snapshot.evidence().collect();
        let spans = || all.iter().filter_map(|evidence| evidence.span());
        let first = spans().map(|(first, _)| first.0).min();
        let last = spans().map(|(_, last)| last.0).max();
        let hours = first.zip(last).map_or(0, |(first, last)| last - first + 1);
        let history = Span { containers: all.len(), hours };
        Self { schema_version: SCHEMA_VERSION, history, risk, open: replay(&all, chosen) }
    }

    /// What it is about.
    pub(super) fn title(&self) -> String {
        let Span { containers, hours } = self.history;
        format!(
            "{containers} containers of workloads over {:.1} days; snug at {:.2} % pod-days with an OOM kill, {:.2} % of work above the request. \
             A pod-day is a day of all pods of a workload's container",
            f64::from(hours) / 24.0,
            100.0 * self.risk.oom_kills,
            100.0 * self.risk.cpu_work
        )
    }

    /// Whether anything could be judged.
    pub(super) fn is_empty(&self) -> bool {
        self.open.iter().all(|figures| figures.memory.pod_days == 0 && figures.cpu.pod_days == 0)
    }
}
