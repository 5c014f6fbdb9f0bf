//! The report of `snug recommend`, independent of the output format.

use std::{collections::BTreeMap, fmt};

use rayon::prelude::*;
use serde::Serialize;
use snug_sizing::{
    constraints::{Adjusted, Resource, Scaled, Violation},
    cost::Prices,
    engine::{self, Confidence, Context, Pools, Reason, Recommendation, Risk, SoFar},
    evidence::{Evidence, HOUR},
    pod::PodRequests,
    start_up::StartUp,
    workload::{Resources, Role},
};

use super::placement::{Placement, why_gone};
pub use super::quantities::{Pair, PodResources, Quantities};
use crate::{
    cluster::{EmptiedNodes, Occupancy, WorkloadObjects},
    evidence::{Gone, Snapshot},
    policy::Policies,
    renamed,
};

/// Hours of a month: a twelfth of a year.
const MONTH_HOURS: f64 = 730.0;
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
    /// Cost of requests; `None` without prices.
    pub cost: Option<Cost>,
    /// Nodes that packing could empty; `None` without prices or without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emptied: Option<EmptiedNodes>,
    /// The objects that the recommendations are applied to; empty without a cluster.
    #[serde(skip)]
    pub objects: WorkloadObjects,
}

/// Cost of the requests of all pods for a month of 730 hours at list prices. Containers without a current or a recommended
/// request are left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Cost {
    /// Cost of current requests.
    pub month_now: f64,
    /// Cost of recommended requests. Money is saved only when nodes are removed.
    pub month_then: f64,
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
    /// Running pods.
    pub replicas: u64,
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

/// A warning before a recommendation is applied, as a sentence and as data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    pub text: String,
    /// The container, if it is one without a recommendation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(flatten, serialize_with = "renamed::violation")]
    pub kind: WarningKind,
}

/// The cause of a warning.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum WarningKind {
    /// The cluster would reject the recommendation, or cannot apply it.
    Violation(Violation),
    /// The cluster would reject the values that annotations give to a container which a patch cannot size.
    OfAnnotations(Violation),
    /// A value was changed so that the cluster accepts the recommendation.
    Adjusted(Adjusted),
    /// A HorizontalPodAutoscaler scales on the utilization of the request, so its target must change with the request.
    Autoscaled(Scaled),
    /// Another object changes requests or replicas of the workload.
    Managed { kind: &'static str, name: String },
    /// Something stands between the recommendation and the object that it is for.
    Placement(Placement),
}

impl WarningKind {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Violation(violation) if violation.is_refusal())
    }
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => violation.fmt(f),
            Self::OfAnnotations(violation) => write!(f, "with these annotations: {violation}"),
            Self::Adjusted(adjusted) => adjusted.fmt(f),
            Self::Autoscaled(Scaled { autoscaler, container, resource, target_now, target, raised }) => {
                write!(f, "the HorizontalPodAutoscaler {autoscaler} scales on {resource} utilization")?;
                if let Some(container) = container {
                    write!(f, " of the container {container}")?;
                }
                write!(
                    f,
                    ": change its target from {target_now} % to {target} % together with the request, to keep scaling at the same load"
                )?;
                match (raised, target) {
                    (true, ..=90) => {
                        f.write_str("; the request was raised to keep the target at or below 90 %")
                    }
                    _ => Ok(()),
                }
            }
            Self::Managed { kind: kind @ "VerticalPodAutoscaler", name } => {
                write!(f, "the {kind} {name} also sets requests of this workload: use only one of the two")
            }
            Self::Managed { kind, name } => write!(f, "the {kind} {name} scales this workload"),
            Self::Placement(placement) => placement.fmt(f),
        }
    }
}

impl Warning {
    /// A warning about a container that has no recommendation, and so no entry of its own.
    pub fn about(container: &str, kind: WarningKind) -> Self {
        Self { text: format!("container {container}: {kind}"), container: Some(container.to_owned()), kind }
    }
}

impl From<WarningKind> for Warning {
    fn from(kind: WarningKind) -> Self {
        Self { text: kind.to_string(), container: None, kind }
    }
}

/// A container without a recommendation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Skipped {
    /// The cluster, if the source has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    pub namespace: String,
    pub workload: String,
    pub container: String,
    pub why: String,
    /// OOM kills in the history, where nothing can be recommended for lack of any usage.
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kills: usize,
}

const fn is_zero(count: &usize) -> bool {
    *count == 0
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
            cost: None,
            emptied: None,
            objects: WorkloadObjects::default(),
        };
        let gone = Gone::new(snapshot);
        let mut selected = snapshot.with_qos();
        selected.retain(|(evidence, _)| select(evidence));
        let recommend = |(evidence, qos): &(&Evidence, _)| match policies.for_container(evidence) {
            Some(policy) => match gone.since(evidence) {
                Some(gone) => Err((why_gone(gone), 0)),
                None => {
                    let context = Context { pool: pools.of(evidence), qos: *qos, previous: None };
                    engine::recommend(evidence, &policy, context)
                        .map_err(|error| (error.to_string(), evidence.kills().count()))
                }
            },
            None => Err(("excluded by a policy".to_owned(), 0)),
        };
        let recommendation: Vec<Result<Recommendation, (String, usize)>> =
            selected.par_iter().map(recommend).collect();
        for ((evidence, _), recommendation) in selected.into_iter().zip(recommendation) {
            match recommendation {
                Ok(recommendation) => report.recommendations.push(Entry::new(evidence, &recommendation)),
                Err((why, oom_kills)) => report.skipped.push(Skipped {
                    cluster: String::new(),
                    oom_kills,
                    namespace: evidence.workload.namespace.clone(),
                    workload: evidence.workload.name.clone(),
                    container: evidence.container.name.clone(),
                    why,
                }),
            }
        }
        report
    }

    /// Cost of requests at list prices.
    pub fn cost_at(&self, prices: Prices) -> Cost {
        let [cpu, memory] = self.requested();
        let month = |cpu, memory| prices.hourly_cost(PodRequests { cpu, memory }) * MONTH_HOURS;
        Cost { month_now: month(cpu.0, memory.0), month_then: month(cpu.1, memory.1) }
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

    /// Sums of current and of recommended requests over all pods: millicores and bytes. Containers without one of the two are left
    /// out. Pods with requests of their own count with those.
    pub fn requested(&self) -> [(u64, u64); 2] {
        let of_workload = |resource: Resource, entries: &[Entry]| {
            let own = entries.iter().find_map(|entry| {
                let own = entry.pod_resources.as_ref()?;
                let both = resource.request(&own.current).zip(resource.request(&own.recommended))?;
                Some((both, entries.iter().map(|entry| entry.replicas).max()?))
            });
            let each = entries.iter().filter_map(move |entry| {
                let both = resource.request(&entry.current).zip(resource.request(&entry.recommended))?;
                Some((both, entry.replicas))
            });
            own.map_or_else(|| each.collect(), |own| vec![own])
        };
        let sum = |resource| {
            let workloads = self.recommendations.chunk_by(Entry::is_of_one_workload);
            let all = workloads.flat_map(|entries| of_workload(resource, entries));
            all.fold((0_u64, 0_u64), |sum, ((now, then), replicas)| {
                let add = |sum: u64, each: u64| sum.saturating_add(each.saturating_mul(replicas));
                (add(sum.0, now), add(sum.1, then))
            })
        };
        [sum(Resource::Cpu), sum(Resource::Memory)]
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
            replicas: evidence.workload.replicas,
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
            in_template: InTemplate::default(),
            warnings: Vec::new(),
        }
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
