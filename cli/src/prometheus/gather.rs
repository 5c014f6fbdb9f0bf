//! Evidence from metrics: those of the kubelets, and those of kube-state-metrics and Snug where they exist.

use std::{collections::BTreeMap, time::Duration};

use snug_sizing::{
    backtest::trace::owner as owner_by_name,
    evidence::{Evidence, HOUR, Hour, OomKill, Peak},
    minutes::MINUTE,
    workload::{Container, Resources, Workload, WorkloadKind},
};

use super::{BY, ContainerKey, Prometheus, PrometheusError, container_key, windows::Windows};
use crate::evidence::Snapshot;

const DAY: u64 = 24 * HOUR;
/// Length of Snug's windows, milliseconds.
const WINDOW_MILLIS: u64 = 100;
/// Points per series and query. The limit of Prometheus is 11,000.
const MAX_POINTS: u64 = 10_000;
/// Upper bound of OOM kills of one container in an hour.
const MAX_KILLS: usize = 20;
const CPU: &str = "container_cpu_usage_seconds_total";
const MEMORY: &str = "container_memory_working_set_bytes";

/// Kind and name of the owner, by namespace and pod.
type Owners = BTreeMap<(String, String), (String, String)>;

impl Prometheus {
    /// Reads the evidence of the last `since`.
    ///
    /// # Errors
    /// When a query fails, or there are no metrics of containers.
    pub fn evidence(&self, since: Duration, namespaces: &[String]) -> Result<Snapshot, PrometheusError> {
        let selector = selector(namespaces);
        let now = self.instant("vector(time())")?.first().map_or(0, |(_, now)| *now as u64);
        let has_windows = self.has_windows(&selector)?;
        // With native histograms of windows, rates become the minutes of the evidence.
        let min_window = if has_windows { MINUTE } else { 0 };
        let window = (4 * self.scrape_interval(&selector)?).max(min_window);
        let from = now.saturating_sub(since.as_secs()) / HOUR * HOUR;
        let mut builder = EvidenceBuilder { has_windows, ..EvidenceBuilder::default() };
        let cpu = format!("sum by ({BY}) (rate({CPU}{{{selector},cpu=~\"|total\"}}[{window}s]))");
        // At most a day per query, so that responses do not grow with `since`.
        let part = (DAY.min(window * MAX_POINTS) / window).max(1) * window;
        // The last window ends now, so that containers scraped for less than a window are included.
        let first = from + (now - from) % window;
        for begin in (first..now).step_by(part as usize) {
            let end = (begin + part - 1).min(now);
            for (labels, values) in self.range(&cpu, begin + window, end + 1, window)? {
                builder.cpu(container_key(&labels), &values, window);
            }
        }
        if has_windows {
            for begin in (from..now).step_by(DAY as usize) {
                let end = (begin + DAY).min(now);
                builder.windows(self.windows(&selector, end, end - begin)?, end);
            }
        }
        // The values of an hour are those at its end, which may be in the future.
        let until = now.div_ceil(HOUR) * HOUR;
        let memory = format!("max by ({BY}) (max_over_time({MEMORY}{{{selector}}}[1h]))");
        for (labels, values) in self.range(&memory, from + HOUR, until, HOUR)? {
            builder.memory(&container_key(&labels), &values, now);
        }
        self.requests_and_limits(&selector, &mut builder)?;
        let kills = format!("sum by ({BY}) (increase(container_oom_events_total{{{selector}}}[1h])) > 0.5");
        for (labels, values) in self.range(&kills, from + HOUR, until, HOUR)? {
            builder.kills(&container_key(&labels), &values, now);
        }
        let owners = self.owners()?;
        Ok(builder.snapshot(&owners, window, now))
    }

    /// Scrape interval of the kubelets in seconds, from the number of scrapes in ten minutes.
    fn scrape_interval(&self, selector: &str) -> Result<u64, PrometheusError> {
        let spans = format!(
            "quantile(0.5, (max_over_time(timestamp({CPU}{{{selector}}})[10m:15s]) - min_over_time(timestamp({CPU}{{{selector}}})[10m:15s])) \
             / (count_over_time({CPU}{{{selector}}}[10m]) - 1))"
        );
        let found = self.instant(&spans)?;
        let none = || PrometheusError::NoContainers { base: self.base.clone(), metric: CPU };
        let (_, seconds) = found.first().ok_or_else(none)?;
        Ok((seconds.round() as u64).max(1))
    }

