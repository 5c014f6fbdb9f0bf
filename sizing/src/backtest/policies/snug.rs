//! The engine as a policy.

use std::fmt;

use crate::{
    backtest::{
        observe::Observer,
        policy::{Policy, PolicyInput, Values},
        trace::Group,
        world::World,
    },
    engine::{
        self, Context, Risk, Rule,
        cpu::{self, RequestUsage},
        memory,
    },
    evidence::{Evidence, Hour, OomKill},
    workload::Resources,
};

const KIB: f64 = 1024.0;

/// The engine.
pub(super) struct Snug<'g> {
    group: &'g Group,
    observer: Observer,
    policy: engine::Policy,
    /// Whether the rules of advice apply.
    shipped: bool,
    set: Option<Resources>,
}

impl fmt::Debug for Snug<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snug").field("group", &self.group.key).finish_non_exhaustive()
    }
}

impl<'g> Snug<'g> {
    pub(super) fn new(group: &'g Group, world: &World, risk: Risk, rule: Rule, shipped: bool) -> Self {
        let observer = Observer::new(group, world.trace.interval, world.keep_hours);
        let policy = engine::Policy { rule, ..engine::Policy::new(risk) };
        Self { group, observer, policy, shipped, set: None }
    }

    /// The evidence, with the OOM kills of the closed loop.
    fn observe(&mut self, view: &PolicyInput<'_>) -> &Evidence {
        let evidence = self.observer.advance(self.group, view.memory, view.now);
        let known = evidence.kills().count();
        for kill in view.kills.iter().skip(known) {
            let at = kill.at as u64 * 60;
            let pod = view.rows.get(kill.row).map(|row| row.pod.clone()).unwrap_or_default();
            evidence.hour(Hour::from_seconds(at)).kills.push(OomKill {
                at,
                limit: (kill.limit * KIB) as u64,
                pod,
            });
        }
        evidence
    }
}

impl Policy for Snug<'_> {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        let (policy, set, shipped) = (self.policy.clone(), self.set, self.shipped);
        let evidence = view.evidence.unwrap_or_else(|| self.observe(view));
        if !shipped {
            let need = memory::size(evidence, policy.rule, policy.risk, view.pool.memory)?;
            let cores =
                cpu::size(&RequestUsage::new(evidence), policy.rule, policy.risk, &view.pool.cpu)?.cores;
            return Some(Values { cpu: cores * 1000.0, memory: need.bytes / KIB });
        }
        let recommendation =
            engine::recommend(evidence, &policy, Context { pool: view.pool, previous: set, qos: None })
                .ok()?;
        self.set = Some(recommendation.values);
        let Resources { cpu_request, memory_limit, .. } = recommendation.values;
        Some(Values { cpu: cpu_request? as f64, memory: memory_limit? as f64 / KIB })
    }
}
