//! Which rows are shown, and in which order.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use snug_sizing::{quantity::Quantity, workload::Resources};

use super::report::{Entry, Report};

/// Options that select and order rows.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct SelectionOptions {
    /// Order of the rows [default: risk in tables for people, else name]
    #[arg(long, value_enum, value_name = "ORDER")]
    sort: Option<Sort>,
    /// Only the first rows in this order
    #[arg(long, value_name = "NUMBER")]
    top: Option<usize>,
    /// Leave out rows with smaller changes: a share of the current value such as 10%, amounts per pod such as cpu=50m or
    /// memory=64Mi, or several of these separated by commas. Containers in danger are never left out
    #[arg(long, value_name = "CHANGE", value_parser = MinChange::parse)]
    min_change: Option<MinChange>,
    /// Group rows and totals by the value of this label of the pods; needs a cluster
    #[arg(long, value_name = "LABEL")]
    pub(super) group_by: Option<String>,
}

/// An order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// The largest savings first
    Savings,
    /// OOM risk first, then throttling, CPU short of its request, no requests, and waste
    Risk,
    /// By namespace, workload and container
    Name,
}

/// The smallest change that is worth a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct MinChange {
    /// As a share of the current value.
    share: f64,
    /// Millicores.
    cpu: u64,
    /// Bytes.
    memory: u64,
}

impl MinChange {
    /// Parses `10%`, `cpu=50m`, `memory=64Mi`, or several of these.
    ///
    /// # Errors
    /// A text that says what is wrong and what is allowed.
    fn parse(text: &str) -> Result<Self, String> {
        let mut min = Self::default();
        for part in text.split(',') {
            let wrong = || {
                format!(
                    "{part:?} is neither a share such as 10% nor cpu=AMOUNT or memory=AMOUNT, such as memory=64Mi"
                )
            };
            let amount = |text: &str, pick: fn(Quantity) -> i128| {
                let quantity: Quantity = text.parse().map_err(|_| wrong())?;
                u64::try_from(pick(quantity)).map_err(|_| wrong())
            };
            match part.split_once('=') {
                Some(("cpu", text)) => min.cpu = amount(text, Quantity::millis)?,
                Some(("memory", text)) => min.memory = amount(text, |it| it.value().into())?,
                Some(_) => return Err(wrong()),
                None => {
                    let number = part.strip_suffix('%').and_then(|it| it.trim().parse::<f64>().ok());
                    let percent = number.filter(|it| it.is_finite() && *it >= 0.0).ok_or_else(wrong)?;
                    min.share = percent / 100.0;
                }
            }
        }
        Ok(min)
    }

    /// Whether a value changes by at least so much. A value that is set anew, or removed, always does.
    fn is_reached(&self, current: Resources, recommended: Resources) -> bool {
        let reaches = |now: Option<u64>, then: Option<u64>, amount: u64| match (now, then) {
            (Some(now), Some(then)) => {
                let change = now.abs_diff(then);
                change > 0 && change >= amount && change as f64 >= self.share * now as f64
            }
            (now, then) => now != then,
        };
        reaches(current.cpu_request, recommended.cpu_request, self.cpu)
            || reaches(current.cpu_limit, recommended.cpu_limit, self.cpu)
            || reaches(current.memory_request, recommended.memory_request, self.memory)
            || reaches(current.memory_limit, recommended.memory_limit, self.memory)
    }
}

/// What an output is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rows for people: in any order.
    Table,
    /// Rows for programs: by name, unless an order is asked for.
    Data,
    /// Objects: whole workloads, because a patch has all of a workload's containers, and warnings that forbid it.
    Objects,
}

impl Report {
    /// Selects rows and orders them. Totals stay those of all rows.
    pub(super) fn select(&mut self, options: &SelectionOptions, shape: Shape) {
        let all = self.recommendations.len();
        let order = options.sort.unwrap_or(match shape {
            Shape::Table => Sort::Risk,
            Shape::Data | Shape::Objects => Sort::Name,
        });
        let mut kept: Vec<usize> = (0..all)
            .filter(|at| {
                self.recommendations.get(*at).is_some_and(|entry| {
                    let is_reached = |min: &MinChange| min.is_reached(entry.current, entry.recommended);
                    entry.issue.is_danger() || options.min_change.as_ref().is_none_or(is_reached)
                })
            })
            .collect();
        kept.sort_by(|one, other| {
            match self.recommendations.get(*one).zip(self.recommendations.get(*other)) {
                Some((one, other)) => compare(one, other, order),
                None => one.cmp(other),
            }
        });
        kept.truncate(options.top.unwrap_or(usize::MAX));
        if shape == Shape::Objects {
            let chosen: Vec<Entry> =
                kept.iter().filter_map(|at| self.recommendations.get(*at)).cloned().collect();
            let key = |entry: &Entry| {
                let [namespace, owner, name] = entry.workload_names().map(str::to_owned);
                [entry.cluster.clone(), namespace, owner, name]
            };
            let workloads: std::collections::BTreeSet<[String; 4]> = chosen.iter().map(key).collect();
            self.recommendations.retain(|entry| workloads.contains(&key(entry)));
        } else {
            let mut taken: BTreeMap<usize, Entry> =
                std::mem::take(&mut self.recommendations).into_iter().enumerate().collect();
            self.recommendations = kept.iter().filter_map(|at| taken.remove(at)).collect();
        }
        self.left_out = all - self.recommendations.len();
    }
}

