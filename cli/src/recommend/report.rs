//! What `snug recommend` says, before it has a form.

use std::{collections::BTreeMap, fmt};

use rayon::prelude::*;
use serde::Serialize;
use snug_sizing::{
    constraints::Violation,
    cost::Prices,
    engine::{self, Confidence, Context, Pool, Reason, Recommendation, Risk},
    evidence::{Evidence, HOUR},
    pod::PodRequests,
    quantity::Quantity,
    workload::{Resources, Role},
};

use crate::{
    cluster::{EmptiedNodes, Occupancy},
    evidence::Snapshot,
    policy::Policies,
    renamed,
};

/// Hours of a month: a twelfth of a year.
const MONTH_HOURS: f64 = 730.0;
/// Form of the report. Within the number after the slash fields are only added.
pub const SCHEMA: &str = "snug.recommendations/1";

/// Recommendations for all containers of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What the evidence covers.
    pub window: Window,
    /// The risk that values were chosen for.
    pub risk: Risk,
    /// By namespace, workload and container.
    pub recommendations: Vec<Entry>,
    /// Containers without one.
    #[serde(flatten, serialize_with = "renamed::skipped")]
    pub skipped: Vec<Skipped>,
    /// What requests cost, where there are prices.
    pub cost: Option<Cost>,
    /// Nodes that could go, where a cluster was asked and there are prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emptied: Option<EmptiedNodes>,
}

/// What the requests of all pods cost in a month of 730 hours at list prices, of containers where both are known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Cost {
    /// With what is in force.
    pub month_now: f64,
    /// With what is recommended. Money is saved only when nodes go.
    pub month_then: f64,
}

/// What the evidence covers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Window {
    /// Nodes whose agents were asked.
    pub nodes: Vec<String>,
    /// Beginning of the first hour seen, seconds since the Unix epoch.
    pub from: Option<u64>,
    /// End of the last hour seen, or when the snapshot was made if that is earlier.
    pub to: Option<u64>,
    /// Days of watched containers.
    pub container_days: f64,
}

/// A container of a workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Entry {
    /// Namespace; empty on a host.
    pub namespace: String,
    /// Kind of the owner.
    pub owner: String,
    /// Name of the owner.
    pub workload: String,
    /// Name of the container; empty for a unit.
    pub container: String,
    /// What it is to its pod.
    pub role: Role,
    /// Pods that run now.
    pub replicas: u64,
    /// In force: millicores and bytes.
    pub current: Resources,
    /// Recommended: millicores and bytes.
    pub recommended: Resources,
    /// The same as Kubernetes writes quantities.
    pub quantities: Quantities,
    /// OOM kills per pod-day to expect; `None` where no memory use is known.
    pub oom_kills_per_pod_day: Option<Change>,
    /// Share of the CPU work above the request; `None` where no CPU use is known.
    pub cpu_work_above_request: Option<Change>,
    /// The risk that its values were chosen for.
    pub risk: Risk,
    /// How much it is to be trusted.
    pub confidence: Confidence,
    /// Days of watched containers.
    pub container_days: f64,
    /// What decided, the most important first.
    pub reasons: Vec<ReasonText>,
    /// What to know before it is applied, where the cluster could be asked. What is about the whole pod stands by its first container.
    #[serde(flatten, serialize_with = "renamed::warnings")]
    pub warnings: Vec<Warning>,
}

/// Quantities as Kubernetes writes them; what is not set is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantities {
    /// Of `resources.requests`.
    pub requests: Pair,
    /// Of `resources.limits`.
    pub limits: Pair,
}

/// CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

impl From<Resources> for Quantities {
    fn from(values: Resources) -> Self {
        let cpu = |value: Option<u64>| value.map(|value| Quantity::from_millicores(value).to_string());
        let memory = |value: Option<u64>| value.map(|value| Quantity::from_bytes(value).to_string());
        Self {
            requests: Pair { cpu: cpu(values.cpu_request), memory: memory(values.memory_request) },
            limits: Pair { cpu: cpu(values.cpu_limit), memory: memory(values.memory_limit) },
        }
    }
}

/// Before and after. `now` is `None` where nothing is in force: without a limit there is no kill at it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// With what is in force.
    pub now: Option<f64>,
    /// With what is recommended.
    pub then: f64,
}

/// A reason, with its words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonText {
    /// The sentence.
    pub text: String,
    /// What it is made of.
    #[serde(flatten)]
    pub reason: Reason,
}

/// Something to know before a proposal is applied, with its words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// The sentence.
    pub text: String,
    /// What it is made of.
    #[serde(flatten, serialize_with = "renamed::violation")]
    pub about: WarningKind,
}

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum WarningKind {
    /// The cluster would refuse it, or cannot do it.
    Violation(Violation),
    /// A HorizontalPodAutoscaler goes by the request: its target is to be changed with it.
    Autoscaled {
        /// Name of the HorizontalPodAutoscaler.
        autoscaler: String,
        /// `cpu` or `memory`.
        resource: &'static str,
        /// `averageUtilization` now, percent.
        target_now: u32,
        /// The one that belongs to the request recommended here.
        target: u32,
        /// Whether the request is higher than use alone would have it, or it would be lowered again and again.
        raised: bool,
    },
    /// Something else changes requests or replicas of the workload.
    Managed {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(objection) => objection.fmt(f),
            Self::Autoscaled { autoscaler, resource, target_now, target, raised } => {
                write!(
                    f,
                    "the HorizontalPodAutoscaler {autoscaler} goes by {resource}: set its target from {target_now} % to {target} % together \
                     with the request, or it will scale at another load"
                )?;
                if *raised {
                    f.write_str("; the request is as low as a target below 90 % allows")
                } else {
                    Ok(())
                }
            }
            Self::Managed { kind: kind @ "VerticalPodAutoscaler", name } => {
                write!(f, "the {kind} {name} sets requests of this workload, too: let one of both do it")
            }
            Self::Managed { kind, name } => write!(f, "the {kind} {name} scales this workload"),
        }
    }
}