    fn requests_and_limits(
        &self,
        selector: &str,
        builder: &mut EvidenceBuilder,
    ) -> Result<(), PrometheusError> {
        // Values of kube-state-metrics come last and override the others.
        let memory = format!("max by ({BY}) (container_spec_memory_limit_bytes{{{selector}}}) > 0");
        let cpu = format!(
            "max by ({BY}) (container_spec_cpu_quota{{{selector}}} / container_spec_cpu_period{{{selector}}}) > 0"
        );
        let state = |what: &str, resource: &str| {
            format!(
                "max by ({BY}) (kube_pod_container_resource_{what}{{{selector},resource=\"{resource}\"}})"
            )
        };
        type Set = fn(&mut Resources, f64);
        let queries: [(String, Set); 6] = [
            (memory, |it, value| it.memory_limit = Some(value as u64)),
            (cpu, |it, value| it.cpu_limit = Some((value * 1000.0).round() as u64)),
            (state("limits", "memory"), |it, value| it.memory_limit = Some(value as u64)),
            (state("limits", "cpu"), |it, value| it.cpu_limit = Some((value * 1000.0).round() as u64)),
            (state("requests", "memory"), |it, value| it.memory_request = Some(value as u64)),
            (state("requests", "cpu"), |it, value| it.cpu_request = Some((value * 1000.0).round() as u64)),
        ];
        for (query, set) in queries {
            for (labels, value) in self.instant(&query)? {
                if let Some(seen) = builder.by_container.get_mut(&container_key(&labels)) {
                    set(&mut seen.current, value);
                }
            }
        }
        Ok(())
    }

    /// Kind and name of each pod's owner by namespace and pod; the owner of a ReplicaSet replaces the ReplicaSet.
    fn owners(&self) -> Result<Owners, PrometheusError> {
        let mut sets = BTreeMap::new();
        for (labels, _) in self.instant("kube_replicaset_owner{owner_kind!=\"<none>\"}")? {
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            sets.insert(
                (label("namespace"), label("replicaset")),
                (label("owner_kind"), label("owner_name")),
            );
        }
        let mut owners = BTreeMap::new();
        for (labels, _) in self.instant("kube_pod_owner{owner_is_controller=\"true\"}")? {
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            let (namespace, kind, name) = (label("namespace"), label("owner_kind"), label("owner_name"));
            let of_set = sets.get(&(namespace.clone(), name.clone())).filter(|_| kind == "ReplicaSet");
            let owner = of_set.cloned().unwrap_or((kind, name));
            owners.insert((namespace, label("pod")), owner);
        }
        Ok(owners)
    }
}

/// The label selector of all queries.
fn selector(namespaces: &[String]) -> String {
    let quoted = |name: &String| {
        let special =
            |c: char| if c.is_ascii_alphanumeric() || c == '-' { format!("{c}") } else { format!("\\\\{c}") };
        name.chars().filter(|c| !c.is_control() && *c != '"').map(special).collect::<String>()
    };
    let of_all = "container!=\"\",container!=\"POD\"";
    if namespaces.is_empty() {
        return of_all.to_owned();
    }
    let names: Vec<String> = namespaces.iter().map(quoted).collect();
    format!("{of_all},namespace=~\"{}\"", names.join("|"))
}

/// Evidence of one container of one pod, with its current requests and limits and the time of the last sample.
#[derive(Debug)]
struct ObservedContainer {
    evidence: Evidence,
    current: Resources,
    last: u64,
}

#[derive(Debug, Default)]
struct EvidenceBuilder {
    by_container: BTreeMap<ContainerKey, ObservedContainer>,
    /// Whether Snug's windows are available as native histograms.
    has_windows: bool,
}

impl EvidenceBuilder {
    fn cpu(&mut self, container_key: ContainerKey, values: &[(u64, f64)], window: u64) {
        let pod = container_key.1.clone();
        let window_millis = if self.has_windows { WINDOW_MILLIS } else { window * 1000 };
        let seen = self.by_container.entry(container_key).or_insert_with(|| ObservedContainer {
            evidence: Evidence::new(Workload::default(), Container::default(), window_millis),
            current: Resources::default(),
            last: 0,
        });
        let totals = seen.evidence.pods.entry(pod).or_default();
        for (at, cores) in values.iter().filter(|(_, cores)| *cores >= 0.0) {
            totals.observed += window;
            totals.cpu_millis += (cores * window as f64 * 1000.0) as u64;
            seen.last = seen.last.max(*at);
            let record = seen.evidence.hours.entry(hour_before(*at)).or_default();
            record.observed += window;
            if self.has_windows {
                record.minutes.record(*cores, (window + MINUTE / 2) / MINUTE);
            } else {
                record.cpu.record(*cores, 1);
            }
        }
    }

    /// Adds Snug's windows and quota simulation until a time, for containers with CPU rates.
    fn windows(&mut self, counted: Windows, until: u64) {
        let Windows { windows, quota_what_ifs } = counted;
        for (container_key, histogram) in windows {
            if let Some(seen) = self.by_container.get_mut(&container_key) {
                seen.evidence.hours.entry(hour_before(until)).or_default().cpu.merge(&histogram);
            }
        }
        for (container_key, quota_what_if) in quota_what_ifs {
            if let Some(seen) = self.by_container.get_mut(&container_key) {
                seen.evidence.hours.entry(hour_before(until)).or_default().quota_what_if =
                    Some(quota_what_if);
            }
        }
    }

