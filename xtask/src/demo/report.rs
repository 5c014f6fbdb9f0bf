//! Compares measurements of Snug with the true values.

use std::collections::BTreeMap;

use snug_client::exposition::Sample;

use super::{
    plan::{CONTAINER, NAMESPACE, Pod, Workload},
    table::{self, Unit},
};

/// cgroup v2 shows whole microseconds.
const ROUNDING: f64 = 1e-6;

/// Allowed difference between a measurement and the true value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    /// In the measurement's unit.
    pub(super) absolute: f64,
    /// As a fraction of the true value.
    pub(super) relative: f64,
}

impl Tolerance {
    /// No difference is allowed.
    pub(super) const EXACT: Self = Self { absolute: 0.0, relative: 0.0 };

    fn allows(self, truth: f64, measured: f64) -> bool {
        (measured - truth).abs() <= self.absolute + self.relative * truth.abs() + ROUNDING
    }

    fn show(self, unit: Unit) -> String {
        let relative = (self.relative > 0.0).then(|| format!("{:.0} %", self.relative * 100.0));
        let absolute = (self.absolute > 0.0).then(|| unit.show(self.absolute));
        let parts: Vec<String> = relative.into_iter().chain(absolute).collect();
        if parts.is_empty() { "none".to_owned() } else { format!("± {}", parts.join(" + ")) }
    }
}

/// One comparison.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) workload: String,
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) truth: Option<f64>,
    pub(super) measured: Option<f64>,
    pub(super) tolerance: Tolerance,
}

impl Check {
    fn passed(&self) -> bool {
        matches!((self.truth, self.measured), (Some(truth), Some(measured))
            if self.tolerance.allows(truth, measured))
    }

    fn difference(&self) -> String {
        let (Some(truth), Some(measured)) = (self.truth, self.measured) else { return "-".to_owned() };
        let difference = measured - truth;
        // A percentage of a value near zero would mislead.
        if self.tolerance.relative > 0.0 && truth >= 10.0 * self.tolerance.absolute {
            return format!("{:+.1} %", difference / truth * 100.0);
        }
        let shown = self.unit.show(difference.abs());
        match difference {
            d if d == 0.0 || shown == self.unit.show(0.0) => "0".to_owned(),
            d if d > 0.0 => format!("+{shown}"),
            _ => format!("-{shown}"),
        }
    }

    fn cells(&self, workload: &str) -> [String; 7] {
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| self.unit.show(value));
        [
            workload.to_owned(),
            self.what.clone(),
            show(self.truth),
            show(self.measured),
            self.difference(),
            self.tolerance.show(self.unit),
            if self.passed() { "ok" } else { "WRONG" }.to_owned(),
        ]
    }
}

/// All comparisons as a table.
pub(super) fn render(checks: &[Check]) -> String {
    let headings = ["WORKLOAD", "WHAT", "TRUTH", "SNUG", "DIFFERENCE", "ALLOWED", ""];
    let mut rows = vec![headings.map(str::to_owned)];
    let mut last = "";
    for check in checks {
        // Name each workload in its first row only.
        rows.push(check.cells(if check.workload == last { "" } else { &check.workload }));
        last = &check.workload;
    }
    table::render(&rows, [false, false, true, true, true, false, false])
}

/// A sentence for each failed comparison.
pub(super) fn failures(checks: &[Check]) -> Vec<String> {
    let failed = checks.iter().filter(|check| !check.passed());
    failed
        .map(|check| {
            let show = |value: Option<f64>| {
                value.map_or_else(|| "nothing".to_owned(), |value| check.unit.show(value))
            };
            let (truth, measured) = (show(check.truth), show(check.measured));
            format!("{} {}: expected {truth}, Snug measured {measured}", check.workload, check.what)
        })
        .collect()
}

/// One scrape of the agent's metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a>(pub(super) &'a [Sample]);

