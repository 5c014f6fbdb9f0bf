//! `snug recommend` with a real agent and real containers.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use snug_sizing::{evidence::Evidence, histogram::Histogram};
use snug_tests::agent::{self, Agent, Process, Signal, eventually};
use tempfile::TempDir;

use crate::{
    cannot_run, container,
    container::{Container, pod_list},
    has_program,
    otlp::{authority, signed},
    prometheus::Prometheus,
};

/// The variable with the path of the command. Default: the debug build beside the agent.
const CLI: &str = "SNUG_CLI_BIN";
const REPLICAS: u64 = 4;

pub(crate) fn snug(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = run_snug(arguments)?;
    println!("{}", String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

/// The command to test.
pub(crate) fn cli() -> Result<PathBuf> {
    let beside = || agent::binary().map(|agent| agent.with_file_name("snug"));
    std::env::var_os(CLI).map(PathBuf::from).map_or_else(beside, Ok)
}

pub(crate) fn run_snug(arguments: &[&str]) -> Result<Output> {
    let cli = cli()?;
    Command::new(&cli)
        .args(arguments)
        .output()
        .with_context(|| format!("{} does not run: build it with `cargo build -p snug`", cli.display()))
}

/// A script that repeatedly fills 20 MB and sleeps for a tenth of a second.
const SCRIPT: &str = "x=$(head -c 20000000 /dev/zero | tr '\\0' a); while :; do i=0; \
                      while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 0.1; done";

/// Containers of a Deployment `shop/web`, and their pods file.
fn replicas(folder: &Path) -> Result<Result<(Vec<Container>, String), String>> {
    let mut containers = Vec::new();
    for _ in 0..REPLICAS {
        match container() {
            Ok(container) => containers.push(container),
            Err(why) => return Ok(Err(why)),
        }
    }
    let pods = containers.iter().enumerate().map(|(number, container)| {
        let mut pod = container.pod("shop", "web", "app");
        pod["metadata"]["name"] = json!(format!("web-5d4f8c7b9c-x7k2{number}"));
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2", "memory": "64Mi"}});
        pod
    });
    let file = folder.join("pods.json");
    fs::write(&file, pod_list(&pods.collect::<Vec<_>>()))?;
    Ok(Ok((containers, file.to_string_lossy().into_owned())))
}

/// Checks the recommendation for `shop/web` against the cgroup files.
fn assert_fits(web: &Value, containers: &[Container]) -> Result<()> {
    assert_eq!(
        (&web["workload"], &web["container"], &web["replicas"]),
        (&json!("web"), &json!("app"), &json!(REPLICAS))
    );
    let peaks = containers.iter().map(|container| -> Result<u64> {
        Ok(container.read("memory.peak", "memory.max_usage_in_bytes")?.trim().parse()?)
    });
    let peak = peaks.collect::<Result<Vec<_>>>()?.into_iter().max().context("no container")?;
    let limit = web["recommended"]["memory_limit"].as_u64().context("no limit")?;
    // With a minute of history, most of the limit is headroom.
    assert!(limit >= 20_000_000 && limit <= 5 * peak + (2 << 20), "{limit} for {peak}");
    let request = web["recommended"]["cpu_request"].as_u64().context("no request")?;
    // A request of two cores is lowered by at most a quarter at once.
    assert!((5..=1500).contains(&request), "{request} m");
    assert_eq!(web["confidence"], "low");
    Ok(())
}

#[test]
fn the_first_table_is_available_within_a_minute() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut containers, pods) = match replicas(folder.path())? {
        Ok(made) => made,
        Err(why) => return cannot_run(why),
    };
    let data = folder.path().join("data");
    let options = ["--pods-file", &*pods, "--data-dir", &*data.to_string_lossy()];
    let agent = Agent::start(options)?;
    let url = format!("http://{}", agent.address());
    assert_eq!(snug(&["recommend", "web", "--agent", &url])?.0, Some(3), "nothing was seen yet");
    containers.iter_mut().try_for_each(|container| container.run(SCRIPT).map(drop))?;
    std::thread::sleep(Duration::from_secs(20));
    agent.end_by(Signal::TERM)?;
    let agent = Agent::start(options)?;
    let url = format!("http://{}", agent.address());

    let (code, text) = snug(&["recommend", "web", "--agent", &url, "-o", "json"])?;
    assert_eq!(code, Some(0));
    let report: Value = serde_json::from_str(&text)?;
    println!("{}", snug(&["explain", "web", "--agent", &url])?.1);
    let web = &report["recommendations"][0];
    assert_fits(web, &containers)?;
    assert_eq!((&web["owner"], &web["current"]["cpu_request"]), (&json!("Deployment"), &json!(2000)));
    assert_eq!(web["current"]["memory_request"], 64 << 20);
    let (code, patch) = snug(&["recommend", "web", "--agent", &url, "-o", "patch"])?;
    assert!(code == Some(0) && patch.starts_with("kubectl -n shop patch deployment/web "), "{patch}");
    Ok(())
}