/// Workloads first, then units and containers without a known workload.
fn compare(one: &Entry, other: &Entry, order: Sort) -> std::cmp::Ordering {
    let cluster = one.cluster.cmp(&other.cluster);
    let group = || (one.is_of_host(), &one.group).cmp(&(other.is_of_host(), &other.group));
    let by_order = || match order {
        Sort::Savings => one.by_savings(other),
        Sort::Risk => one.by_risk(other),
        Sort::Name => std::cmp::Ordering::Equal,
    };
    // The sort is stable, and entries are sorted by name.
    cluster.then_with(group).then_with(by_order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recommend::{
        issue::Issue,
        tests::{entry, recommended, report, resources},
    };

    #[test]
    fn changes_are_parsed() {
        let of = |text: &str| MinChange::parse(text).unwrap();
        assert_eq!(of("10%"), MinChange { share: 0.1, cpu: 0, memory: 0 });
        assert_eq!(of("cpu=50m,memory=64Mi"), MinChange { share: 0.0, cpu: 50, memory: 64 << 20 });
        for bad in ["", "10", "x%", "-1%", "NaN%", "cpu", "cpu=", "cpu=-1", "disk=1"] {
            let error = MinChange::parse(bad).unwrap_err();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("10%"), "{error}");
        }
    }

    #[test]
    fn a_new_value_is_always_a_change() {
        let min = MinChange::parse("50%,cpu=1,memory=1Gi").unwrap();
        let of = |cpu_limit| Resources { cpu_limit, ..Resources::default() };
        assert!(min.is_reached(of(None), of(Some(1))) && min.is_reached(of(Some(1)), of(None)));
        assert!(!min.is_reached(of(Some(1000)), of(Some(1400))));
        assert!(
            !min.is_reached(of(Some(10_000)), of(Some(11_001)))
                && min.is_reached(of(Some(2000)), of(Some(1000)))
        );
        assert!(!min.is_reached(of(None), of(None)));
    }

    fn any_report() -> impl Strategy<Value = Report> {
        let one = (resources(), recommended(), 0..4_usize, 0..3_usize);
        prop::collection::vec(one, 0..20).prop_map(|all| {
            let rows = all.into_iter().enumerate().map(|(number, (now, then, namespace, workload))| {
                let namespace = ["", "ops", "shop", "web"][namespace];
                let names = [namespace, "Deployment", &format!("w{workload}"), &format!("c{number}")];
                let mut one = entry(names, now, then);
                one.judge();
                one
            });
            let mut rows: Vec<Entry> = rows.collect();
            rows.sort_by(|one, other| one.subject().cmp(&other.subject()));
            report(rows)
        })
    }

    proptest! {
        #[test]
        fn rows_are_selected_and_nothing_else_changes(all in any_report(), top in prop::option::of(0..25_usize), percent in 0..100_u32, sort in 0..4_usize) {
            let options = SelectionOptions {
                sort: [None, Some(Sort::Savings), Some(Sort::Risk), Some(Sort::Name)][sort],
                top,
                min_change: Some(MinChange::parse(&format!("{percent}%")).unwrap()),
                group_by: None,
            };
            let mut table = all.clone();
            table.select(&options, Shape::Table);
            let rows = &table.recommendations;
            prop_assert!(rows.len() <= top.unwrap_or(usize::MAX) && rows.iter().all(|row| all.recommendations.contains(row)));
            prop_assert_eq!(rows.len() + table.left_out, all.recommendations.len());
            // Workloads are before units, and those in danger are left out by their number alone.
            prop_assert!(rows.is_sorted_by_key(Entry::is_of_host));
            if top.is_none() {
                let dangers = |report: &Report| report.recommendations.iter().filter(|it| it.issue.is_danger()).count();
                prop_assert_eq!(dangers(&table), dangers(&all));
            }
            if options.sort.is_none() {
                let workloads: Vec<Issue> = rows.iter().filter(|row| !row.is_of_host()).map(|row| row.issue).collect();
                prop_assert!(workloads.is_sorted());
            }
            // Objects are whole, in the order of names.
            let mut objects = all.clone();
            objects.select(&options, Shape::Objects);
            let kept = &objects.recommendations;
            for row in &all.recommendations {
                let is_of_a_kept_one = kept.iter().any(|it| it.is_of_one_workload(row));
                prop_assert_eq!(is_of_a_kept_one, kept.contains(row));
            }
            prop_assert!(kept.is_sorted_by_key(|row| row.subject().map(str::to_owned)));
        }
    }
}
