//! The report of `snug recommend`, independent of the output format.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;
use snug_sizing::{
    engine::{
        self, Confidence, Context, Pools, Reason, Recommendation, Risk, SoFar, cpu,
        memory::{self, MemorySize},
    },
    evidence::{Evidence, HOUR},
    simulate,
    start_up::StartUp,
    workload::{Resources, Role},
};

pub use super::{
    cost::{Cost, Total},
    issue::{Issue, Savings},
    quantities::{Pair, PodResources, Quantities},
    skipped::{SkipReason, Skipped},
    warning::{Warning, WarningKind},
};
use crate::{
    cluster::{EmptiedNodes, Occupancy, WorkloadObjects},
    evidence::{Gone, Snapshot},
    policy::Policies,
    renamed,
};

/// Schema of the report. Within the number after the slash, fields are only added.
pub const SCHEMA: &str = "snug.recommendations/1";

/// Recommendations for the selected containers of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Report {
    pub schema: &'static str,
    /// Each cluster on its own, if the source has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<OfCluster>,
    /// The period and nodes of the evidence.
    pub window: Window,
    /// The accepted risk of workloads without their own policy.
    pub risk: Risk,
    /// Asked and delivered at that risk, on this cluster so far; of several clusters, that of the first.
    pub delivered: SoFar,
    /// Days for which the memory limit of a growing container must last, for workloads without their own policy.
    pub horizon_days: f64,
    /// Recommendations, sorted by namespace, workload and container.
    pub recommendations: Vec<Entry>,
    /// Containers without a recommendation.
    #[serde(flatten, serialize_with = "renamed::skipped")]
    pub skipped: Vec<Skipped>,
    /// Sums of requests by namespace, or by the value of `group_by`.
    pub totals: Vec<Total>,
    /// Sums of requests of everything.
    pub total: Total,
    /// The label of pods that `totals` are by, instead of by namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// Recommendations that were left out by `--top` or `--min-change`; totals count them.
    pub left_out: usize,
    /// Cost of requests; `None` without prices.
    pub cost: Option<Cost>,
    /// Nodes that packing could empty; `None` without prices or without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emptied: Option<EmptiedNodes>,
    /// The objects that the recommendations are applied to; empty without a cluster.
    #[serde(skip)]
    pub objects: WorkloadObjects,
}

/// One of several clusters.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct OfCluster {
    /// The value of the label that names it.
    pub cluster: String,
    pub window: Window,
    /// Cost of its requests; `None` without prices.
    pub cost: Option<Cost>,
    pub delivered: SoFar,
}

/// The period and nodes of the evidence.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Window {
    /// Nodes with evidence.
    pub nodes: Vec<String>,
    /// Beginning of the first hour, seconds since the Unix epoch.
    pub from: Option<u64>,
    /// End of the last hour, or the time of the snapshot if that is earlier.
    pub to: Option<u64>,
    /// Container-days observed.
    pub container_days: f64,
}

