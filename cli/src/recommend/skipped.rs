//! Containers without a recommendation, and why.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};
use snug_sizing::engine::NotEnoughData;

use super::alike::Alike;
use crate::{evidence::GoneFor, units};

/// A container without a recommendation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Skipped {
    /// The cluster, if the source has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    pub namespace: String,
    pub workload: String,
    pub container: String,
    #[serde(rename = "why", serialize_with = "sentence")]
    pub reason: SkipReason,
    /// OOM kills in the history, where nothing can be recommended for lack of any usage.
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kills: usize,
}

impl Skipped {
    /// Namespace, workload and container, as far as there are such.
    pub fn title(&self) -> String {
        let parts = [&self.namespace, &self.workload, &self.container];
        let parts: Vec<&str> =
            parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }
}

const fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn sentence<S: Serializer>(reason: &SkipReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

/// Why a container has no recommendation.
#[derive(Clone, Debug, PartialEq)]
pub enum SkipReason {
    /// A policy excludes it.
    Excluded,
    NotEnoughData(NotEnoughData),
    /// It was not seen any more.
    Gone(GoneFor),
    /// The API server has no such object.
    Absent {
        owner: String,
    },
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("excluded by a policy"),
            Self::NotEnoughData(error) => error.fmt(f),
            Self::Gone(GoneFor::Workload(seconds)) => {
                write!(f, "no pod for {}: the workload is gone", units::hours(*seconds))
            }
            Self::Gone(GoneFor::Container(seconds)) => {
                let hours = units::hours(*seconds);
                write!(f, "not seen for {hours} while its workload ran: the container is gone")
            }
            Self::Absent { owner } if owner == "Pod" => {
                f.write_str("the cluster has no pod of this name now")
            }
            Self::Absent { owner } => write!(f, "the cluster has no {owner} of this name now"),
        }
    }
}

impl SkipReason {
    /// The reason without what differs from container to container.
    fn of_many(&self) -> String {
        match self {
            Self::NotEnoughData(NotEnoughData::TooShort { .. }) => "less than 60 s observed".to_owned(),
            Self::NotEnoughData(NotEnoughData::OnlyKills { .. }) => {
                "OOM kills, but no usage was observed and no memory limit is known: set a memory limit well above what the program \
                 needs to start"
                    .to_owned()
            }
            Self::Gone(GoneFor::Workload(_)) => "no pod for a day or longer: the workload is gone".to_owned(),
            Self::Gone(GoneFor::Container(_)) => {
                "not seen for more than an hour while its workload ran: the container is gone".to_owned()
            }
            Self::Excluded | Self::NotEnoughData(_) | Self::Absent { .. } => self.to_string(),
        }
    }
}

/// A line for each container.
pub(super) fn each(skipped: &[Skipped]) -> Vec<Alike> {
    skipped.iter().map(|one| Alike::new(one.reason.to_string(), vec![one.title()])).collect()
}

/// Containers by reason, that of most containers first.
pub(super) fn alike<'s>(skipped: impl IntoIterator<Item = &'s Skipped>) -> Vec<Alike> {
    let mut by_reason: BTreeMap<String, Vec<&Skipped>> = BTreeMap::new();
    for one in skipped {
        by_reason.entry(one.reason.of_many()).or_default().push(one);
    }
    let group = |(reason, all): (String, Vec<&Skipped>)| {
        let reason = if let [only] = all.as_slice() { only.reason.to_string() } else { reason };
        Alike::new(reason, all.into_iter().map(Skipped::title).collect())
    };
    let mut groups: Vec<Alike> = by_reason.into_iter().map(group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.titles.len()));
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason() -> impl Strategy<Value = SkipReason> {
        let seconds = || 1..10_u64;
        prop_oneof![
            Just(SkipReason::Excluded),
            Just(SkipReason::NotEnoughData(NotEnoughData::NoUsage)),
            Just(SkipReason::NotEnoughData(NotEnoughData::NoMemoryUse)),
            (0..4_usize).prop_map(|kills| SkipReason::NotEnoughData(NotEnoughData::OnlyKills { kills })),
            seconds().prop_map(|seconds| SkipReason::NotEnoughData(NotEnoughData::TooShort { seconds })),
            seconds().prop_map(|days| SkipReason::Gone(GoneFor::Workload(days * 86_400))),
            seconds().prop_map(|hours| SkipReason::Gone(GoneFor::Container(hours * 3_600))),
            "(Pod|Job)".prop_map(|owner| SkipReason::Absent { owner }),
        ]
    }

    fn skipped(number: usize, reason: SkipReason) -> Skipped {
        Skipped {
            cluster: String::new(),
            namespace: "shop".to_owned(),
            workload: format!("w{number}"),
            container: String::new(),
            reason,
            oom_kills: 0,
        }
    }

    proptest! {
        #[test]
        fn each_container_is_in_one_group_and_a_group_has_one_line(
            reasons in prop::collection::vec(reason(), 0..60)
        ) {
            let all: Vec<Skipped> =
                reasons.into_iter().enumerate().map(|(number, reason)| skipped(number, reason)).collect();
            let groups = alike(&all);
            prop_assert!(groups.len() <= 9, "as many as kinds of reasons and of objects: {groups:?}");
            let mut titles: Vec<&String> = groups.iter().flat_map(|group| &group.titles).collect();
            titles.sort();
            let mut expected: Vec<String> = all.iter().map(Skipped::title).collect();
            expected.sort();
            prop_assert_eq!(titles, expected.iter().collect::<Vec<_>>());
            prop_assert!(groups.is_sorted_by_key(|group| std::cmp::Reverse(group.titles.len())));
            for group in &groups {
                let line = group.line("container");
                prop_assert!(!line.contains('\n') && line.ends_with(&group.remark), "{line}");
                let named = group.titles.iter().filter(|title| line.split([' ', ',', ':']).any(|word| word == **title));
                prop_assert_eq!(named.count(), group.titles.len().min(3), "{}", line);
                prop_assert_eq!(line.contains(&format!("{} containers", group.titles.len())), !group.is_named());
                if let [only] = group.titles.as_slice() {
                    let own = all.iter().find(|one| one.title() == *only).unwrap();
                    prop_assert_eq!(&group.remark, &own.reason.to_string());
                }
            }
        }
    }
}
