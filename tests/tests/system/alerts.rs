//! The alerts and dashboards with a real Prometheus that scrapes a real agent, which measures containers in trouble.

mod agent;
mod dashboards;
mod leak;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use snug_tests::{
    agent::{Agent, Signal, eventually},
    manifests::deploy,
};
use tempfile::TempDir;

use crate::{
    cannot_run, container,
    container::{Container, pod_list},
    has_program,
    prometheus::Prometheus,
};

/// How long alerts may take, with the times of [`rules`].
const SOON: Duration = Duration::from_secs(120);
/// Memory limit of the container that is killed.
const SMALL: u64 = 16 << 20;
/// Memory that a container holds, and its limit.
const HELD: u64 = 300 << 20;
const LARGE: u64 = 400 << 20;
/// How often a container restarts: the alert fires above five restarts.
const RESTARTS: u32 = 8;
/// Ranges of `deploy/monitoring/rules.yaml` and shorter ones.
const SHORTER: [(&str, &str); 4] =
    [("[1d]", "[20s]"), ("[1h]", "[1m]"), ("[15m]", "[20s]"), ("[5m]", "[20s]")];

/// The rules with short ranges, and with two seconds for which conditions have to be true.
fn rules() -> Result<String> {
    let mut rules = fs::read_to_string(deploy().join("monitoring/rules.yaml"))?;
    for (long, short) in SHORTER {
        rules = rules.replace(long, short);
    }
    let lines = rules.lines().map(|line| match line.split_once(" for: ") {
        Some((before, _)) => format!("{before} for: 2s\n"),
        None => format!("{line}\n"),
    });
    Ok(lines.collect())
}

/// A Prometheus with the shortened rules that scrapes an agent.
fn prometheus(agent: &Agent) -> Result<Prometheus> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules()?)?;
    Prometheus::with_rules(&["--enable-feature=native-histograms"], agent.address(), &[], Some(&file))
}

/// An alert: its name with its label `resource`, if it has one, and its workload; without a workload it is about the agent.
type Alert = (String, String);

fn alert(name: &str, workload: &str) -> Alert {
    (name.to_owned(), workload.to_owned())
}

/// The alerts that fire for workloads of the namespace `shop`, and for the agent. Containers of other tests have no namespace here.
fn firing(prometheus: &Prometheus) -> Result<BTreeSet<Alert>> {
    let alerts = prometheus.query("ALERTS{alertstate='firing',namespace='shop'} or ALERTS{alertstate='firing',alertname=~'SnugAgent.*'}", None)?;
    let alert = |(labels, _): (BTreeMap<String, String>, f64)| {
        let of = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let name = [of("alertname"), of("resource")].join(" ");
        (name.trim().to_owned(), of("workload").to_owned())
    };
    Ok(alerts.into_iter().map(alert).collect())
}

/// Waits until these alerts fire, and no others that `counts`.
fn await_firing(
    prometheus: &Prometheus,
    within: Duration,
    expected: &[Alert],
    counts: impl Fn(&Alert) -> bool,
) -> Result<()> {
    let expected: BTreeSet<Alert> = expected.iter().cloned().collect();
    let mut last = BTreeSet::new();
    eventually(within, "the alerts fire", || {
        last = firing(prometheus)?;
        last.retain(|alert| counts(alert) || expected.contains(alert));
        Ok((last == expected).then_some(()))
    })
    .with_context(|| format!("{last:?} fire, not {expected:?}"))
}

/// Whether an alert is about this agent and these workloads alone: on a busy host an agent may lose samples, and other tests have
/// containers without names.
fn is_of_this_test((name, _): &Alert) -> bool {
    name != "SnugAgentLosesSamples" && name != "SnugAgentWithoutNames"
}

/// A pod of the namespace `shop` with one container.
struct Pod {
    name: &'static str,
    container: Container,
    requests: Value,
    restarts: u32,
}

impl Pod {
    fn new(name: &'static str, requests: Value) -> Result<Self, String> {
        Ok(Self { name, container: container()?, requests, restarts: 0 })
    }

    /// The pod as the API server lists it.
    fn listed(&self) -> Value {
        let mut pod = self.container.pod("shop", self.name, "app");
        pod["status"]["containerStatuses"][0]["restartCount"] = self.restarts.into();
        if self.requests != json!({}) {
            pod["spec"]["containers"][0]["resources"] =
                json!({ "requests": self.requests, "limits": { "cpu": "2", "memory": "1Gi" } });
        }
        pod
    }
}

/// Workloads each of which is in one kind of trouble.
struct Shop {
    /// Is killed at its memory limit again and again.
    greedy: Pod,
    /// May use a tenth of a core, and would use more.
    slow: Pod,
    /// Requests far more than it uses.
    idle: Pod,
    /// Uses far more CPU time than it requests.
    busy: Pod,
    /// Uses far more memory than it requests.
    full: Pod,
    /// Restarts again and again.
    restarting: Pod,
    /// Has no requests. Its connections are refused.
    talker: Pod,
    folder: TempDir,
}