/// The recommendation for one container of a workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Entry {
    /// The cluster, if the source has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Namespace; empty on a host without Kubernetes.
    pub namespace: String,
    /// Kind of the owner.
    pub owner: String,
    pub workload: String,
    /// Name of the container; empty for a systemd unit.
    pub container: String,
    /// Role of the container in its pod.
    pub role: Role,
    /// The value of the label that rows are grouped by; `None` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Running pods.
    pub replicas: u64,
    /// The worst that is wrong with the current values.
    pub issue: Issue,
    /// Requests that all pods no longer need.
    pub savings: Savings,
    /// Current requests and limits, millicores and bytes.
    pub current: Resources,
    /// Recommended requests and limits, millicores and bytes.
    pub recommended: Resources,
    /// Recommended requests and limits as Kubernetes quantities.
    pub quantities: Quantities,
    /// Requests and limits of the whole pod, which its containers share; `None` without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_resources: Option<PodResources>,
    /// Expected OOM kills per pod-day; `None` without memory usage.
    pub oom_kills_per_pod_day: Option<Change>,
    /// Share of CPU time above the request; `None` without CPU usage.
    pub cpu_work_above_request: Option<Change>,
    /// Share of CFS periods that the current CPU limit throttled in the last day; `None` without a limit or its counters.
    pub throttled_periods: Option<f64>,
    /// The same as `asked_risk`.
    pub risk: Risk,
    /// The risk that the user accepts, on average over all workloads with the same risk.
    pub asked_risk: Risk,
    pub delivered: SoFar,
    /// OOM kills per pod-day that are expected of this container with the recommended values; `None` without memory usage.
    pub expected_oom_kills_per_pod_day: Option<f64>,
    /// Share of this container's CPU time that is expected above the recommended request; `None` without CPU usage.
    pub expected_cpu_work_above: Option<f64>,
    /// CPU usage above the recommended request after starts, as `startupBoost` of a VerticalPodAutoscaler wants it: `factor` and
    /// `seconds`; `None` without any, or where it is not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_up: Option<StartUp>,
    /// How much usage history there is.
    pub confidence: Confidence,
    /// Container-days observed.
    pub container_days: f64,
    /// Reasons, the most important first.
    pub reasons: Vec<ReasonText>,
    /// Values at a looser and at a stricter risk, where an output has them.
    #[serde(skip)]
    pub bounds: Option<[Resources; 2]>,
    /// Inputs of the memory limit, for the risk at other limits.
    #[serde(skip)]
    pub memory: Option<MemorySize>,
    /// Whether the pod template has the container; decided by [`Report::place`].
    #[serde(skip)]
    pub in_template: InTemplate,
    /// Warnings before the recommendation is applied. Warnings about the whole pod are those of its first container.
    #[serde(flatten, serialize_with = "renamed::warnings")]
    pub warnings: Vec<Warning>,
}

/// Whether a pod template has a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InTemplate {
    /// As far as it is known.
    #[default]
    Yes,
    /// The container has the name of one that a webhook adds, but the source of the history does not show the pods.
    Perhaps,
    /// A patch of the template cannot size the container.
    No,
}

/// A number with the current value and with the recommended one. `now` is `None` if no limit or request is set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// With the current value.
    pub now: Option<f64>,
    /// With the recommended value.
    pub then: f64,
}

/// A reason as a sentence and as data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonText {
    pub text: String,
    #[serde(flatten)]
    pub reason: Reason,
}

impl Report {
    /// Makes recommendations for the containers that `select` selects, calibrated by the past of the cluster.
    pub fn make(
        snapshot: &Snapshot,
        pools: &Pools,
        policies: &Policies,
        select: impl Fn(&Evidence) -> bool,
    ) -> Self {
        let mut report = Self {
            schema: SCHEMA,
            clusters: Vec::new(),
            window: Window::new(snapshot),
            risk: policies.default_policy().risk,
            delivered: pools.of_cluster().so_far(policies.default_policy().risk),
            horizon_days: policies.default_policy().horizon_days,
            recommendations: Vec::new(),
            skipped: Vec::new(),
            totals: Vec::new(),
            total: Total::default(),
            group_by: None,
            left_out: 0,
            cost: None,
            emptied: None,
            objects: WorkloadObjects::default(),
        };
        let gone = Gone::new(snapshot);
        let mut selected = snapshot.with_qos();
        selected.retain(|(evidence, _)| select(evidence));
        let recommend = |(evidence, qos): &(&Evidence, _)| match policies.for_container(evidence) {
            Some(policy) => match gone.since(evidence) {
                Some(gone) => Err((SkipReason::Gone(gone), 0)),
                None => {
                    let context = Context { pool: pools.of(evidence), qos: *qos, previous: None };
                    engine::recommend(evidence, &policy, context)
                        .map_err(|error| (SkipReason::NotEnoughData(error), evidence.kills().count()))
                }
            },
            None => Err((SkipReason::Excluded, 0)),
        };
        let recommendation: Vec<Result<Recommendation, (SkipReason, usize)>> =
            selected.par_iter().map(recommend).collect();
        for ((evidence, _), recommendation) in selected.into_iter().zip(recommendation) {
            match recommendation {
                Ok(recommendation) => report.recommendations.push(Entry::new(evidence, &recommendation)),
                Err((reason, oom_kills)) => report.skipped.push(Skipped {
                    cluster: String::new(),
                    oom_kills,
                    namespace: evidence.workload.namespace.clone(),
                    workload: evidence.workload.name.clone(),
                    container: evidence.container.name.clone(),
                    reason,
                }),
            }
        }
        report
    }