/// Busy replicas, an agent, and a Prometheus that has scraped the agent for some time.
struct Scraped {
    prometheus: Prometheus,
    agent: Agent,
    containers: Vec<Container>,
    _folder: TempDir,
}

/// The same with further flags of the agent and of Prometheus; `None` if this host cannot run it.
fn scraped(of_agent: &[&str], of_prometheus: &[&str]) -> Result<Option<Scraped>> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus: cargo xtask setup prometheus").map(|()| None);
    }
    let folder = tempfile::tempdir()?;
    let (mut containers, pods) = match replicas(folder.path())? {
        Ok(made) => made,
        Err(why) => return cannot_run(why).map(|()| None),
    };
    containers.iter_mut().try_for_each(|container| container.run(SCRIPT).map(drop))?;
    let agent = Agent::start(["--pods-file", &*pods].iter().chain(of_agent))?;
    let prometheus = Prometheus::with(of_prometheus, agent.address(), &[])?;
    std::thread::sleep(Duration::from_secs(25));
    Ok(Some(Scraped { prometheus, agent, containers, _folder: folder }))
}

/// The usage history of the only workload in the namespace `shop`, from a Prometheus.
fn snapshot(url: &str) -> Result<Evidence> {
    let (_, recording) = snug(&["snapshot", "--prometheus", url, "--since", "1h", "-n", "shop"])?;
    Ok(serde_json::from_str(recording.lines().nth(1).context("no evidence")?)?)
}

#[test]
fn a_prometheus_with_the_kubelets_metrics_is_enough() -> Result<()> {
    let Some(all) = scraped(&[], &[])? else { return Ok(()) };
    let Scraped { containers, prometheus, .. } = &all;
    let url = prometheus.url();
    let (code, text) =
        snug(&["recommend", "--prometheus", &url, "--since", "1h", "-n", "shop", "-o", "json"])?;
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text)?;
    println!("{}", snug(&["explain", "web", "--prometheus", &url, "--since", "1h"])?.1);
    assert_fits(&report["recommendations"][0], containers)?;
    // The CPU time in Prometheus equals that of the cgroups, for the observed time.
    let evidence = snapshot(&url)?;
    let (seconds, millis) =
        evidence.pods.values().fold((0, 0), |sum, pod| (sum.0 + pod.observed, sum.1 + pod.cpu_millis));
    let used: f64 = containers.iter().map(Container::cpu_seconds).sum::<Result<f64>>()?;
    println!("{millis} ms in {seconds} s; {used} s in all");
    assert!(evidence.pods.len() as u64 == REPLICAS && seconds >= 60 && millis > 0, "{evidence:?}");
    assert!((millis as f64) / 1000.0 <= used + 0.5, "{millis} ms of {used} s");

    let elsewhere = snug(&["recommend", "--prometheus", &url, "-n", "elsewhere"])?;
    assert_eq!(elsewhere.0, Some(1), "no containers there: {}", elsewhere.1);
    Ok(())
}