    fn memory(&mut self, container_key: &ContainerKey, values: &[(u64, f64)], now: u64) {
        let Some(seen) = self.by_container.get_mut(container_key) else { return };
        for (at, bytes) in values.iter().filter(|(_, bytes)| *bytes >= 0.0) {
            let bytes = *bytes as u64;
            if let Some(totals) = seen.evidence.pods.get_mut(&container_key.1) {
                totals.peak = totals.peak.max(bytes);
            }
            let record = seen.evidence.hours.entry(hour_before(*at)).or_default();
            record.peak = Some(Peak { bytes, at: (*at).min(now), pod: container_key.1.clone() });
        }
    }

    /// Adds OOM kills. Their limit is not recorded; the current limit is used instead.
    fn kills(&mut self, container_key: &ContainerKey, values: &[(u64, f64)], now: u64) {
        let Some(seen) = self.by_container.get_mut(container_key) else { return };
        let Some(limit) = seen.current.memory_limit else { return };
        for (at, kills) in values {
            let kill = OomKill { at: (*at).min(now), limit, pod: container_key.1.clone() };
            let times = (kills.round() as usize).min(MAX_KILLS);
            let record = seen.evidence.hours.entry(hour_before(*at)).or_default();
            record.kills.extend(std::iter::repeat_n(kill, times));
        }
    }

    fn snapshot(self, owners: &Owners, window: u64, now: u64) -> Snapshot {
        // The owner of a deleted pod is derived from its name; the kind of that owner comes from pods that still exist.
        let kinds: BTreeMap<(&str, &str), &str> = owners
            .iter()
            .map(|((namespace, _), (kind, name))| ((namespace.as_str(), name.as_str()), kind.as_str()))
            .collect();
        let mut snapshot = Snapshot::default();
        for ((namespace, pod, container), ObservedContainer { mut evidence, current, last }) in
            self.by_container
        {
            let (owner, name) = owners.get(&(namespace.clone(), pod.clone())).cloned().unwrap_or_else(|| {
                let name = owner_by_name(&pod);
                let kind = kinds.get(&(namespace.as_str(), name.as_str())).copied().unwrap_or_default();
                (kind.to_owned(), name)
            });
            let kind = WorkloadKind::from_owner(&owner);
            let replicas = u64::from(last + 2 * window >= now);
            evidence.workload = Workload { namespace, name, owner, kind, replicas };
            evidence.container = Container { name: container, seen: last, current, ..Container::default() };
            snapshot.insert(evidence);
        }
        snapshot.at = now;
        snapshot
    }
}

/// The hour that ends at a time, or that contains it.
fn hour_before(at: u64) -> Hour {
    Hour::from_seconds(at.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_escaped_in_selectors() {
        assert_eq!(selector(&[]), "container!=\"\",container!=\"POD\"");
        let hostile = selector(&["shop".to_owned(), "a.*\"} or vector(1)".to_owned()]);
        assert!(
            hostile.ends_with("namespace=~\"shop|a\\\\.\\\\*\\\\}\\\\ or\\\\ vector\\\\(1\\\\)\""),
            "{hostile}"
        );
    }

    #[test]
    fn deleted_pods_belong_to_the_owner_in_their_name() {
        let mut builder = EvidenceBuilder::default();
        let container_key = |pod: &str| ("shop".to_owned(), pod.to_owned(), "app".to_owned());
        for (pod, last) in [("web-5d4f8c7b9c-x7k2p", 7200), ("web-5d4f8c7b9c-gone1", 3600), ("db-0", 7200)] {
            builder.cpu(container_key(pod), &[(last - 60, 0.5), (last, f64::from(1))], 60);
            builder.memory(&container_key(pod), &[(last, 1e6)], last);
        }
        let owner = ("Deployment".to_owned(), "web".to_owned());
        let owners = [(("shop".to_owned(), "web-5d4f8c7b9c-x7k2p".to_owned()), owner)].into();
        let snapshot = builder.snapshot(&owners, 60, 7200);
        let said: Vec<_> = snapshot
            .evidence()
            .map(|it| {
                (it.title(), it.workload.owner.clone(), it.workload.replicas, it.hours.len(), it.pods.len())
            })
            .collect();
        let expected = [("shop/db/app", "", 1, 1, 1), ("shop/web/app", "Deployment", 1, 2, 2)];
        assert_eq!(
            said,
            expected.map(|(title, owner, replicas, hours, pods)| {
                (title.to_owned(), owner.to_owned(), replicas, hours, pods)
            })
        );
    }
}