    /// Nodes that packing could empty.
    pub fn emptied(&self, snapshot: &Snapshot, occupancy: &Occupancy) -> EmptiedNodes {
        let key = |workload: (&str, &str, &str), container: &str| {
            [workload.0, workload.1, workload.2, container].map(str::to_owned)
        };
        let entries: BTreeMap<[String; 4], Resources> = self
            .recommendations
            .iter()
            .map(|entry| {
                let Entry { namespace, owner, workload, container, recommended, .. } = entry;
                (key((namespace, owner, workload), container), *recommended)
            })
            .collect();
        let mut by_pod = BTreeMap::new();
        for evidence in snapshot.evidence() {
            let Evidence { workload, container, pods, .. } = evidence;
            let name = key((&workload.namespace, &workload.owner, &workload.name), &container.name);
            let Some(recommended) = entries.get(&name) else { continue };
            let all = pods.keys().map(|pod| (&*workload.namespace, pod.as_str(), &*container.name));
            by_pod.extend(all.map(|pod| (pod, *recommended)));
        }
        occupancy.emptied(&by_pod)
    }
}

impl Window {
    fn new(snapshot: &Snapshot) -> Self {
        let spans = || snapshot.evidence().filter_map(Evidence::span);
        let end = |last: u32| (u64::from(last) + 1) * HOUR;
        Self {
            nodes: snapshot.nodes.clone(),
            from: spans().map(|(first, _)| u64::from(first.0) * HOUR).min(),
            to: spans().map(|(_, last)| end(last.0)).max().map(|end| end.min(snapshot.at.max(HOUR))),
            container_days: snapshot.evidence().map(Evidence::pod_days).sum(),
        }
    }
}

impl Entry {
    fn new(evidence: &Evidence, recommendation: &Recommendation) -> Self {
        let current = evidence.container.current;
        let change = |(now, then): (f64, f64), set: bool| Change { now: set.then_some(now), then };
        let mut reasons: Vec<&Reason> = recommendation.reasons.iter().collect();
        reasons.sort_by_key(|reason| rank(reason));
        Self {
            cluster: String::new(),
            namespace: evidence.workload.namespace.clone(),
            owner: evidence.workload.owner.clone(),
            workload: evidence.workload.name.clone(),
            container: evidence.container.name.clone(),
            role: evidence.container.role,
            group: None,
            replicas: evidence.workload.replicas,
            issue: Issue::default(),
            savings: Savings::default(),
            current,
            recommended: recommendation.values,
            quantities: Quantities::from(recommendation.values),
            pod_resources: evidence.container.pod_resources.map(|own| PodResources::new(own, own)),
            oom_kills_per_pod_day: recommendation
                .oom_risk
                // OOM kills count even where the limit that was hit is not known.
                .map(|it| change(it, current.memory_limit.is_some() || it.0 > 0.0)),
            cpu_work_above_request: recommendation
                .cpu_work_above
                .map(|it| change(it, current.cpu_request.is_some())),
            throttled_periods: simulate::current_limit(evidence).map(|current| current.periods),
            risk: recommendation.risk,
            asked_risk: recommendation.risk,
            delivered: recommendation.so_far,
            expected_oom_kills_per_pod_day: recommendation.oom_risk.map(|(_, expected)| expected),
            expected_cpu_work_above: recommendation.cpu_work_above.map(|(_, expected)| expected),
            start_up: recommendation.start_up,
            confidence: recommendation.confidence,
            container_days: evidence.pod_days(),
            reasons: reasons
                .into_iter()
                .map(|it| ReasonText { text: it.to_string(), reason: it.clone() })
                .collect(),
            bounds: None,
            memory: recommendation.memory.clone(),
            in_template: InTemplate::default(),
            warnings: Vec::new(),
        }
    }

