//! `snug` with a Prometheus and a VictoriaMetrics that have the same metrics of a cluster whose usage is known.

mod cluster;
mod proxy;

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snug_sizing::evidence::Evidence;
use snug_tests::agent::{Process, eventually};
use tempfile::TempDir;

use self::{
    cluster::{Cluster, Truth},
    proxy::Proxy,
};
use crate::{cannot_run, has_program, recommend::run_snug};

/// Hours that are read.
const SINCE: &str = "8h";

/// A server with the metrics of a cluster.
struct Server {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Server {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn new(command: &mut Command, address: SocketAddr, folder: TempDir) -> Result<Self> {
        let process = Process::spawn(command)?;
        eventually(Duration::from_secs(30), "the server listens", || Ok(TcpStream::connect(address).ok()))?;
        Ok(Self { address, _process: process, _folder: folder })
    }

    fn prometheus(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        import(cluster, folder.path())?;
        let address = free_address()?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.retention.time=60d");
        Self::new(&mut command, address, folder)
    }

    fn victoria_metrics(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = free_address()?;
        let mut command = Command::new("victoria-metrics");
        command
            .arg(format!("-storageDataPath={}", folder.path().join("data").display()))
            .arg(format!("-httpListenAddr={address}"))
            // Results of what was imported a moment ago are not cached.
            .args(["-retentionPeriod=1y", "-search.latencyOffset=0s", "-search.disableCache"]);
        let server = Self::new(&mut command, address, folder)?;
        let import = format!("{}/api/v1/import/prometheus", server.url());
        ureq::post(&import).send(cluster.text_format())?;
        eventually(Duration::from_secs(30), "the metrics are imported", || {
            let count = format!("{}/api/v1/query?query=count(kube_pod_owner)", server.url());
            Ok(ureq::get(&count).call()?.into_body().read_to_string()?.contains("\"value\"").then_some(()))
        })?;
        Ok(server)
    }
}

/// Writes `prometheus.yml` and the folder `data` of a Prometheus with the metrics of a cluster, which scrapes nothing.
fn import(cluster: &Cluster, folder: &Path) -> Result<()> {
    fs::write(folder.join("metrics"), cluster.open_metrics())?;
    fs::write(folder.join("prometheus.yml"), "global: {scrape_interval: 1h}\n")?;
    let mut import = Command::new("promtool");
    import.args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"]);
    let output = import.arg(folder.join("metrics")).arg(folder.join("data")).output()?;
    ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The same with a cluster that has the Deployment `shop/web`.
pub(crate) fn import_shop(folder: &Path) -> Result<()> {
    import(&Cluster::new("", &["a"]), folder)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Reads the usage histories of all containers by `namespace/workload/container`.
fn evidence(url: &str, more: &[&str]) -> Result<BTreeMap<String, Evidence>> {
    let since: &[&str] = if more.contains(&"--since") { &[] } else { &["--since", SINCE] };
    let output = run_snug(&[&["snapshot", "--prometheus", url], since, more].concat())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout)?;
    let all = text.lines().skip(1).map(|line| -> Result<(String, Evidence)> {
        let evidence: Evidence = serde_json::from_str(line)?;
        Ok((evidence.title(), evidence))
    });
    all.collect()
}

/// The message of a command that fails.
fn refusal(arguments: &[&str]) -> Result<String> {
    let output = run_snug(arguments)?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8(output.stderr)?)
}

fn assert_true(found: &BTreeMap<String, Evidence>, truth: &BTreeMap<String, Truth>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (title, truth) in truth {
        let Evidence { workload, container, hours, pods, .. } = &found[title];
        let (observed, millis) =
            pods.values().fold((0, 0), |sum, pod| (sum.0 + pod.observed, sum.1 + pod.cpu_millis));
        let cores = millis as f64 / 1000.0 / observed as f64;
        println!("{title}: {cores:.4} cores, really {}; {} pods", truth.cores, pods.len());
        assert!(
            (cores / truth.cores - 1.0).abs() < truth.tolerance,
            "{title}: {cores} cores, really {}",
            truth.cores
        );
        let peak = hours.values().filter_map(|hour| Some(hour.highest()?.bytes)).max();
        assert_eq!(peak, Some(truth.peak), "{title}");
        assert_eq!(
            (workload.owner.as_str(), container.role, pods.len()),
            (truth.owner, truth.role, truth.pods),
            "{title}"
        );
        assert_eq!(container.current.memory_limit, truth.limit, "{title}");
        let kills: Vec<u64> = hours.values().flat_map(|hour| &hour.kills).map(|kill| kill.limit).collect();
        assert_eq!(kills.len(), truth.kills, "{title}");
        assert!(kills.iter().all(|limit| Some(*limit) == truth.limit), "{title}: {kills:?}");
        let sum = |pick: fn(&snug_sizing::evidence::HourRecord) -> u64| hours.values().map(pick).sum::<u64>();
        let throttled = sum(|hour| hour.throttled) as f64 / sum(|hour| hour.periods).max(1) as f64;
        assert!((throttled - truth.throttled).abs() < 0.02, "{title}: {throttled} of the periods");
    }
}

/// Both servers; `None` if this host has not both.
fn servers(cluster: &Cluster) -> Result<Option<Vec<(&'static str, Server)>>> {
    for program in ["promtool", "prometheus", "victoria-metrics"] {
        if !has_program(program) {
            return cannot_run(format!("there is no {program}: cargo xtask setup prometheus")).map(|()| None);
        }
    }
    let servers = vec![
        ("Prometheus", Server::prometheus(cluster)?),
        ("VictoriaMetrics", Server::victoria_metrics(cluster)?),
    ];
    Ok(Some(servers))
}

#[test]
fn a_cluster_is_the_same_from_prometheus_and_from_victoria_metrics() -> Result<()> {
    let cluster = Cluster::new("", &["a"]);
    let Some(servers) = servers(&cluster)? else { return Ok(()) };
    for (name, server) in &servers {
        println!("{name}:");
        // Prometheus refuses queries until it is ready.
        let found = evidence(&server.url(), &[])?;
        assert_true(&found, &cluster.truth());
        // The same again, and of one namespace.
        let again = evidence(&server.url(), &["-n", "data"])?;
        let of_data: BTreeMap<_, _> =
            cluster.truth().into_iter().filter(|(title, _)| title.starts_with("data/")).collect();
        assert_true(&again, &of_data);
        let unknown = refusal(&["recommend", "--prometheus", &server.url(), "--since", SINCE, "-n", "dat"])?;
        assert!(unknown.contains("did you mean data?"), "{unknown}");

        let (code, text) = crate::recommend::snug(&[
            "recommend",
            "--prometheus",
            &server.url(),
            "--since",
            SINCE,
            "-o",
            "json",
        ])?;
        assert_eq!(code, Some(0));
        let report: Value = serde_json::from_str(&text)?;
        let all = report["recommendations"].as_array().context("no recommendations")?;
        let killed = all.iter().find(|it| it["workload"] == "leaky").context("no entry")?;
        assert!(killed["recommended"]["memory_limit"].as_u64() > Some(256 << 20), "{killed}");
        let scaled = all.iter().find(|it| it["workload"] == "web").context("no entry")?;
        assert!(scaled["warnings"].to_string().contains("HorizontalPodAutoscaler"), "{scaled}");
    }
    Ok(())
}

#[test]
fn two_clusters_that_are_scraped_twice_are_told_apart() -> Result<()> {
    let (prod, dev) = (Cluster::new("prod", &["a", "b"]), Cluster::smaller("dev", &["a", "b"]));
    let both = prod.beside(&dev);
    let Some(servers) = servers(&both)? else { return Ok(()) };
    for (name, server) in &servers {
        println!("{name}:");
        let all = ["recommend", "--prometheus", &server.url(), "--since", SINCE, "-o"];
        let (code, text) = crate::recommend::snug(&[&all[..], &["json"]].concat())?;
        assert_eq!(code, Some(0));
        let report: Value = serde_json::from_str(&text)?;
        let names = report["clusters"].as_array().into_iter().flatten().map(|it| &it["cluster"]);
        assert_eq!(names.collect::<Vec<_>>(), ["dev", "prod"], "each has results of its own");
        let rows = report["recommendations"].as_array().context("rows")?;
        assert!(rows.iter().all(|row| row["cluster"] == "dev" || row["cluster"] == "prod"));
        let patches = refusal(&[&all[..], &["patch"]].concat())?;
        assert!(patches.contains("select one of dev, prod with --match"), "the choices are named: {patches}");
        for (matcher, cluster) in [("cluster=prod", &prod), ("{cluster!=\"prod\"}", &dev)] {
            assert_true(&evidence(&server.url(), &["--match", matcher])?, &cluster.truth());
        }
    }
    Ok(())
}

#[test]
fn the_load_on_a_server_is_bounded() -> Result<()> {
    let cluster = Cluster::new("", &["a"]);
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus: cargo xtask setup prometheus");
    }
    let server = Server::prometheus(&cluster)?;
    let truth = cluster.truth();
    // Each query takes a little longer than usual.
    let proxy = Proxy::start(server.address, Duration::from_millis(100), None)?;
    let begun = Instant::now();
    let output = run_snug(&["snapshot", "--prometheus", &proxy.url(), "--since", SINCE])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let load = proxy.load();
    println!("{load:?} in {:?}", begun.elapsed());
    assert!(load.queries <= 50, "queries");
    assert_eq!(load.at_once, 1, "queries at the same time");
    assert!(load.points <= 11_000, "points of a series");
    assert!(load.bytes <= 1 << 20, "bytes of a response");
    assert!(errors.contains("snug: reading "), "progress after two seconds: {errors:?}");