#[test]
fn a_prometheus_with_snugs_histograms_has_windows_and_quota_simulations() -> Result<()> {
    let flags = (&["--cpu-ladder", "on"], &["--enable-feature=native-histograms"]);
    let Some(all) = scraped(flags.0, flags.1)? else { return Ok(()) };
    let Scraped { agent, prometheus, .. } = &all;
    let url = prometheus.url();
    // `increase` lacks the counts before the first scrape and after the last multiple of a window, and extrapolates slightly.
    let (windows, count, sum) =
        eventually(Duration::from_secs(90), "most windows are in Prometheus", || {
            let evidence = snapshot(&url)?;
            let page = agent.scrape("/metrics")?;
            assert_eq!((evidence.window_millis, evidence.pods.len() as u64), (100, REPLICAS));
            let mut windows = Histogram::default();
            evidence.hours.values().for_each(|hour| windows.merge(&hour.cpu));
            let of_agent = |part: &str| -> f64 {
                let all =
                    page.all(&format!("snug_container_cpu_window_cores_{part}"), &[("namespace", "shop")]);
                all.iter().map(|sample| sample.value).sum()
            };
            let (count, sum) = (of_agent("count"), of_agent("sum"));
            println!(
                "{} windows of {count}; means {} and {}",
                windows.count(),
                windows.sum() / windows.count() as f64,
                sum / count
            );
            let has_most = (0.5 * count..1.1 * count).contains(&(windows.count() as f64));
            Ok(has_most.then_some((windows, count, sum)))
        })?;
    assert!((windows.sum() / windows.count() as f64 / (sum / count) - 1.0).abs() < 0.25);

    let (code, text) = snug(&[
        "recommend",
        "--prometheus",
        &url,
        "--since",
        "1h",
        "-n",
        "shop",
        "--cpu-limit",
        "by-risk",
        "-o",
        "json",
    ])?;
    let report: Value = serde_json::from_str(&text)?;
    let limit = report["recommendations"][0]["recommended"]["cpu_limit"].as_u64();
    assert!(code == Some(0) && limit.is_some(), "{text}");
    Ok(())
}

#[test]
fn a_prometheus_with_tls_requires_a_trusted_certificate_authority() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus: cargo xtask setup prometheus");
    }
    let folder = tempfile::tempdir()?;
    let (ours, issuer) = authority(folder.path(), "ours")?;
    let (others, _) = authority(folder.path(), "others")?;
    let (certificate, key) = signed(folder.path(), "server", &issuer)?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let config = file("prometheus.yml", "scrape_configs: []\n")?;
    let tls = format!("tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\n");
    let web = file("web.yml", &tls)?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={config}"))
        .arg(format!("--web.config.file={web}"))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"));
    let prometheus = Process::spawn(&mut command)?;
    eventually(Duration::from_secs(30), "Prometheus listens", || Ok(TcpStream::connect(address).ok()))?;
    let url = format!("https://localhost:{}", address.port());
    let asked = |authority: &str| -> Result<String> {
        let output = run_snug(&["recommend", "--prometheus", &url, "--certificate-authority", authority])?;
        assert_eq!(output.status.code(), Some(1));
        Ok(String::from_utf8(output.stderr)?)
    };
    let output = eventually(Duration::from_secs(30), "it answers", || {
        let output = asked(&ours)?;
        // Prometheus refuses queries until its write-ahead log is replayed.
        Ok((!output.contains("503")).then_some(output))
    })?;
    assert!(
        output.contains("container_cpu_usage_seconds_total"),
        "it has no containers: {output}\n{}",
        prometheus.log()
    );
    let output = asked(&others)?;
    assert!(output.contains("certificate"), "{output}");
    Ok(())
}
