//! Turns two responses of an agent into one row per container.

use std::{cmp::Ordering, collections::HashMap};

use serde::Serialize;

use super::{
    Sort,
    api::{Container, Containers, Traffic},
    names::{self, NameParts},
};
use crate::renamed;

/// Rates of one container between two measurements, and its sizes at the second. `None`: not measured, or no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ContainerRow {
    pub(crate) node: String,
    /// A short name.
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) kind: String,
    pub(crate) workload_kind: String,
    pub(crate) workload: String,
    /// Path of the cgroup.
    pub(crate) id: String,
    #[serde(skip)]
    pub(crate) container_id: String,
    /// Mean cores used over the interval.
    pub(crate) cpu_cores: Option<f64>,
    pub(crate) cpu_request_cores: Option<f64>,
    pub(crate) cpu_limit_cores: Option<f64>,
    /// Throttled CFS periods ÷ periods, 0..=1; `None` if no period ended in the interval.
    pub(crate) throttled_share: Option<f64>,
    /// CFS periods of the interval, and how many of them were throttled.
    #[serde(skip)]
    pub(crate) periods: Option<(u64, u64)>,
    pub(crate) memory_working_set_bytes: Option<f64>,
    pub(crate) memory_peak_bytes: Option<f64>,
    pub(crate) memory_request_bytes: Option<f64>,
    pub(crate) memory_limit_bytes: Option<f64>,
    /// Since the container was created, not over the interval.
    pub(crate) oom_kills: Option<f64>,
    /// OOM kills in the interval.
    #[serde(skip)]
    pub(crate) new_oom_kills: f64,
    pub(crate) network_receive_bytes_per_second: Option<f64>,
    pub(crate) network_transmit_bytes_per_second: Option<f64>,
    /// Mean cores per replica of the workload, in equal parts of the `--last` time; `None` without `--last`.
    #[serde(flatten, serialize_with = "renamed::cpu_history_cores", skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_history_cores: Option<Vec<Option<f64>>>,
    /// Whether the agent does not respond: the values are its last ones.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_stale: bool,
}

impl ContainerRow {
    /// Working set ÷ memory limit.
    pub(crate) fn memory_share(&self) -> Option<f64> {
        let limit = self.memory_limit_bytes.filter(|limit| *limit > 0.0)?;
        Some(self.memory_working_set_bytes? / limit)
    }

    /// Kind and name of the workload; empty if it is unknown, or no more than the container itself.
    pub(crate) fn workload_title(&self) -> String {
        match (self.workload_kind.as_str(), self.workload.as_str()) {
            (_, "") | ("Unit" | "Container" | "Cgroup", _) => String::new(),
            ("", name) => name.to_owned(),
            (kind, name) => format!("{kind}/{name}"),
        }
    }

    /// Adds the values of another container. A limit of several is known if each has one.
    pub(crate) fn add(&mut self, other: &Self) {
        let sum = |mine: &mut Option<f64>, theirs: Option<f64>| {
            *mine = match (*mine, theirs) {
                (Some(mine), Some(theirs)) => Some(mine + theirs),
                (mine, theirs) => mine.or(theirs),
            };
        };
        sum(&mut self.cpu_cores, other.cpu_cores);
        sum(&mut self.memory_working_set_bytes, other.memory_working_set_bytes);
        sum(&mut self.oom_kills, other.oom_kills);
        sum(&mut self.network_receive_bytes_per_second, other.network_receive_bytes_per_second);
        sum(&mut self.network_transmit_bytes_per_second, other.network_transmit_bytes_per_second);
        self.new_oom_kills += other.new_oom_kills;
        let all = |mine: Option<f64>, theirs: Option<f64>| Some(mine? + theirs?);
        self.cpu_request_cores = all(self.cpu_request_cores, other.cpu_request_cores);
        self.cpu_limit_cores = all(self.cpu_limit_cores, other.cpu_limit_cores);
        self.memory_limit_bytes = all(self.memory_limit_bytes, other.memory_limit_bytes);
        // Peaks of several containers are of several moments.
        self.memory_peak_bytes = None;
        if let Some((periods, throttled)) = other.periods {
            let (all_periods, all_throttled) = self.periods.unwrap_or_default();
            self.periods = Some((all_periods + periods, all_throttled + throttled));
        }
        self.throttled_share = share(self.periods);
        self.is_stale |= other.is_stale;
    }
}

/// The increase of a counter; `None` if it is new, or was reset because the container was recreated.
fn gain(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    let gained = after? - before?;
    (gained >= 0.0).then_some(gained)
}

