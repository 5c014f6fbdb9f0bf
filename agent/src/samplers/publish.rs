//! The agent's own metrics (`snug_agent_*`), and publishing the view.

use std::{sync::Arc, time::Instant};

use super::{
    Sampler,
    agent::{HEARTBEAT, own_cost},
    evidence::UsageCollector,
};
use crate::{
    kernel::EbpfPrograms,
    model::{AgentRow, ProgramRow, Verdict},
};

impl Sampler {
    pub(super) fn refresh_agent(&mut self, now: Instant) {
        let (cpu_seconds, resident_bytes) = own_cost();
        let kernel = self.kernel.as_ref();
        self.agent = AgentRow {
            programs: match (kernel, &self.kernel_absent) {
                (Some(kernel), _) => kernel.programs(),
                (None, Some(verdict)) => absent_programs(verdict, self.runqueue.is_some()),
                (None, None) => Vec::new(),
            },
            maps: kernel.map(|kernel| kernel.maps(self.agent.pass_cgroups)).unwrap_or_default(),
            lost_events: kernel.map(EbpfPrograms::lost).unwrap_or_default(),
            skipped: self.skipped_rows(),
            unresolved_cgroups: self.hierarchies.iter().map(|tracked| tracked.unresolved).sum(),
            cpu_seconds,
            resident_bytes,
            kubernetes: self.watched.as_ref().map(|watched| watched.row(self.naming.pods())),
            history: self.evidence.as_ref().map(UsageCollector::history),
            network: kernel.map(|kernel| self.network.row(kernel)),
            runqueue: self.runqueue.as_ref().zip(kernel).map(|(runqueue, kernel)| runqueue.row(kernel)),
            ..std::mem::take(&mut self.agent)
        };
        if now >= self.schedule.heartbeat {
            self.schedule.heartbeat = now + HEARTBEAT;
            self.write_heartbeat();
        }
    }

    pub(super) fn write_heartbeat(&mut self) {
        let failed = self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.beat().err());
        if let Some(error) = failed {
            tracing::warn!(%error, "cannot write the heartbeat; no further ones are written");
            self.heartbeat = None;
        }
    }

    fn skipped_rows(&self) -> Vec<(&'static str, u64)> {
        let mut rows: Vec<_> = self.skipped.iter().map(|(what, count)| (*what, *count)).collect();
        rows.extend(self.naming.skipped());
        rows.push(("containers_never_named", self.store.never_named()));
        rows.sort_unstable();
        rows
    }

    pub(super) fn publish(&mut self, now: Instant) {
        let agent = AgentRow { sources: self.sources.rows(), ..self.agent.clone() };
        let mut view = self.store.build_view(agent, now);
        view.host = self.host.row();
        view.pods = Arc::clone(self.naming.pods());
        // The old view's memory is reused, unless a scrape still reads it.
        if let Some(before) = self.views.publish(view) {
            self.store.recycle(before);
        }
    }
}

fn absent_programs(verdict: &Verdict, runqueue: bool) -> Vec<ProgramRow> {
    EbpfPrograms::program_names(runqueue)
        .map(|name| ProgramRow { name, verdict: verdict.clone(), run_time_ns: 0, run_count: 0 })
        .collect()
}
