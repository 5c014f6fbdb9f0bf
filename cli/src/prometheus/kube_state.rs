//! What kube-state-metrics says of pods: requests and limits, owners, roles of containers, autoscalers. All of it over the whole
//! period, because pods and ReplicaSets disappear from it when they are deleted.

use std::collections::BTreeMap;

use snug_sizing::{
    constraints::{Resource, UtilizationTarget},
    workload::{Resources, Role, names},
};

use super::{
    error::PrometheusError,
    matcher::{Comparison, Matcher, Selection},
    query::{Aggregate, At, ContainerKey, Function, KEY, Labels, Query, containers, own},
    reader::{Period, Reader},
};
use crate::{advice::CommandRule, cluster::Autoscaler};

const REQUESTS: [&str; 2] =
    ["kube_pod_container_resource_requests", "kube_pod_init_container_resource_requests"];
const LIMITS: [&str; 2] = ["kube_pod_container_resource_limits", "kube_pod_init_container_resource_limits"];
const INIT: [&str; 1] = ["kube_pod_init_container_info"];
const POD_OWNER: [&str; 1] = ["kube_pod_owner"];
const SET_OWNER: [&str; 1] = ["kube_replicaset_owner"];
const JOB_OWNER: [&str; 1] = ["kube_job_owner"];
const MEMORY_LIMIT: [&str; 1] = ["container_spec_memory_limit_bytes"];
const CPU_QUOTA: [&str; 1] = ["container_spec_cpu_quota"];
const CPU_PERIOD: [&str; 1] = ["container_spec_cpu_period"];
const HPA_INFO: [&str; 1] = ["kube_horizontalpodautoscaler_info"];
const HPA_TARGET: [&str; 1] = ["kube_horizontalpodautoscaler_spec_target_metric"];
const OWNER: [&str; 3] = ["owner_kind", "owner_name", "owner_is_controller"];

/// Values of this size and above mean "no limit": cgroups have the largest number of their kind for it, with or without the
/// last bits of a page.
const UNLIMITED: f64 = (1_u64 << 62) as f64;

/// A limit; `None` if it is none.
pub(super) fn limit(value: f64) -> Option<f64> {
    let is_unlimited = CommandRule::Unlimited.is_on() && value >= UNLIMITED;
    (value > 0.0 && !is_unlimited).then_some(value)
}

/// Namespace and name of an object.
type Name = (String, String);

/// Kind and name of an owner; `None` if an object has none.
type Owner = Option<(String, String)>;

/// What is known of pods and their containers.
#[derive(Debug, Default)]
pub(super) struct KubeState {
    /// Requests and limits by container.
    pub(super) resources: BTreeMap<ContainerKey, Resources>,
    roles: BTreeMap<ContainerKey, Role>,
    pods: BTreeMap<Name, Owner>,
    replica_sets: BTreeMap<Name, Owner>,
    jobs: BTreeMap<Name, Owner>,
    /// HorizontalPodAutoscalers with a target for the utilization of a request.
    pub(super) autoscalers: Vec<Autoscaler>,
    /// Whether there are any series of pods.
    pub(super) is_present: bool,
}

impl KubeState {
    /// Reads it.
    ///
    /// # Errors
    /// When a query fails.
    pub(super) fn read(
        reader: &Reader<'_>,
        selection: &Selection,
        period: Period,
    ) -> Result<Self, PrometheusError> {
        let mut state = Self::default();
        reader.begin("requests and limits");
        state.read_resources(reader, selection, period)?;
        reader.begin("owners");
        state.pods = owners(reader, selection, period, &POD_OWNER, "pod")?;
        state.replica_sets = owners(reader, selection, period, &SET_OWNER, "replicaset")?;
        state.jobs = owners(reader, selection, period, &JOB_OWNER, "job_name")?;
        reader.begin("init containers");
        let init = |seconds| {
            let by: Vec<&str> = KEY.into_iter().chain(["restart_policy"]).collect();
            Query::new(&INIT, selection).over(Function::LastOverTime, seconds).by(Aggregate::Max, &by)
        };
        reader.whole(init, (period.from, period.end), |series, _| {
            for (key, labels, _) in containers(series) {
                let restarts = labels.get("restart_policy").is_some_and(|policy| policy == "Always");
                state.roles.insert(key, if restarts { Role::Sidecar } else { Role::Init });
            }
        })?;
        reader.begin("autoscalers");
        state.autoscalers = autoscalers(reader, selection, period)?;
        state.is_present = !state.pods.is_empty();
        Ok(state)
    }