impl From<WarningKind> for Warning {
    fn from(about: WarningKind) -> Self {
        Self { text: about.to_string(), about }
    }
}

/// A container without a recommendation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Skipped {
    /// Namespace.
    pub namespace: String,
    /// Name of the owner.
    pub workload: String,
    /// Name of the container.
    pub container: String,
    /// Why.
    pub why: String,
}

impl Report {
    /// Of all evidence; `chosen` says of which containers there shall be recommendations. The others are in the pool.
    pub fn make(snapshot: &Snapshot, policies: &Policies, chosen: impl Fn(&Evidence) -> bool) -> Self {
        let pool = pool(snapshot, policies);
        let mut report = Self {
            schema: SCHEMA,
            window: Window::new(snapshot),
            risk: policies.default_policy().risk,
            recommendations: Vec::new(),
            skipped: Vec::new(),
            cost: None,
            emptied: None,
        };
        let mut of_chosen = snapshot.with_qos();
        of_chosen.retain(|(evidence, _)| chosen(evidence));
        let of_one = |(evidence, qos): &(&Evidence, _)| match policies.of(evidence) {
            Some(policy) => {
                let context = Context { pool, qos: *qos, previous: None };
                engine::recommend(evidence, &policy, context).map_err(|refusal| refusal.to_string())
            }
            None => Err("excluded by its policy".to_owned()),
        };
        let said: Vec<Result<Recommendation, String>> = of_chosen.par_iter().map(of_one).collect();
        for ((evidence, _), said) in of_chosen.into_iter().zip(said) {
            match said {
                Ok(said) => report.recommendations.push(Entry::new(evidence, &said)),
                Err(why) => report.skipped.push(Skipped {
                    namespace: evidence.workload.namespace.clone(),
                    workload: evidence.workload.name.clone(),
                    container: evidence.container.name.clone(),
                    why,
                }),
            }
        }
        report
    }

    /// What the requests cost.
    pub fn cost_at(&self, prices: Prices) -> Cost {
        let [cpu, memory] = self.requested();
        let month = |cpu, memory| prices.hourly_cost(PodRequests { cpu, memory }) * MONTH_HOURS;
        Cost { month_now: month(cpu.0, memory.0), month_then: month(cpu.1, memory.1) }
    }

    /// Nodes that could go with what is recommended.
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

    /// Requests of all pods, now and then, of containers where both are known: millicores and bytes.
    pub fn requested(&self) -> [(u64, u64); 2] {
        let sum = |pick: fn(&Resources) -> Option<u64>| {
            let all = self.recommendations.iter().filter_map(|entry| {
                let [now, then] = [pick(&entry.current)?, pick(&entry.recommended)?];
                Some((now.saturating_mul(entry.replicas), then.saturating_mul(entry.replicas)))
            });
            all.fold((0_u64, 0_u64), |sum, it| (sum.0.saturating_add(it.0), sum.1.saturating_add(it.1)))
        };
        [sum(|values| values.cpu_request), sum(|values| values.memory_request)]
    }
}

/// What the past of all workloads says of the rule.
pub fn pool(snapshot: &Snapshot, policies: &Policies) -> Pool {
    let rule = policies.default_policy().rule;
    let all: Vec<&Evidence> = snapshot.evidence().collect();
    let tallies: Vec<engine::Tally> =
        all.par_iter().map(|evidence| engine::memory::tally(evidence, rule)).collect();
    // In their order: sums of fractions depend on it.
    tallies.into_iter().fold(Pool::default(), |mut pool, tally| {
        pool.memory.merge(tally);
        pool
    })
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
    fn new(evidence: &Evidence, said: &Recommendation) -> Self {
        let force = evidence.container.current;
        let change = |(now, then): (f64, f64), set: bool| Change { now: set.then_some(now), then };
        let mut reasons: Vec<&Reason> = said.reasons.iter().collect();
        reasons.sort_by_key(|reason| rank(reason));
        Self {
            namespace: evidence.workload.namespace.clone(),
            owner: evidence.workload.owner.clone(),
            workload: evidence.workload.name.clone(),
            container: evidence.container.name.clone(),
            role: evidence.container.role,
            replicas: evidence.workload.replicas,
            current: force,
            recommended: said.values,
            quantities: Quantities::from(said.values),
            oom_kills_per_pod_day: said.oom_risk.map(|it| change(it, force.memory_limit.is_some())),
            cpu_work_above_request: said.cpu_work_above.map(|it| change(it, force.cpu_request.is_some())),
            risk: said.risk,
            confidence: said.confidence,
            container_days: evidence.pod_days(),
            reasons: reasons
                .into_iter()
                .map(|it| ReasonText { text: it.to_string(), reason: it.clone() })
                .collect(),
            warnings: Vec::new(),
        }
    }

    /// Whether both are containers of one workload.
    pub fn is_of_one_workload(&self, other: &Self) -> bool {
        (&self.namespace, &self.owner, &self.workload) == (&other.namespace, &other.owner, &other.workload)
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

/// What one would tell first.
const fn rank(reason: &Reason) -> u8 {
    match reason {
        Reason::OomKill { .. } => 0,
        Reason::Leak { .. } => 1,
        Reason::Bounded { .. } => 2,
        Reason::Kept { .. } => 3,
        Reason::Skew(_) => 4,
        Reason::MemoryBasis { .. } => 5,
        Reason::MemoryMargin { .. } => 6,
        Reason::CpuQuantile { .. } => 7,
        _ => 8,
    }
}