impl Page<'_> {
    /// The value of a series of the pod's container.
    pub(super) fn of_pod(self, pod: &Pod, metric: &str) -> Option<f64> {
        let labels = [("namespace", NAMESPACE), ("pod", &pod.name), ("container", CONTAINER)];
        self.only(metric, &labels)
    }

    /// The value of a series of the workload, selected by one more label if the metric has one.
    pub(super) fn of_workload(
        self,
        workload: &Workload,
        metric: &str,
        label: Option<(&str, &str)>,
    ) -> Option<f64> {
        let mut labels = vec![
            ("namespace", NAMESPACE),
            ("workload_kind", workload.owner.kind()),
            ("workload", workload.name),
            ("container", CONTAINER),
        ];
        labels.extend(label);
        self.only(metric, &labels)
    }

    /// `None` unless exactly one series matches: two would mean that something is counted twice.
    fn only(self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut matching = self.0.iter().filter(|sample| {
            sample.name == metric && labels.iter().all(|(name, value)| sample.label(name) == *value)
        });
        let value = matching.next()?.value;
        matching.next().is_none().then_some(value)
    }

    /// The sum of all series of a metric.
    pub(super) fn sum(self, metric: &str) -> f64 {
        self.0.iter().filter(|sample| sample.name == metric).map(|sample| sample.value).sum()
    }
}

/// CPU time and memory of the agent itself between two scrapes, `seconds` apart.
pub(super) fn cost(before: Page<'_>, after: Page<'_>, seconds: f64) -> String {
    let rise = |metric: &str| after.sum(metric) - before.sum(metric);
    let share = |of: f64| format!("{:.2} % of a core", of / seconds.max(1e-9) * 100.0);
    let (passes, runs) =
        (rise("snug_agent_passes_total").max(1.0), rise("snug_agent_program_runs_total").max(1.0));
    let programs = rise("snug_agent_program_run_seconds_total");
    let pass = rise("snug_agent_pass_seconds_total") / passes;
    let flushing = rise("snug_agent_flush_seconds_total") / seconds.max(1e-9);
    let mut rows = vec![
        ["CPU".to_owned(), share(rise("snug_agent_cpu_seconds_total"))],
        [
            "memory".to_owned(),
            format!(
                "{} resident, {} in eBPF maps",
                table::bytes(after.sum("snug_agent_resident_bytes")),
                table::bytes(after.sum("snug_agent_map_bytes")),
            ),
        ],
        [
            "passes".to_owned(),
            format!(
                "{passes:.0} over {:.0} cgroups, {} each; plus {} a second for flushing cgroup statistics",
                after.sum("snug_agent_pass_cgroups"),
                table::short_time(pass),
                table::short_time(flushing),
            ),
        ],
        [
            "programs".to_owned(),
            format!(
                "{}, {} a run (an event, or one or more cgroups)",
                share(programs),
                table::short_time(programs / runs)
            ),
        ],
    ];
    for (source, measurements) in sources(after) {
        rows.push([format!("by {source}"), measurements.join(", ")]);
    }
    table::render(&rows, [false, false])
}

