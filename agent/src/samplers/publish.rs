//! The agent's own metrics (`snug_agent_*`), and publishing the view.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::{
    Sampler,
    agent::{HEARTBEAT, own_cost},
    evidence::UsageCollector,
};
use crate::{
    kernel::{self, EbpfPrograms},
    model::{AgentRow, ProgramRow, Verdict, View},
};

/// Views of readers from which on their memory is worth returning. Scrapes that do not wait have one or two.
const MANY_VIEWS: usize = 4;

/// Old views that readers still have.
#[derive(Debug, Default)]
pub(super) struct LentViews {
    views: Vec<Weak<View>>,
    were_many: bool,
}

impl LentViews {
    fn add(&mut self, view: Weak<View>) {
        self.views.push(view);
        self.forget_returned();
    }

    fn forget_returned(&mut self) {
        self.views.retain(|view| view.strong_count() > 0);
        self.were_many |= self.views.len() >= MANY_VIEWS;
    }

    /// Whether readers had many views, and have returned them since the last call.
    fn are_returned(&mut self) -> bool {
        self.forget_returned();
        self.views.len() <= 1 && std::mem::take(&mut self.were_many)
    }
}

impl Sampler {
    pub(super) fn refresh_agent(&mut self, now: Instant) {
        let (cpu_seconds, resident_bytes) = own_cost();
        let kernel = self.kernel.as_ref();
        self.agent = AgentRow {
            programs: match (kernel, &self.kernel_absent) {
                (Some(kernel), _) => kernel.programs(),
                (None, Some(verdict)) => {
                    absent_programs(verdict, self.runqueue.is_some(), self.config.packets)
                }
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
            network: kernel.filter(|_| self.config.packets).map(|kernel| self.network.row(kernel)),
            runqueue: self.runqueue.as_ref().zip(kernel).map(|(runqueue, kernel)| runqueue.row(kernel)),
            ..std::mem::take(&mut self.agent)
        };
        // The allocator would keep it.
        if self.lent_views.are_returned() {
            kernel::trim_heap();
        }
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
        let mut rows: Vec<_> = self.skipped.rows().collect();
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
        let before = self.views.last().map(|view| Arc::downgrade(&view));
        // The old view's memory is reused, unless a scrape still reads it.
        match (self.views.publish(view), before) {
            (Some(before), _) => self.store.recycle(before),
            (None, Some(before)) => self.lent_views.add(before),
            (None, None) => {}
        }
    }
}

fn absent_programs(verdict: &Verdict, runqueue: bool, packets: bool) -> Vec<ProgramRow> {
    EbpfPrograms::program_names(runqueue, packets)
        .map(|name| ProgramRow {
            name,
            verdict: verdict.clone(),
            run_time_ns: 0,
            run_count: 0,
            verified_instructions: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn memory_is_returned_once_after_many_views() {
        let mut lent = LentViews::default();
        let view = || Arc::new(Store::new(1).build_view(AgentRow::default(), Instant::now()));
        for (number, is_many) in [(MANY_VIEWS - 1, false), (MANY_VIEWS, true), (3 * MANY_VIEWS, true)] {
            let mut read: Vec<_> = (0..number).map(|_| view()).collect();
            for view in &read {
                lent.add(Arc::downgrade(view));
                assert!(!lent.are_returned() || !is_many);
            }
            read.truncate(2);
            assert!(!lent.are_returned(), "two are still read");
            read.clear();
            assert_eq!((lent.are_returned(), lent.are_returned()), (is_many, false), "{number}");
        }
    }
}
