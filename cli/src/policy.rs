//! Policies: settings for some workloads, from a file (`--policy`) or from annotations of pods.

#[cfg(test)]
mod page;
mod thresholds;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::Path,
};

use clap::ValueEnum;
use serde::{Deserialize, de::Error as _};
use snug_sizing::{
    engine::{CpuLimit, Policy, QosRule, Risk},
    evidence::Evidence,
    quantity::Quantity,
    workload::Resources,
};
use wildmatch::WildMatch;

use self::thresholds::ThresholdOverride;
pub use self::thresholds::{Problem, Thresholds};
use crate::{horizon::Horizon, risk};

/// The pod annotation with the same fields as an entry of a policy file.
pub const ANNOTATION: &str = "snug/policy";

/// Settings of all workloads: the command line's defaults, overridden by annotations, overridden by a policy file.
#[derive(Clone, Debug)]
pub struct Policies {
    default: Policy,
    /// By namespace and pod.
    annotated: BTreeMap<(String, String), PolicyOverride>,
    overrides: Vec<PolicyOverride>,
}

/// The policy annotation of a pod, not parsed yet.
#[derive(Clone, Debug)]
pub struct PolicyAnnotation {
    pub namespace: String,
    pub pod: String,
    pub text: String,
}

/// An error of a policy file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy file {file}; check its path and permissions")]
    Read { file: String, source: io::Error },
    /// The file is not a valid policy.
    #[error("the policy file {file} is invalid: {source}")]
    Content { file: String, source: Box<serde_saphyr::Error> },
    /// A lower bound above its upper bound.
    #[error("{policy} has a {resource} minimum of {min} above its maximum of {max}")]
    Bounds { policy: String, resource: &'static str, min: String, max: String },
    /// A policy that no container is selected by.
    #[error(
        "{policy} ({matches}) matches no container of the usage history and of the manifests; correct or remove it"
    )]
    NoMatch { policy: String, matches: String },
}

/// The policy with this number in the file, from 1.
fn numbered(number: usize) -> String {
    format!("policy {number} of the policy file")
}

/// Names of a container: namespace (if it is known), workload and container.
pub type ContainerNames<'n> = (Option<&'n str>, &'n str, &'n str);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    policies: Vec<PolicyOverride>,
}

/// Settings for the workloads that `match` selects. Absent fields keep the default or the value of an earlier override.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct PolicyOverride {
    #[serde(rename = "match")]
    matches: Match,
    exclude: Option<bool>,
    #[serde(deserialize_with = "some_risk")]
    risk: Option<Risk>,
    cpu_limit: Option<CpuLimitOption>,
    qos: Option<Qos>,
    horizon: Option<Horizon>,
    min: Bounds,
    max: Bounds,
    thresholds: ThresholdOverride,
}

/// Patterns of names with `*` as a wildcard. An absent pattern matches everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Match {
    namespace: Option<String>,
    workload: Option<String>,
    container: Option<String>,
}

/// Whether a CPU limit is recommended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CpuLimitOption {
    /// No CPU limit
    None,
    /// The smallest CPU limit that keeps throttling within the risk
    ByRisk,
}

impl From<CpuLimitOption> for CpuLimit {
    fn from(limit: CpuLimitOption) -> Self {
        match limit {
            CpuLimitOption::None => Self::None,
            CpuLimitOption::ByRisk => Self::ByRisk,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Qos {
    Keep,
    Free,
}

/// Bounds of requests and of limits.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Bounds {
    #[serde(deserialize_with = "millicores")]
    cpu: Option<u64>,
    #[serde(deserialize_with = "bytes")]
    memory: Option<u64>,
}

fn some_risk<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Risk>, D::Error> {
    let text = String::deserialize(deserializer)?;
    risk::parse(&text).map(Some).map_err(D::Error::custom)
}

fn quantity<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
    /// YAML parses `cpu: 2` as a number.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
    }
    let text = match Written::deserialize(deserializer)? {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    text.parse().map_err(D::Error::custom)
}

fn millicores<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let amount = quantity(deserializer)?.millis();
    u64::try_from(amount).map(Some).map_err(|_| D::Error::custom("the quantity is negative"))
}

fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let amount = quantity(deserializer)?.value();
    u64::try_from(amount).map(Some).map_err(|_| D::Error::custom("the quantity is negative"))
}