    fn read_resources(
        &mut self,
        reader: &Reader<'_>,
        selection: &Selection,
        period: Period,
    ) -> Result<(), PrometheusError> {
        let span = (period.from, period.end);
        let of_kubelet = |metrics| {
            move |seconds| {
                Query::of_containers(metrics, selection)
                    .over(Function::LastOverTime, seconds)
                    .by(Aggregate::Max, &KEY)
            }
        };
        // Values of kube-state-metrics come last and replace the others.
        reader.whole(of_kubelet(&MEMORY_LIMIT), span, |series, _| {
            for (key, _, bytes) in containers(series) {
                self.resources.entry(key).or_default().memory_limit = limit(bytes).map(|bytes| bytes as u64);
            }
        })?;
        let mut quotas = BTreeMap::new();
        reader.whole(of_kubelet(&CPU_QUOTA), span, |series, _| {
            quotas.extend(containers(series).map(|(key, _, quota)| (key, limit(quota))));
        })?;
        if quotas.values().any(Option::is_some) {
            reader.whole(of_kubelet(&CPU_PERIOD), span, |series, _| {
                for (key, _, length) in containers(series) {
                    let quota = quotas.get(&key).copied().flatten().filter(|_| length > 0.0);
                    self.resources.entry(key).or_default().cpu_limit =
                        quota.map(|quota| (quota / length * 1000.0).round() as u64);
                }
            })?;
        }
        type Field = fn(&mut Resources) -> (&mut Option<u64>, &mut Option<u64>);
        let of_state: [(&'static [&'static str], Field); 2] = [
            (&LIMITS, |it| (&mut it.cpu_limit, &mut it.memory_limit)),
            (&REQUESTS, |it| (&mut it.cpu_request, &mut it.memory_request)),
        ];
        for (metrics, field) in of_state {
            let query = |seconds| {
                let by: Vec<&str> = KEY.into_iter().chain(["resource"]).collect();
                Query::new(metrics, selection)
                    .matching(Matcher::new("resource", Comparison::Regex, "cpu|memory"))
                    .over(Function::LastOverTime, seconds)
                    .by(Aggregate::Max, &by)
            };
            reader.whole(query, span, |series, _| {
                for (key, labels, value) in containers(series) {
                    let (cpu, memory) = field(self.resources.entry(key).or_default());
                    match labels.get("resource").map(String::as_str) {
                        Some("cpu") => *cpu = limit(value).map(|cores| (cores * 1000.0).round() as u64),
                        _ => *memory = limit(value).map(|bytes| bytes as u64),
                    }
                }
            })?;
        }
        Ok(())
    }

    /// The role of a container. Pods that were deleted are like others of their workload.
    pub(super) fn role(&self, key: &ContainerKey) -> Role {
        if !CommandRule::RolesFromState.is_on() {
            return Role::App;
        }
        self.roles.get(key).copied().unwrap_or_default()
    }

    /// Kind and name of the workload of a pod, which ran from `first` to `last`; `None` if nothing is known of the pod.
    pub(super) fn workload(
        &self,
        namespace: &str,
        pod: &str,
        (first, last): (u64, u64),
    ) -> Option<(String, String)> {
        let name = |name: &str| (namespace.to_owned(), name.to_owned());
        let owned = |kind: &str, name: &str| Some((kind.to_owned(), name.to_owned()));
        let Some((kind, owner)) = self.pods.get(&name(pod))? else { return owned("Pod", pod) };
        let by_name = CommandRule::OwnersByName.is_on();
        match kind.as_str() {
            "ReplicaSet" => match self.replica_sets.get(&name(owner)) {
                Some(Some(of_set)) => Some(of_set.clone()),
                Some(None) => owned("ReplicaSet", owner),
                // The metric is missing: the name has the hash of the Deployment's template.
                None => match names::deployment_of_replica_set(owner).filter(|_| by_name) {
                    Some(deployment) => owned("Deployment", deployment),
                    None => owned("ReplicaSet", owner),
                },
            },
            "Job" => match self.jobs.get(&name(owner)) {
                Some(Some(of_job)) => Some(of_job.clone()),
                Some(None) => owned("Job", owner),
                None => match names::cron_job_of_job(owner, first, last).filter(|_| by_name) {
                    Some(cron_job) => owned("CronJob", cron_job),
                    None => owned("Job", owner),
                },
            },
            "Node" => owned("StaticPod", if by_name { names::static_pod(pod, owner) } else { pod }),
            _ => owned(kind, owner),
        }
    }

    /// All pods with known owners: namespace and workload.
    pub(super) fn workloads(&self) -> BTreeMap<(String, String), String> {
        let all = self.pods.keys().filter_map(|(namespace, pod)| {
            let (kind, name) = self.workload(namespace, pod, (0, u64::MAX))?;
            Some(((namespace.clone(), name), kind))
        });
        all.collect()
    }
}

