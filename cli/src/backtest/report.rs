//! The report of a back-test on traces and on synthetic usage.

use rayon::prelude::*;
use serde::Serialize;
use snug_sizing::{
    backtest::{
        policies::PolicyChoice,
        streams::Size,
        validate::{LeftOut, left_out},
        world::World,
    },
    engine::{DEFAULT_HORIZON_DAYS, Risk},
};

use super::{streams::StreamsReport, subject::EngineUnderTest, world_report::WorldReport};

/// Version of the JSON output; increased when a field changes its meaning or is removed.
const SCHEMA_VERSION: u32 = 2;

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Report {
    schema_version: u32,
    pub risk: Risk,
    /// Days after a decision that it is judged on.
    pub judged_days: f64,
    /// Days for which advice as shipped has to last where usage grows.
    pub horizon_days: f64,
    pub worlds: Vec<WorldReport>,
    /// The engine with constants fitted without what is judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Synthetic usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamsReport>,
}

impl Report {
    /// Replays the policies on each world. With `folds`, also judges the engine with constants fitted elsewhere; with `streams`,
    /// also on synthetic usage.
    pub fn make(
        worlds: &[World],
        engine: &EngineUnderTest,
        chosen: &[(String, PolicyChoice)],
        folds: Option<u64>,
        streams: bool,
    ) -> Self {
        let ((reports, left_out), streams) = rayon::join(
            || {
                rayon::join(
                    || worlds.par_iter().map(|world| WorldReport::make(world, engine, chosen)).collect(),
                    || folds.map_or_else(Vec::new, |folds| left_out(worlds, engine.risk, folds)),
                )
            },
            || streams.then(|| StreamsReport::make(engine, Size::FULL)),
        );
        Self {
            schema_version: SCHEMA_VERSION,
            risk: engine.risk,
            judged_days: 1.0,
            horizon_days: DEFAULT_HORIZON_DAYS,
            worlds: reports,
            left_out,
            streams,
        }
    }

    /// The title of the tables.
    pub(crate) fn title(&self) -> String {
        let Risk { oom_kills, cpu_work, .. } = self.risk;
        format!(
            "Accepted risk of snug: {:.2} % of pod-days with an OOM kill, {:.2} % of CPU time above the request.\n\
             Each decision is judged on the day that follows. Advice as shipped has to last {} days where usage grows (--horizon).",
            oom_kills * 100.0,
            cpu_work * 100.0,
            self.horizon_days
        )
    }
}
