//! A value for each node class, where the pods of a workload differ by node class alone.
//!
//! The history keeps totals by pod, not a distribution. So the value of a class is made from the recommended one: memory has the same
//! headroom above the highest usage of the class, and a CPU request is as many times the mean usage of the class's busiest pod
//! as the recommended one is of the busiest pod of all, at least that mean usage. No value is above the recommended one.

use crate::{
    engine::steps,
    skew::{ClassSpread, Skew},
    workload::Resources,
};

/// Share of the sum over all pods that values by class must save, to be worth several workloads in place of one.
const MIN_SAVED: f64 = 0.2;
/// Millicores of a core.
const CORE: f64 = 1000.0;

/// Adds values by node class to a skew that node classes explain, where they pay.
pub(super) fn offer(skew: Skew, recommended: Resources) -> Skew {
    let is_cpu = skew.resource == "cpu";
    let common = if is_cpu { recommended.cpu_request } else { recommended.memory_limit };
    let are_known = skew.classes.iter().all(|class| !class.node_class.is_empty());
    let Some(common) = common.filter(|common| skew.by_node_class && are_known && *common > 0) else {
        return skew;
    };
    let highest = skew.classes.iter().map(|class| class.highest).fold(0.0, f64::max);
    let value = |class: &ClassSpread| {
        let wanted = if is_cpu {
            steps::cpu((common as f64 * class.highest / highest).max(class.highest * CORE))
        } else {
            steps::memory(class.highest + (common as f64 - highest).max(0.0))
        };
        wanted.min(common)
    };
    let of_all = skew.pods as f64 * common as f64;
    let sum: f64 = skew.classes.iter().map(|class| class.pods as f64 * value(class) as f64).sum();
    let saved = 1.0 - sum / of_all;
    if saved < MIN_SAVED {
        return skew;
    }
    let classes = skew.classes.iter().map(|class| ClassSpread { value: Some(value(class)), ..class.clone() });
    Skew { classes: classes.collect(), saved: Some(saved), ..skew }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        evidence::{Evidence, PodTotals},
        skew,
        workload::tests::{container, workload},
    };

    const MIB: u64 = 1 << 20;

    /// Pods by node class, mean millicores and highest MiB.
    fn pods(each: &[(&str, u64, u64)]) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        for (at, (class, millicores, mib)) in each.iter().enumerate() {
            let totals = PodTotals {
                observed: 7200,
                cpu_millis: millicores * 7200,
                peak: mib * MIB,
                node_class: (*class).to_owned(),
            };
            evidence.pods.insert(format!("web-{at}"), totals);
        }
        evidence
    }

    fn offered(each: &[(&str, u64, u64)], cpu: u64, mib: u64) -> Vec<Skew> {
        let values =
            Resources { cpu_request: Some(cpu), memory_limit: Some(mib * MIB), ..Resources::default() };
        skew::find(&pods(each)).into_iter().map(|skew| offer(skew, values)).collect()
    }

    #[test]
    fn a_value_for_each_class_by_hand() {
        let all = [("large", 800, 500), ("large", 790, 480), ("small", 100, 60), ("small", 90, 64)];
        let found = offered(&all, 1000, 600);
        let values: Vec<(&str, Vec<Option<u64>>)> = found
            .iter()
            .map(|skew| (skew.resource, skew.classes.iter().map(|it| it.value).collect()))
            .collect();
        // 1000m is 1.25 times 800m; 600 MiB are 100 MiB above 500 MiB.
        let memory = steps::memory(164.0 * MIB as f64);
        assert_eq!(
            values,
            [("cpu", vec![Some(1000), Some(130)]), ("memory", vec![Some(600 * MIB), Some(memory)])]
        );
        assert!((found[0].saved.unwrap() - (1.0 - 2260.0 / 4000.0)).abs() < 1e-9);
        let text = found[0].to_string();
        assert!(
            text.contains("alone it would be large 1000m, small 130m: CPU requests would be 44 % less"),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_offered_where_it_does_not_pay_or_nodes_are_unknown() {
        let saved = |each: &[(&str, u64, u64)]| {
            offered(each, 1000, 600).iter().map(|skew| skew.saved).collect::<Vec<_>>()
        };
        // A class of few pods; pods that differ within their class; nodes without a known class.
        let mostly_large = [("large", 800, 1); 9];
        assert_eq!(saved(&[&mostly_large[..], &[("small", 100, 1)]].concat()), [None]);
        assert_eq!(
            saved(&[("large", 800, 1), ("large", 100, 1), ("small", 100, 1), ("small", 90, 1)]),
            [None]
        );
        assert_eq!(saved(&[("", 800, 1), ("small", 100, 1), ("small", 90, 1)]), [None]);
    }

    proptest! {
        #[test]
        fn values_cover_usage_and_save(large in 2..2000_u64, small in 1..2000_u64, pods in (1..9_usize, 1..9_usize), above in 1.0..3.0_f64) {
            let each = [vec![("large", large, large); pods.0], vec![("small", small, small); pods.1]].concat();
            let most = large.max(small) as f64;
            for skew in offered(&each, (most * above).ceil() as u64, (most * above).ceil() as u64) {
                let values = skew.classes.iter().filter_map(|class| Some((class, class.value?)));
                for (class, value) in values {
                    let used = if skew.resource == "cpu" { class.highest * CORE } else { class.highest };
                    prop_assert!(value as f64 >= used * 0.999_999, "{class:?}");
                }
                prop_assert!(skew.saved.is_none_or(|saved| (MIN_SAVED..1.0).contains(&saved)));
            }
        }
    }
}
