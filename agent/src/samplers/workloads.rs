//! Workloads: the usage of their containers, those that ended too, and terminations that only the statuses of pods show.
//!
//! Metrics: `snug_workload_*`.

use super::{Component, Round};
use crate::model::AgentRow;

pub(super) struct Workloads;

impl Component for Workloads {
    fn round(&mut self, round: &mut Round) {
        if round.is_full {
            let AgentRow { started_unix, downtime_seconds, .. } = round.agent;
            round.store.count_reported(round.naming.pods(), started_unix, downtime_seconds, round.now);
            round.store.count_workloads(round.now);
        }
    }
}
