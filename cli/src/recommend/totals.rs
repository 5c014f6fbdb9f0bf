//! Sums of requests over all pods: of everything, of namespaces, and of the values of a label.

use std::collections::BTreeMap;

use snug_sizing::{constraints::Resource, cost::Prices, pod::PodRequests};

use super::{
    cost::{Cost, Total},
    report::{Entry, Report},
};

/// Hours of a month: a twelfth of a year.
pub(super) const MONTH_HOURS: f64 = 730.0;

impl Total {
    /// Of entries that are sorted by workload.
    fn new(name: &str, entries: &[&Entry], prices: Option<Prices>) -> Self {
        let [cpu, memory] = requested(entries);
        let month =
            |cpu, memory, prices: Prices| prices.hourly_cost(PodRequests { cpu, memory }) * MONTH_HOURS;
        Self {
            cluster: entries.first().map(|entry| entry.cluster.clone()).unwrap_or_default(),
            name: name.to_owned(),
            containers: entries.len(),
            cpu_request_now: cpu.0,
            memory_request_now: memory.0,
            cpu_request: cpu.1,
            memory_request: memory.1,
            cost: prices.map(|prices| Cost {
                month_now: month(cpu.0, memory.0, prices),
                month_then: month(cpu.1, memory.1, prices),
            }),
        }
    }
}

impl Report {
    /// Sums by group: by namespace, or by the value of a label. Also sets savings in money.
    pub(super) fn add_up(&mut self, prices: Option<Prices>) {
        if let Some(prices) = prices {
            for entry in &mut self.recommendations {
                entry.savings = entry.savings.priced(prices, MONTH_HOURS);
            }
        }
        let mut groups: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
        for entry in &self.recommendations {
            let name = entry.group.as_deref().unwrap_or(&entry.namespace);
            groups.entry((&entry.cluster, name)).or_default().push(entry);
        }
        let totals = groups.iter().map(|((_, name), entries)| Total::new(name, entries, prices)).collect();
        let all: Vec<&Entry> = self.recommendations.iter().collect();
        let total = Total::new("", &all, prices);
        self.cost = total.cost;
        (self.totals, self.total) = (totals, total);
    }
}

/// Sums of current and of recommended requests over all pods: millicores and bytes. Containers without one of the two are left
/// out. Pods with requests of their own count with those.
fn requested(entries: &[&Entry]) -> [(u64, u64); 2] {
    let of_workload = |resource: Resource, entries: &[&Entry]| {
        let own = entries.iter().find_map(|entry| {
            let own = entry.pod_resources.as_ref()?;
            let both = resource.request(&own.current).zip(resource.request(&own.recommended))?;
            Some((both, entries.iter().map(|entry| entry.replicas).max()?))
        });
        let each = entries.iter().filter_map(|entry| {
            let both = resource.request(&entry.current).zip(resource.request(&entry.recommended))?;
            Some((both, entry.replicas))
        });
        own.map_or_else(|| each.collect(), |own| vec![own])
    };
    let sum = |resource| {
        let workloads = entries.chunk_by(|one, other| one.is_of_one_workload(other));
        let all = workloads.flat_map(|entries| of_workload(resource, entries));
        all.fold((0_u64, 0_u64), |sum, ((now, then), replicas)| {
            let add = |sum: u64, each: u64| sum.saturating_add(each.saturating_mul(replicas));
            (add(sum.0, now), add(sum.1, then))
        })
    };
    [sum(Resource::Cpu), sum(Resource::Memory)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recommend::tests::{entry, recommended, report, resources};

    proptest! {
        #[test]
        fn totals_of_groups_are_the_total(values in prop::collection::vec((resources(), recommended(), 0..3_u8, 0..5_u64), 0..12)) {
            let mut all = report(
                values
                    .iter()
                    .enumerate()
                    .map(|(number, (now, then, namespace, replicas))| {
                        let namespace = format!("n{namespace}");
                        let mut one = entry([&namespace, "Deployment", &format!("w{number}"), "app"], *now, *then);
                        one.replicas = *replicas;
                        one.judge();
                        one
                    })
                    .collect(),
            );
            let prices = Prices { core_hour: 0.03, gib_hour: 0.004 };
            all.add_up(Some(prices));
            let sum = |pick: fn(&Total) -> u64| all.totals.iter().map(pick).sum::<u64>();
            prop_assert_eq!(sum(|it| it.cpu_request), all.total.cpu_request);
            prop_assert_eq!(sum(|it| it.memory_request_now), all.total.memory_request_now);
            let rows: i64 = all.recommendations.iter().map(|entry| entry.savings.cpu).sum();
            prop_assert_eq!(rows, all.total.savings().cpu);
            let month: f64 = all.recommendations.iter().filter_map(|entry| entry.savings.month).sum();
            let total = all.total.savings().month.unwrap();
            prop_assert!((month - total).abs() < 1e-6, "{} of {}", month, total);
        }
    }
}
