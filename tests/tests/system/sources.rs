//! eBPF programs and cgroup files give the same series.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use snug_tests::agent::Agent;

use crate::{cannot_run, container, container::pod_list};

/// The families of a container and the names of their labels.
fn shape(agent: &Agent, id: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let page = agent.scrape("/metrics")?;
    let of_container = page.0.into_iter().filter(|sample| sample.label("id") == id);
    Ok(of_container.map(|sample| (sample.name, sample.labels.into_keys().collect())).collect())
}

#[test]
fn measuring_by_files_gives_the_same_families() -> Result<()> {
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    container.run("sleep 60")?;
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(&pods, pod_list(&[container.pod("shop", "web", "app")]))?;
    let pods = pods.to_string_lossy();
    let files = Agent::start(["--pods-file", &pods, "--source", "files"])?;
    let page = files.scrape("/metrics")?;
    for source in page.all("snug_agent_measurement_source", &[]) {
        assert!(["files", "none"].contains(&source.label("source")), "{source:?}");
    }
    for program in page.all("snug_agent_program_info", &[]) {
        assert_eq!(program.label("verdict"), "unsupported", "asked for is not failed");
        assert!(program.label("reason").contains("source is set to files"), "{program:?}");
    }
    let kernel = Agent::start(["--pods-file", &pods, "--source", "kernel"])?;
    let used = kernel.scrape("/metrics")?.all("snug_agent_measurement_source", &[("source", "kernel")]).len();
    if used == 0 {
        return cannot_run(format!("the kernel programs measure nothing here: {}", kernel.log()));
    }
    let mut by_kernel = shape(&kernel, &container.path)?;
    assert!(by_kernel.contains_key("snug_container_cpu_usage_seconds_total"), "{by_kernel:?}");
    // No file has the counters of sockets.
    let of_sockets = |name: &String| {
        name.starts_with("snug_container_network_") || name.starts_with("snug_container_tcp_")
    };
    assert_eq!(by_kernel.keys().filter(|name| of_sockets(name)).count(), 6, "{by_kernel:?}");
    by_kernel.retain(|name, _| !of_sockets(name));
    assert_eq!(shape(&files, &container.path)?, by_kernel);
    Ok(())
}
