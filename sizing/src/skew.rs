//! Skew between replicas: some need much more than others, so one size is too much for most or too little for some.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::evidence::{Evidence, HOUR, PodTotals};

/// Seconds for which a pod must be observed to be compared.
const MIN_OBSERVED: u64 = HOUR;
/// Fewer pods have no meaningful median.
const MIN_PODS: usize = 3;
/// A pod is an outlier at this multiple of the median.
const FACTOR: f64 = 2.0;
const MIB: f64 = 1024.0 * 1024.0;

/// A resource of which some pods use at least twice the median.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Skew {
    /// `cpu` or `memory`.
    pub resource: &'static str,
    /// Pods at or above twice the median.
    pub above: usize,
    /// Pods compared.
    pub pods: usize,
    /// Share of the total that these pods use, 0..=1.
    pub share: f64,
    /// Usage of the highest pod, in multiples of the median.
    pub highest: f64,
    /// Name of the highest pod.
    pub pod: String,
    /// Whether node classes explain the skew: no pod reaches twice the median of its own node class.
    pub by_node_class: bool,
    /// The pods by node class; empty where all are of one class.
    pub classes: Vec<ClassSpread>,
    /// Share of the sum over all pods that a value for each node class would save, 0..=1; `None` where it does not pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<f64>,
}

/// Usage of the pods on one class of nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct ClassSpread {
    /// Name of the class; empty for nodes without one.
    pub node_class: String,
    /// Pods compared.
    pub pods: usize,
    /// Usage of the median pod: mean cores, or the highest bytes.
    pub median: f64,
    /// Usage of the highest pod, likewise.
    pub highest: f64,
    /// What would be recommended for this class alone: the CPU request in millicores, or the memory limit in bytes. `None` where it
    /// does not pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, above, pods, share, highest, pod, by_node_class, classes, saved } = self;
        if *above > 0 {
            write!(f, "{above} of {pods} pods use {:.0} % of all {resource}; ", share * 100.0)?;
        }
        write!(f, "{pod} uses {highest:.1} times the median {resource} of {pods} pods")?;
        for (place, class) in classes.iter().enumerate() {
            let ClassSpread { pods, median, highest, .. } = class;
            let amount = |value: f64| match *resource {
                "cpu" => format!("{value:.2} cores"),
                _ => format!("{:.0} MiB", value / MIB),
            };
            let (before, plural) =
                (if place == 0 { "; by node class: " } else { ", " }, if *pods == 1 { "" } else { "s" });
            let (low, high) = (amount(*median), amount(*highest));
            let usage = if low == high { low } else { format!("{low} to {high}") };
            write!(f, "{before}{} {usage} ({pods} pod{plural})", class.name())?;
        }
        let Some(saved) = saved else {
            return match by_node_class {
                true => f.write_str("; pods are alike within each node class"),
                false => Ok(()),
            };
        };
        let what = if *resource == "cpu" { "CPU requests" } else { "memory limits" };
        for (place, (class, value)) in
            classes.iter().filter_map(|class| Some((class, class.value?))).enumerate()
        {
            let value = match *resource {
                "cpu" => format!("{value}m"),
                _ => format!("{:.0}Mi", value as f64 / MIB),
            };
            write!(f, "{}{} {value}", if place == 0 { "; alone it would be " } else { ", " }, class.name())?;
        }
        write!(
            f,
            ": {what} would be {:.0} % less in all; one pod template has one value, so make a workload for each class, with a nodeSelector \
             (such as node.kubernetes.io/instance-type)",
            saved * 100.0
        )
    }
}

impl ClassSpread {
    /// The name in sentences.
    fn name(&self) -> &str {
        if self.node_class.is_empty() { "unknown" } else { &self.node_class }
    }
}

/// Finds skewed resources: CPU by mean usage, memory by peak.
pub fn find(evidence: &Evidence) -> Vec<Skew> {
    let cpu = |pod: &PodTotals| pod.cpu_millis as f64 / 1000.0 / pod.observed as f64;
    let memory = |pod: &PodTotals| pod.peak as f64;
    [skew(evidence, "cpu", cpu), skew(evidence, "memory", memory)].into_iter().flatten().collect()
}

