//! Judges the current values of containers: what is wrong with them, and what is worst.

use std::cmp::Ordering;

use super::{
    issue::{Issue, Savings},
    report::Entry,
};

/// A rate far above the asked one: the asked one is an average over all workloads.
const FAR_ABOVE: f64 = 2.0;
/// Share of throttled CFS periods below which throttling hardly delays anything.
const HARMLESS_THROTTLING: f64 = 0.05;
/// Share of CPU time above the request that a node which is not full still provides.
const HARMLESS_CPU_ABOVE: f64 = 0.1;
/// Waste is a request of twice what is recommended,
const WASTE_FACTOR: u64 = 2;
/// and at least so much over all pods: millicores,
const MIN_WASTED_CPU: i64 = 100;
/// and bytes.
const MIN_WASTED_MEMORY: i64 = 128 << 20;
impl Entry {
    /// Finds the worst issue and the savings for the values as they are now.
    pub fn judge(&mut self) {
        self.savings = Savings::new(self.current, self.recommended, self.replicas);
        self.issue = self.worst();
    }

    fn worst(&self) -> Issue {
        let asked = self.asked_risk;
        let now = self.current;
        let above = |value: Option<f64>, limit: f64| value.is_some_and(|value| value > limit);
        let cpu_above = self.cpu_work_above_request.and_then(|change| change.now);
        let twice = |now: Option<u64>, then: Option<u64>| {
            now.zip(then).is_some_and(|(now, then)| now >= then.saturating_mul(WASTE_FACTOR))
        };
        if above(self.oom_kills_per_pod_day.and_then(|change| change.now), FAR_ABOVE * asked.oom_kills) {
            Issue::OomRisk
        } else if above(self.throttled_periods, (FAR_ABOVE * asked.throttled).max(HARMLESS_THROTTLING)) {
            Issue::Throttled
        } else if above(cpu_above, (FAR_ABOVE * asked.cpu_work).max(HARMLESS_CPU_ABOVE)) {
            Issue::CpuShort
        } else if !self.namespace.is_empty() && now.cpu_request.is_none() && now.memory_request.is_none() {
            Issue::NoRequest
        } else if (twice(now.cpu_request, self.recommended.cpu_request) && self.savings.cpu >= MIN_WASTED_CPU)
            || (twice(now.memory_request, self.recommended.memory_request)
                && self.savings.memory >= MIN_WASTED_MEMORY)
        {
            Issue::Waste
        } else {
            Issue::Ok
        }
    }

    /// The worst first: by the issue, then by how far the risk is above the asked one, then by savings.
    pub fn by_risk(&self, other: &Self) -> Ordering {
        let times = |entry: &Self| {
            let rate = |value: Option<f64>, asked: f64| value.map_or(0.0, |value| value / asked);
            match entry.issue {
                Issue::OomRisk => rate(
                    entry.oom_kills_per_pod_day.and_then(|change| change.now),
                    entry.asked_risk.oom_kills,
                ),
                Issue::Throttled => rate(entry.throttled_periods, entry.asked_risk.throttled),
                Issue::CpuShort => rate(
                    entry.cpu_work_above_request.and_then(|change| change.now),
                    entry.asked_risk.cpu_work,
                ),
                Issue::NoRequest | Issue::Waste | Issue::Ok => 0.0,
            }
        };
        let issue = self.issue.cmp(&other.issue);
        issue.then_with(|| times(other).total_cmp(&times(self))).then_with(|| self.by_savings(other))
    }

    /// The largest savings first.
    pub fn by_savings(&self, other: &Self) -> Ordering {
        other.savings.weight().total_cmp(&self.savings.weight())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snug_sizing::{cost::Prices, workload::Resources};

    use super::*;
    use crate::recommend::{
        report::Change,
        tests::{entry, recommended, resources},
    };

    fn judged(now: Resources, then: Resources, change: impl Fn(&mut Entry)) -> Entry {
        let mut one = entry(["shop", "Deployment", "web", "app"], now, then);
        change(&mut one);
        one.judge();
        one
    }

    #[test]
    fn the_worst_issue_counts() {
        let now =
            Resources { cpu_request: Some(2000), memory_request: Some(1 << 30), ..Resources::default() };
        let then =
            Resources { cpu_request: Some(500), memory_request: Some(1 << 30), ..Resources::default() };
        let rate = |now: f64| Some(Change { now: Some(now), then: 0.0 });
        let of = |change: fn(&mut Entry)| judged(now, then, change).issue;
        assert_eq!(of(|_| {}), Issue::Waste);
        assert_eq!(judged(then, then, |_| {}).issue, Issue::Ok);
        assert_eq!(judged(Resources::default(), then, |_| {}).issue, Issue::NoRequest);
        assert_eq!(of(|it| it.throttled_periods = Some(0.2)), Issue::Throttled);
        assert_eq!(of(|it| it.throttled_periods = Some(0.04)), Issue::Waste, "harmless");
        assert_eq!(judged(now, then, |it| it.oom_kills_per_pod_day = rate(0.1)).issue, Issue::OomRisk);
        assert_eq!(judged(now, then, |it| it.oom_kills_per_pod_day = rate(0.004)).issue, Issue::Waste);
        assert_eq!(judged(now, then, |it| it.cpu_work_above_request = rate(0.3)).issue, Issue::CpuShort);
    }

    proptest! {
        #[test]
        fn more_risk_is_never_a_smaller_issue(now in resources(), then in recommended(), rate in 0.0..1.0_f64, more in 0.0..1.0_f64) {
            let of = |rate: f64| judged(now, then, |it| it.oom_kills_per_pod_day = Some(Change { now: Some(rate), then: 0.0 }));
            let (one, other) = (of(rate), of((rate + more).min(1.0)));
            prop_assert!(other.issue <= one.issue);
            prop_assert!(other.by_risk(&one).is_le());
        }

        #[test]
        fn savings_of_pods_add_up(now in resources(), then in recommended(), pods in 0..1000_u64) {
            let all = Savings::new(now, then, pods);
            let one = Savings::new(now, then, 1);
            prop_assert_eq!((all.cpu, all.memory), (one.cpu * pods as i64, one.memory * pods as i64));
            let prices = Prices { core_hour: 0.03, gib_hour: 0.004 };
            let month = all.priced(prices, 730.0).month.unwrap();
            prop_assert!((month - one.priced(prices, 730.0).month.unwrap() * pods as f64).abs() < 1e-6 * month.abs().max(1.0));
            let worth = Savings { cpu: all.cpu.abs(), memory: 0, month: None };
            prop_assert!(worth.weight() >= 0.0);
        }
    }
}