fn count(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

fn share(periods: Option<(u64, u64)>) -> Option<f64> {
    let (periods, throttled) = periods.filter(|(periods, _)| *periods > 0)?;
    Some((throttled as f64 / periods as f64).min(1.0))
}

/// The seconds between two measurements: by the agent's clock, because a response may be late; by ours if the agent does not say, or
/// if its clock was set. 0 if both responses have the same measurement.
pub(crate) fn seconds(before: &Containers, after: &Containers, ours: f64) -> f64 {
    match before.at.zip(after.at).map(|(before, after)| after - before) {
        // Two responses within the same measurement differ by the rounding of a clock.
        Some(agents) if agents.abs() < 0.001 => 0.0,
        Some(agents) if (0.0..=ours * 2.0 + 5.0).contains(&agents) => agents,
        _ => ours,
    }
}

/// The rows of the second response's containers.
pub(crate) fn between(before: Option<&Containers>, after: &Containers, seconds: f64) -> Vec<ContainerRow> {
    let before: HashMap<&str, &Container> = before
        .iter()
        .flat_map(|before| &before.containers)
        .map(|container| (container.id.as_str(), container))
        .collect();
    let absent = Container::default();
    let row = |now: &Container| {
        let then = before.get(now.id.as_str()).copied().unwrap_or(&absent);
        let rate = |gained: Option<f64>| gained.filter(|_| seconds > 0.0).map(|gained| gained / seconds);
        let traffic = |bytes: fn(&Traffic) -> u64| {
            let [then, now] = [then, now].map(|of| of.network.as_ref().map(bytes));
            rate(count(then, now).map(|bytes| bytes as f64))
        };
        let throttled = count(then.cfs_throttled_periods, now.cfs_throttled_periods);
        let periods = count(then.cfs_periods, now.cfs_periods).zip(throttled);
        let known = NameParts {
            pod: &now.pod,
            container: &now.container,
            workload: &now.workload,
            kind: now.kind.as_deref().unwrap_or(&now.level),
            id: &now.id,
            engine_name: &now.name,
            runtime: &now.runtime,
        };
        ContainerRow {
            node: after.node.clone(),
            name: names::short(known),
            namespace: now.namespace.clone(),
            pod: now.pod.clone(),
            container: now.container.clone(),
            kind: known.kind.to_owned(),
            workload_kind: now.workload_kind.clone(),
            workload: now.workload.clone(),
            id: now.id.clone(),
            container_id: now.container_id.clone(),
            cpu_cores: rate(gain(then.cpu_seconds, now.cpu_seconds)),
            cpu_request_cores: now.cpu_request_cores,
            cpu_limit_cores: now.cpu_quota_cores,
            throttled_share: share(periods),
            periods,
            memory_working_set_bytes: now.memory_working_set_bytes,
            memory_peak_bytes: now.memory_peak_bytes,
            memory_request_bytes: now.memory_request_bytes,
            memory_limit_bytes: now.memory_limit_bytes,
            oom_kills: now.oom_kills,
            new_oom_kills: gain(then.oom_kills, now.oom_kills).unwrap_or(0.0),
            network_receive_bytes_per_second: traffic(|network| network.receive_bytes),
            network_transmit_bytes_per_second: traffic(|network| network.transmit_bytes),
            cpu_history_cores: None,
            is_stale: false,
        }
    };
    after.containers.iter().map(row).collect()
}

/// The order of two rows: the highest value comes first and rows without one last; equal rows are in the order of their names.
pub(crate) fn order(sort: Sort, a: &ContainerRow, b: &ContainerRow) -> Ordering {
    let value = |row: &ContainerRow| match sort {
        Sort::Cpu => row.cpu_cores,
        Sort::Memory => row.memory_working_set_bytes,
        Sort::Limit => row.memory_share(),
        Sort::Throttled => row.throttled_share,
        Sort::Oom => row.oom_kills.filter(|kills| *kills > 0.0),
        Sort::Name => None,
    };
    let highest_first = match (value(a), value(b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    let names = || {
        [&a.namespace, &a.name, &a.pod, &a.container, &a.node, &a.id].cmp(&[
            &b.namespace,
            &b.name,
            &b.pod,
            &b.container,
            &b.node,
            &b.id,
        ])
    };
    highest_first.then_with(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(at: f64, containers: Vec<Container>) -> Containers {
        Containers { node: "n".to_owned(), at: Some(at), containers, next: None }
    }

    fn container(id: &str) -> Container {
        Container { id: id.to_owned(), ..Container::default() }
    }

    #[test]
    fn rates_are_of_the_interval_and_sizes_of_the_second_response() {
        let then = Container {
            cpu_seconds: Some(10.0),
            cfs_periods: Some(100),
            cfs_throttled_periods: Some(50),
            memory_working_set_bytes: Some(1.0),
            oom_kills: Some(1.0),
            network: Some(Traffic { receive_bytes: 100, transmit_bytes: 7 }),
            ..container("/a")
        };
        let now = Container {
            namespace: "web".to_owned(),
            pod: "p".to_owned(),
            container: "c".to_owned(),
            cpu_seconds: Some(11.0),
            cfs_periods: Some(120),
            cfs_throttled_periods: Some(55),
            memory_working_set_bytes: Some(4096.0),
            oom_kills: Some(3.0),
            network: Some(Traffic { receive_bytes: 300, transmit_bytes: 7 }),
            ..container("/a")
        };
        let (before, after) = (containers(1.0, vec![then]), containers(3.0, vec![now]));
        let seconds = seconds(&before, &after, 2.3);
        let [row] = between(Some(&before), &after, seconds).try_into().unwrap();
        assert_eq!((row.namespace.as_str(), row.name.as_str(), row.node.as_str()), ("web", "p/c", "n"));
        assert_eq!((row.cpu_cores, row.throttled_share), (Some(0.5), Some(0.25)));
        assert_eq!(row.memory_working_set_bytes, Some(4096.0));
        assert_eq!((row.oom_kills, row.new_oom_kills), (Some(3.0), 2.0));
        assert_eq!(row.network_receive_bytes_per_second, Some(100.0));
        assert_eq!(row.network_transmit_bytes_per_second, Some(0.0));
        assert_eq!((row.memory_limit_bytes, row.cpu_limit_cores), (None, None));
    }

    #[test]
    fn a_new_or_remade_container_has_no_rate_yet() {
        let with = |id: &str, cpu_seconds| Container { cpu_seconds: Some(cpu_seconds), ..container(id) };
        let before = containers(1.0, vec![with("/a", 10.0)]);
        let after = containers(3.0, vec![with("/a", 1.0), with("/b", 1.0)]);
        let rows = between(Some(&before), &after, 2.0);
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.cpu_cores.is_none()));
        assert!(between(None, &before, 0.0).iter().all(|row| row.cpu_cores.is_none()));
    }

    #[test]
    fn the_agents_clock_counts_unless_it_was_set() {
        let at = |at: f64| containers(at, Vec::new());
        assert_eq!(seconds(&at(10.0), &at(12.0), 2.5), 2.0);
        assert_eq!(seconds(&at(10.0), &at(10.0), 2.5), 0.0);
        assert_eq!(seconds(&at(10.0), &at(5000.0), 2.5), 2.5);
        assert_eq!(seconds(&at(10.0), &at(5.0), 2.5), 2.5);
        assert_eq!(seconds(&Containers::default(), &at(12.0), 2.5), 2.5);
    }

    #[test]
    fn a_container_without_periods_has_no_throttled_share() {
        let one = Container { cfs_periods: Some(5), cfs_throttled_periods: Some(5), ..container("/a") };
        let same = containers(1.0, vec![one]);
        assert_eq!(between(Some(&same), &same, 2.0)[0].throttled_share, None);
    }

    #[test]
    fn the_highest_comes_first_and_missing_values_last() {
        let row =
            |name: &str, cpu_cores| ContainerRow { name: name.into(), cpu_cores, ..ContainerRow::default() };
        let mut rows = [row("none", None), row("b", Some(1.0)), row("a", Some(1.0)), row("top", Some(2.0))];
        rows.sort_by(|a, b| order(Sort::Cpu, a, b));
        assert_eq!(rows.clone().map(|row| row.name), ["top", "a", "b", "none"]);
        rows.sort_by(|a, b| order(Sort::Name, a, b));
        assert_eq!(rows.map(|row| row.name), ["a", "b", "none", "top"]);
    }

    #[test]
    fn a_sum_has_a_limit_only_if_all_have_one() {
        let row = |limit, periods| ContainerRow {
            cpu_cores: Some(0.5),
            memory_limit_bytes: limit,
            periods: Some(periods),
            memory_peak_bytes: Some(1.0),
            ..ContainerRow::default()
        };
        let mut sum = row(Some(10.0), (10, 5));
        sum.add(&row(Some(20.0), (30, 5)));
        assert_eq!(
            (sum.cpu_cores, sum.memory_limit_bytes, sum.throttled_share),
            (Some(1.0), Some(30.0), Some(0.25))
        );
        assert_eq!(sum.memory_peak_bytes, None);
        sum.add(&row(None, (0, 0)));
        assert_eq!(sum.memory_limit_bytes, None);
    }
}