fn skew(evidence: &Evidence, resource: &'static str, value: impl Fn(&PodTotals) -> f64) -> Option<Skew> {
    let pods: Vec<(f64, &String, &PodTotals)> = evidence
        .pods
        .iter()
        .filter(|(_, pod)| pod.observed >= MIN_OBSERVED)
        .map(|(name, pod)| (value(pod), name, pod))
        .collect();
    let median = median(pods.iter().map(|pod| pod.0).collect())?;
    let highest = pods.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let mut classes = BTreeMap::<&str, Vec<f64>>::new();
    for (value, _, pod) in &pods {
        classes.entry(&pod.node_class).or_default().push(*value);
    }
    let most = |class: &Vec<f64>| class.iter().copied().fold(0.0, f64::max);
    // Where most pods are on large nodes, none is far above the median, but those on small nodes are far below it.
    let is_apart = classes.values().any(|class| FACTOR * most(class) <= highest.0);
    let is_skewed = highest.0 >= FACTOR * median || is_apart;
    if pods.len() < MIN_PODS || !is_skewed || median <= 0.0 {
        return None;
    }
    let above: Vec<f64> = pods.iter().map(|pod| pod.0).filter(|value| *value >= FACTOR * median).collect();
    let alike = |class: &Vec<f64>| {
        self::median(class.clone()).is_some_and(|median| most(class) < FACTOR * median || most(class) <= 0.0)
    };
    let spread = classes.iter().filter_map(|(class, values)| {
        Some(ClassSpread {
            node_class: (*class).to_owned(),
            pods: values.len(),
            median: self::median(values.clone())?,
            highest: most(values),
            value: None,
        })
    });
    let spread: Vec<ClassSpread> = spread.collect();
    Some(Skew {
        resource,
        above: above.len(),
        pods: pods.len(),
        share: above.iter().sum::<f64>() / pods.iter().map(|pod| pod.0).sum::<f64>(),
        highest: highest.0 / median,
        pod: highest.1.clone(),
        by_node_class: classes.len() > 1 && classes.values().all(alike),
        classes: if spread.len() > 1 { spread } else { Vec::new() },
        saved: None,
    })
}

/// The lower median.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::{container, workload};

    fn pods(each: &[(u64, &str)]) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        for (at, (cpu_millis, class)) in each.iter().enumerate() {
            let totals = PodTotals {
                observed: 7200,
                cpu_millis: *cpu_millis,
                peak: 1,
                node_class: (*class).to_owned(),
            };
            evidence.pods.insert(format!("web-{at}"), totals);
        }
        evidence
    }

    #[test]
    fn one_pod_above_the_others_is_skewed() {
        let found = find(&pods(&[(8000, ""), (1000, ""), (1000, ""), (2000, "")]));
        let [skew] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((skew.above, skew.pods, skew.highest, skew.by_node_class), (2, 4, 8.0, false));
        assert!((skew.share - 10.0 / 12.0).abs() < 1e-9 && skew.pod == "web-0");
    }

    #[test]
    fn node_classes_can_explain_skew() {
        let found = find(&pods(&[
            (8000, "large"),
            (1000, "small"),
            (1100, "small"),
            (9000, "large"),
            (1000, "small"),
        ]));
        assert!(found[0].by_node_class);
        let spread: Vec<_> =
            found[0].classes.iter().map(|it| (it.node_class.as_str(), it.pods, it.highest)).collect();
        assert_eq!(spread, [("large", 2, 9000.0 / 7200.0 / 1000.0), ("small", 3, 1100.0 / 7200.0 / 1000.0)]);
        let text = found[0].to_string();
        assert!(text.contains("by node class: large") && text.contains("(3 pods)"), "{text}");
    }

    #[test]
    fn equal_idle_and_few_pods_are_not_skewed() {
        assert_eq!(find(&pods(&[(1000, ""), (1100, ""), (900, "")])), []);
        assert_eq!(find(&pods(&[(0, ""), (0, ""), (900, "")])), []);
        assert_eq!(find(&pods(&[(1, ""), (900, "")])), []);
        assert_eq!(find(&pods(&[])), []);
    }
}
