//! `snug recommend` on a real agent that watched real containers.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use snug_tests::agent::{self, Agent, Signal};

use crate::{cannot_run, container, container::pod_list};

/// Names the command to test. Without it: the debug build beside the agent.
const CLI: &str = "SNUG_CLI_BIN";
const REPLICAS: u64 = 4;

fn snug(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let beside = || agent::binary().map(|agent| agent.with_file_name("snug"));
    let cli = std::env::var_os(CLI).map(PathBuf::from).map_or_else(beside, Ok)?;
    let output = Command::new(&cli)
        .args(arguments)
        .output()
        .with_context(|| format!("{} does not run: build it with `cargo build -p snug`", cli.display()))?;
    println!("{}", String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

#[test]
fn a_first_table_comes_within_a_minute() -> Result<()> {
    let mut containers = Vec::new();
    for _ in 0..REPLICAS {
        match container() {
            Ok(container) => containers.push(container),
            Err(why) => return cannot_run(why),
        }
    }
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    let list: Vec<Value> = containers
        .iter()
        .map(|container| {
            let mut pod = container.pod("shop", "web", "app");
            pod["metadata"]["name"] = json!(format!("web-5d4f8c7b9c-{}", container.id));
            pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2", "memory": "1Gi"}});
            pod
        })
        .collect();
    fs::write(&pods, pod_list(&list))?;
    let data = folder.path().join("data");
    let options = ["--pods-file", &*pods.to_string_lossy(), "--data-dir", &*data.to_string_lossy()];
    let agent = Agent::start(options)?;
    let url = format!("http://{}", agent.address());
    assert_eq!(snug(&["recommend", "web", "--agent", &url])?.0, Some(3), "nothing was seen yet");
    // A tenth of a second of sleep after 20 MB were filled, again and again.
    let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' a); while :; do i=0; \
                  while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 0.1; done";
    for container in &mut containers {
        container.run(script)?;
    }
    std::thread::sleep(Duration::from_secs(20));
    agent.end_by(Signal::TERM)?;
    let agent = Agent::start(options)?;
    let url = format!("http://{}", agent.address());

    let (code, text) = snug(&["recommend", "web", "--agent", &url, "-o", "json"])?;
    assert_eq!(code, Some(0));
    let report: Value = serde_json::from_str(&text)?;
    println!("{}", snug(&["explain", "web", "--agent", &url])?.1);
    let web = &report["recommendations"][0];
    assert_eq!(
        (&web["workload"], &web["owner"], &web["container"]),
        (&json!("web"), &json!("Deployment"), &json!("app"))
    );
    assert_eq!(web["current"]["cpu_request"], 2000);
    assert_eq!((&web["current"]["memory_request"], &web["confidence"]), (&json!(1_u64 << 30), &json!("low")));
    let peaks = containers.iter().map(|container| -> Result<u64> {
        Ok(container.read("memory.peak", "memory.max_usage_in_bytes")?.trim().parse()?)
    });
    let peak = peaks.collect::<Result<Vec<_>>>()?.into_iter().max().context("no container")?;
    let limit = web["recommended"]["memory_limit"].as_u64().context("no limit")?;
    assert!(limit >= 20_000_000 && limit <= 3 * peak + (2 << 20), "{limit} for {peak}");
    let request = web["recommended"]["cpu_request"].as_u64().context("no request")?;
    assert!((5..1500).contains(&request), "{request} m");
    let (code, patch) = snug(&["recommend", "web", "--agent", &url, "-o", "patch"])?;
    assert!(code == Some(0) && patch.starts_with("kubectl -n shop patch deployment/web "), "{patch}");
    Ok(())
}
