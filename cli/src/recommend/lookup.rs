//! Finds the workload that a user names, and what a wrong name may have meant.

use std::collections::{BTreeMap, BTreeSet};

use snug_sizing::evidence::Evidence;

use crate::{columns::plain, evidence::Snapshot};

/// Names that are suggested.
const MAX_SUGGESTED: usize = 3;
/// How alike a name must be to be suggested, 0..=1.
const MIN_LIKENESS: f64 = 0.6;
/// Digits of a container's id that identify it: `docker ps` shows twelve.
const MIN_ID: usize = 6;
/// Digits of the whole id.
const ID: usize = 64;

/// Short names of kinds, as kubectl has them.
const SHORT: [(&str, &str); 7] = [
    ("deploy", "deployment"),
    ("sts", "statefulset"),
    ("ds", "daemonset"),
    ("cj", "cronjob"),
    ("rs", "replicaset"),
    ("rc", "replicationcontroller"),
    ("po", "pod"),
];

/// Namespace, kind of the owner and name of a workload.
type Names = [String; 3];

/// Which containers a user has selected.
#[derive(Clone, Debug)]
pub struct WorkloadMatch {
    /// `None` selects all.
    workloads: Option<BTreeSet<Names>>,
    container: Option<String>,
    /// Why nothing is selected, and what may have been meant.
    hint: Option<String>,
}

fn names(evidence: &Evidence) -> Names {
    let workload = &evidence.workload;
    [&workload.namespace, &workload.owner, &workload.name].map(Clone::clone)
}

/// `NAMESPACE/NAME`, or the name alone on a host.
fn title([namespace, _, name]: &Names) -> String {
    if namespace.is_empty() { plain(name) } else { format!("{}/{}", plain(namespace), plain(name)) }
}

/// What is known of workloads, to find one.
#[derive(Default)]
struct KnownWorkloads {
    containers: usize,
    workloads: BTreeSet<Names>,
    /// Workloads by the names of their pods.
    pods: BTreeMap<String, BTreeSet<Names>>,
    /// Names of the containers by workload.
    by_container: BTreeMap<String, BTreeSet<Names>>,
}

impl WorkloadMatch {
    pub const ALL: Self = Self { workloads: None, container: None, hint: None };