    /// Computes the risks again, after the recommended values were changed.
    pub fn expect(&mut self, evidence: &Evidence, lent: &cpu::Lent) {
        let values = self.recommended;
        if let Some((sized, limit)) = self.memory.as_ref().zip(values.memory_limit) {
            let then = memory::risk_of(limit as f64, sized);
            self.expected_oom_kills_per_pod_day = Some(then);
            self.oom_kills_per_pod_day =
                Some(Change { then, ..self.oom_kills_per_pod_day.unwrap_or(Change { now: None, then }) });
        }
        if let Some(request) = values.cpu_request.filter(|_| self.expected_cpu_work_above.is_some()) {
            let cores = request as f64 / 1000.0;
            let [then] = cpu::RequestUsage::new(evidence).expected_above([cores], lent);
            self.expected_cpu_work_above = Some(then);
            self.cpu_work_above_request =
                Some(Change { then, ..self.cpu_work_above_request.unwrap_or(Change { now: None, then }) });
            self.start_up = evidence.by_age().above(cores);
        }
    }

    /// Whether it is a unit, or a container without a known workload.
    pub fn is_of_host(&self) -> bool {
        self.namespace.is_empty()
            || matches!(self.owner.as_str(), "" | "Unknown" | "Unit" | "Cgroup" | "Container")
    }

    /// Whether both are containers of one workload.
    pub fn is_of_one_workload(&self, other: &Self) -> bool {
        (&self.cluster, self.workload_names()) == (&other.cluster, other.workload_names())
    }

    /// Namespace, kind and name of the owner.
    pub fn workload_names(&self) -> [&str; 3] {
        [&self.namespace, &self.owner, &self.workload]
    }

    /// Namespace, kind and name of the owner, and name of the container.
    pub fn subject(&self) -> [&str; 4] {
        [&self.namespace, &self.owner, &self.workload, &self.container]
    }

    /// Why the API server would refuse the pods of a patched workload; `None` if it would not.
    pub fn refusal(entries: &[Self]) -> Option<&str> {
        let mut warnings = entries.iter().flat_map(|entry| &entry.warnings);
        warnings.find(|warning| warning.kind.is_refusal()).map(|warning| warning.text.as_str())
    }

    /// `namespace/workload`, or the workload alone on a host.
    pub fn title(&self) -> String {
        if self.namespace.is_empty() {
            self.workload.clone()
        } else {
            format!("{}/{}", self.namespace, self.workload)
        }
    }
}

/// Position of a reason in the report: the most important is 0.
const fn rank(reason: &Reason) -> u8 {
    match reason {
        Reason::OomKill { .. } => 0,
        Reason::Leak { .. } | Reason::Partial { .. } => 1,
        Reason::Memory(note) if note.decides() => 2,
        Reason::Setting(note) if note.decides() => 2,
        Reason::Bounded { .. } => 2,
        Reason::ExpectedRisk { .. } => 3,
        Reason::Throttled { .. } | Reason::CpuLimitKept { .. } => 4,
        Reason::Kept { .. } => 5,
        Reason::Skew(_) => 6,
        Reason::MemoryBasis { .. } => 7,
        Reason::MemoryMargin { .. } => 8,
        Reason::CpuQuantile { .. } | Reason::CpuLikes { .. } | Reason::CpuDelivered { .. } => 9,
        Reason::Memory(_) | Reason::Setting(_) => 10,
        _ => 11,
    }
}
