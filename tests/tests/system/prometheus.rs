//! The agent with a real Prometheus.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use snug_tests::agent::{Agent, Process, eventually};
use tempfile::TempDir;

use crate::{cannot_run, container, container::pod_list, has_program};

/// Series that Prometheus adds for each target.
const SYNTHETIC: usize = 5;
/// The scrape interval, long enough for a busy host with many cgroups.
const INTERVAL: Duration = Duration::from_secs(2);
/// The range of `rate`.
pub(crate) const WINDOW: Duration = Duration::from_secs(12);

pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
    /// The number of targets.
    targets: usize,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes both endpoints of an agent, and other targets as another job.
    pub(crate) fn scraping(agent: SocketAddr, others: &[(&str, SocketAddr)]) -> Result<Self> {
        Self::with(&[], agent, others)
    }

    /// Like [`Self::start`], with further flags.
    pub(crate) fn with(flags: &[&str], agent: SocketAddr, others: &[(&str, SocketAddr)]) -> Result<Self> {
        Self::with_rules(flags, agent, others, None)
    }

    /// The same with a file of rules.
    pub(crate) fn with_rules(
        flags: &[&str],
        agent: SocketAddr,
        others: &[(&str, SocketAddr)],
        rules: Option<&Path>,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        let interval = INTERVAL.as_secs();
        let rules: Vec<&Path> = rules.into_iter().collect();
        let at = |address| format!("honor_labels: true, static_configs: [{{targets: ['{address}']}}]");
        let targets = at(agent);
        let others_targets: String = others
            .iter()
            .map(|(job, address)| format!("- {{job_name: {job}, {}}}\n", at(*address)))
            .collect();
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: {interval}s, scrape_timeout: {interval}s, evaluation_interval: 1s}}\n\
                 rule_files: {rules:?}\n\
                 scrape_configs:\n\
                 - {{job_name: snug, {targets}}}\n\
                 - {{job_name: cadvisor, metrics_path: /metrics/cadvisor, {targets}}}\n\
                 {others_targets}"
            ),
        )?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags);
        let process = Process::spawn(&mut command)?;
        let mut prometheus = Self { process, address, targets: 2 + others.len(), _folder: folder };
        eventually(Duration::from_secs(30), "Prometheus has scraped every target", || {
            if let Some(status) = prometheus.process.has_ended()? {
                bail!("Prometheus ended with {status}: {}", prometheus.process.log());
            }
            let up = prometheus.query("up == 1", None).unwrap_or_default();
            Ok((up.len() == prometheus.targets).then_some(()))
        })
        .with_context(|| {
            let targets = prometheus.get("/api/v1/targets", &[]).unwrap_or_default();
            format!("{targets}\n{}", prometheus.process.log())
        })?;
        Ok(prometheus)
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut request = ureq::get(format!("http://{}{path}", self.address));
        for (name, value) in parameters {
            request = request.query(*name, *value);
        }
        let answer: Value = serde_json::from_str(&request.call()?.body_mut().read_to_string()?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The samples of an instant query, at a moment or now.
    pub(crate) fn query(&self, query: &str, at: Option<f64>) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
        let time = at.map(|at| format!("{at:.3}"));
        let mut parameters = vec![("query", query)];
        parameters.extend(time.as_deref().map(|time| ("time", time)));
        let data = self.get("/api/v1/query", &parameters)?;
        let result = data["result"].as_array().with_context(|| data.to_string())?;
        result
            .iter()
            .map(|sample| {
                let labels = serde_json::from_value(sample["metric"].clone())?;
                let value = sample["value"][1].as_str().with_context(|| sample.to_string())?;
                Ok((labels, value.parse()?))
            })
            .collect()
    }

    /// The value of a query with at most one sample.
    pub(crate) fn value(&self, query: &str, at: Option<f64>) -> Result<Option<f64>> {
        match self.query(query, at)?.as_slice() {
            [] => Ok(None),
            [(_, value)] => Ok(Some(*value)),
            several => bail!("{query}: {several:?}"),
        }
    }

    /// Waits until all current measurements have been scraped.
    pub(crate) fn catch_up(&self) -> Result<()> {
        let now = unix_now();
        eventually(Duration::from_secs(20), "Prometheus scrapes on", || {
            let behind = self.query(&format!("timestamp(up) < {:.3}", now + 1.0), None)?;
            Ok(behind.is_empty().then_some(()))
        })
    }

    /// Warnings and errors in its log.
    fn complaints(&self) -> Vec<String> {
        let log = self.process.log();
        log.lines().filter(|line| !line.contains("level=info")).map(str::to_owned).collect()
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[test]
fn prometheus_sees_what_the_kernel_counts() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(&pods, pod_list(&[container.pod("shop", "web", "app")]))?;
    let agent = Agent::start(["--pods-file", &pods.to_string_lossy()])?;
    container.be_busy()?;
    let prometheus = Prometheus::scraping(agent.address(), &[])?;

    rates_are_right(&prometheus, &container)?;
    nothing_is_lost_or_twice(&agent, &prometheus)?;
    a_removed_container_goes_stale_at_once(&prometheus, container)?;
    assert_eq!(prometheus.complaints(), Vec::<String>::new());
    Ok(())
}