impl PolicyOverride {
    fn check_bounds(&self, policy: &str) -> Result<(), PolicyError> {
        let (mut min, mut max) = (Resources::default(), Resources::default());
        self.min.bound(&mut min);
        self.max.bound(&mut max);
        check_bounds(policy, &min, &max)
    }
}

impl Match {
    fn is(&self, evidence: &Evidence) -> bool {
        self.is_of((Some(&evidence.workload.namespace), &evidence.workload.name, &evidence.container.name))
    }

    /// An unknown namespace matches all.
    fn is_of(&self, (namespace, workload, container): ContainerNames<'_>) -> bool {
        let is = |pattern: &Option<String>, name: &str| {
            pattern.as_deref().is_none_or(|pattern| WildMatch::new(pattern).matches(name))
        };
        namespace.is_none_or(|namespace| is(&self.namespace, namespace))
            && is(&self.workload, workload)
            && is(&self.container, container)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            [("namespace", &self.namespace), ("workload", &self.workload), ("container", &self.container)];
        let named: Vec<String> = all
            .into_iter()
            .filter_map(|(what, pattern)| Some(format!("{what}: {}", pattern.as_deref()?)))
            .collect();
        f.write_str(if named.is_empty() { "all" } else { "" })?;
        f.write_str(&named.join(", "))
    }
}

impl Policies {
    /// The same settings for all workloads.
    pub const fn new(default: Policy) -> Self {
        Self { default, annotated: BTreeMap::new(), overrides: Vec::new() }
    }

    /// The settings of workloads without overrides.
    pub const fn default_policy(&self) -> &Policy {
        &self.default
    }

    /// Adds the overrides of a policy file.
    ///
    /// # Errors
    /// When the file cannot be read, or is invalid.
    pub fn with_file(self, path: &Path) -> Result<Self, PolicyError> {
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => self.with_text(&file, &text),
            Err(source) => Err(PolicyError::Read { file, source }),
        }
    }

    /// Adds the overrides of the text of a policy file; `file` names it in errors.
    ///
    /// # Errors
    /// When the text is invalid.
    pub fn with_text(self, file: &str, text: &str) -> Result<Self, PolicyError> {
        let parsed: File = serde_saphyr::from_str(text)
            .map_err(|source| PolicyError::Content { file: file.to_owned(), source: Box::new(source) })?;
        for (number, overrides) in parsed.policies.iter().enumerate() {
            overrides.check_bounds(&numbered(number + 1))?;
        }
        Ok(Self { overrides: parsed.policies, ..self })
    }

    /// Adds the overrides of annotations. Also returns the errors of invalid annotations, once per namespace and text.
    pub fn with_annotations(self, all: impl IntoIterator<Item = PolicyAnnotation>) -> (Self, Vec<String>) {
        let (mut annotated, mut wrong) = (BTreeMap::new(), BTreeSet::new());
        let mut errors = Vec::new();
        for PolicyAnnotation { namespace, pod, text } in all {
            let parsed = serde_saphyr::from_str::<PolicyOverride>(&text).map_err(|error| error.to_string());
            let checked = parsed.and_then(|overrides| match overrides.check_bounds("it") {
                Ok(()) => Ok(overrides),
                Err(error) => Err(error.to_string()),
            });
            match checked {
                Ok(overrides) => drop(annotated.insert((namespace, pod), overrides)),
                Err(why) => {
                    if wrong.insert((namespace.clone(), text)) {
                        let why = why.lines().next().unwrap_or_default();
                        errors.push(format!(
                            "the annotation {ANNOTATION} of the pod {namespace}/{pod} is invalid: {why}"
                        ));
                    }
                }
            }
        }
        (Self { annotated, ..self }, errors)
    }

    /// The settings of a container; `None` if it is excluded. Of several matching overrides, later ones win field by field:
    /// first annotations, then the file from top to bottom.
    pub fn for_container(&self, evidence: &Evidence) -> Option<Policy> {
        let (mut policy, mut excluded) = (self.default.clone(), false);
        let namespace = &evidence.workload.namespace;
        // The pods of a workload have different annotations only during a rollout.
        let annotated = if self.annotated.is_empty() {
            None
        } else {
            evidence.pods.keys().rev().find_map(|pod| self.annotated.get(&(namespace.clone(), pod.clone())))
        };
        let all = annotated.into_iter().chain(&self.overrides);
        for overrides in all.filter(|overrides| overrides.matches.is(evidence)) {
            excluded = overrides.exclude.unwrap_or(excluded);
            policy.risk = overrides.risk.unwrap_or(policy.risk);
            policy.cpu_limit = overrides.cpu_limit.map_or(policy.cpu_limit, CpuLimit::from);
            policy.qos = match overrides.qos {
                Some(Qos::Keep) => QosRule::Keep,
                Some(Qos::Free) => QosRule::Free,
                None => policy.qos,
            };
            policy.horizon_days = overrides.horizon.map_or(policy.horizon_days, Horizon::days);
            overrides.min.bound(&mut policy.min);
            overrides.max.bound(&mut policy.max);
        }
        (!excluded).then_some(policy)
    }

    /// What `snug check` accepts of a container.
    pub fn thresholds(&self, evidence: &Evidence) -> Thresholds {
        let mut all = Thresholds::default();
        for overrides in self.overrides.iter().filter(|overrides| overrides.matches.is(evidence)) {
            overrides.thresholds.apply(&mut all);
        }
        all
    }

    /// Checks that each policy of the file matches any of these containers, and that the bounds of several that match the same one
    /// leave something between them.
    ///
    /// # Errors
    /// When one does not.
    pub fn check(&self, containers: &[ContainerNames<'_>]) -> Result<(), PolicyError> {
        for (number, overrides) in self.overrides.iter().enumerate() {
            if !containers.iter().any(|names| overrides.matches.is_of(*names)) {
                let matches = overrides.matches.to_string();
                return Err(PolicyError::NoMatch { policy: numbered(number + 1), matches });
            }
        }
        for names in containers {
            let (mut min, mut max) = (Resources::default(), Resources::default());
            for overrides in self.overrides.iter().filter(|overrides| overrides.matches.is_of(*names)) {
                overrides.min.bound(&mut min);
                overrides.max.bound(&mut max);
            }
            let (_, workload, container) = names;
            check_bounds(
                &format!("the policy of {workload} {container}, from several entries,"),
                &min,
                &max,
            )?;
        }
        Ok(())
    }
}