impl Shop {
    fn make() -> Result<Self, String> {
        let some = || json!({ "cpu": "750m", "memory": "64Mi" });
        Ok(Self {
            greedy: Pod::new("greedy", some())?,
            slow: Pod::new("slow", some())?,
            idle: Pod::new("idle", json!({ "cpu": "2", "memory": "2Gi" }))?,
            busy: Pod::new("busy", json!({ "cpu": "100m", "memory": "64Mi" }))?,
            full: Pod::new("full", some())?,
            restarting: Pod::new("restarting", some())?,
            talker: Pod::new("talker", json!({}))?,
            folder: tempfile::tempdir().map_err(|error| error.to_string())?,
        })
    }

    fn pods(&self) -> [&Pod; 7] {
        [&self.greedy, &self.slow, &self.idle, &self.busy, &self.full, &self.restarting, &self.talker]
    }

    /// Writes the list of pods that the agent reads. Returns its path.
    fn list(&self) -> Result<String> {
        let (file, new) = (self.folder.path().join("pods.json"), self.folder.path().join("new.json"));
        fs::write(&new, pod_list(&self.pods().map(Pod::listed)))?;
        fs::rename(new, &file)?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// Starts the containers. `served` answers HTTP.
    fn start(&mut self, served: SocketAddr) -> Result<()> {
        let limit = |container: &Container, bytes: u64| {
            let bytes = bytes.to_string();
            container.set(("memory.max", &bytes), ("memory.limit_in_bytes", &bytes))
        };
        limit(&self.greedy.container, SMALL)?;
        limit(&self.full.container, LARGE)?;
        self.slow.container.set(("cpu.max", "10000 100000"), ("cpu.cfs_quota_us", "10000"))?;
        // The kernel kills the largest process, which is not the shell that starts the next one.
        self.greedy.container.run("exec 2> /dev/null; while :; do tail /dev/zero; sleep 0.5; done")?;
        self.slow.container.run("while :; do :; done")?;
        self.idle.container.run("exec sleep 1000")?;
        self.busy.container.be_busy()?;
        self.full
            .container
            .run(&format!("(head -c {HELD} /dev/zero; exec sleep 1000) | tail -c {LARGE} > /dev/null"))?;
        let (host, port) = (served.ip(), served.port());
        self.talker.container.run(&format!(
            "exec bash -c 'while :; do : 2> /dev/null > /dev/tcp/{host}/1; exec 3<> /dev/tcp/{host}/{port}; \
             echo GET / >&3; cat <&3; exec 3>&-; sleep 0.5; done' > /dev/null 2>&1"
        ))?;
        Ok(())
    }

    /// Restarts a container until the alert has to fire.
    fn restart(&mut self) -> Result<()> {
        for restarts in 0..=RESTARTS {
            self.restarting.container.run("exec sleep 1000")?;
            thread::sleep(Duration::from_secs(1));
            if restarts < RESTARTS {
                self.restarting.restarts += 1;
                self.restarting.container.restart()?;
                self.list()?;
            }
        }
        Ok(())
    }
}

#[test]
fn each_alert_fires_for_the_workload_in_trouble_only_and_for_an_agent_that_is_gone() -> Result<()> {
    for program in ["prometheus", "bash"] {
        if !has_program(program) {
            return cannot_run(format!("there is no {program}"));
        }
    }
    let (mut shop, unknown) = match Shop::make().and_then(|shop| Ok((shop, container()?))) {
        Ok(made) => made,
        Err(why) => return cannot_run(why),
    };
    let agent = Agent::start(["--pods-file", &shop.list()?, "--runqueue", "on"])?;
    let prometheus = prometheus(&agent)?;
    shop.start(agent.address())?;
    shop.restart()?;
    let expected = [
        alert("SnugOOMLoop", "greedy"),
        alert("SnugThrottlingHurts", "slow"),
        alert("SnugRequestAboveUse cpu", "idle"),
        alert("SnugRequestAboveUse memory", "idle"),
        alert("SnugUseAboveRequest cpu", "busy"),
        alert("SnugUseAboveRequest memory", "full"),
        alert("SnugRestartStorm", "restarting"),
        // The agent's: one container has no pod.
        alert("SnugAgentWithoutNames", ""),
    ];
    await_firing(&prometheus, SOON, &expected, is_of_this_test)?;
    dashboards::show(&prometheus, &agent)?;

    agent.end_by(Signal::KILL)?;
    let gone = [alert("SnugAgentDown", ""), alert("SnugAgentAbsent", "")];
    await_firing(&prometheus, SOON, &gone, |(_, workload)| workload.is_empty())?;
    drop(unknown);
    Ok(())
}

/// Each alert of the rules fires in a test of these files.
#[test]
fn no_alert_is_left_out() -> Result<()> {
    let rules = fs::read_to_string(deploy().join("monitoring/rules.yaml"))?;
    let tests = [include_str!("alerts.rs"), include_str!("alerts/agent.rs"), include_str!("alerts/leak.rs")];
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let left_out: Vec<&str> =
        names.filter(|name| !tests.iter().any(|test| test.contains(&format!("alert(\"{name}")))).collect();
    ensure!(left_out.is_empty(), "{left_out:?}");
    Ok(())
}