/// Measurements by source: eBPF or files.
fn sources(page: Page<'_>) -> BTreeMap<String, Vec<String>> {
    let mut sources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sample in page.0.iter().filter(|sample| sample.name == "snug_agent_measurement_source") {
        let source = match sample.label("source") {
            "kernel" => "eBPF",
            other => other,
        };
        sources.entry(source.to_owned()).or_default().push(sample.label("measurement").to_owned());
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::{BRIEF, STEADY};

    fn check(truth: Option<f64>, measured: Option<f64>, tolerance: Tolerance) -> Check {
        let (workload, what) = ("Deployment/steady".to_owned(), "CPU time".to_owned());
        Check { workload, what, unit: Unit::Seconds, truth, measured, tolerance }
    }

    const TWO_PERCENT: Tolerance = Tolerance { absolute: 0.05, relative: 0.02 };

    #[test]
    fn a_difference_within_tolerance_passes() {
        for (measured, passes) in [(10.0, true), (10.25, true), (9.75, true), (10.26, false), (9.74, false)] {
            assert_eq!(check(Some(10.0), Some(measured), TWO_PERCENT).passed(), passes, "{measured}");
        }
        assert!(check(Some(0.3), Some(0.1 + 0.2), Tolerance::EXACT).passed());
        assert!(!check(Some(0.3), Some(0.31), Tolerance::EXACT).passed());
    }

    #[test]
    fn nothing_measured_is_wrong() {
        assert!(!check(Some(1.0), None, TWO_PERCENT).passed());
        assert!(!check(None, Some(1.0), TWO_PERCENT).passed());
        assert!(!check(Some(1.0), Some(f64::NAN), TWO_PERCENT).passed());
        let failures = failures(&[check(Some(1.0), None, TWO_PERCENT)]);
        assert_eq!(failures, ["Deployment/steady CPU time: expected 1.000 s, Snug measured nothing"]);
    }

    #[test]
    fn the_table_names_a_workload_once() {
        let checks = [
            check(Some(0.011), Some(0.014), TWO_PERCENT),
            check(Some(6.0), Some(6.03), TWO_PERCENT),
            Check {
                what: "OOM kills".to_owned(),
                unit: Unit::Count,
                ..check(Some(7.0), Some(6.0), Tolerance::EXACT)
            },
        ];
        let expected = "\
WORKLOAD           WHAT         TRUTH     SNUG  DIFFERENCE  ALLOWED
Deployment/steady  CPU time   0.011 s  0.014 s    +0.003 s  ± 2 % + 0.050 s  ok
                   CPU time   6.000 s  6.030 s      +0.5 %  ± 2 % + 0.050 s  ok
                   OOM kills        7        6          -1  none             WRONG
";
        assert_eq!(render(&checks), expected);
    }

    fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sample { name: name.to_owned(), labels, value }
    }

    #[test]
    fn exactly_one_series_matches_the_labels() {
        let pod = Pod::new(&STEADY);
        let of_pod = [("namespace", "shop"), ("pod", pod.name.as_str()), ("container", "app")];
        let of_job =
            [("namespace", "shop"), ("workload_kind", "Job"), ("workload", "brief"), ("container", "app")];
        let kills = [&of_job[..], &[("event", "oom_kill")]].concat();
        let mut samples = vec![
            sample("cpu", &of_pod, 1.0),
            sample("cpu", &[("pod", "other")], 2.0),
            sample("events", &kills, 3.0),
            sample("events", &[&of_job[..], &[("event", "max")]].concat(), 4.0),
        ];
        let page = Page(&samples);
        assert_eq!(page.of_pod(&pod, "cpu"), Some(1.0));
        assert_eq!(page.of_workload(&BRIEF, "events", Some(("event", "oom_kill"))), Some(3.0));
        assert_eq!(page.of_workload(&BRIEF, "events", None), None);
        assert_eq!(page.of_workload(&STEADY, "events", Some(("event", "max"))), None);
        assert_eq!(page.sum("cpu"), 3.0);
        samples.push(sample("cpu", &of_pod, 5.0));
        assert_eq!(Page(&samples).of_pod(&pod, "cpu"), None);
    }

    #[test]
    fn cost_is_the_increase_between_two_scrapes() {
        let source = |measurement, source| {
            sample("snug_agent_measurement_source", &[("measurement", measurement), ("source", source)], 1.0)
        };
        let before =
            [sample("snug_agent_cpu_seconds_total", &[], 1.0), sample("snug_agent_passes_total", &[], 10.0)];
        let after = [
            sample("snug_agent_cpu_seconds_total", &[], 1.2),
            sample("snug_agent_passes_total", &[], 210.0),
            sample("snug_agent_pass_seconds_total", &[], 0.02),
            sample("snug_agent_pass_cgroups", &[], 12.0),
            sample("snug_agent_program_run_seconds_total", &[("program", "a")], 0.001),
            sample("snug_agent_program_run_seconds_total", &[("program", "b")], 0.001),
            sample("snug_agent_program_runs_total", &[("program", "a")], 2000.0),
            sample("snug_agent_resident_bytes", &[], 10_485_760.0),
            source("cpu", "kernel"),
            source("slow_rows", "files"),
        ];
        let text = cost(Page(&before), Page(&after), 20.0);
        for part in [
            "1.00 % of a core",
            "10.0 MiB resident",
            "200 over 12 cgroups, 100.0 µs each",
            "0.01 % of a core, 1.0 µs a run",
            "by eBPF   cpu\n",
            "by files  slow_rows\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