fn check_bounds(policy: &str, min: &Resources, max: &Resources) -> Result<(), PolicyError> {
    let cpu = |value| Quantity::from_millicores(value).to_string();
    let memory = |value| Quantity::from_bytes(value).to_string();
    let all = [
        ("CPU", min.cpu_request.zip(max.cpu_request).map(|both| (both, [cpu(both.0), cpu(both.1)]))),
        (
            "memory",
            min.memory_limit.zip(max.memory_limit).map(|both| (both, [memory(both.0), memory(both.1)])),
        ),
    ];
    for (resource, bounds) in all {
        if let Some(((lower, upper), [min, max])) = bounds
            && lower > upper
        {
            return Err(PolicyError::Bounds { policy: policy.to_owned(), resource, min, max });
        }
    }
    Ok(())
}

impl Bounds {
    fn bound(self, values: &mut Resources) {
        let Self { cpu, memory } = self;
        for (value, bound) in [
            (&mut values.cpu_request, cpu),
            (&mut values.cpu_limit, cpu),
            (&mut values.memory_request, memory),
            (&mut values.memory_limit, memory),
        ] {
            *value = bound.or(*value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use snug_sizing::{
        engine::Profile,
        workload::{Container, Workload},
    };

    use super::*;

    fn read(text: &str) -> Result<Policies, PolicyError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Policies::new(Policy::new(Profile::Standard.risk())).with_file(file.path())
    }

    fn of(policies: &Policies, namespace: &str, name: &str) -> Option<Policy> {
        let workload =
            Workload { namespace: namespace.to_owned(), name: name.to_owned(), ..Workload::default() };
        let container = Container { name: "app".to_owned(), ..Container::default() };
        policies.for_container(&Evidence::new(workload, container, 100))
    }

    #[test]
    fn later_overrides_win_field_by_field() {
        let policies = read(
            "policies:\n\
             - match: {namespace: shop}\n  risk: critical\n  horizon: 30d\n  min: {cpu: 50m, memory: 64Mi}\n\
             - match: {workload: 'batch-*'}\n  risk: oom=0.1,cpu=0.2\n  cpuLimit: by-risk\n  max: {cpu: 2}\n\
             - match: {namespace: kube-system}\n  exclude: true\n\
             - match: {namespace: kube-system, workload: mine}\n  exclude: false\n  qos: free\n",
        )
        .unwrap();
        let web = of(&policies, "shop", "web").unwrap();
        assert_eq!((web.risk, web.cpu_limit), (Profile::Critical.risk(), CpuLimit::None));
        assert_eq!((web.horizon_days, policies.default_policy().horizon_days), (30.0, 7.0));
        assert_eq!(
            (web.min.cpu_request, web.min.memory_limit, web.max.cpu_limit),
            (Some(50), Some(64 << 20), None)
        );
        let batch = of(&policies, "shop", "batch-7").unwrap();
        assert_eq!((batch.risk.oom_kills, batch.cpu_limit), (0.1, CpuLimit::ByRisk));
        assert_eq!((batch.min.cpu_request, batch.max.cpu_request), (Some(50), Some(2000)));
        assert!(of(&policies, "kube-system", "dns").is_none());
        assert_eq!(of(&policies, "kube-system", "mine").unwrap().qos, QosRule::Free);
        assert_eq!(of(&policies, "other", "web").unwrap(), *policies.default_policy());
    }

    #[test]
    fn annotations_apply_to_their_pods_and_the_file_overrides_them() {
        let annotated = |pod: &str, text: &str| PolicyAnnotation {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            text: text.to_owned(),
        };
        let policies = read("policies:\n- match: {namespace: shop}\n  max: {cpu: 2}\n").unwrap();
        let (policies, wrong) = policies.with_annotations([
            annotated("web-1", "{risk: critical, min: {cpu: 50m}, max: {cpu: 4}}"),
            annotated("job-1", "exclude: true"),
            annotated("bad-1", "{risks: critical}"),
            annotated("bad-2", "{risks: critical}"),
            annotated("side-1", "{match: {container: sidecar}, exclude: true}"),
            annotated("turned-1", "{min: {cpu: 2}, max: {cpu: 1}}"),
        ]);
        let [wrong, turned] = &wrong[..] else { panic!("once for all of them: {wrong:?}") };
        assert!(turned.contains("turned-1 is invalid: it has a CPU minimum of 2 above"), "{turned}");
        assert!(wrong.contains("snug/policy of the pod shop/bad-1") && wrong.contains("risks"), "{wrong}");
        let of = |namespace: &str, pod: &str| {
            let workload = Workload { namespace: namespace.to_owned(), ..Workload::default() };
            let container = Container { name: "app".to_owned(), ..Container::default() };
            let mut evidence = Evidence::new(workload, container, 100);
            evidence.pods.insert(pod.to_owned(), snug_sizing::evidence::PodTotals::default());
            policies.for_container(&evidence)
        };
        let web = of("shop", "web-1").unwrap();
        assert_eq!((web.risk, web.min.cpu_request), (Profile::Critical.risk(), Some(50)));
        assert_eq!(web.max.cpu_request, Some(2000), "the file overrides annotations");
        assert!(of("shop", "job-1").is_none());
        assert!(of("shop", "bad-1").is_some() && of("shop", "side-1").is_some());
        assert_eq!(
            of("other", "web-1").unwrap(),
            *policies.default_policy(),
            "a pod of the same name elsewhere"
        );
    }

    #[test]
    fn invalid_policies_are_errors() {
        for (text, why) in [
            ("policies:\n- risk: high\n", "\"high\" is neither a profile"),
            ("policies:\n- min: {cpu: lots}\n", "lots"),
            ("policies:\n- max: {memory: -1}\n", "is negative"),
            ("policies:\n- limits: {}\n", "limits"),
            ("policies:\n- horizon: 1h\n", "from 1d to 365d"),
            ("rules: []\n", "rules"),
            ("policies:\n- min: {cpu: 2}\n  max: {cpu: 1}\n", "a CPU minimum of 2 above its maximum of 1"),
            ("policies:\n- min: {memory: 2Gi}\n  max: {memory: 1Gi}\n", "policy 1 of the policy file"),
            ("policies:\n- thresholds: {throttled: 5}\n", "5 is not a share"),
            ("policies:\n- thresholds: {waste: 0.5}\n", "waste"),
        ] {
            let error = read(text).unwrap_err();
            let errors = format!("{:#}", anyhow::Error::from(error));
            assert!(errors.contains(why), "{text}: {errors}");
        }
        let missing = Policies::new(Policy::new(Profile::Standard.risk())).with_file(Path::new("/absent"));
        assert!(missing.unwrap_err().to_string().contains("/absent"));
    }
}