/// The owners of objects by namespace and the label `of` with their name. The controller counts, else the only owner.
fn owners(
    reader: &Reader<'_>,
    selection: &Selection,
    period: Period,
    metrics: &'static [&'static str],
    of: &'static str,
) -> Result<BTreeMap<Name, Owner>, PrometheusError> {
    let exported = format!("exported_{of}");
    let by: Vec<&str> = ["namespace", "exported_namespace", of, &exported].into_iter().chain(OWNER).collect();
    let query = |seconds| {
        Query::new(metrics, selection).over(Function::LastOverTime, seconds).by(Aggregate::Max, &by)
    };
    let mut owners = BTreeMap::<Name, (bool, Owner)>::new();
    reader.whole(query, (period.from, period.end), |series, _| {
        for (labels, _) in series {
            let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
            let name = (own(&labels, "namespace").to_owned(), own(&labels, of).to_owned());
            let is_controller = label("owner_is_controller") == "true";
            let is_none = matches!(label("owner_kind"), "" | "<none>");
            let owner = (!is_none).then(|| (label("owner_kind").to_owned(), label("owner_name").to_owned()));
            let known = owners.entry(name).or_default();
            if is_controller || !known.0 {
                *known = (is_controller, owner);
            }
        }
    })?;
    Ok(owners.into_iter().map(|(name, (_, owner))| (name, owner)).collect())
}

/// The autoscalers that exist now.
fn autoscalers(
    reader: &Reader<'_>,
    selection: &Selection,
    period: Period,
) -> Result<Vec<Autoscaler>, PrometheusError> {
    const NAME: [&str; 3] = ["namespace", "exported_namespace", "horizontalpodautoscaler"];
    let read = |metrics, more: &[&'static str]| -> Result<Vec<(Labels, f64)>, PrometheusError> {
        let by: Vec<&str> = NAME.into_iter().chain(more.iter().copied()).collect();
        reader.values(&Query::new(metrics, selection).by(Aggregate::Max, &by), At::Time(period.end))
    };
    let name = |labels: &Labels| {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        (own(labels, "namespace").to_owned(), label("horizontalpodautoscaler"))
    };
    let mut all = BTreeMap::<Name, Autoscaler>::new();
    for (labels, _) in read(&HPA_INFO, &["scaletargetref_kind", "scaletargetref_name"])? {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let key = name(&labels);
        let target = (label("scaletargetref_kind"), label("scaletargetref_name"));
        let namespace = key.0.clone();
        all.insert(key, Autoscaler { namespace, target, targets: Vec::new() });
    }
    if all.is_empty() {
        return Ok(Vec::new());
    }
    for (labels, percent) in read(&HPA_TARGET, &["metric_name", "metric_target_type"])? {
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let key = name(&labels);
        let Some(known) = all.get_mut(&key) else { continue };
        let resource = Resource::ALL.into_iter().find(|it| it.to_string() == label("metric_name"));
        if let (Some(resource), "utilization") = (resource, label("metric_target_type")) {
            // `as` saturates.
            let percent = percent as u32;
            known.targets.push(UtilizationTarget { autoscaler: key.1, container: None, resource, percent });
        }
    }
    Ok(all.into_values().filter(|it| !it.targets.is_empty()).collect())
}