#[test]
fn prometheus_reads_native_histograms() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let agent = Agent::start(["--metrics-allow", "snug_container_*"])?;
    // A tenth of a core: 10 ms of each 100 ms.
    container.run("while :; do timeout 0.02 sh -c 'while :; do :; done'; sleep 0.18; done")?;
    let prometheus = Prometheus::with(&["--enable-feature=native-histograms"], agent.address(), &[])?;
    let of = format!("snug_container_cpu_window_cores{{id='{}'}}", container.path);
    let read = |part: &str| {
        agent
            .scrape("/metrics")?
            .value(&format!("snug_container_cpu_window_cores_{part}"), &[("id", &container.path)])
    };
    thread::sleep(WINDOW);
    for part in ["count", "sum"] {
        let before = read(part)?;
        let scraped = eventually(Duration::from_secs(30), "it has scraped as much", || {
            let value = prometheus.value(&format!("histogram_{part}({of})"), None)?;
            Ok(value.filter(|value| *value >= before))
        })?;
        assert!(scraped <= read(part)?, "{part}: {scraped}");
    }
    // Every window is in a bucket: most are below half a core, few above.
    let share = |from: f64, to: f64| {
        let query = format!("histogram_fraction({from}, {to}, rate({of}[{}s]))", WINDOW.as_secs());
        prometheus.value(&query, None)?.with_context(|| format!("{query} is empty"))
    };
    let all = share(-1.0, 1_000.0)?;
    assert!((all - 1.0).abs() < 1e-9, "{all}");
    let (low, some) = (share(-1.0, 0.02)?, share(0.02, 1.2)?);
    assert!(low > 0.2 && some > 0.2, "idle and busy windows: {low} {some}");
    let mean =
        format!("histogram_sum(rate({of}[{0}s])) / histogram_count(rate({of}[{0}s]))", WINDOW.as_secs());
    let mean = prometheus.value(&mean, None)?.context("no mean")?;
    let used = format!(
        "rate(snug_container_cpu_usage_seconds_total{{id='{}'}}[{}s])",
        container.path,
        WINDOW.as_secs()
    );
    let used = prometheus.value(&used, None)?.context("no rate")?;
    assert!((mean - used).abs() < 0.15 * used, "the windows' mean is {mean}, use is {used}");
    let median =
        prometheus.value(&format!("histogram_quantile(0.99, rate({of}[{}s]))", WINDOW.as_secs()), None)?;
    assert!(median.is_some_and(|cores| (0.05..2.5).contains(&cores)), "{median:?}");
    assert_eq!(prometheus.complaints(), Vec::<String>::new());
    Ok(())
}

/// Waits for a window without a missed scrape; on a busy host Prometheus misses some. Returns the cores that the container used
/// in the window, and the end of the window.
pub(crate) fn watch(prometheus: &Prometheus, container: &container::Container) -> Result<(f64, f64)> {
    let scrapes = WINDOW.as_secs() / INTERVAL.as_secs();
    let regular = format!("sum_over_time(up[{}s]) == {scrapes}", WINDOW.as_secs());
    // The values of the kernel's file in the same time.
    let mut curve = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < 4 * WINDOW {
        curve.push((unix_now(), container.cpu_seconds()?));
        thread::sleep(Duration::from_millis(50));
        let end = unix_now() - 0.5;
        let whole = begun.elapsed() > WINDOW + Duration::from_secs(2);
        if whole && prometheus.query(&regular, Some(end))?.len() == prometheus.targets {
            curve.push((unix_now(), container.cpu_seconds()?));
            let used = at(&curve, end)? - at(&curve, end - WINDOW.as_secs_f64())?;
            return Ok((used / WINDOW.as_secs_f64(), end));
        }
    }
    bail!("Prometheus does not scrape regularly: this host is too busy to tell")
}