    /// What `text` names in these snapshots: `NAME`, `NAMESPACE/NAME`, `KIND/NAME`, or the first digits of a container's id.
    pub fn new<'s>(
        text: &str,
        container: Option<&str>,
        snapshots: impl Iterator<Item = &'s Snapshot>,
    ) -> Self {
        let mut known = KnownWorkloads::default();
        for evidence in snapshots.flat_map(Snapshot::evidence) {
            known.containers += 1;
            let names = names(evidence);
            for pod in evidence.pods.keys() {
                known.pods.entry(pod.clone()).or_default().insert(names.clone());
            }
            known.by_container.entry(evidence.container.name.clone()).or_default().insert(names.clone());
            known.workloads.insert(names);
        }
        let found = known.find(text);
        let of_container = |container: &str| {
            let all = known.by_container.get(container);
            all.is_some_and(|workloads| !workloads.is_disjoint(&found))
        };
        let hint = match container {
            _ if found.is_empty() => Some(known.hint(text)),
            Some(container) if !of_container(container) => {
                let own = known.by_container.iter().filter(|(_, all)| !all.is_disjoint(&found));
                let own: Vec<String> = own.map(|(name, _)| plain(name)).collect();
                Some(format!("{text:?} has no container {container:?}; it has {}", own.join(", ")))
            }
            _ => None,
        };
        Self { workloads: Some(found), container: container.map(str::to_owned), hint }
    }

    /// Whether evidence is of a selected container.
    pub fn is(&self, evidence: &Evidence) -> bool {
        self.workloads.as_ref().is_none_or(|workloads| workloads.contains(&names(evidence)))
            && self.container.as_ref().is_none_or(|name| evidence.container.name == *name)
    }

    /// Why nothing is selected; `None` if something is.
    pub fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl KnownWorkloads {
    fn find(&self, text: &str) -> BTreeSet<Names> {
        let all = |is: &dyn Fn(&Names) -> bool| -> BTreeSet<Names> {
            self.workloads.iter().filter(|names| is(names)).cloned().collect()
        };
        // A unit of a guest has a slash in its own name.
        let by_name = all(&|[namespace, _, name]| {
            name == text || text.split_once('/').is_some_and(|it| it == (namespace.as_str(), name.as_str()))
        });
        if !by_name.is_empty() {
            return by_name;
        }
        if let Some((kind, rest)) = text.split_once('/') {
            let by_kind = all(&|[namespace, owner, name]| {
                is_kind(kind, owner)
                    && (name == rest
                        || rest.split_once('/').is_some_and(|it| it == (namespace.as_str(), name.as_str())))
            });
            // As `NAMESPACE/KIND/NAME`.
            let within = all(&|[namespace, owner, name]| {
                namespace == kind
                    && rest.split_once('/').is_some_and(|(kind, one)| one == name && is_kind(kind, owner))
            });
            return if by_kind.is_empty() { within } else { by_kind };
        }
        let by_id = all(&|[_, _, name]| name.len() == ID && is_id(name) && name.starts_with(text));
        if text.len() >= MIN_ID && is_id(text) && by_id.len() == 1 { by_id } else { BTreeSet::new() }
    }

    /// What a name that names nothing may have meant.
    fn hint(&self, text: &str) -> String {
        let none = format!("none of {} containers belongs to a workload {text:?}", self.containers);
        if let Some(workloads) = self.pods.get(text) {
            let of: Vec<String> = workloads.iter().take(MAX_SUGGESTED).map(title).collect();
            return format!("{none}; it is a pod of {}", of.join(", "));
        }
        let suggested = self.suggest(text);
        if suggested.is_empty() {
            return match self.by_container.get(text) {
                Some(workloads) => {
                    let of: Vec<String> = workloads.iter().take(MAX_SUGGESTED).map(title).collect();
                    format!("{none}; it is a container of {}", of.join(", "))
                }
                None => none,
            };
        }
        format!("{none}; did you mean {}?", suggested.join(" or "))
    }

    /// The names most like a text, the best first.
    fn suggest(&self, text: &str) -> Vec<String> {
        let wanted = text.to_lowercase();
        let last = wanted.rsplit('/').next().unwrap_or(&wanted).to_owned();
        let likeness = |names: &Names| {
            let [_, _, name] = names;
            let (name, whole) = (name.to_lowercase(), title(names).to_lowercase());
            let alike = |one: &str, other: &str| strsim::normalized_damerau_levenshtein(one, other);
            // A part of a name of some length is meant, too.
            let is_part = last.len() >= 3 && name.contains(&last);
            let of_part = if is_part { 0.9 } else { 0.0 };
            alike(&wanted, &whole).max(alike(&last, &name) * 0.99).max(of_part)
        };
        let mut all: Vec<(f64, &Names)> = self
            .workloads
            .iter()
            .map(|names| (likeness(names), names))
            .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
            .collect();
        all.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(other.1)));
        let mut suggested: Vec<String> = Vec::new();
        for (_, names) in all {
            let title = title(names);
            if suggested.len() < MAX_SUGGESTED && !suggested.contains(&title) {
                suggested.push(title);
            }
        }
        suggested
    }
}

/// Whether a user's word for a kind is that of an owner: `deployment`, `deployments.apps`, `deploy`.
fn is_kind(word: &str, owner: &str) -> bool {
    let word = word.to_lowercase();
    let word = word.split('.').next().unwrap_or_default();
    let whole = SHORT.iter().find(|(short, _)| *short == word).map_or(word, |(_, whole)| whole);
    let owner = owner.to_lowercase();
    !owner.is_empty() && (owner == whole || whole.strip_suffix('s') == Some(owner.as_str()))
}

