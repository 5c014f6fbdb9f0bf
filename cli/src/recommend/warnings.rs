//! The warnings of a report, on fewer lines where they have the same cause.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    alike::Alike,
    report::{Entry, Warning},
};

/// A warning and the container that it is on.
type WarningOf<'r> = (&'r Entry, &'r Warning);

fn title(entry: &Entry) -> String {
    format!("{} {}", entry.title(), entry.container)
}

/// A line for each warning.
pub(super) fn each(entries: &[Entry]) -> Vec<Alike> {
    let of_entry = |entry: &Entry| {
        let line = |warning: &Warning| Alike::new(warning.text.clone(), vec![title(entry)]);
        entry.warnings.iter().map(line).collect::<Vec<_>>()
    };
    entries.iter().flat_map(of_entry).collect()
}

/// Warnings by cause: those first for which the cluster would refuse pods, then those on most containers.
pub(super) fn alike(entries: &[Entry]) -> Vec<Alike> {
    let mut by_cause: BTreeMap<(Reverse<bool>, String), Vec<WarningOf<'_>>> = BTreeMap::new();
    for entry in entries {
        for warning in &entry.warnings {
            let cause = (Reverse(warning.kind.is_refusal()), warning.kind.cause());
            by_cause.entry(cause).or_default().push((entry, warning));
        }
    }
    let mut groups: Vec<_> = by_cause.into_iter().collect();
    groups.sort_by_key(|((is_refusal, _), all)| (*is_refusal, Reverse(all.len())));
    groups.into_iter().flat_map(|(_, all)| lines(&all)).collect()
}

/// The lines of warnings with the same cause: one if they say the same or are too many to name all.
fn lines(all: &[WarningOf<'_>]) -> Vec<Alike> {
    let titles = || all.iter().map(|(entry, _)| title(entry)).collect();
    let Some((_, first)) = all.first() else { return Vec::new() };
    if all.iter().all(|(_, warning)| warning.text == first.text) {
        vec![Alike::new(first.text.clone(), titles())]
    } else if all.len() > Alike::NAMED {
        vec![Alike::like_first(first.text.clone(), titles())]
    } else {
        all.iter().map(|(entry, warning)| Alike::new(warning.text.clone(), vec![title(entry)])).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snug_sizing::{
        constraints::{Adjusted, Resource, Violation},
        workload::Resources,
    };

    use super::{
        super::{placement::Placement, report::WarningKind},
        *,
    };

    fn kind() -> impl Strategy<Value = WarningKind> {
        let resource = || prop_oneof![Just(Resource::Cpu), Just(Resource::Memory)];
        prop_oneof![
            (resource(), 1..9_u64, "(one|two)").prop_map(|(resource, value, limit_range)| {
                WarningKind::Violation(Violation::BelowMin {
                    resource,
                    value,
                    min: 9,
                    limit_range,
                    of_pod: false,
                })
            }),
            (1..9_u64).prop_map(|limit| WarningKind::Adjusted(Adjusted::DemandedLimit {
                limit,
                quota: "all".to_owned()
            })),
            ("(Vertical|Horizontal)PodAutoscaler", "[a-e]").prop_map(|(kind, name)| WarningKind::Managed {
                kind: if kind.starts_with('V') { "VerticalPodAutoscaler" } else { "ScaledObject" },
                name,
            }),
            (1..9_u64).prop_map(|millis| WarningKind::Placement(Placement::OtherWindows {
                left_out_millis: vec![millis]
            })),
        ]
    }

    proptest! {
        #[test]
        fn each_warning_is_in_one_line_and_alike_ones_share_it(
            kinds in prop::collection::vec(prop::collection::vec(kind(), 0..4), 0..40)
        ) {
            let entry = |(number, kinds): (usize, Vec<WarningKind>)| {
                let names = ["shop", "Deployment", &format!("w{number}"), "app"];
                let mut entry = super::super::tests::entry(names, Resources::default(), Resources::default());
                entry.warnings = kinds.into_iter().map(Warning::from).collect();
                entry
            };
            let entries: Vec<Entry> = kinds.into_iter().enumerate().map(entry).collect();
            let (each, groups) = (each(&entries), alike(&entries));
            // Two resources in two LimitRanges, a quota, two autoscalers, and windows.
            prop_assert!(groups.iter().filter(|group| !group.is_named()).count() <= 8, "{groups:?}");
            prop_assert!(groups.len() <= 8 * Alike::NAMED, "{groups:?}");
            let sorted = |groups: &[Alike]| {
                let mut titles: Vec<String> = groups.iter().flat_map(|group| group.titles.clone()).collect();
                titles.sort();
                titles
            };
            prop_assert_eq!(sorted(&groups), sorted(&each));
            for group in &groups {
                prop_assert!(each.iter().any(|one| one.remark == group.remark && one.titles[0] == group.titles[0]));
                let line = group.line("warning");
                prop_assert_eq!(line.contains(&format!("{} warnings, such as {}", group.titles.len(), group.titles[0])), !group.is_named());
                prop_assert!(line.ends_with(&group.remark), "{line}");
            }
            let is_refusal = |group: &Alike| group.remark.contains("is below");
            prop_assert!(groups.is_sorted_by_key(|group| !is_refusal(group)), "{groups:?}");
        }
    }
}