    // A server that allows two hours per query gets more and smaller ones.
    let proxy = Proxy::start(server.address, Duration::ZERO, Some(2 * 3600))?;
    assert_true(&evidence(&proxy.url(), &[])?, &truth);
    let limited = proxy.load();
    println!("{limited:?}");
    assert!(limited.refused > 0 && limited.queries <= 200, "{limited:?}");
    // A quick reading does not report progress.
    let output = run_snug(&["snapshot", "--prometheus", &server.url(), "--since", "1h"])?;
    assert_eq!(String::from_utf8(output.stderr)?, "");
    Ok(())
}

/// 38 containers with known usage, if the folder of the cases is there.
#[test]
fn the_larger_cluster_is_read_as_it_is() -> Result<()> {
    let Some(folder) = std::env::var_os("SNUG_METRICS") else {
        println!("skipped: SNUG_METRICS is the folder with metrics.om and metrics.om.truth.json");
        return Ok(());
    };
    larger_cluster(Path::new(&folder))
}

fn larger_cluster(folder: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let truth: BTreeMap<String, Value> = serde_json::from_str(&read("metrics.om.truth.json")?)?;
    let cluster = Cluster::from_open_metrics(read("metrics.om")?);
    let Some(servers) = servers(&cluster)? else { return Ok(()) };
    for (name, server) in &servers {
        let found = evidence(&server.url(), &["--since", "3d"])?;
        assert_eq!(found.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>(), "{name}");
        for (title, truth) in &truth {
            let kills = found[title].kills().count();
            assert_eq!(Some(kills as u64), truth["ooms"].as_u64(), "{name}: OOM kills of {title}");
            let peak = found[title].hours.values().filter_map(|hour| Some(hour.highest()?.bytes)).max();
            let (peak, really) =
                (peak.unwrap_or(0) as f64 / 1_048_576.0, truth["mem_max_mi"].as_f64().unwrap_or(0.0));
            // The metrics go on for some hours after now.
            assert!(
                peak <= really + 0.1 && peak > 0.9 * really,
                "{name}: {peak} MiB of {title}, really {really}"
            );
        }
    }
    Ok(())
}