fn is_id(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snug_sizing::workload::{Container, Workload};

    use super::*;

    fn snapshot(all: &[(&str, &str, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (namespace, owner, name) in all {
            let workload = Workload {
                namespace: (*namespace).to_owned(),
                owner: (*owner).to_owned(),
                name: (*name).to_owned(),
                ..Workload::default()
            };
            let container = Container { name: "app".to_owned(), ..Container::default() };
            let mut evidence = Evidence::new(workload, container, 100);
            evidence.pods.insert(format!("{name}-x7k2p"), Default::default());
            snapshot.insert(evidence);
        }
        snapshot
    }

    const ID_1: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const ID_2: &str = "0123450000abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn cluster() -> Snapshot {
        snapshot(&[
            ("shop", "Deployment", "web"),
            ("shop", "StatefulSet", "web"),
            ("shop", "StatefulSet", "ledger"),
            ("ops", "Deployment", "web"),
            ("", "Container", ID_1),
            ("", "Container", ID_2),
            ("", "Unit", "101/nginx.service"),
        ])
    }

    fn found(text: &str) -> Vec<String> {
        let snapshot = cluster();
        let matched = WorkloadMatch::new(text, None, std::iter::once(&snapshot));
        let all = snapshot.evidence().filter(|evidence| matched.is(evidence)).map(|evidence| {
            let [namespace, owner, name] = names(evidence);
            format!("{namespace}/{owner}/{name}")
        });
        assert_eq!(matched.hint().is_none(), all.clone().count() > 0, "{text}");
        all.collect()
    }

    #[test]
    fn names_find_what_kubectl_and_docker_call_it() {
        assert_eq!(found("web").len(), 3);
        assert_eq!(found("shop/web"), ["shop/Deployment/web", "shop/StatefulSet/web"]);
        for name in [
            "sts/ledger",
            "statefulset/ledger",
            "StatefulSets.apps/ledger",
            "shop/sts/ledger",
            "sts/shop/ledger",
        ] {
            assert_eq!(found(name), ["shop/StatefulSet/ledger"], "{name}");
        }
        assert_eq!(found("deployment/web"), ["ops/Deployment/web", "shop/Deployment/web"]);
        assert_eq!(found(&ID_1[..12]), [format!("/Container/{ID_1}")]);
        assert_eq!(found("012345"), Vec::<String>::new(), "two begin like this");
        assert_eq!(found("101/nginx.service"), ["/Unit/101/nginx.service"]);
    }

    #[test]
    fn wrong_names_get_a_suggestion() {
        let snapshot = cluster();
        let hint = |text: &str| WorkloadMatch::new(text, None, std::iter::once(&snapshot)).hint().unwrap();
        assert!(hint("webb").ends_with("did you mean ops/web or shop/web?"), "{}", hint("webb"));
        assert!(hint("shop/legder").ends_with("did you mean shop/ledger?"));
        assert!(hint("Deployment/leger").ends_with("did you mean shop/ledger?"));
        assert!(hint("nginx").contains("did you mean 101/nginx.service?"));
        assert!(hint("ledger-x7k2p").ends_with("it is a pod of shop/ledger"));
        assert!(hint("app").contains("it is a container of "), "{}", hint("app"));
        assert_eq!(hint("zzzzzzzz"), "none of 7 containers belongs to a workload \"zzzzzzzz\"");
        let matched = WorkloadMatch::new("ledger", Some("db"), std::iter::once(&snapshot));
        assert_eq!(matched.hint().unwrap(), "\"ledger\" has no container \"db\"; it has app");
        assert!(!snapshot.evidence().any(|evidence| matched.is(evidence)));
    }

    proptest! {
        #[test]
        fn a_name_with_one_wrong_letter_is_suggested(name in "[a-z]{5,12}", at in 0..12_usize, other in "[a-z]") {
            let snapshot = snapshot(&[("shop", "Deployment", &name), ("x", "Job", "q0q0q0q0q0q0")]);
            let mut typo = name.clone();
            let at = at % name.len();
            typo.replace_range(at..=at, &other);
            let matched = WorkloadMatch::new(&typo, None, std::iter::once(&snapshot));
            match matched.hint() {
                Some(hint) => prop_assert!(hint.contains(&format!("shop/{name}")), "{hint}"),
                None => prop_assert_eq!(typo, name),
            }
        }
    }
}
