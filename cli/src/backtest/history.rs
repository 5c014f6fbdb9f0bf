//! `--history`: the back-test on the usage history of agents, or on a snapshot of it.

use serde::Serialize;
use snug_sizing::{
    backtest::{
        history::{HistoryPolicy, Replayed, replay},
        validate::Figures,
    },
    engine::{Risk, SoFar},
    evidence::Evidence,
};

use crate::evidence::Snapshot;

/// Version of the JSON output; within a version, fields are only added.
const SCHEMA_VERSION: u32 = 1;

/// The result of the back-test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Report {
    schema_version: u32,
    /// The replayed history.
    pub history: Span,
    pub risk: Risk,
    /// Asked and delivered by the end of the history, by what the engine finds is needed for the next day.
    pub delivered: SoFar,
    /// Figures of the open loop, in which decisions do not change usage. A pod-day is a day of all pods of one container.
    pub open: Vec<Figures>,
}

/// The replayed history.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Span {
    /// Containers of workloads, over all pods.
    pub containers: usize,
    /// Hours from the first to the last.
    pub hours: u32,
}

impl Report {
    /// Replays all evidence of a snapshot.
    pub(super) fn make(snapshot: &Snapshot, risk: Risk, chosen: &[(String, HistoryPolicy)]) -> Self {
        let all: Vec<&Evidence> = snapshot.evidence().collect();
        let spans = || all.iter().filter_map(|evidence| evidence.span());
        let first = spans().map(|(first, _)| first.0).min();
        let last = spans().map(|(_, last)| last.0).max();
        let hours = first.zip(last).map_or(0, |(first, last)| last - first + 1);
        let history = Span { containers: all.len(), hours };
        let Replayed { figures: open, pool } = replay(&all, chosen);
        Self { schema_version: SCHEMA_VERSION, history, risk, delivered: pool.so_far(risk), open }
    }

    /// The title of the tables.
    pub(super) fn title(&self) -> String {
        let Span { containers, hours } = self.history;
        format!(
            "{containers} containers of workloads over {:.1} days; accepted risk of snug: {:.2} % of pod-days with an OOM kill, \
             {:.2} % of CPU time above the request; {}. In the tables, a pod-day is a day of all pods of one container",
            f64::from(hours) / 24.0,
            100.0 * self.risk.oom_kills,
            100.0 * self.risk.cpu_work,
            self.delivered
        )
    }

    /// Whether there was too little history for any decision.
    pub(super) fn is_empty(&self) -> bool {
        self.open.iter().all(|figures| figures.memory.pod_days == 0 && figures.cpu.pod_days == 0)
    }
}