fn rates_are_right(prometheus: &Prometheus, container: &container::Container) -> Result<()> {
    let (cores, end) = watch(prometheus, container)?;
    assert!(cores > 0.2, "the container got {cores} cores: this host is too busy to tell");
    let labels = "namespace='shop',container='app'";
    for (name, more) in [
        ("snug_container_cpu_usage_seconds_total", ",kind='app',workload_kind='Deployment',workload='web'"),
        ("container_cpu_usage_seconds_total", ",cpu='total',image='example.org/web:1'"),
        ("snug_pod_cpu_usage_seconds_total", ""),
        ("snug_workload_cpu_usage_seconds_total", ",workload='web'"),
    ] {
        let labels = if name.starts_with("snug_pod") { "namespace='shop'" } else { labels };
        let query = format!("rate({name}{{{labels}{more}}}[{}s])", WINDOW.as_secs());
        let rate = prometheus.value(&query, Some(end))?.with_context(|| format!("{query} is empty"))?;
        // Workload counters are updated once a second, so a window may be off by one second.
        let steps = if name.starts_with("snug_workload") { 1.0 / WINDOW.as_secs_f64() } else { 0.0 };
        assert!((rate - cores).abs() < (0.05 + steps) * cores, "{query} is {rate}, really {cores}");
    }
    Ok(())
}

/// The interpolated value of a curve at a time.
fn at(curve: &[(f64, f64)], moment: f64) -> Result<f64> {
    let pairs = curve.windows(2).filter_map(|pair| <[_; 2]>::try_from(pair).ok());
    pairs
        .filter(|[(from, _), (to, _)]| (*from..=*to).contains(&moment))
        .map(|[(from, low), (to, high)]| low + (high - low) * (moment - from) / (to - from))
        .next()
        .context("the moment was not watched")
}

fn nothing_is_lost_or_twice(agent: &Agent, prometheus: &Prometheus) -> Result<()> {
    for (job, path) in [("snug", "/metrics"), ("cadvisor", "/metrics/cadvisor")] {
        // Cgroups of the host are created and removed between two scrapes.
        eventually(Duration::from_secs(30), "Prometheus got as many samples as are served", || {
            let served = agent.scrape(path)?.0.len() as f64;
            let scraped = prometheus.value(&format!("scrape_samples_scraped{{job='{job}'}}"), None)?;
            Ok((scraped == Some(served)).then_some(()))
        })?;
        // In one scrape, the samples are as many as the series: no two samples collided.
        let lost =
            format!("scrape_samples_scraped{{job='{job}'}} - on() (count({{job='{job}'}}) - {SYNTHETIC})");
        assert_eq!(prometheus.value(&lost, None)?, Some(0.0), "{path}");
    }
    // Only OpenMetrics names a family without the suffix.
    let asked_for = |metric| prometheus.get("/api/v1/targets/metadata", &[("metric", metric)]);
    let open_metrics = asked_for("snug_agent_passes")?;
    assert_eq!(open_metrics[0]["type"], "counter", "Prometheus negotiates OpenMetrics: {open_metrics}");
    assert_eq!(asked_for("snug_container_memory_usage_bytes")?[0]["unit"], "bytes");
    assert_eq!(asked_for("container_cpu_usage_seconds_total")?[0]["type"], "counter");
    Ok(())
}

fn a_removed_container_goes_stale_at_once(
    prometheus: &Prometheus,
    container: container::Container,
) -> Result<()> {
    let id = container.id.clone();
    let series = [
        format!("snug_container_cpu_usage_seconds_total{{id=~'.*{id}'}}"),
        format!("container_last_seen{{name='{id}'}}"),
    ];
    for query in &series {
        assert_eq!(prometheus.query(query, None)?.len(), 1, "{query}");
    }
    let used = container.remove()?;
    prometheus.catch_up()?;
    for query in &series {
        assert_eq!(prometheus.query(query, None)?, [], "{query} after the container's end");
    }
    let of_workload = |what: &str| prometheus.value(&format!("snug_workload_{what}{{workload='web'}}"), None);
    let kept = of_workload("cpu_usage_seconds_total")?.context("the workload's counter has gone")?;
    // When measuring by files, usage after the last sample is not known.
    let exact =
        prometheus.query("snug_agent_measurement_source{measurement='cpu',source='kernel'}", None)?.len()
            == 1
            && prometheus
                .query("snug_agent_program_info{program='cgroup_removed',verdict='running'}", None)?
                .len()
                == 1;
    let unknown = if exact { 0.001 } else { 1.5 };
    assert!((used - unknown..used + 0.001).contains(&kept), "the workload's {kept} s, really {used} s");
    assert_eq!(of_workload("containers_ended_total")?, Some(1.0));
    Ok(())
}
